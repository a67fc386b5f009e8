"""The recipe `haxby`: which of eight kinds of object is seen, from fMRI alone, recorded data."""

from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np

from rtdecode.accuracy import Score, entry
from rtdecode.bundle import ClipGeometry, FmriInput, Manifest
from rtdecode.errors import UsageError
from rtdecode.events import Span
from rtdecode.signal.baseline import Baseline
from rtdecode.timing import TimingGrid, exact
from train.data import haxby
from train.data.chain import draft_bundle, draft_manifest, windows
from train.data.phantom import window_arrays
from train.parts.causal import Chain, window_means
from train.parts.pictograms import pictograms
from train.parts.pictures import curves
from train.parts.trials import Blocks, Candidates, Choice, Learn, Trials, accuracies, choose, fit
from train.recipe import numbers
from train.work import Trained, Work

NOTE = "category decoding, recorded data, not a reconstruction"
_SIZE = (128, 192)
_GOLDEN = 4
# One to learn from, where one is left out for the choice and one for the normalisation.
_FEWEST = 3


def train(
    work: Work,
    runs: str,
    judged: str,
    grid: TimingGrid,
    floors: list[float],
    walk: float,
    colour: float,
    memory: float,
    shrinkages: list[float],
    corrections: list[float],
    lags: list[float],
    permutations: int,
) -> Trained:
    """Train on `runs`, judge by leaving one of `judged` out at a time.

    Parameters
    ----------
    work : Work
    runs, judged : str
        Run numbers, ``1-8`` for example.
    grid : TimingGrid
    walk, colour, memory : float
        How the level of a run is followed (`rtdecode.signal.baseline.Baseline`).
    floors, shrinkages, corrections : list of float
        Candidates; chosen inside the training runs of each fold.
    lags : list of float
        Seconds, for the curve of accuracy against lag.
    permutations : int
        Trainings on exchanged labels, for the control.

    Raises
    ------
    UsageError
        If there are too few runs, or one is not in the data.
    """
    taught, left = _enough("runs", runs, _FEWEST), _enough("judged", judged, _FEWEST + 1)
    place = haxby.folder(work.data)
    every = {n: haxby.load(place, n) for n in sorted({*taught, *left})}
    voxels = brain(list(every.values()), taught)
    baseline = Baseline(walk=walk, colour=colour, memory=memory)
    chain = Chain(_manifest(grid, every[taught[0]], voxels, baseline), every, voxels)
    candidates = Candidates(corrections, floors, shrinkages)
    blocks = Blocks({n: run.events for n, run in every.items()}, haxby.LABELS)

    final = choose(by_floor(chain, blocks, floors), blocks, taught, candidates)
    offline = {lag: offline_trials(grid, every, voxels, lag) for lag in lags}
    folds = leave_one_out(work, chain, offline, blocks, left, candidates, permutations)
    figures = _figures(folds)
    trials = chain.trials(taught, final.floor, blocks)
    if {*every} - {*taught}:
        figures["classification_top1_held_out"] = _held_out(trials, blocks, final, taught, every)
    tables = {
        "choice": asdict(final),
        "folds": [fold["choice"] for fold in folds],
        "offline_lags_s": [fold["offline_lag_s"] for fold in folds],
        "live_over_offline": live_over_offline(folds),
        "lag": lag_table(chain, offline, blocks, final, left, shrinkages),
        "correction": correction_table(
            by_floor(chain, blocks, floors)[final.floor], blocks, taught, candidates
        ),
    }
    return _trained(chain, trials, blocks, final, taught, figures, tables)


def _enough(name: str, runs: str, least: int) -> list[int]:
    found = numbers(runs)
    if len({*found}) < least:
        raise UsageError(
            f"{name}={','.join(map(str, found))}: {least} runs or more are needed, as what is chosen is "
            "chosen on runs left out of those that are trained on. Give more, 1-8 for example."
        )
    return found


def by_floor(chain: Chain, blocks: Blocks, floors: list[float]) -> dict[float, Learn]:
    """Floor of the drift components -> windows normalised by what some runs taught."""
    return {floor: partial(chain.trials, floor=floor, blocks=blocks) for floor in floors}


def brain(runs: list[haxby.BoldRun], training: list[int]) -> np.ndarray:
    """Flat indices of voxels whose mean in the training runs is above a tenth of the brightest's."""
    mean = np.mean([run.data.mean(-1) for run in runs if run.number in training], axis=0).ravel()
    return np.flatnonzero(mean > 0.1 * np.quantile(mean, 0.99))


