"""CineNeuron on published weights: small models with random weights stand for them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export import run as exporting
from rtdecode import bundle as bundles
from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.data import cinebrain_folder
from tests.train.lines import CPU, nothing
from tests.train.pipelines import save_wan
from tests.train.targets.models import clip_tower
from tests.train.targets.test_viclip import tensors
from tests.train.test_data_set import FEW_PLACES, release
from train.artifacts.run_folder import restored
from train.config.recipe import build, check, read
from train.config.run_files import arrays, read_run
from train.data import target_cache
from train.models.cineneuron import published
from train.models.cineneuron.brain import BrainSizes
from train.models.cineneuron.encoder import RememberingEncoder
from train.models.cineneuron.published import CineNeuronPublishedPlan
from train.models.conditioned.encoder import Signals
from train.parts.generators.wan import WanSizes
from train.run_recipe import run as make_run
from train.targets.__main__ import main as compute
from train.trainer import loop
from train.trainer.loader import Place

TOKENS = 6
TEXT = 8
ENTRIES = 12
CATEGORIES = "clips: clip\nnothing: nothing\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release(tmp_path_factory.mktemp("cinebrain") / "release", FEW_PLACES)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a pipeline of Wan, CLIP and ViCLIP."""
    folder = tmp_path_factory.mktemp("models")
    save_wan(folder / "pipeline")
    clip_tower(folder / "clip")
    torch.save(tensors(), folder / "viclip.pth")
    (folder / "categories.txt").write_text(CATEGORIES)
    return folder


def compute_targets(data: Path, models: Path, out: Path, clip: str = "clip") -> None:
    folders = {
        "vae": models / "pipeline" / "vae",
        "image": models / clip,
        "text": models / clip,
        "prompt": models / "pipeline" / "text_encoder",
        "action": models / "viclip.pth",
    }
    arguments = [text for name, path in folders.items() for text in (f"{name}={path}", f"{name}.licence=MIT")]
    how = ["vae.frames=33", "vae.size=16x32", "image.frames=3", f"prompt.tokens={TOKENS}", "device=cpu"]
    words = f"categories={models / 'categories.txt'}"
    assert compute([str(data), *arguments, words, *how, f"out={out}"]) == 0


