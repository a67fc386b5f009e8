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

from rtdecode.phantom.mosaic import mosaic_bytes
from streaming.sources.dicom import read_dicom
from streaming.sources.image import NO_DAY, IncompleteError, NotAVolumeError, unpacked
from tests.scans import same_world

AFFINE = np.array([[-3.0, 0, 0, 90], [0, -2.9, 0.3, 80], [0, 0.3, 2.9, -50], [0, 0, 0, 1]])
ACQUIRED = datetime(2026, 3, 1, 23, 59, 59, 500000)


def volume_of(shape=(16, 12, 7), seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4000, shape).astype(np.int16)


def file_of(volume, affine=AFFINE, index=0, acquired=ACQUIRED) -> bytes:
    return mosaic_bytes(volume, affine, 0.8, index, 7, acquired, 1.65, "1.2.3.4")


def changed(data: bytes, **values) -> bytes:
    ds = pydicom.dcmread(io.BytesIO(data))
    for keyword, value in values.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    out = io.BytesIO()
    ds.save_as(out)
    return out.getvalue()


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(2, 30), st.booleans())
def test_reads_back_what_the_phantom_writes(columns, rows, slices, flipped):
    affine = AFFINE.copy()
    affine[:3, 2] *= -1 if flipped else 1
    volume = volume_of((columns, rows, slices))
    image = read_dicom(file_of(volume, affine, index=11))
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


@pytest.mark.parametrize("series", ["rt-cloud_siemens_mosaic_VE11_TR1500", "dcm_qa_mosaic_VB17_cor"])
def test_no_cut_of_a_real_file_is_taken_for_a_volume(data_root, series):
    data = next(iter(sorted((data_root / "scanner" / series).iterdir()))).read_bytes()
    whole = pydicom.dcmread(io.BytesIO(data))
    end = whole.get_item("PixelData").value_tell + len(whole.PixelData)
    for cut in np.linspace(0, end - 1, 90).astype(int):
        with pytest.raises(IncompleteError):
            read_dicom(data[:cut])


def test_noise_is_not_a_volume():
    rng = np.random.default_rng(3)
    good = bytearray(file_of(volume_of()))
    for _ in range(60):
        data = good.copy()
        at = int(rng.integers(132, len(data) - 3000))
        data[at : at + 16] = rng.bytes(16)
        try:
            read_dicom(bytes(data))
        except (IncompleteError, NotAVolumeError):
            continue


def test_a_cut_gzip_is_incomplete():
    packed = gzip.compress(file_of(volume_of()))
    assert read_dicom(unpacked(packed)).series == 7
    for cut in (2, 20, len(packed) // 2, len(packed) - 1):
        with pytest.raises(IncompleteError, match="gzip"):
            unpacked(packed[:cut])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"ImageType": ["DERIVED", "PRIMARY", "M", "ND", "MOSAIC"]}, "derived"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOCO", "MOSAIC"]}, "motion-corrected"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND", "MOSAIC"]}, "phase"),
        ({"SeriesDescription": "bold_run1_SBRef"}, "single-band"),
        ({"ImageComments": "Single-band reference SENSE1"}, "single-band"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66"}, "Raw Data Storage, not an MR image"),
        (
            {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4.1"},
            "Enhanced MR .* not read yet; read today: Siemens mosaics",
        ),
    ],
)
def test_what_is_no_volume_of_a_run_says_why(values, reason):
    with pytest.raises(NotAVolumeError, match=reason):
        read_dicom(changed(file_of(volume_of()), **values))


def test_other_vendors_are_named(data_root):
    for series, vendor in {
        "dcm_qa_xa30_enhanced_TR1000": "Enhanced MR .Siemens",
        "dcm_qa_philips_enhanced_4D": "Enhanced MR .Philips",
        "dcm_qa_philips_classic_slices_TR1259": "one slice per file .Philips",
        "pyneal_ge_DV24_TR1000/s1925": "one slice per file .GE",
        "dcm_qa_mosaic_VB17_mb_jpeglossless": "JPEG Lossless.*pip install pylibjpeg",
    }.items():
        data = unpacked(next(iter(sorted((data_root / "scanner" / series).iterdir()))).read_bytes())
        with pytest.raises(NotAVolumeError, match=vendor):
            read_dicom(data)


def test_a_cut_compressed_file_is_incomplete(data_root):
    data = (data_root / "scanner" / "dcm_qa_mosaic_VB17_mb_jpeglossless" / "jpg1.dcm").read_bytes()
    for share in (0.1, 0.5, 0.9, 0.999):
        with pytest.raises(IncompleteError):
            read_dicom(data[: int(share * len(data))])


def test_rescaled_values_are_floats_and_exact_ones_integers():
    volume = volume_of()
    data = changed(file_of(volume), RescaleSlope="0.5", RescaleIntercept="-10")
    image = read_dicom(data)
    assert image.data.dtype == np.float32
    np.testing.assert_array_equal(image.data, volume * 0.5 - 10)
    high = read_dicom(changed(file_of(volume), PixelData=np.full(9 * 16 * 12, 40000, "<u2").tobytes()))
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
    same_world(nib.Nifti1Image(read_dicom(data).data, AFFINE), nib.Nifti1Image(volume, AFFINE))
    for cut in (len(data) // 2, len(data) - 9):
        with pytest.raises(IncompleteError):
            read_dicom(data[:cut])


def test_times_over_midnight_and_without_a_day():
    data = file_of(volume_of())
    assert read_dicom(data).recon_s == pytest.approx(1.65)
    bare = read_dicom(changed(data, AcquisitionDate=None, ContentDate=None))
    assert bare.acquired is not None
    assert bare.acquired.date() == NO_DAY
    assert bare.recon_s == pytest.approx(1.65)
    mixed = read_dicom(changed(data, ContentDate=None))
    assert mixed.recon_s is None
    assert read_dicom(changed(data, AcquisitionTime="", ContentTime="")).acquired is None
    earlier = read_dicom(changed(data, ContentDate="20260301", ContentTime="235959.5"))
    assert earlier.recon_s is None
    assert read_dicom(changed(data, AcquisitionTime="2359")).acquired == ACQUIRED - timedelta(seconds=59.5)


def test_the_counter_falls_back_on_the_acquisition_number():
    data = file_of(volume_of(), index=4)
    assert read_dicom(changed(data, InstanceNumber=None)).number == 4
    assert read_dicom(changed(data, InstanceNumber=None, AcquisitionNumber=None)).number is None
