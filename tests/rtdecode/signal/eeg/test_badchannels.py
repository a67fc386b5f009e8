import mne
import numpy as np
import pytest
from mne.channels.interpolation import _make_interpolation_matrix

from rtdecode.phantom.body.amplifier import electrode_places
from rtdecode.phantom.session import PhantomSession
from rtdecode.signal.eeg.badchannels import BadChannels, saturated
from rtdecode.signal.eeg.quality import CORRECTED, UNCORRECTED

PLACES = electrode_places().astype(np.float64)
SFREQ = 1000.0


@pytest.fixture(scope="module")
def eeg() -> np.ndarray:
    return PhantomSession("hard", 2, 1000, 6.0).eeg().astype(np.float64)


def judged(eeg: np.ndarray, sizes: int = 37, **kwargs: np.ndarray) -> tuple[BadChannels, list[set[int]]]:
    """Push in small pieces; return the verdict after each second."""
    detector = BadChannels(PLACES, SFREQ, **kwargs)
    verdicts = []
    done = 0
    while done < eeg.shape[1]:
        take = min(sizes, detector.room, eeg.shape[1] - done)
        detector.push(eeg[:, done : done + take], np.full(take, CORRECTED, np.uint8))
        done += take
        if done % 1000 == 0:
            detector.rails(saturated(eeg[:, done - 1000 : done]))
            verdicts.append(set(np.flatnonzero(detector.bad).tolist()))
    return detector, verdicts


def test_splines_are_those_of_mne(eeg: np.ndarray) -> None:
    bad = np.zeros(64, bool)
    bad[[3, 17, 40]] = True
    interpolated = BadChannels(PLACES, SFREQ, bad).interpolate(eeg)[bad]
    with mne.utils.use_log_level("error"):
        mne_weights = _make_interpolation_matrix(PLACES[~bad], PLACES[bad])
    assert interpolated == pytest.approx(mne_weights @ eeg[~bad], abs=1e-6 * np.abs(eeg).max())
    constant = BadChannels(PLACES, SFREQ, bad).interpolate(np.ones_like(eeg))
    assert constant[bad] == pytest.approx(1.0, abs=1e-3)


def test_interpolated_channels_resemble_what_they_replace(eeg: np.ndarray) -> None:
    bad = np.zeros(64, bool)
    bad[[5, 20, 40]] = True
    broken = eeg.copy()
    broken[bad] = 1e5
    filled = BadChannels(PLACES, SFREQ, bad).interpolate(broken)
    for channel in np.flatnonzero(bad):
        assert np.corrcoef(filled[channel], eeg[channel])[0, 1] > 0.5
    assert np.array_equal(filled[~bad], eeg[~bad])


def test_a_healthy_cap_has_no_bad_channel(eeg: np.ndarray) -> None:
    assert not any(judged(eeg)[1])


def test_a_channel_is_saturated_where_it_stays_at_an_extreme_and_nowhere_else() -> None:
    rng = np.random.default_rng(6)
    stairs = rng.integers(-400, 400, 500).repeat(2).astype(float)
    clipped = np.clip(600 * rng.standard_normal(1000), -700, 700)
    sagging = np.clip(600 * rng.standard_normal(1000), -300, np.inf)
    quiet = np.clip(rng.standard_normal(1000), -1, 1)
    block = np.stack([stairs, clipped, sagging, quiet])
    assert saturated(block).tolist() == [False, True, True, False]


