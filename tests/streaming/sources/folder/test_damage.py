"""Damaged files: refused in words, at once, in little memory, and never a wrong volume."""

import tracemalloc
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import RLELossless

from rtdecode.phantom.files.mosaic import mosaic_bytes
from streaming.sources.folder.files import gunzip
from streaming.sources.formats.dicom import read_dicom
from streaming.sources.formats.elements import PIXELS as PIXEL_DATA
from streaming.sources.formats.elements import elements, opened
from streaming.sources.formats.image import Image, IncompleteError, NotAVolumeError, Plane
from tests.dicoms import changed, enhanced, written

SERIES = (
    "rt-cloud_siemens_mosaic_VE11_TR1500", "pyneal_siemens_mosaic_VE11_TR1000", "dcm_qa_mosaic_VD13_asc",
    "dcm_qa_mosaic_VD13_asc_HF_reversed", "dcm_qa_mosaic_VB17_ax", "dcm_qa_mosaic_VB17_cor",
    "dcm_qa_mosaic_VB17_mb_jpeglossless", "dcm_qa_xa30_enhanced_TR1000", "dcm_qa_enh_XA10_TR500",
    "dcm_qa_philips_enhanced_4D",
)  # fmt: skip
REFUSED = (IncompleteError, NotAVolumeError)
ABSURD = [
    {"Rows": 65535}, {"Columns": 65535}, {"Rows": 0}, {"Rows": 1, "Columns": 1},
    {"Rows": 65535, "Columns": 65535},
    {"NumberOfFrames": 2**31 - 1}, {"NumberOfFrames": 10**9, "Rows": 65535, "Columns": 65535},
    {"NumberOfFrames": -5}, {"NumberOfFrames": 0}, {"BitsAllocated": 64}, {"BitsAllocated": 1},
    {"BitsAllocated": 32}, {"SamplesPerPixel": 60000}, {"RepetitionTime": "1e308"}, {"PixelSpacing": [0, 0]},
    {"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, {"ImagePositionPatient": ["1e400", 0, 0]},
    {"AcquisitionTime": "999999.999999"}, {"AcquisitionDate": "20261399"}, {"InstanceNumber": -3},
]  # fmt: skip


def first_of(data_root, series: str) -> bytes:
    return gunzip(min((data_root / "scanner" / series).iterdir()).read_bytes())


def volumes_of(data: bytes) -> list[Image]:
    """What a file gives; none if it is refused. Fails on any other error."""
    try:
        images = read_dicom(data)
    except REFUSED:
        return []
    for image in [images] if isinstance(images, Plane) else images:
        assert np.isfinite(image.affine).all()
        assert image.data.dtype in (np.int16, np.float32)
    return [] if isinstance(images, Plane) else images


def pixels_at(data: bytes) -> tuple[int, int]:
    _, body, start, encoding = opened(data)
    pixels = next(e for e in elements(body, start, len(body), encoding) if e.tag == PIXEL_DATA)
    return pixels.start, pixels.stop + 8 * pixels.undefined


@pytest.mark.parametrize("series", SERIES)
def test_no_part_of_a_file_is_taken_for_the_whole(series, data_root):
    data = first_of(data_root, series)
    start, stop = pixels_at(data)
    for share in (0.0, 0.02, 0.3, 0.5, 0.9, 0.999):
        with pytest.raises(IncompleteError):
            read_dicom(data[: int(share * stop)])
    for cut in (*range(0, start, start // 25), start, start + 1, stop - 1):
        with pytest.raises(IncompleteError):
            read_dicom(data[:cut])
    assert len(volumes_of(data[: stop + 8])) == len(volumes_of(data))


@pytest.mark.parametrize("series", SERIES)
def test_noise_text_and_emptiness_are_no_volumes(series, data_root):
    data = first_of(data_root, series)
    rng = np.random.default_rng(5)
    for other in (
        b"",
        b"\0" * 1000,
        data[:132] + rng.bytes(5000),
        rng.bytes(5000),
        b"text, not an image\n" * 99,
    ):
        with pytest.raises(IncompleteError):
            read_dicom(other)
    start, _ = pixels_at(data)
    for offset in rng.integers(132, start - 64, 12):
        volumes_of(data[:offset] + rng.bytes(64) + data[offset + 64 :])
        volumes_of(data[:offset] + bytes(64) + data[offset + 64 :])
        volumes_of(data[:offset] + rng.bytes(len(data) - offset))


@pytest.mark.parametrize("series", [SERIES[0], SERIES[6], SERIES[8]])
def test_absurd_dimensions_take_no_memory(series, data_root):
    data = first_of(data_root, series)
    intact = volumes_of(data)
    for values in ABSURD:
        damaged = changed(data, **values)
        tracemalloc.start()
        volumes = volumes_of(damaged)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 12 * len(data) + 10_000_000, values
        for image in volumes:
            assert image.data.shape == intact[0].data.shape, values


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 255)), min_size=1, max_size=6))
def test_flipped_bytes_never_crash(flips):
    for name, data in FILES.items():
        start, _ = PIXELS[name]
        damaged = bytearray(data)
        for offset, value in flips:
            damaged[132 + offset % (start - 132)] = value
        for image in volumes_of(bytes(damaged)):
            assert image.data.size <= len(data) // 2


