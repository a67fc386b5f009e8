"""When fMRI and EEG see each other, by each way to encode them."""

import pytest
import torch
from torch import Tensor, nn

from rtdecode.errors import UsageError
from tests.refusals import refused
from train.parts.encoders.fusion import CrossAttentionTrunks, JointTrunk, SeparateThenJoint, SeparateTrunks
from train.parts.encoders.transformer import TrunkSizes

_SIZES = {name: TrunkSizes(depth=2, width=16, heads=2, inner=24) for name in ("fmri", "eeg")}
_TOKENS = {"fmri": 5, "eeg": 7}


def _tokens(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(2, count, 16, generator=generator) for name, count in _TOKENS.items()}


@pytest.mark.parametrize("way", [SeparateTrunks, JointTrunk, SeparateThenJoint, CrossAttentionTrunks])
def test_a_class_token_comes_to_stand_before_the_tokens_of_each(way: type[nn.Module]) -> None:
    torch.manual_seed(0)
    encoded = way(_SIZES, _TOKENS)(_tokens(1))
    assert list(encoded) == ["fmri", "eeg"]
    assert {name: x.shape for name, x in encoded.items()} == {"fmri": (2, 6, 16), "eeg": (2, 8, 16)}


@pytest.mark.parametrize(
    ("way", "see"),
    [(SeparateTrunks, False), (JointTrunk, True), (SeparateThenJoint, True), (CrossAttentionTrunks, True)],
)
def test_modalities_see_each_other_but_apart(way: type[nn.Module], see: bool) -> None:
    torch.manual_seed(0)
    encoding = way(_SIZES, _TOKENS)
    tokens = _tokens(1)
    other = tokens | {"eeg": _tokens(2)["eeg"]}
    changed = not torch.equal(encoding(tokens)["fmri"], encoding(other)["fmri"])
    assert changed == see
    assert not torch.equal(encoding(tokens)["eeg"], encoding(other)["eeg"])


def test_two_stages_share_the_depth() -> None:
    sizes = {name: TrunkSizes(depth=5, width=16, heads=2, inner=24) for name in ("fmri", "eeg")}
    encoding = SeparateThenJoint(sizes, _TOKENS)
    assert len(encoding.apart.trunks["eeg"].get_submodule("blocks")) == 2  # pyright: ignore[reportArgumentType]
    assert len(encoding.trunk.blocks) == 3


def test_what_cannot_be_fused_is_refused() -> None:
    wide = TrunkSizes(depth=2, width=32, heads=2, inner=24)
    with refused(UsageError, "fusion-sizes-mismatch", fusion="joint", second_sizes=wide):
        JointTrunk(_SIZES | {"eeg": wide}, _TOKENS)
    with refused(UsageError, "fusion-missing-modality", fusion="joint", modalities=["fmri"]):
        JointTrunk({"fmri": _SIZES["fmri"]}, _TOKENS)
    with refused(UsageError, "fusion-too-few-blocks"):
        SeparateThenJoint({name: TrunkSizes(1, 16, 2, 24) for name in _SIZES}, _TOKENS)
    # Apart, each may be as wide as it likes, and alone.
    assert SeparateTrunks({"eeg": wide}, _TOKENS)({"eeg": torch.randn(1, 7, 32)})["eeg"].shape == (1, 8, 32)
