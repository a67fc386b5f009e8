import os
import shutil
import subprocess
import sys
from pathlib import Path

import pylsl
import pytest

from rtdecode import liblsl
from rtdecode.errors import UsageError
from tests.refusals import refused

PACKAGE = Path(pylsl.__file__).parent
# What reads streams finds the library in the same way.
CODE = (
    "import streaming.sources.lsl.markers; from rtdecode.liblsl import pylsl; "
    "print(pylsl.library_version(), pylsl.__file__)"
)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A pylsl as on systems whose wheel carries no library."""
    shutil.copytree(PACKAGE, tmp_path / "pylsl", ignore=shutil.ignore_patterns("*.so*", "__pycache__"))
    return tmp_path


def load(first: Path) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "PYLSL_LIB"} | {"PYTHONPATH": str(first)}
    return subprocess.run(
        [sys.executable, "-c", CODE], env=env, capture_output=True, text=True, check=False, cwd=first
    )


def test_the_library_of_mne_lsl_is_taken(bare: Path) -> None:
    library = next(PACKAGE.rglob("*lsl*.so*"))
    (bare / "mne_lsl" / "lsl" / "lib").mkdir(parents=True)
    (bare / "mne_lsl" / "__init__.py").touch()
    shutil.copy(library, bare / "mne_lsl" / "lsl" / "lib" / "liblsl.so.1.17.7")
    done = load(bare)
    assert done.returncode == 0, done.stderr
    assert str(bare) in done.stdout


def test_without_any_the_error_says_what_to_install(bare: Path) -> None:
    # An mne-lsl that is installed is hidden by one that holds nothing.
    (bare / "mne_lsl").mkdir()
    (bare / "mne_lsl" / "__init__.py").touch()
    done = load(bare)
    assert done.returncode == 1
    assert "[lsl]" in done.stderr


def test_peers_are_not_added_to_settings_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSLAPICFG", str(tmp_path / "lsl_api.cfg"))
    with refused(UsageError, "lsl-config-missing", path=tmp_path / "lsl_api.cfg"):
        liblsl.reach(["127.0.0.8"])
