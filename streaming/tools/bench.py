"""Measure how long the stages of the runtime take on this machine: the command ``rtdecode bench``.

`run` forecasts how long it will take, then times each stage in turn: volumes from file to vector, EEG from
chunk to ring, clips from window to frames, each call of an engine, and a cold start. It prints percentiles as
a table or as JSON, with what runs each stage of the bundle.
"""

import math
import platform
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.table import Table

from rtdecode import bundle as bundles
from rtdecode import child, strict_json, terminal
from rtdecode.bundle import Manifest, engine, session
from streaming.decode.decoder import Decoder
from streaming.tools import bench_clips, bench_plan, bench_volumes
from streaming.tools.bench_clips import Timings
from streaming.tools.bench_eeg import eeg_push
from streaming.tools.bench_pace import SAMPLES, Pace

_COLD_STARTS = 5
_QUICK_PUSHES = 100
# Stages that every report lists; they stay null if the bundle does not take that number of steps.
_UNKNOWN = (
    "clip_0_steps",
    "clip_1_step",
    *(f"clip_{n}_steps" for n in bench_plan.STEPS[1:]),
)

# A stage that no clip of the bundle calls: all of its latent frames may fit into the first call.
_NEVER = {"p50_ms": None, "p95_ms": None, "p99_ms": None, "n": 0}


def run(bundle: str, as_json: bool, *, samples: int = SAMPLES, quick: bool = False) -> dict[str, Any]:
    """Time the stages one after another, in one thread, and print percentiles.

    Parameters
    ----------
    bundle : str
        The bundle whose graphs are timed.
    as_json : bool
        Print one JSON object instead of a table.
    samples : int
        Repetitions of each stage; clips of 8 steps get a fifth of them, clips of 50 steps a fiftieth.
    quick : bool
        Give a first impression within a minute: the same stages, repeated as often as time allows.

    Returns
    -------
    dict
        What was printed: machine, stages (ms), engines (what runs each stage of the bundle, and ms of a
        call), fallbacks, fits (see `fits`), memory_mb, state_mb, probe (ms).
    """
    pace = Pace.of(samples, quick=quick)
    read = bundles.load(bundle)
    decoder = Decoder(read)
    with pace.console.status("making volumes"):
        case = bench_volumes.case(read)
    if quick:
        own_s = bench_plan.clip_s(decoder, decoder.steps)
        # The clip is decoded once, and twice in a cold start.
        minutes = math.ceil((60 + 3 * own_s) / 60)
        limit = f"about {minutes} minutes" if own_s > bench_plan.QUICK_CLIP_S else "at most a minute"
        pace.console.print(f"This takes {limit}.")
    else:
        minutes = math.ceil(bench_plan.expected_s(case, decoder, samples) / 60)
        pace.console.print(f"This takes about {minutes} minutes here; --quick takes at most one.")
    probe = {"p99_ms": _percentiles(_probe(pace))["p99_ms"]}
    stages: dict[str, Any] = dict.fromkeys(_UNKNOWN)
    volumes = bench_volumes.timed(case, pace.repeat, pace.samples)
    clips, calls = bench_clips.timed(read, decoder, pace, bench_plan.all_steps(decoder, quick=quick))
    eeg_push_ms = _eeg_push(pace, quick=quick)
    # Where the system tells it (PSS), pages shared with other processes count by this one's share.
    memory = psutil.Process().memory_full_info()
    runs_on = decoder.runs_on
    fallbacks = decoder.notes
    steps = decoder.steps
    # A new interpreter holds the graphs as well, and there may not be room for them twice.
    del decoder
    timings = {
        **{name: times.wall for name, times in volumes.items()},
        "parse_mosaic": volumes["volume_to_vector"].parse,
        "eeg_push": eeg_push_ms,
        **clips,
        "cold_start": _cold_start(read.path, pace),
    }
    stages |= {name: _percentiles(values) for name, values in timings.items()}
    # Volumes also have the processor's time, in which the wait for the poll does not count.
    for name, times in volumes.items():
        stages[name] |= {f"cpu_{key}": ms for key, ms in _percentiles(times.cpu).items() if key != "n"}
    report = {
        "machine": _machine(),
        "bundle": read.digest,
        "quick": quick,
        "stages": stages,
        "engines": {
            stage: {"runs_on": runs_on[stage], **(_percentiles(ms) if ms else _NEVER)}
            for stage, ms in calls.items()
        },
        "fallbacks": fallbacks,
        "fits": fits(read.manifest, steps, clips),
        "memory_mb": round(getattr(memory, "pss", memory.rss) / 2**20, 1),
        "state_mb": round(session.most_bytes(read.manifest) / 1e6, 3),
        "probe": probe,
        "notes": {
            "volume_to_vector": "104 x 104 x 72, 10,000 features, folder poll and alignment included",
            "eeg_push": "64 channels at 5 kHz, chunk to ring, every cleaning step on, no transport",
            "host_overhead": "a whole clip, without the time inside of the calls of the engines",
        },
    }
    if as_json:
        terminal.console().print_json(strict_json.dumps(report))
    else:
        _show(report)
    return report


