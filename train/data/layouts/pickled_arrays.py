"""Arrays of a release that is a pickle, read without letting the file run code."""

import importlib
import pickle
from pathlib import Path
from typing import Any

from rtdecode.errors import UsageError

# All that a pickle may name: what puts an array together, and containers that older protocols name.
_ALLOWED = {
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    # Protocol 2 writes bytes as an encoded string.
    ("_codecs", "encode"),
    ("builtins", "set"),
    ("builtins", "frozenset"),
    ("builtins", "bytearray"),
}
# Modules by the names that they had before, in NumPy 1 and in Python 2.
_NOW = {
    "numpy.core.multiarray": "numpy._core.multiarray",
    "numpy.core.numeric": "numpy._core.numeric",
    "__builtin__": "builtins",
}


class _ArraysAlone(pickle.Unpickler):
    """An unpickler that finds nothing but NumPy's arrays and plain containers."""

    def find_class(self, module: str, name: str) -> Any:
        place = _NOW.get(module, module)
        if (place, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return getattr(importlib.import_module(place), name)


def unpickled(path: Path) -> Any:
    """Read a pickle of NumPy arrays, numbers, strings and plain containers.

    Raises
    ------
    UsageError
        If it is damaged, or names anything else. Nothing that it names is called.
    """
    try:
        with path.open("rb") as file:
            return _ArraysAlone(file).load()
    except (OSError, EOFError, pickle.UnpicklingError, ValueError, TypeError, IndexError, KeyError) as error:
        raise UsageError(
            "pickle-unreadable",
            "{path} is no pickle of arrays alone, or is damaged ({error}). Fetch the file again, or "
            "write its arrays again with pickle.dump of a dictionary.",
            path=path,
            error=error,
        ) from error
