"""How many sessions one decoder holds, and what becomes of them.

    python -m benchmarks.serve --schedule [--json] [--write]
    python -m benchmarks.serve --parity [--bundle phantom] [--json] [--write]

`--schedule` runs the scheduler on a virtual clock, so that it takes seconds: eight sessions send a window
every hop, and a clip of 4, 2 or 1 steps takes 182, 111 or 75 ms, give or take 20 %. The hop is so long that
four steps for all take 0.8, 1.5 or 2.2 of the time. Sessions cut their windows evenly, one after another, or
all together, as they do when their scans begin together.

`--parity` decodes 40 windows by one of two processes of `rtdecode serve`, which is killed in the middle of a
window, and by the other, and holds every latent against the same window decoded here.

The command fails if a figure misses its bar.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.result_files import RESULTS, read, write
from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle, golden
from rtdecode.disk import strict_json
from rtdecode.types import Window
from streaming.decode.deadline import Cost
from streaming.decode.decoder import SharedDecoder
from streaming.decode.scheduler import Request, Scheduler
from streaming.serve import token
from streaming.serve.address import parse
from streaming.serve.client import RemoteDecoder

_OUT = RESULTS / "serve.json"
# What a clip takes by its number of steps, s, and the share by which that varies.
_COSTS = {4: 0.182, 2: 0.111, 1: 0.075}
_JITTER = 0.2
_SESSIONS = 8
_SECONDS = 600.0
_SEED = 1
_LOADS = (0.8, 1.5, 2.2)
_CUTS = ("evenly", "together")
_WINDOWS = 40
# A decoder is killed so long after it was sent a window, s; a clip of `phantom` takes longer.
_KILLED_AFTER_S = 0.03
# The time that windows have where nobody hurries, s.
_PATIENCE_S = 120.0
# Largest share of the windows that is skipped, at each load.
LARGEST_SKIPPED = {0.8: 0.0, 1.5: 0.005, 2.2: 0.03}
# What the session that was served least has of what the one that was served most has.
SMALLEST_FAIRNESS = 0.95
# Share of clips with four steps where there is time for them, and of late clips at 1.5 of the load.
SMALLEST_SHARE_OF_FOUR = 0.99
LARGEST_LATE = 0.01


def main() -> int:
    """Measure, print, and write where that is asked for; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--schedule", action="store_true", help="the scheduler on a virtual clock")
    parser.add_argument(
        "--parity", action="store_true", help="clips of another process against those made here"
    )
    parser.add_argument("--bundle", default="phantom", help="for what is measured in a real server")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--write", action="store_true", help=f"keep the figures in {_OUT.name}")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    missed: list[str] = []
    if arguments.schedule:
        figures["schedule"] = schedule()
        missed += misses(figures["schedule"])
    if arguments.parity:
        figures["parity"] = parity(arguments.bundle)
        equal, windows = (figures["parity"][name] for name in ("equal", "windows"))
        if equal < windows:
            missed.append(f"{equal} of {windows} latents are equal, and all were asked for")
    if not figures:
        parser.error("say what to measure: --schedule, --parity")
    if arguments.write:
        write(_OUT, (read(_OUT) if _OUT.is_file() else {}) | figures)
    if arguments.json:
        Console().print_json(strict_json.dumps(figures | {"missed": missed}))
    else:
        for name, value in figures.items():
            Console().print(table(value) if name == "schedule" else value)
    for sentence in missed:
        Console(stderr=True).print(sentence, highlight=False)
    return 1 if missed else 0


def schedule(seconds: float = _SECONDS, seed: int = _SEED) -> list[dict[str, Any]]:
    """Run the scheduler at every load, with windows that are cut evenly and together."""
    return [row(load, cuts, seconds, seed) for load in _LOADS for cuts in _CUTS]


