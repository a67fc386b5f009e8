"""MinD-Video from films to a bundle, as small as it goes; and what its batches and phases are made of."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from export import run as exporting
from rtdecode.errors import UsageError
from streaming.session import replay
from tests.recordings import record
from tests.refusals import refused
from train import evaluate
from train.artifacts.run_folder import restored
from train.artifacts.slots import parts_of
from train.config.recipe import build, check, read
from train.config.run_files import arrays, read_run
from train.data.phantom import participant
from train.models.conditioned.batches import Dropout, Windows
from train.models.conditioned.encoder import Signals
from train.models.conditioned.small import check_words
from train.models.mindvideo.augmentation import Augmentation, AugmentedBatches
from train.models.mindvideo.contrasts import contrasted
from train.models.mindvideo.encoder import SpaceTimeSizes
from train.models.mindvideo.plan import MindVideoPlan
from train.models.mindvideo.pretraining import MaskedSizes, MaskedVolumes, VolumeBatches, mean_brain
from train.parts.encoders.film_net import FilmNet
from train.parts.encoders.transformer import TrunkSizes
from train.parts.text.words import Vocabulary
from train.run_recipe import run
from train.trainer.loader import Place

RECIPE = str(Path(__file__).with_name("small.yaml"))
COUNT = 40
VOXELS = 12
PICTURE = (3, 32, 48)


def windows(**changes: Any) -> Windows:
    rng = np.random.default_rng(0)

    def values(*shape: int) -> Any:
        return rng.standard_normal((COUNT, *shape), np.float32)

    signals = {"fmri": values(2, VOXELS), "fmri_mask": np.ones((COUNT, 2), np.float32)}
    words = rng.integers(1, 20, (COUNT, 6, 5))
    return Windows(values(4, 6, 2, 2), words, values(6, 8), values(8), signals, None, **changes)


def place(phase: str = "align", size: int = 8, number: int = 0) -> Place:
    return Place(phase=phase, size=size, seed=1, order=0, number=number)


def plan(**changes: Any) -> MindVideoPlan:
    """Build the small recipe's plan with other values."""
    tree = yaml.safe_load(Path(RECIPE).read_text())["system"]
    built = build(tree)
    assert isinstance(built, MindVideoPlan)
    return replace(built, **changes)


def test_volumes_are_drawn_singly_and_missing_ones_teach_nothing() -> None:
    teaching = windows()
    teaching.signals["fmri_mask"][:, 1] = 0  # type: ignore[index]
    encoder = SpaceTimeSizes(TrunkSizes(1, 8, 2, 8), patch=4).build(Signals(2, VOXELS, 0, 0), 8, 5, 8)
    draw = VolumeBatches.of(teaching, encoder.tokenizer.patches)
    batch = draw(place("masked", 2 * COUNT))
    assert batch["fmri"].shape == (2 * COUNT, VOXELS)
    # Every volume once in an epoch, in both slots.
    assert sorted(batch["fmri"][:, 0].tolist()) == sorted(
        teaching.signals["fmri"][:].reshape(-1, VOXELS)[:, 0]
    )
    assert batch["fmri_mask"].sum() == COUNT
    assert batch["order"].sort(1).values.tolist() == [[0, 1, 2]] * 2 * COUNT
    assert torch.equal(draw(place("masked"))["order"], draw(place("masked"))["order"])
    model = MaskedVolumes(encoder, MaskedSizes(TrunkSizes(1, 8, 2, 8), share=0.6))
    loss = model.losses(batch, ["masked"])["masked"]
    changed = batch["fmri"] + 5 * (1 - batch["fmri_mask"][:, None])
    torch.testing.assert_close(model.losses(batch | {"fmri": changed}, ["masked"])["masked"], loss)
    loss.backward()
    assert encoder.tokenizer.embed.weight.grad is not None


def test_the_mean_brain_is_that_of_the_volumes_that_are_there() -> None:
    teaching = windows()
    teaching.signals["fmri_mask"][::2, 1] = 0  # type: ignore[index]
    mean = mean_brain(teaching)
    np.testing.assert_allclose(mean[0], teaching.signals["fmri"][:].mean(0)[0], atol=1e-6)
    np.testing.assert_allclose(mean[1], teaching.signals["fmri"][1::2, 1].mean(0), atol=1e-6)


def augmented(how: Augmentation, teaching: Windows) -> AugmentedBatches:
    torch.manual_seed(0)
    pictures = np.random.default_rng(2).integers(0, 256, (COUNT, 6, *PICTURE), np.uint8)
    dropout = Dropout(words=0.0, modalities=[0, 1, 0, 0])
    losses = {"align": ["text", "image"], "together": ["denoising"]}
    return AugmentedBatches(teaching, dropout, losses, pictures, FilmNet(8, 20).eval(), how)


