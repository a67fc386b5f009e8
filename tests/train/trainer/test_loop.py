"""The loop: phases, what they train, several processes, and going on to the same bits."""

import json
import os
import re
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.optimization import SchedulerType
from torch import Tensor, nn
from torch.multiprocessing import ProcessRaisedException

from rtdecode.errors import RtDecodeError, UsageError
from tests.refusals import refused
from tests.train.lines import COUNT, CPU, EXACT, PHASE, Line, Plain, equal, nothing, points
from train.data.shards import Shards
from train.trainer import loop
from train.trainer.adapters import Adapter
from train.trainer.loader import Place, ShardRows
from train.trainer.loop import Machine
from train.trainer.phases import ONE_CYCLE, SCHEDULES, Phase


def stopping(stop_at: tuple[str, int], place: Place) -> dict[str, Tensor]:
    if (place.phase, place.number) == stop_at:
        raise KeyboardInterrupt
    return points(place)


TWO = {
    "rough": PHASE,
    "fine": replace(PHASE, trained=["second.*"], losses={"far": 1.0}, rate=1e-3, schedule="linear"),
}


ONE_CYCLE_PHASE = replace(PHASE, schedule=ONE_CYCLE, warmup=0)


@pytest.fixture(scope="module")
def unstopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Line, list[dict[str, Any]]]:
    """A training that nothing stops, and its log."""
    uninterrupted = Line()
    folder = tmp_path_factory.mktemp("whole")
    return uninterrupted, loop.train(uninterrupted, TWO, points, folder, nothing, machine=CPU)


