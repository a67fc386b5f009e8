"""What is said of each of several participants, and who they are."""

from pathlib import Path
from typing import Any

import pytest

from rtdecode.errors import UsageError
from tests.refusals import refused
from train.data.participant_values import FolderSubject, read_subjects, read_values, runs_of

A, B = (Path("studies") / name for name in "AB")
PEOPLE = [FolderSubject(A, "one"), FolderSubject(A, "two"), FolderSubject(B, "")]


def test_subjects_are_named_by_folder_name_or_path(tmp_path: Path) -> None:
    a, b = (tmp_path / name for name in "AB")
    data = Path(f"{a},{b}")
    assert read_subjects(data, f"B:two,{a}:one") == [FolderSubject(a, "one"), FolderSubject(b, "two")]
    assert read_subjects(data, "") == [FolderSubject(a, ""), FolderSubject(b, "")]
    assert (
        read_subjects(a, "one, two")
        == read_subjects(a, ["one", "two"])
        == [FolderSubject(a, "one"), FolderSubject(a, "two")]
    )
    assert runs_of("B:late, early", a, [a, b]) == ["early"]
    assert runs_of("B:late, early", b, [a, b]) == ["late", "early"]


def test_a_folder_with_a_comma_in_its_name_is_one(tmp_path: Path) -> None:
    place = tmp_path / "A,B"
    place.mkdir()
    assert read_subjects(place, "one") == [FolderSubject(place, "one")]


@pytest.mark.parametrize(
    ("subject", "code"),
    [
        ("one", "data-subject-without-folder"),
        ("C:one", "data-folder-of-subject-unknown"),
        ("A:one,A:one", "data-participant-named-twice"),
    ],
)
def test_unclear_names_are_refused(tmp_path: Path, subject: str, code: str) -> None:
    with refused(UsageError, code):
        read_subjects(Path(f"{tmp_path / 'A'},{tmp_path / 'B'}"), subject)


def test_one_folder_by_two_paths_is_named_twice(tmp_path: Path) -> None:
    (tmp_path / "A").mkdir()
    (tmp_path / "B").symlink_to(tmp_path / "A")
    with refused(UsageError, "data-participant-named-twice"):
        read_subjects(Path(f"{tmp_path / 'A'},{tmp_path / 'B'}"), "A:one,B:one")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, [None, None, None]),
        (2, [2, 2, 2]),
        ("7/4", ["7/4", "7/4", "7/4"]),
        ("A:2,B:3", [2, 2, 3]),
        ("B:7/4", [0, 0, "7/4"]),
        ("1.5,B:3", [1.5, 1.5, 3]),
        ("two:2, studies/B:3", [0, 2, 3]),
        # What names a participant most closely counts, wherever it stands.
        ("A:two:4,A:2,1", [2, 4, 1]),
    ],
)
def test_a_value_is_for_a_folder_a_subject_or_everybody(value: Any, expected: list[Any]) -> None:
    assert read_values("window", value, PEOPLE, 0) == expected


@pytest.mark.parametrize(
    ("value", "code", "values"),
    [
        (
            "C:2",
            "data-value-for-nobody",
            {"key": "window", "word": "C:2", "participants": ["A:one", "A:two", "B"]},
        ),
        ("B:one:2", "data-value-for-nobody", {"word": "B:one:2"}),
        ("A:2,A:3", "data-value-twice", {"values": [2, 3], "participant": "A:one"}),
        ("A:2,two:3", "data-value-twice", {"values": [2, 3], "participant": "A:two"}),
        ("2,3,B:4", "data-value-twice", {"values": [2, 3], "participant": "A:one"}),
    ],
)
def test_values_that_are_not_clear_are_refused(value: str, code: str, values: dict[str, Any]) -> None:
    with refused(UsageError, code, **values):
        read_values("window", value, PEOPLE, None)
