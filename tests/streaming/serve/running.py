"""A decoder that serves in a thread of the test, and sessions that ask it."""

import asyncio
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from streaming.decode.decoder import SharedDecoder
from streaming.decode.scheduler import Scheduler
from streaming.serve.address import DecoderAddress
from streaming.serve.client import RemoteDecoder
from streaming.serve.server import DecoderServer

TOKEN = "a-token-of-more-than-20-letters"


@dataclass
class Running:
    """A server, its address, and how it is ended."""

    server: DecoderServer
    scheduler: Scheduler
    loop: asyncio.AbstractEventLoop
    port: int
    thread: threading.Thread
    is_encrypted: bool = False

    @property
    def address(self) -> DecoderAddress:
        scheme = "wss" if self.is_encrypted else "ws"
        return DecoderAddress(f"{scheme}://127.0.0.1:{self.port}", self.is_encrypted)

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
    tls: ssl.SSLContext | None = None,
) -> Iterator[Running]:
    """Serve while the block runs; an error of the server fails the test."""
    hop_s = float(shared.bundle.manifest.grid.hop)
    scheduler = Scheduler(
        hop_s, shared.cost, shared.numbers_of_steps, shared.steps, hop_s / 100, most_sessions=capacity
    )
    ready: list[Running] = []
    started = threading.Event()
    faults: list[BaseException] = []

    async def body() -> None:
        server = DecoderServer(shared, scheduler, TOKEN, tls)
        loop = asyncio.get_running_loop()
        listening: asyncio.Future[tuple[str, int]] = loop.create_future()
        task = asyncio.create_task(server.run("127.0.0.1", port, listening))
        await asyncio.wait([task, listening], return_when=asyncio.FIRST_COMPLETED)
        if listening.done():
            place = listening.result()
            thread = threading.current_thread()
            ready.append(Running(server, scheduler, loop, place[1], thread, tls is not None))
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


def remote(shared: SharedDecoder, *servers: Running, token: str = TOKEN, **how: object) -> RemoteDecoder:
    addresses = [server.address for server in servers]
    return RemoteDecoder(shared.bundle, addresses, token, **how)  # type: ignore[arg-type]
