"""What the page draws, as SVG: it is sharp at any size, and a browser needs no program for it."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal.volume.rigid import RADIUS_MM, framewise_displacement

# Colours that are told apart by everyone and in the dark (Okabe and Ito 2008, Color Universal Design).
LINE = "#56B4E9"
BAD = "#E69F00"
LATE = "#D55E00"
HOLE = "#5b3a29"
TEXT = "#c8ccd0"
# Units of the drawings: they are scaled to the place that they have.
_WIDTH = 1000
# The least motion that is drawn from the middle up and down, mm.
_MOTION_MM = 0.5


def ledger(beyond_ms: Sequence[float], limit_ms: float) -> str:
    """Draw how long after its floor each clip came, a bar each, beside the deadline.

    Parameters
    ----------
    beyond_ms : sequence of float
        Of the newest clips, oldest first.
    limit_ms : float
        Deadline.
    """
    height = 100
    top = max([limit_ms, *beyond_ms]) * 1.1
    parts = [_opened(_WIDTH, height)]
    width = _WIDTH / max(len(beyond_ms), 1)
    for place, delay_ms in enumerate(beyond_ms):
        tall = max(height * delay_ms / top, 1)
        colour = LATE if delay_ms > limit_ms else LINE
        parts.append(
            f'<rect x="{place * width + width * 0.1:.1f}" y="{height - tall:.1f}" width="{width * 0.8:.1f}" '
            f'height="{tall:.1f}" fill="{colour}"><title>{delay_ms:.0f} ms</title></rect>'
        )
    y = height - height * limit_ms / top
    parts.append(
        f'<line x1="0" y1="{y:.1f}" x2="{_WIDTH}" y2="{y:.1f}" stroke="{TEXT}" stroke-dasharray="6 4" '
        'vector-effect="non-scaling-stroke"/>'
    )
    return "".join(parts) + "</svg>"


def time_line(
    span_s: tuple[float, float],
    windows: Sequence[tuple[float, float, str]],
    volumes: Sequence[float],
    triggers: Sequence[float],
) -> str:
    """Draw the last minutes: windows by what became of them, volumes and triggers as ticks.

    Parameters
    ----------
    span_s : tuple of float
        Beginning and end of what is shown, s.
    windows : sequence of (start, stop, colour)
        Times of each window, s, and the colour it is drawn in.
    volumes, triggers : sequence of float
        Times, s.
    """
    height = 60
    begin, end = span_s
    scale = _WIDTH / max(end - begin, 1e-9)
    parts = [_opened(_WIDTH, height)]
    for start, stop, colour in windows:
        x = (start - begin) * scale
        parts.append(
            f'<rect x="{x:.1f}" y="2" width="{max((stop - start) * scale - 1, 1):.1f}" height="22" '
            f'fill="{colour}"/>'
        )
    for times, top in ((volumes, 28), (triggers, 44)):
        for time_s in times:
            x = (time_s - begin) * scale
            parts.append(
                f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{top + 12}" stroke="{TEXT}" '
                'vector-effect="non-scaling-stroke"/>'
            )
    return "".join(parts) + "</svg>"


def motion(parameters: NDArray[np.float64]) -> str:
    """Draw where the head was: shifts in one colour, turns in another, framewise displacement from below.

    Parameters
    ----------
    parameters : (volume, 6)
        Shifts in mm and turns in rad, which are drawn as mm on a sphere of 50 mm (Power et al. 2012).
    """
    height = 100
    parts = [_opened(_WIDTH, height)]
    values = parameters * np.array([1.0] * 3 + [RADIUS_MM] * 3)
    values -= values[:1]
    span = max(_MOTION_MM, float(np.abs(values).max(initial=0.0)))
    step = _WIDTH / max(len(values) - 1, 1)
    for column in range(values.shape[1]):
        points = " ".join(
            f"{place * step:.0f},{height / 2 - displacement / span * height / 2:.1f}"
            for place, displacement in enumerate(values[:, column])
        )
        colour = LINE if column < 3 else BAD
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" vector-effect="non-scaling-stroke"/>'
        )
    for place, (before, after) in enumerate(pairwise(parameters), 1):
        tall = min(framewise_displacement(after, before) / span, 1) * height
        parts.append(
            f'<line x1="{place * step:.0f}" y1="{height}" x2="{place * step:.0f}" y2="{height - tall:.1f}" '
            f'stroke="{TEXT}" vector-effect="non-scaling-stroke"/>'
        )
    return "".join(parts) + f"<title>{span:.1f} mm up and down</title></svg>"


def _opened(width: int, height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'preserveAspectRatio="none" width="100%" height="100%">'
    )
