"""Wan's own names belong to the same parameters as diffusers says, and all of them are known."""

import pytest
from torch import nn

from tests.train.weights.models import cogvideox, wan
from train.weights.wan import original_names

# From the published checkpoints and adapters.
EXPECTED_NAMES = {
    "blocks.1.self_attn.q.weight": "blocks.1.attn1.to_q.weight",
    "blocks.0.self_attn.norm_k.weight": "blocks.0.attn1.norm_k.weight",
    "blocks.0.cross_attn.o.bias": "blocks.0.attn2.to_out.0.bias",
    "blocks.0.cross_attn.k_img.weight": "blocks.0.attn2.add_k_proj.weight",
    "blocks.0.cross_attn.norm_k_img.weight": "blocks.0.attn2.norm_added_k.weight",
    "blocks.0.norm3.weight": "blocks.0.norm2.weight",
    "blocks.1.ffn.2.weight": "blocks.1.ffn.net.2.weight",
    "blocks.0.modulation": "blocks.0.scale_shift_table",
    "head.modulation": "scale_shift_table",
    "head.head.bias": "proj_out.bias",
    "time_projection.1.weight": "condition_embedder.time_proj.weight",
    "img_emb.proj.4.bias": "condition_embedder.image_embedder.norm2.bias",
}


def test_each_parameter_has_one_original_name() -> None:
    module = wan(image=True)
    names = original_names(module)
    assert {name: names[name] for name in EXPECTED_NAMES} == EXPECTED_NAMES
    assert sorted(names.values()) == sorted(name for name, _ in module.named_parameters())


@pytest.mark.parametrize("module", [cogvideox(), nn.Linear(2, 2)])
def test_no_other_model_has_them(module: nn.Module) -> None:
    assert original_names(module) == {}
