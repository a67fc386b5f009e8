"""Folders of diffusers and transformers are opened to the bit, or the error names the file or the name."""

import json
import re
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, T5Config, T5EncoderModel, T5ForConditionalGeneration

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.weights.models import same, shuffled, vae, wan
from train.weights.folders import diffusers_model, transformers_model

WEIGHTS = "diffusion_pytorch_model.safetensors"
LICENCE = "Apache-2.0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shuffled(wan()).save_pretrained(tmp_path / "wan")
    return tmp_path / "wan"


T5 = T5Config(vocab_size=16, d_model=12, d_kv=4, d_ff=8, num_layers=1, num_heads=2)


def text_encoder() -> T5EncoderModel:
    torch.manual_seed(0)
    return T5EncoderModel(T5)


def test_a_folder_of_one_model(folder: Path) -> None:
    module, source = diffusers_model(folder, licence=LICENCE)
    assert isinstance(module, WanTransformer3DModel)
    assert not module.training
    assert same(module, shuffled(wan()))
    assert [path.name for path in source.paths] == ["config.json", WEIGHTS]
    assert source.form == "diffusers folder"
    half, _ = diffusers_model(folder, licence=LICENCE, dtype=torch.bfloat16)
    assert half.proj_out.weight.dtype == torch.bfloat16
    # diffusers keeps the tables of the modulation in single precision.
    assert half.scale_shift_table.dtype == torch.float32


def test_a_folder_in_parts(tmp_path: Path) -> None:
    shuffled(wan()).save_pretrained(tmp_path, max_shard_size="8KB")
    parts = sorted(tmp_path.glob("*.safetensors"))
    assert len(parts) > 2
    module, source = diffusers_model(tmp_path, licence=LICENCE)
    assert same(module, shuffled(wan()))
    assert {*parts} < {*source.paths}
    parts[1].unlink()
    with refused(
        UsageError,
        "weights-missing-shards",
        missing_count=1,
        shard_count=len(parts),
        missing_shards=[parts[1].name],
    ):
        diffusers_model(tmp_path, licence=LICENCE)


def test_the_parts_of_a_pipeline(tmp_path: Path) -> None:
    pipeline = WanPipeline(
        tokenizer=None,
        text_encoder=text_encoder(),
        vae=vae(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        transformer=wan(),
    )
    pipeline.save_pretrained(tmp_path)
    assert same(diffusers_model(tmp_path, "transformer", licence=LICENCE)[0], wan())
    assert same(diffusers_model(tmp_path, "vae", licence=LICENCE)[0], vae())
    encoder, source = diffusers_model(tmp_path, "text_encoder", licence=LICENCE)
    assert same(encoder, text_encoder())
    assert source.form == "transformers folder"
    with refused(
        UsageError, "weights-pipeline-part-unknown", part=None, available=re.compile("text_encoder")
    ):
        diffusers_model(tmp_path, licence=LICENCE)
    with refused(UsageError, "weights-pipeline-part-unknown", part="unet"):
        diffusers_model(tmp_path, "unet", licence=LICENCE)
    with refused(
        UsageError, "weights-folder-not-pipeline", folder=tmp_path / "vae", index_file="model_index.json"
    ):
        diffusers_model(tmp_path / "vae", "decoder", licence=LICENCE)


def test_names_that_diffusers_would_drop_in_silence_are_errors(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    save_file(state | {"blocks.0.attn2.norm_added_q.weight": torch.ones(4)}, folder / WEIGHTS)
    with refused(
        UsageError, "weights-module-mismatch", names={"left over": ["blocks.0.attn2.norm_added_q.weight"]}
    ):
        diffusers_model(folder, licence=LICENCE)
    module, _ = diffusers_model(folder, licence=LICENCE, unused=["*.norm_added_q.weight"])
    assert same(module, shuffled(wan()))


def test_names_that_are_left_over_or_missing(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    state["proj.weight"] = state.pop("proj_out.weight")
    save_file(state, folder / WEIGHTS)
    with refused(
        UsageError,
        "weights-module-mismatch",
        names={"left over": ["proj.weight"], "missing": ["proj_out.weight"]},
    ):
        diffusers_model(folder, licence=LICENCE)


def test_weights_of_another_size(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"ffn_dim": 32}))
    with refused(
        UsageError, "weights-folder-unreadable", model_class="WanTransformer3DModel", error=re.compile("ffn")
    ):
        diffusers_model(folder, licence=LICENCE)


def test_files_that_are_not_there(tmp_path: Path, folder: Path) -> None:
    with refused(
        UsageError,
        "weights-folder-missing-config",
        folder=tmp_path / "none",
        config_file="config.json",
        files="nothing",
    ):
        diffusers_model(tmp_path / "none", licence=LICENCE)
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-100])
    with refused(UsageError, "safetensors-unreadable", path=folder / WEIGHTS):
        diffusers_model(folder, licence=LICENCE)
    (folder / WEIGHTS).rename(folder / "diffusion_pytorch_model.fp16.safetensors")
    with refused(
        UsageError,
        "weights-missing-safetensors",
        weights_file=WEIGHTS,
        available=re.compile(r"fp16\.safetensors"),
    ):
        diffusers_model(folder, licence=LICENCE)
    (folder / "config.json").write_text('{"_class_name": "NoSuchModel"}')
    with refused(UsageError, "weights-class-unavailable", model_class="NoSuchModel", library="diffusers"):
        diffusers_model(folder, licence=LICENCE)


