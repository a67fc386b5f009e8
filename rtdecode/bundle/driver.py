"""Hold the NVIDIA driver against the CUDA that installed packages were built for: `fault`.

A program that was built for a major version of CUDA runs with any driver of that version or a newer one
(NVIDIA, CUDA Compatibility, "Minor Version Compatibility"). With an older driver a package fails in words
that do not say what is missing, and some packages only when they compute.
"""

import re
from collections.abc import Iterable
from importlib import import_module, metadata

from rtdecode.bundle.gpu import Gpu

# CUDA's major version -> the first drivers for Linux that run what was built for it (table 1 there).
_DRIVERS = {11: 450, 12: 525, 13: 580}
_ONNX_RUNTIME = "onnxruntime"
_BINDINGS = "cuda.bindings"


def fault(device: Gpu, modules: Iterable[str]) -> str | None:
    """Say what to do if the driver is too old for one of some installed modules; else return None.

    Parameters
    ----------
    device : Gpu
        What the driver says of itself.
    modules : iterable of str
        Names under which they are imported: ``onnxruntime``, ``cuda.bindings``, or a module of NVIDIA's.

    Returns
    -------
    str or None
        Two sentences: what was asked and found, and what to do.
    """
    for module in modules:
        built_for = cuda_of(module)
        if built_for is None or built_for <= int(device.cuda.partition(".")[0]):
            continue
        newer = f"driver {_DRIVERS[built_for]} or newer" if built_for in _DRIVERS else "a newer driver"
        return (
            f"{module} is built for CUDA {built_for}, and the driver of {device.name} supports CUDA "
            f"{device.cuda} at most. Install {newer} (`nvidia-smi` tells which is there), or a package that "
            "is built for an older CUDA."
        )
    return None


def cuda_of(module: str) -> int | None:
    """Return the major version of CUDA that an installed module was built for; None if it does not say.

    ONNX Runtime states it in Python. The version of ``cuda.bindings`` is CUDA's own. NVIDIA's other packages
    bring their libraries in a package whose name ends with it, such as ``tensorrt-cu13-libs``.
    """
    if module == _ONNX_RUNTIME:
        # Empty in a package for the CPU.
        return _major(getattr(import_module(module), "cuda_version", ""))
    if module == _BINDINGS:
        return _major(_version("cuda-bindings"))
    pattern = re.compile(rf"{module.replace('_', '-')}-cu([0-9]+)(-.*)?")
    for package in metadata.distributions():
        name = str(package.metadata["Name"]).lower().replace("_", "-")
        if match := pattern.fullmatch(name):
            return int(match[1])
    return None


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _major(version: str) -> int | None:
    first = version.partition(".")[0]
    return int(first) if first.isdecimal() else None
