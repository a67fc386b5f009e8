"""NATVIEW's tasks stand for films, which begin one TR after the first volume."""

from pathlib import Path

import numpy as np
import pytest

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.data.layouts.laboratory import volumes, write_bold, write_film
from train.data.dataset import DataSet
from train.data.layouts.natview import opened, recognises


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for task in ("dme_run-01", "tp_run-02", "rest"):
        name = f"sub-01_ses-01_task-{task}_bold.nii.gz"
        write_bold(tmp_path / "sub-01" / "ses-01" / "func" / name, volumes(12, len(task)), None, tr_s=2.1)
    write_film(tmp_path / "stimuli" / "The_Present_720x480.avi", 10)
    return tmp_path


def test_films_begin_one_tr_after_the_first_volume(folder):
    data: DataSet = opened(folder)
    windows = data.windows
    assert windows.run.tolist() == ["ses-01_task-tp_run-02"] * 2
    np.testing.assert_allclose(windows.start_s, [2.1, 6.3])
    assert windows.shown.tolist() == [f"stimuli/The_Present_720x480.avi/{k:04d}" for k in (0, 1)]
    assert (data.layout, data.window_s, data.tr_s) == ("natview", 4.2, 2.1)
    # The volumes with a middle in [6.1, 10.3): 7.35 and 9.45 s.
    assert data.where[0].tolist() == [0, 3]
    assert any("tasks dme are left out" in note for note in data.notes)
    assert data.read("clips", [1]).shape == (1, 34, 256, 256, 3)


def test_the_folder_is_recognised(folder, tmp_path_factory):
    assert recognises(folder)
    assert not recognises(tmp_path_factory.mktemp("other"))


def test_without_films_the_release_is_refused(folder):
    (folder / "stimuli" / "The_Present_720x480.avi").unlink()
    with refused(UsageError, "natview-films-missing", folder=folder / "stimuli"):
        opened(folder)
