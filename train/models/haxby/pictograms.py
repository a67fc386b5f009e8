"""Drawn pictures of named categories, for decoders that tell what was seen but not how it looked.

`pictograms` gives one page for each label: its drawing from `DRAWINGS`, and a caption below it.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_FINE = 4  # drawn this much larger, then averaged down
_PAPER = (246, 243, 236)
_INK = (44, 48, 58)


class Pen:
    """Draws on a square of 100 x 100 units, y downwards."""

    def __init__(self, draw: ImageDraw.ImageDraw, x0: float, y0: float, unit: float) -> None:
        self._draw = draw
        self._x0 = x0
        self._y0 = y0
        self._unit = unit

    def _at(self, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(self._x0 + x * self._unit, self._y0 + y * self._unit) for x, y in points]

    def shape(self, colour: str, *points: tuple[float, float]) -> None:
        """Fill a polygon."""
        self._draw.polygon(self._at(points), fill=colour)

    def oval(self, colour: str, x0: float, y0: float, x1: float, y1: float) -> None:
        """Fill an ellipse."""
        self._draw.ellipse([*self._at([(x0, y0)])[0], *self._at([(x1, y1)])[0]], fill=colour)

    def box(self, colour: str, x0: float, y0: float, x1: float, y1: float, round_: float = 0) -> None:
        """Fill a rectangle with rounded corners."""
        corners = [*self._at([(x0, y0)])[0], *self._at([(x1, y1)])[0]]
        self._draw.rounded_rectangle(corners, round_ * self._unit, fill=colour)

    def line(self, colour: str, width: float, *points: tuple[float, float]) -> None:
        """Draw a line with round joints."""
        self._draw.line(self._at(points), fill=colour, width=round(width * self._unit), joint="curve")
        for x, y in (points[0], points[-1]):
            self.oval(colour, x - width / 2, y - width / 2, x + width / 2, y + width / 2)


def pictograms(labels: Sequence[str], size: tuple[int, int], caption: str) -> NDArray[np.uint8]:
    """Draw one picture for each category.

    Parameters
    ----------
    labels : sequence of str
        Names of categories that there are drawings of.
    size : (height, width)
        Pixels.
    caption : str
        Text that is written small below every drawing.

    Returns
    -------
    uint8, (label, height, width, 3)
    """
    return np.stack([_page(DRAWINGS[label], size, caption) for label in labels])


def _page(drawing: Callable[[Pen], None], size: tuple[int, int], caption: str) -> NDArray[np.uint8]:
    height = size[0] * _FINE
    width = size[1] * _FINE
    page = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(page)
    text = ",\n".join(caption.rsplit(", ", 1))
    font = ImageFont.load_default(size=8 * _FINE)
    draw.multiline_text((width / 2, height - 2 * _FINE), text, _INK, font, anchor="md", align="center")
    unit = (height - 26 * _FINE) / 100
    drawing(Pen(draw, width / 2 - 50 * unit, 4 * _FINE, unit))
    return np.asarray(page.resize((size[1], size[0]), Image.Resampling.BOX), np.uint8)


def _house(pen: Pen) -> None:
    pen.box("#9a4a3c", 68, 12, 78, 40)
    pen.box("#e7c27d", 18, 42, 82, 96)
    pen.shape("#b4513f", (8, 46), (50, 8), (92, 46))
    pen.box("#6b4a3a", 42, 64, 58, 96, 1)
    pen.oval("#e7c27d", 53, 79, 56, 82)
    for x in (25, 64):
        pen.box("#8fc1dc", x, 56, x + 12, 70, 1)
        pen.line("#ffffff", 1.5, (x + 6, 57), (x + 6, 69))
        pen.line("#ffffff", 1.5, (x + 1, 63), (x + 11, 63))


def _scrambled(pen: Pen) -> None:
    rng = np.random.default_rng(7)
    greys = ["#30343d", "#5d636e", "#8c929c", "#b6bac1", "#dcdee2"]
    for row in range(12):
        for column in range(12):
            x = 8 + 7 * column
            y = 8 + 7 * row
            pen.box(str(rng.choice(greys)), x, y, x + 7, y + 7)


def _cat(pen: Pen) -> None:
    fur, dark = "#d98e4a", "#a9652a"
    pen.shape(fur, (18, 48), (16, 8), (46, 28))
    pen.shape(fur, (82, 48), (84, 8), (54, 28))
    pen.shape("#f0b9a0", (23, 36), (22, 17), (36, 27))
    pen.shape("#f0b9a0", (77, 36), (78, 17), (64, 27))
    pen.oval(fur, 13, 22, 87, 92)
    for x in (42, 50, 58):
        pen.line(dark, 3, (x, 26), (x, 37))
    for x in (33, 67):
        pen.oval("#dfe8a8", x - 8, 46, x + 8, 62)
        pen.oval("#23262d", x - 2.6, 47, x + 2.6, 61)
    pen.shape("#c0605a", (45, 68), (55, 68), (50, 74))
    pen.line(dark, 1.8, (50, 74), (44, 80), (38, 78))
    pen.line(dark, 1.8, (50, 74), (56, 80), (62, 78))
    for side in (-1, 1):
        for y in (68, 73, 78):
            pen.line("#fff6e8", 1.2, (50 + 16 * side, 72), (50 + 42 * side, y - 2))


def _shoe(pen: Pen) -> None:
    leather = "#3f6fa8"
    pen.shape(leather, (12, 30), (38, 30), (58, 52), (80, 58), (92, 66), (94, 78), (8, 78))
    pen.oval(leather, 74, 56, 96, 82)
    pen.shape("#f4f4f1", (80, 58), (90, 63), (94, 72), (84, 70))
    pen.box("#f4f4f1", 6, 76, 97, 86, 4)
    pen.box("#c9c9c4", 6, 82, 97, 87, 2)
    pen.oval("#27486f", 12, 26, 38, 35)
    for x, y in ((42, 38), (48, 44), (54, 50)):
        pen.line("#ffffff", 2.4, (x - 7, y + 7), (x + 4, y - 1))
    pen.line("#27486f", 2, (14, 46), (26, 60), (26, 74))


def _bottle(pen: Pen) -> None:
    glass, light = "#3b8a62", "#8cc7a5"
    pen.box("#b98a56", 44, 2, 56, 12, 1)
    pen.box(glass, 43, 10, 57, 40, 1)
    pen.oval(glass, 31, 31, 69, 63)
    pen.box(glass, 31, 46, 69, 97, 5)
    pen.box("#f2ead6", 31, 58, 69, 82)
    pen.box("#b4513f", 31, 66, 69, 73)
    pen.line(light, 3, (37, 48), (37, 55))
    pen.line(light, 3, (37, 86), (37, 92))
    pen.line(light, 2.4, (46.5, 14), (46.5, 34))


def _scissors(pen: Pen) -> None:
    steel, grip = "#8d96a3", "#c8463f"
    pen.shape(steel, (28, 4), (35, 6), (57, 58), (50, 62))
    pen.shape("#a9b1bc", (72, 4), (65, 6), (43, 58), (50, 62))
    for x in (33, 67):
        pen.oval(grip, x - 16, 64, x + 16, 98)
        pen.oval("#f6f3ec", x - 8.5, 72, x + 8.5, 90)
    pen.line(grip, 8, (54, 57), (61, 68))
    pen.line(grip, 8, (46, 57), (39, 68))
    pen.oval("#4d535d", 46.5, 48, 53.5, 55)


def _chair(pen: Pen) -> None:
    wood, dark = "#a9713f", "#7d4f29"
    for x in (28, 72):
        pen.line(dark, 6, (x, 58), (x, 95))
    for x in (24, 70):
        pen.line(wood, 6, (x + 3, 6), (x + 3, 60))
    for y in (12, 25, 38):
        pen.box(wood, 26, y, 74, y + 7, 2)
    pen.shape("#c4574a", (20, 54), (80, 54), (86, 66), (14, 66))
    pen.box(wood, 14, 65, 86, 71, 2)
    for x in (18, 82):
        pen.line(wood, 6, (x, 70), (x, 97))
    pen.line(dark, 3, (28, 84), (72, 84))


def _face(pen: Pen) -> None:
    skin, hair = "#e6b48c", "#4b3527"
    pen.oval(hair, 20, 2, 80, 74)
    for x in (19, 81):
        pen.oval("#d79f76", x - 6, 44, x + 6, 62)
    pen.oval(skin, 22, 12, 78, 98)
    pen.shape(hair, (22, 40), (25, 20), (50, 6), (75, 20), (78, 40), (66, 24), (40, 22))
    for x in (37, 63):
        pen.oval("#ffffff", x - 7, 44, x + 7, 54)
        pen.oval("#3c6a8c", x - 3.6, 45, x + 3.6, 53)
        pen.oval("#1d1f24", x - 1.8, 47, x + 1.8, 51)
        pen.line(hair, 2.6, (x - 8, 39), (x, 36.5), (x + 8, 39))
    pen.line("#c08a62", 2.2, (50, 52), (47, 66), (53, 67))
    pen.line("#b24b4b", 3.4, (39, 79), (45, 83), (55, 83), (61, 79))


DRAWINGS: dict[str, Callable[[Pen], None]] = {
    "house": _house,
    "scrambledpix": _scrambled,
    "cat": _cat,
    "shoe": _shoe,
    "bottle": _bottle,
    "scissors": _scissors,
    "chair": _chair,
    "face": _face,
}
