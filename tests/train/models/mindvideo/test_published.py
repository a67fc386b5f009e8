"""MinD-Video on a folder of Stable Diffusion: a small one with random weights stands for it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export import run as exporting
from rtdecode.errors import UsageError
from streaming.session import replay
from tests.refusals import refused
from tests.train import layouts
from tests.train.data.layouts import released
from tests.train.data.layouts.test_hcp import write as write_hcp
from tests.train.lines import CPU, nothing
from tests.train.pipelines import save_config, save_stable_diffusion
from tests.train.targets.models import clip_tower
from train.artifacts.run_folder import restored
from train.config.recipe import build, check, read
from train.config.run_files import arrays, read_run
from train.data import target_cache
from train.evaluate import judged
from train.evaluation.result import Request
from train.models.conditioned.batches import Dropout, Windows
from train.models.conditioned.encoder import Signals
from train.models.conditioned.trainable import Captioned
from train.models.mindvideo.augmentation import IMAGE_VARIANTS, TEXT_VARIANTS, VariantBatches, Variants
from train.models.mindvideo.pretraining import MaskedVolumes
from train.models.mindvideo.published import MindVideoPublishedPlan
from train.parts.generators.stable_diffusion import UNetSizes
from train.run_recipe import run as make_run
from train.targets.__main__ import main as compute
from train.trainer import loop
from train.trainer.loader import Place

TOKENS = 6
WIDTH = 8
SUBJECT = "subject1"
TRUNK = "{builder: transformer, depth: 1, width: 8, heads: 2, inner: 8, recompute: true}"
CAPTIONS = ("the red cat", "a blue dog", "the house sees", "a red dog sees the cat")
LEARNED = ("frames", "pretrain", "masked", "align", "together")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the release, with a caption for each frame in words that are known."""
    folder = tmp_path_factory.mktemp("cc2017") / "preprocessed"
    released.mindvideo(folder)
    for part, segments in (("train", 18), ("test", 5)):
        numbers = np.arange(segments * released.LENGTH * 6) % len(CAPTIONS)
        texts = np.array(CAPTIONS)[numbers].reshape(segments, released.LENGTH, 6)
        np.save(folder / f"text_{part}_256_3hz.npy", texts)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_stable_diffusion(folder / "pipeline", WIDTH)
    clip_tower(folder / "clip")
    return folder


