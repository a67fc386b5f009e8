"""What a run's graphs take and lose in each precision, side by side.

    python -m benchmarks.experiments.precisions RUN [--steps N] [--film natural] [--preset easy]
                                                    [--seeds 1000-1003] [--seconds 400] [--json] [--out FILE]

The run is exported in every precision to a temporary folder. For each it prints the size of the graphs, the
parity that the export found, and, where this machine runs the graphs, how long the encoder, a denoising step
and a clip take, each in turn with fp32 in the same process, on one thread. Fresh sessions of the simulated
participant then go through the graphs that run here, window by window from the same noise, each window
without the clip before: what is lost of 2-way identification against fp32 is paired. Intervals are
over sessions if there are four, and else over blocks of film.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.result_files import write
from export import run as exporting
from export.parity import PASSED
from rtdecode.bundle import Bundle, golden
from rtdecode.bundle.engine import Engine, load
from rtdecode.bundle.frames import to_uint8
from rtdecode.bundle.manifest import PRECISIONS
from rtdecode.errors import RtDecodeError, UsageError, explain
from rtdecode.scores import intervals
from rtdecode.types import Array
from train.config.recipe import build
from train.config.run_context import Arrays
from train.config.run_files import read_run
from train.data.clip_grid import shown_frames
from train.data.film_windows import film_clips
from train.data.phantom import session_arrays
from train.data.simulated import SimulatedSessions
from train.evaluation import sessions
from train.evaluation.film_figures import groups
from train.evaluation.sessions import Sessions
from train.metrics.wins import wins_in_session

# Clips that are timed in every precision, after one that is not.
_TIMED = 40
_SINGLE = PRECISIONS[0]
_PARTS = ("encode", "step", "clip")


def measure(run: Path, steps: int | None, test_sessions: Sessions) -> dict[str, Any]:
    """Export a run in every precision, and measure each.

    Returns
    -------
    dict
        ``run``; ``precisions``, precision -> ``mb`` (of the graphs), ``parity`` (``status``, ``reason`` and
        the PSNR of the clips, of graphs that round where the graphs themselves were not run), ``ms`` (median
        milliseconds by part), ``times`` (the median of their ratios to fp32), ``identification`` (``value``
        and what is ``lost``) and ``refused``, each None where it was not found; ``n``, the windows that
        were identified, and how ``intervals`` were made.
    """
    with tempfile.TemporaryDirectory() as place:
        exports: dict[str, Bundle] = {}
        by_precision: dict[str, dict[str, Any]] = {}
        for precision in PRECISIONS:
            row: dict[str, Any] = dict.fromkeys(("mb", "parity", "ms", "times", "identification", "refused"))
            by_precision[precision] = row
            try:
                exported = exporting.run(run, Path(place) / precision, None, precision, steps)
            except UsageError as error:
                row["refused"] = str(error)
                continue
            row["mb"] = _megabytes(exported)
            row["parity"] = _parity(exported)
            if row["parity"]["status"] == PASSED:
                exports[precision] = exported
        engines = {precision: load(bundle) for precision, bundle in exports.items()}
        for precision, times in _times(exports, engines).items():
            by_precision[precision] |= times
        n, words = _identify(run, exports, engines, by_precision, test_sessions)
    report = {"run": run.name, "precisions": by_precision, "n": n, "intervals": words}
    return report | {"film": test_sessions.film, "preset": test_sessions.preset}


def _megabytes(bundle: Bundle) -> float:
    stages = bundle.manifest.built.values()
    files = [name for stage in stages for name in (stage.file, *stage.data)]
    return round(sum((bundle.path / name).stat().st_size for name in files) / 1e6, 2)


def _parity(bundle: Bundle) -> dict[str, Any]:
    parity = bundle.manifest.parity
    emulated = parity.get("emulated", {})
    return {
        "status": parity["status"],
        "reason": parity.get("reason"),
        "clip_psnr_db": parity["clip_psnr_db"],
        "emulated_clip_psnr_db": emulated.get("clip_psnr_db"),
    }


def _times(exports: Mapping[str, Bundle], engines: Mapping[str, Engine]) -> dict[str, dict[str, Any]]:
    """Decode the golden window in each precision in turn; see `measure` for what is told of it."""
    durations = {precision: [] for precision in exports}
    for _ in range(1 + _TIMED):
        for precision, bundle in exports.items():
            durations[precision].append(_timed(bundle, engines[precision]))
    # The first round warms up.
    seconds = {precision: np.array(rows[1:]) for precision, rows in durations.items()}
    ratios = {precision: np.median(rows / seconds[_SINGLE], axis=0) for precision, rows in seconds.items()}
    return {
        precision: {
            "ms": _by_part(1000 * np.median(rows, axis=0)),
            "times": _by_part(ratios[precision]),
        }
        for precision, rows in seconds.items()
    }


def _timed(bundle: Bundle, engine: Engine) -> tuple[float, float, float]:
    """Return the seconds that encoding, a denoising step, and the whole clip take."""
    steps = bundle.manifest.steps
    opened = golden.open_pass(engine, golden.first(bundle), steps, str(bundle.path))
    began = time.perf_counter()
    opened.encode()
    encoded = time.perf_counter()
    latents = list(opened.latents())
    denoised = time.perf_counter()
    for latent in latents:
        for _ in opened.draw(latent):
            pass
    decoded = time.perf_counter()
    return encoded - began, (denoised - encoded) / max(1, steps), decoded - began


def _by_part(values: NDArray[np.floating]) -> dict[str, float]:
    return {part: float(f"{value:.3g}") for part, value in zip(_PARTS, values.tolist(), strict=True)}


def _identify(
    run: Path,
    exports: Mapping[str, Bundle],
    engines: Mapping[str, Engine],
    by_precision: dict[str, dict[str, Any]],
    test_sessions: Sessions,
) -> tuple[int, str | None]:
    """Fill in what each precision identifies of fresh sessions, and what it loses against fp32."""
    data = build(read_run(run)["arguments"]["data"])
    if not isinstance(data, SimulatedSessions):
        return 0, None
    bundle = exports[_SINGLE]
    mean_clip = bundle.stats["mean_clip"][: shown_frames(bundle.manifest)]
    wins: dict[str, list[NDArray[np.float64]]] = {precision: [] for precision in exports}
    films = []
    for session, film in test_sessions.watched(data.who, bundle.manifest):
        films.append(film)
        inputs = session_arrays(bundle, session)
        truths = film_clips(session.film, bundle.manifest)
        alike = np.zeros(len(truths), np.int64)
        shape = (len(truths), *engines[_SINGLE].program.latent[1:])
        # A run bears the number of its session's seed.
        seed, _, _ = film.where[0]
        noise = np.random.default_rng(seed).standard_normal(shape, np.float32)
        for precision, engine in engines.items():
            clips = [_clip(engine, exports[precision], inputs, noise, row) for row in range(len(truths))]
            wins[precision].append(wins_in_session(clips, list(truths), alike, mean_clip))
    window_groups, words = groups(films, by_session=True)
    won = {precision: np.concatenate(rows) for precision, rows in wins.items()}
    for precision, scores in won.items():
        lost = won[_SINGLE] - scores
        by_precision[precision]["identification"] = {
            "value": float(scores.mean()),
            "lost": float(lost.mean()),
            **intervals.of_mean(lost, window_groups, bounded=False).entries(),
        }
    return len(won[_SINGLE]), words


def _clip(engine: Engine, bundle: Bundle, inputs: Arrays, noise: Array, row: int) -> Array:
    """Decode a window without the clip before, and return its frames, uint8."""
    window = {name: values[row : row + 1] for name, values in inputs.items()} | {
        "noise": noise[row : row + 1]
    }
    for name, state in bundle.manifest.states.items():
        if state.scope == "session":
            window |= {name: np.zeros(state.shape, np.float32), f"{name}_mask": np.zeros((1, 1), np.float32)}
    frames = golden.decode(engine, window, bundle.manifest.steps, "a fresh session")["frames"][0]
    return to_uint8(frames)


def table(figures: dict[str, Any]) -> Table:
    """Lay out the figures as they are printed."""
    laid = Table(
        f"{figures['run']}, {figures['n']} windows of {figures['film']}, preset {figures['preset']}",
        *figures["precisions"],
        title_justify="left",
    )
    rows = figures["precisions"].values()
    laid.add_row("graphs, MB", *[_shown(row["mb"], "{:g}") for row in rows])
    laid.add_row("parity", *[(row["parity"] or {"status": "refused"})["status"] for row in rows])
    for name in ("clip_psnr_db", "emulated_clip_psnr_db"):
        laid.add_row(name, *[_shown((row["parity"] or {}).get(name), "{:g}") for row in rows])
    for part in _PARTS:
        laid.add_row(f"{part}, ms", *[_shown(row["ms"] and row["ms"][part], "{:.3g}") for row in rows])
        laid.add_row(
            f"{part}, times fp32", *[_shown(row["times"] and row["times"][part], "{:.2f}") for row in rows]
        )
    laid.add_row("identification, 2-way", *[_identified(row["identification"]) for row in rows])
    return laid


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _identified(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return "-"
    return f"{figure['value']:.4f}, lost {figure['lost']:.4f} ({intervals.words(figure, '.4f')})"


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a folder that `train.run` wrote")
    parser.add_argument("--steps", type=int, help="denoising steps; default: the run's")
    sessions.add_options(parser, "natural", "1000-1003", 400.0)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    args = parser.parse_args(words)
    try:
        figures = measure(args.run, args.steps, sessions.of(args))
    except RtDecodeError as error:
        return explain(error, as_json=args.json)
    if args.json:
        print(json.dumps(figures))  # noqa: T201
    else:
        console = Console(width=None if Console().is_terminal else 140)
        console.print(table(figures))
    if args.out is not None:
        write(args.out, figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
