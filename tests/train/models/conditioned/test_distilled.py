"""A small CineSync is distilled: its bundle goes from level to level, in any few steps."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.experiments import distill
from export import run as exporting
from rtdecode import bundle as bundles
from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.models.cinesync.test_cinesync import SMALL
from train.artifacts.run_folder import restored
from train.config.recipe import build
from train.config.run_files import arrays, read_run, weights
from train.distillation import gates
from train.evaluation.sessions import Sessions
from train.run_recipe import main as train

_SHORTENED = ("steps", "show_every", "keep_every")
CHANGES = [change for change in SMALL if not change.endswith(".steps=10")] + [
    *(f"phases.{phase}.steps=4" for phase in ("films", "pretrain", "align", "diffuse")),
    *(f"phases.distill.{name}={n}" for name, n in zip(_SHORTENED, (4, 2, 2), strict=True)),
    "phases.distill.batch=2",
    # So that four steps are seen in half precision.
    "phases.distill.rate=0.05",
    "phases.distill.warmup=0",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "cinesync-distilled"
    assert train(["cinesync-distilled", *CHANGES, f"out={out}"]) == 0
    return out


@pytest.mark.full
def test_the_student_is_held_against_its_teacher_while_it_learns(run: Path) -> None:
    tables = read_run(run)["tables"]
    assert tables["loss"][-1]["phase"] == "distill"
    rows = tables["distillation"]
    assert [(row["step"], row["steps"]) for row in rows] == [(s, n) for s in (2, 4) for n in gates.STEPS]
    assert all(0 < row["error"] < 10 for row in rows)


@pytest.mark.full
def test_the_run_keeps_the_teacher_as_it_was(run: Path) -> None:
    saved = weights(run)
    student = {name for name in saved if name.startswith("student.")}
    assert any(".lora_B.distill." in name for name in student)
    assert any(".span." in name for name in student)
    assert all(name.startswith("student.transformer_blocks.") for name in student if ".lora_" in name)
    system = restored(run, build(read_run(run)["arguments"])["system"])
    teacher = system.teacher()
    assert teacher is not None
    assert teacher.teacher() is None
    assert set(teacher.weights()) == set(saved) - student
    golden = arrays(run, "golden")
    inputs = {name: golden[name] for name in ("eeg", "eeg_mask", "fmri", "fmri_mask")}
    noise = np.random.default_rng(0).standard_normal((3, *system.latent_shape), np.float32)
    arguments = read_run(run)["arguments"]
    arguments["system"]["sampling"]["sampler"] = "sde-dpm++"
    with refused(UsageError, "sampler-unsupported", sampler="sde-dpm++"):
        restored(run, build(arguments)["system"])
    latents = system.sample(system.condition(inputs), noise, 2)
    assert not np.allclose(latents, teacher.sample(teacher.condition(inputs), noise, 2), atol=1e-2)


@pytest.mark.full
def test_the_bundle_goes_from_level_to_level_in_any_few_steps(run: Path, tmp_path: Path) -> None:
    exporting.run(run, tmp_path / "bundle")
    manifest = bundles.load(tmp_path / "bundle").manifest
    denoise = manifest.built["denoise"]
    assert {name: port.source for name, port in denoise.inputs.items()} == {
        "latent": "start",
        "condition": "encode.condition",
        "t": "t",
        "r": "r",
    }
    assert set(manifest.sigmas) == {str(n) for n in range(1, 9)}
    assert manifest.steps == 4
    assert manifest.parity["largest_difference"]["latent"] < 1e-4


@pytest.mark.full
def test_another_default_of_steps_leaves_the_few_steps_that_a_session_falls_back_to(
    run: Path, tmp_path: Path
) -> None:
    exporting.run(run, tmp_path / "bundle", steps=10)
    manifest = bundles.load(tmp_path / "bundle").manifest
    assert manifest.steps == 10
    assert set(manifest.sigmas) == {"10", *(str(n) for n in range(1, 9))}
    assert len(manifest.sigmas["10"]) == 10


@pytest.mark.full
def test_the_benchmark_holds_it_against_its_teacher(run: Path) -> None:
    report = distill.measure(run, Sessions("shapes", "easy", "1000", 24.0))
    assert report["n"] == 6
    for n in gates.STEPS:
        assert report["steps"][str(n)]["error"] != report["undistilled"][str(n)]["error"]
