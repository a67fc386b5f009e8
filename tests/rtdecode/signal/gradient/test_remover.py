from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.gradient_signals import (
    SFREQ,
    GradientSignals,
    background,
    corrected,
    error_uv,
    recorded,
)
from rtdecode.signal.eeg.quality import CORRECTED, LEARNING, UNCORRECTED
from rtdecode.signal.gradient.remover import Gradient, GradientRemover
from rtdecode.signal.gradient.template import REACH, between
from rtdecode.signal.gradient.timing import PlacedTriggers, TriggerLine, find, lag

# A short sequence, so that a run of few seconds has epochs enough.
SHORT: dict[str, Any] = {"tr_s": 0.4003, "slices": 12, "multiband": 3, "lead_s": 2.0}
QUICK = Gradient(epochs=10, needed=4, line=8)


def share(quality: np.ndarray, kind: int, start_s: float, stop_s: float) -> float:
    return float(np.mean(quality[round(start_s * SFREQ) : round(stop_s * SFREQ)] == kind))


def without(recording: GradientSignals, start_s: float, samples: int) -> GradientSignals:
    """The same, samples lost on the way."""
    first_lost = round(start_s * SFREQ)
    received = np.r_[0:first_lost, first_lost + samples : len(recording.times)]
    parts = {name: getattr(recording, name)[..., received] for name in ("data", "eeg", "artifact", "times")}
    return replace(recording, **parts)


@pytest.fixture(scope="module")
def short() -> GradientSignals:
    return recorded(12, 5, **SHORT)


def first_seconds(recording: GradientSignals, seconds: float) -> GradientSignals:
    return without(recording, seconds, len(recording.times))


# Properties.


@settings(max_examples=5)
@given(cuts=st.lists(st.integers(0, 35_000), max_size=40), lost=st.sampled_from([0, 137]))
def test_chunks_change_no_bit(short: GradientSignals, cuts: list[int], lost: int) -> None:
    recording = first_seconds(without(short, 5.1, lost), 7)
    uncut, quality, _ = corrected(recording, len(recording.times), QUICK)
    remover = GradientRemover(SFREQ, 5, recording.tr_s, QUICK)
    parts = []
    for data, times in zip(
        np.split(recording.data, sorted(cuts), axis=1), np.split(recording.times, sorted(cuts)), strict=True
    ):
        for trigger_s in recording.triggers:
            if len(times) and remover_needs(trigger_s, times, recording.times):
                remover.trigger(float(trigger_s))
        parts.append(remover.push(data, times))
    clean, marks = (np.concatenate(p, axis=-1) for p in zip(*parts, strict=True))
    assert np.array_equal(clean, uncut)
    assert np.array_equal(marks, quality)


def remover_needs(trigger_s: float, times: np.ndarray, sample_times: np.ndarray) -> bool:
    """Whether a trigger belongs to the first chunk that ends at or after it."""
    first = np.searchsorted(sample_times, trigger_s)
    return bool(first < len(sample_times) and times[0] <= sample_times[first] <= times[-1])


@settings(max_examples=4)
@given(cut=st.integers(15_000, 34_000))
def test_the_future_does_not_change_the_past(short: GradientSignals, cut: int) -> None:
    recording = first_seconds(short, 7)
    other = recording.data.copy()
    other[:, cut:] += background(5, other.shape[1] - cut, SFREQ, 300, 7)
    first, _, _ = corrected(recording, settings=QUICK)
    second, _, _ = corrected(replace(recording, data=other), settings=QUICK)
    assert np.array_equal(first[:, :cut], second[:, :cut])
    assert not np.array_equal(first[:, cut:], second[:, cut:])


