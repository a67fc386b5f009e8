"""A new participant, mapped into the space of a trained decoder in closed form. The decoder stays as it is.

Recorded windows and a `FilmStory` come in, and an `EncoderFit` goes out. `fit` fits each modality on its own
(`fit_fmri`, `fit_eeg`), weighs the two against each other by their held-out predictions (`join`), and refines
the points with the decoder's perceptron. ``docs/fit.md`` gives the reasons for this method.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from train.closed_form.brain_maps import GROUPS
from train.closed_form.components import principal_components
from train.closed_form.cuts import binned, fit_cuts
from train.closed_form.encoding import (
    FOLDS,
    PICKING,
    Kernel,
    Matrix,
    Reals,
    Timing,
    best_explained,
    blocks,
    fold_errors,
    invert,
    widened,
)
from train.closed_form.onsets import fit_onsets
from train.closed_form.refine import Shots
from train.closed_form.ridge import fit_ridge
from train.closed_form.stem import fit_eeg_stem, fixed_signs
from train.config.run_context import Arrays
from train.data.arrays import eeg_statistics, normalised_eeg
from train.data.recorded import Eeg, Fmri, Recorded
from train.fitting.fitter import Fitted, Story, identified

_THIRDS = 3
# Refines the points of all routes (route -> (window, target)) for a window of the named route.
Refined = Callable[[Arrays, Shots, str], Matrix]
# Ridge penalty of the encoding model when it is inverted.
_INVERTING = 0.6
# Responses overlap, so this much on either side of what is held out is left out of the fit, s.
_GAP_S = 5.0
# The weights that all targets have in common count as much as this number of windows.
_COMMON = 80
_LEAST_WEIGHT = 0.01
_WHITEN = 1.0


@dataclass(frozen=True)
class Sizes:
    """The sizes that the decoder's encoder has room for."""

    voxels: int
    voxel_components: int
    eeg_components: int
    eeg_frequencies: int


