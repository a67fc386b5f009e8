"""One's own recordings are divided by run, and what cannot be trained on is refused with words."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtdecode.disk.recording import Recording
from rtdecode.disk.video import write_mp4
from rtdecode.errors import UsageError
from rtdecode.phantom.film.film import FPS, HEIGHT, WIDTH, Film
from rtdecode.phantom.session import PhantomSession
from rtdecode.signal.eeg.band import EegBand
from rtdecode.signal.volume.baseline import Baseline
from rtdecode.signal.volume.projection import Projection
from rtdecode.types import Window
from tests.recordings import record
from tests.refusals import refused
from tests.train.data.test_recorded import mark
from train.data import recorded_sessions, recorded_showing
from train.data.divided_runs import divided
from train.data.nodes import grid
from train.data.phantom import Participant, manifest
from train.data.recorded import find_head
from train.data.recorded_sessions import RecordedSessions, shipped_minutes
from train.data.recorded_showing import RecordedShowing, likeness, stretches
from train.data.showing import by_title
from train.evaluation.last_run import novelty
from train.run_recipe import main, run

GRID = grid(tr="4/5", window=4, hop=4, lag=4, sfreq=125, fps=8)
BLANK = RecordedSessions(GRID, EegBand(), Baseline(0, 0.005))
HEAD = Projection(np.arange(4), (2, 2, 1), np.eye(4))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four seconds of a film of shapes that is cut anywhere."""
    session = PhantomSession("easy", 2, 7, 24, "free", sfreq=250)
    return record(session, tmp_path_factory.mktemp("own") / "session")


@pytest.fixture(scope="module")
def watched(folder: Path) -> RecordedShowing:
    recording = Recording(folder)
    head, level = find_head([recording])
    draft = manifest(Participant(subject=2), GRID, EegBand(), Baseline(0, 0.005))
    (stretch,) = stretches(recording, 1, film_of(folder), "film", head, level, draft)
    return stretch


def film_of(folder: Path) -> Path:
    return folder / "truth" / "film.mp4"


def showing(recording: str, run: int, count: int, first_s: float = 0.0, film: str = "film"):
    starts = np.arange(count) * 4.0
    return RecordedShowing(
        name=f"{recording}-{run}",
        title=film,
        source=film,
        recording=Path(recording),
        run=run,
        path=Path("film.mp4"),
        film_s=4.0 * count,
        index=np.arange(count),
        run_s=starts,
        start_s=first_s + starts,
        head=HEAD,
        level=np.zeros(4, np.float32),
        draft=manifest(Participant(), GRID, EegBand(), Baseline(0, 0.005)),
        edges_s=np.zeros(0),
    )


def of(taught: list[RecordedShowing], held_out: list[RecordedShowing], *, single: bool = False):
    draft = taught[0].draft
    return replace(BLANK, taught=tuple(taught), held=tuple(held_out), draft=draft, single=single)


def window(run: int, index: int) -> Window:
    everything = np.ones(1, bool)
    start = 4.0 * index
    return Window(
        run, index, start, start + 4, start, "final", None, everything, None, everything, everything, 0.0
    )


def test_the_last_run_is_held():
    taught, held_out, single = divided([showing("a", 0, 50), showing("a", 1, 50), showing("b", 0, 20)], 4.0)
    assert [(stretch.recording.name, stretch.run) for stretch in taught] == [("a", 0), ("a", 1)]
    assert [(stretch.recording.name, stretch.run) for stretch in held_out] == [("b", 0)]
    assert not single
    assert of(taught, held_out).division == (
        "Of the runs, the last run is held for choices and judged (1.3 minutes)."
    )


def test_of_ten_runs_two_are_held():
    taught, held_out, _ = divided([showing("a", run, 20) for run in range(10)], 4.0)
    assert [stretch.run for stretch in taught] == list(range(8))
    assert [stretch.run for stretch in held_out] == [8, 9]


