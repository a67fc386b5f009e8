"""Triggers on stim channels, and the same trigger told twice."""

import re
from collections import deque

import numpy as np
from numpy.typing import NDArray

from rtdecode.types import Array, Trigger

# The same trigger by a marker and by a stim channel, s.
_SAME = 0.005
_REMEMBERED = 64
# Bits above are the amplifier's state (BioSemi), not the trigger port.
_PORT = 0xFFFF
_LARGEST = 2.0**31


class Edges:
    """Newly set bits of stim channels.

    A channel that rests at zero and one that holds a code while another is added are read alike;
    what the channels held at the first sample is no trigger.

    Parameters
    ----------
    columns : list of int
        Columns of the stim channels.
    """

    def __init__(self, columns: list[int]) -> None:
        self._columns = columns
        self._before: NDArray[np.int64] | None = None

    def push(self, raw: Array, stamps: NDArray[np.float64], arrived_at: float) -> list[Trigger]:
        """Triggers in the next samples, (sample, column) with stamps (sample,)."""
        if not self._columns:
            return []
        levels = np.clip(np.nan_to_num(raw[:, self._columns].astype(np.float64)), -_LARGEST, _LARGEST)
        values = np.rint(levels).astype(np.int64) & _PORT
        before = values[:1] if self._before is None else self._before[None]
        past = np.concatenate([before, values[:-1]])
        self._before = values[-1]
        rows, columns = np.nonzero(values & ~past)
        return [
            Trigger(float(stamps[r]), str(values[r, c]), arrived_at)
            for r, c in zip(rows, columns, strict=True)
        ]


class Triggers:
    """Triggers by markers and by stim channels, each once.

    Two of different origin within 5 ms are one, unless they bear different numbers: the first to come
    is kept. After two such pairs both labels are told as one, so that a train of triggers keeps its
    label whichever way each of them came first.
    """

    def __init__(self) -> None:
        self._kept: deque[tuple[str, Trigger]] = deque(maxlen=_REMEMBERED)
        self._pairs: set[tuple[tuple[str, str], ...]] = set()
        self._names: dict[tuple[str, str], str] = {}

    def once(self, origin: str, triggers: list[Trigger]) -> list[Trigger]:
        """The triggers of an origin that were not told by another one."""
        fresh = [t for t in triggers if not self._told(origin, t)]
        names = [self._names.get((origin, t.label), t.label) for t in fresh]
        return [Trigger(t.stamp, name, t.arrived_at) for t, name in zip(fresh, names, strict=True)]

    def _told(self, origin: str, trigger: Trigger) -> bool:
        for other, kept in self._kept:
            if other != origin and abs(kept.stamp - trigger.stamp) <= _SAME and _alike(kept, trigger):
                self._kept.remove((other, kept))
                self._join((other, kept.label), (origin, trigger.label))
                return True
        self._kept.append((origin, trigger))
        return False

    def _join(self, first: tuple[str, str], second: tuple[str, str]) -> None:
        pair = tuple(sorted((first, second)))
        if pair in self._pairs and first not in self._names:
            self._names |= dict.fromkeys(pair, first[1])
        self._pairs.add(pair)


def _alike(a: Trigger, b: Trigger) -> bool:
    numbers = [re.findall(r"\d+", t.label) for t in (a, b)]
    return not all(numbers) or [int(n) for n in numbers[0]] == [int(n) for n in numbers[1]]
