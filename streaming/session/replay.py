"""Replay of a recording: the code of a live session on a virtual clock.

The recorded items go through the same assembler, decoder and output as in a session. The clock is when they
arrived, not when they are read back, so the windows are those that the session cut, at any speed. What is
written is the same too: clips, film and report.
"""

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from rtdecode import bundle as bundles
from rtdecode import terminal
from rtdecode.bundle import Bundle
from rtdecode.bundle.prepared import check_live, unplaced
from rtdecode.disk import calibration as calibrations
from rtdecode.disk import private
from rtdecode.disk.calibration import Calibration
from rtdecode.disk.derived import CLIPS, note_derived
from rtdecode.disk.folders import is_in_use, locked
from rtdecode.disk.recording import Recording
from rtdecode.disk.recording_index import Loss
from rtdecode.errors import GeometryError, RtDecodeError, UsageError
from rtdecode.types import EegChunk, Montage, Trigger, Volume
from rtdecode.windows.assembler import Assembler, Counters
from streaming.decode.decoder import Decoder, check_detail, check_steps
from streaming.session import interrupts
from streaming.session.as_live import AsLive, Windows, choose
from streaming.session.checks import check_report
from streaming.session.memory import MemoryMeter
from streaming.session.options import StreamOptions
from streaming.session.page_link import open_page, write_entrance
from streaming.session.replay_page import ReplayPage
from streaming.sinks import report as reports
from streaming.sinks.clip_emitter import ClipEmitter, open_emitter
from streaming.sinks.session_folder import prepare, writing
from streaming.sinks.truth import Truth

Item = EegChunk | Trigger | Volume
_COMPLETE = "end of the recording"
# Longest sleep, s: a signal does not end `time.sleep` (PEP 475), so it is looked for in between.
_LOOK_UP = 0.1


def run(
    recording: Path,
    bundle: str,
    speed: str = "1",
    out: Path | None = None,
    report: Path | None = None,
    *,
    steps: int | None = None,
    detail: float | None = None,
    carry: bool = True,
    twin: bool = False,
    subject: str | None = None,
    dashboard: str | None = None,
    as_live: bool | None = None,
    calibration: Path | None = None,
) -> int:
    """Decode a recording; after Ctrl-C or SIGTERM, end with everything written.

    Parameters
    ----------
    recording : Path
        Folder made by ``--record``.
    bundle : str
        Path or name of a bundle.
    speed : str
        Times real time, or ``max``: as fast as the machine decodes.
    out, report : Path, optional
        As for a live session.
    steps : int, optional
        Denoising steps, the same for every clip at any speed; by default as live, or the bundle's.
    detail : float, optional
        Share of detail that every clip keeps; by default as live, or the bundle's.
    carry, twin : bool
        As for a live session.
    subject : str, optional
        One of the bundle's subjects. A recording does not say whose it is.
    dashboard : str, optional
        ``HOST:PORT`` of the operator's page.
    as_live : bool, optional
        Repeat what was live, or decode every window at full steps; by default what the recording allows.
    calibration : Path, optional
        A calibration in place of the session's own, or of none: every window is decoded at full steps then.

    Raises
    ------
    UsageError
        If the bundle cannot take `steps` or keep `detail`, the page cannot be served, the calibration of the
        session is missing or a different one, or `as_live` was asked for and cannot be.
    GeometryError
        If the recording holds nothing that the bundle reads, or the calibration reads other features.
    BundleError
        If the bundle decodes prepared files, and the recording holds what a scanner or an amplifier sent.
    """
    pace = _pace(speed)
    recorded = Recording(recording, partial=True)
    loaded = bundles.load(bundle, subject=subject)
    if not _is_prepared(recorded, loaded):
        check_live(loaded.manifest)
    check_steps(loaded, steps)
    check_detail(loaded, detail)
    name = time.strftime("%Y%m%d-%H%M%S")
    folder = out or Path("runs") / f"replay-{name}"
    check_report(report, folder)
    if is_in_use(folder):
        raise UsageError(
            "output-folder-not-empty", "--out {folder} is in use. Give a new or empty folder.", folder=folder
        )
    choice = choose(
        recording,
        loaded,
        as_live,
        steps=steps,
        detail=detail,
        carry=carry,
        calibrated=calibration is not None,
    )
    placed = recorded.calibration() if calibration is None else calibrations.load(calibration)
    again = None if choice.decisions is None else AsLive(choice.decisions)
    # Both may refuse the recording or the bundle; only then is a folder made.
    make = partial(assembler, recorded, loaded, placed)
    windows = Windows(make, recorded.montage, choice.decisions)
    decoder = Decoder(loaded, carry=carry)
    console = terminal.console(stderr=True)
    console.print(choice.sentence, highlight=False, markup=False, soft_wrap=True)
    for note in [*recorded.notes(), *decoder.notes]:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    with locked(folder, "--out", f"replay {name}"), ExitStack() as running:
        page = open_page(_options(recorded, subject, dashboard), loaded, folder, running, console)
        prepare(folder, overwrite=False)
        note_derived(recording, CLIPS, folder)
        write_entrance(page, console)
        of_stream = recorded.montage is not None and recorded.montage.simulated
        simulated = bool(recorded.meta.get("simulated")) or of_stream
        truth = Truth(recorded.truth, loaded)
        output = open_emitter(
            folder,
            name,
            loaded,
            decoder,
            truth,
            time.monotonic,
            simulated=simulated,
            live=False,
            steps=steps,
            detail=detail,
            twin=twin,
            modalities=recorded.meta.get("asked") or _modalities(recorded, loaded),
            on_decided=None if again is None else again.compare,
        )
        path = report or folder / "report.json"
        # What the report says if anything but an `RtDecodeError` ends the replay.
        ended = "an unexpected error"
        stopped = list[str]()
        memory = MemoryMeter()
        watched = None
        if page is not None:
            say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
            watched = ReplayPage(page, windows.assembler, output, say)
            windows.on_new = watched.follow
        with interrupts.on_interrupt(stopped.append):
            try:
                ended = _play(recorded, loaded, windows, again, output, pace, stopped, memory, watched)
            except RtDecodeError as error:
                ended = error.reason
                raise
            finally:
                if watched is not None:
                    watched.over(ended)
                _close(recording, name, loaded, output, windows, again, recorded, path, ended, memory)
                terminal.line(folder)
                terminal.line(path)
    if truth.fault:
        console.print(truth.fault, highlight=False, soft_wrap=True)
    if again is not None:
        sentence = again.sentence(to_end=ended == _COMPLETE)
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    return 0


