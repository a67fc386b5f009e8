"""The brain encoder of CineSync: its published sizes, its fusions, and what stands for a missing modality."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.lines import CPU, EXACT, nothing
from train.models.cinesync.encoder import FUSIONS, BrainEncoder, EncoderSizes
from train.models.cinesync.plan import CONTRASTS
from train.models.conditioned.encoder import Signals
from train.models.conditioned.trainable import BrainVideo
from train.parts.encoders.transformer import TrunkSizes
from train.parts.generators.cogvideox import VideoDiffusion, VideoSizes, transformer_of
from train.trainer import loop
from train.trainer.adapters import Adapter
from train.trainer.loader import Place

_FULL = TrunkSizes(depth=12, width=2048, heads=32, inner=8192, dropout=0.1)
_PAPER = EncoderSizes(fmri=_FULL, eeg=replace(_FULL, dropout=0.01), tokens=452, eeg_tokens=226)
_RELEASED = replace(_PAPER, hidden=0)
# Visual voxels, and visual with what the release calls auditory ones; 64 channels of 4 s at 1000 Hz.
_WINDOW = Signals(slots=5, voxels=8405, channels=64, samples=4000)
_WIDER = replace(_WINDOW, voxels=18946)
_SMALL = TrunkSizes(depth=2, width=16, heads=2, inner=24)
_SIZES = EncoderSizes(fmri=_SMALL, eeg=_SMALL, tokens=12, eeg_tokens=6)
_SIGNALS = Signals(slots=2, voxels=30, channels=3, samples=20)


def _inputs(signals: Signals, count: int = 2) -> dict[str, Tensor]:
    return {
        "fmri": torch.randn(count, signals.slots, signals.voxels),
        "fmri_mask": torch.ones(count, signals.slots),
        "eeg": torch.randn(count, signals.channels, signals.samples),
        "eeg_mask": torch.ones(count, signals.samples),
    }


def _made(sizes: EncoderSizes, conditions: int = 6) -> BrainEncoder:
    torch.manual_seed(0)
    return BrainEncoder(sizes, _SIGNALS, embedding=5, conditions=conditions, width=10).eval()


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("sizes", "signals", "millions"),
    [
        # Twice 604.3 for the blocks; tokenizers, class tokens, positions, heads, projections and null tokens;
        # and 33.6 for two fusing layers of 4096, or 16.8 for the one of the release.
        (_PAPER, _WINDOW, 1259.7),
        (_RELEASED, _WIDER, 1245.3),
    ],
)
def test_at_full_size_it_has_the_published_number_of_parameters_and_tokens(
    sizes: EncoderSizes, signals: Signals, millions: float
) -> None:
    with torch.device("meta"):
        encoder = BrainEncoder(sizes, signals, embedding=1152, conditions=226, width=4096)
        encoded = encoder(_inputs(signals, 1))
    trunk = _count(encoder.encoding.get_submodule("trunks.fmri"))
    # Four maps of 2048 x 2048, two of 2048 x 8192, their offsets, and two norms, in each of 12 blocks.
    assert trunk == 12 * (12 * 2048**2 + 4 * 2048 + (8192 + 2048) + 4 * 2048)
    assert _count(encoder) / 1e6 == pytest.approx(millions, abs=0.1)
    assert encoded.tokens.shape == (1, 226, 4096)
    assert {name: x.shape for name, x in encoded.classes.items()} == {"fmri": (1, 1152), "eeg": (1, 1152)}


def test_an_offset_is_added_to_each_token_of_the_condition() -> None:
    encoder = _made(replace(_SIZES, offset=True))
    assert _count(encoder) == _count(_made(_SIZES)) + 6 * 10
    inputs = _inputs(_SIGNALS)
    with torch.no_grad():
        before = encoder(inputs).tokens
        assert torch.equal(before, _made(_SIZES)(inputs).tokens)
        offset = encoder.fusion.offset
        assert offset is not None
        offset += torch.arange(6.0)[:, None]
        moved = encoder(inputs).tokens - before
    assert torch.allclose(moved, torch.arange(6.0)[:, None].expand(2, 6, 10), atol=1e-5)


def test_at_full_size_the_generator_is_cogvideox_5b() -> None:
    latent = (16, 9, 60, 90)
    with torch.device("meta"):
        video = VideoDiffusion(transformer_of(VideoSizes(), latent), latent)
        predicted = video(
            torch.randn(1, *latent), torch.zeros(1, dtype=torch.long), torch.randn(1, 226, 4096)
        )
    assert predicted.shape == (1, *latent)
    assert _count(video.transformer) / 1e9 == pytest.approx(5.57, abs=0.005)
    # 9 latent frames of 30 x 45 patches, and 64 values a head.
    assert video.cosines.shape == (12150, 64)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_makes_a_condition_of_both_modalities(fusion: str) -> None:
    encoder = _made(replace(_SIZES, fusion=fusion))
    inputs = _inputs(_SIGNALS)
    tokens = encoder(inputs).tokens
    # Spatial fusion lays the tokens of both one after the other.
    assert tokens.shape == (2, 12 if fusion == "spatial" else 6, 10)
    for name in ("fmri", "eeg"):
        other = encoder(inputs | {name: _inputs(_SIGNALS)[name]}).tokens
        assert not torch.equal(tokens, other)


@pytest.mark.parametrize("eeg_tokens", [2, 6, 9])
def test_eeg_may_have_more_tokens_at_the_cost_of_fmri(eeg_tokens: int) -> None:
    encoder = _made(replace(_SIZES, eeg_tokens=eeg_tokens))
    counts = {name: encoder.nulls[name].shape[1] for name in ("fmri", "eeg")}
    assert counts == {"fmri": 12 - eeg_tokens, "eeg": eeg_tokens}
    assert encoder(_inputs(_SIGNALS)).tokens.shape == (2, 6, 10)


def test_modalities_may_differ_in_width() -> None:
    wide = replace(_SMALL, width=32)
    encoder = _made(replace(_SIZES, eeg=wide))
    assert encoder(_inputs(_SIGNALS)).tokens.shape == (2, 6, 10)


@pytest.mark.parametrize("modality", ["fmri", "eeg"])
def test_one_modality_alone_reads_nothing_of_the_other(modality: str) -> None:
    encoder = _made(replace(_SIZES, modalities=[modality]))
    inputs = {name: x for name, x in _inputs(_SIGNALS).items() if name.startswith(modality)}
    encoded = encoder(inputs)
    assert list(encoded.classes) == [modality]
    assert encoded.tokens.shape == (2, 6, 10)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_null_tokens_stand_for_a_modality_that_is_missing(fusion: str) -> None:
    encoder = _made(replace(_SIZES, fusion=fusion))
    inputs = _inputs(_SIGNALS)
    without = inputs | {"eeg_mask": torch.zeros_like(inputs["eeg_mask"])}
    encoded = encoder(without)
    # Whatever the port holds is not read.
    assert torch.equal(encoded.tokens, encoder(without | {"eeg": 9 * torch.ones_like(inputs["eeg"])}).tokens)
    assert not torch.equal(encoded.tokens, encoder(inputs).tokens)
    with torch.no_grad():
        encoder.nulls["eeg"].add_(1.0)
    assert not torch.equal(encoded.tokens, encoder(without).tokens)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_zeros_stand_for_what_is_missing_where_the_recipe_says_so(fusion: str) -> None:
    encoder = _made(replace(_SIZES, fusion=fusion, missing="zeros"))
    assert list(encoder.nulls) == []
    inputs = _inputs(_SIGNALS)
    without = inputs | {"eeg_mask": torch.zeros_like(inputs["eeg_mask"])}
    condition = encoder(without).tokens
    assert torch.equal(condition, encoder(without | {"eeg": 9 * torch.ones_like(inputs["eeg"])}).tokens)
    assert condition.abs().max() > 0
    half = inputs | {name: torch.cat([x[:1], 0 * x[1:]]) for name, x in inputs.items()}
    tokens = encoder(half).tokens
    assert torch.allclose(tokens[0], encoder(inputs).tokens[0], atol=1e-6)
    # Without both, the whole condition is zero, whatever the fusing map adds.
    assert torch.equal(tokens[1], torch.zeros_like(tokens[1]))


def test_the_weights_of_attention_have_dropout_in_training_alone() -> None:
    trunk = replace(_SMALL, attention_dropout=0.5)
    encoder = _made(replace(_SIZES, fmri=trunk, eeg=trunk))
    inputs = _inputs(_SIGNALS)
    assert torch.equal(encoder(inputs).tokens, _made(_SIZES)(inputs).tokens)
    encoder.train()
    assert not torch.equal(encoder(inputs).tokens, encoder(inputs).tokens)


def test_class_tokens_and_positions_begin_with_the_spread_of_the_recipe() -> None:
    wide = replace(_SMALL, spread=1.0)
    entries = _made(replace(_SIZES, fmri=wide, eeg=wide)).encoding.get_submodule("entries")
    narrow = _made(_SIZES).encoding.get_submodule("entries")
    for (name, values), (_, narrow_values) in zip(
        entries.named_parameters(), narrow.named_parameters(), strict=True
    ):
        assert torch.allclose(values, 50 * narrow_values), name


def test_the_mean_class_vector_rests_on_what_is_there() -> None:
    encoder = _made(_SIZES)
    inputs = _inputs(_SIGNALS)
    inputs["eeg_mask"] = torch.tensor([[1.0] * 20, [0.0] * 20])
    inputs["fmri_mask"] = torch.ones(2, 2)
    encoded = encoder(inputs)
    pooled = encoder.pooled(encoded, inputs)
    unit = {name: torch.nn.functional.normalize(x, dim=1) for name, x in encoded.classes.items()}
    both = torch.nn.functional.normalize(unit["fmri"][0] + unit["eeg"][0], dim=0)
    assert torch.allclose(pooled[0], both, atol=1e-6)
    assert torch.allclose(pooled[1], unit["fmri"][1], atol=1e-6)
    nothing = {name: torch.zeros_like(x) for name, x in inputs.items()}
    assert torch.isfinite(encoder.pooled(encoder(nothing), nothing)).all()


def test_sizes_that_cannot_be_are_refused() -> None:
    with refused(UsageError, "encoder-fusion-unknown", available=list(FUSIONS), fusion="late"):
        replace(_SIZES, fusion="late")
    with refused(UsageError, "encoder-modalities-unknown", modalities=["meg"]):
        replace(_SIZES, modalities=["meg"])
    with refused(UsageError, "encoder-missing-unknown", available=["learned", "zeros"], missing="noise"):
        replace(_SIZES, missing="noise")
    with refused(UsageError, "transformer-dropout-out-of-range", share=1.0):
        replace(_SMALL, attention_dropout=1.0)
    with refused(UsageError, "eeg-tokens-out-of-range", eeg_tokens=12):
        replace(_SIZES, eeg_tokens=12)


@pytest.mark.full
def test_one_step_of_both_phases_at_full_width_and_two_layers(tmp_path: Path) -> None:
    """All weights are as wide as theirs. The latents are few, as 12150 tokens take a processor minutes.

    In single precision: a processor without AVX-512 takes ten times as long in bfloat16.
    """
    latent = (16, 2, 4, 6)
    two = TrunkSizes(depth=2, width=2048, heads=32, inner=8192, dropout=0.1)
    torch.manual_seed(0)
    encoder = BrainEncoder(
        replace(_PAPER, fmri=two, eeg=two), _WINDOW, embedding=1152, conditions=226, width=4096
    )
    video = VideoDiffusion(transformer_of(VideoSizes(layers=2), latent), latent)
    system = BrainVideo(encoder, video, encoder.frame_pooling(33), CONTRASTS)
    align = replace(EXACT, losses=dict.fromkeys(CONTRASTS, 1.0), steps=1, accumulate=1, warmup=0)
    lora = Adapter(["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"], rank=64, alpha=64)
    phases = {
        "align": replace(align, trained=["encoder.encoding.*", "encoder.heads.*", "pooling.*"]),
        "diffuse": replace(
            align,
            losses={"denoising": 1.0},
            trained=["encoder.fusion.*"],
            adapters={"video.transformer": replace(lora, merge=False)},
        ),
    }

    def draw(place: Place) -> dict[str, Tensor]:
        return _inputs(_WINDOW) | {
            "frames": torch.randn(2, 33, 1152),
            "text": torch.randn(2, 1152),
            "latents": torch.randn(2, *latent),
            "noise": torch.randn(2, *latent),
            "level": torch.tensor([10, 990]),
        }

    log = loop.train(system, phases, draw, tmp_path, nothing, machine=CPU)
    assert [row["phase"] for row in log] == ["align", "diffuse"]
    assert all(np.isfinite(row["loss"]) for row in log)
    # Two vectors for each of two windows: as good as a guess.
    assert log[0]["losses"]["fmri_eeg"] == pytest.approx(np.log(2), abs=1.5)
