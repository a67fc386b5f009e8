"""Decoders that serve in processes of their own, for what is measured of them."""

import asyncio
import http.client
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from rtdecode import bundle as bundles
from rtdecode.bundle.session import open_pass
from streaming.decode.decoder import Decoding, SharedDecoder
from streaming.decode.scheduler import Scheduler
from streaming.serve import token
from streaming.serve.command import measure
from streaming.serve.server import DecoderServer

# Added to every clip of a decoder that is `paused`, so that the noise of the machine does not decide, as a
# share of what a clip takes in the most steps: 100 ms beside 182. A pause that weighs more leaves no room for
# fewer steps, which do not shorten it.
PAUSE_SHARE = 0.55
_SESSIONS = re.compile(r"^rtdecode_sessions (\d+)$", re.MULTILINE)


@dataclass
class Served:
    """A process of `rtdecode serve`."""

    words: list[str]
    secret: Path
    process: subprocess.Popen[str]
    url: str
    sessions: int

    @classmethod
    def start(cls, name: str, secret: Path, flags: list[str]) -> "Served":
        """Serve a bundle on a free port."""
        words = [sys.executable, "-m", "rtdecode.cli", "serve", name, "--json"]
        words += ["--token-file", str(secret), *flags]
        process, printed = _started([*words, "--bind", "127.0.0.1:0"])
        return cls(words, secret, process, printed["url"], printed["sessions"])

    def start_again(self) -> None:
        """Serve on the same port, after it was killed."""
        # It also closes the pipe from the process that was killed.
        self.process.communicate()
        place = self.url.partition("://")[2]
        self.process, _ = _started([*self.words, "--bind", place])

    def kill(self) -> None:
        """Kill it, as a power cut would."""
        self.process.kill()

    def holds_session(self) -> bool:
        """Whether a session is with it."""
        place = self.url.partition("://")[2]
        connection = http.client.HTTPConnection(place, timeout=10)
        try:
            headers = {
                "Authorization": f"Bearer {token.read(self.secret)}",
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                "Sec-WebSocket-Version": "13",
            }
            connection.request("GET", "/metrics", headers=headers)
            counted = _SESSIONS.search(connection.getresponse().read().decode())
        except OSError:
            return False
        finally:
            connection.close()
        return counted is not None and int(counted[1]) > 0

    def memory_mb(self) -> float:
        """Return what it has for itself, MB."""
        return psutil.Process(self.process.pid).memory_full_info().uss / 1e6


@contextmanager
def decoders(name: str, count: int, *flags: str) -> Iterator[tuple[list[Served], Path]]:
    """Run some processes of `rtdecode serve`; yield them and the file of their token."""
    served: list[Served] = []
    with tempfile.TemporaryDirectory() as folder:
        secret = token.make(Path(folder) / "secret")
        try:
            for _ in range(count):
                served.append(Served.start(name, secret, list(flags)))
            yield served, secret
        finally:
            for server in served:
                server.process.kill()
                server.process.communicate()


@dataclass(frozen=True)
class Slowed:
    """A decoder with a pause in every clip.

    Attributes
    ----------
    url : str
    hop_s : float
        Of its sessions.
    pause_s : float
        In every clip.
    least_load : float
        Share of the time that clips of the fewest steps take, for all sessions.
    """

    url: str
    hop_s: float
    pause_s: float
    least_load: float


@contextmanager
def paused(name: str, secret: str, load: float, n_sessions: int) -> Iterator[Slowed]:
    """Serve a bundle in a process of its own, with a pause in every clip.

    Parameters
    ----------
    name : str
        A bundle.
    secret : str
        The token.
    load : float
        The hop is so long that clips of the most steps, for all sessions, would take this share of it.
    n_sessions : int
    """
    context = get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    # Sessions in the same process would share the interpreter with the decoder.
    process = context.Process(target=_serve_paused, args=(name, secret, load, n_sessions, writer))
    process.start()
    writer.close()
    try:
        yield reader.recv()
    finally:
        reader.close()
        process.terminate()
        process.join()


def _serve_paused(name: str, secret: str, load: float, n_sessions: int, writer: Connection) -> None:
    """Serve until the process is ended, and tell of it once."""
    shared = _Paused(bundles.load(name))
    unpaused = measure(shared)
    shared.pause_s = PAUSE_SHARE * unpaused[max(unpaused)]["p50_s"]
    costs = measure(shared)
    hop_s = n_sessions * costs[max(costs)]["p50_s"] / load
    least_load = n_sessions * costs[min(costs)]["p50_s"] / hop_s

    async def body() -> None:
        # All are let in, at whatever load.
        scheduler = Scheduler(hop_s, shared.cost, shared.numbers_of_steps, shared.steps, hop_s / 1e3)
        server = DecoderServer(shared, scheduler, secret, hop_s=hop_s)
        listening: asyncio.Future[tuple[str, int]] = asyncio.get_running_loop().create_future()

        def tell(place: asyncio.Future[tuple[str, int]]) -> None:
            _, port = place.result()
            writer.send(Slowed(f"ws://127.0.0.1:{port}", hop_s, shared.pause_s, least_load))

        listening.add_done_callback(tell)
        await server.run("127.0.0.1", 0, listening)

    asyncio.run(body())


class _Paused(SharedDecoder):
    pause_s = 0.0

    def begin(self, window: Any, steps: int | None = None, states: Any = None, **how: Any) -> Decoding:
        count = self.engine.steps(steps)
        share = self.engine.detail(how.get("detail"))
        opened = open_pass(
            self.engine.program, window, count, states, detail=share, null=bool(how.get("null"))
        )
        condition = bool(how.get("tell_condition"))
        decoding = _PausedDecoding(
            self.bundle, window, opened, time.monotonic, steps=count, detail=share, tell_condition=condition
        )
        decoding.pause_s = self.pause_s
        return decoding


class _PausedDecoding(Decoding):
    pause_s = 0.0

    def _draw(self) -> Iterator[NDArray[np.uint8]]:
        turns = super()._draw()
        yield next(turns)
        # Before the last frames are there, so that it counts as a part of the clip's cost.
        time.sleep(self.pause_s)
        yield from turns


def _started(words: list[str]) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    printed = json.loads(process.stdout.readline() or "{}")
    if "url" not in printed:
        sys.exit(f"`rtdecode serve` did not begin to serve: {printed}")
    return process, printed
