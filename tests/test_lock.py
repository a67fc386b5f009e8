"""What `make demo` installs is locked: each package by version and hash, in the versions of the tests."""

import re

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