@pytest.fixture(scope="module")
def targets(data: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("targets")
    folders = {
        "vae": models / "pipeline" / "vae",
        "image": models / "clip",
        "text": models / "clip",
        "prompt": models / "pipeline" / "text_encoder",
    }
    arguments = [text for name, path in folders.items() for text in (f"{name}={path}", f"{name}.licence=MIT")]
    how = ["vae.size=16x32", "image.crops=2", "text.by_frame=true", "text.changes=1", "device=cpu"]
    assert compute([str(data), *arguments, *how, f"out={out}"]) == 0
    return out


@pytest.fixture(scope="module")
def changes(data: Path, models: Path, targets: Path) -> list[str]:
    """Say what the recipe has to be told."""
    return [
        f"data={data}",
        f"data.subject={SUBJECT}",
        f"system.targets={targets}",
        f"system.video.folder={models / 'pipeline'}",
        "system.video.licence=MIT",
        f"system.encoder.trunk={TRUNK}",
        "system.encoder.patch=3",
        f"system.pretrain.decoder={TRUNK}",
        f"system.conditions={TOKENS}",
        f"system.width={WIDTH}",
        "system.sampling={builder: video-sampling, steps: 2, guidance: 2}",
        "system.machine.device=cpu",
        "system.machine.workers=0",
        *(f"phases.{name}.{key}" for name in LEARNED for key in ("steps=2", "batch=3", "warmup=0")),
        # So that a few steps are seen in half precision.
        *(f"phases.{name}.rate=0.05" for name in LEARNED),
    ]


@pytest.mark.full
def test_a_run_is_trained_from_folders_exported_and_replayed(
    changes: list[str], data: Path, tmp_path: Path
) -> None:
    values = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    write_hcp(tmp_path / "hcp", "100610", "rfMRI_REST1_7T_PA", values, tr_s=0.72)
    unlabelled = [f"system.pretrain.data={tmp_path / 'hcp'}", "system.pretrain.window_s=7.2"]
    out = make_run("mindvideo", [*changes, *unlabelled, f"out={tmp_path / 'run'}"])
    tree = read_run(out)
    phases = [row["phase"] for row in tree["tables"]["loss"]]
    assert [*dict.fromkeys(phases)] == ["frames", "pretrain", "unlabelled", "masked", "align", "together"]
    provenance = tree["manifest"]["provenance"]
    assert provenance["pretrain"] == {"layout": "hcp", "subjects": 1, "volumes": 4, "left_out": 0}
    # The release does not say where its voxels lie.
    assert provenance["voxel_order"] == "as stored"
    weights = arrays(out, "weights")
    video = [name.partition(".transformer_blocks.")[2] for name in weights if name.startswith("transformer.")]
    # What phases train, and what the image model has not.
    assert {name.split(".")[1] for name in video} == {"attn1", "attn2", "attn_temp", "norm_temp"}
    noted = [name for name in weights if name.startswith("attention.")]
    assert noted == [f"attention.{phase}" for phase in ("unlabelled", "masked", "align", "together")]
    np.testing.assert_allclose(weights["attention.together"].astype(float).sum(1), 1, atol=2e-3)
    assert np.abs(weights["encoder.mean_brain"]).max() > 0
    system = restored(out, build(tree["arguments"])["system"])
    condition = system.condition(arrays(out, "golden"))
    assert condition.tokens.shape[1:] == (TOKENS, WIDTH)
    # Nobody knows the weights of recorded voxels, and this release names no region of theirs.
    judgement = judged(out, Request(data=data, sections="pictures", attention=True))
    assert "held-out-runs-attention.png" in judgement.pictures
    assert not [name for name in judgement.figures if name.endswith("_rank")]
    bundle = exporting.run(out, tmp_path / "bundle")
    manifest = bundle.manifest
    assert manifest.parity["largest_difference"]["latent"] < 1e-3
    assert (manifest.clip.frames, manifest.clip.fps, manifest.grid.slots) == (6, 3.0, 2)
    assert {*manifest.built} == {"encode", "denoise", "decode_first", "decode_next"}
    opened = build(tree["arguments"])["data"].opened(data)
    rows = opened.split.test[: released.LENGTH - 1]
    layouts.replayable(bundle, opened.data, rows, tmp_path / "recording")
    assert replay.run(tmp_path / "recording", str(bundle.path), "max", tmp_path / "out") == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / "clips.jsonl").read_text().splitlines()]
    assert [line["revision"] for line in lines if line["revision"] == "final"]


@pytest.mark.full
def test_another_run_begins_at_its_encoder_unless_patches_differ(changes: list[str], tmp_path: Path) -> None:
    alone = ["phases.frames=null", "phases.pretrain=null", "judge=none"]
    first = make_run("mindvideo", [*changes, *alone, f"out={tmp_path / 'first'}"])
    from_first = [f"system.pretrain.run={first}", "phases.masked=null", *alone]
    second = make_run("mindvideo", [*changes, *from_first, f"out={tmp_path / 'second'}"])
    assert len(read_run(second)["manifest"]["provenance"]["pretrained_run"]) == 64
    other = [*changes, *from_first, "system.encoder.patch=4", f"out={tmp_path / 'other'}"]
    with refused(UsageError, "pretrained-encoder-mismatch", run=first):
        make_run("mindvideo", other)
    # The other run has learned what is held out here.
    unfair = [*changes, *from_first, "data.test=seg1_1", f"out={tmp_path / 'unfair'}"]
    with refused(UsageError, "pretrained-run-not-apart", run=first):
        make_run("mindvideo", unfair)


