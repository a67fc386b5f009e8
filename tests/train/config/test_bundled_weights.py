"""A shipped run reads its weights from the graphs of its bundle."""

import json
import shutil

import numpy as np
import pytest

from rtdecode import bundle as bundles
from rtdecode.errors import UsageError
from tests.refusals import refused
from train.bundled_weights import main
from train.config.bundled_weights import FILE, move, read
from train.config.run_files import arrays, weights
from train.reproduce import SHIPPED


@pytest.fixture
def run(tmp_path):
    """A copy of the shipped run that holds all of its weights itself."""
    copy = tmp_path / "run"
    shutil.copytree(SHIPPED / "phantom", copy)
    run_weights = weights(copy)
    (copy / FILE).unlink()
    np.savez_compressed(copy / "weights.npz", allow_pickle=False, **run_weights)
    return copy


def test_weights_that_the_graphs_hold_are_kept_once_and_come_back_to_the_bit(run):
    original = arrays(run, "weights")
    size = (run / "weights.npz").stat().st_size

    in_graphs, in_run = move(run, "phantom")

    assert in_graphs + in_run == len(original)
    # The teacher's flow is in no graph: the bundle holds the student's.
    assert (run / "weights.npz").stat().st_size < 0.3 * size
    restored = weights(run)
    assert restored.keys() == original.keys()
    for name, values in original.items():
        assert restored[name].dtype == values.dtype
        np.testing.assert_array_equal(restored[name], values)
        assert restored[name].flags.writeable


def test_what_a_graph_holds_transposed_is_turned_back(run):
    original = arrays(run, "weights")
    turned = np.ascontiguousarray(original["encoder.pictures"].T)
    np.savez_compressed(run / "weights.npz", allow_pickle=False, **original | {"encoder.pictures": turned})
    move(run, "phantom")
    assert "encoder.pictures" in json.loads((run / FILE).read_text())["transposed"]
    assert "encoder.pictures" not in arrays(run, "weights")
    restored = weights(run)["encoder.pictures"]
    np.testing.assert_array_equal(restored, turned)
    assert restored.flags.c_contiguous


def test_a_run_that_is_moved_twice_stays_as_it_is(run):
    move(run, "phantom")
    before = (run / FILE).read_bytes()
    index = json.loads(before)
    assert move(run, "phantom")[0] == len(index["weights"]) + len(index["transposed"])
    assert (run / FILE).read_bytes() == before


def test_the_layers_of_all_participants_lie_in_the_bundle():
    weights = read(SHIPPED / "brainnetflix-tiny")
    fronts = {name for name in weights if name.startswith("subjects.") and name.endswith(".map")}
    assert len(fronts) == len(bundles.load("brainnetflix-tiny").manifest.subjects) == 3
    layers = [weights[name] for name in sorted(fronts)]
    assert not np.array_equal(layers[0], layers[1])


def test_a_bundle_with_other_weights_is_refused(run):
    move(run, "phantom")
    tree = json.loads((run / FILE).read_text())
    (run / FILE).write_text(json.dumps(tree | {"bundle": "haxby"}))
    with refused(UsageError, "bundled-weights-mismatch", path=run / FILE, bundle="haxby"):
        read(run)
    (run / FILE).write_text(json.dumps(tree | {"digest": "0" * 64}))
    with refused(UsageError, "bundled-weights-mismatch", path=run / FILE, bundle="phantom"):
        weights(run)


def test_a_run_that_holds_its_weights_has_none_elsewhere(run):
    assert read(run) == {}


def test_the_command_says_what_it_did_and_what_it_could_not(run, tmp_path, capsys):
    assert main([str(run), "phantom"]) == 0
    assert "are read from the bundle phantom" in capsys.readouterr().out
    with refused(UsageError, "run-missing-weights", folder=tmp_path / "none") as caught:
        move(tmp_path / "none", "phantom")
    assert main([str(tmp_path / "none"), "phantom"]) == 2
    assert str(caught.value) in capsys.readouterr().err
    assert main([str(run)]) == 2
