"""Hold a stream's stamps against their arrival, and place by it the stamps of another clock.

LSL stamps lie on the clock of `local_clock`. Many programs stamp with Unix time instead, in seconds or in
milliseconds, or with a clock of the amplifier. Samples that would have been acquired long before they
arrived, or after it, bear such stamps. What their stamps still tell is how far samples lie apart; the sample
that took the shortest way says where they all lie.
"""

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from rtdecode.clocks.lines import robust_line
from rtdecode.errors import GeometryError

Times = NDArray[np.float64]

# A sample arrives so long after it was acquired, and a marker after it was sent, s. Before that it can seem
# to come by an error of the measured clock offset alone.
_EARLY = 0.5
_LATE = 2.0
_LATE_MARKER = 30.0
# How long stamps that lie elsewhere are followed before they are judged, s.
_JUDGED_S = 1.0
# A marker that lies elsewhere waits for so long until it is known where the samples lie, s.
_DECIDED_S = 3.0
# Units of stamps: so many in a second. A stamp may also count samples.
_UNITS = {1.0: "seconds", 1e3: "milliseconds", 1e6: "microseconds", 1e9: "nanoseconds"}
# Stamps that differ more than this from those of samples are not regular: in their mean distance by this
# factor, or in their places by so many seconds, which is what `SampleClock` takes for jitter.
_FACTOR = 1.5
_SCATTER = 0.01
# The earliest arrival of each block of this length says where the stamps lie, s; a block that differs by more
# is of another epoch, which the sample clock follows.
_BLOCK_S = 5.0
_EPOCH_S = 0.2
_REMEMBERED = 64
_LEAST_BLOCKS = 6
# Noise of a block's earliest arrival, s, and how fast the placed stamps follow the line through them.
_NOISE = 5e-3
_SLEW = 1e-4
# Wall clocks of two computers differ by less than this, s.
_WALL_S = 86400.0


class StampPlacement:
    """The stamps of one stream, as they are or placed by their arrival.

    Stamps that agree with their arrival are passed on as they are, from the first one on.

    Parameters
    ----------
    sfreq : float
        Nominal rate, Hz.

    Attributes
    ----------
    by_arrival : bool or None
        Whether the stamps are placed by their arrival; None while that is not decided.
    within_s : float
        By how much arrivals scatter about the placed stamps, s; 0 where they are not placed.
    note : str
        Where the stamps lie and what is done about it; empty where they are passed on as they are.
    """

    def __init__(self, sfreq: float) -> None:
        self._sfreq = sfreq
        self._chunks: list[tuple[Times, float]] = []
        self._first_stamp = 0.0
        self._per_second = 1.0
        # What is added to stamps that were moved to 0 and to seconds, and what it is to become.
        self._shift = self._target = 0.0
        self._placed_at = -math.inf
        self._blocks: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)
        self._block_at = 0.0
        self._block_shift = math.inf
        self.by_arrival: bool | None = None
        self.within_s = 0.0
        self.note = ""

    def decide(self, stamps: Times, arrived_at: float) -> bool:
        """Take the stamps of the next samples; return whether `place` can place them and those before them.

        Parameters
        ----------
        stamps : (sample,)
            On the local clock as far as LSL can tell, s.
        arrived_at : float
            When they were read, s on the local clock.

        Raises
        ------
        GeometryError
            If the stamps lie elsewhere and are not regular.
        """
        if self.by_arrival is not None:
            return True
        dated = stamps[np.isfinite(stamps)]
        if len(dated):
            self._chunks.append((dated, arrived_at))
            if -_EARLY <= arrived_at - float(dated[-1]) <= _LATE:
                self._chunks = []
                self.by_arrival = False
                return True
        if self._chunks and arrived_at - self._chunks[0][1] >= _JUDGED_S:
            self._learn()
        return self.by_arrival is not None

    def place(self, stamps: Times, arrived_at: float) -> Times:
        """Return stamps, (sample,), on the local clock, s."""
        if not self.by_arrival:
            return stamps
        seconds = (stamps - self._first_stamp) / self._per_second
        dated = seconds[np.isfinite(seconds)]
        if len(dated):
            self._follow(arrived_at - float(dated[-1]), arrived_at)
        return seconds + self._shift

    def local(self, stamp: float) -> float:
        """Return the local time of something else that the same clock stamped, s."""
        return (stamp - self._first_stamp) / self._per_second + self._shift if self.by_arrival else stamp

    def _learn(self) -> None:
        """Find unit and place of the stamps by what has come so far."""
        stamps = np.concatenate([chunk for chunk, _ in self._chunks])
        ends = np.cumsum([len(chunk) for chunk, _ in self._chunks]) - 1
        arrivals = np.array([arrived_at for _, arrived_at in self._chunks])
        index = np.arange(len(stamps)) / self._sfreq
        spread = float(stamps[-1] - stamps[0]) / max(float(index[-1]), 1 / self._sfreq)
        units = [*_UNITS, self._sfreq]
        unit = min(units, key=lambda per_second: abs(math.log(max(spread, 1e-12) / per_second)))
        seconds = (stamps - stamps[0]) / unit
        scatter = float(np.ptp(seconds - index)) if len(stamps) > 1 else math.inf
        away_s = float(stamps[-1]) / unit - float(arrivals[-1])
        if not 1 / _FACTOR <= spread / unit <= _FACTOR or scatter > _SCATTER:
            raise GeometryError(
                "eeg-stamps-irregular",
                "the stream's stamps lie {away_s:.3g} s from this machine's LSL clock, and are not regular: "
                "{sample_count} samples at {sfreq:g} Hz are stamped {stamped:.4g} apart in all. They tell "
                "nothing of when a sample was acquired. Let the amplifier's program stamp with LSL's own "
                "clock (local_clock), or leave the stamps out.",
                away_s=away_s,
                sample_count=len(stamps),
                sfreq=self._sfreq,
                stamped=float(stamps[-1] - stamps[0]),
            )
        self.by_arrival = True
        self._first_stamp = float(stamps[0])
        self._per_second = unit
        delays = arrivals - seconds[ends]
        self._shift = self._target = float(delays.min())
        self._block_at = float(arrivals[-1])
        self.within_s = max(1e-3, float(np.percentile(delays, 95)) - self._shift)
        self._chunks = []
        word = "" if unit == 1.0 else f", in {_UNITS.get(unit, 'samples')},"
        self.note = (
            f"stamps{word} lie {away_s:,.0f} s from this machine's LSL clock; they are placed by arrival, to "
            f"within {1e3 * self.within_s:.0f} ms and what the amplifier holds back. Let its program stamp "
            "with LSL's own clock (local_clock), or leave the stamps out"
        )

    def _follow(self, shift: float, arrived_at: float) -> None:
        """Follow a clock of another rate slowly, so that no step falls between two samples."""
        self._block_shift = min(self._block_shift, shift)
        if arrived_at - self._block_at >= _BLOCK_S:
            if abs(self._block_shift - self._target) <= _EPOCH_S:
                self._blocks.append((self._block_at, self._block_shift))
            self._block_at = arrived_at
            self._block_shift = math.inf
            if len(self._blocks) >= _LEAST_BLOCKS:
                starts, shifts = np.array(self._blocks).T
                line = robust_line(starts - arrived_at, shifts, 0.0, noise_floor=_NOISE)
                self._target = line.offset
        limit = _SLEW * max(0.0, arrived_at - self._placed_at) if math.isfinite(self._placed_at) else 0.0
        self._placed_at = arrived_at
        self._shift += min(max(self._target - self._shift, -limit), limit)