def _is_prepared(recording: Recording, bundle: Bundle) -> bool:
    """Whether a recording has the channels and the rows of voxels that a bundle of prepared files reads."""
    manifest = bundle.manifest
    if not unplaced(manifest):
        return False
    if manifest.eeg is not None and recording.montage is not None:
        return {*manifest.eeg.channels} <= {*recording.montage.channels}
    first = next((item for item in recording.events() if isinstance(item, Volume)), None)
    return first is None or manifest.fmri is None or list(first.data.shape) == manifest.fmri.shape


def _options(recording: Recording, subject: str | None, dashboard: str | None) -> StreamOptions:
    """Say to the page what a session with these sources would."""
    return StreamOptions(
        lsl=None if recording.montage is None else "the recording",
        fmri_dir=recording.path if recording.has_volumes() else None,
        truth=recording.truth,
        subject=subject,
        dashboard=dashboard,
        group_readable=private.shared_with_group(),
    )


def assembler(
    recording: Recording, bundle: Bundle, placed: Calibration | None, montage: Montage | None, **changed: Any
) -> Assembler:
    """Make the assembler that cuts the windows of a recording; `changed` replaces its settings."""
    settings: dict[str, Any] = {
        "dummies": recording.meta.get("dummies", 0),
        # A session writes this down when it ends: a recording that was cut off does not have it.
        "triggers_expected": recording.meta.get("triggers_expected", recording.has_triggers()),
        "calibration": placed,
        "restarted_at": recording.restarted_at,
        "listening_since": recording.meta.get("listening_since"),
    }
    return Assembler(
        bundle, montage, _modalities(recording, bundle), recording.meta.get("seconds"), **settings | changed
    )


def _items(recording: Recording, bundle: Bundle, assembler: Assembler) -> Iterator[Item]:
    """Yield the items as the session took them.

    A session also records volumes that its bundle cannot read. They place their run in time and are not
    decoded. Another bundle may be able to read them.
    """
    unread = recording.meta.get("unread", False) and recording.meta.get("bundle") == bundle.digest
    for item in recording.events():
        if unread and isinstance(item, Volume) and item.live:
            yield replace(item, live=assembler.unread(item.data.shape, item.affine) is None)
        else:
            yield item


def _play(
    recording: Recording,
    bundle: Bundle,
    windows: Windows,
    again: AsLive | None,
    output: ClipEmitter,
    pace: float | None,
    stopped: list[str],
    memory: MemoryMeter,
    watched: ReplayPage | None,
) -> str:
    """Decode until the end, or until `stopped` holds what stops it; return in words what ended it."""
    began = time.monotonic()
    first = None
    console = terminal.console(stderr=True)
    items = _items(recording, bundle, windows.assembler)
    items = items if watched is None else watched.watch_items(items)
    rested_at = recording.meta.get("rested_at")
    jobs = windows.jobs(items, recording.meta.get("ended_at", -math.inf), rested_at)
    ended = _COMPLETE
    progress = terminal.track(
        jobs, "replay", console=console, transient=True, disable=not console.is_terminal
    )
    for job in progress:
        # A window is due when the session cut it, counted from the first one.
        first = job.window.stamps["windowed"] if first is None else first
        if pace is not None:
            due = began + (job.window.stamps["windowed"] - first) / pace
            while not stopped and due > time.monotonic():
                time.sleep(min(_LOOK_UP, max(0.0, due - time.monotonic())))
                _ask(watched, stopped)
        _ask(watched, stopped)
        if stopped:
            ended = f"stopped by {stopped[0]}"
            break
        if again is not None and again.drops(job):
            continue
        if watched is not None:
            watched.tell(job)
        if again is None:
            output.emit(job)
        else:
            again.emit(output, job)
        memory.sample(time.monotonic())
        _tell(windows, output, watched, console)
    output.settle()
    _tell(windows, output, watched, console)
    return ended