@pytest.mark.parametrize("stop_at", [("rough", 1), ("rough", 4), ("rough", 5), ("fine", 0), ("fine", 7)])
def test_a_stopped_training_goes_on_to_the_same_bits(
    unstopped: tuple[Line, list[dict[str, Any]]], tmp_path: Path, stop_at: tuple[str, int]
) -> None:
    uninterrupted, log = unstopped
    with pytest.raises(KeyboardInterrupt):
        loop.train(Line(), TWO, partial(stopping, stop_at), tmp_path / "again", nothing, machine=CPU)
    batches: list[tuple[str, int]] = []

    def noted(place: Place) -> dict[str, Tensor]:
        batches.append((place.phase, place.number))
        return points(place)

    again = Line()
    log_again = loop.train(again, TWO, noted, tmp_path / "again", nothing, machine=CPU)
    assert equal(uninterrupted, again)
    columns = ["phase", "step", "loss", "losses", "rate"]
    assert [[row[k] for k in columns] for row in log] == [[row[k] for k in columns] for row in log_again]
    # A checkpoint is kept every two steps of two batches.
    assert batches[0] == (stop_at[0], stop_at[1] // 4 * 4)
    lines = (tmp_path / "again" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == log_again


def test_a_checkpoint_that_was_not_written_to_its_end_is_not_taken_up(tmp_path: Path) -> None:
    uninterrupted = Line()
    loop.train(uninterrupted, TWO, points, tmp_path / "whole", nothing, machine=CPU)
    draw = partial(stopping, ("rough", 5))
    with pytest.raises(KeyboardInterrupt):
        loop.train(Line(), TWO, draw, tmp_path / "again", nothing, machine=CPU)
    part = tmp_path / "again" / "rough" / "step-00000003.part"
    part.mkdir()
    (part / "model.safetensors").write_bytes(b"half")
    again = Line()
    loop.train(again, TWO, points, tmp_path / "again", nothing, machine=CPU)
    assert equal(uninterrupted, again)
    assert [path.name for path in part.parent.iterdir()] == ["done.pt"]


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
    averaged: list[Tensor] = []

    def noted(place: Place) -> dict[str, Tensor]:
        raw.append(system.first.weight.detach().clone())
        return points(place)

    def show(phase: str, step: int) -> None:
        averaged.append(system.first.weight.detach().clone())

    phase = replace(EXACT, accumulate=1, show_every=3)
    loop.train(system, {"only": phase}, noted, tmp_path, show, machine=CPU)
    # Three weights follow the first ones; the average warms up with the power 3/4, and begins with the first.
    average = raw[1].clone()
    for step, weight in ((1, raw[2]), (2, raw[3])):
        share = min(0.9, 1 - (1 + step) ** -0.75)
        average = share * average + (1 - share) * weight
    torch.testing.assert_close(averaged[0], average)
    assert torch.equal(averaged[1], system.first.weight)
    assert not torch.equal(raw[3], averaged[0]), "what goes on being trained is not the average"


def test_rows_that_workers_read_from_disk_give_the_same_bits(tmp_path: Path) -> None:
    np.savez(tmp_path / "half.npz", x=np.eye(4, dtype=np.float32))
    np.savez(tmp_path / "rest.npz", x=np.ones((3, 4), np.float32))
    draw = ShardRows({"x": Shards([tmp_path / "half.npz", tmp_path / "rest.npz"], "x")})
    alone = Line()
    loop.train(alone, {"rough": PHASE}, draw, tmp_path / "alone", nothing, machine=CPU)
    helped = Line()
    machine = Machine(device="cpu", workers=1)
    loop.train(helped, {"rough": PHASE}, draw, tmp_path / "helped", nothing, machine=machine)
    assert equal(alone, helped)
    assert not equal(alone, Line())


@pytest.mark.parametrize(
    ("phases", "code", "values"),
    [
        ({}, "training-missing-phase", {}),
        (
            {"x": replace(PHASE, losses={"near": 1.0})},
            "phase-unknown-loss",
            {"phase": "x", "losses": "'near'", "available": "'far', 'small'"},
        ),
        (
            {"x": PHASE, "y": replace(PHASE, trained=["third.*"])},
            "phase-pattern-unmatched",
            {"phase": "y", "pattern": "third.*"},
        ),
        ({"x": replace(PHASE, trained=[])}, "phase-trains-nothing", {"phase": "x"}),
        (
            {"x": replace(PHASE, adapters={"third": Adapter(["a"], 2, 2)})},
            "adapter-unknown-part",
            {"part": "third"},
        ),
        (
            {"x": replace(PHASE, adapters={"": Adapter(["third"], 2, 2)})},
            "adapter-injection-failed",
            {"part": "", "error": re.compile("third")},
        ),
    ],
)
def test_phases_that_do_not_fit_are_refused_before_anything_is_trained(
    tmp_path: Path, phases: dict[str, Phase], code: str, values: dict[str, Any]
) -> None:
    with refused(UsageError, code, **values):
        loop.train(Line(), phases, pytest.fail, tmp_path / "new", nothing, machine=CPU)
    assert not (tmp_path / "new").exists()


def test_schedules_are_those_of_diffusers() -> None:
    # This one needs a list of steps and rates that a phase does not have.
    diffusers_names = {schedule.value for schedule in SchedulerType} - {"piecewise_constant"}
    assert set(SCHEDULES) - {ONE_CYCLE} == diffusers_names


def test_one_cycle_is_that_of_torch(tmp_path: Path) -> None:
    phase = replace(ONE_CYCLE_PHASE, steps=10, accumulate=1, keep_every=1)
    log = loop.train(Line(), {"only": phase}, points, tmp_path, nothing, machine=CPU)
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=phase.rate)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=phase.rate, total_steps=10)
    rates = []
    for _ in range(10):
        optimizer.step()
        cycle.step()
        rates.append(cycle.get_last_lr()[0])
    assert [row["rate"] for row in log] == rates
    assert max(rates) == pytest.approx(phase.rate)
    # The rate of the last step: a 10,000th of the first, which is a 25th of the largest.
    assert min(rates) == pytest.approx(phase.rate / 25e4)


@pytest.mark.parametrize("number", [1, 9])
def test_a_stopped_cycle_goes_on_to_the_same_bits(tmp_path: Path, number: int) -> None:
    """Rate and momentum both depend on the step."""
    phases = {"only": replace(ONE_CYCLE_PHASE, steps=6)}
    complete = Line()
    log = loop.train(complete, phases, points, tmp_path / "complete", nothing, machine=CPU)
    draw = partial(stopping, ("only", number))
    with pytest.raises(KeyboardInterrupt):
        loop.train(Line(), phases, draw, tmp_path / "again", nothing, machine=CPU)
    again = Line()
    log_again = loop.train(again, phases, points, tmp_path / "again", nothing, machine=CPU)
    assert equal(complete, again)
    assert [row["rate"] for row in log] == [row["rate"] for row in log_again]


