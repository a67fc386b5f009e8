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
    reasons = [reason for _, reason in source.ignored if "volume 0 " in reason]
    assert all("echo" in reason and ("was given" in reason) == bool(volumes) for reason in reasons)


@pytest.mark.parametrize(
    "times", [("30", "30.0000991821289"), ("12.345", "12.3450002670288"), ("30.0", "30")]
)
def test_an_echo_time_is_a_number(tmp_path, times):
    def volume(n: int) -> list[bytes]:
        return slices(n, InstanceNumber=lambda k: n * SHAPE[2] + k + 1, EchoTime=times[n == 2])

    volumes, source = drained(tmp_path, [data for n in range(4) for data in volume(n)])
    assert_run(volumes, source, range(4))


def test_the_echo_time_of_enhanced_files_is_a_number_too(tmp_path):
    def part(n: int) -> bytes:
        ds = enhanced(pixels_of(n)[None], AFFINE, tr_s=TR_S, InstanceNumber=n + 1)
        for frame in ds.PerFrameFunctionalGroupsSequence:
            frame.MREchoSequence[0].EffectiveEchoTime = 30.0000991821289 if n == 1 else 30.0
            frame.FrameContentSequence[0].TemporalPositionIndex = n + 1
            acquired = START + timedelta(seconds=TR_S * n)
            frame.FrameContentSequence[0].FrameAcquisitionDateTime = f"{acquired:%Y%m%d%H%M%S.%f}"
        return written(ds)

    volumes, source = drained(tmp_path, [part(n) for n in range(3)])
    assert_run(volumes, source, range(3))


def test_echoes_a_millisecond_apart_stay_runs_of_their_own(tmp_path):
    files = [data for echo in ("13.1", "14.1") for data in slices(0, EchoTime=echo)]
    _, source = drained(tmp_path, files)
    assert [run.label for run in source.runs] == ["7", "7b"]
