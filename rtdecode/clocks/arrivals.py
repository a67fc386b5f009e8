"""Where a run lies on the local clock by its volumes' headers and files alone.

A file cannot be readable before its volume was acquired and rebuilt, and most are readable soon after:
the run begins where the lower envelope of the files' times says.
"""

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdecode.clocks.lines import robust_line
from rtdecode.types import Volume

# Time from a volume's last readout to its readable file, where no header tells (s): the middle of
# the 0 to 1.3 s seen in scanner headers.
USUAL_DELAY = 0.65
_DAY = 86400.0
_KEPT = 600
# The envelope is the earliest of so many volumes; a drift needs a few of these.
_BLOCK = 32
_BLOCKS = 3
# What one block's earliest file is worth, s; of two clocks' rates, their usual difference.
_BLOCK_NOISE = 0.01
_DRIFT_SPREAD = 5e-5
# Resolution of header times, s.
_HEADER_NOISE = 1e-3


@dataclass(frozen=True, slots=True)
class Seen:
    """What one volume says: its index, header time (NaN: none), latest possible start, arrival; all s."""

    index: int
    header_s: float
    bound_at: float
    arrived_at: float


class Arrivals:
    """The volumes of one run, as evidence of when it began.

    Parameters
    ----------
    tr : float
        Nominal repetition time, s.

    Attributes
    ----------
    exact : bool
        Whether the header tells how long a volume took to its finished image.
    ratio : float
        The header's repetition time over the nominal one.
    """

    def __init__(self, tr: float) -> None:
        self._tr = tr
        self._seen: deque[Seen] = deque(maxlen=_KEPT)
        self._header_zero: float | None = None
        self.exact = False
        self.ratio = 1.0

    def __bool__(self) -> bool:
        return bool(self._seen)

    @property
    def source(self) -> str:
        """``header`` where volumes are placed by their header times, ``arrival`` where by files alone."""
        timed = self.exact or any(not math.isnan(seen.header_s) for seen in self._seen)
        return "header" if timed else "arrival"

    def add(self, volume: Volume) -> float:
        """Take a volume; return the run's zero as its file alone says it, s on the local clock."""
        if not self._seen and volume.tr_s is not None:
            self.ratio = volume.tr_s / self._tr
        # An image cannot be finished before half its own acquisition: such a header copies one field.
        told = volume.recon_s is not None and volume.recon_s >= self._tr / 2
        if told and not self.exact:
            self.exact = True
            self._seen.clear()  # what was guessed of earlier volumes is worth less
        delay = volume.recon_s if told and volume.recon_s is not None else self._tr + USUAL_DELAY
        bound_at = volume.readable_at - delay
        seen = Seen(volume.index, self._header_s(volume), bound_at, volume.arrived_at)
        if told or not self.exact:
            self._seen.append(seen)
        return float(self._zeros([seen])[0])

    def _header_s(self, volume: Volume) -> float:
        """Header time after the run's zero, s; NaN where it cannot be this volume's."""
        expected_s = volume.index * self._tr
        header_s = _whole_days(volume.acquired_s, expected_s)
        if self._header_zero is None and not math.isnan(header_s):
            # The scanner may count from an earlier run of the same series.
            early = header_s - expected_s * self.ratio
            self._header_zero = early if abs(early) > self._tr / 2 else 0.0
        header_s -= self._header_zero or 0.0
        return header_s if abs(header_s - expected_s) <= self._tr / 2 + 0.01 * expected_s else math.nan

    def zero(self) -> float:
        """Local time of the run's zero: the lower envelope, s."""
        return float(self._zeros(list(self._seen)).min())

    def line(self, upto_at: float) -> tuple[float, float | None]:
        """Local seconds per run second, and the spread of the files about the line (s; None for one).

        Parameters
        ----------
        upto_at : float
            Only volumes that had come by then are used, s on the local clock.
        """
        seen = [one for one in self._seen if one.arrived_at <= upto_at]
        if len(seen) < 2:
            return self.ratio, None
        seen.sort(key=lambda one: one.index)
        x = np.array([one.index for one in seen]) * self._tr
        header = np.array([one.header_s for one in seen])
        timed = ~np.isnan(header)
        slope = self.ratio
        if timed.sum() >= 2:
            slope = robust_line(x[timed], header[timed], slope, noise_floor=_HEADER_NOISE).slope
        zeros = self._zeros(seen)
        drift = self._drift(x, zeros)
        rest = zeros - drift * x
        rest -= np.median(rest)
        near = np.abs(rest) <= 4 * max(1.4826 * float(np.median(np.abs(rest))), 1e-4)
        return slope + drift, float(np.sqrt(np.mean(rest[near] ** 2)))

    def _zeros(self, seen: list[Seen]) -> NDArray[np.float64]:
        """Latest start of the run that each volume allows, (volume,)."""
        place = [s.index * self._tr * self.ratio if math.isnan(s.header_s) else s.header_s for s in seen]
        return np.array([s.bound_at for s in seen]) - np.array(place)

    def _drift(self, x: NDArray[np.float64], zeros: NDArray[np.float64]) -> float:
        """Seconds that the local clock gains on the header's in a second, by the envelope."""
        whole = len(x) // _BLOCK * _BLOCK
        if whole < _BLOCKS * _BLOCK:
            return 0.0
        blocks = zeros[:whole].reshape(-1, _BLOCK)
        middle = x[:whole].reshape(-1, _BLOCK)[np.arange(len(blocks)), blocks.argmin(1)]
        options = {"noise_floor": _BLOCK_NOISE, "slope_spread": _DRIFT_SPREAD}
        return robust_line(middle, blocks.min(1), 0.0, **options).slope


def _whole_days(seconds: float | None, expected_s: float) -> float:
    """Header time with the days put right that a clock of the day loses at midnight; NaN for none."""
    if seconds is None:
        return math.nan
    return seconds + _DAY * round((expected_s - seconds) / _DAY)