@pytest.fixture(scope="module")
def changes(data: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Compute the targets, and say what the recipe has to be told."""
    out = tmp_path_factory.mktemp("targets")
    compute_targets(data, models, out)
    brain = "system.encoder.brain"
    memory = "system.encoder.memory"
    return [
        f"data={data}",
        "data.sfreq=50",
        "data.voxels=40",
        f"system.targets={out}",
        f"system.video.folder={models / 'pipeline'}",
        "system.video.licence=MIT",
        f"{brain}.trunk={{builder: transformer, depth: 1, width: 16, heads: 2, inner: 24, recompute: true}}",
        f"{brain}.tokens=8",
        f"{brain}.eeg_tokens=4",
        f"{brain}.action=24",
        f"{brain}.categories=2",
        f"{memory}.entries={ENTRIES}",
        f"{memory}.items=2",
        f"system.conditions={TOKENS}",
        "system.sampling={builder: video-sampling, steps: 2, guidance: 2, shift: 3}",
        "system.machine.device=cpu",
        "system.machine.workers=0",
        *(f"phases.{name}.steps=4" for name in ("enrich", "integrate")),
        *(f"phases.{name}.batch=4" for name in ("enrich", "integrate")),
        "phases.integrate.accumulate=2",
        # So that a few steps are seen in half precision.
        "phases.integrate.rate=0.1",
    ]


@pytest.fixture(scope="module")
def run(changes: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "cineneuron"
    return make_run("cineneuron", [*changes, f"out={out}"])


@pytest.mark.full
def test_a_run_keeps_the_texts_of_its_pool_in_a_file_and_becomes_a_bundle(run: Path, tmp_path: Path) -> None:
    texts = np.load(run / "memory" / "captions.npy", mmap_mode="r")
    assert texts.shape == (ENTRIES, TOKENS * TEXT)
    assert texts.any(1).all()
    assert not any(name.startswith("memory") for name in arrays(run, "weights"))
    tree = read_run(run)
    assert {row["phase"] for row in tree["tables"]["loss"]} == {"enrich", "integrate"}
    assert {row["phase"] for row in tree["tables"]["alignment"]} == {"enrich", "integrate"}
    system = restored(run, build(tree["arguments"])["system"])
    encoder = system.encoder  # type: ignore[attr-defined]
    assert isinstance(encoder, RememberingEncoder)
    assert isinstance(encoder.table, np.memmap)
    exporting.run(run, tmp_path / "bundle")
    manifest = bundles.load(tmp_path / "bundle").manifest
    assert {*manifest.built} == {"front", "encode", "denoise", "decode_first", "decode_next"}
    assert manifest.memories["captions"].rows == ENTRIES
    assert manifest.memories["captions"].width == TOKENS * TEXT
    assert manifest.recorded == ["front.rows", "front.scores", "front.weights", "front.retrieved"]
    assert {*manifest.provenance["weights"]} == {
        "vae",
        "image",
        "text",
        "prompt",
        "action",
        "categories",
        "decoder",
    }


@pytest.mark.full
def test_an_ablation_reads_only_what_it_needs(changes: list[str], tmp_path: Path) -> None:
    alone = ["system.encoder.memory.use=none", "phases.enrich.losses={image: 1, text: 1}"]
    out = make_run(
        "cineneuron",
        [
            *changes,
            *alone,
            "phases.integrate.losses={denoising: 1}",
            "judge=none",
            f"out={tmp_path / 'run'}",
        ],
    )
    assert not (out / "memory").exists()
    assert {*read_run(out)["manifest"]["provenance"]["weights"]} == {"vae", "image", "text", "decoder"}


def further(folder: Path, places: list[int]) -> Path:
    cinebrain_folder.write(folder, ["sub-0001"], places)
    return folder


@pytest.mark.full
def test_further_clips_become_entries(changes: list[str], models: Path, tmp_path: Path) -> None:
    folder = further(tmp_path / "further", [540, 541, 542])
    compute_targets(folder, models, target_cache.default_folder(folder))
    all_entries = f"system.encoder.memory.entries={ENTRIES + 3}"
    out = make_run(
        "cineneuron",
        [*changes, f"system.pool={folder}", all_entries, "judge=none", f"out={tmp_path / 'run'}"],
    )
    texts = np.load(out / "memory" / "captions.npy")
    assert len(texts) == ENTRIES + 3
    prompts = target_cache.read(target_cache.default_folder(folder), "prompt")
    further_texts = prompts.read(np.arange(3)).reshape(3, -1).astype(np.float16)
    assert np.array_equal(texts[-3:], further_texts)


@pytest.mark.full
def test_pools_that_would_not_be_fair_or_cannot_be_read_are_refused(
    changes: list[str], models: Path, tmp_path: Path
) -> None:
    def refuse(folder: Path, code: str, **values: Any) -> None:
        with refused(UsageError, code, **values):
            run = tmp_path / f"run-{folder.name}-{code}"
            make_run("cineneuron", [*changes, f"system.pool={folder}", f"out={run}"])

    # A clip of the last run, which is held out.
    unfair = further(tmp_path / "held", [540, 270 * 19])
    compute_targets(unfair, models, target_cache.default_folder(unfair))
    refuse(unfair, "pool-holds-held-out", count=1)
    without = further(tmp_path / "without", [540, 541])
    refuse(without, "targets-missing-index")
    (without / "captions-qwen-2.5-vl-7b.json").unlink()
    refuse(without, "pool-without-captions")
    other = further(tmp_path / "other", [540, 541])
    clip_tower(models / "other", seed=1)
    compute_targets(other, models, target_cache.default_folder(other), clip="other")
    refuse(other, "pool-model-mismatch", target="image", key="sha256")


@pytest.mark.full
@pytest.mark.parametrize(
    ("change", "code", "values"),
    [
        ("system.conditions=7", "target-prompt-shape-mismatch", {"tokens": TOKENS, "expected_tokens": 7}),
        (
            "system.encoder.brain.action=23",
            "target-width-mismatch",
            {"target": "action", "actual": 24, "expected": 23},
        ),
        ("system.encoder.brain.categories=15", "target-width-mismatch", {"target": "categories"}),
        ("system.encoder.memory.entries=13", "memory-entries-too-many", {"entries": 13, "clips": 12}),
        # A window finds nothing in its own run of 24 s.
        ("system.encoder.memory.items=7", "memory-entries-too-few", {"entries": 6, "items": 7}),
        ("phases.enrich.losses={fmri_text: 1}", "phase-unknown-loss", {"phase": "enrich"}),
    ],
)
def test_what_does_not_fit_is_refused(
    changes: list[str], tmp_path: Path, change: str, code: str, values: dict[str, Any]
) -> None:
    with refused(UsageError, code, **values):
        make_run("cineneuron", [*changes, change, f"out={tmp_path / 'run'}"])


@pytest.mark.full
def test_a_pool_without_room_on_the_disk_is_refused(
    changes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lack = {"folder": tmp_path, "needed_gb": 18.1, "free_gb": 3.0}
    # The room that signals take is asked for as well, in a folder of theirs.
    monkeypatch.setattr(
        published.disk_space, "lacking", lambda folder, _: lack if folder.name == "stages" else None
    )
    with refused(UsageError, "pool-insufficient-disk", needed_gb=18.1, free_gb=3.0):
        make_run("cineneuron", [*changes, f"out={tmp_path / 'run'}"])


@pytest.mark.full
def test_a_text_that_is_no_number_is_refused(changes: list[str], tmp_path: Path) -> None:
    (targets,) = [text.partition("=")[2] for text in changes if text.startswith("system.targets=")]
    shutil.copytree(targets, tmp_path / "targets")
    (path,) = (tmp_path / "targets" / "prompt").glob("*.npz")
    with np.load(path) as archive:
        values = dict(archive)
    values["values"][0, 0, 0] = np.nan
    np.savez(path, **values)
    damaged = f"system.targets={tmp_path / 'targets'}"
    with refused(UsageError, "target-prompt-not-finite"):
        make_run("cineneuron", [*changes, damaged, f"out={tmp_path / 'run'}"])


@pytest.mark.full
def test_a_run_with_a_memory_that_was_damaged_is_refused(run: Path, tmp_path: Path) -> None:
    plan = build(read_run(run)["arguments"])["system"]

    def refuse(texts: np.ndarray | None, code: str) -> None:
        folder = tmp_path / code
        shutil.copytree(run, folder)
        path = folder / "memory" / "captions.npy"
        if texts is None:
            path.unlink()
        else:
            np.save(path, texts)
        with refused(UsageError, code):
            restored(folder, plan)

    texts = np.load(run / "memory" / "captions.npy")
    refuse(None, "run-missing-memory")
    refuse(texts[:, 1:], "run-memory-mismatch")
    refuse(texts[1:], "memory-row-count-mismatch")
    cut = tmp_path / "cut"
    shutil.copytree(run, cut)
    path = cut / "memory" / "captions.npy"
    path.write_bytes(path.read_bytes()[:-4])
    with refused(UsageError, "run-memory-unreadable"):
        restored(cut, plan)


def test_the_recipe_is_of_published_size() -> None:
    recipe = read("cineneuron", [])
    check(recipe)
    plan = build(recipe.tree)["system"]
    assert isinstance(plan, CineNeuronPublishedPlan)
    with torch.device("meta"):
        # Five volumes of the 8405 visual voxels, and 4 s of EEG at 1000 Hz.
        signals = Signals(slots=5, voxels=8405, channels=64, samples=4000)
        encoder = plan.encoder.build(signals, 768, plan.conditions, 4096)
        windows = {
            name: values.expand(3, *values.shape[1:])
            for name, values in signals.nothing(torch.device("meta")).items()
        }
        assert isinstance(encoder, RememberingEncoder)
        vector, tokens = encoder.brain(windows, {"fmri": torch.ones(3), "eeg": torch.ones(3)})
    assert vector.shape == (3, 768)
    assert tokens.shape == (3, 512, 2048)
    blocks = sum(parameter.numel() for parameter in encoder.brain.trunk.parameters())
    assert blocks == pytest.approx(1_208.6e6, rel=1e-3)
    assert encoder.image_keys.shape == (4320, 768)
    mapped = encoder.integration.mapped(tokens)
    assert mapped.shape == (3, 512, 4096)
    tiny = read("cineneuron", ["scale=tiny"])
    check(tiny)
    assert json.dumps(tiny.values)


@pytest.mark.full
def test_one_step_of_both_phases_at_full_width_and_two_layers(tmp_path: Path) -> None:
    """All weights are as wide as theirs. The latents are few, as 12150 tokens take a processor minutes."""
    latent = (16, 2, 4, 6)
    recipe = read("cineneuron", [])
    plan = build(recipe.tree)["system"]
    assert isinstance(plan, CineNeuronPublishedPlan)
    brain = plan.encoder.brain
    assert isinstance(brain, BrainSizes)
    sizes = replace(
        plan.encoder,
        brain=replace(brain, trunk=replace(brain.trunk, depth=2)),
        memory=replace(plan.encoder.memory, entries=6),
    )
    torch.manual_seed(0)
    signals = Signals(slots=5, voxels=8405, channels=0, samples=0)
    encoder = sizes.build(signals, 768, 512, 4096)
    assert isinstance(encoder, RememberingEncoder)
    rng = np.random.default_rng(0)
    keys = [rng.standard_normal((6, 768)).astype(np.float32) for _ in range(3)]
    encoder.remember(rng.standard_normal((6, 512 * 4096)).astype(np.float16), *keys)
    video = WanSizes(layers=2).generator(latent, 3.0)
    system = plan.trainable(encoder, video, 33)
    once = {"steps": 1, "accumulate": 1, "schedule": "constant", "precision": "no", "keep_every": 1}
    phases = {name: replace(phase, **once) for name, phase in build(recipe.tree)["phases"].items()}
    excluded = torch.zeros(2, 6, dtype=torch.bool)
    excluded[:, 0] = True

    def draw(place: Place) -> dict[str, torch.Tensor]:
        return {
            "fmri": torch.randn(2, 5, 8405),
            "fmri_mask": torch.ones(2, 5),
            "frames": torch.randn(2, 33, 768),
            "text": torch.randn(2, 768),
            "action": torch.randn(2, 768),
            "category": (torch.rand(2, 15) < 0.2).float(),
            "excluded": excluded,
            "latents": torch.randn(2, *latent),
            "noise": torch.randn(2, *latent),
            "level": torch.tensor([10, 990]),
        }

    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    log = loop.train(system, phases, draw, tmp_path, nothing, machine=CPU)
    assert [row["phase"] for row in log] == ["enrich", "integrate"]
    assert all(np.isfinite(row["loss"]) for row in log)
    # Two vectors for each of two windows: as good as a guess, at this temperature.
    assert log[0]["losses"]["text"] < 10
    after = encoder.state_dict()
    for name in ("brain.head.weight", "integration.zero_text.weight"):
        assert not torch.equal(before[name], after[name]), name
