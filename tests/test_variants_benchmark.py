"""Variants that are trained on different days: what is kept of each, what is compared, what is refused."""

import json
import shutil
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import fusions, variant_outcomes
from benchmarks.variant_outcomes import ALONE, MISSING, NONE, Outcome, Outcomes, outcome_of
from benchmarks.variants import Ablation, Variant, add_runs
from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.tiny import tiny
from train import compare
from train.config.recipe import check, read
from train.evaluation.film_figures import difference, figure, gathered
from train.evaluation.film_scores import Scores
from train.evaluation.sessions import Sessions

METRIC = "condition_2way"
HOW = {"recipe": "f00d", "changes": ["phases.align.steps=375"], "seeds": "1000-1019"}
COMPARISONS = {"whole": ("text", "fmri", "mlp")}


def outcome(*means: float) -> Outcome:
    return Outcome({METRIC: list(means)}, {METRIC: [15] * len(means)})


def outcomes_of(runs: Mapping[str, Outcome]) -> Outcomes:
    outcomes = Outcomes(HOW)
    for name, of_run in runs.items():
        outcomes = outcomes.adding(name, ["a=1"], "easy", of_run)
    return outcomes


def compared(runs: Mapping[str, Outcome]) -> dict[str, Any]:
    return variant_outcomes.compared(outcomes_of(runs), COMPARISONS, ["easy", "default"])["whole"]


def random_scores(rng: np.random.Generator, windows: int) -> Scores:
    """Draw scores of a session, of which the last window has none."""
    scores = rng.uniform(size=windows)
    scores[-1] = np.nan
    return {METRIC: (scores, np.ones(windows))}


@pytest.mark.parametrize("sessions", [1, 6, 30])
def test_what_is_kept_gives_the_figures_of_all_windows(sessions: int) -> None:
    rng = np.random.default_rng(0)
    reference, variant = ([random_scores(rng, 5 + n % 3) for n in range(sessions)] for _ in range(2))
    units = np.concatenate([np.full(5 + n % 3, n) for n in range(sessions)])
    runs = {"whole-0": reference, "text-0": variant}
    outcomes = outcomes_of({name: outcome_of(run, units, [METRIC]) for name, run in runs.items()})
    of_text = variant_outcomes.compared(outcomes, {"whole": ("text",)}, ["easy"])["whole"]["easy"]["text"]
    scores = gathered(variant, METRIC)
    value = figure(*scores, None, units)
    less = difference(scores, gathered(reference, METRIC), units)
    assert value is not None
    assert less is not None
    for entry, expected in [(of_text[METRIC]["value"], value), (of_text[METRIC]["less"], less)]:
        assert entry["value"] == pytest.approx(expected["value"], abs=2e-6)
        assert (entry["ci95"] is None) == (expected["ci95"] is None) == (sessions == 1)
        if sessions > 1:
            assert entry["ci95"] == pytest.approx(expected["ci95"], abs=1e-5)


def test_differences_of_several_seeds_rest_on_how_far_seeds_lie_apart() -> None:
    comparison = compared(
        {
            "whole-0": outcome(0.9, 0.9, 0.9, 0.9),
            "whole-1": outcome(0.8, 0.8, 0.8, 0.8),
            "text-0": outcome(0.8, 0.8, 0.8, 0.8),
            "text-1": outcome(0.76, 0.76, 0.76, 0.76),
            "fmri-0": outcome(0.85, 0.87, 0.89, 0.91),
        }
    )
    assert [*comparison] == ["easy"]
    reference = comparison["easy"]["whole"][METRIC]
    assert (reference["value"]["value"], reference["less"]) == (pytest.approx(0.85), None)
    text = comparison["easy"]["text"][METRIC]
    assert text["seeds"] == ["0", "1"]
    assert text["less"]["value"] == pytest.approx(-0.07)
    # Student's t of two values: the mean, and 12.706 times its standard error of 0.03.
    assert text["less"]["ci95"] == pytest.approx([-0.07 - 12.706 * 0.03, -0.07 + 12.706 * 0.03], abs=1e-3)
    alone = comparison["easy"]["fmri"][METRIC]["less"]
    # Of one seed, the interval is over sessions: 3.182 standard errors.
    error = np.std([0.85, 0.87, 0.89, 0.91], ddof=1) / 2
    assert alone["ci95"] == pytest.approx([-0.02 - 3.182 * error, -0.02 + 3.182 * error], abs=1e-4)
    table = variant_outcomes.table(comparison["easy"], "easy", "whole")
    assert [*table.columns[0].cells] == ["whole", "text", "fmri", "mlp"]
    assert [*table.columns[1].cells] == ["0, 1", "0, 1", "0", ""]


