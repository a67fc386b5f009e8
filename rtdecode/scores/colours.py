"""Colours of clips and of their parts, and the clips that know these alone: floors of identification."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import Pixels

# Rows and columns of the cells of a layout.
CELLS = (4, 6)
# Of a still layout, which is drawn.
STILL = (2, 3)

Matrix = NDArray[np.float64]


def layouts(clips: Sequence[Pixels], cells: tuple[int, int] = CELLS) -> Matrix:
    """Average clips over cells and over time, (clip, *cells, 3), in grey levels of 0 to 255.

    Parameters
    ----------
    clips : sequence of (frame, row, column, 3)
        Rows and columns that no cell gets in full, at the lower and the right edge, are left out.
    cells : (int, int)
        Rows and columns of cells.
    """
    return np.array([_layout(np.asarray(clip, np.float32), cells) for clip in clips])


def _layout(clip: NDArray[np.float32], cells: tuple[int, int]) -> Matrix:
    picture = clip.mean(axis=0, dtype=np.float64)
    rows, columns = cells
    height = picture.shape[0] // rows
    width = picture.shape[1] // columns
    in_cells = picture[: rows * height, : columns * width]
    return in_cells.reshape(rows, height, columns, width, 3).mean(axis=(1, 3))


def one_colour(clips: Sequence[Pixels]) -> list[NDArray[np.float32]]:
    """Reduce each clip to its mean colour, which fills it."""
    return [_filled(np.asarray(clip, np.float32)) for clip in clips]


def drawn_layout(colours: NDArray[np.floating], shape: Sequence[int]) -> list[NDArray[np.float32]]:
    """Draw clips that stand still: each part of the picture has one colour.

    Parameters
    ----------
    colours : (clip, row, column, 3)
        Such as of `layouts`. A single row and column fill the picture with one colour.
    shape : (frame, row, column, 3)
        Of a clip.
    """
    rows, columns = (_places(shape[n], colours.shape[n]) for n in (1, 2))
    pictures = np.clip(colours, 0, 255).astype(np.float32)[:, rows][:, :, columns]
    return [np.broadcast_to(picture, shape) for picture in pictures]


def _places(size: int, count: int) -> NDArray[np.int64]:
    """Tell in which of `count` parts each of `size` pixels lies."""
    return np.arange(size) * count // size


def _filled(clip: NDArray[np.float32]) -> NDArray[np.float32]:
    colour = clip.mean(axis=(0, 1, 2), dtype=np.float64).astype(np.float32)
    return np.broadcast_to(colour, clip.shape)
