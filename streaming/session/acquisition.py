"""The acquisition process: it reads the sources, records what arrives and cuts windows.

It runs apart from the session's process, so that neither a model nor a video encoder holds up a sample.

::

    [thread] LSL ------+
    [thread] folder ---+--> turns (bounded, block) --> [main] record -> assemble --> outbox --> mailbox
    [thread] film -----+    (markers of `rtdecode play`, for the recording alone)

The main thread takes one item after the other (`streaming.session.turns` says which is next): it records the
item as it came, gives it to the assembler, and sends the windows that are complete, with a status twice a
second. It does not wait for the session's process, which may be decoding: what the mailbox has no room for
stays in the outbox. A fault is a message too: the session's process decides what becomes of it.
"""

import contextlib
import math
import multiprocessing
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode import bundle as bundles
from rtdecode import plausible
from rtdecode.bundle import Bundle
from rtdecode.disk import calibration as calibrations
from rtdecode.disk import film_marks, strict_json
from rtdecode.disk.film_marks import FilmMark
from rtdecode.disk.recording import CALIBRATION, Recording, RecordingWriter
from rtdecode.eeg.channels import match
from rtdecode.errors import GeometryError, RecordingError, RtDecodeError
from rtdecode.signal.volume.motion import THIN
from rtdecode.timing import check_tr
from rtdecode.types import EegChunk, Montage, Trigger, Volume, Window
from rtdecode.windows.assembler import Assembler
from streaming.session import past
from streaming.session.backlog import Lag
from streaming.session.flag import Stop
from streaming.session.mailbox import Mailbox, Message, pack, pack_status
from streaming.session.orders import Sources, StreamOptions
from streaming.session.snapshot import Shown
from streaming.session.turns import Action, Turns
from streaming.sources.folder.source import FolderSource
from streaming.sources.lsl.markers import MarkerSource
from streaming.sources.lsl.source import LslSource
from streaming.status import Status

# How often a status is sent, and how often the sources are looked at, s.
_STATUS_EVERY = 0.5
_LSL_POLL = 0.005
_FOLDER_POLL = 0.015
_FILM_POLL = 0.02
# If no source of triggers shows up for so long after the EEG stream, a run without volumes
# begins with the first sample, s.
_MARKERS_WITHIN = 6.0

# A source that has been silent for so long is named to the operator, s.
_SILENT = {"eeg": 3.0, "fmri": 10.0}
# A status has to fit into one slot of the mailbox. It tells of so many of the
# newest runs, and of so many reasons for which files were passed over. Once so
# many triggers and volumes are untold, it is sent at once.
_RUNS_TOLD = 16
_NOTES_TOLD = 30
_UNTOLD_MOST = 32
# Clock of the deadlines until the first volume of a backlog;
# finite, as a recording cannot hold infinity.
_LONG_AGO = -1e12

# Messages that may wait in the outbox. Beyond that, reading waits for the session: there
# are so many only where a backlog is read, or where the session hangs.
_OUTBOX = 32
# Longest error that is passed on with its values, characters.
_LONGEST_FAULT = 30000


def main(sources: Sources, mailbox: Mailbox, stop: Stop) -> None:
    """Read the sources until `stop` is set; the body of the acquisition process."""
    # Ctrl-C reaches every process of a terminal. This one waits for
    # `stop`, so that what it still holds is recorded and decoded.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    alive = parent.is_alive if parent is not None else lambda: True
    errors: list[RtDecodeError | OSError] = []
    try:
        acquisition = _Acquisition(sources, mailbox, stop, alive)
        try:
            acquisition.run()
        except (RtDecodeError, OSError) as error:
            errors.append(error)
        finally:
            acquisition.close()
    except (RtDecodeError, OSError) as error:
        errors.append(error)
    if errors:
        # The first error says what happened; one that closing raises is a consequence of it.
        mailbox.put(fault(errors[0]), timeout=60.0)


