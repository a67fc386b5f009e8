"""What the acquisition has told a session: new windows, the newest status, and what a restart needs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rtdecode.errors import RtDecodeError
from rtdecode.types import Window
from rtdecode.windows.assembler import Counters
from streaming.decode.deadline import Job
from streaming.session.options import ResumeState
from streaming.session.restarts import Restarts, cause
from streaming.session.resume import Items
from streaming.status import Status


class Receiver:
    """Take windows and statuses in the order in which the acquisition sent them.

    Parameters
    ----------
    fmri_dir : Path or None
        The scanner's export folder, for what is said of files that lay in it.

    Attributes
    ----------
    status : Status
        The newest one, with every run of the session and without items.
    restarts : Restarts
        Deaths of the acquisition so far.
    told : bool
        Whether a status has come.
    windows_came : bool
        Whether a window has come.
    ended : bool
        Whether the acquisition has sent its last message.
    """

    def __init__(self, fmri_dir: Path | None) -> None:
        self._fmri_dir = fmri_dir
        # All triggers and volumes so far, without pixels: what a restarted acquisition has to know.
        self._items = Items()
        self._runs: dict[int, dict[str, Any]] = {}
        self._simulated = False
        self.status = Status()
        self.restarts = Restarts()
        self.told = False
        self.windows_came = False
        self.ended = False

    @property
    def has_begun(self) -> bool:
        """Whether a run has begun."""
        return self.status.elapsed is not None

    def take_window(self, window: Window, head: Mapping[str, Any]) -> Job | None:
        """Return the job of a window; None for one that came before a restart already.

        Parameters
        ----------
        window : Window
            The window, as it was received.
        head : mapping
            ``clip``, ``costs`` and ``backlog``, as the acquisition sends them with the window.
        """
        # A restarted acquisition cuts every window again, also those that came before it died.
        if not self.restarts.is_new(window):
            return None
        self.windows_came = True
        clip = self.restarts.clip(window, head["clip"])
        return Job(window, clip, head["costs"], head["backlog"], len(self.restarts.report))

    def take_status(self, status: Status, now_at: float, *, ends: bool = False) -> list[str]:
        """Take a status; return what to say of it.

        Parameters
        ----------
        status : Status
            The status, as it was received.
        now_at : float
            Local clock, s.
        ends : bool
            Whether it is the last one.
        """
        sentences = []
        if status.existing and not self.told:
            sentences.append(f"{status.existing} files that were already in {self._fmri_dir} are ignored")
        sentences += status.notes
        if status.simulated and not self._simulated:
            self._simulated = True
            sentences.append("Simulated participant: a source says so.")
        hole_s = self.restarts.back(now_at) if status.heard else None
        if hole_s is not None:
            sentences.append(f"the acquisition is receiving again, after {hole_s:.1f} s without data")
        self._items.add(status.items)
        # Emptied here, as `_items` has them now.
        self.status = replace(with_runs(self._runs, status), items=[])
        self.told = True
        self.ended = ends
        return sentences

    def died(self, now_at: float, exit_code: int | None, *, handing_over: bool) -> RtDecodeError | None:
        """Note that the acquisition died; return the fault if it is not to be started again, else None.

        It is not if it died too often, or was about to end anyway.
        """
        again = self.restarts.died(now_at, exit_code, self.status.elapsed)
        if again and not handing_over:
            return None
        self.ended = True
        often = "" if again else f" {len(self.restarts.report)} times, the last ones within a minute"
        return RtDecodeError(
            "acquisition-process-died",
            "the acquisition process ended unexpectedly{restart_history} ({cause}); what it "
            "printed above says why. Everything decoded so far was written. Start the session "
            "again.",
            reason=f"the acquisition process ended unexpectedly{often} ({cause(exit_code)})",
            restart_history=often,
            cause=cause(exit_code),
        )

    def past(self) -> ResumeState:
        """Return what the next acquisition has to know."""
        return ResumeState(self._items.all(), self.status)


def with_runs(runs_by_number: dict[int, dict[str, Any]], status: Status) -> Status:
    """Return a status with every run of the session: a message has room for the newest runs only.

    Parameters
    ----------
    runs_by_number : dict
        What earlier statuses said of each run, by its number; updated here.
    status : Status
        As it came from the acquisition.
    """
    runs_by_number |= {run["run"]: run for run in status.counters["runs"]}
    counters: Counters = {**status.counters, "runs": list(runs_by_number.values())}
    return replace(status, counters=counters)
