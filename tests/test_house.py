"""The report on the house counts what it says, on a small tree where the counts are known."""

from pathlib import Path

from tests import house

FILES = {
    "rtdecode/errors.py": '"""Nothing."""\n\n\nclass Fault(Exception): ...\n',
    "rtdecode/page/a.py": (
        "from rtdecode.page import b\nimport train.trainer.loop\n\nclass Shown:\n    told, kept = 1, 2\n"
    ),
    "rtdecode/page/b.py": "from rtdecode.page.a import Shown as First\n\nclass Shown(First): ...\n",
    "streaming/session/live.py": (
        "class _Session:\n"
        "    '''Three fields.'''\n"
        "    name: str\n\n"
        "    def __init__(self) -> None:\n"
        "        self._out = self._page = None  # Two of them.\n"
        "        other.field = 1\n\n"
        "    def _end(self) -> None:\n"
        "        # The same field again.\n"
        "        self._out = 2\n"
    ),
    "train/trainer/loop.py": "def _step(): ...\n",
    "tests/test_live.py": (
        "from train.trainer.loop import _step\n\n"
        "def _own(): ...\n\n"
        "def test(monkeypatch):\n"
        "    self._out\n"
        "    session._out\n"
        "    session._own\n"
        "    monkeypatch.setattr(session, '_end', None)\n"
        "    with pytest.raises(ValueError, match='words'): ...\n"
    ),
    "docs/page.md": "Three short words\n",
    "docs/notebook/old.md": "Not counted\n",
}


def report(root: Path) -> list[str]:
    for package in house.PACKAGES:
        (root / package).mkdir(parents=True)
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return list(house.report(root))


def test_each_count_is_of_what_its_line_says(tmp_path: Path) -> None:
    lines = report(tmp_path)
    assert "vague words, rtdecode: 4 of 5, 80.00%" in lines
    assert lines[lines.index("public classes of one name in a sub-package: 1") + 1] == (
        "  rtdecode/page: Shown, 2 times"
    )
    assert lines[lines.index("arrows up: 1") + 1] == "  rtdecode/page/a.py -> train/trainer/loop.py"
    assert lines[lines.index("circles of modules: 1") + 1] == "  2: rtdecode/page/a.py, rtdecode/page/b.py"
    assert "circles of folders: 0" in lines
    assert "fields of _Session: _Session 3" in lines
    assert "fields of Emitter: gone" in lines
    assert "matched sentences in tests: 1" in lines
    assert "parallel assignments: 1 of 4, 25.00%" in lines
    assert "lines, streaming: 11, 7 of code, 28.6 comments per hundred of these" in lines
    assert "longest function: 3 lines of code, streaming/session/live.py: __init__, line 5" in lines
    assert "words of the docs without the notebook: 3" in lines


def test_a_private_use_is_one_of_a_package_and_not_of_the_test_itself(tmp_path: Path) -> None:
    lines = report(tmp_path)
    assert "uses of private members in tests: 3" in lines
    assert house.private_uses(house.read(tmp_path)) == [
        "tests/test_live.py:1: _step",
        "tests/test_live.py:7: _out",
        "tests/test_live.py:9: _end",
    ]


def test_folders_that_import_each_other_are_a_circle() -> None:
    graph = {"a/x.py": {"b/y.py"}, "b/y.py": set(), "b/z.py": {"a/x.py"}, "c/w.py": {"a/x.py", "b/z.py"}}
    assert house.circles(graph) == []
    assert house.circles(house.rooms(graph)) == [["a", "b"]]


def test_a_module_that_nothing_imports_is_a_command_above_its_folder() -> None:
    graph = {"a/x.py": {"b/y.py"}, "b/y.py": set(), "b/__main__.py": {"a/x.py"}}
    assert house.circles(house.rooms(graph)) == []