def test_flat_noisy_and_saturated_channels_are_found_and_forgiven(eeg: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    broken = np.tile(eeg[:, :12_000], (1, 3))[:, :30_000]
    broken[5, 4000:12_000] = 3.0
    broken[20, 6000:12_000] += 150 * rng.standard_normal(6000)
    broken[50, 2000:6000] = np.clip(60 * broken[50, 2000:6000], -700, 700)
    _, verdicts = judged(broken)
    assert verdicts[1] == set()
    assert verdicts[3] == {50}
    assert 5 in verdicts[4]
    assert verdicts[7] == {5, 50} or verdicts[7] == {5, 20, 50}
    assert verdicts[9] == {5, 20, 50}
    assert verdicts[20] == {5, 20}
    assert verdicts[-1] == set()


@pytest.mark.parametrize(("share", "bad"), [(0.1, True), (0.6, False), (1.0, False)])
def test_a_channel_that_has_little_in_common_with_the_others_is_bad(share: float, bad: bool) -> None:
    rng = np.random.default_rng(0)
    # What the scalp sees is smooth in space; what the channel adds is its own, of the same size.
    sources = rng.normal(0, 20, (3, 100))
    private = rng.normal(0, 20, 100)
    eeg = (PLACES / np.linalg.norm(PLACES, axis=1, keepdims=True)) @ sources
    eeg[30] = share * eeg[30] + np.sqrt(1 - share**2) * private
    eeg = eeg.repeat(50, axis=1) + rng.normal(0, 0.5, (64, 5000))
    _, verdicts = judged(eeg)
    assert verdicts == ([set(), set(), {30}, {30}, {30}] if bad else [set()] * 5)


def test_a_channel_is_forgiven_after_ten_good_seconds_and_not_after_nine(eeg: np.ndarray) -> None:
    broken = np.tile(eeg[:, :4000], (1, 4))
    broken[5, 1000:2000] = 3.0
    _, verdicts = judged(broken)
    assert verdicts[1] == verdicts[10] == {5}
    assert verdicts[11] == set()


def test_more_than_eight_of_64_are_too_many(eeg: np.ndarray) -> None:
    broken = eeg.copy()
    broken[:8] = 0.0
    assert not judged(broken)[0].too_many
    broken[:9] = 0.0
    detector, verdicts = judged(broken)
    assert detector.too_many
    assert verdicts[-1] == set(range(9))


def test_blocks_that_are_not_corrected_are_not_judged(eeg: np.ndarray) -> None:
    broken = eeg.copy()
    broken[5] = 0.0
    detector = BadChannels(PLACES, SFREQ)
    for second in range(6):
        part = broken[:, 1000 * second : 1000 * (second + 1)]
        quality = np.full(1000, CORRECTED, np.uint8)
        quality[500] = UNCORRECTED
        detector.push(part, quality)
    assert not detector.bad.any()


def test_the_verdict_does_not_depend_on_the_chunks_and_the_filling_neither(eeg: np.ndarray) -> None:
    broken = eeg.copy()
    broken[9] = 0.0
    small_chunked = judged(broken, 37)[0]
    second_chunked = judged(broken, 1000)[0]
    assert np.array_equal(small_chunked.bad, second_chunked.bad)
    uncut = small_chunked.interpolate(broken)
    parts = [second_chunked.interpolate(part) for part in np.split(broken, [1, 2, 4, 7, 100, 3333], axis=1)]
    assert np.array_equal(np.concatenate(parts, axis=1), uncut)


def test_the_recording_reference_may_be_flat(eeg: np.ndarray) -> None:
    broken = eeg.copy()
    broken[12] = 0.0
    detector = BadChannels(PLACES, SFREQ, reference=12)
    while detector.room and broken.shape[1]:
        take = detector.room
        detector.push(broken[:, :take], np.full(min(take, broken.shape[1]), CORRECTED, np.uint8))
        broken = broken[:, take:]
    assert not detector.bad.any()


def test_absent_channels_stay_bad(eeg: np.ndarray) -> None:
    absent = np.arange(64) == 7
    detector, verdicts = judged(eeg, absent=absent)
    assert verdicts[-1] == {7}
    assert not detector.too_many


@pytest.mark.parametrize("n_good", [0, 1, 3, 4])
def test_a_cap_of_which_hardly_a_channel_is_left_says_so(eeg: np.ndarray, n_good: int) -> None:
    broken = eeg.copy()
    broken[n_good:, 1000:] = 0.0
    detector, _ = judged(broken)
    assert detector.bad.sum() == 64 - n_good
    assert detector.too_many
    assert np.array_equal(detector.interpolate(broken)[n_good:], broken[n_good:]) == (n_good < 4)


def test_of_a_few_channels_none_is_predicted_by_one() -> None:
    absent = np.array([False, True, True, True])
    detector = BadChannels(PLACES[:4], SFREQ, absent)
    data = np.ones((4, 10))
    assert detector.too_many
    assert np.array_equal(detector.interpolate(data), data)
