"""Hold the state of one run of slices: how its volumes are told apart, and what each has so far.

`Stacks` puts slices in and takes volumes out; this module gives a slice its volume's index, settles how
many slices a volume has, and builds the volume.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from streaming.sources.folder.pile import Pile, Slot, joined, on_grid, places, timed
from streaming.sources.folder.slice_layout import SliceLayout
from streaming.sources.formats.image import Image, Moments, Plane

# The TR that is assumed if the header has none, or one of `_TR_MOST` or more; s.
_TR = 2.0
_TR_MOST = 60.0
# For this many volumes that were given last, late files are still told from second ones.
_REMEMBERED = 4

Rest = Literal["header", "instance", "order", "unknown"]


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
    rest : str
        What indices rest on: a number in the ``header``, the ``instance`` numbers, or the ``order`` in
        which positions come again; ``unknown`` until the instance numbers tell.
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
    given : set
        Indices of the volumes that were given.
    done : dict
        Positions and instances of the last few of them.
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
    rest: Rest
    count: int | None
    proven: bool = False
    believed: bool = False
    layout: SliceLayout = field(default_factory=SliceLayout)
    piles: dict[int, Pile] = field(default_factory=dict)
    unplaced: list[Slot] = field(default_factory=list)
    given: set[int] = field(default_factory=set)
    done: dict[int, frozenset[tuple[float, int | None]]] = field(default_factory=dict)
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
        if self.rest == "header":
            return slot.plane.number
        if self.rest == "instance":
            return None if slot.plane.instance is None else self.layout.volume(slot.plane.instance)
        index = self.occurred.get(slot.key, 0)
        self.occurred[slot.key] = index + 1
        return index

    def remember(self, index: int, slots: list[Slot]) -> None:
        """Note that a volume was given."""
        self.given.add(index)
        self.done[index] = frozenset((slot.key, slot.plane.instance) for slot in slots)
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
        # so volume `one` of `many` slices begins at instance one * many.
        for one in (index - 1, index):
            if one in self.piles and one + 1 in self.piles:
                before = self.piles[one].instances()
                after = self.piles[one + 1].instances()
                if before and after and before.lowest == one * before.many and before.closed:
                    return before.many if after.lowest == before.highest + 1 else None
        return None

    def reckon(self, index: int) -> None:
        """Settle the count of slices when a volume is given up.

        Without a promise, the count is that of the even grid that holds all positions that wait. A
        promise that was never kept yields to two volumes with the same positions and no gap in them.
        """
        keys = frozenset(self.piles[index].slots)
        if self.count is None:
            found = places(key for pile in self.piles.values() for key in pile.slots)
            self.count = found[-1] + 1 if found else max(len(pile.slots) for pile in self.piles.values())
        elif not (self.proven or self.believed):
            found = places(keys)
            others = [frozenset(pile.slots) for other, pile in self.piles.items() if other != index]
            if found and 1 < len(keys) == found[-1] + 1 and keys in [*others, self.short]:
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
        at, count = self._places([slot.key for slot in slots])
        data, affine = joined(planes, at, count)
        acquired, recon_s = timed(planes)
        if acquired is not None:
            self.clock = self.clock or (index, acquired)
            if self.clock[1] == acquired and self.clock[0] != index:
                # A time that does not advance is that of the series, copied into every file.
                acquired = None
                recon_s = None
        missing = count - len(slots)
        # The order of arrival is no number of the header, so `Runs` finds the index itself.
        number = None if self.rest == "order" else index
        uid = self.first.uid
        tr_s = self.first.tr_s
        simulated = self.first.simulated
        image = Image(data, affine, number, self.series, uid, tr_s, acquired, recon_s, simulated)
        return Stacked(image, tuple(slot.name for slot in slots), _last(slots), missing)

    def _places(self, keys: list[float]) -> tuple[list[int], int]:
        """Return the place of each slice, and the number of places in the whole volume."""
        # The grid of the last whole volume also places slices of a volume that lacks its outer ones.
        count = max(self.count or 0, len(keys))
        at = on_grid(keys, self.grid) if len(self.grid) == count else None
        at = at or places(keys)
        if at is None:
            raise ValueError("slices that are not evenly spaced: no volume")
        return at, max(count, at[-1] + 1)


def _last(slots: list[Slot]) -> Moments:
    moments = [slot.moments for slot in slots]
    return Moments(
        readable_at=max(moment.readable_at for moment in moments),
        arrived_at=max(moment.arrived_at for moment in moments),
        parsed_at=max(moment.parsed_at for moment in moments),
    )