def fits(manifest: Manifest, steps: int, clips: Timings) -> dict[str, Any]:
    """Say whether this machine decodes every window of a bundle before the next one is due.

    Parameters
    ----------
    manifest : Manifest
        Manifest of the bundle, for its hop and modalities.
    steps : int
        The bundle's own number of denoising steps; 0 for a closed form.
    clips : dict
        ``clip_N_steps`` -> times of a whole clip, ms.

    Returns
    -------
    dict
        ``fast_enough``; ``hop_ms``, from one window to the next; ``clips_per_hop``, 2 where a preview comes
        before each final; ``clip_ms``, number of steps -> what 95 of 100 clips took at most; ``most_steps``,
        the most of the measured numbers that fit, None if none does; ``sentence``.
    """
    hop_ms = 1e3 * float(manifest.grid.hop)
    per_hop = len(manifest.modalities)
    clip_ms = {
        int(name.split("_")[1]): float(np.percentile(times, 95))
        for name, times in clips.items()
        if name.startswith("clip_")
    }
    fit = [n for n, spent_ms in clip_ms.items() if per_hop * spent_ms <= hop_ms]
    enough = steps in fit
    what = "preview and final of a window take" if per_hop > 1 else "the clip of a window takes"
    spent_s = per_hop * clip_ms[steps] / 1e3
    advice = ""
    if steps and fit:
        advice = f" Of {_listed(clip_ms)} steps, {_listed(fit)} fit{'' if enough else ': give --steps'}."
    elif steps:
        advice = " No number of steps fits."
    return {
        "fast_enough": enough,
        "hop_ms": hop_ms,
        "clips_per_hop": per_hop,
        "clip_ms": {str(n): round(spent_ms, 3) for n, spent_ms in clip_ms.items()},
        "most_steps": max(fit, default=None),
        "sentence": (
            f"This machine is {'fast enough' if enough else 'too slow'} for {manifest.name}: {what} "
            f"{spent_s:.2g} s{f' with {steps} steps' if steps else ''}, and the next one is due after "
            f"{hop_ms / 1e3:g} s.{advice}"
        ),
    }


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(str(n) for n in numbers)


def _eeg_push(pace: Pace, *, quick: bool) -> list[float]:
    with pace.console.status("eeg_push: a minute of EEG from inside a scanner"):
        return eeg_push(_QUICK_PUSHES if quick else pace.samples, quick=quick)


def _probe(pace: Pace) -> list[float]:
    """Measure how late a 1 ms sleep ends, which is what the machine itself adds."""
    late = []
    for _ in pace.repeat(pace.samples, "probe"):
        start = time.perf_counter()
        time.sleep(0.001)
        late.append(1e3 * (time.perf_counter() - start) - 1)
    return late


def _cold_start(path: Path, pace: Pace) -> list[float]:
    """Time a new interpreter from its start to its first clip."""
    code = (
        "import sys; from rtdecode import bundle; from rtdecode.bundle import golden; "
        "from streaming.decode.decoder import Decoder; "
        "read = bundle.load(sys.argv[1]); Decoder(read).decode(golden.window(read))"
    )
    times_ms = []
    for _ in pace.repeat(_COLD_STARTS, "cold_start"):
        start = time.perf_counter()
        subprocess.run(child.python("-c", code, str(path.resolve())), check=True)
        times_ms.append(1e3 * (time.perf_counter() - start))
    return times_ms


def _percentiles(values: list[float]) -> dict[str, float]:
    points: Callable[[float], float] = lambda q: round(float(np.percentile(values, q)), 3)  # noqa: E731
    return {"p50_ms": points(50), "p95_ms": points(95), "p99_ms": points(99), "n": len(values)}


def _machine() -> dict[str, Any]:
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": round(psutil.getloadavg()[0], 2),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _show(report: dict[str, Any]) -> None:
    machine = report["machine"]
    console = terminal.console()
    console.print(_table(f"{machine['processor']}, {machine['cores']} cores", report["stages"]))
    engines = report["engines"]
    console.print(_table("one call of each stage of the bundle", engines))
    places = engine.places({stage: entry["runs_on"] for stage, entry in engines.items()})
    for sentence in [f"{places}.", *report["fallbacks"], report["fits"]["sentence"]]:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"memory {report['memory_mb']} MB; a session's state at most {report['state_mb']} MB; the machine's "
        f"own lateness {report['probe']}"
    )


def _table(title: str, timed: dict[str, Any]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("stage", "median ms", "p95", "p99", "n"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for name, s in timed.items():
        cells = [str(s[k]) for k in ("p50_ms", "p95_ms", "p99_ms", "n")] if s else ["-"]
        table.add_row(name, *cells)
    return table
