"""Films as parcels and features a second are read window by window, and what knew the future is said."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.data.layouts.released import song
from train.data.dataset import DataSet
from train.data.examined import examined
from train.data.layouts.song import opened, recognises
from train.data.sets.opening import opened as opened_folder

FILMS = {"first": 41, "second": 32}
BOTH = ["sub-001", "sub-002", "sub-003"]
# The third has not seen the first film.
PEOPLE = {"first": BOTH[:2], "second": BOTH}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("song")
    return folder, song(folder, films=FILMS, people=PEOPLE)


def test_films_are_runs_of_whole_windows(release: tuple[Path, dict]) -> None:
    data: DataSet = opened_folder(release[0])
    windows = data.windows
    assert (data.layout, data.chain) == ("song", "offline")
    assert (data.window_s, data.tr_s, data.lag_s) == (4.0, 1.0, 0.0)
    assert windows.subjects == BOTH
    of_first = windows.subject == "sub-001"
    # A second is left over.
    assert windows.run[of_first].tolist() == ["first"] * 10 + ["second"] * 8
    assert windows.shown[of_first][[0, 9, 10]].tolist() == ["first/000", "first/009", "second/000"]
    assert windows.start_s[of_first][[1, 10, 12]].tolist() == [4.0, 0.0, 8.0]
    assert not windows.held_out.any()


def test_each_window_gets_its_own_volumes_and_features(release: tuple[Path, dict]) -> None:
    folder, films = release
    data = opened(folder)
    rows = np.flatnonzero(data.windows.subject == "sub-002")[[11, 3]]
    fmri = data.read("fmri", rows)
    features = data.read("features", rows)
    assert fmri.shape == (2, 4, 24)
    assert features.shape == (2, 4, 6)
    bold = films["second"]["bold_i8"][1].astype(np.float32) * np.float32(0.05)
    np.testing.assert_array_equal(fmri[0], bold[4:8])
    np.testing.assert_array_equal(features[0], films["second"]["features"][4:8].astype(np.float32))
    bold = films["first"]["bold_i8"][1].astype(np.float32) * np.float32(0.05)
    np.testing.assert_array_equal(fmri[1], bold[12:16])


def test_windows_of_another_length_are_whole_volumes(release: tuple[Path, dict]) -> None:
    data = opened(release[0], ["sub-003"], window_s=8.0)
    assert data.windows.start_s.tolist() == [0.0, 8.0, 16.0, 24.0]
    assert data.read("fmri", [3]).shape == (1, 8, 24)
    with refused(UsageError, "song-window-mismatch", window_s=2.5, tr_s=1.0):
        opened(release[0], window_s=2.5)
    with refused(UsageError, "song-window-mismatch", volumes=41, window_s=60.0):
        opened(release[0], window_s=60.0)


def test_a_person_without_a_film_is_told_and_has_the_other_one(release: tuple[Path, dict]) -> None:
    data = opened(release[0])
    assert "sub-003 has no first." in data.notes
    assert set(data.windows.run[data.windows.subject == "sub-003"].tolist()) == {"second"}


def test_what_knew_the_future_is_said(release: tuple[Path, dict]) -> None:
    notes = " ".join(opened(release[0]).notes)
    assert "z-scored as a whole and filtered forwards and backwards" in notes
    assert "convolved with a haemodynamic response" in notes


def test_other_folders_are_not_taken_for_films(tmp_path: Path) -> None:
    assert not recognises(tmp_path)


def changed(folder: Path, film: str, **arrays: Any) -> Path:
    """Write a folder again with other arrays in one film; None leaves an array out."""
    changes = song(folder, films=FILMS, people=PEOPLE)[film] | arrays
    np.savez(folder / f"song_{film}.npz", **{name: x for name, x in changes.items() if x is not None})
    return folder


@pytest.mark.parametrize(
    ("arrays", "code", "values"),
    [
        ({"features": None}, "song-file-unreadable", {"error": re.compile("features")}),
        ({"features": np.zeros((30, 6), np.float16)}, "song-shape-mismatch", {"features": (30, 6)}),
        ({"people": np.array(["sub-001", "sub-001"])}, "song-shape-mismatch", {"people": 1}),
        ({"tr": np.float64(2.0)}, "song-films-differ", {"other_tr_s": 2.0}),
        ({"bold_i8": np.zeros((2, 41, 9), np.int8)}, "song-films-differ", {"other_parcels": 9}),
    ],
)
def test_files_that_do_not_fit_are_refused(
    tmp_path: Path, arrays: dict[str, Any], code: str, values: dict[str, Any]
) -> None:
    with refused(UsageError, code, **values):
        opened(changed(tmp_path, "first", **arrays))


def test_a_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    song(tmp_path, films=FILMS, people=PEOPLE)
    path = tmp_path / "song_second.npz"
    path.write_bytes(path.read_bytes()[:-200])
    with refused(UsageError, "song-file-unreadable", path=path):
        opened(tmp_path)


def test_features_that_are_no_numbers_are_refused_when_they_are_read(tmp_path: Path) -> None:
    features = np.zeros((41, 6), np.float16)
    features[9, 2] = np.inf
    data = opened(changed(tmp_path, "first", features=features))
    assert np.isfinite(data.read("features", [0, 1])).all()
    with refused(UsageError, "data-nonfinite-values", nonfinite_values=1):
        data.read("features", [2])


def test_the_real_runs_were_scaled_and_filtered_as_a_whole(data_root: Path) -> None:
    data = opened(data_root / "song", ["sub-001", "sub-013"])
    findings = examined(data, None, {}, None, signals=True)
    kinds = [(leak.kind, leak.names) for leak in findings.leaks]
    assert kinds == [
        ("scaled run by run", ("sub-001",)),
        ("scaled run by run", ("sub-013",)),
        ("filtered run by run", ("sub-001",)),
        ("filtered run by run", ("sub-013",)),
    ]
    assert "below 0.009 Hz in 3 of 3 runs" in findings.leaks[2].says
