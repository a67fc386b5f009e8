"""Read Philips PAR/REC, version 4: a text header (PAR) beside a file of slices (REC).

The header's table has a line for each slice; the lines of the magnitude images are sorted into volumes,
which are then read from the REC file one by one. Geometry is that of the header's general information, in
patient coordinates P, S, L turned about the axes AP, FH and RL. Values are those that the console displays
(pixel * slope + intercept).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streaming.sources.formats.image import NO_DAY, Image, IncompleteError, NotAVolumeError, compact
from streaming.sources.formats.nifti import split_number

_MARK = b"# === DATA DESCRIPTION FILE"
_VERSION = re.compile(r"image export tool\s+V(\d+)", re.IGNORECASE)
_END = "# === END OF DATA DESCRIPTION FILE"
# Columns of a slice's line.
_SLICE, _ECHO, _DYNAMIC, _PHASE, _TYPE, _SEQUENCE, _PLACE, _BITS = range(8)
_COLUMNS = 9
_ROWS = 10
_INTERCEPT = 11
_SLOPE = 12
_THICK = 22
_GAP = 23
_ORIENTATION = 25
_SPACING = 28
_ECHO_TIME = 30
_BEGAN = 31
_B_VALUE = 33
_LABEL = 48
# A line without all columns up to the b-value is cut.
_NEEDED = _B_VALUE + 1
# Image types that are not magnitudes: real, imaginary, phase.
_PARTS = (1, 2, 3)
_MAGNITUDE = 0
# Columns (x along a row, y down, slice) in P, S, L for transverse, sagittal and coronal slices.
_AXES = {
    1: [[0, 1, 0], [0, 0, 1], [1, 0, 0]],
    2: [[1, 0, 0], [0, -1, 0], [0, 0, -1]],
    3: [[0, 0, 1], [0, -1, 0], [1, 0, 0]],
}
_RAS = np.array([[0.0, 0, -1], [-1, 0, 0], [0, 1, 0]])
# Every volume takes longer than this, s: a shorter repetition time is that of one shot.
_SHORTEST_TR = 0.1


@dataclass(frozen=True, slots=True)
class Par:
    """What a PAR file says of the magnitude volumes in its REC file.

    Attributes
    ----------
    lines : float64, (volume, slice, column)
        The lines of the table.
    affine : float64, (4, 4)
        Voxel indices to RAS+ mm.
    series : int
        Acquisition number.
    tr_s : float or None
        Time from volume to volume, s.
    """

    lines: NDArray[np.float64]
    affine: NDArray[np.float64]
    series: int
    tr_s: float | None

    @property
    def slice_bytes(self) -> int:
        """Size of one slice in the REC file, bytes."""
        first = self.lines[0, 0]
        return int(first[_COLUMNS] * first[_ROWS] * first[_BITS]) // 8

    def span(self, index: int) -> tuple[int, int]:
        """Return the offset and length of a volume in the REC file; of its last slice if they are apart."""
        places = self.lines[index, :, _PLACE].astype(int)
        size = self.slice_bytes
        if (np.diff(places) == 1).all():
            return int(places[0]) * size, len(places) * size
        return int(places[-1]) * size, size

    def complete_volumes(self, size: int) -> int:
        """Return how many volumes, from the first, are wholly within a REC file of `size` bytes."""
        ends = (self.lines[..., _PLACE].max(axis=1) + 1) * self.slice_bytes
        short = np.flatnonzero(ends > size)
        return int(short[0]) if len(short) else len(ends)


def is_par(head: bytes) -> bool:
    """Return whether a file that begins with `head` is a PAR header."""
    return head.startswith(_MARK)


def read_par(data: bytes) -> Par:
    """Read a PAR file.

    Raises
    ------
    IncompleteError
        If its table is cut short.
    NotAVolumeError
        If it is of another version, or does not describe magnitude volumes of one kind.
    """
    text = data.decode("latin-1")
    version = _VERSION.search(text)
    if version is None and _END not in text:
        raise IncompleteError(
            "par-truncated",
            "the PAR file is cut short",
        )
    if version is None or version[1] != "4":
        raise NotAVolumeError(
            "par-version-unsupported",
            "PAR/REC of a version other than 4",
        )
    try:
        general = _general(text)
        table = _table(text)
        if _END not in text or len(table) == 0 or not np.isfinite(table[:, :_NEEDED]).all():
            raise IncompleteError(
                "par-table-truncated",
                "the PAR file's table is cut short",
            )
        lines = _volumes(table, int(general["Max. number of slices/locations"][0]))
        return Par(
            lines, _affine(general, lines[0]), int(general["Acquisition nr"][0]), _repetition(general, lines)
        )
    except (ValueError, KeyError, IndexError, OverflowError) as error:
        # The error's own words would quote the header, which names the participant.
        raise IncompleteError(
            "par-unreadable", "not readable as PAR ({error_type})", error_type=type(error).__name__
        ) from error


def read_volume(par: Par, name: str, index: int, read_at: Callable[[int, int], bytes | memoryview]) -> Image:
    """Decode one volume.

    Parameters
    ----------
    par : Par
        What the header says of the volumes.
    name : str
        File name of the header, which names the run and numbers a single volume.
    index : int
        Index of the volume in the file.
    read_at : callable
        Reads bytes of the REC file by offset and length.
    """
    lines = par.lines[index]
    size = par.slice_bytes
    columns = int(lines[0, _COLUMNS])
    rows = int(lines[0, _ROWS])
    places = lines[:, _PLACE].astype(int)
    if (np.diff(places) == 1).all():
        raw = read_at(*par.span(index))
    else:
        raw = b"".join(read_at(int(place) * size, size) for place in places)
    if len(raw) < len(places) * size:
        raise IncompleteError(
            "rec-volume-truncated",
            "{available_bytes} of {expected_bytes} bytes of volume {volume_index} in the REC file",
            available_bytes=len(raw),
            expected_bytes=len(places) * size,
            volume_index=index,
        )
    stored = np.frombuffer(raw, "<u2" if lines[0, _BITS] == 16 else np.uint8)
    stored = stored.reshape(len(places), rows, columns).transpose(2, 1, 0)
    scale = lines[:, _SLOPE]
    shift = lines[:, _INTERCEPT]
    plain = (scale == 1).all() and (shift == 0).all()
    with np.errstate(all="ignore"):
        data = compact(stored) if plain else (stored * scale + shift).astype(np.float32)
    if not np.isfinite(data).all():
        raise NotAVolumeError(
            "par-scale-overflow",
            "a scale that makes infinite values: a damaged header",
        )
    # Begin times that are all the same say nothing.
    acquired = None
    if np.ptp(par.lines[:, 0, _BEGAN]) > 0:
        acquired = datetime.combine(NO_DAY, time()) + timedelta(seconds=float(lines[0, _BEGAN]))
    stem, number = split_number(name)
    uid, number = (f"par:{stem}", number) if len(par.lines) == 1 else (f"par:{name}", index)
    return Image(data, par.affine, number, par.series, uid, par.tr_s, acquired)


def _general(text: str) -> dict[str, list[float]]:
    """Return the numeric entries of the general information by their words, without the unit."""
    entries = {}
    for line in re.findall(r"^\.(.*)$", text, re.MULTILINE):
        words, _, value = line.partition(":")
        numbers = re.fullmatch(r"\s*([-+.\deE]+(?:\s+[-+.\deE]+)*)\s*", value)
        if numbers:
            entries[re.sub(r"\s*[(<\[].*", "", words).strip()] = _numbers(numbers[1])
    return entries


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split()]
    except ValueError:
        return []


def _table(text: str) -> NDArray[np.float64]:
    rows = [line.split() for line in text.splitlines() if line[:1] not in ("#", ".", "") and line.strip()]
    width = min((len(row) for row in rows), default=0)
    if width < _NEEDED:
        return np.empty((0, 0))
    return np.array([[float(word) if word != "-" else np.nan for word in row[: _LABEL + 1]] for row in rows])


def _volumes(table: NDArray[np.float64], slices: int) -> NDArray[np.float64]:
    """Return the lines of the magnitude images, (volume, slice, column)."""
    # A magnitude is never negative, so neither is its intercept.
    types = set(table[:, _TYPE])
    kinds = sorted(
        t for t in types if t not in _PARTS and (table[table[:, _TYPE] == t, _INTERCEPT] >= 0).all()
    )
    if not kinds:
        raise NotAVolumeError(
            "par-magnitude-missing",
            "PAR/REC without magnitude images",
        )
    table = table[table[:, _TYPE] == (_MAGNITUDE if _MAGNITUDE in kinds else kinds[0])]
    table = table[table[:, _ECHO] == table[:, _ECHO].min()]
    if len(set(table[:, _B_VALUE])) > 1:
        raise NotAVolumeError(
            "par-diffusion-series",
            "PAR/REC of a diffusion series",
        )
    same = table[:, [_COLUMNS, _ROWS, _BITS, _ORIENTATION]]
    if (same != same[0]).any() or same[0, 2] not in (8, 16) or not 0 < same[0, 0] * same[0, 1] < 1 << 24:
        raise NotAVolumeError(
            "par-slices-mixed",
            "PAR/REC with slices of several kinds, or of an unknown size",
        )
    # In arterial spin labelling, label and control images of one dynamic are different volumes.
    label = table[:, _LABEL] if table.shape[1] > _LABEL else np.zeros(len(table))
    order = np.lexsort((table[:, _SLICE], np.nan_to_num(label), table[:, _PHASE], table[:, _DYNAMIC]))
    table = table[order]
    # Lines of a volume that is not complete are left out at the end.
    count = len(table) // slices if slices > 0 else 0
    lines = table[: count * slices].reshape(count, slices, -1)
    if count == 0 or (lines[..., _SLICE] != np.arange(1, slices + 1)).any() or (lines[..., _PLACE] < 0).any():
        raise IncompleteError(
            "par-slices-incomplete",
            "{table_lines} lines of {slices} slices per volume in the PAR file",
            table_lines=len(table),
            slices=slices,
        )
    return lines


def _affine(general: dict[str, list[float]], lines: NDArray[np.float64]) -> NDArray[np.float64]:
    ap, fh, rl = np.deg2rad(general["Angulation midslice"])
    centre = np.array(general["Off Centre midslice"])
    first = lines[0]
    steps = np.array([first[_SPACING], first[_SPACING + 1], first[_THICK] + first[_GAP]])
    shape = np.array([first[_COLUMNS], first[_ROWS], len(lines)])
    axes = _AXES.get(int(first[_ORIENTATION]))
    if axes is None or not (steps > 0).all():
        raise NotAVolumeError(
            "par-geometry-unknown",
            "PAR/REC whose slices have no known orientation or spacing",
        )
    matrix = _turn(2, rl) @ _turn(0, ap) @ _turn(1, fh) @ np.array(axes) * steps
    affine = np.eye(4)
    affine[:3, :3] = _RAS @ matrix
    affine[:3, 3] = _RAS @ (centre - matrix @ ((shape - 1) / 2))
    return affine


def _turn(axis: int, angle: float) -> NDArray[np.float64]:
    matrix = np.eye(3)
    a = (axis + 1) % 3
    b = (axis + 2) % 3
    matrix[[a, b], [a, b]] = np.cos(angle)
    matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
    return matrix


def _repetition(general: dict[str, list[float]], lines: NDArray[Any]) -> float | None:
    """Return the time between volumes by their begin times, else by the repetition time, s.

    Real-time dumps give times in seconds. They are recognised by an echo time below 1, as none is below
    1 ms.
    """
    began = lines[:, 0, _BEGAN]
    if len(began) > 1 and (np.diff(began) > 0).all():
        return round(float(np.median(np.diff(began))), 4)
    value = general.get("Repetition time", [0.0])[0]
    seconds = value if 0 < lines[0, 0, _ECHO_TIME] < 1 else value / 1000
    return seconds if seconds >= _SHORTEST_TR else None