def row(load: float, cuts: str, seconds: float, seed: int) -> dict[str, Any]:
    """Run eight sessions on a virtual clock.

    Parameters
    ----------
    load : float
        Share of the time that four steps for all windows would take.
    cuts : str
        ``evenly`` or ``together``.
    seconds : float
    seed : int
        Of what each clip takes.

    Returns
    -------
    dict
        ``load``, ``cuts``, ``hop_s``; ``windows`` that were sent; shares of the ``skipped`` windows and of
        the ``late`` clips; ``steps`` -> share of the clips; ``fairness``: clips of the session that got
        least, over those of the one that got most.
    """
    rng = np.random.default_rng(seed)
    hop = _SESSIONS * _COSTS[4] / load
    # At 2.2 of the load fewer sessions would be let in.
    scheduler = Scheduler(hop, _affine(_COSTS), set(_COSTS), max(_COSTS), hop / 100)
    names = [f"session {n}" for n in range(_SESSIONS)]
    for name in names:
        scheduler.open(name, 0.0)
    offset_s = hop / _SESSIONS if cuts == "evenly" else 0.0
    windows = deque(
        (k * hop + n * offset_s, k, name) for k in range(round(seconds / hop)) for n, name in enumerate(names)
    )
    now = 0.0
    while windows or len(scheduler):
        while windows and windows[0][0] <= now:
            cut_at, k, name = windows.popleft()
            scheduler.put(Request(name, k, 0, k, "final", cut_at + hop, max(_COSTS)), now)
        turn, _ = scheduler.take(now)
        if turn is None:
            if windows:
                now = max(now, windows[0][0])
            continue
        factor = float(np.clip(rng.normal(1, _JITTER), 0.2, None))
        now += factor * _COSTS[turn.steps]
        cost = _scaled(_affine(_COSTS), factor)
        scheduler.done(turn.request, now, cost, turn.steps)
    return {"load": load, "cuts": cuts, "hop_s": round(hop, 4)} | _summary(scheduler)


