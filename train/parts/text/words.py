"""Captions from what is measured of clips, and a table of words in place of a text encoder.

A caption says how red, green and blue each place is in each third of a clip, how bright a clip is, and where
it moves. Words that an events file has for a window come last, as they stand there: nobody needs to know what
they mean. Words that are joined by slashes are one token, whose vector is the sum of theirs: what red is need
not be learned for each place anew.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rtdecode.disk.clip_file import Pixels
from rtdecode.scores.colours import layouts
from train.metrics.layout import LUMINANCE
from train.metrics.motion import DIRECTIONS, motion_energy

# Stands between the words of one token, and the most words that one has.
_JOIN = "/"
_TOGETHER = 5
_THIRDS = ("early", "midway", "late")
_CHANNELS = ("red", "green", "blue")
# Grey levels of a channel that one word stands for.
_STEP = 32
_ROWS = ("top", "upper", "lower", "bottom")
_COLUMNS = ("far-left", "left", "mid-left", "mid-right", "right", "far-right")
# The middle of the levels, and their standard deviation if all were equally common.
_MIDDLE = 3.5
_SPREAD = 2.3
# Mean luminance up to which a clip is called so, in grey levels of 0 to 255.
_BRIGHTNESS = {"dark": 60.0, "dim": 110.0, "light": 160.0, "bright": 256.0}
_WAYS = ("right", "up-right", "up", "up-left", "left", "down-left", "down", "down-right")
# A clip whose net motion is weaker is called still, in grey levels of 0 to 255.
_STILL = 2.0


def captions(clips: Sequence[Pixels], event_words: Sequence[str] | None = None) -> list[str]:
    """Write a caption for each clip.

    Parameters
    ----------
    clips : sequence of uint8 (frame, row, column, 3)
        What is described.
    event_words : sequence of str, optional
        The words that an events file has for each of them.
    """
    measured = _measured(clips)
    if event_words is None:
        return measured
    return [f"{caption} {words}".strip() for words, caption in zip(event_words, measured, strict=True)]


def _measured(clips: Sequence[Pixels]) -> list[str]:
    thirds = [np.array_split(clip, len(_THIRDS)) for clip in clips]
    colours = np.stack([layouts(list(third)) for third in zip(*thirds, strict=True)], axis=1)
    energies = motion_energy(clips).mean(axis=(2, 3))
    lights = (colours @ LUMINANCE).mean(axis=(1, 2, 3))
    return [
        f"{_places(layout)} {_brightness(light)} {_motion(energy)}"
        for light, energy, layout in zip(lights, energies, colours, strict=True)
    ]


def _brightness(luminance: float) -> str:
    return next(word for word, limit in _BRIGHTNESS.items() if luminance <= limit)


def _motion(energy: NDArray[np.float64]) -> str:
    """Name the way in which most of a clip moves, from the energy in each direction."""
    half = len(DIRECTIONS) // 2
    net = np.sqrt(energy) - np.sqrt(np.roll(energy, half))
    return f"moving-{_WAYS[int(net.argmax())]}" if net.max() >= _STILL else "still"


def _places(layout: NDArray[np.float64]) -> str:
    """Say how red, green and blue each of a clip's (third, 4, 6, 3) cells is, in levels from 0 to 7."""
    levels = (layout / _STEP).astype(int)
    return " ".join(
        _JOIN.join([time, f"{row}-{column}", *_colour(levels[t, r, c])])
        for t, time in enumerate(_THIRDS)
        for r, row in enumerate(_ROWS)
        for c, column in enumerate(_COLUMNS)
    )


def _colour(levels: NDArray[np.int64]) -> list[str]:
    return [f"{channel}-{level}" for channel, level in zip(_CHANNELS, levels, strict=True)]


class Vocabulary:
    """The words of some captions, by number. Number 0 stands for no word, and for one that is not known.

    Parameters
    ----------
    words : sequence of str
        In the order of their numbers, from 1 on.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self._numbers = {word: number for number, word in enumerate(words, start=1)}

    @classmethod
    def of(cls, captions: Sequence[str]) -> "Vocabulary":
        """Collect the words of captions, in the order of the alphabet."""
        tokens = {token for caption in captions for token in caption.split()}
        return cls(sorted({word for token in tokens for word in token.split(_JOIN)}))

    def numbers(self, captions: Sequence[str], tokens: int) -> NDArray[np.int64]:
        """Turn captions into numbers, (caption, token, word).

        Longer captions and tokens of more than five words are cut, shorter ones are filled with 0.
        """
        numbers = np.zeros((len(captions), tokens, _TOGETHER), np.int64)
        for rows, caption in zip(numbers, captions, strict=True):
            # There may be fewer of them than rows.
            for row, token in zip(rows, caption.split(), strict=False):
                known_words = [self._numbers.get(word, 0) for word in token.split(_JOIN)[:_TOGETHER]]
                row[: len(known_words)] = known_words
        return numbers


class WordTable(nn.Module):
    """A vector for each word: tokens of a text for a model whose text encoder is not to be had.

    No word has the vector zero.

    Parameters
    ----------
    words : int
        Number of words, without the one that stands for none.
    width : int
        Values of a word's vector.
    """

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(words + 1, width, padding_idx=0)

    def forward(self, numbers: Tensor) -> Tensor:
        """Turn numbers (batch, token, word) into tokens (batch, token, width)."""
        return self.table(numbers).sum(2)


@torch.no_grad()
def line_up(table: WordTable, words: Sequence[str]) -> None:
    """Let words that end in a level begin on a line, in the order of their levels: ``red-3``.

    What the brain says of a level lies between levels. On a line that is a vector of what lies between.

    Parameters
    ----------
    table : WordTable
        Its vectors are changed in place.
    words : sequence of str
        In the order of their numbers, from 1 on.
    """
    scales: dict[str, list[tuple[int, int]]] = {}
    for number, word in enumerate(words, start=1):
        scale, _, level = word.rpartition("-")
        if level.isdecimal():
            scales.setdefault(scale, []).append((number, int(level)))
    weights = table.table.weight
    for places in scales.values():
        along = torch.randn(weights.shape[1]) / 2**0.5
        for number, level in places:
            weights[number] = along * (level - _MIDDLE) / _SPREAD
