"""Optional packages: which extra of the installation has a module, and the pip command that adds it."""

import json
import re
import sys
from importlib import metadata

# Modules that are not called as the packages that pip installs them by.
_PACKAGES = {
    "cuda": "cuda-bindings",
    "cv2": "opencv-python-headless",
    "pygame": "pygame-ce",
    "pythonosc": "python-osc",
    "yaml": "pyyaml",
}
# The beginning of a requirement and its extra, as pip keeps them: ``torch>=2.9; extra == "train"``.
_REQUIREMENT = re.compile(r"""([\w.-]+).*extra == ['"]([\w-]+)['"]""")


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


def extra_of(module: str) -> str | None:
    """Return the extra that has a module, or None if no extra of the installed package has it.

    Of several, the first one in ``pyproject.toml``; those of TensorRT, which need a GPU, come last.

    Parameters
    ----------
    module : str
        As it is imported, for example ``yaml`` or ``torch.nn``.
    """
    top = module.partition(".")[0]
    package = _PACKAGES.get(top, top).replace("_", "-")
    try:
        requirements = metadata.requires("rtdecode") or []
    except metadata.PackageNotFoundError:
        return None
    matches = filter(None, map(_REQUIREMENT.match, requirements))
    extras = [match[2] for match in matches if match[1].lower().replace("_", "-") == package]
    return min(extras, key=lambda extra: extra.startswith("tensorrt"), default=None)


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
