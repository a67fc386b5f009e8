"""A live session: the acquisition process, the decoder and the sinks, and how they end."""

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from rich.console import Console

from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle
from rtdecode.errors import RtDecodeError, SourceLostError, UsageError
from rtdecode.recording import check_unused
from streaming import orders, report, signals
from streaming.deadline import Inbox, Work, time_left
from streaming.decoder import Decoder, check_steps
from streaming.mailbox import Mailbox, slot_bytes, unpack
from streaming.memory import Memory
from streaming.output import Output, prepare, writing
from streaming.progress import Progress
from streaming.truth import Truth

# Windows that wait in the mailbox and in the inbox; where both are full, acquisition waits.
_SLOTS, _INBOX = 16, 16
_REPORT_EVERY = 5.0
_SAY_EVERY = 5.0
# Silence of the acquisition after which the session ends without what it still has, s.
_END_WITHIN = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """The flags of ``rtdecode stream``."""

    lsl: str | None = None
    fmri_dir: Path | None = None
    bundle: str = "phantom"
    calibration: Path | None = None
    out: Path | None = None
    report: Path | None = None
    seconds: float | None = None
    truth: Path | None = None
    record: Path | None = None
    dashboard: str | None = None
    decoder: str | None = None
    wait: float = 60.0
    lost_after: float = 30.0
    existing: str = "ignore"
    dummies: int = 0
    overwrite: bool = False
    steps: int | None = None
    carry: bool = True
    twin: bool = False
    series: int | None = None
    moco: bool = False
    peers: tuple[str, ...] = ()


def run(options: StreamOptions) -> int:
    """Decode a live session into clips.

    Returns
    -------
    int
        0 after Ctrl-C, SIGTERM and the end of `seconds`.

    Raises
    ------
    RtDecodeError
        With everything written; its `exit_code` says which fault.
    """
    bundle = bundles.load(options.bundle)
    _check(options, bundle)
    name = time.strftime("%Y%m%d-%H%M%S")
    out = options.out or Path("runs") / f"stream-{name}"
    prepare(out, overwrite=options.overwrite)
    console = Console(stderr=True)
    if bundle.manifest.simulated:
        console.print("[bold]Simulated participant:[/] the bundle decodes one simulated brain, and no other.")
    session = _Session(options, bundle, out, name, console)
    session.run()
    return 0


def _check(options: StreamOptions, bundle: Bundle) -> None:
    for flag, value in {"--dashboard": options.dashboard, "--decoder": options.decoder}.items():
        if value is not None:
            raise UsageError(f"{flag} is not built yet. There are --lsl, --fmri-dir, --bundle and --truth.")
    check_steps(bundle, options.steps)
    given = {"eeg": options.lsl, "fmri": options.fmri_dir}
    if all(value is None for value in given.values()):
        raise UsageError("nothing to read: give --lsl NAME, --fmri-dir DIR, or both.")
    if not any(given[modality] is not None for modality in bundle.manifest.modalities):
        raise UsageError(
            f"bundle {bundle.manifest.name} decodes {' and '.join(bundle.manifest.modalities)}, and no such "
            "source was given. Give --lsl NAME for EEG or --fmri-dir DIR for fMRI, or another --bundle."
        )
    folder = options.fmri_dir
    if folder is not None and not folder.resolve().parent.is_dir():
        raise UsageError(
            f"--fmri-dir {folder}: its parent folder does not exist. Check the path or the mount."
        )
    window = float(bundle.manifest.grid.window)
    if options.seconds is not None and options.seconds < window:
        raise UsageError(
            f"--seconds {options.seconds:g} holds no window of {window:g} s. Give {window:g} or more."
        )
    for flag, value in {"--wait": options.wait, "--lost-after": options.lost_after}.items():
        if value < 0:
            raise UsageError(f"{flag} {value:g}: seconds from 0 on were expected.")
    if options.report is not None and not options.report.resolve().parent.is_dir():
        raise UsageError(f"--report {options.report}: its folder does not exist. Make it, or give another.")
    if options.truth is not None and not options.truth.resolve().parent.is_dir():
        raise UsageError(f"--truth {options.truth}: its parent folder does not exist. Check the path.")
    if (
        options.truth is not None
        and options.out is not None
        and options.truth.resolve() == options.out.resolve()
    ):
        raise UsageError(f"--truth and --out are both {options.out}: film.mp4 there would be overwritten.")
    if options.record is not None:
        check_unused(options.record)


