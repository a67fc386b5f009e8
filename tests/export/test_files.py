"""Arrays of a bundle are packed small, and the same each time."""

from pathlib import Path

import numpy as np

from export.files import write_arrays
from rtdecode import bundle as bundles


def test_golden_windows_are_read_as_they_were_and_take_fewer_bytes(tmp_path: Path) -> None:
    arrays = bundles.load("phantom").golden()
    write_arrays(tmp_path / "small.npz", arrays)
    np.savez_compressed(tmp_path / "numpy.npz", allow_pickle=False, **arrays)
    with np.load(tmp_path / "small.npz", allow_pickle=False) as archive:
        assert archive.files == list(arrays)
        for name, values in arrays.items():
            assert archive[name].dtype == values.dtype
            assert np.array_equal(archive[name], values)
    assert (tmp_path / "small.npz").stat().st_size < (tmp_path / "numpy.npz").stat().st_size


def test_the_same_arrays_give_the_same_file(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_arrays(tmp_path / name, {"latent": np.arange(100.0)})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
