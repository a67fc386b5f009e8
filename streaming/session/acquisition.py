"""The acquisition process: it reads the sources, records what arrives and cuts windows.

It runs apart from the session's process, so that neither a model nor a video encoder holds up a sample.

::

    [thread] LSL ------+
    [thread] folder ---+--> turns (bounded, block) --> [main] record -> assemble --> outbox --> mailbox
    [thread] film -----+    (markers of `rtdecode play`, for the recording alone)

The main thread takes one item after the other (`streaming.session.work_queue` says which is next): it records
the item as it came, gives it to the assembler, and sends the windows that are complete, with a status twice a
second. It does not wait for the session's process, which may be decoding: what the mailbox has no room for
stays in the outbox. A fault is a message too: the session's process decides what becomes of it.
"""

import multiprocessing
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from rtdecode import bundle as bundles
from rtdecode import strict_json
from rtdecode.bundle import Bundle
from rtdecode.disk import calibration as calibrations
from rtdecode.disk.calibration import Calibration
from rtdecode.disk.recording import CALIBRATION, RecordingWriter
from rtdecode.errors import RtDecodeError
from rtdecode.windows.assembler import Assembler
from streaming.message import Message
from streaming.session import resume
from streaming.session.acquisition_loop import AcquisitionLoop, SourceStates
from streaming.session.backlog import StaleEegFilter
from streaming.session.deadline_clock import DeadlineClock
from streaming.session.flag import Stop
from streaming.session.intake import Intake
from streaming.session.mailbox import Mailbox
from streaming.session.open_sources import open_eeg, open_folder
from streaming.session.options import AcquisitionConfig, StreamOptions
from streaming.session.outbox import Outbox
from streaming.session.recorder import open_recorder
from streaming.session.snapshot import SignalSnapshot
from streaming.session.source_events import EegReading, FilmReading, FolderReading
from streaming.session.source_reader import Reading, SourceReader
from streaming.session.status_builder import EegState, FolderState, StatusBuilder
from streaming.sources.folder.source import FolderSource
from streaming.sources.lsl.source import LslSource

# How often the sources are looked at, s.
_LSL_POLL = 0.005
_FOLDER_POLL = 0.015
_FILM_POLL = 0.02

# Longest error that is passed on with its values, characters.
_LONGEST_FAULT = 30000


def main(sources: AcquisitionConfig, mailbox: Mailbox, stop: Stop) -> None:
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


@dataclass(frozen=True, slots=True)
class _Beginning:
    """What a recording begins with."""

    listening_since: float | None
    calibration: Calibration | None

    def write(self, writer: RecordingWriter) -> None:
        # A replay needs it to cut the same windows.
        writer.note(listening_since=self.listening_since)
        if self.calibration is not None:
            writer.keep_calibration(self.calibration)


class _Acquisition:
    """Read the sources, and send windows and statuses; `run` is its whole life."""

    def __init__(
        self, sources: AcquisitionConfig, mailbox: Mailbox, stop: Stop, parent_alive: Callable[[], bool]
    ) -> None:
        options = sources.options
        # Not verified again: the session did so before it started this process.
        bundle = bundles.load(sources.bundle, verify=False, subject=options.subject)
        resumed = resume.Resumption(sources.past) if sources.past is not None else None
        calibration = calibrations.load(options.calibration) if options.calibration else None
        listening_since = _listening_since(options, resumed)
        assembler = _assembler(options, bundle, calibration, resumed, listening_since)
        self._source_names = options.modalities
        lsl = open_eeg(options, bundle, resumed)
        since = resumed.since if resumed is not None else None
        folder = open_folder(options, bundle, assembler.unread, since)
        behind = options.existing == "read" and (resumed is None or resumed.behind)
        calibration_meta = (
            {CALIBRATION: CALIBRATION, "calibration_digest": calibration.digest} if calibration else {}
        )
        recorder = open_recorder(
            options.record, sources.meta | calibration_meta, sources.key, resumed, time.monotonic()
        )
        newest_sample_at = None if resumed is None else resumed.newest_sample_at
        before = None if resumed is None else resumed.counted
        self._intake = Intake(
            assembler,
            recorder,
            DeadlineClock(behind=folder is not None and behind),
            StatusBuilder(listening_since, newest_sample_at, before, float(bundle.manifest.grid.tr or 0)),
            StaleEegFilter(time.monotonic()),
            time.monotonic,
            resumed,
            lambda: lsl is None or not lsl.placed_by_arrival,
        )
        # What the recording gets first; None where another acquisition has begun it.
        self._beginning = _Beginning(listening_since, calibration) if resumed is None else None
        marks_of = options.lsl if recorder.is_open else None
        self._reader = SourceReader(stop)
        self._readings = _readings(lsl, folder, marks_of, behind=self._intake.behind)
        self._stop = stop
        self._parent_alive = parent_alive
        self._outbox = Outbox(mailbox.put, parent_alive)
        self._loop = AcquisitionLoop(
            self._reader.turns,
            self._intake,
            self._outbox,
            partial(_states, lsl, folder),
            time.monotonic,
            dict if options.dashboard is None else SignalSnapshot(assembler).arrays,
        )

    def run(self) -> None:
        if self._beginning is not None:
            self._intake.recorder.record(self._beginning.write)
        self._reader.start(self._readings)
        # Until the loop below the threads only stand in line, so the past comes before what is new.
        for cut in self._intake.go_on(self._source_names):
            self._loop.send(cut)
        while not self._stop.is_set():
            if self._loop.step(timeout=0.02) and not self._parent_alive():
                self._stop.set()
        # Stopped: what the threads have left is still taken, then the last windows go out.
        self._loop.finish()

    def close(self) -> None:
        self._stop.set()
        self._outbox.post(max_waiting=0)
        self._reader.join()
        self._intake.recorder.record(RecordingWriter.close)


def _states(lsl: LslSource | None, folder: FolderSource | None) -> SourceStates:
    """Read how the sources stand."""
    eeg = None if lsl is None else EegState.of(lsl)
    return SourceStates(eeg, None if folder is None else FolderState.of(folder))


def _listening_since(options: StreamOptions, resumed: resume.Resumption | None) -> float | None:
    """Return since when the session reads its sources, s on the local clock."""
    # In a backlog, what came before is read too.
    if options.existing == "read":
        return None
    first = None if resumed is None else resumed.listening_since
    return time.monotonic() if first is None else first


def _assembler(
    options: StreamOptions,
    bundle: Bundle,
    calibration: Calibration | None,
    resumed: resume.Resumption | None,
    listening_since: float | None,
) -> Assembler:
    return Assembler(
        bundle,
        None,
        options.modalities,
        options.seconds,
        dummies=options.dummies,
        now=time.monotonic,
        calibration=calibration,
        restarted_at=[] if resumed is None else [time.monotonic()],
        heard_since=[] if resumed is None else resumed.heard_since,
        listening_since=listening_since,
    )


def _readings(
    lsl: LslSource | None, folder: FolderSource | None, marks_of: str | None, *, behind: bool
) -> list[Reading]:
    """Return what each thread reads."""
    readings = list[Reading]()
    if lsl is not None:
        readings.append(Reading(EegReading(lsl).poll, lambda: _LSL_POLL, lsl.close))
    if folder is not None:
        of_folder = FolderReading(folder, behind=behind)
        readings.append(Reading(of_folder.poll, lambda: 0.0 if of_folder.is_reading else _FOLDER_POLL))
    if marks_of is not None:
        readings.append(Reading(FilmReading(marks_of).poll, lambda: _FILM_POLL))
    return readings
