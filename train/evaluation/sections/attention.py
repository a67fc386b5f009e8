"""The section `attention`: which voxels a decoder reads, by what it attends to and by what changes it.

It is computed where it is asked for (``attention=yes``), of systems whose encoder reads patches of voxels.
Attention is no attribution: a patch may be attended to and change nothing. So beside it stand

- occlusion: how far the condition moves where a patch shows its mean,
- the pattern of a ridge that reads the same windows (Haufe et al. 2014, NeuroImage 87, 96, equation 6), which
  says how each voxel depends on what is read from all of them, as far as the ridge explains it,
- of a simulated participant the known weights: how far the film drives each voxel.

Figures are rank correlations of these maps with the known weights over patches. As a floor, ``shuffled`` is
the mean after the known weights were shuffled over voxels, and ``shuffled_95`` what 95 % of these lie below.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import rankdata

from rtdecode.errors import UsageError
from rtdecode.scores import intervals
from train.closed_form.ridge import fit_ridge
from train.config.run_context import Arrays
from train.evaluation import pictures
from train.evaluation.ceiling import known_weights
from train.evaluation.film_scores import Scores
from train.evaluation.result import Figures, unknown
from train.evaluation.section import EvaluatedRun, HeldOutWindows, Scorer, Section
from train.interface.system import Attends, Condition, System

LAYERS = ("first", "middle", "last")
OCCLUSION = "occlusion"
PATTERN = "ridge pattern"
KNOWN_WEIGHTS = "known weights"
_FMRI = "fmri"
# Windows of a session in which patches are covered.
_COVERED = 16
# Directions of what the ridge reads that make its pattern, those of most variance.
_DIRECTIONS = 8
_SHUFFLES = 200

Matrix = NDArray[np.float64]


class AttentionMaps(Section):
    """See the module."""

    needs = (_FMRI,)

    def begin(self, run: EvaluatedRun) -> Scorer:
        """Start to score a run.

        Raises
        ------
        UsageError
            If its encoder attends to no patches of voxels.
        """
        system = run.system
        if not isinstance(system, Attends) or not system.attends:
            raise UsageError(
                "attention-unsupported",
                "attention=yes: the encoder of this run, {run}, reads no patches of voxels, whose attention "
                "could be shown. Leave it out.",
                run=run.bundle.manifest.name,
            )
        return _Maps(run, system)


class _Maps(Scorer):
    def __init__(self, run: EvaluatedRun, attends: Attends) -> None:
        self._run = run
        self._attends = attends
        self._voxels: NDArray[np.int64] | None = None
        self._phases: Mapping[str, NDArray[np.floating]] = {}
        # Of each session: (map, patch) of the three blocks and of occlusion, and what the ridge learns from.
        self._maps: list[Matrix] = []
        self._volumes: list[NDArray[np.float32]] = []
        self._aims: list[NDArray[np.floating]] = []
        self._known: Matrix | None = None

    def wants(self, suffix: str) -> bool:
        return False

    def close(self, windows: HeldOutWindows, scores: Mapping[str, Scores]) -> dict[str, Scores]:
        attention = self._attends.attention(windows.inputs)
        self._voxels = attention.voxels
        self._phases = attention.phases
        covered = occlusion(self._run.system, windows.inputs, attention.voxels)
        self._maps.append(np.concatenate([attention.shares.mean(1), covered[None]]).astype(np.float64))
        aims = self._run.system.targets(windows.truth.clips)
        if aims is not None:
            self._volumes.append(windows.inputs[_FMRI])
            self._aims.append(aims)
        if windows.session is not None and self._known is None:
            self._known = known_weights(self._run.bundle, windows.session)
        return {}

    def figures(self, units: NDArray[np.int64]) -> Figures:
        weights = self._known
        if weights is None or self._voxels is None:
            return {}
        maps = np.stack(self._maps)
        figures = {
            f"{name}_rank": ranked(maps[:, number], weights, self._voxels)
            for number, name in enumerate([*(f"attention_{layer}" for layer in LAYERS), OCCLUSION])
        }
        patterns = self._patterns
        if patterns is None:
            return figures
        return figures | {"ridge_pattern_rank": ranked(patterns, weights, self._voxels)}

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        regions = self._run.regions
        if self._voxels is None or not regions:
            return {}
        rows = []
        for region, mask in regions.items():
            row: dict[str, Any] = {"region": region, "voxels": float(mask.mean())}
            # What of each patch lies in the region.
            share_inside = mask[self._voxels].mean(1)
            row |= {
                name: float(values @ share_inside / values.sum()) for name, values in self._every().items()
            }
            rows.append(row)
        return {"attention by region": rows}

    def pictures(self) -> dict[str, Image.Image]:
        if self._voxels is None:
            return {}
        starts = {
            region: float(np.flatnonzero(mask[self._voxels].mean(1) > 0).min(initial=len(self._voxels)))
            for region, mask in self._run.regions.items()
        }
        return {"attention": pictures.strips(self._every(), starts)}

    def _every(self) -> dict[str, Matrix]:
        """Return all maps by name, (patch,)."""
        assert self._voxels is not None
        maps = {
            f"{layer}, after {phase}": np.asarray(values, np.float64)
            for phase, shares in self._phases.items()
            for layer, values in zip(LAYERS, shares, strict=True)
        }
        means = np.mean(self._maps, axis=0)
        maps |= dict(zip([*(f"{layer}, held out" for layer in LAYERS), OCCLUSION], means, strict=True))
        patterns = self._patterns
        if patterns is not None:
            maps[PATTERN] = patterns.mean(0)
        if self._known is not None:
            maps[KNOWN_WEIGHTS] = by_patch(self._known, self._voxels)
        return maps

    @cached_property
    def _patterns(self) -> Matrix | None:
        """The ridge's pattern in each session, (session, patch); None where windows aim at nothing."""
        if not self._aims:
            return None
        assert self._voxels is not None
        return np.stack(
            [by_patch(pattern, self._voxels) for pattern in ridge_patterns(self._volumes, self._aims)]
        )