def _tell(windows: Windows, output: ClipEmitter, watched: ReplayPage | None, console: Console) -> None:
    """Tell what there is to say since the last call."""
    notes = output.notes()
    for sentence in [*windows.notes(), *notes, *output.tally.categories()]:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    if watched is not None:
        watched.say(notes)


def _ask(watched: ReplayPage | None, stopped: list[str]) -> None:
    """Do what the operator asks for on the page."""
    if watched is not None and watched.stopped():
        stopped.append("the operator on the page")


def _close(
    recording: Path,
    name: str,
    bundle: Bundle,
    output: ClipEmitter,
    windows: Windows,
    again: AsLive | None,
    recorded: Recording,
    path: Path,
    ended: str,
    memory: MemoryMeter,
) -> None:
    memory.sample(time.monotonic(), now=True)
    to_end = ended == _COMPLETE
    judged = None
    try:
        judged = output.judge()
    finally:
        # Closing deletes a temporary file, which makes room for the report on a full disk.
        try:
            output.close()
        finally:
            counts = output.tally.counts
            # At the end of the recording the flush has ended every run, so any later time gives the same
            # number. A replay that was stopped expects no more windows than it decoded or skipped.
            expected = windows.assembler.expected(math.inf) if to_end else counts["final"] + counts["skipped"]
            report = reports.build(
                name,
                bundle,
                output,
                _counted(windows.counters(), bundle, recorded.loss),
                expected,
                simulated=output.simulated,
                ended=ended,
                memory_mb=memory.peak_mb,
                judged=judged,
                dropped_previews=0 if again is None else again.dropped_previews,
                replayed="best" if again is None else "as-live",
                recording_chain="offline" if recorded.offline else "causal",
                as_live=None if again is None else again.counts(to_end=to_end),
            )
            with writing():
                reports.write(path, report)
    if ended == _COMPLETE and not expected:
        raise UsageError(
            "recording-too-short",
            "no run of {recording} is as long as a window of the bundle {bundle} and its volumes, which "
            "take {needed_s:g} s. {volumes} volumes and {samples} EEG samples came. Give a longer recording.",
            recording=recording,
            bundle=bundle.manifest.name,
            needed_s=float(bundle.manifest.grid.window + bundle.manifest.grid.wait),
            volumes=report["fmri"]["volumes"] or 0,
            samples=report["eeg"]["samples"] or 0,
        )
    reports.show(report)


def _counted(counters: Counters, bundle: Bundle, loss: Loss) -> Counters:
    """Count what the recording lacks as lost, as far as the bundle reads it."""
    if not loss.damage:
        return counters
    if bundle.manifest.eeg is not None:
        counters["eeg"]["lost_samples"] += loss.samples + loss.unlisted_samples
    if bundle.manifest.fmri is not None:
        # The assembler has taken their times, and counts them as received.
        counters["fmri"]["volumes"] = max(0, counters["fmri"]["volumes"] - loss.volumes)
        counters["fmri"]["missing"] += loss.volumes + loss.unlisted_volumes
    return counters


def _pace(speed: str) -> float | None:
    if speed == "max":
        return None
    try:
        value = float(speed)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise UsageError(
            "replay-speed-invalid",
            "--speed {speed}: a positive number (times real time) or 'max' was expected.",
            speed=speed,
        )
    return value


def _modalities(recording: Recording, bundle: Bundle) -> list[str]:
    modalities = [
        n for n, has in (("eeg", recording.montage is not None), ("fmri", recording.has_volumes())) if has
    ]
    if not modalities:
        raise UsageError(
            "recording-empty",
            "{recording} holds no EEG and no volume: nothing came while it was made. Give another recording.",
            recording=recording.path,
        )
    if not set(modalities) & set(bundle.manifest.modalities):
        raise GeometryError(
            "recording-modality-mismatch",
            "bundle {bundle} decodes {bundle_modalities}, the recording {recording} holds "
            "{recording_modalities}. Give another --bundle.",
            bundle=bundle.manifest.name,
            bundle_modalities=" and ".join(bundle.manifest.modalities),
            recording=recording.path,
            recording_modalities=" and ".join(modalities) or "nothing",
        )
    return modalities
