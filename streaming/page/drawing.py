"""What the page draws, as SVG: it is sharp at any size, and a browser needs no program for it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Colours that are told apart by everyone and in the dark (Okabe and Ito 2008, Color Universal Design).
LINE = "#56B4E9"
BAD = "#E69F00"
LATE = "#D55E00"
_HOLE = "#5b3a29"
_TEXT = "#c8ccd0"
# Units of the drawings: they are scaled to the place that they have.
_WIDTH = 1000
_ROW = 12
# Samples that become one pair of points.
_BIN = 4
# Standard deviations from one trace to the next.
_SPREAD = 4.0


def nothing(words: str) -> str:
    """Draw words where there is nothing else to draw yet."""
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 400 60" width="100%" height="100%">'
        f'<text x="200" y="34" fill="{_TEXT}" font-size="14" text-anchor="middle">{words}</text></svg>'
    )


def traces(values: NDArray[np.floating], held: NDArray[np.bool_], names: Sequence[str], bad: set[str]) -> str:
    """Draw EEG, one row a channel.

    Parameters
    ----------
    values : (channel, sample)
        z-scored.
    held : (sample,) bool
        Samples that are usable; where none is, a band says that there is a hole.
    names : sequence of str
        The channels' names.
    bad : set of str
        Channels that are interpolated; they are drawn in another colour.
    """
    count = values.shape[1]
    height = _ROW * len(names)
    parts = [_opened(_WIDTH, height)]
    if count > 1:
        step = _WIDTH / count
        for start, stop in _spans(~held):
            x = start * step
            parts.append(
                f'<rect class="hole" x="{x:.0f}" y="0" width="{max((stop - start) * step, 1):.0f}" '
                f'height="{height}" fill="{_HOLE}"/>'
            )
        x, extremes, there = _extremes(np.clip(values / _SPREAD, -1, 1) * _ROW, held)
        for row, name in enumerate(names):
            y = np.rint((row + 0.5) * _ROW - extremes[row]).astype(int)
            for start, stop in _spans(there):
                points = " ".join(f"{a},{b}" for a, b in zip(x[start:stop], y[start:stop], strict=True))
                colour = BAD if name in bad else LINE
                parts.append(
                    f'<polyline points="{points}" fill="none" stroke="{colour}" '
                    'vector-effect="non-scaling-stroke"/>'
                )
    return "".join(parts) + "</svg>"


def _extremes(
    values: NDArray[np.floating], held: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.floating], NDArray[np.bool_]]:
    """Reduce samples to the smallest and the largest of every few, so that no spike is lost.

    Returns
    -------
    x : (point,)
    extremes : (channel, point)
    held : (point,) bool
        Whether all samples of a point are usable.
    """
    bins = values.shape[1] // _BIN
    cut = values[:, : bins * _BIN].reshape(len(values), bins, _BIN)
    pairs = np.stack([cut.min(2), cut.max(2)], 2).reshape(len(values), 2 * bins)
    whole = np.repeat(held[: bins * _BIN].reshape(bins, _BIN).all(1), 2)
    x = np.rint((np.arange(2 * bins) + 0.5) * _WIDTH * _BIN / (2 * values.shape[1])).astype(int)
    return x, pairs, whole


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
    for place, spent in enumerate(beyond_ms):
        tall = max(height * spent / top, 1)
        colour = LATE if spent > limit_ms else LINE
        parts.append(
            f'<rect x="{place * width + width * 0.1:.1f}" y="{height - tall:.1f}" width="{width * 0.8:.1f}" '
            f'height="{tall:.1f}" fill="{colour}"><title>{spent:.0f} ms</title></rect>'
        )
    y = height - height * limit_ms / top
    parts.append(
        f'<line x1="0" y1="{y:.1f}" x2="{_WIDTH}" y2="{y:.1f}" stroke="{_TEXT}" stroke-dasharray="6 4" '
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
        for at in times:
            x = (at - begin) * scale
            parts.append(
                f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{top + 12}" stroke="{_TEXT}" '
                'vector-effect="non-scaling-stroke"/>'
            )
    return "".join(parts) + "</svg>"


def _opened(width: int, height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'preserveAspectRatio="none" width="100%" height="100%">'
    )


def _spans(chosen: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return where each row of true values begins and ends."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
