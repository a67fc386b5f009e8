"""Weights in one file fill a module to the bit, whatever wraps their names; else the error says why not."""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.weights.models import same, shuffled, vae, wan
from train.weights import single_file
from train.weights.wan import original_names

LICENCE = "Apache-2.0"


def originally_named(module: nn.Module) -> dict[str, Tensor]:
    state = module.state_dict()
    return {name: state[target] for name, target in original_names(module).items()}


def as_state(state: dict[str, Tensor]) -> dict[str, Any]:
    return state


def wrapped(state: dict[str, Tensor]) -> dict[str, Any]:
    return {
        "generator": {f"model.{name}": value + 1 for name, value in state.items()},
        "generator_ema": {f"model._fsdp_wrapped_module.{name}": value for name, value in state.items()},
        "step": 600,
    }


@pytest.mark.parametrize(
    ("name", "form", "network"),
    [
        ("w.pt", wrapped, "generator_ema"),
        ("w.pt", lambda state: {"generator": wrapped(state)["generator_ema"]}, None),
        ("w.pt", lambda state: {f"module.{name}": value for name, value in state.items()}, None),
        ("w.safetensors", as_state, None),
        ("w.safetensors", lambda s: {f"model.diffusion_model.{n}": v for n, v in s.items()}, None),
    ],
)
@pytest.mark.parametrize("original", [True, False])
def test_a_transformer_of_wan_is_filled_from_each_form(
    tmp_path: Path, name: str, form: Callable[..., Any], network: str | None, original: bool
) -> None:
    published = shuffled(wan())
    state = originally_named(published) if original else published.state_dict()
    saved = form(dict(state))
    path = tmp_path / name
    if name.endswith(".pt"):
        torch.save(saved, path)
    else:
        save_file(saved, path)
    module = wan()
    source = single_file.load(module, path, licence=LICENCE, network=network)
    assert same(module, published)
    assert source.paths == (path,)
    assert source.licence == LICENCE
    assert source.form == ("torch" if name.endswith(".pt") else "safetensors")


def test_a_decoder_of_wan_is_filled_from_the_original_file(tmp_path: Path) -> None:
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    published = shuffled(vae())
    state = published.state_dict()
    layers = [f"{part}.{n}" for part in ("encoder.downsamples", "decoder.upsamples") for n in range(15)]
    layers += [f"{part}.middle.{n}" for part in ("encoder", "decoder") for n in range(3)]
    sublayers = [f"residual.{n}" for n in (0, 2, 3, 6)]
    sublayers += ["shortcut", "resample.1", "time_conv", "norm", "to_qkv", "proj"]
    layers = [f"{layer}.{sublayer}" for layer in layers for sublayer in sublayers]
    layers += ["conv1", "conv2", "encoder.conv1", "decoder.conv1"]
    layers += [f"{part}.head.{n}" for part in ("encoder", "decoder") for n in (0, 2)]
    original_state = {}
    for name in [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias", "gamma")]:
        target = next(iter(convert_wan_vae_to_diffusers({name: torch.empty(0)})))
        if target in state:
            original_state[name] = state[target]
    assert len(original_state) == len(state)
    save_file(original_state, tmp_path / "vae.safetensors")
    module = vae()
    single_file.load(module, tmp_path / "vae.safetensors", licence=LICENCE)
    assert same(module, published)


def test_every_name_is_accounted_for(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    module = wan()
    before = wan()
    state = shuffled(wan()).state_dict()
    state["blocks.0.attn1.to_x.weight"] = state.pop("blocks.0.attn1.to_q.weight")
    state["proj_out.bias"] = state["proj_out.bias"][:-1].clone()
    save_file(state, path)
    with refused(UsageError, "weights-module-mismatch") as caught:
        single_file.load(module, path, licence=LICENCE)
    assert caught.value.values["names"] == {
        "left over": ["blocks.0.attn1.to_x.weight"],
        "missing": ["blocks.0.attn1.to_q.weight"],
        "of another shape or kind": ["proj_out.bias (asked (16,), found (15,))"],
    }
    assert same(module, before)
    with refused(UsageError, "weights-module-mismatch") as caught:
        single_file.load(wan(layers=1), path, licence=LICENCE)
    assert len(caught.value.values["names"]["left over"]) == 28
    # The sentence lists ten of them, and the one that is missing.
    assert str(caught.value).count("blocks.") == 11


def test_what_is_left_out_on_purpose_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    published = shuffled(wan())
    save_file(published.state_dict() | {"extra.a": torch.ones(1), "extra.b": torch.ones(1)}, path)
    with refused(UsageError, "weights-module-mismatch", names={"left over": ["extra.a", "extra.b"]}):
        single_file.load(wan(), path, licence=LICENCE)
    module = wan()
    single_file.load(module, path, licence=LICENCE, unused=["extra.*"])
    assert same(module, published)


def test_numbers_of_another_kind_are_not_converted(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"weight": torch.ones(2, 2, dtype=torch.int8), "bias": torch.ones(2)}, path)
    names = {"of another shape or kind": ["weight (asked torch.float32, found torch.int8)"]}
    with refused(UsageError, "weights-module-mismatch", names=names):
        single_file.load(nn.Linear(2, 2), path, licence=LICENCE)


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this must not run",)


def test_files_that_cannot_be_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    line = nn.Linear(2, 2)
    with refused(UsageError, "weights-file-missing", path=tmp_path / "none.pt"):
        single_file.load(line, tmp_path / "none.pt", licence=LICENCE)
    for name, code in (
        ("cut.pt", "weights-pickle-unreadable"),
        ("cut.safetensors", "safetensors-unreadable"),
    ):
        (tmp_path / name).write_bytes(b"PK" + bytes(20))
        with refused(UsageError, code, path=tmp_path / name):
            single_file.load(line, tmp_path / name, licence=LICENCE)
    (tmp_path / "odd.onnx").write_bytes(b"")
    with refused(UsageError, "weights-file-unknown-format", path=tmp_path / "odd.onnx"):
        single_file.load(line, tmp_path / "odd.onnx", licence=LICENCE)
    (tmp_path / "bad.pt").write_bytes(pickle.dumps({"weight": Payload()}, protocol=2))
    torch.save({"weight": Payload()}, tmp_path / "worse.pt")
    for name in ("bad.pt", "worse.pt"):
        with refused(UsageError, "weights-pickle-unreadable", path=tmp_path / name):
            single_file.load(line, tmp_path / name, licence=LICENCE)
    assert capfd.readouterr().out == ""


def test_a_network_is_chosen_by_name(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(wrapped(nn.Linear(2, 2).state_dict()), path)
    with refused(UsageError, "weights-network-ambiguous", available="generator, generator_ema"):
        single_file.load(nn.Linear(2, 2), path, licence=LICENCE)
    with refused(
        UsageError, "weights-network-unknown", network="critic", available="generator, generator_ema"
    ):
        single_file.load(nn.Linear(2, 2), path, licence=LICENCE, network="critic")
    torch.save({"step": 3}, path)
    with refused(UsageError, "weights-missing-state-dict", contents=re.compile("step")):
        single_file.load(nn.Linear(2, 2), path, licence=LICENCE)


def test_a_licence_has_to_be_stated(tmp_path: Path) -> None:
    with refused(UsageError, "weights-missing-licence", path=tmp_path / "w.pt"):
        single_file.load(nn.Linear(2, 2), tmp_path / "w.pt", licence=" ")
