"""The benchmark of MinD-Video's claims: its variants, and the loss that its bar rests on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import mindvideo
from tests.train.lines import EXACT
from train.models.conditioned.material import Material
from train.models.mindvideo.plan import MindVideoPlan
from train.recipe import build, check, read

COUNT = 60
VOXELS = 32


@pytest.mark.parametrize("variant", mindvideo.VARIANTS)
def test_each_variant_is_a_line_of_the_recipe(variant: str) -> None:
    stages, changes = mindvideo.VARIANTS[variant]
    steps = [f"phases.{phase}.steps=20" for phase in ("masked", "align", "together")]
    recipe = read("mindvideo", ["scale=tiny", *steps, *mindvideo.STAGES[stages], *changes])
    check(recipe)
    plan = build(recipe.tree["system"])
    assert isinstance(plan, MindVideoPlan)
    assert ("masked" in recipe.tree["phases"]) != variant.endswith("scratch")
    assert plan.encoder.negative == (None if variant == "negative-null" else "mean")


def test_every_variant_is_compared_once() -> None:
    compared = [name for reference, names in mindvideo.COMPARISONS.items() for name in (reference, *names)]
    assert sorted(compared) == sorted(mindvideo.VARIANTS)


def test_the_gain_of_an_order_rests_on_how_far_seeds_lie_apart() -> None:
    summary = mindvideo.in_order_less_shuffled({"in order": [0.8, 0.84], "shuffled": [0.9, 0.88]})
    assert summary["less"] == pytest.approx(-0.07)
    # Student's t of two values: the mean, and 12.706 times its standard error of 0.03.
    assert summary["less_ci95"] == pytest.approx([-0.07 - 12.706 * 0.03, -0.07 + 12.706 * 0.03], abs=1e-3)
    assert summary["shuffled"] == [0.9, 0.88]


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
