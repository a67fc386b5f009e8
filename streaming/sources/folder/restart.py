"""Tell a series that the scanner began again under the same identity from files that came twice."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from streaming.sources.formats.image import (
    Counters,
    Image,
    Plane,
    pixel_checksum,
    seconds_between,
    whole_days,
)

Key = tuple[int | None, ...]

# Number of counters kept from the start of a run, by which its beginning is recognised.
_MAX_COUNTERS = 512
# Header times further apart than `_LATER_S` belong to two acquisitions; without header times, files
# that come after a pause of `_PAUSE_S` may too; both in s.
_LATER_S = 5.0
_PAUSE_S = 10.0
# An image that follows the newest one of its run within so many TRs continues it, whatever its counter says.
_NEXT_TR = 2.5


class _Acquired(NamedTuple):
    """When an image was acquired by its header, and its counters."""

    acquired: datetime
    counters: Counters


@dataclass(slots=True)
class _Begun:
    """What is known of one run of an identity.

    `firsts` are the header times of its first images by counter, `pixels` is a checksum of the very
    first one, `newest` is the image of the latest header time (without its pixels), and `at` is when its
    newest file came (local clock, s).
    """

    name: str
    start: datetime | None
    first: Key
    pixels: int
    newest_at: float
    newest: _Acquired | None = None
    firsts: dict[Key, datetime | None] = field(default_factory=dict)


class SeriesRestarts:
    """Give each run of one identity a name of its own.

    A series has begun again when a counter from its beginning comes once more with a header time more
    than 5 s later, unless that time, or another counter with it, continues the run: then the counter
    stands still, and says nothing. Without header times, its first image must come once more with other
    pixels, after a pause of 10 s. An image older than the newest run belongs to an earlier one.
    """

    def __init__(self) -> None:
        self._runs: dict[str, list[_Begun]] = {}

    def name(self, image: Image | Plane, arrived_at: float) -> str:
        """Return the identity of an image's run: its own and, from the second run on, the run's number.

        Parameters
        ----------
        image : Image or Plane
            The newest image or slice of a run.
        arrived_at : float
            When its file came; local clock, s.
        """
        key = _key(image)
        if key is None:
            return image.uid
        runs = self._runs.setdefault(image.uid, [])
        run = _owner(runs, image.acquired)
        if run is None or (run is runs[-1] and _again(run, key, image, arrived_at)):
            name = image.uid if not runs else f"{image.uid} ({len(runs) + 1})"
            run = _Begun(name, image.acquired, key, pixel_checksum(image.data), arrived_at)
            runs.append(run)
        if len(run.firsts) < _MAX_COUNTERS:
            run.firsts.setdefault(key, image.acquired)
        run.newest_at = max(run.newest_at, arrived_at)
        if image.acquired is not None and image.counters is not None:
            newest = run.newest
            if newest is None or seconds_between(newest.acquired, image.acquired) >= 0:
                run.newest = _Acquired(image.acquired, image.counters)
        return run.name


def _owner(runs: list[_Begun], acquired: datetime | None) -> _Begun | None:
    """Return the newest run that had begun by a header time; without a time, the newest run."""
    if acquired is not None:
        for run in reversed(runs[1:]):
            if run.start is None or seconds_between(run.start, acquired) > -_LATER_S:
                return run
        return runs[0] if runs else None
    return runs[-1] if runs else None


def _again(run: _Begun, key: Key, image: Image | Plane, arrived_at: float) -> bool:
    # A series that is copied into the folder twice repeats its header times, or else its pixels.
    if key not in run.firsts:
        return False
    before = run.firsts[key]
    if before is not None and image.acquired is not None:
        return seconds_between(before, image.acquired) > _LATER_S and not _continues(run, image)
    untimed = before is None and image.acquired is None
    return (
        untimed
        and key == run.first
        and arrived_at - run.newest_at > _PAUSE_S
        and pixel_checksum(image.data) != run.pixels
    )


def _continues(run: _Begun, image: Image | Plane) -> bool:
    """Return whether an image follows the newest of a run by its time, or by its time and a counter."""
    if run.newest is None or image.acquired is None or image.counters is None or not image.tr_s:
        return False
    lapse_s = whole_days(seconds_between(run.newest.acquired, image.acquired), 0.0)
    turns = lapse_s / image.tr_s
    if turns <= _NEXT_TR:
        return True
    before, now = run.newest.counters, image.counters
    pairs = [(before.acquisition, now.acquisition), (before.temporal, now.temporal)]
    if isinstance(image, Image):
        pairs.append((before.instance, now.instance))
    return any(
        earlier is not None and later is not None and 0 < later - earlier == round(turns)
        for earlier, later in pairs
    )


def _key(image: Image | Plane) -> Key | None:
    """Return the counters of an image, with the position of a slice; None if it has none."""
    if isinstance(image, Image):
        return None if image.number is None else (image.number,)
    if image.instance is None:
        return None
    return image.number, image.instance, round(100 * image.normal_mm)
