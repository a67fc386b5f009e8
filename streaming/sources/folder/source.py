"""Turn a scanner's export folder into a stream of volumes.

Each poll lists new and changed files (`FolderScan`), queues them (`Queue`), decodes those that are due
(`Reader`), assembles slices where a file holds only one (`VolumeAssembler`), tells a restarted series from
its duplicates (`SeriesRestarts`), finds the statement that numbers the volumes (`VolumeNumbering`), and gives
each volume its run and index (`Runs`). No marker says that a file is complete: it is complete once its pixels
decode.
"""

import os
import time
from dataclasses import replace
from pathlib import Path

from rtdecode.types import Volume
from streaming.sources.folder.files import HalfError, counterparts, printable
from streaming.sources.folder.numbering import Arrival, VolumeNumbering
from streaming.sources.folder.pending import RESTLESS, Pending, Queue
from streaming.sources.folder.reader import Reader, Reading
from streaming.sources.folder.restart import SeriesRestarts
from streaming.sources.folder.scan import DEEPEST, FolderScan, Stamp
from streaming.sources.folder.series import Accept, Runs, SeriesRun
from streaming.sources.folder.volume_assembler import Stacked, VolumeAssembler
from streaming.sources.formats.image import Image, IncompleteError, Moments, NotAVolumeError, Plane
from streaming.sources.formats.nifti import split_number

# A file that cannot be decoded is listed as unusable this long after its last change, s. It counts as
# rejected earlier, after `patience_s`, and is still taken if it becomes whole later.
GIVE_UP = 30.0
# A poll starts no further file after this much processor time, or this much wall time, s. Processor
# time is the tighter limit because on a busy machine wall time passes without anything being read.
_POLL_S = 0.06
_POLL_MOST_S = 0.5
# Where the newest of the files that lay there at the start changed longer ago than this, no run is being
# exported, and the files tell nothing of when volumes were acquired: they may have been copied, s.
_OLD_S = 60.0
# A gap between polls longer than `_STALL` means that this machine was held up. No slice is then given
# up for `_CATCH_UP`, in which the files that arrived meanwhile can be found and read; both in s.
_STALL = 0.5
_CATCH_UP = 0.3


