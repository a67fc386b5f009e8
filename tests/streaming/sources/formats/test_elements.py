import io
import zlib

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)  # fmt: skip

from streaming.sources.folder.files import gunzip
from streaming.sources.formats.elements import (
    PIXELS,
    BrokenError,
    Encoding,
    element_at,
    elements,
    items,
    opened,
)
from tests.dicoms import enhanced, rewritten, written
from tests.refusals import refused

SERIES = (
    "rt-cloud_siemens_mosaic_VE11_TR1500", "dcm_qa_mosaic_VB17_mb_jpeglossless", "dcm_qa_enh_XA10_TR500",
    "dcm_qa_philips_enhanced_4D", "dcm_qa_xa30i_classic_slices_TR1000/7001", "pyneal_ge_DV24_TR1000/s1925",
)  # fmt: skip


def file_of(volumes=2) -> bytes:
    return written(enhanced(np.ones((volumes, 3, 4, 5), np.int16), np.eye(4)))


def top(data: bytes) -> list:
    _, body, start, encoding = opened(data)
    return list(elements(body, start, len(body), encoding))


@pytest.mark.parametrize("series", SERIES)
def test_elements_lie_where_the_reference_reader_finds_them(data_root, series):
    data = gunzip(min((data_root / "scanner" / series).iterdir()).read_bytes())
    ds = pydicom.dcmread(io.BytesIO(data))
    top_elements = top(data)
    assert [element.tag for element in top_elements] == [int(tag) for tag in ds._dict]
    pixels = next(element for element in top_elements if element.tag == PIXELS)
    assert data[pixels.start : pixels.stop] == ds.PixelData[: pixels.stop - pixels.start]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("marked", [True, False])
def test_sequences_end_where_their_items_do(syntax, marked):
    ds = enhanced(np.ones((2, 3, 4, 5), np.int16), np.eye(4))
    for element in ds.iterall():
        element.is_undefined_length = marked and element.VR == "SQ"
    data = rewritten(written(ds), syntax)
    _, body, start, encoding = opened(data)
    assert (encoding.implicit, encoding.little) == (
        syntax == ImplicitVRLittleEndian,
        syntax != ExplicitVRBigEndian,
    )
    frames = next(e for e in elements(body, start, len(body), encoding) if e.tag == 0x52009230)
    nested = [list(elements(body, *item, encoding)) for item in items(body, frames, encoding)]
    assert [[e.tag for e in item] for item in nested] == [
        [0x00189114, 0x00189226, 0x00209111, 0x00209113]
    ] * 10


def test_no_cut_is_taken_for_the_whole():
    data = file_of(1)
    assert top(data)[-1].stop == len(data)
    boundaries = {element.head for element in top(data)} | {len(data)}
    for cut in range(len(data)):
        if cut not in boundaries:
            with pytest.raises(BrokenError):
                top(data[:cut])


def test_a_deflated_data_set_has_an_end():
    data = rewritten(file_of(), DeflatedExplicitVRLittleEndian)
    start = 132
    while data[start : start + 2] == b"\2\0":
        start = element_at(data, start, len(data), Encoding(implicit=False, little=True)).stop
    plain = zlib.decompressobj(wbits=-15).decompress(data[start:])
    assert [element.tag for element in top(data)] == [element.tag for element in top(file_of())]
    assert top(data)[-1].stop == len(plain)
    for cut in range(start + 1, len(data) - 2, 7):
        with refused(BrokenError, "dicom-deflate-truncated"):
            top(data[:cut])
    with refused(BrokenError, "dicom-deflate-damaged"):
        top(data[:start] + bytes(range(255)))


def test_sequences_within_sequences_end_somewhere():
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + b"\x08\x00\x11\x11SQ\0\0\xff\xff\xff\xff"
    data = file_of(1)
    offset = top(data)[0].head
    with refused(BrokenError, "dicom-sequence-too-deep"):
        top(data[:offset] + b"\x08\x00\x11\x11SQ\0\0\xff\xff\xff\xff" + item * 5000)
