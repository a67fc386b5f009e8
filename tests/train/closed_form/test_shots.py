"""Which latent frames belong to one shot, from the probabilities of cuts."""

import numpy as np
import pytest

from train.closed_form.shots import decisive, onset_probabilities, same_shot

FRAMES = 9


def sure(*cuts: int) -> np.ndarray:
    return np.isin(np.arange(32), cuts)[None].astype(np.float32)


def test_a_latent_frame_goes_with_the_shot_that_has_most_of_its_video_frames() -> None:
    assert decisive(FRAMES).tolist() == [0, 2, 6, 10, 14, 18, 22, 26, 30]
    # Latent frame 2 is video frames 5 to 8. Cut at 6, three of the four belong to the new shot; at 7, two.
    for cut, first in ((5, 2), (6, 2), (7, 3), (0, 0), (1, 1)):
        in_new_shot = onset_probabilities(sure(cut), FRAMES)[0, :, cut]
        np.testing.assert_allclose(in_new_shot, np.arange(FRAMES) >= first, atol=1e-5)


def test_frames_on_both_sides_of_a_cut_belong_apart_and_all_others_together() -> None:
    same = same_shot(sure(6, 20), FRAMES)[0]
    shot = np.repeat([0, 1, 2], [2, 4, 3])
    np.testing.assert_allclose(same, shot[:, None] == shot, atol=1e-5)
    np.testing.assert_array_equal(same_shot(sure(), FRAMES), np.ones((1, FRAMES, FRAMES)))
    began = onset_probabilities(sure(6, 20), FRAMES)[0]
    assert began[3].argmax() == 6
    np.testing.assert_allclose(began[8], sure(20)[0], atol=1e-5)
    assert not began[:2].any(), "the first shot began before the window"


def test_uncertain_cuts_are_independent() -> None:
    cuts = np.full((1, 32), 0.1)
    assert same_shot(cuts, FRAMES)[0, 1, 2] == pytest.approx(0.9**4)
    # Frame 2 began a shot, or 1, or 0, or none of them.
    expected = [0.1 * 0.9**2, 0.1 * 0.9, 0.1]
    np.testing.assert_allclose(onset_probabilities(cuts, FRAMES)[0, 1, :4], [*expected, 0])
    total = onset_probabilities(cuts, FRAMES).sum(2)[0]
    np.testing.assert_allclose(total, 1 - 0.9 ** (decisive(FRAMES) + 1))


def test_what_is_told_for_sure_stays_finite() -> None:
    for probabilities in (
        same_shot(np.ones((1, 32), np.float32), FRAMES),
        onset_probabilities(np.ones((1, 32)), FRAMES),
    ):
        assert np.isfinite(probabilities).all()
