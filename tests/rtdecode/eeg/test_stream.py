import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdecode.bundle import EegInput
from rtdecode.eeg.stream import EegStream
from rtdecode.errors import GeometryError
from rtdecode.phantom.body.amplifier import montage as cap
from rtdecode.phantom.body.in_scanner_eeg import Artifacts
from rtdecode.phantom.session import PhantomSession
from rtdecode.signal.eeg.band import EegBand, EegFilter
from rtdecode.signal.eeg.quality import CORRECTED, GAP, INTERPOLATED, LEARNING, UNCORRECTED
from rtdecode.types import EegChunk, Montage, Trigger
from tests import small
from tests.refusals import refused

START = 700.0
NAMES = cap().channels


def stream(montage: Montage, band: EegBand | None = None, *, tr_s: float | None = 0.8) -> EegStream:
    count = len(NAMES)
    stats = {"eeg_mean": np.zeros(count, np.float32), "eeg_scale": np.ones(count, np.float32)}
    eeg_input = EegInput(list(NAMES), "FCz", "microvolts", band or EegBand())
    return EegStream(eeg_input, stats, montage, 120.0, tr_s=tr_s)


def noise(seconds: float, sfreq: float = 1000.0, seed: int = 0) -> np.ndarray:
    """Something like EEG: ten common sources, and a little noise."""
    rng = np.random.default_rng(seed)
    count = int(seconds * sfreq)
    steps = rng.standard_normal((12, count))
    slow = np.stack([np.convolve(row, np.hanning(int(0.03 * sfreq)), "same") for row in steps])
    mixing = rng.standard_normal((64, 12)) * 20 / slow.std()
    return (mixing @ slow + rng.standard_normal((64, count))).astype(np.float32)


def push(eeg: EegStream, data: np.ndarray, stamps: np.ndarray, cuts: list[int] | int = 100) -> None:
    edges = range(cuts, len(stamps), cuts) if isinstance(cuts, int) else sorted(set(cuts))
    for a, b in itertools.pairwise([0, *(c for c in edges if 0 < c < len(stamps)), len(stamps)]):
        eeg.push(EegChunk(data[:, a:b], stamps[a:b], float(stamps[b - 1]) + 0.005))


def stamps_of(data: np.ndarray, sfreq: float = 1000.0) -> np.ndarray:
    return START + np.arange(data.shape[1]) / sfreq


def test_a_clean_stream_is_filtered_and_nothing_else() -> None:
    data = noise(8)
    eeg = stream(cap(1000))
    push(eeg, data, stamps_of(data))
    values, mask, _, _ = eeg.read(stamps_of(data))
    assert np.array_equal(values, EegFilter(EegBand(), 1000.0).push(data))
    assert mask.all()
    _, _, quality, bad = eeg.read(stamps_of(data))
    settled = round(1000 * EegBand().settling_s(1000.0))
    assert np.all(quality[:settled] == LEARNING)
    assert np.all(quality[settled:] == CORRECTED)
    assert not bad


@pytest.mark.parametrize(("lost", "mark"), [(15, INTERPOLATED), (400, GAP)])
def test_lost_samples_are_marked_and_counted(lost: int, mark: int) -> None:
    data = noise(8)
    received = np.r_[0:5000, 5000 + lost : 8000]
    eeg = stream(cap(1000))
    push(eeg, data[:, received], stamps_of(data)[received])
    quality = eeg.read(stamps_of(data)).quality
    assert np.all(quality[5000 : 5000 + lost] == mark)
    after = quality[5000 + lost : 5000 + lost + 1600]
    assert np.all(after == (LEARNING if mark == GAP else CORRECTED))
    values, mask, _, _ = eeg.read(stamps_of(data))
    assert values is not None
    assert np.all(values[:, ~mask] == 0)
    assert (~mask).sum() == (lost if mark == GAP else 0)
    report = eeg.report()
    assert (report["lost_samples"], report["gaps"]) == (lost, 1)


