"""`rtdecode serve`: load a bundle, say what it costs here, and decode for sessions on other machines."""

import asyncio
import logging
import signal
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rtdecode import bundle as bundles
from rtdecode import strict_json, terminal
from rtdecode.bundle import golden
from rtdecode.bundle.engine import places
from rtdecode.bundle.session import check_carried
from rtdecode.errors import RtDecodeError, UsageError
from streaming.address import is_loopback, split
from streaming.decode.decoder import SharedDecoder
from streaming.decode.scheduler import Scheduler
from streaming.serve import token
from streaming.serve.protocol import MOST_CARRIED_BYTES
from streaming.serve.server import DecoderServer

# Numbers of steps whose cost is measured, where a bundle can take them.
_STEPS = (1, 2, 4)
# So many clips of each, the first of which warms up, for so long at most, s.
_CLIPS = 11
_MEASURE_S = 5.0
_PERCENTILE = 95


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """The flags of ``rtdecode serve`` and their defaults.

    Attributes
    ----------
    bundle : str
        A bundle's folder, or the name of a shipped one.
    subject : str or None
        One of the bundle's subjects.
    bind : str
        ``HOST:PORT``.
    sessions : int or None
        Sessions that are let in at most; None lets in as many as fit.
    token_file : Path or None
        None makes a token, on an address that only this machine reaches.
    tls_cert, tls_key : Path or None
        Certificate and key of the server, in PEM.
    as_json : bool
        Print JSON only.
    """

    bundle: str
    subject: str | None = None
    bind: str = "127.0.0.1:8765"
    sessions: int | None = None
    token_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    as_json: bool = False


def run(options: ServeOptions) -> int:
    """Serve until Ctrl-C or SIGTERM.

    Returns
    -------
    int
        0.

    Raises
    ------
    UsageError
        If the address cannot be served, or may not be without a certificate or a token.
    BundleError
        If the bundle cannot be decoded here, or carries more than can be sent.
    RtDecodeError
        If this machine is too slow for one session.
    """
    host, port = _place(options)
    tls = _tls(options)
    secret_file = options.token_file or token.make(Path("runs") / f"serve-{time.strftime('%Y%m%d-%H%M%S')}")
    secret = token.read(secret_file)
    bundle = bundles.load(options.bundle, subject=options.subject)
    check_carried(bundle.manifest, MOST_CARRIED_BYTES)
    shared = SharedDecoder(bundle)
    costs = measure(shared)
    fewest = min(costs)
    hop_s = float(bundle.manifest.grid.hop)
    slowest_s = costs[fewest]["p95_s"]
    scheduler = Scheduler(
        hop_s, shared.cost, shared.numbers_of_steps, shared.steps, slowest_s, options.sessions
    )
    if scheduler.capacity < 1:
        raise RtDecodeError(
            "serve-machine-too-slow",
            "this machine takes {slowest_s:.2f} s for a clip of {steps} steps, and a session needs one every "
            "{hop_s:g} s. Use a faster machine or a smaller bundle.",
            slowest_s=slowest_s,
            steps=fewest,
            hop_s=hop_s,
        )
    logging.getLogger("websockets.server").addFilter(_is_worth_telling)

    def listening(address: tuple[str, int]) -> None:
        _say(options, shared, scheduler, costs, secret_file, address, is_encrypted=tls is not None)

    asyncio.run(_serve(shared, scheduler, secret, tls, (host, port), listening, options.bind))
    return 0


def measure(shared: SharedDecoder) -> dict[int, dict[str, float]]:
    """Measure what clips cost here, by decoding the golden window.

    Returns
    -------
    dict
        Number of steps -> ``p50_s`` and ``p95_s``. A bundle in closed form has 0 steps.
    """
    window = golden.window(shared.bundle)
    numbers = shared.numbers_of_steps
    steps = [count for count in _STEPS if numbers is None or count in numbers] or [shared.steps]
    costs: dict[int, dict[str, float]] = {}
    for count in steps if shared.steps else [0]:
        durations: list[float] = []
        began = time.monotonic()
        while len(durations) < _CLIPS and (len(durations) < 2 or time.monotonic() - began < _MEASURE_S):
            decoded = shared.begin(window, count or None).finish()
            durations.append(decoded.last_frame_at - decoded.started_at)
        warm = durations[1:]
        costs[count] = {"p50_s": float(np.median(warm)), "p95_s": float(np.percentile(warm, _PERCENTILE))}
    return costs


