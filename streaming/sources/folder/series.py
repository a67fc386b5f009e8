"""Give each image its run and its index there, and keep account of the holes between.

An image comes in with its header's identity, counter and time; out comes a `Volume`, or the reason why it
belongs to no run that is followed. A volume that was passed over is a hole until it comes.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from rtdecode.types import Volume
from streaming.sources.formats.image import Image, Moments, patience_s, seconds_between, whole_days

Kind = tuple[tuple[int, ...], tuple[float, ...], float | None]
Accept = Callable[[tuple[int, ...], NDArray[np.float64], float | None], str | None]

# No run has this many volumes: a greater number comes from a damaged header.
_MAX_NUMBER = 100_000
# A number that skips more than `_LEAP` volumes may be damage too. It is believed once another one
# within `_NEAR` of it has come.
_LEAP = 2000
_NEAR = 50


@dataclass(slots=True)
class Hole:
    """A missing volume: since when (local clock, s), how many slices, and whether it was reported."""

    since: float
    missing_slices: int
    is_reported: bool = False


@dataclass(slots=True)
class SeriesRun:
    """What is known of one run.

    Attributes
    ----------
    uid, series : str, int
        Identity, and SeriesNumber of the first volume.
    label : str
        The series number; a second run of the same number has a ``b`` behind it, a third a ``c``.
    order : int
        Place among the runs.
    kind : tuple
        Shape, voxel size (mm) and TR (s).
    delivered : set of int
        Indices of the volumes so far.
    holes : dict of int to Hole
        Indices below the highest so far for which no whole volume has come.
    origin : datetime or None
        Header time of index 0.
    stop : int
        One beyond the highest index so far.
    leapt : int or None
        The last index that lay too far ahead to be believed alone.
    """

    uid: str
    series: int
    label: str
    order: int
    kind: Kind
    delivered: set[int] = field(default_factory=set)
    holes: dict[int, Hole] = field(default_factory=dict)
    origin: datetime | None = None
    stop: int = 0
    leapt: int | None = None

    @property
    def patience_s(self) -> float:
        """Time after which a volume that has not come is lost, s."""
        return patience_s(self.kind[2])

    def lost(self, now_at: float) -> list[tuple[int, int]]:
        """Return the holes that no volume filled in time, each once: index and missing slices."""
        if not self.holes:
            return []
        due = [
            (index, hole)
            for index, hole in sorted(self.holes.items())
            if not hole.is_reported and now_at - hole.since >= self.patience_s
        ]
        for _, hole in due:
            hole.is_reported = True
        return [(index, hole.missing_slices) for index, hole in due]

    def leaps(self, index: int) -> bool:
        """Return whether an index lies so far ahead, with no other near it yet, that it may be damage."""
        if index - self.stop <= _LEAP or (self.leapt is not None and 0 < abs(index - self.leapt) <= _NEAR):
            return False
        self.leapt = index
        return True

    def reach(self, index: int, now_at: float) -> None:
        """Open a hole for every index that was passed over on the way to `index`."""
        for passed in range(self.stop, index):
            self.holes[passed] = Hole(now_at, self.kind[0][2])
        self.stop = max(self.stop, index + 1)


class Runs:
    """Place images in runs.

    Parameters
    ----------
    bound : bool
        Follow the first kind of series that comes. A new identity of the same kind is the next run;
        other kinds are refused. If False, every series is a run of its own.
    series : int or None
        Take only runs that begin with this SeriesNumber.
    accept : callable or None
        Maps (shape, affine, TR) to the reason why a series is not wanted, or None.

    Attributes
    ----------
    duplicate, out_of_order, late : int
        Second files for a volume; volumes that came after a later one; volumes that came after they
        had been counted as lost.
    """

    def __init__(self, bound: bool = True, series: int | None = None, accept: Accept | None = None) -> None:
        self._bound = bound
        self._series = series
        self._accept = accept
        self._runs: dict[str, SeriesRun] = {}
        self.duplicate = 0
        self.out_of_order = 0
        self.late = 0

    def __iter__(self) -> Iterator[SeriesRun]:
        # A copy: the counters are read in another thread than the one that begins runs.
        return iter(list(self._runs.values()))

    @property
    def voxels(self) -> int | None:
        """Number of voxels in the volumes of the series that is followed; None while none is."""
        newest = next(reversed(self._runs.values()), None) if self._bound else None
        return None if newest is None else math.prod(newest.kind[0])

    def of(self, volume: Volume) -> SeriesRun:
        """Return the run of a volume that was placed here."""
        return self._runs[volume.uid]

    def place(
        self, image: Image, name: str, moments: Moments, first: int = 0, since: float | None = None
    ) -> Volume | str:
        """Make a volume of an image, or say why it belongs to no run that is followed.

        Parameters
        ----------
        image : Image
            The volume, as its file describes it.
        name : str
            File name, for messages.
        moments : Moments
            When its file was readable, seen and decoded.
        first : int
            Number of the series' first volume; indices count from it.
        since : float or None
            When the file was first seen, if it was not whole then; local clock, s.
        """
        placement = self._find(image, first)
        if isinstance(placement, str):
            return placement
        run, index = placement
        if index in run.delivered:
            self.duplicate += 1
            return f"a second file for volume {index} of series {run.label}"
        if self._leaps(run, index):
            return _leap(run, index)
        self.out_of_order += index < run.stop - 1 and bool(run.delivered)
        # Late by either account: its file took too long to become whole, or its place stayed empty.
        hole = run.holes.pop(index, None)
        opened = [opened_at for opened_at in (since, hole.since if hole else None) if opened_at is not None]
        self.late += bool(opened) and moments.parsed_at - min(opened) >= run.patience_s
        run.reach(index, moments.parsed_at)
        run.delivered.add(index)
        return Volume(
            data=image.data,
            affine=image.affine,
            index=index,
            series=run.series,
            tr_s=image.tr_s,
            acquired_s=_since_origin(image, run, index),
            recon_s=image.recon_s,
            readable_at=moments.readable_at,
            arrived_at=moments.arrived_at,
            parsed_at=moments.parsed_at,
            name=name,
            uid=run.uid,
            simulated=image.simulated,
        )

    def give_up(self, image: Image, missing_slices: int, now_at: float) -> str:
        """Keep the place of a volume that lacks slices as a hole; return what its files are listed as.

        Parameters
        ----------
        image : Image
            The slices that came.
        missing_slices : int
            How many slices did not come.
        now_at : float
            Local clock, s.
        """
        placement = self._find(image, 0)
        if isinstance(placement, str):
            return placement
        run, index = placement
        if self._leaps(run, index):
            return _leap(run, index)
        slices = run.kind[0][2]
        words = f"a slice of volume {index} of series {run.label}, which lacks {missing_slices} of {slices}"
        if index not in run.delivered:
            run.reach(index, now_at)
            # Its slices have been waited for already, so the hole is due at once.
            run.holes[index] = Hole(now_at - run.patience_s, missing_slices)
        return words

    def _leaps(self, run: SeriesRun, index: int) -> bool:
        """Return whether a number may be damage; where no series is followed, a run may begin with any."""
        return (self._bound or bool(run.delivered)) and run.leaps(index)

    def _find(self, image: Image, first: int) -> tuple[SeriesRun, int] | str:
        number = 0 if image.number is None else image.number - first
        if number < 0:
            return f"number {image.number} lies before the first volume of its run"
        if number >= _MAX_NUMBER:
            return f"number {image.number} is too large for any run: a damaged header"
        run = self._run_of(image)
        return run if isinstance(run, str) else (run, _index(image, run, first))

    def _run_of(self, image: Image) -> SeriesRun | str:
        kind = _kind(image)
        # Only the first image of a run must bear the SeriesNumber that was asked for.
        run = self._runs.get(image.uid)
        if run is None and self._series is not None and image.series != self._series:
            return f"series {image.series}; series {self._series} was asked for"
        # Compare with the image's own run, else with the newest: a session follows one kind of series.
        newest = next(reversed(self._runs.values()), None)
        followed = run or (newest if self._bound else None)
        if followed is not None and not _alike(kind, followed.kind):
            followed_says = f"series {followed.label} is followed ({_say(followed.kind)})"
            return f"of another series ({_say(kind)}); {followed_says}"
        if run is not None:
            return run
        refused = self._accept(image.data.shape, image.affine, image.tr_s) if self._accept else None
        return refused if refused is not None else self._begin(image, kind)

    def _begin(self, image: Image, kind: Kind) -> SeriesRun:
        before = sum(run.series == image.series for run in self._runs.values())
        label = f"{image.series}{_letters(before)}"
        run = SeriesRun(image.uid, image.series, label, len(self._runs), kind)
        self._runs[image.uid] = run
        return run


def _leap(run: SeriesRun, index: int) -> str:
    return f"volume {index} of series {run.label} is far beyond {run.stop - 1}, the newest: a damaged header?"


def _letters(count: int) -> str:
    """Return nothing for the first run of a number, then b, c, ... z, aa, ab, ..."""
    if count == 0:
        return ""
    head, tail = divmod(count, 26)
    return ("" if head == 0 else chr(ord("a") + head - 1)) + chr(ord("a") + tail)


def _kind(image: Image) -> Kind:
    zooms = np.linalg.norm(image.affine[:3, :3], axis=0)
    return image.data.shape, tuple(float(z) for z in zooms), image.tr_s


def _alike(a: Kind, b: Kind) -> bool:
    same_tr = a[2] is None or b[2] is None or abs(a[2] - b[2]) < 0.01 * b[2]
    return a[0] == b[0] and same_tr and all(abs(x - y) < 0.01 for x, y in zip(a[1], b[1], strict=True))


def _say(kind: Kind) -> str:
    shape, zooms, tr = kind
    size = " x ".join(str(n) for n in shape) + " voxels of " + " x ".join(f"{z:.3g}" for z in zooms) + " mm"
    return size if tr is None else f"{size}, TR {tr:g} s"


def _index(image: Image, run: SeriesRun, first: int) -> int:
    # Without a counter the header time places a volume; without that, the order of arrival does.
    if image.number is not None:
        return image.number - first
    if image.acquired is not None and run.origin is not None and image.tr_s:
        index = round(seconds_between(run.origin, image.acquired) / image.tr_s)
        return min(max(index, 0), _MAX_NUMBER)
    return run.stop


def _since_origin(image: Image, run: SeriesRun, index: int) -> float | None:
    """Return the header time since index 0, s; if that volume was lost, its time follows from the TR."""
    if image.acquired is None:
        return None
    if run.origin is None:
        run.origin = image.acquired - timedelta(seconds=index * (image.tr_s or 0.0))
    lapse_s = seconds_between(run.origin, image.acquired)
    # Dates may change before or after midnight, or not at all.
    return round(whole_days(lapse_s, index * image.tr_s) if image.tr_s else lapse_s, 6)
