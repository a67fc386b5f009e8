"""Text and enlarged frames, for the film and the contact sheet."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rtdecode.bundle.manifest import OFFLINE

Picture = NDArray[np.uint8]

PAPER = (24, 26, 30)
INK = (226, 228, 232)
FAINT = (140, 146, 156)
ALERT = (255, 176, 64)


def banner(note: str | None, chain: str, *, simulated: bool, bundle_simulated: bool) -> str:
    """Return the words under every picture.

    Parameters
    ----------
    note : str or None
        Of the bundle; left out where the participant is simulated.
    chain : str
        Of the bundle; ``offline`` is told.
    simulated : bool
        Whether a source says that the participant is simulated.
    bundle_simulated : bool
        Whether the bundle was made for a simulated brain; said where the participant is not.
    """
    words = [
        "SIMULATED PARTICIPANT" if simulated else note,
        "DECODER OF A SIMULATED BRAIN" if bundle_simulated and not simulated else None,
        "TRAINED OFFLINE" if chain == OFFLINE else None,
    ]
    return ", ".join(filter(None, words))


def enlarge(frame: Picture, scale: int) -> Picture:
    """Enlarge a frame (row, column, 3) by a whole factor, bicubic."""
    height, width = frame.shape[:2]
    picture = Image.fromarray(frame).resize((width * scale, height * scale), Image.Resampling.BICUBIC)
    return np.asarray(picture)


def bar(width: int, height: int, lines: list[tuple[str, tuple[int, int, int]]], size: int = 15) -> Picture:
    """Draw lines of coloured text on a dark bar, (height, width, 3)."""
    picture = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(picture)
    step = height // max(1, len(lines))
    for row, (text, colour) in enumerate(lines):
        draw.text((8, row * step + step // 2), text, fill=colour, font=font(size), anchor="lm")
    return np.asarray(picture)


def card(width: int, height: int, text: str) -> Picture:
    """Draw a grey card with a word in its middle, (height, width, 3)."""
    picture = Image.new("RGB", (width, height), (88, 90, 94))
    draw = ImageDraw.Draw(picture)
    draw.text((width // 2, height // 2), text, fill=INK, font=font(18), anchor="mm", align="center")
    return np.asarray(picture)


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font that comes with Pillow."""
    return ImageFont.load_default(size)