async def _serve(
    shared: SharedDecoder,
    scheduler: Scheduler,
    secret: str,
    tls: ssl.SSLContext | None,
    place: tuple[str, int],
    on_listening: Any,
    bind: str,
) -> None:
    server = DecoderServer(shared, scheduler, secret, tls)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.end)
    listening: asyncio.Future[tuple[str, int]] = loop.create_future()
    listening.add_done_callback(lambda future: on_listening(future.result()))
    try:
        await server.run(*place, listening)
    except OSError as error:
        raise UsageError(
            "serve-address-unavailable",
            "--bind {address} cannot be served ({error}). Give an address of this machine and another port, "
            "or port 0 for any free one.",
            address=bind,
            error=error.strerror or error,
        ) from error


def _place(options: ServeOptions) -> tuple[str, int]:
    place = split(options.bind)
    if place is None:
        raise UsageError(
            "serve-address-malformed",
            "--bind {address} is no HOST:PORT. Give 127.0.0.1:8765, or 127.0.0.1:0 for any free port.",
            address=options.bind,
        )
    if is_loopback(place[0]):
        return place
    if options.tls_cert is None or options.token_file is None:
        raise UsageError(
            "serve-not-protected",
            "--bind {address} is reached by other machines: --tls-cert, --tls-key and --token-file are "
            "needed. docs/serve.md has the two lines that make them.",
            address=options.bind,
        )
    return place


def _tls(options: ServeOptions) -> ssl.SSLContext | None:
    if options.tls_cert is None and options.tls_key is None:
        return None
    if options.tls_cert is None or options.tls_key is None:
        raise UsageError(
            "serve-tls-incomplete", "--tls-cert and --tls-key go together. Give both, or neither."
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            "serve-tls-unreadable",
            "--tls-cert {certificate} and --tls-key {key} cannot be used ({error}). Both have to be PEM, and "
            "belong together.",
            certificate=options.tls_cert,
            key=options.tls_key,
            error=error.strerror or error,
        ) from error
    return context


def _say(
    options: ServeOptions,
    shared: SharedDecoder,
    scheduler: Scheduler,
    costs: dict[int, dict[str, float]],
    secret_file: Path,
    address: Sequence[Any],
    *,
    is_encrypted: bool,
) -> None:
    """Print what is served, where, and what it costs."""
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    url = f"{'wss' if is_encrypted else 'ws'}://{host}:{address[1]}"
    bundle = shared.bundle
    if options.as_json:
        terminal.line(
            strict_json.dumps(
                {
                    "url": url,
                    "bundle": bundle.manifest.name,
                    "digest": bundle.digest,
                    "runs_on": shared.runs_on,
                    "costs_s": {str(steps): cost for steps, cost in costs.items()},
                    "sessions": scheduler.capacity,
                    "token_file": str(secret_file),
                }
            )
        )
        return
    terminal.line(f"{bundle.manifest.name} ({bundle.digest}) at {url}, token in {secret_file}")
    terminal.line(places(shared.runs_on))
    for note in shared.notes:
        terminal.line(note)
    for steps, cost in costs.items():
        name = f"{steps} step{'s' * (steps != 1)}" if steps else "a clip"
        terminal.line(f"{name}: {1e3 * cost['p50_s']:.0f} ms, p95 {1e3 * cost['p95_s']:.0f} ms")
    terminal.line(f"{scheduler.capacity} sessions fit. Ctrl-C ends it.")


def _is_worth_telling(record: logging.LogRecord) -> bool:
    """Leave out connections that never became one: whoever scans ports would fill the terminal."""
    return record.msg != "opening handshake failed"
