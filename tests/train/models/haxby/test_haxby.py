"""The category decoder on the ten runs that the project ships."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rtdecode import bundle as bundles
from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.tiny import tiny
from train.artifacts.run_folder import draft_of
from train.config.run_context import RunContext
from train.config.run_files import read_run
from train.config.run_files import weights as stored
from train.data import haxby
from train.evaluate import Request, evaluate
from train.models.haxby.causal import CausalChain
from train.models.haxby.leave_one_run_out import leave_one_out, offline_trials
from train.models.haxby.trials import Blocks, Candidates
from train.run_recipe import run

DATA = Path(__file__).parents[3] / "data" / "haxby"
SHIPPED = Path(__file__).parents[4] / "train" / "runs" / "haxby"


def test_the_shipped_data_are_the_ten_runs() -> None:
    for number in range(1, 11):
        run = haxby.load(DATA, number)
        assert run.data.shape == (40, 20, 1, 121)
        assert run.tr_s == 2.5
        assert sorted(e.trial_type for e in run.events) == sorted(haxby.LABELS)


def test_data_that_are_not_there_are_named(tmp_path: Path) -> None:
    with refused(UsageError, "haxby-no-runs", folders=re.compile(re.escape(str(tmp_path)))):
        haxby.folder(tmp_path)
    with refused(UsageError, "haxby-run-missing", run=11):
        haxby.load(DATA, 11)


def test_a_tiny_training_reads_categories_from_runs_it_has_not_seen() -> None:
    tree = read_run(tiny("haxby"))
    figure = tree["figures"]["classification_top1"]
    assert figure["n"] > 100
    assert figure["ci95"][0] > figure["chance"]
    assert figure["shuffled"] < figure["ci95"][0]
    assert tree["manifest"]["provenance"]["onset_correction_s"] in (3, 4)
    assert tree["manifest"]["note"] == "category decoding, recorded data, not a reconstruction"
    assert tree["manifest"]["simulated"] is False


def test_where_every_judged_run_is_trained_on_nothing_is_held_out(tmp_path: Path) -> None:
    short = [
        "data.runs=1-4",
        "data.others=",
        "system.corrections=[3]",
        "judge.lags=[4]",
        "judge.permutations=1",
    ]
    run_folder = run("haxby", ["scale=tiny", *short, f"data={DATA}", f"out={tmp_path / 'run'}"])
    assert set(read_run(run_folder)["figures"]) == {"classification_top1", "classification_top1_offline"}


@pytest.mark.parametrize(
    ("change", "key", "runs", "min_runs"),
    [("data.runs=1-2", "data.runs", "1,2", 3), ("data.others=", "data.others", "1,2,3", 4)],
)
def test_too_few_runs_are_refused_before_the_work(
    tmp_path: Path, change: str, key: str, runs: str, min_runs: int
) -> None:
    with refused(UsageError, "haxby-too-few-runs", key=key, runs=runs, min_runs=min_runs):
        run("haxby", ["scale=tiny", change, f"data={DATA}", f"out={tmp_path / 'run'}"])


def test_the_offline_yardstick_removes_trend_and_level() -> None:
    run = haxby.load(DATA, 1)
    bundle = draft_of(tiny("haxby"))
    voxels = np.flatnonzero(run.data.mean(-1) > 300)
    drift = run.data + 50 + np.arange(121) * 3 + np.arange(121) ** 2 // 40
    moved = haxby.BoldRun(1, drift.astype(np.int16), run.affine, run.tr_s, run.events)
    plain = offline_trials(bundle.manifest.grid, {1: run}, voxels, 4.0)
    assert np.allclose(plain.x, offline_trials(bundle.manifest.grid, {1: moved}, voxels, 4.0).x, atol=0.1)


def test_a_lag_at_which_windows_of_a_block_have_no_volume_is_refused(tmp_path: Path) -> None:
    full_runs = {number: haxby.load(DATA, number) for number in range(1, 5)}
    # Runs that end with their last block: its last windows have no volume 14 s later.
    runs = {}
    for number, haxby_run in full_runs.items():
        volumes = int(haxby_run.events[-1].stop_s / haxby_run.tr_s)
        runs[number] = replace(haxby_run, data=haxby_run.data[..., :volumes])
    bundle = bundles.load("haxby")
    assert bundle.projection is not None
    chain = CausalChain(bundle.manifest, runs, bundle.projection.voxels)
    late = {14.0: offline_trials(bundle.manifest.grid, runs, chain.voxels, 14.0)}
    blocks = Blocks({number: haxby_run.events for number, haxby_run in runs.items()}, haxby.LABELS)
    candidates = Candidates([0.0], [0.5], [0.5])
    work = RunContext(None, 0, tmp_path / "stages")
    with refused(
        UsageError, "haxby-lag-windows-mismatch", run=1, causal_windows=38, offline_windows=36, lag_s=14.0
    ):
        leave_one_out(work, chain, late, blocks, [*runs], candidates, 1)


def test_runs_that_were_trained_on_cannot_judge() -> None:
    with refused(UsageError, "haxby-judging-trained-runs", runs=[3]):
        evaluate(tiny("haxby"), Request(runs="3-4", data=DATA))
    with refused(UsageError, "evaluate-key-unread", unread=["presets"]):
        evaluate(tiny("haxby"), Request(runs="9", data=DATA, presets="hard"))


@pytest.mark.full
def test_the_shipped_classifier_on_the_two_runs_it_has_not_seen() -> None:
    figure = evaluate(SHIPPED, Request(runs="9-10", data=DATA))["classification_top1"]
    assert figure["value"] >= 0.62
    assert figure["ci95"][0] > 0.42
    saved = read_run(SHIPPED)["figures"]["classification_top1_held_out"]
    assert figure["value"] == pytest.approx(saved["value"])
    assert figure["ci95"] == pytest.approx(saved["ci95"])
    assert figure["n"] == saved["n"]


def test_the_shipped_figures_reach_the_bars_of_causal_normalisation() -> None:
    tree = read_run(SHIPPED)
    figure = tree["figures"]["classification_top1"]
    live_over_offline = tree["tables"]["live_over_offline"]
    assert figure["value"] >= 0.62
    assert live_over_offline["value"] >= 0.82
    assert figure["shuffled"] < 0.16
    assert tree["manifest"]["fmri"]["baseline"]["components"] == 23


def test_the_scores_are_probabilities_that_mean_something() -> None:
    weights = stored(SHIPPED)
    assert weights["weights"].shape[1] == 8
    assert read_run(SHIPPED)["tables"]["choice"]["temperature"] > 1


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_training_again_gives_the_same_figures(tmp_path: Path) -> None:
    again = run("haxby", [f"out={tmp_path / 'again'}", f"data={DATA}"])
    for name, figure in read_run(SHIPPED)["figures"].items():
        repeated = read_run(again)["figures"][name]
        assert repeated["value"] == pytest.approx(figure["value"], abs=0.01)
