"""A decoder that serves in a thread of the test, and sessions that ask it."""

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from rtdecode.types import Window
from streaming.decode.decoder import Decoded, Decoding, SharedDecoder
from streaming.decode.scheduler import Request, Scheduler
from streaming.serve.address import DecoderAddress
from streaming.serve.client import RemoteDecoder
from streaming.serve.server import Connection, DecoderServer

TOKEN = "a-token-of-more-than-20-letters"


class HeldDecoding:
    """A window that is decoded once it may be."""

    def __init__(self, decoding: Decoding, released: threading.Event) -> None:
        self._decoding = decoding
        self._released = released

    def __iter__(self) -> Iterator[np.ndarray]:
        self._released.wait()
        return iter(self._decoding)

    def finish(self) -> Decoded:
        return self._decoding.finish()

    def carried(self) -> dict[str, Any]:
        return self._decoding.carried()


class HoldableDecoder(SharedDecoder):
    """A decoder that draws nothing while `released` is not set. It costs what the shared one does."""

    def __init__(self, shared: SharedDecoder) -> None:
        super().__init__(shared.bundle, loaded=shared.engine)
        self.cost = shared.cost
        self.released = threading.Event()
        self.released.set()

    def begin(self, window: Window, *arguments: Any, **how: Any) -> HeldDecoding:  # type: ignore[override]
        return HeldDecoding(super().begin(window, *arguments, **how), self.released)


class WatchedScheduler(Scheduler):
    """A scheduler that lists the newest windows, and for which a session's time may be moved on."""

    def __init__(self, *arguments: Any, **how: Any) -> None:
        super().__init__(*arguments, **how)
        self.requests: deque[Request] = deque(maxlen=16)
        # Session -> by how much its time is moved on, s.
        self.later_s: Counter[str] = Counter()

    def put(self, request: Request, now_at: float) -> bool:
        self.requests.append(request)
        return super().put(request, now_at + self.later_s[request.session])


class WatchedServer(DecoderServer):
    """A server that lists its open connections."""

    def __init__(self, *arguments: Any, **how: Any) -> None:
        super().__init__(*arguments, **how)
        self.connections: list[Connection] = []

    async def connected(self, connection: Connection) -> None:
        self.connections.append(connection)
        try:
            await super().connected(connection)
        finally:
            self.connections.remove(connection)


@dataclass
class Running:
    """A server, its address, and how it is ended."""

    server: WatchedServer
    decoder: HoldableDecoder
    scheduler: WatchedScheduler
    loop: asyncio.AbstractEventLoop
    port: int
    thread: threading.Thread

    @property
    def address(self) -> DecoderAddress:
        return DecoderAddress(f"ws://127.0.0.1:{self.port}", is_encrypted=False)

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self.server.end)
        self.thread.join(20)
        assert not self.thread.is_alive()


@contextmanager
def running(
    shared: SharedDecoder,
    *,
    port: int = 0,
    capacity: int | None = None,
    scheduler_hop_s: float | None = None,
    **limits: Any,
) -> Iterator[Running]:
    """Serve while the block runs, with limits of `DecoderServer`; an error of the server fails the test."""
    hop_s = float(shared.bundle.manifest.grid.hop) if scheduler_hop_s is None else scheduler_hop_s
    decoder = HoldableDecoder(shared)
    scheduler = WatchedScheduler(
        hop_s, shared.cost, shared.numbers_of_steps, shared.steps, hop_s / 100, most_sessions=capacity
    )
    ready: list[Running] = []
    started = threading.Event()
    faults: list[BaseException] = []

    async def body() -> None:
        server = WatchedServer(decoder, scheduler, TOKEN, **limits)
        loop = asyncio.get_running_loop()
        listening: asyncio.Future[tuple[str, int]] = loop.create_future()
        task = asyncio.create_task(server.run("127.0.0.1", port, listening))
        await asyncio.wait([task, listening], return_when=asyncio.FIRST_COMPLETED)
        if listening.done():
            place = listening.result()
            thread = threading.current_thread()
            ready.append(Running(server, decoder, scheduler, loop, place[1], thread))
        started.set()
        await task

    def run() -> None:
        try:
            asyncio.run(body())
        except BaseException as error:  # noqa: BLE001
            faults.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait(20)
    try:
        if ready:
            yield ready[0]
    finally:
        if thread.is_alive():
            ready[0].end()
        if faults:
            raise faults[0]
    assert ready, "the server did not start"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def remote(shared: SharedDecoder, *servers: Running, token: str = TOKEN, **how: Any) -> RemoteDecoder:
    """Ask servers for a session that gives no window up because the machine is busy with other tests."""
    addresses = [server.address for server in servers]
    return RemoteDecoder(shared.bundle, addresses, token, **{"patient_hops": 1000, **how})
