import json
import pickle
import resource
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtdecode.bundle import ClipGeometry
from rtdecode.disk.video import read_mp4
from streaming.sinks.clips import ClipSink
from streaming.sinks.film import FilmSink, describe
from streaming.sinks.sheet import ContactSheet
from tests.streaming.windows import window

GEOMETRY = ClipGeometry(33, 64, 96, 8.0)


def plain(level: int, frames: int = 33) -> np.ndarray:
    return np.full((frames, 64, 96, 3), level, np.uint8)


def test_a_clip_appears_whole_with_its_line(tmp_path: Path) -> None:
    sink = ClipSink(tmp_path, simulated=True)
    name = sink.save(3, "preview", plain(200), 8)
    sink.append({"clip": 3, "file": name})
    assert name == "clips/clip_00003_preview_simulated.mp4"
    assert read_mp4(tmp_path / name).shape == (33, 64, 96, 3)
    assert json.loads((tmp_path / "clips.jsonl").read_text()) == {"clip": 3, "file": name}
    sink.close()
    assert not list(tmp_path.glob("**/*.part"))


def test_a_line_that_could_not_be_written_is_taken_back(tmp_path: Path) -> None:
    sink = ClipSink(tmp_path, simulated=False)
    sink.append({"clip": 0})
    first_line = (tmp_path / "clips.jsonl").read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(first_line) + 10, before[1]))
    try:
        with pytest.raises(OSError, match="space"):
            sink.append({"clip": 1, "and": "more than fits"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "clips.jsonl").read_bytes() == first_line
    sink.append({"clip": 2})
    sink.close()
    assert (tmp_path / "clips.jsonl").read_text() == '{"clip": 0}\n{"clip": 2}\n'


def test_the_film_shows_truth_beside_reconstruction_a_hop_a_window(tmp_path: Path) -> None:
    film = FilmSink(tmp_path / "film.mp4", GEOMETRY, 32, "SIMULATED PARTICIPANT")
    film.write(window(0), plain(250), plain(5, 32))
    film.skip(window(1, eeg=False, fmri=False))
    film.write(window(2), plain(250), None)
    film.close()
    film_frames = read_mp4(tmp_path / "film.mp4").astype(int)
    assert len(film_frames) == 96
    middle = film_frames.shape[1] // 2
    left_half = film_frames[:, middle - 40, 40]
    right_half = film_frames[:, middle - 40, -40]
    assert (left_half[:32] < 20).all()
    assert (right_half[:32] > 235).all()
    assert (np.ptp(right_half[32:64], axis=1) < 12).all()
    assert (np.abs(right_half[32:64] - 90) < 15).all()
    assert (np.abs(left_half[64:] - 90) < 15).all()
    orange = (film_frames[10, -40:] - np.array([255, 176, 64]))[..., :]
    assert np.abs(orange).sum(-1).min() < 60


def test_a_clip_that_came_late_is_marked_and_a_category_is_named(tmp_path: Path) -> None:
    def title(path: Path, **how: str) -> np.ndarray:
        film = FilmSink(path, GEOMETRY, 32, "note", "decoded category")
        film.write(window(0), plain(128), None, **how)
        film.close()
        return read_mp4(path)[16, :24, -384:].astype(int)

    bare = title(tmp_path / "bare.mp4")
    labelled = title(tmp_path / "named.mp4", category="house 0.43")
    late = title(tmp_path / "late.mp4", category="house 0.43", late="LATE 6.1 s")

    def written(picture: np.ndarray) -> int:
        """Columns in which there is text."""
        return int((np.ptp(picture.mean(-1), axis=0) > 60).sum())

    def orange(picture: np.ndarray) -> int:
        return int((picture[..., 0] - picture[..., 2] > 60).sum())

    assert written(bare) < written(labelled) < written(late)
    assert orange(bare) == orange(labelled) == 0
    assert orange(late) > 200


def test_a_window_says_what_it_rests_on() -> None:
    assert describe(window(2)) == "window 2   8 - 12 s   EEG + fMRI"
    partial = window(0)
    partial.fmri_mask[1] = False
    assert describe(partial) == "window 0   0 - 4 s   EEG + fMRI   missing fMRI 20 %"
    assert "nothing received" in describe(window(eeg=False, fmri=False))


def test_the_contact_sheet_stays_bounded_over_a_long_session(tmp_path: Path) -> None:
    sheet = ContactSheet("note")
    for n in range(500):
        sheet.add(f"window {n}", plain(n % 256), plain(0, 32) if n % 2 else None)
    sheet.save(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.size[0] < 1300
        assert picture.size[1] < 1500
        # Of three clips in a row, each with its label and two rows of pictures.
        rows = (picture.size[1] - 40) / (10 + 18 + 2 * 64)
    assert 4 <= rows <= 8


def test_the_contact_sheet_holds_small_pictures_of_large_clips(tmp_path: Path) -> None:
    clip = np.zeros((8, 480, 720, 3), np.uint8)
    clip[:, 240:] = 200
    sheet = ContactSheet("note")
    sheet.add("window 0", clip, None, word="unknown")
    # Four pictures of 96 x 64, and not of 720 x 480.
    assert len(pickle.dumps(sheet)) < 4 * 96 * 64 * 3 + 2000
    sheet.save(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        pixels = np.asarray(picture)
    # Below the head, the label and the row of the unknown truth.
    row = pixels[30 + 18 + 64 :, 10 : 10 + 4 * 96]
    assert (row[:30] == 0).all()
    assert (row[34:64] == 200).all()


def test_without_a_clip_there_is_no_sheet(tmp_path: Path) -> None:
    ContactSheet("note").save(tmp_path / "sheet.png")
    assert not list(tmp_path.iterdir())
