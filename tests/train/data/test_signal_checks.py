"""Signals that were prepared with knowledge of the test are found where that was planted, and only there."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import butter, sosfilt

from tests.train.data.held import MemoryDataSet, table
from train.data import leaks, signal_checks, splits

WINDOWS = 25
SLOTS = 5
VOXELS = 30


def honest(seed: int, runs: int = 4, subjects: str = "A") -> MemoryDataSet:
    """Volumes that resemble their neighbours, scaled by the training runs; the last run is tested on."""
    draws = np.random.default_rng(seed)
    rows = [
        (subject, f"run-{run}", f"{subject}{run}-{n}", run == runs - 1)
        for subject in subjects
        for run in range(runs)
        for n in range(WINDOWS)
    ]
    count = len(rows)
    mixing = np.eye(VOXELS) + draws.uniform(0, 1) * draws.normal(size=(VOXELS, VOXELS)) / VOXELS**0.5
    noise = draws.normal(size=(count // WINDOWS, WINDOWS * SLOTS, VOXELS)) @ mixing
    pace = draws.uniform(0, 0.6)
    for n in range(1, noise.shape[1]):
        noise[:, n] += pace * noise[:, n - 1]
    volumes = noise + draws.normal(0, draws.uniform(0, 0.3), (count // WINDOWS, 1, VOXELS)) + 100
    volumes = volumes.reshape(count, SLOTS, VOXELS)
    eeg = draws.normal(0, 10, (count, 4, 50)).astype(np.float32)
    data = MemoryDataSet(table(*rows), {"fmri": volumes, "eeg": eeg})
    train = volumes[~data.windows.held_out].reshape(-1, VOXELS)
    scaled = ((volumes - train.mean(0)) / train.std(0)).astype(np.float32)
    data.values = {"fmri": scaled, "eeg": eeg}
    return data


def subset(data: MemoryDataSet, which: np.ndarray) -> MemoryDataSet:
    windows = data.windows
    names = ("subject", "run", "shown", "start_s", "repeat", "held_out")
    fewer = replace(windows, **{name: getattr(windows, name)[which] for name in names})
    return replace(
        data, windows=fewer, values={name: np.asarray(v)[which] for name, v in data.values.items()}
    )


def kinds_found(data: MemoryDataSet) -> list[str]:
    split = splits.released(data.windows)
    runs = signal_checks.looked_at(data)
    leaking = [*signal_checks.scaled_by_itself(runs, split), *signal_checks.centred_by_runs(data, runs)]
    leaking += [*signal_checks.still_eeg(runs), *signal_checks.cut_off(runs), *leaks.find_leaks(data, split)]
    return [leak.kind for leak in leaking]


def by_runs(data: MemoryDataSet, runs: list[str], *, ddof: int = 0) -> None:
    """Scale some runs by themselves."""
    volumes = np.array(data.values["fmri"], np.float64)
    for run in runs:
        of_run = data.windows.run == run
        flat = volumes[of_run].reshape(-1, VOXELS)
        volumes[of_run] = ((flat - flat.mean(0)) / flat.std(0, ddof=ddof)).reshape(-1, SLOTS, VOXELS)
    data.values = {**data.values, "fmri": volumes.astype(np.float32)}


def test_nothing_is_found_in_honest_sets() -> None:
    leaking = {}
    for seed in range(50):
        data = honest(seed, runs=2 + seed % 4)
        # Of every second set some windows are left out.
        chosen = np.random.default_rng(seed).uniform(size=len(data.windows)) < (0.9 if seed % 2 else 1)
        leaking[seed] = kinds_found(subset(data, chosen))
    assert {seed: kinds for seed, kinds in leaking.items() if kinds} == {}


@pytest.mark.parametrize("ddof", [0, 1])
def test_a_test_that_was_scaled_by_itself(ddof: int) -> None:
    data = honest(1)
    by_runs(data, ["run-3"], ddof=ddof)
    assert kinds_found(data) == ["test scaled by itself"]


def test_a_test_of_several_runs_that_was_scaled_as_a_whole() -> None:
    data = honest(2)
    of_test = np.isin(data.windows.run, ["run-2", "run-3"])
    data.windows = replace(data.windows, held_out=of_test)
    volumes = np.array(data.values["fmri"])
    flat = volumes[of_test].reshape(-1, VOXELS)
    volumes[of_test] = ((flat - flat.mean(0)) / flat.std(0)).reshape(-1, SLOTS, VOXELS)
    data.values = {**data.values, "fmri": volumes}
    assert kinds_found(data) == ["test scaled by itself"]


def test_training_that_was_scaled_by_itself_is_as_it_should_be() -> None:
    """So are the training runs of every honest set, whose mean is 0 and whose deviation is 1."""
    data = honest(3)
    flat = np.asarray(data.values["fmri"])[~data.windows.held_out].reshape(-1, VOXELS)
    assert np.abs(flat.mean(0)).max() < 1e-3
    assert kinds_found(data) == []


@pytest.mark.parametrize("share", [1.0, 0.96, 0.9])
def test_runs_that_were_scaled_by_themselves_and_lost_some_volumes(share: float) -> None:
    data = honest(4)
    by_runs(data, [f"run-{n}" for n in range(4)])
    chosen = np.random.default_rng(0).uniform(size=len(data.windows)) < share
    assert "scaled run by run" in kinds_found(subset(data, chosen))


def test_a_level_that_follows_the_signal_is_causal() -> None:
    data = honest(4)
    by_runs(data, [f"run-{n}" for n in range(4)])
    data.chain = "causal"
    assert "scaled run by run" not in kinds_found(data)


@pytest.mark.parametrize("value", [0.0, 12.5])
def test_eeg_that_stands_still(value: float) -> None:
    data = honest(5)
    eeg = np.array(data.values["eeg"])
    eeg[3:6] = value
    eeg[30, :, 10:] = value
    # One channel that stands still is a bad channel, and no hole.
    eeg[40, 0] = 0
    data.values = {**data.values, "eeg": eeg}
    runs = signal_checks.looked_at(data)
    [fault] = signal_checks.still_eeg(runs)
    assert fault.kind == "EEG stands still"
    assert "in 4 of 100 windows (run-0: 3, run-1: 1)" in fault.says


@pytest.mark.parametrize(("limit", "words"), [(3.0, " 3,"), (65504.0, "the largest number of float16")])
def test_values_that_were_cut_off(limit: float, words: str) -> None:
    data = honest(6)
    volumes = np.array(data.values["fmri"]) * (1 if limit == 3 else 30_000)
    data.values = {**data.values, "fmri": np.clip(volumes, -limit, limit)}
    [fault] = signal_checks.cut_off(signal_checks.looked_at(data))
    assert fault.kind == "values cut off"
    assert words in fault.says


def test_a_background_of_one_value_was_not_cut_off() -> None:
    data = honest(6)
    volumes = np.array(data.values["fmri"])
    volumes[..., :5] = 50.0
    data.values = {**data.values, "fmri": volumes}
    assert signal_checks.cut_off(signal_checks.looked_at(data)) == []


def rounded(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16).astype(np.float32)


@pytest.mark.parametrize("column", ["fmri", "eeg"])
@pytest.mark.parametrize(
    "change", [rounded, lambda values: np.round(values, 1), lambda values: 3 * values + 7]
)
def test_a_subject_that_is_anothers_copy_but_for_rounding(column: str, change) -> None:
    data = honest(7, subjects="AB")
    values = np.array(data.values[column])
    half = len(values) // 2
    values[half:] = change(values[:half])
    data.values = {**data.values, column: values}
    [leak] = leaks.copies(data, splits.released(data.windows))
    assert (leak.kind, leak.names) == ("same subject twice", ("A", "B"))
    assert f"have the same {column}, but for rounding or scaling, in 4 runs" in leak.says


def test_a_copy_to_the_bit_is_told_once() -> None:
    data = honest(7, subjects="AB")
    values = np.array(data.values["fmri"])
    values[len(values) // 2 :] = values[: len(values) // 2]
    data.values = {**data.values, "fmri": values}
    [leak] = leaks.copies(data)
    assert leak.kind == "same subject twice"


@pytest.mark.parametrize("column", ["fmri", "eeg"])
def test_a_run_of_the_test_that_was_copied_from_training(column: str) -> None:
    data = honest(8)
    values = np.array(data.values[column])
    values[data.windows.run == "run-3"] = rounded(values[data.windows.run == "run-1"])
    data.values = {**data.values, column: values}
    [leak] = leaks.copies(data, splits.released(data.windows))
    assert (leak.kind, leak.names) == ("run copied", ("A",))
    assert "run-1 and run-3" in leak.says
    # Two training runs that are the same teach twice, and tell nothing of the test.
    assert leaks.copies(data, splits.by_runs(data.windows, ["run-0"])) == []


def test_windows_of_the_test_beside_training_in_one_run() -> None:
    data = honest(9, runs=2)
    rows = np.arange(len(data.windows))
    # Every tenth clip is tested on, drawn from the runs that are trained on.
    random_split = splits.Split(rows[rows % 10 != 0], rows[:0], rows[rows % 10 == 0], rows[:0])
    [leak] = leaks.beside_training(data, random_split)
    assert leak.kind == "test beside training"
    assert len(leak.names) == 5
    assert "5 of 5 windows of the test lie within 20 s" in leak.says
    # The windows of 4 s that lie within 20 s of the test are left out.
    distant = splits.Split(rows[:19], rows[:0], rows[24:25], rows[19:24])
    assert leaks.beside_training(data, distant) == []
    assert len(leaks.beside_training(data, replace(distant, train=rows[:20]))) == 1


def captions(*texts: str) -> MemoryDataSet:
    rows = [("A", "run-0", str(n), False) for n in range(len(texts))]
    return MemoryDataSet(table(*rows), {"captions": np.array(texts)})


def test_captions_that_say_nothing_or_are_shared() -> None:
    assert leaks.poor_captions(captions("a dog", "a cat", "a red dog")) == []
    nothing, shared = leaks.poor_captions(captions("a dog", " ", "N/A", "A  dog", "a cat", "nan"))
    assert nothing.names == ("1", "2", "5")
    assert "3 of 6 clips have a caption that says nothing (1, 2, 5)" in nothing.says
    assert shared.names == ("0", "3")


def filtered(draws: np.random.Generator, how: str, windows: int = 300) -> MemoryDataSet:
    """A person's two runs, filtered below 0.0095 Hz: not at all, forwards alone, or as a whole."""
    rows = [("A", f"run-{run}", f"{run}-{n}", run == 1) for run in range(2) for n in range(windows)]
    seconds = windows * SLOTS
    runs = []
    for _ in range(2):
        drifting = np.cumsum(draws.normal(0, 0.1, (seconds, VOXELS)), axis=0) + draws.normal(
            size=(seconds, VOXELS)
        )
        if how == "forwards":
            drifting = sosfilt(butter(2, 0.0095, "high", fs=SLOTS / 4, output="sos"), drifting, axis=0)
        if how == "whole":
            spectrum = np.fft.rfft(drifting, axis=0)
            spectrum[np.fft.rfftfreq(seconds, 4 / SLOTS) < 0.0095] = 0
            drifting = np.fft.irfft(spectrum, seconds, axis=0)
        runs.append(drifting + 100)
    volumes = np.concatenate(runs).reshape(len(rows), SLOTS, VOXELS).astype(np.float32)
    return MemoryDataSet(table(*rows), {"fmri": volumes})


@pytest.mark.parametrize("how", ["not", "forwards", "whole"])
def test_runs_that_were_filtered_as_a_whole_are_told_and_those_of_a_causal_filter_are_not(how: str) -> None:
    data = filtered(np.random.default_rng(3), how)
    leaking = signal_checks.filtered_by_runs(signal_checks.looked_at(data))
    assert [leak.kind for leak in leaking] == (["filtered run by run"] if how == "whole" else [])
    if how == "whole":
        assert "below 0.010 Hz in 2 of 2 runs (run-0, run-1)" in leaking[0].says


def test_a_run_that_is_short_or_has_gaps_has_no_spectrum() -> None:
    short = filtered(np.random.default_rng(3), "whole", windows=5)
    assert signal_checks.filtered_by_runs(signal_checks.looked_at(short)) == []
    data = filtered(np.random.default_rng(3), "whole")
    gapped = subset(data, np.arange(len(data.windows)) % 7 > 0)
    assert signal_checks.filtered_by_runs(signal_checks.looked_at(gapped)) == []
