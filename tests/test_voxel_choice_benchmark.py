"""The benchmark of voxel choices: its windows, and what it says of choices whose voxels are known."""

import numpy as np
import pytest

from benchmarks.experiments import voxel_choice
from benchmarks.experiments.voxel_choice import DRIVEN, RANDOM, REPRODUCIBLE, Watched
from train.data.reproducible_voxels import segments

VOXELS = 300
FOLLOWING = np.arange(0, 60)
WINDOWS = 8


def watched(films: int, showings: int, seed: int) -> Watched:
    """Clips of one colour each, which the first voxels follow; each film is shown so many times."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(30, 225, (films, WINDOWS, 3))
    weights = np.random.default_rng(0).normal(size=(3, len(FOLLOWING)))
    clips = []
    fmri = []
    for film in range(films):
        for _ in range(showings):
            grain = np.random.default_rng(film).integers(-3, 4, (WINDOWS, 33, 16, 24, 3))
            clips.append((colours[film][:, None, None, None] + grain).astype(np.uint8))
            noise = rng.normal(size=(WINDOWS, 2, VOXELS))
            noise[..., FOLLOWING] += ((colours[film] - 128) / 30 @ weights)[:, None]
            fmri.append(noise.astype(np.float32))
    count = films * showings
    return Watched(
        np.concatenate(fmri),
        np.concatenate(clips),
        np.repeat(np.arange(count) // showings, WINDOWS),
        np.repeat(np.arange(count) % showings, WINDOWS),
    )


def test_a_line_through_a_run_is_no_signal() -> None:
    rng = np.random.default_rng(0)
    volumes = 500 + 3 * np.arange(40)[:, None] + rng.normal(0, 5, (40, 4))
    volumes[:, 3] = 700
    series = voxel_choice.standardised(volumes)
    np.testing.assert_allclose(series[:, :3].std(axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(np.arange(40) @ series, 0, atol=0.01)
    assert (series[:, 3] == 0).all()


def test_what_is_driven_is_found_by_both_choices_and_read_best() -> None:
    teaching = watched(8, 2, 1)
    table = teaching.table
    repeated = segments(table, np.arange(len(table)))
    assert len(repeated) == 8
    chosen = voxel_choice.choices(teaching, repeated, len(FOLLOWING))
    assert {*chosen} == {REPRODUCIBLE, DRIVEN, RANDOM}
    row = voxel_choice.compared(teaching, watched(5, 1, 2), chosen, FOLLOWING)
    assert row[REPRODUCIBLE]["precision"] == row[REPRODUCIBLE]["recall"] > 0.9
    assert row[DRIVEN]["precision"] > 0.9
    assert row[RANDOM]["precision"] == pytest.approx(0.2, abs=0.15)
    assert row[REPRODUCIBLE]["identification_2way"]["value"] > 0.9
    assert row[RANDOM]["less"]["n"] == 5 * WINDOWS


def test_the_test_takes_half_of_what_passes() -> None:
    teaching = watched(16, 2, 1)
    table = teaching.table
    chosen = voxel_choice.choices(teaching, segments(table, np.arange(len(table))), None)
    count = len(chosen[REPRODUCIBLE])
    assert 0 < count <= (len(FOLLOWING) + 1) // 2
    assert len(chosen[DRIVEN]) == len(chosen[RANDOM]) == count
    assert np.isin(chosen[REPRODUCIBLE], FOLLOWING).all()
