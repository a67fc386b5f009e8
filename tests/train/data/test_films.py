"""Films come from files at any size and rate, and are cut where windows lie."""

from pathlib import Path

import av
import numpy as np
import pytest

from rtdecode.bundle import ClipGeometry
from rtdecode.disk.video import write_mp4
from rtdecode.errors import UsageError
from rtdecode.phantom.film.film import FPS, Film
from tests.refusals import refused
from train.data.films import clips_at, read_film

CLIP = ClipGeometry(33, 64, 96, 8.0)


def test_a_film_of_the_clips_size_is_read_as_it_is(tmp_path: Path) -> None:
    film = Film(3, 1)
    write_mp4(tmp_path / "film.mp4", film.frames, FPS)
    frames = read_film(tmp_path / "film.mp4", CLIP)
    assert frames.shape == film.frames.shape
    assert np.abs(frames.astype(int) - film.frames).mean() < 4


@pytest.mark.parametrize(("fps", "repeat"), [(24.0, 3), (4.0, 0)])
def test_a_film_of_another_size_and_rate_is_resampled(fps: float, repeat: int, tmp_path: Path) -> None:
    grey = np.arange(20, 220, 20, dtype=np.uint8)
    levels = np.repeat(grey, repeat) if repeat else grey
    frames = np.broadcast_to(levels[:, None, None, None], (len(levels), 128, 160, 3))
    write_mp4(tmp_path / "film.mp4", np.ascontiguousarray(frames), fps)
    resampled = read_film(tmp_path / "film.mp4", CLIP)
    expected = grey if repeat else np.repeat(grey, 2)
    assert resampled.shape == (len(expected), 64, 96, 3)
    np.testing.assert_allclose(resampled.mean((1, 2, 3)), expected, atol=3)


def test_what_is_no_film_is_said(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_text("a film about nothing")
    with refused(UsageError, "film-unreadable"):
        read_film(tmp_path / "film.mp4", CLIP)


def test_a_film_without_a_frame_is_said(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "film.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = 96
        stream.height = 64
        stream.pix_fmt = "yuv420p"
        container.start_encoding()
    with refused(UsageError, "film-no-frames"):
        read_film(tmp_path / "film.avi", CLIP)


def test_clips_lie_where_windows_do_and_do_not_look_behind_the_cut() -> None:
    film = np.broadcast_to(np.arange(100, dtype=np.uint8)[:, None, None, None], (100, 64, 96, 3))
    clips = clips_at(film, [0.0, 1.5, 8.5], CLIP, 32)
    assert clips.shape == (3, 33, 64, 96, 3)
    assert clips[0, :, 0, 0, 0].tolist() == [*range(32), 31]
    assert clips[1, [0, 31, 32], 0, 0, 0].tolist() == [12, 43, 43]
    assert clips[2, -1, 0, 0, 0] == 99, "the film's end is held"