@settings(max_examples=60)
@given(st.integers(0, 10**7), st.integers(1, 400), st.binary(min_size=0, max_size=40))
def test_missing_and_foreign_stretches_never_crash(offset, lost, foreign):
    for name, data in FILES.items():
        place = 132 + offset % (PIXELS[name][0] - 132)
        volumes_of(data[:place] + foreign + data[place + lost :])


def test_a_sequence_of_itself_and_a_long_name_are_refused():
    ds = enhanced(np.ones((1, 4, 4, 3), np.int16), np.eye(4))
    ds.SeriesDescription = "x" * 60
    inner = Dataset()
    for _ in range(60):
        outer = Dataset()
        outer.ReferencedImageSequence = [inner]
        inner = outer
    ds.ReferencedImageSequence = [inner]
    assert volumes_of(written(ds)) == [] or len(volumes_of(written(ds))) == 1


def test_no_identity_leaves_the_reader(data_root):
    """Whatever identifies a participant is in no image and in no error, however the file is damaged."""
    marker = "SECRETMARKER"
    rng = np.random.default_rng(2)
    for original in (first_of(data_root, "dcm_qa_enh_XA10_TR500"), FILES["mosaic"], FILES["enhanced"]):
        data = changed(
            original, PatientName=f"{marker}^A", PatientID=marker, OtherPatientIDs=marker,
            PatientComments=marker, PatientAddress=marker, ReferringPhysicianName=marker, StudyID=marker,
            AccessionNumber=marker, OperatorsName=marker, InstitutionName=marker, StudyDescription=marker,
            PatientBirthDate="19010203",
        )  # fmt: skip
        start, stop = pixels_at(data)
        texts = [repr(image) for image in volumes_of(data)]
        cuts = [data[:cut] for cut in rng.integers(0, stop, 20)]
        for offset in (*rng.integers(132, start - 8, 40), *range(132, 1300, 9)):
            damaged = bytearray(data)
            damaged[offset : offset + 4] = rng.bytes(4)
            cuts.append(bytes(damaged))
        for damaged in cuts:
            try:
                images = read_dicom(damaged)
                texts += [repr(image) for image in ([images] if isinstance(images, Plane) else images)]
            except REFUSED as error:
                texts.append(repr([error, error.__cause__]))
        assert not [line for line in texts if marker in line or "19010203" in line]


def _small() -> dict[str, bytes]:
    volume = np.arange(6 * 5 * 7, dtype=np.int16).reshape(6, 5, 7)
    mosaic = mosaic_bytes(volume, np.diag([3.0, 3, 3, 1]), 0.8, 3, 7, datetime(2026, 3, 1), 1.65, "1.2.3")
    several = enhanced(np.stack([volume, volume + 1]), np.diag([3.0, 3, 3, 1]))
    compressed = enhanced(volume[None], np.diag([3.0, 3, 3, 1]))
    compressed.compress(RLELossless)
    return {"mosaic": mosaic, "enhanced": written(several), "compressed": written(compressed)}


FILES = _small()
PIXELS = {name: pixels_at(data) for name, data in FILES.items()}
