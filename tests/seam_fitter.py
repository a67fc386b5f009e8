"""What fits a bundle of `tests.seam_system` to another participant: its stem is refitted by ridge.

A colour is led back through the head of the bundle to what the stem has to give before its tanh, and that is
predicted from how loud the channels are and from the voxels that follow the film.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import torch
from onnx import ModelProto, numpy_helper

from rtdecode.bundle import Bundle
from tests.seam_parts import LATENT, Codec
from train.closed_form.encoding import FOLDS, best_explained, blocks, fold_errors, widened
from train.closed_form.ridge import fit_ridge
from train.config.builders import register
from train.config.run_context import Arrays
from train.data.arrays import eeg_statistics, normalised_eeg
from train.data.films import clips_at
from train.data.recorded import Recorded
from train.fitting.fitter import Fitted, Screenings, Story

_SHARES = [0.2, 0.5, 0.8]
_PICKING = 1.0
# A tanh gives no more than 1, and its inverse grows without bound there.
_STEEP = 0.95
# How much the head counts volumes beside the EEG, see `tests.seam_parts.Stem`.
_VOLUMES = 0.3


@dataclass(frozen=True)
class Colours(Story):
    """The targets are the mean latents of the clips, a colour each.

    Attributes
    ----------
    mean : (target,)
        Of the colours; `scale` is their spread.
    """

    mean: np.ndarray


@dataclass(frozen=True, kw_only=True)
class StemFit(Fitted):
    """The weights of the stem, by their names in the graph."""

    weights: Arrays


@dataclass(frozen=True)
class SeamFitter:
    """Refits the stem of a bundle.

    Attributes
    ----------
    base : Bundle
    """

    base: Bundle

    least_windows: ClassVar[int] = 40
    kind: ClassVar[str] = "colours over which a shadow moves"

    def drawable(self, screenings: Screenings) -> None:
        """Every colour can be drawn, and nothing is known of other films."""

    def story(self, recorded: Recorded, screenings: Screenings) -> Colours:
        manifest = self.base.manifest
        frames = int(manifest.grid.window * manifest.grid.fps)
        colours = np.zeros((len(recorded), LATENT[0]))
        for number, film in enumerate(screenings.films):
            mine = recorded.film == number
            clips = torch.from_numpy(clips_at(film, recorded.start_s[mine], manifest.clip, frames))
            colours[mine] = Codec(0.0).encode(clips.float() / 255).mean((2, 3, 4)).numpy()
        mean = colours.mean(0)
        spread = colours.std(0)
        return Colours((colours - mean) / spread, spread, float(manifest.grid.window), {}, mean)

    def fit(self, recorded: Recorded, story: Colours) -> StemFit:
        assert recorded.eeg is not None
        assert recorded.fmri is not None
        stats = eeg_statistics(recorded.eeg.data)
        z = normalised_eeg(recorded.eeg.data, recorded.eeg.mask, stats)
        loud = loudness(z, recorded.eeg.mask)
        volumes = recorded.fmri.slots(recorded.fmri.volumes)
        scale = recorded.fmri.volumes.std(0)
        targets = self._before_tanh(story.targets * story.scale + story.mean)
        held_out = {route: np.zeros_like(story.targets) for route in ("both", "fmri", "eeg")}
        fold = blocks(len(recorded))
        for n in range(FOLDS):
            test_rows = fold == n
            train_rows = ~widened(test_rows, 1)
            picked = self._picked(volumes[train_rows], story.targets[train_rows])
            fmri_features = (volumes[:, :, picked] / scale[picked]).reshape(len(volumes), -1)
            predict, _, _ = _fit(loud[train_rows], fmri_features[train_rows], targets[train_rows])
            for route, points in held_out.items():
                eeg_features = loud[test_rows] * (route != "fmri")
                decoded = self._colours(predict(eeg_features, fmri_features[test_rows] * (route != "eeg")))
                points[test_rows] = (decoded - story.mean) / story.scale
        picked = self._picked(volumes, story.targets)
        fmri_features = (volumes[:, :, picked] / scale[picked]).reshape(len(volumes), -1)
        _, (from_eeg, from_fmri), offset = _fit(loud, fmri_features, targets)
        return StemFit(
            held_out=held_out,
            statistics=stats | {"fmri_mean": recorded.fmri.level[picked], "fmri_scale": scale[picked]},
            voxels=picked,
            weights={
                "stem.eeg.weight": from_eeg.T,
                "stem.eeg.bias": offset,
                "stem.fmri.weight": from_fmri.T / _VOLUMES,
                "stem.fmri.bias": np.zeros(len(offset)),
            },
        )

    def graphs(self, fitted: StemFit) -> dict[str, ModelProto]:
        model = self._encoder
        for tensor in model.graph.initializer:
            if tensor.name in fitted.weights:
                value = fitted.weights[tensor.name].astype(np.float32)
                assert list(value.shape) == list(tensor.dims)
                tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        return {"encode": model}

    def expected(self, fitted: StemFit, windows: Arrays) -> Arrays:
        """The colours that sampling starts from, and a tenth of the clip before."""
        weights = fitted.weights
        eeg_term = loudness(windows["eeg"], windows["eeg_mask"]) @ weights["stem.eeg.weight"].T
        volumes = windows["fmri"] * windows["fmri_mask"][:, :, None]
        fmri_term = volumes.reshape(len(volumes), -1) @ weights["stem.fmri.weight"].T
        colours = self._colours(eeg_term + weights["stem.eeg.bias"] + _VOLUMES * fmri_term)
        before = windows["carry"] * windows["carry_mask"][:, :, None, None, None]
        return {"start": colours[:, :, None, None, None] + 0.1 * before + np.zeros(LATENT)}

    @property
    def _encoder(self) -> ModelProto:
        return onnx.load_model_from_string(self.base.read("encode.onnx"))

    def _head(self) -> tuple[np.ndarray, np.ndarray]:
        """What leads from the stem's features to a colour: (colour, feature), and the offset (colour,)."""
        tensors = {tensor.name: tensor for tensor in self._encoder.graph.initializer}
        names = ("head.who.weight", "head.start.weight", "head.start.bias")
        who, start, bias = (numpy_helper.to_array(tensors[name]).astype(np.float64) for name in names)
        return start, bias + start @ who[self.base.manifest.subject]

    def _colours(self, before_tanh: np.ndarray) -> np.ndarray:
        start, offset = self._head()
        return np.tanh(before_tanh) @ start.T + offset

    def _before_tanh(self, colours: np.ndarray) -> np.ndarray:
        start, offset = self._head()
        features = (colours - offset) @ np.linalg.pinv(start).T
        return np.arctanh(np.clip(features, -_STEEP, _STEEP))

    def _picked(self, volumes: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """The voxels whose mean over a window follows the film best, as many as the bundle reads."""
        assert self.base.manifest.fmri is not None
        means = volumes.mean(1)
        errors, sizes = fold_errors(targets, means - means.mean(0), blocks(len(means)), 1, _PICKING)
        return np.sort(best_explained(errors.sum(0), sizes.sum(0), self.base.manifest.fmri.voxels))


def loudness(eeg: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean size of the samples that were received, (window, channel)."""
    received = np.maximum(mask.sum(1, keepdims=True), 1)
    return (np.abs(eeg) * mask[:, None]).sum(2) / received


def _fit(
    loud: np.ndarray, fmri_features: np.ndarray, targets: np.ndarray
) -> tuple[Callable[..., np.ndarray], list[np.ndarray], np.ndarray]:
    """Ridge from both groups: what predicts, the map of each group, and the offset."""
    ridge = fit_ridge([loud, fmri_features], targets, _SHARES)
    from_eeg, from_fmri = ridge.maps
    offset = targets.mean(0) - ridge.means[0] @ from_eeg - ridge.means[1] @ from_fmri

    def predict(eeg_features: np.ndarray, volumes: np.ndarray) -> np.ndarray:
        return eeg_features @ from_eeg + volumes @ from_fmri + offset

    return predict, ridge.maps, offset


register("seam-fitter", SeamFitter)
