"""Adapters in every dialect are merged as PEFT merges them, to the bit, and every key of them is used."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.weights.models import cogvideox, same, wan
from train.weights.lora import read
from train.weights.merging import merge
from train.weights.wan import original_names

LICENCE = "Apache-2.0"
RANK = 2
ALPHA = 6
WAN = [
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "net.0.proj",
    "net.2",
    "time_proj",
    "add_k_proj",
    "patch_embedding",
]
COG = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]

# Name of a layer -> first factor, second factor, and the bias of the second.
Parts = dict[str, tuple[Tensor, Tensor, Tensor | None]]


def adapted(module: nn.Module, layers: list[str], **options: Any) -> Any:
    """Put a random adapter of PEFT on a copy of a module."""
    torch.manual_seed(7)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=layers, init_lora_weights=False, **options)
    return get_peft_model(copy.deepcopy(module), config)


def parts(model: Any) -> Parts:
    factors: Parts = {}
    for name, layer in model.base_model.model.named_modules():
        if hasattr(layer, "lora_A"):
            up = layer.lora_B["default"]
            bias = None if up.bias is None else up.bias.data
            factors[name] = (layer.lora_A["default"].weight.data, up.weight.data, bias)
    return factors


def written(path: Path, state: dict[str, Tensor]) -> Path:
    save_file({name: value.clone().contiguous() for name, value in state.items()}, path)
    return path


def dialect(
    adapter_parts: Parts, name: Callable[[str], str], down: str, up: str, *, alpha: bool = True
) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for layer, (first, second, bias) in adapter_parts.items():
        state[f"{name(layer)}.{down}.weight"] = first
        state[f"{name(layer)}.{up}.weight"] = second
        if bias is not None:
            state[f"{name(layer)}.{up}.bias"] = bias
        if alpha:
            state[f"{name(layer)}.alpha"] = torch.tensor(float(ALPHA))
    return state


def in_wan_names(module: nn.Module) -> Callable[[str], str]:
    names = {target: name for name, target in original_names(module).items()}
    return lambda layer: names[f"{layer}.weight"].removesuffix(".weight")


def flat(name: str) -> str:
    return name.replace(".", "_")


DIALECTS: dict[str, Callable[[Parts, Callable[[str], str]], dict[str, Tensor]]] = {
    "diffusion_model": lambda p, n: dialect(p, lambda x: f"diffusion_model.{n(x)}", "lora_A", "lora_B"),
    "model.diffusion_model": lambda p, n: dialect(
        p, lambda x: f"model.diffusion_model.{n(x)}", "lora_down", "lora_up"
    ),
    "lora_unet": lambda p, n: dialect(p, lambda x: f"lora_unet_{flat(n(x))}", "lora_down", "lora_up"),
    "transformer": lambda p, n: dialect(p, lambda x: f"transformer.{x}", "lora_A", "lora_B"),
    "base_model": lambda p, n: dialect(p, lambda x: f"base_model.model.{x}", "lora_A", "lora_B"),
    "named adapter": lambda p, n: dialect(p, lambda x: x, "lora_A.default", "lora_B.default"),
    "bare": lambda p, n: dialect(p, n, "lora_down", "lora_up"),
}


@pytest.mark.parametrize("scale", [1.0, 0.35])
@pytest.mark.parametrize("spoken", list(DIALECTS))
def test_wan_is_merged_as_peft_does(tmp_path: Path, spoken: str, scale: float) -> None:
    module = wan(image=True)
    model = adapted(module, WAN)
    path = written(tmp_path / "a.safetensors", DIALECTS[spoken](parts(model), in_wan_names(module)))
    assert_merged_alike(module, model, path, scale)


@pytest.mark.parametrize("spoken", ["transformer", "base_model", "lora_unet", "bare"])
def test_cogvideox_is_merged_as_peft_does(tmp_path: Path, spoken: str) -> None:
    module = cogvideox()
    model = adapted(module, COG, lora_bias=True)
    path = written(tmp_path / "a.safetensors", DIALECTS[spoken](parts(model), str))
    assert_merged_alike(module, model, path, 1.0)


@pytest.mark.parametrize("rooted", [False, True])
def test_the_folder_of_peft_is_read_with_its_settings(tmp_path: Path, rooted: bool) -> None:
    module = cogvideox()
    pattern = {"to_q": 3, r"transformer_blocks\.1\.attn1\.to_v": 5}
    model = adapted(module, COG, alpha_pattern=pattern, use_rslora=rooted)
    model.save_pretrained(tmp_path)
    lora = read(tmp_path, module, licence=LICENCE)
    assert [path.name for path in lora.source.paths] == ["adapter_config.json", "adapter_model.safetensors"]
    if not rooted:
        assert {factors.alpha for factors in lora.layers.values()} == {3.0, 5.0, float(ALPHA)}
        assert_merged_alike(module, model, tmp_path, 1.0)
        return
    # The root of the rank is rounded once more than by PEFT.
    merge(module, lora)
    expected = dict(model.merge_and_unload().named_parameters())
    for name, value in module.named_parameters():
        torch.testing.assert_close(value, expected[name])


def test_the_header_of_diffusers_is_read(tmp_path: Path) -> None:
    module = wan()
    model = wan()
    torch.manual_seed(7)
    model.add_adapter(
        LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["to_q"], init_lora_weights=False), "mine"
    )
    model.save_lora_adapter(tmp_path, adapter_name="mine")
    lora = read(tmp_path / "pytorch_lora_weights.safetensors", module, licence=LICENCE)
    assert {factors.alpha for factors in lora.layers.values()} == {float(ALPHA)}
    merge(module, lora)
    model.fuse_lora()
    model.unload_lora()
    assert same(module, model)


def assert_merged_alike(module: nn.Module, model: Any, path: Path, scale: float) -> None:
    before = copy.deepcopy(module)
    lora = read(path, module, licence=LICENCE)
    assert same(module, before)
    merge(module, lora, scale)
    for layer in model.base_model.model.modules():
        if hasattr(layer, "lora_A"):
            layer.set_scale("default", scale)
    expected = model.merge_and_unload()
    assert same(module, expected)
    assert not same(module, before)


def differences(module: nn.Module) -> dict[str, Tensor]:
    """Differences under the names of LightX2V, each of another value."""
    parameters = dict(module.named_parameters())
    names = original_names(module)
    changes: dict[str, Tensor] = {}
    for key, parameter in {
        "blocks.0.self_attn.q.diff_b": "blocks.0.self_attn.q.bias",
        "blocks.0.cross_attn.norm_k_img.diff": "blocks.0.cross_attn.norm_k_img.weight",
        "blocks.1.norm3.diff": "blocks.1.norm3.weight",
        "blocks.1.norm3.diff_b": "blocks.1.norm3.bias",
        "blocks.1.diff_m": "blocks.1.modulation",
        "head.diff_m": "head.modulation",
        "head.head.diff": "head.head.weight",
        "patch_embedding.diff": "patch_embedding.weight",
        "img_emb.proj.0.diff": "img_emb.proj.0.weight",
    }.items():
        value = parameters[names[parameter]]
        changes[key] = torch.full_like(value, len(changes) + 1.0)
    return changes


def test_differences_are_added(tmp_path: Path) -> None:
    module = wan(image=True)
    before = dict(copy.deepcopy(module).named_parameters())
    expected = differences(module)
    state = {f"diffusion_model.{key}": value for key, value in expected.items()}
    model = adapted(module, ["to_q"])
    # An alpha belongs to the factors alone.
    state |= DIALECTS["diffusion_model"](parts(model), in_wan_names(module))
    lora = read(written(tmp_path / "a.safetensors", state), module, licence=LICENCE)
    assert len(lora.differences) == len(expected)
    merge(module, lora, 0.5)
    added = {}
    for name, value in module.named_parameters():
        change = (value - before[name]).detach()
        if name in lora.differences:
            torch.testing.assert_close(change, lora.differences[name] / 2)
            added[name] = float(lora.differences[name].flatten()[0])
        else:
            assert bool(change.any()) == name.endswith("to_q.weight"), name
    assert added["scale_shift_table"] == 6
    assert added["blocks.0.attn2.norm_added_k.weight"] == 2
    assert added["blocks.1.scale_shift_table"] == 5


def test_settings_of_a_neighbour_are_not_taken(tmp_path: Path) -> None:
    module = cogvideox()
    adapted(module, COG).save_pretrained(tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "other.safetensors")
    lora = read(tmp_path / "other.safetensors", module, licence=LICENCE)
    assert {factors.alpha for factors in lora.layers.values()} == {RANK}


def test_settings_that_are_damaged(tmp_path: Path) -> None:
    module = cogvideox()
    adapted(module, COG).save_pretrained(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{")
    with refused(UsageError, "weights-json-unreadable", path=tmp_path / "adapter_config.json"):
        read(tmp_path, module, licence=LICENCE)


def test_without_alpha_it_is_the_rank_or_what_is_said(tmp_path: Path) -> None:
    module = cogvideox()
    state = dialect(parts(adapted(module, COG)), str, "lora_A", "lora_B", alpha=False)
    path = written(tmp_path / "a.safetensors", state)
    assert {factors.alpha for factors in read(path, module, licence=LICENCE).layers.values()} == {RANK}
    assert {factors.alpha for factors in read(path, module, licence=LICENCE, alpha=8).layers.values()} == {8}


def test_a_merge_into_half_precision_is_rounded_once(tmp_path: Path) -> None:
    module = cogvideox().to(torch.bfloat16)
    exact = copy.deepcopy(module).float()
    model = adapted(exact, COG)
    path = written(tmp_path / "a.safetensors", DIALECTS["bare"](parts(model), str))
    merge(module, read(path, module, licence=LICENCE))
    expected = model.merge_and_unload().to(torch.bfloat16)
    assert same(module, expected)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("blocks.1.self_attn.k.lora_down.weight", "blocks.1.self_attn.kk.lora_down.weight"),
        ("blocks.1.self_attn.k.lora_down.weight", "blocks.1.self_attn.k.lora_mid.weight"),
        ("blocks.0.ffn.0.lora_up.weight", "blocks.7.ffn.0.lora_up.weight"),
        ("blocks.0.cross_attn.v.alpha", "blocks.0.cross_attn.v.alphas"),
        ("blocks.0.norm3.diff", "blocks.0.norm9.diff"),
    ],
)
def test_one_altered_key_is_named_and_nothing_changes(tmp_path: Path, old: str, new: str) -> None:
    module = wan()
    state = DIALECTS["bare"](parts(adapted(module, WAN[:6])), in_wan_names(module))
    state["blocks.0.norm3.diff"] = torch.ones(16)
    read(written(tmp_path / "whole.safetensors", state), module, licence=LICENCE)
    state[new] = state.pop(old)
    with refused(UsageError, "weights-module-mismatch") as caught:
        read(written(tmp_path / "a.safetensors", state), module, licence=LICENCE)
    assert caught.value.values["names"]["left over"] == [new]
    assert same(module, wan())


def test_a_factor_without_its_partner_is_named(tmp_path: Path) -> None:
    module = wan()
    state = DIALECTS["bare"](parts(adapted(module, WAN[:6])), in_wan_names(module))
    del state["blocks.0.self_attn.q.lora_up.weight"]
    names = {"without its partner": ["blocks.0.self_attn.q.lora_down.weight"]}
    with refused(UsageError, "weights-module-mismatch", names=names):
        read(written(tmp_path / "a.safetensors", state), module, licence=LICENCE)


def test_two_keys_for_the_same_factor_are_refused(tmp_path: Path) -> None:
    module = wan()
    adapter_parts = parts(adapted(module, ["to_q"]))
    state = DIALECTS["bare"](adapter_parts, in_wan_names(module)) | DIALECTS["transformer"](
        adapter_parts, str
    )
    with refused(UsageError, "weights-module-mismatch", names=re.compile("^{'given twice': ")):
        read(written(tmp_path / "a.safetensors", state), module, licence=LICENCE)


def test_an_adapter_of_another_architecture_changes_nothing(tmp_path: Path) -> None:
    state = DIALECTS["transformer"](parts(adapted(cogvideox(), COG)), str)
    path = written(tmp_path / "a.safetensors", state)
    module = wan()
    with refused(UsageError, "weights-module-mismatch") as caught:
        read(path, module, licence=LICENCE)
    assert len(caught.value.values["names"]["left over"]) == 36
    assert caught.value.values["names"]["left over"][0].startswith("transformer.transformer_blocks")
    # The same names, and another width.
    larger = wan(width=12)
    state = DIALECTS["lora_unet"](parts(adapted(larger, WAN[:6])), in_wan_names(larger))
    path = written(tmp_path / "b.safetensors", state)
    with refused(UsageError, "weights-module-mismatch") as caught:
        read(path, module, licence=LICENCE)
    names = caught.value.values["names"]["of another shape"]
    assert len(names) == 20
    assert "(16, 16)" in names[0]
    assert "(2, 24)" in names[0]
    lora = read(path, larger, licence=LICENCE)
    with refused(UsageError, "weights-module-mismatch") as caught:
        merge(module, lora)
    assert caught.value.values["names"]["of another shape"] == names
    assert same(module, wan())


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    module = wan()
    state = DIALECTS["bare"](parts(adapted(module, ["to_q"])), in_wan_names(module))
    state["blocks.1.cross_attn.q.lora_up.weight"][0, 0] = torch.nan
    with refused(
        UsageError, "weights-module-mismatch", names={"not finite": ["blocks.1.attn2.to_q (second factor)"]}
    ):
        read(written(tmp_path / "a.safetensors", state), module, licence=LICENCE)


def test_other_mathematics_are_refused(tmp_path: Path) -> None:
    model = adapted(cogvideox(), COG, use_dora=True)
    model.save_pretrained(tmp_path)
    with refused(UsageError, "lora-variant-unsupported", options=["use_dora"]):
        read(tmp_path, cogvideox(), licence=LICENCE)
    # Without the settings the keys of DoRA are left over.
    state = load_file(tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": ALPHA}))
    assert any("magnitude" in key for key in state)
    with refused(UsageError, "weights-module-mismatch", names=re.compile("left over.*lora_magnitude_vector")):
        read(tmp_path, cogvideox(), licence=LICENCE)


def test_diffusers_agrees_on_the_names(tmp_path: Path) -> None:
    from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_wan_lora_to_diffusers

    module = wan()
    adapter_parts = parts(adapted(module, [*WAN[:6], "linear_1", "linear_2", "proj_out", "time_proj"]))
    state = dialect(
        adapter_parts, lambda x: f"diffusion_model.{in_wan_names(module)(x)}", "lora_A", "lora_B", alpha=False
    )
    path = written(tmp_path / "a.safetensors", state)
    by_diffusers = _convert_non_diffusers_wan_lora_to_diffusers(dict(state))
    layers = read(path, module, licence=LICENCE).layers
    assert {f"transformer.{name}.lora_A.weight" for name in layers} <= by_diffusers.keys()
    assert len(by_diffusers) == 2 * len(layers)
    for name, factors in layers.items():
        assert torch.equal(by_diffusers[f"transformer.{name}.lora_B.weight"], factors.up), name
