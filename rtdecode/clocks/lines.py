"""Fit a straight line through points of which some are wrong."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Spread of the slope about its expected value; the rates of crystal clocks differ by some 1e-5.
_SLOPE_SPREAD = 1e-4
# Least noise that is assumed, s: exact points would otherwise make the prior void and their
# rounding an outlier.
_NOISE_FLOOR = 2e-4
_CLIP = 4.0  # in standard deviations
_PASSES = 4


class Line(NamedTuple):
    """The line ``offset + slope * x``, and the root mean square of the residuals about it."""

    offset: float
    slope: float
    residual: float


def robust_line(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    expected: float = 1.0,
    *,
    noise_floor: float = _NOISE_FLOOR,
    slope_spread: float = _SLOPE_SPREAD,
) -> Line:
    """Fit a line by least squares, leaving out points far from it.

    The fit begins at the median slope of pairs of points that lie far apart. It then takes the points within
    four standard deviations of the line, estimated from the median absolute residual, fits them by least
    squares, and repeats this until the set of points stays the same. A Gaussian prior draws the slope towards
    `expected`, so that a few points cannot give a wild slope.

    Parameters
    ----------
    x, y : (n,)
        At least one point; `x` is ascending.
    expected : float
        Mean of the prior on the slope.
    noise_floor : float
        Smallest standard deviation that is assumed for points about the line, in units of `y`.
    slope_spread : float
        Standard deviation of the prior on the slope.

    Notes
    -----
    The start is Theil's estimator with n/2 of its pairs, each half the data apart. The rest is an
    MM-estimate with a hard cut, which loses no efficiency if no point is wrong.
    """
    offset = 0.0
    slope = _start(x, y, expected)
    keep = _near(y - slope * x, noise_floor)
    for _ in range(_PASSES):
        offset, slope = _least_squares(x[keep], y[keep], expected, slope, noise_floor, slope_spread)
        before = keep
        keep = _near(y - slope * x, noise_floor)
        if np.array_equal(before, keep):
            break
    residuals = (y - offset - slope * x)[keep]
    return Line(offset, slope, float(np.sqrt(np.mean(residuals**2))))


def mad(values: NDArray[Any]) -> float:
    """Return the median absolute deviation of values (n,), scaled to a normal standard deviation."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _start(x: NDArray[np.float64], y: NDArray[np.float64], expected: float) -> float:
    half = len(x) // 2
    if half < 4:
        return expected
    return float(np.median((y[half:] - y[: len(y) - half]) / (x[half:] - x[: len(x) - half])))


def _near(residuals: NDArray[np.float64], floor: float) -> NDArray[np.bool_]:
    off = np.abs(residuals - np.median(residuals))
    return off <= _CLIP * max(1.4826 * float(np.median(off)), floor)


def _least_squares(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    expected: float,
    slope: float,
    noise_floor: float,
    slope_spread: float,
) -> tuple[float, float]:
    # The prior on the slope is a ridge term: its weight is the noise over the prior's variance.
    centre = float(x.mean())
    level = float(y.mean())
    dx = x - centre
    dy = y - level
    noise = max(float(np.mean((dy - slope * dx) ** 2)), noise_floor**2)
    faith = noise / slope_spread**2
    slope = float((dx @ dy + faith * expected) / (dx @ dx + faith))
    return level - slope * centre, slope
