"""Volumes without labels: which of them may teach, and how they are given another number of voxels."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.data.layouts.test_hcp import write
from train.data.sets.unlabelled import check_fit, check_folder, fitted, read_unlabelled, teaching_rows

VOLUMES = np.arange(12, dtype=np.float32).reshape(2, 6)


def test_fewer_voxels_are_repeated_and_of_more_the_first_are_taken() -> None:
    assert fitted(VOLUMES, 8, "wrap")[0].tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    assert fitted(VOLUMES, 4, "wrap")[1].tolist() == [6, 7, 8, 9]


def test_parcels_are_means_of_equal_parts() -> None:
    assert fitted(VOLUMES, 3, "parcels")[0].tolist() == [0.5, 2.5, 4.5]
    assert fitted(VOLUMES, 6, "parcels").tolist() == VOLUMES.tolist()
    assert fitted(VOLUMES, 12, "parcels")[1].tolist() == [6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11]


@dataclass
class Table:
    shown: Any
    held_out: Any


@dataclass
class Data:
    """What is asked of a data set: its names, and which windows show what."""

    study: str
    layout: str
    windows: Table = field(
        default_factory=lambda: Table(np.array(["a", "b", "c", "d"]), np.array([False, False, True, False]))
    )


def test_what_is_held_out_here_or_in_the_training_does_not_teach() -> None:
    target: Any = SimpleNamespace(data=Data("study", "one"), split=SimpleNamespace(test=np.array([0])))
    other: Any = Data("study", "another")
    assert teaching_rows(other, None).tolist() == [0, 1, 3]
    assert teaching_rows(other, target).tolist() == [1, 3]
    # Names hold within a study, or within a layout without one.
    strange: Any = Data("", "one")
    assert teaching_rows(strange, target).tolist() == [0, 1, 3]


def test_a_way_to_fit_that_there_is_not_and_a_folder_that_is_none_are_refused(tmp_path: Path) -> None:
    with refused(UsageError, "unlabelled-fit-unknown", fit="crop"):
        check_fit("crop")
    with refused(UsageError, "unlabelled-not-folder"):
        check_folder(tmp_path / "none")
    with refused(UsageError, "layout-unrecognised"):
        check_folder(tmp_path)
    with pytest.raises(UsageError):
        read_unlabelled(tmp_path, 4, "wrap", None, None)


def test_windows_of_ten_volumes_become_their_means(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32) + 100
    for subject in ("100610", "102311"):
        write(tmp_path, subject, "rfMRI_REST1_7T_PA", values, tr_s=0.72)
    unlabelled = read_unlabelled(tmp_path, 8, "wrap", 7.2, None)
    means = values.reshape(4, 10, 6).mean(1)
    # Means and scales of voxels are those of all volumes.
    expected = (means - values.mean(0)) / values.std(0)
    np.testing.assert_allclose(unlabelled.volumes[:4, :6], expected, atol=1e-3)
    np.testing.assert_allclose(unlabelled.volumes[4:, 6:], expected[:, :2], atol=1e-3)
    assert unlabelled.provenance() == {"layout": "hcp", "subjects": 2, "volumes": 8, "left_out": 0}
