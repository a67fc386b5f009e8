"""Brain Netflix on a folder of Zeroscope: a small one with random weights stands for it."""

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
from tests.train.data.layouts import released
from tests.train.pipelines import save_stable_diffusion, save_zeroscope
from tests.train.targets.models import clip_tower
from train.artifacts.run_folder import restored
from train.config.recipe import build, check, read
from train.config.run_files import arrays, read_run
from train.models.brainnetflix.encoder import FMRI, START
from train.models.brainnetflix.published import BrainNetflixPublishedPlan
from train.models.brainnetflix.system import SharedPublishedSystem
from train.models.conditioned.encoder import Signals
from train.run_recipe import run as make_run
from train.targets.__main__ import main as compute

TOKENS = 6
WIDTH = 8
PHASES = ("align", "regress")
PEOPLE = ("subject1", "subject2")
ENCODER = "{builder: shared-encoder, clip: 4, start: 6, hidden: 16, blocks: 1, dropout: 0.1, tokens: 4}"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_zeroscope(folder / "pipeline", WIDTH)
    clip_tower(folder / "clip")
    return folder


@pytest.fixture(scope="module")
def changes(models: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Write a release and its targets, and say what the recipe has to be told."""
    data = tmp_path_factory.mktemp("cc2017") / "preprocessed"
    released.mindvideo(data)
    targets = tmp_path_factory.mktemp("targets")
    folders = {
        "vae": models / "pipeline" / "vae",
        "image": models / "clip",
        "text": models / "clip",
        "prompt": models / "pipeline" / "text_encoder",
    }
    arguments = [text for name, path in folders.items() for text in (f"{name}={path}", f"{name}.licence=MIT")]
    assert compute([str(data), *arguments, "vae.size=16x32", "device=cpu", f"out={targets}"]) == 0
    return [
        f"data={data}",
        f"data.subject={','.join(PEOPLE)}",
        "data.frames=6",
        f"system.targets={targets}",
        f"system.video.folder={models / 'pipeline'}",
        "system.video.licence=MIT",
        "system.video.precision=float32",
        f"system.encoder={ENCODER}",
        f"system.conditions={TOKENS}",
        f"system.width={WIDTH}",
        "system.sampling={builder: video-sampling, steps: 2, guidance: 2, start_level: 0.836}",
        "system.machine.device=cpu",
        "system.machine.workers=0",
        *(
            f"phases.{name}.{key}"
            for name in ("align", "regress")
            for key in ("steps=2", "batch=3", "warmup=0")
        ),
    ]


@pytest.mark.full
def test_participants_of_a_release_share_all_but_a_layer(changes: list[str], tmp_path: Path) -> None:
    out = make_run("brainnetflix", [*changes, "judge=none", f"out={tmp_path / 'run'}"])
    tree = read_run(out)
    assert [*dict.fromkeys(row["phase"] for row in tree["tables"]["loss"])] == ["align", "regress"]
    provenance = tree["manifest"]["provenance"]
    assert (provenance["participants"], provenance["start_level"]) == ([*PEOPLE], 0.836)
    assert {*provenance["weights"]} == {"vae", "image", "text", "prompt", "decoder"}
    weights = arrays(out, "weights")
    # Nothing of the video model is trained.
    assert not [name for name in weights if name.startswith("transformer.")]
    system = restored(out, build(tree["arguments"]["system"]))
    assert isinstance(system, SharedPublishedSystem)
    condition = system.condition(arrays(out, "golden"))
    assert condition.tokens.shape[1:] == (TOKENS, WIDTH)
    assert condition.start.shape[1:] == (4, 6, 8, 16)
    assert condition.start_level == 0.836
    other = system.of_subject(PEOPLE[1])
    first, second = (dict(part.encoder.named_parameters()) for part in (system, other))
    # They have other numbers of voxels.
    differing = {name for name, value in first.items() if value.shape != second[name].shape}
    assert differing == {"stems.0.map"}
    assert torch.equal(first["trunk.0.layers.4.weight"], second["trunk.0.layers.4.weight"])
    bundle = exporting.run(out, tmp_path / "bundle")
    assert bundle.manifest.parity["largest_difference"]["latent"] < 1e-3
    newcomer = bundles.load(bundle.path, subject=PEOPLE[1])
    assert newcomer.manifest.clip.frames == 6


@pytest.mark.parametrize(
    ("change", "code", "values"),
    [
        ("system.width=1024", "clip-unet-wrong-tokens", {"width": WIDTH, "text": 1024}),
        ("system.conditions=77", "target-prompt-shape-mismatch", {"tokens": TOKENS, "expected_tokens": 77}),
        ("system.targets=TARGETS,b", "targets-sets-mismatch", {"targets": 2, "sets": 1}),
        ("phases.regress.batch=999", "batch-larger-than-participant", {"phase": "regress", "batch": 999}),
        ("phases.regress.losses={film: 1}", "phase-unknown-loss", {"phase": "regress"}),
        ("system.alignment=film", "plan-alignment-unknown", {"alignment": "film"}),
    ],
)
def test_what_does_not_fit_is_refused_before_signals_are_read(
    changes: list[str], tmp_path: Path, change: str, code: str, values: dict[str, Any]
) -> None:
    # Sizes of clips are read from the targets of the first set.
    (targets,) = [word.partition("=")[2] for word in changes if word.startswith("system.targets=")]
    with refused(UsageError, code, **values):
        make_run("brainnetflix", [*changes, change.replace("TARGETS", targets), f"out={tmp_path / 'run'}"])
    assert not list(tmp_path.rglob("*.npy"))


def test_a_folder_of_another_video_model_is_refused(tmp_path: Path) -> None:
    save_stable_diffusion(tmp_path)
    plan = build(read("brainnetflix", [f"system.video.folder={tmp_path}"]).tree)["system"]
    with refused(UsageError, "clip-unet-wrong-class", actual_class="UNet2DConditionModel"):
        plan.check_video()


def test_the_recipe_has_the_published_sizes() -> None:
    recipe = read("brainnetflix", [])
    check(recipe)
    plan = build(recipe.tree)["system"]
    assert isinstance(plan, BrainNetflixPublishedPlan)
    sizes = replace(plan.encoder, latent=(4, 15, 32, 32))
    with torch.device("meta"):
        encoder = sizes.build(Signals(2, 20000, 0, 0), 768, plan.conditions, plan.width)
        encoded = encoder({FMRI: torch.zeros(1, 2, 20000), f"{FMRI}_mask": torch.zeros(1, 2)})
    assert encoded.tokens.shape == (1, 77, 1024)
    assert encoded.predicted[START].shape == (1, 4, 15, 32, 32)
    learned = {name: sum(p.numel() for p in part.parameters()) for name, part in encoder.named_children()}
    # A layer of two volumes of 20,000 vertices, and four blocks of 4096.
    assert learned["stems"] == (2 * 20000 + 1) * 1024
    assert learned["trunk"] == 4 * (2 * 1024 + (1024 + 1) * 4096 + (4096 + 1) * 1024)
    assert learned["tokens"] == learned["start"] == (1024 + 1) * 512
    assert np.isclose(plan.sampling.start_level, 0.836)
