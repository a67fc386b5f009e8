"""Causal ways to follow the resting level, side by side on recorded data: ``python -m benchmarks.normalise``.

Haxby, one slice, leave one run out of ten. Everything that can be chosen (a method's parameters, the
decoder's shrinkage, the lag or onset correction) is chosen inside the training runs of a fold; what a
method learns from runs, it learns without the run it is then applied to. Needs RTDECODE_DATA for the
motion parameters; the rest is shipped with the project.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.normalisers import METHODS, OURS, YARDSTICK, Method, Recorded
from rtdecode.scores.accuracy import bootstrap_ci
from rtdecode.timing import TimingGrid, exact
from train.closed_form.lda import fit_lda, fit_temperature, relevance, softmax
from train.data import haxby
from train.models.haxby.drift import responses
from train.models.haxby.plan import brain
from train.models.haxby.trials import Blocks, plateau

Matrix = NDArray[np.float64]
Series = NDArray[np.float32]
Labels = NDArray[np.int64]
CHANCE = 1 / len(haxby.LABELS)
SHRINKAGES = [0.1, 0.2, 0.4, 0.6]
PERMUTATIONS = 10
_OUT = Path(__file__).with_name("normalise.json")
_TR = 2.5
_WINDOW = 4.0
_VOLUMES = 121


@dataclass(frozen=True)
class Windows:
    """Windows wholly inside a block: run, block, category and volumes of each."""

    run: Labels
    block: Labels
    truth: Labels
    volumes: list[list[int]]

    def rows(self, left: dict[int, Series]) -> Matrix:
        """Mean of each window's volumes, (window, voxel)."""
        pairs = zip(self.run, self.volumes, strict=True)
        return np.stack([left[int(run)][inside].mean(0, dtype=np.float64) for run, inside in pairs])


@dataclass(frozen=True)
class Data:
    """All runs, and what was shown in them."""

    runs: dict[int, Recorded]
    blocks: Blocks


def load(blocks: Blocks, runs: dict[int, haxby.BoldRun], place: Path) -> Data:
    """Series, expected responses and motion of every run."""
    voxels = brain(list(runs.values()), list(runs))
    found = {}
    for n, run in runs.items():
        series = run.data.reshape(-1, run.data.shape[3])[voxels].T.astype(np.float64)
        course = responses(blocks.events[n], blocks.labels, len(series), run.tr_s)
        path = place / f"run{n:03d}" / "bold_moest.txt"
        found[n] = Recorded(series, course, np.loadtxt(path) if path.is_file() else None)
    return Data(found, blocks)


def recorded(taught: Blocks, data: Data) -> Data:
    """The same runs, with the responses that other labels predict."""
    courses = {n: responses(taught.events[n], taught.labels, _VOLUMES, _TR) for n in data.runs}
    return Data({n: replace(run, course=courses[n]) for n, run in data.runs.items()}, taught)


