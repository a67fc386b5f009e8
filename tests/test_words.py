"""No package gets more names that say nothing of what they name."""

import json
import subprocess
from pathlib import Path

from tests import words

CODE = '''"""Kept and told are fine in prose."""

found, shape = 1, 2
acquired = [told for told in range(3)]


def _held(kept, *, volumes): ...


class Shown:
    whole: int = 0
'''


def package(root: Path, counts: dict[str, int]) -> Path:
    file = root / "streaming" / "sinks" / "code.py"
    file.parent.mkdir(parents=True)
    file.write_text(CODE)
    (root / words.COUNTS).parent.mkdir()
    (root / words.COUNTS).write_text(json.dumps(counts))
    return file


def test_assignments_loops_parameters_and_public_definitions_are_counted(tmp_path: Path) -> None:
    package(tmp_path, {"streaming": 5})
    assert words.vague(tmp_path, "streaming") == [
        f"streaming/sinks/code.py:{place}"
        for place in ("3: found", "4: told", "7: kept", "10: Shown", "11: whole")
    ]
    assert words.grown(tmp_path) == []


def test_a_package_whose_count_grew_is_named_with_the_lines_that_are_new(tmp_path: Path) -> None:
    file = package(tmp_path, {"streaming": 4})
    first, *places = words.grown(tmp_path)
    assert first.startswith("streaming: 5 vague names, 4 are allowed")
    assert len(places) == 5, "all of them, where git cannot tell which are new"
    for command in (
        ("init", "--quiet"),
        ("add", "."),
        ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message=counts"),
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    file.write_text(CODE.replace("whole: int", "others: int"))
    _, *places = words.grown(tmp_path)
    assert places == ["streaming/sinks/code.py:11: others"]
