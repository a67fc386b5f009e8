"""A laboratory's own BIDS folder: each window gets its film and the volumes that answer to it."""

import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.data.layouts.laboratory import (
    HEAD,
    SHAPE,
    add_sound,
    bids,
    heard_hz,
    tone,
    volumes,
    write_bold,
    write_events,
    write_film,
)
from train.data.dataset import DataSet
from train.data.layouts.bids import opened, recognises
from train.data.layouts.film_sound import SOUND_HZ
from train.data.nodes import grid

FUNC = Path("sub-01", "func")
FIRST = "sub-01_task-film_run-1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return bids(tmp_path / "own")


def test_windows_are_stretches_of_films(folder):
    data: DataSet = opened(folder)
    windows = data.windows
    assert windows.subject.tolist() == ["sub-01"] * 4 + ["sub-02"] * 2
    assert windows.run.tolist() == ["task-film_run-1"] * 2 + ["task-film_run-2"] * 2 + ["task-film"] * 2
    assert windows.shown.tolist() == ["stimuli/own/film.mp4/0000", "stimuli/own/film.mp4/0001"] * 3
    np.testing.assert_allclose(windows.start_s, [1.6, 5.6] * 3)
    assert windows.repeat.tolist() == [0, 0, 1, 1, 0, 0]
    assert not windows.held_out.any()
    assert (data.window_s, data.lag_s, data.tr_s, data.fps, data.sfreq) == (4, 4, 0.8, 8, None)
    assert data.chain == "causal"
    assert any("neither realigned nor registered" in note for note in data.notes)


def test_a_window_has_the_volumes_whose_middles_lie_behind_the_lag(folder):
    """The middles are 0.4, 1.2, ...; window 0 of the film answers in [5.6, 9.6)."""
    data = opened(folder)
    windows = data.read("fmri", [3, 0])
    assert windows.shape == (2, 5, len(HEAD))
    middles = (np.arange(24) + 0.5) * 0.8
    for row, start, seed in ((0, 5.6, 1), (1, 1.6, 0)):
        in_window = (middles >= start + 4) & (middles < start + 8)
        series = volumes(24, seed).reshape(-1, 24)[list(HEAD)][:, in_window].T
        np.testing.assert_array_equal(windows[row], series)


def test_the_volumes_are_those_of_the_runtimes_grid(folder):
    """A film that begins with the run is cut as a session cuts it."""
    write_events(folder / FUNC / f"{FIRST}_events.tsv", [("0", "10", "film", "own/film.mp4")])
    data = opened(folder, ["sub-01"])
    expected = grid(tr="4/5", window=4, hop=4, lag=4, sfreq=125, fps=8)
    assert [range(first, first + data.slots) for _, first in data.where[:2]] == [
        expected.volumes(k) for k in (0, 1)
    ]


def test_each_window_gets_its_own_clip(folder):
    data = opened(folder, ["sub-02"], fps=2, size=(16, 16))
    clips = data.read("clips", [1, 0])
    assert clips.shape == (2, 8, 16, 16, 3)
    # Ten frames a second, each 2 brighter.
    np.testing.assert_allclose(clips[1, :, 0, 0, 0], np.arange(8) * 10, atol=4)
    np.testing.assert_allclose(clips[0, :, 0, 0, 0], 80 + np.arange(8) * 10, atol=4)


def test_the_lag_and_the_length_are_told(folder):
    data = opened(folder, lag_s=5.6, window_s=1.6)
    assert (data.lag_s, data.window_s) == (5.6, 1.6)
    assert (data.windows.run == "task-film").sum() == 6
    windows = data.read("fmri", [0])
    np.testing.assert_array_equal(windows[0], volumes(24, 0).reshape(-1, 24)[list(HEAD)][:, 9:11].T)
    with refused(UsageError, "window-not-whole-trs", tr_s=0.8, window_s=2):
        opened(folder, window_s=2)


def test_a_window_without_all_its_volumes_is_left_out(folder):
    write_bold(folder / FUNC / f"{FIRST}_bold.nii.gz", volumes(16, 0), None)
    data = opened(folder)
    assert (data.windows.run == "task-film_run-1").sum() == 1


def test_the_headers_tr_stands_in_for_a_sidecar(folder):
    (folder / "task-film_bold.json").unlink()
    assert opened(folder).tr_s == 0.8


