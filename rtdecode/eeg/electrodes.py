"""Where the electrodes of the 10-20, 10-10 and 10-5 systems lie on a unit sphere.

The places are computed, not measured. The outer ring lies 92 degrees from Cz and is divided into steps of 18
degrees (10-10) or 9 (10-5), the midline into steps of 23 or 11.5. A row divides the great circle from the
midline to the ring into quarters or eighths. Below the ring, electrodes numbered 9 and 10 lie 115 degrees
from Cz. Names are those of Oostenveld and Praamstra 2001, Clin Neurophysiol 112, p. 713.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

# Distance of the ring from Cz, and steps along the ring and along the midline, degrees.
_RING = 92.0
_RING_STEP = 9.0
_ROW_STEP = 11.5
# Rows between Fp and O, from the front: the name near the midline, and that from 7h (8h) outwards.
_ROWS = (
    ("AFp", "AFp"), ("AF", "AF"), ("AFF", "AFF"), ("F", "F"), ("FFC", "FFT"), ("FC", "FT"),
    ("FCC", "FTT"), ("C", "T"), ("CCP", "TTP"), ("CP", "TP"), ("CPP", "TPP"), ("P", "P"),
    ("PPO", "PPO"), ("PO", "PO"), ("POO", "POO"),
)  # fmt: skip
# Groups that lie on a circle around Cz: name and distance from Cz, degrees; negative at the front.
_ENDS = (("NFp", -103.5), ("N", -115.0), ("Fp", -_RING), ("O", _RING), ("OI", 103.5), ("I", 115.0))
OLD = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}

Place = NDArray[np.float64]


@cache
def places() -> dict[str, Place]:
    """Return the place of every electrode by its name: a unit vector to the right, front and up, (3,).

    The older names T3 to T6 are there too. Mastoids (M1, M2) and earlobes (A1, A2) are approximate.
    """
    positions = _pair("M", "1", _point(105.0, 128.0)) | _pair("A", "1", _point(93.0, 130.0))
    for row, (inner, outer) in enumerate(_ROWS):
        positions |= _row(inner, outer, row)
    for name, polar in _ENDS:
        positions[f"{name}z"] = _point(0.0, -polar)
        for steps, suffix in ((1, "1h"), (2, "1")):
            azimuth = steps * _RING_STEP
            positions |= _pair(name, suffix, _point(azimuth if polar < 0 else 180 - azimuth, abs(polar)))
    return positions | {old: positions[new] for old, new in OLD.items()}


def _row(inner: str, outer: str, row: int) -> dict[str, Place]:
    """Place a row's electrodes: on the great circle from the midline to the ring, and below the ring."""
    middle = _point(0.0, _RING - (row + 1) * _ROW_STEP)
    azimuth = (row + 3) * _RING_STEP
    ring = _point(azimuth, _RING)
    positions = {f"{inner}z": middle}
    for eighth in range(1, 11):
        suffix = f"{eighth - 1}" if eighth % 2 == 0 else f"{eighth}h"
        below = _point(azimuth, _RING + (eighth - 8) * _ROW_STEP)
        place = _between(middle, ring, eighth / 8) if eighth <= 8 else below
        positions |= _pair(outer if eighth >= 7 else inner, suffix, place)
    return positions


def _pair(name: str, suffix: str, place: Place) -> dict[str, Place]:
    """Place an electrode of the left hemisphere and its mirror image, whose number is one higher."""
    number = suffix.rstrip("h")
    half = suffix[len(suffix.rstrip("h")) :]
    return {f"{name}{suffix}": place, f"{name}{int(number) + 1}{half}": place * (-1, 1, 1)}


def _point(azimuth: float, polar: float) -> Place:
    """Return the place `polar` degrees from Cz towards the front, turned left by `azimuth` degrees."""
    a = np.deg2rad(azimuth)
    p = np.deg2rad(polar)
    return np.array([-np.sin(p) * np.sin(a), np.sin(p) * np.cos(a), np.cos(p)])


def _between(a: Place, b: Place, share: float) -> Place:
    angle = np.arccos(a @ b)
    return (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)
