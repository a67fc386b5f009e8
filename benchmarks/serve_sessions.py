"""Sessions that ask real decoders, for `benchmarks.serve`: what they wait, what they lose, what it takes."""

import asyncio
import json
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from websockets.asyncio.server import serve as listen
from websockets.sync.client import connect

from benchmarks.serve_decoders import decoders, paused
from benchmarks.serve_windows import paced, random_windows
from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle
from rtdecode.types import Window
from streaming.decode.decoder import Decoded, Decoder, GivenUpError
from streaming.serve import token
from streaming.serve.address import DecoderAddress, parse
from streaming.serve.client import RemoteDecoder, tls_context
from streaming.serve.protocol import MOST_BYTES

# Figures and their bars.
LATENCY_MS = {"p50": 8.0, "p99": 20.0}
# Where the probe of the machine is slower than this, ms, latency is held against an echo of the same bytes.
QUIET_MS = 5.0
LARGEST_RATIO = 2.0
LARGEST_DEVIATION = 0.15
LATE_SHARE = 0.001
LARGEST_SKIPPED = 0.02
MOST_WINDOWS_WITHOUT = 2
LARGEST_GROWTH = 0.10
LARGEST_WIRE_S = 0.8
LEAST_SAVED_MB = 80.0


@dataclass
class Tally:
    """What became of the windows of one session."""

    sent: int = 0
    clips: list[Decoded] = field(default_factory=list)
    late: int = 0
    given_up: Counter[str] = field(default_factory=Counter)

    def add(self, decoded: Decoded, is_late: bool) -> None:
        """Count a clip; its frames are not kept."""
        self.clips.append(decoded)
        self.late += is_late


