"""Held-out windows are told apart by brain vectors, and teach nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rtdecode.disk.video import write_mp4
from rtdecode.phantom.film.film import FPS, Film
from rtdecode.signal.eeg.band import EegBand
from rtdecode.signal.volume.baseline import Baseline
from tests.train.data.test_recorded_sessions import BLANK, HEAD, showing
from tests.train.test_data_set import FEW_PLACES, SUBJECT, release
from train.config.recipe import build, read
from train.config.run_context import RunContext
from train.config.training_films import training_films
from train.data.recorded import raw_bundle
from train.data.recorded_showing import RecordedShowing
from train.data.sets.set_node import DataSetWindows
from train.data.showing import ShownClips
from train.models.conditioned import alignment

RAW = raw_bundle(showing("1", 1, 1).draft, HEAD, np.ones(4, np.float32))


def sessions(*changes: str):
    """Return the data node of the small recipe, with the films that it shows."""
    data = build(read("cinesync", ["scale=tiny", "data.seconds=24", *changes]).tree)["data"]
    return data.with_films(training_films(data.shows))


def test_windows_that_are_told_and_windows_that_are_not() -> None:
    count = 40
    figures = alignment.identify_clips(np.eye(count))
    assert figures == {
        "windows": count,
        "two_way": 1.0,
        "two_way_chance": 0.5,
        "clip_by_brain": 1.0,
        "brain_by_clip": 1.0,
        "first_chance": 1 / count,
    }
    # An encoder that says the same of all windows tells nothing.
    constant = alignment.identify_clips(np.tile(np.linspace(0, 1, count), (count, 1)))
    assert constant["clip_by_brain"] == 1 / count
    assert constant["brain_by_clip"] == 0
    chance = alignment.identify_clips(np.random.default_rng(0).normal(size=(count, count)))
    assert abs(chance["two_way"] - 0.5) < 0.15


def test_a_brain_that_finds_its_clip_is_told_from_a_clip_that_finds_its_brain() -> None:
    """Every window resembles its own clip most, and the first clip resembles another window more."""
    alike = np.array([[0.5, 0.1, 0.2], [0.6, 0.9, 0.3], [0.1, 0.2, 0.4]])
    figures = alignment.identify_clips(alike)
    assert figures["clip_by_brain"] == 1
    assert figures["brain_by_clip"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("changes", "titles"),
    [
        ([], ["natural-16", "shapes-16"]),
        (["seed=100"], ["natural-116", "shapes-116"]),
        (["data.held=700"], ["natural-700", "shapes-700"]),
        (["data.sessions=990-999"], ["natural-0", "shapes-0"]),
    ],
)
def test_simulated_windows_are_of_sessions_that_teach_nothing(
    tmp_path: Path, changes: list[str], titles: list[str]
) -> None:
    seed = next((int(text[5:]) for text in changes if text.startswith("seed=")), 0)
    work = RunContext(None, seed, tmp_path)
    data = sessions(*changes)
    says = f"They are of sessions that teach nothing ({', '.join(titles)})."
    assert alignment.origin_of_sessions(work, data) == says
    # A title names the seed.
    assert not {*titles} & {session.title for session in data.showings(work)}


def test_where_every_seed_teaches_there_is_nothing_to_tell(tmp_path: Path) -> None:
    work = RunContext(None, 0, tmp_path)
    assert alignment.of_sessions(work, sessions("data.sessions=0-999"), RAW, {}, 4) == {}


def test_who_learns_from_a_film_in_a_file_is_told_apart_on_another(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    write_mp4(path, Film(5, 1).frames, FPS)
    data = sessions().with_films(training_films(str(path)))
    says = alignment.origin_of_sessions(RunContext(None, 0, tmp_path), data)
    assert says == "They are of sessions that teach nothing (natural-16)."


def test_windows_of_a_data_set_are_of_runs_that_are_held_out(tmp_path: Path) -> None:
    release(tmp_path / "cinebrain", FEW_PLACES)
    node = DataSetWindows(EegBand(), Baseline(), sfreq=50, voxels=40, subject=SUBJECT)
    windows = node.opened(tmp_path / "cinebrain")
    rows = alignment.rows_of_set(windows)
    assert rows.tolist() == windows.split.test.tolist()
    taught = windows.taught()
    arrays = alignment.of_set(RunContext(None, 0, tmp_path / "run"), windows, taught, frame_step=4)
    assert arrays["stills"].shape == (6, 64, 96, 3)
    assert arrays["pictures"].shape == (6, 8, 3, 32, 48)
    # They are what the judge decodes, normalised by what teaches.
    voxels = taught.projection.voxels
    runs = [run.of.signals(run.trials, taught.stats, voxels)["fmri"] for run in windows.test_runs()]
    assert np.array_equal(arrays["fmri"], np.concatenate(runs))


@pytest.fixture
def dated_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recordings whose clips are as bright as the film time at which they start, in s, and one film red."""

    def clips(watched: RecordedShowing) -> ShownClips:
        colours = np.array([1, watched.source != "other", watched.source != "other"], np.uint8)
        brightness = watched.start_s.astype(np.uint8)[:, None, None, None, None]
        pictures = np.broadcast_to(brightness * colours, (watched.windows, 33, 32, 48, 3))
        return ShownClips(pictures, np.zeros(0, np.bool_))

    monkeypatch.setattr(RecordedShowing, "film", clips)
    monkeypatch.setattr(
        RecordedShowing, "arrays", lambda watched, bundle: {"fmri": np.zeros((watched.windows, 5, 4))}
    )


@pytest.mark.usefixtures("dated_clips")
def test_windows_of_a_recording_show_each_part_of_a_film_once(tmp_path: Path) -> None:
    showings = (
        showing("1", 1, 3, first_s=1.0),
        showing("1", 2, 3, first_s=7.0),
        showing("2", 1, 1, first_s=1.0, film="other"),
    )
    arrays = alignment.of_sessions(
        RunContext(None, 0, tmp_path), replace(BLANK, held=showings), RAW, {"fmri_scale": np.ones(4)}, 4
    )
    # What begins at 7 and at 11 shows some of what was shown before.
    assert arrays["stills"][:, 0, 0].tolist() == [[1] * 3, [5] * 3, [9] * 3, [15] * 3, [1, 0, 0]]


@pytest.mark.usefixtures("dated_clips")
def test_windows_of_recordings_say_whether_their_film_teaches(tmp_path: Path) -> None:
    data = replace(BLANK, taught=(showing("1", 1, 50),), held=(showing("2", 1, 12, first_s=8.0),))
    work = RunContext(None, 0, tmp_path)
    assert "12 of 12 held windows show what also taught" in alignment.origin_of_sessions(work, data)
    arrays = alignment.of_sessions(work, data, RAW, {"fmri_scale": np.ones(4)}, 4)
    assert arrays["stills"][:, 0, 0, 0].tolist() == list(range(8, 56, 4))