def test_types_pass_through(short: GradientSignals) -> None:
    remover = GradientRemover(SFREQ, 5, short.tr_s)
    for kind in (np.float32, np.float64):
        data = short.data[:, :100].astype(kind)
        clean, _ = remover.push(data, short.times[:100])
        assert clean.dtype == kind
        assert np.array_equal(clean, data)
    empty, quality = remover.push(short.data[:, :0], short.times[:0])
    assert empty.shape == (5, 0)
    assert quality.shape == (0,)


# What a run does.


def test_gradients_before_the_first_trigger_are_found(short: GradientSignals) -> None:
    recording = recorded(14, 5, tr_s=0.4003, slices=12, multiband=3, lead_s=8.0)
    _, quality, remover = corrected(recording, settings=QUICK)
    assert share(quality, CORRECTED, 0, 3) == 1  # nothing there yet
    steep = np.abs(recording.artifact[:, : round(8 * SFREQ)]).max(axis=0) > 100
    assert np.mean(quality[: round(8 * SFREQ)][steep] == UNCORRECTED) > 0.999
    assert share(quality, UNCORRECTED, 8.0, 8.8) == 1
    assert share(quality, LEARNING, 9.3, 9.5) == 1
    assert share(quality, CORRECTED, 11, 14) == 1
    assert remover.report()["learned"] == 1


def test_eeg_alone_is_no_gradient() -> None:
    eeg = background(8, 50_000, SFREQ, 40, 3)
    eeg[:, 20_000:21_000] += 300 * np.hanning(1000)  # a blink
    eeg[:, 30_000:31_000] += 50 * np.sin(2 * np.pi * 80 * np.arange(1000) / SFREQ)  # a muscle
    remover = GradientRemover(SFREQ, 8, 1.26)
    clean, quality = remover.push(eeg, np.arange(50_000) / SFREQ)
    assert np.array_equal(clean, eeg)
    assert np.all(quality == CORRECTED)


def test_triggers_without_a_scanner_change_nothing() -> None:
    eeg = background(8, 40_000, SFREQ, 40, 3)
    remover = GradientRemover(SFREQ, 8, 0.5)
    for trigger_s in np.arange(1, 8, 0.5):
        remover.trigger(float(trigger_s))
    clean, _ = remover.push(eeg, np.arange(40_000) / SFREQ)
    assert np.array_equal(clean, eeg)


def test_the_scanner_stops_and_starts_again() -> None:
    first = recorded(9, 5, volumes=12, **SHORT)
    second = recorded(9, 5, seed=2, **{**SHORT, "lead_s": 4.5})
    joined = {
        name: np.concatenate([getattr(first, name), getattr(second, name)], axis=1)
        for name in ("data", "eeg", "artifact")
    }
    times = np.arange(len(first.times) * 2) / SFREQ + first.times[0]
    triggers = np.concatenate([first.triggers, second.triggers + 9])
    recording = GradientSignals(**joined, times=times, triggers=triggers, tr_s=first.tr_s)
    clean, quality, remover = corrected(recording, settings=QUICK)
    stop = 2 + 12 * 0.4003
    assert share(quality, CORRECTED, 5, stop - 0.1) == 1
    # Within a block of the end, and the time that steep samples stand for.
    assert np.array_equal(
        clean[:, round((stop + 0.11) * SFREQ) : 45_000],
        recording.data[:, round((stop + 0.11) * SFREQ) : 45_000],
    )
    assert share(quality, CORRECTED, stop + 0.45, 9) == 1
    assert share(quality, CORRECTED, 9 + 4.5 + 6.2 * 0.41, 18) == 1
    assert error_uv(clean[:, 80_000:], recording.eeg[:, 80_000:]) < 8
    assert remover.report()["stops"] == 1
    assert remover.report()["learned"] == 2


@pytest.mark.parametrize("last", [1, 11, 125, 250])
def test_an_epoch_is_learned_however_few_samples_its_last_block_has(last: int) -> None:
    """The template, of 27 samples more than an epoch, has blocks of 250."""
    tr_s = (7 * 250 + last - 27 + 250 - 0.3) / SFREQ
    recording = recorded(7, 5, **(SHORT | {"tr_s": tr_s}))
    clean, quality, _ = corrected(recording, 1000, QUICK)
    assert share(quality, CORRECTED, 5, 7) == 1
    assert error_uv(clean[:, 25_000:], recording.eeg[:, 25_000:]) < 8


