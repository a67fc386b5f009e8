"""Write a run's files into a folder by the clock, as a scanner's export does, with all that goes wrong.

All that happens is a step with a run time: making a volume, writing a piece of a file, taking the folder
away, noting a fault. `Delivery` goes through the steps in order; making a volume plans its further ones.
"""

import heapq
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import IO, Any

from rtdecode.liblsl import pylsl
from rtdecode.phantom.body import delivery_faults as damage
from rtdecode.phantom.body.delivery_faults import DeliveryOutcome, Fault, FaultLog
from rtdecode.phantom.live.names import ExportedFile, ExportedRun, files, names, second_name
from rtdecode.phantom.session import AGAIN_S, PhantomSession

_PIECES = 4  # in which a file that grows in place is written
_AHEAD_S = 0.25  # by which a volume is made before its first byte is due


class Delivery:
    """One run's files, each written at its time.

    Parameters
    ----------
    session : PhantomSession
        The session that is exported.
    folder : Path
        Where to write; it must exist.
    run : ExportedRun
        What the files of the run have in common.
    trigger_at : float
        Start of the first volume; local clock, s.
    log : FaultLog
        Notes what happened to each file.
    stop : threading.Event
        Ends the run. A file that was begun is finished, and a folder that is away comes back.
    """

    def __init__(
        self,
        session: PhantomSession,
        folder: Path,
        run: ExportedRun,
        trigger_at: float,
        log: FaultLog,
        stop: threading.Event,
    ) -> None:
        self._session = session
        self._folder = folder
        self._run = run
        self._log = log
        self._stop = stop
        self._trigger_at = trigger_at
        self._away = False
        self._hidden = folder.with_name(f".{folder.name}.away")
        self._scanner = session.vendor.name
        self._steps: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def write_all(self) -> None:
        """Write the whole run.

        Raises
        ------
        OSError
            If a file cannot be written.
        """
        for index in range(self._session.volumes):
            fate = self._session.fates.get(index, DeliveryOutcome())
            begin = self._session.due_s(index) + fate.late_s - self._session.vendor.writing_s - _AHEAD_S
            self._at(begin, partial(self._prepare, index, fate))
        for start, stop, fault in damage.absences(self._session.faults):
            self._at(start, partial(self._vanish, fault, start, stop))
            self._at(stop, self._return)
        try:
            # After a stop nothing waits any more; each step decides by itself whether it is still done.
            while self._steps:
                due_s, _, act = heapq.heappop(self._steps)
                sleep_until(self._trigger_at + due_s, self._stop)
                act()
        finally:
            self._return()

    def _at(self, seconds: float, act: Callable[[], None]) -> None:
        """Plan a step; steps at the same run time keep their order."""
        heapq.heappush(self._steps, (seconds, next(self._order), act))

    def _root(self) -> Path:
        return self._hidden if self._away else self._folder

    def _prepare(self, index: int, fate: DeliveryOutcome) -> None:
        """Make a volume's files and plan their writing."""
        if self._stop.is_set():
            return
        exported: list[ExportedFile] = []
        slices = self._session.head.shape[2]
        if not fate.lost:
            absent = int(fate.pick * slices) if fate.hole else None
            exported = files(self._session, self._scanner, self._run, index, absent)
        hit = int(fate.pick * len(exported))
        for place, file in enumerate(exported):
            n_bytes = int(fate.cut * len(file.data)) if fate.cut is not None and place == hit else None
            done = self._done(index, fate, place, len(exported))
            slow = fate.slow_s if place == hit else 0.0
            self._plan_file(_Writing(file, n_bytes, self._session.vendor.renamed), done, slow, len(exported))
            if fate.again:
                again = ExportedFile(second_name(file.name, self._scanner), file.data)
                repeat = _Writing(again, n_bytes, self._session.vendor.renamed)
                self._plan_file(repeat, done + slow + AGAIN_S, 0.0, len(exported))
        for fault in fate.faults:
            detail = self._detail(index, fate, fault, exported, hit)
            self._at(
                self._session.due_s(index),
                partial(self._note, fault.kind, index * self._session.tr_s, detail),
            )

    def _done(self, index: int, fate: DeliveryOutcome, place: int, total: int) -> float:
        """Return when file `place` of a volume is whole, which for the last is the volume's own time."""
        return (
            self._session.due_s(index)
            + fate.late_s
            - self._session.vendor.writing_s * (1 - (place + 1) / total)
        )

    def _plan_file(self, writing: "_Writing", done: float, slow_s: float, total: int) -> None:
        """Plan the pieces of a file, the last of them when the file is to be whole."""
        span = self._session.vendor.writing_s / total
        # A volume's only file, or a slow one, grows in place; of many files each is written at once.
        pieces = _PIECES if total == 1 or slow_s else 1
        for piece in range(pieces):
            back = (span + slow_s) * (1 - piece / (pieces - 1)) if pieces > 1 else 0.0
            self._at(done + slow_s - back, partial(self._write, writing, piece, pieces))

    def _write(self, writing: "_Writing", piece: int, pieces: int) -> None:
        # After a stop, files that were begun are finished and no others are begun.
        if writing.file is not None or not self._stop.is_set():
            writing.write(self._root, piece, pieces)

    def _detail(
        self, index: int, fate: DeliveryOutcome, fault: Fault, exported: list[ExportedFile], hit: int
    ) -> dict[str, Any]:
        """Return what the log says of a fault, which is enough to check a session's report against."""
        called = names(self._session, self._scanner, self._run.series, index)
        detail = damage.volume_fault(index, fault, called[0]) | {"files": len(called)}
        if fate.is_readable:
            detail["whole_s"] = self._session.whole_s(index)
        if fault.kind == "slice-drop":
            place = int(fate.pick * self._session.head.shape[2])
            detail |= {"slice": place, "file": called[place if len(called) > 1 else 0]}
        if fault.kind == "file-truncate" and fate.cut is not None:
            size = len(exported[hit].data)
            detail |= {"file": exported[hit].name, "bytes": size, "kept_bytes": int(fate.cut * size)}
        if fault.kind == "file-slow":
            detail |= {"file": exported[hit].name, "slow_s": fate.slow_s}
        if fault.kind == "volume-late":
            detail["late_s"] = fault.duration_s
        if fault.kind == "volume-dup":
            detail["again"] = second_name(called[0], self._scanner)
        return detail

    def _vanish(self, fault: Fault, start: float, stop: float) -> None:
        if not self._stop.is_set():
            self._folder.rename(self._hidden)
            self._away = True
            detail = damage.folder_fault(start, stop, self._session.hidden(start, stop))
            self._note(fault.kind, start, detail)

    def _return(self) -> None:
        if self._away:
            self._hidden.rename(self._folder)
            self._away = False

    def _note(self, kind: str, t: float, detail: dict[str, Any]) -> None:
        if not self._stop.is_set():
            self._log.write(kind, t, detail)


