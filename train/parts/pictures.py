"""Pictures of a run: curves and rows of clips."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image


def curves(table: dict[str, list[float]], axis: str, chance: float) -> Image.Image:
    """Draw accuracies against the first column of a table.

    Parameters
    ----------
    table : dict
        The first entry is the abscissa, the others are curves.
    axis : str
        Label of the abscissa.
    chance : float
        Drawn as a dashed line.
    """
    (_, x), *lines = table.items()
    figure = Figure(figsize=(6, 3.6), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    for name, y in lines:
        axes.plot(x, y, marker="o", label=name)
    axes.axhline(chance, linestyle="--", color="grey", label="chance")
    axes.set(xlabel=axis, ylabel="accuracy", ylim=(0, 1))
    axes.legend(loc="upper right", ncols=3)
    return _image(figure)


def _image(figure: Figure) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def rows(clips: Sequence[NDArray[Any]], frames: Sequence[int]) -> Image.Image:
    """Lay chosen frames of clips side by side, one row a clip.

    Parameters
    ----------
    clips : sequence of uint8 (frame, row, column, 3)
    frames : sequence of int
    """
    sheet = np.concatenate([np.concatenate([clip[f] for f in frames], axis=1) for clip in clips])
    return Image.fromarray(np.asarray(sheet, np.uint8))
