"""Numbers of an XDF file come as pyxdf reads them, whatever stamps they have and however the clocks went."""

from pathlib import Path

import numpy as np
import pytest

from streaming.importing.xdf import read_xdf
from tests.streaming.importing import xdf_files as xdf

pyxdf = pytest.importorskip("pyxdf")

LABELS = ("Fp1", "Fp2", "Cz")
SFREQ = 200
RNG = np.random.default_rng(5)
STAMPS = 100 + np.arange(4000) / SFREQ
JITTERED = STAMPS + RNG.exponential(0.002, len(STAMPS))


def eeg(stamps: np.ndarray, stamped: str, dtype: str, form: str, length: int = 100) -> list[bytes]:
    """A stream whose samples have stamps of their own: all, the first of a chunk, some, or none."""
    header = xdf.stream_chunk(2, 1, xdf.eeg_header("amp", LABELS, SFREQ, form=form).encode())
    values = RNG.normal(0, 40, (len(stamps), len(LABELS))).astype(dtype)
    parts = [header]
    for first in range(0, len(stamps), length):
        rows = []
        for n in range(first, min(first + length, len(stamps))):
            has_one = {"all": True, "first": n == first, "some": n % 7 == 3, "none": False}[stamped]
            stamp = b"\x08" + np.float64(stamps[n]).tobytes() if has_one else b"\x00"
            rows.append(stamp + values[n].tobytes())
        parts.append(xdf.stream_chunk(3, 1, b"\x04" + len(rows).to_bytes(4, "little") + b"".join(rows)))
    return parts


def offsets(times: list[tuple[float, float]]) -> list[bytes]:
    return [xdf.clock_offset(1, time, value) for time, value in times]


EVEN = [(100.0 + n, 3.0 + 5e-5 * n) for n in range(20)]
RESET = [(100.0 + n, 3.0) for n in range(10)] + [(5.0 + n, 109.0) for n in range(10)]
AGAIN = np.concatenate([STAMPS[:2030], STAMPS[2030:] - STAMPS[2030] + 5.0])
# More samples than the footer says, and an offset that cannot be: those samples are none.
TOO_MANY = [*EVEN, (500.0, -80.0)]


@pytest.mark.parametrize(
    ("stamps", "stamped", "dtype", "form", "clock", "samples"),
    [
        (STAMPS, "all", "<f4", "float32", [], None),
        (JITTERED, "all", "<f8", "double64", EVEN, None),
        (STAMPS, "first", "<i2", "int16", EVEN, None),
        (STAMPS, "some", "<i4", "int32", EVEN, None),
        (STAMPS, "none", "<f4", "float32", [], None),
        (AGAIN, "all", "<f4", "float32", RESET, None),
        (JITTERED, "all", "<f4", "float32", TOO_MANY, 3999),
    ],
)
def test_numbers_come_as_pyxdf_reads_them(
    tmp_path: Path,
    stamps: np.ndarray,
    stamped: str,
    dtype: str,
    form: str,
    clock: list[tuple[float, float]],
    samples: int | None,
) -> None:
    path = tmp_path / "a.xdf"
    parts = [*eeg(stamps, stamped, dtype, form), *offsets(clock), xdf.footer(1, samples or len(stamps))]
    path.write_bytes(xdf.file_of(parts))
    (expected,), _ = pyxdf.load_xdf(path, dejitter_timestamps=False)
    blocks = list(read_xdf(path).blocks())
    read = np.concatenate([data for data, _ in blocks], axis=1)
    assert np.array_equal(read.T, expected["time_series"].astype(np.float32))
    assert len(expected["time_series"]) == (samples or len(stamps))
    read_stamps = np.concatenate([block_stamps for _, block_stamps in blocks])
    if clock:
        assert np.abs(read_stamps - expected["time_stamps"]).max() < 1e-9
    else:
        assert np.array_equal(read_stamps, expected["time_stamps"])
