"""DICOM files that begin without their preamble, or with the data set itself."""

import io
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from rtdecode.phantom.files.mosaic import mosaic_bytes
from streaming.sources.folder.files import kind_of
from streaming.sources.folder.source import FolderSource
from streaming.sources.formats.dicom import is_dicom, read_dicom
from streaming.sources.formats.image import IncompleteError
from tests.dicoms import rewritten

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
VOLUME = np.random.default_rng(0).integers(1, 3000, (8, 6, 5)).astype(np.int16)
PLAIN = mosaic_bytes(VOLUME, AFFINE, 0.8, 0, 7, datetime(2026, 3, 1), 1.0, "1.2.3.4")
SYNTAXES = {
    "explicit": ExplicitVRLittleEndian, "implicit": ImplicitVRLittleEndian, "big-endian": ExplicitVRBigEndian
}  # fmt: skip


def without_preamble(syntax: str) -> bytes:
    return rewritten(PLAIN, SYNTAXES[syntax])[132:]


def data_set_alone(syntax: str) -> bytes:
    with_preamble = rewritten(PLAIN, SYNTAXES[syntax])
    meta = pydicom.dcmread(io.BytesIO(with_preamble)).file_meta
    # The group length, of 12 bytes itself, counts the bytes of the meta information behind it.
    return with_preamble[132 + 12 + meta.FileMetaInformationGroupLength :]


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(
    "start", [without_preamble, data_set_alone, lambda syntax: b"DICM" + without_preamble(syntax)]
)
def test_a_file_is_read_from_wherever_it_begins(tmp_path: Path, syntax: str, start) -> None:
    data = start(syntax)
    images = read_dicom(data)
    assert isinstance(images, list)
    np.testing.assert_array_equal(images[0].data, VOLUME)
    (tmp_path / "a").write_bytes(data)
    (volume,) = FolderSource(tmp_path, existing="read").drain()
    np.testing.assert_array_equal(volume.data, VOLUME)


def test_a_deflated_file_needs_its_meta_information_alone() -> None:
    images = read_dicom(rewritten(PLAIN, DeflatedExplicitVRLittleEndian)[132:])
    assert isinstance(images, list)
    np.testing.assert_array_equal(images[0].data, VOLUME)


@pytest.mark.parametrize("start", [without_preamble, data_set_alone])
def test_a_file_that_is_still_written_is_not_whole(start) -> None:
    data = start("explicit")
    for cut in range(0, len(data) - 1, 101):
        with pytest.raises(IncompleteError):
            read_dicom(data[:cut])


@pytest.mark.parametrize(
    "data",
    [
        bytes(5000),
        b"\x08\x00" + bytes(5000),
        b"\x08\x00" * 2500,
        b"\x02\x00\x00\x00UL\x04\x00" + b"\xff" * 5000,
        np.random.default_rng(1).bytes(5000),
        b"\x08\x00" + np.random.default_rng(2).bytes(5000),
        b"DICM" + bytes(5000),
        (348).to_bytes(4, "little") + bytes(5000),
    ],
)
def test_other_bytes_are_no_data_set(data: bytes) -> None:
    assert not is_dicom(data)
    if data.strip(b"\0"):
        assert kind_of(data) == "other"
