"""The recipe `haxby`: which of eight kinds of object is seen, from fMRI alone, recorded data."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from rtdecode.accuracy import Score, entry
from rtdecode.bundle import ClipGeometry, FmriInput, Manifest
from rtdecode.signal.volume import Baseline, Projection
from rtdecode.timing import TimingGrid, exact
from train.data import haxby
from train.data.chain import draft_bundle, draft_manifest, slot_mean, unit_statistics, windows
from train.parts.pictograms import pictograms
from train.parts.pictures import curves
from train.parts.trials import Blocks, Candidates, Choice, Trials, accuracies, choose, fit
from train.recipe import numbers
from train.work import Trained, Work

NOTE = "category decoding, recorded data, not a reconstruction"
_SIZE = (128, 192)
_GOLDEN = 4


def train(
    work: Work,
    runs: str,
    judged: str,
    grid: TimingGrid,
    warmup: int,
    rates: list[float],
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
    warmup : int
        Volumes whose mean is a run's first resting level.
    rates, shrinkages, corrections : list of float
        Candidates; chosen inside the training runs of each fold.
    lags : list of float
        Seconds, for the curve of accuracy against lag.
    permutations : int
        Trainings on exchanged labels, for the control.
    """
    place = haxby.folder(work.data)
    every = {n: haxby.load(place, n) for n in sorted({*numbers(runs), *numbers(judged)})}
    voxels = brain(list(every.values()), numbers(runs))
    manifest = _manifest(grid, every[numbers(runs)[0]], voxels, warmup)
    candidates = Candidates(corrections, rates, shrinkages)
    blocks = Blocks({n: run.events for n, run in every.items()}, haxby.LABELS)
    by_rate = {r: causal_trials(manifest, every, voxels, rate=r) for r in work.track(rates, "windows")}

    final = choose(by_rate, blocks, numbers(runs), candidates)
    offline = {lag: offline_trials(grid, every, voxels, lag) for lag in lags}
    folds = leave_one_out(work, by_rate, offline, blocks, numbers(judged), candidates, permutations)
    figures = _figures(folds)
    figures["classification_top1_held_out"] = _held_out(by_rate, blocks, final, numbers(runs), every)
    tables = {
        "choice": asdict(final),
        "folds": [fold["choice"] for fold in folds],
        "offline_lags_s": [fold["offline_lag_s"] for fold in folds],
        "live_over_offline": live_over_offline(folds),
        "lag": lag_table(manifest, every, voxels, offline, blocks, final, numbers(judged), shrinkages),
        "correction": correction_table(by_rate[final.rate], blocks, numbers(runs), candidates),
    }
    return _trained(manifest, every, voxels, by_rate, blocks, final, numbers(runs), figures, tables)


def brain(runs: list[haxby.BoldRun], training: list[int]) -> np.ndarray:
    """Flat indices of voxels whose mean in the training runs is above a tenth of the brightest's."""
    mean = np.mean([run.data.mean(-1) for run in runs if run.number in training], axis=0).ravel()
    return np.flatnonzero(mean > 0.1 * np.quantile(mean, 0.99))


def _manifest(grid: TimingGrid, run: haxby.BoldRun, voxels: np.ndarray, warmup: int) -> Manifest:
    shape = [int(n) for n in run.data.shape[:3]]
    fmri = FmriInput(len(voxels), shape, run.affine.tolist(), Baseline(warmup=warmup, rate=0.0))
    frames = int(grid.window * grid.fps) + 1
    clip = ClipGeometry(frames, *_SIZE, fps=float(grid.fps))
    return draft_manifest("haxby", grid, clip, None, fmri, note=NOTE, labels=list(haxby.LABELS))


def _projection(manifest: Manifest, voxels: np.ndarray) -> Projection:
    assert manifest.fmri is not None
    i, j, k = manifest.fmri.shape
    return Projection(voxels.astype(np.int64), (i, j, k), np.array(manifest.fmri.affine))


def _with_rate(manifest: Manifest, rate: float) -> Manifest:
    assert manifest.fmri is not None
    baseline = replace(manifest.fmri.baseline, rate=rate)
    return replace(manifest, fmri=replace(manifest.fmri, baseline=baseline))


def causal_trials(
    manifest: Manifest, runs: dict[int, haxby.BoldRun], voxels: np.ndarray, rate: float
) -> Trials:
    """Windows of the runs through the chain of a session, in the scanner's units."""
    manifest = _with_rate(manifest, rate)
    bundle = draft_bundle(manifest, unit_statistics(manifest), _projection(manifest, voxels))
    rows, spans = [], []
    for number, run in runs.items():
        for window in windows(bundle, run.volumes(), None):
            if window.fmri is not None:
                rows.append(slot_mean(window.fmri[None], window.fmri_mask[None])[0])
                spans.append((number, window.start_s, window.stop_s))
    return Trials(np.stack(rows), spans)


def offline_trials(
    grid: TimingGrid, runs: dict[int, haxby.BoldRun], voxels: np.ndarray, lag: float
) -> Trials:
    """Windows as an analysis after the session sees them.

    Quadratic detrend and z-score over the whole run, future included: the yardstick that the
    causal chain is compared with.
    """
    grid = replace(grid, lag=exact(lag))
    rows, spans = [], []
    for number, run in runs.items():
        clean = _detrended(run.data.reshape(-1, run.data.shape[3])[voxels].T.astype(np.float64))
        for k in range(grid.count(len(clean) * run.tr_s)):
            inside = [n for n in grid.volumes(k) if n < len(clean)]
            if inside:
                start, stop = (float(t) for t in grid.span(k))
                rows.append(clean[inside].mean(0))
                spans.append((number, start, stop))
    return Trials(np.stack(rows), spans)


