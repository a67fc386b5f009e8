import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from benchmarks.heartbeat import cleaned, judged, judged_signals
from benchmarks.heartbeat_signals import HeartbeatSettings, HeartbeatSignals, record
from rtdecode.phantom.body.pulse import Heart
from rtdecode.signal.eeg.quality import CORRECTED, GAP, LEARNING, UNCORRECTED
from rtdecode.signal.heartbeat.beats import BeatFinder
from rtdecode.signal.heartbeat.match import Matcher, find_beats
from rtdecode.signal.heartbeat.remover import Heartbeat, HeartbeatRemover
from rtdecode.signal.heartbeat.rpeaks import RPeaks, vertex
from rtdecode.signal.heartbeat.wave import Beat, PulseWave, lagrange, shifted

SMALL = {"seconds": 48.0, "sfreq": 250.0, "channels": 24}
FROM_S = 26.0


@functools.lru_cache
def small(**changes) -> HeartbeatSignals:
    return record(HeartbeatSettings(**(SMALL | changes)))


def with_ecg(recording: HeartbeatSignals, ecg: np.ndarray) -> HeartbeatSignals:
    return HeartbeatSignals(
        recording.sfreq, np.concatenate([recording.data[:-1], ecg[None]]), recording.eeg, recording.beats
    )


def peaks_of(ecg: np.ndarray, sfreq: float, chunk: int = 100) -> np.ndarray:
    finder = RPeaks(sfreq)
    peaks = [p for i in range(0, len(ecg), chunk) for p in finder.push(ecg[i : i + chunk])]
    return np.array(peaks) / sfreq


@pytest.mark.parametrize("sfreq", [250.0, 500.0, 1000.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_r_peaks_of_a_raised_t_wave_under_gradients(sfreq, sign):
    recording = small(sfreq=sfreq, channels=4, t_wave_uv=2500.0, gradient_uv=120.0, seconds=40.0)
    peaks = peaks_of(sign * recording.data[-1], sfreq)
    true = recording.beats[(recording.beats > 3) & (recording.beats < 39.6)]
    errors = np.abs(true[:, None] - peaks[None, :]).min(axis=1)
    false = np.abs(peaks[:, None] - recording.beats[None, :]).min(axis=1)
    assert errors.max() < 0.010
    assert false.max() < 0.010


def test_r_peaks_come_within_the_stated_delay():
    recording = small()
    finder = RPeaks(recording.sfreq)
    for n, value in enumerate(recording.data[-1][: 30 * 250]):
        for place in finder.push(np.array([value])):
            assert n - place <= 0.312 * recording.sfreq + 1


@pytest.mark.parametrize(("interval_s", "reported"), [(1.5, True), (2.3, False)])
def test_a_faint_beat_is_reported_if_it_is_overdue_before_its_time_is_over(interval_s, reported):
    """A beat is overdue 0.15 intervals late, and reported within 0.31 s."""
    beats = np.concatenate([np.arange(1.0, 10.0), 10.0 + interval_s * np.arange(20)])
    times = np.arange(250 * 40) / 250
    ecg = np.random.default_rng(0).normal(0, 5, len(times))
    for number, beat in enumerate(beats):
        ecg += (200 if number == 19 else 1000) * np.exp(-np.square((times - beat) / 0.012))
    finder = RPeaks(250)
    pushed = [np.array(finder.push(np.array([value]))) / 250 for value in ecg]
    assert max(now - peak for now, peaks in zip(times, pushed, strict=True) for peak in peaks) < 0.312
    peaks = np.concatenate(pushed)
    assert np.abs(peaks - beats[18]).min() < 0.1
    assert (np.abs(peaks - beats[19]).min() < 0.1) == reported


def test_thresholds_follow_a_lead_that_loosens():
    recording = small()
    ecg = recording.data[-1].copy()
    ecg[30 * 250 :] *= 0.15
    peaks = peaks_of(ecg, 250)
    true = recording.beats[(recording.beats > 36) & (recording.beats < 47)]
    assert np.abs(true[:, None] - peaks[None, :]).min(axis=1).max() < 0.012


def test_a_maximum_lies_between_its_neighbours_and_at_an_end_nowhere_else():
    parabola = -np.square(np.arange(5) - 2.3)
    assert vertex(parabola, 2) == pytest.approx(0.3)
    assert vertex(parabola[:3], 2) == vertex(parabola[2:], 0) == 0


def test_a_slow_signal_has_no_r_peaks_at_that_rate():
    with pytest.raises(ValueError, match="200 samples a second"):
        RPeaks(100)


@functools.lru_cache
def small_cleaned(**changes) -> tuple[HeartbeatRemover, np.ndarray, np.ndarray]:
    return cleaned(small(**changes))


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.full)])
def test_template_bars(seed):
    changes = {"seed": seed} if seed else {}
    _, clean, quality = small_cleaned(**changes)
    figures = judged_signals(small(**changes), clean, quality, FROM_S)
    assert figures["uncorrected_correlation"] < 0.5
    assert figures["down_db"] >= 15
    assert figures["correlation"] >= 0.90
    assert 0.9 <= figures["alpha"] <= 1.1


