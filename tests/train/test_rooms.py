"""The rooms that systems share know no system: neither by a name nor by an import."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARED = ("train/models/conditioned", "train/parts")
SYSTEMS = re.compile(r"cine.?sync|cine.?neuron|mind.?video|brain.?netflix", re.IGNORECASE)


def modules() -> list[Path]:
    return [path for room in SHARED for path in sorted((ROOT / room).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_bytes()))
    return {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_shared_module_names_no_published_system(path: Path) -> None:
    assert SYSTEMS.findall(path.read_text()) == []


def test_parts_are_imported_by_models_and_not_the_other_way() -> None:
    models = {
        path: {name for name in imported(path) if name.startswith("train.models.")} for path in modules()
    }
    foreign = {name for names in models.values() for name in names if ".conditioned" not in name}
    assert foreign == set()
    parts = [path for path in models if "parts" in path.relative_to(ROOT).parts]
    assert [path.name for path in parts if models[path]] == []


def test_published_systems_are_found_by_the_pattern() -> None:
    assert SYSTEMS.search((ROOT / "train/models/cinesync/encoder.py").read_text())