def test_a_jump_of_the_stamps_leaves_no_hole_and_moves_nothing() -> None:
    data = noise(8)
    stamps = stamps_of(data)
    jumped = stamps + np.where(np.arange(8000) >= 5000, 90.0, 0.0)
    eeg = stream(cap(1000))
    for i in range(0, 8000, 20):
        eeg.push(EegChunk(data[:, i : i + 20], jumped[i : i + 20], float(stamps[i + 19]) + 0.005))
    values, mask, _, _ = eeg.read(stamps)
    assert mask.all()
    assert np.array_equal(values, EegFilter(EegBand(), 1000.0).push(data))
    assert eeg.report()["epochs"] == 2


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 100))
def test_chunks_change_no_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = noise(9, seed=seed)
    data[9, 2000:] = 0.0
    received = np.r_[0:4000, 4012:6000, 6500:9000]
    cuts = np.cumsum(rng.integers(1, rng.integers(3, 900), 9000)).tolist()
    regular = stream(cap(1000))
    irregular = stream(cap(1000))
    push(regular, data[:, received], stamps_of(data)[received])
    push(irregular, data[:, received], stamps_of(data)[received], cuts)
    (a, _, _, _) = regular.read(stamps_of(data))
    (b, _, _, _) = irregular.read(stamps_of(data))
    assert np.array_equal(a, b)
    assert np.array_equal(regular.read(stamps_of(data)).quality, irregular.read(stamps_of(data)).quality)
    assert regular.report()["bad_channels"] == [NAMES[9]]


def test_the_future_cannot_change_the_past() -> None:
    data = noise(6)
    other = data.copy()
    other[:, 4000:] = 7 * noise(2, seed=1)
    original = stream(cap(1000))
    changed = stream(cap(1000))
    push(original, data, stamps_of(data))
    push(changed, other, stamps_of(data))
    (a, _, _, _) = original.read(stamps_of(data))
    (b, _, _, _) = changed.read(stamps_of(data))
    assert a is not None
    assert b is not None
    assert np.array_equal(a[:, :4000], b[:, :4000])
    assert not np.array_equal(a[:, 4000:], b[:, 4000:])


def test_a_bad_channel_is_filled_in_and_kept_out_of_the_reference() -> None:
    data = PhantomSession("easy", 1, 1000, 4.0).eeg()
    broken = data.copy()
    broken[20, 5000:] += 5000 * np.sign(np.sin(np.arange(data.shape[1] - 5000))).astype(np.float32)
    eeg = stream(cap(1000))
    clean = stream(cap(1000))
    push(eeg, broken, stamps_of(data))
    push(clean, data, stamps_of(data))
    late = stamps_of(data)[12_000:20_000]
    (values, _, _, _) = eeg.read(late)
    (truth, _, _, _) = clean.read(late)
    assert values is not None
    assert truth is not None
    assert eeg.read(late).bad == [NAMES[20]]
    good = np.arange(64) != 20
    np.testing.assert_allclose(values[good], truth[good], rtol=0, atol=1.5)
    assert np.corrcoef(values[20], truth[20])[0, 1] > 0.8


def test_with_too_many_bad_channels_nothing_is_decoded() -> None:
    data = noise(6)
    data[:10] = 0.0
    eeg = stream(cap(1000))
    push(eeg, data, stamps_of(data))
    assert eeg.report()["too_many_bad"]
    assert eeg.report()["bad_channels"] == list(NAMES[:10])
    quality = eeg.read(stamps_of(data)[3000:]).quality
    assert np.all(quality == UNCORRECTED)


def test_absent_channels_are_interpolated_and_a_wrong_cap_is_refused() -> None:
    some = Montage((*NAMES[:-2], "ECG"), 1000.0, kinds=("eeg",) * 62 + ("ecg",))
    eeg = stream(some)
    data = noise(4)[:63]
    push(eeg, data, stamps_of(data))
    assert eeg.report()["bad_channels"] == list(NAMES[-2:])
    limit = re.compile(r"\b8\b")
    with refused(GeometryError, "montage-missing-channels", missing_count=14, interpolation_limit=limit):
        stream(Montage(NAMES[:50], 1000.0))


