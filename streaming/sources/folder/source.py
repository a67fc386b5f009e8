"""A scanner's export folder as a source of volumes: complete means decoded."""

import os
import time
from dataclasses import replace
from pathlib import Path

from rtdecode.types import Volume
from streaming.sources.folder.files import HalfError, counterparts, shown
from streaming.sources.folder.pending import RESTLESS, Pending, Queue
from streaming.sources.folder.reader import Reader, Reading
from streaming.sources.folder.restart import SeriesRestarts
from streaming.sources.folder.scan import FolderScan, Stamp
from streaming.sources.folder.series import Accept, Runs, SeriesRun
from streaming.sources.folder.stack import Stacked, Stacks
from streaming.sources.formats.image import Image, IncompleteError, Moments, NotAVolumeError, Plane
from streaming.sources.formats.nifti import split_number

# A file that cannot be decoded is given up this long after its last change, s; see also `patience_s`.
GIVE_UP = 30.0
# A poll begins no file after this time of the processor, and by the clock, s: a busy machine still gets on.
_POLL_S = 0.06
_POLL_MOST_S = 0.5
# When nobody has looked for so long (a busy machine), nothing is given up before what has come meanwhile
# had so long to be seen, s.
_STALL = 0.5
_CATCH_UP = 0.3


class FolderSource:
    """Volumes as they become readable in a folder and its subfolders.

    Nothing is written, moved or locked. A file counts once, when it decodes; until then it is tried
    again, at each change and with growing pauses between. What is no volume of a followed run is
    listed in `ignored` with the reason, and never ends a session.

    Parameters
    ----------
    directory : Path
        May not exist yet, may vanish and come back.
    existing : str
        ``ignore`` passes over the files that lie there now and counts them; ``read`` takes them.
    series : int or None
        Take only runs that begin with this SeriesNumber.
    moco : bool
        Take the scanner's motion-corrected series instead of the plain one.
    bound : bool
        Follow one kind of series (see `Runs`).
    accept : callable or None
        Maps (shape, affine, TR) of a series to the reason why it is not wanted, or None.
    exclude : Path or None
        A subfolder that is not looked into: the program's own output.
    since : float or None
        With ``ignore``, files that changed from this wall time on are taken all the same, s.

    Attributes
    ----------
    runs : Runs
    existing : int
        Files that were passed over.
    """

    def __init__(
        self,
        directory: Path,
        existing: str = "ignore",
        series: int | None = None,
        *,
        moco: bool = False,
        bound: bool = True,
        accept: Accept | None = None,
        exclude: Path | None = None,
        since: float | None = None,
    ) -> None:
        self.directory = directory
        self.runs = Runs(bound, series, accept)
        self.existing = 0
        self._scan = FolderScan(directory, exclude)
        self._reader = Reader(directory, moco)
        self._stacks = Stacks()
        self._restarts = SeriesRestarts()
        self._drained = False
        self._queue = Queue(self._reader.content)
        self._pending = self._queue.files
        self._ignored: dict[str, str] = {}
        self._passed: dict[str, int] = {}
        self._firsts: dict[str, int] = {}
        self._rejected: set[str] = set()
        self._volumes = 0
        self._polled_at = self._resumed_at = -float("inf")
        self._looked_at = time.monotonic()
        if existing == "ignore":
            stamps = self._scan.poll(-float("inf"))
            fresh = {n: s for n, s in stamps.items() if since is not None and s.changed_at >= since}
            self._passed = {name: stamp.size for name, stamp in stamps.items() if name not in fresh}
            self.existing = len(self._passed)
            for name, stamp in fresh.items():
                self._queue.put(name, stamp.content, self._looked_at, -float("inf"), again=False)

    @property
    def missing(self) -> bool:
        """Whether there is no such folder now."""
        return not self._scan.alive

    @property
    def state(self) -> str:
        """What is seen in the folder instead of volumes, in words."""
        if self.missing:
            return f"the folder {self.directory} is not there"
        # The thread that polls may empty both lists meanwhile: each is looked at once.
        if waiting := self.waiting:
            name, reason = waiting[-1]
            why = f" ({reason})" if reason else ""
            return f"{name} in {self.directory} is not readable yet{why}"
        if ignored := self.ignored:
            name, reason = ignored[-1]
            return f"{len(ignored)} files in {self.directory} are of no use, the last {name}: {reason}"
        old = f" ({self.existing} lay there before: --existing read takes them)" if self.existing else ""
        return f"no new volume in {self.directory}{old}"

    @property
    def ignored(self) -> list[tuple[str, str]]:
        """Files that are no volumes, each once, with the reason; names relative to the folder."""
        return [(shown(name), reason) for name, reason in list(self._ignored.items())]

    @property
    def waiting(self) -> list[tuple[str, str]]:
        """Files that have not been decoded yet, with what is wanting."""
        return [(shown(name), pending.reason) for name, pending in list(self._pending.items())]

    @property
    def unread(self) -> bool:
        """Whether there are files that have not been tried at all: the next polls go on with them."""
        return self._queue.unread()

    def counters(self) -> dict[str, int]:
        """Volumes and files so far, by what became of them.

        `rejected_files` are those that are images, or are named like one, and gave no volume: refused,
        or incomplete and unchanged for 1.5 TR now. A second file for a volume is a `duplicate` instead.
        `late` volumes came after they had counted as lost, or from a file that took as long.
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

        Parameters
        ----------
        now_at : float
            Local clock, s.

        Returns
        -------
        list of Volume
            Of some files at most, in order of run and index; the next call goes on with the rest.
        """
        began_at = time.monotonic()
        if min(began_at - self._looked_at, now_at - self._polled_at) > _STALL:
            self._resumed_at = began_at
        self._look(now_at)
        found = self._take(now_at, waits=True)
        if not self._queue.unread() and began_at - self._resumed_at >= _CATCH_UP:
            found += [volume for stacked in self._stacks.overdue(now_at) for volume in self._stacked(stacked)]
        self._looked_at = time.monotonic()
        self._volumes += len(found)
        return self._ordered(found)

    def lost(self, now_at: float) -> list[tuple[SeriesRun, int, int]]:
        """Volumes that are given up by now, each once: run, index, missing slices."""
        return [(run, *hole) for run in self.runs for hole in run.lost(now_at)]

    def drain(self) -> list[Volume]:
        """Read what lay there at the first call: some files a call, at last none.

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
        self._note_refused()
        for name, pending in list(self._pending.items()):
            self._ignore(name, pending.reason)
        self._volumes += len(volumes)
        return self._ordered(volumes)

    def _ordered(self, volumes: list[Volume]) -> list[Volume]:
        return sorted(volumes, key=lambda volume: (self.runs.of(volume).order, volume.index))

    def _look(self, now_at: float) -> None:
        self._polled_at = now_at
        seen_at = self._scan.seen_at
        for name, stamp in self._scan.poll(now_at).items():
            if self._passed.get(name) == stamp.size and self._scan.returning:
                continue
            self._passed.pop(name, None)
            self._queue.put(name, stamp.content, now_at, seen_at, self._reader.knows(name))

    def _take(self, now_at: float, waits: bool) -> list[Volume]:
        found: list[Volume] = []
        until = time.thread_time() + _POLL_S
        most_at = time.monotonic() + _POLL_MOST_S
        for name in self._queue.due(now_at):
            if name in self._pending:
                found += self._try(name, now_at, waits)
            if time.thread_time() > until or time.monotonic() > most_at:
                break
        self._note_refused()
        return found

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
        except OSError as error:
            self._postpone(name, error.strerror or type(error).__name__, now_at, arrived_at)
            return []
        return self._place(name, reading, now_at, arrived_at)

    def _gone(self, name: str, pending: Pending, now_at: float) -> None:
        """Drop a file that was deleted or renamed; keep it in mind while the whole folder is away."""
        if os.path.isdir(self.directory):
            del self._pending[name]
            self._scan.forget(name)
        else:
            pending.tries = 1
            pending.retry_at = now_at
            pending.reason = "the folder has vanished"

    def _wait_for_header(self, name: str, reason: str, now_at: float, began_at: float) -> None:
        """Leave a pair's data to its header, if that is there: it is tried again at once."""
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
        pending.more = bool(reading.rest and reading.images)
        if not reading.rest:
            self._finish(name, bool(reading.images))
        elif pending.more:
            pending.reason = reading.rest
            pending.absent_at = arrived_at
            pending.image = True
            pending.changed_at = pending.retry_at = pending.since = now_at
            pending.tries = 1
        else:
            self._postpone(name, reading.rest, now_at, arrived_at)
        return self._placed(name, reading, moments, pending.since if pending.tries else None)

    def _finish(self, name: str, anew: bool) -> None:
        del self._pending[name]
        if anew:
            self._ignored.pop(name, None)
            self._rejected.discard(name)

    def _placed(self, name: str, reading: Reading, moments: Moments, since: float | None) -> list[Volume]:
        volumes = []
        doubles = self.runs.duplicate
        images = [] if isinstance(reading.images, Plane) else reading.images
        for image in images:
            first = self._first_number(name, image) if reading.by_name else 0
            uid = image.uid if reading.by_name else self._restarts.name(image, moments.arrived_at)
            placed = self.runs.place(replace(image, uid=uid), shown(name), moments, first, since)
            if isinstance(placed, Volume):
                volumes.append(placed)
            else:
                self._ignored[name] = placed
        if len(volumes) + self.runs.duplicate - doubles < len(images):
            self._rejected.add(name)
        return volumes

    def _stacked(self, stacked: Stacked) -> list[Volume]:
        """Place a volume of slices, or keep its place where it lacks some."""
        if stacked.missing_slices:
            placed = self.runs.give_up(stacked.image, stacked.missing_slices, time.monotonic())
        else:
            placed = self.runs.place(stacked.image, shown(stacked.names[-1]), stacked.moments)
        if isinstance(placed, Volume):
            return [placed]
        self._ignored |= dict.fromkeys(stacked.names, placed)
        return []

    def _note_refused(self) -> None:
        """List the slices that made no volume."""
        self._ignored.update(self._stacks.refused())

    def _first_number(self, name: str, image: Image) -> int:
        """Number that the names of a run of volumes begin with: index 0."""
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
        pending.more = False
        pending.image = pending.image or self._reader.image
        if pending.watched != self._reader.watched:
            pending.watched = self._reader.watched
            pending.content = self._reader.content(pending.watched) or (0, 0)
        if now_at - pending.changed_at >= GIVE_UP:
            self._ignore(name, f"{reason}, unchanged for {GIVE_UP:.0f} s")
            return
        pending.postpone(now_at, ended_at - began_at)

    def _ignore(self, name: str, reason: str) -> None:
        pending = self._pending.pop(name)
        pending.image = pending.image or (self._reader.image and self._reader.watched == name)
        if pending.promises(name):
            self._rejected.add(name)
        self._ignored[name] = reason


def _readable_at(stamp: Stamp, absent_at: float, arrived_at: float) -> float:
    """Local time of a file's last change, between when it was not there yet and when it was read."""
    age = time.time() - stamp.changed_at
    return min(max(time.monotonic() - age, absent_at), arrived_at)
