"""Every program, file and module that a page or a docstring names is there."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from benchmarks.result_files import RESULTS

ROOT = Path(__file__).parents[1]
EXPERIMENTS = ROOT / "benchmarks" / "experiments"
PACKAGES = "rtdecode|streaming|train|export|benchmarks|tests|deploy"
PROGRAM = re.compile(rf"python -m\s+((?:{PACKAGES})(?:\.[a-z]\w*)+)\b(?!\.[A-Z])")
# Files of earlier commits are named with the command that finds them.
FILE = re.compile(rf"(?<![\w/.-])(?<!git log -- )((?:{PACKAGES})/[\w/]+\.py)\b")
DOTTED = re.compile(rf"`((?:{PACKAGES})(?:\.\w+)+)(?:\(\))?`")
# NAME stands for any of them.
ANY = "NAME"
# Commands of result files are of the commit that stands beside each.
COMMANDS_OF_RESULTS = re.compile(r"<!-- table: files -->.*?<!-- end -->", re.DOTALL)
# No modules: the group of entry points, and a program that moved.
NAMED_ALL_THE_SAME = {"rtdecode.builders", "benchmarks.compared"}


def texts() -> Iterator[tuple[str, str]]:
    """Yield path and text of all pages but the notebook's, and of all code but that of tests."""
    files = [ROOT / "Makefile", ROOT / "pyproject.toml", *ROOT.glob("*.md")]
    for folder in ("docs", *PACKAGES.split("|")):
        files += [file for suffix in ("md", "py", "yaml") for file in (ROOT / folder).rglob(f"*.{suffix}")]
    for file in files:
        name = file.relative_to(ROOT).as_posix()
        if not name.startswith(("tests/", "docs/notebook/")):
            yield name, COMMANDS_OF_RESULTS.sub("", file.read_text())


@cache
def source(module: str) -> str | None:
    """Return the code of a module or package, None if there is none; pages name tests without `tests`."""
    for place in (ROOT / module.replace(".", "/"), ROOT / "tests" / module.replace(".", "/")):
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                return file.read_text()
    return "" if (ROOT / module.replace(".", "/")).is_dir() else None


def is_program(module: str) -> bool:
    place = ROOT / module.replace(".", "/")
    return place.with_suffix(".py").is_file() or (place / "__main__.py").is_file()


def is_defined(name: str) -> bool:
    """Tell whether a dotted name is a module, or a word in the one that it begins with."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        code = source(".".join(parts[:length]))
        if code is not None:
            return length == len(parts) or re.search(rf"\b{parts[length]}\b", code) is not None
    return False


def missing(text: str) -> set[str]:
    """Return what a text names and is not there."""
    programs = {name for name in PROGRAM.findall(text) if not is_program(name)}
    files = {name for name in FILE.findall(text) if not (ROOT / name).is_file()}
    names = {name for name in DOTTED.findall(text) if not is_defined(name) and ANY not in name}
    return (programs | files | names) - NAMED_ALL_THE_SAME


def test_what_pages_and_docstrings_name_is_there() -> None:
    checked = dict(texts())
    assert {"README.md", "docs/figures.md", "benchmarks/experiments/README.md"} <= checked.keys()
    assert {name: names for name, text in checked.items() if (names := missing(text))} == {}


@pytest.mark.parametrize(
    "text",
    [
        "run python -m benchmarks.headline BUNDLE",
        "see `benchmarks/headline.py`",
        "see `train.interface.system.Sytem`",
        "`tests.gone`",
    ],
)
def test_a_name_that_leads_nowhere_is_found(text: str) -> None:
    assert len(missing(text)) == 1


def test_every_experiment_stands_in_the_table_with_its_result() -> None:
    page = (EXPERIMENTS / "README.md").read_text()
    rows = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("| ")][1:]
    programs = {file.stem for file in EXPERIMENTS.glob("*.py") if "__main__" in file.read_text()}
    assert {command.split("`")[1].split()[0] for _, command, _, _ in rows} == programs
    files = {name for _, _, result, _ in rows for name in re.findall(r"`(\w+\.json)`", result)}
    assert len(files) > 10
    assert [name for name in sorted(files) if not (RESULTS / name).is_file()] == []