@torch.no_grad()
def test_one_frame_is_picked_and_unchanged_where_nothing_is_to_change() -> None:
    teaching = windows()
    draw = augmented(Augmentation(crops=0, swapped=0, replaced=0), teaching)
    batch = draw(place())
    assert batch["frames"].shape == (8, 1, 8)
    rows = place().rows(COUNT)
    every_frame = draw.net.frames(torch.from_numpy(draw.pictures[rows]).flatten(0, 1).float() / 127.5 - 1)
    distance = torch.cdist(batch["frames"], every_frame.unflatten(0, (8, 6)))
    assert distance.amin(2).max() < 1e-3
    assert len({*distance.argmin(2).ravel().tolist()}) > 1
    torch.testing.assert_close(batch["text"], draw.net.texts(torch.from_numpy(teaching.words[rows])))
    assert {*draw(place("together"))} == {"latents", "noise", "level", "left", "fmri", "fmri_mask"}


@torch.no_grad()
def test_crops_and_words_change_what_is_compared() -> None:
    teaching = windows()
    plain = augmented(Augmentation(crops=0, swapped=0, replaced=0), teaching)(place())
    for how, name in ((Augmentation(1, 0.5, 0, 0), "frames"), (Augmentation(0, 1, 0, 0.5), "text")):
        batch = augmented(how, teaching)(place())
        same = {"frames", "text"} - {name}
        assert (batch[name] - plain[name]).abs().amax(-1).min() > 1e-3
        for other in same:
            torch.testing.assert_close(batch[other], plain[other], atol=1e-4, rtol=1e-4)
    # A sum over tokens does not know their order: swapped ones are found by their numbers.
    numbered: Any = SimpleNamespace(frames=lambda frames: frames, texts=lambda words: words)
    swapped = replace(augmented(Augmentation(0, 1, 0.5, 0), teaching), net=numbered)(place())["text"].numpy()
    words = teaching.words[place().rows(COUNT)]
    assert (swapped != words).any()
    # Of tokens that change places, each stays whole.
    for changed_tokens, tokens in zip(swapped, words, strict=True):
        assert sorted(changed_tokens.tolist()) == sorted(tokens.tolist())


def test_a_contrast_that_stays_has_the_weight_of_both() -> None:
    phase = build(yaml.safe_load(Path(RECIPE).read_text())["phases"]["align"])
    mixed = replace(phase, losses={"text": 1, "image": 1, "denoising": 3})
    phases = {"align": phase, "mixed": mixed}

    def losses(contrast: str) -> dict[str, dict[str, float]]:
        return {name: phase.losses for name, phase in contrasted(phases, contrast).items()}

    assert losses("both") == {"align": phase.losses, "mixed": mixed.losses}
    assert losses("image") == {"align": {"image": 1.0}, "mixed": {"image": 2.0, "denoising": 3}}
    assert losses("none") == {"mixed": {"denoising": 3}}
    with refused(UsageError, "plan-contrast-leaves-nothing", contrast="none", phases=["align"]):
        contrasted({"align": phase}, "none")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"voxels": 7}, "voxels-fewer-than-patch"),
        ({"contrast": "frames"}, "plan-contrast-unknown"),
    ],
)
def test_plans_that_cannot_be_are_refused(changes: dict, code: str) -> None:
    with refused(UsageError, code, **changes):
        plan(**changes)


def test_windows_of_a_data_set_with_fewer_voxels_than_a_patch_are_refused() -> None:
    windows: Any = SimpleNamespace(max_voxels=60, voxels=np.arange(7))
    with refused(UsageError, "voxels-fewer-than-patch", voxels=7, patch=8):
        plan().check_windows(windows)
    windows.voxels = np.arange(8)
    plan().check_windows(windows)


def test_latent_frames_of_four_are_refused() -> None:
    films = replace(plan().films, turn=4)
    with refused(UsageError, "plan-latent-frames-not-single", turn=4):
        plan(films=films)


def test_a_phase_of_masked_volumes_has_to_say_how() -> None:
    phases = build(yaml.safe_load(Path(RECIPE).read_text())["phases"])
    with refused(UsageError, "recipe-missing-masked"):
        plan(pretrain=None).divide_phases(phases, from_base=False)
    brains, _ = plan(contrast="none").divide_phases(phases, from_base=False)
    assert [*brains] == ["together"]


