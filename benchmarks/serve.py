"""How many sessions one decoder holds, and what becomes of them.

    python -m benchmarks.serve --schedule [--json] [--write]
    python -m benchmarks.serve --parity [--bundle phantom] [--json] [--write]
    python -m benchmarks.serve --latency | --capacity | --overload 1.5 | --kills 20 | --soak 3600
    python -m benchmarks.serve --link 50,20 | --edge

`--schedule` runs the scheduler on a virtual clock, so that it takes seconds: eight sessions send a window
every hop, and a clip of 4, 2 or 1 steps takes 182, 111 or 75 ms, give or take 20 %. The hop is so long that
four steps for all take 0.8, 1.5 or 2.2 of the time. Sessions cut their windows evenly, one after another, or
all together, as they do when their scans begin together.

`--parity` decodes 40 windows by one of two processes of `rtdecode serve`, which is killed in the middle of a
window, and by the other, and holds every latent against the same window decoded here.

`--latency` measures what decoding elsewhere adds over the loopback with TLS: a reply whole, less the time at
the decoder. `--capacity` finds how many sessions are served with at most 0.1 % of their windows late, and
holds that against what clips cost. `--overload` runs eight sessions at a load that four steps do not allow,
with a pause in each clip. `--kills` kills one of two decoders again and again. `--soak` lets
sessions come and go, and follows the decoder's memory. `--link` decodes through a forwarder with that round
trip, ms, and rate, Mbit/s. `--edge` compares what a session takes until its first clip. `--windows` and
`--seconds` make them shorter.

The command fails if a figure misses its bar.
"""

import argparse
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import serve_sessions
from benchmarks.result_files import RESULTS, read, write
from benchmarks.serve_decoders import decoders
from benchmarks.serve_windows import paced, random_windows
from rtdecode import bundle as bundles
from rtdecode import strict_json
from streaming.decode.deadline import Cost
from streaming.decode.decoder import SharedDecoder
from streaming.decode.scheduler import Request, Scheduler
from streaming.tools import bench
from streaming.tools.bench import Pace

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
# Wake-ups of the probe, which tells how late the machine itself is.
_PROBED = 500
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
    parser.add_argument("--latency", action="store_true", help="what decoding elsewhere adds")
    parser.add_argument("--capacity", action="store_true", help="sessions that are served, and predicted")
    parser.add_argument("--overload", type=float, metavar="LOAD", help="a load that four steps do not allow")
    parser.add_argument("--kills", type=int, metavar="N", help="kill one of two decoders so often")
    parser.add_argument("--soak", type=float, metavar="S", help="sessions come and go for so long")
    parser.add_argument("--link", metavar="MS,MBIT", help="through a round trip and a rate")
    parser.add_argument("--edge", action="store_true", help="memory and start of a session")
    parser.add_argument("--windows", type=int, default=1000, help="of --latency; a tenth of it of --link")
    parser.add_argument("--seconds", type=float, help="of a try of --capacity (300), and of --overload (180)")
    parser.add_argument("--bundle", default="phantom", help="for what is measured in a real server")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--write", action="store_true", help=f"keep the figures in {_OUT.name}")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    missed: list[str] = []
    for name, figure, sentences in _measured(arguments):
        figures[name] = figure
        missed += sentences
        if arguments.write:
            # What takes an hour is not lost with what comes after it.
            write(_OUT, (read(_OUT) if _OUT.is_file() else {}) | {name: figure})
    if not figures:
        parser.error("say what to measure: --schedule, --parity, --latency, ...")
    if arguments.json:
        Console().print_json(strict_json.dumps(figures | {"missed": missed}))
    else:
        for name, value in figures.items():
            Console().print(table(value) if name == "schedule" else value)
    for sentence in missed:
        Console(stderr=True).print(sentence, highlight=False)
    return 1 if missed else 0


def _measured(arguments: argparse.Namespace) -> Iterator[tuple[str, Any, list[str]]]:
    """Measure what was asked for; yield its name, its figures, and which of them miss their bar.

    Beside the figures of real decoders stands the machine's load average before they were begun.
    """
    if arguments.schedule:
        rows = schedule()
        yield "schedule", rows, misses(rows)
    load = psutil.getloadavg()[0]
    for name, figure, sentences in _of_real_servers(arguments):
        yield name, figure | {"machine_load": round(load, 2)}, sentences
        load = psutil.getloadavg()[0]


