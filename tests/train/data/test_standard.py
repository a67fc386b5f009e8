"""Statistics rest on training windows alone, and take back what one map over all runs told of the test."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.data import cinebrain_folder as release
from tests.train.data.held import MemoryDataSet, table
from train.data import splits, standard
from train.data.sets.opening import opened

# Voxels that differ in level and spread from run to run, as a scanner's do; the last never changes.
RUNS = 4
WINDOWS = 30


def recording(seed: int = 0) -> np.ndarray:
    """Volumes in the scanner's units, (run, window, slot, voxel)."""
    draws = np.random.default_rng(seed)
    level = draws.uniform(500, 900, (RUNS, 1, 1, 6))
    spread = draws.uniform(5, 20, (RUNS, 1, 1, 6))
    volumes = level + spread * draws.normal(size=(RUNS, WINDOWS, 5, 6))
    volumes[..., -1] = 700
    return volumes


def data_set(volumes: np.ndarray, subject: str = "A") -> MemoryDataSet:
    windows = table(
        *(
            (subject, f"run-{run}", f"{run}/{n}", run == RUNS - 1)
            for run in range(RUNS)
            for n in range(WINDOWS)
        )
    )
    eeg = np.random.default_rng(1).normal(3, 10, (RUNS * WINDOWS, 2, 8)).astype(np.float32)
    return MemoryDataSet(
        windows, {"fmri": volumes.reshape(-1, *volumes.shape[2:]).astype(np.float32), "eeg": eeg}
    )


