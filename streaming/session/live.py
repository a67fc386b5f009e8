"""A live session: one process acquires, this one decodes and writes.

`run` checks the orders, locks the session's folders and starts the acquisition process, which reads the
sources, records them and sends finished windows and statuses through a mailbox in shared memory. This process
then loops: it takes messages into an inbox, decodes the next window, hands the clip to the sinks and shows
progress. When the session is stopped, has decoded its ``--seconds`` or meets a fault, the acquisition hands
over what it still has, and the files and the report are finished. An acquisition that dies is started again.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from rtdecode import bundle as bundles
from rtdecode import terminal
from rtdecode.bundle import Bundle
from rtdecode.bundle.decisions import DecisionWriter
from rtdecode.bundle.manifest import OFFLINE
from rtdecode.disk import private
from rtdecode.disk.calibration import Calibration
from rtdecode.disk.folders import empty, locked
from rtdecode.disk.recording import check_unused, holds_data, session_of
from rtdecode.errors import OutputError, RtDecodeError
from streaming.decode.decoder import AnyDecoder, Decoder
from streaming.decode.fallback import FallbackDecoder, check_fallback
from streaming.message import Message
from streaming.serve import address as decoders
from streaming.serve import token
from streaming.session import interrupts
from streaming.session.acquiring import AcquisitionProcess, sources
from streaming.session.checks import check
from streaming.session.decided import DecisionLog
from streaming.session.decode_loop import DecodeLoop
from streaming.session.end_conditions import EndConditions
from streaming.session.faults import SessionFaults
from streaming.session.mailbox import slot_bytes, unpack, unpack_status
from streaming.session.memory import MemoryMeter
from streaming.session.operator import Operator
from streaming.session.options import StreamOptions
from streaming.session.page_feed import PageFeed
from streaming.session.page_link import PageLink, open_page, write_entrance
from streaming.session.progress import Progress
from streaming.session.receiver import Receiver
from streaming.session.reporter import Interval, Reporter, SessionCounts, complete_recording
from streaming.session.restarts import cause
from streaming.session.run_quality import QualityMonitor
from streaming.session.withdrawal import withdraw
from streaming.sinks import aside, report
from streaming.sinks.accuracy import AccuracySections
from streaming.sinks.clip_emitter import open_emitter
from streaming.sinks.publishers import Publishers, open_outputs
from streaming.sinks.report import Report
from streaming.sinks.session_folder import RUNNING, clear, prepare, recover, writing
from streaming.sinks.truth import Truth
from streaming.status import Status

# Windows that may wait in the inbox. When it and the mailbox are full, the acquisition waits.
_INBOX = 16
# How often the report is rewritten, and how often the operator is told what is still waited for, s.
_REPORT_EVERY = 5.0
_SAY_EVERY = 5.0
# While clips are on their way, they are looked for so often, s.
_CLIP_EVERY = 0.01
# At the end, a session stops waiting for an acquisition that has sent nothing for so long, s.
_END_WITHIN = 15.0


def run(options: StreamOptions) -> int:
    """Decode a live session into clips.

    Returns
    -------
    int
        0 after Ctrl-C, SIGTERM or the end of `seconds`.

    Raises
    ------
    RtDecodeError
        After everything has been written; its `exit_code` says which fault it was.
    """
    private.share_with_group(options.group_readable)
    bundle = bundles.load(options.bundle, subject=options.subject)
    calibration = check(options, bundle)
    fallback = None if options.fallback is None else bundles.load(options.fallback)
    if fallback is not None:
        check_fallback(bundle, fallback)
    name = time.strftime("%Y%m%d-%H%M%S")
    out = options.out or Path("runs") / f"stream-{name}"
    console = terminal.console(stderr=True)
    with ExitStack() as folders:
        # Locked before `prepare`, or --overwrite would empty the folder of a session still writing.
        folders.enter_context(locked(out, "--out", f"session {name}"))
        if options.record is not None:
            folders.enter_context(locked(options.record, "--record", f"session {name}"))
            check_unused(options.record)
        # Opened before the folder is made: an address that cannot be served ends the command at once.
        page = open_page(options, bundle, out, folders, console)
        outputs = open_outputs(options.outlet, options.osc, bundle.manifest)
        folders.callback(outputs.close)
        for where in outputs.names:
            console.print(f"Clips go out to {where}.", highlight=False, markup=False, soft_wrap=True)
        if bundle.manifest.simulated:
            console.print(
                terminal.bold("Decoder of a simulated brain:"),
                "the bundle decodes one simulated brain, and no other.",
            )
        if bundle.manifest.chain == OFFLINE:
            console.print(
                terminal.bold("Trained offline:"),
                "the signals that the bundle was trained on had been prepared with "
                "knowledge of what came later, which a session does not have. Expect less than its figures.",
            )
        advisor = _advisor(options, bundle, calibration)
        setup = _Setup(options, bundle, name, out, console, advisor, page, outputs, fallback)
        session = _Session(setup)
        prepare(out, overwrite=options.overwrite)
        write_entrance(page, console)
        failed = True
        try:
            session.run()
            failed = False
        finally:
            session.take_back(failed=failed)
    return 0


@dataclass(frozen=True, slots=True)
class _Setup:
    """What a session is made of, before it begins."""

    options: StreamOptions
    bundle: Bundle
    name: str
    out: Path
    console: Console
    advisor: QualityMonitor | None
    page: PageLink | None
    publishers: Publishers
    fallback: Bundle | None

    @property
    def report_path(self) -> Path:
        return self.options.report or self.out / "report.json"


class _Session:
    """One session; `run` is its whole life."""

    def __init__(self, setup: _Setup) -> None:
        options = setup.options
        bundle = setup.bundle
        self._setup = setup
        self._page = PageFeed(setup.page)
        self._acquisition = AcquisitionProcess(sources(options, bundle, setup.name), slot_bytes(bundle))
        self._receiver = Receiver(options.fmri_dir)
        self._ends = EndConditions(options.wait, options.lost_after)
        self._faults = SessionFaults(options.record)
        self._reporter = Reporter(setup.report_path, partial(report.build, setup.name, bundle))
        self._handing_over = False
        self._heard_at = time.monotonic()
        self._report_timer = Interval(_REPORT_EVERY, self._heard_at)
        self._waiting_timer = Interval(_SAY_EVERY, self._heard_at)
        self._memory = MemoryMeter()
        writer = None if options.record is None else DecisionWriter(options.record, setup.name, bundle)
        self._decisions = DecisionLog(writer, lambda sentence: self._progress.say(sentence))

    def run(self) -> None:
        setup = self._setup
        options = setup.options
        hop_s = float(setup.bundle.manifest.grid.hop)
        with interrupts.on_interrupt(self._interrupt), self._running(), ExitStack() as opened:
            self._truth = Truth(options.truth, setup.bundle)
            decoder = opened.enter_context(closing(_open_decoder(setup)))
            for note in decoder.notes:
                setup.console.print(note, highlight=False, markup=False, soft_wrap=True)
            with writing():
                self._output = open_emitter(
                    setup.out,
                    setup.name,
                    setup.bundle,
                    decoder,
                    self._truth,
                    time.monotonic,
                    simulated=False,
                    steps=options.steps,
                    detail=options.detail,
                    twin=options.twin,
                    modalities=options.modalities,
                    on_emitted=setup.publishers.send,
                    on_decided=self._decisions.decided,
                )
            self._decoding = DecodeLoop(self._output, self._decisions, hop_s, decoder.at_once, time.monotonic)
            self._progress = Progress(setup.console, options.seconds, hop_s, self._page.say, setup.advisor)
            self._operator = Operator(setup.page, setup.out, self._progress, self._output)
            # What the report says if anything but an `RtDecodeError` ends the session.
            ended = "an unexpected error"
            try:
                ended = self._loop()
                if not self._operator.withdrawn:
                    self._hand_over()
                ended = self._faults.clips.reason if self._faults.clips is not None else ended
            except RtDecodeError as error:
                ended = error.reason
                self._faults.end(error)
                raise
            finally:
                self._finish(ended)
            # These faults were held back until everything was written.
            if self._faults.first is not None:
                raise self._faults.first

    def take_back(self, *, failed: bool) -> None:
        """Undo what a session without any window did to its folders, once everything is closed.

        The files of an earlier session are put back. A start that failed before a run began leaves
        nothing but what was recorded.

        Parameters
        ----------
        failed : bool
            Whether an error ended it.
        """
        if self._receiver.windows_came:
            return
        setup = self._setup
        failed = failed and not self._receiver.has_begun
        try:
            if aside.is_aside(setup.out):
                recover(setup.out)
                setup.console.print(
                    f"No window came: {setup.out} holds the files of the earlier session again.",
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )
            elif failed:
                clear(setup.out)
            record = setup.options.record
            # The acquisition may have refused the folder, as it holds another recording.
            if failed and record is not None and session_of(record) == setup.name and not holds_data(record):
                empty(record)
        except OSError as error:
            setup.console.print(
                f"not everything could be put back or deleted: {error}", highlight=False, markup=False
            )

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Run the acquisition process while the block runs; it is gone however the block is left."""
        self._acquisition.start()
        try:
            yield
        finally:
            self._acquisition.end()

    def _loop(self) -> str:
        """Decode until something ends the session; return in words what did."""
        while not (reason := self._ends.reason(self._receiver.status, time.monotonic())):
            self._say(self._ends.notice())
            self._receive(timeout=0.05)
            self._decode()
            self._periodic()
            if self._faults.ending is None:
                self._faults.ending = self._ends.fault(self._receiver.status, time.monotonic())
            if self._faults.ending is not None:
                return self._faults.ending.reason
        return reason

    def _say(self, *sentences: str) -> None:
        for sentence in sentences:
            if sentence:
                self._progress.say(sentence)

    def _receive(self, timeout: float) -> None:
        """Take waiting messages until the inbox is full; wait up to `timeout` seconds for the first one."""
        # Asked before the mailbox is looked into: the other way round, a message that the
        # process sent between the two, just before it died, would be lost.
        dead = not (self._receiver.ended or self._acquisition.is_alive())
        # While windows wait to be decoded, no time is spent on waiting for more.
        if self._decoding.is_busy:
            timeout = 0.0
        elif self._output.pending:
            timeout = min(timeout, _CLIP_EVERY)
        message = self._acquisition.mailbox.get(timeout)
        if message is None and dead:
            self._acquisition_died()
        while message is not None:
            self._page.tell(message)
            self._take(message)
            self._heard_at = time.monotonic()
            message = self._acquisition.mailbox.get(0.0) if len(self._decoding) < _INBOX else None

    def _take(self, message: Message) -> None:
        kind = message.head["kind"]
        if kind == "window":
            self._take_window(message)
        elif kind == "fault":
            self._faults.ending = _error(message.head)
            self._receiver.ended = True
        else:
            self._take_status(unpack_status(message), ends=kind == "end")

    def _take_window(self, message: Message) -> None:
        is_first = not self._receiver.windows_came
        job = self._receiver.take_window(unpack(message), message.head)
        if job is None:
            return
        if is_first:
            self._delete_aside()
        self._decoding.put(job)

    def _delete_aside(self) -> None:
        """Delete the files of an earlier session, now that this one has something in their place."""
        out = self._setup.out
        try:
            aside.delete(out)
        except OSError as error:
            self._say(f"files of the earlier session in {out} could not be deleted: {error}")

    def _take_status(self, status: Status, *, ends: bool) -> None:
        now_at = time.monotonic()
        self._ends.seek(now_at)
        self._say(*self._receiver.take_status(status, now_at, ends=ends))
        if status.simulated and not self._output.simulated:
            self._output.mark_simulated()
        for name, values in status.costs.items():
            for value in values:
                self._output.tally.meter.add({name: value})
        if status.record_fault and self._faults.recording is None:
            # A replay ends where the recording does.
            self._decisions.end()
            self._say(self._faults.lose_recording(status.record_fault))

    def _acquisition_died(self) -> None:
        """Start the acquisition again where it was, unless it died too often or was about to end anyway."""
        code = self._acquisition.exit_code
        fault = self._receiver.died(time.monotonic(), code, handing_over=self._handing_over)
        if fault is not None:
            self._faults.end(fault)
            return
        self._say(
            f"the acquisition process ended unexpectedly ({cause(code)}) and is started again. Nothing "
            "is received until it reads again, which leaves a gap in the windows and the recording."
        )
        past = self._receiver.past()
        number = len(self._receiver.restarts.report)
        self._decisions.restarted(time.monotonic(), number, len(past.items), past.status)
        self._acquisition.start_again(past, recording=self._faults.recording is None)

    def _decode(self) -> None:
        if self._faults.clips is not None:
            self._decoding.drop_waiting()
            return
        try:
            self._decoding.step()
        except OutputError as error:
            self._lose_clips(error)
        self._tell()

    def _lose_clips(self, error: OutputError) -> None:
        """Go on for the sake of the recording alone; raise if there is none to be written."""
        self._output.leave_out()
        self._say(self._faults.lose_clips(error))

    def _tell(self) -> None:
        """Tell what the clips that are out show."""
        for sentence in self._output.notes():
            self._progress.tell(sentence)
        self._say(*self._output.tally.categories())
        # On the terminal alone, as they name hosts.
        self._say(*self._setup.publishers.notes())

    def _periodic(self) -> None:
        now_at = time.monotonic()
        status = self._receiver.status
        self._operator.follow(status)
        self._ends.interrupted = self._operator.ended or self._ends.interrupted
        self._progress.update(status, self._output.tally, self._output.away_since)
        self._memory.sample(now_at)
        if self._report_timer.due(now_at) and self._faults.clips is None:
            try:
                self._write_report(RUNNING)
            except OutputError as error:
                self._lose_clips(error)
        if status.waiting and self._waiting_timer.due(now_at):
            self._say("waiting for " + "; ".join(status.waiting))

    def _hand_over(self) -> None:
        """Let the acquisition finish, and decode what it still has."""
        self._handing_over = True
        self._acquisition.stop()
        self._heard_at = time.monotonic()
        # An acquisition that waits for room in the mailbox can end only if messages are still taken.
        while not self._receiver.ended:
            self._receive(timeout=0.05)
            # Asked before anything is decoded: the time that this takes is no silence of the acquisition.
            if time.monotonic() > self._heard_at + _END_WITHIN:
                break
            self._decode()
        while self._decoding.is_unfinished:
            self._decode()
            if not self._decoding.is_busy:
                self._output.await_clip(_CLIP_EVERY)
        try:
            self._output.settle()
        except OutputError as error:
            self._lose_clips(error)
        self._tell()

    def _finish(self, ended: str) -> None:
        setup = self._setup
        self._acquisition.stop()
        self._acquisition.join()
        try:
            self._output.settle()
        except OutputError as error:
            # A fault is being told already.
            self._faults.clips = self._faults.clips or error
            self._output.leave_out()
        self._decisions.end()
        self._memory.sample(time.monotonic(), now=True)
        # Every window that was reached ends in one final or one skip: what never came is skipped.
        tally = self._output.tally
        status = self._receiver.status
        tally.abandon(status.reached - tally.counts["final"] - tally.counts["skipped"])
        self._progress.close(status, tally)
        self._page.over(ended)
        if self._operator.withdrawn:
            self._output.leave_out()
            try:
                self._output.close()
            finally:
                self._discard()
            return
        try:
            final = self._close(ended)
        finally:
            self._complete_recording()
        # Judging takes a while, in which the operator may have asked for it.
        sentences, withdrawn = self._page.last_requests()
        self._say(*sentences)
        if withdrawn:
            self._discard()
            return
        # Of a start that failed, its one sentence says all there is to say. What is not left of a session is
        # not shown either, see `take_back`.
        started = self._receiver.has_begun
        came_to_nothing = not (started or self._ends.interrupted) or aside.is_aside(setup.out)
        failed_to_begin = self._faults.ending is not None and not started
        if (came_to_nothing and not self._receiver.windows_came) or failed_to_begin:
            return
        report.show(final)
        terminal.line(setup.out)
        terminal.line(setup.report_path)

    def _discard(self) -> None:
        """Delete what was written, as the participant has withdrawn.

        Raises
        ------
        OutputError
            If something could not be deleted.
        """
        setup = self._setup
        record = setup.options.record
        try:
            # It may still be writing the recording.
            self._acquisition.end()
            withdraw(setup.out, setup.report_path, record)
        except OSError as error:
            places = " and ".join(str(place) for place in (setup.out, record) if place is not None)
            raise OutputError(
                "session-withdrawal-incomplete",
                "withdrawn, but not everything could be deleted: {error}. Delete {folders} by hand.",
                reason="withdrawn, but not everything could be deleted",
                error=error,
                folders=places,
            ) from error
        setup.console.print("Withdrawn: everything that this session had written was deleted.")

    def _close(self, ended: str) -> Report:
        """Finish the session's folder and return its report."""
        judged = None
        try:
            judged = self._output.judge()
        finally:
            # Closing deletes a temporary file, which makes room for the report on a full disk.
            try:
                self._output.close()
            finally:
                final = self._write_report(ended, judged)
        return final

    def _complete_recording(self) -> None:
        """Note in the recording where the clips are, and copy the truth; say what is wrong with that."""
        options = self._setup.options
        if options.record is not None:
            self._say(complete_recording(options.record, self._setup.out, self._truth, self._receiver))
        if options.truth is not None and not self._truth.has_events:
            missing = f"no truth was found in {options.truth}, so the report has no accuracy"
            self._say(self._truth.fault or missing)

    def _write_report(self, ended: str, judged: AccuracySections | None = None) -> Report:
        facts = SessionCounts(
            self._memory.peak_mb,
            self._decoding.dropped_previews,
            self._faults.section(),
            list(self._progress.told),
        )
        return self._reporter.write(ended, self._output, self._receiver, facts, judged)

    def _interrupt(self, name: str) -> None:
        self._ends.interrupted = f"stopped by {name}"


