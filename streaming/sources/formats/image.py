"""Define what a decoder returns, a volume or a slice, and the two errors of a file that is neither."""

import zlib
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import CodedError
from rtdecode.types import Array

_DAY = 86400.0
# What has not come after this many TRs is given up; after this many seconds if the TR is unknown.
_PATIENCE_TR = 1.5
_PATIENCE_S = 3.0
# How the simulated scanner marks its files, in ImageComments (DICOM) or the description (NIfTI).
SIMULATED = "simulated by rtdecode"
# Stands for the day where a header gives only a time. Not the first day there is, so that a time before
# it can still be written.
NO_DAY = date(1, 2, 1)


class IncompleteError(CodedError):
    """The bytes do not decode to a whole image: they may still be arriving."""


class NotAVolumeError(CodedError):
    """The bytes are whole, but they are not a volume or slice of a run."""


@dataclass(frozen=True, slots=True)
class Counters:
    """The numbers by which a header may count images, as it writes them; None where it has none.

    Attributes
    ----------
    instance, acquisition : int or None
        InstanceNumber and AcquisitionNumber.
    temporal : int or None
        TemporalPositionIdentifier, or TemporalPositionIndex of an Enhanced MR file.
    """

    instance: int | None = None
    acquisition: int | None = None
    temporal: int | None = None

    @property
    def slice_instance(self) -> int | None:
        """InstanceNumber less 1; None if there is none, or one below 0, which counts nothing."""
        return None if self.instance is None or self.instance < 0 else self.instance - 1


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
        Place in the series by the file's own counter, from 0; None if it has none.
    series : int
        SeriesNumber; 0 if there is none.
    uid : str
        Identity of the series.
    tr_s : float or None
        Repetition time, s.
    acquired : datetime or None
        Start of the acquisition by the header; on `NO_DAY` if only the time of day is known.
    recon_s : float or None
        Time from there to the finished image, s.
    simulated : bool
        Whether the file says that its participant is simulated.
    value_bytes : int
        Size of one stored value in a DICOM file, bytes.
    counters : Counters or None
        The header's counters; None for formats that have none.
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
    value_bytes: int = 2
    counters: Counters | None = None


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
        SeriesNumber; 0 if there is none.
    number : int or None
        Place of the volume in the run, from 0, if the header states it.
    instance : int or None
        InstanceNumber less 1: counted from 0, or from -1 where the header counts from 0.
    slices : int or None
        Slices of a volume, if the header states it.
    tr_s, acquired, recon_s, simulated, value_bytes, counters
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
    value_bytes: int = 2
    counters: Counters | None = None


@dataclass(frozen=True, slots=True)
class Moments:
    """When a file could be read in full, was seen, and was decoded; local clock, s."""

    readable_at: float
    arrived_at: float
    parsed_at: float


def seconds_between(earlier: datetime, later: datetime) -> float:
    """Return the seconds from one header time to another, which may pass midnight.

    Times without a day do so, and times whose date stands still there.
    """
    seconds = (later - earlier).total_seconds()
    return seconds + _DAY if -_DAY < seconds < -_DAY / 2 else seconds


def whole_days(seconds: float, expected_s: float) -> float:
    """Return a lapse of header times with the whole days that put it nearest to what is expected, s."""
    return seconds + _DAY * round((expected_s - seconds) / _DAY)


def patience_s(tr_s: float | None) -> float:
    """Return the time after which a volume or slice that has not come is given up, s."""
    return _PATIENCE_TR * tr_s if tr_s else _PATIENCE_S


def compact(data: NDArray[Any], slope: float = 1.0, intercept: float = 0.0) -> Array:
    """Rescale stored values, to int16 if they fit without scaling, otherwise to float32."""
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


def pixel_checksum(data: Array) -> int:
    """Return a checksum of an image's pixels, by which two files with the same image are known."""
    return zlib.crc32(np.ascontiguousarray(data).tobytes())
