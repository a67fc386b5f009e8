import io
from datetime import timedelta

import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from streaming.sources.formats.dicom import read_dicom
from streaming.sources.formats.image import Image, IncompleteError, NotAVolumeError, Plane
from tests.dicoms import STARTED, enhanced, rewritten, written
from tests.refusals import refused
from tests.scans import same_world

AFFINE = np.array([[-3.0, 0, 0, 90], [0, -2.9, 0.3, 80], [0, 0.3, 2.9, -50], [0, 0, 0, 1]])


def volumes_of(count=3, shape=(6, 5, 4), seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4000, (count, *shape)).astype(np.int16)


def images_of(data: bytes, **options) -> list[Image]:
    images = read_dicom(data, **options)
    assert isinstance(images, list)
    return images


def read(ds, **options) -> list[Image]:
    return images_of(written(ds), **options)


def assert_same(image: Image, volume: np.ndarray) -> None:
    same_world(nib.Nifti1Image(volume, AFFINE), nib.Nifti1Image(image.data, image.affine))


@given(
    st.integers(1, 4), st.integers(2, 7), st.randoms(use_true_random=False),
    st.sampled_from([None, ImplicitVRLittleEndian, ExplicitVRBigEndian]),
)  # fmt: skip
def test_frames_in_any_order_and_encoding_are_the_same_volumes(count, slices, random, syntax):
    volumes = volumes_of(count, (5, 3, slices))
    order = random.sample(range(count * slices), count * slices)
    data = written(enhanced(volumes, AFFINE, order))
    images = images_of(data if syntax is None else rewritten(data, syntax))
    assert [image.number for image in images] == list(range(count))
    for n, (image, volume) in enumerate(zip(images, volumes, strict=True)):
        assert_same(image, volume)
        assert (image.series, image.uid, image.tr_s) == (7, "1.2.3.4 TE 30", 0.8)
        assert image.acquired == STARTED + timedelta(seconds=0.8 * n)
        assert image.recon_s == (pytest.approx(2.0) if count == 1 else None)


def test_attributes_of_all_frames_and_of_each_are_found_where_they_are():
    volumes = volumes_of()
    ds = enhanced(volumes, AFFINE)
    shared = ds.SharedFunctionalGroupsSequence[0]
    for frame in ds.PerFrameFunctionalGroupsSequence:
        for keyword in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
            setattr(frame, keyword, getattr(shared, keyword))
    del ds.SharedFunctionalGroupsSequence
    for image, volume in zip(read(ds), volumes, strict=True):
        assert_same(image, volume)
        assert image.tr_s is None


@pytest.mark.parametrize("lost", ["DimensionIndexSequence", "DimensionIndexValues", "TemporalPositionIndex"])
def test_volumes_are_told_apart_without_dimensions(lost):
    volumes = volumes_of()
    ds = enhanced(volumes, AFFINE)
    for keyword in {lost, "DimensionIndexValues"} if lost == "TemporalPositionIndex" else {lost}:
        if keyword in ds:
            delattr(ds, keyword)
        for frame in ds.PerFrameFunctionalGroupsSequence:
            if keyword in frame.FrameContentSequence[0]:
                delattr(frame.FrameContentSequence[0], keyword)
    for image, volume in zip(read(ds), volumes, strict=True):
        assert_same(image, volume)


def test_a_dimension_that_counts_every_frame_does_not_make_volumes():
    volumes = volumes_of()
    ds = enhanced(volumes, AFFINE)
    for n, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
        frame.FrameContentSequence[0].DimensionIndexValues = [1, 1, n + 1]
    for image, volume in zip(read(ds), volumes, strict=True):
        assert_same(image, volume)


