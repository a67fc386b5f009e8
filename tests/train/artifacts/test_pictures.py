"""Pictures on disk show what was drawn, and are small where they hold frames of clips."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.artifacts import pictures


@pytest.fixture
def frame() -> Image.Image:
    """Colours that change slowly, as a decoded clip's do, with its grain."""
    down, across = np.meshgrid(np.linspace(0, 200, 96), np.linspace(0, 200, 144), indexing="ij")
    smooth = np.stack([down, across, 200 - down], axis=2)
    grain = np.random.default_rng(0).normal(0, 2, smooth.shape)
    return Image.fromarray(np.clip(smooth + 20 + grain, 0, 255).astype(np.uint8))


def _pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB"), np.float64)


def test_frames_of_clips_keep_their_colours(frame: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "shapes.webp"
    pictures.write(path, frame)
    with Image.open(path) as read:
        assert read.format == "WEBP"
        error = _pixels(read) - _pixels(frame)
    # A palette of 64 colours would be out by 8, and draw edges.
    assert np.sqrt(np.mean(error**2)) < 4
    assert path.stat().st_mode & 0o077 == 0


def test_frames_of_clips_are_small(frame: Image.Image, tmp_path: Path) -> None:
    for name in ("clips.webp", "clips.png"):
        pictures.write(tmp_path / name, frame)
    assert (tmp_path / "clips.webp").stat().st_size < (tmp_path / "clips.png").stat().st_size / 4


def test_lines_are_drawn_as_they_are(frame: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "lag.png"
    pictures.write(path, frame)
    with Image.open(path) as read:
        assert read.format == "PNG"
        np.testing.assert_array_equal(_pixels(read), _pixels(frame))
