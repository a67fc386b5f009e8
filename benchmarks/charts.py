"""Bars with their intervals, as an SVG that is the same to the byte wherever it is drawn.

A chart is TOML: ``title``, ``low`` and ``high`` (the ends of the axis), ``ticks``, and ``[[group]]`` with
``title``, ``bars`` (label -> place of a figure) and ``floors`` (label -> place), which are lines over the
bars of their group. `benchmarks.tables.figure` finds what stands at a place.
"""

import tomllib
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

_WIDTH = 860
_LABEL_WIDTH = 250
_RIGHT = 150
_ROW = 22
_TOP = 44
# Dashes and colour of each floor, by what its label says before a comma: the same in every chart.
_FLOORS = {
    "chance": ("2 3", "#444444"),
    "null brain": ("7 3", "#b3471d"),
    "nearest training clip": ("1 0", "#7a3e9d"),
}
_BAR = "#7ea6d8"
_FONT = 'font-family="sans-serif" font-size="12"'


def svg(toml: str, figure: Callable[[str], Any]) -> str:
    """Draw a chart.

    Parameters
    ----------
    toml : str
        The chart.
    figure : callable
        From a place to a number, or to a mapping with ``value`` and ``ci95``.

    Returns
    -------
    str
        The picture, which ends with a line's end.
    """
    chart = tomllib.loads(toml)
    floors = list(dict.fromkeys(label for group in chart["group"] for label in group.get("floors", {})))
    rows = sum(1 + len(group["bars"]) for group in chart["group"])
    height = _TOP + rows * _ROW + 30 + 20 * len(floors)
    size = f'width="{_WIDTH}" height="{height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {_WIDTH} {height}">',
        f'<rect {size} fill="#ffffff"/>',
        _text(12, 22, chart["title"], weight="bold"),
        *_body(chart, figure),
        *_legend(floors, _TOP + rows * _ROW + 34),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _body(chart: dict[str, Any], figure: Callable[[str], Any]) -> Iterator[str]:
    """Draw the axis, and each group with its bars and floors."""

    def x(value: float) -> float:
        share = (min(max(value, chart["low"]), chart["high"]) - chart["low"]) / (chart["high"] - chart["low"])
        return _LABEL_WIDTH + share * (_WIDTH - _LABEL_WIDTH - _RIGHT)

    bottom = _TOP + _ROW * sum(1 + len(group["bars"]) for group in chart["group"])
    for tick in chart["ticks"]:
        yield _line(x(tick), _TOP, x(tick), bottom, "#dddddd")
        yield _text(x(tick), bottom + 14, f"{tick:g}", anchor="middle")
    y = _TOP
    for group in chart["group"]:
        yield _text(12, y + 16, group["title"], weight="bold")
        y += _ROW
        first = y
        for label, place in group["bars"].items():
            bar = figure(place)
            low, high = bar["ci95"]
            middle = y + _ROW / 2
            width = x(bar["value"]) - x(chart["low"])
            yield _text(24, y + 15, label)
            size = f'width="{width:.1f}" height="{_ROW - 8}"'
            yield f'<rect x="{_LABEL_WIDTH}" y="{y + 4}" {size} fill="{_BAR}"/>'
            yield _line(x(low), middle, x(high), middle, "#000000")
            yield from (_line(x(end), middle - 4, x(end), middle + 4, "#000000") for end in (low, high))
            words = f"{bar['value']:.3f} ({low:.3f} to {high:.3f})"
            yield _text(_WIDTH - _RIGHT + 8, y + 15, words)
            y += _ROW
        for label, place in group.get("floors", {}).items():
            floor = figure(place)
            value = floor["value"] if isinstance(floor, dict) else floor
            dash, colour = _FLOORS[label.partition(",")[0]]
            yield _line(x(value), first, x(value), y, colour, dash)


def _legend(floors: list[str], y: float) -> Iterator[str]:
    """Say what each line is."""
    for number, label in enumerate(floors):
        dash, colour = _FLOORS[label.partition(",")[0]]
        middle = y + 20 * number
        yield _line(_LABEL_WIDTH, middle, _LABEL_WIDTH + 40, middle, colour, dash)
        yield _text(_LABEL_WIDTH + 50, middle + 4, label)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, dash: str = "") -> str:
    dashes = f' stroke-dasharray="{dash}" stroke-width="2"' if dash else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{dashes}/>'


def _text(x: float, y: float, words: str, *, weight: str = "normal", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" {_FONT} font-weight="{weight}" text-anchor="{anchor}">'
        f"{escape(words)}</text>"
    )
