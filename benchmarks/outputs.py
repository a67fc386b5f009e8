"""How long a clip's values take to another program, over LSL and by OSC on one machine.

python -m benchmarks.outputs [--sends 3000] [--seconds 60]    # writes results/outputs.json

`paced` decodes one window of the shipped bundle, and hands its clip to the session's outputs fifty times a
second. One process reads with `streaming.client.Clips`, another one OSC datagrams. The time runs from just
before the outputs are called to the moment when the reader has the values; `send` is how long the caller is
held up. `live` is a simulated session: there the time runs from the time stamp of each clip.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from pythonosc.osc_message import OscMessage
from rich.console import Console

from benchmarks.result_files import RESULTS, write
from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle, golden
from streaming.client import Clips
from streaming.decode.deadline import Job
from streaming.decode.decoder import Decoded, Decoder
from streaming.sinks import meter
from streaming.sinks.clip_emitter import open_emitter
from streaming.sinks.publishers import open_outputs
from streaming.sinks.session_folder import prepare
from streaming.sinks.truth import Truth

# A clip is at its reader within one picture of a display of 25 Hz, at p99, ms.
BAR_MS = 40.0
# Pace of the sends, s: two hundred times that of a session.
_EVERY_S = 0.02
# A reader gives up when nothing has come for so long, s.
_SILENT_S = 20.0
_OUT = RESULTS / "outputs.json"
# Largest datagram, bytes.
_DATAGRAM = 65536


def paced(sends: int) -> dict[str, Any]:
    """Send one clip so many times; return the percentiles of each way, ms, and what did not come."""
    bundle = bundles.load("phantom")
    name = f"benchmark-{os.getpid()}"
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder, _reader("osc", str(port), str(sends)) as osc:
        assert osc.stdout is not None
        osc.stdout.readline()
        record, decoded = _clip(bundle, Path(folder) / "out")
        outputs = open_outputs(name, f"127.0.0.1:{port}", bundle.manifest)
        with _reader("lsl", name, str(sends)) as lsl:
            assert lsl.stdout is not None
            lsl.stdout.readline()
            sent_at: list[float] = []
            held_up: list[float] = []
            due = time.monotonic()
            for number in range(sends):
                due += _EVERY_S
                time.sleep(max(0.0, due - time.monotonic()))
                sent_at.append(time.monotonic())
                outputs.send(record | {"clip": number}, decoded)
                held_up.append(time.monotonic() - sent_at[-1])
            came = {"lsl": _came(lsl), "osc": _came(osc)}
        outputs.close()
    figures: dict[str, Any] = {"sends": sends, "every_ms": 1e3 * _EVERY_S, "send": _percentiles(held_up)}
    for way, times in came.items():
        passed = [came_s - sent_at[clip] for clip, came_s in times]
        figures[way] = _percentiles(passed) | {"lost": sends - len(times)}
    return figures


def live(seconds: float) -> dict[str, Any]:
    """Run a simulated session; return the percentiles from the stamp to the reader, ms."""
    name = f"benchmark-live-{os.getpid()}"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo"
        words = ["demo", "--film", "natural", "--seconds", f"{seconds:g}", "--out", str(out)]
        words += ["--outlet", name]
        with subprocess.Popen([sys.executable, "-m", "rtdecode.cli", *words]) as demo:
            passed = [time.monotonic() - clip.sent_at for clip in Clips(name, wait=120)]
            demo.wait()
        emitted = len((out / "clips.jsonl").read_text().splitlines())
    return {"seconds": seconds, "lsl": _percentiles(passed) | {"lost": emitted - len(passed)}, "n": emitted}


def read_lsl(name: str, sends: int) -> None:
    """Read clips over LSL; print their numbers and when they came."""
    with Clips(name, timeout=_SILENT_S) as clips:
        print("ready", flush=True)  # noqa: T201
        print(json.dumps([(clip.clip, time.monotonic()) for clip in islice(clips, sends)]))  # noqa: T201


def read_osc(port: int, sends: int) -> None:
    """Read clips by OSC; print their numbers and when they came."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", port))
        print("ready", flush=True)  # noqa: T201
        # The first clip comes once the bundle has been loaded and the other reader is there.
        receiver.settimeout(3 * _SILENT_S)
        arrivals: list[tuple[int, float]] = []
        while len(arrivals) < sends:
            try:
                message = OscMessage(receiver.recv(_DATAGRAM))
            except TimeoutError:
                break
            arrivals.append((int(message.params[0]), time.monotonic()))
            receiver.settimeout(_SILENT_S)
    print(json.dumps(arrivals))  # noqa: T201


def _clip(bundle: Bundle, out: Path) -> tuple[dict[str, Any], Decoded]:
    """Decode the golden window; return its record and its clip as an emitter hands them on."""
    emitted: list[tuple[dict[str, Any], Decoded]] = []
    prepare(out, overwrite=False)
    now = time.monotonic
    emitter = open_emitter(
        out,
        "benchmark",
        bundle,
        Decoder(bundle, now, tell_condition=True),
        Truth(None, bundle),
        now,
        simulated=True,
        on_emitted=lambda record, decoded: emitted.append((record, decoded)),
    )
    now_s = now()
    stamps = dict.fromkeys(("acquired", "arrived", "windowed", "stop"), now_s)
    emitter.emit(Job(replace(golden.window(bundle), floor_at=now_s, stamps=stamps), 0))
    emitter.close()
    return emitted[0]


@contextmanager
def _reader(*words: str) -> Iterator[subprocess.Popen[str]]:
    """Run one of the readers; it is gone when the block is left."""
    command = [sys.executable, "-m", "benchmarks.outputs", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _came(process: subprocess.Popen[str]) -> list[tuple[int, float]]:
    output, _ = process.communicate()
    return [(clip, came_s) for clip, came_s in json.loads(output)]


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    percentiles_ms = meter.percentiles(deque(1e3 * value for value in seconds))
    return {name: round(value, 3) for name, value in percentiles_ms.items()}


def main(words: list[str]) -> None:
    """Measure, print the verdicts, write the figures; or be one of the readers."""
    if words[:1] == ["lsl"]:
        read_lsl(words[1], int(words[2]))
        return
    if words[:1] == ["osc"]:
        read_osc(int(words[1]), int(words[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sends", type=int, default=3000)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the simulated session")
    args = parser.parse_args(words)
    figures = {"bar_p99_ms": BAR_MS, "paced": paced(args.sends), "live": live(args.seconds)}
    write(_OUT, figures)
    console = Console()
    console.print_json(data=figures)
    for way in ("lsl", "osc"):
        value = figures["paced"][way]["p99"]
        console.print(f"{way}: {value:g} ms at p99, bar {BAR_MS:g}, {'pass' if value <= BAR_MS else 'FAIL'}")


if __name__ == "__main__":
    main(sys.argv[1:])