@dataclass(frozen=True)
class FilmStory(Story):
    """What the film showed, in the space that the decoder draws from, with the components first.

    Attributes
    ----------
    features : Kernel
        Weighs the film's steps in volumes, by the haemodynamic response.
    spelled : (target, step, feature)
        Features of a window by its targets, see `train.closed_form.encoding.invert`.
    series : list of (step, feature)
        Features of each film, from its start on.
    cuts : bool, (window, frame)
        Whether a shot begins with the frame.
    glimpses : (window, latent frame, value)
        What each latent frame showed, of which the targets are components.
    """

    features: Kernel
    spelled: Matrix
    series: list[Matrix]
    cuts: NDArray[np.bool_]
    glimpses: Matrix

    def shifted(self, share: float) -> Self:
        """Shift the film by a share of its windows, and its features by the same time."""
        steps = self.spelled.shape[1]
        windows = int(len(self.targets) * share)
        return replace(
            super().shifted(share),
            cuts=np.roll(self.cuts, windows, axis=0),
            glimpses=np.roll(self.glimpses, windows, axis=0),
            series=[
                np.roll(series, int(len(series) // steps * share) * steps, axis=0) for series in self.series
            ],
        )

    def responses(self, film: NDArray[np.int64], times: Matrix) -> Matrix:
        """Convolve the film's features with the haemodynamic response, (volume, feature)."""
        responses = np.zeros((len(times), self.series[0].shape[1]))
        for number, series in enumerate(self.series):
            responses[film == number] = self.features.kernel(times[film == number], len(series)) @ series
        return responses


@dataclass(frozen=True)
class ModalityFit:
    """The fit of one modality.

    Attributes
    ----------
    weights : dict
        Weights of the encoder: stem, ``{modality}_feature_mean`` and ``map`` (feature, target).
    statistics : dict
        ``{modality}_mean`` and ``{modality}_scale``.
    held_out : (window, target)
        Prediction of each window by a fit that left it out.
    voxels : (voxel,) or None
        Indices of the chosen voxels among those of the head.
    shots : Shots or None
        What the EEG tells of the windows' shots, held out as well.
    """

    weights: Arrays
    statistics: Arrays
    held_out: Matrix
    voxels: NDArray[np.int64] | None = None
    shots: Shots | None = None


@dataclass(frozen=True, kw_only=True)
class EncoderFit(Fitted):
    """A participant mapped into the space. Held-out predictions are refined, (window, target).

    Attributes
    ----------
    weights : dict
        Weights of the encoder, by name; zeros for those that could not be fitted.
    """

    weights: Arrays


def fit(recorded: Recorded, story: FilmStory, sizes: Sizes, refined: Refined) -> EncoderFit:
    """Map a participant's signals into the space.

    Parameters
    ----------
    recorded : Recorded
        The participant's signals, by window.
    story : FilmStory
        What the film showed in the same windows.
    sizes : Sizes
        Numbers of voxels and components that the encoder has room for.
    refined : callable
        The perceptron of the decoder.
    """
    # Each modality that was recorded, on its own.
    sides: dict[str, ModalityFit] = {}
    if recorded.fmri is not None:
        sides["fmri"] = fit_fmri(recorded.fmri, recorded.film, story, sizes)
    if recorded.eeg is not None:
        sides["eeg"] = fit_eeg(recorded.eeg, story, sizes)
    weights: Arrays = {}
    for side in sides.values():
        weights |= {name: value for name, value in side.weights.items() if name != "map"}
    # Each route for which all modalities are there: maps weighed by how well they predict, target by
    # target, and held-out points weighed in the same way.
    places: dict[str, Matrix] = {}
    for route, groups in GROUPS.items():
        if {*groups} <= {*sides}:
            held_out = [sides[group].held_out for group in groups]
            for group, share in zip(groups, join(held_out, story.targets), strict=True):
                weights[f"{route}_{group}"] = (sides[group].weights["map"] * share).astype(np.float16)
            places[route] = _joined(held_out, story.targets)
    # From there on as the decoder does.
    shot_cues = sides["eeg"].shots if "eeg" in sides else None
    if shot_cues is None:
        shape = (*story.cuts.shape, story.glimpses.shape[2])
        shot_cues = Shots(np.zeros(story.cuts.shape, np.float32), np.zeros(shape, np.float32))
    points = {route: refined(places, shot_cues, route) for route in places}
    weights["reads"] = np.array([float(name in sides) for name in ("fmri", "eeg")])
    weights["yields"] = np.zeros(2)
    statistics = {name: value for side in sides.values() for name, value in side.statistics.items()}
    return EncoderFit(
        held_out=points,
        statistics=statistics,
        voxels=sides["fmri"].voxels if "fmri" in sides else None,
        weights=weights,
    )


def fit_fmri(fmri: Fmri, film: NDArray[np.int64], story: FilmStory, sizes: Sizes) -> ModalityFit:
    """Choose the voxels that follow the film best, and invert the encoding model of their components.

    Held-out predictions come from ten blocks of windows. Each is predicted from the others, with voxels
    chosen on the others.
    """
    x = story.responses(fmri.film, fmri.times)
    volumes = fmri.volumes - fmri.volumes.mean(0)
    # A volume belongs to the block of the last window that reads it, or to none (-1).
    windows = blocks(len(film))
    fold = np.full(len(volumes), -1)
    fold[fmri.rows[fmri.rows >= 0]] = np.repeat(windows, (fmri.rows >= 0).sum(1))
    gap = int(np.ceil(_GAP_S / np.median(np.diff(fmri.times))))
    timing = Timing(fmri.slot_s, story.window_s)
    held_out = np.zeros_like(story.targets)
    for n in range(FOLDS):
        train_volumes = ~widened(fold == n, gap)
        train_windows = ~widened(windows == n, 1)
        # The voxels are chosen within the other blocks, in three folds of their own. A choice made by
        # models that had seen this block would favour it.
        thirds = fold[train_volumes] * _THIRDS // FOLDS
        errors, totals = fold_errors(x[train_volumes], volumes[train_volumes], thirds, gap, PICKING)
        picked = best_explained(errors.sum(0), totals.sum(0), sizes.voxels)
        parts = _components(volumes[:, picked], sizes.voxel_components)[0]
        prior = np.cov(story.targets[train_windows], rowvar=False)
        mean, back = _inverted(story, x[train_volumes], parts[train_volumes], timing, prior)
        test_features = (fmri.slots(parts)[windows == n] - mean).reshape(int((windows == n).sum()), -1)
        held_out[windows == n] = test_features @ back
    # The fit that is kept, from all windows.
    errors, totals = fold_errors(x, volumes, fold, gap, PICKING)
    picked = np.sort(best_explained(errors.sum(0), totals.sum(0), sizes.voxels))
    parts, axes, scale = _components(volumes[:, picked], sizes.voxel_components)
    prior = np.cov(story.targets, rowvar=False)
    mean, back = _inverted(story, x, parts, timing, prior)
    # The volumes are centred here, but not where the encoder reads them, so their mean goes into the
    # features' mean.
    voxel_mean = (fmri.volumes[:, picked].mean(0) / scale) @ axes
    weights = {
        "voxels": axes,
        "fmri_feature_mean": np.tile(mean + voxel_mean, len(fmri.slot_s)).astype(np.float32),
        "map": back,
    }
    return ModalityFit(weights, {"fmri_mean": fmri.level[picked], "fmri_scale": scale}, held_out, picked)


def _inverted(
    story: FilmStory, x: Matrix, parts: Reals, timing: Timing, prior: Matrix
) -> tuple[Matrix, Matrix]:
    return invert(story.features, story.spelled, x, parts, timing, prior, _INVERTING)


def _components(volumes: Reals, count: int) -> tuple[Reals, NDArray[np.float16], Reals]:
    """Find components of centred volumes, scaled: values, axes (voxel, component), scale (voxel,)."""
    scale = np.maximum(volumes.std(0), 1e-3).astype(np.float32)
    z = volumes / scale
    # Centring leaves one direction without variance.
    _, basis, _ = principal_components(z, min(count, len(z) - 1))
    axes = fixed_signs(basis.T).astype(np.float16)
    return z @ axes.astype(np.float32), axes, scale


def fit_eeg(eeg: Eeg, story: FilmStory, sizes: Sizes) -> ModalityFit:
    """Reduce the EEG, map it by ridge, and fit what tells of shots.

    Ten blocks of windows are each predicted from the others.
    """
    stats = eeg_statistics(eeg.data)
    z = normalised_eeg(eeg.data, eeg.mask, stats)
    stem = fit_eeg_stem(z, sizes.eeg_components, sizes.eeg_frequencies, _WHITEN)
    x = stem(z)
    windows = blocks(len(x))
    held_out = np.zeros_like(story.targets)
    for n in range(FOLDS):
        test = windows == n
        train = ~widened(test, 1)
        part = fit_ridge([x[train]], story.targets[train], [1.0])
        held_out[test] = (x[test] - part.means[0]) @ part.maps[0]
    ridge = fit_ridge([x], story.targets, [1.0])
    weights = {
        **stem.arrays(),
        "eeg_feature_mean": ridge.means[0].astype(np.float32),
        "map": ridge.maps[0],
    }
    mixed = binned(weights["mixing"], z, story.cuts.shape[1])
    cut = fit_cuts(mixed, story.cuts, windows)
    onset = fit_onsets(mixed, story.cuts, story.glimpses, windows)
    shot_cues = Shots(cut.probabilities, onset.glimpses)
    return ModalityFit(weights | cut.weights | onset.weights, stats, held_out, shots=shot_cues)


def join(held_out: list[Matrix], targets: Matrix) -> list[Matrix]:
    """Find the weights of predictions of the same targets, target by target.

    This is least squares, with each target's weights drawn towards those that all targets have in common (a
    ridge penalty on the difference). Weights stay above zero, because held-out predictions of noise oppose
    the truth a little: what is left out lies on the other side of the mean.

    Parameters
    ----------
    held_out : list of (window, target)
        Held-out predictions of the targets, one array for each modality.
    targets : (window, target)
        The truth.

    Returns
    -------
    list of (target,)
        The weights of each prediction.
    """
    p = np.stack(held_out)
    y = targets - targets.mean(0)
    gram = np.einsum("ant,bnt->tab", p, p)
    inner = np.einsum("ant,nt->ta", p, y)
    # If one prediction's common weight is negative, those that stay are weighed as if each were alone.
    common = np.linalg.solve(gram.sum(0), inner.sum(0))
    if common.min() < 0 < common.max():
        common = inner.sum(0) / np.diag(gram.sum(0)) * (common > 0)
    common = np.maximum(common, _LEAST_WEIGHT)
    pull = np.diag(np.diag(gram.mean(0))) * _COMMON / len(y)
    target_weights = np.linalg.solve(gram + pull, (inner + pull @ common)[:, :, None])[:, :, 0]
    return list(np.maximum(target_weights, _LEAST_WEIGHT).T)


def _joined(held_out: list[Matrix], targets: Matrix) -> Matrix:
    """Weigh predictions, each block of windows with weights from the other blocks."""
    fold = blocks(len(targets))
    joined_points = np.zeros_like(targets)
    for n in range(FOLDS):
        test = fold == n
        train = fold != n
        shares = join([p[train] for p in held_out], targets[train])
        joined_points[test] = sum(p[test] * share for p, share in zip(held_out, shares, strict=True))
    return joined_points


def never_worse(fitted: EncoderFit, recorded: Recorded, story: Story) -> EncoderFit:
    """Read the better modality alone if both together identify held-out windows worse than it.

    The encoder then takes the other modality for absent wherever both are there, and ``held_out["both"]`` are
    the predictions of the one that is read. A window that has the other modality alone, such as a preview, is
    still drawn from that.
    """
    held_out = fitted.held_out
    if "both" not in held_out:
        return fitted
    values = {route: identified(points, recorded, story).mean() for route, points in held_out.items()}
    alone = max(("fmri", "eeg"), key=lambda route: values[route])
    if values["both"] >= values[alone]:
        return fitted
    yields = np.array([float(name != alone) for name in ("fmri", "eeg")])
    return replace(
        fitted,
        weights=fitted.weights | {"yields": yields},
        held_out=held_out | {"both": held_out[alone]},
        alone=alone,
        fused=held_out["both"],
    )


def completed(fitted: EncoderFit, shapes: dict[str, tuple[int, ...]]) -> EncoderFit:
    """Add zero maps for the routes that could not be fitted, in the shapes the encoder has."""
    names = [f"{route}_{group}" for route, groups in GROUPS.items() for group in groups]
    blank = {name: np.zeros(shapes[name], np.float16) for name in names if name not in fitted.weights}
    return replace(fitted, weights=fitted.weights | blank)