def clip() -> CLIPModel:
    torch.manual_seed(0)
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=small | {"vocab_size": 16, "max_position_embeddings": 8},
        vision_config=small | {"image_size": 8, "patch_size": 4, "projection_dim": 6},
        projection_dim=6,
    )
    return CLIPModel(config).eval()


def test_a_model_of_transformers_and_one_tower_of_it(tmp_path: Path) -> None:
    model = clip()
    model.save_pretrained(tmp_path)
    module, source = transformers_model(tmp_path, licence=LICENCE)
    assert same(module, model)
    assert [path.name for path in source.paths] == ["config.json", "model.safetensors"]
    with refused(UsageError, "weights-module-mismatch", names=re.compile("left over.*text_model")):
        transformers_model(tmp_path, "CLIPVisionModelWithProjection", licence=LICENCE)
    tower, _ = transformers_model(
        tmp_path,
        "CLIPVisionModelWithProjection",
        licence=LICENCE,
        unused=["text_model.*", "text_projection.*", "logit_scale"],
    )
    assert torch.equal(tower.visual_projection.weight, model.visual_projection.weight)
    assert same(tower.vision_model, model.vision_model)
    assert same(transformers_model(tmp_path, "CLIPModel", licence=LICENCE)[0], model)
    (tmp_path / "model.safetensors").unlink()
    with refused(
        UsageError, "weights-missing-safetensors", weights_file="model.safetensors", available="none"
    ):
        transformers_model(tmp_path, licence=LICENCE)


def test_names_that_transformers_would_drop_in_silence_are_errors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5)
    model.save_pretrained(tmp_path)
    with refused(UsageError, "weights-module-mismatch", names=re.compile(r"left over.*decoder\.block\.0")):
        transformers_model(tmp_path, "T5EncoderModel", licence=LICENCE)
    unused = ["decoder.*", "lm_head.weight"]
    encoder, _ = transformers_model(tmp_path, "T5EncoderModel", licence=LICENCE, unused=unused)
    assert same(encoder.encoder, model.encoder)


def test_buffers_that_are_computed_anew_are_passed_over(tmp_path: Path) -> None:
    model = clip()
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    former = {"text_model.embeddings.position_ids": torch.arange(8)[None]}
    save_file(load_file(path) | former, path, {"format": "pt"})
    assert same(transformers_model(tmp_path, licence=LICENCE)[0], model)
    # In a model that has no such buffer it is left over.
    text_encoder().save_pretrained(tmp_path)
    save_file(load_file(path) | former, path, {"format": "pt"})
    with refused(
        UsageError, "weights-module-mismatch", names={"left over": ["text_model.embeddings.position_ids"]}
    ):
        transformers_model(tmp_path, licence=LICENCE)


def test_a_decoder_of_stable_diffusion_with_the_names_of_its_release(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = AutoencoderKL(
        block_out_channels=(4,),
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        norm_num_groups=2,
    ).eval()
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / WEIGHTS)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, value in state.items():
        for new, former in old.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{former}.")
        renamed[name] = value
    assert renamed.keys() != state.keys()
    save_file(renamed, tmp_path / WEIGHTS)
    assert same(diffusers_model(tmp_path, licence=LICENCE)[0], model)
