import io
import subprocess
import sys
from datetime import datetime, timedelta

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from rtdecode.phantom.files.mosaic import mosaic_bytes, tile
from streaming.sources.formats.csa import siemens_private
from streaming.sources.formats.dicom import read_dicom
from streaming.sources.formats.image import Image, NotAVolumeError
from tests.dicoms import changed, rewritten, written
from tests.refusals import refused
from tests.scans import dcm2niix, same_world

START = datetime(2026, 3, 1, 12)
# Columns to the left, rows to the back: the axes of an axial slice; then coronal, sagittal, oblique.
AXIAL = np.array([[-3.0, 0, 0, 90], [0, -2.5, 0, 80], [0, 0, 4, -50], [0, 0, 0, 1]])
CORONAL = np.array([[-3.0, 0, 0, 90], [0, 0, 4, -80], [0, -2.5, 0, 50], [0, 0, 0, 1]])
SAGITTAL = np.array([[0, 0, 4.0, -60], [-3.0, 0, 0, 80], [0, -2.5, 0, 50], [0, 0, 0, 1]])
PLACES = {"axial": AXIAL, "coronal": CORONAL, "sagittal": SAGITTAL}


def volume_of(shape=(16, 12, 7)) -> np.ndarray:
    return np.random.default_rng(1).integers(1, 4000, shape).astype(np.int16)


def file_of(affine=AXIAL, shape=(16, 12, 7), index=0, **options) -> bytes:
    return mosaic_bytes(volume_of(shape), affine, 0.8, index, 7, START, 1.65, "1.2.3.4", **options)


def image_of(data: bytes) -> Image:
    images = read_dicom(data)
    assert isinstance(images, list)
    (image,) = images
    return image


def assert_same(image: Image, affine=AXIAL, shape=(16, 12, 7)) -> None:
    same_world(nib.Nifti1Image(volume_of(shape), affine), nib.Nifti1Image(image.data, image.affine))


def without_private(data: bytes, *groups: int) -> Dataset:
    ds = pydicom.dcmread(io.BytesIO(data))
    for group in groups or (0x0019, 0x0029, 0x0051):
        for element in ds.group_dataset(group):
            del ds[element.tag]
    return ds


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("shape", [(16, 12, 7), (10, 10, 17)])
def test_every_orientation_and_order_is_where_dcm2niix_puts_it(name, reverse, shape, tmp_path):
    affine = PLACES[name].copy()
    if reverse:
        affine[:3, 3] += affine[:3, 2] * (shape[2] - 1)
        affine[:3, 2] *= -1
    for folder in ("in", "out"):
        (tmp_path / folder).mkdir()
    (tmp_path / "in" / "a.dcm").write_bytes(file_of(affine, shape))
    image = image_of(file_of(affine, shape))
    assert_same(image, affine, shape)
    (dcm2niix_image,) = dcm2niix(tmp_path / "in", tmp_path / "out")
    same_world(dcm2niix_image, nib.Nifti1Image(image.data, image.affine))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_encodings_hold_the_same_volume(syntax):
    image = image_of(rewritten(file_of(), syntax))
    assert_same(image)


def test_slice_times_that_are_no_numbers_change_nothing():
    good = file_of()
    first = good.index(b"MosaicRefAcqTimes") + 84 + 16
    spoilt = good[:first] + b"x" + good[first + 1 :]
    private = siemens_private(pydicom.dcmread(io.BytesIO(spoilt)))
    assert private["MosaicRefAcqTimes"][0].startswith("x")
    assert_same(image_of(spoilt))


@pytest.mark.parametrize("tr_ms", ["0", "-800"])
def test_a_repetition_time_that_is_not_above_zero_is_none(tr_ms):
    assert image_of(changed(file_of(), RepetitionTime=tr_ms)).tr_s is None


def test_a_mosaic_without_its_count_is_refused_and_one_in_the_protocol_found():
    ds = without_private(file_of())
    with refused(NotAVolumeError, "mosaic-slice-count-missing"):
        read_dicom(written(ds))
    protocol = "sSliceArray.lSize = 7\nsSliceArray.asSlice[0].sPosition.dTra = -10.5\n"
    protocol += "sSliceArray.asSlice[6].sPosition.dTra = 13.5\n"
    ds.private_block(0x0021, "SIEMENS MR SDS 01", create=True).add_new(0x19, "OB", protocol.encode())
    assert_same(image_of(written(ds)))
    protocol = protocol.replace("-10.5", "30")
    ds[0x0021, 0x1019].value = protocol.encode()
    assert image_of(written(ds)).affine[2, 2] == -4
    del ds.ImagePositionPatient
    with refused(NotAVolumeError, "mosaic-position-missing"):
        read_dicom(written(ds))


def test_tiles_that_do_not_fit_are_refused():
    with refused(NotAVolumeError, "mosaic-tiling-mismatch"):
        read_dicom(changed(file_of(), Rows=35, PixelData=bytes(2 * 35 * 48)))


def test_each_echo_is_a_run_of_its_own_and_counts_acquisitions():
    ds = pydicom.dcmread(io.BytesIO(file_of(index=4)))
    ds.InstanceNumber = 14
    ds.AcquisitionNumber = 5
    ds.EchoNumbers = 2
    ds.private_block(0x0021, "SIEMENS MR SDS 01", create=True).add_new(0x19, "OB", b"lContrasts\t = \t3\n")
    image = image_of(written(ds))
    assert (image.number, image.uid) == (4, "1.2.3.4 echo 2")


def test_united_imaging_grids_are_volumes():
    ds = without_private(file_of())
    ds.Manufacturer = "UIH"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "VFRAME"]
    volume = volume_of()
    # The grid is no larger than its tiles need, and its axes may be as long as a voxel.
    plane = tile(volume)
    ds.Rows = 36
    ds.PixelData = plane.tobytes()
    ds.ImageOrientationPatient = [3, 0, 0, 0, 2.5, 0]
    block = ds.private_block(0x0065, "Image Private Header", create=True)
    block.add_new(0x50, "DS", "7")
    items = []
    for k in range(7):
        item = Dataset()
        position = np.diag([-1, -1, 1]) @ (AXIAL @ [0, 0, k, 1])[:3]
        item.ImagePositionPatient = [f"{x:g}" for x in position]
        item.AcquisitionDateTime = f"{START + timedelta(seconds=0.1 * k):%Y%m%d%H%M%S.%f}"
        items.append(item)
    block.add_new(0x51, "SQ", items)
    image = image_of(written(ds))
    assert_same(image)
    assert (image.tr_s, image.number) == (0.8, 0)
    assert_same(image_of(rewritten(written(ds), ImplicitVRLittleEndian)))


def test_a_missing_decoder_is_named(data_root):
    path = data_root / "scanner" / "dcm_qa_mosaic_VB17_mb_jpeglossless" / "jpg1.dcm"
    code = (
        "import sys; sys.modules.update(pylibjpeg=None, libjpeg=None, gdcm=None)\n"
        "from streaming.sources.formats.dicom import read_dicom\n"
        "read_dicom(open(sys.argv[1], 'rb').read())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert "NotAVolumeError: compressed (JPEG Lossless" in done.stderr
    assert "pip install pylibjpeg pylibjpeg-libjpeg" in done.stderr
