"""Consistency of frames: a frozen clip has all of it, and each definition is its own formula."""

import numpy as np
import pytest

from train.metrics.consistency import all_pairs, consecutive, to_first_and_previous

MEASURES = (all_pairs, consecutive, to_first_and_previous)


def features(seed: int = 0, clips: int = 3, frames: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(clips, frames, 12)).astype(np.float32)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_a_frozen_clip_has_all_of_it() -> None:
    still = np.repeat(features(frames=1), 6, axis=1)
    for measure in MEASURES:
        np.testing.assert_allclose(measure(still), 1, atol=1e-6)


def test_each_is_the_published_formula() -> None:
    clip = features(1).astype(np.float64)
    for n, frames in enumerate(clip):
        pairs = [cosine(frames[i], frames[j]) for i in range(5) for j in range(5) if i != j]
        assert all_pairs(clip)[n] == pytest.approx(np.mean(pairs))
        steps = [cosine(frames[i], frames[i - 1]) for i in range(1, 5)]
        assert consecutive(clip)[n] == pytest.approx(np.mean(steps))
        both = [
            (max(0, cosine(frames[i], frames[i - 1])) + max(0, cosine(frames[i], frames[0]))) / 2
            for i in range(1, 5)
        ]
        assert to_first_and_previous(clip)[n] == pytest.approx(np.mean(both))


def test_one_frame_is_not_consistent_with_anything() -> None:
    for measure in MEASURES:
        assert np.isnan(measure(features(frames=1))).all()
