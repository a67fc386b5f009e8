"""What the operator noted during a session: ``operator.tsv`` in its folder.

One line for each event that was marked and each label that a run was given, with the run, the time in it (s)
and the wall time. Events are numbered, and labels are words of a fixed list: nothing in the file can name a
person.
"""

import csv
import time
from dataclasses import dataclass
from pathlib import Path

from rtdecode.disk import private

NAME = "operator.tsv"
# The folder of the pictures that the operator kept.
SNAPSHOTS = "snapshots"
LABELS = ("repeated", "aborted", "localiser")
_HEAD = ("run", "run_s", "wall_time", "what")


@dataclass(frozen=True, slots=True)
class Moment:
    """When something was noted.

    Attributes
    ----------
    run : int
        Number of the newest run.
    run_s : float or None
        Time in it, s; None before the first run.
    wall_s : float
        Wall time, s.
    """

    run: int
    run_s: float | None
    wall_s: float


class OperatorLog:
    """Append lines to ``operator.tsv``; the file appears with the first one.

    Parameters
    ----------
    folder : Path
        The session's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._events = 0

    def mark(self, moment: Moment) -> str:
        """Note an event; return what was noted."""
        self._events += 1
        return self._add(moment, f"event {self._events}")

    def label(self, moment: Moment, label: str) -> str:
        """Note that a run is one of `LABELS`; return what was noted.

        Raises
        ------
        ValueError
            If there is no such label.
        """
        if label not in LABELS:
            raise ValueError(f"label {label!r}: one of {', '.join(LABELS)} was expected")
        return self._add(moment, label)

    def confirm(self, moment: Moment) -> str:
        """Note that the EEG of a changed source is the participant's; return what was noted."""
        return self._add(moment, "EEG source confirmed")

    def _add(self, moment: Moment, what: str) -> str:
        fresh = not self._path.exists()
        with private.open_file(self._path, "a", newline="") as file:
            lines = csv.writer(file, delimiter="\t", lineterminator="\n")
            if fresh:
                lines.writerow(_HEAD)
            seconds = "n/a" if moment.run_s is None else f"{moment.run_s:.3f}"
            wall_time = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(moment.wall_s))
            lines.writerow([moment.run, seconds, wall_time, what])
        return what
