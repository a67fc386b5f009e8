"""Find the triggers that mark the starts of volumes, by their times and never by counting.

A `Train` takes the triggers of one label and sorts them into chains: triggers that follow each other at
whole TRs. One trigger per volume makes one long chain. Slice or shot triggers make as many chains as
there are shots in a TR, side by side. A spurious trigger makes a chain of one, and triggers of another TR
make chains that skip volumes or break off. `Train.best` says which chain marks the volumes, if any does.
"""

import itertools
from collections import deque
from statistics import median

import numpy as np
from numpy.typing import NDArray

# How far from its place a trigger may lie, as a fraction of the TR.
_NEAR = 1 / 16
# The same as an upper limit, s.
_NEAR_MOST = 0.04
# How far from its place a slice trigger may lie, as a fraction of the slice triggers' distance.
_NEAR_SLICES = 1 / 6
# Triggers nearer to each other than this fraction of a TR are slice triggers.
_DENSE = 0.65
# A trigger this near to its place is never a stray, s.
_CLOSE = 3e-3
# A chain's place is the median of this many of its newest triggers.
_RECENT = 5
# Number of triggers that a chain keeps for the fit of the line.
_MAX_TRIGGERS = 600
# Raw times kept of each label, from which the chains are built again when the tolerance changes.
_RAW = 512
# A chain with fewer triggers than this is forgotten after this many TRs without another one.
_SHORT = 5
_STALE = 40
# Fraction of a chain's steps that must be single TRs.
_SINGLE = 0.5
# Fraction of all triggers that must be in the chosen chains.
_COVERED = 0.5
# A pause after which a volume starts is longer than the other distances by this factor.
_PAUSE = 1.5