@pytest.mark.parametrize(("sfreq", "step"), [(200.0, 1), (250.0, 2), (500.0, 4), (1000.0, 8), (1024.0, 8)])
def test_samples_leave_in_steps_of_8_ms(sfreq, step):
    remover = HeartbeatRemover(sfreq, 5, 4)
    quality = np.full(1, CORRECTED, np.uint8)
    counts = [remover.push(np.ones((5, 1)), quality)[0].shape[1] for _ in range(int(2 * sfreq))]
    assert set(counts) == {0, step}


def test_size_is_fitted_beat_by_beat():
    jittery = small(size_jitter=0.4, modes_jitter=0.0)
    assert judged(jittery, FROM_S)["down_db"] >= 15


@pytest.mark.parametrize("interval_s", [0.6, 1.1])
def test_without_an_electrocardiogram_the_eeg_tells_the_beats(interval_s):
    figures = judged(small(interval_s=interval_s), FROM_S, ecg=False)
    assert figures["down_db"] >= 15
    assert figures["correlation"] >= 0.90
    assert 0.9 <= figures["alpha"] <= 1.1


def test_reference_bars_without_delay():
    recording = small(references=4)
    figures = judged(recording, FROM_S, references=4)
    assert figures["down_db"] >= 20
    assert figures["correlation"] >= 0.93
    assert 0.9 <= figures["alpha"] <= 1.1
    remover = HeartbeatRemover(250, 29, 28, (24, 25, 26, 27))
    out, quality = remover.push(recording.data[:, :333], np.full(333, CORRECTED, np.uint8))
    assert out.shape == (29, 333)
    assert (quality == LEARNING).all()
    assert remover.hold_s == 0


def test_many_references_are_a_layer_of_electrodes():
    figures = judged(small(references=30), FROM_S, references=30)
    assert figures["down_db"] >= 20


def test_the_phantoms_heart():
    recording = small(artefact=False)
    times = np.arange(recording.data.shape[1]) / 250
    angle = np.linspace(0, 2 * np.pi, 24)
    places = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1).astype(np.float32)
    heart = Heart(1, places, 3, 0.0, 70.0)
    data = np.concatenate([recording.eeg + heart.voltages(times), heart.ecg(times)[None]]).astype(np.float64)
    both = HeartbeatSignals(250.0, data, recording.eeg, heart.beats)
    for led in (True, False):
        figures = judged(both, FROM_S, ecg=led)
        assert figures["down_db"] >= 15
        assert figures["correlation"] >= 0.90
        assert 0.9 <= figures["alpha"] <= 1.1


def test_early_beats_do_not_spoil_the_template():
    assert judged(small(ectopic=(20, 38, 45, 52)), FROM_S)["down_db"] >= 15


def test_beats_that_moved_nothing_teach_nothing():
    recording = small()
    data = recording.data.copy()
    still = [beat for beat in recording.beats if 22 < beat < 44][::4]
    for beat in still:
        part = slice(int((beat + 0.06) * 250), int((beat + 0.85) * 250))
        data[:24, part] = recording.eeg[:, part]
    usual_report = small_cleaned()[0].report()
    report = cleaned(HeartbeatSignals(250.0, data, recording.eeg, recording.beats))[0].report()
    assert report["beats_ecg"] == usual_report["beats_ecg"]
    assert report["beats_learned"] <= usual_report["beats_learned"] - len(still)
    assert report["peak_uv"] > 0.96 * usual_report["peak_uv"]


