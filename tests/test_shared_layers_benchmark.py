"""The benchmark of newcomers to a Brain Netflix: their layer, their ridge, and no data of theirs."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import shared_layers
from benchmarks.shared_layers import FITTED, RIDGE, WITHOUT_TRUNK, ZERO_SHOT, Network, zero_shot
from rtdecode.errors import UsageError
from tests.refusals import refused
from train.data.phantom import session_arrays
from train.evaluation.decoders import vectors
from train.run_recipe import run

RECIPE = str(Path(__file__).parent / "train" / "models" / "brainnetflix" / "small.yaml")


def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> dict:
    """Run the benchmark, and return what it prints."""
    monkeypatch.setattr(sys, "argv", ["shared_layers", *words, "--sessions", "1", "--json"])
    assert shared_layers.main() == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.full
def test_a_newcomer_is_read_by_their_layer_beside_their_ridge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = run(RECIPE, ["data.seconds=64", "judge=none", f"out={tmp_path / 'run'}"])
    network = Network.of(trained, tmp_path)
    system = network.decoder.system
    without = network.without_trunk(system)
    weights = without.weights()
    changed = {name for name, values in system.weights().items() if not np.array_equal(values, weights[name])}
    assert changed <= {f"encoder.trunk.0.layers.4.{part}" for part in ("weight", "bias")}
    with refused(UsageError, "benchmark-layers-not-shared", run="run"):
        zero_shot(network, network.decoder.who)
    report = printed(capsys, monkeypatch, str(trained), "--subjects", "3", "--minutes", "2.5")
    of_minutes = report["minutes"]["2.5"]
    # A fit is refused where held-out windows are told apart no better than by chance.
    if isinstance(of_minutes, str):
        assert "chance" in of_minutes
    else:
        assert {*of_minutes} == {FITTED, WITHOUT_TRUNK, RIDGE}
        assert of_minutes[RIDGE]["less"] is None
        difference = of_minutes[FITTED]["value"]["value"] - of_minutes[RIDGE]["value"]["value"]
        assert of_minutes[FITTED]["less"]["value"] == pytest.approx(difference)


@pytest.mark.full
def test_a_layer_of_all_reads_somebody_of_whom_there_are_no_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = ["system.encoder.stem=vertex", "data.who.cortex=shared"]
    trained = run(RECIPE, [*shared, "judge=none", f"out={tmp_path / 'run'}"])
    network = Network.of(trained, tmp_path)
    # Whoever taught is read as before, but for the level at rest, which was measured without a film.
    bundle, decoders = zero_shot(network, network.decoder.who)
    session = network.decoder.who.session(1000, 24.0)
    as_taught, newcomer = (session_arrays(part, session) for part in (network.decoder.bundle, bundle))
    expected = vectors(network.decoder.system, as_taught)
    likeness = np.sum(expected * decoders[ZERO_SHOT](newcomer), axis=1)
    assert likeness.mean() > 0.9
    other = replace(network.decoder.who, subject=3, own_noise=True)
    assert not np.array_equal(zero_shot(network, other)[0].stats["fmri_mean"], bundle.stats["fmri_mean"])
    report = printed(capsys, monkeypatch, str(trained), "--subjects", "3", "--minutes", "0")
    assert (report["stem"], report["cortex"]) == ("vertex", "shared")
    (entry,) = report["minutes"]["0"].values()
    assert entry["value"]["n"] > 20
    assert entry["less"] is None
