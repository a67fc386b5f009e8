"""Frames and captions that are changed a little, for a training that compares with other ones each time.

The changes are those of Chen et al. 2023 (arXiv:2305.11675, section 3.3): crops of frames, and words of
captions that are swapped and replaced. What is drawn follows from the frame or the captions alone.
"""

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

# Least side of a crop, of the frame's.
_SMALLEST = 0.8
# Of the words of a caption that are swapped with another one, and that are replaced; one of each at least.
_SHARE = 0.1


def crops(frame: NDArray[np.uint8], count: int) -> list[NDArray[np.uint8]]:
    """Cut so many parts out of a frame (row, column, 3), at least 0.8 of its rows and of its columns."""
    rng = _rng(np.ascontiguousarray(frame).tobytes())
    rows, columns, _ = frame.shape
    parts = []
    for side in rng.uniform(_SMALLEST, 1, count):
        height = max(1, round(side * rows))
        width = max(1, round(side * columns))
        first_row = int(rng.integers(rows - height + 1))
        first_column = int(rng.integers(columns - width + 1))
        parts.append(frame[first_row : first_row + height, first_column : first_column + width])
    return parts


def changed_captions(captions: NDArray[np.str_], count: int) -> NDArray[np.str_]:
    """Change words of captions.

    A word is replaced by one of another of these captions, where there is any, and two words change places.

    Parameters
    ----------
    captions : (title, frame)
        A caption of each frame, or one of the whole clip.
    count : int
        So many changes of each.

    Returns
    -------
    (title, frame, 1 + change)
        Each caption as it is, and then changed.
    """
    texts = captions.ravel().tolist()
    rng = _rng("\n".join(texts).encode())
    vocabulary = sorted({word for text in texts for word in text.split()})
    versions = [[text, *(_changed(text, vocabulary, rng) for _ in range(count))] for text in texts]
    return np.array(versions).reshape(*captions.shape, 1 + count)


def _changed(text: str, vocabulary: list[str], rng: np.random.Generator) -> str:
    words = text.split()
    if not words:
        return text
    some = math.ceil(_SHARE * len(words))
    for place in rng.choice(len(words), some, replace=False):
        words[place] = vocabulary[rng.integers(len(vocabulary))]
    for _ in range(some):
        first, second = rng.integers(len(words), size=2)
        words[first], words[second] = words[second], words[first]
    return " ".join(words)


def _rng(content: bytes) -> np.random.Generator:
    return np.random.default_rng(list(hashlib.sha256(content).digest()))
