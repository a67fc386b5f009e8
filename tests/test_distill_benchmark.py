"""A distilled run at tiny scale: its bundle holds the student, and it is held against its teacher."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import distill
from rtdecode.errors import UsageError
from tests.train.tiny import tiny, tiny_bundle
from train.distillation import gates
from train.recipe import build
from train.run_folder import arrays, read_run, restored

RECIPE = "compact-distilled"
ROOT = Path(__file__).parents[1]


@pytest.mark.full
def test_a_distilled_run_is_exported_and_held_against_its_teacher():
    run = tiny(RECIPE)
    found = distill.measure(run, "natural", "easy", "1000", 24)
    assert found["n"] == 6
    for n in gates.STEPS:
        figures = found["steps"][str(n)]
        assert 0 < figures["error"] < 5
        assert figures["identification"]["n"] == 6
        assert set(found["failed"][str(n)]) <= set(figures)
        assert figures["error"] != found["undistilled"][str(n)]["error"], "it draws with the student"
    json.dumps(found)
    assert len(distill.verdicts(found)) == 5
    assert tiny_bundle(RECIPE).manifest.parity["largest_difference"]["latent"] < 1e-4
    rows = read_run(run)["tables"]["distillation"]
    assert {row["steps"] for row in rows} == {*gates.STEPS}


@pytest.mark.full
def test_the_run_keeps_the_teacher_and_what_the_student_learned_beside_it():
    run = tiny(RECIPE)
    weights = arrays(run, "weights")
    student = {name for name in weights if name.startswith("student.")}
    assert any(".lora_A." in name for name in student)
    system = restored(run, build(read_run(run)["arguments"]["system"]))
    teacher = system.teacher()
    assert teacher is not None
    assert teacher.teacher() is None
    assert set(teacher.weights()) == set(weights) - student
    assert all(np.array_equal(values, weights[name]) for name, values in teacher.weights().items())


def test_a_run_that_was_not_distilled_is_refused():
    with pytest.raises(UsageError, match="was not distilled: it has no student beside its teacher"):
        distill.measure(ROOT / "train" / "runs" / "phantom", "natural", "easy", "1000", 24)