class Chain:
    """Triggers of one label that lie whole TRs apart.

    Attributes
    ----------
    first_at : float
        Time of its first trigger, which has index 0, s.
    count : int
        Number of its triggers.
    """

    def __init__(self, stamp: float, period: float) -> None:
        self.first_at = stamp
        self.count = 1
        self._singles = 0
        self._period = period
        self._held: deque[tuple[int, float]] = deque([(0, stamp)], maxlen=_MAX_TRIGGERS)
        self._base = stamp

    @property
    def newest(self) -> int:
        """Index of the newest trigger."""
        return self._held[-1][0]

    @property
    def newest_at(self) -> float:
        """Time of the newest trigger, s."""
        return self._held[-1][1]

    @property
    def phase(self) -> float:
        """Time of index 0, judged by the newest triggers, s."""
        return self._base

    @property
    def regular(self) -> bool:
        """Whether it goes on from volume to volume, rather than skipping most of them."""
        return self._singles >= max(1.0, _SINGLE * (self.count - 1))

    def place(self, stamp: float) -> tuple[int, float]:
        """Return the index nearest to a time, and the distance from that index's place, s."""
        index = round((stamp - self._base) / self._period)
        return index, abs(stamp - self._base - index * self._period)

    def add(self, index: int, stamp: float) -> bool:
        """Add a trigger and return whether it was taken.

        Of two triggers with the same index, the one nearer to its place stays. A trigger whose index lies
        before the newest one is left out.
        """
        if index > self.newest:
            self._singles += index == self.newest + 1
            self.count += 1
            self._held.append((index, stamp))
        elif index < self.newest or self.place(stamp)[1] >= self.place(self._held[-1][1])[1]:
            return False
        else:
            self._held[-1] = (index, stamp)
        self._base = self._recent_base()
        return True

    def _recent_base(self) -> float:
        # The newest triggers alone, so that the place follows the drift of the scanner's clock, and
        # their median, so that a stray among them does not move it.
        recent = itertools.islice(reversed(self._held), _RECENT)
        return median(s - i * self._period for i, s in recent)

    def begun_at(self) -> float:
        """Return the time of the first trigger that lies as near to its place as the others do, s."""
        index, stamp = self.arrays()
        off = stamp - index * self._period
        off = np.abs(off - np.median(off))
        return float(stamp[off <= max(_CLOSE, 4 * 1.4826 * float(np.median(off)))][0])

    def since(self, stamp: float) -> int:
        """Count its triggers at or after a time."""
        if stamp <= self._held[0][1]:
            return self.count
        return sum(s >= stamp for _, s in self._held)

    def cut(self, stamp: float) -> None:
        """Forget the triggers from a time on, except the chain's first."""
        while len(self._held) > 1 and self._held[-1][1] >= stamp:
            index, _ = self._held.pop()
            self._singles -= index == self.newest + 1
            self.count -= 1
        self._base = self._recent_base()

    def arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the indices and times of the triggers that are kept, (n,) each."""
        pairs = np.array(self._held, np.float64)
        return pairs[:, 0], pairs[:, 1]


class Train:
    """All triggers of one label, sorted into chains.

    Parameters
    ----------
    period : float
        TR on the local clock, s.

    Attributes
    ----------
    chains : list of Chain
        Sequences of triggers at whole TRs.
    dense : bool
        Whether these are slice or shot triggers.
    locked : bool
        Whether the tolerance must stay as it is, so that the chains are not built again.
    """

    def __init__(self, period: float) -> None:
        self._period = period
        self._raw: deque[float] = deque(maxlen=_RAW)
        self._near = self._sparse_near = min(_NEAR * period, _NEAR_MOST)
        self.chains: list[Chain] = []
        self.dense = self.locked = False

    @property
    def placed(self) -> int:
        """Number of triggers that share a chain with others."""
        return sum(chain.count for chain in self.chains if chain.count > 1)

    def push(self, stamp: float) -> None:
        """Add the next trigger, s."""
        self._raw.append(stamp)
        near = self._near if self.locked else self._tolerance()
        # Triggers that turn out to be slice triggers need another tolerance: sort all of them again.
        if not 0.7 < near / self._near < 1.4:
            self._near = near
            self.chains = []
            for earlier in self._raw:
                self._join(earlier)
            return
        self._join(stamp)

    def _tolerance(self) -> float:
        recent = np.diff(np.array(self._raw)[-64:])
        pitch = float(np.median(recent)) if len(recent) >= 3 else self._period
        self.dense = pitch < _DENSE * self._period
        return max(1e-3, min(self._sparse_near, _NEAR_SLICES * pitch)) if self.dense else self._sparse_near

    def _join(self, stamp: float) -> None:
        places = [(chain.place(stamp), chain) for chain in self.chains]
        near = [(off, index, chain) for (index, off), chain in places if off <= self._near]
        if not near:
            stale_at = stamp - _STALE * self._period
            self.chains = [c for c in self.chains if c.count >= _SHORT or c.newest_at > stale_at]
            self.chains.append(Chain(stamp, self._period))
            return
        _, index, chain = min(near, key=lambda candidate: candidate[0])
        chain.add(index, stamp)

    def best(self, since: float) -> tuple[Chain, int] | None:
        """Return the chain that marks the volumes' starts and the number of triggers per volume.

        Parameters
        ----------
        since : float
            Triggers before this time do not count in favour of a chain, because the volumes began later.

        Returns
        -------
        (Chain, int) or None
            None if no chain marks volumes.
        """
        counts = [chain.since(since) for chain in self.chains]
        largest = max(counts, default=0)
        if largest < 2:
            return None
        regular = [
            c for c, n in zip(self.chains, counts, strict=True) if n >= max(2, largest / 2) and c.regular
        ]
        # Slice triggers make chains of about the same length, volume triggers a single long one.
        group = regular if self.dense else sorted(regular, key=lambda c: -counts[self.chains.index(c)])[:1]
        # Triggers of another TR and markers of a task scatter over chains that hold
        # few of them each.
        first_at = min((chain.first_at for chain in group), default=0.0)
        start = max(first_at, since)
        n_triggers = sum(1 for _ in itertools.takewhile(lambda stamp: stamp >= start, reversed(self._raw)))
        if sum(chain.since(since) for chain in group) < _COVERED * n_triggers:
            return None
        return (self._start_of(group), len(group)) if group else None

    def _start_of(self, group: list[Chain]) -> Chain:
        """Choose, among chains of slice triggers, the one that starts the volumes.

        That is the chain after the pause at the end of a TR, or the earliest one if there is no such pause.
        """
        order = sorted(group, key=lambda chain: chain.phase % self._period)
        phases = np.array([chain.phase % self._period for chain in order])
        gaps = np.diff(phases, prepend=phases[-1] - self._period)
        if len(order) > 1 and gaps.max() > _PAUSE * np.median(gaps):
            return order[int(gaps.argmax())]
        return min(group, key=lambda chain: chain.begun_at())

    def take_back(self, stamp: float) -> list[float]:
        """Forget the triggers from a time on, and return their times."""
        stamps = [s for s in self._raw if s >= stamp]
        for chain in self.chains:
            chain.cut(stamp)
        self.chains = [chain for chain in self.chains if chain.first_at < stamp]
        self._raw = deque((s for s in self._raw if s < stamp), maxlen=_RAW)
        return stamps
