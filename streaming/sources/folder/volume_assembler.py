"""Assemble volumes from slices, for scanners that write one slice per file, with a deadline.

A volume is complete when it has as many slices as the header promises or, without a promise, as many as
the run has positions. Promises are checked: a volume number against other slices at the same position, a
count of slices against two volumes that agree. A volume that lacks a slice is given up 1.5 TR after its
last file came, with its `missing_slices`. So nothing waits for ever, and nothing is kept once it is given.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from streaming.sources.folder.slice_layout import SliceLayout
from streaming.sources.folder.slice_run import NumberingBasis, SliceRun, Stacked
from streaming.sources.folder.slice_stack import Identity, SliceStack, Slot
from streaming.sources.formats.image import Counters, Moments, Plane, patience_s

# The layout of a run that is still unclear after this many TR is decided from what there is.
_UNDECIDED = 3.0
# Least cosine between the normals of two slices that count as parallel.
_PARALLEL = 0.99
# No run has this many volumes: a greater number comes from a damaged header.
_LAST = 100_000
_SINGLE = "a series of one slice, no volume of a run (a localizer?)"
_UNTOLD = "slices of which neither a header nor a repeated position tells the volume"
_ORIENTED = "slices in several orientations in one series, no volume of a run (a localizer?)"


class VolumeAssembler:
    """Assemble the volumes of any number of runs at once.

    Parameters
    ----------
    limit_bytes : int
        Memory for slices that wait. Beyond it, the volume that has waited longest is given up.

    Attributes
    ----------
    doubled : set of (str, int)
        Volumes of which some slice came a second time: identity of the run, and index.
    """

    def __init__(self, limit_bytes: int = 2**30) -> None:
        self._runs: dict[str, SliceRun] = {}
        self._refused: list[tuple[str, str]] = []
        self._limit = limit_bytes
        self._bytes = 0
        self.doubled: set[tuple[str, int]] = set()

    def push(self, plane: Plane, name: str, moments: Moments) -> list[Stacked]:
        """Take one slice.

        Parameters
        ----------
        plane : Plane
            The slice, as its file describes it.
        name : str
            File name, for messages.
        moments : Moments
            When its file was readable, seen and decoded.

        Returns
        -------
        list of Stacked
            The volumes that this slice completed, usually none or one.
        """
        run = self._run_of(plane)
        reason = run.reason or self._strange(run, plane)
        if reason:
            self._refused.append((name, reason))
            return []
        stacked = self._take(run, Slot(plane, name, moments))
        while self._bytes > self._limit:
            stacked += self._relieve()
        return stacked

    def overdue(self, now_at: float) -> list[Stacked]:
        """Give up the volumes whose last slice came more than 1.5 TR ago.

        Call this only when every file in the folder has been read: a slice that waits to be read is
        not lost.
        """
        stacked: list[Stacked] = []
        for run in self._runs.values():
            if run.unplaced and _is_late(run, now_at):
                stacked += self._settle(run)
            patience = patience_s(run.tr_s)
            for index in sorted(run.piles):
                # Giving up one volume may settle the count of slices, and so complete others.
                pile = run.piles.get(index)
                if pile is not None and now_at - pile.last_at > patience:
                    stacked += self._give_up(run, index)
        return stacked

    def refused(self) -> list[tuple[str, str]]:
        """Return the files since the last call that made no volume, each with the reason."""
        refusals = self._refused
        self._refused = []
        return refusals

    def drain(self) -> list[Stacked]:
        """Give all that is left, because no more files will come."""
        stacked: list[Stacked] = []
        for run in self._runs.values():
            # What an instance number turns out not to tell waits once more.
            while run.unplaced:
                stacked += self._settle(run)
            while run.piles:
                stacked += self._give_up(run, min(run.piles))
        return stacked

    def _run_of(self, plane: Plane) -> SliceRun:
        run = self._runs.get(plane.uid)
        if run is None:
            run = self._runs[plane.uid] = _begun(plane)
        # A vendor may split one run over several series numbers: it goes by the lowest.
        run.series = min(run.series, plane.series)
        return run

    def _strange(self, run: SliceRun, plane: Plane) -> str:
        """Say why a slice cannot belong with its run's first; return "" if it can.

        A second orientation refuses the whole run, unless volumes of it are out already.
        """
        if plane.data.shape != run.first.data.shape:
            size, expected = (" x ".join(map(str, p.data.shape)) for p in (plane, run.first))
            return f"a slice of {size} voxels in a series of {expected}"
        parallel = _normal(plane) @ _normal(run.first) > _PARALLEL
        if not parallel and not run.delivered:
            self._refuse(run, _ORIENTED)
        return "" if parallel else _ORIENTED

    def _refuse(self, run: SliceRun, reason: str) -> None:
        for slot in run.slots():
            self._drop(slot, reason)
        run.reason = reason
        run.unplaced = []
        run.piles = {}
        run.layout = SliceLayout()

    def _drop(self, slot: Slot, reason: str) -> None:
        self._bytes -= slot.plane.data.nbytes
        self._refused.append((slot.name, reason))

    def _take(self, run: SliceRun, slot: Slot) -> list[Stacked]:
        run.constant &= slot.plane.number == run.first.number
        self._bytes += slot.plane.data.nbytes
        if run.basis == "unknown":
            return self._wait(run, slot)
        instance = slot.plane.instance
        if run.basis == "instance" and instance is not None and instance < run.layout.first:
            # The instance numbers turn out to begin at 0, and so every volume one slice earlier.
            run.layout.first = instance
            return self._take_again(run, self._taken_out(run, slot))
        index = run.index(slot)
        if index is None or not 0 <= index <= _LAST:
            self._drop(
                slot, f"a slice of series {run.series} whose number is missing, or no number of a volume"
            )
            return []
        if index in run.mixed:
            self._drop(slot, run.mixed[index])
            return []
        if index in run.delivered:
            return self._again(run, slot, index)
        pile = run.piles.setdefault(index, SliceStack())
        other = pile.slots.get(slot.key)
        if other is not None:
            return self._clash(run, slot, index, other.identity)
        if run.basis == "instance" and "instance" not in run.abandoned and _shares_number(pile, slot):
            return self._rest_on_none(run, slot)
        pile.put(slot)
        if run.count is None:
            run.count = run.counted(index)
            # Once the count is known, any volume on its way may turn out to be whole.
            return self._ready(run, run.piles)
        return self._ready(run, [index])

    def _ready(self, run: SliceRun, indices: Iterable[int]) -> list[Stacked]:
        """Give the volumes among `indices` that are whole."""
        if run.mixed:
            # Where slices of several images came, a second slice may follow until the deadline.
            return []
        complete = [index for index in sorted(indices) if len(run.piles[index].slots) == run.count]
        return [volume for index in complete if index in run.piles for volume in self._give(run, index)]

    def _again(self, run: SliceRun, slot: Slot, index: int) -> list[Stacked]:
        """Handle a slice of a volume that has been given already."""
        earlier = run.done.get(index, {}).get(slot.key)
        if earlier is not None:
            return self._clash(run, slot, index, earlier)
        run.believe(slot)
        self._drop(
            slot, f"a slice of volume {index} of series {run.series} that came after the volume was given"
        )
        return []

    def _second(self, run: SliceRun, slot: Slot, index: int) -> list[Stacked]:
        self.doubled.add((run.first.uid, index))
        self._drop(slot, f"a second file for a slice of volume {index} of series {run.series}")
        return []

    def _clash(self, run: SliceRun, slot: Slot, index: int, earlier: Identity) -> list[Stacked]:
        """Handle two slices that claim one place.

        With the same pixels, time and number it is a second file. Otherwise the header may be wrong. A
        volume number that never changes is not one, and neither is a count of slices a count if positions
        repeat before it is reached. In both cases the layout is learned again, from the instance numbers
        alone. A number that came before is none either where another number, or the times, tell the
        volumes apart. Where nothing does, none of the slices is taken.
        """
        if slot.identity[1:] == earlier[1:]:
            return self._second(run, slot, index)
        constant = run.basis == "header" and run.constant
        promised = run.basis == "instance" and not run.layout.instances and not run.proven
        counted = slot.plane.instance is not None and slot.plane.instance != earlier.instance
        if not (counted and (constant or promised)):
            statement = run.other_statement(slot, earlier)
            return (
                self._rest_on(run, slot, statement, index, earlier)
                if statement
                else self._mixed(run, slot, index)
            )
        slots = self._taken_out(run, slot)
        run.basis = "unknown"
        run.layout = SliceLayout()
        run.count = run.count if constant else None
        # The volumes given last help to learn the layout, although their slices are gone.
        for key, ending in (pair for slices in run.done.values() for pair in slices.items()):
            if ending.instance is not None:
                run.layout.learn(key, ending.instance)
        return self._take_again(run, slots)

    def _rest_on(
        self, run: SliceRun, slot: Slot, statement: NumberingBasis, index: int, earlier: Identity
    ) -> list[Stacked]:
        """Place all slices that wait, and this one, by another statement than before."""
        slots = self._taken_out(run, slot)
        run.rest_on(statement, index, earlier, slots)
        return self._take_again(run, slots)

    def _rest_on_none(self, run: SliceRun, slot: Slot) -> list[Stacked]:
        """Leave instance numbers that do not count slices, for a volume number or until positions repeat."""
        counters = slot.plane.counters or Counters()
        for counter in ("temporal", "acquisition"):
            if counter not in run.abandoned and getattr(counters, counter) is not None:
                return self._rest_on(run, slot, counter, 0, slot.identity)
        slots = self._taken_out(run, slot)
        run.abandoned.add("instance")
        run.basis = "unknown"
        run.layout = SliceLayout()
        return self._take_again(run, slots)

    def _mixed(self, run: SliceRun, slot: Slot, index: int) -> list[Stacked]:
        """Refuse a volume at one of whose places there are two images that nothing tells apart."""
        number = slot.plane.counters.instance if slot.plane.counters else None
        what = "without a number" if number is None else f"with InstanceNumber {number}"
        ending = "; the volume was given with the slices that came first" if index in run.delivered else ""
        reason = (
            f"two slices {what} at one place of volume {index} of series {run.series}, with other pixels; "
            "neither acquisition time, acquisition number nor temporal position tells which volume each "
            f"belongs to (several echoes in one series?){ending}"
        )
        if run.basis == "unknown":
            # Nothing tells any volume of this run from another one.
            self._refuse(run, reason)
            self._drop(slot, reason)
            return []
        run.mixed[index] = reason
        pile = run.piles.pop(index, None)
        for other in pile.slots.values() if pile else ():
            self._drop(other, reason)
        self._drop(slot, reason)
        return []

    def _taken_out(self, run: SliceRun, slot: Slot) -> list[Slot]:
        """Take all slices that wait out of their volumes; return them and one more."""
        slots = [*run.slots(), slot]
        run.piles = {}
        run.unplaced = []
        return slots

    def _take_again(self, run: SliceRun, slots: list[Slot]) -> list[Stacked]:
        stacked = []
        # `_take` counts the bytes of each slice again.
        for slot in slots:
            self._bytes -= slot.plane.data.nbytes
            stacked += self._take(run, slot)
        return stacked

    def _wait(self, run: SliceRun, slot: Slot) -> list[Stacked]:
        """Keep a slice until the layout of the instance numbers is known."""
        instance = slot.plane.instance
        if instance is not None and instance in run.layout.instances.get(slot.key, ()):
            other = next((o for o in run.unplaced if (o.key, o.plane.instance) == (slot.key, instance)), None)
            if other is not None:
                return self._clash(run, slot, 0, other.identity)
        run.unplaced.append(slot)
        has_layout = instance is not None and run.layout.learn(slot.key, instance)
        return self._place_all(run) if has_layout else []

    def _place_all(self, run: SliceRun) -> list[Stacked]:
        run.basis = "instance"
        run.count = len(run.layout.instances)
        slots = run.unplaced
        run.unplaced = []
        return self._take_again(run, slots)

    def _settle(self, run: SliceRun) -> list[Stacked]:
        """Decide on the layout of a run whose slices have waited long enough, or refuse the run."""
        if len(run.layout.instances) > 1 and run.layout.settle():
            return self._place_all(run)
        self._refuse(run, _SINGLE if len(run.layout.instances) == 1 else _UNTOLD)
        return []

    def _relieve(self) -> list[Stacked]:
        """Give up the volume that has waited longest, to free memory."""
        piles = [(run.piles[index].last_at, run, index) for run in self._runs.values() for index in run.piles]
        if piles:
            _, run, index = min(piles, key=lambda pile: pile[0])
            return self._give_up(run, index)
        # No volume is unfinished, so what waits are slices of runs whose layout is unknown.
        return self._settle(max(self._runs.values(), key=lambda run: len(run.unplaced)))

    def _give_up(self, run: SliceRun, index: int) -> list[Stacked]:
        count = run.count
        run.reckon(index)
        # A new count may complete other volumes.
        stacked = self._give(run, index)
        return stacked if run.count == count else [*stacked, *self._ready(run, run.piles)]

    def _give(self, run: SliceRun, index: int) -> list[Stacked]:
        """Turn a pile into a volume, whole or not; refuse the run if this shows that it has no volumes."""
        pile = run.piles.pop(index)
        slots = [pile.slots[key] for key in sorted(pile.slots)]
        run.remember(index, slots)
        try:
            volume = run.volume(index, slots)
        except ValueError as error:
            reason = str(error)
        else:
            reason = _SINGLE if volume.image.data.shape[2] == 1 else ""
            if not reason:
                self._bytes -= sum(slot.plane.data.nbytes for slot in slots)
                return [volume]
            self._refuse(run, reason)
        for slot in slots:
            self._drop(slot, reason)
        return []


def _begun(plane: Plane) -> SliceRun:
    # A run begins with the best that its first slice offers to tell volumes apart: a volume number in
    # the header; else the instance number, at once if the header says how many slices a volume has, or
    # once the layout has been learned; without either, the acquisition number or the time at which a position
    # comes again, or else the order in which they come.
    counters = plane.counters or Counters()
    if plane.number is not None:
        run = SliceRun(plane, plane.series, "header", plane.slices)
    elif plane.instance is None and counters.acquisition is not None:
        run = SliceRun(plane, plane.series, "acquisition", plane.slices, base=min(counters.acquisition, 1))
    elif plane.instance is None:
        basis = "order" if plane.acquired is None else "first"
        run = SliceRun(plane, plane.series, basis, plane.slices)
    elif plane.slices:
        run = SliceRun(plane, plane.series, "instance", plane.slices, layout=SliceLayout(plane.slices))
    else:
        run = SliceRun(plane, plane.series, "unknown", None)
    run.reason = _SINGLE if plane.slices == 1 else ""
    return run


def _shares_number(pile: SliceStack, slot: Slot) -> bool:
    """Return whether a slice at another position has the same instance number."""
    return any(other.plane.instance == slot.plane.instance for other in pile.slots.values())


def _normal(plane: Plane) -> NDArray[np.float64]:
    normal = np.cross(plane.affine[:3, 0], plane.affine[:3, 1])
    return normal / np.linalg.norm(normal)


def _is_late(run: SliceRun, now_at: float) -> bool:
    """Return whether the slices of a run have waited too long to be told apart."""
    first_at, last_at = (slot.moments.arrived_at for slot in (run.unplaced[0], run.unplaced[-1]))
    return now_at - last_at > patience_s(run.tr_s) or now_at - first_at > _UNDECIDED * run.tr_s
