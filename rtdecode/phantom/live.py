"""The simulated session by the clock: an LSL outlet, a marker outlet, and files in a folder."""

import queue
import re
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import TypeVar

import numpy as np
from rich.console import Console

from rtdecode.errors import RtDecodeError
from rtdecode.liblsl import pylsl
from rtdecode.phantom import faults as damage
from rtdecode.phantom.amplifier import LEAD_IN_S
from rtdecode.phantom.brain import TR
from rtdecode.phantom.faults import FaultLog, eeg_fault, volume_fault
from rtdecode.phantom.mosaic import mosaic_bytes
from rtdecode.phantom.scanner import slice_times
from rtdecode.phantom.session import MARKER, SERIES, PhantomSession
from rtdecode.types import Float

T = TypeVar("T")

_CHUNK_S = 0.02
_AHEAD = 3  # blocks of EEG, or volumes, made before they are due
_PIECES, _WRITING_S = 4, 0.04
_GRACE_S = 0.7


@dataclass(frozen=True, slots=True)
class Plan:
    """Local and wall clock of the first trigger, and the series of the files."""

    trigger_at: float
    wall: datetime
    series: int
    uid: str


def run(
    session: PhantomSession,
    lsl: str | None,
    folder: Path | None,
    wait: float,
    log: FaultLog,
    console: Console,
) -> int:
    """Send one session by the clock; Ctrl-C and SIGTERM end it early.

    Parameters
    ----------
    session : PhantomSession
    lsl : str or None
        Name of the EEG stream.
    folder : Path or None
        Folder for the volumes.
    wait : float
        Longest wait for a reader of the stream, s.
    log : FaultLog
    console : rich.console.Console
    """
    stop = threading.Event()
    with stop_on_signals(stop):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            session.scanner.volume(0)  # what takes seconds is done before anybody waits
        outlets = None if lsl is None else open_outlets(session, lsl)
        blocks = None if outlets is None else _ahead(session.eeg_blocks(), stop)
        if lsl is not None and outlets is not None:
            _wait_for_reader(outlets[0], lsl, wait, stop, console)
        plan = _plan(session, folder, LEAD_IN_S + 0.5 if outlets else 0.5)
        failed: list[OSError] = []
        writer = threading.Thread(target=_write_all, args=(session, folder, plan, log, stop, failed))
        if folder is not None:
            writer.start()
        if outlets is not None and blocks is not None:
            _send_all(session, outlets, blocks, plan, log, stop)
        if folder is not None:
            writer.join()
        stop.wait(_GRACE_S)  # the last samples are still on their way to readers
        if failed:
            raise RtDecodeError(
                f"a volume could not be written to {folder} ({failed[0]}). Make room, or give another folder."
            )
        console.print("stopped" if stop.is_set() else "the session is over")
    return 0


