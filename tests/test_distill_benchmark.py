"""A distilled run at tiny scale: its bundle holds the student, and it is held against its teacher."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks.experiments import distill
from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.tiny import tiny, tiny_bundle
from train.artifacts.run_folder import restored
from train.config.recipe import FOLDER, build
from train.config.run_files import arrays, read_run, weights, weights_digest
from train.distillation import gates
from train.distillation.dmd import CRITIC, MATCHING
from train.evaluation.reconstruct import conditions_alone
from train.evaluation.sessions import Sessions
from train.models.compact.redetail import with_share
from train.models.compact.system import Compact
from train.run_recipe import run

RECIPE = "compact-distilled"
RUNS = Path(__file__).parents[1] / "train" / "runs"


@pytest.mark.full
def test_a_distilled_run_is_exported_and_held_against_its_teacher():
    folder = tiny(RECIPE)
    report = distill.measure(folder, Sessions("natural", "easy", "1000", 24))
    assert report["n"] == 6
    for n in gates.STEPS:
        figures = report["steps"][str(n)]
        assert 0 < figures["error"] < 5
        assert figures["identification"]["n"] == 6
        assert set(report["failed"][str(n)]) <= set(figures)
        assert figures["error"] != report["undistilled"][str(n)]["error"], "it draws with the student"
    json.dumps(report)
    assert len(distill.verdicts(report)) == 5
    assert tiny_bundle(RECIPE).manifest.parity["largest_difference"]["latent"] < 1e-4
    rows = read_run(folder)["tables"]["distillation"]
    assert {row["steps"] for row in rows} == {*gates.STEPS}


@pytest.mark.full
def test_the_run_keeps_the_teacher_and_what_the_student_learned_beside_it():
    folder = tiny(RECIPE)
    weights = arrays(folder, "weights")
    student = {name for name in weights if name.startswith("student.")}
    assert any(".lora_A." in name for name in student)
    system = restored(folder, build(read_run(folder)["arguments"]["system"]))
    teacher = system.teacher()
    assert teacher is not None
    assert teacher.teacher() is None
    assert set(teacher.weights()) == set(weights) - student
    assert all(np.array_equal(values, weights[name]) for name, values in teacher.weights().items())


@pytest.mark.full
def test_a_finished_run_is_distilled_without_being_trained_again(tmp_path: Path):
    out = run(RECIPE, ["scale=tiny", f"teacher={tiny('compact')}", f"out={tmp_path / 'run'}"])
    distilled_weights = arrays(out, "weights")
    teacher_weights = arrays(tiny("compact"), "weights")
    flow = {name for name in teacher_weights if name.startswith("flow.")}
    assert flow
    assert all(np.array_equal(distilled_weights[name], teacher_weights[name]) for name in flow)
    assert any(name.startswith("student.") for name in distilled_weights)
    tree = read_run(out)
    assert tree["teacher"] == weights_digest(tiny("compact"))
    assert {row["phase"] for row in tree["tables"]["loss"]} == {"distill"}
    words = ["scale=tiny", "data.sessions=40-41", f"teacher={tiny('compact')}", f"out={tmp_path / 'other'}"]
    with refused(UsageError, "teacher-codec-mismatch"):
        run(RECIPE, words)


@pytest.mark.full
def test_a_second_stage_matches_the_students_clips_and_leaves_no_critic(tmp_path: Path):
    recipe = yaml.safe_load((FOLDER / f"{RECIPE}.yaml").read_text())
    distilling = recipe["phases"]["distill"]
    lora = distilling["adapters"]["student.flow"]
    recipe["phases"]["match"] = distilling | {
        "losses": {"flow_map": 1, MATCHING: 1, CRITIC: 1},
        "trained": ["student.flow.*.lora_*", *distilling["trained"]],
        "adapters": {"teacher.flow": lora},
    }
    recipe["tiny"]["phases"]["match"] = recipe["tiny"]["phases"]["distill"]
    path = tmp_path / "matched.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    out = run(str(path), ["scale=tiny", f"teacher={tiny('compact')}", f"out={tmp_path / 'run'}"])

    tables = read_run(out)["tables"]
    rows = [row for row in tables["loss"] if row["phase"] == "match"]
    assert set(rows[-1]["losses"]) == {"flow_map", MATCHING, CRITIC}
    logged_steps = {(row["phase"], row["step"]) for row in tables["distillation"]}
    assert logged_steps == {("distill", 4), ("match", 0), ("match", 4)}
    weights = arrays(out, "weights")
    assert not any(".match." in name or "teacher" in name for name in weights)
    assert not [file for file in out.rglob("*") if "match" in file.name]
    teacher_weights = arrays(tiny("compact"), "weights")
    assert all(
        np.array_equal(weights[name], teacher_weights[name])
        for name in teacher_weights
        if name.startswith("flow.")
    )
    # The student is made of the run's arrays again, and draws other detail than its teacher. Without it, both
    # draw what the brain told.
    system = restored(out, build(read_run(out)["arguments"]["system"]))
    assert isinstance(system, Compact)
    detailed = Compact(with_share(system.weights(), 1.0))
    teacher = detailed.teacher()
    assert teacher is not None
    golden = arrays(out, "golden")
    inputs = {port: golden[port] for port in ("eeg", "eeg_mask", "fmri", "fmri_mask")}
    condition = next(conditions_alone(system, inputs))
    noise = np.random.default_rng(0).standard_normal(
        (len(condition.pooled), *system.latent_shape), np.float32
    )
    latents = detailed.sample(condition, noise, 2)
    assert np.isfinite(latents).all()
    assert not np.allclose(latents, teacher.sample(condition, noise, 2), atol=1e-3)


@pytest.mark.parametrize(
    ("recipe", "teacher", "code", "values"),
    [
        ("compact", "phantom", "recipe-missing-distillation-phase", {"teacher": RUNS / "phantom"}),
        ("ridge", "phantom", "teacher-unsupported", {"recipe": "ridge"}),
        (RECIPE, "haxby", "teacher-wrong-system", {"teacher": RUNS / "haxby"}),
        (RECIPE, "nowhere", "run-unreadable", {"folder": RUNS / "nowhere"}),
    ],
)
def test_what_cannot_be_distilled_is_refused_at_once(
    recipe: str, teacher: str, code: str, values: dict[str, Any], tmp_path: Path
):
    place = RUNS / teacher
    with refused(UsageError, code, **values):
        run(recipe, ["scale=tiny", "films=none", f"teacher={place}", f"out={tmp_path / 'run'}"])
    assert not any(tmp_path.iterdir())


def test_a_run_that_was_not_distilled_is_refused():
    with refused(UsageError, "benchmark-run-not-distilled"):
        distill.measure(RUNS / "cinesync-tiny", Sessions("natural", "easy", "1000", 24))


def test_both_sides_draw_all_detail_whatever_the_run_keeps() -> None:
    system = distill.in_full(Compact(with_share(weights(RUNS / "phantom"), 0.25)))
    teacher = system.teacher()
    assert teacher is not None
    assert system.detail == teacher.detail == 1.0
