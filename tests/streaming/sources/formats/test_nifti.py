import gzip
import io
import struct

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.sources.formats.image import IncompleteError, NotAVolumeError
from streaming.sources.formats.nifti import (
    is_nifti,
    is_nifti_header,
    read_layout,
    read_volume,
    repetition_time,
    split_number,
)
from tests.refusals import refused

AFFINE = np.array([[-3.0, 0, 0, 90], [0, 2.5, 0.3, 80], [0, -0.3, 4.0, -50], [0, 0, 0, 1]])


def nifti(data, tr=2.5, unit="sec", cls=nib.Nifti1Image) -> bytes:
    image = cls(data, AFFINE)
    image.header.set_xyzt_units("mm", unit)
    image.header["pixdim"][4] = tr
    return image.to_bytes()


def read_nifti(data: bytes, name: str) -> list:
    layout = read_layout(data[:540])
    return [
        read_volume(layout, name, t, lambda offset, n: data[offset : offset + n])
        for t in range(layout.promised)
    ]


def values(shape=(5, 6, 4), kind=np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 30000, shape).astype(kind)


@pytest.mark.parametrize("cls", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("kind", [np.int16, np.uint8, np.uint16, np.float32, np.float64, np.int32])
def test_one_volume(cls, kind):
    stored = values(kind=np.uint8 if kind is np.uint8 else kind)
    data = nifti(stored, cls=cls)
    assert is_nifti(data[:352])
    (image,) = read_nifti(data, "a/vol_00012.nii")
    np.testing.assert_array_equal(image.data, stored)
    np.testing.assert_allclose(image.affine, AFFINE)
    assert image.data.dtype == (np.float32 if np.dtype(kind).kind == "f" else np.int16)
    assert (image.number, image.series, image.uid, image.tr_s) == (12, 0, "nifti:a/vol_#", 2.5)
    assert image.acquired is None


def test_a_run_in_one_file():
    stored = values((4, 5, 3, 6))
    images = read_nifti(nifti(stored), "bold.nii")
    assert [image.number for image in images] == list(range(6))
    assert len({image.uid for image in images}) == 1
    for t, image in enumerate(images):
        np.testing.assert_array_equal(image.data, stored[..., t])


def test_scaled_and_byte_swapped_files():
    image = nib.Nifti1Image(values(), AFFINE, nib.Nifti1Header(endianness=">"))
    image.header.set_slope_inter(0.25, -3)
    image.header.set_data_dtype(np.int16)
    data = bytearray(image.to_bytes())
    assert is_nifti(bytes(data[:352]))
    want = np.asanyarray(nib.Nifti1Image.from_bytes(bytes(data)).dataobj)
    (read,) = read_nifti(bytes(data), "x.nii")
    np.testing.assert_allclose(read.data, want, rtol=1e-6)
    assert read.data.dtype.isnative


def with_scale(data: np.ndarray, slope: float, intercept: float) -> bytes:
    raw = bytearray(nifti(data))
    raw[112:120] = struct.pack("<2f", slope, intercept)
    return bytes(raw)


def test_voxels_stored_as_nan_are_holes_and_a_scale_beyond_all_numbers_is_damage():
    stored = values(kind=np.float32)
    stored[0] = np.nan
    (read,) = read_nifti(with_scale(stored, 2.0, 1.0), "x_1.nii")
    np.testing.assert_array_equal(read.data, 2 * stored + 1)
    with refused(NotAVolumeError, "nifti-scale-overflow"):
        read_nifti(with_scale(stored, 3e38, 0.0), "x_1.nii")
    with refused(IncompleteError, "nifti-unreadable"):
        read_nifti(with_scale(stored, 2.0, np.inf), "x_1.nii")


def test_no_cut_is_taken_for_a_volume():
    data = nifti(values((9, 9, 9)))
    for cut in [*range(360, len(data), 61), len(data) - 1]:
        with refused(IncompleteError, "nifti-volume-truncated", available_bytes=cut - 352):
            read_nifti(data[:cut], "x.nii")


@pytest.mark.parametrize(
    ("value", "unit", "tr"),
    [
        (0.8, "sec", 0.8),
        (800, "msec", 0.8),
        (1.26e6, "usec", 1.26),
        (2000, "sec", 2.0),
        (2.5, "unknown", 2.5),
        (1.0, "unknown", None),
        (1.0, "sec", 1.0),
        (0.0, "sec", None),
        (np.nan, "sec", None),
    ],
)
def test_repetition_time_of_what_people_write(value, unit, tr):
    header = nib.Nifti1Header()
    header.set_data_shape((2, 2, 2, 2))
    header["pixdim"][4] = value
    header.set_xyzt_units("mm", unit)
    assert repetition_time(header) == tr


@pytest.mark.parametrize(
    ("name", "stem", "number"),
    [
        ("vol_00000.nii", "vol_#", 0),
        ("run-02/vol_00017.nii.gz", "run-02/vol_#", 17),
        ("run-02/bold.nii", "run-02/bold", None),
        ("f013_run2_vol7_echo.nii", "f013_run2_vol#_echo", 7),
        ("vol_00003.nii.tmp", "vol_#", 3),
        ("vol_00003.nii.gz.part", "vol_#", 3),
        ("run1.img.0003", "run1.img.#", 3),
    ],
)
def test_the_last_number_of_a_name_is_the_volume(name, stem, number):
    assert split_number(name) == (stem, number)


def test_pairs_have_a_header_of_their_own():
    pair = nib.Nifti1Pair(values(), AFFINE)
    pair.header["pixdim"][4] = 2.5
    header, data = (io.BytesIO() for _ in range(2))
    pair.to_file_map({"header": nib.FileHolder(fileobj=header), "image": nib.FileHolder(fileobj=data)})
    assert is_nifti_header(header.getvalue())
    assert not is_nifti(header.getvalue())
    read = read_volume(
        read_layout(header.getvalue()), "a_1.hdr", 0, lambda offset, n: data.getvalue()[offset : offset + n]
    )
    np.testing.assert_array_equal(read.data, values())
    assert (read.uid, read.number) == ("nifti:a_#", 1)


def test_masks_and_maps_are_no_volumes():
    mask = (values() > 15000).astype(np.uint8)
    sparse = np.zeros((20, 20, 20), np.float32)
    sparse[3:6, 3:6, 3:6] = np.random.default_rng(0).random((3, 3, 3))
    for data in (mask, sparse):
        with refused(NotAVolumeError, "nifti-mask-not-volume"):
            read_nifti(nifti(data), "mask.nii")
    assert len(read_nifti(nifti(mask), "vol_1.nii")) == 1
    assert len(read_nifti(nifti(np.zeros((4, 4, 4), np.int16) + 5), "constant.nii")) == 1


@pytest.mark.parametrize("shape", [(32767, 32767, 32767), (3, 4, 5, 32767), (1, 1, 1)])
def test_absurd_dimensions_take_no_memory(shape):
    data = bytearray(nifti(values()))
    data[40:56] = struct.pack("<8h", len(shape), *shape, *[1] * (7 - len(shape)))
    layout = read_layout(bytes(data))
    if layout.promised * layout.volume_bytes > len(data):
        with refused(IncompleteError, "nifti-volume-truncated"):
            read_nifti(bytes(data), "x_1.nii")


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 347), st.integers(0, 255)), max_size=12))
def test_damaged_headers_are_refused_or_read(changes):
    data = bytearray(nifti(values()))
    for offset, value in changes:
        data[offset] = value
    try:
        layout = read_layout(bytes(data))
        assert layout.volume_bytes > 0
        assert np.isfinite(layout.affine).all()
        image = read_volume(layout, "x_1.nii", 0, lambda offset, n: bytes(data[offset : offset + n]))
        assert image.data.shape == layout.shape
    except (IncompleteError, NotAVolumeError):
        pass


def test_planes_and_colours_are_no_volumes():
    with refused(NotAVolumeError, "nifti-not-volume", shape=(5, 6), dtype="int16"):
        read_nifti(nifti(values((5, 6))), "x.nii")
    rgb = np.zeros((3, 3, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    with refused(NotAVolumeError, "nifti-not-volume", shape=(3, 3, 3), dtype=rgb.dtype):
        read_nifti(nib.Nifti1Image(rgb, AFFINE).to_bytes(), "x.nii")


def test_real_files(data_root):
    folder = data_root / "scanner" / "nibabel_nifti"
    run = read_nifti((folder / "functional.nii").read_bytes(), "functional.nii")
    assert (len(run), run[0].tr_s, run[0].data.shape) == (20, 2.0, (17, 21, 3))
    mislabelled = read_nifti(gzip.decompress((folder / "example4d.nii.gz").read_bytes()), "x.nii")
    assert (len(mislabelled), mislabelled[0].tr_s) == (2, 2.0)
    original = nib.load(folder / "example4d.nii.gz")
    np.testing.assert_array_equal(mislabelled[1].data, np.asanyarray(original.dataobj[..., 1]))
