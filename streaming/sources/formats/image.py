"""One decoded volume before it has a place in a run, and the two ways a file can fail to be one."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.types import Array

_DAY = 86400.0
# What has not come by then is given up: so many TRs, or s without a TR.
_PATIENCE_TR = 1.5
_PATIENCE_S = 3.0
# What the simulated scanner's files say of themselves, in ImageComments or the description.
SIMULATED = "simulated by rtdecode"
# Stands for the day where a header gives the time alone; room below it for what came before.
NO_DAY = date(1, 2, 1)


class IncompleteError(Exception):
    """The bytes do not decode to a whole image: they may still be arriving."""


class NotAVolumeError(Exception):
    """The bytes are whole, but nothing that a run is made of."""


@dataclass(frozen=True, slots=True)
class Image:
    """One volume as its file describes it.

    Attributes
    ----------
    data : int16 or float32, (i, j, k)
        Rescaled values.
    affine : float64, (4, 4)
        Voxel indices to scanner RAS+ coordinates, mm.
    number : int or None
        Place in the series by the file's own counter, from 0; None where it has none.
    series : int
        SeriesNumber; 0 where there is none.
    uid : str
        Identity of the series.
    tr_s : float or None
        Repetition time, s.
    acquired : datetime or None
        Start of the acquisition by the header; in the year 1 where only the time of day is known (`NO_DAY`).
    recon_s : float or None
        From there to the finished image, s.
    simulated : bool
        Whether the file says that its participant is simulated.
    """

    data: Array
    affine: NDArray[np.float64]
    number: int | None
    series: int
    uid: str
    tr_s: float | None
    acquired: datetime | None = None
    recon_s: float | None = None
    simulated: bool = False


@dataclass(frozen=True, slots=True)
class Plane:
    """One slice of a volume, alone in its file.

    Attributes
    ----------
    data : int16 or float32, (i, j)
        Rescaled values.
    affine : float64, (4, 4)
        Voxel indices of this slice, as a volume of one, to scanner RAS+ coordinates, mm.
    normal_mm : float
        Position along the slice normal, mm.
    uid : str
        Identity of the run, the same for all its volumes.
    series : int
        SeriesNumber; 0 where there is none.
    number : int or None
        Place of the volume in the run where a header says it, from 0.
    instance : int or None
        InstanceNumber, from 0.
    slices : int or None
        Slices of a volume where a header says it.
    tr_s, acquired, recon_s, simulated
        As in `Image`; `acquired` is this slice's.
    """

    data: Array
    affine: NDArray[np.float64]
    normal_mm: float
    uid: str
    series: int
    number: int | None = None
    instance: int | None = None
    slices: int | None = None
    tr_s: float | None = None
    acquired: datetime | None = None
    recon_s: float | None = None
    simulated: bool = False


@dataclass(frozen=True, slots=True)
class Moments:
    """When a file could be read in full, was seen, and was decoded; local clock, s."""

    readable_at: float
    arrived_at: float
    parsed_at: float


def seconds_between(earlier: datetime, later: datetime) -> float:
    """Seconds from one header time to another; over midnight where neither has a day."""
    seconds = (later - earlier).total_seconds()
    return seconds + _DAY if later.year == NO_DAY.year and seconds < -_DAY / 2 else seconds


def patience_s(tr_s: float | None) -> float:
    """Time after which a volume or a slice that has not come is given up, s."""
    return _PATIENCE_TR * tr_s if tr_s else _PATIENCE_S


def compact(data: NDArray[Any], slope: float = 1.0, intercept: float = 0.0) -> Array:
    """Rescale stored values: int16 where that is exact without scaling, float32 otherwise."""
    if (slope, intercept) != (1.0, 0.0):
        return (data * np.float64(slope) + np.float64(intercept)).astype(np.float32)
    kind = data.dtype
    if kind.kind not in "iu":
        return data.astype(np.float32, copy=False)
    fits = np.can_cast(kind, np.int16)
    if not fits:
        span = np.iinfo(np.int16)
        fits = bool(data.size) and int(data.max()) <= span.max and int(data.min()) >= span.min
    return data.astype(np.int16 if fits else np.float32, copy=False)