def keep_runs(known: dict[int, dict[str, Any]], status: dict[str, Any]) -> None:
    """Put what earlier statuses said of the runs, by number, back into one that tells of the newest."""
    known |= {one["run"]: one for one in status["counters"]["runs"]}
    status["counters"]["runs"] = list(known.values())


class _Session:
    """What one session holds; `run` is its whole life."""

    def __init__(
        self, options: StreamOptions, bundle: Bundle, out: Path, name: str, console: Console
    ) -> None:
        self._options, self._bundle, self._name, self._out = options, bundle, name, out
        self._console = console
        self._report_path = options.report or out / "report.json"
        context = multiprocessing.get_context("spawn")
        self._mailbox = Mailbox(context, _SLOTS, slot_bytes(bundle))
        self._stop: Event = context.Event()
        self._process: SpawnProcess = context.Process(
            target=orders.acquire,
            args=(_sources(options, bundle, name), self._mailbox, self._stop),
            daemon=True,
        )
        self._patience = float(bundle.manifest.grid.hop)
        self._inbox = Inbox(self._patience)
        self._status: dict[str, Any] = {}
        self._runs: dict[int, dict[str, Any]] = {}
        self._interrupted = ""
        self._fault: RtDecodeError | None = None
        self._ended = False
        self._began_at = self._heard_at = time.monotonic()
        self._said_at = self._reported_at = self._began_at
        self._memory = Memory()

    def run(self) -> None:
        with signals.told(self._interrupt), _process(self._process, self._stop):
            self._truth = Truth(self._options.truth, self._bundle)
            self._output = Output(
                *(self._out, self._name, self._bundle),
                Decoder(self._bundle, time.monotonic, carry=self._options.carry),
                *(self._truth, time.monotonic),
                simulated=self._bundle.manifest.simulated,
                steps=self._options.steps,
                twin=self._options.twin,
            )
            self._progress = Progress(self._console, self._options.seconds)
            ended = "a fault that was not foreseen"
            try:
                ended = self._loop()
                self._hand_over()
            except RtDecodeError as error:
                ended = str(error)
                raise
            finally:
                self._finish(ended)
            if self._fault is not None:
                raise self._fault

    def _loop(self) -> str:
        """Decode until something ends the session; returns what did, in words."""
        while not (self._interrupted or self._status.get("done")):
            self._receive(timeout=0.05)
            self._decode_one()
            self._periodic()
            self._fault = self._fault or self._judge()
            if self._fault is not None:
                return str(self._fault)
        return self._interrupted or "the requested seconds were decoded"

    def _receive(self, timeout: float) -> None:
        """Take the messages that wait, for `timeout` seconds the first, until the inbox is full."""
        message = self._mailbox.get(0.0 if len(self._inbox) else timeout)
        if message is None and not self._process.is_alive() and not self._ended:
            self._ended = True
            self._fault = self._fault or RtDecodeError(
                f"the acquisition process ended by itself (exit code {self._process.exitcode}); what it "
                "printed above says why. Everything decoded so far was written. Start the session again."
            )
        while message is not None:
            kind = message.head["kind"]
            if kind == "window":
                head = message.head
                self._inbox.put(Work(unpack(message), head["clip"], head["costs"], head["backlog"]))
            elif kind == "fault":
                self._fault, self._ended = _error(message.head), True
            else:
                self._take_status(message.head)
            self._heard_at = time.monotonic()
            message = self._mailbox.get(0.0) if len(self._inbox) < _INBOX else None

    def _take_status(self, status: dict[str, Any]) -> None:
        if not self._status:
            self._began_at = time.monotonic()
        if status["existing"] and not self._status:
            self._progress.say(f"{status['existing']} files that lay in {self._options.fmri_dir} are ignored")
        for sentence in status["notes"]:
            self._progress.say(sentence)
        if status["simulated"] and not self._output.simulated:
            self._progress.say("Simulated participant: a source says so.")
            self._output.mark_simulated()
        keep_runs(self._runs, status)
        self._status = status
        self._ended = status["kind"] == "end"
        for name, values in status["costs"].items():
            for value in values:
                self._output.meter.add({name: value})

    def _decode_one(self) -> None:
        now = time.monotonic()
        work, skipped = self._inbox.take(now)
        for late in skipped:
            self._output.skip(late)
        if work is not None:
            self._output.emit(work, time_left(work, now, self._patience, len(self._inbox) + 1))

    def _periodic(self) -> None:
        now = time.monotonic()
        self._progress.update(self._status, self._output.counts)
        self._memory.sample(now)
        if now - self._reported_at > _REPORT_EVERY:
            self._reported_at = now
            self._write_report("running", None)
        if now - self._said_at > _SAY_EVERY and self._waiting:
            self._said_at = now
            self._progress.say("waiting for " + "; ".join(self._waiting))

    @property
    def _waiting(self) -> list[str]:
        return self._status.get("waiting", ["the acquisition process"])

    @property
    def _begun(self) -> bool:
        return self._status.get("elapsed") is not None

    def _judge(self) -> RtDecodeError | None:
        """Tell whether the sources did not come, or fell silent."""
        waited, limit = time.monotonic() - self._began_at, self._options.wait
        # --wait is for the sources: nobody looks for them while the acquisition process is starting.
        if limit and self._status and not self._begun and waited > limit:
            return RtDecodeError(
                f"waited {limit:g} s (--wait) for a run to begin. Still missing: {'; '.join(self._waiting)}. "
                "Start the source, correct its name, or wait longer (--wait 0: for ever)."
            )
        silent, limit = self._status.get("silent"), self._options.lost_after
        if limit and silent is not None and silent > limit:
            return SourceLostError(
                f"every source has been silent for {silent:.0f} s (--lost-after {limit:g}): no EEG sample "
                "and no volume. Everything decoded so far was written. Check the amplifier and the scanner's "
                "export, then start a new session (--lost-after 0: never ends it)."
            )
        return None

    def _hand_over(self) -> None:
        """Let the acquisition finish, and decode what it still has."""
        self._stop.set()
        self._heard_at = time.monotonic()
        while not (self._ended and len(self._inbox) == 0) and time.monotonic() < self._heard_at + _END_WITHIN:
            self._receive(timeout=0.05)
            self._decode_one()

    def _finish(self, ended: str) -> None:
        self._progress.close()
        self._stop.set()
        self._process.join(timeout=5.0)
        self._memory.sample(time.monotonic(), now=True)
        counts = self._output.counts
        counts["skipped"] += max(0, self._status.get("expected", 0) - counts["final"] - counts["skipped"])
        judged = None
        try:
            judged = self._output.judge()
        finally:
            # Closing gives back the room that a full disk lacks for the report.
            try:
                self._output.close()
            finally:
                final = self._write_report(ended, judged)
        self._keep_truth()
        report.show(final)
        print(self._out)  # noqa: T201
        print(self._report_path)  # noqa: T201

    def _keep_truth(self) -> None:
        """Put the truth beside what was recorded, if anything was; say what is wrong with it."""
        record, truth = self._options.record, self._options.truth
        # Before the first status the acquisition may have refused the folder: it is another recording's.
        if record is not None and self._status:
            try:
                self._truth.copy_to(record / "truth")
            except OSError as error:
                self._progress.say(
                    f"the truth is not in the recording ({error}): copy it to {record / 'truth'}"
                )
        if truth is not None and not self._truth.known:
            missing = f"no truth came to {truth}: the report has no accuracy"
            self._progress.say(self._truth.fault or missing)

    def _write_report(self, ended: str, judged: dict[str, Any] | None) -> dict[str, Any]:
        made = report.build(
            self._name,
            self._bundle,
            self._output,
            self._status,
            simulated=self._output.simulated,
            ended=ended,
            memory_mb=self._memory.peak_mb,
            judged=judged,
        )
        with writing():
            report.write(self._report_path, made)
        return made

    def _interrupt(self, name: str) -> None:
        self._interrupted = f"stopped by {name}"


def _sources(options: StreamOptions, bundle: Bundle, name: str) -> orders.Sources:
    return orders.Sources(
        bundle=bundle.path.resolve(),
        lsl=options.lsl,
        fmri_dir=options.fmri_dir,
        existing=options.existing,
        seconds=options.seconds,
        dummies=options.dummies,
        series=options.series,
        moco=options.moco,
        calibration=options.calibration,
        peers=options.peers,
        record=options.record,
        meta={
            "session": name,
            # Of the participant, until a source says so; a bundle made on one serves others too.
            "simulated": False,
            "bundle": bundle.digest,
            "seconds": options.seconds,
            "dummies": options.dummies,
            "calibration": options.calibration and str(options.calibration.resolve()),
        },
    )


def _error(head: dict[str, Any]) -> RtDecodeError:
    error = RtDecodeError(head["text"])
    error.exit_code = head["exit_code"]
    return error


@contextmanager
def _process(process: SpawnProcess, stop: Event) -> Iterator[None]:
    """A process that is gone when the block is left, however it is left."""
    with signals.ignored():
        process.start()
    try:
        yield
    finally:
        stop.set()
        process.join(timeout=5.0)
        if process.is_alive():
            process.kill()
            process.join()
