"""The fitter of decoders with a shared space: a newcomer gets a linear layer of their own, in closed form.

Everything after the layers stays as it was trained on others. The bundle says how any film lies in the shared
space; ridge leads the newcomer's volumes there, by the same fit that found the layers of those who were
trained on (`train.closed_form.shared_space`). ``docs/fit.md`` has the method.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from rtdecode.bundle import Bundle
from rtdecode.bundle.graph import Graph
from rtdecode.bundle.providers import CPU
from rtdecode.errors import BundleError
from train.closed_form import patch_codec as patch
from train.closed_form.encoding import FOLDS, PICKING, best_explained, blocks, fold_errors, widened
from train.closed_form.frame_vectors import clip_vectors, weights_of
from train.closed_form.shared_space import Layer, SharedSpace, Viewing, fit_layers
from train.closed_form.stem import fill_slots
from train.config.run_context import Arrays
from train.data.films import clips_at
from train.data.recorded import Fmri, Recorded
from train.fitting.fitter import Fitted, Screenings, Story, learned_from

Matrix = NDArray[np.float64]

# Kinds of values of the shared space that are known of any film.
CLIP = "clip"
START = "start"
# Names of the layer's weights in the graph; an export that stores a weight in half precision adds a suffix.
MAP = "encoder.stems.0.map"
OFFSET = "encoder.stems.0.offset"
_HALF = ".half"
# The stage that a participant has of its own, and what it gives to the stage that all share: what the layer
# reads of a window, and 1 where the window has any volume, or 0.
FRONT = "front"
READING = "reading"
PRESENT = "present"
# Outputs of what all share, by the kind of values that they are.
_DECODED = {CLIP: "embedding", START: "start"}
# Arrays of the bundle's statistics besides those of the space: how clips are encoded.
CODEC = ("codec_mean", "codec_basis", "scale")
# Folds in which voxels are chosen, of the blocks that are not held out.
_THIRDS = 3
_LEAST_SCALE = 1e-3


@dataclass(frozen=True, kw_only=True)
class LayerFit(Fitted):
    """A newcomer's layer.

    Attributes
    ----------
    layer : Layer
        Reads the newcomer's volumes into the shared space.
    """

    layer: Layer


@dataclass(frozen=True)
class SharedSpaceFitter:
    """Fits a newcomer's layer into the shared space of a bundle.

    Attributes
    ----------
    base : Bundle
        The bundle that gets the newcomer.
    front : ModelProto
        The layer of the participant whom the bundle reads by default, before what all share.
    graph : Graph
        What all share, to be run.
    space : SharedSpace
        The space that all participants of the bundle share.
    codec : train.closed_form.patch_codec.Codec
        Encodes clips to latents.
    frame_net : dict
        See `train.closed_form.frame_vectors.weights_of`; empty where the space needs none.
    kind : str
        See `train.fitting.fitter.Fitter`.
    """

    base: Bundle
    front: ModelProto
    graph: Graph
    space: SharedSpace
    codec: patch.Codec
    frame_net: dict[str, NDArray[np.float32]]
    kind: str

    least_windows: ClassVar[int] = 60

    def drawable(self, screenings: Screenings) -> None:
        """Find nothing: what a generator can draw is not known without training clips."""

    def story(self, recorded: Recorded, screenings: Screenings) -> Story:
        """Put the clip of each window into the shared space."""
        manifest = self.base.manifest
        grid = manifest.grid
        frames = int(grid.window * grid.fps)
        points: list[Matrix] = []
        for number, film in enumerate(screenings.films):
            starts = recorded.start_s[recorded.film == number]
            clips = clips_at(film, starts, manifest.clip, frames)
            values: dict[str, NDArray[Any]] = {START: patch.encode(self.codec, clips)}
            if CLIP in self.space.kinds:
                values[CLIP] = clip_vectors(self.frame_net, clips[:, :frames], self._stride)
            points.append(self.space.points(values))
        return Story(np.concatenate(points), self.space.scale, float(grid.window), {})

    def fit(self, recorded: Recorded, story: Story) -> LayerFit:
        """Fit the layer; ten blocks of windows are held out in turn, with voxels chosen on the others."""
        fmri = recorded.fmri
        assert fmri is not None
        scale = np.maximum(fmri.volumes.std(0), _LEAST_SCALE).astype(np.float32)
        # Windows of a recording follow those of the one before it.
        fold = blocks(len(recorded))
        held_out = np.zeros_like(story.targets)
        means = window_means(fmri)
        for n in range(FOLDS):
            teaching = ~widened(fold == n, 1)
            picked = self._picked(means, story.targets, teaching)
            volumes = _read(fmri, picked, scale)
            viewing = Viewing(volumes[teaching], story.targets[teaching], fold[teaching])
            readings = fit_layers({"": viewing})[""].read(volumes[fold == n])
            held_out[fold == n] = self._decoded(readings)
        picked = np.sort(self._picked(means, story.targets, np.ones(len(recorded), np.bool_)))
        layer = fit_layers({"": Viewing(_read(fmri, picked, scale), story.targets, fold)})[""]
        statistics = {"fmri_mean": fmri.level[picked], "fmri_scale": scale[picked]}
        return LayerFit(held_out={"fmri": held_out}, statistics=statistics, voxels=picked, layer=layer)

    def graphs(self, fitted: LayerFit) -> dict[str, ModelProto]:
        """Copy the default participant's layer, with the newcomer's weights."""
        copy = ModelProto()
        copy.CopyFrom(self.front)
        for tensor in copy.graph.initializer:
            value = self._weights(fitted).get(tensor.name.removesuffix(_HALF))
            if value is not None:
                rounded = np.ascontiguousarray(value.astype(numpy_helper.to_array(tensor).dtype))
                tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
        onnx.checker.check_model(copy)
        return {FRONT: copy}

    def expected(self, fitted: LayerFit, windows: Arrays) -> Arrays:
        """Compute the newcomer's readings, and let what all share go on from them."""
        layer = layer_of(self.graphs(fitted)[FRONT])
        filled = fill_slots(windows["fmri"], windows["fmri_mask"])
        has_volume = windows["fmri_mask"].max(1, keepdims=True)
        reading = has_volume * (filled.reshape(len(filled), -1) @ layer[MAP] + layer[OFFSET])
        return self._go_on(reading, has_volume)

    def _go_on(self, readings: NDArray[np.floating], has_volume: NDArray[np.floating]) -> Arrays:
        """Let what all share go on from readings, one window after the other, as a session does."""
        ports = {READING: readings.astype(np.float32), PRESENT: has_volume.astype(np.float32)}
        parts = [self.graph({name: x[n : n + 1] for name, x in ports.items()}) for n in range(len(readings))]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.graph.outputs}

    def _decoded(self, readings: Matrix) -> Matrix:
        """Return the points of what all share makes of readings, (window, component).

        A fit is judged by what a session would draw: a layer may tell windows apart, and be read amiss. Of
        values that no stage gives, the readings themselves are taken.
        """
        points = readings.copy()
        room = self.graph.inputs[READING][0][1]
        padded = np.pad(readings, [(0, 0), (0, room - readings.shape[1])])
        outputs = self._go_on(padded, np.ones((len(readings), 1)))
        for kind, components in self.space.kinds.items():
            if _DECODED[kind] in outputs:
                points[:, self.space.columns(kind)] = components.points(outputs[_DECODED[kind]])
        return points

    @property
    def _stride(self) -> int:
        return int(self.base.stats["every"])

    def _picked(
        self, means: NDArray[np.float32], points: Matrix, teaching: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """Choose the voxels whose mean over a window follows what it showed, by some windows alone."""
        count = self._voxels
        mean = means[teaching]
        thirds = np.arange(teaching.sum()) * _THIRDS // int(teaching.sum())
        errors, totals = fold_errors(points[teaching], mean - mean.mean(0), thirds, 1, PICKING)
        return best_explained(errors.sum(0), totals.sum(0), count)

    @property
    def _voxels(self) -> int:
        assert self.base.manifest.fmri is not None
        return self.base.manifest.fmri.voxels

    def _weights(self, fitted: LayerFit) -> dict[str, Matrix]:
        """Lay the layer out as the graph has it, whose last components may be silent."""
        base = layer_of(self.front)
        layer = fitted.layer
        components = layer.map.shape[1]
        weights = {MAP: np.zeros_like(base[MAP]), OFFSET: np.zeros_like(base[OFFSET])}
        weights[MAP][:, :components] = layer.map
        weights[OFFSET][:components] = layer.offset - layer.mean @ layer.map
        return weights


def shared_space_fitter(base: Bundle) -> SharedSpaceFitter:
    """Take out of a bundle what a fit needs: a layer, what all share, and how films lie in the space.

    Raises
    ------
    BundleError
        If the bundle lacks any of it.
    """
    space = SharedSpace.of(base.stats)
    frame_net = weights_of(base.stats) or {}
    missing = [name for name in (*CODEC, "every") if name not in base.stats]
    if space is None:
        missing.append("shared_*")
    elif CLIP in space.kinds and not frame_net:
        missing.append("frame_net_*")
    if missing or space is None:
        raise BundleError(
            "fit-missing-shared-space",
            "{path} lacks {missing_arrays}, by which a film is put into the shared space. Export the bundle "
            "again.",
            path=base.path / "stats.npz",
            missing_arrays=missing,
        )
    stages = base.manifest.built
    if FRONT not in stages:
        raise BundleError(
            "fit-missing-front",
            "{path} has no stage front, in which each participant's layer lies. Export the run again.",
            path=base.path,
        )
    name = stages[FRONT].file
    front = onnx.load_model_from_string(base.read(name))
    weights = layer_of(front)
    if missing := [key for key in (MAP, OFFSET) if key not in weights]:
        raise BundleError(
            "fit-missing-layer",
            "{path} has no weights of a layer that can be exchanged ({missing_weights}). A fit needs them in "
            "the graph itself, as `rtdecode export` writes them in fp32: export the run again.",
            path=base.path / name,
            missing_weights=missing,
        )
    codec = patch.scaled_codec({key: base.stats[key] for key in CODEC})
    shared = stages["encode"].file
    graph = Graph(base.read(shared), shared, [CPU])
    return SharedSpaceFitter(base, front, graph, space, codec, frame_net, learned_from(base.manifest))


def window_means(fmri: Fmri) -> NDArray[np.float32]:
    """Average the volumes of each window, as far as they are there, (window, voxel)."""
    is_there = (fmri.rows >= 0).astype(np.float32)
    shares = is_there / np.maximum(is_there.sum(1, keepdims=True), 1)
    total = np.zeros((len(fmri.rows), fmri.volumes.shape[1]), np.float32)
    for slot in range(fmri.rows.shape[1]):
        total += shares[:, slot, None] * fmri.volumes[fmri.rows[:, slot]]
    return total


def _read(fmri: Fmri, voxels: NDArray[np.int64], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the volumes of windows at some voxels as the layer reads them, (window, input)."""
    volumes = fmri.slots(fmri.volumes[:, voxels] / scale[voxels])
    return volumes.reshape(len(volumes), -1).astype(np.float32)


def layer_of(model: ModelProto) -> dict[str, Matrix]:
    """Read the weights of the layer from the graph of the stage ``front``."""
    weights: Mapping[str, Any] = {
        tensor.name.removesuffix(_HALF): tensor
        for tensor in model.graph.initializer
        if not tensor.external_data
    }
    return {
        name: numpy_helper.to_array(weights[name]).astype(np.float64)
        for name in (MAP, OFFSET)
        if name in weights
    }
