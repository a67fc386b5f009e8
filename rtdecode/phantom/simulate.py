"""`rtdecode simulate`: the simulated participant live, or its recording as fast as it can be made."""

from pathlib import Path

from rich.console import Console
from rich.progress import track

from rtdecode.errors import RtDecodeError, UsageError
from rtdecode.phantom.brain import TR
from rtdecode.phantom.faults import FaultLog, eeg_fault, volume_fault
from rtdecode.phantom.session import SCAN_ON_S, PhantomSession
from rtdecode.recording import RecordingWriter

SCANNERS = ("siemens-mosaic",)
MOTIONS = ("still",)


def run(
    *,
    lsl: str | None = None,
    fmri_dir: Path | None = None,
    preset: str = "default",
    subject: int = 1,
    seed: int = 1000,
    seconds: float = 60.0,
    wait: float = 60.0,
    scanner: str = "siemens-mosaic",
    in_magnet: bool = False,
    sfreq: float | None = None,
    motion: str = "still",
    faults: str = "",
    truth: Path | None = None,
    record: Path | None = None,
    cuts: str = "grid",
) -> int:
    """Simulate one session; the options are those of the command line.

    Parameters
    ----------
    lsl, fmri_dir
        Name of the EEG stream (its triggers go out as ``NAME-markers``); folder for the volumes.
    wait : float
        Longest wait for a reader of the stream, s; 0 starts at once.
    truth : Path, optional
        Folder for ``film.mp4``, ``events.tsv``, ``faults.jsonl``.
    record : Path, optional
        Write a recording there instead of going by the clock.
    **others
        As of `rtdecode.phantom.session.PhantomSession`; what is not built is refused.

    Raises
    ------
    UsageError
        For what is not built, or if there is nowhere to send anything.
    """
    _check(lsl, fmri_dir, record, scanner, in_magnet, motion)
    rate = 1000 if sfreq is None else sfreq
    session = PhantomSession(preset, subject, seed, seconds, cuts, rate, spec=faults)
    console = Console(stderr=True)
    console.print(_introduction(session), highlight=False, soft_wrap=True)
    log = FaultLog(None if truth is None else truth / "faults.jsonl")
    try:
        if truth is not None:
            session.truth(truth)
        if record is not None:
            _record(session, record, console)
            _log_all(session, log)
            return 0
    except OSError as error:
        raise RtDecodeError(f"cannot write: {error}. Make room, or give another folder.") from error
    # pylsl loads a C library; a recording needs none.
    from rtdecode.phantom import live

    return live.run(session, lsl, fmri_dir, wait, log, console)


def _introduction(session: PhantomSession) -> str:
    preset = session.preset
    return (
        f"The participant is simulated: preset {preset.name} ({preset.describe()}), subject "
        f"{session.subject}, seed {session.seed}, {session.seconds:g} s of film, {session.volumes} volumes."
    )


def _record(session: PhantomSession, folder: Path, console: Console) -> None:
    meta = {
        "simulated": True,
        "preset": session.preset.name,
        "constants": session.preset.describe(),
        "subject": session.subject,
        "seed": session.seed,
        "seconds": session.seconds,
    }
    total = session.volumes * 2 + session.samples / (0.02 * session.sfreq)
    with RecordingWriter(folder, session.montage, meta) as writer:
        session.truth(folder / "truth")
        items = track(session.events(), "recording", total=total, console=console, transient=True)
        for item in items:
            writer.write(item)
    _log_all(session, FaultLog(folder / "truth" / "faults.jsonl"))
    console.print(f"recorded {session.seconds + SCAN_ON_S:g} s to {folder}", highlight=False)


def _log_all(session: PhantomSession, log: FaultLog) -> None:
    lines = [(f.kind, f.start_s, eeg_fault(f)) for f in session.faults if f.kind == "eeg-drop"]
    for index, fault in session.lost_volumes.items():
        t = index * TR
        lines.append((fault.kind, t, volume_fault(index, fault, session.file_name(index))))
    for line in sorted(lines, key=lambda line: line[1]):
        log.write(*line)


def _check(
    lsl: str | None, fmri_dir: Path | None, record: Path | None, scanner: str, in_magnet: bool, motion: str
) -> None:
    if scanner not in SCANNERS:
        raise UsageError(f"--scanner {scanner} is not built yet; there is {', '.join(SCANNERS)}")
    if in_magnet:
        raise UsageError("--in-magnet is not built yet; there is --clean, EEG without the magnet's artefacts")
    if motion not in MOTIONS:
        raise UsageError(f"--motion {motion} is not built yet; there is {', '.join(MOTIONS)}")
    if lsl is None and fmri_dir is None and record is None:
        raise UsageError("nothing to simulate into: give --lsl NAME, --fmri-dir DIR, both, or --record DIR")
