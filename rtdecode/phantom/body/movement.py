"""Simulate how the head moves: slow drift, breathing, and a few abrupt nods.

`head_path` draws the position of the head in each volume, and `Resampler` returns an image of the head as it
appears at such a position.

The kinds of motion follow Frew et al. 2022, PLoS ONE 17:e0265112: spikes above 0.3 mm are nods (turning
about the left-right axis with shifts along z and y), people who lie more still move with their breathing,
and everyone drifts. The levels below are set so that the mean framewise displacement (Power et al. 2012,
NeuroImage 59:2142, a head of 50 mm radius) lies between 0.08 and 0.2 mm, and that 2 to 4 % of the volumes
have more than 0.3 mm. Adults at a task had 0.28 to 0.35 mm at longer TRs (PMC9882243). The levels are a
choice, not a fit.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rtdecode.errors import UsageError
from rtdecode.signal.volume.motion import rigid
from rtdecode.types import Float

MOTIONS = ("still", "typical")

# Translations along x, y, z in mm, rotations about them in degrees.
# Standard deviation of the drift after a minute, and amplitude of the breathing.
_DRIFT = np.array([0.06, 0.08, 0.15, 0.12, 0.04, 0.04])
_BREATH = np.array([0.0, 0.02, 0.03, 0.02, 0.0, 0.0])
_BREATH_HZ = 0.27
# Size of the mean nod, share of a nod that remains when it is over, and range of its length.
_NOD = np.array([0.05, 0.35, 0.55, 0.6, 0.1, 0.1])
_NODS_PER_MIN = 1.5
_STAYS = 0.3
_NOD_S = (0.8, 3.0)
# Limit of every parameter, in mm and degrees.
_LIMIT = 3.0
_COLUMNS = ("index", "tx", "ty", "tz", "rx", "ry", "rz")
# `Resampler` shows tissue that moves by no more than this, mm, and the head's outside turns about its middle
# at this distance, mm.
_REACH_MM = 10.0
_RADIUS_MM = 90.0


def describe() -> str:
    """Return the constants in one line."""
    drift, nod = (f"{size[2]:g} mm and {size[3]:g} degrees" for size in (_DRIFT, _NOD))
    return (
        f"drift {drift} after a minute, {_NODS_PER_MIN:g} nods a minute of {nod} on average, "
        f"breathing {_BREATH[2]:g} mm, limited to {_LIMIT:g} mm and {_LIMIT:g} degrees (chosen, not fitted)"
    )


def head_path(count: int, tr_s: float, seed: int) -> NDArray[np.float64]:
    """Draw the position of the head in the middle of each volume.

    Parameters
    ----------
    count : int
        Number of volumes.
    tr_s : float
        Repetition time, s.
    seed : int
        Seed of the movement.

    Returns
    -------
    (volume, 6)
        Parameters of `rtdecode.signal.volume.motion.rigid` about the middle of the head, in mm and rad,
        relative to the first volume.
    """
    rng = np.random.default_rng((seed, 61))
    seconds = (np.arange(count) + 0.5) * tr_s
    path = np.cumsum(rng.standard_normal((count, 6)) * _DRIFT * np.sqrt(tr_s / 60), axis=0)
    path += _BREATH * np.sin(2 * np.pi * _BREATH_HZ * seconds + rng.uniform(0, 2 * np.pi))[:, None]
    for start in rng.uniform(0, count * tr_s, rng.poisson(_NODS_PER_MIN * count * tr_s / 60)):
        size = rng.exponential() * rng.choice([-1, 1]) * _NOD * rng.uniform(0.5, 1.5, 6)
        since = seconds - start
        during = np.where(since < rng.uniform(*_NOD_S), 1.0, _STAYS)
        path += np.outer(np.where(since < 0, 0.0, during), size)
    path -= path[0]
    # The hyperbolic tangent leaves small motions as they are and bends large ones below the limit.
    path = _LIMIT * np.tanh(path / _LIMIT)
    path[:, 3:] = np.deg2rad(path[:, 3:])
    return path


def pose_of(text: str) -> NDArray[np.float64]:
    """Read where a head lies, off its usual place.

    Parameters
    ----------
    text : str
        "x,y,z,pitch,roll,yaw": shifts along x, y and z in mm, and rotations about them in degrees.

    Returns
    -------
    (6,)
        As a row of `head_path`.

    Raises
    ------
    UsageError
        If these are no six numbers, or tissue would move further than can be shown.
    """
    try:
        numbers = np.array([float(part) for part in text.split(",")])
    except ValueError:
        numbers = np.zeros(0)
    if numbers.shape != (6,) or not np.isfinite(numbers).all():
        raise UsageError(
            "phantom-pose-invalid",
            "--pose is x,y,z,pitch,roll,yaw: six numbers, mm and degrees, such as 0,2.4,3.2,3,0,0. "
            "Found {pose}.",
            pose=text,
        )
    turned = np.deg2rad(numbers[3:])
    furthest_mm = float(np.linalg.norm(numbers[:3]) + _RADIUS_MM * np.linalg.norm(turned))
    if furthest_mm > _REACH_MM:
        raise UsageError(
            "phantom-pose-too-far",
            "--pose {pose} moves parts of the head by up to {moved_mm:.1f} mm, and at most {max_mm:g} mm can "
            "be shown. Give smaller shifts or rotations.",
            pose=text,
            moved_mm=furthest_mm,
            max_mm=_REACH_MM,
        )
    return np.concatenate([numbers[:3], turned])


def write_path(file: Path, path: NDArray[np.float64]) -> None:
    """Write a head's path as a table: index, tx, ty, tz in mm, rx, ry, rz in rad."""
    rows = ["\t".join([str(i), *(f"{value:.6f}" for value in row)]) for i, row in enumerate(path)]
    file.write_text("\n".join(["\t".join(_COLUMNS), *rows]) + "\n")


