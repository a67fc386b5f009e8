"""The candidates for following the resting level: causal, and what the benchmark found of them."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.normalise import decode, difference, from_onsets, gathered, on_grid, ratio
from benchmarks.normalisers import METHODS, OURS, YARDSTICK, Method, Recorded
from train.data import haxby
from train.models.haxby.drift import responses
from train.models.haxby.trials import Blocks

DATA = Path(__file__).parents[1] / "data" / "haxby"
FIGURES = Path(__file__).parents[2] / "benchmarks" / "normalise.json"
DECODER = "shrinkage LDA, relevance weights"


def recorded(number: int) -> Recorded:
    run = haxby.load(DATA, number)
    bright = np.flatnonzero(haxby.load(DATA, 1).data.mean(-1) > 1000)[:30]
    series = run.data.reshape(-1, 121)[bright].T.astype(np.float64)
    motion = np.random.default_rng(number).normal(size=(121, 6))
    return Recorded(series, responses(run.events, haxby.LABELS, 121, run.tr_s), motion)


@pytest.mark.parametrize("method", [m for m in METHODS if m.kind != "offline"], ids=lambda m: m.name)
def test_no_candidate_looks_ahead(method: Method) -> None:
    training = [recorded(n) for n in (1, 2, 3)]
    run = recorded(4)
    later = run.series.copy()
    later[50:] += 40
    for parameters in (method.grid[0], method.grid[-1]):
        normalise = method.make(training, **parameters)
        assert run.motion is not None
        one = normalise(run)
        other = normalise(Recorded(later, run.course, run.motion))
        assert np.array_equal(one[:50], other[:50])
        assert not np.array_equal(one[50:], other[50:])


def test_the_yardstick_does_look_ahead() -> None:
    method = next(m for m in METHODS if m.name == YARDSTICK)
    run = recorded(4)
    later = run.series.copy()
    later[50:] += 40
    one, other = (method.make([], **method.grid[0])(Recorded(s, run.course)) for s in (run.series, later))
    assert not np.allclose(one[:50], other[:50])


def test_windows_are_laid_as_told() -> None:
    blocks = Blocks({n: haxby.load(DATA, n).events for n in range(1, 11)}, haxby.LABELS)
    laid = from_onsets(blocks, 0.0)
    assert len(laid.truth) == 400
    assert len(np.unique(laid.block)) == 80
    assert set(map(len, laid.volumes)) == {1, 2}
    live = on_grid(blocks, 3.5)
    assert 370 <= len(live.truth) <= 400
    assert len(np.unique(live.block)) == 80


def test_the_decoder_reads_categories_and_weights_help_among_empty_voxels() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(240) % 8
    told = 1.2 * rng.normal(size=(8, 12))[y] + rng.normal(size=(240, 12))
    x = np.hstack([told, rng.normal(size=(240, 300))])
    hits = [
        (decode(x[:120], y[:120], x[120:], weighted)[2].argmax(1) == y[120:]).mean()
        for weighted in (False, True)
    ]
    assert 1 / 8 < hits[0] < hits[1]


def test_paired_figures() -> None:
    block = np.repeat(np.arange(20), 5)
    one = np.ones(100)
    other = (np.arange(100) % 2).astype(float)
    assert difference(one, other, block)["value"] == 0.5
    assert difference(one, one, block)["ci95"] == [0.0, 0.0]
    assert ratio(one, one, block)["value"] == 1.0
    assert ratio(one, other, block)["value"] == pytest.approx((1 - 0.125) / (0.5 - 0.125))
    logits = np.zeros((4, 8))
    logits[0, 1] = 2
    logits[1, 2] = 1
    logits[2:, 3] = 1
    found = {"logits": logits, "block": np.array([0, 0, 1, 1]), "truth": np.array([1, 1, 3, 3])}
    assert gathered(found).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("protocol", ["from each onset", "live grid"])
def test_the_figures_reach_the_bars(protocol: str) -> None:
    tree = json.loads(FIGURES.read_text())[protocol][DECODER]
    ours = tree["methods"][OURS]
    assert ours["accuracy"] >= 0.62
    for offline in (m.name for m in METHODS if m.kind == "offline"):
        assert tree["methods"][offline]["ours_over_this"]["value"] >= 0.95
    for plain in (m.name for m in METHODS if m.kind == "plain"):
        assert tree["methods"][plain]["ours_minus_this"]["ci95"][0] > 0
    assert tree["shuffled"]["mean"] < 0.15
