"""Runs and the place of each volume in them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from rtdecode.types import Volume
from streaming.sources.image import Image, seconds_between

Kind = tuple[tuple[int, ...], tuple[float, ...], float | None]
Accept = Callable[[tuple[int, ...], NDArray[np.float64]], str | None]


@dataclass(frozen=True, slots=True)
class Moments:
    """When a file could be read in full, was seen, and was decoded; local clock, s."""

    readable_at: float
    arrived_at: float
    parsed_at: float


@dataclass(slots=True)
class Run:
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
    seen : set of int
        Indices of the volumes so far.
    """

    uid: str
    series: int
    label: str
    order: int
    kind: Kind
    seen: set[int] = field(default_factory=set)
    origin: datetime | None = None

    def missing(self) -> list[int]:
        """Indices below the highest seen of which there was no volume."""
        return sorted(set(range(max(self.seen, default=-1) + 1)) - self.seen)


class Runs:
    """Give every image its run and its index there.

    Parameters
    ----------
    bound : bool
        Follow one kind of series: the first that comes. A new identity of the same kind is the next
        run; others are refused. False takes every series as a run of its own.
    series : int or None
        Take only this SeriesNumber.
    accept : callable or None
        Maps (shape, affine) to the reason why a series is not wanted, or None.
    """

    def __init__(self, bound: bool = True, series: int | None = None, accept: Accept | None = None) -> None:
        self._bound, self._series, self._accept = bound, series, accept
        self._runs: dict[str, Run] = {}
        self.duplicate = 0
        self.out_of_order = 0

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs.values())

    def of(self, volume: Volume) -> Run:
        """Run of a volume that was placed here."""
        return self._runs[volume.uid]

    def place(self, image: Image, name: str, moments: Moments, first: int = 0) -> Volume | str:
        """Make a volume of an image, or say why it is none of a run that is followed.

        Parameters
        ----------
        image : Image
        name : str
            File name, for messages.
        moments : Moments
        first : int
            Number of the series' first volume; indices count from it.
        """
        run = self._run_of(image)
        if isinstance(run, str):
            return run
        index = _index(image, run, first)
        if index < 0:
            return f"number {image.number} lies before the first volume of its run"
        if index in run.seen:
            self.duplicate += 1
            return f"a second file for volume {index} of series {run.label}"
        self.out_of_order += bool(run.seen) and index < max(run.seen)
        run.seen.add(index)
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
        )

    def _run_of(self, image: Image) -> Run | str:
        if self._series is not None and image.series != self._series:
            return f"series {image.series}; series {self._series} was asked for"
        kind = _kind(image)
        run = self._runs.get(image.uid)
        newest = next(reversed(self._runs.values()), None)
        followed = run or (newest if self._bound else None)
        if followed is not None and not _alike(kind, followed.kind):
            followed_says = f"series {followed.label} is followed ({_say(followed.kind)})"
            return f"of another series ({_say(kind)}); {followed_says}"
        if run is not None:
            return run
        refused = self._accept(image.data.shape, image.affine) if self._accept else None
        return refused if refused is not None else self._begin(image, kind)

    def _begin(self, image: Image, kind: Kind) -> Run:
        before = sum(run.series == image.series for run in self._runs.values())
        label = f"{image.series}{_letters(before)}"
        run = Run(image.uid, image.series, label, len(self._runs), kind)
        self._runs[image.uid] = run
        return run


def _letters(count: int) -> str:
    """Nothing for the first run of a number, then b, c, ... z, aa, ab, ..."""
    if count == 0:
        return ""
    head, tail = divmod(count, 26)
    return ("" if head == 0 else chr(ord("a") + head - 1)) + chr(ord("a") + tail)


def _kind(image: Image) -> Kind:
    zooms = np.linalg.norm(image.affine[:3, :3], axis=0)
    return image.data.shape, tuple(float(z) for z in zooms), image.tr_s


def _alike(a: Kind, b: Kind) -> bool:
    same_tr = a[2] is None or b[2] is None or abs(a[2] - b[2]) < 0.01 * b[2]
    return a[0] == b[0] and np.allclose(a[1], b[1], atol=0.01) and same_tr


def _say(kind: Kind) -> str:
    shape, zooms, tr = kind
    size = " x ".join(str(n) for n in shape) + " voxels of " + " x ".join(f"{z:.3g}" for z in zooms) + " mm"
    return size if tr is None else f"{size}, TR {tr:g} s"


def _index(image: Image, run: Run, first: int) -> int:
    if image.number is not None:
        return image.number - first
    if image.acquired is not None and run.origin is not None and image.tr_s:
        return round(seconds_between(run.origin, image.acquired) / image.tr_s)
    return max(run.seen, default=-1) + 1


def _since_origin(image: Image, run: Run, index: int) -> float | None:
    """Header time after the run's first volume, s; a first that was lost is reckoned by the TR."""
    if image.acquired is None:
        return None
    if run.origin is None:
        run.origin = image.acquired - timedelta(seconds=index * (image.tr_s or 0.0))
    return round(seconds_between(run.origin, image.acquired), 6)
