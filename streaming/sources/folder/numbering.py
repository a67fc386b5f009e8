"""Decide which statement of the headers says where each volume stands in its run.

InstanceNumber, AcquisitionNumber, temporal position and acquisition time each may; any of them may stand
still, count something else, or begin at another number than 1. So each volume is compared with the one
before it in all of them. A counter that stands still although pixels or times differ is not believed; where
statements contradict each other, the majority is taken; where there is none, the volume is refused.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal, NamedTuple

from rtdecode.errors import CodedError
from streaming.sources.formats.image import (
    Counters,
    Image,
    Moments,
    patience_s,
    pixel_checksum,
    seconds_between,
    whole_days,
)

Statement = Literal["instance", "acquisition", "temporal", "time"]
_COUNTERS: tuple[Statement, ...] = ("instance", "acquisition", "temporal")
_FIELDS: dict[Statement, str] = {
    "instance": "InstanceNumber",
    "acquisition": "AcquisitionNumber",
    "temporal": "the temporal position",
    "time": "the acquisition time",
}
# Header times may lie this far off whole TRs.
_OFF_TR = 0.25
# Images whose times differ by less than this part of a TR were acquired at one time.
_SAME_TIME = 0.5
# Statements that let a run skip more volumes than this may be damage.
_LEAP = 2000
# Every n-th voxel of a slice, along both axes, goes into the checksum that tells images apart.
_STRIDE = 3


class Arrival(NamedTuple):
    """An image with its file's name, its moments, and since when the file was waited for (or None)."""

    image: Image
    name: str
    moments: Moments
    since: float | None


class ContradictionError(CodedError):
    """Statements of which none can be believed."""


@dataclass(frozen=True, slots=True)
class _Numbered:
    """What is remembered of a volume: its index, and what its file said."""

    index: int
    counters: Counters
    acquired: datetime | None
    checksum: int


@dataclass(slots=True)
class _Run:
    """The volumes of a run so far, the newest, which statement gives indices, and which are believed.

    All volumes are kept, so that a second file of one is known: some 400 bytes each, 2 MB an hour at 0.8 s.
    """

    by: Statement
    newest: _Numbered
    by_index: dict[int, _Numbered] = field(default_factory=dict)
    believed: set[Statement] = field(default_factory=lambda: {*_COUNTERS, "time"})

    def add(self, volume: _Numbered) -> None:
        self.newest = volume
        self.by_index[volume.index] = volume


@dataclass(slots=True)
class _Held:
    """A run's first volume while its statements differ, and the contradiction if one came to light."""

    arrival: Arrival
    contradiction: str = ""


