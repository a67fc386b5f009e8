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
# A trigger line is away from its resting level for less than this, s.
_PULSE_S = 2.0
# Values are limited to this first: converting a float beyond the range of integers is undefined.
_LARGEST = 2.0**31


class EdgeDetector:
    """Find newly set bits of stim channels, and newly cleared ones of lines that rest high.

    This reads a channel that rests at zero in the same way as one that holds a code while another is
    added to it. What the channels hold at the first sample is not a trigger: a bit that is set there rests
    high, as an active-low trigger line does, and its triggers are its falling edges. It is read like the
    others while it is cleared for longer than it is set, and from there on once it was cleared for seconds.

    Parameters
    ----------
    columns : list of int
        Columns of the stim channels.
    """

    def __init__(self, columns: list[int]) -> None:
        self._columns = columns
        self._lines: list[_Line] = []

    def push(self, raw: Array, stamps: NDArray[np.float64], arrived_at: float) -> list[Trigger]:
        """Return the triggers in the next samples, (sample, column), with stamps (sample,)."""
        if not self._columns or not len(raw):
            return []
        levels = np.clip(np.nan_to_num(raw[:, self._columns].astype(np.float64)), -_LARGEST, _LARGEST)
        values = np.rint(levels).astype(np.int64) & _PORT
        if not self._lines:
            self._lines = [_Line(int(value), float(stamps[0])) for value in values[0]]
        past = np.concatenate([[[line.value for line in self._lines]], values[:-1]])
        triggers: list[Trigger] = []
        # Changes are rare.
        for row, column in zip(*np.nonzero(values ^ past), strict=True):
            code = self._lines[column].change(int(values[row, column]), float(stamps[row]))
            if code:
                triggers.append(Trigger(float(stamps[row]), str(code), arrived_at))
        return triggers


class _Line:
    """The bits of one stim channel.

    Parameters
    ----------
    value : int
        What it holds at first.
    time_s : float
        When, s.
    """

    def __init__(self, value: int, time_s: float) -> None:
        self.value = value
        # Bits that rest high now, and of the bits that may: since when they are what they are, and for how
        # long they were the opposite before, s.
        self._high = value
        self._since = dict.fromkeys(_bits(value), (time_s, 0.0))

    def change(self, value: int, time_s: float) -> int:
        """Take a new value; return the code of the trigger that it is, 0 if it is none."""
        rose = value & ~self.value
        fell = self.value & ~value & self._high
        for bit in _bits(value ^ self.value):
            if bit in self._since:
                rose = self._turn(bit, rose, time_s)
        self.value = value
        # A code is the whole value, without the lines that rest high.
        return (value & ~self._high if rose else 0) | fell

    def _turn(self, bit: int, rose: int, time_s: float) -> int:
        """Judge anew where a bit rests; return `rose` without it if its rise is the end of a pulse."""
        since, opposite_s = self._since[bit]
        lasted_s = time_s - since
        self._since[bit] = (time_s, lasted_s)
        if not rose & bit:
            # It falls: a line that is set for longer than it is cleared rests high.
            self._high |= bit if lasted_s > opposite_s else 0
            return rose
        if lasted_s > _PULSE_S:
            del self._since[bit]
        if lasted_s > min(opposite_s, _PULSE_S):
            self._high &= ~bit
            return rose
        return rose & ~bit if self._high & bit else rose


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
        for other, earlier in self._kept:
            if other != origin and abs(earlier.stamp - trigger.stamp) <= _SAME and _alike(earlier, trigger):
                self._kept.remove((other, earlier))
                self._join((other, earlier.label), (origin, trigger.label))
                return True
        self._kept.append((origin, trigger))
        return False

    def _join(self, first: tuple[str, str], second: tuple[str, str]) -> None:
        pair = tuple(sorted((first, second)))
        if pair in self._pairs and first not in self._names:
            self._names |= dict.fromkeys(pair, first[1])
        self._pairs.add(pair)


def _bits(value: int) -> list[int]:
    """Return the bits of a value that are set."""
    return [1 << place for place in range(value.bit_length()) if value >> place & 1]


def _alike(a: Trigger, b: Trigger) -> bool:
    numbers = [re.findall(r"\d+", t.label) for t in (a, b)]
    return not all(numbers) or [int(n) for n in numbers[0]] == [int(n) for n in numbers[1]]
