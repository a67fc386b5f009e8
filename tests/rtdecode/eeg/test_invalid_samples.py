"""EEG that is no measurement: filled in, counted, and never remembered; and streams of another rate."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdecode.eeg.invalid_samples import SampleValidator
from rtdecode.eeg.stream import EegStream
from rtdecode.errors import GeometryError
from rtdecode.phantom.body.amplifier import montage as cap
from rtdecode.signal.eeg.quality import CORRECTED, UNCORRECTED
from rtdecode.types import EegChunk
from tests.refusals import refused
from tests.rtdecode.eeg.test_stream import NAMES, START, noise, push, stamps_of, stream

BAD = [np.nan, np.inf, -np.inf, 1e10, -3e38]


def read(eeg: EegStream, data: np.ndarray, from_s: float, to_s: float) -> tuple[np.ndarray, np.ndarray]:
    times = stamps_of(data)[int(1000 * from_s) : int(1000 * to_s)]
    samples = eeg.read(times)
    assert samples.values is not None
    return samples.values, samples.mask


@pytest.fixture(scope="module")
def data() -> np.ndarray:
    """EEG without a hole."""
    return noise(20)


@pytest.fixture(scope="module")
def clean_stream(data: np.ndarray) -> EegStream:
    """The stream of it."""
    eeg = stream(cap(1000))
    push(eeg, data, stamps_of(data))
    return eeg


@pytest.mark.parametrize("value", BAD)
def test_one_value_that_is_no_measurement_ends_with_itself(
    value: float, data: np.ndarray, clean_stream: EegStream
) -> None:
    holed = stream(cap(1000))
    bad = data.copy()
    bad[17, 6000] = value
    push(holed, bad, stamps_of(data))
    before = read(clean_stream, data, 0, 6)
    after = read(holed, data, 0, 6)
    assert np.array_equal(before[0], after[0])
    clean = read(clean_stream, data, 6, 20)[0]
    later = read(holed, data, 6, 20)[0]
    assert np.isfinite(later).all()
    # The hole is a step of one sample in one channel; the filters forget it.
    assert np.abs(clean - later)[:, 4000:].max() < 0.01 * clean.std()
    assert holed.report()["nonfinite_samples"] == 1
    assert "AFz" not in "".join(clean_stream.notes())
    assert NAMES[17] in "".join(holed.notes())


@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(1, 7999), max_size=30))
@settings(max_examples=8, deadline=None)
def test_chunks_do_not_matter_where_values_are_no_numbers(seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    data = noise(8, seed=seed)
    data[rng.integers(64), rng.integers(8000, size=5)] = np.nan
    data[rng.integers(64), 2000 : 2000 + rng.integers(1, 3000)] = np.inf
    data[:, 6000 : 6000 + rng.integers(1, 200)] = np.nan
    streams = [stream(cap(1000)), stream(cap(1000))]
    push(streams[0], data, stamps_of(data), 8000)
    push(streams[1], data, stamps_of(data), cuts)
    uncut, chunked = (eeg.read(stamps_of(data)) for eeg in streams)
    assert np.array_equal(uncut.quality, chunked.quality)
    assert uncut.values is not None
    assert np.array_equal(uncut.values, chunked.values)
    assert streams[0].lacking(stamps_of(data), uncut.mask) == pytest.approx(
        streams[1].lacking(stamps_of(data), chunked.mask), rel=1e-12
    )


def test_a_channel_that_is_no_number_all_along_is_interpolated_and_the_others_stay() -> None:
    data = noise(20)
    data[30] = np.nan
    eeg = stream(cap(1000))
    push(eeg, data, stamps_of(data))
    samples = eeg.read(stamps_of(data)[10_000:])
    assert samples.bad == [NAMES[30]]
    assert samples.values is not None
    assert (samples.quality == CORRECTED).all()
    assert np.isfinite(samples.values).all()
    assert samples.values[30].std() > 1
    assert eeg.lacking(stamps_of(data)[10_000:], samples.mask) == pytest.approx(1 / 64)


def test_samples_that_most_channels_lack_are_a_gap() -> None:
    data = noise(12)
    data[:, 5000:6000] = np.nan
    eeg = stream(cap(1000))
    push(eeg, data, stamps_of(data))
    times = stamps_of(data)[:12_000]
    samples = eeg.read(times)
    assert not samples.mask[5000:6000].any()
    assert samples.mask[:5000].all()
    assert eeg.lacking(times, samples.mask) == 0
    assert eeg.report()["nonfinite_samples"] == 1000


def test_a_level_of_another_unit_is_masked_and_said_once() -> None:
    data = noise(12)
    eeg = stream(cap(1000))
    eeg._scale = np.full((64, 1), 20.0, np.float32)
    push(eeg, data * 1000, stamps_of(data))
    for start in (4000, 8000):
        samples = eeg.read(stamps_of(data)[start : start + 4000])
        assert samples.values is None
        assert (samples.quality <= UNCORRECTED).all()
    (note,) = eeg.notes()
    assert "unit" in note


def test_a_share_of_a_window_counts_only_what_is_not_masked_already() -> None:
    door = SampleValidator(("A", "B"), np.arange(2), 10.0)
    data = np.zeros((2, 100), np.float32)
    data[0, 10:20] = np.nan
    times = np.arange(100) / 100
    door.push(data, times)
    mask = np.ones(100, bool)
    assert door.missing(times, mask, 100.0) == pytest.approx(0.05)
    mask[:15] = False
    assert door.missing(times, mask, 100.0) == pytest.approx(0.025)
    assert door.missing(times + 50, mask, 100.0) == 0


def outlet(declared: float, true: float, seconds: float, *, deduced: bool, chunk: int = 20) -> list[EegChunk]:
    """What an outlet delivers that declares another rate; LSL deduces stamps from a chunk's last."""
    data = noise(seconds, true)
    ends = list(range(chunk, data.shape[1] + 1, chunk))
    chunks = []
    for start, stop in itertools.pairwise([0, *ends]):
        chunk_end = START + stop / true
        back = np.arange(stop - start)[::-1] / (declared if deduced else true)
        chunks.append(EegChunk(data[:, start:stop], chunk_end - back, chunk_end + 0.005))
    return chunks