def test_another_sequence_is_learned() -> None:
    first = recorded(8, 5, volumes=12, **SHORT)
    second = recorded(14, 5, tr_s=0.7207, slices=24, multiband=3, lead_s=1.0)
    joined = {
        name: np.concatenate([getattr(first, name), getattr(second, name)], axis=1)
        for name in ("data", "eeg", "artifact")
    }
    times = np.arange(joined["data"].shape[1]) / SFREQ + first.times[0]
    triggers = np.concatenate([first.triggers, second.triggers + 8])
    recording = GradientSignals(**joined, times=times, triggers=triggers, tr_s=first.tr_s)
    clean, quality, remover = corrected(recording, settings=QUICK)
    assert share(quality, CORRECTED, 17, 22) == 1
    assert error_uv(clean[:, 85_000:], recording.eeg[:, 85_000:]) < 8
    report = remover.report()
    assert report["period_ppm"] is None
    assert abs(report["period_s"] / 0.7207 - 1 - 20e-6) < 1e-6


def test_missing_and_spurious_triggers_are_counted(short: GradientSignals) -> None:
    received = np.delete(short.triggers, [3, 8, 9])
    odd = np.array([4.13, 6.27, 9.02]) + short.times[0]
    rng = np.random.default_rng(0)
    jittered = received + rng.uniform(0, 0.003, len(received))
    recording = replace(short, triggers=np.sort(np.concatenate([jittered, odd])))
    clean, quality, remover = corrected(recording, settings=QUICK)
    plain, _, _ = corrected(short, settings=QUICK)
    report = remover.report()
    assert (report["missing"], report["spurious"], report["learned"]) == (3, 3, 1)
    assert 0.3 < report["trigger_jitter_ms"] < 1.5
    assert share(quality, CORRECTED, 6, 12) == 1
    eeg, clean, plain = (x[..., round(8 * SFREQ) :] for x in (short.eeg, clean, plain))
    assert error_uv(clean, eeg) < 1.1 * error_uv(plain, eeg) + 0.1


def test_triggers_may_stop_while_the_gradients_go_on(short: GradientSignals) -> None:
    recording = replace(short, triggers=short.triggers[:8])
    _, quality, remover = corrected(recording, settings=QUICK)
    assert share(quality, CORRECTED, 6, 12) == 1
    assert remover.report()["stops"] == 0


# Gaps.


@pytest.mark.parametrize("lost", [1, 20, 137, 5000])
def test_lost_samples_cost_moments(short: GradientSignals, lost: int) -> None:
    recording = without(short, 8.05, lost)
    clean, quality, remover = corrected(recording, settings=QUICK)
    first_lost = round(8.05 * SFREQ)
    assert np.all(quality[first_lost + round(0.2 * SFREQ) :] == CORRECTED)
    assert error_uv(clean[:, first_lost:], recording.eeg[:, first_lost:]) < 8
    assert remover.report()["learned"] == 1
    assert quality[first_lost] < CORRECTED


@pytest.mark.parametrize(("lost", "jump_s"), [(0, 3.2137), (333, -1.0)])
def test_after_a_jump_of_the_clock_the_place_is_found_again(
    short: GradientSignals, lost: int, jump_s: float
) -> None:
    cut = without(short, 8.05, lost)
    times = cut.times.copy()
    jump = round(8.05 * SFREQ)
    times[jump:] += jump_s
    remover = GradientRemover(SFREQ, 5, cut.tr_s, QUICK)
    for trigger in cut.triggers[cut.triggers < cut.times[jump]]:
        remover.trigger(float(trigger))
    remover.push(cut.data[:, :jump], times[:jump])
    for trigger in cut.triggers[cut.triggers >= cut.times[jump]]:
        remover.trigger(float(trigger - cut.times[jump] + times[jump]))
    clean, quality = remover.push(cut.data[:, jump:], times[jump:])
    report = remover.report()
    assert (report["learned"], report["found_again"]) == (1, 1)
    assert np.all(quality[-round(0.5 * SFREQ) :] == CORRECTED)
    assert error_uv(clean[:, -2500:], cut.eeg[:, -2500:]) < 10


