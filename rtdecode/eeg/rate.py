"""Check that a stream sends at the rate it declares, by its stamps and by its arrival.

A stream that sends more than it declares would run ahead of the clock, and its windows with it.
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal import plausible

# Shortest time that is judged, and time after which the measurement starts again, s.
_LEAST_S = 0.5
_ANEW_S = 30.0


class RateCheck:
    """Measure a stream's rate.

    A stream is too fast only if stamps and arrival both say so: stamps may jump and a network may catch up,
    but not both at once. It is too slow only if its samples are also stamped that far apart. Otherwise
    samples were lost, which `SampleClock` counts.

    Parameters
    ----------
    declared_hz : float
        Nominal rate of the stream, Hz.
    """

    def __init__(self, declared_hz: float) -> None:
        self.declared_hz = declared_hz
        self._from: tuple[float, float] | None = None
        self._count = 0
        self._steps: deque[float] = deque(maxlen=256)
        self._last = 0.0

    def push(self, stamps: NDArray[np.float64], arrived_at: float) -> str | None:
        """Take the stamps of the next samples, s on the local clock; return what is wrong, in a sentence."""
        newest = float(stamps[-1])
        if self._from is None:
            # The first chunk only sets the start: what is counted after it spans the time since then.
            self._restart(newest, arrived_at)
            return None
        self._count += len(stamps)
        self._steps.append(float(np.median(np.diff(stamps, prepend=self._last))))
        self._last = newest
        by_stamps = newest - self._from[0]
        by_arrival = arrived_at - self._from[1]
        if by_arrival < _LEAST_S:
            return None
        fault = self._too_fast(by_stamps, by_arrival) or self._too_slow(by_stamps, by_arrival)
        if by_arrival > _ANEW_S:
            self._restart(newest, arrived_at)
        return fault

    def _restart(self, newest: float, arrived_at: float) -> None:
        self._from = (newest, arrived_at)
        self._last = newest
        self._count = 0

    def _too_fast(self, by_stamps: float, by_arrival: float) -> str | None:
        # The longer of both times gives the lower rate: only if that is too high do both agree.
        span_s = max(by_stamps, by_arrival)
        measured_hz = self._count / span_s
        if measured_hz < self.declared_hz:
            return None
        return plausible.declared_rate(self.declared_hz, measured_hz, span_s)

    def _too_slow(self, by_stamps: float, by_arrival: float) -> str | None:
        # The shorter time gives the higher rate.
        span_s = min(by_stamps, by_arrival)
        if span_s < _LEAST_S:
            return None
        measured_hz = self._count / span_s
        if self._slow(measured_hz, span_s) is None:
            return None
        # So does the distance of neighbouring stamps, whose median is looked for only where it can matter.
        step_s = float(np.median(self._steps))
        if step_s <= 0:
            return None
        return self._slow(max(measured_hz, 1 / step_s), span_s)

    def _slow(self, measured_hz: float, span_s: float) -> str | None:
        if measured_hz > self.declared_hz:
            return None
        return plausible.declared_rate(self.declared_hz, measured_hz, span_s)
