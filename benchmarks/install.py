"""How long the core takes to install when its wheels are at hand, and how many megabytes they are."""

import json
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]
_LARGEST = 8


def measure() -> dict[str, Any]:
    """Download the wheels, then install them into a new environment without the network.

    Returns
    -------
    dict
        ``seconds`` of the installation, ``megabytes`` of the wheels, ``wheels`` with the largest.
    """
    with tempfile.TemporaryDirectory() as name:
        wheels = Path(name) / "wheels"
        home = Path(name) / "env"
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        requirements = ["-c", str(_ROOT / "constraints.txt"), f"{_ROOT}[cpu]"]
        subprocess.run([*pip, "wheel", "--wheel-dir", str(wheels), *requirements], check=True)
        sizes = {file.name: file.stat().st_size / 1e6 for file in wheels.iterdir()}
        start = time.monotonic()
        venv.create(home, with_pip=True)
        local = ["--no-index", "--find-links", str(wheels), "rtdecode[cpu]"]
        python = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        subprocess.run([*python, "install", *local], check=True)
        seconds = time.monotonic() - start
        subprocess.run([str(home / "bin" / "rtdecode"), "--version"], check=True, cwd=name)
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:_LARGEST]
    return {
        "seconds": round(seconds, 1),
        "megabytes": round(sum(sizes.values()), 1),
        "wheels": {name: round(size, 1) for name, size in largest},
    }


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))  # noqa: T201
