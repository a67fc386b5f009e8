"""The five fusions of fMRI and EEG, trained on the same windows from one pretrained video model.

python -m benchmarks.fusions [--json] [--write]       # about three hours on two cores, and resumable
python -m benchmarks.fusions --fusions dual,joint --brain-seeds 0 --steps 20 --sessions 1   # to try it

Gao et al. 2026 (CineBrain) compare joint, two-stage, cross-attention, spatial and dual encoding. Each is
trained here at tiny scale with a quarter of the recipe's steps, three times: the brain encoder's first
weights and its batches differ, and sessions, film net, codec and video model are the same. All runs then
decode the same fresh sessions (`train.compare`). A fusion's figure is the mean of its seeds, and its interval
rests on how far seeds lie apart, because two trainings of one fusion differ by more than their test windows
say.

Runs that lie in the folder of `--work` already are left alone.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from benchmarks.result_files import RESULTS, write
from benchmarks.variants import train_all
from rtdecode import terminal
from train import compare
from train.judging.sessions import Sessions

_OUT = RESULTS / "fusions.json"
_WORK = Path("runs/fusions")
_REFERENCE = "dual"
# Spatial fusion lays as many tokens beside each other as a caption has.
_FUSIONS = {
    "joint": (),
    "two-stage": (),
    "cross-attention": (),
    "spatial": ("system.encoder.tokens=84", "system.encoder.eeg_tokens=21"),
    _REFERENCE: (),
}
# A quarter of the recipe's.
_STEPS = {"align": 375, "diffuse": 400}
# Of the sessions that are decoded.
_FIRST_SEED = 1000


def summarised(
    rows: Sequence[Mapping[str, Any]], fusions: Sequence[str], seeds: Sequence[str]
) -> dict[str, Any]:
    """Summarise the figures of runs over the seeds of each fusion.

    Parameters
    ----------
    rows : sequence of mapping
        Those of `train.compare.measure`; a run is called FUSION-SEED.
    fusions, seeds : sequence of str

    Returns
    -------
    dict
        Fusion -> metric -> ``value`` (mean of the seeds), ``ci95`` (of that mean, by Student's t), ``seeds``
        (value of each), ``difference`` (``value`` and ``ci95`` by Welch's t) to dual fusion.
    """
    figures = {(row["decoder"], row["metric"]): row["value"] for row in rows}
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    summary: dict[str, Any] = {}
    for fusion in fusions:
        summary[fusion] = {}
        for metric in metrics:
            values = [figures[f"{fusion}-{seed}", metric] for seed in seeds]
            entry: dict[str, Any] = {"value": float(np.mean(values)), "ci95": _interval(values)}
            if fusion != _REFERENCE and _REFERENCE in fusions:
                reference = [figures[f"{_REFERENCE}-{seed}", metric] for seed in seeds]
                entry["difference"] = _difference(values, reference)
            summary[fusion][metric] = entry | {"seeds": values}
    return summary


def _interval(values: Sequence[float]) -> list[float] | None:
    if len(values) < 2:
        return None
    interval = stats.ttest_1samp(values, 0.0).confidence_interval()
    return [float(interval.low), float(interval.high)]


def _difference(values: Sequence[float], reference: Sequence[float]) -> dict[str, Any]:
    difference = float(np.mean(values) - np.mean(reference))
    if min(len(values), len(reference)) < 2:
        return {"value": difference, "ci95": None}
    interval = stats.ttest_ind(values, reference, equal_var=False).confidence_interval()
    return {"value": difference, "ci95": [float(interval.low), float(interval.high)]}


def table(summary: Mapping[str, Any], seeds: int) -> Table:
    """Lay out what is printed."""
    metrics = list(next(iter(summary.values())))
    laid = Table("fusion", *(title for metric in metrics for title in (metric, "less dual")))
    for fusion, entries in summary.items():
        cells = []
        for metric in metrics:
            entry = entries[metric]
            cells += [_cell(entry), _cell(entry["difference"]) if "difference" in entry else ""]
        laid.add_row(fusion, *cells)
    laid.title = f"chance 0.5; mean of {seeds} training seeds and its 95 % interval over them"
    return laid


def _cell(entry: Mapping[str, Any]) -> str:
    interval = entry["ci95"]
    return f"{entry['value']:.3f}" + (
        "" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})"
    )


def main() -> None:
    """Train, measure, print, and write where that was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fusions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--work", type=Path, default=_WORK, help="where the runs lie, and are found again")
    parser.add_argument("--fusions", default=",".join(_FUSIONS))
    parser.add_argument("--brain-seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, help="of every phase, to try it")
    parser.add_argument("--sessions", type=int, default=20, help="sessions of 60 s that are decoded")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help=f"keep the figures in {_OUT.name}")
    options = parser.parse_args()
    steps = _STEPS if options.steps is None else dict.fromkeys(("films", "pretrain", *_STEPS), options.steps)
    common = [f"phases.{phase}.steps={count}" for phase, count in steps.items()]
    if options.steps is not None:
        common += ["data.sessions=0-1", "data.seconds=60"]
    fusions = options.fusions.split(",")
    seeds = options.brain_seeds.split(",")
    variants = {
        f"{fusion}-{seed}": [
            *common,
            f"system.encoder.fusion={fusion}",
            *_FUSIONS[fusion],
            f"system.brain_seed={seed}",
        ]
        for seed in seeds
        for fusion in fusions
    }
    train_all(options.work, "cinesync", variants, common, list(_STEPS))
    last = _FIRST_SEED + options.sessions - 1
    judged = Sessions(film="shapes", preset="easy", seeds=f"{_FIRST_SEED}-{last}", seconds=60.0)
    rows = compare.measure([options.work / name for name in variants], judged)
    figures = {"steps": steps, "sessions": options.sessions, "fusions": summarised(rows, fusions, seeds)}
    if options.write:
        write(_OUT, figures)
    if options.json:
        terminal.line(json.dumps(figures))
    else:
        Console().print(table(figures["fusions"], len(seeds)))


if __name__ == "__main__":
    main()
