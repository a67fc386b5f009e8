"""Windows of a data set that also read the volumes that follow in their run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from rtdecode.signal.eeg.band import EegBand
from rtdecode.signal.volume.baseline import Baseline
from tests.refusals import refused
from tests.train.data.held import MemoryDataSet, table
from train.closed_form.ridge import fit_ridge
from train.data.look_ahead import look_ahead
from train.data.set_windows import SetWindows
from train.data.sets import set_node
from train.data.sets.set_node import DataSetWindows
from train.evaluation.held_out_runs import HeldOutRuns
from train.evaluation.result import Request, make_decode
from train.interface.system import Trained
from train.models.ridge.system import PatchRidge

VOXELS = 12
RUNS = 6
LENGTH = 20


def volumes_of(series: NDArray[np.float64], count: int) -> list[NDArray[np.float32]]:
    """Cut the volumes of a run (volume, voxel) into those of its windows."""
    return [*series.reshape(-1, count, series.shape[1]).astype(np.float32)]


def runs(volumes_each: int = 1, *, later: int = 0, noise: float = 0.3) -> MemoryDataSet:
    """Runs whose volumes follow the colours of the clips, `later` volumes later than the layout says."""
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 1, (3, VOXELS))
    names = [("A", f"{run}", f"{run}-{n:02d}", False) for run in range(RUNS) for n in range(LENGTH)]
    clips: list[NDArray[np.uint8]] = []
    volumes: list[NDArray[np.float32]] = []
    for _ in range(RUNS):
        colours = rng.integers(20, 236, (LENGTH, 3))
        evoked = (colours / 60 @ weights).repeat(volumes_each, axis=0)
        series = np.roll(evoked, later, axis=0) + rng.normal(0, noise, (LENGTH * volumes_each, VOXELS))
        volumes += volumes_of(series, volumes_each)
        clips += [np.broadcast_to(colour.astype(np.uint8), (6, 16, 24, 3)) for colour in colours]
    values: Mapping[Any, Sequence[Any]] = {"fmri": volumes, "clips": clips}
    tr_s = 4.0 / volumes_each
    return MemoryDataSet(table(*names), values, fps=1.5, tr_s=tr_s, sfreq=None)


def node(after: int) -> DataSetWindows:
    return DataSetWindows(EegBand(), Baseline(), sfreq=125, voxels=2000, test=str(RUNS - 1), after=after)


def opened(data: MemoryDataSet, after: int) -> SetWindows:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(set_node, "opened", lambda *_: data)
        return node(after).opened(Path("held"))


@pytest.mark.parametrize(("volumes", "after"), [(1, 1), (1, 3), (5, 2), (5, 5), (5, 6)])
def test_a_window_reads_the_volumes_that_follow_its_own(volumes: int, after: int) -> None:
    data = runs(volumes)
    ahead = look_ahead(data, after)
    series = np.concatenate([np.asarray(window) for window in data.values["fmri"]])
    rows = [0, 7, len(ahead.windows) - 1]
    read = ahead.read("fmri", rows)
    assert read.shape == (3, volumes + after, VOXELS)
    for row, expected in zip(rows, read, strict=True):
        begin = int(ahead.rows[row]) * volumes
        np.testing.assert_array_equal(expected, series[begin : begin + volumes + after])
    np.testing.assert_array_equal(ahead.read("clips", rows), data.read("clips", ahead.rows[rows]))


def test_windows_that_lack_a_volume_are_left_out_and_counted() -> None:
    windows = opened(runs(), 2)
    table_of = windows.data.windows
    assert len(table_of) == RUNS * (LENGTH - 2)
    assert {name.split("-")[1] for name in table_of.shown.tolist()} == {f"{n:02d}" for n in range(18)}
    notes = windows.taught().manifest.provenance["told"]
    assert any("12 of 120 windows lack one of them in their run, and are left out" in note for note in notes)


def test_a_gap_in_a_run_is_no_neighbour() -> None:
    data = runs()
    start_s = data.windows.start_s.copy()
    start_s[10:LENGTH] += 4
    ahead = look_ahead(replace(data, windows=replace(data.windows, start_s=start_s)), 1)
    assert 9 not in ahead.rows
    assert {8, 10} <= {*ahead.rows.tolist()}


def test_the_grid_of_a_bundle_keeps_how_long_a_window_waits() -> None:
    windows = opened(runs(), 1)
    grid = windows.taught().manifest.grid
    assert (grid.after, grid.slots) == (1, 2)
    assert grid.wait == grid.lag + grid.tr
    assert opened(runs(), 0).draft.grid.wait == grid.lag


def test_windows_of_another_grid_are_not_judged() -> None:
    taught = opened(runs(), 0).taught()
    ridge = PatchRidge({"latent_shape": np.ones(4)})
    trained = Trained(taught.manifest, taught.stats, taught.projection, golden={}, system=ridge)
    wider = node(1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(set_node, "opened", lambda *_: runs())
        with refused(UsageError, "evaluate-window-mismatch", volumes=1, found_volumes=2, window_s=4.0):
            HeldOutRuns().evaluate(
                wider,
                trained,
                make_decode(ridge, taught.manifest, "0"),
                Request(data=Path("held")),
            )


def explained(data: MemoryDataSet, after: int) -> float:
    """Share of the colours that ridge reads from windows that it has not seen."""
    windows = opened(data, after)
    signals = windows.signals(
        [np.array([row]) for row in windows.split.train],
        {"fmri_mean": np.zeros(VOXELS), "fmri_scale": np.ones(VOXELS)},
        np.arange(VOXELS),
    )["fmri"]
    colours = np.array([clip[0, 0, 0] for clip in windows.taught_clips], np.float64)
    fit = fit_ridge([signals.reshape(len(signals), -1)], colours, [1.0], windows.folds())
    return float(fit.explained.mean())


def test_a_signal_that_comes_one_volume_later_is_found_with_look_ahead_alone() -> None:
    late = runs(later=1)
    assert explained(late, 0) < 0.05
    assert explained(late, 1) > 0.9
    # Two volumes later it is found by nobody who waits for one.
    later = runs(later=2)
    assert explained(later, 1) < 0.05
    assert explained(later, 2) > 0.9


def test_a_run_that_is_too_short_is_refused_before_it_is_read() -> None:
    data = runs()
    with refused(UsageError, "data-after-beyond-run", after=LENGTH, longest=LENGTH, volumes=1):
        opened(data, LENGTH)
    names = [("A", f"{n}", f"{n}", False) for n in range(30)]
    single = replace(data, windows=table(*names))
    with refused(UsageError, "data-after-beyond-run", after=1, longest=1):
        opened(single, 1)
    assert data.reads == single.reads == []


def test_responses_have_no_volumes_that_follow() -> None:
    with refused(UsageError, "data-after-without-volumes", after=1):
        opened(replace(runs(), tr_s=None), 1)


def test_windows_that_share_volumes_are_refused() -> None:
    with refused(UsageError, "data-after-uneven-windows", window_s=4.0, tr_s=1.5):
        opened(replace(runs(), tr_s=1.5), 1)


@pytest.mark.parametrize("after", [-1, 1.5, "some"])
def test_no_number_of_volumes_is_refused(after: Any) -> None:
    with refused(UsageError, "data-after-invalid", after=after):
        opened(runs(), after)