@contextmanager
def stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """Set an event on Ctrl-C or SIGTERM instead of raising; outside the main thread, nothing."""

    def handle(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def open_outlets(session: PhantomSession, name: str) -> tuple[pylsl.StreamOutlet, pylsl.StreamOutlet]:
    """Open the EEG stream and its marker stream."""
    montage = session.montage
    source = f"rtdecode-phantom-{name}"
    info = pylsl.StreamInfo(name, "EEG", len(montage.channels), montage.sfreq, pylsl.cf_float32, source)
    info.desc().append_child_value("manufacturer", "rtdecode phantom (simulated)")
    info.desc().append_child("reference").append_child_value("label", montage.reference)
    channels = info.desc().append_child("channels")
    for label in montage.channels:
        channel = channels.append_child("channel")
        for key, value in (("label", label), ("unit", "microvolts"), ("type", "EEG")):
            channel.append_child_value(key, value)
    markers = pylsl.StreamInfo(
        f"{name}-markers", "Markers", 1, pylsl.IRREGULAR_RATE, pylsl.cf_string, f"{source}-markers"
    )
    return pylsl.StreamOutlet(info), pylsl.StreamOutlet(markers)


def _wait_for_reader(
    outlet: pylsl.StreamOutlet, name: str, wait: float, stop: threading.Event, console: Console
) -> None:
    if wait <= 0:
        return
    console.print(f"waiting up to {wait:g} s for a reader of the LSL stream {name}", highlight=False)
    until = pylsl.local_clock() + wait
    while not outlet.have_consumers() and pylsl.local_clock() < until and not stop.is_set():
        stop.wait(0.05)
    if not outlet.have_consumers() and not stop.is_set():
        console.print("nobody reads the stream; the session starts all the same", highlight=False)


def _plan(session: PhantomSession, folder: Path | None, lead_s: float) -> Plan:
    used = [0]
    if folder is not None:
        names = (re.fullmatch(r"001_(\d{6})_\d{6}\.dcm", path.name) for path in folder.iterdir())
        used += [int(found[1]) for found in names if found]
    series = max(used) + 1 if max(used) >= SERIES else SERIES
    wall = datetime.now() + timedelta(seconds=lead_s)
    return Plan(pylsl.local_clock() + lead_s, wall, series, f"2.25.{uuid.uuid4().int}")


def _send_all(
    session: PhantomSession,
    outlets: tuple[pylsl.StreamOutlet, pylsl.StreamOutlet],
    blocks: Callable[[], Float | None],
    plan: Plan,
    log: FaultLog,
    stop: threading.Event,
) -> None:
    """Push EEG chunks when their last sample is due, and each trigger with its volume's start."""
    size, done, volume = round(_CHUNK_S * session.sfreq), 0, 0
    pending = [fault for fault in session.faults if fault.kind == "eeg-drop"]
    while (block := blocks()) is not None:
        for start in range(0, block.shape[1], size):
            part = block[:, start : start + size]
            times = session.sample_times(done, part.shape[1])
            done += part.shape[1]
            if not _sleep_until(plan.trigger_at + times[-1], stop):
                return
            kept = damage.received(session.faults, times)
            if kept.any():
                stamps = plan.trigger_at + times[kept]
                outlets[0].push_chunk(np.ascontiguousarray(part[:, kept].T), stamps.tolist())
            while volume < session.volumes and volume * TR <= times[-1]:
                outlets[1].push_sample([MARKER], plan.trigger_at + volume * TR)
                volume += 1
            while pending and pending[0].start_s <= times[-1]:
                fault = pending.pop(0)
                log.write(fault.kind, fault.start_s, eeg_fault(fault))


def _write_all(
    session: PhantomSession,
    folder: Path,
    plan: Plan,
    log: FaultLog,
    stop: threading.Event,
    failed: list[OSError],
) -> None:
    """Write each volume's file in pieces, so that it is whole at its time."""
    for index in range(session.volumes):
        ready_at = plan.trigger_at + (index + 1) * TR + session.volume_delay
        name = f"001_{plan.series:06d}_{index + 1:06d}.dcm"
        if index in session.lost_volumes:
            if not _sleep_until(ready_at, stop):
                return
            log.write("volume-drop", index * TR, volume_fault(index, session.lost_volumes[index], name))
            continue
        data = _file(session, plan, index)
        if not _sleep_until(ready_at - _WRITING_S, stop):
            return
        try:
            _write_in_pieces(folder / name, data, ready_at, stop)
        except OSError as error:
            failed.append(error)
            stop.set()
            return


def _file(session: PhantomSession, plan: Plan, index: int) -> bytes:
    return mosaic_bytes(
        session.scanner.volume(index),
        session.head.affine,
        TR,
        index,
        plan.series,
        plan.wall + timedelta(seconds=index * TR),
        session.recon_s,
        plan.uid,
        tuple(slice_times(session.head.shape[2]).tolist()),
    )


def _write_in_pieces(path: Path, data: bytes, ready_at: float, stop: threading.Event) -> None:
    size = -(-len(data) // _PIECES)
    with path.open("wb", buffering=0) as file:
        for piece in range(_PIECES):
            # Once begun, a file is finished: a stop comes between volumes.
            _sleep_until(ready_at - _WRITING_S * (1 - piece / (_PIECES - 1)), stop)
            file.write(data[piece * size : (piece + 1) * size])


def _sleep_until(at: float, stop: threading.Event) -> bool:
    """Wait for an instant of the local clock; False if the session was stopped before."""
    while (left := at - pylsl.local_clock()) > 0:
        if stop.wait(left):
            return False
    return not stop.is_set()


def _ahead(items: Iterator[T], stop: threading.Event) -> Callable[[], T | None]:
    """Draw items in a thread of their own, at most `_AHEAD` early; the result returns None at the end."""
    made: queue.Queue[T | None] = queue.Queue(_AHEAD)

    def offer(item: T | None) -> None:
        while not stop.is_set():
            try:
                made.put(item, timeout=0.2)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for item in items:
                offer(item)
                if stop.is_set():
                    return
        finally:
            offer(None)

    threading.Thread(target=work, daemon=True).start()

    def draw() -> T | None:
        while not stop.is_set():
            try:
                return made.get(timeout=0.2)
            except queue.Empty:
                continue
        return None

    return draw
