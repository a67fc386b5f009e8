"""End-point error on pictures that move by a known step, and against OpenCV called directly."""

from collections.abc import Iterable
from itertools import pairwise

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from train.metrics.optical_flow import SIDE, Flow, end_point_errors, flows

STEP = 4


def moving(step: int, frames: int = 3) -> np.ndarray:
    """A smooth texture that moves to the right by so many pixels a frame."""
    noise = np.random.default_rng(0).normal(size=(SIDE, SIDE, 3))
    smooth = gaussian_filter(noise, (6, 6, 0), mode="wrap")
    picture = (128 + 40 * smooth / smooth.std()).clip(0, 255).astype(np.uint8)
    return np.stack([np.roll(picture, step * n, axis=1) for n in range(frames)])


def direct(clip: np.ndarray) -> list[np.ndarray]:
    grey = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in clip]
    return [
        cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 3, 15, 3, 5, 1.2, 0)  # type: ignore[call-overload]
        for a, b in pairwise(grey)
    ]


def end_point_error(clip: Iterable[Flow], film: Iterable[Flow]) -> float:
    return end_point_errors({"clip": clip}, film, "frozen")["clip"]


def zero_flow_error(film: Iterable[Flow]) -> float:
    return end_point_errors({}, film, "frozen")["frozen"]


def test_the_flow_is_opencvs_and_the_error_its_mean_distance() -> None:
    film = moving(STEP)
    clip = moving(1)
    for flow, opencv_flow in zip(flows(film), direct(film), strict=True):
        assert np.array_equal(flow, opencv_flow)
    pairs = zip(direct(clip), direct(film), strict=True)
    known_error = np.mean([np.sqrt(np.square(a - b).sum(axis=2)).mean() for a, b in pairs])
    assert end_point_error(flows(clip), flows(film)) == pytest.approx(known_error, rel=1e-5)
    # The texture moves by 4 - 1 pixels a frame.
    assert known_error == pytest.approx(STEP - 1, rel=0.25)


def test_a_clip_that_stands_still_has_the_length_of_the_films_flow() -> None:
    film = moving(STEP)
    still = moving(0)
    assert zero_flow_error(flows(film)) == pytest.approx(STEP, rel=0.25)
    length = zero_flow_error(flows(film))
    assert end_point_error(flows(still), flows(film)) == pytest.approx(length, rel=1e-3)
    assert end_point_error(flows(film), flows(film)) == 0


def test_several_clips_have_the_errors_that_each_has_alone() -> None:
    film = moving(STEP)
    clips = {"slow": moving(1), "back": moving(-STEP)}
    errors = end_point_errors({name: flows(clip) for name, clip in clips.items()}, flows(film), "frozen")
    expected = {name: end_point_error(flows(clip), flows(film)) for name, clip in clips.items()}
    assert errors == {**expected, "frozen": zero_flow_error(flows(film))}
    with pytest.raises(ValueError, match="shorter"):
        end_point_errors({"short": flows(film[:2])}, flows(film), "frozen")