def test_what_is_not_there_is_said() -> None:
    of_easy = compared({"text-1": outcome(0.7, 0.8, 0.9, 0.8), "fmri-0": Outcome({}, {})})["easy"]
    assert of_easy["whole"][METRIC] == {"value": MISSING, "less": None, "seeds": []}
    assert of_easy["mlp"][METRIC] == {"value": MISSING, "less": MISSING, "seeds": []}
    assert of_easy["fmri"][METRIC] == {"value": NONE, "less": NONE, "seeds": []}
    assert of_easy["text"][METRIC]["value"]["value"] == pytest.approx(0.8)
    assert of_easy["text"][METRIC]["less"] == ALONE


def test_runs_of_different_days_are_counted_together_and_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "fusions.json"
    first = outcomes_of({"whole-0": outcome(0.9, 0.8)})
    first.write(path, {})
    again = variant_outcomes.read(path, HOW)
    assert again.has("whole-0", "easy")
    assert not again.has("whole-0", "default")
    both = again.adding("text-0", ["a=1"], "easy", outcome(0.7, 0.8))
    both.write(path, {"whole": {}})
    runs = json.loads(path.read_text())["runs"]
    assert {name: run["easy"][METRIC] for name, run in runs.items()} == {
        "whole-0": [0.9, 0.8],
        "text-0": [0.7, 0.8],
    }
    fewer = HOW | {"seeds": "1000-1009"}
    with refused(
        UsageError,
        "benchmark-runs-differ",
        path=str(path),
        actual={"seeds": "1000-1019"},
        expected={"seeds": "1000-1009"},
    ):
        variant_outcomes.read(path, fewer)
    both.check({"whole-0": ["a=1"], "text-0": ["a=1"]}, path)
    with refused(UsageError, "benchmark-variant-differs", run="text-0", actual=["a=1"], expected=["a=2"]):
        both.check({"whole-0": ["a=1"], "text-0": ["a=2"]}, path)
    with refused(UsageError, "benchmark-windows-differ", run="mlp-0", metrics=[METRIC]):
        both.adding("mlp-0", ["a=1"], "easy", outcome(0.7, 0.8, 0.9))


def test_variants_and_seeds_may_be_asked_for_one_at_a_time() -> None:
    ablation = Ablation(
        recipe="cinesync",
        variants={"whole": Variant(), "text": Variant(), "fmri": Variant()},
        comparisons={"whole": ("text", "fmri")},
        steps={},
        seeds=("0", "1"),
        several=("whole", "text"),
    )
    assert ablation.runs_of(None, None) == [
        ("whole", "0"),
        ("text", "0"),
        ("fmri", "0"),
        ("whole", "1"),
        ("text", "1"),
    ]
    assert ablation.runs_of(None, "1") == [("whole", "1"), ("text", "1")]
    assert ablation.runs_of("fmri", None) == [("fmri", "0")]
    assert ablation.runs_of("fmri", "3") == [("fmri", "3")]
    assert ablation.runs_of("", None) == []
    with refused(UsageError, "benchmark-variant-unknown", variants=["images"]):
        ablation.runs_of("whole,images", None)


@pytest.mark.parametrize("variant", fusions.ABLATION.variants)
def test_each_fusion_is_a_line_of_the_recipe(variant: str) -> None:
    check(read("cinesync", ["scale=tiny", *fusions.ABLATION.changes(variant, "1")]))


@pytest.mark.full
def test_a_run_is_judged_once_and_compared_as_all_runs_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ablation = Ablation(
        recipe="ridge",
        variants={
            "broken": Variant(stages=None),
            "whole": Variant(),
            "copy": Variant(of="whole", copied=shutil.copytree),
        },
        comparisons={"whole": ("copy",)},
        steps={},
        presets=("easy",),
        seconds=24.0,
    )
    options = Namespace(
        variants=None,
        brain_seeds=None,
        presets="easy",
        work=tmp_path / "work",
        steps=None,
        sessions=1,
        write=True,
    )
    shutil.copytree(tiny("ridge"), options.work / "whole-0")
    out = tmp_path / "kept.json"
    (options.work / "broken-0").mkdir()
    with pytest.raises(UsageError, match="broken-0"):
        add_runs(ablation, options, out)
    assert "broken-0: " in capsys.readouterr().err
    # The other runs are made all the same, and kept.
    options.variants = "whole,copy"
    shutil.rmtree(options.work)
    outcomes = add_runs(ablation, options, out)
    assert set(outcomes.runs) == {"whole-0", "copy-0"}
    assert add_runs(ablation, options, out) == outcomes
    rows = compare.measure([tiny("ridge")], Sessions("shapes", "easy", "1010", 24.0))
    (row,) = (
        row for row in rows if row["decoder"] == "ridge" and row["metric"] == "identification_2way_centred"
    )
    of_easy = json.loads(out.read_text())["comparisons"]["whole"]["easy"]
    entry = of_easy["whole"]["identification_2way_centred"]
    assert entry["value"]["value"] == pytest.approx(row["value"], abs=1e-6)
    assert entry["value"]["ci95"] == row["ci95"]
    assert of_easy["copy"]["identification_2way_centred"]["less"]["value"] == 0.0
