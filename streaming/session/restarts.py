"""An acquisition process that died: whether it is started again, and what the next one cuts anew."""

import signal
from typing import Any

from rtdecode.types import Window

# So many deaths within so long are no accident, s.
_MOST = 3
_WITHIN = 60.0


class Restarts:
    """Count the deaths of the acquisition, and tell apart the windows that were cut before one.

    The next process is told of the triggers and volumes so far, and cuts all windows again: those that were
    handed on before are dropped, and clips keep the numbers that their runs have.
    """

    def __init__(self) -> None:
        self.report: list[dict[str, Any]] = []
        self._died_at: list[float] = []
        self._handed_on: set[tuple[int, int, str]] = set()
        self._first_clips: dict[int, int] = {}
        self._shift = 0
        self._newest_clip = -1

    def died(self, at: float, exit_code: int | None, elapsed: float | None) -> bool:
        """Note a death; whether to start again.

        Parameters
        ----------
        at : float
            Local time, s.
        exit_code : int or None
            Of the process; the negative number of a signal.
        elapsed : float or None
            Run time that the process told last, s.
        """
        self._died_at.append(at)
        run_s = None if elapsed is None else round(elapsed, 3)
        self.report.append({"exit_code": exit_code, "run_s": run_s, "hole_s": None})
        return sum(at - other < _WITHIN for other in self._died_at) < _MOST

    def back(self, at: float) -> float | None:
        """Note that something came in again; how long nothing did, s; None if that was known."""
        if not self.report or self.report[-1]["hole_s"] is not None:
            return None
        self.report[-1]["hole_s"] = round(at - self._died_at[-1], 3)
        return self.report[-1]["hole_s"]

    def is_new(self, window: Window) -> bool:
        """Whether a window was not handed on before; it is from now on."""
        key = (window.run, window.index, window.revision)
        fresh = key not in self._handed_on
        self._handed_on.add(key)
        return fresh

    def clip(self, window: Window, counted: int) -> int:
        """Number of a window's clip in the session.

        Parameters
        ----------
        window : Window
        counted : int
            The number that this acquisition gave it: after a restart it may not know of the last run's
            previews, and count a later run's clips from fewer.
        """
        theirs = counted - window.index
        if window.run not in self._first_clips:
            self._first_clips[window.run] = max(theirs + self._shift, self._newest_clip + 1)
        first = self._first_clips[window.run]
        self._shift = first - theirs
        self._newest_clip = max(self._newest_clip, first + window.index)
        return first + window.index


def cause(exit_code: int | None) -> str:
    """Say how a process ended."""
    if exit_code is not None and exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"
