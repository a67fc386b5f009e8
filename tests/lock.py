"""Write ``lock.txt``: every package of the environment that `make demo` builds, with its hashes.

``python -m tests.lock`` asks pip, with the index that is configured, what it would install on each Python and
machine that is supported. The versions are those of ``constraints.txt``; what lies beneath is the newest.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "lock.txt"
EXTRAS = ("cpu", "dashboard")
PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = ("x86_64", "aarch64")
# Minor versions of glibc 2 on the machines that install: old ones, and those that run the newest wheels. One
# in between finds a wheel that it can run, as pip takes the best of those whose hashes are listed.
GLIBC = (34, 41)
# The oldest glibc that wheels are made for.
_OLDEST_GLIBC = 17
HEAD = """# Everything that `make demo` installs, with hashes: python -m tests.lock
# For Linux on x86-64 and ARM, Python 3.11 to 3.13. What builds the package itself is in it.
"""
_NEWER_PYTHON = re.compile(r"python_(full_)?version\s*>")


def requirements() -> list[str]:
    """List what the environment has to hold, as pyproject.toml states it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    of_extras = [line for extra in EXTRAS for line in project["project"]["optional-dependencies"][extra]]
    return [*project["project"]["dependencies"], *of_extras, *project["build-system"]["requires"]]


def resolved(python: str, machine: str, glibc: int) -> list[dict[str, Any]]:
    """Return what pip would install, from its report."""
    abi = "cp" + python.replace(".", "")
    platforms = [
        word
        for minor in range(glibc, _OLDEST_GLIBC - 1, -1)
        for word in ("--platform", f"manylinux_2_{minor}_{machine}")
    ]
    platforms += ["--platform", f"manylinux2014_{machine}"]
    options = ["--quiet", "--dry-run", "--ignore-installed", "--report", "-", "--target", str(ROOT / "build")]
    options += ["--only-binary", ":all:", "--python-version", python, "--implementation", "cp"]
    options += ["--abi", abi, "--abi", "abi3", "--abi", "none", *platforms]
    options += ["--constraint", str(ROOT / "constraints.txt")]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, *requirements()],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)["install"]


def lines(packages: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of the lock, one for each package, with the hashes of all its files.

    Raises
    ------
    ValueError
        If Pythons or machines would get different versions, or a package needs another one on a newer Python
        alone: pip judges that by the Python that asks.
    """
    hashes: dict[str, dict[str, set[str]]] = {}
    for package in packages:
        metadata = package["metadata"]
        name = re.sub(r"[-_.]+", "-", metadata["name"]).lower()
        digest = package["download_info"]["archive_info"]["hashes"]["sha256"]
        hashes.setdefault(name, {}).setdefault(metadata["version"], set()).add(digest)
        for need in metadata.get("requires_dist", []):
            if _NEWER_PYTHON.search(need) and "extra ==" not in need:
                raise ValueError(f"{name} needs `{need}`: run this under the newest Python")
    for name, versions in sorted(hashes.items()):
        if len(versions) > 1:
            raise ValueError(f"{name} would be {' or '.join(sorted(versions))}: pin it in constraints.txt")
        ((version, digests),) = versions.items()
        yield f"{name}=={version}" + "".join(f" \\\n    --hash=sha256:{digest}" for digest in sorted(digests))


def main() -> None:
    """Write the file."""
    packages = [
        package
        for python in PYTHONS
        for machine in MACHINES
        for glibc in GLIBC
        for package in resolved(python, machine, glibc)
    ]
    LOCK.write_text(HEAD + "\n".join(lines(packages)) + "\n")


if __name__ == "__main__":
    main()
