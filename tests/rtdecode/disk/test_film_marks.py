from pathlib import Path

import numpy as np
import pytest

from rtdecode.disk.film_marks import (
    END,
    FilmMark,
    frame_label,
    is_film_mark,
    name_digest,
    showings,
    start_label,
    without_name,
)
from rtdecode.disk.recording import Recording, RecordingWriter
from tests import small


def marks(labels: list[str], stamps: list[float]) -> list[FilmMark]:
    return [FilmMark(stamp, label, stamp + 0.01) for label, stamp in zip(labels, stamps, strict=True)]


def film_marks(numbers: list[int], fps: float, onset_at: float, name: str = "my film.mp4") -> list[FilmMark]:
    labels = [start_label(name, fps, 100), *(frame_label(n) for n in numbers), END]
    late = np.resize([0.004, 0.006, 0.005], len(numbers))
    stamps = [onset_at, *(onset_at + np.array(numbers) / fps + late), onset_at + 99]
    return marks(labels, stamps)


def test_what_was_shown_is_read_back() -> None:
    numbers = [0, 1, 2, 5, 6, 7]
    (film,) = showings(film_marks(numbers, 30000 / 1001, 500.0))
    assert (film.name, film.frames, film.ended) == ("my film.mp4", 100, True)
    assert film.fps == pytest.approx(30000 / 1001, rel=1e-6)
    assert film.frame_numbers.tolist() == numbers
    assert film.onset_at == pytest.approx(500.005, abs=0.0011)


def test_each_showing_stands_for_itself_and_one_cut_off_is_said_to_be() -> None:
    first = film_marks([0, 1, 2], 25, 500.0)[:-1]
    second = film_marks([0, 1], 8, 700.0, "b.mkv")
    films = showings([*first, *second])
    assert [(f.name, f.fps, f.ended, len(f.frame_numbers)) for f in films] == [
        ("my film.mp4", 25, False, 3),
        ("b.mkv", 8, True, 2),
    ]
    assert films[1].onset_at == pytest.approx(700.005, abs=0.001)


def test_a_recording_that_began_later_measures_the_rate() -> None:
    (film,) = showings(film_marks(list(range(40, 90)), 25, 500.0)[1:])
    assert (film.name, film.frames) == ("", None)
    assert film.fps == pytest.approx(25, rel=1e-3)
    assert film.onset_at == pytest.approx(500.005, abs=0.005)
    assert showings(film_marks([40], 25, 500.0)[1:]) == []
    assert showings(film_marks([40, 40], 25, 500.0)[1:]) == []


def test_markers_that_say_no_film_are_passed_over() -> None:
    odd = marks(["film start x nan 3", "frame 0", "R128", "frame 2", "frame two", END], [1, 2, 3, 4, 5, 6])
    (film,) = showings(odd)
    assert film.frame_numbers.tolist() == [0, 2]
    assert film.fps == pytest.approx(1.0)
    assert showings([]) == []


def test_frames_whose_rate_cannot_be_measured_are_no_showing() -> None:
    assert showings(marks(["frame 1", "frame 2"], [5.0, 5.0])) == []
    assert showings(marks(["frame 1", "frame 2"], [5.0, 4.0])) == []
    assert showings(marks(["frame 1", "frame 2"], [5.0, float("nan")])) == []


@pytest.mark.parametrize("label", ["frame " + "9" * 5000, "film start a " + "9" * 400 + " 1", "frame \u0661"])
def test_numbers_that_no_film_has_are_no_film_mark(label: str) -> None:
    assert not is_film_mark(label)
    assert without_name(label) == ""
    assert showings(marks([label, label], [1.0, 2.0])) == []


@pytest.mark.parametrize("label", [start_label(" ", 25, 1), frame_label(0), frame_label(99999), END])
def test_what_play_says_is_a_film_mark(label: str) -> None:
    assert is_film_mark(label)


@pytest.mark.parametrize("label", ["R128", "8", "S  1", "frame", "film", "T 1_on", "frames 3", ""])
def test_what_an_amplifier_says_is_none(label: str) -> None:
    assert not is_film_mark(label)


def test_a_recording_keeps_a_films_markers_apart_from_what_is_decoded(tmp_path: Path) -> None:
    film = film_marks(list(range(20)), 25, 91.0, "Jane Doe.mp4")
    film.insert(3, FilmMark(91.1, "for Jane Doe", 91.1))
    with RecordingWriter(tmp_path / "r", small.montage(), {}) as writer:
        for item in (*small.triggers(5, 90.0), *film):
            writer.write(item)
        assert (tmp_path / "r" / "film.jsonl").read_text().count("\n") == len(film)
    read = Recording(tmp_path / "r")
    assert list(read.events()) == small.triggers(5, 90.0)
    (played_film,) = read.films()
    assert (played_film.name, played_film.fps, played_film.frames) == (name_digest("Jane  Doe.mp4"), 25, 100)
    assert played_film.onset_at == pytest.approx(91.005, abs=0.001)
    assert "Doe" not in (tmp_path / "r" / "film.jsonl").read_text()
    file = tmp_path / "r" / "film.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    assert not Recording(tmp_path / "r").films()[0].ended


def test_a_recording_without_a_film_has_none(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "r", small.montage(), {}) as writer:
        for trigger in small.triggers(2, 90.0):
            writer.write(trigger)
    assert Recording(tmp_path / "r").films() == []
    assert not (tmp_path / "r" / "film.jsonl").exists()