@pytest.mark.parametrize(
    ("change", "code", "values"),
    [
        ("system.encoder.patch=16", "voxels-fewer-than-patch", {"patch": 16, "voxels": 8}),
        ("system.width=768", "video-unet-wrong-tokens", {"width": WIDTH, "text": 768}),
        ("system.conditions=77", "target-prompt-shape-mismatch", {"tokens": TOKENS, "expected_tokens": 77}),
        ("phases.align.losses={fmri_text: 1}", "phase-unknown-loss", {"phase": "align"}),
        ("system.contrast=frames", "plan-contrast-unknown", {"contrast": "frames"}),
        ("system.pretrain.data=none", "unlabelled-not-folder", {}),
        ("phases.frame=null", "recipe-nothing-to-leave-out", {"missing": "phases.frame"}),
    ],
)
def test_what_does_not_fit_is_refused_before_signals_are_read(
    changes: list[str], tmp_path: Path, change: str, code: str, values: dict[str, Any]
) -> None:
    with refused(UsageError, code, **values):
        make_run("mindvideo", [*changes, change, f"out={tmp_path / 'run'}"])
    # What was read is no signal, and takes no room.
    assert not list(tmp_path.rglob("*.npy"))


def test_a_folder_of_another_video_model_is_refused(tmp_path: Path) -> None:
    sizes = {"in_channels": 16, "out_channels": 16, "patch_size": [1, 2, 2], "text_dim": 768}
    save_config(tmp_path, "WanTransformer3DModel", **sizes)
    plan = build(read("mindvideo", [f"system.video.folder={tmp_path}"]).tree)["system"]
    with refused(UsageError, "video-unet-wrong-class", actual_class="WanTransformer3DModel"):
        plan.check_video()


def test_targets_have_crops_and_captions_of_frames(targets: Path) -> None:
    image = target_cache.read(targets, "image")
    assert image.variants is not None
    assert image.variants.shape[1:3] == (6, 3)
    np.testing.assert_allclose(image.variants[:, :, 0], image.read(slice(None)), atol=2e-3)
    assert np.abs(np.diff(image.variants[:].astype(float), axis=2)).max() > 1e-3
    text = target_cache.read(targets, "text")
    assert text.variants is not None
    assert text.variants.shape[1:3] == (6, 2)
    # Six frames go through four captions, of which the first is that of the window.
    np.testing.assert_allclose(text.variants[:, 0, 0], text.read(slice(None)), atol=2e-3)
    assert np.abs(np.diff(text.variants[:, :, 0].astype(float), axis=1)).max() > 1e-3
    assert target_cache.read(targets, "prompt").values.shape[1:] == (TOKENS, WIDTH)
    assert target_cache.read(targets, "vae").values.shape[1:] == (4, 6, 8, 16)


def variants_of(count: int = 20) -> Windows:
    """Make windows whose embeddings say which window, frame and variant they are of."""
    numbers = np.stack(np.meshgrid(np.arange(count), np.arange(6), np.arange(3), indexing="ij"), axis=-1)
    embedded = numbers.astype(np.float32)
    signals = {"fmri": np.zeros((count, 2, 8), np.float32), "fmri_mask": np.ones((count, 2), np.float32)}
    return Windows(
        latents=np.zeros((count, 4, 6, 2, 2), np.float32),
        words=np.zeros((count, 0, 0), np.int64),
        frames=embedded[:, :, 0],
        text=embedded[:, 0, 0],
        signals=signals,
        units=None,
        targets={IMAGE_VARIANTS: embedded, TEXT_VARIANTS: embedded[:, :, :2]},
    )


def test_a_caption_is_that_of_the_frame_that_was_picked() -> None:
    dropout = Dropout(words=0.0, modalities=[0, 1, 0, 0])
    place = Place(phase="align", size=64, seed=1, order=0, number=0)
    windows = variants_of()
    draw = VariantBatches(windows, dropout, {"align": ["text"]}, Variants(crops=0.5, captions=0.5))
    batch = draw(place)
    assert IMAGE_VARIANTS not in batch
    assert torch.equal(batch["frames"][:, 0, :2], batch["text"][:, :2])
    assert {*batch["frames"][:, 0, 1].tolist()} == {*map(float, range(6))}
    assert 0.2 < (batch["frames"][:, 0, 2] > 0).float().mean() < 0.8
    unchanged = replace(draw, variants=Variants(crops=0, captions=0))(place)
    assert unchanged["text"][:, 2].max() == unchanged["frames"][:, 0, 2].max() == 0
    # Without variants, a caption of the whole clip belongs to every frame.
    plain = replace(draw, windows=replace(windows, targets={}))(place)
    assert torch.equal(plain["frames"][:, 0, 0], plain["text"][:, 0])
    assert plain["text"][:, 1].max() == 0


