"""Hold the state of one run of slices: how its volumes are told apart, and what each has so far.

`VolumeAssembler` puts slices in and takes volumes out; this module gives a slice its volume's index, settles
how many slices a volume has, and builds the volume.
"""

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from streaming.sources.folder.slice_layout import SliceLayout
from streaming.sources.folder.slice_stack import Identity, SliceStack, Slot, joined, on_grid, places, timed
from streaming.sources.formats.image import Image, Moments, Plane, seconds_between

# The TR that is assumed if the header has none, or one of `_TR_MOST` or more; s.
_TR = 2.0
_TR_MOST = 60.0
# For this many volumes that were given last, late files are still told from second ones.
_REMEMBERED = 4

# A slice at a known position belongs to the next volume from this part of a TR on.
_NEXT_TR = 0.5
# Header times are rounded by so much of a TR at most.
_ROUNDED_TR = 0.01

NumberingBasis = Literal[
    "header", "instance", "acquisition", "temporal", "times", "order", "first", "unknown"
]


@dataclass(frozen=True, slots=True)
class Stacked:
    """One volume made from its slices.

    Attributes
    ----------
    image : Image
        Slices in the order of their position along the normal; a missing one is all zeros.
    names : tuple of str
        Its files, in the order of the slices.
    moments : Moments
        Those of its last file.
    missing_slices : int
        0 if it is complete.
    """

    image: Image
    names: tuple[str, ...]
    moments: Moments
    missing_slices: int