# Motion and bad channels.


def test_epochs_with_motion_stay_out(short: GradientSignals) -> None:
    moved = short.data.copy()
    starts = np.searchsorted(short.times, short.triggers)
    for volume in (12, 13):
        part = slice(starts[volume], starts[volume + 1])
        moved[:, part] += background(
            5, part.stop - part.start, SFREQ, 30, volume
        )  # below what counts as outlier
    recording = replace(short, data=moved)
    errors_uv = []
    for moved_volumes, late_by in (([], 0), ([12, 13], 0), ([12, 13], 3)):
        remover = GradientRemover(SFREQ, 5, short.tr_s, QUICK)
        clean = []
        for volume, start in enumerate(starts):
            stop = starts[volume + 1] if volume + 1 < len(starts) else len(short.times)
            remover.trigger(float(short.triggers[volume]), moved=volume in moved_volumes and not late_by)
            if late_by and volume - late_by in moved_volumes:
                remover.trigger(float(short.triggers[volume - late_by]), moved=True)
            part = slice(0 if volume == 0 else start, stop)
            clean.append(remover.push(recording.data[:, part], recording.times[part])[0])
        assert remover.report()["moved"] == len(moved_volumes)
        uncut = np.concatenate(clean, axis=1)
        errors_uv.append(error_uv(uncut[:, starts[17] : starts[20]], short.eeg[:, starts[17] : starts[20]]))
    assert errors_uv[1] <= errors_uv[0] * 0.97
    assert errors_uv[2] <= errors_uv[0] * 0.97


def test_a_head_that_always_moves_is_still_corrected(short: GradientSignals) -> None:
    remover = GradientRemover(SFREQ, 5, short.tr_s, QUICK)
    for trigger_s in short.triggers:
        remover.trigger(float(trigger_s), moved=True)
    clean, quality = remover.push(short.data, short.times)
    assert share(quality, CORRECTED, 6, 12) == 1
    assert error_uv(clean[:, 40_000:], short.eeg[:, 40_000:]) < 8


def test_a_bad_channel_spoils_no_other(short: GradientSignals) -> None:
    spoiled = short.data.copy()
    rng = np.random.default_rng(2)
    spoiled[2] = 3000 * rng.standard_normal(spoiled.shape[1])
    spoiled[3] = 0
    fine = [0, 1, 4]
    plain, _, _ = corrected(short, settings=QUICK)
    clean, quality, _ = corrected(replace(short, data=spoiled), settings=QUICK)
    part = slice(40_000, None)
    assert error_uv(clean[fine, part], short.eeg[fine, part]) < 1.3 * error_uv(
        plain[fine, part], short.eeg[fine, part]
    )
    assert share(quality, CORRECTED, 8, 12) > 0.9


def test_an_outlying_epoch_stays_out(short: GradientSignals) -> None:
    spoiled = short.data.copy()
    spoiled[1, 30_000:31_500] += 800 * np.hanning(1500)
    plain, _, _ = corrected(short, settings=QUICK)
    clean, _, _ = corrected(replace(short, data=spoiled), settings=QUICK)
    part = slice(36_000, None)
    assert error_uv(clean[:, part], short.eeg[:, part]) < 1.2 * error_uv(plain[:, part], short.eeg[:, part])