class FolderSource:
    """Deliver volumes as they become readable in a folder and its subfolders.

    Nothing is written, moved or locked. A file counts once, when it decodes. Until then it is tried
    again after each change, and otherwise at growing intervals. A file that is not a volume of a
    followed run is listed in `ignored` with the reason; it never ends a session.

    Parameters
    ----------
    directory : Path
        The export folder. It need not exist yet, and may vanish and come back.
    existing : str
        ``ignore`` skips the files that are in the folder now, and counts them; ``read`` takes them.
    series : int or None
        Take only runs that begin with this SeriesNumber.
    moco : bool
        Take the scanner's motion-corrected series instead of the plain one.
    include : str
        Part of the names of series that are not refused for their name alone.
    bound : bool
        Follow one kind of series (see `Runs`).
    accept : callable or None
        Maps (shape, affine, TR) of a series to the reason why it is not wanted, or None.
    exclude : Path or None
        A subfolder that is not searched: the program's own output.
    since : float or None
        With ``ignore``, files that changed at or after this wall-clock time (s) are taken all the same.

    Attributes
    ----------
    runs : Runs
        The runs that are followed, and their counts.
    existing : int
        Number of files that were skipped because they were there before.
    old : bool
        Whether the files that are read although they were there before are of an earlier time: no run is
        being exported. Their volumes count as readable when they are read.
    """

    def __init__(
        self,
        directory: Path,
        existing: str = "ignore",
        series: int | None = None,
        *,
        moco: bool = False,
        include: str = "",
        bound: bool = True,
        accept: Accept | None = None,
        exclude: Path | None = None,
        since: float | None = None,
    ) -> None:
        self.directory = directory
        self.runs = Runs(bound, series, accept)
        self.existing = 0
        self.old = False
        self._begun = existing == "ignore"
        self._scan = FolderScan(directory, exclude)
        self._reader = Reader(directory, moco, include, lambda: self.runs.voxels)
        self._stacks = VolumeAssembler()
        self._restarts = SeriesRestarts()
        self._numbering = VolumeNumbering()
        self._drained = False
        self._queue = Queue(self._reader.content)
        self._pending = self._queue.files
        # Of these each has one entry at most for a file that the folder has held.
        self._ignored: dict[str, str] = {}
        self._passed: dict[str, int] = {}
        self._firsts: dict[str, int] = {}
        self._rejected: set[str] = set()
        self._volumes = 0
        self._polled_at = self._resumed_at = -float("inf")
        self._looked_at = time.monotonic()
        if existing == "ignore":
            # Polled at minus infinity, so that the first regular poll lists everything again.
            stamps = self._scan.poll(-float("inf"))
            fresh = {n: s for n, s in stamps.items() if since is not None and s.changed_at >= since}
            self._passed = {name: stamp.size for name, stamp in stamps.items() if name not in fresh}
            self.existing = len(self._passed)
            for name, stamp in fresh.items():
                self._queue.put(name, stamp.content, self._looked_at, -float("inf"), again=False)

    @property
    def missing(self) -> bool:
        """Whether the folder is absent now."""
        return not self._scan.alive

    @property
    def state(self) -> str:
        """Describe in words what is in the folder instead of volumes."""
        if self.missing:
            return f"the folder {self.directory} is not there"
        # The polling thread may empty either list at any time, so each is read only once.
        if waiting := self.waiting:
            name, reason = waiting[-1]
            why = f" ({reason})" if reason else ""
            return f"{name} in {self.directory} is not readable yet{why}"
        if ignored := self.ignored:
            name, reason = ignored[-1]
            return f"{len(ignored)} files in {self.directory} are not usable; the last is {name}: {reason}"
        old = f" ({self.existing} were there before; --existing read takes them)" if self.existing else ""
        return f"no new volume in {self.directory}{old}"

    @property
    def ignored(self) -> list[tuple[str, str]]:
        """Files that are not volumes, each once, with the reason; names are relative to the folder."""
        # Iterate over a copy: the polling thread may change the dictionary meanwhile.
        return [(printable(name), reason) for name, reason in list(self._ignored.items())]

    @property
    def waiting(self) -> list[tuple[str, str]]:
        """Files that have not been decoded yet, with what is missing."""
        return [(printable(name), pending.reason) for name, pending in list(self._pending.items())]

    @property
    def unread(self) -> bool:
        """Whether some files have not been tried at all; the next polls continue with them."""
        return self._queue.unread()

    def counters(self) -> dict[str, int]:
        """Count the volumes and files so far by what became of them.

        `rejected_files` are images, or named like one, that gave no volume: they were refused, or are
        incomplete and have not changed for 1.5 TR. A second file for a volume counts as `duplicate`
        instead. `late` volumes came after they had been counted as lost, or from a file that took as
        long to become whole.
        """
        now_at = max(self._polled_at, time.monotonic())
        patience = max((run.patience_s for run in self.runs), default=RESTLESS)
        stuck = {
            name
            for name, pending in list(self._pending.items())
            if pending.promises(name) and now_at - pending.changed_at > patience
        }
        return {
            "volumes": self._volumes,
            "missing": sum(len(run.holes) for run in self.runs),
            "duplicate": self.runs.duplicate + len(self._stacks.doubled),
            "out_of_order": self.runs.out_of_order,
            "late": self.runs.late,
            "rejected_files": len(self._rejected | stuck),
            "ignored_files": len(self._ignored),
            "existing_files": self.existing,
            "vanished": self._scan.vanished,
        }

    def poll(self, now_at: float) -> list[Volume]:
        """Look once, without waiting, and return the volumes that have become readable.

        A poll stops after a fixed time, so that a full folder cannot hold up the caller; the next call
        continues with the remaining files.

        Parameters
        ----------
        now_at : float
            Local clock, s.

        Returns
        -------
        list of Volume
            In order of run and index.
        """
        began_at = time.monotonic()
        if min(began_at - self._looked_at, now_at - self._polled_at) > _STALL:
            self._resumed_at = began_at
        self._look(now_at)
        volumes = self._take(now_at, waits=True)
        # A slice whose file is still queued is not lost: first try all files, then give volumes up.
        if not self._queue.unread() and began_at - self._resumed_at >= _CATCH_UP:
            volumes += [
                volume for stacked in self._stacks.overdue(now_at) for volume in self._stacked(stacked)
            ]
            volumes += self._in_runs(self._numbering.overdue(now_at))
            self._note_refused()
        self._looked_at = time.monotonic()
        self._volumes += len(volumes)
        return self._ordered(volumes)

    def lost(self, now_at: float) -> list[tuple[SeriesRun, int, int]]:
        """Return the volumes that have been given up by now, each once: run, index, missing slices."""
        return [(run, *hole) for run in self.runs for hole in run.lost(now_at)]

    def drain(self) -> list[Volume]:
        """Read the files that were there at the first call, a few per call; return an empty list at the end.

        Nothing is waited for. Files that cannot be decoded now are listed in `ignored` at the end.
        """
        now = time.monotonic()
        if not self._drained:
            self._drained = True
            self._look(now)
        while self._queue.unread():
            if volumes := self._take(now, waits=False):
                self._volumes += len(volumes)
                return self._ordered(volumes)
        volumes = [volume for stacked in self._stacks.drain() for volume in self._stacked(stacked)]
        volumes += self._in_runs(self._numbering.drain())
        self._note_refused()
        for name, pending in list(self._pending.items()):
            self._ignore(name, pending.reason)
        self._volumes += len(volumes)
        return self._ordered(volumes)

    def _ordered(self, volumes: list[Volume]) -> list[Volume]:
        return sorted(volumes, key=lambda volume: (self.runs.of(volume).order, volume.index))

    def _look(self, now_at: float) -> None:
        self._polled_at = now_at
        # Read before the scan updates it: a file found now was absent at the previous full listing.
        seen_at = self._scan.seen_at
        stamps = self._scan.poll(now_at)
        if stamps and not self._begun:
            self._begun = True
            self.old = time.time() - max(stamp.changed_at for stamp in stamps.values()) > _OLD_S
            # Seen absent until it is read: its age says nothing.
            seen_at = float("inf") if self.old else seen_at
        for name in self._scan.too_deep:
            self._ignored[name] = f"a folder more than {DEEPEST} folders down, which is not searched"
        self._scan.too_deep.clear()
        for name, stamp in stamps.items():
            # A share that is mounted anew may show old files with other times. A file that was skipped
            # at the start and still has its size is still an old one.
            if self._passed.get(name) == stamp.size and self._scan.returning:
                continue
            self._passed.pop(name, None)
            self._queue.put(name, stamp.content, now_at, seen_at, self._reader.knows(name))

    def _take(self, now_at: float, waits: bool) -> list[Volume]:
        volumes: list[Volume] = []
        until = time.thread_time() + _POLL_S
        most_at = time.monotonic() + _POLL_MOST_S
        for name in self._queue.due(now_at):
            # Reading a header takes its data file out of the queue, which may be on this list too.
            if name in self._pending:
                volumes += self._try(name, now_at, waits)
            if time.thread_time() > until or time.monotonic() > most_at:
                break
        self._note_refused()
        return volumes

    def _try(self, name: str, now_at: float, waits: bool) -> list[Volume]:
        pending = self._pending[name]
        arrived_at = time.monotonic()
        try:
            reading = self._reader.read(name, now_at - pending.changed_at if waits else float("inf"))
        except FileNotFoundError:
            self._gone(name, pending, now_at)
            return []
        except HalfError as error:
            self._wait_for_header(name, str(error), now_at, arrived_at)
            return []
        except NotAVolumeError as error:
            self._ignore(name, str(error))
            return []
        except IncompleteError as error:
            self._postpone(name, str(error), now_at, arrived_at)
            return []
        except MemoryError:
            self._ignore(name, "this machine has not the memory that reading it takes")
            return []
        except OSError as error:
            self._postpone(name, error.strerror or type(error).__name__, now_at, arrived_at)
            return []
        return self._place(name, reading, now_at, arrived_at)

    def _gone(self, name: str, pending: Pending, now_at: float) -> None:
        """Drop a file that was deleted or renamed; keep it while the whole folder is away."""
        if os.path.isdir(self.directory):
            del self._pending[name]
            self._scan.forget(name)
        else:
            pending.tries = 1
            pending.retry_at = now_at
            pending.reason = "the folder has vanished"

    def _wait_for_header(self, name: str, reason: str, now_at: float, began_at: float) -> None:
        """Leave the data file of a pair to its header; if the header is there, try it again at once."""
        headers = [other for other in counterparts(name) if self._scan.knows(other)]
        if not headers:
            self._postpone(name, reason, now_at, began_at)
            return
        del self._pending[name]
        self._ignored.pop(name, None)
        for header in headers:
            if header in self._pending:
                self._pending[header].retry_at = now_at

    def _place(self, name: str, reading: Reading, now_at: float, arrived_at: float) -> list[Volume]:
        pending = self._pending[name]
        readable_at = _readable_at(reading.stamp, pending.absent_at, arrived_at)
        moments = Moments(readable_at, arrived_at, time.monotonic())
        for mate in reading.mates:
            self._pending.pop(mate, None)
            self._ignored.pop(mate, None)
        if isinstance(reading.images, Plane):
            self._finish(name, True)
            plane = replace(reading.images, uid=self._restarts.name(reading.images, arrived_at))
            stacks = self._stacks.push(plane, name, moments)
            return [volume for stacked in stacks for volume in self._stacked(stacked)]
        # A file of many volumes stays queued until it has given all that its header promises.
        pending.may_have_more = bool(reading.still_to_come and reading.images)
        if not reading.still_to_come:
            self._finish(name, bool(reading.images))
        elif pending.may_have_more:
            pending.reason = reading.still_to_come
            pending.absent_at = arrived_at
            pending.image = True
            pending.changed_at = pending.retry_at = pending.since = now_at
            pending.tries = 1
        else:
            self._postpone(name, reading.still_to_come, now_at, arrived_at)
        # A file that decoded at its first try cannot be late by itself.
        return self._placed(name, reading, moments, pending.since if pending.tries else None)

    def _finish(self, name: str, anew: bool) -> None:
        del self._pending[name]
        if anew:
            self._ignored.pop(name, None)
            self._rejected.discard(name)

    def _placed(self, name: str, reading: Reading, moments: Moments, since: float | None) -> list[Volume]:
        images = [] if isinstance(reading.images, Plane) else reading.images
        if reading.by_name:
            return [
                volume
                for image in images
                for volume in self._in_run(
                    Arrival(image, name, moments, since), self._first_number(name, image)
                )
            ]
        numbered: list[Arrival] = []
        for image in images:
            run_image = replace(image, uid=self._restarts.name(image, moments.arrived_at))
            numbered += self._numbering.push(Arrival(run_image, name, moments, since))
        return self._in_runs(numbered)

    def _in_runs(self, arrivals: list[Arrival]) -> list[Volume]:
        return [volume for arrival in arrivals for volume in self._in_run(arrival, 0)]

    def _in_run(self, arrival: Arrival, first: int) -> list[Volume]:
        """Place a volume in its run, whose first one has the number `first`, or list its file as ignored."""
        doubles = self.runs.duplicate
        image, name, moments, since = arrival
        placed = self.runs.place(image, printable(name), moments, first, since)
        if isinstance(placed, Volume):
            return [placed]
        self._ignored[name] = placed
        # Duplicates have a counter of their own; anything else that was not placed is a rejection.
        if self.runs.duplicate == doubles:
            self._rejected.add(name)
        return []

    def _stacked(self, stacked: Stacked) -> list[Volume]:
        """Place a volume that was assembled from slices; if it lacks some, keep its place as a hole."""
        if stacked.missing_slices:
            placed = self.runs.give_up(stacked.image, stacked.missing_slices, time.monotonic())
        else:
            placed = self.runs.place(stacked.image, printable(stacked.names[-1]), stacked.moments)
        if isinstance(placed, Volume):
            return [placed]
        self._ignored |= dict.fromkeys(stacked.names, placed)
        return []

    def _note_refused(self) -> None:
        """List the slices that did not become part of a volume, and the volumes that nothing places."""
        self._ignored.update(self._stacks.refused())
        for name, reason in self._numbering.refused():
            self._ignored[name] = reason
            self._rejected.add(name)

    def _first_number(self, name: str, image: Image) -> int:
        """Return the lowest number among the file names of a run, which is index 0."""
        if image.number is None:
            return 0
        if image.uid not in self._firsts:
            stem = split_number(name)[0]
            split = (split_number(other) for other in self._scan.files())
            self._firsts[image.uid] = min(n for s, n in split if s == stem and n is not None)
        return self._firsts[image.uid]

    def _postpone(self, name: str, reason: str, now_at: float, began_at: float) -> None:
        pending = self._pending[name]
        ended_at = time.monotonic()
        pending.reason = reason
        pending.absent_at = ended_at
        pending.may_have_more = False
        pending.image = pending.image or self._reader.image
        # What a header waits for is a change of its data file, so that is the one to watch.
        if pending.watched != self._reader.watched:
            pending.watched = self._reader.watched
            pending.content = self._reader.content(pending.watched) or (0, 0)
        if now_at - pending.changed_at >= GIVE_UP:
            self._ignore(name, f"{reason}, unchanged for {GIVE_UP:.0f} s")
            return
        pending.postpone(now_at, ended_at - began_at)

    def _ignore(self, name: str, reason: str) -> None:
        pending = self._pending.pop(name)
        # The reader describes the last file that it read, which may be another one.
        pending.image = pending.image or (self._reader.image and self._reader.watched == name)
        if pending.promises(name):
            self._rejected.add(name)
        self._ignored[name] = reason


def _readable_at(stamp: Stamp, absent_at: float, arrived_at: float) -> float:
    """Return the local time of a file's last change, s.

    The clock of a file server may be wrong, so the time is kept between when the file was last seen
    absent or incomplete and when it was read.
    """
    age = time.time() - stamp.changed_at
    return min(max(time.monotonic() - age, absent_at), arrived_at)
