"""The files in ``benchmarks/results``, each of which holds the figures that one command printed.

Each names that command, the commit of the programs, the machine and the date. Where figures were copied from
a page, ``source`` says from which one, and that nothing was computed anew.
"""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results")
# What a file says of itself; everything else in it is figures.
ORIGIN = ("command", "commit", "date", "machine")
SOURCE = "source"
# A module that is run, or a test file; `rtdecode` is the module of its entry point.
_PROGRAMS = re.compile(r"python -m (?!pytest)([\w.]+)|(tests/\S+\.py)|\b(rtdecode) [a-z]")


def write(path: Path, figures: Mapping[str, Any]) -> None:
    """Write the figures that the program which runs has found, and where they come from.

    Parameters
    ----------
    path : Path
        A reader sees the file as it was, or whole.
    figures : mapping
        What it has of `ORIGIN` from an earlier call is replaced, apart from ``machine``.
    """
    module = getattr(sys.modules["__main__"].__spec__, "name", "").removesuffix(".__main__")
    origin = {
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
        "commit": current_commit(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": figures.get("machine") or _machine(),
    }
    part = path.with_suffix(".part")
    part.write_text(json.dumps(origin | {**figures, **origin}, indent=1) + "\n")
    part.replace(path)


def current_commit() -> str | None:
    """Name the commit of the programs; None in a copy without its history, of which `faults` says so.

    Result files are no programs: a benchmark that writes one figure after the other changes them itself.
    """
    commit = _git(ROOT, "rev-parse", "--verify", "--quiet", "HEAD").stdout.strip()
    if not commit:
        return None
    results = RESULTS.relative_to(ROOT)
    changed = _git(ROOT, "status", "--porcelain", "--untracked-files=no", "--", ".", f":(exclude){results}")
    return f"{commit}-dirty" if changed.stdout.strip() else commit


def read(path: Path) -> dict[str, Any]:
    """Read the figures of a file, without where they come from."""
    tree = json.loads(path.read_text())
    return {name: value for name, value in tree.items() if name not in (*ORIGIN, SOURCE)}


def faults(path: Path, root: Path = ROOT) -> Iterator[str]:
    """Say in a sentence each what a file does not tell of where its figures come from.

    Parameters
    ----------
    path : Path
        A result file.
    root : Path
        The repository in which its command and its commit are looked for.
    """
    tree = json.loads(path.read_text())
    absent = [name for name in ORIGIN if not tree.get(name)]
    if absent:
        yield (
            f"{path.name} does not say the {' and the '.join(absent)} of its figures. Write it with "
            "`benchmarks.result_files.write`, or take them from the history of the file."
        )
    if "command" in absent or "commit" in absent:
        return
    programs = [next(filter(None, groups)) for groups in _PROGRAMS.findall(tree["command"])]
    if not programs:
        yield f"{path.name}: the command `{tree['command']}` names no program of this repository."
    commit = tree["commit"].removesuffix("-dirty")
    for program in programs:
        files = _files(program)
        if not any((root / file).is_file() for file in files) and not _had(root, commit, files):
            yield (
                f"{path.name}: `{tree['command']}` needs {program}, which is neither in the repository nor "
                f"in commit {commit}. Name the commit that had it."
            )


def _files(program: str) -> list[str]:
    """Return where a program may lie."""
    if program.endswith(".py"):
        return [program]
    place = {"rtdecode": "rtdecode.cli"}.get(program, program).replace(".", "/")
    return [f"{place}.py", f"{place}/__main__.py"]


def _had(root: Path, commit: str, files: list[str]) -> bool:
    """Tell whether a commit has one of the files; a copy without the history takes it on trust."""
    tree = _git(root, "ls-tree", "--name-only", commit, "--", *files)
    if tree.returncode:
        return _git(root, "rev-parse", "--is-shallow-repository").stdout.strip() != "false"
    return bool(tree.stdout)


def _git(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *words], cwd=root, check=False, capture_output=True, text=True)


def _machine() -> dict[str, Any]:
    # The programs that only check files do not load what decodes.
    from streaming.tools import bench

    return bench._machine()
