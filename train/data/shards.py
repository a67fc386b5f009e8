"""One array whose rows lie in many files, read from disk only where it is indexed.

`mapped` maps one array of an uncompressed ``.npz`` archive. `Shards` joins such arrays along the first axis.
"""

import mmap
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

# A zip archive's local header has a fixed part, which ends with the lengths of the name and the extra
# field that follow it.
_FIXED = 30
_LENGTHS = slice(26, 30)


class Shards:
    """One array whose rows lie in several files, one file's rows after another's.

    It is indexed as the concatenated array would be. The files are memory-mapped and read only where they
    are indexed, so that the array may be larger than the memory. What was read does not stay in the process's
    memory. A copy that is sent to another process maps the files again.

    Parameters
    ----------
    paths : sequence of Path
        Archives that `numpy.savez` wrote, such as the stages of a run.
    name : str
        The array's name in each of them.

    Attributes
    ----------
    shape : tuple of int
        Shape of the whole array, with the rows of all files.
    dtype : numpy.dtype
        Type of the numbers in every file.

    Raises
    ------
    ValueError
        If there is no file, a file does not hold the array uncompressed, or rows differ in shape or dtype.
    """

    def __init__(self, paths: Sequence[Path], name: str) -> None:
        if not paths:
            raise ValueError(f"no file was given for the array '{name}'; at least one was expected.")
        self._paths = list(paths)
        self._name = name
        self._parts = [mapped(path, name) for path in paths]
        first = self._parts[0]
        for path, part in zip(paths, self._parts, strict=True):
            if part.shape[1:] != first.shape[1:] or part.dtype != first.dtype:
                raise ValueError(
                    f"rows of '{name}' in {path} are {part.dtype} {part.shape[1:]}, "
                    f"those in {paths[0]} are {first.dtype} {first.shape[1:]}. Write the files again."
                )
        self._ends = np.cumsum([len(part) for part in self._parts])
        self.shape = (int(self._ends[-1]), *first.shape[1:])
        self.dtype = first.dtype

    def __reduce__(self) -> tuple[Any, ...]:
        return Shards, (self._paths, self._name)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read rows. The first index picks them (number, slice, numbers or mask), others index each row."""
        row_key, *inner_keys = key if isinstance(key, tuple) else (key,)
        if row_key is Ellipsis:
            # The dots stand for the rows and for all axes that the other indices leave out.
            row_key = slice(None)
            inner_keys = [Ellipsis, *inner_keys]
        if isinstance(row_key, int | np.integer):
            return self._rows(np.array([row_key]), inner_keys)[0]
        if isinstance(row_key, slice):
            return self._rows(np.arange(len(self))[row_key], inner_keys)
        numbers = np.asarray(row_key)
        if numbers.dtype == bool:
            numbers = np.flatnonzero(numbers)
        return self._rows(numbers, inner_keys)

    def _rows(self, numbers: NDArray[np.integer], inner_keys: list[Any]) -> NDArray[Any]:
        rows = np.where(numbers < 0, numbers + len(self), numbers)
        if ((rows < 0) | (rows >= len(self))).any():
            raise IndexError(f"rows {numbers} were asked for; '{self._name}' has {len(self)}.")
        which = np.searchsorted(self._ends, rows, side="right")
        values = None
        for n in np.unique(which):
            here = which == n
            before = self._ends[n] - len(self._parts[n])
            picked = _picked(self._parts[n], rows[here] - before, inner_keys)
            if values is None:
                values = np.empty((len(rows), *picked.shape[1:]), self.dtype)
            values[here] = picked
        if values is None:
            return self._parts[0][:0][(slice(None), *inner_keys)]
        return values


def _picked(part: Any, rows: NDArray[np.integer], inner_keys: list[Any]) -> NDArray[Any]:
    """Read rows of one file, so that no page of it stays in this process's memory."""
    if not inner_keys and part.flags.c_contiguous:
        return _whole_rows(part, rows)
    # Row by row, so that only the part of a row that is indexed is read from disk.
    picked = np.stack([part[row][tuple(inner_keys)] for row in rows])
    # Pages of a mapped file count as this process's memory until they are given back.
    part._mmap.madvise(mmap.MADV_DONTNEED)
    return picked


def _whole_rows(part: Any, rows: NDArray[np.integer]) -> NDArray[Any]:
    """Read whole rows without the mapping, which reads a page at a time and takes longer."""
    values = np.empty((len(rows), *part.shape[1:]), part.dtype)
    content = values.reshape(len(rows), -1).view(np.uint8)
    size = content.shape[1]
    with Path(part.filename).open("rb", buffering=0) as file:
        for row, to in zip(rows.tolist(), content, strict=True):
            if os.preadv(file.fileno(), [to.data], part.offset + row * size) != size:
                raise ValueError(f"{part.filename} ends before row {row}. Write the file again.")
    return values


def mapped(path: Path, name: str) -> NDArray[Any]:
    """Map one array of an archive that `numpy.savez` wrote into memory, without reading it.

    Raises
    ------
    ValueError
        If the archive has no such array, or compressed it.
    """
    with zipfile.ZipFile(path) as archive:
        if f"{name}.npy" not in archive.namelist():
            raise ValueError(f"{path} has no array '{name}'; it has {', '.join(archive.namelist())}.")
        member = archive.getinfo(f"{name}.npy")
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"'{name}' in {path} is compressed. Write the archive with numpy.savez.")
    with path.open("rb") as file:
        file.seek(member.header_offset)
        lengths = np.frombuffer(file.read(_FIXED)[_LENGTHS], "<u2")
        file.seek(member.header_offset + _FIXED + int(lengths.sum()))
        shape, fortran, dtype = array_header(file)
        start = file.tell()
    order = "F" if fortran else "C"
    return np.memmap(path, dtype, "r", offset=start, shape=shape, order=order)


def array_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, whether the order is Fortran's, and dtype from where a ``.npy`` begins.

    Raises
    ------
    ValueError
        If none begins there.
    """
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    return read(file)