def test_events_of_the_whole_folder_hold_for_every_run(folder):
    for path in folder.glob("sub-*/func/*_events.tsv"):
        path.unlink()
    with refused(UsageError, "bids-no-windows", subjects="sub-01, sub-02"):
        opened(folder)
    write_events(folder / "task-film_events.tsv", [("0", "n/a", "film", "own/film.mp4")])
    # Without a duration the film ran to its end.
    assert opened(folder).windows.start_s.tolist() == [0, 4] * 3


def test_prepared_volumes_have_their_mask_and_their_moment(folder):
    place = folder / "derivatives" / "fmriprep" / FUNC
    name = f"{FIRST}_space-MNI_desc-preproc_bold"
    # Slice timing moved the volumes to the beginning of the TR, 0.4 s before the middle.
    sidecar = {"RepetitionTime": 0.8, "SliceTimingCorrected": True, "StartTime": 0.0}
    write_bold(place / f"{name}.nii.gz", volumes(24, 5), sidecar)
    mask = np.zeros(SHAPE, np.uint8)
    mask[0, 1] = 1
    nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), place / f"{FIRST}_space-MNI_desc-brain_mask.nii.gz")
    data = opened(folder, prepared=True)
    assert data.chain == "offline"
    # It lies where it was prepared for, and what came later has a part in it.
    assert data.acquired("sub-01").head.voxels.tolist() == np.flatnonzero(mask).tolist()
    assert any("fMRIPrep" in note for note in data.notes)
    assert data.windows.run.tolist() == ["task-film_run-1"] * 2
    # The volumes stand for 0, 0.8, ... s; the window answers in [5.6, 9.6).
    np.testing.assert_array_equal(data.read("fmri", [0])[0], volumes(24, 5)[0, 1, :, 7:12].T)
    path = place / f"{FIRST}_space-MNI_desc-brain_mask.nii.gz"
    nibabel.save(nibabel.Nifti1Image(mask[:2], np.eye(4)), path)
    with refused(UsageError, "mask-grid-mismatch", path=path, mask_shape=(2, 4, 2)):
        opened(folder, prepared=True).read("fmri", [0])
    write_bold(place / f"{FIRST}_space-T1w_desc-preproc_bold.nii.gz", volumes(24, 6), sidecar)
    with refused(UsageError, "bold-run-ambiguous"):
        opened(folder, prepared=True)
    assert len(opened(folder, prepared=True, space="T1w").windows) == 2


def test_sessions_are_runs_of_their_own(folder):
    place = folder / "sub-02" / "ses-b" / "func"
    write_bold(place / "sub-02_ses-b_task-film_bold.nii.gz", volumes(24, 9), None)
    write_events(place / "sub-02_ses-b_task-film_events.tsv", [("0", "8", "film", "own/film.mp4")])
    windows = opened(folder, ["sub-02"]).windows
    assert windows.run.tolist() == ["task-film"] * 2 + ["ses-b_task-film"] * 2
    assert windows.repeat.tolist() == [0, 0, 1, 1]


def test_opening_reads_no_volume(folder):
    """The volumes of a file that ends behind its header are missed when they are read."""
    path = folder / FUNC / f"{FIRST}_bold.nii.gz"
    path.unlink()
    plain = write_bold(path.with_suffix(""), volumes(24, 0), None)
    plain.write_bytes(plain.read_bytes()[:400])
    plain.rename(path.with_suffix(""))
    import gzip

    path.write_bytes(gzip.compress(path.with_suffix("").read_bytes()))
    path.with_suffix("").unlink()
    data = opened(folder)
    with refused(UsageError, "bold-damaged", path=path):
        data.read("fmri", [0])


def test_the_folder_is_recognised(folder, tmp_path):
    assert recognises(folder)
    assert not recognises(tmp_path)


def test_a_film_that_is_not_there_is_refused_by_path(folder):
    path = folder / "stimuli" / "own" / "film.mp4"
    path.unlink()
    with refused(UsageError, "events-film-missing", film="own/film.mp4", path=path):
        opened(folder)


@pytest.mark.parametrize(
    ("row", "code", "values"),
    [
        (("n/a", "10", "film", "own/film.mp4"), "events-onset-missing", {"film": "own/film.mp4"}),
        (
            ("soon", "10", "film", "own/film.mp4"),
            "events-seconds-invalid",
            {"column": "onset", "value": "soon"},
        ),
        (
            ("0", "long", "film", "own/film.mp4"),
            "events-seconds-invalid",
            {"column": "duration", "value": "long"},
        ),
    ],
)
def test_events_without_times_are_refused_by_path(folder, row, code, values):
    path = folder / FUNC / f"{FIRST}_events.tsv"
    write_events(path, [row])
    with refused(UsageError, code, path=path, **values):
        opened(folder)