@pytest.mark.parametrize(
    ("change", "code", "values"),
    [
        (
            {"schedule": "sine"},
            "phase-schedule-unknown",
            {"schedule": "sine", "available": list(SCHEDULES)},
        ),
        (
            {"precision": "fp8"},
            "phase-precision-unknown",
            {"precision": "fp8", "available": ["no", "bf16"]},
        ),
        ({"accumulate": 0}, "phase-setting-too-small", {"key": "accumulate", "actual": 0}),
        ({"losses": {}}, "phase-missing-loss", {}),
        ({"schedule": "onecycle"}, "phase-onecycle-warmup", {"warmup": 1}),
        (
            {"schedule": "onecycle", "warmup": 0, "last_share": 0.1},
            "phase-onecycle-shares",
            {"warmup_share": 1.0, "last_share": 0.1},
        ),
        (
            {"schedule": "onecycle", "warmup": 0, "steps": 3},
            "phase-onecycle-too-short",
            {"steps": 3, "least": 4},
        ),
        ({"schedule": "constant", "warmup": 3}, "phase-warmup-ignored", {"warmup": 3}),
        ({"warmup_share": -0.1}, "phase-share-out-of-range", {"key": "warmup_share", "share": -0.1}),
        ({"last_share": 1.5}, "phase-share-out-of-range", {"key": "last_share", "share": 1.5}),
        ({"betas": [0.9, 1.0]}, "phase-betas-out-of-range", {"betas": [0.9, 1.0]}),
        ({"betas": [0.9]}, "phase-betas-out-of-range", {"betas": [0.9]}),
        (
            {"adapters": {"first": {"rank": 2}}},
            "phase-adapter-wrong-type",
            {"part": "first", "node": {"rank": 2}},
        ),
    ],
)
def test_a_phase_that_makes_no_sense_is_refused(
    change: dict[str, Any], code: str, values: dict[str, Any]
) -> None:
    with refused(UsageError, code, **values):
        replace(PHASE, **change)


def test_a_warmup_and_a_schedule_keep_within_their_shares(tmp_path: Path) -> None:
    """At first no more than a twentieth of the rate, then all of it at once, and a hundredth at the end."""
    shares = {"warmup_share": 0.05, "last_share": 0.01}
    every_step = {"warmup": 25, "steps": 100, "keep_every": 1, "show_every": 1, "accumulate": 1}
    phase = replace(EXACT, schedule="linear", **shares, **every_step)
    log = loop.train(Line(), {"x": phase}, points, tmp_path, nothing, machine=CPU)
    rates = {row["step"]: row["rate"] / phase.rate for row in log}
    assert rates[1] == pytest.approx(0.04)
    assert rates[2] == rates[24] == pytest.approx(0.05)
    assert rates[25] == pytest.approx(1.0)
    assert rates[50] == pytest.approx(0.01 + 0.99 * 50 / 75)
    assert rates[100] == pytest.approx(0.01)


def test_the_optimizer_has_the_decays_of_its_phase(tmp_path: Path) -> None:
    phase = replace(EXACT, warmup=0, accumulate=1)
    trained = {}
    for name, betas in (("default", (0.9, 0.99)), ("other", [0.9, 0.95])):
        trained[name] = Line()
        changed = {"x": replace(phase, betas=betas)}
        loop.train(trained[name], changed, points, tmp_path / name, nothing, machine=CPU)
    unchanged = Line()
    loop.train(unchanged, {"x": phase}, points, tmp_path / "unchanged", nothing, machine=CPU)
    assert equal(unchanged, trained["default"])
    assert not equal(unchanged, trained["other"])


def test_an_unknown_device_and_an_adapter_of_no_rank_are_refused() -> None:
    with refused(UsageError, "machine-device-unknown", available=["auto", "cpu"], device="tpu"):
        Machine(device="tpu")
    with refused(UsageError, "adapter-rank-too-small", rank=0):
        Adapter(["a"], 0, 1)


