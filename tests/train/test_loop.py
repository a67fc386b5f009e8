"""The loop: phases, what they train, several processes, and going on to the same bits."""

import json
import math
import socket
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributed import destroy_process_group
from torch.multiprocessing.spawn import spawn

from rtdecode.errors import UsageError
from tests.train.lines import COUNT, CPU, EXACT, PHASE, Line, Plain, equal, nothing, points
from train import loop
from train.adapters import Adapter
from train.data.shards import Shards
from train.loader import Place, Rows
from train.loop import Machine
from train.phases import Phase


def stopping(at: tuple[str, int], place: Place) -> dict[str, Tensor]:
    if (place.phase, place.number) == at:
        raise KeyboardInterrupt
    return points(place)


TWO = {
    "rough": PHASE,
    "fine": replace(PHASE, trained=["second.*"], losses={"far": 1.0}, rate=1e-3, schedule="linear"),
}


@pytest.mark.parametrize("at", [("rough", 1), ("rough", 4), ("rough", 5), ("fine", 0), ("fine", 7)])
def test_a_stopped_training_goes_on_to_the_same_bits(tmp_path: Path, at: tuple[str, int]) -> None:
    whole = Line()
    log = loop.train(whole, TWO, points, tmp_path / "whole", nothing, machine=CPU)
    with pytest.raises(KeyboardInterrupt):
        loop.train(Line(), TWO, partial(stopping, at), tmp_path / "again", nothing, machine=CPU)
    drawn: list[tuple[str, int]] = []

    def noted(place: Place) -> dict[str, Tensor]:
        drawn.append((place.phase, place.number))
        return points(place)

    again = Line()
    log_again = loop.train(again, TWO, noted, tmp_path / "again", nothing, machine=CPU)
    assert equal(whole, again)
    kept = ["phase", "step", "loss", "losses", "rate"]
    assert [[row[k] for k in kept] for row in log] == [[row[k] for k in kept] for row in log_again]
    # A checkpoint is kept every two steps of two batches.
    assert drawn[0] == (at[0], at[1] // 4 * 4)
    lines = (tmp_path / "again" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == log_again


def test_a_finished_training_is_not_trained_again(tmp_path: Path) -> None:
    first = Line()
    log = loop.train(first, TWO, points, tmp_path, nothing, machine=CPU)
    again = Line()
    assert loop.train(again, TWO, pytest.fail, tmp_path, nothing, machine=CPU) == log
    assert equal(first, again)


def test_a_phase_trains_what_it_names_and_leaves_the_rest(tmp_path: Path) -> None:
    before = Line()
    after = Line()
    log = loop.train(after, {"fine": TWO["fine"]}, points, tmp_path, nothing, machine=CPU)
    assert torch.equal(before.first.weight, after.first.weight)
    assert not torch.equal(before.second.weight, after.second.weight)
    assert [sorted(row["losses"]) for row in log] == [["far"], ["far"]]
    assert all(row["loss"] == row["losses"]["far"] for row in log)


def test_losses_are_weighted(tmp_path: Path) -> None:
    (_, row) = loop.train(Line(), {"rough": PHASE}, points, tmp_path, nothing, machine=CPU)
    assert row["loss"] == pytest.approx(row["losses"]["far"] + 0.1 * row["losses"]["small"], rel=0.02)


def test_accumulated_batches_count_as_one(tmp_path: Path) -> None:
    small = Plain()
    loop.train(small, {"only": EXACT}, points, tmp_path / "small", nothing, machine=CPU)
    large = Plain()
    at_once = {"only": replace(EXACT, batch=4, accumulate=1)}
    loop.train(large, at_once, points, tmp_path / "large", nothing, machine=CPU)
    torch.testing.assert_close(small.state_dict(), large.state_dict())


def test_the_average_is_shown_and_left_behind(tmp_path: Path) -> None:
    system = Plain()
    raw: list[Tensor] = []
    shown: list[Tensor] = []

    def noted(place: Place) -> dict[str, Tensor]:
        raw.append(system.first.weight.detach().clone())
        return points(place)

    def show(phase: str, step: int) -> None:
        shown.append(system.first.weight.detach().clone())

    phase = replace(EXACT, accumulate=1, show_every=3)
    loop.train(system, {"only": phase}, noted, tmp_path, show, machine=CPU)
    # Three weights follow the first ones; the average warms up with the power 3/4, and begins with the first.
    average = raw[1].clone()
    for step, weight in ((1, raw[2]), (2, raw[3])):
        share = min(0.9, 1 - (1 + step) ** -0.75)
        average = share * average + (1 - share) * weight
    torch.testing.assert_close(shown[0], average)
    assert torch.equal(shown[1], system.first.weight)
    assert not torch.equal(raw[3], shown[0]), "what goes on being trained is not the average"


def test_rows_that_workers_read_from_disk_give_the_same_bits(tmp_path: Path) -> None:
    np.savez(tmp_path / "half.npz", x=np.eye(4, dtype=np.float32))
    np.savez(tmp_path / "rest.npz", x=np.ones((3, 4), np.float32))
    draw = Rows({"x": Shards([tmp_path / "half.npz", tmp_path / "rest.npz"], "x")})
    alone = Line()
    loop.train(alone, {"rough": PHASE}, draw, tmp_path / "alone", nothing, machine=CPU)
    helped = Line()
    machine = Machine(device="cpu", workers=1)
    loop.train(helped, {"rough": PHASE}, draw, tmp_path / "helped", nothing, machine=machine)
    assert equal(alone, helped)
    assert not equal(alone, Line())


@pytest.mark.parametrize(
    ("phases", "said"),
    [
        ({}, "at least one phase"),
        ({"x": replace(PHASE, losses={"near": 1.0})}, "phase 'x' asks for 'near'; .* are 'far', 'small'"),
        ({"x": PHASE, "y": replace(PHASE, trained=["third.*"])}, "phase 'y' trains 'third.*', which matches"),
        ({"x": replace(PHASE, trained=[])}, "phase 'x' trains nothing"),
        ({"x": replace(PHASE, adapters={"third": Adapter(["a"], 2, 2)})}, "'third', which is no part"),
        ({"x": replace(PHASE, adapters={"": Adapter(["third"], 2, 2)})}, "cannot be put on: .*third"),
    ],
)
def test_phases_that_do_not_fit_are_refused_before_anything_is_trained(
    tmp_path: Path, phases: dict[str, Phase], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        loop.train(Line(), phases, pytest.fail, tmp_path / "new", nothing, machine=CPU)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schedule": "sine"}, "schedule is one of linear, cosine.*found 'sine'"),
        ({"precision": "fp8"}, "precision is one of no, bf16, found 'fp8'"),
        ({"accumulate": 0}, "accumulate of a phase is 1 or more, found 0"),
        ({"losses": {}}, "at least one loss"),
        ({"adapters": {"first": {"rank": 2}}}, "adapter of 'first' is .* Give it builder: train.adapters"),
    ],
)
def test_a_phase_that_makes_no_sense_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        replace(PHASE, **change)


def test_an_unknown_device_and_an_adapter_of_no_rank_are_refused() -> None:
    with pytest.raises(UsageError, match="device is one of auto, cpu, found 'tpu'"):
        Machine(device="tpu")
    with pytest.raises(UsageError, match="rank of an adapter is 1 or more"):
        Adapter(["a"], 0, 1)


@pytest.mark.parametrize(
    ("phases", "seed", "said"),
    [
        ({**TWO, "rough": replace(PHASE, rate=2.0)}, 0, r"rough\.rate was 0\.01, now 2\.0"),
        (
            {"fine": TWO["fine"], "rough": PHASE},
            0,
            r"phases was \['rough', 'fine'\], now \['fine', 'rough'\]",
        ),
        (TWO, 1, "seed was 0, now 1"),
    ],
)
def test_checkpoints_of_another_training_are_refused(
    tmp_path: Path, phases: dict[str, Phase], seed: int, said: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        loop.train(Line(), TWO, partial(stopping, ("rough", 5)), tmp_path, nothing, machine=CPU)
    with pytest.raises(UsageError, match=said):
        loop.train(Line(), phases, pytest.fail, tmp_path, nothing, seed=seed, machine=CPU)


def test_checkpoints_of_another_system_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        loop.train(Line(), TWO, partial(stopping, ("rough", 5)), tmp_path, nothing, machine=CPU)
    with pytest.raises(UsageError, match="digest of the parameters' names and shapes was"):
        loop.train(Plain(), TWO, pytest.fail, tmp_path, nothing, machine=CPU)


def test_losses_are_logged_for_tensorboard_where_it_is_installed(tmp_path: Path) -> None:
    log = loop.train(Line(), {"rough": PHASE}, points, tmp_path, nothing, machine=CPU)
    found = list((tmp_path / "tensorboard" / "rough").glob("events.*"))
    if find_spec("tensorboard") is None:
        assert not found
        return
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(found[0].parent))
    events.Reload()
    for name, key in (("loss", None), ("losses/far", "far"), ("losses/small", "small")):
        logged = [(event.step, event.value) for event in events.Scalars(name)]
        expected = [(row["step"], row["losses"][key] if key else row["loss"]) for row in log]
        assert logged == [(step, pytest.approx(value)) for step, value in expected]


def _one_of_two(process: int, folder: Path) -> None:
    """Train as one process of two, and write down what was seen and what came of it."""
    with pytest.MonkeyPatch.context() as patch:
        for key, value in {"RANK": process, "LOCAL_RANK": process, "WORLD_SIZE": 2}.items():
            patch.setenv(key, str(value))
        patch.setenv("MASTER_ADDR", "127.0.0.1")
        patch.setenv("MASTER_PORT", (folder / "port").read_text())
        seen: list[list[int]] = []
        shown: list[int] = []

        def noted(place: Place) -> dict[str, Tensor]:
            seen.append(place.rows(COUNT).tolist())
            return points(place)

        system = Plain()
        if process:
            nn.init.zeros_(system.first.weight)
        log = loop.train(
            system,
            {"only": EXACT, "more": replace(EXACT, trained=["second.*"])},
            noted,
            folder / "training",
            lambda phase, step: shown.append(step),
            machine=CPU,
        )
        told = {"seen": seen, "shown": shown, "weights": system.state_dict(), "log": log}
        torch.save(told, folder / f"{process}.pt")
        destroy_process_group()


def test_two_processes_see_different_batches_and_end_with_equal_weights(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        (tmp_path / "port").write_text(str(free.getsockname()[1]))
    spawn(_one_of_two, (tmp_path,), nprocs=2)
    one, other = (torch.load(tmp_path / f"{process}.pt", weights_only=True) for process in (0, 1))
    for name, value in one["weights"].items():
        assert torch.equal(value, other["weights"][name]), name
    assert one["log"] == other["log"]
    assert one["shown"] == [4, 4]
    assert not other["shown"], "pictures are the first process's"
    # Four steps of two batches of two rows, by two processes: each row twice in a phase.
    for seen in zip(one["seen"], other["seen"], strict=True):
        assert not {*seen[0]} & {*seen[1]}
    taken = [row for seen in (one["seen"][:8], other["seen"][:8]) for batch in seen for row in batch]
    assert sorted(taken) == sorted([*range(COUNT)] * math.ceil(len(taken) / COUNT))

    alone = Plain()
    large = replace(EXACT, batch=4)
    phases = {"only": large, "more": replace(large, trained=["second.*"])}
    log = loop.train(alone, phases, points, tmp_path / "alone", nothing, machine=CPU)
    torch.testing.assert_close(dict(alone.state_dict()), dict(one["weights"]))
    assert [row["loss"] for row in one["log"]] == pytest.approx([row["loss"] for row in log], rel=1e-4)
