"""pylsl, with mne-lsl's liblsl where pylsl's wheel carries none (glibc older than 2.35)."""

import os
from importlib.util import find_spec
from pathlib import Path

from rtdecode.errors import RtDecodeError


def _bundled() -> str | None:
    """The library inside mne-lsl, where that is installed."""
    spec = find_spec("mne_lsl")
    roots = spec.submodule_search_locations if spec is not None else None
    found = [p for root in roots or () for p in sorted(Path(root).glob("lsl/lib/*lsl*.*"))]
    return str(found[0]) if found else None


try:
    import pylsl
except RuntimeError as error:
    path = _bundled()
    if path is None:
        raise RtDecodeError(
            f"liblsl, the library behind LSL, cannot be loaded ({str(error).strip().splitlines()[0]}). "
            "Install one with `pip install 'rtdecode[lsl]'`, or set PYLSL_LIB to its path."
        ) from error
    os.environ["PYLSL_LIB"] = path
    import pylsl

__all__ = ["pylsl"]

# LSL's own lines stay off the terminal (sessions say what they lost), unless this site has its own
# LSL configuration.
_CONFIGURED = [Path("lsl_api.cfg"), Path.home() / "lsl_api/lsl_api.cfg", Path("/etc/lsl_api/lsl_api.cfg")]
if "LSLAPICFG" not in os.environ and not any(file.is_file() for file in _CONFIGURED):
    pylsl.set_config_content("[log]\nlevel = -3\n")
