"""EEG that is no measurement: filled in, counted, and never remembered; and streams of another rate."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdecode.eeg.door import Door
from rtdecode.eeg.stream import EegStream
from rtdecode.errors import GeometryError
from rtdecode.phantom.body.amplifier import montage as cap
from rtdecode.signal.eeg.quality import CORRECTED, UNCORRECTED
from rtdecode.types import EegChunk
from tests.refusals import refused
from tests.rtdecode.eeg.test_stream import NAMES, START, noise, push, stamps_of, stream

BAD = [np.nan, np.inf, -np.inf, 1e10, -3e38]


def read(made: EegStream, data: np.ndarray, from_s: float, to_s: float) -> tuple[np.ndarray, np.ndarray]:
    times = stamps_of(data)[int(1000 * from_s) : int(1000 * to_s)]
    found = made.read(times)
    assert found.values is not None
    return found.values, found.mask


@pytest.fixture(scope="module")
def data() -> np.ndarray:
    """EEG without a hole."""
    return noise(20)


@pytest.fixture(scope="module")
def whole(data: np.ndarray) -> EegStream:
    """The stream of it."""
    made = stream(cap(1000))
    push(made, data, stamps_of(data))
    return made


@pytest.mark.parametrize("value", BAD)
def test_one_value_that_is_no_measurement_ends_with_itself(
    value: float, data: np.ndarray, whole: EegStream
) -> None:
    holed = stream(cap(1000))
    bad = data.copy()
    bad[17, 6000] = value
    push(holed, bad, stamps_of(data))
    before = read(whole, data, 0, 6)
    after = read(holed, data, 0, 6)
    assert np.array_equal(before[0], after[0])
    clean = read(whole, data, 6, 20)[0]
    later = read(holed, data, 6, 20)[0]
    assert np.isfinite(later).all()
    # The hole is a step of one sample in one channel; the filters forget it.
    assert np.abs(clean - later)[:, 4000:].max() < 0.01 * clean.std()
    assert holed.report()["nonfinite_samples"] == 1
    assert "AFz" not in "".join(whole.notes())
    assert NAMES[17] in "".join(holed.notes())


@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(1, 7999), max_size=30))
@settings(max_examples=8, deadline=None)
def test_chunks_do_not_matter_where_values_are_no_numbers(seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    data = noise(8, seed=seed)
    data[rng.integers(64), rng.integers(8000, size=5)] = np.nan
    data[rng.integers(64), 2000 : 2000 + rng.integers(1, 3000)] = np.inf
    data[:, 6000 : 6000 + rng.integers(1, 200)] = np.nan
    made = [stream(cap(1000)), stream(cap(1000))]
    push(made[0], data, stamps_of(data), 8000)
    push(made[1], data, stamps_of(data), cuts)
    one, other = (each.read(stamps_of(data)) for each in made)
    assert np.array_equal(one.quality, other.quality)
    assert one.values is not None
    assert np.array_equal(one.values, other.values)
    assert made[0].lacking(stamps_of(data), one.mask) == pytest.approx(
        made[1].lacking(stamps_of(data), other.mask), rel=1e-12
    )


def test_a_channel_that_is_no_number_all_along_is_interpolated_and_the_others_stay() -> None:
    data = noise(20)
    data[30] = np.nan
    made = stream(cap(1000))
    push(made, data, stamps_of(data))
    found = made.read(stamps_of(data)[10_000:])
    assert found.bad == [NAMES[30]]
    assert found.values is not None
    assert (found.quality == CORRECTED).all()
    assert np.isfinite(found.values).all()
    assert found.values[30].std() > 1
    assert made.lacking(stamps_of(data)[10_000:], found.mask) == pytest.approx(1 / 64)


def test_samples_that_most_channels_lack_are_a_gap() -> None:
    data = noise(12)
    data[:, 5000:6000] = np.nan
    made = stream(cap(1000))
    push(made, data, stamps_of(data))
    times = stamps_of(data)[:12_000]
    found = made.read(times)
    assert not found.mask[5000:6000].any()
    assert found.mask[:5000].all()
    assert made.lacking(times, found.mask) == 0
    assert made.report()["nonfinite_samples"] == 1000


def test_a_level_of_another_unit_is_masked_and_said_once() -> None:
    data = noise(12)
    made = stream(cap(1000))
    made._scale = np.full((64, 1), 20.0, np.float32)
    push(made, data * 1000, stamps_of(data))
    for start in (4000, 8000):
        found = made.read(stamps_of(data)[start : start + 4000])
        assert found.values is None
        assert (found.quality <= UNCORRECTED).all()
    (note,) = made.notes()
    assert "unit" in note


def test_a_share_of_a_window_counts_only_what_is_not_masked_already() -> None:
    door = Door(("A", "B"), np.arange(2), 10.0)
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
        at = START + stop / true
        back = np.arange(stop - start)[::-1] / (declared if deduced else true)
        chunks.append(EegChunk(data[:, start:stop], at - back, at + 0.005))
    return chunks


def push_all(made: EegStream, chunks: list[EegChunk]) -> None:
    for chunk in chunks:
        made.push(chunk)


@pytest.mark.parametrize("deduced", [True, False])
@pytest.mark.parametrize(("declared", "true"), [(500.0, 1000.0), (500.0, 600.0), (250.0, 256.0)])
def test_a_stream_that_sends_more_than_it_declares_is_refused(
    declared: float, true: float, deduced: bool
) -> None:
    made = stream(cap(declared))
    with refused(GeometryError, "eeg-sfreq-mismatch", declared_sfreq=declared):
        push_all(made, outlet(declared, true, 20.0, deduced=deduced))


def test_a_stream_that_sends_less_than_it_declares_is_refused() -> None:
    made = stream(cap(1000))
    sent = re.compile(r"\b500\b")
    with refused(GeometryError, "eeg-sfreq-mismatch", declared_sfreq=1000.0, explanation=sent):
        push_all(made, outlet(1000.0, 500.0, 8.0, deduced=False))


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