@dataclass(slots=True)
class SliceRun:
    """What is known of one run.

    Attributes
    ----------
    first : Plane
        The slice that came first. All others share its shape, orientation and TR.
    series : int
        Lowest SeriesNumber so far.
    basis : str
        What indices rest on: a number in the ``header``, the ``instance`` numbers, or the ``order`` in
        which positions come again; ``unknown`` until the instance numbers tell. Where a number turned
        out not to count volumes, or where slices have none, the ``acquisition`` number, the ``temporal``
        position, or the ``times``; ``first`` before these differ, while all slices are of one volume.
    count : int or None
        Slices of a volume, promised or learned.
    proven : bool
        Whether some volume had exactly that many.
    believed : bool
        Whether the promise was once doubted wrongly; it is not doubted again.
    piles : dict
        Unfinished volumes by index.
    unplaced : list
        Slices that wait until the layout is known.
    delivered : set
        Indices of the volumes that were given.
    done : dict
        Slices of the last few of them, by position.
    base : int
        The counter's value at index 0, where indices rest on the acquisition or temporal number.
    timed : dict
        Index and header time of the newest slice at each position, where indices rest on the times.
    zero : datetime or None
        The header time at which index 0 began, there.
    abandoned : set of str
        What indices do not rest on any more, because it does not count volumes.
    mixed : dict
        The reason by index, for volumes of which several slices claimed one place.
    constant : bool
        Whether every header so far gave the same volume number.
    occurred : dict
        How often each position came, where indices rest on the order.
    grid : tuple of float
        Positions of the last whole volume.
    short : frozenset of float
        Positions of the last volume that was given up.
    clock : tuple or None
        Index and time of the first volume that has a time.
    reason : str
        Why nothing of this run is a volume; usually "".
    """

    first: Plane
    series: int
    basis: NumberingBasis
    count: int | None
    proven: bool = False
    believed: bool = False
    layout: SliceLayout = field(default_factory=SliceLayout)
    piles: dict[int, SliceStack] = field(default_factory=dict)
    unplaced: list[Slot] = field(default_factory=list)
    delivered: set[int] = field(default_factory=set)
    done: dict[int, dict[float, Identity]] = field(default_factory=dict)
    base: int = 0
    timed: dict[float, tuple[int, datetime]] = field(default_factory=dict)
    zero: datetime | None = None
    abandoned: set[NumberingBasis] = field(default_factory=set)
    mixed: dict[int, str] = field(default_factory=dict)
    constant: bool = True
    occurred: dict[float, int] = field(default_factory=dict)
    grid: tuple[float, ...] = ()
    short: frozenset[float] = frozenset()
    clock: tuple[int, datetime] | None = None
    reason: str = ""

    @property
    def tr_s(self) -> float:
        """TR, s; 2 if the header has no plausible one."""
        tr = self.first.tr_s
        return tr if tr is not None and tr < _TR_MOST else _TR

    def slots(self) -> list[Slot]:
        """Return all slices that wait."""
        return [*self.unplaced, *(slot for pile in self.piles.values() for slot in pile.slots.values())]

    def index(self, slot: Slot) -> int | None:
        """Return the index of a slice's volume; None if its header lacks what the others have."""
        if self.basis == "header":
            return slot.plane.number
        if self.basis == "instance":
            return None if slot.plane.instance is None else self.layout.volume(slot.plane.instance)
        if self.basis == "first":
            return 0
        if self.basis == "times":
            return self._index_by_time(slot)
        if self.basis in ("acquisition", "temporal"):
            value = getattr(slot.plane.counters, self.basis, None)
            return None if value is None else value - self.base
        index = self.occurred.get(slot.key, 0)
        self.occurred[slot.key] = index + 1
        return index

    def _index_by_time(self, slot: Slot) -> int | None:
        acquired = slot.plane.acquired
        if acquired is None:
            return None
        newest = self.timed.get(slot.key)
        if newest is not None:
            index = newest[0] + round(seconds_between(newest[1], acquired) / self.tr_s)
        elif self.zero is not None:
            # A new position: volumes begin a whole number of TRs after the first one.
            turns = seconds_between(self.zero, acquired) / self.tr_s
            index = math.floor(turns + _ROUNDED_TR)
        else:
            return None
        self.timed[slot.key] = index, acquired
        return index

    def other_statement(self, slot: Slot, previous: Identity) -> NumberingBasis | None:
        """Return what tells a slice's volume from that of another one at its place, besides `rest`.

        That is a counter that differs between the two, or else their times, or else, without any instance
        numbers, the order in which they come; None if nothing does.
        """
        lapse_s = None
        if previous.acquired is not None and slot.plane.acquired is not None:
            lapse_s = seconds_between(previous.acquired, slot.plane.acquired)
        for counter in ("temporal", "acquisition"):
            earlier = getattr(previous.counters, counter)
            later = getattr(slot.plane.counters, counter, None)
            if counter == self.basis or counter in self.abandoned:
                continue
            if earlier is None or later is None or earlier == later:
                continue
            # A counter that falls while the time rises counts something else.
            if not lapse_s or (later > earlier) == (lapse_s > 0):
                return counter
        timed = self.basis != "times" and "times" not in self.abandoned and lapse_s is not None
        if timed and abs(lapse_s or 0.0) >= _NEXT_TR * self.tr_s:
            return "times"
        # Where slices have no instance number at all, they come in order.
        return "order" if slot.plane.instance is None and previous.instance is None else None

    def rest_on(self, statement: NumberingBasis, index: int, previous: Identity, slots: list[Slot]) -> None:
        """Let indices rest on another statement, by which a slice that was seen keeps its index.

        Parameters
        ----------
        statement : str
            As `other_statement` gives it.
        index : int
            That of the slice's volume.
        previous : Identity
            What the header says of the slice that was seen at that position.
        slots : list of Slot
            All slices that wait.
        """
        self.abandoned.add(self.basis)
        self.basis = statement
        if statement in ("acquisition", "temporal"):
            value = getattr(previous.counters, statement)
            self.base = value - index if self.delivered else min(value, 1)
            return
        if statement == "order":
            self.occurred = {
                key: known_index + 1 for known_index, slices in sorted(self.done.items()) for key in slices
            }
            return
        # While no volume was given, all slices that wait are of the first ones.
        starts = [] if self.done else [(0, slot.plane.acquired) for slot in slots]
        for known_index, slices in sorted(self.done.items()):
            for key, other in slices.items():
                starts.append((known_index, other.acquired))
                if other.acquired is not None:
                    self.timed[key] = known_index, other.acquired
        zeros = [
            moment - timedelta(seconds=known_index * self.tr_s)
            for known_index, moment in starts
            if moment is not None
        ]
        self.zero = min(zeros, default=None)

    def remember(self, index: int, slots: list[Slot]) -> None:
        """Note that a volume was given."""
        self.delivered.add(index)
        self.done[index] = {slot.key: slot.identity for slot in slots}
        while len(self.done) > _REMEMBERED:
            del self.done[next(iter(self.done))]
        if len(slots) == self.count:
            self.grid = tuple(slot.key for slot in slots)
            self.proven = True
        # Where order counts, a position that this volume lacked must not lag behind by one volume.
        for key, times in self.occurred.items():
            self.occurred[key] = max(times, index + 1)

    def counted(self, index: int) -> int | None:
        """Return the slices of a volume if its instances run on without a gap into the next volume's."""
        # The new slice may lie in the earlier or the later volume of a pair. Instances count from 0,
        # so volume `earlier` of `many` slices begins at instance earlier * many.
        for earlier in (index - 1, index):
            if earlier in self.piles and earlier + 1 in self.piles:
                before = self.piles[earlier].instances()
                after = self.piles[earlier + 1].instances()
                if before and after and before.lowest == earlier * before.many and before.closed:
                    return before.many if after.lowest == before.highest + 1 else None
        return None

    def reckon(self, index: int) -> None:
        """Settle the count of slices when a volume is given up.

        Without a promise, the count is that of the even grid that holds all positions that wait. A
        promise that was never kept yields to two volumes with the same positions and no gap in them.
        """
        keys = frozenset(self.piles[index].slots)
        if self.count is None:
            grid_places = places(key for pile in self.piles.values() for key in pile.slots)
            self.count = (
                grid_places[-1] + 1 if grid_places else max(len(pile.slots) for pile in self.piles.values())
            )
        elif not (self.proven or self.believed):
            grid_places = places(keys)
            other_piles = [frozenset(pile.slots) for other, pile in self.piles.items() if other != index]
            if grid_places and 1 < len(keys) == grid_places[-1] + 1 and keys in [*other_piles, self.short]:
                self.count = len(keys)
        self.short = keys

    def believe(self, slot: Slot) -> None:
        """Return to the promised count if a late slice has a position that had not been found before."""
        promised = self.first.slices
        if promised and self.count and self.count < promised and slot.key not in self.grid:
            self.count = promised
            self.proven = False
            self.grid = ()
            self.short = frozenset()
            self.believed = True

    def volume(self, index: int, slots: list[Slot]) -> Stacked:
        """Make a volume of slices in rising order of position.

        Raises
        ------
        ValueError
            If they are not evenly spaced.
        """
        planes = [slot.plane for slot in slots]
        grid_places, count = self._places([slot.key for slot in slots])
        data, affine = joined(planes, grid_places, count)
        acquired, recon_s = timed(planes)
        if acquired is not None:
            self.clock = self.clock or (index, acquired)
            if self.clock[1] == acquired and self.clock[0] != index:
                # A time that does not advance is that of the series, copied into every file.
                acquired = None
                recon_s = None
        missing = count - len(slots)
        # Neither the order of arrival nor a time is a number of the header, so `Runs` finds the index itself.
        unnumbered = self.basis in ("order", "first") or (
            self.basis == "times" and self.first.instance is None
        )
        number = None if unnumbered else index
        uid = self.first.uid
        tr_s = self.first.tr_s
        simulated = self.first.simulated
        image = Image(data, affine, number, self.series, uid, tr_s, acquired, recon_s, simulated)
        return Stacked(image, tuple(slot.name for slot in slots), _last(slots), missing)

    def _places(self, keys: list[float]) -> tuple[list[int], int]:
        """Return the place of each slice, and the number of places in the whole volume."""
        # The grid of the last whole volume also places slices of a volume that lacks its outer ones.
        count = max(self.count or 0, len(keys))
        grid_places = on_grid(keys, self.grid) if len(self.grid) == count else None
        grid_places = grid_places or places(keys)
        if grid_places is None:
            raise ValueError("slices that are not evenly spaced: no volume")
        return grid_places, max(count, grid_places[-1] + 1)


def _last(slots: list[Slot]) -> Moments:
    moments = [slot.moments for slot in slots]
    return Moments(
        readable_at=max(moment.readable_at for moment in moments),
        arrived_at=max(moment.arrived_at for moment in moments),
        parsed_at=max(moment.parsed_at for moment in moments),
    )
