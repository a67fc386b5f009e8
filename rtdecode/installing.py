"""How an extra is added to this installation: by the way that the reader installed it."""

import json
import sys
from importlib import metadata


def command(extras: str) -> str:
    """The command that adds extras to this installation.

    Parameters
    ----------
    extras : str
        Names from ``pyproject.toml``, separated by commas: ``train,export``.

    Returns
    -------
    str
        With the source of a clone or of a wheel's file where pip kept a note of it; a package index is
        named by the project alone.
    """
    return f"{sys.executable} -m pip install {_wanted(extras, _source())}"


def _wanted(extras: str, source: dict | None) -> str:
    if source is None:
        return f"'rtdecode[{extras}]'"
    if source.get("dir_info", {}).get("editable"):
        return f"-e '{source['url'].removeprefix('file://')}[{extras}]'"
    return f"'rtdecode[{extras}] @ {source['url']}'"


def _source() -> dict | None:
    """Where pip took the package from, as PEP 610 has it; None where that was an index."""
    try:
        text = metadata.distribution("rtdecode").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    return json.loads(text) if text else None
