"""Several echoes in one series, and echo times that are written with different roundings."""

import io
import random
from datetime import timedelta

import pydicom
import pytest

from tests.dicoms import enhanced, written
from tests.streaming.sources.folder.test_numbering import (
    AFFINE,
    SHAPE,
    START,
    TR_S,
    assert_pixels,
    assert_run,
    drained,
    pixels_of,
    slices,
)


def several_echoes(private: bool, seed: int) -> list[bytes]:
    """Three echoes of three GE volumes under one echo number, time and instance; each volume in any order."""
    files = []
    for n in range(3):
        volume = []
        for echo in range(3):
            for data in slices(n, "ge", echo, EchoNumbers=1):
                ds = pydicom.dcmread(io.BytesIO(data))
                if private:
                    block = ds.private_block(0x0019, "GEMS_ACQU_01", create=True)
                    block.add_new(0xA9, "DS", "3")
                    block.add_new(0xA2, "SL", 40 + echo)
                volume.append(written(ds))
        files += random.Random(seed + n).sample(volume, len(volume))
    return files


def test_echoes_that_a_private_run_number_tells_apart_are_runs(tmp_path):
    volumes, source = drained(tmp_path, several_echoes(private=True, seed=0))
    assert [run.label for run in source.runs] == ["7", "7b", "7c"]
    assert len(volumes) == 9
    assert source.ignored == []
    for volume in volumes:
        darker = pixels_of(volume.index).mean() - volume.data.mean()
        assert round(darker) in (0, 100, 200)
        assert_pixels(volume, pixels_of(volume.index, round(darker) // 100))


@pytest.mark.parametrize("seed", range(3))
def test_echoes_that_nothing_tells_apart_are_never_one_volume(tmp_path, seed):
    volumes, source = drained(tmp_path, several_echoes(private=False, seed=seed))
    # The first volume may be full before two slices claim one place; then all others say so.
    assert len(volumes) <= 1
    assert len(source.ignored) == (9 - len(volumes)) * SHAPE[2]
    said = [reason for _, reason in source.ignored if "volume 0 " in reason]
    assert all("echo" in reason and ("was given" in reason) == bool(volumes) for reason in said)
