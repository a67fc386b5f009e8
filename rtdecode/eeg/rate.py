"""Whether a stream sends at the rate it declares, by its stamps and by its arrival."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from rtdecode import plausible

# What is measured at least before it is judged, and what is measured anew, s.
_LEAST_S = 0.5
_ANEW_S = 30.0


class RateCheck:
    """Measure a stream's rate.

    Stamps and arrival must both say that a stream is too fast: stamps jump and networks catch up, but not
    both at once. Too slow it is only where its samples are also stamped that far apart; otherwise samples
    were lost, which `SampleClock` counts.

    Parameters
    ----------
    declared_hz : float
    """

    def __init__(self, declared_hz: float) -> None:
        self._declared_hz = declared_hz
        self._from: tuple[float, float] | None = None
        self._count = 0
        self._steps: deque[float] = deque(maxlen=256)
        self._last = 0.0

    def push(self, stamps: NDArray[np.float64], arrived_at: float) -> str | None:
        """Take the stamps of the next samples, s on the local clock; return what is wrong, in a sentence."""
        newest = float(stamps[-1])
        if self._from is None:
            self._restart(newest, arrived_at)
            return None
        self._count += len(stamps)
        self._steps.append(float(np.median(np.diff(stamps, prepend=self._last))))
        self._last = newest
        by_stamps = newest - self._from[0]
        by_arrival = arrived_at - self._from[1]
        if by_arrival < _LEAST_S:
            return None
        wrong = self._too_fast(by_stamps, by_arrival) or self._too_slow(by_stamps, by_arrival)
        if by_arrival > _ANEW_S:
            self._restart(newest, arrived_at)
        return wrong

    def _restart(self, newest: float, arrived_at: float) -> None:
        self._from = (newest, arrived_at)
        self._last = newest
        self._count = 0

    def _too_fast(self, by_stamps: float, by_arrival: float) -> str | None:
        span_s = max(by_stamps, by_arrival)
        measured_hz = self._count / span_s
        if measured_hz < self._declared_hz:
            return None
        return plausible.declared_rate(self._declared_hz, measured_hz, span_s)

    def _too_slow(self, by_stamps: float, by_arrival: float) -> str | None:
        span_s = min(by_stamps, by_arrival)
        step_s = float(np.median(self._steps))
        if span_s < _LEAST_S or step_s <= 0:
            return None
        measured_hz = max(self._count / span_s, 1 / step_s)
        if measured_hz > self._declared_hz:
            return None
        return plausible.declared_rate(self._declared_hz, measured_hz, span_s)