def test_of_a_single_run_the_last_fifth_is_held_after_a_gap():
    (taught,), (held_out,), single = divided([showing("a", 0, 100)], 4.0)
    assert single
    assert held_out.index.tolist() == list(range(80, 100))
    assert taught.index.tolist() == list(range(75))
    assert held_out.run_s[0] - (taught.run_s[-1] + 4) == 20
    assert "one run alone" in of([taught], [held_out], single=True).division


def test_too_few_windows_are_refused():
    with refused(
        UsageError, "recordings-too-few-windows", windows=59, window_s=4.0, minutes=pytest.approx(59 * 4 / 60)
    ):
        divided([showing("a", 0, 30), showing("b", 0, 29)], 4.0)
    with refused(UsageError, "recordings-last-run-short", training_windows=60, test_windows=5):
        divided([showing("a", 0, 60), showing("b", 0, 5)], 4.0)


def test_windows_that_show_the_same_are_left_out_together():
    """Three runs of one film, of which the second begins with its eleventh window."""
    taught, _, _ = divided([showing("a", 0, 40), showing("b", 0, 30, 40.0), showing("c", 0, 20)], 4.0)
    folds = by_title(taught)
    assert len(np.unique(folds)) == 5
    assert np.bincount(folds).min() >= 10
    starts = np.concatenate([stretch.start_s for stretch in taught])
    assert all(len(np.unique(folds[starts == start])) == 1 for start in starts)


def test_few_films_are_left_out_by_their_parts_and_many_one_by_one():
    four_films, _, _ = divided([showing("a", run, 25, film=str(run)) for run in range(4)], 4.0)
    assert np.bincount(by_title(four_films)).tolist() == [15] * 5
    six_films, _, _ = divided([showing("a", run, 10 + run, film=str(run)) for run in range(6)], 4.0)
    assert np.bincount(by_title(six_films)).tolist() == [10, 11, 12, 13, 14]


def test_it_is_said_whether_the_held_film_is_a_fresh_one():
    training = showing("a", 0, 50)
    assert "a film that teaches nothing" in novelty(of([training], [showing("b", 0, 20, film="other")]))
    assert "are other parts of films" in novelty(of([training], [showing("b", 0, 20, 200.0)]))
    assert "10 of 20 held windows" in novelty(of([training], [showing("b", 0, 20, 160.0)]))


