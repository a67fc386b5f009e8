"""Voxel values and places are those that dcm2niix and nibabel find in the same files."""

import io
import warnings

import nibabel as nib
import numpy as np
import pydicom
import pytest

from streaming.sources.folder.files import gunzip
from streaming.sources.formats.dicom import read_dicom
from streaming.sources.formats.image import Image
from tests.scans import dcm2niix

MOSAICS = (
    "rt-cloud_siemens_mosaic_VE11_TR1500", "pyneal_siemens_mosaic_VE11_TR1000", "dcm_qa_mosaic_VD13_asc",
    "dcm_qa_mosaic_VD13_asc_HF_reversed", "dcm_qa_mosaic_VB17_ax", "dcm_qa_mosaic_VB17_cor",
    "dcm_qa_mosaic_VB17_mb_jpeglossless",
)  # fmt: skip
ENHANCED = ("dcm_qa_xa30_enhanced_TR1000", "dcm_qa_enh_XA10_TR500", "dcm_qa_philips_enhanced_4D")


def images_of(data: bytes) -> list[Image]:
    images = read_dicom(data)
    assert isinstance(images, list)
    return images


def assert_agree(reference, read_image, values=1e-6) -> None:
    """Same values at the same places, within 0.01 mm and a rounding error."""
    a = nib.as_closest_canonical(reference)
    b = nib.as_closest_canonical(read_image)
    assert a.shape == b.shape
    corners = np.array(np.meshgrid(*[[0, n - 1] for n in a.shape])).reshape(3, -1)
    places = [image.affine[:3, :3] @ corners + image.affine[:3, 3:] for image in (a, b)]
    assert np.abs(places[0] - places[1]).max() < 0.01
    np.testing.assert_allclose(a.get_fdata(), b.get_fdata(), rtol=values)


@pytest.mark.parametrize("series", [*MOSAICS, *ENHANCED])
def test_every_volume_agrees_with_dcm2niix(series, data_root, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    images: dict[int | None, Image] = {}
    for n, path in enumerate(sorted((data_root / "scanner" / series).iterdir())):
        data = gunzip(path.read_bytes())
        (tmp_path / "in" / f"{n}.dcm").write_bytes(data)
        images |= {image.number: image for image in images_of(data)}
    (dcm2niix_image,) = dcm2niix(tmp_path / "in", tmp_path / "out")
    assert len(images) == dcm2niix_image.shape[3]
    for volume, (_, image) in enumerate(sorted(images.items())):
        assert_agree(dcm2niix_image.slicer[..., volume], nib.Nifti1Image(image.data, image.affine))


@pytest.mark.parametrize("series", [name for name in (*MOSAICS, *ENHANCED) if "philips" not in name])
def test_a_volume_agrees_with_nibabel(series, data_root):
    data = gunzip(min((data_root / "scanner" / series).iterdir()).read_bytes())
    (image,) = images_of(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nibabel.nicom.dicomwrappers import wrapper_from_data

        wrapper = wrapper_from_data(pydicom.dcmread(io.BytesIO(data)))
        nibabel_data = wrapper.get_data()
    # nibabel's affine leads to DICOM's coordinates.
    affine = np.diag([-1, -1, 1, 1]) @ wrapper.affine
    assert_agree(
        nib.Nifti1Image(nibabel_data.astype(np.float32), affine), nib.Nifti1Image(image.data, image.affine)
    )


def test_philips_values_are_on_the_scale_that_compares_between_series(data_root):
    (path,) = (data_root / "scanner" / "dcm_qa_philips_enhanced_4D").iterdir()
    images = images_of(gunzip(path.read_bytes()))
    ds = pydicom.dcmread(io.BytesIO(gunzip(path.read_bytes())))
    scale = ds.PerFrameFunctionalGroupsSequence[0][0x2005, 0x140F][0][0x2005, 0x100E].value
    stored = np.concatenate([image.data.ravel() for image in images]) * scale
    assert np.sort(np.rint(stored)).astype(int).tolist() == np.sort(ds.pixel_array.ravel()).tolist()
    np.testing.assert_allclose(stored, np.rint(stored), atol=1e-3)


def test_header_times_of_real_series(data_root):
    root = data_root / "scanner"
    for series, tr_s, recon_s in (
        ("rt-cloud_siemens_mosaic_VE11_TR1500", 1.5, 2.325),
        ("dcm_qa_xa30_enhanced_TR1000", 1.0, 1.904),
        ("dcm_qa_enh_XA10_TR500", 0.5, 0.478),
    ):
        images = [image for path in (root / series).iterdir() for image in images_of(path.read_bytes())]
        images.sort(key=lambda image: image.number or 0)
        first = images[0]
        assert first.number == 0
        for image in images:
            assert image.tr_s == tr_s
            assert image.recon_s == pytest.approx(recon_s, abs=0.2)
            assert image.acquired is not None
            assert first.acquired is not None
            assert image.number is not None
            elapsed = (image.acquired - first.acquired).total_seconds()
            assert elapsed == pytest.approx(image.number * tr_s, abs=0.011)