def fault(error: BaseException) -> Message:
    """Make a message of an error."""
    # An OSError may name a file, so the reason, which goes into the report, keeps only its type.
    if not isinstance(error, RtDecodeError):
        name = type(error).__name__
        error = RtDecodeError(
            "acquisition-unexpected-error",
            "{error_type}: {error}",
            reason=f"an error in the acquisition: {name}",
            error_type=name,
            error=error,
        )
    tree = error.to_json()
    # A message has to fit into its slot, and some errors quote what another program said.
    if len(strict_json.dumps(tree)) > _LONGEST_FAULT:
        tree |= {"message": tree["message"][:8000], "values": {}}
    return Message({"kind": "fault", "error": tree, "reason": error.reason}, {})


class _Acquisition:
    def __init__(
        self, sources: Sources, mailbox: Mailbox, stop: Stop, parent_alive: Callable[[], bool]
    ) -> None:
        options = sources.options
        self._sources = sources
        self._mailbox = mailbox
        self._stop = stop
        self._parent_alive = parent_alive
        self._turns = Turns()
        self._threads: list[threading.Thread] = []
        # Not verified again: the session did so before it started this process.
        bundle = bundles.load(sources.bundle, verify=False, subject=options.subject)
        self._resumed = past.Resumed(sources.past) if sources.past is not None else None
        self._lsl = _lsl(options, bundle, self._resumed)
        self._lag = Lag(time.monotonic())
        calibration = calibrations.load(options.calibration) if options.calibration else None
        # In a backlog, what came before is read too.
        reads = options.existing == "read"
        first = self._resumed.listening_since if self._resumed is not None else None
        self._listening_since = None if reads else time.monotonic() if first is None else first
        given = {"eeg": options.lsl, "fmri": options.fmri_dir}
        self._there = [name for name, source in given.items() if source]
        self._assembler = Assembler(
            bundle,
            None,
            self._there,
            options.seconds,
            dummies=options.dummies,
            now=time.monotonic,
            calibration=calibration,
            restarted_at=[] if self._resumed is None else [time.monotonic()],
            heard_since=[] if self._resumed is None else self._resumed.heard_since,
            listening_since=self._listening_since,
        )
        self._calibration = calibration
        since = self._resumed.since if self._resumed is not None else None
        self._folder = _folder(options, bundle, self._assembler.unread, since)
        # Why the recording ended before the session did; empty while it goes on.
        self._record_fault = ""
        known = {CALIBRATION: CALIBRATION, "calibration_digest": calibration.digest} if calibration else {}
        self._writer = self._opened(sources.meta | known)
        self._outbox: deque[Message] = deque()
        # Refined windows that are sent when no volume waits any more.
        self._refined: list[Message] = []
        # Deadlines up to here were kept while nothing waited, s. What arrived earlier and is taken later
        # counts from then, in a replay too.
        self._kept_at = -math.inf
        # By which deadlines were judged when the last item was taken, s. It never goes back.
        self._taken_at = -math.inf
        # What the page shows of the data; None without a page.
        self._shown = Shown(self._assembler) if options.dashboard is not None else None
        # Triggers and volumes that the next statuses will tell of.
        self._untold: list[dict[str, Any]] = []
        # Until a sample comes, the newest is the one that the acquisition before this one told of.
        self._newest_sample_at = None if self._resumed is None else self._resumed.newest_sample_at
        self._heard = False
        self._simulated = False
        # Why the bundle cannot read a series, by the series' identity; empty if it can.
        self._unread: dict[str, str] = {}
        # Reasons that were told, each once; there is one for each file that was passed over at most.
        self._noted: set[str] = set()
        # Sentences for the next status.
        self._news: list[str] = []
        self._data_at: dict[str, float] = {}
        # How often each source came back after silence.
        self._back = dict.fromkeys(_SILENT, 0)
        self._status_at = 0.0
        # Whether the next status is due, however recent the last one is.
        self._tell_now = False
        # While a backlog of volumes is read, deadlines go by the times at which
        # the files became readable: by the local clock, all of them would have
        # passed before the volumes are read. None in real time.
        behind = options.existing == "read" and (self._resumed is None or self._resumed.behind)
        self._behind_at: float | None = _LONG_AGO if self._folder and behind else None
        self._costs: dict[str, list[float]] = {"volume_to_vector": [], "eeg_push": []}
        self._newest: dict[str, float | None] = dict.fromkeys(self._costs)

    def run(self) -> None:
        if self._resumed is None:
            # A replay needs it to cut the same windows.
            self._record(lambda kept: kept.note(listening_since=self._listening_since))
        if (used := self._calibration) is not None and self._resumed is None:
            self._record(lambda kept: kept.keep_calibration(used))
        # An error in a thread is raised again in the main thread, where it ends the loop below.
        threading.excepthook = lambda caught: self._leave(partial(_fail, caught.exc_value))
        self._start(self._read_lsl if self._lsl else None)
        self._start(self._read_folder if self._folder else None)
        self._start(self._read_film if self._lsl and self._writer else None)
        # Until the loop below the threads only stand in line, so the past comes before what is new.
        if self._resumed is not None:
            self._go_on(self._resumed)
        while not self._stop.is_set():
            self._step(timeout=0.02)
        # Stopped: what the threads have left is still taken, then the last windows go out.
        while len(self._turns):
            self._step(timeout=0.0)
        now = time.monotonic()
        self._emit(self._assembler.flush(now))
        self._send_refined()
        # A replay needs both to cut the same windows.
        expected = self._assembler.triggers_expected
        self._record(lambda kept: kept.note(ended_at=now, triggers_expected=expected))
        # Closed before the last status, which then says whether the disk took all that was buffered.
        self._record(RecordingWriter.close)
        self.send(pack_status(self._status(now), ends=True))

    def _go_on(self, resumed: past.Resumed) -> None:
        """Place the runs where the acquisition before this one had them."""
        if resumed.begun:
            # The silence of the sources is counted from the restart.
            self._data_at = dict.fromkeys(self._there, time.monotonic())
        self._assembler.triggers_expected = resumed.triggers_expected
        if resumed.first_sample_at is not None:
            self._assembler.begin(resumed.first_sample_at)
        # This cuts the windows of the past once more; the session drops those that it has had.
        for item in resumed.items():
            at = self._time_of(item)
            self._emit(self._assembler.advance(at) + self._assembler.push(item, at))
        if resumed.rests:
            self._emit(self._assembler.end_newest_run(time.monotonic()))

    def _opened(self, meta: dict[str, Any]) -> RecordingWriter | None:
        """Begin the recording, or go on with the one of the acquisition before this one."""
        folder = self._sources.options.record
        resumed = self._resumed
        if folder is None:
            return None
        # A process may die before it has begun to record: then there is nothing to go on with.
        begun = resumed is not None and (folder / "recording.json").is_file()
        try:
            writer = RecordingWriter(folder, None, meta, self._sources.key, resume=begun)
            if resumed is not None and begun:
                restart = {"told_at": resumed.told_at, "resumed_at": time.monotonic()}
                writer.note(restarts=[*Recording(folder).meta.get("restarts", []), restart])
        except OSError as error:
            self._record_fault = error.strerror or str(error)
            return None
        except RecordingError as error:
            self._record_fault = error.reason
            return None
        return writer

    def close(self) -> None:
        self._stop.set()
        self._post(most=0)
        for thread in self._threads:
            thread.join(timeout=3.0)
        self._record(RecordingWriter.close)

    def send(self, message: Message) -> None:
        """Put a message into the mailbox, behind those that wait for room there."""
        self._outbox.append(message)
        self._post(most=_OUTBOX)

    def _post(self, most: int) -> None:
        """Put what waits into the mailbox; wait for room only while more than `most` messages are left."""
        while self._outbox:
            waits = len(self._outbox) > most
            if self._mailbox.put(self._outbox[0], timeout=0.5 if waits else 0.0):
                self._outbox.popleft()
            elif not waits:
                return
            elif not self._parent_alive():
                # A session that was killed never takes a message, and this process must not outlive it.
                self._outbox.clear()

    def _step(self, timeout: float) -> None:
        """Carry out the next action, or let time pass without one; then send a status if one is due."""
        action = self._turns.take(timeout)
        if action is not None:
            action()
        else:
            self._idle()
        if not self._turns.volumes:
            self._send_refined()
        self._post(most=_OUTBOX)
        now = time.monotonic()
        full = len(self._untold) >= _UNTOLD_MOST
        if now - self._status_at < _STATUS_EVERY and not (full or self._tell_now):
            return
        if not self._parent_alive():
            self._stop.set()
        # Without room the session is busy and reads nothing: a later status tells of it all.
        if not self._outbox:
            self._status_at = now
            arrays = {} if self._shown is None else self._shown.arrays()
            self.send(pack_status(self._status(now), arrays))
            self._tell_now = bool(self._untold)

    def _idle(self) -> None:
        """Keep the deadlines that have passed, as nothing waits: reading keeps up."""
        self._lag.idle(time.monotonic())
        due_at = self._due_at()
        windows = self._assembler.advance(due_at)
        if windows and self._behind_at is None:
            self._kept_at = due_at
        self._emit(windows)

    def _set_montage(self, montage: Montage) -> None:
        self._assembler.set_montage(montage)
        self._record(lambda kept: kept.set_montage(montage))
        self._learn(montage.simulated)

    def _expect_no_triggers(self) -> None:
        self._assembler.triggers_expected = False

    def _catch_up(self) -> None:
        """Go on in real time, now that everything that lay in the folder has been read."""
        now = time.monotonic()
        if self._folder is not None and self._folder.old:
            self._emit(self._assembler.end_newest_run(now))
            self._record(lambda writer: writer.note(rested_at=now))
            self._news.append(
                f"the files that lay in {self._folder.directory} are old: their last run ends with its last "
                "volume, and how long a volume took to be exported is not known"
            )
        else:
            self._emit(self._assembler.tick(now))
        self._kept_at = now
        self._behind_at = None

    def _mark(self, mark: FilmMark) -> None:
        self._record(lambda kept: kept.write(mark))

    def _take(self, item: EegChunk | Trigger | Volume) -> None:
        # Each volume is told of at once. If this process died, the next one would read the file
        # again, and it knows from the statuses alone which volumes are recorded already.
        # It also counts what was lost from the newest sample that was told of: the first one is told at once.
        begins = isinstance(item, EegChunk) and self._newest_sample_at is None
        self._tell_now = self._tell_now or begins or (isinstance(item, Volume) and self._behind_at is None)
        if self._resumed is not None and isinstance(item, Volume) and self._resumed.knows(item):
            return
        self._heard = True
        if isinstance(item, EegChunk) and self._behind_at is None:
            item = self._lag.judge(item, time.monotonic())
        # In a backlog the clock steps from volume to volume and never back. The item
        # carries it into the recording, so that a replay goes by the same clock.
        if self._behind_at is not None:
            later = item.readable_at if isinstance(item, Volume) else self._behind_at
            self._behind_at = max(self._behind_at, later)
            item = replace(item, clock_at=self._behind_at)
        else:
            item = self._timed(item)
        # Recorded before it is judged: a volume that the bundle cannot read is kept as it is.
        taken = item
        self._record(lambda kept: kept.write(taken))
        if isinstance(item, Volume):
            self._learn(item.simulated)
            item = self._judged(item)
        self._remember(item)
        at = self._time_of(item)
        windows = self._assembler.advance(at) + self._assembler.push(item, at)
        now = time.monotonic()
        if isinstance(item, EegChunk):
            self._newest_sample_at = self._acquired_at(item)
            self._came("eeg", item.arrived_at)
            # Of stamps that were placed by their arrival no delay can be told.
            if self._lsl is None or not self._lsl.placed_by_arrival:
                self._count("eeg_push", now - self._acquired_at(item))
        elif isinstance(item, Volume):
            self._came("fmri", item.arrived_at)
            self._count("volume_to_vector", now - item.readable_at)
        self._emit(windows)
        # The motion of the newest volume is measured now that the windows are on their way.
        self._assembler.follow()

    def _timed(self, item: EegChunk | Trigger | Volume) -> EegChunk | Trigger | Volume:
        """Let an item bear the time by which deadlines are judged when it is taken, if not its arrival."""
        # An item counts from its arrival, however long it waited for its turn. But no deadline
        # passes as long as something waits that had arrived by then.
        clock_at = max(self._kept_at, min(item.arrived_at, self._turns.oldest))
        return item if clock_at == item.arrived_at else replace(item, clock_at=clock_at)

    def _time_of(self, item: EegChunk | Trigger | Volume) -> float:
        """Return the time by which deadlines are judged when an item is taken; a replay reckons likewise."""
        at = item.arrived_at if item.clock_at is None else item.clock_at
        self._taken_at = max(self._taken_at, at)
        return self._taken_at

    def _remember(self, item: EegChunk | Trigger | Volume) -> None:
        """Note what the session has to hand on to the next acquisition if this one dies."""
        if not isinstance(item, EegChunk):
            self._untold.append(past.line(item))
            return
        if self._resumed is not None and self._assembler.montage is not None:
            self._resumed.measure(item, self._assembler.montage.sfreq)

    def _acquired_at(self, chunk: EegChunk) -> float:
        """Return when the last sample of a chunk was acquired, s; its stamp may have jumped."""
        placed_at = self._assembler.eeg_received
        return placed_at if chunk.live and math.isfinite(placed_at) else float(chunk.stamps[-1])

    def _came(self, name: str, at: float) -> None:
        """Note when a source gave something, and count its return if it had been silent."""
        self._back[name] += at - self._data_at.get(name, at) > _SILENT[name]
        self._data_at[name] = at

    def _judged(self, volume: Volume) -> Volume:
        """Mark a volume that the bundle cannot read as not live: it places its run in time, no more."""
        if volume.uid not in self._unread:
            self._unread[volume.uid] = self._assembler.unread(volume.data.shape, volume.affine) or ""
            if self._unread[volume.uid]:
                self._record(lambda kept: kept.note(unread=True))
        return replace(volume, live=False) if self._unread[volume.uid] else volume

    def _learn(self, simulated: bool) -> None:
        """Tell the session at once, before any window goes out, that a source is simulated."""
        if simulated and not self._simulated:
            self._simulated = True
            self._record(lambda kept: kept.note(simulated=True))
            self.send(pack_status(self._status(time.monotonic())))

    def _record(self, write: Callable[[RecordingWriter], None]) -> None:
        if self._writer is None:
            return
        try:
            write(self._writer)
        except OSError as error:
            self._stop_recording(self._writer, error)

    def _stop_recording(self, writer: RecordingWriter, error: OSError) -> None:
        """Leave the recording as it is; decoding goes on without it."""
        self._writer = None
        self._record_fault = error.strerror or str(error)
        # An error while closing has the same cause, which the status names already.
        with contextlib.suppress(OSError):
            writer.close()

    def _due_at(self) -> float:
        """Return the time by which deadlines are judged: the local clock, or that of the backlog."""
        return time.monotonic() if self._behind_at is None else self._behind_at

    def _count(self, name: str, seconds: float) -> None:
        self._newest[name] = round(1e3 * seconds, 3)
        self._costs[name].append(1e3 * seconds)

    def _emit(self, windows: list[Window]) -> None:
        backlog = self._behind_at is not None
        if windows:
            # What a clip rests on is recorded before it is shown, so that a replay has it even if this
            # process is killed.
            self._record(RecordingWriter.flush)
        for window in windows:
            message = pack(
                window, clip=self._assembler.clip(window), costs=dict(self._newest), backlog=backlog
            )
            # The volumes that wait may complete a final, which the decoder should then be free for. All
            # refined windows go this way and stay in order, as each carries on from the one before it.
            if window.revision == "refined":
                self._refined.append(message)
            else:
                self.send(message)

    def _send_refined(self) -> None:
        for message in self._refined:
            self.send(message)
        self._refined.clear()

    def _status(self, now: float) -> Status:
        costs = self._costs
        self._costs = {name: [] for name in self._costs}
        counters = self._assembler.counters()
        counters["runs"] = counters["runs"][-_RUNS_TOLD:]
        if self._lsl is not None and self._lsl.placed_by_arrival:
            counters["eeg"]["age_ms"] = None
        # What the source counts here never reaches the assembler, so both counts add up.
        folder = self._folder.counters() if self._folder is not None else {}
        for key in ("duplicate", "rejected_files"):
            counters["fmri"][key] += folder.get(key, 0)
        # A late or disordered volume is seen by the source and by the assembler: it counts once.
        for key in ("out_of_order", "late"):
            counters["fmri"][key] = max(counters["fmri"][key], folder.get(key, 0))
        if self._resumed is not None:
            counters = self._resumed.counted(counters)
        done = self._assembler.done()
        untold = self._untold[:_UNTOLD_MOST]
        self._untold = self._untold[_UNTOLD_MOST:]
        return Status(
            # In a backlog, what was read so far: the local clock is far ahead of it.
            elapsed=self._assembler.elapsed(now if self._behind_at is None else self._behind_at),
            expected=self._assembler.expected(now),
            reached=self._assembler.reached(now),
            done=done,
            awaited=self._assembler.awaited(now) if done else 0,
            waiting=self._waiting(now),
            back=dict(self._back),
            folder=self._folder_seen(folder),
            silent=self._silent(now),
            eeg_stream=None if self._lsl is None else self._lsl.to_json(),
            eeg_ambiguous=self._lsl is not None and self._lsl.ambiguous,
            simulated=self._simulated,
            counters=counters,
            costs=costs,
            existing=folder.get("existing_files", 0),
            notes=self._notes(),
            record_fault=self._record_fault,
            heard=self._heard,
            items=untold,
            newest_sample_at=self._newest_sample_at,
            first_sample_at=self._assembler.first_sample_at,
            heard_since=self._assembler.heard_since,
            listening_since=self._listening_since,
            triggers_expected=self._assembler.triggers_expected,
            behind=self._behind_at is not None,
            rests=self._assembler.rests,
            sent_at=now,
            wall_s=time.time(),
        )

    def _notes(self) -> list[str]:
        """Say what was passed over since the last status, one sentence for each reason."""
        # A folder may hold thousands of files of no use: of each reason one file is named.
        files = self._folder.ignored if self._folder is not None else []
        passed = [(reason, f"{name}: {reason}") for name, reason in files]
        passed += [("another series", sentence) for sentence in self._assembler.refused]
        fresh = {reason: sentence for reason, sentence in passed if reason not in self._noted}
        self._noted |= fresh.keys()
        told = [*fresh.values()][:_NOTES_TOLD]
        untold = len(fresh) - _NOTES_TOLD
        more = [f"other files, for {untold} more reasons"] if untold > 0 else []
        said = [f"not used: {sentence}" for sentence in [*told, *more, *self._lag.notes()]]
        unread = {reason for reason in self._unread.values() if reason} - self._noted
        self._noted |= unread
        said += [f"recorded, but not decoded: {reason}" for reason in unread]
        said += [*self._assembler.notes(), *self._news]
        self._news = []
        return said + [f"EEG: {sentence}" for sentence in (self._lsl.notes() if self._lsl else [])]

    def _folder_seen(self, counters: dict[str, int]) -> dict[str, int]:
        """Count how often the folder went away, and how often it came back."""
        gone = counters.get("vanished", 0)
        away = gone > 0 and self._folder is not None and self._folder.missing
        return {"gone": gone, "back": gone - away}

    def _silent(self, now: float) -> float | None:
        """Return the time since anything came, s; None before that, and while items wait here."""
        # Items that wait were heard, although a busy machine has not taken them yet.
        if not self._data_at or len(self._turns):
            return None
        return now - max(self._data_at.values())

    def _waiting(self, now: float) -> list[str]:
        """Say what has not come yet, or has fallen silent."""
        waiting = []
        if self._lsl is not None and now - self._data_at.get("eeg", -math.inf) > _SILENT["eeg"]:
            waiting.append(f"EEG: {self._since('eeg', now)}{self._lsl.state}")
        if self._folder is not None and now - self._data_at.get("fmri", -math.inf) > _SILENT["fmri"]:
            waiting.append(f"fMRI: {self._since('fmri', now)}{self._folder.state}")
        if not waiting and self._assembler.elapsed(now) is None:
            waiting.append("the first volume trigger")
        return waiting

    def _since(self, name: str, now: float) -> str:
        return f"silent for {now - self._data_at[name]:.0f} s, " if name in self._data_at else ""

    def _start(self, body: Callable[[], None] | None) -> None:
        if body is not None:
            self._threads.append(threading.Thread(target=body, daemon=True))
            self._threads[-1].start()

    def _leave(self, action: Action, arrived_at: float = math.inf, *, volume: bool = False) -> None:
        """Leave an action to the main thread, as soon as its line has room."""
        # A full line blocks, but not for ever: the thread has to end when the session does.
        while not self._stop.is_set():
            if self._turns.leave(action, arrived_at, volume=volume, timeout=0.5):
                return

    def _read_lsl(self) -> None:
        assert self._lsl is not None
        montage = None
        since = 0.0
        triggers_expected = True
        while not self._stop.is_set():
            for item in self._lsl.poll():
                # The montage goes before the first sample, which is recorded and decoded by it.
                if montage is None:
                    montage = self._lsl.montage
                    since = time.monotonic()
                    if montage is not None:
                        self._leave(partial(self._set_montage, montage))
                self._leave(partial(self._take, item), item.arrived_at)
            late = montage is not None and time.monotonic() - since > _MARKERS_WITHIN
            if triggers_expected and late and not self._lsl.has_triggers:
                triggers_expected = False
                self._leave(self._expect_no_triggers)
            time.sleep(_LSL_POLL)
        self._lsl.close()

    def _read_film(self) -> None:
        lsl = self._sources.options.lsl
        assert lsl is not None
        source = MarkerSource(lsl, film_marks.SUFFIX)
        while not self._stop.is_set():
            for label, stamp, at in source.poll():
                self._leave(partial(self._mark, FilmMark(stamp, label, at)))
            time.sleep(_FILM_POLL)

    def _read_folder(self) -> None:
        assert self._folder is not None
        behind = self._behind_at is not None
        while not self._stop.is_set():
            volumes = self._folder.poll(time.monotonic())
            for volume in volumes:
                self._leave(partial(self._take, volume), volume.arrived_at, volume=True)
            # A poll reads only some of the files: the backlog ends when all have been tried.
            if behind and not volumes and not self._folder.unread:
                behind = False
                # Behind the volumes that it found.
                self._leave(self._catch_up, volume=True)
            time.sleep(0.0 if self._folder.unread else _FOLDER_POLL)


