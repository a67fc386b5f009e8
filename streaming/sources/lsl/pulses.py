"""Find triggers on stim channels, and recognise a trigger that is also sent as a marker."""

import re
from collections import deque

import numpy as np
from numpy.typing import NDArray

from rtdecode.types import Array, Trigger

# A marker and a stim channel's trigger this close together are the same trigger, s.
_SAME = 0.005
# Triggers among which the other copy of a new one is looked for.
_REMEMBERED = 64
# Higher bits are the amplifier's state (BioSemi), not the trigger port.
_PORT = 0xFFFF
# Values are limited to this first: converting a float beyond the range of integers is undefined.
_LARGEST = 2.0**31


class Edges:
    """Find newly set bits of stim channels.

    This reads a channel that rests at zero in the same way as one that holds a code while another is
    added to it. What the channels hold at the first sample is not a trigger.

    Parameters
    ----------
    columns : list of int
        Columns of the stim channels.
    """

    def __init__(self, columns: list[int]) -> None:
        self._columns = columns
        self._before: NDArray[np.int64] | None = None

    def push(self, raw: Array, stamps: NDArray[np.float64], arrived_at: float) -> list[Trigger]:
        """Return the triggers in the next samples, (sample, column), with stamps (sample,)."""
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
    """Pass on the triggers of markers and stim channels, each once.

    Two triggers of different origin within 5 ms are the same, unless their labels bear different numbers;
    the first to come is kept. After two such pairs both labels are passed on as one, so that a train of
    triggers keeps its label whichever way each of them came first.
    """

    def __init__(self) -> None:
        self._kept: deque[tuple[str, Trigger]] = deque(maxlen=_REMEMBERED)
        self._pairs: set[tuple[tuple[str, str], ...]] = set()
        self._names: dict[tuple[str, str], str] = {}

    def once(self, origin: str, triggers: list[Trigger]) -> list[Trigger]:
        """Return the triggers of one origin that another origin has not delivered already."""
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
