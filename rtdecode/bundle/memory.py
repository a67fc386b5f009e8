"""Look up rows of a memory: a mapped file of any size, of which only the rows asked for are read.

`rows` checks the header of the mapped ``.npy`` file against the manifest, and `Rows.take` gathers rows.
"""

import mmap
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle.manifest import Memory
from rtdecode.errors import BundleError

# Longer than the header of any plain array.
_HEADER_BYTES = 2**16
_AGAIN = "Export the bundle again."


class Rows:
    """The rows of one memory.

    Parameters
    ----------
    values : (row, value)
        The rows, in the order of their numbers.
    dtype : str
        Type of the values; ``bfloat16`` if they are stored as uint16.
    name : str
        Where it is from, for messages.
    """

    def __init__(self, values: NDArray[Any], dtype: str, name: str) -> None:
        self._values = values
        self._dtype = dtype
        self._name = name

    def take(self, numbers: NDArray[np.integer]) -> NDArray[Any]:
        """Gather rows by their numbers, (number, value).

        Raises
        ------
        BundleError
            If one of the rows does not exist.
        """
        # Checked here because numpy would read negative numbers from the end.
        indices = numbers.reshape(-1)
        count = len(self._values)
        if indices.min() < 0 or indices.max() >= count:
            raise BundleError(
                "memory-row-out-of-range",
                "{path} has the rows 0 to {last_row}, and a graph asked for {rows}. {remedy}",
                path=self._name,
                last_row=count - 1,
                rows=indices.tolist()[:8],
                remedy=_AGAIN,
            )
        gathered = self._values[indices]
        if self._dtype != "bfloat16":
            return gathered
        # numpy has no bfloat16, which is the upper half of a float32.
        return (gathered.astype(np.uint32) << 16).view(np.float32)


def rows(data: mmap.mmap, memory: Memory, name: str) -> Rows:
    """Return the rows of a memory from its mapped file.

    Parameters
    ----------
    data : mmap
        The whole ``.npy`` file.
    memory : Memory
        The memory as the manifest describes it.
    name : str
        Where it is from, for messages.

    Raises
    ------
    BundleError
        If the file is no array, is cut short, or differs from what the manifest says.
    """
    file_dtype = np.dtype("uint16" if memory.dtype == "bfloat16" else memory.dtype)
    header = BytesIO(data[:_HEADER_BYTES])
    try:
        version = np.lib.format.read_magic(header)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, by_column, dtype = read(header)
    except ValueError as error:
        raise BundleError(
            "memory-unreadable",
            "{path} is no array ({error}). {remedy}",
            path=name,
            error=error,
            remedy=_AGAIN,
        ) from error
    if (shape, dtype, by_column) != ((memory.rows, memory.width), file_dtype, False):
        raise BundleError(
            "memory-array-mismatch",
            "{path} holds {dtype} {shape}, memories of manifest.json says {expected_dtype} "
            "({expected_rows}, {expected_width}), row by row. {remedy}",
            path=name,
            dtype=dtype,
            shape=shape,
            expected_dtype=file_dtype,
            expected_rows=memory.rows,
            expected_width=memory.width,
            remedy=_AGAIN,
        )
    start = header.tell()
    if len(data) != start + memory.rows * memory.width * file_dtype.itemsize:
        raise BundleError(
            "memory-size-mismatch",
            "{path} has {size_bytes} bytes, but its header states a different size. {remedy}",
            path=name,
            size_bytes=len(data),
            remedy=_AGAIN,
        )
    values = np.frombuffer(data, file_dtype, offset=start).reshape(memory.rows, memory.width)
    return Rows(values, memory.dtype, name)
