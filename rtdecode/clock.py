"""One time line for EEG samples and fMRI volumes.

A run's zero is the start of its first volume. Triggers are placed on the acquisition grid by their
times, and the grid is pinned to the volumes by when their files could be read; nothing is counted,
so a lost trigger shifts nothing.
"""

import math
from collections import deque
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from rtdecode.types import Volume

# Fewer triggers than this do not bear a slope: the nominal TR is taken.
_SLOPE_NEEDS = 20
# Time from a volume's last readout to its readable file, where no header tells (s): the middle of
# the 0 to 1.3 s seen in scanner headers.
_USUAL_DELAY = 0.65


class Dejitter:
    """Sampling times of a steady amplifier from its jittered stamps, causally.

    The offset between stamp and nominal sample time is followed by an exponential mean, sample by
    sample, so the way the samples were cut into chunks does not matter.

    Parameters
    ----------
    sfreq : float
        Nominal rate, Hz.
    seconds : float
        Time constant, s.
    """

    def __init__(self, sfreq: float, seconds: float = 10.0) -> None:
        self._sfreq = sfreq
        self._gain = 1.0 / max(1.0, sfreq * seconds)
        self.reset()

    def reset(self) -> None:
        """Start again, as after a jump."""
        self._base = 0.0
        self._count = 0
        self._state: NDArray[np.float64] | None = None
        self.offset = 0.0

    def expected(self) -> float | None:
        """Time at which the next sample is due; None before the first."""
        if self._state is None:
            return None
        return self._base + self._count / self._sfreq + self.offset

    def push(self, stamps: NDArray[np.float64]) -> NDArray[np.float64]:
        """Smooth the stamps of the next samples, (sample,) s -> (sample,) s."""
        from scipy import signal

        if self._state is None:
            self._base = float(stamps[0])
            self._state = np.zeros(1)
        nominal = self._base + (self._count + np.arange(len(stamps))) / self._sfreq
        keep = [self._gain], [1.0, self._gain - 1.0]
        smooth, self._state = signal.lfilter(*keep, stamps - nominal, zi=self._state)
        self._count += len(stamps)
        self.offset = float(smooth[-1])
        return nominal + smooth


