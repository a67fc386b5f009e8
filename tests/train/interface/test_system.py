"""The systems of the shipped recipes seen through the seam: ports, named conditions, negatives, stages."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.tiny import tiny
from train.artifacts.run_folder import draft_of, restored
from train.config.recipe import build
from train.config.run_context import Arrays
from train.config.run_files import arrays, read_run
from train.evaluation.reconstruct import reconstruct
from train.interface.system import System, Traced, Written

# The run of the recipe `compact` that ships: no other has to be trained for these tests.
COMPACT = Path(__file__).parents[3] / "train" / "runs" / "phantom"


def system_of(folder: Path) -> System:
    plan = build(read_run(folder)["arguments"]["system"])
    return restored(folder, plan)


def inputs_of(folder: Path, system: System) -> Arrays:
    """The golden windows of a run, with whatever else the system's ports ask for as zeros."""
    golden = arrays(folder, "golden")
    count = len(next(iter(golden.values())))
    ports = system.ports(draft_of(folder).manifest)
    return {port.name: golden.get(port.name, np.zeros((count, *port.shape), np.float32)) for port in ports}


@pytest.mark.parametrize("recipe", ["ridge", "haxby"])
def test_a_closed_form_starts_from_finished_latents(recipe: str) -> None:
    folder = tiny(recipe)
    system = system_of(folder)
    condition = system.condition(inputs_of(folder, system))
    assert condition.start_level == 0
    assert condition.start.shape[1:] == system.latent_shape
    noise = np.full(condition.start.shape, np.nan, np.float32)
    assert np.array_equal(system.sample(condition, noise, 0), condition.start)
    assert system.negative(condition) is None
    assert (condition.scores is not None) == (recipe == "haxby")
    assert {type(stage) for stage in system.stages(draft_of(folder).manifest)} == {Written}


def test_a_denoiser_names_what_guidance_leads_away_from() -> None:
    system = system_of(COMPACT)
    condition = system.condition(inputs_of(COMPACT, system))
    negative = system.negative(condition)
    assert negative is not None
    assert not negative.map.any()
    assert torch.equal(negative.pooled[0], negative.pooled[-1]), "it is the same whatever was seen"
    assert not torch.equal(condition.pooled[0], condition.pooled[-1])
    # The embedding of no brain is what the encoder gives where both modalities are absent.
    nothing = {name: np.zeros_like(value) for name, value in inputs_of(COMPACT, system).items()}
    torch.testing.assert_close(system.condition(nothing).pooled, negative.pooled)


def test_a_denoiser_lists_its_stages_with_ports_in_order() -> None:
    system = system_of(COMPACT)
    manifest = draft_of(COMPACT).manifest
    stages = {stage.name: stage for stage in system.stages(manifest)}
    assert list(stages) == ["encode", "denoise", "decode_first", "decode_next"]
    encode = stages["encode"]
    assert isinstance(encode, Traced)
    assert list(encode.inputs) == [port.name for port in system.ports(manifest)]
    denoise = stages["denoise"]
    assert isinstance(denoise, Traced)
    assert list(denoise.inputs)[-3:] == ["t", "r", "detail"]
    assert system.detail == float(denoise.inputs["detail"])
    # The schedule is inside the graph.
    assert system.levels(4) == []


def test_what_is_carried_reaches_the_next_window_alone() -> None:
    system = system_of(COMPACT)
    inputs = {name: value for name, value in inputs_of(COMPACT, system).items() if "carry" not in name}
    joined = [(0, 0.0, 4.0), (0, 4.0, 8.0), (0, 8.0, 12.0)]
    separate = [(0, 0.0, 4.0), (0, 8.0, 12.0), (0, 16.0, 20.0)]
    carried = reconstruct(system, inputs, joined, "a", hop_s=4.0, steps=2)
    alone = reconstruct(system, inputs, joined, "a", hop_s=4.0, steps=2, carry=False)
    # Windows that are decoded together differ in the last bits from one that is decoded alone.
    np.testing.assert_allclose(carried.latents[0], alone.latents[0], atol=1e-4)
    assert np.abs(carried.latents[1] - alone.latents[1]).max() > 0.01
    holes = reconstruct(system, inputs, separate, "a", hop_s=4.0, steps=2)
    again = reconstruct(system, inputs, separate, "a", hop_s=4.0, steps=2, carry=False)
    np.testing.assert_allclose(holes.latents, again.latents, atol=1e-4)