def misses(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Say of each figure that misses its bar what it is and what was asked for."""
    sentences: list[str] = []
    for figures in rows:
        load = figures["load"]
        where = f"load {load}, cut {figures['cuts']}"
        bars = [
            ("skipped", figures["skipped"] <= LARGEST_SKIPPED[load], f"at most {LARGEST_SKIPPED[load]:.1%}"),
            ("fairness", figures["fairness"] >= SMALLEST_FAIRNESS, f"at least {SMALLEST_FAIRNESS}"),
        ]
        if load < 1:
            enough = figures["steps"].get("4", 0.0) >= SMALLEST_SHARE_OF_FOUR
            bars.append(("steps", enough, f"at least {SMALLEST_SHARE_OF_FOUR:.0%} with four"))
        if load == 1.5:
            bars.append(("late", figures["late"] <= LARGEST_LATE, f"at most {LARGEST_LATE:.0%}"))
        sentences += [
            f"{where}: {name} is {figures[name]}, and {bar} was asked for"
            for name, met, bar in bars
            if not met
        ]
    return sentences


def parity(name: str, n_windows: int = _WINDOWS) -> dict[str, Any]:
    """Decode windows elsewhere and here; one decoder is killed in the middle of a window.

    Parameters
    ----------
    name : str
        A bundle.
    n_windows : int
        Previews and finals, in turn.

    Returns
    -------
    dict
        ``windows``; how many latents are ``equal`` to the bit; whether a decoder was ``killed``, and the
        ``moves`` of the session; ``wire_ms``: p50 and p99 of the time on the way, over the loopback.
    """
    bundle = bundles.load(name)
    here = SharedDecoder(bundle).session()
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        secret = token.make(Path(place) / "secret")
        servers = [stack.enter_context(serving(name, secret)) for _ in range(2)]
        addresses = [address for _, url in servers for address in parse(url)]
        decoder = stack.enter_context(closing(RemoteDecoder(bundle, addresses, token.read(secret))))
        equal = 0
        wire: list[float] = []
        for n, window in enumerate(random_windows(bundle, n_windows)):
            if n == n_windows // 2:
                # By then the window has been sent, and is not whole.
                threading.Timer(_KILLED_AFTER_S, servers[0][0].kill).start()
            decoded = decoder.decode(window, left_s=_PATIENCE_S)
            expected = here.decode(window, decoded.clip.steps or None)
            equal += np.array_equal(decoded.clip.latent, expected.clip.latent)
            if decoded.wire_s is not None:
                wire.append(1e3 * decoded.wire_s)
        is_killed = servers[0][0].poll() is not None
        sentences = decoder.news()
    return {
        "bundle": name,
        "windows": n_windows,
        "equal": equal,
        "killed": is_killed,
        "moves": sum("answers again" in sentence for sentence in sentences),
        "wire_ms": {f"p{q}": round(float(np.percentile(wire, q)), 3) for q in (50, 99)},
    }


@contextmanager
def serving(name: str, secret: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `rtdecode serve` on a free port; yield the process and its address."""
    words = [sys.executable, "-m", "rtdecode.cli", "serve", name, "--bind", "127.0.0.1:0", "--json"]
    process = subprocess.Popen([*words, "--token-file", str(secret)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())["url"]
    finally:
        process.kill()
        process.communicate()


def random_windows(bundle: Bundle, count: int) -> Iterator[Window]:
    """Draw windows of noise, a preview and a final for each, with the times at which a session cuts them."""
    rng = np.random.default_rng(_SEED)
    example = golden.window(bundle)
    grid = bundle.manifest.grid
    hop_s = float(grid.hop)
    for n in range(count):
        index, is_final = divmod(n, 2)
        # The preview is cut when its EEG is there, and the final a lag later, after the next preview.
        cut_at = hop_s * index + float(grid.window) + is_final * (float(grid.lag) + 0.1)
        eeg = None if example.eeg is None else rng.normal(size=example.eeg.shape).astype(np.float32)
        fmri = None if example.fmri is None else rng.normal(size=example.fmri.shape).astype(np.float32)
        yield replace(
            example,
            index=index,
            revision="final" if is_final else "preview",
            eeg=eeg,
            eeg_mask=np.ones_like(example.eeg_mask),
            fmri=fmri if is_final else None,
            fmri_mask=np.full_like(example.fmri_mask, bool(is_final)),
            stamps={"windowed": cut_at},
        )


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Make the table of all loads."""
    columns = Table("load", "cuts", "windows", "skipped", "late", "4 / 2 / 1 steps", "fairness")
    for figures in rows:
        steps = " / ".join(f"{figures['steps'].get(str(count), 0):.1%}" for count in _COSTS)
        columns.add_row(
            str(figures["load"]),
            figures["cuts"],
            str(figures["windows"]),
            f"{figures['skipped']:.2%}",
            f"{figures['late']:.2%}",
            steps,
            f"{figures['fairness']:.3f}",
        )
    return columns


def _summary(scheduler: Scheduler) -> dict[str, Any]:
    counts = [scheduler.counts(name) for name in scheduler.sessions]
    sent = sum(counted.sent["final"] for counted in counts)
    clips = [counted.decoded["final"] for counted in counts]
    steps = sum((counted.steps for counted in counts), Counter[int]())
    return {
        "windows": sent,
        "skipped": round(sum(counted.skipped["final"] for counted in counts) / sent, 5),
        "late": round(sum(counted.late for counted in counts) / sum(clips), 5),
        "steps": {str(count): round(number / sum(clips), 5) for count, number in sorted(steps.items())},
        "fairness": round(min(clips) / max(clips), 4),
    }


def _affine(costs: dict[int, float]) -> Cost:
    """Return the cost that a step has, and what is left without any, by least squares."""
    step_s, once_s = np.polyfit(list(costs), list(costs.values()), 1)
    return Cost(0.0, float(step_s), float(once_s))


def _scaled(cost: Cost, factor: float) -> Cost:
    return Cost(factor * cost.encode_s, factor * cost.step_s, factor * cost.decode_s)


if __name__ == "__main__":
    sys.exit(main())
