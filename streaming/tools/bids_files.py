"""Write the texts of a BIDS data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rtdecode import strict_json
from rtdecode.disk import private

# The version of BIDS that is written.
VERSION = "1.9.0"


def write_json(path: Path, tree: dict[str, Any]) -> None:
    """Write a JSON file."""
    write_text(path, strict_json.dumps(tree, indent=1, ensure_ascii=False) + "\n")


def write_table(path: Path, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table: columns between tabs, names in the first line."""
    write_text(path, "".join("\t".join(row) + "\n" for row in (names, *rows)))


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8."""
    private.file(path).write_text(text, "utf-8")
