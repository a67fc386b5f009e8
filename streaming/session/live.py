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
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from rtdecode import bundle as bundles
from rtdecode import terminal
from rtdecode.bundle import Bundle
from rtdecode.bundle.manifest import OFFLINE
from rtdecode.disk import private
from rtdecode.disk.calibration import Calibration
from rtdecode.disk.decisions import DecisionWriter
from rtdecode.disk.derived import CLIPS, note_derived
from rtdecode.disk.folders import empty, held
from rtdecode.disk.recording import check_unused, holds_data, session_of
from rtdecode.errors import OutputError, RtDecodeError, SourceLostError
from rtdecode.windows.assembler import Counters
from streaming.decode.deadline import Inbox, Job, time_left
from streaming.decode.decoder import AnyDecoder, Decoder
from streaming.decode.fallback import FallbackDecoder, check_fallback
from streaming.serve import address as decoders
from streaming.serve import token
from streaming.session import interrupts
from streaming.session.acquiring import AcquisitionProcess, sources
from streaming.session.advice import Advisor
from streaming.session.checks import check
from streaming.session.decided import DecisionLog
from streaming.session.mailbox import Message, slot_bytes, unpack, unpack_status
from streaming.session.memory import MemoryMeter
from streaming.session.operator import Operator
from streaming.session.orders import Past, StreamOptions
from streaming.session.page_link import PageLink, open_page, write_entrance
from streaming.session.past import Items
from streaming.session.progress import Progress
from streaming.session.restarts import Restarts, cause
from streaming.session.withdrawal import withdraw
from streaming.sinks import aside, report
from streaming.sinks.clip_emitter import open_emitter
from streaming.sinks.judged import Sections
from streaming.sinks.outputs import Outputs, open_outputs
from streaming.sinks.report import Report
from streaming.sinks.session_folder import RUNNING, clear, prepare, recover, writing
from streaming.sinks.truth import Truth
from streaming.status import Status

# Windows that may wait in the inbox. When it and the mailbox are full, the acquisition waits.
_INBOX = 16
# How often the report is rewritten, and how often the operator is told what is still waited for, s.
_REPORT_EVERY = 5.0
_SAY_EVERY = 5.0
# Where `--lost-after` is 0, a session waits at its end for so long for a volume that is late, s.
_LATE_WITHIN = 30.0
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
        folders.enter_context(held(out, "--out", f"session {name}"))
        if options.record is not None:
            folders.enter_context(held(options.record, "--record", f"session {name}"))
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
        session = _Session(options, bundle, out, name, console, advisor, page, outputs, fallback)
        prepare(out, overwrite=options.overwrite)
        write_entrance(page, console)
        failed = True
        try:
            session.run()
            failed = False
        finally:
            session.take_back(failed=failed)
    return 0


def with_runs(known: dict[int, dict[str, Any]], status: Status) -> Status:
    """Return a status with every run of the session: a message has room for the newest runs only.

    Parameters
    ----------
    known : dict
        What earlier statuses said of each run, by its number; updated here.
    status : Status
        As it came from the acquisition.
    """
    known |= {one["run"]: one for one in status.counters["runs"]}
    counters: Counters = {**status.counters, "runs": list(known.values())}
    return replace(status, counters=counters)


