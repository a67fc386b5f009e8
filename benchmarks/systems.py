"""The published systems, `compact` and a ridge on the same windows: what each reads, how fast, how large.

python -m benchmarks.systems [--json] [--write]     # about an hour on two cores
python -m benchmarks.systems RUN --sessions 1 --repeats 10   # to try it, on some runs alone

Without RUN those that ship (`train/runs`) are compared. Runs are put together by the windows that they can be
given: those of 4 s with TR 0.8 s, and those of 2 s with TR 2 s. Each group has a ridge beside it that reads
the same modalities and volumes, which is trained here on the sessions of its recipe; every other run is held
against it, window by window (`train.compare`). On the first preset every run is also given volumes with more
noise, and held against itself without. What ships of a run is its bundle; one without a bundle is
exported. All bundles then decode their golden windows on one thread, taking turns, so that whatever else the
machine does meets all of them alike. With `--write` a sheet of each group is drawn in `docs/images`.

Runs and bundles that lie in the folder of `--work` already are left alone.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks.played import opened
from benchmarks.result_files import RESULTS, ROOT, write
from benchmarks.variant_outcomes import MISSING, written
from rtdecode import bundle as bundles
from rtdecode import terminal
from rtdecode.bundle import Bundle, golden
from rtdecode.disk import private
from rtdecode.errors import RtDecodeError, UsageError, explain
from streaming.decode.decoder import Decoder
from train import compare
from train.config.run_context import progress
from train.evaluation.sessions import Sessions
from train.run_recipe import run as train

_OUT = RESULTS / "systems.json"
_WORK = Path("runs/systems")
_RUNS = ROOT / "train" / "runs"
_IMAGES = ROOT / "docs" / "images"
# What ships, by the name of its run and of its bundle -> its windows. `phantom` is `compact`.
SYSTEMS = {
    "phantom": "4 s",
    "cinesync-tiny": "4 s",
    "cineneuron-tiny": "4 s",
    "mindvideo-tiny": "2 s",
    "brainnetflix-tiny": "2 s",
}
_RIDGE = "ridge"
_PRESETS = ("easy", "default")
_FILM = "shapes"
_SECONDS = 60.0
_FIRST_SESSION = 1010
# Of the strength of volumes, as in CineNeuron (appendix C.9).
_NOISE = (0.1, 0.25)
# What stands in place of the figures of a system of which nothing ships.
_NO_FIGURES = {metric: {"value": MISSING, "less": MISSING} for metric in compare.METRICS}
_NO_TIMES = {"p50": MISSING, "p95": MISSING, "n": 0}
_NO_COSTS = {
    "clip_ms": _NO_TIMES,
    "first_frame_ms": _NO_TIMES,
    "steps": MISSING,
    "megabytes": MISSING,
    "waits_s": MISSING,
}

Group = tuple[str, list[compare.Decoder]]


def grouped(decoders: Sequence[compare.Decoder]) -> list[Group]:
    """Put runs together that can be given the same windows, each group with its name."""
    groups: list[list[compare.Decoder]] = []
    for decoder in decoders:
        for members in groups:
            if compare.same_windows(members[0], decoder):
                members.append(decoder)
                break
        else:
            groups.append([decoder])
    groups_by_window = [(_group_name(members[0]), members) for members in groups]
    names = [name for name, _ in groups_by_window]
    if len({*names}) < len(names):
        raise UsageError(
            "benchmark-participants-differ",
            "the runs {runs} have windows of the same length and cannot be given the same ones: their "
            "participants or clips differ. Compare them apart.",
            runs=[decoder.name for decoder in decoders],
        )
    return groups_by_window


def _group_name(decoder: compare.Decoder) -> str:
    grid = decoder.bundle.manifest.grid
    return f"{float(grid.window):g} s"


def ridge_changes(members: Sequence[compare.Decoder]) -> list[str]:
    """Return the changes of the recipe of a ridge that reads what a group of runs reads."""
    first = members[0]
    grid = first.bundle.manifest.grid
    ahead = max(member.bundle.manifest.grid.after for member in members)
    modalities = {modality for member in members for modality in member.bundle.manifest.modalities}
    return [
        *(f"data.grid.{name}={getattr(grid, name)}" for name in ("tr", "window", "hop", "lag", "fps")),
        f"data.grid.after={ahead}",
        f"data.modalities=[{','.join(sorted(modalities))}]",
        f"data.who.subject={first.who.subject}",
        f"data.who.cortex={first.who.cortex}",
    ]


def compared(
    members: Sequence[Path], presets: Sequence[str], seeds: str, noise: Sequence[float] = _NOISE
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compare a ridge, the first of them, with runs that can be given the same windows.

    Returns
    -------
    figures : dict
        Preset -> run -> metric -> ``value`` and ``less`` (than the ridge, paired; None for itself), each
        ``value`` and ``ci95``.
    noisy : dict
        The same of the first preset and of volumes with more noise: share of their strength, as it is
        written -> run -> metric -> ``value`` and ``less`` (than the run itself without).
    """
    figures: dict[str, Any] = {}
    noisy: dict[str, Any] = {f"{share:g}": {} for share in noise}
    runs_by_name = {
        run.name + compare.noise_suffix(share): (noisy[f"{share:g}"], run.name)
        for share in noise
        for run in members
    }
    for preset in presets:
        of_preset = figures.setdefault(preset, {})
        with_noise = noise if preset == presets[0] else ()
        for row in compare.measure(members, Sessions(_FILM, preset, seeds, _SECONDS), noise=with_noise):
            less = None if row["less"] is None else {"value": row["less"], "ci95": row["less_ci95"]}
            where, run = runs_by_name.get(row["decoder"], (of_preset, row["decoder"]))
            where.setdefault(run, {})[row["metric"]] = {
                "value": {"value": row["value"], "ci95": row["ci95"]},
                "less": less,
            }
    return figures, noisy


