"""Colours of clips and of their parts, and the clips that know these alone: floors of identification."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import ComputedClip, Pixels, pieces
from rtdecode.scores.means import mean_picture

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
    return np.array([_in_cells(mean_picture(clip), cells) for clip in clips])


def _in_cells(picture: Matrix, cells: tuple[int, int]) -> Matrix:
    rows, columns = cells
    height = picture.shape[0] // rows
    width = picture.shape[1] // columns
    in_cells = picture[: rows * height, : columns * width]
    return in_cells.reshape(rows, height, columns, width, 3).mean(axis=(1, 3))


def one_colour(clips: Sequence[Pixels]) -> list[NDArray[np.float32]]:
    """Reduce each clip to its mean colour, which fills it and takes no room."""
    return [_filled(clip) for clip in clips]


def drawn_layout(colours: NDArray[np.floating], shape: Sequence[int]) -> list[Pixels]:
    """Draw clips that stand still: each part of the picture has one colour.

    Parameters
    ----------
    colours : (clip, row, column, 3)
        Such as of `layouts`. A single row and column fill the picture with one colour.
    shape : (frame, row, column, 3)
        Of a clip.

    Returns
    -------
    list of float32 (frame, row, column, 3)
        Pictures are drawn where they are looked at: as arrays they would fill the memory where clips are
        large and many.
    """
    layouts = np.clip(colours, 0, 255).astype(np.float32)
    return [_drawn(layout, shape) for layout in layouts]


def _drawn(layout: NDArray[np.float32], shape: Sequence[int]) -> ComputedClip:
    rows, columns = (_places(shape[n + 1], layout.shape[n]) for n in (0, 1))
    return ComputedClip(shape, lambda _, some: layout[rows[some]][:, columns])


def _places(size: int, count: int) -> NDArray[np.int64]:
    """Tell in which of `count` parts each of `size` pixels lies."""
    return np.arange(size) * count // size


def _filled(clip: Pixels) -> NDArray[np.float32]:
    total = np.zeros(3)
    for frames in pieces(clip.shape):
        total += np.asarray(clip[frames], np.float32).sum(axis=(0, 1, 2), dtype=np.float64)
    colour = (total / np.prod(clip.shape[:3])).astype(np.float32)
    return np.broadcast_to(colour, clip.shape)
