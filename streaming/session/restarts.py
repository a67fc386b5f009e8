"""What follows when an acquisition process dies: whether it is started again, and which windows are new."""

import signal
from collections import deque
from typing import Any

from rtdecode.types import Window

# After so many deaths within so long, s, the acquisition is not started again.
_MAX_DEATHS = 3
_WITHIN = 60.0


class Restarts:
    """Count the deaths of the acquisition, and tell new windows from those that it had cut before.

    The next process is told of the triggers and volumes so far and cuts all windows again. Windows that were
    handed on before are dropped, and the clips of each run go on with that run's numbers.

    Attributes
    ----------
    report : list of dict
        For each death ``exit_code``, ``run_s`` and ``hole_s``; see `streaming.sinks.report.build`.
    """

    def __init__(self) -> None:
        self.report: list[dict[str, Any]] = []
        # The last deaths alone decide. As `_MAX_DEATHS` within `_WITHIN` end the session, `report` has two a
        # minute at most: 0.2 MB in 8 hours.
        self._died_at: deque[float] = deque(maxlen=_MAX_DEATHS)
        # The windows of each run and revision that were handed on, a bit each: 4 kB in 8 hours at one a
        # second.
        self._handed_on: dict[tuple[int, str], int] = {}
        self._first_clips: dict[int, int] = {}
        self._shift = 0
        self._newest_clip = -1

    def died(self, died_at: float, exit_code: int | None, elapsed: float | None) -> bool:
        """Note a death; return whether to start again.

        Parameters
        ----------
        died_at : float
            Local time, s.
        exit_code : int or None
            Exit code of the process; negative for the signal that killed it.
        elapsed : float or None
            Run time that the process told last, s.
        """
        self._died_at.append(died_at)
        run_s = None if elapsed is None else round(elapsed, 3)
        self.report.append({"exit_code": exit_code, "run_s": run_s, "hole_s": None})
        return sum(died_at - other < _WITHIN for other in self._died_at) < _MAX_DEATHS

    def back(self, back_at: float) -> float | None:
        """Note that data come in again; return how long none did, s, or None if that is known already."""
        if not self.report or self.report[-1]["hole_s"] is not None:
            return None
        self.report[-1]["hole_s"] = round(back_at - self._died_at[-1], 3)
        return self.report[-1]["hole_s"]

    def is_new(self, window: Window) -> bool:
        """Return whether a window was not handed on before, and note that it is now."""
        key = (window.run, window.revision)
        before = self._handed_on.get(key, 0)
        self._handed_on[key] = before | 1 << window.index
        return not before >> window.index & 1

    def clip(self, window: Window, counted: int) -> int:
        """Return the number of a window's clip in the session.

        Parameters
        ----------
        window : Window
            The window, cut by the newest acquisition.
        counted : int
            The number that this acquisition gave it. After a restart it may not know of the last run's
            previews, and number the clips of a later run from a lower number.
        """
        # A run gets its first number with its first window and keeps it. `_shift` is how much higher
        # the session's numbers are than those of this acquisition.
        local_first = counted - window.index
        if window.run not in self._first_clips:
            self._first_clips[window.run] = max(local_first + self._shift, self._newest_clip + 1)
        first = self._first_clips[window.run]
        self._shift = first - local_first
        self._newest_clip = max(self._newest_clip, first + window.index)
        return first + window.index


def cause(exit_code: int | None) -> str:
    """Say how a process ended."""
    if exit_code is None or exit_code >= 0:
        return f"exit code {exit_code}"
    # Signals of real time have no names but the first and the last.
    names = {number.value: number.name for number in signal.Signals}
    return f"killed by {names.get(-exit_code, f'signal {-exit_code}')}"
