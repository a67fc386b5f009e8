"""Adapters on a published generator: what they change, what is kept of them, and how they are merged."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.train.lines import CPU, EXACT, equal, nothing
from tests.train.weights.models import cogvideox
from train.trainer import loop
from train.trainer.adapters import Adapter, bypassed, inject, merge, remove
from train.trainer.loader import Place
from train.trainer.loop import Trainable


class Film(Trainable):
    """A video transformer as it is published, at its smallest, that learns to say nothing."""

    offered = ("silence",)

    def __init__(self) -> None:
        super().__init__()
        self.generator = cogvideox()

    def velocity(self, latents: Tensor) -> Tensor:
        tokens = torch.ones(len(latents), 3, 8)
        level = torch.full((len(latents),), 500)
        return self.generator(latents, tokens, level, return_dict=False)[0]

    def losses(self, batch: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        return {name: self.velocity(batch).square().mean() for name in names}


def latents(place: Place) -> Tensor:
    rows = [place.draws(n).standard_normal((2, 4, 4, 4)) for n in range(place.size)]
    return torch.from_numpy(np.stack(rows)).float()


LORA = Adapter(["to_q", "to_v", "ff.net.0.proj"], rank=2, alpha=4, merge=False)
TUNED = replace(
    EXACT,
    losses={"silence": 1.0},
    trained=[],
    adapters={"generator": LORA},
    rate=0.05,
    accumulate=1,
    steps=6,
    keep_every=3,
)


def test_a_generator_is_tuned_by_an_adapter_that_is_merged_on_request(tmp_path: Path) -> None:
    plain = Film()
    adapted = Film()
    log = loop.train(adapted, {"tuned": TUNED}, latents, tmp_path / "beside", nothing, machine=CPU)
    assert log[-1]["loss"] < log[0]["loss"]
    for name, value in plain.generator.state_dict().items():
        still = {n.replace(".base_layer", ""): p for n, p in adapted.generator.state_dict().items()}
        assert torch.equal(value, still[name]), name
    learned = [n for n, p in adapted.named_parameters() if p.requires_grad]
    assert learned
    assert all("lora_" in name for name in learned)

    merged = Film()
    phase = replace(TUNED, adapters={"generator": replace(LORA, merge=True)})
    loop.train(merged, {"tuned": phase}, latents, tmp_path / "merged", nothing, machine=CPU)
    assert merged.state_dict().keys() == plain.state_dict().keys()
    batch = latents(Place("any", 2, 9, 0, 0))
    with torch.no_grad():
        expected = adapted.velocity(batch)
        assert (expected - plain.velocity(batch)).abs().max() > 0.01
        torch.testing.assert_close(merged.velocity(batch), expected, rtol=1e-4, atol=1e-5)
        merge(adapted.generator)
        torch.testing.assert_close(adapted.velocity(batch), expected, rtol=1e-4, atol=1e-5)


def test_checkpoints_hold_what_learns_alone(tmp_path: Path) -> None:
    def stopped(place: Place) -> Tensor:
        if place.number == 5:
            raise KeyboardInterrupt
        return latents(place)

    with pytest.raises(KeyboardInterrupt):
        loop.train(Film(), {"tuned": TUNED}, stopped, tmp_path, nothing, machine=CPU)
    size = (tmp_path / "tuned" / "step-00000003" / "model.safetensors").stat().st_size
    assert size < sum(p.numel() for p in Film().parameters())
    torch.manual_seed(99)
    again = Film()
    loop.train(again, {"tuned": TUNED}, latents, tmp_path, nothing, machine=CPU)
    uninterrupted = Film()
    loop.train(uninterrupted, {"tuned": TUNED}, latents, tmp_path / "whole", nothing, machine=CPU)
    assert equal(uninterrupted, again)


def test_adapters_of_two_phases_stand_side_by_side_or_are_merged_in_turn(tmp_path: Path) -> None:
    for keep in (True, False):
        adapter = replace(LORA, merge=not keep)
        phase = replace(TUNED, adapters={"generator": adapter}, steps=2, precision="bf16")
        phases = {"one": phase, "two": phase}
        folder = tmp_path / str(keep)
        system = Film()

        def stopped(place: Place) -> Tensor:
            if place.phase == "two":
                raise KeyboardInterrupt
            return latents(place)

        with pytest.raises(KeyboardInterrupt):
            loop.train(system, phases, stopped, folder, nothing, machine=CPU)
        again = Film()
        loop.train(again, phases, latents, folder, nothing, machine=CPU)
        uninterrupted = Film()
        loop.train(uninterrupted, phases, latents, folder / "whole", nothing, machine=CPU)
        assert equal(again, uninterrupted)
        assert any("lora_A.one" in name for name in uninterrupted.state_dict()) == keep
        assert any("lora_A.two" in name for name in uninterrupted.state_dict()) == keep


def test_what_learns_is_kept_in_single_precision_and_the_rest_as_it_was(tmp_path: Path) -> None:
    system = Film()
    system.generator.to(torch.bfloat16)
    phase = replace(TUNED, precision="bf16", steps=2)
    loop.train(system, {"tuned": phase}, latents, tmp_path, nothing, machine=CPU)
    kinds = {("lora_" in name, p.dtype) for name, p in system.named_parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}


@torch.no_grad()
def test_some_adapters_are_bypassed_for_a_while() -> None:
    torch.manual_seed(0)
    film = Film()
    batch = torch.randn(1, 2, 4, 4, 4)
    outputs = {"neither": film.velocity(batch)}
    for name in ("first", "second"):
        inject(film, "generator", name, LORA)
        for parameter_name, parameter in film.named_parameters():
            if f".lora_B.{name}." in parameter_name:
                parameter.normal_(std=0.5)
        outputs[name] = film.velocity(batch)
    learns = {name: n % 2 == 0 for n, (name, _) in enumerate(film.named_parameters())}
    for name, parameter in film.named_parameters():
        parameter.requires_grad_(learns[name])
    with bypassed(film, ["second"]):
        assert torch.equal(film.velocity(batch), outputs["first"])
    with bypassed(film, ["first", "second"]):
        assert torch.equal(film.velocity(batch), outputs["neither"])
    assert torch.equal(film.velocity(batch), outputs["second"])
    assert not torch.allclose(outputs["second"], outputs["first"], atol=1e-3)
    assert {name: p.requires_grad for name, p in film.named_parameters()} == learns
    remove(film)
    assert torch.equal(film.velocity(batch), outputs["neither"])


def test_an_adapter_on_weights_of_half_precision_keeps_what_it_was_trained_to() -> None:
    layers = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)).to(torch.bfloat16)
    for name in ("first", "second"):
        inject(layers, "", name, Adapter(["0", "1"], rank=2, alpha=2, merge=False))
    torch.manual_seed(0)
    factors = {name: torch.randn_like(x) for name, x in layers.state_dict().items() if ".lora_" in name}
    # As a run keeps them.
    factors = {name: x.half() for name, x in factors.items()}
    assert len(factors) == 8
    layers.load_state_dict(factors, strict=False)
    state = layers.state_dict()
    for name, values in factors.items():
        assert torch.equal(state[name].half(), values), name
    base_types = {x.dtype for name, x in state.items() if name not in factors}
    assert base_types == {torch.bfloat16}
    assert layers(torch.randn(3, 6, dtype=torch.bfloat16)).dtype == torch.bfloat16