def test_the_recipe_is_of_published_size() -> None:
    recipe = read("mindvideo", [])
    check(recipe)
    plan = build(recipe.tree)["system"]
    assert isinstance(plan, MindVideoPublishedPlan)
    assert plan.pretrain is not None
    assert (plan.sampling.steps, plan.sampling.guidance) == (200, 12.5)
    sizes = plan.encoder
    with torch.device("meta"):
        signals = Signals(slots=2, voxels=6016, channels=0, samples=0)
        encoder = sizes.build(signals, 768, plan.conditions, plan.width)
        masked = MaskedVolumes(encoder, plan.pretrain)
        tokens = encoder(signals.nothing(torch.device("meta"))).tokens
        single = sizes.build(replace(signals, slots=1), 768, plan.conditions, plan.width)
    assert tokens.shape == (1, 77, 768)
    counted = {
        "blocks of single volumes": single.trunk.blocks,
        "blocks over time": encoder.trunk.blocks,
        "decoder": masked.autoencoder.decoder.blocks,
    }
    millions = {name: sum(p.numel() for p in blocks.parameters()) / 1e6 for name, blocks in counted.items()}
    assert millions["blocks of single volumes"] == pytest.approx(151.24, abs=0.005)
    assert millions["blocks over time"] == pytest.approx(252.05, abs=0.005)
    assert millions["decoder"] == pytest.approx(12.62, abs=0.005)


@pytest.mark.full
def test_one_step_of_each_phase_at_full_width_and_two_layers(tmp_path: Path) -> None:
    """All weights are as wide as theirs. The latents are few: 256 x 256 pixels take a processor minutes."""
    latent = (4, 2, 8, 8)
    recipe = read("mindvideo", [])
    plan = build(recipe.tree)["system"]
    assert isinstance(plan, MindVideoPublishedPlan)
    assert plan.pretrain is not None
    sizes = replace(plan.encoder, trunk=replace(plan.encoder.trunk, depth=2))
    torch.manual_seed(0)
    encoder = sizes.build(Signals(slots=2, voxels=6016, channels=0, samples=0), 768, 77, 768)
    video = UNetSizes(layers=1).generator(latent, 1.0)
    once = {"steps": 1, "schedule": "constant", "warmup": 0, "precision": "no", "keep_every": 1}
    phases = {name: replace(phase, **once) for name, phase in build(recipe.tree)["phases"].items()}
    noised = {
        "latents": torch.randn(1, *latent),
        "noise": torch.randn(1, *latent),
        "level": torch.tensor([500]),
    }

    def captions(place: Place) -> dict[str, torch.Tensor]:
        one_frame = {name: x[:, :, :1] for name, x in noised.items() if x.ndim == 5}
        words = {"words": torch.randn(1, 77, 768)}
        return words | noised | (one_frame if place.phase == "frames" else {})

    def volumes(place: Place) -> dict[str, torch.Tensor]:
        orders = torch.stack([torch.randperm(376), torch.randperm(376)])
        return {"fmri": torch.randn(2, 6016), "fmri_mask": torch.ones(2), "order": orders}

    def brains(place: Place) -> dict[str, torch.Tensor]:
        vectors = {"frames": torch.randn(1, 1, 768), "text": torch.randn(1, 768)}
        return noised | vectors | {"fmri": torch.randn(1, 2, 6016), "fmri_mask": torch.ones(1, 2)}

    rows = []
    captioned = Captioned(video, torch.nn.Identity())
    masked = MaskedVolumes(encoder, plan.pretrain)
    trained = plan.trainable(encoder, video, 6)
    for name, system, draw in (
        ("frames", captioned, captions),
        ("pretrain", captioned, captions),
        ("masked", masked, volumes),
        ("align", trained, brains),
        ("together", trained, brains),
    ):
        folder = tmp_path / name
        rows += loop.train(system, {name: phases[name]}, draw, folder, nothing, machine=CPU)
    assert [row["phase"] for row in rows] == list(LEARNED)
    assert all(np.isfinite(row["loss"]) for row in rows)