def test_a_direct_current_stays(short: GradientSignals) -> None:
    """Offsets and slow drifts of electrodes are no artefact."""
    level = (np.linspace(0, 300, short.data.shape[1]) + 20_000).astype(np.float32)
    plain, _, _ = corrected(short, settings=QUICK)
    clean, _, _ = corrected(replace(short, data=short.data + level), settings=QUICK)
    assert np.abs(clean - level - plain)[:, 40_000:].max() < 2.5


# Parts.


def test_values_between_samples() -> None:
    positions = np.arange(200)
    for hz in (10, 250, 700):
        wave = np.sin(2 * np.pi * hz * positions / SFREQ)[None].astype(np.float32)
        for part in (0.0, 0.31, 0.5, 1.0):
            expected = np.sin(2 * np.pi * hz * (positions[REACH - 1 : -REACH] + part) / SFREQ)
            assert np.abs(between(wave, part)[0] - expected).max() < 2e-4


def test_lags_between_samples() -> None:
    recording = recorded(3, 4, eeg_uv=5, drift_ppm=0, lead_s=0.5)
    a = recording.data[:, 4000:11000]
    b = recording.data[:, 3963:10963]
    off, likeness_ = lag(a, b, 100)
    assert abs(off - 37) < 0.02
    assert likeness_ > 0.95
    assert lag(a, background(4, 7000, SFREQ, 500, 3), 100)[1] < 0.3
    cycle = recording.data[:, 4000 : 4000 + 6300]
    place, likeness_ = find(cycle, recording.data[:, 5111 : 5111 + 500])
    assert abs(place - 1111) < 0.05
    assert likeness_ > 0.99


def test_a_line_shrugs_off_outliers() -> None:
    rng = np.random.default_rng(0)
    line = TriggerLine(10.0, 6300.0, 16)
    for epoch in range(1, 30):
        line.add(epoch, 10 + 6300.126 * epoch + 1e-3 * rng.standard_normal() + 3.0 * (epoch % 7 == 3))
    assert abs(line(31) - (10 + 6300.126 * 31)) < 0.02
    assert abs(line.period - 6300.126) < 2e-3


def test_three_triggers_overrule_the_tr() -> None:
    book = PlacedTriggers(1000.0)
    for trigger_s in (1.0, 3.0, 5.001):
        book.add(trigger_s, moved=False)
    book.place(np.arange(6000) / 1000, 0)
    assert len(book.take(6000)) == 3
    assert abs(book.period(1500.0) - 2000.5) < 1
    assert book.period(2000.0) == 2000.0
    assert book.period(1000.0) == 1000.0  # every second one is missing


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(ValueError, match="a TR four blocks"):
        GradientRemover(SFREQ, 4, 0.1)
    with pytest.raises(ValueError, match="needed <= epochs"):
        Gradient(epochs=3, needed=9)
    with pytest.raises(ValueError, match=r"expected \(4, 10\)"):
        GradientRemover(SFREQ, 4, 1.0).push(np.zeros((3, 10), np.float32), np.arange(10) / SFREQ)


def test_the_report_tells_what_is_left(short: GradientSignals) -> None:
    empty = GradientRemover(SFREQ, 5, short.tr_s).report()
    assert empty["slice_db"] is None
    assert empty["state"] == "idle"
    report = corrected(short, settings=QUICK)[2].report()
    assert report["state"] == "corrected"
    assert 300 < report["before_uv"] < 1500
    assert 5 < report["after_uv"] < 20
    assert abs(report["slice_db"]) < 6
    assert abs(report["volume_db"]) < 6
    assert report["slice_down_db"] > 40
    assert report["epochs"] == 10
    assert report["timing_us"] < 0.5
    alone = recorded(8, 5, eeg_uv=0, drift_ppm=0, **{**SHORT, "tr_s": 0.4})
    raw = GradientRemover(SFREQ, 5, 0.4)
    raw.push(alone.data, alone.times)
    assert raw.report()["slice_db"] > 30
