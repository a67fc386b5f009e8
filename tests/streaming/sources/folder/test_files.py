import gzip
import os

import numpy as np
import pytest

from streaming.sources.folder import files
from streaming.sources.formats.image import IncompleteError, NotAVolumeError
from tests.refusals import refused


def test_kinds_by_the_first_bytes():
    dicom = bytes(128) + b"DICM" + bytes(400)
    assert files.kind_of(dicom) == files.kind_of(gzip.compress(dicom)) == "dicom"
    assert files.kind_of(b"# === DATA DESCRIPTION FILE ====") == "par"
    assert files.kind_of(b"hello world " * 40) == "other"
    for little in (b"", b"hello", bytes(4096)):
        with pytest.raises(IncompleteError):
            files.kind_of(little)


def test_gunzip_of_members_and_of_what_is_too_much():
    parts = [os.urandom(1000), bytes(5000)]
    packed = b"".join(gzip.compress(part) for part in parts)
    assert files.gunzip(packed) == b"".join(parts)
    assert files.gunzip(b"plain") == b"plain"
    with refused(NotAVolumeError, "gzip-oversized", limit_bytes=5999):
        files.gunzip(packed, 5999)
    with refused(NotAVolumeError, "gzip-oversized", limit_bytes=1 << 20):
        files.gunzip(gzip.compress(bytes(1 << 24)), 1 << 20)
    for cut in (12, 500, len(packed) - 1):
        with refused(IncompleteError, "gzip-truncated"):
            files.gunzip(packed[:cut])
    with refused(IncompleteError, "gzip-damaged"):
        files.gunzip(packed[:40] + bytes(40) + packed[80:])


def test_the_other_half_of_a_name():
    assert files.counterparts("a/Dump-1.par")[0] == "a/Dump-1.rec"
    assert files.counterparts("a/DUMP.REC")[0] == "a/DUMP.PAR"
    assert "x.img.gz" in files.counterparts("x.hdr")
    assert files.counterparts("x.img.gz")[0] == "x.hdr"
    assert files.counterparts("x.nii") == []
    assert files.is_data_half("X.REC")
    assert not files.is_data_half("x.par")


def test_a_fingerprint_holds_for_what_is_padded_and_not_for_a_change():
    data = np.random.default_rng(0).integers(0, 255, 100_000).astype(np.uint8)
    mark = files.fingerprint(data.tobytes(), len(data))
    assert files.fingerprint(data.tobytes() + bytes(99), len(data)) == mark
    assert files.fingerprint(data.tobytes()[:-99], len(data)) != mark
    data[20_000:20_100] += 1
    assert files.fingerprint(data.tobytes(), len(data)) != mark


def test_names_are_shown_in_print():
    assert files.printable("a/b c.dcm") == "a/b c.dcm"
    assert files.printable("a\nb\x1b[2J") == "a\\nb\\x1b[2J"
    assert files.printable(os.fsdecode(b"\xff.dcm")) == "\\xff.dcm"


def volume(zeros: int) -> np.ndarray:
    flat = np.full(8 * 8 * 8, 7, np.int16)
    flat[len(flat) - zeros :] = 0
    return flat.reshape(8, 8, 8, order="F")


def tail_of(data: np.ndarray):
    raw = data.tobytes(order="F")
    return lambda back, n: raw[max(0, len(raw) - back - n) : len(raw) - back]


def checked(tails: files.Tails, zeros: int, age: float) -> str:
    data = volume(zeros)
    try:
        tails.check(("a", 0), data, data.nbytes, tail_of(data), age, 1.2)
    except IncompleteError:
        return "waits"
    except NotAVolumeError:
        return "refused"
    return "taken"


def test_a_volume_that_ends_in_zeros_is_waited_for_until_that_is_known_to_be_its_way():
    tails = files.Tails()
    assert checked(tails, 50, 0.0) == "waits"
    assert checked(tails, 50, 0.3) == "taken"
    assert checked(tails, 50, 0.0) == "taken"
    assert checked(tails, 90, 0.0) == "waits"
    assert checked(tails, 90, 0.3) == "taken"
    assert checked(tails, 90, 0.0) == "taken"
    assert checked(tails, 400, 0.3) == "waits"
    assert checked(tails, 400, 1.3) == "refused"
    assert checked(tails, 512, 1.0) == "waits"
    assert checked(tails, 512, 1.3) == "refused"
    assert checked(tails, 0, 0.0) == "taken"


def test_only_a_file_is_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with refused(NotAVolumeError, "file-irregular"):
            files.opened(tmp_path / name)
    with (tmp_path / "large.dcm").open("wb") as file:
        file.truncate(5 << 30)
    with (
        files.opened(tmp_path / "large.dcm") as file,
        refused(NotAVolumeError, "file-oversized", limit_mib=4096),
    ):
        files.read_whole(file, 4 << 30)
