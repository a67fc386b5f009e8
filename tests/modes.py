"""Who may read what lies below a folder, by its mode bits: tests run as root, which may read everything."""

import stat
import subprocess
import sys
from pathlib import Path

OWNER_ALONE = {"file": 0o600, "folder": 0o700}
GROUP_READS = {"file": 0o640, "folder": 0o750}


def wrong_modes(folder: Path, allowed: dict[str, int] = OWNER_ALONE) -> dict[str, str]:
    """Return the mode of everything below a folder, and of itself, that has another mode: name -> octal."""
    paths = [folder, *folder.rglob("*")]
    assert len(paths) > 1, f"there is nothing in {folder}"
    modes = {str(path): (path.is_dir(), stat.S_IMODE(path.lstat().st_mode)) for path in paths}
    return {
        name: oct(mode)
        for name, (is_dir, mode) in modes.items()
        if mode != allowed["folder" if is_dir else "file"]
    }


def under(umask: str) -> tuple[str, ...]:
    """Return what stands before a command line, so that it runs under a umask."""
    return ("sh", "-c", f'umask {umask}; exec "$@"', "sh")


def rtdecode(umask: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a command of rtdecode to its end under a umask."""
    command = [*under(umask), sys.executable, "-m", "rtdecode.cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done