def costs(run_bundles: Mapping[str, Bundle], repeats: int) -> dict[str, Any]:
    """Time the clips of bundles on one thread, in turns, and tell their sizes.

    Parameters
    ----------
    run_bundles : mapping
        Name of a run -> its bundle.
    repeats : int

    Returns
    -------
    dict
        Run -> ``clip_ms`` {p50, p95, n}; ``first_frame_ms`` {p50, p95, n}; ``steps``; ``megabytes``;
        ``waits_s``, from the end of a window to the end of its last volume.
    """
    decoders = {name: Decoder(bundle) for name, bundle in run_bundles.items()}
    windows = {name: golden.window(bundle) for name, bundle in run_bundles.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in run_bundles}
    for _ in progress(range(repeats), "clips"):
        for name, decoder in decoders.items():
            done = decoder.decode(windows[name])
            times[name].append((done.first_frame_at - done.started_at, done.last_frame_at - done.started_at))
    report = {}
    for name, bundle in run_bundles.items():
        first, last = 1e3 * np.array(times[name]).T
        files = [path for path in bundle.path.rglob("*") if path.is_file()]
        report[name] = {
            "clip_ms": _percentiles(last),
            "first_frame_ms": _percentiles(first),
            "steps": decoders[name].steps,
            "megabytes": round(sum(path.stat().st_size for path in files) / 1e6, 2),
            "waits_s": float(bundle.manifest.grid.wait),
        }
    return report


