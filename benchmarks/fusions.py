"""The five fusions of fMRI and EEG, trained on the same windows from one pretrained video model.

python -m benchmarks.fusions [--json] [--write]       # about three hours on two cores, and resumable
python -m benchmarks.fusions --fusions dual,joint --brain-seeds 0 --steps 20 --sessions 1   # to try it

Gao et al. 2026 (CineBrain) compare joint, two-stage, cross-attention, spatial and dual encoding. Each is
trained here at tiny scale with a quarter of the recipe's steps, three times: the brain encoder's first
weights and its batches differ, and sessions, film net, codec and video model are the same. All runs then
decode the same fresh sessions (`train.compare`). A fusion's figure is the mean of its seeds, and its interval
rests on how far seeds lie apart, because two trainings of one fusion differ by more than their test windows
say.

Runs that lie in the folder of `--work` already are left alone. With `--write`, runs of other brain seeds that
the result file holds are counted as well, so that the seeds may be trained on different days:

python -m benchmarks.fusions --brain-seeds 0 --write       # about an hour
python -m benchmarks.fusions --brain-seeds 1 --write
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from benchmarks.result_files import RESULTS, read, write
from benchmarks.variants import mean_interval, parser_of, steps_of, train_all, written
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


Runs = dict[str, dict[str, float]]


def summarised(runs: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Summarise the figures of runs over the seeds of each fusion.

    Parameters
    ----------
    runs : mapping
        FUSION-SEED -> metric -> value.

    Returns
    -------
    dict
        Fusion -> metric -> ``value`` (mean of the seeds), ``ci95`` (of that mean, by Student's t), ``seeds``
        (value of each), ``difference`` (``value`` and ``ci95`` by Welch's t) to dual fusion.
    """
    values: dict[str, dict[str, list[float]]] = {}
    for name, figures in sorted(runs.items()):
        fusion = name.rpartition("-")[0]
        for metric, value in figures.items():
            values.setdefault(fusion, {}).setdefault(metric, []).append(value)
    reference = values.get(_REFERENCE)
    summary: dict[str, Any] = {}
    for fusion in (fusion for fusion in _FUSIONS if fusion in values):
        summary[fusion] = {}
        for metric, of_seeds in values[fusion].items():
            entry: dict[str, Any] = {"value": float(np.mean(of_seeds)), "ci95": mean_interval(of_seeds)}
            if reference is not None and fusion != _REFERENCE:
                entry["difference"] = _difference(of_seeds, reference[metric])
            summary[fusion][metric] = entry | {"seeds": of_seeds}
    return summary


def joined(runs: Runs, how: Mapping[str, Any], path: Path) -> Runs:
    """Add the runs that a result file holds, where they were trained and decoded in the same way.

    Parameters
    ----------
    runs : dict
        FUSION-SEED -> metric -> value.
    how : mapping
        ``steps`` and ``sessions``.
    path : Path
        The result file, which need not be there.
    """
    if not path.exists():
        return runs
    earlier = read(path)
    alike = all(earlier[name] == value for name, value in how.items())
    return {**earlier["runs"], **runs} if alike else runs


def _difference(values: Sequence[float], reference: Sequence[float]) -> dict[str, Any]:
    difference = float(np.mean(values) - np.mean(reference))
    if min(len(values), len(reference)) < 2:
        return {"value": difference, "ci95": None}
    interval = stats.ttest_ind(values, reference, equal_var=False).confidence_interval()
    return {"value": difference, "ci95": [float(interval.low), float(interval.high)]}


def table(summary: Mapping[str, Any]) -> Table:
    """Lay out what is printed."""
    seeds = max(len(entry["seeds"]) for entries in summary.values() for entry in entries.values())
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
    return written(entry["value"], entry["ci95"])


def main() -> None:
    """Train, measure, print, and write where that was asked for."""
    parser = parser_of("benchmarks.fusions", __doc__, _WORK, _OUT)
    parser.add_argument("--fusions", default=",".join(_FUSIONS))
    parser.add_argument("--brain-seeds", default="0,1,2")
    options = parser.parse_args()
    steps = steps_of(options.steps, _STEPS)
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
    how = {"steps": steps, "sessions": options.sessions}
    runs: Runs = {}
    for row in rows:
        if row["decoder"] in variants:
            runs.setdefault(row["decoder"], {})[row["metric"]] = row["value"]
    if options.write:
        runs = joined(runs, how, _OUT)
    figures = {**how, "runs": runs, "fusions": summarised(runs)}
    if options.write:
        write(_OUT, figures)
    if options.json:
        terminal.line(json.dumps(figures))
    else:
        Console().print(table(figures["fusions"]))


if __name__ == "__main__":
    main()