def _manifest(grid: TimingGrid, run: haxby.BoldRun, voxels: np.ndarray, baseline: Baseline) -> Manifest:
    shape = [int(n) for n in run.data.shape[:3]]
    fmri = FmriInput(len(voxels), shape, run.affine.tolist(), baseline)
    frames = int(grid.window * grid.fps) + 1
    clip = ClipGeometry(frames, *_SIZE, fps=float(grid.fps))
    return draft_manifest("haxby", grid, clip, None, fmri, note=NOTE, labels=list(haxby.LABELS))


def offline_trials(
    grid: TimingGrid, runs: dict[int, haxby.BoldRun], voxels: np.ndarray, lag: float
) -> Trials:
    """Windows as an analysis after the session sees them.

    Quadratic detrend and z-score over the whole run, future included: the yardstick that the
    causal chain is compared with.
    """
    grid = replace(grid, lag=exact(lag))
    rows: list[np.ndarray] = []
    spans: list[Span] = []
    for number, run in runs.items():
        found, where = window_means(_detrended(run.series(voxels)), grid, number, run.tr_s)
        rows += found
        spans += where
    return Trials(np.stack(rows), spans)


def _detrended(series: Score) -> Score:
    powers = np.vander(np.linspace(-1, 1, len(series)), 3)
    rest = series - powers @ np.linalg.lstsq(powers, series, rcond=None)[0]
    return rest / np.maximum(rest.std(0), 1e-6)


def leave_one_out(
    work: Work,
    chain: Chain,
    offline: dict[float, Trials],
    blocks: Blocks,
    runs: list[int],
    candidates: Candidates,
    permutations: int,
) -> list[dict[str, Any]]:
    """Judge each run by a classifier whose every choice and weight rests on the other runs."""
    folds = []
    for left in work.track(runs, "leave one run out"):
        rest = [run for run in runs if run != left]
        choice = choose(by_floor(chain, blocks, candidates.floors), blocks, rest, candidates)
        scores = {
            lag: accuracies(_fixed(trials), blocks, rest, choice.correction_s, candidates.shrinkages)
            for lag, trials in offline.items()
        }
        lag = max(scores, key=lambda lag: scores[lag].max())
        shrinkage = candidates.shrinkages[int(scores[lag].argmax())]
        rng = np.random.default_rng([work.seed, left])
        controls = [
            _control(chain, blocks, rest, left, choice, blocks.permuted(rng)) for _ in range(permutations)
        ]
        causal = chain.trials(rest, choice.floor, blocks)
        hit, block, truth = _judge(causal, blocks, rest, left, choice.correction_s, choice.shrinkage)
        after, _, _ = _judge(offline[lag], blocks, rest, left, choice.correction_s, shrinkage)
        folds.append(
            {
                "choice": asdict(choice),
                "offline_lag_s": lag,
                "causal": hit,
                "offline": after,
                "block": block,
                "truth": truth,
                "shuffled": np.mean(controls, axis=0),
            }
        )
    return folds


def _fixed(trials: Trials) -> Learn:
    """Windows that were normalised without learning from other runs."""
    return lambda _: trials


def _control(
    chain: Chain, blocks: Blocks, runs: list[int], left: int, choice: Choice, taught: Blocks
) -> Score:
    """Hits in the run left out when drift and classifier were taught exchanged labels."""
    trials = chain.trials(runs, choice.floor, taught, keep=False)
    return _judge(trials, blocks, runs, left, choice.correction_s, choice.shrinkage, taught)[0]


def _judge(
    trials: Trials,
    blocks: Blocks,
    runs: list[int],
    left: int,
    correction_s: float,
    shrinkage: float,
    taught: Blocks | None = None,
) -> tuple[Score, np.ndarray, np.ndarray]:
    """Hits, blocks and categories of the counted windows of the run left out."""
    truth, block = blocks.truth(trials.spans, correction_s)
    lesson = truth if taught is None else taught.truth(trials.spans, correction_s)[0]
    scale, [(weights, offset)] = fit(trials, lesson, runs, [shrinkage], len(blocks.labels))
    rows = (trials.run == left) & (truth >= 0)
    best = (trials.x[rows] / scale @ weights + offset).argmax(1)
    return (best == truth[rows]).astype(np.float64), block[rows], truth[rows]