def test_beats_that_the_electrocardiogram_misses_are_seen_in_the_eeg():
    recording = small()
    ecg = recording.data[-1].copy()
    for beat in recording.beats[24::4]:
        ecg[int((beat - 0.1) * 250) : int((beat + 0.1) * 250)] *= 0.05
    remover, clean, quality = cleaned(with_ecg(recording, ecg))
    assert remover.report()["beats_eeg"] >= 6
    assert (quality[int(FROM_S * 250) : -100] == CORRECTED).mean() > 0.97
    assert judged_signals(with_ecg(recording, ecg), clean, quality, FROM_S)["down_db"] >= 15


@pytest.mark.parametrize("noise_uv", [0.0, 300.0])
def test_a_lost_electrocardiogram_gives_way_to_the_eeg(noise_uv):
    recording = small()
    ecg = recording.data[-1].copy()
    ecg[25 * 250 :] = noise_uv * np.random.default_rng(0).standard_normal(len(ecg) - 25 * 250)
    figures = judged(with_ecg(recording, ecg), 36)
    assert figures["down_db"] >= 15
    assert figures["correlation"] >= 0.90


def test_a_lead_that_comes_back_counts_again():
    recording = small(seconds=62.0)
    ecg = recording.data[-1].copy()
    ecg[22 * 250 : 32 * 250] = 0
    remover, _, _ = cleaned(with_ecg(recording, ecg))
    report = remover.report()
    # Ten seconds by the EEG and the few until the lead is trusted; the others by the lead.
    assert 8 <= report["beats_eeg"] <= 22
    assert report["beats_ecg"] >= 40


def test_a_lead_that_comes_back_is_not_judged_by_beats_that_it_did_not_report():
    lead = small(seconds=20.0, channels=4).data[-1]
    finder = BeatFinder(250.0, 2, has_ecg=True)
    silent = np.zeros((50, 4))
    for _ in range(6 * 125):
        finder.push(np.zeros(2), True, silent, None)
    assert not finder.ecg_good
    # Beats of the EEG that turned out faint, while the lead showed none.
    for _ in range(4):
        finder.judge(False)
    good = []
    for step in lead.reshape(-1, 2):
        finder.push(step, True, silent, None)
        good.append(finder.ecg_good)
    assert any(good)
    assert all(good[good.index(True) :])


@pytest.mark.parametrize("ecg", [True, False])
def test_outside_the_magnet_nothing_is_taken_away(ecg):
    recording = small(artefact=False)
    figures = judged(recording, 20, ecg=ecg)
    assert figures["correlation"] > 0.99
    assert 0.97 < figures["alpha"] < 1.03


def test_a_loose_electrode_does_not_spoil_the_others():
    recording = small()
    data = recording.data.copy()
    data[5] += 5000 * np.random.default_rng(1).standard_normal(data.shape[1])
    _, clean, _ = cleaned(HeartbeatSignals(250.0, data, recording.eeg, recording.beats))
    good = np.delete(np.arange(24), 5)
    late = slice(30 * 250, 47 * 250)
    residual = (clean[good] - recording.eeg[good])[:, late]
    residual -= residual.mean(axis=1, keepdims=True)
    before = recording.artefact[good][:, late]
    assert 10 * np.log10((before**2).mean() / (residual**2).mean()) >= 13


def test_quality_learns_first():
    remover, clean, quality = small_cleaned()
    assert clean.shape == small().data.shape
    assert (quality[: 8 * 250] == LEARNING).all()
    assert (quality[20 * 250 : -100] == CORRECTED).all()
    assert 60 < remover.report()["per_minute"] < 80


def test_uncorrected_samples_stay_so_and_teach_nothing():
    recording = small()
    data = recording.data.copy()
    quality = np.full(data.shape[1], CORRECTED, np.uint8)
    bad = slice(28 * 250, 33 * 250)
    quality[bad] = UNCORRECTED
    data[:, bad] += 3000 * np.random.default_rng(0).standard_normal((25, 5 * 250))
    hurt = HeartbeatSignals(250.0, data, recording.eeg, recording.beats)
    _, clean, marks = cleaned(hurt, quality=quality)
    assert (marks[bad] == UNCORRECTED).all()
    assert judged_signals(hurt, clean, marks, 36)["down_db"] >= 15
    np.testing.assert_array_equal(clean[-1], data[-1].astype(np.float32))


def test_an_offset_of_the_electrodes_changes_nothing_where_samples_are_uncorrected():
    recording = small()
    quality = np.full(recording.data.shape[1], CORRECTED, np.uint8)
    for beat in recording.beats[20:]:
        quality[int((beat + 0.12) * 250) :][:10] = UNCORRECTED
    offset = np.append(np.full(24, 3000.0), 0.0)[:, None]
    without, moved = (
        HeartbeatRemover(250, 25, 24).push(recording.data + added, quality)[0] for added in (0.0, offset)
    )
    np.testing.assert_allclose(moved - offset, without, atol=1e-6)


