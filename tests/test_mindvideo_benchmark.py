"""The benchmark of MinD-Video's claims: its variants, and the loss that its bar rests on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import mindvideo
from tests.train.lines import EXACT
from train.artifacts.slots import parts_of
from train.config.recipe import build, check, read
from train.data.simulated import SimulatedSessions
from train.models.conditioned.material import Material
from train.models.mindvideo.plan import MindVideoPlan

COUNT = 60
VOXELS = 32
TRAINED = [name for name, variant in mindvideo.ABLATION.variants.items() if variant.recipe is None]


@pytest.mark.parametrize("variant", TRAINED)
def test_each_variant_is_a_line_of_the_recipe(variant: str) -> None:
    changes = mindvideo.ABLATION.changes(variant, "0")
    steps = [f"phases.{phase}.steps=20" for phase in ("masked", "align", "together")]
    recipe = read("mindvideo", ["scale=tiny", *steps, *changes])
    check(recipe)
    plan = build(recipe.tree["system"])
    assert isinstance(plan, MindVideoPlan)
    assert ("masked" in recipe.tree["phases"]) != variant.endswith("scratch")
    assert plan.encoder.negative == (None if variant == "negative-null" else "mean")


@pytest.mark.parametrize(("ridge", "after"), [("ridge", 1), ("ridge-ahead-0", 0), ("ridge-ahead-2", 2)])
def test_ridges_read_the_windows_of_the_variants(ridge: str, after: int) -> None:
    variant = mindvideo.ABLATION.variants[ridge]
    recipe = read("ridge", list(variant.changes))
    check(recipe)
    data = parts_of(recipe.tree).data
    assert isinstance(data, SimulatedSessions)
    of_system = read("mindvideo", ["scale=tiny", f"data.grid.after={after}"]).tree["data"]
    of_ridge = recipe.tree["data"]
    assert {name: str(value) for name, value in of_ridge["grid"].items()} == {
        name: str(value) for name, value in of_system["grid"].items()
    }
    assert [film.name for film in recipe.common.films] == ["natural", "shapes"]
    assert (of_ridge["sessions"], of_ridge["seconds"]) == (of_system["sessions"], of_system["seconds"])
    assert data.modalities == ("fmri",)


def test_every_variant_is_compared() -> None:
    comparisons = mindvideo.ABLATION.comparisons
    compared = {name for reference, names in comparisons.items() for name in (reference, *names)}
    assert compared == {*mindvideo.ABLATION.variants}


def test_the_gain_of_an_order_rests_on_how_far_seeds_lie_apart() -> None:
    in_order = {"0": 0.8, "1": 0.84, "2": 0.0}
    summary = mindvideo.in_order_less_shuffled({"in order": in_order, "shuffled": {"1": 0.88, "0": 0.9}})
    assert summary["less"]["value"] == pytest.approx(-0.07)
    # Student's t of two values: the mean, and 12.706 times its standard error of 0.03.
    interval = [-0.07 - 12.706 * 0.03, -0.07 + 12.706 * 0.03]
    assert summary["less"]["ci95"] == pytest.approx(interval, abs=1e-3)
    assert summary["in order"] == in_order
    alone = mindvideo.in_order_less_shuffled({"in order": in_order, "shuffled": {}})
    assert alone["less"] == "not trained"


def material(values: np.ndarray) -> Material:
    """Make windows of which nothing but signals is read."""
    taught, held_out = np.split(values.astype(np.float32), [COUNT])
    nothing: Any = None
    return Material(
        codec={},
        latents=np.zeros((COUNT, 1, 1, 1, 1), np.float32),
        pictures=np.zeros((COUNT, 1, 3, 1, 1), np.uint8),
        captions=[],
        signals={"fmri": taught, "fmri_mask": np.ones((COUNT, 2), np.float32)},
        units={"fmri_scale": np.ones(VOXELS, np.float32)},
        stats={},
        manifest=nothing,
        projection=nothing,
        golden={},
        held_out={"fmri": held_out, "fmri_mask": np.ones((len(held_out), 2), np.float32)},
        origin="",
        places=nothing,
        targets={},
    )


def test_the_masked_loss_is_low_where_patches_tell_of_each_other(tmp_path: Path) -> None:
    tree = read("mindvideo", ["scale=tiny", "system.voxels=32", "system.encoder.patch=4"]).tree["system"]
    plan = build(tree)
    assert isinstance(plan, MindVideoPlan)
    phase = replace(
        EXACT,
        losses={"masked": 1.0},
        steps=60,
        batch=16,
        accumulate=1,
        rate=5e-3,
        decay=0.0,
        keep_every=60,
        show_every=60,
    )
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((COUNT + 20, 2, VOXELS))
    # Every voxel shows the same.
    together = noise[:, :, :1].repeat(VOXELS, 2)
    alone = mindvideo.masked_loss(plan, material(noise), phase, tmp_path / "alone", 0)
    shared = mindvideo.masked_loss(plan, material(together), phase, tmp_path / "together", 0)
    assert shared < 0.5 < 0.8 < alone
    assert mindvideo.least_squares_loss(plan, material(noise)) > 1
    assert mindvideo.least_squares_loss(plan, material(together)) < 1e-6
