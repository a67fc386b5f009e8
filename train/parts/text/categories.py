"""Categories of clips: the words of their captions that are said of no single place."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def category_names(captions: Sequence[str], count: int) -> list[str]:
    """Take the commonest words of captions, of those that are not said of single places, as categories.

    They are the words of events, and levels of brightness and motion; fewer where captions have no more.
    """
    counts = Counter(word for caption in captions for word in {*_words(caption)})
    # In the order of the alphabet where two are as common, so that the order of windows does not matter.
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return ranked[:count]


def categories_of(captions: Sequence[str], names: Sequence[str]) -> NDArray[np.float32]:
    """Say which categories captions name, (caption, category) of 0 and 1."""
    words_of = [{*_words(caption)} for caption in captions]
    return np.array([[name in words for name in names] for words in words_of], np.float32)


def _words(caption: str) -> list[str]:
    return [word for word in caption.split() if "/" not in word]
