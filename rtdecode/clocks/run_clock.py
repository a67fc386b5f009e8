"""One time line per run for EEG samples and fMRI volumes.

A `RunClock` takes a run's triggers and volumes as they come, and converts between run time and the local
clock. A run's zero is the start of its first volume. Triggers are placed on the acquisition grid by their
times, and the files of the volumes decide which volume the first trigger marks. Nothing is counted, so a lost
trigger shifts nothing. Without triggers, the run is placed by the headers' times; without these, by when the
files could be read; and without volumes, by the first EEG sample.
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

# By the files, a volume may seem to begin before its trigger by this fraction of a TR, or after it
# by the rest, which is the time that a file may take from the finished image into the folder.
_EARLY = 0.15
# Number of triggers in a row that take over a run after windows were cut on a line without triggers.
_TAKE_OVER = 5
# Most lines that are kept.
_LINES = 256
# No volume is readable before it was acquired, but stamps may be off by this much, s.
_SLACK = 0.02


class RunClock:
    """The time line of one run.

    Parameters
    ----------
    tr : Fraction or None
        Repetition time, s; None where the bundle has no fMRI.
    dummies : int
        Number of volumes at the start that zero is moved past.
    volumes_come : bool
        Whether volumes are expected. If so, triggers that do not follow each other at the TR place
        nothing. Otherwise the first trigger is zero, whatever follows it.
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
        # Lines by the run time up to which they may look; emptied by everything that can change one, and once
        # there are many.
        self._lines: dict[float, tuple[float, float, float | None]] = {}

    @property
    def is_placed(self) -> bool:
        """Whether the run's zero can be placed on the local clock."""
        # If no volumes are expected, the first trigger is enough, whatever follows it.
        alone = self._first_trigger is not None and not self._volumes_come
        return self._chain is not None or bool(self._arrivals) or alone or self._first_sample is not None

    @property
    def triggered(self) -> bool:
        """Whether the run has had any triggers, of whatever kind."""
        return self._total > 0

    @property
    def triggers(self) -> int:
        """Number of triggers that mark the start of a volume."""
        return self._chain.count if self._chain is not None else 0

    @property
    def extra_triggers(self) -> int:
        """Number of triggers that mark neither a volume nor a slice of this run."""
        return self._total - self._placed

    @property
    def newest_trigger(self) -> int:
        """Index of the newest trigger's volume, dummies included; -1 without triggers."""
        return self._chain.newest - self._shift if self._chain is not None else -1

    @property
    def source(self) -> str:
        """What the time line is based on: ``trigger``, ``header``, ``arrival`` or ``first-sample``."""
        if self._chain is not None:
            return "trigger"
        if self._arrivals:
            return self._arrivals.source
        return "trigger" if self._first_trigger is not None else "first-sample"

    def start_at(self, stamp: float) -> None:
        """Put zero at the first EEG sample, for runs with neither triggers nor volumes."""
        self._lines.clear()
        self._first_sample = stamp

    def freeze(self) -> None:
        """Fix the zero, because windows have been cut on it."""
        if self._frozen:
            return
        self._frozen = True
        self._zero = self._arrivals.zero() if self._arrivals else None
        # A locked train keeps its tolerance, so that it does not sort its triggers
        # into other chains.
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
        """Use a volume's header time, and the time at which its file could be read."""
        self._lines.clear()
        if self._tr is None:
            return
        zero = self._arrivals.add(volume)
        if self._zero is not None and zero < self._zero - self._tr / 2:
            self._zero = zero  # a file half a TR too early for the line proves the line wrong
        # Windows were cut before any volume came; the first volume then fixes the zero.
        if self._frozen and self._zero is None and self._chain is None:
            self._zero = zero
        self._settle()

    def take_back(self, stamp: float) -> list[tuple[float, str]]:
        """Forget the triggers from a time on, s, and return their times and labels for the next run."""
        self._lines.clear()
        pairs = [(s, label) for label, train in self._trains.items() for s in train.take_back(stamp)]
        self._total -= len(pairs)
        self._settle()
        return sorted(pairs)

    def to_local(self, seconds: NDArray[np.float64] | float, upto_s: float) -> NDArray[np.float64]:
        """Convert instants on the run's time line to the local clock.

        Parameters
        ----------
        seconds : float or (n,)
            Run time, s.
        upto_s : float
            Only data from before this run time is used, so that the answer does not depend on when it is
            asked for, and a replay cuts what the session cut.
        """
        zero, slope, _ = self._line(upto_s)
        return zero + slope * np.asarray(seconds, np.float64)

    def elapsed(self, local_at: float) -> float:
        """Convert an instant on the local clock to run time, s."""
        zero, slope, _ = self._line(math.inf)
        return (local_at - zero) / slope

    def fit(self) -> dict[str, Any]:
        """Return slope, offset and residual of the line and the counts of triggers, for the report."""
        report: dict[str, Any] = {"source": None, "slope_ppm": None, "offset_s": None, "residual_ms": None}
        report |= {"triggers": self.triggers, "extra_triggers": self.extra_triggers}
        report["slices_per_volume"] = self._slices if self._slices > 1 else None
        if not self.is_placed:
            return report
        zero, slope, residual = self._line(math.inf)
        report |= {"source": self.source, "offset_s": zero}
        if residual is not None:
            report |= {"slope_ppm": (slope - 1) * 1e6, "residual_ms": residual * 1e3}
        return report

    def _settle(self) -> None:
        """Decide which triggers mark volumes, and which volume the first of them marks."""
        # A train that sorted its triggers again, or gave them back, no longer has the chosen chain.
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
        # Triggers of scans that left no files, before the first volume, must not
        # outvote the run's own.
        since = self._zero_of_volumes() - self._tr if self._arrivals else -math.inf
        candidates = [best for train in self._trains.values() if (best := train.best(since)) is not None]
        chain, slices = max(candidates, key=lambda candidate: candidate[0].count, default=(None, 0))
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
        """Return the chain of the only trigger, if that can be the start of the first volume."""
        chain = next(t.chains[0] for t in self._trains.values() if t.chains)
        if not self._arrivals:
            return None if self._volumes_come else chain
        return chain if self._shift_of(chain.first_at) == 0 else None

    def _zero_of_volumes(self) -> float:
        return self._arrivals.zero() if self._zero is None else self._zero

    def _shift_of(self, origin_at: float) -> int:
        """Count the volumes between a trigger and the first volume; negative if the trigger came later."""
        assert self._tr is not None
        tr = self._tr * self._arrivals.ratio
        lead = self._zero_of_volumes() - origin_at
        if self._arrivals.exact:
            return math.floor(lead / tr + _EARLY)
        # Without the header's delay only impossibility counts: no file is readable before its
        # volume was acquired. The zero assumes the usual delay; added back, it gives the latest
        # start that is possible.
        possible = lead + USUAL_DELAY
        return 0 if possible > -_SLACK else min(round(lead / tr), math.floor(possible / tr))

    def _line(self, upto_s: float) -> tuple[float, float, float | None]:
        """Return zero on the local clock, local seconds per run second, and the residual (s)."""
        if upto_s not in self._lines:
            if len(self._lines) >= _LINES:
                self._lines.clear()
            self._lines[upto_s] = self._fit_line(upto_s)
        return self._lines[upto_s]

    def _fit_line(self, upto_s: float) -> tuple[float, float, float | None]:
        if self._chain is not None:
            return self._trigger_line(self._chain, upto_s)
        dummies = self._dummies * (self._tr or 0.0)
        if self._arrivals:
            # Volumes are chosen by when they arrived, so the run time is converted
            # to the local clock.
            zero = self._zero_of_volumes()
            slope, residual = self._arrivals.line(zero + (upto_s + dummies) * self._arrivals.ratio)
            return zero + dummies * slope, slope, residual
        first = self._first_trigger if self._first_trigger is not None else self._first_sample
        assert first is not None
        return first + dummies, 1.0, None

    def _trigger_line(self, chain: Chain, upto_s: float) -> tuple[float, float, float | None]:
        assert self._tr is not None
        index, stamp = chain.arrays()
        # A trigger counts from half a TR after its place. One at the very instant that is asked for
        # may come before the question or after it, and the answer must not depend on that.
        nominal = (index - self._shift - self._dummies) * self._tr
        used = max(1, int(np.sum(nominal <= upto_s - self._tr / 2)))
        line = robust_line(nominal[:used], stamp[:used], self._arrivals.ratio)
        return line if used > 1 else (line.offset, line.slope, None)
