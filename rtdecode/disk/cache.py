"""Where results are kept that can be made again: `place`."""

import os
from pathlib import Path

# Where they are kept, if another place than the user's cache is wanted.
VARIABLE = "RTDECODE_CACHE"


def place() -> Path:
    """Return the folder: the one that `VARIABLE` names, or ``rtdecode`` in the user's cache."""
    folder = os.environ.get(VARIABLE)
    if folder:
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rtdecode"
