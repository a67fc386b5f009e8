"""Carry out `rtdecode simulate`: run the participant live, or record it as fast as it can be made.

The options make a `PhantomSession`. With ``--record`` its events are written straight to a recording; else
`rtdecode.phantom.live.live` sends them by the clock. What was true goes to the truth folder in both cases.
"""

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console

from rtdecode import terminal
from rtdecode.disk import private
from rtdecode.disk.recording import RecordingWriter
from rtdecode.errors import RtDecodeError, UsageError
from rtdecode.phantom.body import in_scanner_eeg
from rtdecode.phantom.body.brain import TR
from rtdecode.phantom.body.cortex import MIXED
from rtdecode.phantom.body.delivery_faults import FaultLog, absences, folder_fault, volume_fault
from rtdecode.phantom.body.gaze import FIXED, FREE
from rtdecode.phantom.body.movement import MOTIONS
from rtdecode.phantom.body.movement import describe as describe_motion
from rtdecode.phantom.film.features import spread
from rtdecode.phantom.film.watched import NONE, SHAPES, Pictures
from rtdecode.phantom.session import CHUNK_S, SCAN_ON_S, START_AT, STEADY, PhantomSession


def run(
    *,
    lsl: str | None = None,
    fmri_dir: Path | None = None,
    preset: str = "default",
    subject: int = 1,
    seed: int = 1000,
    seconds: float | None = None,
    film: str = SHAPES,
    gaze: str = FIXED,
    tr: float = TR,
    cortex: str = MIXED,
    wait: float = 60.0,
    scanner: str = "siemens-mosaic",
    in_magnet: bool = False,
    sfreq: float | None = None,
    motion: str = "still",
    delivery: str = "steady",
    faults: str = "",
    truth: Path | None = None,
    record: Path | None = None,
    cuts: str = "grid",
    first_delay: float | None = None,
    settling: bool = False,
    film_seed: int | None = None,
    pose: str = "",
) -> int:
    """Simulate one session; the options are those of the command line. Ctrl-C and SIGTERM end it early.

    Parameters
    ----------
    lsl, fmri_dir
        Name of the EEG stream, whose triggers go out as ``NAME-markers``; folder for the volumes.
    wait : float
        Longest wait for a reader of the stream, s; 0 starts at once.
    in_magnet : bool
        Send 63 channels of EEG and an ECG, at 5000 Hz by default (`rtdecode.phantom.body.in_scanner_eeg`).
    truth : Path, optional
        Folder for ``film.mp4``, ``events.tsv``, ``faults.jsonl``.
    record : Path, optional
        Write a recording there instead of going by the clock.
    **others
        As for `rtdecode.phantom.session.PhantomSession`; what is not built is refused.

    Raises
    ------
    UsageError
        If an option asks for what is not built, or there is nowhere to send anything.
    """
    if lsl is None and fmri_dir is None and record is None:
        raise UsageError(
            "simulation-destination-missing",
            "nothing to simulate into: give --lsl NAME, --fmri-dir DIR, both, or --record DIR",
        )
    # Signals are caught from the first moment on, while the session is still being made.
    with _stop_on_signals() as stop:
        session = PhantomSession(
            preset,
            subject,
            seed,
            seconds,
            cuts,
            (in_scanner_eeg.SFREQ if in_magnet else 1000) if sfreq is None else sfreq,
            spec=faults,
            vendor=scanner,
            first_delay=first_delay,
            motion=motion,
            delivery=delivery,
            film=film,
            gaze=gaze,
            tr_s=tr,
            cortex=cortex,
            settling=settling,
            artifacts=in_scanner_eeg.Artifacts() if in_magnet else None,
            film_seed=film_seed,
            pose=pose,
        )
        return _send(session, lsl, fmri_dir, wait, truth, record, stop)


def _send(
    session: PhantomSession,
    lsl: str | None,
    fmri_dir: Path | None,
    wait: float,
    truth: Path | None,
    record: Path | None,
    stop: threading.Event,
) -> int:
    console = terminal.console(stderr=True)
    console.print(*_introduction(session), sep="\n", soft_wrap=True)
    log = FaultLog(None if truth is None else truth / "faults.jsonl")
    with _writing():
        if truth is not None:
            session.truth(truth)
        if record is not None:
            until_s = _record(session, record, console, stop)
            _log_all(session, log, until_s)
            return 0
    # Imported here because pylsl loads a C library, which a recording does not need.
    from rtdecode.phantom.live import live

    with _writing():
        return live.run(session, lsl, fmri_dir, wait, log, console, stop)


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RtDecodeError(
            "simulation-write-failed",
            "cannot write: {error}. Give another folder, or see to this one.",
            error=error,
        ) from error


