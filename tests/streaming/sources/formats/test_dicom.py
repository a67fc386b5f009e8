import gzip
import io
from datetime import datetime, timedelta

import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from rtdecode.phantom.files.mosaic import mosaic_bytes
from streaming.sources.folder.files import gunzip
from streaming.sources.formats.dicom import read_dicom
from streaming.sources.formats.image import NO_DAY, Image, IncompleteError, NotAVolumeError
from tests.dicoms import changed
from tests.refusals import refused
from tests.scans import same_world

AFFINE = np.array([[-3.0, 0, 0, 90], [0, -2.9, 0.3, 80], [0, 0.3, 2.9, -50], [0, 0, 0, 1]])
ACQUIRED = datetime(2026, 3, 1, 23, 59, 59, 500000)


def volume_of(shape=(16, 12, 7), seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4000, shape).astype(np.int16)


def file_of(volume, affine=AFFINE, index=0, acquired=ACQUIRED) -> bytes:
    return mosaic_bytes(volume, affine, 0.8, index, 7, acquired, 1.65, "1.2.3.4")


def image_of(data: bytes) -> Image:
    (image,) = images_of(data)
    return image


def images_of(data: bytes, **options) -> list[Image]:
    images = read_dicom(data, **options)
    assert isinstance(images, list)
    return images


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(2, 30), st.booleans())
def test_reads_back_what_the_phantom_writes(columns, rows, slices, flipped):
    affine = AFFINE.copy()
    affine[:3, 2] *= -1 if flipped else 1
    volume = volume_of((columns, rows, slices))
    image = image_of(file_of(volume, affine, index=11))
    np.testing.assert_array_equal(image.data, volume)
    np.testing.assert_allclose(image.affine, affine, atol=1e-4)
    assert image.data.dtype == np.int16
    assert (image.number, image.series, image.uid, image.tr_s) == (11, 7, "1.2.3.4", 0.8)
    assert image.acquired == ACQUIRED
    assert image.recon_s == pytest.approx(1.65)


def test_no_cut_of_a_file_is_taken_for_a_volume():
    data = file_of(volume_of())
    read_dicom(data)
    cuts = [*range(0, len(data) - 1, 97), *range(len(data) - 40, len(data))]
    for cut in cuts:
        with pytest.raises(IncompleteError):
            read_dicom(data[:cut])


def test_noise_is_not_a_volume():
    rng = np.random.default_rng(3)
    good = bytearray(file_of(volume_of()))
    for _ in range(60):
        data = good.copy()
        offset = int(rng.integers(132, len(data) - 3000))
        data[offset : offset + 16] = rng.bytes(16)
        try:
            read_dicom(bytes(data))
        except (IncompleteError, NotAVolumeError):
            continue


def test_a_cut_gzip_is_incomplete():
    packed = gzip.compress(file_of(volume_of()))
    assert image_of(gunzip(packed)).series == 7
    for cut in (2, 20, len(packed) // 2, len(packed) - 1):
        with refused(IncompleteError, "gzip-truncated"):
            gunzip(packed[:cut])


def test_a_cut_compressed_file_is_incomplete(data_root):
    data = (data_root / "scanner" / "dcm_qa_mosaic_VB17_mb_jpeglossless" / "jpg1.dcm").read_bytes()
    for share in (0.1, 0.5, 0.9, 0.999):
        with pytest.raises(IncompleteError):
            read_dicom(data[: int(share * len(data))])


def test_rescaled_values_are_floats_and_exact_ones_integers():
    volume = volume_of()
    data = changed(file_of(volume), RescaleSlope="0.5", RescaleIntercept="-10")
    image = image_of(data)
    assert image.data.dtype == np.float32
    np.testing.assert_array_equal(image.data, volume * 0.5 - 10)
    high = image_of(changed(file_of(volume), PixelData=np.full(9 * 16 * 12, 40000, "<u2").tobytes()))
    assert high.data.dtype == np.float32
    assert high.data.max() == 40000


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, RLELossless, DeflatedExplicitVRLittleEndian])
def test_other_transfer_syntaxes_hold_the_same_volume(syntax):
    volume = volume_of()
    ds = pydicom.dcmread(io.BytesIO(file_of(volume)))
    if syntax.is_compressed:
        ds.compress(syntax)
    else:
        ds.file_meta.TransferSyntaxUID = syntax
    out = io.BytesIO()
    pydicom.dcmwrite(out, ds)
    data = out.getvalue()
    same_world(nib.Nifti1Image(image_of(data).data, AFFINE), nib.Nifti1Image(volume, AFFINE))
    for cut in (len(data) // 2, len(data) - 9):
        with pytest.raises(IncompleteError):
            read_dicom(data[:cut])


def test_times_over_midnight_and_without_a_day():
    data = file_of(volume_of())
    assert image_of(data).recon_s == pytest.approx(1.65)
    bare = image_of(changed(data, AcquisitionDate=None, ContentDate=None))
    assert bare.acquired is not None
    assert bare.acquired.date() == NO_DAY
    assert bare.recon_s == pytest.approx(1.65)
    mixed = image_of(changed(data, ContentDate=None))
    assert mixed.recon_s is None
    assert image_of(changed(data, AcquisitionTime="", ContentTime="")).acquired is None
    earlier = image_of(changed(data, ContentDate="20260301", ContentTime="235959.5"))
    assert earlier.recon_s is None
    assert image_of(changed(data, AcquisitionTime="2359")).acquired == ACQUIRED - timedelta(seconds=59.5)


def test_the_counter_falls_back_on_the_acquisition_number():
    data = file_of(volume_of(), index=4)
    assert image_of(changed(data, InstanceNumber=None)).number == 4
    assert image_of(changed(data, InstanceNumber=None, AcquisitionNumber=None)).number is None
