"""Arrays of a release, mapped into memory and read where they are indexed.

`mapped_npy` maps a ``.npy`` file and `mapped_pt` the tensor of a ``.pt`` file, `image` opens an image of
nibabel, and `strings_pt` reads captions. `finite` and `pixels` check what was read. No file can run code: one
that would have to is refused.
"""

import errno
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from train.data.shards import array_header

# Values of a picture may exceed their range by this, as a share of the range: they were resampled.
_BEYOND = 0.01


def present(path: Path, release: str) -> Path:
    """Return the path of a file that has to be there.

    Raises
    ------
    UsageError
        If it is not.
    """
    if not path.is_file():
        raise UsageError(
            "release-file-missing",
            "{path} is not there, and {release} has it. Fetch the file, or give another folder.",
            path=path,
            release=release,
        )
    return path


def npy_header(path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read the shape and the dtype of a ``.npy`` file, and nothing else of it.

    Raises
    ------
    UsageError
        If the file is no such array.
    """
    try:
        with path.open("rb") as file:
            shape, _, dtype = array_header(file)
    except (OSError, ValueError) as error:
        raise UsageError(
            "array-unreadable",
            "{path} cannot be read as a NumPy array ({error}). Fetch the file again.",
            path=path,
            error=error,
        ) from error
    return shape, dtype


def mapped_npy(path: Path, axes: Sequence[str], kinds: str = "f") -> NDArray[Any]:
    """Map a ``.npy`` file into memory.

    Parameters
    ----------
    axes : sequence of str
        Names of the axes that the array has to have.
    kinds : str
        Kinds of numbers that it may hold, as `numpy.dtype.kind` has them.

    Raises
    ------
    UsageError
        If the file is not an array, is cut short, or has other axes or another kind of numbers.
    """
    shape, dtype = npy_header(path)
    _check(path, shape, dtype.kind, axes, kinds)
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(
            "array-damaged",
            "{path} is cut short or damaged ({error}). Fetch the file again.",
            path=path,
            error=error,
        ) from error


def mapped_pt(path: Path, axes: Sequence[str], kinds: str = "f") -> NDArray[Any]:
    """Map the tensor of a ``.pt`` file into memory; see `mapped_npy`.

    The file is read with ``weights_only``: it cannot run code.
    """
    import torch

    tensor = _loaded(path, mmap=True)
    if not isinstance(tensor, torch.Tensor) or tensor.dtype == torch.bfloat16:
        actual = f"a tensor of {tensor.dtype}" if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise UsageError(
            "tensor-not-numeric",
            "{path} holds {actual}; a tensor of numbers was expected. Fetch the file again.",
            path=path,
            actual=actual,
        )
    values = tensor.numpy()
    _check(path, values.shape, values.dtype.kind, axes, kinds)
    return values


def strings_pt(path: Path) -> NDArray[np.str_]:
    """Read the strings of a ``.pt`` file: a NumPy array of strings, or a list of them.

    Raises
    ------
    UsageError
        If the file holds anything else.
    """
    import torch
    from numpy._core import multiarray

    # An array that NumPy 1 wrote names the module by its former name.
    names = ("numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct")
    rebuild: list[Any] = [(multiarray._reconstruct, name) for name in names]
    allowed = [*rebuild, np.ndarray, np.dtype, type(np.dtype(np.str_))]
    with torch.serialization.safe_globals(allowed):
        content = _loaded(path, mmap=False)
    is_string_array = isinstance(content, np.ndarray) and content.dtype.kind == "U"
    if not is_string_array and not (
        isinstance(content, list) and all(isinstance(text, str) for text in content)
    ):
        raise UsageError(
            "captions-not-strings",
            "{path} holds {actual}, and strings were expected. Fetch the file again, or move it away "
            "to go on without captions.",
            path=path,
            actual=type(content).__name__,
        )
    return np.asarray(content, np.str_)


def image(path: Path, form: str = "NIfTI") -> Any:
    """Open an image, of which nothing but the header is read.

    Raises
    ------
    UsageError
        If it cannot be read; `form` says what it was taken for.
    """
    try:
        return nibabel.load(path)
    except (OSError, ImageFileError, ValueError) as error:
        raise UsageError(
            "image-unreadable",
            "{path} cannot be read as {format} ({error}). Fetch the file again.",
            path=path,
            format=form,
            error=error,
        ) from error


def finite(values: NDArray[Any], path: Path) -> NDArray[np.float32]:
    """Return numbers as float32.

    Raises
    ------
    UsageError
        If one of them is not finite.
    """
    # A large number may have no place in single precision.
    with np.errstate(over="ignore"):
        numbers = np.asarray(values, np.float32)
    bad = ~np.isfinite(numbers)
    if bad.any():
        voxels = int(bad.reshape(-1, numbers.shape[-1]).any(0).sum())
        raise UsageError(
            "data-nonfinite-values",
            "{path}: {nonfinite_values} values in the windows asked for, in {nonfinite_voxels} of "
            "{voxels} voxels or samples, are not finite. Prepare the file again, without them.",
            path=path,
            nonfinite_values=int(bad.sum()),
            nonfinite_voxels=voxels,
            voxels=numbers.shape[-1],
        )
    return numbers


def pixels(values: NDArray[Any], top: float, path: Path) -> NDArray[np.uint8]:
    """Return pictures as uint8.

    Parameters
    ----------
    values : ndarray
        uint8, or numbers from 0 to `top`.
    top : float
        The number that stands for white.
    path : Path
        File that the values come from, for messages.

    Raises
    ------
    UsageError
        If numbers lie outside that range.
    """
    if values.dtype == np.uint8:
        return np.asarray(values)
    levels = np.asarray(values, np.float32)
    low = float(levels.min(initial=0))
    high = float(levels.max(initial=0))
    # A value that is not finite is not inside either.
    if not (low >= -_BEYOND * top and high <= (1 + _BEYOND) * top):
        raise UsageError(
            "pixels-out-of-range",
            "{path}: pixels from {lowest:g} to {highest:g} were found, and 0 to {limit:g} was "
            "expected. Fetch the file again.",
            path=path,
            lowest=low,
            highest=high,
            limit=top,
        )
    return np.rint(np.clip(levels / top, 0, 1) * 255).astype(np.uint8)


def _loaded(path: Path, *, mmap: bool) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        if os.strerror(errno.ENOMEM) in first:
            raise UsageError(
                "tensor-exceeds-memory",
                "{path} has {size_gb:.1f} GB, and the system maps no file that exceeds memory and "
                "swap together. Take a machine with more, or set vm.overcommit_memory to 1: the file "
                "is read in parts.",
                path=path,
                size_gb=path.stat().st_size / 1000000000.0,
            ) from error
        raise UsageError(
            "tensor-unreadable",
            "{path} cannot be read as tensors alone ({error}). Fetch the file again, or write it "
            "again with torch.save. A file that would run code is not read.",
            path=path,
            error=first,
        ) from error


def _check(path: Path, shape: tuple[int, ...], kind: str, axes: Sequence[str], kinds: str) -> None:
    if len(shape) != len(axes) or kind not in kinds or 0 in shape:
        words = {"f": "floats", "u": "unsigned integers", "i": "integers", "U": "strings", "O": "objects"}
        expected = " or ".join(words.get(code, code) for code in kinds)
        raise UsageError(
            "array-shape-mismatch",
            "{path} has {kind} of shape {shape}; {expected_kind} of shape ({expected_axes}) were "
            "expected. Fetch the file again.",
            path=path,
            kind=words.get(kind, kind),
            shape=shape,
            expected_kind=expected,
            expected_axes=list(axes),
        )
