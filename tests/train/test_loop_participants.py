"""A step takes one batch of each participant and adds up their gradients, each by its weight."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.lines import COUNT, CPU, EXACT, PHASE, Line, Plain, equal, nothing, points
from train.trainer import loop
from train.trainer.loader import Batches, Place
from train.trainer.loop import Machine, Trainable
from train.trainer.participants import weights_of
from train.trainer.phases import Phase

# Number of windows and of voxels of each.
SUBJECTS = {"A": (7, 4), "B": (5, 6), "C": (6, 5)}
WEIGHTS = {"A": 1, "B": 2, "C": 1}
ONE_STEP = replace(EXACT, losses={"far": 1.0}, steps=1, keep_every=1, show_every=1, clip=1e9)


class Readers(Trainable):
    """A layer of each subject's own before one that all share."""

    offered = ("far",)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.readers = nn.ModuleList(nn.Linear(5 * voxels, 8) for _, voxels in SUBJECTS.values())
        self.shared = nn.Linear(8, 3)

    def losses(self, batch: dict[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        [whose] = set(batch["subject"].tolist())
        guess = self.shared(self.readers[whose](batch["fmri"].flatten(1)))
        return {"far": (guess - batch["latents"]).square().mean()}


@dataclass(frozen=True)
class SubjectRows:
    """Draws a batch of the subject that a place names: name -> its volumes and latents, (window, ...)."""

    arrays: Mapping[str, Mapping[str, np.ndarray]]

    def __call__(self, place: Place) -> dict[str, Tensor]:
        arrays = self.arrays[place.participant]
        numbers = place.rows(len(arrays["fmri"]))
        batch = {name: torch.from_numpy(values[numbers]) for name, values in arrays.items()}
        batch["subject"] = torch.full((len(numbers),), [*SUBJECTS].index(place.participant))
        return batch


@pytest.fixture
def rows() -> SubjectRows:
    """Windows of three subjects with different numbers of windows and of voxels."""
    draws = np.random.default_rng(0)
    return SubjectRows(
        {
            name: {
                "fmri": draws.normal(0, 1, (count, 5, voxels)).astype(np.float32),
                "latents": draws.normal(0, 1, (count, 3)).astype(np.float32),
            }
            for name, (count, voxels) in SUBJECTS.items()
        }
    )


@pytest.fixture
def stepped(monkeypatch: pytest.MonkeyPatch) -> list[list[Tensor]]:
    """The gradients with which the optimizer takes each of its steps."""
    gradients: list[list[Tensor]] = []

    class Noting(AdamW):
        def step(self, closure: Any = None) -> Any:
            gradients.append([p.grad.clone() for group in self.param_groups for p in group["params"]])
            return super().step(closure)

    monkeypatch.setattr(loop, "AdamW", Noting)
    return gradients


def at_once(system: Readers, rows: SubjectRows, weights: Mapping[str, float]) -> tuple[list[Tensor], Tensor]:
    """Differentiate the weighted sum of the losses of a step's batches: gradients by name, and the losses."""
    means = []
    for name in SUBJECTS:
        places = [Place("only", ONE_STEP.batch, 0, 0, n, participant=name) for n in (0, 1)]
        means.append(torch.stack([system.losses(rows(place), ["far"])["far"] for place in places]).mean())
    shares = torch.tensor([weights[name] / sum(weights.values()) for name in SUBJECTS])
    losses = torch.stack(means)
    parameters = [system.get_parameter(name) for name in sorted(dict(system.named_parameters()))]
    return list(torch.autograd.grad((shares * losses).sum(), parameters)), losses


def test_a_steps_gradient_is_that_of_the_weighted_losses_of_all_batches_at_once(
    rows: SubjectRows, stepped: list[list[Tensor]], tmp_path: Path
) -> None:
    expected, losses = at_once(Readers(), rows, WEIGHTS)
    [row] = loop.train(
        Readers(), {"only": ONE_STEP}, rows, tmp_path / "run", nothing, machine=CPU, participants=WEIGHTS
    )
    [gradients] = stepped
    torch.testing.assert_close(gradients, expected, rtol=1e-5, atol=1e-7)
    evenly, _ = at_once(Readers(), rows, dict.fromkeys(WEIGHTS, 1.0))
    assert not torch.allclose(gradients[-1], evenly[-1], rtol=1e-2)
    # The log says what each has lost, and their weighted mean.
    assert row["participants"] == {
        n: pytest.approx(x) for n, x in zip(SUBJECTS, losses.tolist(), strict=True)
    }
    shares = [weight / 4 for weight in WEIGHTS.values()]
    assert row["loss"] == pytest.approx(float(np.dot(shares, losses.tolist())))
    assert row["losses"] == {"far": pytest.approx(row["loss"])}


def test_equal_weights_are_the_mean_of_all_batches(
    rows: SubjectRows, stepped: list[list[Tensor]], tmp_path: Path
) -> None:
    for weight in (1.0, 3.0):
        weights = dict.fromkeys(SUBJECTS, weight)
        folder = tmp_path / f"{weight}"
        loop.train(Readers(), {"only": ONE_STEP}, rows, folder, nothing, machine=CPU, participants=weights)
    ones, threes = stepped
    assert all(torch.equal(a, b) for a, b in zip(ones, threes, strict=True))
    expected, _ = at_once(Readers(), rows, dict.fromkeys(SUBJECTS, 1.0))
    torch.testing.assert_close(ones, expected, rtol=1e-5, atol=1e-7)


def places(process: int, count: int) -> Iterator[Place]:
    """Yield the places of the first batches of one of two processes."""
    first = Place("only", 3, seed=5, order=0, number=0, process=process, processes=2)
    batches = Batches(pytest.fail, first, list(SUBJECTS))
    return (batches.place(number) for number in range(count))


def test_processes_draw_other_rows_of_the_same_participants_and_together_every_row_once() -> None:
    # Four batches of three rows for each of two processes are two epochs of twelve.
    pairs = list(zip(places(0, 12), places(1, 12), strict=True))
    orders: dict[str, list[int]] = {name: [] for name in SUBJECTS}
    for first, second in pairs:
        assert first.participant == second.participant
        rows = first.rows(12).tolist()
        rows_of_second = second.rows(12).tolist()
        assert not {*rows} & {*rows_of_second}
        assert first.torch_seed != second.torch_seed
        orders[first.participant] += rows + rows_of_second
    assert [first.participant for first, _ in pairs[:4]] == ["A", "B", "C", "A"]
    for order in orders.values():
        assert sorted(order[:12]) == sorted(order[12:]) == list(range(12))
    assert len({tuple(order) for order in orders.values()}) == 3, "each has an order of its own"


def test_a_place_belongs_to_its_participant_and_those_of_no_participant_stay() -> None:
    nobodys = Place("only", 3, seed=5, order=1, number=7)
    assert nobodys.key == (5, 1, 7, 0)
    three = [replace(nobodys, participant=name) for name in ("", "sub-01", "sub-02")]
    assert len({place.torch_seed for place in three}) == 3
    assert len({float(place.draws(0).standard_normal()) for place in three}) == 3
    # Rows 21 to 23 of all epochs lie in the third one.
    np.testing.assert_array_equal(nobodys.rows(9), np.random.default_rng((5, 2)).permutation(9)[3:6])


def own_points(place: Place) -> dict[str, Tensor]:
    """Rows of a data set of the participant's own."""
    shift = {"": 0.0, "A": 1.0, "B": -1.0}[place.participant]
    return {"x": points(place)["x"] + shift}


def stopping(stop: tuple[int, str], place: Place) -> dict[str, Tensor]:
    if (place.number, place.participant) == stop:
        raise KeyboardInterrupt
    return own_points(place)


def trained(system: Trainable, folder: Path, draw: Any) -> list[dict[str, Any]]:
    """Train four steps, each on two batches of A and two of B; a checkpoint is kept every two steps."""
    weights = {"A": 1.0, "B": 3.0}
    phases = {"only": PHASE}
    return loop.train(system, phases, draw, folder, nothing, machine=CPU, participants=weights)


@pytest.mark.parametrize("stop", [(1, "B"), (4, "A"), (4, "B"), (5, "A"), (7, "B")])
def test_a_stopped_training_of_several_goes_on_to_the_same_bits(
    tmp_path: Path, stop: tuple[int, str]
) -> None:
    unstopped = Line()
    log = trained(unstopped, tmp_path / "whole", own_points)
    with pytest.raises(KeyboardInterrupt):
        trained(Line(), tmp_path / "again", partial(stopping, stop))
    order: list[tuple[int, str]] = []

    def noted(place: Place) -> dict[str, Tensor]:
        order.append((place.number, place.participant))
        return own_points(place)

    again = Line()
    log_again = trained(again, tmp_path / "again", noted)
    assert equal(unstopped, again)
    keys = ["step", "loss", "losses", "participants", "rate"]
    assert [[row[k] for k in keys] for row in log] == [[row[k] for k in keys] for row in log_again]
    # A checkpoint lies between two steps: what it goes on with is the first participant's.
    assert order[0] == (stop[0] // 4 * 4, "A")
    assert order[-1] == (7, "B")


def test_checkpoints_of_other_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(Line(), tmp_path, partial(stopping, (5, "A")))
    changes = "participants' weights was [['A', 1.0], ['B', 3.0]], now None"
    with refused(UsageError, "checkpoints-training-mismatch", changes=changes):
        loop.train(Line(), {"only": PHASE}, pytest.fail, tmp_path, nothing, machine=CPU)


@pytest.mark.parametrize("weight", [0, -1.0, float("inf"), float("nan"), "2", True])
def test_weights_that_are_no_numbers_above_0_are_refused(tmp_path: Path, weight: Any) -> None:
    with refused(UsageError, "participant-weight-invalid", weights=re.compile("B")):
        weights_of(["A", "B"], {"B": weight})
    phases: dict[str, Phase] = {"only": PHASE}
    weights = {"A": 1, "B": weight}
    with refused(UsageError, "participant-weight-invalid"):
        loop.train(Line(), phases, pytest.fail, tmp_path / "new", nothing, machine=CPU, participants=weights)
    assert not (tmp_path / "new").exists()


def test_weights_that_are_not_stated_are_1_and_those_of_others_are_refused() -> None:
    assert weights_of(["A", "B"], {}) == {"A": 1.0, "B": 1.0}
    assert weights_of(["A", "B"], {"B": 2}) == {"A": 1.0, "B": 2.0}
    with refused(UsageError, "participant-weight-unknown", unknown=["C"], available=["A", "B"]):
        weights_of(["A", "B"], {"C": 2})


def noting(folder: Path, place: Place) -> dict[str, Tensor]:
    """Write down which rows a process draws."""
    torch.save(place.rows(COUNT).tolist(), folder / f"{place.number}-{place.participant}-{place.process}.pt")
    return own_points(place)


@pytest.mark.full
def test_two_processes_train_on_several_participants_as_one_does_with_their_batches(tmp_path: Path) -> None:
    phases = {"only": EXACT}
    weights = {"A": 1.0, "B": 3.0}
    (tmp_path / "drawn").mkdir()
    both = Plain()
    log = loop.train(
        both,
        phases,
        partial(noting, tmp_path / "drawn"),
        tmp_path / "both",
        nothing,
        machine=Machine(device="cpu", processes=2),
        participants=weights,
    )
    for name in weights:
        paths = (tmp_path / "drawn").glob(f"*-{name}-*.pt")
        batches = {path.stem: torch.load(path) for path in paths}
        # Eight batches of two rows for each of two processes are two epochs, of four numbers each.
        assert len(batches) == 16
        for numbers in (range(4), range(4, 8)):
            epoch = [batches[f"{number}-{name}-{process}"] for number in numbers for process in (0, 1)]
            assert sorted(row for rows in epoch for row in rows) == list(range(COUNT))
    alone = Plain()
    halves_together = {"only": replace(EXACT, batch=2 * EXACT.batch)}
    log_alone = loop.train(
        alone, halves_together, own_points, tmp_path / "alone", nothing, machine=CPU, participants=weights
    )
    torch.testing.assert_close(dict(both.state_dict()), dict(alone.state_dict()))
    for row, expected in zip(log, log_alone, strict=True):
        assert row["participants"] == pytest.approx(expected["participants"], rel=1e-4)