@pytest.mark.parametrize("sfreq", [1e6, 1e308])
def test_a_rate_that_no_amplifier_has_is_refused_before_a_buffer_is_made(sfreq: float) -> None:
    with refused(
        GeometryError, "eeg-stream-implausible", explanation=re.compile(f"{sfreq:g}".replace("+", r"\+"))
    ):
        stream(Montage(NAMES, sfreq))
    eeg_stream = stream(cap(1000))
    with refused(GeometryError, "eeg-stream-implausible"):
        eeg_stream.change(Montage(NAMES, sfreq))
    assert eeg_stream.montage == cap(1000)


def test_a_stream_that_comes_back_changed_goes_on() -> None:
    data = noise(8)
    eeg = stream(cap(1000))
    push(eeg, data[:, :4000], stamps_of(data)[:4000])
    order = np.random.default_rng(0).permutation(64)
    eeg.change(Montage(tuple(NAMES[i] for i in order), 500.0))
    fewer = data[order][:, 5000::2]
    push(eeg, fewer, stamps_of(data)[5000::2])
    quality = eeg.read(stamps_of(data)).quality
    assert np.all(quality[4001:4999] == GAP)
    assert np.all(quality[5000:6000] == LEARNING)
    values, _, _, _ = eeg.read(stamps_of(data)[7500:7900])
    assert values is not None
    expected = EegFilter(EegBand(), 500.0).push(data[:, 5000::2])[:, 1250:1450]
    np.testing.assert_allclose(values[:, ::2], expected, rtol=0, atol=1e-3)
    report = eeg.report()
    assert report["lost_samples"] == pytest.approx(500, abs=1)
    assert report["gaps"] == 1
    assert report["epochs"] == 1, "no stamp jumped"


def test_a_stream_that_comes_back_faster_is_remembered_as_long() -> None:
    eeg_input = small.manifest().eeg
    assert eeg_input is not None
    eeg = EegStream(eeg_input, small.bundle().stats, small.montage(250.0), 8.0)
    slow = small.eeg(2, START, sfreq=250.0)
    fast = small.eeg(8, START + 2, sfreq=1000.0)
    eeg.push(slow)
    eeg.change(small.montage(1000.0))
    for chunk in small.chunks(fast, list(range(20, 8000, 20))):
        eeg.push(chunk)
    assert (eeg.read(fast.stamps[10:]).quality > GAP).all()


@pytest.mark.parametrize("sfreq", [5000.0, 2048.0])
def test_a_fast_stream_is_thinned_and_stays_where_it_was_in_time(sfreq: float) -> None:
    times = START + np.arange(int(10 * sfreq)) / sfreq
    wave = 30 * np.sin(2 * np.pi * 6 * (times - START))
    data = (np.arange(64)[:, None] / 32 * wave).astype(np.float32)
    eeg = stream(cap(sfreq), EegBand(0.05, 30.0, 2, "none", compensate=True))
    push(eeg, data, times, round(0.02 * sfreq))
    read_times = START + 8 + np.arange(100) / 125
    values, mask, _, _ = eeg.read(read_times)
    assert mask.all()
    assert values is not None
    expected = 60 * np.sin(2 * np.pi * 6 * (read_times - START))[None] * np.arange(64)[:, None] / 64
    lag = np.argmax([np.sum(values * np.roll(expected, k, axis=1)) for k in range(-3, 4)]) - 3
    assert lag == 0
    np.testing.assert_allclose(values[:, 5:-5], expected[:, 5:-5], rtol=0, atol=3.0)


@pytest.fixture(scope="module")
def scanned() -> PhantomSession:
    """Ten seconds before a run inside the magnet, and ten of the run."""
    return PhantomSession("easy", 1, 1000, 4.0, sfreq=5000, artifacts=Artifacts())


@pytest.fixture(scope="module")
def corrected(scanned: PhantomSession) -> EegStream:
    return in_magnet(scanned)


