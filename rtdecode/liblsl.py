"""pylsl, with mne-lsl's liblsl where pylsl's wheel carries none (glibc older than 2.35)."""

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
            f"Install one with `{installing.command('lsl')}`, or set PYLSL_LIB to its path."
        ) from error
    os.environ["PYLSL_LIB"] = path
    import pylsl

__all__ = ["LostError", "LslTimeoutError", "pylsl", "reach"]

LostError = pylsl.util.LostError
LslTimeoutError = pylsl.util.TimeoutError

# Unless this site has its own LSL configuration, LSL's own lines stay off the terminal (sessions say
# what they lost), streams are looked for four times a second, and the eight probes of a sender's clock
# take 0.13 s instead of 0.5: a stream that comes back is read again within a second.
_CONFIGURED = [Path("lsl_api.cfg"), Path.home() / "lsl_api/lsl_api.cfg", Path("/etc/lsl_api/lsl_api.cfg")]
_OURS = "[log]\nlevel = -3\n[tuning]\nTimeProbeInterval = 0.016\nContinuousResolveInterval = 0.25\n"


class _Settings(configparser.ConfigParser):
    def optionxform(self, optionstr: str) -> str:
        """Keep the capitals of the library's keys."""
        return optionstr


def _site() -> Path | None:
    """The LSL configuration of this site, if there is one."""
    named = os.environ.get("LSLAPICFG")
    return next((f for f in ([Path(named)] if named else _CONFIGURED) if f.is_file()), None)


def reach(peers: Sequence[str]) -> None:
    """Ask these hosts for their streams directly, beside multicast and broadcast.

    For networks that pass neither (VPN, several subnets, firewalls): UDP and TCP ports 16572 to 16604
    of each host must be open. Before the first stream, outlet or resolver of the process: the library
    reads its settings once.

    Parameters
    ----------
    peers : sequence of str
        Host names or addresses. Those of the site's own configuration are kept.

    Raises
    ------
    UsageError
        If one is no host: a port or a list was given.
    """
    wrong = [peer for peer in peers if not re.fullmatch(r"[\w.-]+|[0-9A-Fa-f:]*::?[0-9A-Fa-f:.%\w]+", peer)]
    if wrong or not peers:
        raise UsageError(f"peers are host names or addresses, found {', '.join(map(repr, wrong)) or 'none'}.")
    settings = _Settings(strict=False, interpolation=None, inline_comment_prefixes=(";",))
    site = _site()
    settings.read_string(site.read_text() if site else _OURS)
    known = settings.get("lab", "KnownPeers", fallback="").strip("{} ")
    hosts = [host.strip() for host in known.split(",") if host.strip()]
    if not settings.has_section("lab"):
        settings.add_section("lab")
    settings.set("lab", "KnownPeers", "{" + ", ".join(dict.fromkeys([*hosts, *peers])) + "}")
    text = io.StringIO()
    settings.write(text)
    pylsl.set_config_content(text.getvalue())


if _site() is None and "LSLAPICFG" not in os.environ:
    pylsl.set_config_content(_OURS)