def test_labels_come_after_times_and_times_that_do_not_rise_are_unknown():
    volumes = volumes_of(6)
    ds = enhanced(volumes, AFFINE)
    ds.DimensionIndexSequence = [
        Dataset.from_json({"00209165": {"vr": "AT", "Value": [pointer]}})
        for pointer in ("00209056", "00209057", "00209128", "20051429")
    ]
    for n, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
        content, (label, time) = frame.FrameContentSequence[0], divmod(n // 4, 3)
        content.DimensionIndexValues = [1, n % 4 + 1, time + 1, label]
        content.FrameAcquisitionDateTime = f"2026030110000{time}.5"
    images = read(ds)
    for image, volume in zip(images, volumes, strict=True):
        assert_same(image, volume)
        assert image.acquired is None


def test_a_volume_that_was_not_finished_is_a_hole():
    volumes = volumes_of()
    order = [n for n in range(12) if n != 6]
    ds = enhanced(volumes, AFFINE, order)
    ds.NumberOfFrames = 11
    images = read(ds)
    assert [image.number for image in images] == [0, 2]
    assert_same(images[1], volumes[2])


def test_a_lost_slice_is_seen_by_its_gap():
    ds = enhanced(volumes_of(1, (5, 3, 6)), AFFINE, [0, 1, 2, 4, 5])
    ds.NumberOfFrames = 5
    with refused(NotAVolumeError, "slices-unevenly-spaced"):
        read(ds)


def test_one_echo_and_the_magnitude_are_kept():
    volumes = volumes_of(4)
    ds = enhanced(volumes, AFFINE)
    for n, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
        echo, time = divmod(n // 4, 2)
        frame.FrameContentSequence[0].DimensionIndexValues = [1, n % 4 + 1, time + 1]
        frame.MREchoSequence[0].EffectiveEchoTime = (13.0, 31.5)[echo]
    for image, volume in zip(read(ds), volumes[2:], strict=True):
        assert_same(image, volume)
    for n, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
        part = "PHASE" if n // 4 >= 2 else "MAGNITUDE"
        frame.MRImageFrameTypeSequence[0].ComplexImageComponent = part
        frame.MREchoSequence[0].EffectiveEchoTime = 30.0
    for image, volume in zip(read(ds), volumes[:2], strict=True):
        assert_same(image, volume)
    for frame in ds.PerFrameFunctionalGroupsSequence:
        frame.MRImageFrameTypeSequence[0].ComplexImageComponent = "PHASE"
    with refused(NotAVolumeError, "dicom-not-functional", image_kind="a phase image"):
        read(ds)


def test_files_of_one_echo_each_are_runs_of_their_own():
    uids = []
    for echo_ms in (13.0, 31.5, 13.0, None):
        ds = enhanced(volumes_of(1), AFFINE)
        for frame in ds.PerFrameFunctionalGroupsSequence:
            frame.MREchoSequence[0].EffectiveEchoTime = echo_ms
        uids += [image.uid for image in read(ds)]
    assert uids == ["1.2.3.4 TE 13", "1.2.3.4 TE 31.5", "1.2.3.4 TE 13", "1.2.3.4"]


@pytest.mark.parametrize("frame", [0, 3])
def test_a_frame_with_an_echo_or_a_part_of_its_own_is_not_left_out_in_silence(frame):
    ds = enhanced(volumes_of(1), AFFINE)
    odd = ds.PerFrameFunctionalGroupsSequence[frame]
    odd.MREchoSequence[0].EffectiveEchoTime = 1e-300
    with refused(NotAVolumeError, "enhanced-echo-count-mismatch", echo_frames=3, magnitude_frames=4):
        read(ds)
    odd.MREchoSequence[0].EffectiveEchoTime = 30.0
    odd.MRImageFrameTypeSequence[0].ComplexImageComponent = "PHASE"
    with refused(NotAVolumeError, "enhanced-magnitude-count-mismatch", magnitude_frames=3, total_frames=4):
        read(ds)


def test_every_frame_has_its_own_scale():
    volumes = volumes_of(2)
    ds = enhanced(volumes, AFFINE)
    del ds.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    for n, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
        item = Dataset()
        item.RescaleSlope = f"{1 + n % 4}"
        item.RescaleIntercept = "-2"
        frame.PixelValueTransformationSequence = [item]
    for image, volume in zip(read(ds), volumes, strict=True):
        assert image.data.dtype == np.float32
        np.testing.assert_array_equal(image.data, volume * np.array([1, 2, 3, 4]) - 2)


def test_the_volume_of_a_file_is_numbered_by_whichever_counter_counts():
    volume = volumes_of(1)
    assert read(enhanced(volume, AFFINE, InstanceNumber=9))[0].number == 8
    ds = enhanced(volume, AFFINE, InstanceNumber=1)
    for frame in ds.PerFrameFunctionalGroupsSequence:
        frame.FrameContentSequence[0].TemporalPositionIndex = 5
    assert read(ds)[0].number == 4
    parts = enhanced(volumes_of(2), AFFINE, ConcatenationFrameOffsetNumber=24)
    assert [image.number for image in read(parts)] == [6, 7]


def test_times_have_offsets_fractions_and_fallbacks():
    ds = enhanced(volumes_of(1), AFFINE, TimezoneOffsetFromUTC="+0100")
    for frame in ds.PerFrameFunctionalGroupsSequence:
        frame.FrameContentSequence[0].FrameAcquisitionDateTime = "20260301225959.5+0000"
    (image,) = read(ds)
    assert (image.acquired, image.recon_s) == (STARTED, pytest.approx(2.0))
    del ds.TimezoneOffsetFromUTC
    assert read(ds)[0].acquired == STARTED - timedelta(hours=1)
    for frame in ds.PerFrameFunctionalGroupsSequence:
        del frame.FrameContentSequence[0].FrameAcquisitionDateTime
    assert read(ds)[0].acquired is None
    ds.AcquisitionDateTime = "20260301235959.500000"
    assert read(ds)[0].acquired == STARTED


def test_one_frame_is_a_slice():
    volumes = volumes_of(1)
    plane = read_dicom(written(enhanced(volumes[:, :, :, 2:3], AFFINE, InstanceNumber=3)))
    assert isinstance(plane, Plane)
    np.testing.assert_array_equal(plane.data, volumes[0, :, :, 2])
    np.testing.assert_allclose(plane.affine[:3], AFFINE[:3], atol=1e-4)
    assert (plane.number, plane.instance, plane.uid, plane.tr_s) == (0, 2, "1.2.3.4 TE 30", 0.8)


def test_frames_of_several_orientations_are_a_localizer():
    ds = enhanced(volumes_of(1), AFFINE)
    for n, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
        item = Dataset()
        item.ImageOrientationPatient = [1, 0, 0, 0, 1, 0] if n % 2 else [1, 0, 0, 0, 0, 1]
        frame.PlaneOrientationSequence = [item]
    with refused(NotAVolumeError, "enhanced-orientation-mixed"):
        read(ds)


def test_frames_that_are_not_all_described_are_refused():
    ds = enhanced(volumes_of(1), AFFINE)
    del ds.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence
    with refused(NotAVolumeError, "enhanced-attribute-missing", keyword="ImagePositionPatient"):
        read(ds)
    del ds.PerFrameFunctionalGroupsSequence[1]
    with refused(NotAVolumeError, "enhanced-frame-count-mismatch", expected_frames=4, described_frames=3):
        read(ds)


def test_compressed_frames_are_the_same_and_have_an_end():
    volumes = volumes_of(2, (40, 30, 3))
    ds = enhanced(volumes, AFFINE)
    ds.compress(RLELossless)
    data = written(ds)
    for image, volume in zip(images_of(data), volumes, strict=True):
        assert_same(image, volume)
    for cut in (len(data) // 2, len(data) - 9):
        with refused(IncompleteError, "dicom-element-header-truncated"):
            read_dicom(data[:cut])


def test_the_order_of_real_frames_does_not_matter(data_root):
    for series in ("dcm_qa_xa30_enhanced_TR1000", "dcm_qa_enh_XA10_TR500"):
        data = min((data_root / "scanner" / series).iterdir()).read_bytes()
        (image,) = images_of(data)
        ds = pydicom.dcmread(io.BytesIO(data))
        order = np.random.default_rng(1).permutation(ds.NumberOfFrames)
        frames = np.frombuffer(ds.PixelData, np.uint16).reshape(-1, ds.Rows * ds.Columns)
        ds.PixelData = frames[order].tobytes()
        ds.PerFrameFunctionalGroupsSequence = [ds.PerFrameFunctionalGroupsSequence[n] for n in order]
        (shuffled,) = read(ds)
        np.testing.assert_array_equal(shuffled.data, image.data)
        np.testing.assert_array_equal(shuffled.affine, image.affine)
