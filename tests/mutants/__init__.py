"""Changes that once passed every test, each kept as a patch with the tests that must notice it.

python -m tests.mutants           # a table
python -m tests.mutants --json    # {"killed", "equivalent", "of", "survivors", "stale"}

A patch says before its first hunk which tests must fail with it (``# tests: PATH::NAME``, a line each), or
why no test can tell it from what it changes (``# equivalent: WHY``).
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
# pytest's exit status where tests ran and some of them failed.
_FAILED = 1


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change.

    Attributes
    ----------
    patch : Path
    tests : tuple of str
        pytest's names of the tests that must fail.
    equivalent : str
        Why none can; empty where some must.
    """

    patch: Path
    tests: tuple[str, ...]
    equivalent: str

    @property
    def name(self) -> str:
        """Name of the patch without its ending."""
        return self.patch.stem


def mutants(folder: Path = FOLDER) -> list[Mutant]:
    """Read every patch of a folder, in the order of their names."""
    return [_read(patch) for patch in sorted(folder.glob("*.patch"))]


def _read(patch: Path) -> Mutant:
    tests: list[str] = []
    equivalent = ""
    for line in patch.read_text().splitlines():
        key, _, value = line.partition(": ")
        if key == "# tests":
            tests.append(value)
        elif key == "# equivalent":
            equivalent = value
    if bool(tests) == bool(equivalent):
        raise ValueError(
            f"{patch} was expected to say either '# tests: PATH::NAME' or '# equivalent: WHY' before its "
            f"first hunk, found {len(tests)} tests and {equivalent or 'no reason'!r}. Mend its head."
        )
    return Mutant(patch, tuple(tests), equivalent)


def copied(root: Path, to: Path) -> Path:
    """Copy what git tracks of a working tree, as it lies there now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True, text=True)
    for name in listed.stdout.split("\0"):
        if name and (root / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, to / name)
    return to


def applies(tree: Path, patch: Path) -> bool:
    """Whether a patch still fits a tree."""
    return _apply(tree, patch, "--check")


def notices(tree: Path, mutant: Mutant) -> bool:
    """Whether the mutant's tests fail in a tree that it is applied to; the tree is as before afterwards.

    Raises
    ------
    RuntimeError
        If the patch does not fit, or its tests cannot be run.
    """
    if not _apply(tree, mutant.patch):
        raise RuntimeError(f"{mutant.patch} does not apply to {tree}. Make it anew.")
    try:
        return not passing(tree, mutant.tests)
    finally:
        _apply(tree, mutant.patch, "--reverse")


def passing(tree: Path, tests: tuple[str, ...]) -> bool:
    """Whether every one of some tests passes in a tree.

    Raises
    ------
    RuntimeError
        If they cannot be run.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    # Ahead of an installed checkout, or the tests would be given that instead of the copy.
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    if run.returncode not in (0, _FAILED):
        raise RuntimeError(
            f"{' '.join(command)} in {tree} could not run these tests:\n{run.stdout}{run.stderr}"
        )
    return run.returncode == 0


def _apply(tree: Path, patch: Path, *how: str) -> bool:
    # Within a repository around the copy git would pass over every file, and say that all went well.
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(tree.resolve().parent)}
    return (
        subprocess.run(
            ["git", "apply", *how, str(patch)], cwd=tree, env=environment, capture_output=True
        ).returncode
        == 0
    )