def _fail(error: BaseException | None) -> None:
    raise error or RuntimeError("a source thread ended unexpectedly")


def _fits(bundle: Bundle) -> Callable[[Montage], str | None]:
    """Make a check that refuses a stream without the bundle's channels, or one too slow for it.

    It is for streams that come back changed. It returns the reason, or None for a stream that fits.
    """

    def accept(montage: Montage) -> str | None:
        wanted = bundle.manifest.eeg
        if wanted is None:
            return None
        try:
            match(wanted.channels, montage)
        except GeometryError as error:
            return str(error)
        return plausible.bundle_rate(montage.sfreq, float(bundle.manifest.grid.sfreq), wanted.band)

    return accept


def _lsl(options: StreamOptions, bundle: Bundle, resumed: past.Resumed | None) -> LslSource | None:
    if options.lsl is None:
        return None
    opened = None if resumed is None else resumed.opened
    accept = _fits(bundle)
    return LslSource(options.lsl, options.peers, accept=accept, opened=opened, markers=options.markers)


def _folder(
    options: StreamOptions,
    bundle: Bundle,
    unread: Callable[[tuple[int, ...], NDArray[np.float64]], str | None],
    since: float | None = None,
) -> FolderSource | None:
    if options.fmri_dir is None:
        return None

    def accept(shape: tuple[int, ...], affine: NDArray[np.float64], tr_s: float | None) -> str | None:
        """Say why a series is passed over, such as a localizer or a field map; None for the run's own."""
        reason = unread(shape, affine)
        # A run on a grid that the bundle cannot read is worth recording, as `rtdecode fit` reads
        # any grid. A localizer is not: it has another TR, or none, or too few slices.
        kept = reason is not None and options.record is not None and tr_s is not None and min(shape) >= THIN
        if reason is not None and not kept:
            return reason
        try:
            # A calibration reads any grid: then only the TR tells another series from the run's own.
            if kept or (options.calibration is not None and bundle.projection is not None):
                check_tr(tr_s, float(bundle.manifest.grid.tr or 0))
        except GeometryError as error:
            return str(error)
        return None

    # After a restart, only files that changed since about the last status are new.
    return FolderSource(
        options.fmri_dir,
        "ignore" if since is not None else options.existing,
        options.series,
        moco=options.moco,
        include=options.include,
        accept=accept,
        since=since,
    )
