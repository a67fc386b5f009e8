"""Repeat the stages of ``rtdecode bench`` as often as is wanted, with a progress bar."""

import math
import time
from collections.abc import Iterator

from rtdecode import terminal

SAMPLES = 1000
_QUICK_SAMPLES = 40
# Time for each stage of a quick benchmark, s, beyond the time to set it up.
_QUICK_STAGE_S = 1.5


class Pace:
    """Repeat stages, with a progress bar on stderr.

    Parameters
    ----------
    samples : int
        Repetitions of a stage.
    stage_s : float
        Time after which a stage ends, provided it was repeated often enough.

    Attributes
    ----------
    samples : int
        As given.
    """

    def __init__(self, samples: int, stage_s: float = math.inf) -> None:
        self.samples = samples
        self._stage_s = stage_s
        self.console = terminal.console(stderr=True)

    @classmethod
    def of(cls, samples: int, *, quick: bool) -> "Pace":
        """Make the pace of a whole benchmark or of a quick one."""
        return cls(min(samples, _QUICK_SAMPLES), _QUICK_STAGE_S) if quick else cls(samples)

    def repeat(self, count: int, stage: str, least: int = 1) -> Iterator[int]:
        """Count repetitions from 0 on.

        Parameters
        ----------
        count : int
            Largest number of repetitions.
        stage : str
            Name of the stage, for the bar.
        least : int
            Repetitions that are made however long they take.
        """
        until = time.perf_counter() + self._stage_s
        for n in terminal.track(range(count), stage, console=self.console, transient=True):
            if n >= least and time.perf_counter() > until:
                break
            yield n
