"""The two curves of a session's confidence as a picture: reliability, and risk against coverage."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from rtdecode.disk import private
from streaming.sinks.text import ALERT, FAINT, INK, PAPER, font

# Pixels: the side of a plot, and what lies around it.
_SIDE = 300
_MARGIN = 64
_TOP = 56
_FOOT = 52
_GAP = 56
_CURVE = (102, 178, 255)
_TICKS = 5

Point = tuple[float, float]


def save(path: Path, confidence: dict[str, Any], note: str = "") -> None:
    """Draw the section ``confidence`` of a report as PNG.

    Parameters
    ----------
    path : Path
        The PNG to write.
    confidence : dict
        `reliability` and `risk_coverage`, as `rtdecode.scores.reliability` makes them.
    note : str
        Sentence under the picture.
    """
    size = (2 * (_MARGIN + _SIDE + _GAP), _TOP + _SIDE + _FOOT + 30)
    picture = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture)
    curve = confidence["reliability"]
    risks = confidence["risk_coverage"]
    _reliability(draw, _MARGIN, curve)
    _risk_coverage(draw, 2 * _MARGIN + _SIDE + _GAP, risks)
    draw.text((_MARGIN, size[1] - 16), note, fill=ALERT, font=font(14), anchor="lm")
    part = path.with_suffix(".part.png")
    picture.save(private.file(part))
    part.replace(path)


def _reliability(draw: ImageDraw.ImageDraw, panel_x: int, curve: dict[str, Any]) -> None:
    title = f"reliability   calibration error {curve['ece']:.3f}, n {curve['n']}"
    _axes(draw, panel_x, title, "confidence", "2-way wins", 1.0)
    _line(draw, panel_x, [(0, 0), (1, 1)], 1.0, FAINT, 1)
    points = [(group["confidence"], group["win_rate"]) for group in curve["bins"]]
    _line(draw, panel_x, points, 1.0, _CURVE, 2)
    largest = max((group["n"] for group in curve["bins"]), default=1)
    for point, group in zip(points, curve["bins"], strict=True):
        x, y = _at(panel_x, point, 1.0)
        radius = 3 + 7 * (group["n"] / largest) ** 0.5
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_CURVE)
        draw.text((x + radius + 3, y + radius), str(group["n"]), fill=FAINT, font=font(11), anchor="lt")


def _risk_coverage(draw: ImageDraw.ImageDraw, panel_x: int, risks: dict[str, Any]) -> None:
    # The axis ends at the lowest of these values that no point exceeds.
    highest = next((top for top in (0.1, 0.2, 0.5) if max(risks["risk"], default=1.0) <= top), 1.0)
    _axes(
        draw,
        panel_x,
        f"risk and coverage   area {risks['area']:.3f}",
        "share of clips kept",
        "losses",
        highest,
    )
    _line(draw, panel_x, list(zip(risks["coverage"], risks["risk"], strict=True)), highest, _CURVE, 2)


def _axes(draw: ImageDraw.ImageDraw, panel_x: int, title: str, across: str, up: str, highest: float) -> None:
    draw.text((panel_x, 20), title, fill=INK, font=font(15), anchor="lm")
    draw.text((panel_x, _TOP - 12), up, fill=FAINT, font=font(12), anchor="lm")
    draw.text((panel_x + _SIDE, _TOP + _SIDE + 36), across, fill=FAINT, font=font(12), anchor="rm")
    for n in range(_TICKS + 1):
        share = n / _TICKS
        x, y = _at(panel_x, (share, share), 1.0)
        draw.line((panel_x, y, panel_x + _SIDE, y), fill=(52, 55, 62))
        draw.line((x, _TOP, x, _TOP + _SIDE), fill=(52, 55, 62))
        draw.text((panel_x - 8, y), f"{share * highest:.2g}", fill=FAINT, font=font(12), anchor="rm")
        draw.text((x, _TOP + _SIDE + 8), f"{share:.1f}", fill=FAINT, font=font(12), anchor="mt")
    draw.rectangle((panel_x, _TOP, panel_x + _SIDE, _TOP + _SIDE), outline=FAINT)


def _line(
    draw: ImageDraw.ImageDraw,
    panel_x: int,
    points: Sequence[Point],
    highest: float,
    colour: tuple[int, int, int],
    width: int,
) -> None:
    draw.line([_at(panel_x, point, highest) for point in points], fill=colour, width=width, joint="curve")


def _at(panel_x: int, point: Point, highest: float) -> Point:
    """Return the pixel of a point, with x from 0 to 1 and y from 0 to `highest`."""
    return panel_x + _SIDE * point[0], _TOP + _SIDE * (1 - min(1.0, point[1] / highest))
