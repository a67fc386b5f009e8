from typing import Any

import numpy as np
import pytest

from rtdecode.errors import UsageError
from tests.refusals import refused
from train.data.slice_timing import acquired_shift_s

TR = 2.0
SLICES = 40
TIMES = (np.arange(SLICES) * TR / SLICES).tolist()
# What fMRIPrep writes by default: halfway between the first and the last slice.
MIDDLE = round(TIMES[0] + 0.5 * (TIMES[-1] - TIMES[0]), 3)


def resampled(onset_s: float, start_s: float) -> np.ndarray:
    """A response of 3 s width at an onset, as corrected data would hold it, by volume."""
    return np.exp(-0.5 * ((np.arange(60) * TR + start_s - onset_s - 6) / 3) ** 2)


@pytest.mark.parametrize("start", [0.0, MIDDLE, 1.9])
def test_moved_onsets_find_the_response_where_ours_do(start: float) -> None:
    sidecar = {"RepetitionTime": TR, "SliceTimingCorrected": True, "StartTime": start, "SliceTiming": TIMES}
    data = resampled(40.0, start)
    # In our convention volume n stands for the middle of its slices, n * TR + mean(SliceTiming).
    middles_s = np.arange(60) * TR + np.mean(TIMES)
    onset_s = float(data @ middles_s / data.sum()) - 6
    assert onset_s == pytest.approx(40.0 - acquired_shift_s(sidecar), abs=1e-3)


def test_the_default_reference_moves_nothing() -> None:
    sidecar: dict[str, Any] = {"RepetitionTime": TR, "SliceTimingCorrected": True}
    assert acquired_shift_s(sidecar) == 0
    assert acquired_shift_s(sidecar | {"StartTime": MIDDLE, "SliceTiming": TIMES}) == pytest.approx(
        0, abs=1e-9
    )
    assert acquired_shift_s(sidecar | {"StartTime": MIDDLE}) == pytest.approx(-TR / (2 * SLICES))
    assert acquired_shift_s(sidecar | {"StartTime": 0}) == -1


def test_data_that_were_not_corrected_are_ours() -> None:
    raw = {"RepetitionTime": TR, "SliceTiming": TIMES}
    assert acquired_shift_s(raw) == 0
    assert acquired_shift_s(raw | {"SliceTimingCorrected": False, "StartTime": 0.5}) == 0
    assert acquired_shift_s({}) == 0


def test_slices_that_leave_a_pause_in_the_tr() -> None:
    sparse = {"RepetitionTime": 4.0, "SliceTiming": TIMES, "StartTime": 0.975, "SliceTimingCorrected": True}
    assert acquired_shift_s(sparse) == pytest.approx(0)


@pytest.mark.parametrize(
    ("changes", "code", "values"),
    [
        ({"StartTime": "0.5"}, "sidecar-seconds-invalid", {"key": "StartTime", "value": "0.5"}),
        ({"StartTime": True}, "sidecar-seconds-invalid", {"key": "StartTime", "value": True}),
        ({"StartTime": 2.5}, "sidecar-start-outside-volume", {"start_s": 2.5, "tr_s": TR}),
        ({"StartTime": -0.1}, "sidecar-start-outside-volume", {"start_s": -0.1, "tr_s": TR}),
        (
            {"RepetitionTime": float("nan")},
            "sidecar-seconds-invalid",
            {"key": "RepetitionTime", "value": "nan"},
        ),
    ],
)
def test_what_cannot_be_read_is_said(changes: dict[str, Any], code: str, values: dict[str, Any]) -> None:
    sidecar = {"RepetitionTime": TR, "SliceTimingCorrected": True, "StartTime": 1.0} | changes
    with refused(UsageError, code, **values):
        acquired_shift_s(sidecar)
    with refused(UsageError, "sidecar-tr-missing"):
        acquired_shift_s({"StartTime": 1.0})
