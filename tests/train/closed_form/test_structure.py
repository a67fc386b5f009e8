"""The structure tensor says how strongly, in which direction and how fast pictures vary."""

import numpy as np
import pytest

from train.closed_form.structure import CHANNELS, structure

FRAMES = 9
ROWS = 16
COLUMNS = 24
PERIOD = 16


def grating(across: float, down: float, speed: float) -> np.ndarray:
    """One clip of a sine that varies along a unit direction, and drifts along it by pixels a frame."""
    frame, row, column = np.ogrid[:FRAMES, :ROWS, :COLUMNS]
    phase = across * column + down * row - speed * frame
    bright = np.rint(128 + 100 * np.sin(2 * np.pi * phase / PERIOD))
    return np.repeat(bright[None, ..., None], 3, axis=-1).astype(np.uint8)


def means(clip: np.ndarray) -> np.ndarray:
    """Mean of each channel: across, down, their product, the change, and its products with both."""
    tensor = structure(clip)
    assert tensor.shape == (1, CHANNELS, (FRAMES - 1) // 4, ROWS // 8, COLUMNS // 8)
    assert tensor.dtype == np.float32
    return tensor.mean((0, 2, 3, 4))


@pytest.mark.parametrize("speed", [-1.5, -0.5, 0.5, 1.5])
@pytest.mark.parametrize("turned", [False, True])
def test_a_drifting_grating_tells_its_direction_and_its_speed(speed: float, turned: bool) -> None:
    channels = means(grating(0, 1, speed) if turned else grating(1, 0, speed))
    contrast, still, product, change, along, across = channels[[1, 0, 2, 3, 5, 4]] if turned else channels
    assert contrast > 0.1
    # What drifts towards larger coordinates grows darker where it was brighter further on.
    assert along / contrast == pytest.approx(-speed, rel=0.15)
    assert change == pytest.approx(abs(speed) * contrast, rel=0.15)
    assert [still, product, across] == pytest.approx([0, 0, 0], abs=1e-6)


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_slanted_grating_tells_which_way_it_leans(sign: int) -> None:
    channels = means(grating(np.sqrt(0.5), sign * np.sqrt(0.5), 0.0))
    assert channels[0] == pytest.approx(channels[1], rel=0.1)
    assert sign * channels[2] > 0.5 * channels[0]


def test_a_still_picture_does_not_change_in_time() -> None:
    tensor = structure(grating(1, 0, 0.0))
    assert tensor[:, 0].min() > 0.05
    assert not tensor[:, 3:].any()


def test_a_clip_of_one_colour_is_zero() -> None:
    assert not structure(np.full((2, FRAMES, ROWS, COLUMNS, 3), 77, np.uint8)).any()


def test_the_tensor_belongs_to_its_place_and_its_latent_frame() -> None:
    clip = np.full((1, FRAMES, ROWS, COLUMNS, 3), 128, np.uint8)
    # Frames 5 to 8 are latent frame 2, and the pixels lie well inside the patch of row 1, column 2.
    clip[:, 6, 11:13, 19:21] = 255
    where = np.argwhere(structure(clip).any(axis=1))
    assert where.tolist() == [[0, 1, 1, 2]]


def test_many_clips_have_the_tensors_that_each_has_alone() -> None:
    rng = np.random.default_rng(0)
    clips = rng.integers(0, 256, (60, 5, 8, 8, 3), dtype=np.uint8)
    alone = [structure(clip[None]) for clip in clips]
    np.testing.assert_array_equal(structure(clips), np.concatenate(alone))


def test_single_frames_have_a_tensor_each() -> None:
    clips = np.random.default_rng(0).integers(0, 256, (2, 5, 16, 24, 3), np.uint8)
    single = structure(clips, turn=1)
    assert single.shape == (2, 6, 4, 2, 3)
    # Squares of roots are what is averaged over the frames of a longer latent frame.
    np.testing.assert_allclose(
        np.square(single[:, 0]).mean(1, keepdims=True), np.square(structure(clips)[:, 0]), rtol=1e-4
    )