def from_onsets(blocks: Blocks, lag: float) -> Windows:
    """Five windows from the onset of each block on, and the volumes `lag` seconds later."""
    rows = []
    for run, events in blocks.events.items():
        for b, event in enumerate(events):
            for k in range(int(event.duration_s // _WINDOW)):
                start = event.onset_s + k * _WINDOW + lag
                inside = [n for n in range(_VOLUMES) if start <= (n + 0.5) * _TR < start + _WINDOW]
                rows.append((run, 100 * run + b, blocks.labels.index(event.trial_type), inside))
    return _windows(rows)


def on_grid(blocks: Blocks, correction: float) -> Windows:
    """Windows of the live grid: every 4 s, volumes 4 s later, onsets moved by the correction."""
    grid = TimingGrid(exact(_TR), exact(125), exact(_WINDOW), exact(_WINDOW), exact(4), exact(8))
    count = grid.count(_VOLUMES * _TR)
    ends = [(float(start), float(stop)) for start, stop in map(grid.span, range(count))]
    spans = [(run, start, stop) for run in blocks.events for start, stop in ends]
    truth, block = blocks.truth(spans, correction)
    inside = [[n for n in grid.volumes(k) if n < _VOLUMES] for _ in blocks.events for k in range(count)]
    rows = zip((s[0] for s in spans), block, truth, inside, strict=True)
    return _windows([row for row in rows if row[2] >= 0 and row[3]])


def _windows(rows: Sequence[Any]) -> Windows:
    run, block, truth, volumes = zip(*rows, strict=True)
    return Windows(np.array(run), np.array(block), np.array(truth), list(volumes))


PROTOCOLS = {
    "from each onset": (from_onsets, [0.0, 1.0, 2.0]),
    "live grid": (on_grid, [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0]),
}

# Whether voxels are weighted by their relevance before the covariance is shrunk.
DECODERS = {"shrinkage LDA": False, "shrinkage LDA, relevance weights": True}


def decode(x: Matrix, y: Labels, tests: Matrix, weighted: bool) -> Matrix:
    """Logits of the test windows at every shrinkage, (shrinkage, window, label)."""
    scale = np.maximum(x.std(0), 1e-9)
    if weighted:
        scale = scale / relevance(x / scale, y, len(haxby.LABELS))
    fits = fit_lda(x / scale, y, len(haxby.LABELS), SHRINKAGES)
    return np.stack([tests / scale @ weights + offset for weights, offset in fits])


def surprise(logits: Matrix, y: Labels) -> float:
    """Mean negative log probability of the truth at the best temperature."""
    likely = softmax(logits / fit_temperature(logits, y))[np.arange(len(y)), y]
    return float(-np.log(likely + 1e-12).mean())


class Normalised:
    """What each method leaves of each run, kept: applied to a run it has not learned from."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self._kept: dict[Any, NDArray[np.float32]] = {}

    def forget(self) -> None:
        """Make room for the next method."""
        self._kept.clear()

    def left(self, method: Method, parameters: dict[str, Any], out: set[int]) -> dict[int, Series]:
        """Run -> (volume, voxel), where nothing is learned from the runs `out`."""
        return {n: self._one(method, parameters, frozenset({*out, n}), n) for n in self._data.runs}

    def _one(self, method: Method, parameters: dict[str, Any], without: frozenset[int], n: int) -> Series:
        learns = method.kind == "learned"
        key = (method.name, str(parameters), without if learns else None, n)
        if key not in self._kept:
            training = [run for m, run in self._data.runs.items() if m not in without] if learns else []
            self._kept[key] = method.make(training, **parameters)(self._data.runs[n]).astype(np.float32)
        return self._kept[key]


def thirds(runs: Labels) -> Iterator[NDArray[np.bool_]]:
    """Rows of every third training run in turn."""
    order = np.unique(runs)
    for part in range(3):
        yield np.isin(runs, order[part::3])


def fold(kept: Normalised, method: Method, windows: Windows, out: int, weighted: bool) -> tuple[Matrix, Any]:
    """Logits of the windows of run `out`, and the choices, made by log probability inside the others."""
    best: tuple[float, Any, int] | None = None
    test = windows.run == out
    y = windows.truth[~test]
    for parameters in method.grid:
        inner = np.zeros((len(SHRINKAGES), len(y), len(haxby.LABELS)))
        for held in thirds(windows.run[~test]):
            unseen = {out, *(int(n) for n in windows.run[~test][held])}
            x = windows.rows(kept.left(method, parameters, unseen))[~test]
            inner[:, held] = decode(x[~held], y[~held], x[held], weighted)
        costs = [surprise(logits, y) for logits in inner]
        s = int(np.argmin(costs))
        if best is None or costs[s] < best[0]:
            best = costs[s], parameters, s
    assert best is not None
    rows = windows.rows(kept.left(method, best[1], {out}))
    choice = best[1] | {"shrinkage": SHRINKAGES[best[2]]}
    return decode(rows[~test], y, rows[test], weighted)[best[2]], choice


def laid(name: str, kept: Normalised, blocks: Blocks, out: int) -> float:
    """Lag or correction for one fold: what is best in the training runs.

    On the fine grid of corrections that is the middle of all within one standard error. Chosen with an
    exponential mean (0.01 a volume) and plain shrinkage, the same for all methods.
    """
    lay, candidates = PROTOCOLS[name]
    plain = next(m for m in METHODS if m.name == "exponential mean")
    found = []
    for value in candidates:
        windows = lay(blocks, value)
        rows = windows.rows(kept.left(plain, {"warmup": 6, "rate": 0.01}, {out}))
        keep = windows.run != out
        x = rows[keep]
        y = windows.truth[keep]
        hits = []
        for held in thirds(windows.run[keep]):
            hits.append(decode(x[~held], y[~held], x[held], False)[1].argmax(1) == y[held])
        found.append(np.concatenate(hits).mean())
    if len(candidates) <= 3:
        return candidates[int(np.argmax(found))]
    return plateau(candidates, np.array(found), 8 * (len(blocks.events) - 1))


def judge(kept: Normalised, method: Method, laying: dict[int, Windows], weighted: bool) -> dict[str, Any]:
    """Hits, blocks, logits and choices of every counted window, leaving one run out at a time."""
    parts = {out: fold(kept, method, windows, out, weighted) for out, windows in laying.items()}
    tests = {out: windows.run == out for out, windows in laying.items()}
    truth = np.concatenate([laying[out].truth[tests[out]] for out in laying])
    logits = np.concatenate([parts[out][0] for out in laying])
    return {
        "hit": (logits.argmax(1) == truth).astype(np.float64),
        "block": np.concatenate([laying[out].block[tests[out]] for out in laying]),
        "truth": truth,
        "logits": logits,
        "surprise": surprise(logits, truth),
        "choices": {str(out): parts[out][1] for out in laying},
    }


def gathered(found: dict[str, Any]) -> Matrix:
    """Hits when the evidence of a block's earlier windows is added up: no single trials, for comparison."""
    total = np.zeros_like(found["logits"])
    for block in np.unique(found["block"]):
        rows = found["block"] == block
        total[rows] = np.cumsum(found["logits"][rows], axis=0)
    return (total.argmax(1) == found["truth"]).astype(np.float64)


def difference(one: Matrix, other: Matrix, block: Labels) -> dict[str, Any]:
    """Mean difference of paired windows and its interval over blocks."""
    return {"value": float((one - other).mean()), "ci95": bootstrap_ci(one - other, block)}


def ratio(one: Matrix, other: Matrix, block: Labels) -> dict[str, Any]:
    """Accuracy above chance in shares of another's, and its interval over paired blocks."""
    ids = np.unique(block, return_inverse=True)[1]
    sums = np.stack([np.bincount(ids, one - CHANCE), np.bincount(ids, other - CHANCE)])
    draws = np.random.default_rng(0).integers(0, sums.shape[1], (2000, sums.shape[1]))
    found = sums[0][draws].sum(1) / sums[1][draws].sum(1)
    low, high = (float(q) for q in np.quantile(found, [0.025, 0.975]))
    return {"value": float(sums[0].sum() / sums[1].sum()), "ci95": [low, high]}


def control(data: Data, name: str, values: dict[int, float], choices: Any, weighted: bool) -> dict[str, Any]:
    """Accuracy of our method when the categories are exchanged within the training runs."""
    ours = next(m for m in METHODS if m.name == OURS)
    lay = PROTOCOLS[name][0]
    found = []
    for seed in range(PERMUTATIONS):
        taught = data.blocks.permuted(np.random.default_rng(seed))
        kept = Normalised(recorded(taught, data))
        hits = []
        for out, value in values.items():
            windows = lay(data.blocks, value)
            lesson = lay(taught, value).truth
            parameters = {k: v for k, v in choices[str(out)].items() if k != "shrinkage"}
            s = SHRINKAGES.index(choices[str(out)]["shrinkage"])
            rows = windows.rows(kept.left(ours, parameters, {out}))
            test = windows.run == out
            logits = decode(rows[~test], lesson[~test], rows[test], weighted)[s]
            hits.append(logits.argmax(1) == windows.truth[test])
        found.append(float(np.concatenate(hits).mean()))
    return {"mean": float(np.mean(found)), "values": found}


def compared(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Accuracies of all methods, and what each pair says of ours."""
    ours = results[OURS]
    table = {}
    block = ours["block"]
    for name, found in results.items():
        table[name] = {
            "accuracy": float(found["hit"].mean()),
            "ci95": bootstrap_ci(found["hit"], block),
            "surprise": found["surprise"],
            "ours_minus_this": difference(ours["hit"], found["hit"], block),
            "ours_over_this": ratio(ours["hit"], found["hit"], block),
            "over_yardstick": ratio(found["hit"], results[YARDSTICK]["hit"], block),
            "choices": found["choices"],
        }
    return table


def measure(data: Data, methods: Sequence[Method]) -> dict[str, Any]:
    """Every method in both protocols with both decoders."""
    kept = Normalised(data)
    chosen = {name: {out: laid(name, kept, data.blocks, out) for out in data.runs} for name in PROTOCOLS}
    laying = {
        name: {out: PROTOCOLS[name][0](data.blocks, value) for out, value in values.items()}
        for name, values in chosen.items()
    }
    found: dict[tuple[str, str], dict[str, Any]] = {(p, d): {} for p in PROTOCOLS for d in DECODERS}
    for method in track(methods, "methods"):
        kept.forget()
        for (protocol, decoder), results in found.items():
            results[method.name] = judge(kept, method, laying[protocol], DECODERS[decoder])
    tree: dict[str, Any] = {name: {"chosen": values} for name, values in chosen.items()}
    for (protocol, decoder), results in track(list(found.items()), "exchanged labels"):
        ours = results[OURS]
        tree[protocol][decoder] = {
            "windows": len(ours["hit"]),
            "blocks": len(np.unique(ours["block"])),
            "methods": compared(results),
            "block_so_far": float(gathered(ours).mean()),
            "shuffled": control(data, protocol, chosen[protocol], ours["choices"], DECODERS[decoder]),
        }
    return tree


def show(tree: dict[str, Any], title: str) -> Table:
    """One protocol and decoder as a table."""
    table = Table("method", "accuracy", "95 %", "ours minus this", "of offline", "log loss", title=title)
    for name, row in tree["methods"].items():
        gain = row["ours_minus_this"]
        share = row["over_yardstick"]
        table.add_row(
            name,
            f"{row['accuracy']:.3f}",
            "{:.3f} .. {:.3f}".format(*row["ci95"]),
            "{:+.3f} ({:+.3f} .. {:+.3f})".format(gain["value"], *gain["ci95"]),
            "{:.2f} ({:.2f} .. {:.2f})".format(share["value"], *share["ci95"]),
            f"{row['surprise']:.3f}",
        )
    return table


def main() -> None:
    """Measure both protocols, print the tables, write the figures beside this file."""
    place = haxby.folder(None)
    runs = {n: haxby.load(place, n) for n in range(1, 11)}
    data = load(Blocks({n: run.events for n, run in runs.items()}, haxby.LABELS), runs, place)
    tree = measure(data, METHODS)
    for name, found in tree.items():
        for decoder in DECODERS:
            Console(width=150).print(show(found[decoder], f"{name}, {decoder}"))
            Console(width=150).print("labels exchanged:", found[decoder]["shuffled"]["mean"])
    _OUT.write_text(json.dumps(tree, indent=1) + "\n")


if __name__ == "__main__":
    main()