def test_captions_of_which_no_word_is_known_are_refused() -> None:
    vocabulary = Vocabulary(["red-1", "still"])
    check_words(vocabulary.numbers(["blue-2 still", "dark"], 4), vocabulary)
    with refused(UsageError, "captions-without-known-word", captions=1, known_words=2):
        check_words(vocabulary.numbers(["blue-2 moving"], 4), vocabulary)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_shares_of_changes_are_shares(share: float) -> None:
    with refused(UsageError, "augmentation-share-out-of-range", share=share):
        Augmentation(crops=share)


@pytest.mark.parametrize(
    "changes",
    [["scale=tiny"], ["scale=tiny", "data=SET"], ["scale=tiny", "data=REC", "film=film.mp4"]],
)
def test_the_recipe_binds_in_every_form(
    changes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "film.mp4").touch()
    recipe = read("mindvideo", changes)
    check(recipe)
    parts = parts_of(recipe.tree)
    assert isinstance(parts.system, MindVideoPlan)
    assert parts.system.contrast == "both"
    assert [*parts.phases] == ["films", "frames", "pretrain", "masked", "align", "together"]
    # What the full size says of a phase is not said of the small one.
    assert parts.phases["masked"].clip == 1
    without = read("mindvideo", [*changes, "phases.masked=null", "phases.together.losses.text=null"])
    check(without)
    assert "masked" not in without.tree["phases"]
    assert "text" not in build(without.tree)["phases"]["together"].losses


def test_a_training_that_begins_at_a_run_is_refused() -> None:
    # A run keeps no tokens under films of these tokenizers, from which another person could go on.
    with refused(UsageError, "recipe-base-unsupported", recipe="mindvideo"):
        read("mindvideo", ["base=RUN"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mindvideo") / "run"
    return run(RECIPE, ["data.who.cortex=shared", "judge=none", f"out={out}"])


@pytest.mark.full
def test_the_graphs_decode_as_the_system_does_and_a_recording_is_replayed(
    trained: Path, tmp_path: Path
) -> None:
    bundle = exporting.run(trained, tmp_path / "bundle")
    manifest = bundle.manifest
    # Where sampling begins, an error of the noise is 15 times as large in the latents.
    assert manifest.parity["largest_difference"]["latent"] < 1e-4
    assert manifest.eeg is None
    assert (manifest.clip.frames, manifest.clip.fps) == (6, 3.0)
    # Two volumes, one of them after the window's own.
    assert manifest.grid.slots == 2
    record(participant("easy", 1, tr=2, cortex="shared").session(1003, 16.0), tmp_path / "recording")
    assert replay.run(tmp_path / "recording", str(bundle.path), "max", tmp_path / "out") == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / "clips.jsonl").read_text().splitlines()]
    finals = [line for line in lines if line["revision"] == "final"]
    assert finals
    assert {tuple(line["modalities"]) for line in finals} == {("fmri",)}


@pytest.mark.full
def test_a_run_is_restored_with_its_mean_brain(trained: Path) -> None:
    system = restored(trained, build(read_run(trained)["arguments"]["system"]))
    golden = arrays(trained, "golden")
    condition = system.condition(golden)
    assert condition.tokens.shape[1:] == (84, 16)
    weights = arrays(trained, "weights")
    assert np.abs(weights["encoder.mean_brain"]).max() > 0
    negative = system.negative(condition)
    assert negative is not None
    assert torch.isfinite(negative.tokens).all()


@pytest.mark.full
def test_what_is_read_of_a_shared_cortex_is_held_against_its_known_weights(
    trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "page"
    changes = [
        "film=shapes",
        "seconds=24",
        "seeds=1000-1003",
        "oracle=",
        "sections=condition",
        "attention=yes",
    ]
    assert evaluate.main([str(trained), *changes, f"out={out}"]) == 0
    report = json.loads((out / "figures.json").read_text())
    for name in ("attention_first", "attention_middle", "attention_last", "occlusion", "ridge_pattern"):
        figure = report["figures"][f"{name}_rank"]
        assert -1 <= figure["value"] <= 1
        assert figure["chance"] == 0
        # 60 voxels in patches of 8.
        assert figure["n"] == 8
        assert figure["shuffled"] < figure["shuffled_95"]
    rows = report["tables"]["attention by region"]
    assert {"V1", "V2"} <= {row["region"] for row in rows}
    assert {"last, after masked", "last, after align", "last, after together", "last, held out"} <= {*rows[0]}
    assert "by areas: V1" in read_run(trained)["manifest"]["provenance"]["voxel_order"]
    assert (out / "shapes-attention.png").is_file()
