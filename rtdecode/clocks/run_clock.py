"""One time line for EEG samples and fMRI volumes.

A run's zero is the start of its first volume. Triggers are placed on the acquisition grid by their
times, and the grid is pinned to the volumes by when their files could be read; nothing is counted,
so a lost trigger shifts nothing. Without triggers the headers' times place the run, without these the
files' arrival.
"""

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.clocks.arrivals import USUAL_DELAY, Arrivals
from rtdecode.clocks.lines import robust_line
from rtdecode.clocks.triggers import Chain, Train
from rtdecode.types import Volume

# A trigger may be seen before its volume began by this share of a TR, and no more.
_EARLY = 0.15
# So many triggers in a row take over a run that was placed by its volumes, once windows were cut.
_TAKE_OVER = 5
# No volume is readable before it was acquired; stamps may be off by this, s.
_SLACK = 0.02


class RunClock:
    """The time line of one run.

    Parameters
    ----------
    tr : Fraction or None
        Repetition time, s; None where the bundle has no fMRI.
    dummies : int
        Volumes at the start that zero is moved past.
    volumes_come : bool
        Whether volumes are expected: then triggers that do not follow each other at the TR place
        nothing. Otherwise the first trigger is zero, whatever comes.
    """

    def __init__(self, tr: Fraction | None, dummies: int = 0, *, volumes_come: bool = False) -> None:
        self._tr = None if tr is None else float(tr)
        self._dummies = dummies
        self._volumes_come = volumes_come
        self._trains: dict[str, Train] = {}
        self._arrivals = Arrivals(self._tr or 1.0)
        self._chain: Chain | None = None
        self._placed = self._slices = self._total = self._shift = 0
        self._first_trigger: float | None = None
        self._first_sample: float | None = None
        self._zero: float | None = None
        self._frozen = False
        self._lines: dict[float, tuple[float, float, float | None]] = {}

    @property
    def known(self) -> bool:
        """Whether the run's zero can be placed on the local clock."""
        alone = self._first_trigger is not None and not self._volumes_come
        return self._chain is not None or bool(self._arrivals) or alone or self._first_sample is not None

    @property
    def triggered(self) -> bool:
        """Whether the run has had triggers, of whatever kind."""
        return self._total > 0

    @property
    def triggers(self) -> int:
        """Triggers that mark a volume's start."""
        return self._chain.count if self._chain is not None else 0

    @property
    def extra_triggers(self) -> int:
        """Triggers that mark neither a volume nor a slice of this run."""
        return self._total - self._placed

    @property
    def newest_trigger(self) -> int:
        """Index of the newest trigger's volume, as the scanner counts them; -1 without triggers."""
        return self._chain.newest - self._shift if self._chain is not None else -1

    @property
    def source(self) -> str:
        """What the time line rests on: ``trigger``, ``header``, ``arrival`` or ``first-sample``."""
        if self._chain is not None:
            return "trigger"
        if self._arrivals:
            return self._arrivals.source
        return "trigger" if self._first_trigger is not None else "first-sample"

    def start_at(self, stamp: float) -> None:
        """Put zero at the first EEG sample, where there are neither triggers nor volumes."""
        self._lines.clear()
        self._first_sample = stamp

    def freeze(self) -> None:
        """Let the zero stand: windows have been cut on it."""
        if self._frozen:
            return
        self._frozen = True
        self._zero = self._arrivals.zero() if self._arrivals else None
        for train in self._trains.values():
            train.locked = True

    def add_trigger(self, stamp: float, label: str = "") -> None:
        """Place a trigger by its time, s on the local clock."""
        self._lines.clear()
        self._total += 1
        if self._first_trigger is None:
            self._first_trigger = stamp
        if self._tr is not None:
            self._trains.setdefault(label, Train(self._tr)).push(stamp)
            self._settle()

    def add_volume(self, volume: Volume) -> None:
        """Use a volume's header time, and when its file could be read."""
        self._lines.clear()
        if self._tr is None:
            return
        zero = self._arrivals.add(volume)
        if self._zero is not None and zero < self._zero - self._tr / 2:
            self._zero = zero  # half a TR too early for the line: the line was wrong
        if self._frozen and self._zero is None and self._chain is None:
            self._zero = zero
        self._settle()

    def take_back(self, stamp: float) -> list[tuple[float, str]]:
        """Forget the triggers from a time on, s; return times and labels: they belong to the next run."""
        self._lines.clear()
        pairs = [(s, label) for label, train in self._trains.items() for s in train.take_back(stamp)]
        self._total -= len(pairs)
        self._settle()
        return sorted(pairs)

    def to_local(self, seconds: NDArray[np.float64] | float, upto_s: float) -> NDArray[np.float64]:
        """Local clock of instants on the run's time line.

        Parameters
        ----------
        seconds : float or (n,)
            Run time, s.
        upto_s : float
            Only what came before this run time is used, so that the answer does not depend on when it
            was asked.
        """
        zero, slope, _ = self._line(upto_s)
        return zero + slope * np.asarray(seconds, np.float64)

    def elapsed(self, local_at: float) -> float:
        """Run time of an instant on the local clock, s."""
        zero, slope, _ = self._line(math.inf)
        return (local_at - zero) / slope

    def fit(self) -> dict[str, Any]:
        """Slope, offset and residual of the line, and what became of the triggers, for the report."""
        report: dict[str, Any] = {"source": None, "slope_ppm": None, "offset_s": None, "residual_ms": None}
        report |= {"triggers": self.triggers, "extra_triggers": self.extra_triggers}
        report["slices_per_volume"] = self._slices if self._slices > 1 else None
        if not self.known:
            return report
        zero, slope, residual = self._line(math.inf)
        report |= {"source": self.source, "offset_s": zero}
        if residual is not None:
            report |= {"slope_ppm": (slope - 1) * 1e6, "residual_ms": residual * 1e3}
        return report

    def _settle(self) -> None:
        """Decide which triggers mark volumes, and which volume the first of them marks."""
        train = next((t for t in self._trains.values() if self._chain in t.chains), None)
        if train is None or not self._frozen:
            self._choose()
            train = next((t for t in self._trains.values() if self._chain in t.chains), None)
        self._placed = 0
        if train is not None and self._chain is not None:
            train.locked = self._frozen
            self._placed = train.placed if self._slices > 1 else self._chain.count

    def _choose(self) -> None:
        assert self._tr is not None
        since = self._zero_of_volumes() - self._tr if self._arrivals else -math.inf
        found = [best for train in self._trains.values() if (best := train.best(since)) is not None]
        chain, slices = max(found, key=lambda one: one[0].count, default=(None, 0))
        if chain is None and self._total == 1:
            chain = self._lone()
            slices = 1
        if self._frozen and (chain is None or chain.count < _TAKE_OVER):
            chain = None
            slices = 0
        self._chain = chain
        self._slices = slices
        self._shift = self._shift_of(chain.first_at) if chain is not None and self._arrivals else 0

    def _lone(self) -> Chain | None:
        """The only trigger, if it can be the start of the first volume."""
        chain = next(t.chains[0] for t in self._trains.values() if t.chains)
        if not self._arrivals:
            return None if self._volumes_come else chain
        return chain if self._shift_of(chain.first_at) == 0 else None

    def _zero_of_volumes(self) -> float:
        return self._arrivals.zero() if self._zero is None else self._zero

    def _shift_of(self, origin_at: float) -> int:
        """Volumes between a trigger and the first volume; negative if the trigger came later."""
        assert self._tr is not None
        tr = self._tr * self._arrivals.ratio
        lead = self._zero_of_volumes() - origin_at
        if self._arrivals.exact:
            return math.floor(lead / tr + _EARLY)
        # Without the header's delay only impossibility counts: no file is readable before its volume
        # was acquired.
        possible = lead + USUAL_DELAY
        return 0 if possible > -_SLACK else min(round(lead / tr), math.floor(possible / tr))

    def _line(self, upto_s: float) -> tuple[float, float, float | None]:
        """Zero on the local clock, local seconds per run second, residual (s)."""
        if upto_s not in self._lines:
            self._lines[upto_s] = self._fit_line(upto_s)
        return self._lines[upto_s]

    def _fit_line(self, upto_s: float) -> tuple[float, float, float | None]:
        if self._chain is not None:
            return self._trigger_line(self._chain, upto_s)
        dummies = self._dummies * (self._tr or 0.0)
        if self._arrivals:
            zero = self._zero_of_volumes()
            slope, residual = self._arrivals.line(zero + (upto_s + dummies) * self._arrivals.ratio)
            return zero + dummies * slope, slope, residual
        first = self._first_trigger if self._first_trigger is not None else self._first_sample
        assert first is not None
        return first + dummies, 1.0, None

    def _trigger_line(self, chain: Chain, upto_s: float) -> tuple[float, float, float | None]:
        assert self._tr is not None
        index, stamp = chain.arrays()
        nominal = (index - self._shift - self._dummies) * self._tr
        used = max(1, int(np.sum(nominal <= upto_s - self._tr / 2)))
        line = robust_line(nominal[:used], stamp[:used], self._arrivals.ratio)
        return line if used > 1 else (line.offset, line.slope, None)