class Resampler:
    """Resample images of the head to show it after it has moved.

    Parameters
    ----------
    mean : (i, j, k)
        Image of the head on a grid that is larger than the scanner's by `margin` voxels on every side.
    margin : int
        Voxels by which the image is larger on every side.
    affine : float64, (4, 4)
        Voxel indices of the scanner's grid to scanner RAS+, mm.
    centre : (3,)
        Point about which the head turns, mm.

    Notes
    -----
    Cubic splines are evaluated where the head can reach; everything else is air.
    """

    def __init__(
        self, mean: Float, margin: int, affine: NDArray[np.float64], centre: tuple[float, float, float]
    ) -> None:
        self._air = float(mean.min())
        self._affine = affine
        self._centre = centre
        self._shape = mean.shape
        # Only voxels within some 10 mm of the head at rest are computed; the rest stays air.
        spacing = float(np.linalg.norm(affine[:3, :3], axis=0).min())
        reach = ndimage.binary_dilation(mean > self._air, iterations=round(10 / spacing))
        inner = reach[margin:-margin, margin:-margin, margin:-margin]
        self._reached = np.flatnonzero(inner)
        self._size = inner.size
        self._points = np.stack(np.unravel_index(self._reached, inner.shape)).astype(np.float64)
        self._margin = float(margin)

    def moved(self, image: Float, parameters: NDArray[np.float64]) -> Float:
        """Return an image of the large grid after a rigid motion, on the scanner's grid; both are flat."""
        # From each voxel of the scanner's grid back to where its tissue lay before the motion.
        back = np.linalg.inv(self._affine) @ np.linalg.inv(rigid(parameters, self._centre)) @ self._affine
        places = back[:3, :3] @ self._points + back[:3, 3:] + self._margin
        splines = ndimage.spline_filter(image.reshape(self._shape), mode="nearest")
        out = np.full(self._size, self._air, np.float32)
        out[self._reached] = ndimage.map_coordinates(
            splines, places, order=3, mode="nearest", prefilter=False
        )
        return out
