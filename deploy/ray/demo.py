"""Two replicas on this machine, two sessions, and a replica that is killed in the middle: `make serve-demo`.

Each session sends a final every hop, of noise. What became of them is printed as a table: windows, how often
the session moved to another replica, windows that were sent again or skipped, and what the way adds to a
clip's time.
"""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.serve_windows import random_windows
from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle
from rtdecode.errors import RtDecodeError
from streaming.decode.decoder import GivenUpError
from streaming.serve import token
from streaming.serve.address import parse
from streaming.serve.client import RemoteDecoder

_ROOT = Path(__file__).parents[2]
_SESSIONS = 2
_WINDOWS = 12
# Ray takes half a minute to start, and a replica loads its graphs, s.
_STARTS_WITHIN_S = 240.0
_REPLICA = "ServeReplica"


@dataclass
class Told:
    """What became of one session's windows."""

    windows: int = 0
    skipped: int = 0
    wire_ms: list[float] = field(default_factory=list)
    moved: int = 0
    repeated: int = 0


def main() -> int:
    """Run it; return 1 if a window was lost without being counted."""
    console = Console()
    bundle = bundles.load("phantom")
    with tempfile.TemporaryDirectory(prefix="rtdecode-ray-") as folder:
        secret = token.make(Path(folder) / "secret")
        port, config = _configured(Path(folder), secret)
        # The token of Ray itself, which guards its own ports.
        ray_token = Path(folder) / "ray-token"
        ray_token.touch(mode=0o600)
        ray_token.write_text(secrets.token_hex(32))
        environment = os.environ | {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(ray_token),
            "PYTHONPATH": str(_ROOT),
        }
        command = [str(Path(sys.executable).with_name("serve")), "run", str(config)]
        with (Path(folder) / "ray.log").open("w") as log:
            ray = subprocess.Popen(command, cwd=_ROOT, env=environment, stdout=log, stderr=log)
        try:
            console.print(f"Ray starts (serve run {config.name}) ...")
            sessions = _opened(bundle, secret, f"ws://127.0.0.1:{port}", ray, Path(folder) / "ray.log")
            told = [Told() for _ in sessions]
            _run(bundle, sessions, told, lambda: _kill_replica(ray, console))
        finally:
            for child in psutil.Process(ray.pid).children(recursive=True):
                child.terminate()
            ray.terminate()
            ray.wait(60)
    console.print(_table(told))
    return 0 if all(one.windows == one.skipped + len(one.wire_ms) for one in told) else 1


def _configured(folder: Path, secret: Path) -> tuple[int, Path]:
    """Write the file of two replicas with a free port and the token's file; return both."""
    config = yaml.safe_load((_ROOT / "deploy" / "ray" / "serve.yaml").read_text())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config["http_options"]["port"] = port
    config["applications"][0]["args"]["token_file"] = str(secret)
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    return port, path


def _opened(
    bundle: Bundle, secret: Path, url: str, ray: subprocess.Popen[bytes], log: Path
) -> list[RemoteDecoder]:
    deadline = time.monotonic() + _STARTS_WITHIN_S
    sessions: list[RemoteDecoder] = []
    while len(sessions) < _SESSIONS:
        try:
            sessions.append(RemoteDecoder(bundle, parse(url), token.read(secret)))
        except RtDecodeError as error:
            if ray.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"Ray did not start: {error}\n{log.read_text()[-3000:]}")
            time.sleep(1.0)
    return sessions


def _run(bundle: Bundle, sessions: list[RemoteDecoder], told: list[Told], kill: Callable[[], None]) -> None:
    hop_s = float(bundle.manifest.grid.hop)
    finals = [window for window in random_windows(bundle, 2 * _WINDOWS) if window.revision == "final"]

    def run(number: int) -> None:
        one = told[number]
        began_at = time.monotonic()
        with closing(sessions[number]) as decoder:
            for n, window in enumerate(finals):
                time.sleep(max(0.0, began_at + n * hop_s - time.monotonic()))
                if number == 0 and n == _WINDOWS // 2:
                    # While the window is decoded.
                    threading.Timer(0.05, kill).start()
                one.windows += 1
                try:
                    one.wire_ms.append(1e3 * (decoder.decode(window, left_s=hop_s).wire_s or 0.0))
                except GivenUpError:
                    one.skipped += 1
            one.moved, one.repeated = decoder.moves, decoder.repeated

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(sessions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _kill_replica(ray: subprocess.Popen[bytes], console: Console) -> None:
    """Kill the replica that has computed most: one that holds a session."""
    replicas = [
        child
        for child in psutil.Process(ray.pid).children(recursive=True)
        if _REPLICA in " ".join(child.cmdline())
    ]
    victim = max(replicas, key=lambda child: sum(child.cpu_times()[:2]))
    victim.kill()
    console.print(f"One of {len(replicas)} replicas was killed.")


def _table(told: list[Told]) -> Table:
    table = Table("session", "windows", "moved", "repeated", "skipped", "added p50", "added max")
    for number, one in enumerate(told):
        wire = one.wire_ms or [float("nan")]
        row = (one.windows, one.moved, one.repeated, one.skipped)
        added = (f"{np.median(wire):.0f} ms", f"{max(wire):.0f} ms")
        table.add_row(str(number), *map(str, row), *added)
    return table


if __name__ == "__main__":
    sys.exit(main())
