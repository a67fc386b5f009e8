"""The encoder of MinD-Video on random windows: holes, what guidance leads away from, and its full size."""

from dataclasses import replace

import pytest
import torch

from rtdecode.errors import UsageError
from tests.refusals import refused
from train.models.conditioned.base import take_encoder
from train.models.conditioned.encoder import Signals
from train.models.mindvideo.encoder import SpaceTimeEncoder, SpaceTimeSizes
from train.parts.encoders.token_head import TokenHead
from train.parts.encoders.transformer import TrunkSizes

SIGNALS = Signals(slots=2, voxels=22, channels=0, samples=0)
SIZES = SpaceTimeSizes(TrunkSizes(2, 16, 2, 16), patch=4)
EMBEDDING = 6
CONDITIONS = 5
WIDTH = 8


def encoder(sizes: SpaceTimeSizes = SIZES) -> SpaceTimeEncoder:
    torch.manual_seed(0)
    return sizes.build(SIGNALS, EMBEDDING, CONDITIONS, WIDTH).eval()


def windows(count: int = 3) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {"fmri": torch.randn(count, 2, 22), "fmri_mask": torch.ones(count, 2)}


@torch.no_grad()
def test_windows_become_tokens_and_one_vector() -> None:
    encoded = encoder()(windows())
    assert encoded.tokens.shape == (3, CONDITIONS, WIDTH)
    assert encoded.classes["fmri"].shape == (3, EMBEDDING)
    model = encoder()
    torch.testing.assert_close(encoded.classes["fmri"], model.vector(encoded.tokens.mean(1)))


@torch.no_grad()
def test_values_of_a_volume_that_is_missing_are_not_read() -> None:
    model = encoder()
    signals = windows()
    signals["fmri_mask"][0, 1] = 0
    tokens = model(signals).tokens
    signals["fmri"][0, 1] = 7
    torch.testing.assert_close(model(signals).tokens, tokens)
    assert not torch.allclose(model(windows()).tokens[0], tokens[0])
    torch.testing.assert_close(model(windows()).tokens[1:], tokens[1:])


@torch.no_grad()
def test_guidance_leads_away_from_the_mean_brain_or_from_none() -> None:
    device = torch.device("cpu")
    model = encoder()
    model.mean_brain.normal_()
    mean = {"fmri": model.mean_brain[None], "fmri_mask": torch.ones(1, 2)}
    torch.testing.assert_close(model.negative(SIGNALS, device), model(mean).tokens[0])
    assert "mean_brain" in model.state_dict()
    null = encoder(replace(SIZES, negative="null"))
    null.load_state_dict(model.state_dict())
    expected = null({"fmri": torch.zeros(1, 2, 22), "fmri_mask": torch.zeros(1, 2)}).tokens[0]
    torch.testing.assert_close(null.negative(SIGNALS, device), expected)
    assert not torch.allclose(model.negative(SIGNALS, device), expected)
    # YAML's null is None.
    written = encoder(replace(SIZES, negative=None))
    written.load_state_dict(model.state_dict())
    torch.testing.assert_close(written.negative(SIGNALS, device), expected)


@torch.no_grad()
def test_what_is_attended_to_names_the_voxels_of_each_patch() -> None:
    model = encoder()
    shares = model.attended(windows())
    assert shares.shape == (3, 3, 6)
    torch.testing.assert_close(shares.sum(2), torch.ones(3, 3))
    assert (shares - 1 / 6).abs().max() > 1e-4
    voxels = model.patch_voxels()
    assert voxels.shape == (6, 4)
    assert voxels[-1].tolist() == [20, 21, 0, 1]
    # Of a volume that is missing, the stand-in is attended to.
    signals = windows()
    signals["fmri_mask"][0] = 0
    signals["fmri"][0] = 7
    holes = model.attended(signals)
    signals["fmri"][0] = 0
    torch.testing.assert_close(model.attended(signals), holes)


def test_an_encoder_of_other_voxels_does_not_begin_at_another() -> None:
    newcomer = SIZES.build(SIGNALS, EMBEDDING, CONDITIONS, WIDTH)
    take_encoder(newcomer, encoder())
    torch.testing.assert_close(newcomer.vector.weight, encoder().vector.weight)
    fewer = SIZES.build(replace(SIGNALS, voxels=12), EMBEDDING, CONDITIONS, WIDTH)
    with refused(UsageError, "base-encoder-shape-mismatch"):
        take_encoder(fewer, encoder())


def test_the_offset_is_added_to_the_tokens() -> None:
    head = TokenHead(12, 16, CONDITIONS, WIDTH, offset=True).eval()
    tokens = torch.randn(2, 12, 16)
    assert head.offset is not None
    with torch.no_grad():
        before = head(tokens)
        head.offset += 1
        torch.testing.assert_close(head(tokens), before + 1)
    assert encoder().offset is None
    assert encoder(replace(SIZES, offset=True)).offset is not None


def test_at_full_size_tokens_are_those_of_stable_diffusion() -> None:
    sizes = SpaceTimeSizes(TrunkSizes(24, 1024, 16, 1024))
    with torch.device("meta"):
        model = sizes.build(Signals(2, 6016, 0, 0), 768, 77, 768)
        encoded = model({"fmri": torch.zeros(1, 2, 6016), "fmri_mask": torch.ones(1, 2)})
    assert model.tokenizer.patches == 376
    assert encoded.tokens.shape == (1, 77, 768)
    blocks = sum(parameter.numel() for parameter in model.trunk.blocks.parameters())
    assert blocks / 1e6 == pytest.approx(252.05, abs=0.005)


@pytest.mark.full
def test_a_step_at_full_width_moves_every_part() -> None:
    sizes = SpaceTimeSizes(TrunkSizes(2, 1024, 16, 1024))
    torch.manual_seed(0)
    model = sizes.build(Signals(2, 6016, 0, 0), 768, 77, 768)
    signals = {"fmri": torch.randn(1, 2, 6016), "fmri_mask": torch.tensor([[1.0, 0.0]])}
    encoded = model(signals)
    (encoded.tokens.square().mean() + encoded.classes["fmri"].square().mean()).backward()
    # Behind an output map of zeros the attention over time gets its gradient with the second step.
    silent = ("attn_time.to_q", "attn_time.to_k", "attn_time.to_v", "norm_time")
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0 or any(part in name for part in silent), name


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"negative": "test"}, "encoder-negative-unknown"), ({"patch": 0}, "encoder-patch-invalid")],
)
def test_sizes_that_cannot_be_are_refused(changes: dict, code: str) -> None:
    with refused(UsageError, code, **changes):
        replace(SIZES, **changes)
