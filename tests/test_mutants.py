"""The kept mutants still apply and name tests that exist; what is said of each is so."""

import ast
import subprocess
from pathlib import Path

import pytest

from tests.mutants import ROOT, Mutant, applies, copied, mutants, notices

MUTANTS = mutants()
WHERE = "def where():\n    left = 1\n    right = 2\n    return left, right\n"


def test_there_are_mutants() -> None:
    assert len(MUTANTS) >= 8


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_kept_mutant_applies_and_names_tests_that_exist(mutant: Mutant) -> None:
    assert applies(ROOT, mutant.patch), f"{mutant.name} no longer applies: make the patch anew"
    for test in mutant.tests:
        path, _, name = test.partition("::")
        tree = ast.parse((ROOT / path).read_text())
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in functions, f"{mutant.name} names {test}, which is not there"


def written_mutant(folder: Path, head: str, old: str = "left = 1", new: str = "left = 3") -> Mutant:
    """A patch of where.py, in a folder of its own."""
    folder.mkdir()
    lines = ["--- a/where.py", "+++ b/where.py", "@@ -1,3 +1,3 @@", " def where():"]
    lines += [f"-    {old}", f"+    {new}", "     right = 2"]
    (folder / "one.patch").write_text("\n".join([head, *lines]) + "\n")
    (mutant,) = mutants(folder)
    return mutant


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A program of one file with one test of half of it, copied out of its repository."""
    source = tmp_path / "source"
    copy = tmp_path / "copy"
    source.mkdir()
    copy.mkdir()
    (source / "where.py").write_text(WHERE)
    test = "from where import where\n\n\ndef test_left():\n    assert where()[0] == 1\n"
    (source / "test_where.py").write_text(test)
    (source / "left_behind.txt").touch()
    subprocess.run(["git", "init", "--quiet"], cwd=source, check=True)
    subprocess.run(["git", "add", "where.py", "test_where.py"], cwd=source, check=True)
    return copied(source, copy)


def test_a_mutant_is_noticed_by_a_test_that_fails_and_leaves_no_trace(tree: Path, tmp_path: Path) -> None:
    assert {path.name for path in tree.iterdir()} == {"where.py", "test_where.py"}
    mutant = written_mutant(tmp_path / "patches", "# tests: test_where.py::test_left")
    assert notices(tree, mutant)
    assert (tree / "where.py").read_text() == WHERE


def test_a_mutant_that_no_test_looks_at_survives(tree: Path, tmp_path: Path) -> None:
    mutant = written_mutant(tmp_path / "patches", "# tests: test_where.py::test_left", new="left = 2 - 1")
    assert not notices(tree, mutant)


def test_a_test_that_cannot_be_run_notices_nothing(tree: Path, tmp_path: Path) -> None:
    mutant = written_mutant(tmp_path / "patches", "# tests: test_where.py::test_gone")
    with pytest.raises(RuntimeError, match="could not run these tests"):
        notices(tree, mutant)


def test_a_patch_of_what_has_changed_does_not_apply(tree: Path, tmp_path: Path) -> None:
    mutant = written_mutant(tmp_path / "patches", "# equivalent: nobody can tell", old="left = 7")
    assert not applies(tree, mutant.patch)
    with pytest.raises(RuntimeError, match="does not apply"):
        notices(tree, mutant)


@pytest.mark.parametrize("head", ["# a change", "# tests: a::b\n# equivalent: and yet"])
def test_a_patch_says_either_its_tests_or_why_there_are_none(head: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="was expected to say either"):
        written_mutant(tmp_path / "patches", head)
