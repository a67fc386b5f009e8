"""What the films of the simulated participant are like: `natural` and `shapes` beside real ones.

RTDECODE_DATA=DIR python -m benchmarks.experiments.films    # writes results/films.json

Every film is taken as the participant watches it, 64 x 96 px at 8 frames a second, with the cuts that are
found in its pixels. `natural` was tuned until its values lay within those of the five films of
``films/train``.
"""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.result_files import RESULTS, write
from rtdecode.phantom.film.cuts import find_cuts
from rtdecode.phantom.film.film import FPS
from rtdecode.phantom.film.watched import NATURAL, SHAPES, watched

Frames = NDArray[np.uint8]
Reals = NDArray[np.float64]

_OUT = RESULTS / "films.json"
# Ten minutes of each film that is made, cut wherever it likes.
_SECONDS = 600.0
_SEED = 0
# The slope is fitted between these, cycles per height of the picture.
_LOWEST = 2.0
_HIGHEST = 28.0
_BANDS = 8
# A picture that varies less has no slope (of 255).
_FLAT = 4.0
# A frame that changes by less is still (of 255).
_STILL = 1.0


def measure(frames: Frames) -> dict[str, float]:
    """Measure one film.

    Parameters
    ----------
    frames : (frame, 64, 96, 3) uint8

    Returns
    -------
    dict
        ``spectrum_slope``: of the logarithm of power over that of spatial frequency, luminance, the mean over
        every fourth frame. ``contrast``: standard deviation of luminance over a picture. ``brightness``: its
        mean. ``saturation``: (max - min) / max of a pixel's colour. ``red_green`` and ``blue_yellow``:
        standard deviations of R - G and of B - (R + G) / 2 over all pixels. ``motion``: mean absolute change
        of luminance from frame to frame within shots, ``motion_median`` its median over frames, ``still`` the
        share of frames that change less than 1. ``speed``: the root of the change's power over the
        gradient's, px a frame, as a picture that moves as a whole would have it. ``shots`` and
        ``shot_quarter_s``, ``shot_median_s``, ``shot_three_quarters_s``: how many were found and how long
        they last. Luminance and colours are of 255.
    """
    cuts = find_cuts(frames)
    light = frames @ np.array([0.299, 0.587, 0.114], np.float32)
    within = np.ones(len(frames) - 1, bool)
    within[cuts - 1] = False
    change = np.diff(light, axis=0)[within]
    motion = np.abs(change).mean((1, 2))
    high, wide = np.gradient(light, axis=(1, 2))
    steepness = (np.square(high) + np.square(wide)).mean((1, 2))[1:][within]
    # A black picture has no gradient, and no speed.
    speed = np.sqrt(np.square(change).mean((1, 2)) / np.maximum(steepness, 1))
    largest = frames.max(-1).astype(np.float32)
    colors = (largest - frames.min(-1)) / np.maximum(largest, 1)
    red, green, blue = np.moveaxis(frames.astype(np.float32), -1, 0)
    lengths = np.diff(np.array([0, *cuts, len(frames)])) / FPS
    quarter, median, three_quarters = np.quantile(lengths, [0.25, 0.5, 0.75])
    return {
        "seconds": len(frames) / FPS,
        "spectrum_slope": float(np.mean([_slope(p) for p in light[::4] if p.std() >= _FLAT])),
        "contrast": float(light.std((1, 2)).mean()),
        "brightness": float(light.mean()),
        "saturation": float(colors.mean()),
        "red_green": float((red - green).std()),
        "blue_yellow": float((blue - (red + green) / 2).std()),
        "motion": float(motion.mean()),
        "motion_median": float(np.median(motion)),
        "still": float((motion < _STILL).mean()),
        "speed": float(speed.mean()),
        "shots": len(lengths),
        "shot_quarter_s": float(quarter),
        "shot_median_s": float(median),
        "shot_three_quarters_s": float(three_quarters),
    }


def _slope(picture: Reals) -> float:
    """Fit the slope of the logarithm of power, averaged in octave bands, over that of frequency."""
    rows, columns = picture.shape
    window = np.outer(np.hanning(rows), np.hanning(columns))
    power = np.square(np.abs(np.fft.rfft2((picture - picture.mean()) * window)))
    frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)) * rows
    edges = np.geomspace(_LOWEST, _HIGHEST, _BANDS + 1)
    bands = [power[(frequency >= a) & (frequency < b)].mean() for a, b in pairwise(edges)]
    return float(np.polyfit(np.log(np.sqrt(edges[1:] * edges[:-1])), np.log(bands), 1)[0])


def main() -> None:
    """Measure, print, write."""
    root = os.environ.get("RTDECODE_DATA")
    if root is None:
        raise SystemExit("Name the folder of recorded data by RTDECODE_DATA; its films/train is measured.")
    by_film = {
        NATURAL: measure(watched(NATURAL, _SECONDS, _SEED, "free").frames),
        SHAPES: measure(watched(SHAPES, _SECONDS, _SEED, "free").frames),
    }
    for path in sorted((Path(root) / "films" / "train").glob("*.mp4")):
        by_film[path.stem] = measure(watched(str(path), None, 0, "free").frames)
    table = Table("", *by_film)
    for name in by_film[NATURAL]:
        table.add_row(name, *(f"{film[name]:.4g}" for film in by_film.values()))
    Console().print(table)
    write(_OUT, by_film)


if __name__ == "__main__":
    main()
