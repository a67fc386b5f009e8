"""Tables that other programs wrote are read as they were meant, or refused by path and line."""

from pathlib import Path

import pytest

from rtdecode.disk.tsv import read_tsv
from rtdecode.errors import UsageError
from rtdecode.scores.events import read_events
from tests.refusals import refused

TEXT = "onset\tduration\tnote\n0\t1\t5 µV, Köln\n2\t1\tn/a\n"
ROWS = [
    {"onset": "0", "duration": "1", "note": "5 µV, Köln"},
    {"onset": "2", "duration": "1", "note": "n/a"},
]


def written(folder: Path, content: str | bytes, encoding: str = "utf-8") -> Path:
    path = folder / "events.tsv"
    path.write_bytes(content.encode(encoding) if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"])
def test_an_encoding_that_can_be_told_is_read(tmp_path: Path, encoding: str) -> None:
    assert read_tsv(written(tmp_path, TEXT, encoding)) == ROWS


@pytest.mark.parametrize(
    ("content", "byte", "line"),
    [
        (TEXT.replace("Köln", "Москва").replace("µ", "u").encode("cp1251"), 0xCC, 2),
        (TEXT.replace("Köln", "東京").replace("µ", "u").encode("shift-jis"), 0x93, 2),
        # A letter in UTF-8 beside one in Latin-1.
        ("a\tb\n1\té\n2\t".encode() + b"\xe9\n", 0xE9, 3),
        # Cut off within a letter.
        ("a\tb\n1\té\n2\té".encode()[:-1], 0xC3, 3),
        (TEXT.encode("utf-16-le"), 0, 1),
        # A mark alone does not make it.
        (b"\xff\xfe\n", 0x0A, 1),
    ],
)
def test_another_encoding_is_refused_by_path_and_line(
    tmp_path: Path, content: bytes, byte: int, line: int
) -> None:
    path = written(tmp_path, content)
    with refused(UsageError, "table-encoding-unknown", path=path, byte=byte, line=line):
        read_tsv(path)


def test_a_quotation_mark_is_a_character(tmp_path: Path) -> None:
    rows = read_tsv(written(tmp_path, 'a\tb\n"5 inch\tx\n1\ty\n"2"\t"z\n'))
    assert [row["a"] for row in rows] == ['"5 inch', "1", '"2"']


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_blanks_and_ends_of_lines_do_not_count(tmp_path: Path, ending: str) -> None:
    lines = [" onset \tduration\tnote\t", "0\t 1\t\t", "", "2 \t1"]
    rows = read_tsv(written(tmp_path, ending.join(lines)))
    assert rows == [
        {"onset": "0", "duration": "1", "note": ""},
        {"onset": "2", "duration": "1", "note": ""},
    ]


def test_a_separator_of_other_systems_ends_no_line(tmp_path: Path) -> None:
    assert read_tsv(written(tmp_path, "a\tb\nx\u2028y\x0bz\t1\n")) == [{"a": "x\u2028y\x0bz", "b": "1"}]


def test_a_table_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "a\tb\ta \n1\t2\t3\n")
    with refused(UsageError, "table-column-repeated", path=path, columns=["a"]):
        read_tsv(path)
    path = written(tmp_path, "a\tb\n1\t2\n\n1\t2\t\t3\n")
    with refused(UsageError, "table-line-too-long", path=path, line=4, values=4, columns=2):
        read_tsv(path)
    with refused(UsageError, "table-unreadable", path=tmp_path):
        read_tsv(tmp_path)


def test_an_empty_file_has_no_row(tmp_path: Path) -> None:
    assert read_tsv(written(tmp_path, "")) == []


def test_a_sessions_truth_is_read_like_any_table(tmp_path: Path) -> None:
    head = "onset\tduration \ttrial_type\tnote\n"
    path = written(tmp_path, head + '0\t1\t"5 inch\tµV\n4\t4\tshot\tn/a\n', "latin-1")
    first, second = read_events(path)
    assert (first.trial_type, first.attributes) == ('"5 inch', {"note": "µV"})
    assert (second.onset_s, second.trial_type) == (4.0, "shot")
    path = written(tmp_path, head + "inf\t1\tshot\tn/a\n")
    with refused(UsageError, "events-malformed", path=path):
        read_events(path)
