"""EEG that stands still in a file was not measured: it is a hole for the chain, and zero in a window."""

from pathlib import Path

import numpy as np
import pytest

from tests.train.data.layouts.test_bids_eeg import brainvision
from train.data.layouts.bids_eeg import Standstill, eeg_windows

pytest.importorskip("mne")

NAMES = ["Fz", "Cz", "Pz", "Oz", "C3"]
SFREQ = 250
DATA = np.random.default_rng(6).normal(0, 20, (len(NAMES), SFREQ * 20)).astype(np.float32)
STARTS = np.array([2.0, 10.0])


def windows(folder: Path, data: np.ndarray) -> np.ndarray:
    path = brainvision(folder / "eeg.vhdr", data, NAMES, SFREQ, 1 + 0.8 * np.arange(20))
    return eeg_windows(path, NAMES, STARTS, 4.0, 0.8)


# The first trigger comes 1 s after the first sample: the second window is that of 11 to 15 s.
@pytest.mark.parametrize("value", [0.0, 37.5, "last"])
def test_windows_of_still_eeg_are_zero(tmp_path: Path, value: float | str) -> None:
    still = DATA.copy()
    part = slice(SFREQ * 10, SFREQ * 16)
    still[:, part] = still[:, part.start - 1, None] if value == "last" else value
    plain = windows(tmp_path / "plain", DATA)
    cut = windows(tmp_path / "still", still)
    np.testing.assert_array_equal(cut[0], plain[0])
    assert not cut[1].any()
    assert plain[1].std() > 3


def test_a_part_that_stands_still_leaves_the_rest(tmp_path: Path) -> None:
    still = DATA.copy()
    still[:, SFREQ * 11 : SFREQ * 12] = 4.0
    cut = windows(tmp_path, still)
    # The last samples before the hole, and those after the filters have settled again.
    quiet = ~cut[1].any(axis=0)
    assert 0.2 < quiet.mean() < 0.9


def test_one_channel_that_changes_is_a_measurement() -> None:
    data = np.zeros((3, 100))
    data[1] = np.arange(100) % 2
    assert not Standstill([0, 1], SFREQ).push(data).any()
    # A channel that is no EEG does not tell that the EEG was measured.
    assert Standstill([0, 2], SFREQ).push(data).sum() == 100 - 12


@pytest.mark.parametrize("chunk", [1, 7, 50, 400])
def test_what_stands_still_does_not_depend_on_chunks_or_on_what_follows(chunk: int) -> None:
    data = np.random.default_rng(0).normal(size=(2, 400))
    data[:, 100:230] = 5
    data[:, 300:309] = 1
    at_once = Standstill([0, 1], SFREQ).push(data)
    assert np.flatnonzero(at_once).tolist() == list(range(112, 230))
    standstill = Standstill([0, 1], SFREQ)
    parts = [standstill.push(data[:, start : start + chunk]) for start in range(0, 400, chunk)]
    np.testing.assert_array_equal(np.concatenate(parts), at_once)
    np.testing.assert_array_equal(Standstill([0, 1], SFREQ).push(data[:, :150]), at_once[:150])
