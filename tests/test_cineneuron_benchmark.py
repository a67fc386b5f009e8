"""The benchmark of CineNeuron's claims: its variants, and its control at test."""

import json
from pathlib import Path

import pytest

from benchmarks import cineneuron
from train.config.recipe import check, read

# The control is another one's run, and the ridge a recipe of its own.
TRAINED = [name for name in cineneuron.ABLATION.variants if name not in (cineneuron.RANDOM_AT_TEST, "ridge")]


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


@pytest.mark.parametrize("variant", TRAINED)
def test_each_variant_is_a_line_of_the_recipe(variant: str) -> None:
    check(read("cineneuron", ["scale=tiny", *cineneuron.ABLATION.changes(variant, "1")]))


def test_those_on_which_a_bar_rests_are_trained_with_every_seed() -> None:
    runs = cineneuron.ABLATION.runs_of(None, None)
    assert [seed for name, seed in runs if name == "text"] == ["0", "1", "2"]
    assert [seed for name, seed in runs if name == cineneuron.RANDOM_AT_TEST] == ["0", "1", "2"]
    assert [seed for name, seed in runs if name == "pool-32"] == ["0"]
