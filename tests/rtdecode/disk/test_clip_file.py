"""Clips in files: the same values as in memory, at a memory that does not grow with them."""

import gc
import io
import os
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from rtdecode.disk import clip_file
from rtdecode.disk.clip_file import ClipFile, ComputedClip, StoredClip, joined, keep, pieces
from rtdecode.scores import accuracy
from rtdecode.scores.accuracy import correlations, psnr
from rtdecode.scores.seams import seam_ratio

# A frame of several blocks and several frames to a piece, and one that is a piece of its own.
WIDE = (5, 150, 220, 3)
LARGE = (3, 600, 600, 3)


def clips(count: int, shape: tuple[int, ...], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return list(rng.integers(0, 256, (count, *shape), dtype=np.uint8))


def stored(arrays: list[np.ndarray]) -> list[StoredClip]:
    file = ClipFile()
    return [file.add(clip) for clip in arrays]


def as_before(decoded: list[np.ndarray], true: list[np.ndarray], mean: np.ndarray) -> np.ndarray:
    """Correlate whole frames, in the order of the frames."""
    dots = np.zeros((len(decoded), len(true)))
    sums = np.zeros((2, len(decoded)))
    squares = np.zeros((2, len(decoded)))
    for f in range(len(true[0])):
        offset = mean[f].astype(np.float64).ravel()
        sides = [
            np.stack([clip[f].ravel() for clip in side]).astype(np.float64) - offset
            for side in (decoded, true)
        ]
        dots += sides[0] @ sides[1].T
        for row, side in enumerate(sides):
            sums[row] += side.sum(1)
            squares[row] += np.einsum("ij,ij->i", side, side)
    count = true[0].size
    spread = squares - sums**2 / count
    return (dots - np.outer(sums[0], sums[1]) / count) / np.sqrt(np.outer(spread[0], spread[1]))


def test_a_clip_in_a_file_is_read_as_an_array_is() -> None:
    file = ClipFile()
    first, second = clips(2, (6, 8, 10, 3))
    saved = [file.add(first), file.add(second.astype(np.float64) / 7)]
    for clip, array in zip(saved, (first, second.astype(np.float64) / 7), strict=True):
        assert clip.shape == array.shape
        assert clip.nbytes == array.nbytes
        assert len(clip) == 6
        assert np.array_equal(np.asarray(clip), array)
        assert np.array_equal(clip[-1], array[-1])
        assert np.array_equal(clip[3, 2:5], array[3, 2:5])
        assert np.array_equal(clip[3, 6:99], array[3, 6:99])
        assert np.array_equal(np.stack(list(clip)), array)
        assert np.array_equal(np.asarray(clip[2:5][1:], np.float32), array[3:5].astype(np.float32))
        assert np.array_equal(np.asarray(clip[:-1]), array[:-1])
        assert np.asarray(clip[4:2]).shape == (0, 8, 10, 3)
        assert np.asarray(clip).dtype == array.dtype


@pytest.mark.parametrize("how", ["in a file", "computed"])
def test_frames_are_taken_in_any_order_as_those_of_an_array_are(how: str) -> None:
    (pixels,) = clips(1, (6, 8, 10, 3))
    clip = (
        stored([pixels])[0]
        if how == "in a file"
        else ComputedClip(pixels.shape, lambda n, rows: pixels[n, rows])
    )
    for part in (np.s_[::-1], np.s_[4:1:-1], np.s_[::2], np.s_[1:6:3], np.s_[2:5]):
        shorter = clip[part]
        assert shorter.shape == pixels[part].shape
        assert len(shorter) == len(pixels[part])
        assert np.array_equal(np.asarray(shorter), pixels[part])
        assert np.array_equal(np.asarray(shorter, np.float32), pixels[part].astype(np.float32))
        assert np.array_equal(np.stack(list(shorter)), pixels[part])
        assert np.array_equal(shorter[-1], pixels[part][-1])
        assert np.array_equal(shorter[1, 2:5], pixels[part][1, 2:5])
        # What was reversed is cut and reversed like any other clip.
        assert np.array_equal(np.asarray(shorter[:2]), pixels[part][:2])
        assert np.array_equal(np.asarray(shorter[::-1]), pixels[part][::-1])
        with pytest.raises(IndexError, match=f"frame {len(shorter)} of a clip of {len(shorter)} frames"):
            shorter[len(shorter)]


def test_what_a_clip_in_a_file_cannot_do_is_said() -> None:
    (clip,) = stored(clips(1, (6, 8, 10, 3)))
    with pytest.raises(IndexError, match="frame 6 of a clip of 6 frames"):
        clip[6]
    with pytest.raises(IndexError, match=r"by frame and by rows \[a:b\]"):
        clip[0, 3]
    with pytest.raises(ValueError, match="without a copy"):
        np.array(clip, copy=False)
    with pytest.raises(ValueError, match="without a copy"):
        np.array(clip[::-1], copy=False)


def test_a_clip_has_frames_of_one_size() -> None:
    file = ClipFile()
    with pytest.raises(ValueError, match="one frame at least"):
        file.add([])
    odd = [np.zeros((4, 5, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)]
    with pytest.raises(
        ValueError, match=r"frame 1 of a clip is uint8 \(4, 6, 3\), the first is uint8 \(4, 5, 3\)"
    ):
        file.add(odd)
    # What was left of it is written over.
    (clip,) = clips(1, (2, 4, 5, 3))
    assert np.array_equal(np.asarray(file.add(clip)), clip)


def test_a_file_that_was_cut_short_is_said(tmp_path: Path) -> None:
    path = tmp_path / "clips"
    with path.open("w+b", buffering=0) as raw:
        clip = ClipFile(raw).add(clips(1, (2, 4, 5, 3))[0])
        os.truncate(path, 70)
        assert np.asarray(clip[:1]).shape == (1, 4, 5, 3)
        with pytest.raises(OSError, match="50 bytes too early"):
            np.asarray(clip)


def test_a_file_is_closed_with_its_last_clip(tmp_path: Path) -> None:
    raw = (tmp_path / "clips").open("w+b", buffering=0)
    clip = ClipFile(raw).add(clips(1, (2, 4, 5, 3))[0])
    part = clip[:1]
    del clip
    gc.collect()
    assert not raw.closed
    assert part[0].shape == (4, 5, 3)
    del part
    gc.collect()
    assert raw.closed


def test_few_small_clips_stay_in_memory_and_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    originals = clips(4, (2, 4, 5, 3))
    monkeypatch.setattr(clip_file, "IN_MEMORY", 4 * originals[0].nbytes)
    in_memory = keep(iter(originals))
    assert all(small is clip for small, clip in zip(in_memory, originals, strict=True))
    on_disk = keep(iter([*originals, originals[0]]))
    assert {type(clip) for clip in on_disk} == {StoredClip}
    assert np.array_equal(
        np.stack([np.asarray(clip) for clip in on_disk]), np.stack([*originals, originals[0]])
    )


def test_frames_are_joined_to_a_clip_in_memory_or_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    (clip,) = clips(1, (9, 4, 6, 3))
    assert isinstance(joined(iter(clip)), np.ndarray)
    np.testing.assert_array_equal(np.asarray(joined(iter(clip))), clip)
    monkeypatch.setattr(clip_file, "IN_MEMORY", 5 * clip[0].nbytes)
    large = joined(iter(clip))
    assert isinstance(large, StoredClip)
    np.testing.assert_array_equal(np.asarray(large), clip)


def test_a_clip_of_the_shipped_size_is_one_piece() -> None:
    assert pieces((33, 64, 96, 3)) == [slice(0, 33)]
    assert len(list(accuracy.blocks((33, 64, 96, 3)))) == 33
    assert pieces((3, 480, 720, 3)) == [slice(0, 1), slice(1, 2), slice(2, 3)]


@pytest.mark.parametrize("shape", [(33, 64, 96, 3), (5, 17, 9, 3)])
def test_small_clips_are_correlated_to_the_bit_as_before(shape: tuple[int, ...]) -> None:
    decoded = clips(6, shape, 1)
    true = clips(6, shape, 2)
    true = [np.clip(0.4 * a + 0.6 * b, 0, 255).astype(np.uint8) for a, b in zip(decoded, true, strict=True)]
    mean = np.rint(np.mean(true, 0)).astype(np.uint8)
    corr = correlations(stored(decoded), stored(true), mean)
    assert np.array_equal(corr, correlations(decoded, true, mean))
    assert np.array_equal(corr, as_before(decoded, true, mean))
    before = [
        np.square(a.astype(np.float32) - b.astype(np.float32)) for a, b in zip(decoded, true, strict=True)
    ]
    errors = np.array([square.mean(dtype=np.float64) for square in before])
    assert np.array_equal(psnr(stored(decoded), stored(true)), 10 * np.log10(255.0**2 / errors))


@pytest.mark.parametrize("shape", [WIDE, LARGE])
def test_large_clips_are_correlated_in_blocks(shape: tuple[int, ...]) -> None:
    assert len(list(accuracy.blocks(shape))) > 2 * shape[0]
    decoded = clips(4, shape, 1)
    true = clips(4, shape, 2)
    mean = np.rint(np.mean(true, 0)).astype(np.uint8)
    corr = correlations(stored(decoded), stored(true), mean)
    np.testing.assert_allclose(corr, as_before(decoded, true, mean), atol=1e-9, rtol=0)
    errors = np.array([np.square(a.astype(float) - b).mean() for a, b in zip(decoded, true, strict=True)])
    np.testing.assert_allclose(psnr(stored(decoded), true), 10 * np.log10(255.0**2 / errors), rtol=1e-9)


@pytest.mark.parametrize("shape", [(33, 64, 96, 3), WIDE, LARGE])
def test_steps_in_time_are_the_same_by_pieces(shape: tuple[int, ...]) -> None:
    decoded = clips(3, shape, 1)
    true = [clip[:-1] for clip in clips(3, shape, 2)]
    windows = [(0, 4.0 * k, 4.0 * k + 4) for k in range(3)]
    ratios = seam_ratio(stored(decoded), stored(true), windows, {})
    assert ratios is not None
    values = [clip.astype(np.float64) for clip in decoded]
    steps = np.mean([np.abs(np.diff(clip, axis=0)).mean() for clip in values[1:]])
    seams = np.mean([np.abs(a[-1] - b[0]).mean() for a, b in pairwise(values)])
    assert ratios["reconstruction"] == pytest.approx(seams / steps, rel=1e-6)


def test_the_shipped_size_keeps_its_single_sums() -> None:
    decoded = clips(2, (33, 64, 96, 3), 1)
    true = [clip[:-1] for clip in clips(2, (33, 64, 96, 3), 2)]
    ratios = seam_ratio(stored(decoded), stored(true), [(0, 0.0, 4.0), (0, 4.0, 8.0)], {})
    assert ratios is not None
    values = [clip.astype(np.float32) for clip in decoded]
    seam = float(np.abs(values[0][-1] - values[1][0]).mean())
    step = float(np.abs(values[1][1:] - values[1][:-1]).mean())
    assert ratios["reconstruction"] == seam / step


def peak(call: Callable[[], object]) -> int:
    """Bytes that a call takes at its highest."""
    tracemalloc.start()
    call()
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak_bytes


@pytest.mark.parametrize("shape", [(2, 300, 400, 3), (8, 300, 400, 3), (2, 900, 800, 3)])
def test_correlations_hold_a_few_blocks_whatever_the_size(shape: tuple[int, ...]) -> None:
    decoded = stored(clips(8, shape, 1))
    true = stored(clips(8, shape, 2))
    (mean,) = clips(1, shape, 3)
    block = 8 * accuracy.BLOCK * 8
    assert peak(lambda: correlations(decoded, true, mean)) < 6 * block


@pytest.mark.parametrize("frames", [4, 16])
def test_pixels_are_compared_by_a_few_frames_whatever_the_length(frames: int) -> None:
    shape = (frames, 600, 800, 3)
    decoded = stored(clips(3, shape, 1))
    true = stored(clips(3, shape, 2))
    spans = [(0, 4.0 * k, 4.0 * k + 4) for k in range(3)]
    shorter = [clip[:-1] for clip in true]
    frame = 600 * 800 * 3 * 8
    assert peak(lambda: psnr(decoded, true)) < 4 * frame
    assert peak(lambda: seam_ratio(decoded, shorter, spans, {})) < 4 * frame


class SlowFile(io.FileIO):
    """A file that takes a moment to move, in which another thread may come in between."""

    def seek(self, place: int, whence: int = 0) -> int:
        position = super().seek(place, whence)
        time.sleep(1e-3)
        return position


def test_several_threads_may_read_one_file(tmp_path: Path) -> None:
    pixels = clips(4, (6, 8, 10, 3))
    file = ClipFile(SlowFile(tmp_path / "clips", "w+"))
    stored_clips = [file.add(clip) for clip in pixels]

    def right(number: int) -> bool:
        return np.array_equal(np.stack(list(stored_clips[number])), pixels[number])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(right, range(4)))
