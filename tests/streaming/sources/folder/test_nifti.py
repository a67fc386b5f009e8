"""A run of NIfTI files in a folder: the name is all that tells the run and the volume."""

import nibabel as nib
import numpy as np
import pytest

from streaming.sources.folder.source import FolderSource
from tests.streaming.sources.folder.test_source import AFFINE, indices, volume_of
from tests.streaming.sources.polling import polled


@pytest.mark.parametrize("first", [0, 1, 5])
def test_nifti_volumes_count_from_the_first_name(tmp_path, first):
    source = FolderSource(tmp_path)
    volumes = []
    for n in range(first, first + 4):
        if n == first + 2:
            continue
        image = nib.Nifti1Image(volume_of(n), AFFINE)
        image.to_filename(tmp_path / f"vol_{n:05d}.nii")
        volumes += polled(source, 0.03)
    assert indices(volumes) == [0, 1, 3]
    assert volumes[0].uid == volumes[2].uid
    assert (volumes[0].acquired_s, volumes[0].series) == (None, 0)
    assert source.counters()["missing"] == 1


def test_a_run_in_one_nifti_file(tmp_path):
    data = np.stack([volume_of(n) for n in range(5)], -1)
    nib.Nifti1Image(data, AFFINE).to_filename(tmp_path / "bold.nii.gz")
    volumes = FolderSource(tmp_path, existing="read").drain()
    assert indices(volumes) == list(range(5))
    np.testing.assert_array_equal(volumes[4].data, volume_of(4))


@pytest.mark.parametrize("early", [0, 1])
def test_a_volume_read_before_it_has_its_name_belongs_to_its_run(tmp_path, early):
    source = FolderSource(tmp_path)
    read = []
    for index in range(3):
        name = tmp_path / f"run-4_vol-{index:05d}.nii"
        nib.save(nib.Nifti1Image(volume_of(index), AFFINE), tmp_path / ".whole.nii")
        (tmp_path / ".whole.nii").rename(name.with_suffix(".nii.tmp") if index == early else name)
        read += indices(polled(source, 0.1))
        if index == early:
            name.with_suffix(".nii.tmp").rename(name)
    assert read == [0, 1, 2]
    assert polled(source, 0.4) == []
    assert len(list(source.runs)) == 1
    assert (source.counters()["duplicate"], source.ignored) == (0, [])