def _open_decoder(setup: _Setup) -> AnyDecoder:
    """Load the bundle's decoder, or connect to one elsewhere, for which no graph is loaded here."""
    options = setup.options
    bundle = setup.bundle
    carry = options.carry
    tell_condition = options.outlet is not None
    if options.decoder is None:
        return Decoder(bundle, carry=carry, tell_condition=tell_condition)
    # Imported here, as it needs a package of its own.
    from streaming.serve.client import RemoteDecoder, tls_context

    assert options.token_file is not None, "it was checked"
    addresses = decoders.parse(options.decoder)
    is_encrypted = any(address.is_encrypted for address in addresses)
    remote = RemoteDecoder(
        bundle,
        addresses,
        token.read(options.token_file),
        carry=carry,
        tell_condition=tell_condition,
        tls=tls_context(options.ca) if is_encrypted else None,
    )
    if setup.fallback is None:
        return remote
    try:
        return FallbackDecoder(remote, bundle, setup.fallback, carry=carry, tell_condition=tell_condition)
    except BaseException:
        remote.close()
        raise


def _advisor(options: StreamOptions, bundle: Bundle, calibration: Calibration | None) -> QualityMonitor:
    """Make what says of each run whether it looks usable, by the calibration's figures if there is one."""
    figures = None if calibration is None else calibration.record.figures
    return QualityMonitor(figures, volumes=options.fmri_dir is not None and bundle.projection is not None)


def _error(head: Mapping[str, Any]) -> RtDecodeError:
    return RtDecodeError.from_json(head["error"], head["reason"])
