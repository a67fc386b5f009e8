"""Where a run lies on the local clock, judged by its volumes' headers and files alone.

A file cannot be readable before its volume was acquired and reconstructed, and most are readable soon after.
Each volume therefore gives a latest possible start of the run, and the earliest of these (the lower envelope)
is taken as the run's zero.
"""

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdecode.clocks.lines import robust_line
from rtdecode.types import Volume

# Time from the end of a volume to its readable file if no header states it, s: the middle of the 0
# to 1.3 s seen in scanner headers.
USUAL_DELAY = 0.65
_DAY = 86400.0
_MAX_VOLUMES = 600
# The envelope is the earliest of each block of this many volumes.
_BLOCK = 32
# Least number of blocks that show a drift.
_BLOCKS = 3
# Noise of a block's earliest file, s.
_BLOCK_NOISE = 0.01
# Usual relative difference between the rates of two clocks.
_DRIFT_SPREAD = 5e-5
# Resolution of header times, s.
_HEADER_NOISE = 1e-3


@dataclass(frozen=True, slots=True)
class Arrival:
    """The evidence of one volume: index, header time (NaN if none), latest possible start and arrival, s."""

    index: int
    header_s: float
    bound_at: float
    arrived_at: float


class Arrivals:
    """The volumes of one run as evidence of when it began.

    Parameters
    ----------
    tr : float
        Nominal repetition time, s.

    Attributes
    ----------
    exact : bool
        Whether the headers state how long a volume takes until its image is finished.
    ratio : float
        The header's repetition time divided by the nominal one.
    """

    def __init__(self, tr: float) -> None:
        self._tr = tr
        self._seen: deque[Arrival] = deque(maxlen=_MAX_VOLUMES)
        self._header_zero: float | None = None
        self.exact = False
        self.ratio = 1.0

    def __bool__(self) -> bool:
        return bool(self._seen)

    @property
    def source(self) -> str:
        """``header`` if volumes are placed by their header times, ``arrival`` if by their files alone."""
        timed = self.exact or any(not math.isnan(arrival.header_s) for arrival in self._seen)
        return "header" if timed else "arrival"

    def add(self, volume: Volume) -> float:
        """Add a volume and return the run's zero by its file alone, s on the local clock."""
        if not self._seen and volume.tr_s is not None:
            self.ratio = volume.tr_s / self._tr
        # No image is finished before half of its own acquisition: a header that says so has copied
        # one of its times into the other.
        exact = volume.recon_s is not None and volume.recon_s >= self._tr / 2
        if exact and not self.exact:
            self.exact = True
            self._seen.clear()  # guesses about earlier volumes are worth less
        delay = volume.recon_s if exact and volume.recon_s is not None else self._tr + USUAL_DELAY
        bound_at = volume.readable_at - delay
        arrival = Arrival(volume.index, self._header_s(volume), bound_at, volume.arrived_at)
        if exact or not self.exact:
            self._seen.append(arrival)
        return float(self._zeros([arrival])[0])

    def _header_s(self, volume: Volume) -> float:
        """Return the header time after the run's zero, s; NaN if it cannot be this volume's."""
        expected_s = volume.index * self._tr
        header_s = _whole_days(volume.acquired_s, expected_s)
        if self._header_zero is None and not math.isnan(header_s):
            # The scanner may count time from an earlier run of the same series.
            early = header_s - expected_s * self.ratio
            self._header_zero = early if abs(early) > self._tr / 2 else 0.0
        header_s -= self._header_zero or 0.0
        # The 1 % allows for a header TR that is not quite the nominal one.
        return header_s if abs(header_s - expected_s) <= self._tr / 2 + 0.01 * expected_s else math.nan

    def zero(self) -> float:
        """Return the local time of the run's zero, the lower envelope of the files' times, s."""
        return float(self._zeros(list(self._seen)).min())

    def line(self, upto_at: float) -> tuple[float, float | None]:
        """Return local seconds per run second, and the spread of the files about the line.

        The spread is in s, and None with fewer than two volumes.

        Parameters
        ----------
        upto_at : float
            Only volumes that had arrived by this time are used, s on the local clock.
        """
        arrivals = [arrival for arrival in self._seen if arrival.arrived_at <= upto_at]
        if len(arrivals) < 2:
            return self.ratio, None
        # Volumes may come out of order, and the fits need ascending times.
        arrivals.sort(key=lambda arrival: arrival.index)
        x = np.array([arrival.index for arrival in arrivals]) * self._tr
        header = np.array([arrival.header_s for arrival in arrivals])
        timed = ~np.isnan(header)
        # The slope has two parts: header seconds per nominal second, and what the local clock gains
        # on the header's, which only the files can tell.
        slope = self.ratio
        if timed.sum() >= 2:
            slope = robust_line(x[timed], header[timed], slope, noise_floor=_HEADER_NOISE).slope
        zeros = self._zeros(arrivals)
        drift = self._drift(x, zeros)
        residuals = zeros - drift * x
        residuals -= np.median(residuals)
        near = np.abs(residuals) <= 4 * max(1.4826 * float(np.median(np.abs(residuals))), 1e-4)
        return slope + drift, float(np.sqrt(np.mean(residuals[near] ** 2)))

    def _zeros(self, arrivals: list[Arrival]) -> NDArray[np.float64]:
        """Return the latest start of the run that each volume allows, (volume,)."""
        place = [s.index * self._tr * self.ratio if math.isnan(s.header_s) else s.header_s for s in arrivals]
        return np.array([s.bound_at for s in arrivals]) - np.array(place)

    def _drift(self, x: NDArray[np.float64], zeros: NDArray[np.float64]) -> float:
        """Return the seconds per second that the local clock gains on the header's, by the envelope."""
        n_used = len(x) // _BLOCK * _BLOCK
        if n_used < _BLOCKS * _BLOCK:
            return 0.0
        # A slow file can only make a zero later, so the earliest of each block is
        # the least disturbed.
        blocks = zeros[:n_used].reshape(-1, _BLOCK)
        middle = x[:n_used].reshape(-1, _BLOCK)[np.arange(len(blocks)), blocks.argmin(1)]
        options = {"noise_floor": _BLOCK_NOISE, "slope_spread": _DRIFT_SPREAD}
        return robust_line(middle, blocks.min(1), 0.0, **options).slope


def _whole_days(seconds: float | None, expected_s: float) -> float:
    """Return a header time with the days added that a time of day loses at midnight; NaN for none."""
    if seconds is None:
        return math.nan
    return seconds + _DAY * round((expected_s - seconds) / _DAY)