def test_voxels_have_the_places_of_the_volumes(folder):
    acquired = opened(folder).acquired("sub-01")
    assert acquired.head.shape == SHAPE
    assert acquired.head.voxels.tolist() == list(HEAD)
    np.testing.assert_array_equal(acquired.head.affine, np.diag([3, 3, 3, 1]))
    assert acquired.eeg is None


def test_runs_that_lie_elsewhere_have_no_places(folder):
    path = folder / FUNC / "sub-01_task-film_run-2_bold.nii.gz"
    moved = nibabel.Nifti1Image(volumes(24, 1), np.diag([3, 3, 3, 1]) + np.eye(4, k=3))
    moved.header.set_zooms((3, 3, 3, 0.8))
    nibabel.save(moved, path)
    data = opened(folder)
    first = folder / FUNC / f"{FIRST}_bold.nii.gz"
    with refused(UsageError, "bold-affine-mismatch", path=path, first_path=first, affine=re.compile("1.0]")):
        data.acquired("sub-01")
    # The other subject has one run.
    assert data.acquired("sub-02").head.shape == SHAPE


def test_runs_that_do_not_fit_together_are_refused(folder):
    path = folder / FUNC / "sub-01_task-film_run-2_bold.nii.gz"
    write_bold(path, volumes(24, 0)[:2], None)
    with refused(
        UsageError,
        "bold-grid-mismatch",
        path=path,
        shape=(2, 4, 2),
        first_bold=f"{FIRST}_bold.nii.gz",
        first_shape=(3, 4, 2),
    ):
        opened(folder)
    write_bold(path, volumes(24, 0), {"RepetitionTime": 1.0})
    with refused(UsageError, "runs-tr-mismatch", trs=re.compile(r"run-1.*: 0\.8 s, .*run-2.*: 1 s$")):
        opened(folder)
    write_bold(path, volumes(24, 0), {"RepetitionTime": "0.8"})
    with refused(UsageError, "bold-tr-invalid", path=path, tr_s="0.8"):
        opened(folder)
    sidecar = path.with_name(path.name.replace(".nii.gz", ".json"))
    sidecar.write_text("{")
    with refused(UsageError, "sidecar-unreadable", path=sidecar):
        opened(folder)
    sidecar.write_text("[]")
    with refused(UsageError, "sidecar-not-object", path=sidecar):
        opened(folder)
    sidecar.write_text(json.dumps({}))
    write_bold(path, volumes(1, 0)[..., 0], None)
    with refused(UsageError, "bold-not-4d", path=path, shape=(3, 4, 2)):
        opened(folder)
    path.write_bytes(b"no image")
    with refused(UsageError, "image-unreadable", path=path, format="NIfTI"):
        opened(folder)


def test_a_value_that_is_not_finite_is_refused_when_it_is_read(folder):
    values = volumes(24, 0)
    values.reshape(-1, 24)[HEAD[0], 8] = np.nan
    path = folder / FUNC / f"{FIRST}_bold.nii.gz"
    write_bold(path, values, None)
    data = opened(folder)
    with refused(UsageError, "data-nonfinite-values", path=path, nonfinite_values=1, nonfinite_voxels=1):
        data.read("fmri", [0])


def test_a_film_that_ends_early_is_refused_by_path(folder):
    data = opened(folder)
    path = folder / "stimuli" / "own" / "film.mp4"
    write_film(path, 6)
    with refused(UsageError, "film-ends-early", path=path, start_s=4, end_s=8):
        data.read("clips", [1])
    path.write_bytes(b"no film")
    with refused(UsageError, "film-unreadable", path=path):
        data.read("clips", [1])


def test_windows_have_the_sound_of_their_film(folder):
    assert "sound" not in opened(folder).columns
    film = folder / "stimuli" / "own" / "film.mp4"
    add_sound(film, np.concatenate([tone(500, 4), tone(900, 6)])[None])
    data = opened(folder)
    assert list(data.columns) == ["fmri", "clips", "sound"]
    sounds = data.read("sound", [3, 0])
    assert sounds.shape == (2, round(data.window_s * SOUND_HZ))
    assert [heard_hz(sound) for sound in sounds] == pytest.approx([900, 500], abs=3)
