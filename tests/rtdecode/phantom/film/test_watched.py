"""Films from files, and a grey screen, as the simulated participant watches them."""

import csv
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from rtdecode.errors import UsageError
from rtdecode.phantom.film.cuts import find_cuts
from rtdecode.phantom.film.features import film_features
from rtdecode.phantom.film.film import Film
from rtdecode.phantom.film.watched import Pictures, watched
from rtdecode.phantom.session import PhantomSession
from rtdecode.scores.events import attribute, read_events
from tests.refusals import refused

# Cuts that were counted by frame differences (`films/INDEX.md`). What is found may differ by fades and by
# shots that are much alike.
COUNTED = {
    "big_buck_bunny": (139, 10),
    "edison_mammoth_1899": (2, 2),
    "nasa_13013": (1, 1),
    "nasa_ksnn_blastoff": (7, 3),
    "nosferatu_1922": (13, 4),
}


def write(path: Path, frames: np.ndarray, rate: Fraction | int, codec: str = "libx264") -> Path:
    """A film of plain frames, (frame, row, column, 3)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"crf": "4"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def plain(levels: list[int], height: int = 96, width: int = 144) -> np.ndarray:
    return np.stack([np.full((height, width, 3), level, np.uint8) for level in levels])


def level(frames: np.ndarray) -> list[int]:
    return np.rint(frames.mean((1, 2, 3))).astype(int).tolist()


@pytest.mark.parametrize("rate", [4, 8, Fraction(30000, 1001), 25])
def test_each_frame_is_the_one_that_is_on_at_its_instant(rate: Fraction | int, tmp_path: Path) -> None:
    count = int(5 * rate)
    levels = np.linspace(20, 230, count).astype(int).tolist()
    film = watched(str(write(tmp_path / "f.mp4", plain(levels), rate)), None, 0, "grid")
    expected = [levels[int(n * rate / 8 + Fraction(1, 1000))] for n in range(film.count)]
    assert film.count == pytest.approx(40, abs=1)
    assert np.abs(np.array(level(film.frames)) - expected).max() <= 2


def test_a_wide_film_is_cut_at_its_sides_and_a_high_one_above_and_below(tmp_path: Path) -> None:
    wide = plain([40] * 40, 128, 384)
    wide[:, :, 96:288] = 200
    high = plain([40] * 40, 192, 96)
    high[:, 64:128] = 200
    for name, frames in (("wide", wide), ("high", high)):
        film = watched(str(write(tmp_path / f"{name}.mp4", frames, 8)), None, 0, "grid")
        assert film.frames.shape == (40, 64, 96, 3)
        assert abs(int(film.frames[8, 4:60, 4:92].min()) - 200) <= 3


def test_cuts_and_fades_are_found_and_movement_is_none() -> None:
    rng = np.random.default_rng(0)
    scenes = [np.kron(rng.integers(40, 220, (8, 12, 3)), np.ones((8, 8, 1))) for _ in range(3)]
    still = [np.repeat(scene[None], 16, axis=0) for scene in scenes]
    fade = [scenes[1][None] * f for f in (0.6, 0.3, 0.02, 0.0, 0.0)]
    back = [scenes[2][None] * f for f in (0.3, 0.6, 0.8)]
    frames = np.concatenate([still[0], still[1], *fade, *back, still[2]]).astype(np.uint8)
    assert find_cuts(frames).tolist() == [16, 37]
    pan = np.concatenate([scenes[0], scenes[1], scenes[2]], axis=1)
    moving = np.stack([pan[:, 4 * n : 4 * n + 96] for n in range(48)]).astype(np.uint8)
    assert find_cuts(moving).tolist() == []


@pytest.mark.parametrize("cuts", ["grid", "free"])
def test_the_cuts_of_the_film_of_shapes_are_found_in_its_pixels(cuts: str) -> None:
    film = Film(160, seed=21, cuts=cuts)
    assert find_cuts(film.frames).tolist() == film.cut_frames[1:].tolist()


@pytest.mark.full
def test_about_as_many_cuts_are_found_as_were_counted_in_real_films(data_root: Path) -> None:
    for name, (counted, off) in COUNTED.items():
        film = watched(str(data_root / "films" / "train" / f"{name}.mp4"), None, 0, "grid")
        assert abs(len(film.cut_frames) - 1 - counted) <= off, name


def test_what_a_film_shows_is_not_known_and_its_shots_are(tmp_path: Path) -> None:
    film = Film(40, seed=3)
    pictures = Pictures(film.frames, find_cuts(film.frames))
    assert [shot.frames for shot in pictures.shots] == [32] * 10
    assert pictures.clip(3).shape == (33, 64, 96, 3)
    assert np.array_equal(pictures.clip(3)[:32], film.clip(3)[:32])
    pictures.write_events(tmp_path / "events.tsv")
    with (tmp_path / "events.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert {row["trial_type"] for row in rows} == {"shot"}
    assert {row["color"] for row in rows} == {"n/a"}
    events = {0: read_events(tmp_path / "events.tsv")}
    assert attribute([(0, 0.0, 4.0)], events, "background") == [None]


def test_the_brain_answers_to_pixels_whoever_made_them() -> None:
    film = Film(80, seed=4)
    pictures = Pictures(film.frames, find_cuts(film.frames))
    assert np.array_equal(film_features(film), film_features(pictures))


def test_the_future_of_a_film_does_not_change_what_is_seen_of_it() -> None:
    film = Film(40, seed=5).frames
    other = film.copy()
    other[200:] = 255 - other[200:]
    original, changed = (film_features(Pictures(frames, find_cuts(frames))) for frames in (film, other))
    assert np.array_equal(original[:200], changed[:200])
    assert not np.allclose(original[200:], changed[200:])


def test_a_session_of_a_file_has_its_length_and_names_the_file_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "DOE.mp4", Film(12, seed=6).frames, 8)
    session = PhantomSession("easy", seconds=None, film=str(path))
    assert session.seconds == 12
    assert session.volumes == 25
    assert session.film_name == "DOE.mp4"
    assert np.isfinite(session.state).all()
    session.truth(tmp_path / "truth")
    assert len(read_events(tmp_path / "truth" / "events.tsv")) == 3
    baseline = PhantomSession("easy", seconds=12.0, film="none")
    baseline.truth(tmp_path / "rest")
    assert read_events(tmp_path / "rest" / "events.tsv") == []
    assert baseline.uid != session.uid != PhantomSession("easy", seconds=12.0).uid


def damaged(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    return path


def test_a_film_with_a_broken_end_is_watched_up_to_there(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = np.repeat(rng.integers(0, 255, (120, 64, 96, 1)).astype(np.uint8), 3, axis=3)
    path = write(tmp_path / "f.mkv", frames, 8)
    film = watched(str(damaged(path, 0.6)), None, 0, "grid")
    assert 48 <= film.count < 90
    assert isinstance(film, Pictures)
    assert len(find_cuts(film.frames)) == len(film.cut_frames) - 1
    assert np.abs(film.frames[40].astype(int) - frames[40]).mean() < 20
    with refused(UsageError, "film-too-short", film=path, duration_s=film.count / 8, required_s=15.0):
        watched(str(path), 15.0, 0, "grid")


def test_what_cannot_be_watched_is_said(tmp_path: Path) -> None:
    short = write(tmp_path / "short.mp4", plain([100] * 24), 8)
    one_frame = write(tmp_path / "one.mp4", plain([100]), 8)
    text = tmp_path / "text.mp4"
    text.write_text("no film")
    empty = tmp_path / "empty.mp4"
    empty.write_bytes(b"")
    sound = tmp_path / "sound.wav"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
    absent = tmp_path / "absent.mp4"
    films = ["shapes", "known-shapes", "natural", "none"]
    expected: list[tuple[Path, str, dict[str, object]]] = [
        (short, "film-too-short", {"film": short, "duration_s": 3.0, "required_s": 4.0}),
        (one_frame, "film-too-short", {"film": one_frame, "duration_s": 0.125}),
        (text, "film-unreadable", {"path": text}),
        (empty, "film-unreadable", {"path": empty}),
        (sound, "film-without-video", {"path": sound}),
        (absent, "film-unknown", {"film": absent, "available": films}),
    ]
    for path, code, values in expected:
        with refused(UsageError, code, **values):
            watched(str(path), None, 0, "grid")
    with refused(UsageError, "film-too-long", film=short, limit_hours=20 / 8 / 3600):
        watched(str(short), None, 0, "grid", max_frames=20)
