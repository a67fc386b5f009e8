"""What is judged in training alone, of clips in files: the same values, in memory for a few frames."""

import numpy as np
import pytest

from rtdecode.disk.clip_file import StoredClip
from tests.rtdecode.disk.test_clip_file import LARGE, WIDE, clips, peak, stored
from train.evaluation.identification import background_clips
from train.metrics.pixels import NearestClips, gradient_energy


def energies(pixels: list[np.ndarray], kind: type) -> list[float]:
    """Mean squared step along rows and columns, over whole clips."""
    means = []
    for clip in pixels:
        steps = [np.diff(clip.astype(kind), axis=axis) for axis in (1, 2)]
        means.append(float(np.mean([np.square(step).mean() for step in steps])))
    return means


def test_sharpness_of_the_shipped_size_is_a_single_sum() -> None:
    film = clips(2, (33, 64, 96, 3))
    assert gradient_energy(stored(film)).tolist() == energies(film, np.float32)


@pytest.mark.parametrize("shape", [WIDE, LARGE])
def test_sharpness_is_the_same_by_pieces(shape: tuple[int, ...]) -> None:
    film = clips(3, shape)
    np.testing.assert_allclose(gradient_energy(stored(film)), energies(film, np.float64), rtol=1e-6)


def test_a_background_is_the_mean_of_its_clips() -> None:
    true = clips(3, (4, 8, 8, 3))
    spans = [(0, 4.0 * k, 4.0 * k + 4) for k in range(3)]
    backgrounds = background_clips(stored(true), spans, {})
    assert np.array_equal(np.asarray(backgrounds[2]), np.mean(true, 0))


def test_the_nearest_clip_is_found_in_a_file_whatever_its_size() -> None:
    """Neither 17 rows nor 45 columns are whole blocks of 8 pixels."""
    film = clips(8, (6, 17, 45, 3))
    mean = np.full((6, 17, 45, 3), 128, np.uint8)
    expected = [film[7][:5], film[2][:5]]
    nearest = NearestClips(stored(film), mean[:5]).to(stored(expected))
    assert {type(clip) for clip in nearest} == {StoredClip}
    assert np.array_equal(np.stack([np.asarray(clip) for clip in nearest]), np.stack(expected))


@pytest.mark.parametrize("frames", [4, 16])
def test_pixels_are_held_for_a_few_frames_whatever_the_length(frames: int) -> None:
    stored_clips = stored(clips(3, (frames, 600, 800, 3)))
    spans = [(0, 4.0 * k, 4.0 * k + 4) for k in range(3)]
    frame = 600 * 800 * 3 * 8
    assert peak(lambda: gradient_energy(stored_clips)) < 4 * frame
    assert peak(lambda: background_clips(stored_clips, spans, {})) < 4 * frame
