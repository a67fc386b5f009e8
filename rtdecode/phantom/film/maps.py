"""Compute maps of what is seen: colour, form and motion, by place.

Pictures and those before them come in. Each map goes out on a grid of 8 x 12 cells. Form and motion are
computed at two scales: of details, and of larger things that move faster.
"""

import numpy as np
from numpy.typing import NDArray

from rtdecode.types import Float

GRID = (8, 12)
# Side of the pixels at which each scale is computed, in pixels of the film.
SCALES = {"fine": 2, "coarse": 4}
COLOR_MAPS = ("luminance", "red-green", "blue-yellow")
_FORM = ("contrast", *(f"orientation-{angle}" for angle in (0, 45, 90, 135)))
_MOTION = (*(f"motion-{angle}" for angle in range(0, 360, 45)), "flicker")
FORM_MAPS = tuple(f"{scale}-{name}" for scale in SCALES for name in _FORM)
MOTION_MAPS = tuple(f"{scale}-{name}" for scale in SCALES for name in _MOTION)
MAPS = COLOR_MAPS + FORM_MAPS + MOTION_MAPS

_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


def feature_maps(frames: NDArray[np.uint8], before: NDArray[np.uint8]) -> Float:
    """Compute local luminance, colour, contrast, orientation, motion and flicker.

    Parameters
    ----------
    frames : (frame, 64, 96, 3) uint8
        RGB frames as the participant sees them.
    before : (frame, 64, 96, 3) uint8
        The picture before each of them.

    Returns
    -------
    (frame, 8, 12, map) float32
        Maps in the order of `MAPS`.

    Notes
    -----
    Orientation is the pooled magnitude of the gradient along four directions. Motion along a direction is
    the rectified product of the temporal and the spatial derivative, pooled, then its square root.
    """
    rgb = pooled(frames.astype(np.float32), SCALES["fine"]) / np.float32(255)
    old_rgb = pooled(before.astype(np.float32), SCALES["fine"]) / np.float32(255)
    red, green, blue = (rgb[..., channel] for channel in range(3))
    red_green = np.asarray(red - green, np.float32)
    blue_yellow = np.asarray(blue - (red + green) / 2, np.float32)
    luminance = np.asarray(rgb @ _LUMINANCE, np.float32)
    old = np.asarray(old_rgb @ _LUMINANCE, np.float32)
    color = [_cells(luminance), _cells(red_green), _cells(blue_yellow)]
    form = []
    motion = []
    for scale in SCALES.values():
        step = scale // SCALES["fine"]
        now = pooled(luminance, step)
        rise = np.asarray(np.gradient(now, axis=1), np.float32)
        run = np.asarray(np.gradient(now, axis=2), np.float32)
        change = now - pooled(old, step)
        form += _form(now, rise, run)
        motion += _motion(change, rise, run)
    return np.stack(color + form + motion, axis=-1)


def pooled(x: Float, size: int) -> Float:
    """Return means over cells of size x size along axes 1 and 2."""
    if size == 1:
        return x
    # Sums of slices take a quarter of the time that numpy's mean over two axes takes.
    rows = x[:, ::size].copy()
    for row in range(1, size):
        rows += x[:, row::size]
    cells = rows[:, :, ::size].copy()
    for column in range(1, size):
        cells += rows[:, :, column::size]
    return np.asarray(cells / np.float32(size**2), np.float32)


def _form(now: Float, rise: Float, run: Float) -> list[Float]:
    variance = _cells(np.square(now)) - np.square(_cells(now))
    maps = [np.sqrt(np.maximum(variance, 0))]
    for angle in np.deg2rad([0, 45, 90, 135], dtype=np.float32):
        maps.append(_cells(np.abs(np.cos(angle) * run - np.sin(angle) * rise)))
    return maps


def _motion(change: Float, rise: Float, run: Float) -> list[Float]:
    maps = []
    across = change * run
    up = change * rise
    for angle in np.deg2rad(np.arange(0, 360, 45), dtype=np.float32):
        drive = np.sin(angle) * up - np.cos(angle) * across
        maps.append(np.sqrt(_cells(np.maximum(drive, 0))))
    return [*maps, _cells(np.abs(change))]


def _cells(x: Float) -> Float:
    """Pool a map to `GRID`."""
    return pooled(x, x.shape[1] // GRID[0])
