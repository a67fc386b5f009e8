"""A newcomer's layer is fitted in closed form, and the rest of the encoder stays as it was."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle
from rtdecode.bundle.graph import Graph
from rtdecode.bundle.providers import CPU
from rtdecode.errors import BundleError
from rtdecode.signal.volume.projection import Projection
from tests.refusals import refused
from train.closed_form import patch_codec
from train.closed_form.graph_writer import GraphWriter
from train.closed_form.shared_space import SharedSpace, fit_space
from train.data.recorded import Fmri, Recorded
from train.fitting.fitter import Screenings, Story, identified
from train.fitting.shared_space import (
    CODEC,
    FRONT,
    MAP,
    OFFSET,
    PRESENT,
    READING,
    SharedSpaceFitter,
    layer_of,
    shared_space_fitter,
)

WINDOWS = 120
SLOTS = 2
HEAD = 300
VOXELS = 40
# Voxels of the head that follow the film.
DRIVEN = 60
WIDTH = 6
# The graph's space has a component that stays silent.
ROOM = WIDTH + 1
WINDOW_S = 2.0
LATENT = (4, 3)


def front_graph() -> ModelProto:
    """Write a layer that reads volumes."""
    rng = np.random.default_rng(1)
    writer = GraphWriter()
    weights = {MAP: rng.standard_normal((SLOTS * VOXELS, ROOM)), OFFSET: rng.standard_normal(ROOM)}
    for name, value in weights.items():
        writer.constants.append(numpy_helper.from_array(value.astype(np.float32), name))
    has_volume = writer.add("ReduceMax", "fmri_mask", axes=[1], keepdims=1)
    read = writer.add("Add", writer.add("MatMul", writer.shaped("fmri", 1, SLOTS * VOXELS), MAP), OFFSET)
    reading = writer.add("Mul", read, has_volume)
    ports = {"fmri": [1, SLOTS, VOXELS], "fmri_mask": [1, SLOTS]}
    outputs = {READING: (reading, [1, ROOM]), PRESENT: (has_volume, [1, 1])}
    return writer.model(FRONT, ports, outputs)


def shared_graph(space: SharedSpace, gain: float = 1.0) -> ModelProto:
    """Write what all share: it bends what is read, and draws the latents that a reading stands for."""
    writer = GraphWriter()
    bent = writer.add("Mul", writer.add("Tanh", READING), PRESENT)
    latents = space.kinds["start"]
    drawing = np.zeros((ROOM, latents.basis.shape[1]))
    drawing[:WIDTH] = gain * latents.spread[:, None] * latents.basis
    about_mean = writer.add("MatMul", READING, writer.constant(drawing))
    start = writer.add("Add", about_mean, writer.constant(latents.mean))
    outputs = {
        "embedding": (bent, [1, ROOM]),
        "start": (writer.shaped(start, 1, *LATENT), [1, *LATENT]),
    }
    return writer.model("encode", {READING: [1, ROOM], PRESENT: [1, 1]}, outputs)


@dataclass(frozen=True)
class Newcomer:
    """Somebody of whose voxels some follow what a film shows, in the shared space."""

    fitter: SharedSpaceFitter
    recorded: Recorded
    story: Story

    def identify(self, held_out: np.ndarray, story: Story | None = None) -> float:
        return float(identified(held_out, self.recorded, story or self.story).mean())


@pytest.fixture(scope="module")
def newcomer() -> Newcomer:
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((WINDOWS, 1, 1)) + rng.standard_normal((WINDOWS, *LATENT))
    space = fit_space({"start": latents}, {"start": WIDTH})
    story = Story(space.points({"start": latents}), space.scale, WINDOW_S, {})
    volumes = 0.5 * rng.standard_normal((WINDOWS * SLOTS, HEAD)).astype(np.float32)
    mixing = rng.standard_normal((WIDTH, DRIVEN)) / 2
    # What a window shows reaches both of its volumes, under noise of their own.
    volumes[:, ::5] += np.repeat(story.targets @ mixing, SLOTS, axis=0).astype(np.float32)
    starts: NDArray[np.float64] = np.arange(WINDOWS) * WINDOW_S
    slot_s: NDArray[np.float64] = 4 + 2 * (np.arange(SLOTS) + 0.5)
    fmri = Fmri(
        head=Projection(np.arange(HEAD), (10, 6, 5), np.diag([3.0, 3.0, 3.0, 1.0])),
        level=np.full(HEAD, 500, np.float32),
        volumes=volumes,
        film=np.zeros(WINDOWS * SLOTS, np.int64),
        times=(starts[:, None] + slot_s).ravel(),
        rows=np.arange(WINDOWS * SLOTS).reshape(WINDOWS, SLOTS),
        slot_s=slot_s,
    )
    recorded = Recorded(None, fmri, np.zeros(WINDOWS, np.int64), starts)
    fitter = SharedSpaceFitter(
        base=bundle_of(space),
        front=front_graph(),
        graph=run_of(shared_graph(space)),
        space=space,
        codec=patch_codec.Codec(np.zeros(192, np.float32), np.eye(192, 4, dtype=np.float32)),
        frame_net={},
        kind="films",
    )
    return Newcomer(fitter, recorded, story)


def run_of(model: ModelProto) -> Graph:
    return Graph(model.SerializeToString(), f"{model.graph.name}.onnx", [CPU])


def bundle_of(space: SharedSpace, shipped: str = "cinesync-tiny") -> Bundle:
    """Take a shipped bundle for one that reads as many voxels, and states the space."""
    base = bundles.load(shipped)
    assert base.manifest.fmri is not None
    stats = space.arrays() | {name: np.ones(4, np.float32) for name in (*CODEC, "every")}
    manifest = replace(base.manifest, eeg=None, fmri=replace(base.manifest.fmri, voxels=VOXELS))
    return replace(base, manifest=manifest, stats=base.stats | stats)


def test_held_out_windows_are_identified_and_those_of_another_film_are_not(newcomer: Newcomer) -> None:
    fitted = newcomer.fitter.fit(newcomer.recorded, newcomer.story)
    assert newcomer.identify(fitted.held_out["fmri"]) > 0.9
    other = newcomer.story.shifted(0.4)
    control = newcomer.fitter.fit(newcomer.recorded, other)
    assert newcomer.identify(control.held_out["fmri"], other) < 0.65
    # Voxels are read that follow the film, and no others.
    assert fitted.voxels is not None
    assert (fitted.voxels % 5 == 0).mean() > 0.95
    assert len(fitted.voxels) == VOXELS
    assert fitted.statistics["fmri_scale"].shape == (VOXELS,)


def test_a_fit_is_judged_by_what_all_share_make_of_it(newcomer: Newcomer) -> None:
    readings = newcomer.identify(newcomer.fitter.fit(newcomer.recorded, newcomer.story).held_out["fmri"])
    # A layer that reads well, before weights that turn what it says round.
    turned = run_of(shared_graph(newcomer.fitter.space, gain=-1.0))
    amiss = replace(newcomer.fitter, graph=turned).fit(newcomer.recorded, newcomer.story)
    assert newcomer.identify(amiss.held_out["fmri"]) < 1 - 0.9 * readings
    # A bundle that draws nothing from what it reads is judged by the readings.
    reads_alone = GraphWriter()
    bent = reads_alone.add("Mul", READING, PRESENT)
    ports = {READING: [1, ROOM], PRESENT: [1, 1]}
    graph = run_of(reads_alone.model("encode", ports, {"embedding": (bent, [1, ROOM])}))
    alone = replace(newcomer.fitter, graph=graph).fit(newcomer.recorded, newcomer.story)
    assert newcomer.identify(alone.held_out["fmri"]) == pytest.approx(readings, abs=1e-6)


def test_a_film_is_put_into_the_space_by_what_the_bundle_says_of_it(newcomer: Newcomer) -> None:
    clip = newcomer.fitter.base.manifest.clip
    film = np.random.default_rng(3).integers(0, 256, (300, clip.height, clip.width, 3), np.uint8)
    codec = patch_codec.fit_codec(film[None, : clip.frames], 4)
    starts = np.arange(5) * 4.0
    recorded = replace(newcomer.recorded, start_s=starts, film=np.zeros(5, np.int64))
    length = int(newcomer.fitter.base.manifest.grid.window * newcomer.fitter.base.manifest.grid.fps)
    firsts = (starts * clip.fps).astype(int)
    steps = np.minimum(np.arange(clip.frames), length - 1)
    latents = patch_codec.encode(codec, film[firsts[:, None] + steps])
    space = fit_space({"start": latents}, {"start": 3})
    story = replace(newcomer.fitter, codec=codec, space=space).story(
        recorded, Screenings([film], ["film.mp4"], ["0"], [None])
    )
    np.testing.assert_allclose(story.targets, space.points({"start": latents}), atol=1e-6)


def test_the_graph_is_the_same_but_for_the_layer_and_gives_what_is_expected(newcomer: Newcomer) -> None:
    fitter = newcomer.fitter
    fitted = fitter.fit(newcomer.recorded, newcomer.story)
    graphs = fitter.graphs(fitted)
    # What all share is nobody's own.
    assert [*graphs] == [FRONT]
    model = graphs[FRONT]
    before = {tensor.name: tensor for tensor in fitter.front.graph.initializer}
    after = {tensor.name: tensor for tensor in model.graph.initializer}
    assert {name for name, tensor in after.items() if tensor != before[name]} == {MAP, OFFSET}
    assert list(model.graph.node) == list(fitter.front.graph.node)
    # The silent component stays silent.
    assert not layer_of(model)[MAP][:, WIDTH:].any()
    rng = np.random.default_rng(2)
    windows = {
        "fmri": rng.standard_normal((3, SLOTS, VOXELS)).astype(np.float32),
        "fmri_mask": np.ones((3, SLOTS), np.float32),
    }
    windows["fmri_mask"][1] = 0
    expected = fitter.expected(fitted, windows)["embedding"]
    layer = run_of(model)
    for row in range(3):
        window = {name: values[row : row + 1] for name, values in windows.items()}
        np.testing.assert_allclose(
            expected[row : row + 1], fitter.graph(layer(window))["embedding"], atol=1e-5
        )
    assert np.abs(expected[0] - expected[2]).max() > 0.1


def test_a_bundle_without_a_space_or_a_layer_is_refused(tmp_path: Path) -> None:
    base = bundles.load("cinesync-tiny")
    with refused(BundleError, "fit-missing-shared-space"):
        shared_space_fitter(base)
    space = fit_space({"start": np.random.default_rng(0).standard_normal((9, 4))}, {"start": 2})
    with refused(BundleError, "fit-missing-front"):
        shared_space_fitter(bundle_of(space))
    with refused(BundleError, "fit-missing-layer", missing_weights=[MAP, OFFSET]):
        shared_space_fitter(bundle_of(space, "cineneuron-tiny"))
    no_layer = onnx.load_model_from_string(base.read("encode.onnx"))
    assert layer_of(no_layer) == {}
    clip = fit_space({"clip": np.random.default_rng(0).standard_normal((9, 4))}, {"clip": 2})
    with refused(BundleError, "fit-missing-shared-space", missing_arrays=["frame_net_*"]):
        shared_space_fitter(bundle_of(clip))
