"""A series that a scanner began anew under the same identity: its second run is told from second files."""

import zlib
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from rtdecode.types import Array
from streaming.sources.formats.image import Image, Plane, seconds_between

Key = tuple[int | None, ...]

# The counters at the start of a run by which its beginning is known again.
_KEPT = 512
# Header times this far apart are of two acquisitions, s; without them, files after such a pause may be.
_LATER_S = 5.0
_PAUSE_S = 10.0


@dataclass(slots=True)
class _Begun:
    """What is known of one run of an identity.

    `firsts` are header times by counter, `pixels` the first image's checksum, `at` the newest arrival
    on the local clock, s.
    """

    name: str
    start: datetime | None
    first: Key
    pixels: int
    at: float
    firsts: dict[Key, datetime | None] = field(default_factory=dict)


class SeriesRestarts:
    """Give the runs of one identity names of their own.

    A run has begun again when a counter of its beginning comes once more with a header time that is
    more than 5 s later. Without header times the first image must come once more with other pixels,
    after a pause of 10 s. Whatever is older than the newest run belongs to an earlier one.
    """

    def __init__(self) -> None:
        self._runs: dict[str, list[_Begun]] = {}

    def name(self, image: Image | Plane, at: float) -> str:
        """Identity of an image's run: its own, or with the run's number behind it from the second on.

        Parameters
        ----------
        image : Image or Plane
        at : float
            When its file came; local clock, s.
        """
        key = _key(image)
        if key is None:
            return image.uid
        runs = self._runs.setdefault(image.uid, [])
        run = _owner(runs, image.acquired)
        if run is None or (run is runs[-1] and _again(run, key, image, at)):
            name = image.uid if not runs else f"{image.uid} ({len(runs) + 1})"
            run = _Begun(name, image.acquired, key, _checksum(image.data), at)
            runs.append(run)
        if len(run.firsts) < _KEPT:
            run.firsts.setdefault(key, image.acquired)
        run.at = max(run.at, at)
        return run.name


def _owner(runs: list[_Begun], acquired: datetime | None) -> _Begun | None:
    """The newest run that had begun by a header time; without one, the newest."""
    if acquired is not None:
        for run in reversed(runs[1:]):
            if run.start is None or seconds_between(run.start, acquired) > -_LATER_S:
                return run
        return runs[0] if runs else None
    return runs[-1] if runs else None


def _again(run: _Begun, key: Key, image: Image | Plane, at: float) -> bool:
    if key not in run.firsts:
        return False
    before = run.firsts[key]
    if before is not None and image.acquired is not None:
        return seconds_between(before, image.acquired) > _LATER_S
    untimed = before is None and image.acquired is None
    return untimed and key == run.first and at - run.at > _PAUSE_S and _checksum(image.data) != run.pixels


def _key(image: Image | Plane) -> Key | None:
    """Counters of an image, and the place of a slice; None where it has none."""
    if isinstance(image, Image):
        return None if image.number is None else (image.number,)
    if image.instance is None:
        return None
    return image.number, image.instance, round(100 * image.normal_mm)


def _checksum(data: Array) -> int:
    return zlib.crc32(np.ascontiguousarray(data).tobytes())
