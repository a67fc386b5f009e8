"""The encoder of Brain Netflix reads each participant by their own layer, and begins in closed form."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtdecode.errors import UsageError
from rtdecode.signal.eeg.band import EegBand
from rtdecode.signal.volume.baseline import Baseline
from rtdecode.signal.volume.projection import Projection
from tests.refusals import refused
from train.closed_form.shared_space import Layer
from train.config.run_context import Arrays
from train.data.nodes import grid
from train.data.phantom import Participant, manifest
from train.interface.system import Stage, Traced
from train.models.brainnetflix.encoder import (
    CORRECTION,
    FMRI,
    PARTICIPANT,
    START,
    VECTOR,
    Head,
    Residual,
    SharedEncoder,
    SharedSizes,
    Stem,
)
from train.models.conditioned.encoder import Signals
from train.models.conditioned.system import BrainConditioned, Sampling
from train.parts.generators.clip_unet import ClipUNetSizes

SIZES = SharedSizes(clip=3, start=2, hidden=8, blocks=2, dropout=0.0, tokens=4, latent=(2, 3, 2, 2))
WIDTH = 5
SIGNALS = Signals(2, 7, 0, 0)
# Of two volumes and seven voxels.
MANIFEST = manifest(
    Participant(),
    grid(tr=2, window=2, hop=2, lag=4, sfreq=125, fps=3, after=1),
    EegBand(),
    Baseline(0, 0.005),
    Projection(np.arange(7), (7, 1, 1), np.eye(4)),
)
OTHER = Signals(2, 9, 0, 0)
EMBEDDING = 6
CONDITIONS = 4
TEXT = 8
ROWS = 60


def encoder() -> SharedEncoder:
    """Two participants with other voxel counts, and heads that began at random values."""
    torch.manual_seed(0)
    shared = SIZES.build(SIGNALS, EMBEDDING, CONDITIONS, TEXT)
    shared.stems.append(Stem(OTHER, WIDTH))
    rng = np.random.default_rng(0)
    for name, parameter in shared.stems.named_parameters():
        if name.endswith("map"):
            torch.nn.init.normal_(parameter)
    values = {
        VECTOR: rng.standard_normal((ROWS, EMBEDDING)),
        "tokens": rng.standard_normal((ROWS, CONDITIONS, TEXT)),
        START: rng.standard_normal((ROWS, *SIZES.latent)),
    }
    shared.begin(
        rng.standard_normal((ROWS, WIDTH)), {name: x.astype(np.float32) for name, x in values.items()}
    )
    return shared.eval()


def window(signals: Signals = SIGNALS, rows: int = 3) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {
        FMRI: torch.randn(rows, signals.slots, signals.voxels),
        f"{FMRI}_mask": torch.ones(rows, signals.slots),
    }


@torch.no_grad()
def test_a_stem_is_the_layer_that_was_found() -> None:
    rng = np.random.default_rng(2)
    inputs = SIGNALS.slots * SIGNALS.voxels
    layer = Layer(
        mean=rng.standard_normal(inputs),
        map=rng.standard_normal((inputs, WIDTH - 1)),
        offset=rng.standard_normal(WIDTH - 1),
        explained=np.ones(WIDTH - 1),
        held_out=np.zeros((0, WIDTH - 1)),
    )
    stem = Stem(SIGNALS, WIDTH)
    stem.take(layer)
    signals = window()
    read = stem(signals[FMRI], signals[f"{FMRI}_mask"]).numpy()
    np.testing.assert_allclose(read[:, :-1], layer.read(signals[FMRI].flatten(1).numpy()), atol=1e-4)
    assert not read[:, -1].any()
    # A volume that is missing is taken to be the mean of the others, whatever stands in its place.
    signals[f"{FMRI}_mask"][:, 1] = 0
    twice = signals[FMRI][:, :1].expand(-1, 2, -1)
    filled = stem(signals[FMRI], signals[f"{FMRI}_mask"])
    torch.testing.assert_close(filled, stem(twice, torch.ones(3, 2)))


@torch.no_grad()
def test_the_perceptron_passes_on_what_it_reads_until_it_learns() -> None:
    block = Residual(WIDTH, 8, 0.5).eval()
    values = torch.randn(4, WIDTH)
    assert torch.equal(block(values), values)


@torch.no_grad()
def test_a_head_begins_at_the_regression_of_what_it_shall_say() -> None:
    rng = np.random.default_rng(3)
    points = rng.standard_normal((ROWS, WIDTH))
    # Values of 24 numbers that differ in two ways, which points tell but for a little noise.
    ways = points[:, :2] + 0.01 * rng.standard_normal((ROWS, 2))
    values = (ways @ rng.standard_normal((2, 24)) + 3).reshape(ROWS, 4, 6).astype(np.float32)
    head = Head(WIDTH, 5, (4, 6))
    head.begin(points, values)
    values_read = head(torch.from_numpy(points).float()).numpy()
    assert np.abs(values_read - values).max() < 0.2
    # Two components say it all, and the others are silent.
    assert not head.basis[2:].any()
    assert not head.to_components.weight[2:].any()


@torch.no_grad()
def test_each_is_read_by_their_own_layer_and_corrected_while_they_teach() -> None:
    shared = encoder()
    first = window()
    second = window(OTHER)
    torch.testing.assert_close(shared.read(first), shared.stems[0](first[FMRI], first[f"{FMRI}_mask"]))
    read = shared.read({**second, PARTICIPANT: torch.tensor(1)})
    torch.testing.assert_close(read, shared.stems[1](second[FMRI], second[f"{FMRI}_mask"]))
    correction = torch.randn(3, WIDTH)
    corrected = shared.read({**second, PARTICIPANT: torch.tensor(1), CORRECTION: correction})
    torch.testing.assert_close(corrected, read + correction)
    # One layer for all reads everybody.
    shared.stems = shared.stems[:1]
    torch.testing.assert_close(shared.read({**first, PARTICIPANT: torch.tensor(1)}), shared.read(first))


@torch.no_grad()
def test_a_window_without_a_volume_has_the_tokens_of_no_caption() -> None:
    shared = encoder()
    signals = window()
    signals[f"{FMRI}_mask"][0] = 0
    encoded = shared(signals)
    assert not encoded.tokens[0].any()
    assert encoded.tokens[1:].abs().amax((1, 2)).min() > 0
    signals[FMRI][0] = 100.0
    changed = shared(signals)
    torch.testing.assert_close(changed.predicted[START][0], encoded.predicted[START][0])
    assert not shared.negative(SIGNALS, torch.device("cpu")).any()


class Undecoded(BrainConditioned):
    """A system that has no decoder, and draws latents alone."""

    latent_shape = SIZES.latent

    def drawing(self) -> list[Stage]:
        return []

    def frames(self, latents: NDArray[Any]) -> NDArray[Any]:
        raise NotImplementedError

    def weights(self) -> Arrays:
        raise NotImplementedError


def system_of(shared: SharedEncoder, start_level: float) -> Undecoded:
    video = ClipUNetSizes(channels=[4, 8], layers=1, head=4, groups=2, text=TEXT)
    sampling = Sampling(2, 2.0, start_level=start_level)
    return Undecoded(shared, video.generator(SIZES.latent, 1.0), SIGNALS, sampling)


@torch.no_grad()
def test_an_export_says_where_clips_start() -> None:
    shared = encoder()
    signals = window(rows=1)
    system = system_of(shared, start_level=0.836)
    # Each participant has the layer alone of its own.
    assert system.own_stages == ("front",)
    front, encode, *_ = system.stages(MANIFEST)
    assert isinstance(front, Traced)
    assert isinstance(encode, Traced)
    assert front.outputs == [*encode.inputs] == ["reading", "present"]
    assert encode.outputs == ["condition", "embedding", "start", "start_level"]
    tokens, pooled, start, level = encode.module(*front.module(*signals.values()))
    torch.testing.assert_close(tokens, shared(signals).tokens)
    torch.testing.assert_close(start, shared(signals).predicted[START])
    assert pooled.norm().item() == pytest.approx(1, abs=1e-5)
    assert level.tolist() == [[pytest.approx(0.836)]]
    _, without, *_ = system_of(shared, start_level=1.0).stages(MANIFEST)
    assert isinstance(without, Traced)
    assert without.outputs == ["condition", "embedding"]


@torch.no_grad()
def test_a_window_without_a_volume_is_read_as_nothing_by_both_stages() -> None:
    shared = encoder()
    signals = window(rows=2)
    signals[f"{FMRI}_mask"][1] = 0
    read = shared.front(signals)
    assert read["present"].tolist() == [[1], [0]]
    assert not read["reading"][1].any()
    at_once = shared(signals)
    in_two = shared(read)
    assert not in_two.tokens[1].any()
    torch.testing.assert_close(at_once.tokens, in_two.tokens, rtol=0, atol=0)
    torch.testing.assert_close(at_once.predicted[START], in_two.predicted[START], rtol=0, atol=0)


def test_at_full_size_tokens_are_those_of_zeroscope() -> None:
    sizes = replace(SIZES, clip=512, start=512, hidden=4096, blocks=4, tokens=256, latent=(4, 15, 32, 32))
    with torch.device("meta"):
        full = sizes.build(Signals(2, 8405, 0, 0), 768, 77, 1024)
        signals = {FMRI: torch.zeros(1, 2, 8405), f"{FMRI}_mask": torch.zeros(1, 2)}
        encoded = full(signals)
    assert encoded.tokens.shape == (1, 77, 1024)
    assert encoded.predicted[START].shape == (1, 4, 15, 32, 32)
    trunk = sum(parameter.numel() for parameter in full.trunk.parameters())
    # Four blocks of a norm, a layer in and a layer out.
    assert trunk == 4 * (2 * 1024 + (1024 + 1) * 4096 + (4096 + 1) * 1024)


@pytest.mark.parametrize("changes", [{"stem": "convolution"}])
def test_sizes_that_cannot_be_are_refused(changes: dict[str, Any]) -> None:
    with refused(UsageError, "shared-space-stem-unknown", stem="convolution"):
        replace(SIZES, **changes)
