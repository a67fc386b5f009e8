"""Send a simulated session by the clock: through an LSL outlet, a marker outlet, and files in a folder.

The calling thread sends EEG and triggers, a second one writes files, and a third makes the EEG ahead of
its time, so that drawing it never delays sending it.
"""

import queue
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from rich.console import Console

from rtdecode.liblsl import pylsl
from rtdecode.phantom.body.amplifier import LEAD_IN_S
from rtdecode.phantom.body.delivery_faults import FaultLog
from rtdecode.phantom.live.deliver import Delivery, sleep_until
from rtdecode.phantom.live.names import ExportedRun, next_series
from rtdecode.phantom.live.outlet import EegOutlet, marker_outlet
from rtdecode.phantom.session import CHUNK_S, MARKER, PhantomSession
from rtdecode.types import Float

_AHEAD = 3  # blocks of EEG, of a second each, made before they are due
_GRACE_S = 0.7  # for which the outlets stay open at the end


def run(
    session: PhantomSession,
    lsl: str | None,
    folder: Path | None,
    wait: float,
    log: FaultLog,
    console: Console,
    stop: threading.Event,
) -> int:
    """Send one session by the clock.

    Parameters
    ----------
    session : PhantomSession
        The session to send.
    lsl : str or None
        Name of the EEG stream.
    folder : Path or None
        Folder for the volumes.
    wait : float
        Longest wait for a reader of the stream, s.
    log : FaultLog
        Notes the faults as they happen.
    console : rich.console.Console
        Where progress is printed.
    stop : threading.Event
        Ends the session early.

    Raises
    ------
    OSError
        If a file cannot be written; that ends the session.
    """
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        session.scanner.volume(0)  # the first volume takes seconds, so make it before anybody waits
    outlets = None if lsl is None else (EegOutlet(session, lsl), marker_outlet(lsl))
    blocks = None if outlets is None else _ahead(session.eeg_blocks(), stop)
    if lsl is not None and outlets is not None:
        _wait_for_reader(outlets[0], lsl, wait, stop, console)
    # The EEG begins `LEAD_IN_S` before the first trigger.
    lead_s = LEAD_IN_S + 0.5 if outlets else 0.5
    trigger_at = pylsl.local_clock() + lead_s
    wall = datetime.now() + timedelta(seconds=lead_s)
    failed: list[OSError] = []
    writer = None
    if folder is not None:
        files = ExportedRun(next_series(folder, session.vendor.name), f"2.25.{uuid.uuid4().int}", wall)
        delivery = Delivery(session, folder, files, trigger_at, log, stop)
        writer = threading.Thread(target=_tried, args=(delivery.write_all, stop, failed))
        writer.start()
    if outlets is not None and blocks is not None:
        send = partial(_send_all, session, outlets, blocks, trigger_at, log, stop)
        _tried(send, stop, failed)
    if writer is not None:
        writer.join()
    stop.wait(_GRACE_S)  # readers may not have fetched the last samples yet
    if failed:
        raise failed[0]
    console.print("stopped" if stop.is_set() else "the session is over")
    return 0


def _wait_for_reader(
    outlet: EegOutlet, name: str, wait: float, stop: threading.Event, console: Console
) -> None:
    if wait <= 0:
        return
    console.print(f"waiting up to {wait:g} s for a reader of the LSL stream {name}", highlight=False)
    until = pylsl.local_clock() + wait
    while not outlet.have_consumers() and pylsl.local_clock() < until and not stop.is_set():
        stop.wait(0.05)
    if not outlet.have_consumers() and not stop.is_set():
        console.print("nobody reads the stream; the session starts all the same", highlight=False)


def _send_all(
    session: PhantomSession,
    outlets: tuple[EegOutlet, pylsl.StreamOutlet],
    blocks: Callable[[], Float | None],
    trigger_at: float,
    log: FaultLog,
    stop: threading.Event,
) -> None:
    """Push each EEG chunk when its last sample is due, then the triggers that fall into it."""
    size = round(CHUNK_S * session.sfreq)
    done = 0
    triggers = session.trigger_times()
    pending = session.signal_lines()
    while (block := blocks()) is not None:
        for start in range(0, block.shape[1], size):
            part = block[:, start : start + size]
            last = float(session.sample_times(done + part.shape[1] - 1, 1)[0])
            if not sleep_until(trigger_at + last, stop):
                return
            outlets[0].push(part, done, trigger_at)
            done += part.shape[1]
            while triggers and triggers[0] <= last:
                outlets[1].push_sample([MARKER], trigger_at + triggers.pop(0))
            while pending and pending[0][1] <= last:
                log.write(*pending.pop(0))


def _tried(work: Callable[[], None], stop: threading.Event, failed: list[OSError]) -> None:
    """Do one part of the session; if it cannot write, end the other part too."""
    try:
        work()
    except OSError as error:
        failed.append(error)
        stop.set()


def _ahead(blocks: Iterator[Float], stop: threading.Event) -> Callable[[], Float | None]:
    """Draw blocks in a thread of its own, at most `_AHEAD` early; return what takes the next one.

    The returned function gives None at the end. Both sides wait with timeouts, so that neither hangs in
    the queue once `stop` is set.
    """
    ready: queue.Queue[Float | None] = queue.Queue(_AHEAD)

    def offer(block: Float | None) -> None:
        while not stop.is_set():
            try:
                ready.put(block, timeout=0.2)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for block in blocks:
                offer(block)
                if stop.is_set():
                    return
        finally:
            offer(None)

    threading.Thread(target=work, daemon=True).start()

    def draw() -> Float | None:
        while not stop.is_set():
            try:
                return ready.get(timeout=0.2)
            except queue.Empty:
                continue
        return None

    return draw
