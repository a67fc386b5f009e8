"""Collect the slices of one volume, and join them into an array with its affine."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtdecode.types import Array
from streaming.sources.formats.image import Counters, Moments, Plane, pixel_checksum, seconds_between
from streaming.sources.formats.unpacked import MAX_BYTES

# Slices of one volume may lie this far off an even spacing, in steps of it.
_UNEVEN = 0.1
# An even grid on which fewer than one place in this many is filled is not believed.
_SPARSE = 4


class Identity(NamedTuple):
    """What tells a slice from another one at its position: the header's statements, and the pixels."""

    counters: Counters
    instance: int | None
    acquired: datetime | None
    checksum: int


class Slot(NamedTuple):
    """One slice with the name and the moments of its file."""

    plane: Plane
    name: str
    moments: Moments

    @property
    def key(self) -> float:
        """Position along the normal, mm, rounded to hundredths: the same in every volume of a run."""
        return round(self.plane.normal_mm, 2)

    @property
    def identity(self) -> Identity:
        """The slice's identity; its checksum is computed at each call."""
        plane = self.plane
        return Identity(
            plane.counters or Counters(), plane.instance, plane.acquired, pixel_checksum(plane.data)
        )


class Span(NamedTuple):
    """Lowest and highest instance number, and how many there are."""

    lowest: int
    highest: int
    many: int

    @property
    def closed(self) -> bool:
        """Whether none between them is missing."""
        return self.highest - self.lowest + 1 == self.many


@dataclass(slots=True)
class SliceStack:
    """The slices of one volume so far, by position.

    Attributes
    ----------
    slots : dict
        By `Slot.key`.
    last_at : float
        When the last slice came; local clock, s.
    """

    slots: dict[float, Slot] = field(default_factory=dict)
    last_at: float = -float("inf")

    def put(self, slot: Slot) -> None:
        """Add one slice."""
        self.slots[slot.key] = slot
        self.last_at = max(self.last_at, slot.moments.arrived_at)

    def instances(self) -> Span | None:
        """Return the range of the instance numbers; None if a slice has none."""
        numbers = [slot.plane.instance for slot in self.slots.values()]
        present = [value for value in numbers if value is not None]
        return (
            Span(min(present), max(present), len(present))
            if present and len(present) == len(numbers)
            else None
        )


def places(keys: Iterable[float]) -> list[int] | None:
    """Put positions on an even grid.

    Parameters
    ----------
    keys : iterable of float
        Positions, mm; the same one may occur repeatedly.

    Returns
    -------
    list of int or None
        Place of each distinct position, in rising order, the lowest at 0; None if no even grid holds
        them.
    """
    positions = np.array(sorted(set(keys)))
    if len(positions) < 2:
        return [0] * len(positions) or None
    # The smallest gap counts as one step; larger ones are whole numbers of steps with empty places.
    steps = np.diff(positions)
    grid_places = np.concatenate([[0], np.cumsum(np.rint(steps / steps.min()))])
    if grid_places[-1] > _SPARSE * len(positions):
        return None
    # Judge by the mean spacing over the whole extent: a single gap carries the rounding of positions.
    off = (positions - positions[0]) * grid_places[-1] / (positions[-1] - positions[0]) - grid_places
    return [int(place) for place in grid_places] if np.abs(off).max() < _UNEVEN else None


def on_grid(keys: Sequence[float], grid: Sequence[float]) -> list[int] | None:
    """Return the place of each position on a known grid; None if one is not on it."""
    place_of = {key: place for place, key in enumerate(sorted(grid))}
    return [place_of[key] for key in keys] if all(key in place_of for key in keys) else None


def joined(
    planes: Sequence[Plane], grid_places: Sequence[int], count: int
) -> tuple[Array, NDArray[np.float64]]:
    """Join slices into one volume.

    Parameters
    ----------
    planes : sequence of Plane
        In rising order along the normal.
    grid_places : sequence of int
        Place of each in the volume.
    count : int
        Number of places in the volume; those without a slice are zeros.

    Returns
    -------
    data : int16 or float32, (i, j, k)
    affine : float64, (4, 4)
        Taken from the first and the last position, because vendors round the spacing in the header.

    Raises
    ------
    ValueError
        If the slices are not evenly spaced along one line, or make a volume of more than 1 GiB.
    """
    kind = np.result_type(*(plane.data.dtype for plane in planes))
    columns, rows = planes[0].data.shape
    # The header states the number of slices, and a slice may be as large as a damaged header says.
    if count * rows * columns * kind.itemsize > MAX_BYTES:
        raise ValueError(f"{count} slices of {columns} x {rows} pixels in one volume: a damaged header")
    stack = np.zeros((count, rows, columns), kind)
    for place, plane in zip(grid_places, planes, strict=True):
        stack[place] = plane.data.T
    return stack.transpose(2, 1, 0), _affine(planes, grid_places)


def _affine(planes: Sequence[Plane], grid_places: Sequence[int]) -> NDArray[np.float64]:
    corners = np.array([plane.affine[:3, 3] for plane in planes])
    affine = planes[0].affine.copy()
    if len(planes) > 1:
        affine[:3, 2] = (corners[-1] - corners[0]) / (grid_places[-1] - grid_places[0])
    step = affine[:3, 2]
    line = corners[0] + np.outer(np.array(grid_places) - grid_places[0], step)
    off = float(np.abs(corners - line).max())
    if off > _UNEVEN * float(np.linalg.norm(step)):
        raise ValueError(f"slices that do not lie evenly along one line (up to {off:.2f} mm off)")
    affine[:3, 3] = corners[0] - grid_places[0] * step
    return affine


def timed(planes: Sequence[Plane]) -> tuple[datetime | None, float | None]:
    """Return a volume's start, and the seconds from there to its finished image.

    Both are None unless every slice's header has a time.
    """
    starts = [plane.acquired for plane in planes if plane.acquired is not None]
    if len(starts) < len(planes):
        return None, None
    after = [seconds_between(starts[0], start) for start in starts]
    recon = [plane.recon_s for plane in planes if plane.recon_s is not None]
    return starts[after.index(min(after))], max(recon, default=None)
