"""Clips that look nearly the same are found, and others are not."""

import numpy as np
from PIL import Image

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.data.held import MemoryDataSet, table
from train.data import near_duplicates as near


def scene(seed: int, height: int = 72, width: int = 96) -> np.ndarray:
    """A picture with soft shapes of many sizes."""
    draws = np.random.default_rng(seed)
    coarse = Image.fromarray(draws.integers(0, 256, (9, 12, 3), np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.uint8)


def clip(seed: int, frames: int = 9) -> np.ndarray:
    return np.stack([np.roll(scene(seed), frame, 1) for frame in range(frames)])


def bits(first: int, second: int) -> int:
    return (first ^ second).bit_count()


def test_a_picture_is_known_again_in_another_size_brightness_and_quality() -> None:
    for seed in range(10):
        picture = scene(seed)
        picture_hash = near.picture_hash(picture)
        small = np.asarray(Image.fromarray(picture).resize((48, 36), Image.Resampling.BOX))
        dark = (picture * 0.7).astype(np.uint8)
        noisy = np.clip(picture + np.random.default_rng(1).normal(0, 4, picture.shape), 0, 255).astype(
            np.uint8
        )
        for other in (small, dark, noisy):
            assert bits(picture_hash, near.picture_hash(other)) <= near.BITS


def test_other_pictures_differ_in_about_half_of_the_bits() -> None:
    hashes = [near.picture_hash(scene(seed)) for seed in range(40)]
    distances = [bits(hashes[n], hashes[k]) for n in range(40) for k in range(n)]
    assert 28 < np.mean(distances) < 35
    assert min(distances) > near.BITS
    assert all(picture_hash >> 63 == 0 for picture_hash in hashes), "63 bits"


def test_pictures_that_show_nothing_are_all_alike() -> None:
    black = np.zeros((72, 96, 3), np.uint8)
    assert near.picture_hash(black) == near.picture_hash(black + 255) == 0
    assert near.picture_hash(scene(0)) != 0


def planted() -> MemoryDataSet:
    """Two test clips; the first one comes again in training, later by a frame and darker."""
    clips = [clip(1), clip(2), clip(3), (clip(2) * 0.8).astype(np.uint8)]
    windows = table(("A", "run-1", "t", True), *(("A", "run-2", f"{n}", False) for n in range(3)))
    clips[0] = np.roll(clip(2), 1, axis=0)
    clips[1] = clip(4)
    return MemoryDataSet(windows, {"clips": clips})


def test_a_near_duplicate_that_was_planted_is_found_and_results_without_it_are_possible() -> None:
    data = planted()
    pairs = near.pairs(near.hashes(data, [0]), near.hashes(data, [1, 2, 3]))
    assert [(pair.test, pair.train) for pair in pairs] == [("t", "2")]
    assert pairs[0].bits <= near.BITS
    assert near.without(data, np.array([0]), pairs).tolist() == [False]
    assert near.without(data, np.array([0]), []).tolist() == [True]
    assert near.pairs(near.hashes(data, [0]), near.hashes(data, [1, 2])) == []
    assert near.pairs(near.hashes(data, [0]), {}) == []


def test_one_frame_that_is_alike_does_not_make_a_clip_alike() -> None:
    other = clip(4)
    other[4] = clip(2)[4]
    windows = table(("A", "run-1", "t", True), ("A", "run-2", "x", False))
    data = MemoryDataSet(windows, {"clips": [clip(2), other]})
    assert near.pairs(near.hashes(data, [0]), near.hashes(data, [1])) == []


def test_a_clip_is_read_once_however_often_it_is_shown() -> None:
    windows = table(*((subject, "run-1", film, False) for subject in ("A", "B") for film in ("x", "y")))
    data = MemoryDataSet(windows, {"clips": [clip(n % 2) for n in range(4)]})
    assert list(near.hashes(data, [3, 0, 1, 2])) == ["x", "y"]
    assert data.reads == [1, 1]


def test_without_clips_it_is_refused() -> None:
    data = MemoryDataSet(table(("A", "run-1", "x", False)), {"fmri": [np.zeros((5, 3))]})
    with refused(UsageError, "near-duplicates-without-clips"):
        near.hashes(data, [0])


def test_every_clip_that_looks_like_another_is_found() -> None:
    hashes = np.stack([near.clip_hashes(clip(seed)) for seed in range(4)])
    noise = np.random.default_rng(0).normal(0, 4, clip(0).shape)
    noisy = np.clip(clip(2) + noise, 0, 255).astype(np.uint8)
    similar = near.alike(np.stack([near.clip_hashes(noisy), hashes[0]]), hashes)
    assert similar.tolist() == [[False, False, True, False], [True, False, False, False]]
