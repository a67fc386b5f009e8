import resource
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from rtdecode.disk.video import FilmWriter, from_mp4, read_mp4, to_mp4, unpack_mp4, write_mp4


def colours(frames: int, height: int = 64, width: int = 96) -> np.ndarray:
    """Saturated bars a few pixels wide that move: what chroma subsampling would smear."""
    film = np.zeros((frames, height, width, 3), np.uint8)
    for n in range(frames):
        for bar, colour in enumerate(([250, 10, 10], [10, 240, 20], [20, 20, 250], [240, 230, 10])):
            film[n, :, (bar * 24 + n) % width : (bar * 24 + n) % width + 5] = colour
    return film


def test_colours_survive_a_clip(tmp_path: Path) -> None:
    film = colours(33)
    write_mp4(tmp_path / "clip.mp4", film, 8)
    read = read_mp4(tmp_path / "clip.mp4")
    assert read.shape == film.shape
    error = np.abs(read.astype(int) - film)
    assert error.mean() < 2.5
    assert np.percentile(error, 99) < 20


def test_the_same_frames_give_the_same_bytes_whatever_was_written_before(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clips = []
    for _ in range(6):
        coarse = rng.normal(128, 60, (9, 8, 12, 3)).repeat(4, 0)[:33].repeat(8, 1).repeat(8, 2)
        smooth = gaussian_filter(coarse, (3, 6, 6, 0)) + rng.normal(0, 2, coarse.shape)
        clips.append(np.clip(smooth, 0, 255).astype(np.uint8))
    written: dict[int, set[bytes]] = {}
    for n in [*range(6), *rng.permutation(6), *rng.permutation(6)]:
        write_mp4(tmp_path / "clip.mp4", clips[n], 8)
        written.setdefault(int(n), set()).add((tmp_path / "clip.mp4").read_bytes())
    assert [len(kinds) for kinds in written.values()] == [1] * 6


def test_a_film_plays_while_it_is_written(tmp_path: Path) -> None:
    film = colours(96)
    writer = FilmWriter(tmp_path / "film.mp4", 64, 96, 8)
    for part in range(3):
        writer.write(film[32 * part : 32 * (part + 1)])
        so_far = read_mp4(tmp_path / "film.mp4")
        assert 32 * (part + 1) - len(so_far) in (0, 1)
        assert np.abs(so_far.astype(int) - film[: len(so_far)]).mean() < 6
    writer.close()
    writer.close()
    assert read_mp4(tmp_path / "film.mp4").shape == film.shape


def test_a_film_that_fills_the_disk_plays_up_to_there(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 64, 96, 3), np.uint8)
    writer = FilmWriter(tmp_path / "film.mp4", 64, 96, 8)
    writer.write(noise[:8])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "film.mp4").stat().st_size + 9000, before[1]))
    try:
        with pytest.raises(OSError, match="large"):
            writer.write(noise)
        writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(read_mp4(tmp_path / "film.mp4")) in (7, 8)


def test_frames_of_another_shape_are_refused(tmp_path: Path) -> None:
    writer = FilmWriter(tmp_path / "film.mp4", 64, 96, 8)
    with pytest.raises(ValueError, match=r"64, 96, 3"):
        writer.write(colours(2, 32, 48))
    with pytest.raises(ValueError, match="uint8"):
        write_mp4(tmp_path / "clip.mp4", np.zeros((2, 64, 96, 3)), 8)  # type: ignore[arg-type]
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write(colours(1))


def test_a_film_is_unpacked_into_a_file(tmp_path: Path) -> None:
    write_mp4(tmp_path / "film.mp4", colours(40), 8)
    film = unpack_mp4(tmp_path / "film.mp4")
    assert film.shape == (40, 64, 96, 3)
    assert np.array_equal(np.asarray(film), read_mp4(tmp_path / "film.mp4"))


def test_a_film_without_a_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "empty.mp4"
    FilmWriter(path, 48, 64, 8).close()
    for read in (read_mp4, unpack_mp4):
        with pytest.raises(ValueError, match=r"empty\.mp4 holds no video frame"):
            read(path)


def test_a_clip_without_a_file_has_the_bytes_of_one_and_is_read_as_one(tmp_path: Path) -> None:
    film = colours(9)
    write_mp4(tmp_path / "clip.mp4", film, 8)
    raw = to_mp4(film, 8)
    assert raw == (tmp_path / "clip.mp4").read_bytes()
    assert np.array_equal(from_mp4(raw), read_mp4(tmp_path / "clip.mp4"))
    with pytest.raises(ValueError):  # noqa: PT011
        from_mp4(raw[:100])