def latency(name: str, windows: int) -> dict[str, Any]:
    """Measure what decoding elsewhere adds, over the loopback with TLS.

    Several sessions send in turn, one window at a time, as one session may send one window of a kind a hop.

    Returns
    -------
    dict
        ``windows``; ``added_ms`` and ``echo_ms``: p50 and p99, of a reply less the decoder's own time, and of
        an echo of the same bytes by another process; ``ratio`` of the two at p50.
    """
    bundle = bundles.load(name)
    added: list[float] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        cert, key = certificate(Path(folder))
        flags = ["--tls-cert", str(cert), "--tls-key", str(key)]
        (server,), secret = stack.enter_context(decoders(name, 1, *flags))
        sessions = [
            stack.enter_context(closing(session(bundle, secret, [server.url], cert)))
            for _ in range(2 * min(10, server.sessions // 2))
        ]
        # Of an even number, each gets previews alone, or finals.
        cuts = paced(random_windows(bundle, windows), float(bundle.manifest.grid.hop) / len(sessions))
        for n, window in enumerate(cuts):
            decoded = sessions[n % len(sessions)].decode(window, left_s=60.0)
            assert decoded.wire_s is not None
            added.append(1e3 * decoded.wire_s)
        sizes = message_bytes(bundle)
        echoed = echo(cert, key, *sizes, min(windows, 300))
    figures = {"windows": len(added), "added_ms": percentiles(added), "echo_ms": percentiles(echoed)}
    return figures | {
        "ratio": round(figures["added_ms"]["p50"] / figures["echo_ms"]["p50"], 3),
        "bytes": sizes,
    }


def capacity(name: str, seconds: float) -> dict[str, Any]:
    """Find how many sessions are served with at most 0.1 % of their clips late.

    Returns
    -------
    dict
        ``predicted`` by what clips cost; ``served``; ``tries``: sessions -> share of windows late or skipped.
    """
    bundle = bundles.load(name)
    tries: dict[str, float] = {}
    with decoders(name, 1) as ((server,), secret):
        predicted = server.sessions
        low, high = 0, predicted
        n_sessions = predicted
        while low < high:
            tallies = together(bundle, secret, [server.url], n_sessions, seconds)
            sent = sum(tally.sent for tally in tallies)
            missed = sum(tally.late + sum(tally.given_up.values()) for tally in tallies)
            tries[str(n_sessions)] = round(missed / max(1, sent), 5)
            if missed <= LATE_SHARE * sent:
                low = n_sessions
            else:
                high = n_sessions - 1
            n_sessions = (low + high + 1) // 2
    return {"predicted": predicted, "served": low, "tries": tries, "seconds": seconds}


def overload(name: str, load: float, n_sessions: int, seconds: float) -> dict[str, Any]:
    """Run sessions at a load that four steps do not allow, on clips with a pause in each.

    Returns
    -------
    dict
        ``pause_ms`` in each clip; ``least_load``, the share of the time that one step for all would take;
        ``windows``, ``skipped`` (share of the finals), ``late`` (clips that came after their time), and
        ``steps``.
    """
    bundle = bundles.load(name)
    with tempfile.TemporaryDirectory() as folder:
        secret = token.make(Path(folder) / "secret")
        with paused(name, token.read(secret), load, n_sessions) as slowed:
            tallies = together(bundle, secret, [slowed.url], n_sessions, seconds, slowed.hop_s)
    sent = sum(tally.sent for tally in tallies)
    clips = [clip for tally in tallies for clip in tally.clips]
    steps = Counter(clip.clip.steps for clip in clips)
    return {
        "load": load,
        "hop_s": round(slowed.hop_s, 4),
        "pause_ms": round(1e3 * slowed.pause_s, 1),
        "least_load": round(slowed.least_load, 3),
        "windows": sent,
        "skipped": round(sum(sum(tally.given_up.values()) for tally in tallies) / max(1, sent), 5),
        "late": sum(tally.late for tally in tallies),
        "steps": {str(n): steps[n] for n in sorted(steps, reverse=True)},
    }


def kills(name: str, times: int) -> dict[str, Any]:
    """Kill one of two decoders, again and again, every other time in the middle of a window.

    Returns
    -------
    dict
        ``kills``; ``back``: kills after which a clip came within two windows; ``windows``, ``clips`` and
        ``given_up``, which add up; ``longest_s`` until the next clip.
    """
    bundle = bundles.load(name)
    hop_s = float(bundle.manifest.grid.hop)
    tally = Tally()
    back = 0
    longest_s = 0.0
    with ExitStack() as stack:
        servers, secret = stack.enter_context(decoders(name, 2))
        urls = [server.url for server in servers]
        with closing(session(bundle, secret, urls)) as decoder:
            windows = paced(random_windows(bundle, 40 * times), hop_s / 2)
            one_by_one(decoder, windows, tally, 1, hop_s)
            for n in range(times):
                victim = next(server for server in servers if server.holds_session())
                began_at = time.monotonic()
                missed = sum(tally.given_up.values())
                if n % 2:
                    victim.kill()
                else:
                    # By then the window has been sent, and is not whole.
                    threading.Timer(0.03, victim.kill).start()
                before = len(tally.clips)
                while len(tally.clips) == before and sum(tally.given_up.values()) - missed < 20:
                    one_by_one(decoder, windows, tally, 1, hop_s)
                longest_s = max(longest_s, time.monotonic() - began_at)
                back += sum(tally.given_up.values()) - missed <= MOST_WINDOWS_WITHOUT
                victim.start_again()
    return {
        "kills": times,
        "back": back,
        "windows": tally.sent,
        "clips": len(tally.clips),
        "given_up": dict(tally.given_up),
        "longest_s": round(longest_s, 3),
    }


def soak(name: str, seconds: float) -> dict[str, Any]:
    """Let sessions come and go, four at a time, and follow the memory of the decoder's process.

    Returns
    -------
    dict
        ``sessions`` that came; ``early_mb`` after five minutes, or a fourth of a shorter run; ``late_mb``;
        and ``growth``, as a share.
    """
    bundle = bundles.load(name)
    readings: list[tuple[float, float]] = []
    came = count()
    over = threading.Event()
    with decoders(name, 1) as ((server,), secret):
        began_at = time.monotonic()

        def come_and_go(seed: int) -> None:
            rng = np.random.default_rng(seed)
            while not over.is_set():
                next(came)
                with closing(session(bundle, secret, [server.url])) as decoder:
                    length = int(rng.integers(1, 8))
                    one_by_one(decoder, random_windows(bundle, length), Tally(), length)

        threads = [threading.Thread(target=come_and_go, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        while (elapsed := time.monotonic() - began_at) < seconds:
            readings.append((elapsed, server.memory_mb()))
            time.sleep(min(1.0, seconds / 20))
        over.set()
        for thread in threads:
            thread.join()
    early_s = min(300.0, seconds / 4)
    early = [mb for second, mb in readings if early_s <= second <= 1.2 * early_s + 1]
    late = [mb for second, mb in readings if second >= 0.9 * seconds]
    early_mb, late_mb = float(np.median(early or [readings[0][1]])), float(np.median(late))
    return {
        "seconds": seconds,
        "sessions": next(came),
        "early_mb": round(early_mb, 1),
        "late_mb": round(late_mb, 1),
        "growth": round(late_mb / early_mb - 1, 4),
    }


def link(name: str, rtt_ms: float, mbit_s: float, windows: int) -> dict[str, Any]:
    """Decode through a forwarder that delays and limits what passes.

    Returns
    -------
    dict
        ``windows``, ``lost``, and p50 and p99 of ``wire_s``.
    """
    bundle = bundles.load(name)
    tally = Tally()
    hop_s = float(bundle.manifest.grid.hop)
    with ExitStack() as stack:
        (server,), secret = stack.enter_context(decoders(name, 1))
        port = int(server.url.rpartition(":")[2])
        far = stack.enter_context(forwarder(port, rtt_ms / 2e3, mbit_s))
        with closing(session(bundle, secret, [f"ws://127.0.0.1:{far}"])) as decoder:
            cuts = paced(random_windows(bundle, windows), hop_s / 2)
            one_by_one(decoder, cuts, tally, windows, hop_s)
    wire = [decoded.wire_s for decoded in tally.clips if decoded.wire_s is not None]
    return {
        "rtt_ms": rtt_ms,
        "mbit_s": mbit_s,
        "windows": tally.sent,
        "lost": tally.sent - len(tally.clips),
        "wire_s": percentiles(wire, 4),
    }


def edge(name: str) -> dict[str, Any]:
    """Compare what a session takes until its first clip, decoded here and elsewhere: memory and time.

    Returns
    -------
    dict
        ``here`` and ``elsewhere``: ``peak_mb`` and ``first_clip_s``; ``saved_mb``.
    """
    figures: dict[str, Any] = {}
    with decoders(name, 1) as ((server,), secret):
        for where, words in (("here", []), ("elsewhere", [server.url, str(secret)])):
            command = [sys.executable, "-m", "benchmarks.serve_sessions", name, *words]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            figures[where] = json.loads(done.stdout)
    return figures | {"saved_mb": round(figures["here"]["peak_mb"] - figures["elsewhere"]["peak_mb"], 1)}


def together(
    bundle: Bundle, secret: Path, urls: Sequence[str], n_sessions: int, seconds: float, hop_s: float = 0.0
) -> list[Tally]:
    """Run sessions at the same time, each of which cuts a final every hop; their cuts are spread evenly."""
    hop = hop_s or float(bundle.manifest.grid.hop)
    finals = [window for window in random_windows(bundle, 8) if window.revision == "final"]
    began_at = time.monotonic() + 0.5

    def run(n: int) -> Tally:
        tally = Tally()
        waiting: list[tuple[Future[Decoded], float]] = []
        with closing(session(bundle, secret, urls)) as decoder:
            for k in range(max(1, round(seconds / hop))):
                due_at = began_at + (k + n / n_sessions) * hop
                time.sleep(max(0.0, due_at - time.monotonic()))
                window = finals[k % len(finals)]
                tally.sent += 1
                waiting.append((decoder.ask(window, left_s=hop), due_at + hop))
                _collect(tally, waiting, 2)
            _collect(tally, waiting, 0)
        return tally

    with ThreadPoolExecutor(n_sessions) as pool:
        return list(pool.map(run, range(n_sessions)))


def _collect(tally: Tally, waiting: list[tuple["Future[Decoded]", float]], limit: int) -> None:
    """Count what has come; wait until at most so many windows are on their way."""
    while len(waiting) > limit or (waiting and waiting[0][0].done()):
        clip, late_at = waiting.pop(0)
        try:
            decoded = clip.result()
            tally.add(decoded, decoded.last_frame_at + (decoded.wire_s or 0.0) > late_at)
        except GivenUpError as error:
            tally.given_up[str(error)] += 1


def one_by_one(
    decoder: RemoteDecoder, windows: Iterator[Window], tally: Tally, times: int, left_s: float = 60.0
) -> None:
    """Decode so many windows, one after the other, and count what becomes of them."""
    for _ in range(times):
        window = next(windows)
        tally.sent += 1
        try:
            tally.add(decoder.decode(window, left_s=left_s), is_late=False)
        except GivenUpError as error:
            tally.given_up[str(error)] += 1


def session(bundle: Bundle, secret: Path, urls: Sequence[str], ca: Path | None = None) -> RemoteDecoder:
    """Open a session."""
    addresses: list[DecoderAddress] = parse(",".join(urls))
    tls = None if ca is None else tls_context(ca)
    return RemoteDecoder(bundle, addresses, token.read(secret), tls=tls)


def percentiles(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Return the median and the 99th percentile."""
    return {f"p{q}": round(float(np.percentile(values, q)), digits) for q in (50, 99)}


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate of this machine's loopback that signs itself, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        sys.exit("--latency needs openssl, which was not found. Install it.")
    cert, key = folder / "cert.pem", folder / "key.pem"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subject = ["-subj", "/CN=decoder", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = [openssl, "req", "-x509", *curve, *subject, "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def message_bytes(bundle: Bundle) -> tuple[int, int]:
    """Return how many bytes of arrays a window has on its way there, and its clip on its way back."""
    window = next(iter(random_windows(bundle, 2)))
    arrays = (window.eeg, window.eeg_mask, window.fmri, window.fmri_mask)
    up = sum(array.nbytes for array in arrays if array is not None)
    clip = bundle.manifest.clip
    latent = int(np.prod(bundle.manifest.latent or [0])) * 4
    return up, clip.frames * clip.height * clip.width * 3 + latent


def echo(cert: Path, key: Path, up: int, down: int, times: int) -> list[float]:
    """Send as many bytes to another process as a window has, and get as many as a clip; return ms of each."""
    words = [sys.executable, "-m", "benchmarks.serve_sessions", "--echo", str(cert), str(key), str(down)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    durations: list[float] = []
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        where = f"wss://127.0.0.1:{port}"
        tls = tls_context(cert)
        with connect(where, ssl=tls, compression=None, proxy=None, max_size=MOST_BYTES) as connection:
            payload = np.random.default_rng(1).bytes(up)
            for _ in range(times):
                began_at = time.monotonic()
                connection.send(payload)
                connection.recv()
                durations.append(1e3 * (time.monotonic() - began_at))
    finally:
        process.kill()
        process.communicate()
    return durations


@contextmanager
def forwarder(port: int, delay_s: float, mbit_s: float) -> Iterator[int]:
    """Forward connections to a port of this machine, each way later and no faster; yield the port to use."""
    ready: Future[tuple[int, asyncio.AbstractEventLoop]] = Future()
    rate = mbit_s * 1e6 / 8

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Let each piece pass once the line is free and it has travelled."""
        loop = asyncio.get_running_loop()
        free_at = loop.time()
        due: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1000)

        async def deliver() -> None:
            while True:
                due_at, piece = await due.get()
                await asyncio.sleep(max(0.0, due_at - loop.time()))
                if not piece:
                    return
                writer.write(piece)
                await writer.drain()

        delivery = asyncio.create_task(deliver())
        try:
            while piece := await reader.read(16_384):
                free_at = max(free_at, loop.time()) + len(piece) / rate
                await due.put((free_at + delay_s, piece))
                await asyncio.sleep(max(0.0, free_at - loop.time()))
            # What is on its way arrives before the end.
            await due.put((free_at + delay_s, b""))
            await delivery
        except OSError:
            # Whoever sent or received has gone, and so does the other side.
            delivery.cancel()
        finally:
            writer.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    async def main() -> None:
        server = await asyncio.start_server(forward, "127.0.0.1", 0)
        ready.set_result((server.sockets[0].getsockname()[1], asyncio.get_running_loop()))
        stopped.append(asyncio.Event())
        await stopped[0].wait()
        server.close()

    stopped: list[asyncio.Event] = []
    thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
    thread.start()
    far_port, loop = ready.result()
    try:
        yield far_port
    finally:
        loop.call_soon_threadsafe(lambda: stopped[0].set())
        thread.join(5)


def _echo_until_killed(cert: str, key: str, down: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    payload = np.random.default_rng(2).bytes(down)

    async def answer(connection: Any) -> None:
        async for _ in connection:
            await connection.send(payload)

    async def main() -> None:
        how = {"ssl": context, "compression": None, "max_size": MOST_BYTES}
        async with listen(answer, "127.0.0.1", 0, **how) as server:
            print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201
            await asyncio.Event().wait()

    asyncio.run(main())


def _peak_kb() -> int:
    """Return the most memory that this program has had; what `getrusage` says includes whoever started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def _first_clip(name: str, where: Sequence[str]) -> None:
    """Decode a window as a session does, and print what that took."""
    began_at = time.monotonic()
    bundle = bundles.load(name)
    decoder = session(bundle, Path(where[1]), [where[0]]) if where else Decoder(bundle)
    with closing(decoder):
        decoder.decode(next(iter(random_windows(bundle, 2))))
        figures = {
            "peak_mb": round(_peak_kb() / 1e3, 1),
            "first_clip_s": round(time.monotonic() - began_at, 3),
        }
    print(json.dumps(figures))  # noqa: T201


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.argv[1] == "--echo":
        _echo_until_killed(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        _first_clip(sys.argv[1], sys.argv[2:])