def in_magnet(session: PhantomSession, cuts: list[int] | None = None) -> EegStream:
    """The chain after a run inside the magnet."""
    eeg = stream(session.montage, EegBand(0.5, 30.0))
    items = sorted(
        (i for i in session.events() if isinstance(i, EegChunk | Trigger)), key=lambda i: i.arrived_at
    )
    for item in items:
        if isinstance(item, Trigger):
            eeg.trigger(item.stamp, arrived_at=item.arrived_at)
            continue
        edges = [0, *(cuts or []), item.data.shape[1]]
        for a, b in itertools.pairwise(sorted(c for c in edges if c <= item.data.shape[1])):
            eeg.push(EegChunk(item.data[:, a:b], item.stamps[a:b], item.arrived_at))
    return eeg


def test_inside_the_magnet_no_gradient_reaches_the_model(corrected: EegStream) -> None:
    eeg = corrected
    read_times = eeg.first + np.arange(0, 20, 0.008)
    values, mask, _, _ = eeg.read(read_times)
    quality = eeg.read(read_times).quality
    assert values is not None
    assert np.all(mask == (quality > UNCORRECTED))
    assert (quality == UNCORRECTED).mean() > 0.1
    assert np.abs(values[:, quality == UNCORRECTED]).max() == 0
    assert eeg.report()["gradient"]["state"] != "idle"


def test_inside_the_magnet_chunks_change_no_bit(scanned: PhantomSession, corrected: EegStream) -> None:
    regular = corrected
    irregular = in_magnet(scanned, [1, 33, 34])
    read_times = regular.first + np.arange(0, 20, 0.008)
    (a, _, _, _) = regular.read(read_times)
    (b, _, _, _) = irregular.read(read_times)
    assert np.array_equal(a, b)
    assert np.array_equal(regular.read(read_times).quality, irregular.read(read_times).quality)


def test_small_chunks_are_gathered_inside_the_magnet_alone_and_for_20_ms_at_most(
    scanned: PhantomSession,
) -> None:
    eeg = stream(scanned.montage, EegBand(0.5, 30.0))
    ages = []
    newest = []
    delay_s = eeg.report()["delay_ms"] / 1e3
    chunks = (item for item in scanned.events(0.002) if isinstance(item, EegChunk))
    for item in itertools.islice(chunks, round(13.0 / 0.002)):
        eeg.push(item)
        ages.append(float(item.stamps[-1]) - eeg.newest)
        newest.append(eeg.newest)
    outside = round(3.0 / 0.002)
    assert max(ages[10:outside]) <= delay_s + 0.002
    assert len(np.unique(newest[:outside])) == outside
    settled = np.array(newest[-1000:])
    assert len(np.unique(settled)) <= 101
    assert max(ages[-1000:]) <= eeg.report()["delay_ms"] / 1e3 + 0.02 + 0.002
    # Whoever asks for the newest samples gets all that came.
    before = eeg.newest
    eeg.read(np.array([before + 1.0]))
    assert before < eeg.newest


@pytest.mark.full
@pytest.mark.timeout(900)
def test_the_whole_chain_keeps_the_eeg_inside_the_magnet() -> None:
    eeg = in_magnet(PhantomSession("easy", 1, 1000, 70.0, sfreq=5000, artifacts=Artifacts()))
    session = PhantomSession("easy", 1, 1000, 70.0, sfreq=5000, artifacts=Artifacts().without())
    clean = stream(session.montage, EegBand(0.5, 30.0))
    for item in session.events():
        if isinstance(item, EegChunk):
            clean.push(item)
    read_times = eeg.first + np.arange(60, 80, 0.008)
    (x, mask, _, _) = eeg.read(read_times)
    (y, _, _, _) = clean.read(read_times)
    assert x is not None
    assert y is not None
    assert mask.all()
    together = [np.corrcoef(x[c], y[c])[0, 1] for c in range(64)]
    assert np.median(together) > 0.90