def test_a_film_that_was_wound_back_and_a_new_run_begin_further_stretches(
    watched: RecordedShowing, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    windows = [window(0, n) for n in range(6)] + [window(1, n) for n in range(6, 9)]
    starts = np.array([0, 4, 8, 0, 4, 8, 12, 16, 20], np.float64)
    monkeypatch.setattr(recorded_showing, "cut_windows", lambda *_: windows)
    monkeypatch.setattr(recorded_showing, "film_starts", lambda *_: starts)
    parts = stretches(
        Recording(folder), 1, film_of(folder), "film", watched.head, watched.level, watched.draft
    )
    assert [(part.run, part.start_s.tolist()) for part in parts] == [
        (0, [0, 4, 8]),
        (0, [0, 4, 8]),
        (1, [12, 16, 20]),
    ]


def test_a_clip_goes_on_from_the_one_before_unless_there_is_a_gap():
    stretch = showing("a", 0, 6)
    assert stretch.joined.tolist() == [False, True, True, True, True, True]
    assert stretch.some(np.arange(6) != 2, "less").joined.tolist() == [False, True, False, True, True]


def test_a_recording_becomes_windows_on_the_time_of_its_film(watched: RecordedShowing):
    assert watched.start_s.tolist() == [0, 4, 8, 12, 16, 20]
    film_windows = watched.film()
    assert film_windows.clips.shape == (6, 33, HEIGHT, WIDTH, 3)
    film = Film(24, 7, "free")
    error = np.abs(film_windows.clips[2, :-1].astype(int) - film.clip(2)[:-1]).mean()
    assert error < 8, "the film on disk is compressed"


def test_windows_need_not_begin_at_multiples_of_their_length(watched: RecordedShowing):
    film = Film(24, 7, "free")
    first = film.cut_frames[1] / 8
    late = replace(watched, start_s=first + watched.run_s[:4], index=watched.index[:4])
    film_windows = late.film()
    assert film_windows.cuts[0, 0]
    error = np.abs(film_windows.clips[0, :20].astype(int) - film.frames[int(first * 8) :][:20]).mean()
    assert error < 8


def test_volumes_lie_on_the_time_of_the_film(watched: RecordedShowing, folder: Path):
    voxels = watched.head.voxels[:50]
    series = watched.volumes(voxels)
    # Windows take volumes from the lag on, which is 4 s: the first has its middle at 4.4 s.
    np.testing.assert_allclose(series.times, 4.4 + 0.8 * np.arange(30), atol=1e-6)
    session = PhantomSession("easy", 2, 7, 24, "free", sfreq=250)
    volume = session.scanner.volume(5).reshape(-1)[voxels].astype(np.float64)
    # The resting level follows the signal slowly, and the first volume is told against the level itself.
    np.testing.assert_allclose(series.values[0] + series.level, volume, atol=np.ptp(volume) * 0.1)
    assert len(watched.tiles().cuts) == 6


def check_training(changes: list[str], tmp_path: Path, code: str, **values: Any) -> None:
    """Require that a training is refused and leaves nothing."""
    out = tmp_path / "out" / "mine"
    with refused(UsageError, code, **values):
        run("compact", ["scale=tiny", f"out={out}", *changes])
    assert not out.parent.exists()


def test_recordings_and_films_are_asked_for_together(folder, tmp_path):
    film = film_of(folder)
    data = f"data={folder}"
    check_training([data], tmp_path, "recipe-recordings-without-film", data=folder)
    check_training([f"film={film}"], tmp_path, "recipe-film-without-recordings")
    check_training([data, f"film={film}x"], tmp_path, "recipe-film-missing", path=f"{film}x")
    check_training([data, f"film={film}", "films=shapes"], tmp_path, "recipe-films-film-conflict")
    both = f"film={film},{film}"
    check_training([data, both], tmp_path, "recordings-film-count-mismatch", films=2, recordings=1)
    check_training([f"data={tmp_path}", f"film={film}"], tmp_path, "recording-unreadable", path=tmp_path)
    check_training([f"data={folder},{folder}", f"film={film}"], tmp_path, "recordings-duplicate")


def test_a_recipe_that_learns_from_no_recording_says_so(folder):
    with refused(UsageError, "recipe-recordings-unsupported", recipe="haxby"):
        run("haxby", [f"data={folder}", f"film={film_of(folder)}"])


def test_the_help_tells_of_recordings(capsys):
    assert main(["--help"]) == 0
    assert "data=REC,REC film=FILE" in capsys.readouterr().err


def test_too_short_a_recording_is_refused(folder, tmp_path):
    changes = [f"data={folder}", f"film={film_of(folder)}"]
    check_training(
        changes, tmp_path, "recordings-too-few-windows", windows=6, window_s=4, minutes=pytest.approx(0.4)
    )
    assert main(["compact", "scale=tiny", f"out={tmp_path / 'mine'}", *changes]) == 2


def test_a_film_of_another_name_than_the_markers_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "marked")
    mark(copy, 1000.0, 192, "sunset.mp4")
    changes = [f"data={copy}", f"film={film_of(folder)}"]
    check_training(changes, tmp_path, "recording-film-mismatch", film="film.mp4")


