"""What the tokenizers of a trained brain encoder give under a film, on average: the aims of a newcomer's.

A system with linear tokenizers (`train.parts.encoders.tokenizers`) learns from one participant, and all that
comes after the tokenizers learns from what these give. Another participant is read once their own tokenizers
give the same under the same film. The two need not have watched the same film: `fit_film_tokens` learns from
sessions of the first one how features of films lead to what the tokenizers give, and `FilmTokens` says it of
any film. It is small, and a bundle keeps it among its statistics.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle
from train.closed_form import patch_codec as patch
from train.closed_form.encoding import ridge_hat
from train.closed_form.film_encoding import FilmFeatures, fit_features
from train.closed_form.film_space import ClipTargets
from train.closed_form.structure import structure
from train.config.run_context import Arrays
from train.data.showing import AnyShowing

Matrix = NDArray[np.float64]

PREFIX = "film_"
_FEATURES = ("mean", "axes", "varied_mean", "varied_axes")
# Ridge penalties, as of `ridge_hat`. EEG is noise for the most part.
_SUMS_PENALTY = 0.2
_TOKENS_PENALTY = 10.0
# Directions in which films move the tokens of EEG.
_RANK = 32


@dataclass(frozen=True)
class Tokenizing:
    """The weights of tokenizers that belong to a participant; None for a modality that is not read.

    Attributes
    ----------
    shares : (token, voxel)
        ``over_voxels`` of a `train.parts.encoders.tokenizers.VoxelTokenizer`. They give a sum of voxels for
        each token and volume.
    channels : (part and channel, width)
        ``over_channels`` of an `train.parts.encoders.tokenizers.EegTokenizer`, transposed.
    pooled : (sample, token)
        Its means over time, of the samples of one part.
    """

    shares: Matrix | None
    channels: Matrix | None
    pooled: Matrix | None

    def channel_parts(self, eeg: NDArray[np.floating]) -> Matrix:
        """Lay the parts of windows side by side, averaged over time: (window, token, part and channel).

        Parameters
        ----------
        eeg : (window, channel, sample)
            Normalised EEG of whole windows.
        """
        assert self.pooled is not None
        samples, tokens = self.pooled.shape
        parts = eeg.reshape(*eeg.shape[:2], -1, samples).astype(np.float64) @ self.pooled
        return parts.transpose(0, 3, 2, 1).reshape(len(eeg), tokens, -1)


@dataclass(frozen=True)
class FilmSteps:
    """From the clip of a window to tokens of EEG, less their mean.

    Attributes
    ----------
    mean : (step and feature,)
        Mean of the features of a window's steps.
    map : (step and feature, direction)
        From features less their mean to places along the directions.
    axes : (direction, token and width)
        Orthonormal directions in which films move the tokens most.
    """

    mean: Matrix
    map: Matrix
    axes: Matrix


@dataclass(frozen=True)
class FilmTokens:
    """From any film to what the tokenizers of a participant give on average.

    Attributes
    ----------
    codec : train.closed_form.patch_codec.Codec
        Encodes clips.
    features : FilmFeatures
        Reduces latents and structure tensors of clips to features of steps.
    sums : (feature, token) or None
        From features of a film, convolved with the haemodynamic response, to sums of voxels.
    steps : FilmSteps or None
        From features of a window's steps to its tokens of EEG; None where EEG is not read.
    """

    codec: patch.Codec
    features: FilmFeatures
    sums: Matrix | None
    steps: FilmSteps | None

    def series(self, clips: NDArray[np.uint8]) -> Matrix:
        """Compute the features of clips, one after the other, (step, feature)."""
        return self.features.series(_seen(self.codec, clips))

    def sums_at(self, times: Matrix, series: Matrix) -> Matrix:
        """Say what sums a film with these features leads to, in volumes at these times, (volume, token)."""
        assert self.sums is not None
        return self.features.kernel(times, len(series)) @ series @ self.sums

    def tokens_of(self, clips: NDArray[np.uint8]) -> Matrix:
        """Say what tokens of EEG these clips lead to, (window, token and width)."""
        assert self.steps is not None
        steps = self.series(clips).reshape(len(clips), -1)
        return (steps - self.steps.mean) @ self.steps.map @ self.steps.axes

    def arrays(self) -> Arrays:
        """Return all of it as arrays of ``stats.npz``."""
        arrays: dict[str, NDArray[np.floating]] = {
            "codec_mean": self.codec.mean,
            "codec_basis": self.codec.basis,
        }
        arrays |= {f"features_{name}": getattr(self.features, name) for name in _FEATURES}
        arrays["features_step_s"] = np.array(self.features.step_s)
        if self.sums is not None:
            arrays["sums"] = self.sums
        if self.steps is not None:
            arrays |= {f"steps_{name}": values for name, values in vars(self.steps).items()}
        return {f"{PREFIX}{name}": np.asarray(value, np.float32) for name, value in arrays.items()}

    @classmethod
    def of(cls, stats: Arrays) -> Self | None:
        """Read what `arrays` made from among other arrays; None where they do not hold it."""
        prefixed = {name: values for name, values in stats.items() if name.startswith(PREFIX)}
        arrays = {name.removeprefix(PREFIX): values.astype(np.float64) for name, values in prefixed.items()}
        if not arrays:
            return None
        features = {name: arrays[f"features_{name}"] for name in _FEATURES}
        steps = None
        if "steps_map" in arrays:
            steps = FilmSteps(*(arrays[f"steps_{name}"] for name in ("mean", "map", "axes")))
        codec = patch.Codec(*(arrays[f"codec_{name}"].astype(np.float32) for name in ("mean", "basis")))
        step_s = float(arrays["features_step_s"])
        return cls(codec, FilmFeatures(**features, step_s=step_s), arrays.get("sums"), steps)


def fit_film_tokens(
    codec: patch.Codec,
    showings: Sequence[AnyShowing],
    eeg: Sequence[NDArray[np.floating]],
    reads: Tokenizing,
    draft: Bundle,
) -> FilmTokens:
    """Learn what tokenizers give under films from sessions of the participant whose tokenizers they are.

    Parameters
    ----------
    codec : train.closed_form.patch_codec.Codec
        Encodes clips.
    showings : sequence of AnyShowing
        What the participant watched in each session.
    eeg : sequence of (window, channel, sample)
        Normalised EEG of the windows of each session; none where it is not read.
    reads : Tokenizing
        The trained tokenizers.
    draft : Bundle
        With the statistics and the voxels that they read.
    """
    tiles = [_seen(codec, showing.tiles().clips) for showing in showings]
    arrays = [np.concatenate([getattr(tile, name) for tile in tiles]) for name in ClipTargets.__slots__]
    features = fit_features(ClipTargets(*arrays), float(draft.manifest.grid.window))
    sums = None
    if reads.shares is not None:
        series = [features.series(tile) for tile in tiles]
        sums = _fit_sums(features, series, showings, reads.shares, draft)
    steps = None
    if reads.channels is not None:
        steps = _fit_steps(
            [features.series(_seen(codec, showing.film().clips)) for showing in showings], eeg, reads
        )
    return FilmTokens(codec, features, sums, steps)


def _fit_sums(
    features: FilmFeatures,
    series: Sequence[Matrix],
    showings: Sequence[AnyShowing],
    shares: Matrix,
    draft: Bundle,
) -> Matrix:
    assert draft.projection is not None
    evoked = []
    summed = []
    for showing, step_features in zip(showings, series, strict=True):
        volumes = showing.volumes(draft.projection.voxels)
        x = features.kernel(volumes.times, len(step_features)) @ step_features
        sums = (volumes.values - volumes.values.mean(0)) / draft.stats["fmri_scale"] @ shares.T
        evoked.append(x - x.mean(0))
        summed.append(sums)
    x = np.concatenate(evoked)
    y = np.concatenate(summed)
    return ridge_hat(x, np.eye(x.shape[1]), _SUMS_PENALTY) @ y


def _fit_steps(series: Sequence[Matrix], eeg: Sequence[NDArray[np.floating]], reads: Tokenizing) -> FilmSteps:
    assert reads.channels is not None
    steps = [
        step_features.reshape(len(windows), -1) for step_features, windows in zip(series, eeg, strict=True)
    ]
    tokens = [(reads.channel_parts(windows) @ reads.channels).reshape(len(windows), -1) for windows in eeg]
    x = np.concatenate(steps)
    y = np.concatenate(tokens)
    mean = x.mean(0)
    weights = ridge_hat(x - mean, np.eye(x.shape[1]), _TOKENS_PENALTY) @ (y - y.mean(0))
    # Of all that is told, the directions that differ most between the windows.
    axes = np.linalg.svd((x - mean) @ weights, full_matrices=False)[2][:_RANK]
    return FilmSteps(mean, weights @ axes.T, axes)


def _seen(codec: patch.Codec, clips: NDArray[np.uint8]) -> ClipTargets:
    return ClipTargets(patch.encode(codec, clips), structure(clips, codec.turn))