class MarkerPlacement:
    """The stamps of one stream of markers, as they are or placed by their arrival.

    Attributes
    ----------
    note : str
        Where the stamps lie and what is done about it; empty where they are passed on as they are.
    """

    def __init__(self) -> None:
        self._elsewhere: bool | None = None
        self._with_samples = False
        self._per_second = 1.0
        self._shift = math.inf
        self.note = ""

    def place(
        self, stamp: float, arrived_at: float, now_at: float, wall_s: float, samples: StampPlacement | None
    ) -> float | None:
        """Return when a marker was sent, s on the local clock; None while that cannot be told yet.

        Parameters
        ----------
        stamp : float
            On the local clock as far as LSL can tell, s.
        arrived_at, now_at : float
            When it was read, and the time now, s on the local clock.
        wall_s : float
            Unix time now, s.
        samples : StampPlacement or None
            Of the EEG stream, whose clock may have stamped the marker too.
        """
        if not math.isfinite(stamp):
            return stamp
        if self._elsewhere is None:
            elsewhere = not _arrives(arrived_at - stamp)
            undecided = samples is not None and samples.by_arrival is None
            if elsewhere and undecided and now_at - arrived_at < _DECIDED_S:
                return None
            self._elsewhere = elsewhere
            if elsewhere:
                self._learn(stamp, arrived_at, wall_s, samples)
        if not self._elsewhere:
            return stamp
        if self._with_samples and samples is not None and samples.by_arrival:
            return samples.local(stamp)
        # The marker that took the shortest way so far says where they all lie.
        self._shift = min(self._shift, arrived_at - stamp / self._per_second)
        return stamp / self._per_second + self._shift

    def _learn(self, stamp: float, arrived_at: float, wall_s: float, samples: StampPlacement | None) -> None:
        if samples is not None and samples.by_arrival and _arrives(arrived_at - samples.local(stamp)):
            self._with_samples = True
            self.note = "the triggers' stamps lie on the same clock as those of the samples"
            return
        wall = [unit for unit in _UNITS if abs(stamp / unit - wall_s) < _WALL_S]
        self._per_second = wall[0] if wall else 1.0
        word = "" if self._per_second == 1.0 else f", in {_UNITS[self._per_second]},"
        away_s = stamp / self._per_second - arrived_at
        self.note = (
            f"the triggers' stamps{word} lie {away_s:,.0f} s from this machine's LSL clock; they are placed "
            "by arrival. Let their program stamp with LSL's own clock (local_clock), or leave the stamps out"
        )


def _arrives(delay_s: float) -> bool:
    """Return whether a marker can have taken so long."""
    return -_EARLY <= delay_s <= _LATE_MARKER
