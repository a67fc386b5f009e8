"""The arrows between packages, proved by making the forbidden ones unimportable."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parsed import tree_of

ROOT = Path(__file__).parent.parent
PACKAGES = {"rtdecode", "streaming", "train", "export"}
MAY = {
    "rtdecode": {"rtdecode"},
    "streaming": {"rtdecode", "streaming"},
    "train": {"rtdecode", "train"},
    "export": {"rtdecode", "train", "export"},
}
HEAVY = ("torch", "onnx", "yaml", "matplotlib", "diffusers", "peft", "accelerate")
WALL = """
import importlib, pkgutil, sys
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {banned!r}:
            raise ImportError("the wall: " + name)
sys.meta_path.insert(0, Wall())
for package in {packages!r}:
    root = importlib.import_module(package)
    for found in pkgutil.walk_packages(root.__path__, package + "."):
        importlib.import_module(found.name)
"""


def _imports(node: ast.AST) -> set[str]:
    names: set[str] = set()
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            names |= {alias.name.split(".")[0] for alias in child.names}
        elif isinstance(child, ast.ImportFrom) and child.module:
            names.add(child.module.split(".")[0])
    return names


def _names(tree: ast.AST) -> set[str]:
    """Every module that is imported, and every name that is taken from a module."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                names |= {node.module, f"{node.module}.{alias.name}", alias.name}
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
    return names


def runs(code: str) -> None:
    """Run code in a process of its own, where nothing has been imported yet."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", sorted(MAY))
def test_imports_follow_the_arrows(package: str) -> None:
    for file in (ROOT / package).rglob("*.py"):
        imported = _imports(tree_of(file)) & PACKAGES
        if file == ROOT / "rtdecode" / "cli.py":
            continue
        assert imported <= MAY[package], f"{file.relative_to(ROOT)} imports {imported - MAY[package]}"


def test_nothing_that_decodes_knows_what_the_drawn_film_shows() -> None:
    """What is trained, fitted and streamed works with any film, so it must not rest on the words for one."""
    files = [file for package in ("train", "export", "streaming") for file in (ROOT / package).rglob("*.py")]
    knowing = {str(file.relative_to(ROOT)) for file in files if _names(tree_of(file)) & {"ATTRIBUTES"}}
    assert knowing == set()


def test_neither_modules_nor_folders_import_each_other_in_a_circle() -> None:
    # `tests.house` reads `MAY` of this module.
    from tests import house

    trees = house.read(ROOT, house.SHIPPED)
    graph = house.imports({path: tree for path, tree in trees.items() if path != "rtdecode/cli.py"})
    assert house.circles(graph) == []
    assert house.circles(house.rooms(graph)) == []
    assert house.arrows_up(graph) == []


def _top_level(file: Path) -> set[str]:
    """Modules that a file imports when it is imported, and not only when one of its functions runs."""
    tree = tree_of(file)
    return {
        name for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom) for name in _names(node)
    }


def test_the_page_is_a_leaf() -> None:
    """A session starts the page's process by name, and otherwise nothing below it knows the page."""
    page = ROOT / "streaming" / "page"
    files = [file for file in (ROOT / "streaming").rglob("*.py") if page not in file.parents]
    knowing = {
        str(file.relative_to(ROOT))
        for file in files
        if any(name.startswith("streaming.page") for name in _names(tree_of(file)))
    }
    assert knowing == set()
    imports = [name for file in page.rglob("*.py") for name in _top_level(file)]
    assert not [name for name in imports if name.startswith("streaming.tools")]


def test_the_table_of_checks_lies_below_all_that_judge_by_it() -> None:
    for file in (ROOT / "streaming" / "checks").rglob("*.py"):
        imports = {name for name in _top_level(file) if name.startswith("streaming.")}
        assert all(name.startswith("streaming.checks") for name in imports), file


def test_the_command_line_reaches_up_inside_bodies_only() -> None:
    tree = tree_of(ROOT / "rtdecode" / "cli.py")
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not {name for node in top for name in _imports(node)} & (PACKAGES - {"rtdecode"})


@pytest.mark.parametrize(
    ("packages", "banned"),
    [(["rtdecode"], (*HEAVY, "streaming", "train", "export")), (["streaming"], (*HEAVY, "train", "export"))],
)
def test_the_runtime_imports_behind_a_wall(packages: list[str], banned: tuple[str, ...]) -> None:
    code = WALL.format(banned=set(banned), packages=packages)
    runs(code)


def test_fitting_and_exporting_closed_forms_import_behind_a_wall() -> None:
    banned = {*HEAVY, "threadpoolctl"} - {"onnx"}
    modules = ["export.fit", "export.run", "train.fitting.compact"]
    code = WALL.format(banned=banned, packages=[]) + f"for name in {modules}: importlib.import_module(name)\n"
    runs(code)


def test_help_loads_no_numbers_library() -> None:
    code = "import sys, rtdecode.cli; assert not {'numpy', 'torch', 'onnxruntime', 'av'} & set(sys.modules)"
    runs(code)


def test_a_session_starts_without_the_package_that_only_its_eeg_needs() -> None:
    code = "import sys, streaming.session.live; assert 'scipy.signal' not in sys.modules"
    runs(code)