def _figures(folds: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    joined = {
        name: np.concatenate([f[name] for f in folds]) for name in ("causal", "offline", "block", "truth")
    }
    shuffled = np.concatenate([f["shuffled"] for f in folds])
    chance = 1 / len(haxby.LABELS)
    constant = float(np.bincount(joined["truth"]).max() / len(joined["truth"]))
    figures = {}
    for name, key in (("classification_top1", "causal"), ("classification_top1_offline", "offline")):
        figure = entry(joined[key], chance, [shuffled] if key == "causal" else (), joined["block"])
        figures[name] = {**(figure or {}), "constant": constant}
    return figures


def _held_out(
    trials: Trials, blocks: Blocks, choice: Choice, runs: list[int], every: dict[int, haxby.BoldRun]
) -> dict[str, Any]:
    """Accuracy of the shipped classifier on the runs it has not seen."""
    parts = [
        _judge(trials, blocks, runs, n, choice.correction_s, choice.shrinkage) for n in every if n not in runs
    ]
    hit, block, truth = (np.concatenate(column) for column in zip(*parts, strict=True))
    figure = entry(hit, 1 / len(haxby.LABELS), (), block) or {}
    return {**figure, "constant": float(np.bincount(truth).max() / len(truth))}


def live_over_offline(folds: list[dict[str, Any]]) -> dict[str, Any]:
    """Causal over offline accuracy above chance on the same windows, blocks resampled in pairs."""
    chance = 1 / len(haxby.LABELS)
    causal, offline = (np.concatenate([f[name] for f in folds]) - chance for name in ("causal", "offline"))
    block = np.unique(np.concatenate([f["block"] for f in folds]), return_inverse=True)[1]
    sums = np.stack([np.bincount(block, causal), np.bincount(block, offline)])
    draws = np.random.default_rng(0).integers(0, sums.shape[1], (2000, sums.shape[1]))
    ratios = sums[0][draws].sum(1) / sums[1][draws].sum(1)
    low, high = (float(q) for q in np.quantile(ratios, [0.025, 0.975]))
    return {"value": float(causal.sum() / offline.sum()), "ci95": [low, high], "n": len(causal)}


def lag_table(
    chain: Chain,
    offline: dict[float, Trials],
    blocks: Blocks,
    choice: Choice,
    runs: list[int],
    shrinkages: list[float],
) -> dict[str, list[float]]:
    """Cross-validated accuracy of the same windows when their volumes are taken at other lags."""
    table: dict[str, list[float]] = {"lag_s": list(offline), "causal": [], "offline": []}
    for lag, after in offline.items():
        manifest = replace(chain.manifest, grid=replace(chain.manifest.grid, lag=exact(lag)))
        causal = by_floor(Chain(manifest, chain.runs, chain.voxels), blocks, [choice.floor])[choice.floor]
        for name, learn in (("causal", causal), ("offline", _fixed(after))):
            found = accuracies(learn, blocks, runs, choice.correction_s, shrinkages)
            table[name].append(float(found.max()))
    return table


def correction_table(
    learn: Learn, blocks: Blocks, runs: list[int], candidates: Candidates
) -> dict[str, list[float]]:
    """Cross-validated accuracy within the training runs against the onset correction."""
    found = [
        float(accuracies(learn, blocks, runs, c, candidates.shrinkages).max()) for c in candidates.corrections
    ]
    return {"correction_s": list(candidates.corrections), "causal": found}


def _trained(
    chain: Chain,
    trials: Trials,
    blocks: Blocks,
    choice: Choice,
    runs: list[int],
    figures: dict[str, dict[str, Any]],
    tables: dict[str, Any],
) -> Trained:
    truth, _ = blocks.truth(trials.spans, choice.correction_s)
    scale, [(weights, offset)] = fit(trials, truth, runs, [choice.shrinkage], len(blocks.labels))
    provenance = {
        "data": "Haxby et al. 2001, OpenfMRI ds000105, one slice",
        "runs": runs,
        "onset_correction_s": choice.correction_s,
        "choice": asdict(choice),
        "figures": figures,
    }
    mean, drift = chain.drift(runs, choice.floor, blocks)
    manifest = replace(chain.with_drift(drift), provenance=provenance)
    stats = {"fmri_mean": mean.astype(np.float32), "fmri_scale": scale.astype(np.float32)} | drift.arrays()
    return Trained(
        model="category",
        manifest=manifest,
        weights={
            "weights": (weights / choice.temperature).astype(np.float32),
            "offset": (offset / choice.temperature).astype(np.float32),
            "pictures": pictograms(haxby.LABELS, _SIZE, NOTE),
        },
        stats=stats,
        projection=chain.projection.to_arrays(),
        golden=_golden(manifest, chain, stats, chain.runs[runs[0]]),
        figures=figures,
        tables=tables,
        pictures={
            "lag.png": curves(tables["lag"], "lag after the corrected onset (s)", 1 / 8),
            "correction.png": curves(tables["correction"], "onset correction (s)", 1 / 8),
        },
    )


def _golden(
    manifest: Manifest, chain: Chain, stats: dict[str, np.ndarray], run: haxby.BoldRun
) -> dict[str, np.ndarray]:
    bundle = draft_bundle(manifest, stats, chain.projection)
    return window_arrays(manifest, windows(bundle, run.volumes(), None)[6 : 6 + _GOLDEN])
