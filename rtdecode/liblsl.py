"""pylsl with a liblsl that loads, and the settings under which the library runs.

Import pylsl from here. If pylsl's own wheel carries no usable liblsl (glibc older than 2.35), the one inside
mne-lsl is taken. Importing this module also sets liblsl's configuration, unless the site has its own;
`reach` adds hosts to it.
"""

import configparser
import io
import os
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rtdecode import installing
from rtdecode.errors import RtDecodeError, UsageError


def _bundled() -> str | None:
    """Find the liblsl inside mne-lsl, if that is installed."""
    spec = find_spec("mne_lsl")
    roots = spec.submodule_search_locations if spec is not None else None
    libraries = [p for root in roots or () for p in sorted(Path(root).glob("lsl/lib/*lsl*.*"))]
    return str(libraries[0]) if libraries else None


try:
    import pylsl
except RuntimeError as error:
    path = _bundled()
    if path is None:
        raise RtDecodeError(
            "lsl-library-unloadable",
            "liblsl, the library behind LSL, cannot be loaded ({error}). Install one with "
            "`{install_command}`, or set PYLSL_LIB to its path.",
            error=str(error).strip().splitlines()[0],
            install_command=installing.command("lsl"),
        ) from error
    os.environ["PYLSL_LIB"] = path
    import pylsl

__all__ = ["LostError", "LslTimeoutError", "pylsl", "reach"]

LostError = pylsl.util.LostError
LslTimeoutError = pylsl.util.TimeoutError

# Used unless this site has its own LSL configuration. LSL's log lines stay off the terminal,
# because sessions report themselves what they lost. Streams are looked for four times a second, and
# the eight probes of a sender's clock take 0.13 s instead of 0.5 s, so that a stream that comes
# back is read again within a second.
_CONFIGURED = [Path("lsl_api.cfg"), Path.home() / "lsl_api/lsl_api.cfg", Path("/etc/lsl_api/lsl_api.cfg")]
_DEFAULTS = "[log]\nlevel = -3\n[tuning]\nTimeProbeInterval = 0.016\nContinuousResolveInterval = 0.25\n"


class _Settings(configparser.ConfigParser):
    def optionxform(self, optionstr: str) -> str:
        """Keep the capitals of the library's keys, which ConfigParser would lower."""
        return optionstr


def _site() -> Path | None:
    """Find the LSL configuration file of this site, if there is one."""
    path = os.environ.get("LSLAPICFG")
    return next((f for f in ([Path(path)] if path else _CONFIGURED) if f.is_file()), None)


def reach(peers: Sequence[str]) -> None:
    """Ask these hosts for their streams directly, in addition to multicast and broadcast.

    This is for networks that pass neither (VPN, several subnets, firewalls). UDP and TCP ports 16572 to
    16604 of each host must be open. Call it before the first stream, outlet or resolver of the process,
    because the library reads its settings only once.

    Parameters
    ----------
    peers : sequence of str
        Host names or addresses. Those in the site's own configuration are kept.

    Raises
    ------
    UsageError
        If there is no host, or one is not a host name or address (it has a port, for example), or if
        LSLAPICFG names a file that is missing.
    """
    invalid = [peer for peer in peers if not re.fullmatch(r"[\w.-]+|[0-9A-Fa-f:]*::?[0-9A-Fa-f:.%\w]+", peer)]
    if invalid or not peers:
        raise UsageError(
            "lsl-peer-invalid",
            "peers are host names or addresses, found {invalid_peers}.",
            invalid_peers=", ".join(map(repr, invalid)) or "none",
        )
    site = _site()
    path = os.environ.get("LSLAPICFG")
    if path and site is None:
        raise UsageError(
            "lsl-config-missing",
            "LSLAPICFG names {path}, which is not a file. Correct it, or unset it.",
            path=path,
        )
    # liblsl takes its settings as one text, so the site's file is read, extended and
    # handed over whole.
    settings = _Settings(strict=False, interpolation=None, inline_comment_prefixes=(";",))
    settings.read_string(site.read_text() if site else _DEFAULTS)
    listed_peers = settings.get("lab", "KnownPeers", fallback="").strip("{} ")
    hosts = [host.strip() for host in listed_peers.split(",") if host.strip()]
    if not settings.has_section("lab"):
        settings.add_section("lab")
    settings.set("lab", "KnownPeers", "{" + ", ".join(dict.fromkeys([*hosts, *peers])) + "}")
    text = io.StringIO()
    settings.write(text)
    pylsl.set_config_content(text.getvalue())


# Only what the process sets before its first use of LSL counts, hence at import.
if _site() is None and not os.environ.get("LSLAPICFG"):
    pylsl.set_config_content(_DEFAULTS)
