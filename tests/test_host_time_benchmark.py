"""The benchmark of what a clip costs outside of its graphs, on frames of few pixels."""

import numpy as np
import pytest

from benchmarks import host_time
from benchmarks.full_size import frame_size
from rtdecode.errors import UsageError
from tests.refusals import refused


def test_every_way_is_measured_on_the_same_frames() -> None:
    figures = host_time.measure((16, 24), 2)
    assert figures["same_frames"]
    assert figures["frames"] == [33, 16, 24, 3]
    assert figures["ms"].keys() == {"old", "single precision", "8 bits"}
    assert all(values["p50"] > 0 for values in figures["ms"].values())
    # Times are rounded to hundredths of a millisecond.
    ratio = figures["ms"]["8 bits"]["p50"] / figures["ms"]["old"]["p50"]
    assert figures["ratio"] == pytest.approx(ratio, abs=0.05)
    assert host_time.table(figures).row_count == 5


def test_values_are_looked_at_one_by_one_in_the_old_way_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    isfinite = np.isfinite

    def counting(values: np.ndarray) -> np.ndarray:
        sizes.append(np.size(values))
        return isfinite(values)

    monkeypatch.setattr(np, "isfinite", counting)
    host_time.measure((16, 24), 1)
    turn = 4 * 16 * 24 * 3
    # Eight turns of four frames of one clip, and of two that warm up.
    assert sizes.count(turn) == 8 * 3
    # In two other ways one sum for each of them, and for what is checked besides.
    assert sizes.count(1) >= 2 * sizes.count(turn)


@pytest.mark.parametrize("size", ["480", "480x", "480x721", "0x96", "480x720x3", "axb"])
def test_a_size_that_is_none_is_refused(size: str) -> None:
    with refused(UsageError, "benchmark-size-invalid", size=size, multiple=16):
        frame_size(size, 16)
    assert frame_size("480x720", 16) == (480, 720)
