"""Clips are cut from a film's file where they lie, whatever the film's key frames and its clock."""

from pathlib import Path

import av
import numpy as np
import pytest

from rtdecode.errors import UsageError
from tests.refusals import refused
from train.data.layouts.film_clips import film_clips, film_length_s

FPS = 10
LEVELS = 2 * np.arange(100)


def film(path: Path) -> Path:
    """Write 10 s, each frame 2 brighter than the one before, with a key frame in every ten."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", FPS, options={"g": "10", "bf": "2", "threads": "1"})
        stream.width = 64
        stream.height = 48
        stream.pix_fmt = "yuv420p"
        for level in LEVELS:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


# A transport stream's clock does not begin at 0.
@pytest.fixture(scope="module", params=["film.mp4", "film.ts", "film.avi", "film.mkv"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("films") / request.param)


def test_a_clip_begins_where_it_is_wanted(path):
    starts = [7.3, 0.0, 2.05, 9.0]
    clips = film_clips(path, starts, 1.0, 5, (24, 32))
    assert clips.shape == (4, 5, 24, 32, 3)
    for clip, start in zip(clips, starts, strict=True):
        on = np.floor((start + np.arange(5) / 5) * FPS + 1e-6).astype(int)
        np.testing.assert_allclose(clip[:, 5, 5, 0], LEVELS[on], atol=3)


def test_a_rate_above_the_films_shows_frames_again(path):
    (clip,) = film_clips(path, [3.0], 0.4, 20, (24, 32))
    np.testing.assert_allclose(clip[:, 5, 5, 0], np.repeat(LEVELS[30:34], 2), atol=3)


def test_a_clip_beyond_the_end_is_refused(path):
    assert film_length_s(path) == pytest.approx(10, abs=0.3)
    with refused(UsageError, "film-ends-early", start_s=9.5, end_s=11.5):
        film_clips(path, [9.5], 2.0, 5, (24, 32))


def test_nothing_is_stretched(tmp_path):
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", FPS)
        stream.width = 64
        stream.height = 32
        stream.pix_fmt = "yuv420p"
        picture = np.zeros((32, 64, 3), np.uint8)
        picture[:, 16:48] = 255
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    (clip,) = film_clips(path, [0.0], 0.5, 2, (32, 32))
    assert clip[0, :, 2:-2].min() > 200, "the sides are cut off"


def test_what_is_no_film_is_refused_by_path(tmp_path):
    path = tmp_path / "film.mp4"
    with refused(UsageError, "film-unreadable", path=path):
        film_length_s(path)
    path.write_bytes(b"no film")
    with refused(UsageError, "film-unreadable", path=path):
        film_clips(path, [0.0], 1.0)