class VolumeNumbering:
    """Give each volume of a run its number.

    A first volume whose counters differ is held until the second shows which of them count; without a
    second, it is given after 1.5 TR by its first counter.
    """

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}
        self._held: dict[str, _Held] = {}
        self._refused: list[tuple[str, str]] = []

    def push(self, arrival: Arrival) -> list[Arrival]:
        """Take one volume, and return those that have their number now: none, this one, or two.

        A volume that came before keeps the number that it had.
        """
        image = arrival.image
        if image.counters is None or image.counters == Counters():
            return [arrival]
        first_held = self._held.get(image.uid)
        if first_held is not None:
            return self._second(first_held, arrival)
        run = self._runs.get(image.uid)
        if run is not None:
            return self._next(run, arrival)
        numbers = _numbers(image.counters)
        if len(set(numbers.values())) > 1:
            self._held[image.uid] = _Held(arrival)
            return []
        return [self._begin(arrival, next(iter(numbers)))]

    def overdue(self, now_at: float) -> list[Arrival]:
        """Give the first volumes that no second one followed within 1.5 TR."""
        uids = [
            uid
            for uid, first_held in self._held.items()
            if now_at - first_held.arrival.moments.arrived_at > patience_s(first_held.arrival.image.tr_s)
        ]
        return self._release(uids)

    def drain(self) -> list[Arrival]:
        """Give all that is held, because no more files will come."""
        return self._release(list(self._held))

    def refused(self) -> list[tuple[str, str]]:
        """Return the files since the last call whose place nothing decides, each with the reason."""
        refused = self._refused
        self._refused = []
        return refused

    def _release(self, uids: list[str]) -> list[Arrival]:
        released = []
        for uid in uids:
            first_held = self._held[uid]
            if first_held.contradiction:
                # More volumes of this run would contradict each other in the same way, so it stays held.
                self._refuse(first_held.arrival, first_held.contradiction)
                continue
            del self._held[uid]
            counters = first_held.arrival.image.counters
            assert counters is not None
            released.append(self._begin(first_held.arrival, next(iter(_numbers(counters)))))
        return released

    def _refuse(self, arrival: Arrival, reason: str) -> None:
        if (arrival.name, reason) not in self._refused:
            self._refused.append((arrival.name, reason))

    def _begin(self, arrival: Arrival, by: Statement) -> Arrival:
        image = arrival.image
        assert image.counters is not None
        first = _numbered(image, _numbers(image.counters)[by])
        self._runs[image.uid] = _Run(by, first, {first.index: first})
        return arrival._replace(image=replace(image, number=first.index))

    def _next(self, run: _Run, arrival: Arrival) -> list[Arrival]:
        try:
            index = _place(run, arrival.image)
        except ContradictionError as error:
            self._refuse(arrival, str(error))
            return []
        return [arrival._replace(image=replace(arrival.image, number=index))]

    def _second(self, first_held: _Held, arrival: Arrival) -> list[Arrival]:
        """Number a run's first two volumes by the statements that agree on the way between them."""
        first = first_held.arrival.image
        assert first.counters is not None
        numbers = _numbers(first.counters)
        # The first one's index is not known yet: count from 0 for the comparison.
        start = _numbered(first, 0)
        run = _Run(next(iter(numbers)), start, {0: start})
        try:
            step = _place(run, arrival.image)
        except ContradictionError as error:
            first_held.contradiction = str(error)
            self._refuse(arrival, str(error))
            return []
        if step == 0:
            # The first file once more says nothing about the counters.
            return []
        # A volume that came before the first one in its run is not placed below 0.
        base = max(_first_index(numbers, run.believed), -step)
        del self._held[first.uid]
        numbered_run = _Run(run.by, _numbered(first, base), believed=run.believed)
        numbered_run.add(numbered_run.newest)
        numbered_run.add(_numbered(arrival.image, base + step))
        self._runs[first.uid] = numbered_run
        return [
            first_held.arrival._replace(image=replace(first, number=base)),
            arrival._replace(image=replace(arrival.image, number=base + step)),
        ]


def _first_index(numbers: dict[Statement, int], believed: set[Statement]) -> int:
    """Return the index of a run's first volume, where the counters that count volumes may differ."""
    counting = {counter: number for counter, number in numbers.items() if counter in believed} or numbers
    runners_up = [number for counter, number in counting.items() if counter != "instance"]
    if counting.get("instance", -1) + 1 in runners_up:
        # The instances count from 0.
        return min(runners_up)
    # One that went on counting from something else is higher than one that began with this run.
    return min(counting.values())


def _place(run: _Run, image: Image) -> int:
    """Return the index of a volume in its run, and note what it says of the statements.

    Raises
    ------
    ContradictionError
        If nothing decides.
    """
    volume = _numbered(image, 0)
    places: dict[Statement, int] = {
        statement: run.newest.index + step
        for statement, step in _steps(run.newest, volume, image.tr_s).items()
        if statement in run.believed
    }
    if run.by in places:
        placed = run.by_index.get(places[run.by])
        if placed is not None and _is_same(placed, volume, image.tr_s):
            return placed.index
    free: dict[Statement, int] = {
        statement: index for statement, index in places.items() if index not in run.by_index
    }
    if not free and _lapse_s(run.newest, volume) is not None and "time" not in places:
        # Times that are no whole TRs apart still say that there is a next volume.
        lapse_s = _lapse_s(run.newest, volume) or 0.0
        if lapse_s > _SAME_TIME * (image.tr_s or 0.0):
            free = {"time": run.newest.index + max(1, round(lapse_s / image.tr_s) if image.tr_s else 1)}
    if not free:
        raise _repeated(run, places, volume)
    index = _decide(run, free)
    outvoted = {statement for statement, other in places.items() if other != index}
    if outvoted and not 0 <= index <= run.newest.index + _LEAP:
        # A damaged header: it says nothing of the statements, and `Runs` refuses the volume.
        return index
    # A statement that was outvoted is not believed again in this run.
    run.believed -= outvoted
    if free.get(run.by) != index:
        agreeing: list[Statement] = [statement for statement, other in free.items() if other == index]
        run.by = agreeing[0]
    run.add(replace(volume, index=index))
    return index


