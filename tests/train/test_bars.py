"""The shipped decoder against the ridge oracle on the same fresh windows, and at every preset."""

import json
from pathlib import Path

import pytest

from benchmarks.oracle import SECONDS, TRAINING, oracle, see
from rtdecode.phantom.film import Film
from rtdecode.phantom.presets import PRESETS
from train.evaluate import Request, evaluate
from train.run import read_run

SHIPPED = Path(__file__).parents[2] / "train" / "runs" / "phantom"
JUDGED = (1000, 1001)


def test_the_shipped_figures_pass_the_bars() -> None:
    figures = read_run(SHIPPED)["figures"]
    bars = json.loads((SHIPPED.parents[2] / "benchmarks" / "bars.json").read_text())["oracle"]["easy"]
    both, eeg = figures["identification_2way"], figures["identification_2way_eeg"]
    assert both["n"] >= 200
    assert both["value"] >= 0.85
    assert figures["identification_2way_same_background"]["value"] >= 0.65
    assert figures["identification_50way"]["value"] > figures["identification_50way"]["chance"]
    assert 0.45 <= both["shuffled"] <= 0.55
    assert 0.45 <= eeg["shuffled"] <= 0.55
    for figure, route in ((both, "both"), (eeg, "eeg")):
        assert figure["value"] - 0.5 >= 0.9 * (bars[route]["identification_2way"]["value"] - 0.5)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_the_shipped_decoder_reaches_the_oracle_on_the_same_fresh_windows() -> None:
    found = evaluate(SHIPPED, Request(seeds="1000-1001", seconds=float(SECONDS)))
    pictures = see([Film(SECONDS, s) for s in TRAINING], [Film(SECONDS, s) for s in JUDGED])
    bars = oracle(PRESETS["easy"], pictures, TRAINING, JUDGED)
    for suffix, route in (("", "both"), ("_eeg", "eeg")):
        figure = found[f"identification_2way{suffix}"]
        assert figure["n"] == len(pictures.truths)
        assert figure["value"] - 0.5 >= 0.9 * (bars[route]["identification_2way"]["value"] - 0.5)
    assert found["identification_2way"]["value"] >= 0.85
    assert found["identification_2way_same_background"]["value"] >= 0.65


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_the_default_and_hard_presets_are_above_chance_and_harder() -> None:
    figures = evaluate(SHIPPED, Request(presets="easy,default,hard", seeds="1000-1001", seconds=400.0))
    values = [figures[f"{p}identification_2way"]["value"] for p in ("", "default/", "hard/")]
    assert values[0] > values[1] > values[2] > 0.5
