"""Files that hold, or claim, more than the memory, and folders that nest beyond reason."""

import gzip
import io
import os
import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from streaming.sources.folder import files, reader
from streaming.sources.folder.scan import DEEPEST
from streaming.sources.folder.slice_stack import joined
from streaming.sources.folder.source import FolderSource
from streaming.sources.formats.codestream import fits
from streaming.sources.formats.dicom import read_dicom
from streaming.sources.formats.elements import opened
from streaming.sources.formats.image import NotAVolumeError, Plane
from tests.dicoms import rewritten
from tests.refusals import refused
from tests.streaming.sources.folder.test_faults import AFFINE, dicom, drained, volume_of

MB = 1 << 20


def header_of(shape: tuple[int, ...], kind: type = np.int16) -> bytes:
    """The first 352 bytes of a NIfTI file of this shape."""
    header = nib.Nifti1Header()
    header.set_data_dtype(kind)
    header["dim"][: len(shape) + 1] = [len(shape), *shape]
    header["pixdim"][1:5] = [3, 3, 3, 0.8]
    header.set_sform(AFFINE, 1)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    return header.binaryblock + bytes(4)


@contextmanager
def little_memory(limit_mb: float) -> Iterator[None]:
    """Require that what runs here takes no more memory at any time."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit_mb * MB


def sparse(path: Path, start: bytes, size: int) -> None:
    """A file that claims a size and takes no room."""
    path.write_bytes(start)
    os.truncate(path, size)


def test_a_packed_volume_unpacks_to_what_its_header_promises_and_no_more(tmp_path: Path) -> None:
    header = header_of((64, 64, 30))
    zeros = gzip.compress(bytes(MB))
    (tmp_path / "bomb_1.nii.gz").write_bytes(gzip.compress(header) + 2000 * zeros)
    (tmp_path / "vol_1.nii.gz").write_bytes(nib.Nifti1Image(volume_of(0), AFFINE).to_bytes())
    with little_memory(40):
        source = FolderSource(tmp_path, existing="read")
        assert len(drained(source)) == 1
    ((name, reason),) = source.ignored
    assert name == "bomb_1.nii.gz"
    assert "unpacks to more than" in reason


def test_packed_volumes_of_the_series_that_is_followed_are_few_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "a_1.nii").write_bytes(nib.Nifti1Image(volume_of(0), AFFINE).to_bytes())
    # 16 x 16 x 9 voxels, and more volumes than 64 MiB hold.
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(header_of((16, 16, 9, 20000)) + bytes(1000)))
    with little_memory(10):
        source = FolderSource(tmp_path, existing="read")
        assert len(drained(source)) == 1
    ((_, reason),) = source.ignored
    assert reason == (
        f"20000 packed volumes of 4608 bytes, and {64 * MB} bytes are unpacked at most: deliver them unpacked"
    )
    # Of many series, none is followed: the file is cut short, and otherwise welcome.
    (tmp_path / "a_1.nii").unlink()
    source = FolderSource(tmp_path, existing="read", bound=False)
    assert drained(source) == []
    ((_, reason),) = source.ignored
    assert "0 of 20000 volumes" in reason


def test_an_inflated_data_set_and_compressed_pixels_keep_within_the_bound() -> None:
    deflated = rewritten(dicom(0), DeflatedExplicitVRLittleEndian)
    assert opened(deflated)[0] == DeflatedExplicitVRLittleEndian
    with refused(NotAVolumeError, "dicom-deflate-oversized", limit_bytes=1000):
        opened(deflated, 1000)
    squeezed = pydicom.dcmread(io.BytesIO(dicom(0)))
    squeezed.compress(RLELossless)
    out = io.BytesIO()
    pydicom.dcmwrite(out, squeezed)
    assert read_dicom(out.getvalue())
    with refused(NotAVolumeError, "pixels-oversized", limit_bytes=1000):
        read_dicom(out.getvalue(), limit_bytes=1000)


def test_a_compressed_frame_that_claims_another_size_meets_no_decoder() -> None:
    jpeg_ls = b"\xff\xd8\xff\xff\xf7" + struct.pack(">HBHHB", 11, 16, 60000, 60000, 1) + bytes(200)
    plain = pydicom.dcmread(io.BytesIO(dicom(0)))
    plain.PixelData = encapsulate([jpeg_ls])
    plain["PixelData"].is_undefined_length = True
    plain.file_meta.TransferSyntaxUID = JPEGLSLossless
    out = io.BytesIO()
    pydicom.dcmwrite(out, plain)
    with (
        little_memory(10),
        refused(NotAVolumeError, "pixels-codestream-mismatch", rows=plain.Rows, columns=plain.Columns),
    ):
        read_dicom(out.getvalue())


@pytest.mark.parametrize(
    ("frame", "syntax", "rows"),
    [
        (
            b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc3" + struct.pack(">HBHHB", 11, 16, 48, 64, 1),
            JPEGLSLossless,
            48,
        ),
        (
            b"\xff\x4f\xff\x51"
            + struct.pack(">HH8IH", 41, 0, 64, 48, 0, 0, 64, 48, 0, 0, 1)
            + b"\x0f\x01\x01",
            JPEG2000Lossless,
            48,
        ),
    ],
)
def test_a_frame_says_its_size(frame: bytes, syntax: UID, rows: int) -> None:
    frame += bytes(20)
    assert fits(frame, syntax, rows, 64, 2)
    assert not fits(frame, syntax, rows, 65, 2)
    for cut in range(len(frame)):
        fits(frame[:cut], syntax, rows, 64, 2)
    assert not fits(frame[:8], syntax, rows, 64, 2)
    assert not fits(b"\xff" * 1000, syntax, rows, 64, 2)


def test_run_lengths_of_a_long_frame_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.sources.formats.codestream._UNCOUNTED", 100)
    # 5 bytes as they are, no run, and 100 times 128 zeros.
    frame = bytes(64) + b"\x04abcde" + b"\x80" + b"\x81\x00" * 100
    # 12,805 bytes.
    assert fits(frame, RLELossless, 1, 3202, 2)
    assert not fits(frame, RLELossless, 1, 3201, 2)


def test_a_file_that_claims_more_than_it_holds_is_not_asked_for_it(tmp_path: Path) -> None:
    sparse(tmp_path / "a.dcm", dicom(0), 1 << 40)
    sparse(tmp_path / "b.nii", header_of((16384, 16384, 1024)), 1 << 40)
    sparse(tmp_path / "c.rec", b"# === DATA DESCRIPTION FILE" + bytes(4000), 1 << 40)
    sparse(tmp_path / "d.nii.gz", gzip.compress(header_of((4, 4, 4))), 1 << 40)
    with little_memory(10):
        source = FolderSource(tmp_path, existing="read")
        assert drained(source) == []
    reasons = dict(source.ignored)
    assert set(reasons) == {"a.dcm", "b.nii", "c.rec", "d.nii.gz"}
    assert reasons["b.nii"] == f"a volume of {16384 * 16384 * 2048} bytes: a damaged header"
    assert reasons["a.dcm"] == reasons["d.nii.gz"] == "larger than the 1024 MiB that are read as a whole"
    assert reasons["c.rec"] == "larger than the 16 MiB that are read as a whole"


def test_many_small_gzip_streams_end_somewhere() -> None:
    packed = gzip.compress(b"abc") + bytes(5000)
    assert files.gunzip(packed * 20, most_members=20) == b"abc" * 20
    with refused(NotAVolumeError, "gzip-members-excess", limit=20):
        files.gunzip(packed * 21, most_members=20)


def test_a_file_that_takes_all_the_memory_costs_that_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        (tmp_path / f"{number}.dcm").write_bytes(dicom(number))
    read = reader.read_dicom

    def limited(data: bytes, **options: object) -> object:
        if data == dicom(1):
            # As Python answers a request that no machine can meet.
            bytearray(1 << 62)
        return read(data, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(reader, "read_dicom", limited)
    source = FolderSource(tmp_path, existing="read")
    assert [volume.index for volume in drained(source)] == [0, 2]
    assert source.ignored == [("1.dcm", "this machine has not the memory that reading it takes")]
    assert source.counters()["rejected_files"] == 1


def test_slices_of_which_a_header_promises_too_many_make_no_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.sources.folder.slice_stack.MAX_BYTES", 1000)
    planes = []
    for place in range(2):
        affine = np.eye(4)
        affine[2, 3] = place
        planes.append(Plane(np.zeros((8, 8), np.int16), affine, float(place), "1", 1))
    assert joined(planes, [0, 1], 2)[0].shape == (8, 8, 2)
    with pytest.raises(ValueError, match="1024 slices of 8 x 8"):
        joined(planes, [0, 1], 1024)


def test_folders_are_searched_to_a_depth_and_the_next_is_named(tmp_path: Path) -> None:
    number = os.open(tmp_path, os.O_RDONLY)
    for depth in range(420):
        if depth == DEEPEST:
            with open(os.open("1.dcm", os.O_WRONLY | os.O_CREAT, dir_fd=number), "wb") as file:
                file.write(dicom(1))
        os.mkdir("d", dir_fd=number)
        inner = os.open("d", os.O_RDONLY, dir_fd=number)
        os.close(number)
        number = inner
    os.close(number)
    source = FolderSource(tmp_path, existing="read")
    assert [volume.index for volume in drained(source)] == [1]
    deep = "/".join(["d"] * (DEEPEST + 1))
    assert source.ignored == [(deep, f"a folder more than {DEEPEST} folders down, which is not searched")]
