"""Tables as BIDS has them: columns between tabs, names in the first line, and no quoting.

Other programs write them, on other systems. A lone quotation mark is a character like any other, so that
nothing can join two lines; blanks around names and values do not count.
"""

import codecs
import re
from pathlib import Path

from rtdecode.errors import UsageError

# What a file in UTF-16 or UTF-8 may begin with.
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
# Windows' code page of Western Europe, a superset of what is printed of Latin-1.
_WESTERN = "cp1252"
# Western languages have at most two letters beyond ASCII in a row, and a sign before a letter. Others, whose
# code pages use the same bytes, write whole words with them.
_FOREIGN = re.compile(rb"[\x80-\xff]{3}")


def read_tsv(path: Path) -> list[dict[str, str]]:
    """Read the rows of a table, each a mapping of column to text.

    Parameters
    ----------
    path : Path
        In UTF-8, with or without a byte order mark. UTF-16 is told by its mark, and Western Europe's code
        page by its bytes.

    Returns
    -------
    list of dict
        Text has no blanks around it. It is empty where a line ends before its column, and empty lines are no
        rows. A file with nothing in it has no row.

    Raises
    ------
    UsageError
        If the file cannot be read, its encoding cannot be told, it has a column twice, or a line has more
        values than there are columns.
    """
    # Other characters that Python ends a line with may lie in a text.
    lines = re.split(r"\r\n|\r|\n", _text(path))
    names = [name.strip() for name in lines[0].split("\t")]
    # A tab at the end of a line begins no column.
    while len(names) > 1 and not names[-1]:
        names.pop()
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(
            "table-column-repeated",
            "{path} has the column {columns} twice. Give each column a name of its own.",
            path=path,
            columns=twice,
        )
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        values = [value.strip() for value in line.split("\t")]
        if any(values[len(names) :]):
            raise UsageError(
                "table-line-too-long",
                "{path}, line {line}: {values} values, and there are {columns} columns. Separate values by "
                "one tab, and write n/a where there is none.",
                path=path,
                line=number,
                values=len(values),
                columns=len(names),
            )
        values += [""] * (len(names) - len(values))
        rows.append(dict(zip(names, values, strict=False)))
    return rows


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(
            "table-unreadable", "cannot read the table {path}: {error}", path=path, error=error
        ) from error
    marked = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(marked)
    except UnicodeDecodeError as error:
        text = _western(content) if marked == "utf-8" else None
        if text is None:
            raise _unknown(path, content, error.start) from error
    # What is in UTF-16 without a mark has a zero beside every letter.
    if "\0" in text:
        raise _unknown(path, content, content.index(0))
    return text


def _western(content: bytes) -> str | None:
    """Decode what is written in Western Europe's code page; None where that cannot be told."""
    # What also holds letters in UTF-8 is a mixture, or damaged.
    if _FOREIGN.search(content) or not content.decode("utf-8", "ignore").isascii():
        return None
    try:
        return content.decode(_WESTERN)
    except UnicodeDecodeError:
        return None


def _unknown(path: Path, content: bytes, offset: int) -> UsageError:
    return UsageError(
        "table-encoding-unknown",
        "{path} is not UTF-8, as BIDS has it, and its encoding cannot be told: byte 0x{byte:02x} in line "
        "{line}. Save it as UTF-8.",
        path=path,
        byte=content[offset],
        line=content.count(b"\n", 0, offset) + 1,
    )
