"""Pixels that fill part of their cell: 12 of 16 bits, signed or not, with anything in the others."""

import io
from datetime import datetime

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRBigEndian, RLELossless

from rtdecode.phantom.files.classic import slice_bytes
from rtdecode.phantom.files.mosaic import mosaic_bytes
from streaming.sources.formats.dicom import read_dicom
from streaming.sources.formats.image import Plane
from tests.dicoms import changed, enhanced, rewritten, written

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
# A mosaic of four tiles takes these pixels in rows of 16.
SHAPE = (8, 6, 4)
UNSIGNED = np.random.default_rng(1).integers(0, 4096, SHAPE).astype(np.int16)
SIGNED = np.random.default_rng(2).integers(-2048, 2048, SHAPE).astype(np.int16)
JUNK = np.random.default_rng(3).integers(0, 1 << 16, (12, 16)).astype(np.uint16)
STARTED = datetime(2026, 3, 1)


def cells_of(volume: np.ndarray) -> np.ndarray:
    """The tiles of a mosaic, (rows, columns), each value in 16 bits."""
    tiles = volume.transpose(2, 1, 0).reshape(2, 2, 6, 8)
    return tiles.transpose(0, 2, 1, 3).reshape(12, 16).astype(np.uint16)


def mosaic(cells: np.ndarray, **header) -> bytes:
    plain = mosaic_bytes(np.ones(SHAPE, np.int16), AFFINE, 0.8, 0, 7, STARTED, 1.0, "1.2.3.4")
    return changed(plain, **{"BitsStored": 12, "HighBit": 11, **header}, PixelData=cells.tobytes())


def values_of(data: bytes) -> np.ndarray:
    images = read_dicom(data)
    assert isinstance(images, list)
    return images[0].data


@pytest.mark.parametrize(
    ("volume", "cells", "header"),
    [
        (UNSIGNED, cells_of(UNSIGNED), {}),
        (UNSIGNED, cells_of(UNSIGNED) | 0x1000, {}),
        (UNSIGNED, cells_of(UNSIGNED) | (JUNK & 0xF000), {}),
        (SIGNED, cells_of(SIGNED), {"PixelRepresentation": 1}),
        (SIGNED, cells_of(SIGNED) & 0x0FFF, {"PixelRepresentation": 1}),
        (SIGNED, cells_of(SIGNED) & 0x0FFF | (JUNK & 0xF000), {"PixelRepresentation": 1}),
        (UNSIGNED, cells_of(UNSIGNED) << 4 | (JUNK & 0xF), {"HighBit": 15}),
        (SIGNED, cells_of(SIGNED) << 4 | (JUNK & 0xF), {"HighBit": 15, "PixelRepresentation": 1}),
        (UNSIGNED, (cells_of(UNSIGNED) << 2) | (JUNK & 0xC003), {"HighBit": 13}),
    ],
    ids=[
        "unsigned", "one bit more", "anything in the unused bits", "signed", "signed, sign not carried on",
        "signed, anything in the unused bits", "high", "high, signed", "in the middle",
    ],
)  # fmt: skip
def test_a_value_is_in_the_bits_that_the_header_names(volume, cells, header):
    data = mosaic(cells, **header)
    np.testing.assert_array_equal(values_of(data), volume)
    np.testing.assert_array_equal(values_of(rewritten(data, ExplicitVRBigEndian)), volume)
    ds = pydicom.dcmread(io.BytesIO(data))
    ds.compress(RLELossless)
    np.testing.assert_array_equal(values_of(written(ds)), volume)


def test_cells_of_32_bits_have_unused_ones_too():
    cells = cells_of(UNSIGNED).astype(np.uint32) | 0xABC0_0000
    data = mosaic(cells, BitsAllocated=32, BitsStored=20, HighBit=19)
    np.testing.assert_array_equal(values_of(data), UNSIGNED)


def test_slices_and_frames_are_read_alike():
    volume = UNSIGNED[:, :, :1]
    plane = slice_bytes("philips", volume, AFFINE, 0.8, 0, 7, STARTED, "1.2.3.4")[0]
    cells = volume[:, :, 0].T.astype(np.uint16) | 0x8000
    plane_read = read_dicom(changed(plane, BitsStored=12, HighBit=11, PixelData=cells.tobytes()))
    expected = read_dicom(changed(plane, PixelData=(cells & 0x0FFF).tobytes()))
    assert isinstance(plane_read, Plane)
    assert isinstance(expected, Plane)
    np.testing.assert_array_equal(plane_read.data, expected.data)
    ds = enhanced(UNSIGNED[None], AFFINE)
    ds.PixelData = (np.frombuffer(ds.PixelData, "<u2") | 0x4000).tobytes()
    np.testing.assert_array_equal(values_of(written(ds)), UNSIGNED)


@pytest.mark.parametrize("header", [{"BitsStored": 16, "HighBit": 3}, {"HighBit": 40}, {"BitsStored": 40}])
def test_bits_that_cannot_be_leave_the_whole_cell(header):
    np.testing.assert_array_equal(values_of(mosaic(cells_of(UNSIGNED), **header)), UNSIGNED)