def _of_real_servers(arguments: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
    """Measure what was asked for of real decoders, one figure after the other."""
    name = arguments.bundle
    if arguments.parity:
        figure = parity(name)
        equal, windows = figure["equal"], figure["windows"]
        yield "parity", figure, _missed(equal == windows, "equal latents", equal, f"{windows}")
    if arguments.latency:
        figure = serve_sessions.latency(name, arguments.windows)
        figure["probe_ms"] = bench._percentiles(bench._probe(Pace(_PROBED)))
        yield "latency", figure, latency_misses(figure)
    if arguments.capacity:
        figure = serve_sessions.capacity(name, arguments.seconds or 300.0)
        off = 1 - figure["served"] / figure["predicted"]
        yield (
            "capacity",
            figure,
            _missed(off <= serve_sessions.LARGEST_DEVIATION, "capacity", off, "0.15 off"),
        )
    if arguments.overload:
        seconds = arguments.seconds or 180.0
        figure = serve_sessions.overload(name, arguments.overload, _SESSIONS, seconds)
        skipped = figure["skipped"]
        sentences = _missed(skipped < serve_sessions.LARGEST_SKIPPED, "skipped", skipped, "under 0.02")
        fewer = bool({"1", "2"} & figure["steps"].keys())
        yield "overload", figure, sentences + _missed(fewer, "steps", figure["steps"], "1 and 2 among them")
    if arguments.kills:
        figure = serve_sessions.kills(name, arguments.kills)
        counted = figure["clips"] + sum(figure["given_up"].values()) == figure["windows"]
        back = figure["back"]
        sentences = _missed(back == arguments.kills, "clips after kills", back, str(arguments.kills))
        yield "kills", figure, sentences + _missed(counted, "windows", figure["windows"], "all counted")
    if arguments.soak:
        figure = serve_sessions.soak(name, arguments.soak)
        growth = figure["growth"]
        yield (
            "soak",
            figure,
            _missed(growth <= serve_sessions.LARGEST_GROWTH, "growth", growth, "at most 0.1"),
        )
    if arguments.link:
        rtt_ms, mbit_s = map(float, arguments.link.split(","))
        figure = serve_sessions.link(name, rtt_ms, mbit_s, max(2, arguments.windows // 10))
        late = figure["wire_s"]["p99"]
        sentences = _missed(late <= serve_sessions.LARGEST_WIRE_S, "wire", late, "at most 0.8 s")
        yield "link", figure, sentences + _missed(not figure["lost"], "lost", figure["lost"], "none")
    if arguments.edge:
        figure = serve_sessions.edge(name)
        here, elsewhere = (figure[where]["first_clip_s"] for where in ("here", "elsewhere"))
        saved = figure["saved_mb"]
        sentences = _missed(saved >= serve_sessions.LEAST_SAVED_MB, "memory saved", saved, "at least 80 MB")
        yield (
            "edge",
            figure,
            sentences + _missed(elsewhere <= here, "first clip", elsewhere, f"at most {here}"),
        )


def latency_misses(figure: dict[str, Any]) -> list[str]:
    """Say which figure of `--latency` misses its bar; a noisy machine is held against an echo."""
    if figure["probe_ms"]["p99_ms"] >= serve_sessions.QUIET_MS:
        ratio = figure["ratio"]
        return _missed(ratio <= serve_sessions.LARGEST_RATIO, "latency over an echo", ratio, "at most 2")
    return [
        sentence
        for name, bar in serve_sessions.LATENCY_MS.items()
        for sentence in _missed(
            figure["added_ms"][name] <= bar, f"latency {name}", figure["added_ms"][name], f"at most {bar} ms"
        )
    ]


def _missed(is_met: bool, name: str, value: Any, bar: str) -> list[str]:
    return [] if is_met else [f"{name} is {value}, and {bar} was asked for"]


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
    with ExitStack() as stack:
        servers, secret = stack.enter_context(decoders(name, 2))
        urls = [server.url for server in servers]
        decoder = stack.enter_context(closing(serve_sessions.session(bundle, secret, urls)))
        equal = 0
        wire: list[float] = []
        cuts = paced(random_windows(bundle, n_windows), float(bundle.manifest.grid.hop) / 2)
        for n, window in enumerate(cuts):
            if n == n_windows // 2:
                # By then the window has been sent, and is not whole.
                threading.Timer(_KILLED_AFTER_S, servers[0].kill).start()
            decoded = decoder.decode(window, left_s=_PATIENCE_S)
            expected = here.decode(window, decoded.clip.steps or None)
            equal += np.array_equal(decoded.clip.latent, expected.clip.latent)
            if decoded.wire_s is not None:
                wire.append(1e3 * decoded.wire_s)
        is_killed = servers[0].process.poll() is not None
        sentences = decoder.news()
    return {
        "bundle": name,
        "windows": n_windows,
        "equal": equal,
        "killed": is_killed,
        "moves": sum("answers again" in sentence for sentence in sentences),
        "wire_ms": {f"p{q}": round(float(np.percentile(wire, q)), 3) for q in (50, 99)},
    }


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
