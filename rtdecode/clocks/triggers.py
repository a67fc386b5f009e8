"""Which triggers mark the starts of volumes: found by their times, never by counting.

Triggers that follow each other at whole TRs form a chain. One trigger a volume makes one long chain;
slice or shot triggers make as many chains as there are shots in a TR, side by side; a spurious trigger
makes a chain of one, and triggers of another TR make chains that skip volumes or break off.
"""

import itertools
from collections import deque
from statistics import median

import numpy as np
from numpy.typing import NDArray

# How far from its place a trigger may lie: share of the TR, and most (s).
_NEAR = 1 / 16
_NEAR_MOST = 0.04
# Among slice triggers, share of their distance.
_NEAR_SLICES = 1 / 6
# Triggers nearer than this share of a TR to each other are slice triggers.
_DENSE = 0.65
# A trigger this near to its place is no stray, s.
_CLOSE = 3e-3
# A chain's place is the median of so many triggers; so many are kept for the line.
_RECENT = 5
_KEPT = 600
# Raw times kept of each label: what a change of mind about the tolerance is redone from.
_RAW = 512
# A chain shorter than this is forgotten when so many TRs went on without it.
_SHORT = 5
_STALE = 40
# Share of a chain's steps that must be single TRs, and of the triggers that must be in it.
_SINGLE = 0.5
_COVERED = 0.5
# The start of a volume lies behind a pause if that is longer than the other distances by this factor.
_PAUSE = 1.5


class Chain:
    """Triggers of one label, whole TRs apart.

    Attributes
    ----------
    first_at : float
        Its first trigger, index 0, s.
    count : int
        Triggers in it.
    """

    def __init__(self, stamp: float, period: float) -> None:
        self.first_at = stamp
        self.count = 1
        self._singles = 0
        self._period = period
        self._held: deque[tuple[int, float]] = deque([(0, stamp)], maxlen=_KEPT)
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
        """Where index 0 lies by the newest triggers, s."""
        return self._base

    @property
    def regular(self) -> bool:
        """Whether it goes on from volume to volume, and does not skip most."""
        return self._singles >= max(1.0, _SINGLE * (self.count - 1))

    def place(self, stamp: float) -> tuple[int, float]:
        """Index that is nearest to a time, and the distance to its place, s."""
        index = round((stamp - self._base) / self._period)
        return index, abs(stamp - self._base - index * self._period)

    def add(self, index: int, stamp: float) -> bool:
        """Take a trigger; of two with one index the nearer to the place stays. False if it is left out."""
        if index > self.newest:
            self._singles += index == self.newest + 1
            self.count += 1
            self._held.append((index, stamp))
        elif index < self.newest or self.place(stamp)[1] >= self.place(self._held[-1][1])[1]:
            return False
        else:
            self._held[-1] = (index, stamp)
        recent = itertools.islice(reversed(self._held), _RECENT)
        self._base = median(s - i * self._period for i, s in recent)
        return True

    def begun_at(self) -> float:
        """Time of the first trigger that lies as near to its place as the others do, s."""
        index, stamp = self.arrays()
        off = stamp - index * self._period
        off = np.abs(off - np.median(off))
        return float(stamp[off <= max(_CLOSE, 4 * 1.4826 * float(np.median(off)))][0])

    def since(self, stamp: float) -> int:
        """Number of its triggers not before a time."""
        if stamp <= self._held[0][1]:
            return self.count
        return sum(s >= stamp for _, s in self._held)

    def cut(self, stamp: float) -> None:
        """Forget triggers from a time on; the first stays."""
        while len(self._held) > 1 and self._held[-1][1] >= stamp:
            self._held.pop()
            self.count -= 1

    def arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Indices and times of what is kept, (n,) each."""
        pairs = np.array(self._held, np.float64)
        return pairs[:, 0], pairs[:, 1]


class Train:
    """All triggers of one label, in chains.

    Parameters
    ----------
    period : float
        TR on the local clock, s.
    """

    def __init__(self, period: float) -> None:
        self._period = period
        self._raw: deque[float] = deque(maxlen=_RAW)
        self._near = self._sparse_near = min(_NEAR * period, _NEAR_MOST)
        self.chains: list[Chain] = []
        self.dense = self.locked = False

    @property
    def placed(self) -> int:
        """Triggers that are in a chain with others."""
        return sum(chain.count for chain in self.chains if chain.count > 1)

    def push(self, stamp: float) -> None:
        """Take the next trigger, s."""
        self._raw.append(stamp)
        near = self._near if self.locked else self._tolerance()
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
        _, index, chain = min(near, key=lambda one: one[0])
        chain.add(index, stamp)

    def best(self, since: float) -> tuple[Chain, int] | None:
        """The chain of the volumes' starts, and how many triggers a volume has; None if there is none.

        Parameters
        ----------
        since : float
            Triggers before this do not speak for a chain: the volumes began later.
        """
        counts = [chain.since(since) for chain in self.chains]
        most = max(counts, default=0)
        if most < 2:
            return None
        held = [c for c, n in zip(self.chains, counts, strict=True) if n >= max(2, most / 2) and c.regular]
        group = held if self.dense else sorted(held, key=lambda c: -counts[self.chains.index(c)])[:1]
        begun = min((chain.first_at for chain in group), default=0.0)
        start = max(begun, since)
        there = sum(1 for _ in itertools.takewhile(lambda stamp: stamp >= start, reversed(self._raw)))
        if sum(chain.since(since) for chain in group) < _COVERED * there:
            return None
        return (self._start_of(group), len(group)) if group else None

    def _start_of(self, group: list[Chain]) -> Chain:
        """Of the chains of slice triggers the volumes' first: behind the pause, else the earliest."""
        order = sorted(group, key=lambda chain: chain.phase % self._period)
        phases = np.array([chain.phase % self._period for chain in order])
        gaps = np.diff(phases, prepend=phases[-1] - self._period)
        if len(order) > 1 and gaps.max() > _PAUSE * np.median(gaps):
            return order[int(gaps.argmax())]
        return min(group, key=lambda chain: chain.begun_at())

    def take_back(self, stamp: float) -> list[float]:
        """Take back the triggers from a time on."""
        taken = [s for s in self._raw if s >= stamp]
        for chain in self.chains:
            chain.cut(stamp)
        self.chains = [chain for chain in self.chains if chain.first_at < stamp]
        self._raw = deque((s for s in self._raw if s < stamp), maxlen=_RAW)
        return taken
