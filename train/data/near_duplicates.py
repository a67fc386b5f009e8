"""Clips that look nearly the same, found by a perceptual hash of a few of their frames.

Television repeats itself: titles, sets and whole shots come again. A decoder that has seen such a clip in
training may show it in the test without having read anything of the brain. So results can be given with and
without the test windows that have a near-duplicate in training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

from rtdecode.errors import UsageError
from train.config.run_context import progress
from train.data.dataset import DataSet

# Rows and columns that a frame is reduced to, and of its lowest spatial frequencies that make the hash.
_SIDE = 32
_LOW = 8
# Where in a clip frames are looked at, as shares of its length.
_FRACTIONS = (1 / 6, 1 / 2, 5 / 6)
# A frame whose grey levels, of 255, deviate less than this from their mean shows nothing. All such frames are
# alike.
_FLAT = 1.0
# Frames are nearly the same if at most so many of 63 bits differ. Of unrelated frames about half do.
BITS = 6


@dataclass(frozen=True, slots=True)
class Pair:
    """A clip of the test, one of training that looks like it, and how many bits their frames differ by."""

    test: str
    train: str
    bits: int


def picture_hash(frame: NDArray[np.uint8]) -> int:
    """Hash a frame (row, column, 3): the signs of its 63 lowest spatial frequencies against their median.

    The frame is averaged to 32 x 32 grey levels, and the 8 x 8 lowest coefficients of its cosine transform
    but the mean make a bit each, as in pHash (Zauner 2010, "Implementation and benchmarking of perceptual
    image hash functions").
    """
    grey = Image.fromarray(frame).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    levels = np.asarray(grey, np.float64)
    if levels.std() < _FLAT:
        return 0
    waves: NDArray[np.float64] = np.asarray(dctn(levels, norm="ortho"))[:_LOW, :_LOW].ravel()[1:]
    bits = waves > np.median(waves)
    return int(sum(1 << n for n in np.flatnonzero(bits).tolist()))


def clip_hashes(clip: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Hash three frames of a clip (frame, row, column, 3), (3,)."""
    return np.array([picture_hash(clip[int(fraction * len(clip))]) for fraction in _FRACTIONS], np.uint64)


def hashes(data: DataSet, rows: Sequence[int] | NDArray[np.int64]) -> dict[str, NDArray[np.uint64]]:
    """Hash the clips that some windows show, name of what was shown -> (3,). Each is read once."""
    if "clips" not in data.columns:
        raise UsageError(
            "near-duplicates-without-clips",
            "{folder} has no clips, so near-duplicates cannot be looked for. Add the clips, or leave "
            "that out.",
            folder=data.folder,
        )
    first = {str(data.windows.shown[row]): int(row) for row in reversed(np.asarray(rows).tolist())}
    by_title = {}
    for title, row in progress(sorted(first.items()), "looking at clips", len(first)):
        by_title[title] = clip_hashes(data.read("clips", [row])[0])
    return by_title


def pairs(
    test: dict[str, NDArray[np.uint64]], train: dict[str, NDArray[np.uint64]], bits: int = BITS
) -> list[Pair]:
    """Find the clips of the test that look like a clip of training.

    They do if each looked-at frame of the first differs from some looked-at frame of the second by at most
    `bits` bits. Of each clip of the test the closest one of training is named.
    """
    duplicates: list[Pair] = []
    if not train:
        return duplicates
    names = list(train)
    train_hashes = np.stack([train[name] for name in names])
    for name, frame_hashes in test.items():
        distance = _distances(frame_hashes, train_hashes)
        nearest = int(distance.argmin())
        if distance[nearest] <= bits:
            duplicates.append(Pair(name, names[nearest], int(distance[nearest])))
    return duplicates


def alike(clips: NDArray[np.uint64], references: NDArray[np.uint64], bits: int = BITS) -> NDArray[np.bool_]:
    """Say which references each clip looks like, as `pairs` does, (clip, reference).

    Parameters
    ----------
    clips, references : (clip, frame)
        Hashes of both.
    bits : int
        By how many bits the hashes of frames that look alike may differ.
    """
    similar = [_distances(clip, references) <= bits for clip in clips]
    return np.array(similar, np.bool_).reshape(-1, len(references))


def _distances(clip: NDArray[np.uint64], references: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Count by how many bits the frames of a clip (frame,) differ from those of references (clip, frame)."""
    # (frame, reference, frame of the reference)
    differing = np.bitwise_count(clip[:, None, None] ^ references[None])
    return differing.min(axis=2).max(axis=0)


def without(data: DataSet, rows: NDArray[np.int64], duplicates: Sequence[Pair]) -> NDArray[np.bool_]:
    """Return which windows of the test have no near-duplicate in training, (row,).

    Figures over `rows` and over ``rows[without(...)]`` are the two results.
    """
    near: list[Any] = [pair.test for pair in duplicates]
    return ~np.isin(data.windows.shown[rows], near)
