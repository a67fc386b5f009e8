"""The judge `leave-one-run-out`: a classifier on runs that it was neither trained nor chosen on.

For each run, a classifier is chosen and trained on all the others, and judged on that run. Beside it stand a
control with exchanged labels, and an offline analysis that sees whole runs. The shipped classifier itself is
judged on the runs that it was not trained on.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rtdecode.bundle import Bundle
from rtdecode.errors import UsageError
from rtdecode.scores import intervals
from rtdecode.scores.accuracy import Score, entry
from rtdecode.scores.events import Span
from rtdecode.scores.ties import hits
from rtdecode.timing import TimingGrid, exact
from train.config.recipe import numbers
from train.config.run_context import RunContext
from train.data import haxby
from train.data.chain import windows
from train.data.offline import detrended
from train.data.phantom import window_arrays
from train.evaluation.identification import classified
from train.evaluation.pictures import curves
from train.evaluation.result import Decode, Evaluation, Figures, Request
from train.interface.system import Trained
from train.models.haxby.causal import CausalChain, window_means
from train.models.haxby.plan import CategoryPlan, HaxbyRuns, by_floor, choice_of, enough
from train.models.haxby.trials import Blocks, Candidates, Choice, Learn, Trials, accuracies, choose, fit

# Fewest runs: one is left out, and the others must suffice for a training.
_FEWEST = 4


@dataclass(frozen=True)
class LeaveOneRunOut:
    """How a classifier of recorded runs is judged.

    Attributes
    ----------
    lags : list of float
        Haemodynamic lags for the curve of accuracy against lag, s.
    permutations : int
        Number of trainings on exchanged labels, for the control.
    """

    lags: list[float]
    permutations: int

    reads: ClassVar[Sequence[str]] = ("data", "runs")

    def check(self, data: HaxbyRuns) -> None:
        """Refuse too few runs to leave one out.

        Raises
        ------
        UsageError
        """
        enough("data.others", data.all_runs, _FEWEST)

    def judge(
        self, work: RunContext, plan: CategoryPlan, data: HaxbyRuns, trained: Trained, show: Decode
    ) -> Evaluation:
        """Train again for each run that is left out, with every choice made on the other runs."""
        chain = data.chain(work)
        blocks = data.blocks(work)
        runs = data.all_runs
        candidates = plan.candidates
        final = choice_of(trained)
        offline = {lag: offline_trials(data.grid, chain.runs, chain.voxels, lag) for lag in self.lags}
        folds = leave_one_out(work, chain, offline, blocks, runs, candidates, self.permutations)
        figures = _figures(folds)
        trials = chain.trials(data.taught, final.floor, blocks)
        # Only if the recipe names runs beyond those that are trained on.
        if {*runs} - {*data.taught}:
            figures["classification_top1_held_out"] = _held_out(
                trials, blocks, final, data.taught, chain.runs
            )
        learn = by_floor(chain, blocks, plan.floors)[final.floor]
        tables = {
            "folds": [fold["choice"] for fold in folds],
            "offline_lags_s": [fold["offline_lag_s"] for fold in folds],
            "live_over_offline": live_over_offline(folds),
            "lag": lag_table(chain, offline, blocks, final, runs, plan.shrinkages),
            "correction": correction_table(learn, blocks, data.taught, candidates),
        }
        pictures = {
            "lag.png": curves(tables["lag"], "lag after the corrected onset (s)", 1 / 8),
            "correction.png": curves(tables["correction"], "onset correction (s)", 1 / 8),
        }
        return Evaluation(figures, tables, pictures)

    def evaluate(self, data: HaxbyRuns, trained: Trained, show: Decode, request: Request) -> Evaluation:
        """Judge on runs that were not trained on."""
        return Evaluation(judge_runs(show, trained.bundle, request.data, numbers(request.runs)))


def judge_runs(show: Decode, bundle: Bundle, data: Path | None, runs: list[int]) -> Figures:
    """Judge a classifier on runs it was not trained on.

    Parameters
    ----------
    show : callable
        See `train.evaluation.result.Decode`.
    bundle : Bundle
        Bundle of the classifier, which says how windows are cut.
    data : Path or None
        See `train.data.haxby.folder`.
    runs : list of int
        Numbers of the runs to judge on.
    """
    trained_runs = set(bundle.manifest.provenance.get("runs", [])) & set(runs)
    if trained_runs:
        raise UsageError(
            "haxby-judging-trained-runs",
            "runs {runs} were used for training and cannot be judged on.",
            runs=sorted(trained_runs),
        )
    place = haxby.folder(data)
    bold_runs = [haxby.load(place, number) for number in runs]
    run_windows = [(run.number, w) for run in bold_runs for w in windows(bundle, run.volumes(), None)]
    inputs = window_arrays(bundle.manifest, [w for _, w in run_windows])
    where = [(number, w.start_s, w.stop_s) for number, w in run_windows]
    return classified(show(inputs, where), where, {run.number: run.events for run in bold_runs}, bundle)


def offline_trials(
    grid: TimingGrid, runs: dict[int, haxby.BoldRun], voxels: np.ndarray, lag: float
) -> Trials:
    """Make the windows that an analysis after the session would see.

    They are detrended (quadratic) and z-scored over the whole run, future included. The causal chain is
    compared with them.
    """
    grid = replace(grid, lag=exact(lag))
    rows: list[np.ndarray] = []
    spans: list[Span] = []
    for number, run in runs.items():
        means, where = window_means(detrended(run.series(voxels)), grid, number, run.tr_s)
        rows += means
        spans += where
    return Trials(np.stack(rows), spans)


def leave_one_out(
    work: RunContext,
    chain: CausalChain,
    offline: dict[float, Trials],
    blocks: Blocks,
    runs: list[int],
    candidates: Candidates,
    permutations: int,
) -> list[dict[str, Any]]:
    """Judge each run by a classifier whose choices and weights all come from the other runs.

    Raises
    ------
    UsageError
        If windows inside blocks have no volume at an offline lag, or at the causal one alone.
    """
    folds = []
    for test_run in work.track(runs, "leave one run out"):
        training_runs = [run for run in runs if run != test_run]
        choice = choose(by_floor(chain, blocks, candidates.floors), blocks, training_runs, candidates)
        # The offline analysis chooses lag and shrinkage on the same runs.
        scores = {
            lag: accuracies(_fixed(trials), blocks, training_runs, choice.correction_s, candidates.shrinkages)
            for lag, trials in offline.items()
        }
        lag = max(scores, key=lambda lag: scores[lag].max())
        shrinkage = candidates.shrinkages[int(scores[lag].argmax())]
        # The control keeps the settings, and learns drift and classifier from exchanged labels.
        rng = np.random.default_rng([work.seed, test_run])
        controls = [
            _control(chain, blocks, training_runs, test_run, choice, blocks.permuted(rng))
            for _ in range(permutations)
        ]
        causal = chain.trials(training_runs, choice.floor, blocks)
        hit, block, truth = _judge(
            causal, blocks, training_runs, test_run, choice.correction_s, choice.shrinkage
        )
        after, later, _ = _judge(
            offline[lag], blocks, training_runs, test_run, choice.correction_s, shrinkage
        )
        # The two are compared window by window, and windows without a volume are left out of either.
        if not np.array_equal(block, later):
            raise UsageError(
                "haxby-lag-windows-mismatch",
                "in run {run}, {causal_windows} windows inside blocks have volumes in the causal "
                "chain, and {offline_windows} at a lag of {lag_s:g} s. Leave that lag out of "
                "judge.lags.",
                run=test_run,
                causal_windows=len(hit),
                offline_windows=len(after),
                lag_s=lag,
            )
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
    """Wrap windows whose normalisation does not learn from other runs."""
    return lambda _: trials


def _control(
    chain: CausalChain, blocks: Blocks, runs: list[int], test_run: int, choice: Choice, taught: Blocks
) -> Score:
    """Count hits in the run left out when drift and classifier were taught exchanged labels."""
    trials = chain.trials(runs, choice.floor, taught, keep=False)
    return _judge(trials, blocks, runs, test_run, choice.correction_s, choice.shrinkage, taught)[0]


def _judge(
    trials: Trials,
    blocks: Blocks,
    runs: list[int],
    test_run: int,
    correction_s: float,
    shrinkage: float,
    taught: Blocks | None = None,
) -> tuple[Score, np.ndarray, np.ndarray]:
    """Return hits, blocks and categories of the counted windows of the run left out."""
    truth, block = blocks.truth(trials.spans, correction_s)
    lesson = truth if taught is None else taught.truth(trials.spans, correction_s)[0]
    scale, [(weights, offset)] = fit(trials, lesson, runs, [shrinkage], len(blocks.labels))
    rows = (trials.run == test_run) & (truth >= 0)
    hit = hits(trials.x[rows] / scale @ weights + offset, truth[rows])
    return hit.astype(np.float64), block[rows], truth[rows]


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
    trials: Trials, blocks: Blocks, choice: Choice, runs: list[int], bold_runs: dict[int, haxby.BoldRun]
) -> dict[str, Any]:
    """Judge the shipped classifier on the runs it has not seen."""
    parts = [
        _judge(trials, blocks, runs, n, choice.correction_s, choice.shrinkage)
        for n in bold_runs
        if n not in runs
    ]
    hit, block, truth = (np.concatenate(column) for column in zip(*parts, strict=True))
    figure = entry(hit, 1 / len(haxby.LABELS), (), block) or {}
    return {**figure, "constant": float(np.bincount(truth).max() / len(truth))}


def live_over_offline(folds: list[dict[str, Any]]) -> dict[str, Any]:
    """Divide causal by offline accuracy above chance on the same windows; the interval resamples blocks."""
    chance = 1 / len(haxby.LABELS)
    causal, offline = (np.concatenate([f[name] for f in folds]) - chance for name in ("causal", "offline"))
    # Windows of a block are not independent, so whole blocks are drawn, with both accuracies of each.
    block = np.unique(np.concatenate([f["block"] for f in folds]), return_inverse=True)[1]
    sums = np.stack([np.bincount(block, causal), np.bincount(block, offline)])
    blocks = sums.shape[1]
    ratio = intervals.of_statistic(lambda counts: (counts @ sums[0]) / (counts @ sums[1]), blocks)
    return {"value": float(causal.sum() / offline.sum()), **ratio.entries(), "n": len(causal)}


def lag_table(
    chain: CausalChain,
    offline: dict[float, Trials],
    blocks: Blocks,
    choice: Choice,
    runs: list[int],
    shrinkages: list[float],
) -> dict[str, list[float]]:
    """Compute the cross-validated accuracy of the same windows with volumes taken at other lags."""
    table: dict[str, list[float]] = {"lag_s": list(offline), "causal": [], "offline": []}
    for lag, after in offline.items():
        manifest = replace(chain.manifest, grid=replace(chain.manifest.grid, lag=exact(lag)))
        causal = by_floor(CausalChain(manifest, chain.runs, chain.voxels), blocks, [choice.floor])[
            choice.floor
        ]
        for name, learn in (("causal", causal), ("offline", _fixed(after))):
            accuracy = accuracies(learn, blocks, runs, choice.correction_s, shrinkages)
            table[name].append(float(accuracy.max()))
    return table


def correction_table(
    learn: Learn, blocks: Blocks, runs: list[int], candidates: Candidates
) -> dict[str, list[float]]:
    """Compute the cross-validated accuracy within the training runs against the onset correction."""
    causal = [
        float(accuracies(learn, blocks, runs, c, candidates.shrinkages).max()) for c in candidates.corrections
    ]
    return {"correction_s": list(candidates.corrections), "causal": causal}
