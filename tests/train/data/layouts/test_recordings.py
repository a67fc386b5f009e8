"""Recordings of our own are windows like those of any data set; simulated ones say so."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from rtdecode.disk.recording import Recording
from rtdecode.errors import UsageError
from rtdecode.phantom.session import START_AT, PhantomSession
from rtdecode.types import Volume
from tests.recordings import record
from tests.refusals import refused
from tests.train.data.test_recorded import mark
from tests.train.data.test_recorded_sessions import changed
from train.data.dataset import DataSet
from train.data.layouts import phantom, recordings
from train.data.recorded import read_recordings
from train.data.recorded_showing import RecordedShowing

# A small head: the chain follows its motion.
SHAPE = (48, 48, 30)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds of a simulated participant."""
    simulation = PhantomSession("easy", 2, 7, 12, sfreq=200, shape=SHAPE)
    return record(simulation, tmp_path_factory.mktemp("made") / "session")


@pytest.fixture(scope="module")
def folder(session: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two participants who saw the film; they do not say that they were simulated."""
    study = tmp_path_factory.mktemp("own")
    for subject in ("sub-a", "sub-b"):
        copy(session, study / subject / "monday")
    return study


@pytest.fixture(scope="module")
def data(folder: Path) -> recordings.Recordings:
    return recordings.opened(folder)


def copy(session: Path, place: Path, *, simulated: bool = False) -> Path:
    shutil.copytree(session, place)
    head = json.loads((place / "recording.json").read_text())
    head["meta"]["simulated"] = simulated
    (place / "recording.json").write_text(json.dumps(head))
    return place


def test_a_stretch_of_film_is_windows(data: DataSet):
    windows = data.windows
    assert windows.subject.tolist() == ["sub-a"] * 3 + ["sub-b"] * 3
    assert windows.start_s.tolist() == [0, 4, 8] * 2
    assert windows.shown[:3].tolist() == windows.shown[3:].tolist()
    assert len(set(windows.shown)) == 3
    assert not windows.repeat.any()
    assert (data.layout, data.chain) == ("recordings", "causal")
    assert (data.window_s, data.lag_s, data.tr_s, data.sfreq, data.fps) == (4, 4, 0.8, 125, 8)
    assert not any("monday" in run for run in windows.run), "a folder's name may tell who was recorded"


def test_the_windows_are_those_of_a_fit(data, session):
    fit_windows = read_recordings([Recording(session)], [12.0], ["film.mp4"], data.showings[1].draft)
    assert fit_windows.eeg is not None
    assert fit_windows.fmri is not None
    np.testing.assert_array_equal(data.read("eeg", [5, 3]), fit_windows.eeg.data[[2, 0]])
    np.testing.assert_array_equal(
        data.read("fmri", [5, 3]), fit_windows.fmri.volumes[fit_windows.fmri.rows[[2, 0]]]
    )


def test_each_window_gets_its_own_clip(data):
    clips = data.read("clips", [2, 1])
    film = data.showings[0].film().clips
    assert clips.shape == (2, 32, 64, 96, 3)
    np.testing.assert_array_equal(clips[0], film[2, :32])
    np.testing.assert_array_equal(clips[1], film[1, :32])


def test_a_recording_is_run_once_for_windows_that_are_read_together(data, monkeypatch):
    data.last_arrays.clear()
    runs = []
    arrays = RecordedShowing.arrays
    counted_arrays = lambda showing, bundle: runs.append(showing.name) or arrays(showing, bundle)  # noqa: E731
    monkeypatch.setattr(RecordedShowing, "arrays", counted_arrays)
    eeg = data.read("eeg", [0, 2, 1])
    data.read("fmri", [2, 0])
    assert runs == ["1-0-0"]
    np.testing.assert_array_equal(data.read("eeg", [1]), eeg[2:])
    assert runs == ["1-0-0"]


def test_a_film_seen_again_is_a_repeat(session, tmp_path):
    for place in ("a/monday", "a/tuesday", "b/monday"):
        copy(session, tmp_path / "own" / place)
    windows = recordings.opened(tmp_path / "own").windows
    assert windows.subject.tolist() == ["a"] * 6 + ["b"] * 3
    assert windows.repeat.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0]


def films_of(folder: Path) -> set[Path]:
    """Open recordings, and list the films that were found."""
    return {showing.path for showing in recordings.opened(folder).showings}


def test_films_lie_beside_recordings_that_do_not_hold_the_truth(session, tmp_path):
    place = copy(session, tmp_path / "own" / "monday")
    films = tmp_path / "own" / "films"
    films.mkdir()
    assert films_of(films.parent) == {place / "truth" / "film.mp4"}
    (place / "truth" / "film.mp4").rename(films / "film.mp4")
    assert films_of(films.parent) == {films / "film.mp4"}
    shutil.copy(films / "film.mp4", films / "more.mp4")
    with refused(
        UsageError,
        "recordings-film-ambiguous",
        markers="no markers to tell which film was shown",
        film_count=2,
        folder=films,
    ):
        films_of(films.parent)
    mark(place, START_AT, 96, "more.mp4")
    assert films_of(films.parent) == {films / "more.mp4"}
    (films / "more.mp4").unlink()
    with refused(
        UsageError,
        "recordings-film-ambiguous",
        markers="markers of 1 films",
        film_count=1,
        match_count=0,
        folder=films,
    ):
        films_of(films.parent)


def test_one_recording_or_those_of_one_participant_are_recognised(session, folder, tmp_path):
    alone = copy(session, tmp_path / "own" / "monday")
    for place in (alone, alone.parent):
        assert recordings.recognises(place)
        assert recordings.opened(place).windows.subjects == ["participant"]
    assert recordings.recognises(folder)
    assert not recordings.recognises(tmp_path / "nothing")
    with refused(UsageError, "data-no-subjects"):
        recordings.opened(tmp_path / "nothing")


def test_a_simulated_participant_is_a_layout_of_its_own(session, folder):
    assert phantom.recognises(session)
    assert not recordings.recognises(session)
    data: DataSet = phantom.opened(session)
    assert (data.layout, data.chain) == ("phantom", "causal")
    assert data.windows.subjects == ["participant"]
    assert any("SIMULATED" in note for note in data.notes)
    assert not phantom.recognises(folder)
    with refused(UsageError, "phantom-not-simulated"):
        phantom.opened(folder)


def test_a_recording_without_volumes_is_refused(tmp_path):
    simulation = PhantomSession("easy", 2, 7, 4, sfreq=200, shape=SHAPE)
    place = record(simulation, tmp_path / "own", volumes=False)
    with refused(UsageError, "recording-missing-modality", modality="volumes"):
        phantom.opened(place)


def test_places_and_channels_are_those_of_the_recordings(data, session):
    acquired = data.acquired("sub-b")
    montage = Recording(session).montage
    assert montage is not None
    assert acquired.eeg is not None
    assert acquired.eeg.channels == list(montage.channels)
    volume = next(item for item in Recording(session).events() if isinstance(item, Volume))
    assert acquired.head.shape == volume.data.shape == SHAPE
    np.testing.assert_array_equal(acquired.head.affine, volume.affine)
    assert acquired.level is not None
    assert len(acquired.level) == data.read("fmri", [3]).shape[2]


def test_recordings_of_two_caps_or_grids_are_no_data_set(session, tmp_path):
    first = copy(session, tmp_path / "own" / "monday")
    channels = list(Recording(first).montage.channels)
    other = changed(first, tmp_path / "own" / "tuesday", channels=[*channels[:-1], "Iz"])
    alone = {"alone": ["Iz"], "first_alone": ["O2"]}
    with refused(UsageError, "recordings-montage-mismatch", recording=other, first_recording=first, **alone):
        recordings.opened(tmp_path / "own")
    shutil.rmtree(other)
    affine = [[3, 0, 0, -60], [0, 3, 0, -60], [0, 0, 3, -40], [0, 0, 0, 1]]
    other = changed(first, other, affine=affine)
    grids = re.compile(rf"{first}: .*; {other}: .*-60\.0")
    with refused(UsageError, "recordings-grid-mismatch", grids=grids):
        recordings.opened(tmp_path / "own")
