"""Where the participant looks, and what it does to EEG and features."""

import numpy as np
import pytest

from rtdecode.errors import UsageError
from rtdecode.phantom.body.amplifier import leads, montage
from rtdecode.phantom.body.gaze import gaze_path
from rtdecode.phantom.session import PhantomSession
from tests.refusals import refused


def test_three_saccades_a_second_around_the_middle() -> None:
    gaze = gaze_path(-10.0, 590.0, 7)
    assert len(gaze.onsets) / 600 == pytest.approx(3, rel=0.05)
    assert np.diff(gaze.onsets).min() >= 0.1
    assert np.abs(gaze.places.mean(axis=0)).max() < 0.5
    assert np.abs(gaze.places).max(axis=0) == pytest.approx([8, 5])


def test_the_eyes_stay_where_they_look_and_get_there_in_tens_of_milliseconds() -> None:
    gaze = gaze_path(0.0, 60.0, 8)
    middle = (gaze.onsets[:-1] + gaze.onsets[1:]) / 2
    long = np.diff(gaze.onsets) > 0.2
    assert np.allclose(gaze.directions(middle[long]), gaze.places[:-1][long])
    # The largest saccade takes less than a tenth of a second (Carpenter 1988).
    assert np.allclose(gaze.directions(gaze.onsets[1:] + 0.1)[5], gaze.places[6])


def test_pixels_are_where_the_eyes_point() -> None:
    gaze = gaze_path(0.0, 20.0, 9)
    pixels = gaze.pixels(160)
    right, above = gaze.directions((np.arange(160) + 0.5) / 8).T
    assert np.abs(pixels[:, 1] - right * 96 / 18).max() <= 0.5
    assert np.abs(pixels[:, 0] + above * 96 / 18).max() <= 0.5
    assert set(gaze.saccades(160)) <= set(range(160))


def test_eyes_that_turn_right_make_the_right_front_positive() -> None:
    labels = list(montage().channels)
    right, up = leads(1).eyes
    assert right[labels.index("F8")] > 2
    assert right[labels.index("F7")] == pytest.approx(-right[labels.index("F8")], abs=0.5)
    assert up[labels.index("Fp1")] > up[labels.index("Cz")] > up[labels.index("Oz")] - 0.5


def test_a_free_gaze_is_in_the_eeg_and_in_what_is_seen() -> None:
    fixed, free = (
        PhantomSession("easy", seed=1001, seconds=24, gaze=gaze, sfreq=250) for gaze in ("fixed", "free")
    )
    labels = list(montage().channels)
    difference = free.eeg() - fixed.eeg()
    assert difference[labels.index("F8")].std() > 2 * difference[labels.index("Pz")].std()
    assert not np.allclose(fixed.features, free.features)
    assert fixed.uid != free.uid
    with refused(UsageError, "phantom-gaze-unknown", available=["fixed", "free"], gaze="roving"):
        PhantomSession("easy", gaze="roving")