@dataclass(slots=True)
class _Writing:
    """A file that is being written: `kept` bytes of it, or all."""

    source: ExportedFile
    n_bytes: int | None
    renamed: bool
    file: IO[bytes] | None = None

    def write(self, root: Callable[[], Path], piece: int, pieces: int) -> None:
        """Write one piece; the first opens the file, the last closes it and gives it its name.

        `root` is asked each time, as the folder may be away.
        """
        data = self.source.data[: self.n_bytes]
        size = -(-len(data) // pieces)
        name = Path(self.source.name)
        hidden = name.with_name(f"{name.name}.tmp") if self.renamed else name
        if self.file is None:
            if len(name.parts) > 1:
                (root() / name.parent).mkdir(exist_ok=True)
            # Unbuffered, so that a reader sees each piece at once.
            self.file = (root() / hidden).open("wb", buffering=0)
        self.file.write(data[piece * size : (piece + 1) * size])
        if piece == pieces - 1:
            self.file.close()
            if self.renamed:
                (root() / hidden).rename(root() / name)


def sleep_until(until_at: float, stop: threading.Event) -> bool:
    """Wait for an instant of the local clock; return False if the session was stopped before."""
    while (remaining_s := until_at - pylsl.local_clock()) > 0:
        if stop.wait(remaining_s):
            return False
    return not stop.is_set()