@pytest.mark.parametrize(
    ("phases", "seed", "changes"),
    [
        ({**TWO, "rough": replace(PHASE, rate=2.0)}, 0, "rough.rate was 0.01, now 2.0"),
        (
            {"fine": TWO["fine"], "rough": PHASE},
            0,
            "phases was ['rough', 'fine'], now ['fine', 'rough']",
        ),
        (TWO, 1, "seed was 0, now 1"),
    ],
)
def test_checkpoints_of_another_training_are_refused(
    tmp_path: Path, phases: dict[str, Phase], seed: int, changes: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        loop.train(Line(), TWO, partial(stopping, ("rough", 5)), tmp_path, nothing, machine=CPU)
    with refused(UsageError, "checkpoints-training-mismatch", folder=tmp_path, changes=changes):
        loop.train(Line(), phases, pytest.fail, tmp_path, nothing, seed=seed, machine=CPU)


def test_checkpoints_of_another_system_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        loop.train(Line(), TWO, partial(stopping, ("rough", 5)), tmp_path, nothing, machine=CPU)
    shapes = re.compile("digest of the parameters' names and shapes was")
    with refused(UsageError, "checkpoints-training-mismatch", changes=shapes):
        loop.train(Plain(), TWO, pytest.fail, tmp_path, nothing, machine=CPU)


def test_losses_are_logged_for_tensorboard_where_it_is_installed(tmp_path: Path) -> None:
    log = loop.train(Line(), {"rough": PHASE}, points, tmp_path, nothing, machine=CPU)
    event_files = list((tmp_path / "tensorboard" / "rough").glob("events.*"))
    if find_spec("tensorboard") is None:
        assert not event_files
        return
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(event_files[0].parent))
    events.Reload()
    for name, key in (("loss", None), ("losses/far", "far"), ("losses/small", "small")):
        logged = [(event.step, event.value) for event in events.Scalars(name)]
        expected = [(row["step"], row["losses"][key] if key else row["loss"]) for row in log]
        assert logged == [(step, pytest.approx(value)) for step, value in expected]


def watched(folder: Path, system: nn.Module, stop: int, place: Place) -> dict[str, Tensor]:
    """Draw a batch; write down its rows, and what the system of this process had learned before."""
    record = {"rows": place.rows(COUNT).tolist(), "weights": system.state_dict()}
    torch.save(record, folder / f"{place.phase}-{place.number}-{place.process}.pt")
    if (place.phase, place.number) == ("more", stop):
        raise RuntimeError("stopped here")
    return points(place)


def written(folder: Path, phase: str, step: int) -> None:
    """Write down which process shows something."""
    (folder / f"shown-{phase}-{step}-{os.environ['RANK']}").touch()


@pytest.mark.full
def test_two_processes_see_different_batches_end_with_equal_weights_and_go_on(tmp_path: Path) -> None:
    phases = {"only": EXACT, "more": replace(PHASE, trained=["second.*"])}
    machine = Machine(device="cpu", processes=2)

    def trained(folder: Path, stop: int) -> list[dict[str, Any]]:
        folder.mkdir()
        system = Plain()
        draw = partial(watched, folder, system, stop)
        show = partial(written, folder)
        return loop.train(system, phases, draw, tmp_path / "both", show, machine=machine)

    with pytest.raises(ProcessRaisedException, match="stopped here"):
        trained(tmp_path / "first", 5)
    log = trained(tmp_path / "again", -1)

    batches = [("only", n) for n in range(8)] + [("more", n) for n in range(5)]
    rows = []
    for phase, number in batches:
        first, second = (
            torch.load(tmp_path / "first" / f"{phase}-{number}-{process}.pt", weights_only=True)
            for process in (0, 1)
        )
        assert not {*first["rows"]} & {*second["rows"]}
        rows += first["rows"] + second["rows"]
        for name, value in first["weights"].items():
            assert torch.equal(value, second["weights"][name]), (phase, number, name)
    # Eight batches of two rows for each of two processes: in the first phase every row comes twice.
    assert sorted(rows[: 2 * COUNT]) == sorted([*range(COUNT)] * 2)

    batch_files = sorted(path.name for path in (tmp_path / "again").glob("*.pt"))
    assert batch_files == [f"more-{number}-{process}.pt" for number in range(4, 8) for process in (0, 1)]
    before, after = (
        torch.load(tmp_path / folder / "more-4-1.pt", weights_only=True)["weights"]
        for folder in ("first", "again")
    )
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    shown_files = [path.name for folder in ("first", "again") for path in (tmp_path / folder).glob("shown-*")]
    assert shown_files == ["shown-only-4-0", "shown-more-4-0"], "the first process alone shows"

    # Two processes that halve a batch do what one does with the whole of it.
    alone = Plain()
    at_once = {"only": replace(EXACT, batch=2 * EXACT.batch)}
    log_alone = loop.train(alone, at_once, points, tmp_path / "alone", nothing, machine=CPU)
    halved = torch.load(tmp_path / "first" / "more-0-0.pt", weights_only=True)["weights"]
    torch.testing.assert_close(halved, dict(alone.state_dict()))
    losses = [row["loss"] for row in log if row["phase"] == "only"]
    assert losses == pytest.approx([row["loss"] for row in log_alone], rel=1e-4)