def _detrended(series: Score) -> Score:
    powers = np.vander(np.linspace(-1, 1, len(series)), 3)
    rest = series - powers @ np.linalg.lstsq(powers, series, rcond=None)[0]
    return rest / np.maximum(rest.std(0), 1e-6)


def leave_one_out(
    work: Work,
    by_rate: dict[float, Trials],
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
        choice = choose(by_rate, blocks, rest, candidates)
        scores = {
            lag: accuracies(trials, blocks, rest, choice.correction_s, candidates.shrinkages)
            for lag, trials in offline.items()
        }
        lag = max(scores, key=lambda lag: scores[lag].max())
        shrinkage = candidates.shrinkages[int(scores[lag].argmax())]
        causal = by_rate[choice.rate]
        rng = np.random.default_rng([work.seed, left])
        controls = [
            _judge(causal, blocks, rest, left, choice.correction_s, choice.shrinkage, blocks.permuted(rng))[0]
            for _ in range(permutations)
        ]
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
    by_rate: dict[float, Trials],
    blocks: Blocks,
    choice: Choice,
    runs: list[int],
    every: dict[int, haxby.BoldRun],
) -> dict[str, Any]:
    """Accuracy of the shipped classifier on the runs it has not seen."""
    trials = by_rate[choice.rate]
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
    manifest: Manifest,
    every: dict[int, haxby.BoldRun],
    voxels: np.ndarray,
    offline: dict[float, Trials],
    blocks: Blocks,
    choice: Choice,
    runs: list[int],
    shrinkages: list[float],
) -> dict[str, list[float]]:
    """Cross-validated accuracy of the same windows when their volumes are taken at other lags."""
    table: dict[str, list[float]] = {"lag_s": list(offline), "causal": [], "offline": []}
    for lag, after in offline.items():
        moved = replace(manifest, grid=replace(manifest.grid, lag=exact(lag)))
        causal = causal_trials(moved, every, voxels, choice.rate)
        for name, trials in (("causal", causal), ("offline", after)):
            found = accuracies(trials, blocks, runs, choice.correction_s, shrinkages)
            table[name].append(float(found.max()))
    return table


def correction_table(
    trials: Trials, blocks: Blocks, runs: list[int], candidates: Candidates
) -> dict[str, list[float]]:
    """Cross-validated accuracy within the training runs against the onset correction."""
    found = [
        float(accuracies(trials, blocks, runs, c, candidates.shrinkages).max())
        for c in candidates.corrections
    ]
    return {"correction_s": list(candidates.corrections), "causal": found}


def _trained(
    manifest: Manifest,
    every: dict[int, haxby.BoldRun],
    voxels: np.ndarray,
    by_rate: dict[float, Trials],
    blocks: Blocks,
    choice: Choice,
    runs: list[int],
    figures: dict[str, dict[str, Any]],
    tables: dict[str, Any],
) -> Trained:
    trials = by_rate[choice.rate]
    truth, _ = blocks.truth(trials.spans, choice.correction_s)
    scale, [(weights, offset)] = fit(trials, truth, runs, [choice.shrinkage], len(blocks.labels))
    provenance = {
        "data": "Haxby et al. 2001, OpenfMRI ds000105, one slice",
        "runs": runs,
        "onset_correction_s": choice.correction_s,
        "choice": asdict(choice),
        "figures": figures,
    }
    manifest = replace(_with_rate(manifest, choice.rate), provenance=provenance)
    rest = np.mean([every[n].data.reshape(-1, every[n].data.shape[3])[voxels].mean(1) for n in runs], axis=0)
    return Trained(
        model="category",
        manifest=manifest,
        weights={
            "weights": (weights / choice.temperature).astype(np.float32),
            "offset": (offset / choice.temperature).astype(np.float32),
            "pictures": pictograms(haxby.LABELS, _SIZE, NOTE),
        },
        stats={"fmri_mean": rest.astype(np.float32), "fmri_scale": scale.astype(np.float32)},
        projection=_arrays(_projection(manifest, voxels)),
        golden=_golden(manifest, every[runs[0]], voxels, scale, rest),
        figures=figures,
        tables=tables,
        pictures={
            "lag.png": curves(tables["lag"], "lag after the corrected onset (s)", 1 / 8),
            "correction.png": curves(tables["correction"], "onset correction (s)", 1 / 8),
        },
    )


def _arrays(projection: Projection) -> dict[str, np.ndarray]:
    return {
        "voxels": projection.voxels,
        "shape": np.array(projection.shape),
        "affine": projection.affine,
    }


def _golden(
    manifest: Manifest, run: haxby.BoldRun, voxels: np.ndarray, scale: Score, rest: Score
) -> dict[str, np.ndarray]:
    stats = {"fmri_mean": rest.astype(np.float32), "fmri_scale": scale.astype(np.float32)}
    bundle = draft_bundle(manifest, stats, _projection(manifest, voxels))
    chosen = windows(bundle, run.volumes(), None)[6 : 6 + _GOLDEN]
    data = np.stack([w.fmri for w in chosen if w.fmri is not None])
    return {"fmri": data, "fmri_mask": np.stack([w.fmri_mask for w in chosen]).astype(np.float32)}