class RunClock:
    """The time line of one run.

    Parameters
    ----------
    tr : Fraction or None
        Repetition time, s; None where the bundle has no fMRI.

    Attributes
    ----------
    source : str
        ``trigger``, ``header`` (file times with the header's reconstruction delay), ``arrival``
        (file times alone) or ``first-sample``.
    """

    def __init__(self, tr: Fraction | None, dummies: int = 0) -> None:
        self._tr = None if tr is None else float(tr)
        self._dummies = dummies
        self._triggers: dict[int, float] = {}
        self._shift = 0
        self._starts: deque[tuple[float, bool]] = deque(maxlen=50)
        self._first_sample: float | None = None
        self._frozen = False
        self._lines: dict[float, tuple[float, float, float | None]] = {}
        self.extra_triggers = 0

    @property
    def known(self) -> bool:
        """Whether the run's zero can be placed on the local clock."""
        return bool(self._triggers or self._starts or self._first_sample is not None)

    @property
    def triggered(self) -> bool:
        """Whether the run has triggers."""
        return bool(self._triggers)

    @property
    def triggers(self) -> int:
        """Triggers placed on the grid."""
        return len(self._triggers)

    @property
    def newest_trigger(self) -> int:
        """Index of the newest trigger's volume, as the scanner counts them; -1 without triggers."""
        return max(self._triggers) - self._shift if self._triggers else -1

    @property
    def source(self) -> str:
        """What the time line rests on."""
        if self._triggers:
            return "trigger"
        if self._starts:
            return "header" if self._starts[-1][1] else "arrival"
        return "first-sample"

    def start_at(self, stamp: float) -> None:
        """Put zero at the first EEG sample, where there are neither triggers nor volumes."""
        self._lines.clear()
        self._first_sample = stamp

    def freeze(self) -> None:
        """Let the zero stand: windows have been cut on it."""
        self._frozen = True

    def add_trigger(self, stamp: float) -> None:
        """Place a volume trigger by its time, s on the local clock."""
        self._lines.clear()
        if self._tr is None:
            if self._first_sample is None:
                self._first_sample = stamp
            return
        if not self._triggers:
            self._shift = round((self._zero_of_volumes() - stamp) / self._tr) if self._starts else 0
            self._triggers[0] = stamp
            return
        origin = self._triggers[min(self._triggers)] - min(self._triggers) * self._tr
        index = round((stamp - origin) / self._tr)
        if index in self._triggers or abs(stamp - origin - index * self._tr) > self._tr / 4:
            self.extra_triggers += 1
            return
        self._triggers[index] = stamp

    def add_volume(self, volume: Volume) -> None:
        """Use the time a volume's file could be read to pin the trigger grid to the volumes."""
        self._lines.clear()
        if self._tr is None:
            return
        delay = volume.recon_s if volume.recon_s is not None else self._tr + _USUAL_DELAY
        self._starts.append(
            (volume.readable_at - delay - volume.index * self._tr, volume.recon_s is not None)
        )
        if not self._triggers or self._frozen:
            return
        lead = self._zero_of_volumes() - self._origin()
        if volume.recon_s is None:
            # Without the header's delay only impossibility counts: no file is readable before
            # its volume was acquired.
            lead = min(lead + _USUAL_DELAY, 0.0)
            self._shift = self._shift if lead > -0.02 else math.floor(lead / self._tr)
        else:
            self._shift = round(lead / self._tr)

    def to_local(self, seconds: NDArray[np.float64] | float, upto_s: float) -> NDArray[np.float64]:
        """Local clock of instants on the run's time line.

        Parameters
        ----------
        seconds : float or (n,)
            Run time, s.
        upto_s : float
            Only triggers before this run time are used, so that the answer does not depend on
            when it was asked.
        """
        zero, slope, _ = self._line(upto_s)
        return zero + slope * np.asarray(seconds, np.float64)

    def elapsed(self, local_at: float) -> float:
        """Run time of an instant on the local clock, s."""
        zero, slope, _ = self._line(math.inf)
        return (local_at - zero) / slope

    def fit(self) -> dict[str, float | str | None]:
        """Slope, offset and residual of the line, for the report."""
        if not self.known:
            return {"source": None, "slope_ppm": None, "offset_s": None, "residual_ms": None}
        zero, slope, residual = self._line(math.inf)
        return {
            "source": self.source,
            "slope_ppm": None if residual is None else (slope - 1) * 1e6,
            "offset_s": zero,
            "residual_ms": None if residual is None else residual * 1e3,
        }

    def _zero_of_volumes(self) -> float:
        return min(start for start, _ in self._starts)

    def _origin(self) -> float:
        assert self._tr is not None
        first = min(self._triggers)
        return self._triggers[first] - first * self._tr

    def _line(self, upto_s: float) -> tuple[float, float, float | None]:
        """Zero on the local clock, local seconds per run second, residual (s)."""
        if upto_s not in self._lines:
            self._lines[upto_s] = self._fit_line(upto_s)
        return self._lines[upto_s]

    def _fit_line(self, upto_s: float) -> tuple[float, float, float | None]:
        if self._triggers:
            return self._trigger_line(upto_s)
        dummies = self._dummies * (self._tr or 0.0)
        if self._starts:
            return self._zero_of_volumes() + dummies, 1.0, None
        assert self._first_sample is not None
        return self._first_sample + dummies, 1.0, None

    def _trigger_line(self, upto_s: float) -> tuple[float, float, float | None]:
        assert self._tr is not None
        index = np.array(sorted(self._triggers), np.float64)
        stamp = np.array([self._triggers[int(i)] for i in index])
        nominal = (index - self._shift - self._dummies) * self._tr
        used = nominal <= upto_s - self._tr / 2
        if not used.any():
            used[0] = True
        nominal, stamp = nominal[used], stamp[used]
        offset = float(np.median(stamp - nominal))
        slope = 1.0
        if len(nominal) >= _SLOPE_NEEDS:
            near = np.abs(stamp - nominal - offset) < self._tr / 4
            slope, offset = (float(v) for v in np.polyfit(nominal[near], stamp[near], 1))
        residual = float(np.sqrt(np.mean((stamp - offset - slope * nominal) ** 2)))
        return offset, slope, residual
