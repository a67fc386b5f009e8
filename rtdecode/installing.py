"""The pip command that adds an extra to this installation, the way the package was installed."""

import json
import sys
from importlib import metadata


def command(extras: str) -> str:
    """Return the command that adds extras to this installation.

    Parameters
    ----------
    extras : str
        Names from ``pyproject.toml``, separated by commas, for example ``train,export``.

    Returns
    -------
    str
        A pip command. It names the clone or the wheel file if pip kept a note of it; otherwise it names the
        project alone, to be found in the package index.
    """
    return f"{sys.executable} -m pip install {_wanted(extras, _source())}"


def _wanted(extras: str, source: dict | None) -> str:
    if source is None:
        return f"'rtdecode[{extras}]'"
    if source.get("dir_info", {}).get("editable"):
        return f"-e '{source['url'].removeprefix('file://')}[{extras}]'"
    # A direct reference (PEP 508) to the folder or wheel that pip installed from.
    return f"'rtdecode[{extras}] @ {source['url']}'"


def _source() -> dict | None:
    """Return where pip took the package from, as PEP 610 records it; None if that was an index."""
    try:
        text = metadata.distribution("rtdecode").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    return json.loads(text) if text else None