def test_a_film_that_was_not_shown_is_refused(folder, tmp_path):
    other = tmp_path / "other.mp4"
    write_mp4(other, Film(24, 8, "free").frames, FPS)
    changes = [f"data={folder}", f"film={other}"]
    check_training(changes, tmp_path, "recording-film-not-shown", path=other, shown=film_of(folder))
    # A small CineSync reads recordings in the same way.
    with refused(UsageError, "recording-film-not-shown", path=other):
        run("cinesync", ["scale=tiny", f"out={tmp_path / 'mine'}", *changes])


def test_a_film_that_was_compressed_again_is_the_film_that_was_shown(folder, tmp_path, watched):
    small = tmp_path / "small.mp4"
    write_mp4(small, Film(24, 7, "free").frames[:, ::2, ::2], FPS)
    recording = Recording(folder)
    (stretch,) = stretches(recording, 1, small, "0" * 16, watched.head, watched.level, watched.draft)
    assert stretch.windows == 6


def test_films_are_compared_by_what_changes():
    film = Film(24, 7, "free").frames
    assert likeness(film, film[:100]) == pytest.approx(1)
    assert abs(likeness(film, Film(24, 8, "free").frames)) < 0.3
    # From another beginning it is another film.
    assert likeness(film[40:], film) < 0.3
    assert likeness(film, np.zeros_like(film)) == 1


def test_a_recording_without_triggers_is_read_and_told(folder, tmp_path):
    silent = shutil.copytree(folder, tmp_path / "silent")
    lines = (silent / "events.jsonl").read_text().splitlines()
    without = [f"{line}\n" for line in lines if "stamp" not in json.loads(line)]
    (silent / "events.jsonl").write_text("".join(without))
    assert not Recording(silent).has_triggers()
    film = [film_of(folder)]
    with pytest.MonkeyPatch.context() as patched:
        # Two recordings of 24 s are too few to learn from.
        patched.setattr(recorded_sessions, "divided", lambda parts, window_s: (parts[:1], parts[1:], False))
        both = BLANK.with_recordings([folder, silent], film)
    assert "1 of 2 recordings have no triggers" in both.timing
    assert both.about["without_triggers"] == 1
    assert BLANK.timing == ""
    # It is read all the same.
    assert [stretch.windows for stretch in (*both.taught, *both.held)] == [6, 6]


def changed(folder: Path, copy: Path, **values: object) -> Path:
    """Copy a recording, and change what its volumes or its cap say."""
    shutil.copytree(folder, copy)
    head = json.loads((copy / "recording.json").read_text())
    head["montage"] |= {name: value for name, value in values.items() if name in head["montage"]}
    (copy / "recording.json").write_text(json.dumps(head))
    lines = [json.loads(text) for text in (copy / "events.jsonl").read_text().splitlines()]
    changes = {name: value for name, value in values.items() if name not in head["montage"]}
    changed_lines = [line | changes if "shape" in line else line for line in lines]
    (copy / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in changed_lines))
    return copy


def test_recordings_of_another_protocol_or_cap_are_refused(folder, tmp_path):
    film = f"film={film_of(folder)}"
    slow = changed(folder, tmp_path / "slow", tr_s=1.6)
    check_training([f"data={folder},{slow}", film], tmp_path, "recordings-tr-mismatch")
    channels = list(Recording(folder).montage.channels)
    other = changed(folder, tmp_path / "cap", channels=["Xz", *channels[1:]])
    alone = {"recording": other, "alone": ["Xz"], "first_recording": folder, "first_alone": [channels[0]]}
    check_training([f"data={folder},{other}", film], tmp_path, "recordings-montage-mismatch", **alone)
    moved = changed(folder, tmp_path / "moved", affine=(3.5 * np.eye(4)).tolist())
    grids = re.compile(rf"{folder}: \(64, 64, 36\) .*; {moved}: \(64, 64, 36\) .*\[\[3\.5, ")
    check_training([f"data={folder},{moved}", film], tmp_path, "recordings-grid-mismatch", grids=grids)


def test_the_shipped_decoder_had_hours():
    assert 60 < shipped_minutes() < 6000
