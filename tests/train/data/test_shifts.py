"""A shift of the signals against their clips is told where there is one, for each modality apart."""

import numpy as np
import pytest

from tests.train.data.held import MemoryDataSet, table
from train.data.shifts import Shift, shifts

SLOTS = 5


def driven_set(
    seed: int, noise: float = 0.5, windows: int = 60, late: dict[str, int] | None = None
) -> MemoryDataSet:
    """Signals that the colours of the clips drive, each taken `late` windows after its clip."""
    draws = np.random.default_rng(seed)
    rows = [("A", f"run-{run}", f"{run}-{n}", False) for run in range(2) for n in range(windows)]
    clips = draws.integers(0, 256, (len(rows), 1, 4, 6, 3)).astype(np.uint8)
    colours = (clips.reshape(len(rows), -1) - 128.0) / 74
    mixing = draws.normal(size=(72, 40)) / 72**0.5
    channels = draws.normal(size=(72, 12)) / 72**0.5
    driven = {"fmri": colours @ mixing, "eeg": colours @ channels}
    late = late or {}
    for name, values in driven.items():
        # Run by run, so that nothing goes over into the next.
        parts = np.split(values, 2)
        driven[name] = np.concatenate([np.roll(part, late.get(name, 0), axis=0) for part in parts])
    fmri = np.repeat(driven["fmri"][:, None], SLOTS, axis=1)
    eeg = np.repeat(driven["eeg"][:, :, None], 100, axis=2)
    fmri = fmri + noise * draws.normal(size=fmri.shape)
    eeg = eeg + noise * draws.normal(size=eeg.shape)
    data = MemoryDataSet(
        table(*rows), {"fmri": fmri.astype(np.float32), "eeg": eeg.astype(np.float32), "clips": clips}
    )
    data.sfreq = 25.0
    return data


def looked_for(data: MemoryDataSet) -> dict[str, Shift]:
    return {shift.column: shift for shift in shifts(data, np.arange(len(data.windows)))}


def test_signals_that_follow_their_clips_are_not_shifted() -> None:
    by_column = looked_for(driven_set(0))
    assert [(shift.lag, shift.is_told) for shift in by_column.values()] == [(0, False)] * 2
    # Windows at both ends of a run do not have all lags.
    assert [shift.windows for shift in by_column.values()] == [116, 116]


@pytest.mark.parametrize(("windows", "lag"), [(1, 3), (-1, -2)])
@pytest.mark.parametrize("column", ["fmri", "eeg"])
def test_a_shift_of_one_window_is_told_of_the_modality_that_has_it(
    column: str, windows: int, lag: int
) -> None:
    by_column = looked_for(driven_set(1, late={column: windows}))
    shift = by_column.pop(column)
    assert shift.is_told
    assert (shift.lag, shift.lag_s) == (lag, pytest.approx(lag * 0.8))
    assert shift.gain > shift.low > 0.05
    assert f"A's {column} follows its clips better {abs(lag)} volumes" in shift.says
    (other,) = by_column.values()
    assert not other.is_told


def test_what_follows_no_clip_cannot_be_told() -> None:
    """Of noise alone, the best of the lags is better than lag 0 by chance."""
    by_column = [shift for seed in range(5) for shift in looked_for(driven_set(seed, noise=1e3)).values()]
    assert any(shift.low > 0 for shift in by_column)
    assert [shift.is_told for shift in by_column] == [False] * 10
    assert "cannot be told from 116 windows" in looked_for(driven_set(0, noise=1e3))["eeg"].says


def test_few_windows_or_volumes_that_overlap_tell_nothing() -> None:
    by_column = looked_for(driven_set(2, windows=15))
    assert {shift.windows for shift in by_column.values()} == {26}
    data = driven_set(2)
    data.values = {**data.values, "fmri": np.repeat(data.values["fmri"], 2, axis=1)}
    assert looked_for(data)["fmri"].says == (
        "Whether A's fmri is shifted against its clips cannot be told from 0 windows."
    )


def test_a_gap_divides_a_run() -> None:
    data = driven_set(3)
    data.windows.start_s[30:60] += 4.0
    # Two windows or so are lost at each end of the gap.
    assert looked_for(data)["fmri"].windows == 114