def test_checkpoints_of_another_number_of_processes_are_refused(tmp_path: Path) -> None:
    loop.train(Line(), {"rough": PHASE}, points, tmp_path, nothing, machine=CPU)
    machine = Machine(device="cpu", processes=2)
    with refused(UsageError, "checkpoints-training-mismatch", changes="processes was 1, now 2"):
        loop.train(Line(), {"rough": PHASE}, points, tmp_path, nothing, machine=machine)


def test_a_checkpoint_that_cannot_be_written_is_said_and_the_one_before_goes_on(tmp_path: Path) -> None:
    phases = {"only": replace(EXACT, steps=6)}
    uninterrupted = Line()
    loop.train(uninterrupted, phases, points, tmp_path / "whole", nothing, machine=CPU)

    def filling(place: Place) -> dict[str, Tensor]:
        # After the checkpoint of step 2, the name of the next one is taken by something else.
        if place.number == 6:
            (tmp_path / "again" / "only" / "step-00000004.part").write_text("full")
        return points(place)

    with refused(
        RtDecodeError,
        "checkpoint-write-failed",
        step=4,
        folder=tmp_path / "again" / "only",
        previous_checkpoint=re.compile("step-00000002"),
    ):
        loop.train(Line(), phases, filling, tmp_path / "again", nothing, machine=CPU)
    assert not list((tmp_path / "again").rglob("*.part"))
    again = Line()
    loop.train(again, phases, points, tmp_path / "again", nothing, machine=CPU)
    assert equal(uninterrupted, again)


def test_checkpoints_without_room_are_refused_before_the_first_step(tmp_path: Path) -> None:
    with torch.device("meta"):
        # Its checkpoints would take 32 terabytes.
        large = nn.Linear(1_000_000, 1_000_000)
    system = Line()
    system.add_module("large", large)
    with refused(
        UsageError,
        "checkpoints-insufficient-disk",
        phase="only",
        parameters_millions=pytest.approx(1000001.0),
    ):
        loop.train(system, {"only": EXACT}, points, tmp_path / "new" / "one", nothing, machine=CPU)
    assert not (tmp_path / "new").exists()


def test_a_phase_with_patience_ends_and_leaves_its_best_weights(tmp_path):
    figures = iter([3.0, 1.0, 2.0, 1.0, 0.0])
    evaluations: list[tuple[int, dict[str, Tensor]]] = []
    system = Line()

    def show(phase: str, step: int) -> float:
        weights = {name: p.detach().clone() for name, p in system.named_parameters()}
        evaluations.append((step, weights))
        return next(figures)

    phase = replace(EXACT, steps=20, accumulate=1, keep_every=2, show_every=2, patience=2)
    log = loop.train(system, {"line": phase}, points, tmp_path, show, machine=CPU)
    # The second picture was the best, and the two after it were no better.
    assert [step for step, _ in evaluations] == [2, 4, 6, 8]
    assert log[-1]["step"] == 8
    for name, value in evaluations[1][1].items():
        assert torch.equal(system.get_parameter(name), value), name
    assert not list((tmp_path / "line").glob("best*"))


def test_a_later_phase_with_patience_that_makes_nothing_better_leaves_what_it_found(tmp_path):
    figures = {("line", 2): 5.0, ("more", 0): 1.0, ("more", 2): 2.0, ("more", 4): 1.5}
    evaluations: list[tuple[str, int]] = []
    system = Line()

    def show(phase: str, step: int) -> float:
        evaluations.append((phase, step))
        return figures[phase, step]

    phase = replace(EXACT, steps=2, accumulate=1, keep_every=2, show_every=2, patience=2)
    phases = {"line": phase, "more": replace(phase, steps=20)}
    log = loop.train(system, phases, points, tmp_path, show, machine=CPU)
    assert evaluations == list(figures)
    assert [row["step"] for row in log if row["phase"] == "more"] == [2, 4]
    first = torch.load(tmp_path / "line" / "done.pt", weights_only=True)["weights"]
    for name, value in system.named_parameters():
        assert torch.equal(first[name], value), name


def test_without_patience_figures_end_nothing(tmp_path):
    phase = replace(EXACT, steps=6, accumulate=1, keep_every=2, show_every=2)
    log = loop.train(Line(), {"line": phase}, points, tmp_path, lambda name, step: 1.0, machine=CPU)
    assert log[-1]["step"] == 6