def _percentiles(values: np.ndarray) -> dict[str, float]:
    p50, p95 = np.percentile(values, [50, 95])
    return {"p50": round(float(p50), 1), "p95": round(float(p95), 1), "n": len(values)}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Train the ridges, compare, time, and draw the sheets where figures are written."""
    runs: list[Path] = options.runs or [_RUNS / name for name in SYSTEMS if (_RUNS / name).is_dir()]
    presets = options.presets.split(",")
    seeds = f"{_FIRST_SESSION}-{_FIRST_SESSION + options.sessions - 1}"
    private.folder(options.work)
    windows: dict[str, Any] = {}
    noise: dict[str, Any] = {}
    run_bundles: dict[str, Bundle] = {}
    paths = {run.name: run for run in runs}
    for window, members in grouped([compare.opened(run) for run in runs]):
        ridge = options.work / f"{_RIDGE}-{window.replace(' ', '')}"
        if not ridge.is_dir():
            train(_RIDGE, [*ridge_changes(members), "judge=none", f"out={ridge}"])
        together = [ridge, *(paths[member.name] for member in members)]
        windows[window], noise[window] = compared(together, presets, seeds)
        run_bundles |= {run.name: _bundle_of(run, options.work) for run in together}
        if options.write:
            _draw(together, window)
    clip_costs = costs(run_bundles, options.repeats)
    if not options.runs:
        for name in SYSTEMS.keys() - paths.keys():
            clip_costs[name] = _NO_COSTS
            for preset in presets:
                windows.setdefault(SYSTEMS[name], {}).setdefault(preset, {})[name] = _NO_FIGURES
    return {"film": _FILM, "seeds": seeds, "windows": windows, "noise": noise, "costs": clip_costs}


def _bundle_of(run: Path, work: Path) -> Bundle:
    """Load the bundle that ships of a run, or export it."""
    if run.resolve().parent == _RUNS and (ROOT / "rtdecode" / "bundles" / run.name).is_dir():
        return bundles.load(run.name)
    bundle = work / f"{run.name}-bundle"
    return bundles.load(bundle) if bundle.is_dir() else opened(str(run), bundle)


def _draw(runs: Sequence[Path], window: str) -> None:
    judged = Sessions(_FILM, _PRESETS[0], str(_FIRST_SESSION), _SECONDS)
    words = f"{_FILM}, {_PRESETS[0]}, seed {_FIRST_SESSION}, windows of {window}"
    picture = compare.sheet([compare.opened(run) for run in runs], judged, words)
    # A palette would draw edges that the clips do not have.
    picture.save(_IMAGES / f"systems-{window.replace(' ', '')}.webp", quality=85, method=6)


def table(figures: Mapping[str, Any], title: str, reference: str) -> Table:
    """Lay out what is printed of a group of runs, each beside its difference to a reference."""
    columns = [words for metric in compare.METRICS for words in (metric, f"less than {reference}")]
    laid = Table("run", *columns, title=f"{title}, single trials; chance 0.5")
    for name, metrics in figures.items():
        entries = [metrics.get(metric, {"value": "-", "less": None}) for metric in compare.METRICS]
        cells = [written(entry[part]) for entry in entries for part in ("value", "less")]
        laid.add_row(name, *cells)
    return laid


def costs_table(times: Mapping[str, Any]) -> Table:
    """Lay out what clips cost."""
    columns = ("steps", "first frame, ms", "clip, ms (median)", "clip, ms (p95)", "bundle, MB", "waits, s")
    laid = Table("run", *columns, title="one thread, all in turns")
    for name, cost in times.items():
        clip = cost["clip_ms"]
        cells = (cost["steps"], cost["first_frame_ms"]["p50"], clip["p50"], clip["p95"])
        laid.add_row(name, *map(str, (*cells, cost["megabytes"], cost["waits_s"])))
    return laid


def main() -> int:
    """Read the arguments, measure, print, and write where that was asked for; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.systems",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="by default those that ship")
    parser.add_argument("--presets", default=",".join(_PRESETS))
    parser.add_argument("--sessions", type=int, default=20, help="sessions of 60 s that are decoded")
    parser.add_argument("--repeats", type=int, default=200, help="clips of each bundle that are timed")
    parser.add_argument("--work", type=Path, default=_WORK, help="where ridges and their bundles lie")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--write", action="store_true", help=f"keep the figures in {_OUT.name}, and the sheets"
    )
    options = parser.parse_args()
    try:
        with threadpool_limits(1):
            figures = measure(options)
    except RtDecodeError as error:
        return explain(error, as_json=options.json)
    if options.write:
        write(_OUT, figures)
    if options.json:
        terminal.line(json.dumps(figures))
        return 0
    console = Console(width=220)
    for window, presets in figures["windows"].items():
        for preset, of_preset in presets.items():
            console.print(table(of_preset, f"windows of {window}, {preset}", "the ridge"))
    for window, shares in figures["noise"].items():
        for share, of_share in shares.items():
            title = f"windows of {window}, noise of {share} in the volumes"
            console.print(table(of_share, title, "without noise"))
    console.print(costs_table(figures["costs"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
