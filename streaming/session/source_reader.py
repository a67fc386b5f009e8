"""The threads that read the sources of an acquisition, and leave what they find to the main thread."""

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rtdecode.types import EegChunk, Trigger, Volume
from streaming.session.flag import Stop
from streaming.session.source_events import CaughtUp, Event, Failure
from streaming.session.work_queue import FairQueue

# How long the main thread waits for a thread to end, s.
_END_WITHIN = 3.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What one thread does.

    Attributes
    ----------
    poll : callable
        Yields what has come since the last call, by the local clock, s.
    pause_s : callable
        Returns the time until the next call, s.
    close : callable or None
        Ends the reading.
    """

    poll: Callable[[float], Iterable[Event]]
    pause_s: Callable[[], float]
    close: Callable[[], None] | None = None


class SourceReader:
    """Poll each source in a thread of its own until `stop` is set.

    Parameters
    ----------
    stop : Stop
        Ends the threads once it is set.

    Attributes
    ----------
    turns : FairQueue of Event
        What was found and waits for the main thread.
    """

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._threads: list[threading.Thread] = []
        self.turns: FairQueue[Event] = FairQueue()

    def start(self, readings: Sequence[Reading]) -> None:
        """Begin to read; the error of a thread becomes a `Failure`."""
        threading.excepthook = lambda caught: self.leave(Failure(caught.exc_value))
        for reading in readings:
            thread = threading.Thread(target=self.read, args=(reading,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def join(self) -> None:
        """Wait until the threads have ended, for a few seconds each at most."""
        for thread in self._threads:
            thread.join(timeout=_END_WITHIN)

    def read(self, reading: Reading) -> None:
        """Read until `stop` is set: the body of a thread."""
        while not self._stop.is_set():
            for event in reading.poll(time.monotonic()):
                self.leave(event)
            time.sleep(reading.pause_s())
        if reading.close is not None:
            reading.close()

    def leave(self, event: Event) -> None:
        """Leave an event to the main thread, as soon as its line has room."""
        has_arrived = isinstance(event, EegChunk | Trigger | Volume)
        arrived_at = event.arrived_at if has_arrived else math.inf
        # That the backlog is read comes behind the volumes that it found.
        with_volumes = isinstance(event, Volume | CaughtUp)
        # A full line blocks, but not for ever: the thread has to end when the session does.
        while not self._stop.is_set():
            if self.turns.leave(event, arrived_at, volume=with_volumes, timeout=0.5):
                return