def push_all(eeg: EegStream, chunks: list[EegChunk]) -> None:
    for chunk in chunks:
        eeg.push(chunk)


@pytest.mark.parametrize("deduced", [True, False])
@pytest.mark.parametrize(("declared", "true"), [(500.0, 1000.0), (500.0, 600.0), (250.0, 256.0)])
def test_a_stream_that_sends_more_than_it_declares_is_refused(
    declared: float, true: float, deduced: bool
) -> None:
    eeg = stream(cap(declared))
    with refused(GeometryError, "eeg-sfreq-mismatch", declared_sfreq=declared):
        push_all(eeg, outlet(declared, true, 20.0, deduced=deduced))


def test_a_stream_that_sends_less_than_it_declares_is_refused() -> None:
    eeg = stream(cap(1000))
    sent = re.compile(r"\b500\b")
    with refused(GeometryError, "eeg-sfreq-mismatch", declared_sfreq=1000.0, explanation=sent):
        push_all(eeg, outlet(1000.0, 500.0, 8.0, deduced=False))


def test_a_network_that_catches_up_or_loses_a_tenth_is_not_taken_for_another_rate() -> None:
    late = stream(cap(1000))
    lossy = stream(cap(1000))
    chunks = outlet(1000.0, 1000.0, 20.0, deduced=False)
    for chunk in chunks:
        arrived_at = max(chunk.arrived_at, START + 3.0)
        late.push(EegChunk(chunk.data, chunk.stamps, arrived_at))
    for index, chunk in enumerate(chunks):
        if index % 10:
            lossy.push(chunk)
    assert late.samples == 20_000
    assert lossy.report()["lost_samples"] > 1900