def test_values_that_are_no_numbers_are_a_gap_and_do_no_harm():
    recording = small()
    data = recording.data.copy()
    data[3, 7000:7050] = np.nan
    data[24, 7020] = np.inf
    _, clean, marks = cleaned(HeartbeatSignals(250.0, data, recording.eeg, recording.beats))
    assert (marks[7000:7050] == GAP).all()
    assert np.isfinite(clean[:, 7050:]).all()
    assert (marks[7500:-100] == CORRECTED).mean() > 0.95


def test_after_a_gap_the_template_is_still_known():
    recording = small()
    quality = np.full(recording.data.shape[1], CORRECTED, np.uint8)
    remover = HeartbeatRemover(250, 25, 24)
    first = 30 * 250
    out = [remover.push(recording.data[:, :first], quality[:first]), remover.flush()]
    assert sum(part[0].shape[1] for part in out) == first
    assert (out[1][1] <= LEARNING).all()
    again = first + 700  # lost samples
    out = [remover.push(recording.data[:, again:], quality[again:]), remover.flush()]
    clean = np.concatenate([part[0] for part in out], axis=1)
    marks = np.concatenate([part[1] for part in out])
    assert clean.shape[1] == recording.data.shape[1] - again
    assert (marks[:100] == LEARNING).all()
    assert (marks[3 * 250 : -100] == CORRECTED).mean() > 0.95
    residual = (clean[:24] - recording.eeg[:, again:])[:, 2 * 250 : -100]
    residual -= residual.mean(axis=1, keepdims=True)
    before = recording.artefact[:, again + 500 : -100]
    assert 10 * np.log10((before**2).mean() / (residual**2).mean()) >= 13


@pytest.mark.parametrize("kind", ["ecg", "eeg", "references"])
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_chunks_change_no_bit(kind, data):
    recording = small(seconds=20.0, channels=8, references=2)
    chunks = data.draw(st.lists(st.integers(1, 700), min_size=4, max_size=40))
    uncut = _in_one_piece(kind)
    parts = _pushed(recording, kind, chunks)
    np.testing.assert_array_equal(parts[0], uncut[0])
    np.testing.assert_array_equal(parts[1], uncut[1])


@pytest.mark.parametrize("kind", ["ecg", "eeg", "references"])
@pytest.mark.parametrize("at_s", [13.337, pytest.param(3.1, marks=pytest.mark.full), 17.0])
def test_the_future_cannot_change_the_past(kind, at_s):
    recording = small(seconds=20.0, channels=8, references=2)
    cut = int(at_s * 250)
    other = recording.data.copy()
    other[:, cut:] = 1000 * np.random.default_rng(2).standard_normal(other[:, cut:].shape)
    changed = HeartbeatSignals(250.0, other, recording.eeg, recording.beats)
    hold = 0 if kind == "references" else int(0.3 * 250)
    clean, quality = _held_back(kind)
    changed_clean, changed_quality = _pushed(changed, kind, [5000], flush=False)
    assert clean.shape[1] >= 5000 - hold
    np.testing.assert_array_equal(clean[:, : cut - hold], changed_clean[:, : cut - hold])
    np.testing.assert_array_equal(quality[: cut - hold], changed_quality[: cut - hold])


def test_the_hold_is_kept_after_every_chunk():
    recording = small()
    remover = HeartbeatRemover(250, 25, 24)
    n_pushed = 0
    n_returned = 0
    for start in range(0, 4000, 37):
        chunk = recording.data[:, start : start + 37]
        out, quality = remover.push(chunk, np.full(chunk.shape[1], CORRECTED, np.uint8))
        n_pushed = n_pushed + chunk.shape[1]
        n_returned = n_returned + out.shape[1]
        assert out.shape[1] == len(quality)
        assert n_pushed - n_returned <= remover.hold_s * 250


def test_what_cannot_work_is_refused():
    with pytest.raises(ValueError, match="different channels"):
        HeartbeatRemover(250, 8, 3, (3, 4))
    with pytest.raises(ValueError, match="needs 4 or more EEG channels, found 3"):
        HeartbeatRemover(250, 4, 3)
    with pytest.raises(ValueError, match="needs 1 or more EEG channels, found 0"):
        HeartbeatRemover(250, 4, 3, (0, 1, 2))
    with pytest.raises(ValueError, match="between"):
        Heartbeat(hold_s=0.5)
    with pytest.raises(ValueError, match="expected 8 channels"):
        HeartbeatRemover(250, 8, 3).push(np.zeros((7, 5)), np.zeros(5, np.uint8))


