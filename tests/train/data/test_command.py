"""``python -m train.data`` says what a folder holds, what is missing, and what would leak."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.data import cinebrain_folder as release
from train.data import standard
from train.data.__main__ import main, read_arguments
from train.data.sets.opening import opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("command")
    release.write(folder, unpacked=True)
    (folder / "sub-0003" / "eeg_02" / "4.npy").unlink()
    return folder


def json_report(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_it_says_what_there_is_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = json_report(capsys, folder)
    assert report["layout"] == "cinebrain"
    assert report["columns"] == ["eeg", "fmri", "clips", "captions"]
    assert report["subjects"] == [
        {"subject": "sub-0001", "runs": 5, "windows": 10, "minutes": 0.7, "held_out": 4, "regions": {}},
        {"subject": "sub-0003", "runs": 5, "windows": 9, "minutes": 0.6, "held_out": 4, "regions": {}},
    ]
    assert report["missing"] == ["sub-0003/eeg_02/4.npy"]
    assert report["split"] == {
        "train": 11,
        "validation": 0,
        "test": 8,
        "left_out": 0,
        "test_without_near_duplicates": None,
    }
    assert report["leaks"] == []
    assert report["not_looked_for"][:2] == [
        "windows of the test in the statistics (statistics=FILE)",
        "near-duplicate clips (near=yes)",
    ]
    assert str(folder) not in json.dumps(report)


def test_it_says_the_same_in_words(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), "subjects=sub-0003"]) == 0
    printed = capsys.readouterr().out
    for words in (
        "cinebrain: eeg, fmri",
        "TR 0.8 s",
        "sub-0003",
        "missing: 1",
        "eeg_02/4.npy",
        "leaks: none found",
    ):
        assert words in printed
    assert "sub-0001" not in printed


def test_subjects_tests_and_validation_are_chosen(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = json_report(capsys, folder, "subjects=1", "test=run-01", "validation=1")
    assert [subject["subject"] for subject in report["subjects"]] == ["sub-0001"]
    assert (report["split"]["train"], report["split"]["validation"], report["split"]["test"]) == (6, 2, 2)
    both = json_report(capsys, folder, "test=sub-0001/run-01", "validation=sub-0001/run-02")
    # The other subject saw the same clips of season 7.
    assert (both["split"]["validation"], both["split"]["left_out"]) == (2, 3)


def test_statistics_are_written_once_and_checked_for_the_test_ever_after(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "statistics.npz"
    report = json_report(capsys, folder, f"statistics={path}")
    assert report["scaling"]["sub-0001"] == {"eeg": "one map", "fmri": "one map"}
    assert report["leaks"] == []
    assert report["not_looked_for"][0] == "near-duplicate clips (near=yes)"
    assert len(standard.read(path)["sub-0001"].windows) == 6
    data = opened(folder)
    standard.write(path, standard.statistics(data, np.arange(len(data.windows))))
    leaks = json_report(capsys, folder, f"statistics={path}")["leaks"]
    assert [leak["kind"] for leak in leaks] == ["test window in the statistics"] * 2
    assert len(leaks[0]["names"]) == 4


@pytest.mark.parametrize("name", ["statistics", "nowhere/statistics.npz"])
def test_statistics_that_cannot_be_written_are_refused_before_anything_is_read(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    assert main([str(folder), f"statistics={path}", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], error["values"]) == ("statistics-path-unwritable", {"path": str(path)})


def test_near_duplicates_are_looked_for_where_that_is_asked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    release.write(tmp_path, ["sub-0001"], eeg=False, unpacked=True)
    videos = tmp_path / "videos"
    (videos / "004861.mp4").write_bytes((videos / "000271.mp4").read_bytes())
    report = json_report(capsys, tmp_path, "near=yes")
    [leak] = report["leaks"]
    assert leak["names"] == ["004861"]
    assert "004861 like 000271" in leak["says"]
    assert report["split"]["test_without_near_duplicates"] == 3


def test_data_without_a_test_have_no_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release.write(tmp_path, ["sub-0001"], [0, 1], eeg=False, films=False)
    report = json_report(capsys, tmp_path)
    assert report["split"] is None
    assert report["leaks"] == []
    assert report["not_looked_for"][0] == "all that concerns a test, because there is none (test=RUNS)"


@pytest.mark.parametrize(
    ("arguments", "status", "words"), [([], 2, "layout=NAME"), (["--help"], 0, "near=yes")]
)
def test_help_is_told(
    arguments: list[str], status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == status
    assert words in capsys.readouterr().err


def test_faults_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nowhere", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], error["values"]) == ("data-not-folder", {"folder": "nowhere"})
    with refused(
        UsageError,
        "data-argument-unknown",
        arguments=["subject=1", "x"],
        available=re.compile("layout.*subjects"),
    ):
        read_arguments(["subject=1", "x"])
