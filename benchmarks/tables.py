"""Tables of the pages, each written from the result files that hold its figures.

python -m benchmarks.tables            # write the tables, and the pictures of the charts
python -m benchmarks.tables --check    # name what is not as it would be written, and change nothing

A table stands between the lines ``<!-- table: NAME -->`` and ``<!-- end -->``. It is what
``benchmarks/templates/NAME.md`` says, with a figure in place of each ``{FILE > KEY > ... : FORMAT}``: a file
of ``benchmarks/results`` (or a path in the repository), and the keys that lead to the figure, which is
written with its interval if it has one. ``benchmarks/templates/NAME.toml`` is a chart (`benchmarks.charts`),
drawn into ``docs/images/NAME.svg``. No figure with an interval may stand elsewhere on a page.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks import charts
from benchmarks.result_files import ORIGIN, RESULTS, ROOT, faults

TEMPLATES = Path(__file__).with_name("templates")
# The list of all result files, which no template has to name one by one.
FILES = "files"
_BEGIN = re.compile(r"<!-- table: ([\w-]+) -->")
_END = "<!-- end -->"
_FIGURE = re.compile(r"\{([\w./-]+ > [^{}]+?)(?: : ([^{} ]+))?\}")
_INTERVAL = re.compile(r"[-+]?\d+\.\d+\s+\((?:95 %\s+)?[-+]?\d+\.\d+\s+to\s+[-+]?\d+\.\d+")


def _tree(name: str) -> dict[str, Any]:
    return _parsed(ROOT / name if "/" in name else RESULTS / f"{name}.json")


@cache
def _parsed(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def figure(place: str) -> Any:
    """Find what stands at a place, ``FILE > KEY > KEY``; an item of a list is named by its number.

    Raises
    ------
    LookupError
        If there is no such file, or a key is missing.
    """
    file, *keys = (word.strip() for word in place.split(">"))
    try:
        entry: Any = _tree(file)
        for key in keys:
            entry = entry[int(key)] if isinstance(entry, list) else entry[key]
    except (OSError, LookupError, ValueError) as error:
        raise LookupError(f"{place}: there is no {error}") from error
    return entry


def worded(entry: Any, digits: str = ".3f") -> str:
    """Word a figure: its value, and its interval where it has one."""
    if not isinstance(entry, dict):
        return format(entry, digits) if isinstance(entry, float) else str(entry)
    value = entry["value"] if "value" in entry else entry["accuracy"]
    if entry.get("ci95") is None:
        return format(value, digits)
    low, high = entry["ci95"]
    return f"{value:{digits}} ({low:{digits}} to {high:{digits}})"


def filled(name: str) -> str:
    """Return what stands on a page in place of a table.

    Raises
    ------
    LookupError
        If there is no such template, or it names a figure that no file holds.
    """
    if name == FILES:
        return _files()
    path = TEMPLATES / f"{name}.md"
    if not path.is_file():
        raise LookupError(f"there is no template {path.name}")
    return _FIGURE.sub(lambda match: worded(figure(match[1]), match[2] or ".3f"), path.read_text())


def _files() -> str:
    """List where the figures of each result file come from."""
    lines = []
    for path in sorted(RESULTS.glob("*.json")):
        command, commit, date, _ = (_tree(path.stem).get(name, "") for name in ORIGIN)
        lines.append(f"- `{path.name}`: `{command}` ({commit[:7]}, {date})")
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """Return a page with its tables as they should be."""
    lines = iter(text.splitlines(keepends=True))
    page: list[str] = []
    for line in lines:
        page.append(line)
        if begins := _BEGIN.match(line):
            for inner in lines:
                if inner.strip() == _END:
                    page += [filled(begins[1]), inner]
                    break
            else:
                raise LookupError(f"table {begins[1]} has no line {_END}")
    return "".join(page)


def _outside(text: str) -> Iterator[tuple[int, str]]:
    """Yield line and words of each figure with an interval that stands in no table."""
    in_table = False
    lines: list[str] = []
    for line in text.splitlines():
        in_table = (in_table or bool(_BEGIN.match(line))) and line.strip() != _END
        lines.append("" if in_table else line)
    words = "\n".join(lines)
    for match in _INTERVAL.finditer(words):
        yield words.count("\n", 0, match.start()) + 1, " ".join(match[0].split())


def differences(root: Path, *, write: bool) -> Iterator[str]:
    """Say in a sentence each what a page, a picture or a result file should not be.

    Parameters
    ----------
    root : Path
        Holds README.md and docs, whose folders are searched too.
    write : bool
        Tables and pictures are written, and are no difference.
    """
    for path in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        name = path.relative_to(root)
        text = path.read_text()
        try:
            expected = written(text)
        except LookupError as error:
            yield f"{name}: {error.args[0]}. Correct the page, or what is in benchmarks/templates."
            continue
        if write:
            path.write_text(expected)
        elif text != expected:
            yield _edited(name, text.splitlines(), expected.splitlines())
        for number, words in _outside(expected):
            yield f"{name}:{number}: {words}) stands in no table. Put it into a result file and a template."
    for template in sorted(TEMPLATES.glob("*.toml")):
        picture = root / "docs" / "images" / f"{template.stem}.svg"
        try:
            svg = charts.svg(template.read_text(), figure)
        except LookupError as error:
            yield f"{template.name}: {error.args[0]}. Correct this chart, or the result file."
            continue
        if write:
            picture.write_text(svg)
        elif not picture.is_file() or picture.read_text() != svg:
            sentence = f"docs/images/{picture.name} is not what {template.name} draws. "
            yield sentence + "Run python -m benchmarks.tables."
    for file in sorted(RESULTS.iterdir()):
        yield from faults(file)


def _edited(name: Path, lines: list[str], expected: list[str]) -> str:
    number = next(
        (index for index, pair in enumerate(zip(lines, expected, strict=False)) if pair[0] != pair[1]),
        min(len(lines), len(expected)),
    )
    stands = lines[number] if number < len(lines) else ""
    right = expected[number] if number < len(expected) else ""
    return (
        f"{name}:{number + 1}: a table was edited by hand. There stands `{stands}`, and the result files say "
        f"`{right}`. Run python -m benchmarks.tables, or change the result file or the template."
    )


def main() -> int:
    """Write or check; 1 if something is not as it should be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing")
    sentences = list(differences(ROOT, write=not parser.parse_args().check))
    print("\n".join(sentences) or "tables are as the result files have them")  # noqa: T201
    return 1 if sentences else 0


if __name__ == "__main__":
    sys.exit(main())