@pytest.mark.parametrize(("intervals", "reported"), [(1.0, False), (1.3, True)])
def test_a_faint_wave_is_a_beat_where_one_is_overdue(intervals, reported):
    wave = PulseWave(4, 125.0, 0.6, 20.0)
    rng = np.random.default_rng(0)
    moved = np.sin(np.linspace(0, 2 * np.pi, 60)) * np.hanning(60)
    moved = moved[:, None] * np.array([40.0, -30.0, 20.0, 10.0])
    for _ in range(12):
        epoch = rng.normal(0, 1, (wave.length, 4))
        epoch[6:66] += moved
        passed = Beat(0.0, wave)
        passed.see(epoch)
        wave.learn(epoch, passed.amounts, passed.basis, passed.offset)
    rows = rng.normal(0, 1, (400, 4))
    rows[306:366] += 0.2 * moved
    matcher = Matcher(125.0)
    since = 300 - 100 * intervals
    beats = [matcher.push(rows[now - 50 : now + 1], now, wave, since, 100.0) for now in range(100, 350)]
    assert any(beat is not None and abs(beat - 300) < 2 for beat in beats) == reported


def test_beats_are_found_in_eeg_alone_and_not_where_there_are_none():
    recording = small(seconds=20.0)
    rows = recording.data[:24].reshape(24, -1, 2).mean(axis=2).T
    beats = find_beats(rows - rows.mean(axis=0), 125.0) / 125
    against = beats[:, None] - recording.beats[None, :]
    after = np.where(against > 0, against, np.inf).min(axis=1)
    assert len(beats) >= len(recording.beats) - 3
    assert np.ptp(after[1:-1]) < 0.03
    assert after[1:-1].max() < 0.1
    for seed in range(4):
        rows = small(seconds=20.0, seed=seed, artefact=False).eeg.reshape(24, -1, 2).mean(axis=2).T
        assert len(find_beats(rows, 125.0)) == 0


def test_interpolation_between_steps_is_exact_for_slow_waves():
    steps = np.arange(40.0)
    wave = np.sin(2 * np.pi * steps / 25)[:, None]
    expected = np.sin(2 * np.pi * (steps + 0.37) / 25)
    np.testing.assert_allclose(shifted(wave, 0.37)[3:-3, 0], expected[3:-3], atol=2e-4)
    np.testing.assert_allclose(lagrange(0.0), [0, 0, 1, 0, 0], atol=1e-12)


@functools.lru_cache
def _in_one_piece(kind):
    return _pushed(small(seconds=20.0, channels=8, references=2), kind, [5000])


@functools.lru_cache
def _held_back(kind):
    return _pushed(small(seconds=20.0, channels=8, references=2), kind, [5000], flush=False)


def _pushed(recording, kind, chunks, flush=True):
    """All that comes out for chunk sizes that are repeated."""
    data = recording.data.astype(np.float32)
    channels = len(data)
    ecg = channels - 1 if kind == "ecg" else None
    references = (8, 9) if kind == "references" else ()
    remover = HeartbeatRemover(recording.sfreq, channels, ecg, references)
    out = []
    start = 0
    n = 0
    while start < data.shape[1]:
        stop = start + chunks[n % len(chunks)]
        part = data[:, start:stop]
        out.append(remover.push(part, np.full(part.shape[1], CORRECTED, np.uint8)))
        start = stop
        n = n + 1
    if flush:
        out.append(remover.flush())
    return np.concatenate([part[0] for part in out], axis=1), np.concatenate([part[1] for part in out])


def test_alpha_is_measured_as_power():
    times = np.arange(0, 20, 1 / 250)
    eeg = 10 * np.sin(2 * np.pi * 10 * times)[None] + 0.1 * np.random.default_rng(0).standard_normal(
        (4, 5000)
    )
    data = np.concatenate([2 * eeg, np.zeros((1, 5000))])
    figures = judged(HeartbeatSignals(250.0, data, eeg, np.zeros(0)), 2)
    assert figures["alpha"] == pytest.approx(4, rel=0.01)
    assert signal.welch(eeg[0], 250)[1].max() > 1