def _introduction(session: PhantomSession) -> tuple[str, str, str]:
    preset = session.preset
    head = "still" if session.motion == "still" else f"moving ({_motion(session)})"
    if session.pose:
        head += f", off its usual place by {session.pose} (mm, degrees)"
    participant = (
        f"The participant is simulated: preset {preset.name} ({preset.describe()}), subject "
        f"{session.subject}{_cortex(session)}, seed {session.seed}, {_film(session)}, "
        f"{session.volumes} volumes at TR {session.tr_s:g} s."
    )
    scanner = (
        f"Scanner {session.vendor.name}: files whole {_delivery(session)}; "
        f"head {head}{', first volumes brighter (T1)' if session.settling else ''}."
    )
    channels = len(session.montage.channels)
    return participant, scanner, f"EEG {channels} channels at {session.sfreq} Hz, {_surroundings(session)}."


def _film(session: PhantomSession) -> str:
    length = f"{session.seconds:g} s"
    if session.film_name == NONE:
        return f"{length} of a grey screen"
    cuts = len(session.film.cut_frames) - 1
    eyes = "the eyes rest on its middle" if session.gaze is None else "the eyes look about"
    fault = session.film.fault if isinstance(session.film, Pictures) else ""
    broken = f"; what follows cannot be decoded: {fault}" if fault else ""
    # How much of what the eye takes changes in this film, against the films that the eye is standardised on.
    share = spread(session.features)
    noise = session.preset.feature_noise / share
    seeded = "" if session.film_seed is None else f" under seed {session.film_seed}"
    return (
        f"{length} of {session.film_name}{seeded} ({cuts} cuts; {eyes}; features vary {share:.2g} times as "
        f"much as those of usual films, effective noise {noise:.2g}{broken})"
    )


def _cortex(session: PhantomSession) -> str:
    return "" if session.cortex == MIXED else f" ({session.cortex} cortex)"


def _motion(session: PhantomSession) -> str:
    return describe_motion() if session.motion in MOTIONS else f"as in {session.motion}"


def _delivery(session: PhantomSession) -> str:
    if session.delivery != STEADY:
        delays = f"{min(session.delays):.2g} to {max(session.delays):.2g} s"
        return f"{delays} after a volume's end (as in {session.delivery})"
    first = session.delays[0] - session.volume_delay
    late = f" (the first {first:g} s later)" if first else ""
    return f"{session.volume_delay:g} s after a volume's end{late}"


def _surroundings(session: PhantomSession) -> str:
    return (
        "without the magnet's artefacts"
        if session.artifacts is None
        else in_scanner_eeg.describe(session.drift_ppm)
    )


def _record(session: PhantomSession, folder: Path, console: Console, stop: threading.Event) -> float:
    """Write the recording until its end or `stop`; return how far it went, s after the first trigger."""
    meta = {
        "simulated": True,
        "preset": session.preset.name,
        "constants": session.preset.describe(),
        "subject": session.subject,
        "seed": session.seed,
        "seconds": session.seconds,
        "film": session.film_name,
        "gaze": FIXED if session.gaze is None else FREE,
        "scanner": session.vendor.name,
        "motion": session.motion,
        "delivery": session.delivery,
        "tr_s": session.tr_s,
        "in_magnet": session.artifacts is not None,
    }
    # A recording of the default has the words that it had before there was another one.
    if session.cortex != MIXED:
        meta["cortex"] = session.cortex
    # For the progress bar: volumes and their triggers, and the chunks of EEG.
    total = session.volumes * 2 + session.samples / (CHUNK_S * session.sfreq)
    if session.pose:
        meta["pose"] = session.pose
    with RecordingWriter(folder, session.montage, meta) as writer:
        session.truth(private.folder(folder / "truth"), closed=True)
        items = terminal.track(session.events(), "recording", total=total, console=console, transient=True)
        until_s = math.inf
        for item in items:
            if stop.is_set():
                until_s = item.arrived_at - START_AT
                break
            writer.write(item)
    _log_all(session, FaultLog(folder / "truth" / "faults.jsonl"), until_s)
    whole_s = session.seconds + SCAN_ON_S
    part = f", stopped after {max(until_s, 0.0):.1f} s of them" if until_s < math.inf else ""
    console.print(f"recorded {whole_s:g} s{part} to {folder}", highlight=False)
    return until_s


def _log_all(session: PhantomSession, log: FaultLog, until_s: float) -> None:
    """Log the faults that happened before `until_s`."""
    lines = session.signal_lines()
    for start, stop, fault in absences(session.faults):
        lines.append((fault.kind, start, folder_fault(start, stop, session.hidden(start, stop))))
    for index, fate in session.fates.items():
        timing = {"whole_s": session.whole_s(index)} if fate.is_readable else {}
        for fault in fate.faults:
            detail = volume_fault(index, fault, session.file_name(index)) | timing
            lines.append((fault.kind, index * session.tr_s, detail))
    for line in sorted(lines, key=lambda line: line[1]):
        if line[1] < until_s:
            log.write(*line)


@contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C and SIGTERM set; outside the main thread nobody sets it.

    The handlers are installed explicitly, because a shell starts a program with ``&`` with SIGINT ignored,
    and Python leaves an ignored signal alone.
    """
    stop = threading.Event()

    def handle(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