class _Session:
    """The state of one session; `run` is its whole life."""

    def __init__(
        self,
        options: StreamOptions,
        bundle: Bundle,
        out: Path,
        name: str,
        console: Console,
        advisor: Advisor | None = None,
        page: PageLink | None = None,
        outputs: Outputs | None = None,
        fallback: Bundle | None = None,
    ) -> None:
        self._options = options
        self._fallback = fallback
        self._bundle = bundle
        self._name = name
        self._out = out
        self._console = console
        self._advisor = advisor
        self._page = page
        self._outputs = outputs or Outputs()
        self._report_path = options.report or out / "report.json"
        self._acquisition = AcquisitionProcess(sources(options, bundle, name), slot_bytes(bundle))
        self._restarts = Restarts()
        # All triggers and volumes so far, without pixels: what a restarted acquisition has to know.
        self._items = Items()
        self._handing_over = False
        # A clip is worth showing until the next one is due, one hop later.
        self._patience = float(bundle.manifest.grid.hop)
        self._inbox = Inbox(self._patience)
        # Windows that the decoder takes before the first of them has its clip.
        self._at_once = 1
        self._status = Status()
        # Whether the first status has come, and whether --wait is over.
        self._told = self._waited = False
        self._windows_came = False
        self._runs: dict[int, dict[str, Any]] = {}
        # Volumes when the session last looked whether late ones still come, and since when there are so many.
        self._volumes: int | None = None
        self._volume_at = 0.0
        self._interrupted = ""
        self._fault: RtDecodeError | None = None
        # Why clips, or the recording, can no longer be written. The session goes on while either can.
        self._out_fault: OutputError | None = None
        self._record_fault: RtDecodeError | None = None
        # The same without the folder's name, for the report: nothing written to disk names a path.
        self._record_reason: str | None = None
        self._operator: Operator | None = None
        # Whether the acquisition has sent its last message.
        self._ended = False
        self._began_at = self._heard_at = time.monotonic()
        self._said_at = self._reported_at = self._began_at
        self._memory = MemoryMeter()
        writer = None if options.record is None else DecisionWriter(options.record, name, bundle)
        self._decisions = DecisionLog(writer, lambda sentence: self._progress.say(sentence))

    def run(self) -> None:
        with interrupts.told(self._interrupt), self._running(), ExitStack() as opened:
            self._truth = Truth(self._options.truth, self._bundle)
            decoder = opened.enter_context(closing(self._open_decoder()))
            self._at_once = decoder.at_once
            for note in decoder.notes:
                self._console.print(note, highlight=False, markup=False, soft_wrap=True)
            with writing():
                self._output = open_emitter(
                    self._out,
                    self._name,
                    self._bundle,
                    decoder,
                    self._truth,
                    time.monotonic,
                    simulated=False,
                    steps=self._options.steps,
                    detail=self._options.detail,
                    twin=self._options.twin,
                    modalities=self._options.modalities,
                    on_emitted=self._outputs.send,
                    on_decided=self._decisions.decided,
                )
            heard = None if self._page is None else self._page.say
            self._progress = Progress(
                self._console,
                self._options.seconds,
                self._output.tally.hop_s,
                heard,
                self._advisor,
            )
            self._operator = Operator(self._page, self._out, self._progress, self._output)
            # What the report says if anything but an `RtDecodeError` ends the session.
            ended = "an unexpected error"
            try:
                ended = self._loop()
                if not self._withdrawn:
                    self._hand_over()
                ended = self._out_fault.reason if self._out_fault is not None else ended
            except RtDecodeError as error:
                ended = error.reason
                self._fault = self._fault or error
                raise
            finally:
                self._finish(ended)
            # These faults were held back until everything was written.
            fault = self._fault or self._out_fault or self._record_fault
            if fault is not None:
                raise fault

    def _open_decoder(self) -> AnyDecoder:
        """Load the bundle's decoder, or connect to one elsewhere, for which no graph is loaded here."""
        options = self._options
        carry = options.carry
        tell_condition = options.outlet is not None
        if options.decoder is None:
            return Decoder(self._bundle, carry=carry, tell_condition=tell_condition)
        # Imported here, as it needs a package of its own.
        from streaming.serve.client import RemoteDecoder, tls_context

        assert options.token_file is not None, "it was checked"
        addresses = decoders.parse(options.decoder)
        is_encrypted = any(address.is_encrypted for address in addresses)
        remote = RemoteDecoder(
            self._bundle,
            addresses,
            token.read(options.token_file),
            carry=carry,
            tell_condition=tell_condition,
            tls=tls_context(options.ca) if is_encrypted else None,
        )
        if self._fallback is None:
            return remote
        try:
            return FallbackDecoder(
                remote, self._bundle, self._fallback, carry=carry, tell_condition=tell_condition
            )
        except BaseException:
            remote.close()
            raise

    def take_back(self, *, failed: bool) -> None:
        """Undo what a session without any window did to its folders, once everything is closed.

        The files of an earlier session are put back. A start that failed before a run began leaves
        nothing but what was recorded.

        Parameters
        ----------
        failed : bool
            Whether an error ended it.
        """
        if self._windows_came:
            return
        failed = failed and not self._begun
        try:
            if aside.is_aside(self._out):
                recover(self._out)
                self._console.print(
                    f"No window came: {self._out} holds the files of the earlier session again.",
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )
            elif failed:
                clear(self._out)
            record = self._options.record
            # The acquisition may have refused the folder, as it holds another recording.
            if failed and record is not None and session_of(record) == self._name and not holds_data(record):
                empty(record)
        except OSError as error:
            self._console.print(
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
        while not (self._interrupted or (self._status.done and not self._late_volumes_come())):
            self._receive(timeout=0.05)
            self._decode()
            self._periodic()
            self._fault = self._fault or self._judge()
            if self._fault is not None:
                return self._fault.reason
        return self._interrupted or "the requested seconds were decoded"

    def _late_volumes_come(self) -> bool:
        """Whether finals went out without volumes that may still come; say so when the wait for them begins.

        The wait ends when they have come, or when no volume has for `--lost-after` seconds.
        """
        awaited = self._status.awaited
        if not awaited:
            return False
        now = time.monotonic()
        limit = self._options.lost_after or _LATE_WITHIN
        volumes = self._status.counters["fmri"]["volumes"]
        if self._volumes is None:
            self._progress.say(
                f"Every window has its final clip, {awaited} of them without volumes that are late. The "
                "session goes on until these have come, to show the windows once more with them, or until "
                f"none has come for {limit:g} s (--lost-after). Ctrl-C ends it at once."
            )
        if self._volumes != volumes:
            self._volumes = volumes
            self._volume_at = now
        return now - self._volume_at < limit

    def _receive(self, timeout: float) -> None:
        """Take waiting messages until the inbox is full; wait up to `timeout` seconds for the first one."""
        # Asked before the mailbox is looked into: the other way round, a message that the
        # process sent between the two, just before it died, would be lost.
        dead = not (self._ended or self._acquisition.is_alive())
        # While windows wait to be decoded, no time is spent on waiting for more.
        if self._is_busy:
            timeout = 0.0
        elif self._output.pending:
            timeout = min(timeout, _CLIP_EVERY)
        message = self._acquisition.mailbox.get(timeout)
        if message is None and dead:
            self._acquisition_died()
        while message is not None:
            kind = message.head["kind"]
            if self._page is not None:
                self._page.tell(message)
            if kind == "window":
                self._take_window(message)
            elif kind == "fault":
                self._fault = _error(message.head)
                self._ended = True
            else:
                self._take_status(unpack_status(message))
                self._ended = kind == "end"
            self._heard_at = time.monotonic()
            message = self._acquisition.mailbox.get(0.0) if len(self._inbox) < _INBOX else None

    @property
    def _is_busy(self) -> bool:
        """Whether there is something to do, and not only to wait for windows or clips."""
        if self._output.pending >= self._at_once:
            return False
        return bool(len(self._inbox) or (self._output.unarchived and not self._output.pending))

    def _acquisition_died(self) -> None:
        """Start the acquisition again where it was, unless it died too often or was about to end anyway."""
        code = self._acquisition.exit_code
        again = self._restarts.died(time.monotonic(), code, self._status.elapsed)
        if self._handing_over or not again:
            often = "" if again else f" {len(self._restarts.report)} times, the last ones within a minute"
            self._ended = True
            self._fault = self._fault or RtDecodeError(
                "acquisition-process-died",
                "the acquisition process ended unexpectedly{restart_history} ({cause}); what it "
                "printed above says why. Everything decoded so far was written. Start the session "
                "again.",
                reason=f"the acquisition process ended unexpectedly{often} ({cause(code)})",
                restart_history=often,
                cause=cause(code),
            )
            return
        self._progress.say(
            f"the acquisition process ended unexpectedly ({cause(code)}) and is started again. Nothing "
            "is received until it reads again, which leaves a gap in the windows and the recording."
        )
        items = self._items.all()
        number = len(self._restarts.report)
        self._decisions.restarted(time.monotonic(), number, len(items), self._status)
        past = Past(items, self._status)
        self._acquisition.start_again(past, recording=self._record_fault is None)

    def _take_window(self, message: Message) -> None:
        window = unpack(message)
        head = message.head
        # A restarted acquisition cuts every window again, also those that came before it died.
        if self._restarts.is_new(window):
            self._begin_windows()
            clip = self._restarts.clip(window, head["clip"])
            acquisition = len(self._restarts.report)
            self._inbox.put(Job(window, clip, head["costs"], head["backlog"], acquisition))

    def _begin_windows(self) -> None:
        """Delete the files of an earlier session, now that this one has something in their place."""
        if self._windows_came:
            return
        self._windows_came = True
        try:
            aside.delete(self._out)
        except OSError as error:
            self._progress.say(f"files of the earlier session in {self._out} could not be deleted: {error}")

    def _take_status(self, status: Status) -> None:
        if not self._told:
            self._began_at = time.monotonic()
        if status.existing and not self._told:
            there = f"{status.existing} files that were already in {self._options.fmri_dir}"
            self._progress.say(f"{there} are ignored")
        for sentence in status.notes:
            self._progress.say(sentence)
        if status.simulated and not self._output.simulated:
            self._progress.say("Simulated participant: a source says so.")
            self._output.mark_simulated()
        hole_s = self._restarts.back(time.monotonic()) if status.heard else None
        if hole_s is not None:
            self._progress.say(f"the acquisition is receiving again, after {hole_s:.1f} s without data")
        self._items.add(status.items)
        # Emptied here, as `_items` has them now.
        self._status = replace(with_runs(self._runs, status), items=[])
        self._told = True
        for name, values in status.costs.items():
            for value in values:
                self._output.tally.meter.add({name: value})
        if status.record_fault and self._record_fault is None:
            self._lose_recording(status.record_fault)

    def _lose_recording(self, reason: str) -> None:
        """Go on decoding without the recording; raise if clips cannot be written either."""
        self._record_reason = reason
        # A replay ends where the recording does.
        self._decisions.end()
        self._record_fault = RtDecodeError(
            "recording-write-failed",
            "the recording in {folder} could not be written any more: {error}. What was recorded "
            "before can be replayed; nothing after it is recorded. Free space, or give --record on "
            "another disk, and start a new session to record again.",
            folder=self._options.record,
            error=reason,
        )
        if self._out_fault is not None:
            raise self._out_fault
        self._progress.say(f"{self._record_fault} Decoding goes on.")

    def _decode(self) -> None:
        if self._out_fault is not None:
            self._drop_waiting()
            return
        try:
            self._decode_one()
        except OutputError as error:
            self._lose_output(error)
        self._tell()

    def _drop_waiting(self) -> None:
        """Count waiting windows as skipped, as their clips cannot be written any more."""
        while len(self._inbox):
            job, skipped = self._inbox.take(time.monotonic())
            # Nobody has decided on them: a replay decodes them.
            self._inbox.dropped()
            dropped = skipped if job is None else [*skipped, job]
            self._output.tally.counts["skipped"] += sum(one.window.revision == "final" for one in dropped)

    def _lose_output(self, error: OutputError) -> None:
        """Go on for the sake of the recording alone; raise if there is none to be written."""
        self._output.leave_out()
        record = self._options.record
        if record is None or self._record_fault is not None:
            raise error
        self._out_fault = error
        self._progress.say(
            f"{error} Nothing more is decoded. The recording in {record} goes on until the session ends "
            f"(Ctrl-C, or --seconds); `rtdecode replay {record}` decodes it then."
        )

    def _decode_one(self) -> None:
        self._output.collect()
        if self._output.is_written:
            self._output.settle()
        # Film and twin of the finals that are out wait for windows with a deadline, and go before refined
        # ones.
        if self._output.unarchived and not self._inbox.urgent and not self._output.pending:
            self._output.archive_next()
            return
        if self._output.pending >= self._at_once:
            return
        now = time.monotonic()
        job, skipped = self._inbox.take(now)
        for late in skipped:
            self._output.skip(late)
        self._decisions.dropped(self._inbox.dropped())
        if job is not None:
            # A decoder that takes several windows at once shares out the time by itself.
            waiting = self._inbox.urgent + 1 if self._at_once == 1 else 1
            self._output.ask(job, time_left(job, now, self._patience, waiting))

    def _tell(self) -> None:
        """Tell what the clips that are out show."""
        for sentence in self._output.notes():
            self._progress.tell(sentence)
        for sentence in self._output.tally.categories():
            self._progress.say(sentence)
        # On the terminal alone, as they name hosts.
        for sentence in self._outputs.notes():
            self._progress.say(sentence)

    def _periodic(self) -> None:
        now = time.monotonic()
        if self._operator is not None:
            self._operator.follow(self._status)
            self._interrupted = self._operator.ended or self._interrupted
        self._progress.update(self._status, self._output.tally, self._output.away_since)
        self._memory.sample(now)
        if now - self._reported_at > _REPORT_EVERY:
            self._reported_at = now
            self._keep_report()
        if now - self._said_at > _SAY_EVERY and self._waiting:
            self._said_at = now
            self._progress.say("waiting for " + "; ".join(self._waiting))

    def _keep_report(self) -> None:
        if self._out_fault is not None:
            return
        try:
            self._write_report(RUNNING, None)
        except OutputError as error:
            self._lose_output(error)

    @property
    def _waiting(self) -> list[str]:
        return self._status.waiting

    @property
    def _withdrawn(self) -> bool:
        return self._operator is not None and self._operator.withdrawn

    @property
    def _begun(self) -> bool:
        return self._status.elapsed is not None

    def _judge(self) -> RtDecodeError | None:
        """Return the fault of sources that did not come in time, or fell silent; None without one."""
        waited = time.monotonic() - self._began_at
        limit = self._options.wait
        # --wait counts from the first status. Until then the acquisition process is still starting,
        # which takes seconds on a busy machine, and nobody looks for the sources.
        if limit and self._told and waited > limit and not self._waited:
            self._waited = True
            # Volumes may have come: a session that was asked for EEG does not go on with half of it.
            if self._status.eeg_ambiguous:
                return RtDecodeError(
                    "session-eeg-ambiguous",
                    "waited {wait_s:g} s (--wait) for one EEG stream. {missing_sources}.",
                    reason=f"waited {limit:g} s (--wait) for one EEG stream; several fit",
                    wait_s=limit,
                    missing_sources="; ".join(self._waiting),
                )
        if limit and self._told and not self._begun and waited > limit:
            # The second sentence goes into the report, which names no stream and no folder: of
            # "EEG: no LSL stream ..." it keeps the modality.
            missing = [sentence.partition(":")[0] for sentence in self._waiting]
            return RtDecodeError(
                "session-start-timeout",
                "waited {wait_s:g} s (--wait) for a run to begin. Still missing: {missing_sources}. "
                "Start the source, correct its name, or wait longer (--wait 0: for ever).",
                reason=f"waited {limit:g} s (--wait) for a run to begin; still missing: {', '.join(missing)}",
                wait_s=limit,
                missing_sources="; ".join(self._waiting),
            )
        # A session that has had its seconds waits for late volumes alone: silence is no fault then.
        silent = None if self._status.done else self._status.silent
        limit = self._options.lost_after
        if limit and silent is not None and silent > limit:
            return SourceLostError(
                "session-sources-silent",
                "every source has been silent for {silent_s:.0f} s (--lost-after {limit_s:g}): no "
                "EEG sample and no volume. Everything decoded so far was written. Check the "
                "amplifier and the scanner's export, then start a new session (--lost-after 0: never "
                "ends it).",
                silent_s=silent,
                limit_s=limit,
            )
        return None

    def _hand_over(self) -> None:
        """Let the acquisition finish, and decode what it still has."""
        self._handing_over = True
        self._acquisition.stop()
        self._heard_at = time.monotonic()
        # An acquisition that waits for room in the mailbox can end only if messages are still taken.
        while not self._ended:
            self._receive(timeout=0.05)
            # Asked before anything is decoded: the time that this takes is no silence of the acquisition.
            if time.monotonic() > self._heard_at + _END_WITHIN:
                break
            self._decode()
        while len(self._inbox) or self._output.pending:
            self._decode()
            if not self._is_busy:
                self._output.await_clip(_CLIP_EVERY)
        try:
            self._output.settle()
        except OutputError as error:
            self._lose_output(error)
        self._tell()

    def _finish(self, ended: str) -> None:
        self._acquisition.stop()
        self._acquisition.join()
        try:
            self._output.settle()
        except OutputError as error:
            # A fault is being told already.
            self._out_fault = self._out_fault or error
            self._output.leave_out()
        self._decisions.end()
        self._memory.sample(time.monotonic(), now=True)
        # Every window that was reached ends in one final or one skip: what never came is skipped.
        counts = self._output.tally.counts
        self._output.tally.abandon(self._status.reached - counts["final"] - counts["skipped"])
        self._progress.close(self._status, self._output.tally)
        if self._page is not None:
            self._page.over(ended)
        if self._withdrawn:
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
        requests = [] if self._page is None else self._page.requests()
        for request in requests:
            if request.what == "say":
                self._progress.say(request.word)
        if any(request.what == "withdraw" for request in requests):
            self._discard()
            return
        # Of a start that failed, its one sentence says all there is to say. What is not left of a session is
        # not shown either, see `take_back`.
        came_to_nothing = not (self._begun or self._interrupted) or aside.is_aside(self._out)
        if (came_to_nothing and not self._windows_came) or (self._fault is not None and not self._begun):
            return
        report.show(final)
        terminal.line(self._out)
        terminal.line(self._report_path)

    def _discard(self) -> None:
        """Delete what was written, as the participant has withdrawn.

        Raises
        ------
        OutputError
            If something could not be deleted.
        """
        record = self._options.record
        try:
            # It may still be writing the recording.
            self._acquisition.end()
            withdraw(self._out, self._report_path, record)
        except OSError as error:
            places = " and ".join(str(place) for place in (self._out, record) if place is not None)
            raise OutputError(
                "session-withdrawal-incomplete",
                "withdrawn, but not everything could be deleted: {error}. Delete {folders} by hand.",
                reason="withdrawn, but not everything could be deleted",
                error=error,
                folders=places,
            ) from error
        self._console.print("Withdrawn: everything that this session had written was deleted.")

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
        record = self._options.record
        truth = self._options.truth
        # Without a status, the acquisition may have refused the folder: it holds another recording.
        if record is not None and self._windows_came:
            note_derived(record, CLIPS, self._out)
        if record is not None and self._told:
            try:
                self._truth.copy_to(record / "truth")
            except OSError as error:
                self._progress.say(
                    f"the truth could not be copied into the recording ({error}): "
                    f"copy it to {record / 'truth'}"
                )
        if truth is not None and not self._truth.known:
            missing = f"no truth was found in {truth}, so the report has no accuracy"
            self._progress.say(self._truth.fault or missing)

    def _write_report(self, ended: str, judged: Sections | None) -> Report:
        made = report.build(
            self._name,
            self._bundle,
            self._output,
            self._status.counters,
            self._status.expected,
            simulated=self._output.simulated,
            ended=ended,
            memory_mb=self._memory.peak_mb,
            judged=judged,
            dropped_previews=self._inbox.dropped_previews,
            recording=self._recording(),
            restarts=self._restarts.report,
            told=list(self._progress.told),
            eeg_stream=self._status.eeg_stream,
        )
        with writing():
            report.write(self._report_path, made)
        return made

    def _recording(self) -> dict[str, Any] | None:
        """Return the report's section on the recording; None without one."""
        if self._options.record is None:
            return None
        return {"fault": self._record_reason}

    def _interrupt(self, name: str) -> None:
        self._interrupted = f"stopped by {name}"


def _advisor(options: StreamOptions, bundle: Bundle, calibration: Calibration | None) -> Advisor:
    """Make what says of each run whether it looks usable, by the calibration's figures if there is one."""
    known = None if calibration is None else calibration.record.figures
    return Advisor(known, volumes=options.fmri_dir is not None and bundle.projection is not None)


def _error(head: Mapping[str, Any]) -> RtDecodeError:
    return RtDecodeError.from_json(head["error"], head["reason"])