def _decide(run: _Run, free: dict[Statement, int]) -> int:
    """Return the index that most statements give.

    Raises
    ------
    ContradictionError
        If as many give another one.
    """
    (index, votes), *runners_up = Counter(free.values()).most_common()
    if not runners_up or votes > runners_up[0][1]:
        return index
    # Where one counter stands against the time, the two can agree in one way: there was a pause.
    counters = {statement: place for statement, place in free.items() if statement != "time"}
    if "time" in free and len(counters) == 1:
        (counted,) = counters.values()
        if run.newest.index < counted < free["time"]:
            return counted
        # More volumes than fit into the time were not acquired: the counter counts other images too.
        if run.newest.index < free["time"] < counted:
            return free["time"]
    statements: list[Statement] = sorted(free, key=lambda statement: statement != run.by)
    first, other = statements[:2]
    raise ContradictionError(
        "volume-statements-contradict",
        "{one} makes it volume {one_index}, {other} volume {other_index}, and nothing else in the header "
        "decides between them",
        one=_FIELDS[first],
        one_index=free[first],
        other=_FIELDS[other],
        other_index=free[other],
    )


def _repeated(run: _Run, places: dict[Statement, int], volume: _Numbered) -> ContradictionError:
    """Return the error of a number that came before with another image, where nothing tells the two apart."""
    statements: list[Statement] = [run.by, *places]
    counter = min(statements, key=lambda statement: statement == "time")
    return ContradictionError(
        "volume-number-repeated",
        "{counter} {number} came before with other pixels, and neither another number nor the acquisition "
        "time tells which volume it is",
        counter=_FIELDS[counter],
        number=volume.acquired if counter == "time" else getattr(volume.counters, counter),
    )


def _numbers(counters: Counters) -> dict[Statement, int]:
    """Return the number of a volume by each counter that there is, from 0."""
    values: dict[Statement, int | None] = {name: getattr(counters, name) for name in _COUNTERS}
    # Counters begin at 1, so a value of 0 means that this one begins at 0.
    return {name: value - 1 if value else 0 for name, value in values.items() if value is not None}


def _steps(before: _Numbered, volume: _Numbered, tr_s: float | None) -> dict[Statement, int]:
    """Return how many volumes lie from one to another by each statement that both make."""
    steps: dict[Statement, int] = {}
    for counter in _COUNTERS:
        start = getattr(before.counters, counter)
        stop = getattr(volume.counters, counter)
        if start is not None and stop is not None:
            steps[counter] = stop - start
    lapse_s = _lapse_s(before, volume)
    if lapse_s is not None and tr_s:
        turns = round(lapse_s / tr_s)
        if abs(lapse_s / tr_s - turns) <= _OFF_TR:
            steps["time"] = turns
    return steps


def _lapse_s(before: _Numbered, volume: _Numbered) -> float | None:
    if before.acquired is None or volume.acquired is None:
        return None
    # No two volumes of a run that follow each other lie half a day apart: the date changed late, or early.
    return whole_days(seconds_between(before.acquired, volume.acquired), 0.0)


def _is_same(first: _Numbered, other: _Numbered, tr_s: float | None) -> bool:
    """Return whether two files hold one image: the same pixels, acquired at the same time."""
    if first.checksum != other.checksum:
        return False
    lapse_s = _lapse_s(first, other)
    return lapse_s is None or abs(lapse_s) <= _SAME_TIME * (tr_s or 0.0)


def _numbered(image: Image, index: int) -> _Numbered:
    assert image.counters is not None
    return _Numbered(index, image.counters, image.acquired, pixel_checksum(image.data[::_STRIDE, ::_STRIDE]))
