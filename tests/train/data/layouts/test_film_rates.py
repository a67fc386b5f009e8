"""A film whose rate is not that of its layout is read by its own time, or refused."""

from pathlib import Path

import numpy as np
import pytest

from rtdecode.disk.video import write_mp4
from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.data import cinebrain_folder as release
from train.data.sets.opening import opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    release.write(tmp_path, ["sub-0001"], [0, 1], eeg=False, unpacked=True)
    return tmp_path


def brighter(folder: Path, frames: int, fps: float) -> None:
    """Let the first clip become brighter by 40 a second, and end with its last frame."""
    levels = 20 + 40 * np.arange(frames) / fps
    pictures = np.broadcast_to(levels[:, None, None, None], (frames, 48, 64, 3)).astype(np.uint8)
    write_mp4(folder / "videos" / "000000.mp4", np.ascontiguousarray(pictures), fps)


@pytest.mark.parametrize(
    ("frames", "fps"), [(33, 8.0), (33, 8.05), (97, 24.0), (100, 24.0), (101, 25.0), (16, 4.0)]
)
def test_a_clip_shows_its_window_whatever_the_rate(folder: Path, frames: int, fps: float) -> None:
    brighter(folder, frames, fps)
    (clip,) = opened(folder).read("clips", [0])
    assert len(clip) == 33
    seconds = np.minimum(np.arange(33) / 8, (frames - 1) / fps)
    np.testing.assert_allclose(clip[:, 5, 5, 0], 20 + 40 * seconds, atol=40 / fps + 3)


@pytest.mark.parametrize(("frames", "fps"), [(33, 24.0), (50, 24.0), (240, 24.0), (33, 4.0)])
def test_a_film_of_another_rate_and_length_is_refused(folder: Path, frames: int, fps: float) -> None:
    brighter(folder, frames, fps)
    with refused(UsageError, "cinebrain-video-rate-mismatch", fps=fps, expected_fps=8):
        opened(folder).read("clips", [0])
