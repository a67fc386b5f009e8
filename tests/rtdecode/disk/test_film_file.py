"""Everyone who reads a film sees the same pictures: the film of the file, upright, at the same times."""

import struct
from collections.abc import Callable
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from rtdecode.bundle import ClipGeometry
from rtdecode.disk.film_file import open_film
from rtdecode.disk.video import count_frames, iter_mp4, read_mp4
from rtdecode.errors import UsageError
from rtdecode.phantom.film.from_file import film_from_file
from rtdecode.phantom.film.watched import watched
from streaming.play.frames import FilmPictures
from streaming.play.frames import read_film as read_for_the_screen
from tests.refusals import refused
from train.data.films import read_film
from train.data.layouts.film_clips import film_clips, film_length_s

HEIGHT, WIDTH = 32, 48
FRAMES = 12
# Of the corners, (x, y) with rows counted downwards.
COLOURS = {(-1, -1): (220, 30, 30), (1, -1): (30, 220, 30), (-1, 1): (30, 30, 220), (1, 1): (220, 220, 30)}
# (a, b, c, d) of the display matrix: all ways to turn and to mirror by quarters.
MATRICES = [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]


def picture() -> np.ndarray:
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for (x, y), colour in COLOURS.items():
        rows = slice(0, HEIGHT // 2) if y < 0 else slice(HEIGHT // 2, None)
        columns = slice(0, WIDTH // 2) if x < 0 else slice(WIDTH // 2, None)
        pixels[rows, columns] = colour
    return pixels


def add_video(
    container, frame_of: np.ndarray, frames: int = FRAMES, disposition: Disposition | None = None
) -> Callable[[], None]:
    """Add a video of one picture; it is written when what is returned is called."""
    stream = container.add_stream("mjpeg" if frames == 1 else "libx264", rate=10)
    stream.height, stream.width = frame_of.shape[:2]
    stream.pix_fmt = "yuvj420p" if frames == 1 else "yuv420p"
    if disposition is not None:
        stream.disposition = disposition

    def write() -> None:
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(frame_of, format="rgb24").reformat(format=stream.pix_fmt)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

    return write


def turned(path: Path, matrix: tuple[float, ...]) -> Path:
    """Write a film of one picture with a display matrix (a, b, c, d)."""
    with av.open(str(path), "w", format="mp4") as container:
        add_video(container, picture())()
    content = bytearray(path.read_bytes())
    a, b, c, d = (round(entry * 65536) for entry in matrix)
    # The matrix lies behind the times, the layer and the volume of the track's header.
    offset = content.find(b"tkhd") + 4 + 40
    assert struct.unpack_from(">i", content, offset) == (65536,)
    struct.pack_into(">9i", content, offset, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def corners(frame_of: np.ndarray) -> dict[tuple[int, int], list[int]]:
    rows, columns = frame_of.shape[0] // 4, frame_of.shape[1] // 4
    return {
        (x, y): frame_of[rows if y < 0 else -rows, columns if x < 0 else -columns].tolist()
        for x, y in COLOURS
    }


def on_the_screen(path: Path, size: tuple[int, int]) -> np.ndarray:
    pictures = FilmPictures(read_for_the_screen(path), *size)
    frame_of = pictures.next(5.0)
    pictures.close()
    assert frame_of is not None
    return frame_of


def read_everywhere(path: Path, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """The first picture as simulate, play, fit, a data set and a session's truth have it."""
    return {
        "simulate": film_from_file(path, size, 8, 1)[0][0],
        "play": on_the_screen(path, size),
        "fit": read_film(path, ClipGeometry(33, *size, 8.0))[0],
        "train": film_clips(path, [0.5], 0.5, 8, size)[0][0],
        "truth": next(iter_mp4(path)),
    }


@pytest.mark.parametrize("matrix", MATRICES)
def test_a_film_is_turned_and_mirrored_as_it_says(tmp_path: Path, matrix: tuple[int, ...]) -> None:
    path = turned(tmp_path / "film.mp4", matrix)
    a, b, c, d = matrix
    upright = (HEIGHT, WIDTH) if a else (WIDTH, HEIGHT)
    film = read_for_the_screen(path)
    assert (film.height, film.width) == upright
    for reader, frame_of in read_everywhere(path, upright).items():
        assert frame_of.shape == (*upright, 3), reader
        by_corner = corners(frame_of)
        for (x, y), colour in COLOURS.items():
            place = (a * x + c * y, b * x + d * y)
            np.testing.assert_allclose(by_corner[place], colour, atol=16, err_msg=f"{reader} {place}")


def test_the_size_in_a_matrix_and_a_matrix_of_zeros_turn_nothing(tmp_path: Path) -> None:
    for matrix in ((2, 0, 0, 2), (0, 0, 0, 0), (1, 0.001, 0, 1)):
        path = turned(tmp_path / "film.mp4", matrix)
        np.testing.assert_allclose(corners(read_mp4(path)[0])[-1, -1], COLOURS[-1, -1], atol=16)


def test_a_film_that_is_turned_askew_is_refused(tmp_path: Path) -> None:
    path = turned(tmp_path / "film.mp4", (0.8, 0.6, -0.6, 0.8))
    for read in (
        lambda: film_from_file(path, (32, 48), 8, 1),
        lambda: read_for_the_screen(path),
        lambda: read_film(path, ClipGeometry(33, 32, 48, 8.0)),
        lambda: film_clips(path, [0.0], 0.5),
    ):
        with refused(UsageError, "film-turned-askew", path=path):
            read()


GREY = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("disposition", [None, Disposition.default, Disposition.attached_pic])
def test_a_cover_is_no_film(tmp_path: Path, ending: str, disposition: Disposition | None) -> None:
    path = tmp_path / f"film.{ending}"
    with av.open(str(path), "w") as container:
        cover = add_video(container, GREY, 1, disposition)
        film = add_video(container, picture())
        cover()
        film()
    for reader, frame_of in read_everywhere(path, (HEIGHT, WIDTH)).items():
        np.testing.assert_allclose(corners(frame_of)[-1, -1], COLOURS[-1, -1], atol=16, err_msg=reader)
    assert count_frames(path) == FRAMES


def test_of_several_videos_everyone_takes_the_one_that_players_show(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        videos = [
            add_video(container, GREY, disposition=Disposition.comment),
            add_video(container, picture(), disposition=Disposition.default),
        ]
        for write in videos:
            write()
    for reader, frame_of in read_everywhere(path, (HEIGHT, WIDTH)).items():
        np.testing.assert_allclose(corners(frame_of)[-1, -1], COLOURS[-1, -1], atol=16, err_msg=reader)


def test_a_cover_alone_is_no_film(tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        cover = add_video(container, GREY, 1, Disposition.attached_pic)
        sound = container.add_stream("aac", rate=16_000, layout="mono")
        cover()
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), "fltp", "mono")
        silence.sample_rate = 16_000
        silence.pts = 0
        container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
    with refused(UsageError, "film-without-video", path=path):
        watched(str(path), None, 0, "grid")
    with refused(UsageError, "film-without-video", path=path):
        film_length_s(path)


def test_a_turned_films_pixels_are_as_high_as_they_were_wide(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as container:
        write = add_video(container, picture())
        container.streams.video[0].codec_context.sample_aspect_ratio = Fraction(2)
        write()
    content = path.read_bytes()
    with open_film(path) as film:
        assert (film.size, film.pixel) == ((HEIGHT, WIDTH), 2)
    offset = content.find(b"tkhd") + 4 + 40
    matrix = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content[:offset] + matrix + content[offset + 36 :])
    with open_film(path) as film:
        assert (film.size, film.pixel) == ((WIDTH, HEIGHT), 0.5)
    film_of_the_screen = read_for_the_screen(path)
    assert (film_of_the_screen.height, film_of_the_screen.width) == (WIDTH, HEIGHT // 2)


def steps(path: Path, rate: int, count: int, start: int = 0) -> Path:
    """Write a film whose frames are each 8 brighter than the one before."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"g": "5", "bf": "2", "crf": "4"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for number in range(count):
            frame_of = np.full((HEIGHT, WIDTH, 3), 20 + 8 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(frame_of, format="rgb24")
            frame.pts = number + start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.ts", "film.avi"])
@pytest.mark.parametrize(("rate", "fps"), [(10, 8.0), (24, 8.0), (4, 8.0), (8, 16.0)])
def test_everyone_sees_a_frame_at_the_same_time(tmp_path: Path, name: str, rate: int, fps: float) -> None:
    path = steps(tmp_path / name, rate, 24)
    size = (HEIGHT, WIDTH)
    simulated, _ = film_from_file(path, size, fps, 1000)
    fitted = read_film(path, ClipGeometry(33, *size, fps))
    np.testing.assert_array_equal(fitted, simulated)
    (trained,) = film_clips(path, [0.0], len(simulated) / fps, fps, size)
    np.testing.assert_array_equal(trained, simulated)
    # A part, sought in the file.
    (part,) = film_clips(path, [0.5], 0.5, fps, size)
    np.testing.assert_array_equal(part, simulated[int(0.5 * fps) : int(fps)])
    on = np.floor(np.arange(len(simulated)) / fps * rate + 1e-6).astype(int)
    np.testing.assert_allclose(simulated[:, 5, 5, 0], 20 + 8 * on, atol=4)


def test_a_film_that_begins_later_on_its_own_clock_begins_with_its_first_frame(tmp_path: Path) -> None:
    path = steps(tmp_path / "film.mkv", 10, 20, start=7)
    simulated, _ = film_from_file(path, (HEIGHT, WIDTH), 10, 1000)
    assert len(simulated) == 20
    (part,) = film_clips(path, [1.0], 0.5, 10, (HEIGHT, WIDTH))
    np.testing.assert_array_equal(part, simulated[10:15])


def test_frames_can_be_read_again(tmp_path: Path) -> None:
    with open_film(steps(tmp_path / "film.mp4", 10, 20)) as film:
        first = [offset for offset, _ in film.frames()]
        assert first == pytest.approx(np.arange(20) / 10)
        assert [offset for offset, _ in film.frames()] == first
        # Sought by the key frame before it.
        (offset, _), *_ = islice(film.frames(1.23), 1)
        assert offset <= 1.23
        assert [offset for offset, _ in film.frames()] == first
