"""Volumes of a BIDS run are taken for the time at which they were acquired, by all that says so."""

import json
import re
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.data.layouts.laboratory import bids, volumes, write_bold, write_events
from train.data.layouts.bids import Bids, opened

PLACE = Path("sub-02", "func")
BOLD = PLACE / "sub-02_task-film_bold.nii.gz"
EVENTS = PLACE / "sub-02_task-film_events.tsv"
# Ten slices of 0.2 s, every second one first.
SLICES = np.argsort(np.r_[0:10:2, 1:10:2]) * 0.2
# A volume takes 2 s, and 8 s are quiet.
SPARSE = {"RepetitionTime": 10, "DelayTime": 8}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A film of 10 s from 4 s on, in 24 volumes."""
    written = bids(tmp_path / "own")
    (written / "task-film_bold.json").unlink()
    write_events(written / EVENTS, [("4", "10", "film", "own/film.mp4")])
    return written


def with_sidecar(folder: Path, sidecar: dict[str, Any]) -> Bids:
    (folder / BOLD.with_name("sub-02_task-film_bold.json")).write_text(json.dumps(sidecar))
    return opened(folder, ["sub-02"])


@pytest.mark.parametrize(
    "sidecar",
    [
        {"VolumeTiming": [10.0 * n for n in range(24)], "AcquisitionDuration": 2.0},
        {"VolumeTiming": [10.0 * n for n in range(24)], "SliceTiming": SLICES.tolist()},
        # Those of triggers, which are not quite steady.
        {"VolumeTiming": [10 * n + 0.004 * (n % 2) for n in range(24)], "SliceTiming": SLICES.tolist()},
        {"RepetitionTime": 10, "VolumeTiming": [10.0 * n for n in range(24)], "AcquisitionDuration": 2},
        SPARSE,
        {"RepetitionTime": 10, "SliceTiming": SLICES.tolist()},
        # The length of a whole run, as some converters keep it.
        {**SPARSE, "AcquisitionDuration": 240.0},
    ],
)
def test_volumes_with_pauses_stand_for_the_middle_of_their_acquisition(folder, sidecar):
    """The middles are 1, 11, 21 s; the film answers in [8, 18). The middle of a TR would be 5, 15 s."""
    data = with_sidecar(folder, sidecar)
    assert (data.tr_s, data.window_s, data.slots) == (pytest.approx(10, abs=1e-3), data.tr_s, 1)
    assert data.where[:, 1].tolist() == [1]
    assert any("2 of 10 s" in note for note in data.notes)
    write_events(folder / EVENTS, [("6.5", "10", "film", "own/film.mp4")])
    # From 10.5 s on volume 1 is still the first whose middle follows, and from 11.5 s on it is not.
    assert with_sidecar(folder, sidecar).where[:, 1].tolist() == [1]
    write_events(folder / EVENTS, [("7.5", "10", "film", "own/film.mp4")])
    assert with_sidecar(folder, sidecar).where[:, 1].tolist() == [2]


def test_slices_that_fill_the_tr_change_nothing(folder):
    for sidecar in ({}, {"SliceTiming": SLICES.tolist()}, {"SliceTiming": [0, 0, 0]}, {"DelayTime": 0}):
        data = with_sidecar(folder, {"RepetitionTime": 2.0, **sidecar})
        # The middles are 1, 3, ...; the windows answer in [8, 12) and [12, 16).
        assert data.where[:, 1].tolist() == [4, 6]
        assert not any("paused" in note for note in data.notes)
    # Times that a converter has rounded leave no pause.
    rounded = np.round(np.arange(30) * 2 / 30, 3).tolist()
    assert with_sidecar(folder, {"RepetitionTime": 2.0, "SliceTiming": rounded}).where[0, 1] == 4


def test_prepared_volumes_with_pauses_stand_for_their_moment(folder):
    place = folder / "derivatives" / "fmriprep" / PLACE
    sidecar = {**SPARSE, "SliceTimingCorrected": True, "StartTime": 0.0}
    write_bold(place / "sub-02_task-film_space-T1w_desc-preproc_bold.nii.gz", volumes(24, 1), sidecar)
    write_events(folder / EVENTS, [("6.5", "10", "film", "own/film.mp4")])
    # They stand for 0, 10, 20 s; the film answers from 10.5 s on.
    assert opened(folder, ["sub-02"], prepared=True).where[:, 1].tolist() == [2]


@pytest.mark.parametrize(
    ("sidecar", "code", "values"),
    [
        ({"RepetitionTime": 2000}, "bold-milliseconds", {"key": "RepetitionTime", "seconds": 2}),
        ({"RepetitionTime": 10, "DelayTime": 8000}, "bold-milliseconds", {"key": "DelayTime"}),
        (
            {"RepetitionTime": 2, "SliceTiming": (SLICES * 1000).tolist()},
            "bold-milliseconds",
            {"key": "SliceTiming", "seconds": 1.8},
        ),
        ({"RepetitionTime": -2}, "bold-tr-invalid", {}),
        ({"RepetitionTime": 2, "DelayTime": "1"}, "bold-seconds-invalid", {"key": "DelayTime"}),
        ({"RepetitionTime": 2, "DelayTime": 2}, "bold-acquisition-contradicts", {"key": "DelayTime"}),
        (
            {"RepetitionTime": 10, "DelayTime": 9, "SliceTiming": SLICES.tolist()},
            "bold-acquisition-contradicts",
            {"key": "SliceTiming", "at_s": 1.8, "acquired_s": 1},
        ),
        ({"RepetitionTime": 2, "SliceTiming": ["0"]}, "bold-seconds-invalid", {"key": "SliceTiming"}),
        ({"RepetitionTime": 2, "SliceTiming": [-1, 0]}, "bold-seconds-invalid", {"value": -1}),
        (
            {"VolumeTiming": [10.0 * n for n in range(24)]},
            "bold-acquisition-unknown",
            {"path": re.compile("sub-02_task-film_bold")},
        ),
        (
            {"VolumeTiming": [10.0 * n for n in range(23)], "AcquisitionDuration": 2},
            "bold-onset-count-mismatch",
            {"volumes": 24, "onsets": 23},
        ),
        (
            {"VolumeTiming": [2.0 * n + 9 * (n > 11) for n in range(24)], "AcquisitionDuration": 2},
            "bold-onsets-unsteady",
            {"volume": 12, "distance_s": 11, "usual_s": 2},
        ),
        (
            {"VolumeTiming": [4 + 10.0 * n for n in range(24)], "AcquisitionDuration": 2},
            "bold-onsets-not-from-zero",
            {"onset_s": 4},
        ),
        (
            {"RepetitionTime": 2, "VolumeTiming": [10.0 * n for n in range(24)], "AcquisitionDuration": 2},
            "bold-timing-contradicts",
            {"tr_s": 2, "interval_s": 10},
        ),
        (
            {"VolumeTiming": [1.0 * n for n in range(24)], "AcquisitionDuration": 2},
            "bold-acquisition-contradicts",
            {"key": "AcquisitionDuration"},
        ),
    ],
)
def test_times_that_cannot_be_meant_are_refused(folder, sidecar, code, values):
    with refused(UsageError, code, **values):
        with_sidecar(folder, sidecar)


def test_a_headers_tr_has_the_unit_that_it_says(folder):
    image = nibabel.Nifti1Image(volumes(24, 0), np.eye(4))
    image.header.set_zooms((3, 3, 3, 2000))
    image.header.set_xyzt_units("mm", "msec")
    nibabel.save(image, folder / BOLD)
    assert opened(folder, ["sub-02"]).tr_s == 2
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, folder / BOLD)
    with refused(UsageError, "bold-milliseconds", value=2000):
        opened(folder, ["sub-02"])


def test_volumes_may_be_uncompressed(folder):
    path = folder / BOLD
    plain = with_sidecar(folder, {"RepetitionTime": 0.8}).read("fmri", [0])
    nibabel.save(nibabel.load(path), path.with_suffix(""))
    with refused(UsageError, "bold-run-ambiguous", path=path, duplicate="sub-02_task-film_bold.nii"):
        opened(folder, ["sub-02"])
    path.unlink()
    data = opened(folder, ["sub-02"])
    np.testing.assert_array_equal(data.read("fmri", [0]), plain)


def test_prepared_volumes_and_their_mask_may_be_uncompressed(folder):
    place = folder / "derivatives" / "fmriprep" / PLACE
    sidecar = {"RepetitionTime": 0.8}
    write_bold(place / "sub-02_task-film_space-T1w_desc-preproc_bold.nii", volumes(24, 1), None)
    (place / "sub-02_task-film_space-T1w_desc-preproc_bold.json").write_text(json.dumps(sidecar))
    mask = np.zeros((3, 4, 2), np.uint8)
    mask[1, 2] = 1
    # One of both is compressed.
    nibabel.save(
        nibabel.Nifti1Image(mask, np.eye(4)), place / "sub-02_task-film_space-T1w_desc-brain_mask.nii.gz"
    )
    assert opened(folder, ["sub-02"], prepared=True).read("fmri", [0]).shape[-1] == 2
