"""What `make demo` installs is locked: each package by version and hash, in the versions of the tests."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lock import LOCK, ROOT, requirements

LINE = re.compile(r"([a-z0-9-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n")


def test_the_lock_holds_what_the_environment_needs_and_nothing_without_a_hash() -> None:
    text = LOCK.read_text()
    packages = {name: version for name, version, _ in LINE.findall(text)}
    assert re.sub(r"#.*\n", "", LINE.sub("", text)) == ""
    names = {re.match(r"[\w.-]+", line)[0].lower() for line in requirements()}
    assert names <= packages.keys()
    pinned = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    shared = {name.lower(): version for name, version in pinned if name.lower() in packages}
    assert shared
    assert {name: packages[name] for name in shared} == shared


def test_the_demo_is_installed_by_the_lock() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "--require-hashes -r lock.txt" in makefile
    assert "demo: .venv/core" in makefile


@pytest.mark.full
@pytest.mark.skipif(
    tuple(map(int, (platform.libc_ver()[1] or "0").split("."))) < (2, 35) or platform.machine() != "x86_64",
    reason="pylsl's wheels hold liblsl for x86-64 and glibc 2.35 or newer",
)
def test_what_the_lock_installs_holds_liblsl(tmp_path: Path) -> None:
    (locked,) = (match[0] for match in LINE.finditer(LOCK.read_text()) if match[1] == "pylsl")
    (tmp_path / "pylsl.txt").write_text(locked)
    words = ["--quiet", "--no-deps", "--require-hashes", "--target", str(tmp_path / "installed")]
    install = [sys.executable, "-m", "pip", "install", *words, "-r", str(tmp_path / "pylsl.txt")]
    subprocess.run(install, check=True, capture_output=True)
    assert [*(tmp_path / "installed" / "pylsl" / "lib").glob("liblsl.so*")]
    process = subprocess.run(
        [sys.executable, "-c", "import pylsl; print(pylsl.__file__, pylsl.library_version())"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed"), "PYLSL_LIB": ""},
        check=True,
        capture_output=True,
        text=True,
    )
    assert process.stdout.startswith(str(tmp_path))
