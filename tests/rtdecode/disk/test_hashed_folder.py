from pathlib import Path

import pytest

from rtdecode.disk.hashed_folder import replacing


def fill(target: Path, text: str) -> None:
    with replacing(target) as part:
        (part / "values.txt").write_text(text)


def test_a_crash_while_a_folder_is_replaced_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "mine"
    fill(target, "old")
    rename = Path.rename

    def crashed(path: Path, to: Path) -> Path:
        if path.suffix == ".part":
            raise KeyboardInterrupt
        return rename(path, to)

    def contents() -> set[str]:
        return {file.read_text() for file in tmp_path.rglob("values.txt")}

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", crashed)
        with pytest.raises(KeyboardInterrupt):
            fill(target, "new")
        assert contents() == {"old", "new"}
        # Nor does a second crash: what the first one left is the only copy of the old folder.
        with pytest.raises(KeyboardInterrupt):
            fill(target, "newer")
        assert contents() == {"old", "newer"}
    fill(target, "newest")
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]
    assert contents() == {"newest"}


def test_a_failure_while_the_new_folder_is_filled_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "mine"
    fill(target, "old")
    with pytest.raises(ZeroDivisionError), replacing(target):
        raise ZeroDivisionError
    assert (target / "values.txt").read_text() == "old"
