"""The transformer of the brain encoders is the one that torch has, and takes class token and positions."""

from dataclasses import replace

import torch
from torch import nn

from rtdecode.errors import UsageError
from tests.refusals import refused
from train.parts.encoders.transformer import Block, Entry, Trunk, TrunkSizes

_SIZES = TrunkSizes(depth=2, width=24, heads=3, inner=40)


def _torchs(block: Block) -> nn.TransformerEncoderLayer:
    """Make torch's own layer with the weights of a block."""
    layer = nn.TransformerEncoderLayer(
        24, 3, 40, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    attention = block.attn
    into = (attention.to_q, attention.to_k, attention.to_v)
    layer.load_state_dict(
        {
            "self_attn.in_proj_weight": torch.cat([projection.weight for projection in into]),
            "self_attn.in_proj_bias": torch.cat([projection.bias for projection in into]),
            "self_attn.out_proj.weight": attention.to_out.weight,
            "self_attn.out_proj.bias": attention.to_out.bias,
            "linear1.weight": block.ff[0].weight,
            "linear1.bias": block.ff[0].bias,
            "linear2.weight": block.ff[3].weight,
            "linear2.bias": block.ff[3].bias,
            "norm1.weight": block.norm1.weight,
            "norm1.bias": block.norm1.bias,
            "norm2.weight": block.norm2.weight,
            "norm2.bias": block.norm2.bias,
        }
    )
    return layer


def test_a_block_is_torchs_own_layer() -> None:
    torch.manual_seed(0)
    block = Block(_SIZES)
    tokens = torch.randn(2, 7, 24)
    assert torch.allclose(block(tokens), _torchs(block)(tokens), atol=1e-5)


def test_a_block_with_cross_attention_reads_the_other_sequence() -> None:
    torch.manual_seed(0)
    block = Block(_SIZES, cross=True)
    tokens = torch.randn(1, 4, 24)
    context = torch.randn(1, 6, 24)
    assert block(tokens, context).shape == tokens.shape
    assert not torch.allclose(block(tokens, context), block(tokens, context.flip(2)))
    # The order of the other sequence does not matter, as attention has no positions of its own.
    assert torch.allclose(block(tokens, context), block(tokens, context.flip(1)), atol=1e-5)


def test_the_class_token_stands_first_and_every_token_has_its_place() -> None:
    torch.manual_seed(0)
    entry = Entry(5, 24)
    tokens = torch.randn(2, 5, 24)
    entered = entry(tokens)
    assert entered.shape == (2, 6, 24)
    assert torch.equal(entered[0, 0], entered[1, 0])
    assert torch.equal(entered[:, 1:], tokens + entry.positions[:, 1:])
    # Without positions, tokens in another order would be encoded to the same in another order.
    trunk = Trunk(_SIZES)
    assert not torch.allclose(trunk(entry(tokens))[:, 0], trunk(entry(tokens.flip(1)))[:, 0])


def test_activations_that_are_computed_again_give_the_same_gradients() -> None:
    plain = Trunk(replace(_SIZES, dropout=0.3))
    again = Trunk(replace(_SIZES, dropout=0.3, recompute=True))
    again.load_state_dict(plain.state_dict())
    tokens = torch.randn(2, 7, 24)
    gradients = []
    for trunk in (plain, again):
        torch.manual_seed(0)
        trunk(tokens).square().sum().backward()
        gradients.append([parameter.grad for parameter in trunk.parameters()])
    for first, second in zip(*gradients, strict=True):
        assert first is not None
        assert first.abs().sum() > 0
        torch.testing.assert_close(first, second)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with refused(UsageError, "transformer-width-indivisible", heads=5, width=24):
        TrunkSizes(depth=1, width=24, heads=5, inner=8)
    with refused(UsageError, "transformer-size-too-small", key="depth", actual=0):
        TrunkSizes(depth=0, width=24, heads=3, inner=8)
