import io
import time
import warnings
from datetime import datetime

import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdecode.phantom.files.mosaic import interleaved, mosaic_bytes, tile
from tests.scans import dcm2niix, same_world

ACQUIRED = datetime(2026, 3, 1, 23, 59, 59, 900000)


def rotation(x: float, y: float, z: float) -> np.ndarray:
    cx = np.cos(x)
    sx = np.sin(x)
    cy = np.cos(y)
    sy = np.sin(y)
    cz = np.cos(z)
    sz = np.sin(z)
    rx = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    rz = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return rz @ ry @ rx


def affine_of(axes: np.ndarray, voxel: tuple[float, float, float], centre: np.ndarray, shape) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3] = axes @ np.diag(voxel)
    out[:3, 3] = centre - out[:3, :3] @ (np.array(shape) - 1) / 2
    return out


ORIENTATIONS = {
    "axial": np.diag([1.0, 1.0, 1.0]),
    "radiological": np.diag([-1.0, -1.0, 1.0]),
    "oblique": rotation(0.3, -0.12, 0.07) @ np.diag([-1.0, -1.0, 1.0]),
    "coronal": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "sagittal": np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]]),
    "reversed": rotation(0.1, 0.0, 0.0) @ np.diag([-1.0, -1.0, -1.0]),
}


def volume_of(shape, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4000, shape).astype(np.int16)


def written(volume, affine, index=4, **kw) -> bytes:
    return mosaic_bytes(volume, affine, 0.8, index, 7, ACQUIRED, 1.65, "1.2.3.4", **kw)


@pytest.mark.parametrize("shape", [(64, 64, 36), (104, 104, 72), (48, 64, 17)])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_other_readers_find_the_voxels_where_they_were(tmp_path, orientation, shape):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nibabel.nicom.dicomwrappers import wrapper_from_data
    affine = affine_of(ORIENTATIONS[orientation], (3.0, 2.5, 3.3), np.array([4.0, -11.0, 23.0]), shape)
    volume = volume_of(shape)
    data = written(volume, affine)
    (tmp_path / "a.dcm").write_bytes(data)

    wrapper = wrapper_from_data(pydicom.dcmread(io.BytesIO(data)))
    assert wrapper.is_mosaic
    lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    written_image = nib.Nifti1Image(volume, affine)
    same_world(
        nib.Nifti1Image(wrapper.get_unscaled_data().astype(np.int16), lps @ wrapper.affine), written_image
    )
    (converted,) = dcm2niix(tmp_path, tmp_path)
    same_world(converted, written_image)


def test_header_says_what_was_asked():
    affine = affine_of(ORIENTATIONS["axial"], (3, 3, 3), np.zeros(3), (64, 64, 36))
    ds = pydicom.dcmread(io.BytesIO(written(volume_of((64, 64, 36)), affine)))
    assert list(ds.ImageType) == ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    assert (ds.SeriesNumber, ds.InstanceNumber, ds.AcquisitionNumber) == (7, 5, 5)
    assert (ds.SeriesInstanceUID, float(ds.RepetitionTime)) == ("1.2.3.4", 800.0)
    assert (ds.AcquisitionDate, ds.AcquisitionTime) == ("20260301", "235959.900000")
    assert (ds.ContentDate, ds.ContentTime) == ("20260302", "000001.550000")
    assert (ds.SeriesDate, ds.SeriesTime) == ("20260301", "235956.700000")
    assert ds[0x0051, 0x100B].value == "64*64"
    assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    for element in ds.iterall():
        assert element.value is not None


def test_tags_rise_and_instances_differ():
    affine = affine_of(ORIENTATIONS["axial"], (3, 3, 3), np.zeros(3), (16, 16, 5))
    a, b = (pydicom.dcmread(io.BytesIO(written(volume_of((16, 16, 5)), affine, index=n))) for n in (0, 11))
    assert list(a.keys()) == sorted(a.keys())
    assert a.SOPInstanceUID != b.SOPInstanceUID
    assert a.StudyInstanceUID == b.StudyInstanceUID
    assert b.InstanceNumber == 12


def test_private_header_has_six_items_for_every_tag():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nibabel.nicom import csareader
    affine = affine_of(ORIENTATIONS["reversed"], (3, 3, 3), np.zeros(3), (16, 16, 5))
    ds = pydicom.dcmread(
        io.BytesIO(written(volume_of((16, 16, 5)), affine, slice_times=(0.0, 0.1, 0.2, 0.3, 0.4)))
    )
    for element in ((0x0029, 0x1010), (0x0029, 0x1020)):
        tags = csareader.read(ds[element].value)["tags"]
        assert all(tag["n_items"] >= 6 for tag in tags.values())
    tags = csareader.read(ds[0x0029, 0x1010].value)["tags"]
    assert tags["MosaicRefAcqTimes"]["items"][:5] == pytest.approx([0, 100, 200, 300, 400])
    assert tags["NumberOfImagesInMosaic"]["items"] == [5]
    cross = np.cross(*np.array(ds.ImageOrientationPatient, float).reshape(2, 3))
    assert np.dot(cross, tags["SliceNormalVector"]["items"]) == pytest.approx(-1, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 30))
def test_every_slice_has_its_tile(columns, rows, slices):
    volume = volume_of((columns, rows, slices))
    image = tile(volume)
    side = int(np.ceil(np.sqrt(slices)))
    assert image.shape == (side * rows, side * columns)
    for k in range(slices):
        y = (k // side) * rows
        x = (k % side) * columns
        np.testing.assert_array_equal(image[y : y + rows, x : x + columns], volume[:, :, k].T)


def test_interleaved_order_starts_with_the_second_slice_of_an_even_number():
    assert interleaved(4, 0.8) == pytest.approx((0.4, 0.0, 0.6, 0.2))
    assert interleaved(5, 1.0) == pytest.approx((0.0, 0.6, 0.2, 0.8, 0.4))


def test_refuses_negative_values_and_sheared_axes():
    affine = np.eye(4)
    with pytest.raises(ValueError, match="negative"):
        written(np.full((4, 4, 3), -1, np.int16), affine)
    affine[0, 1] = 0.2
    with pytest.raises(ValueError, match="orthogonal"):
        written(np.ones((4, 4, 3), np.int16), affine)


@pytest.mark.full
@pytest.mark.timed
def test_writes_fast_enough_for_a_simulated_scanner():
    affine = affine_of(ORIENTATIONS["axial"], (3, 3, 3), np.zeros(3), (64, 64, 36))
    volume = volume_of((64, 64, 36))
    took = []
    for index in range(20):
        start = time.perf_counter()
        written(volume, affine, index=index)
        took.append(time.perf_counter() - start)
    assert min(took) < 0.005