def z_scored(volumes: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    spread = volumes.std(axes, keepdims=True)
    return (volumes - volumes.mean(axes, keepdims=True)) / np.where(spread > 0, spread, 1)


@given(
    st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=6), min_size=1, max_size=5),
    st.floats(-1e6, 1e6, width=32),
)
def test_moments_of_parts_are_those_of_the_whole(parts: list[list[float]], level: float) -> None:
    tables = [np.array(part)[:, None, None] + level for part in parts]
    joined = standard.all_of(standard.moments("fmri", values) for values in tables)
    pooled = np.concatenate(tables).ravel()
    assert joined.count == len(pooled)
    np.testing.assert_allclose(joined.mean[0], pooled.mean(), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(joined.deviation[0], pooled.std(), rtol=1e-6, atol=1e-6)


def standardised(statistics: standard.Statistics, volumes: np.ndarray) -> np.ndarray:
    return (volumes - statistics.mean["fmri"]) / statistics.deviation["fmri"]


def test_they_are_those_of_the_training_windows_and_a_few_are_read_at_a_time() -> None:
    volumes = recording()
    data = data_set(volumes)
    split = splits.released(data.windows)
    statistics = standard.statistics(data, split.train)["A"]
    train = volumes[:-1].reshape(-1, 6)
    np.testing.assert_allclose(statistics.mean["fmri"], train.mean(0), rtol=1e-6)
    np.testing.assert_allclose(statistics.deviation["fmri"], [*train.std(0)[:-1], 1], rtol=1e-5)
    eeg = data.values["eeg"][split.train].astype(np.float64)
    np.testing.assert_allclose(statistics.mean["eeg"], eeg.mean((0, 2)))
    np.testing.assert_allclose(statistics.deviation["eeg"], eeg.std((0, 2)))
    assert max(data.reads) <= 16
    assert statistics.windows == tuple(sorted(data.windows.names(split.train)))
    values = standardised(statistics, data.read("fmri", split.train))
    np.testing.assert_allclose(values[..., :-1].mean((0, 1)), 0, atol=1e-4)
    np.testing.assert_allclose(values[..., :-1].std((0, 1)), 1, atol=1e-4)
    assert not values[..., -1].any()


def test_training_statistics_take_back_a_z_score_over_all_runs() -> None:
    volumes = recording()
    leaky = data_set(z_scored(volumes, (0, 1, 2)))
    split = splits.released(leaky.windows)
    taken_back = standard.statistics(leaky, split.train)["A"]
    clean = standard.statistics(data_set(volumes), split.train)["A"]
    expected = standardised(clean, data_set(volumes).read("fmri", split.test))
    restored = standardised(taken_back, leaky.read("fmri", split.test))
    np.testing.assert_allclose(restored[..., :-1], expected[..., :-1], atol=2e-3)
    assert taken_back.scaling["fmri"] == "one map"
    assert not taken_back.warnings()


@pytest.mark.parametrize("centred", [False, True])
def test_it_is_said_where_each_run_was_scaled_or_centred_by_itself(centred: bool) -> None:
    volumes = recording()
    scaled_runs = volumes - volumes.mean((1, 2), keepdims=True) if centred else z_scored(volumes, (1, 2))
    data = data_set(scaled_runs)
    statistics = standard.statistics(data, splits.released(data.windows).train)["A"]
    assert statistics.scaling["fmri"] == "each run"
    assert statistics.scaling["eeg"] == "one map"
    [warning] = statistics.warnings()
    assert warning == (
        "The release scaled each run of A's fmri by itself. A held-out run was scaled with knowledge of its "
        "own future, and standardising by training runs does not take that back."
    )


def test_eeg_without_a_mean_may_have_been_filtered_causally() -> None:
    data = data_set(recording())
    values = dict(data.values)
    values["eeg"] = values["eeg"] - values["eeg"].mean(2, keepdims=True)
    filtered = replace(data, values=values)
    rows = splits.released(data.windows).train
    assert standard.statistics(filtered, rows)["A"].scaling["eeg"] == "one map"


def test_one_run_does_not_tell_how_it_was_scaled() -> None:
    data = data_set(z_scored(recording(), (1, 2)))
    assert standard.statistics(data, np.arange(WINDOWS))["A"].scaling["fmri"] == "unknown"
    still = data_set(np.ones((RUNS, WINDOWS, 5, 6)))
    assert standard.statistics(still, np.arange(2 * WINDOWS), ["fmri"])["A"].scaling["fmri"] == "unknown"


def test_they_are_written_and_read_again(tmp_path: Path) -> None:
    data = data_set(recording())
    written = standard.statistics(data, np.arange(40))
    standard.write(tmp_path / "s.npz", written)
    loaded = standard.read(tmp_path / "s.npz")["A"]
    assert (loaded.windows, loaded.digest) == (written["A"].windows, written["A"].digest)
    assert loaded.scaling == written["A"].scaling
    for column in ("eeg", "fmri"):
        np.testing.assert_array_equal(loaded.mean[column], written["A"].mean[column])
        np.testing.assert_array_equal(loaded.deviation[column], written["A"].deviation[column])
    assert written["A"].digest == standard.statistics(data, np.arange(40)[::-1])["A"].digest
    assert written["A"].digest != standard.statistics(data, np.arange(41))["A"].digest


@pytest.mark.parametrize("arrays", [None, {"x": np.ones(2)}, {"A/fmri/mean": np.ones(2), "A/windows": ["w"]}])
def test_a_file_that_holds_no_statistics_is_refused(tmp_path: Path, arrays: dict | None) -> None:
    path = tmp_path / "s.npz"
    if arrays is None:
        path.write_bytes(b"no archive")
    else:
        np.savez(path, **arrays)
    with refused(UsageError, "statistics-unreadable", path=path):
        standard.read(path)


def test_released_files_of_two_subjects_have_statistics_each(tmp_path: Path) -> None:
    written = release.write(tmp_path, films=False)
    data = opened(tmp_path)
    split = splits.released(data.windows)
    statistics = standard.statistics(data, split.train)
    assert list(statistics) == ["sub-0001", "sub-0003"]
    for subject, moments in statistics.items():
        numbers = [5 * place + k for place in release.PLACES[:6] for k in range(5)]
        volumes = np.stack([written.fmri[subject, n] for n in numbers])
        np.testing.assert_allclose(moments.mean["fmri"], volumes.mean(0), atol=1e-6)
        np.testing.assert_allclose(moments.deviation["fmri"], volumes.std(0), atol=1e-6)
