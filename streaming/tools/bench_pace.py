"""How often ``rtdecode bench`` repeats each stage, and what it says of that meanwhile."""

import math
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import track

SAMPLES = 1000
_QUICK_SAMPLES = 40
# Time for each stage of a quick benchmark, beyond what a stage takes to be set up, s.
_QUICK_STAGE_S = 1.5


class Pace:
    """Repeat stages, with a bar of progress on stderr.

    Parameters
    ----------
    samples : int
        Repetitions of a stage.
    stage_s : float
        A stage ends after so long, once it was repeated as often as it must be.

    Attributes
    ----------
    samples : int
    """

    def __init__(self, samples: int, stage_s: float = math.inf) -> None:
        self.samples = samples
        self._stage_s = stage_s
        self.console = Console(stderr=True)

    @classmethod
    def of(cls, samples: int, *, quick: bool) -> "Pace":
        """The pace of the whole benchmark, or of one for a first impression."""
        return cls(min(samples, _QUICK_SAMPLES), _QUICK_STAGE_S) if quick else cls(samples)

    def repeat(self, count: int, stage: str, least: int = 1) -> Iterator[int]:
        """Count repetitions from 0 on, `least` of them however long they take.

        Parameters
        ----------
        count : int
        stage : str
            Name of the stage, for the bar.
        least : int
        """
        until = time.perf_counter() + self._stage_s
        for n in track(range(count), description=stage, console=self.console, transient=True):
            if n >= least and time.perf_counter() > until:
                break
            yield n