def occlusion(system: System, inputs: Arrays, voxels: NDArray[np.int64]) -> Matrix:
    """Say how far the condition moves where a patch shows its mean, (patch,).

    Parameters
    ----------
    system : System
        The system whose condition is watched.
    inputs : dict
        Signals by port, a row for each window; some of them are read.
    voxels : int64, (patch, value)
        Numbers of the voxels of each patch.

    Returns
    -------
    (patch,)
        Mean square of the change of the condition's tokens.
    """
    count = len(inputs[_FMRI])
    rows = np.linspace(0, count - 1, min(count, _COVERED)).round().astype(np.int64)
    signals = {name: values[rows] for name, values in inputs.items()}
    before = _tokens(system.condition(signals))
    moved = []
    for patch in voxels:
        volumes = signals[_FMRI].copy()
        # Normalised signals have the mean 0.
        volumes[:, :, patch] = 0
        after = _tokens(system.condition({**signals, _FMRI: volumes}))
        moved.append(float(np.square(after - before).mean()))
    return np.array(moved)


def _tokens(condition: Condition) -> NDArray[np.float32]:
    # An encoder that attends is a module, whose tokens are a tensor.
    return condition.tokens.float().cpu().numpy()


def ridge_patterns(volumes: list[NDArray[np.float32]], aims: list[NDArray[np.floating]]) -> list[Matrix]:
    """Return Haufe's pattern of a ridge from volumes to vectors, in each session, (voxel,).

    What the ridge reads of a session, it reads by a fit to the other ones. Its leading directions are brought
    to variance 1 and made uncorrelated, so that the pattern is their covariance with the voxels, and does not
    depend on the basis of the vectors. It is the root of the mean square over volumes and directions.

    Parameters
    ----------
    volumes : list of (window, volume, voxel)
        Normalised volumes of each session.
    aims : list of (window, value)
        What the condition aims at in each session.
    """
    folds = np.repeat(np.arange(len(volumes)), [len(session) for session in volumes])
    flat = np.concatenate([session.reshape(len(session), -1) for session in volumes])
    # Windows of a single session are left out one by one.
    left_out = folds if len(volumes) > 1 else None
    fit = fit_ridge([flat], np.concatenate(aims).astype(np.float64), [1.0], left_out)
    read = fit.held_out - fit.held_out.mean(0)
    vectors, spread, _ = np.linalg.svd(read, full_matrices=False)
    directions = min(_DIRECTIONS, int((spread > spread[0] * 1e-6).sum()))
    white = vectors[:, :directions] * np.sqrt(len(read))
    patterns = []
    for session, values in enumerate(volumes):
        read_of_session = white[folds == session]
        sides = (values - values.mean(0), read_of_session - read_of_session.mean(0))
        covariance = np.einsum("nsv,nd->svd", *sides) / len(values)
        patterns.append(np.sqrt(np.square(covariance).mean((0, 2))))
    return patterns


def by_patch(values: Matrix, voxels: NDArray[np.int64]) -> Matrix:
    """Average values of voxels over patches, (patch,)."""
    return values[voxels].mean(1)


def ranked(maps: Matrix, weights: Matrix, voxels: NDArray[np.int64]) -> dict[str, Any]:
    """Make the figure of the rank correlation of a map with known weights, over patches.

    Parameters
    ----------
    maps : (session, patch)
        Their mean is the map; intervals are over sessions.
    weights : (voxel,)
        What is known.
    voxels : int64, (patch, value)
        Numbers of the voxels of each patch.
    """
    truth = by_patch(weights, voxels)

    def correlation(counts: Matrix) -> Matrix:
        return _rank_correlation(counts @ maps / counts.sum(1, keepdims=True), truth)

    value = float(correlation(np.ones((1, len(maps))))[0])
    if not np.isfinite(value):
        return unknown(0.0, len(voxels), "the map, or what is known, is the same in all patches")
    rng = np.random.default_rng(0)
    shuffled = np.stack([by_patch(rng.permutation(weights), voxels) for _ in range(_SHUFFLES)])
    floor = _rank_correlation(shuffled, maps.mean(0))
    interval = intervals.of_statistic(correlation, len(maps))
    return {
        "value": value,
        "chance": 0.0,
        "shuffled": float(floor.mean()),
        "shuffled_95": float(np.quantile(floor, 0.95)),
        "constant": None,
        **interval.entries(),
        "n": len(voxels),
    }


def _rank_correlation(rows: Matrix, other: Matrix) -> Matrix:
    """Correlate the ranks of each row (row, patch) with those of another map (patch,); NaN without any."""
    first = rankdata(rows, axis=1)
    second = rankdata(other)
    first = first - first.mean(1, keepdims=True)
    second = second - second.mean()
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second)
    return np.divide(first @ second, norms, out=np.full(len(rows), np.nan), where=norms > 0)
