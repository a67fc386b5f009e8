"""The benchmark of CineNeuron's claims: what it makes of comparisons, and its control at test."""

import json
from pathlib import Path

import pytest

from benchmarks import cineneuron, variants
from train.recipe import check, read


def row(variant: str, seed: str, value: float, less: float | None) -> dict:
    interval = None if less is None else [less - 0.02, less + 0.02]
    of_one = {"value": value, "less": less, "less_ci95": interval}
    return {"preset": "easy", "variant": variant, "seed": seed, "metric": "condition_2way"} | of_one


def test_differences_of_several_seeds_rest_on_how_far_seeds_lie_apart() -> None:
    rows = [
        row("whole", "0", 0.9, None),
        row("whole", "1", 0.8, None),
        row("text", "0", 0.8, -0.1),
        row("text", "1", 0.76, -0.04),
        row("fmri", "0", 0.88, -0.02),
    ]
    of_easy = variants.summarised(rows)["easy"]
    assert of_easy["whole"]["condition_2way"] == {
        "value": pytest.approx(0.85),
        "less": None,
        "less_ci95": None,
        "seeds": 2,
    }
    text = of_easy["text"]["condition_2way"]
    assert text["less"] == pytest.approx(-0.07)
    # Student's t of two values: the mean, and 12.706 times its standard error of 0.03.
    assert text["less_ci95"] == pytest.approx([-0.07 - 12.706 * 0.03, -0.07 + 12.706 * 0.03], abs=1e-3)
    alone = of_easy["fmri"]["condition_2way"]
    assert alone["less_ci95"] == pytest.approx([-0.04, 0.0])
    assert "fmri" in [*variants.table(of_easy, "easy", "whole").columns[0].cells]


def test_the_control_at_test_is_the_same_run_with_other_rows(tmp_path: Path) -> None:
    run = tmp_path / "whole-0"
    (run / "memory").mkdir(parents=True)
    (run / "memory" / "captions.npy").write_bytes(b"texts")
    memory = {"builder": "mixture-of-memories", "entries": 2}
    tree = {"arguments": {"system": {"encoder": {"memory": memory}}}}
    (run / "run.json").write_text(json.dumps(tree))
    copy = cineneuron.with_random_rows(run, tmp_path / "copy")
    changed = json.loads((copy / "run.json").read_text())
    assert changed["arguments"]["system"]["encoder"]["memory"] == memory | {"rows": "random"}
    assert json.loads((run / "run.json").read_text()) == tree
    assert (copy / "memory" / "captions.npy").read_bytes() == b"texts"


@pytest.mark.parametrize("variant", cineneuron.VARIANTS)
def test_each_variant_is_a_line_of_the_recipe(variant: str) -> None:
    check(read("cineneuron", ["scale=tiny", *cineneuron.VARIANTS[variant], "system.brain_seed=1"]))
