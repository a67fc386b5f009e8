"""Compute what the simulated visual system takes from a film.

Pictures come in, and one vector of features per frame goes out. `rtdecode.phantom.film.maps` computes maps of
colour, form and motion, which receptive fields reduce to features; further features are the outputs of a
fixed random net (`rtdecode.phantom.film.random_net`), which follow the picture with a delay. All come from
pixels alone, are the same for every subject, and are standardised on films that resemble those people watch.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from rtdecode.phantom.film.film import FPS, Film
from rtdecode.phantom.film.maps import COLOR_MAPS, FORM_MAPS, GRID, MAPS, MOTION_MAPS, feature_maps
from rtdecode.phantom.film.random_net import OUTPUTS, net_outputs
from rtdecode.phantom.film.watched import GREY, Watched
from rtdecode.types import Float

Frames = NDArray[np.uint8]

BLOCKS = {"color": 30, "form": 16, "motion": 18, "deep": OUTPUTS}
FEATURES = sum(BLOCKS.values())
# The film by which signal levels are set once and for all.
CALIBRATION = Film(200, seed=999_983)
# The eye's scales, and its features of the film by which levels are set: every program that simulates needs
# them, and to compute them takes seconds. `python -m benchmarks.experiments.eye` writes both.
STANDARD = Path(__file__).with_name("eye.json")
CALIBRATION_FEATURES = Path(__file__).with_name("calibration.npy")

# The maps that the receptive fields of each block read; form reads luminance, too.
_READ = {"color": COLOR_MAPS, "form": (COLOR_MAPS[0], *FORM_MAPS), "motion": MOTION_MAPS}
# All subjects have the same receptive fields.
_SEED = 20241
# Width of a receptive field's centre, in cells: of half of the fields, and of the others.
_NARROW = (0.5, 1.0)
_WIDE = (1.0, 2.0)
# Weight of a receptive field's surround, and share of the fields that cover the whole picture.
_SURROUND = 0.8
_GLOBAL = 0.25
# How strongly a feature saturates: the response is tanh of so many standard deviations of its drive.
_GAIN = 0.8
# Time constant with which the outputs of the net follow the picture.
_RECOGNITION_S = 0.3
# Frames that are worked on at once: maps of a whole film would not fit into memory.
_AT_ONCE = 64
# Of films that are still in use: what eyes that rest make of them.
_STILL_EYES: WeakKeyDictionary[Watched, Float] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Scales:
    """Scales of what the eye computes, over the films on which it is standardised.

    Attributes
    ----------
    maps : (map,) float32
        Standard deviation of each map.
    drive_mean, drive_scale : (`FEATURES`,) float32
        Mean and standard deviation of what drives each feature.
    mean, scale : (`FEATURES`,) float32
        Mean and standard deviation of each response.
    """

    maps: Float
    drive_mean: Float
    drive_scale: Float
    mean: Float
    scale: Float


def film_features(film: Watched, gaze: NDArray[np.int64] | None = None) -> Float:
    """Return the features of each frame of a film.

    Parameters
    ----------
    film : Watched
        Anything but a grey screen, for which there is `resting_features`.
    gaze : (frame, 2), optional
        The pixel that is looked at in each frame: rows below and columns right of the middle. By default it
        is the middle.

    Returns
    -------
    (frame, `FEATURES`) float32
        Features in the order of `BLOCKS`, with zero mean and unit variance over the films that the eye is
        standardised on. The features of frame n depend only on frames up to n.
    """
    if film is CALIBRATION:
        return _known()
    if gaze is not None:
        return _standardised(film, gaze)
    if film not in _STILL_EYES:
        _STILL_EYES[film] = _standardised(film, None)
        _STILL_EYES[film].setflags(write=False)
    return _STILL_EYES[film]


def resting_features(count: int, rng: np.random.Generator) -> Float:
    """Return the features while the screen is grey, (frame, `FEATURES`) float32.

    They follow activity of the brain's own, which has nothing to do with what is on the screen: a resting
    cortex is not silent. Each feature has the variance and the spectrum of the film by which levels are set,
    and none depends on another.
    """
    like = _known()
    power = np.abs(np.fft.rfft(like - like.mean(axis=0), axis=0)) ** 2 / len(like)
    frequencies = np.fft.rfftfreq(count)
    film_frequencies = np.fft.rfftfreq(len(like))
    density = np.stack([np.interp(frequencies, film_frequencies, column) for column in power.T], axis=1)
    real, imaginary = rng.standard_normal((2, *density.shape))
    series = np.fft.irfft(np.sqrt(density * count / 2) * (real + 1j * imaginary), n=count, axis=0)
    return series.astype(np.float32)


def spread(features: Float) -> float:
    """Return the standard deviation of a film's features, 1 for the films that the eye is standardised on."""
    return float(np.sqrt(features.var(axis=0).mean()))


def feature_blocks() -> NDArray[np.int64]:
    """Return the index of the block of `BLOCKS` that each feature belongs to, (`FEATURES`,)."""
    return np.repeat(np.arange(len(BLOCKS)), list(BLOCKS.values()))


def receptive_fields() -> Float:
    """Return where in the picture each feature looks, (`FEATURES`, cell): shares of its weights in `GRID`.

    The outputs of the net look everywhere.
    """
    weights = np.abs(_fields()).reshape(GRID[0] * GRID[1], len(MAPS), -1).sum(axis=1)
    everywhere = np.full((OUTPUTS, len(weights)), 1 / len(weights), np.float32)
    return np.concatenate([(weights / weights.sum(axis=0)).T, everywhere])


def standardise(films: Sequence[Watched]) -> Scales:
    """Compute the scales of the eye over films, each frame of which counts alike."""
    count = sum(film.count for film in films)
    total = np.zeros(len(MAPS))
    squares = np.zeros(len(MAPS))
    for film in films:
        for frames, before in _pieces(film, None):
            maps = feature_maps(frames, before).astype(np.float64)
            total += maps.mean(axis=(1, 2)).sum(axis=0)
            squares += np.square(maps).mean(axis=(1, 2)).sum(axis=0)
    map_scale = np.sqrt(squares / count - np.square(total / count)).astype(np.float32)
    drives = [_drive(film, None, map_scale) for film in films]
    pooled = np.concatenate(drives)
    nothing = np.zeros(FEATURES, np.float32)
    half = Scales(map_scale, pooled.mean(axis=0), pooled.std(axis=0), nothing, nothing)
    answers = np.concatenate([_responses(drive, half) for drive in drives])
    return replace(half, mean=answers.mean(axis=0), scale=answers.std(axis=0))


@lru_cache(maxsize=1)
def _known() -> Float:
    return np.load(CALIBRATION_FEATURES, allow_pickle=False)


@lru_cache(maxsize=1)
def _scales() -> Scales:
    stored = json.loads(STANDARD.read_text())
    return Scales(**{name: np.array(stored[name], np.float32) for name in Scales.__slots__})


def _standardised(film: Watched, gaze: NDArray[np.int64] | None) -> Float:
    scales = _scales()
    return (_responses(_drive(film, gaze, scales.maps), scales) - scales.mean) / scales.scale


def _responses(drive: Float, scales: Scales) -> Float:
    response = np.tanh(np.float32(_GAIN) * (drive - scales.drive_mean) / scales.drive_scale)
    deep = response[:, -OUTPUTS:]
    keep = np.exp(-1 / (FPS * _RECOGNITION_S))
    # The first picture counts as one that has been there for long.
    followed, _ = signal.lfilter([1 - keep], [1, -keep], deep, axis=0, zi=keep * deep[:1])
    return np.concatenate([response[:, :-OUTPUTS], followed.astype(np.float32)], axis=1)


def _drive(film: Watched, gaze: NDArray[np.int64] | None, map_scale: Float) -> Float:
    """Return what drives each feature in each frame, (frame, `FEATURES`)."""
    fields = _fields() / np.tile(map_scale, GRID[0] * GRID[1])[:, None]
    parts = []
    for frames, before in _pieces(film, gaze):
        maps = feature_maps(frames, before).reshape(len(frames), -1)
        parts.append(np.concatenate([maps @ fields, net_outputs(frames)], axis=1))
    return np.concatenate(parts)


def _pieces(film: Watched, gaze: NDArray[np.int64] | None) -> Iterator[tuple[Frames, Frames]]:
    """Yield pieces of a film as they lie on the retina, and with each picture the one before it."""
    # A film begins without motion.
    last = film.frames[:1]
    for start in range(0, film.count, _AT_ONCE):
        frames = film.frames[start : start + _AT_ONCE]
        before = np.concatenate([last, frames[:-1]])
        last = frames[-1:]
        if gaze is not None:
            # What moves because the eye does is not seen as moving: both pictures lie at one place.
            here = gaze[start : start + len(frames)]
            frames = _looked_at(frames, here)
            before = _looked_at(before, here)
        yield frames, before


def _looked_at(frames: Frames, gaze: NDArray[np.int64]) -> Frames:
    """Shift pictures so that the pixel that is looked at lies in the middle; around a film it is grey."""
    height, width = frames.shape[1:3]
    margin = int(np.abs(gaze).max())
    wide = np.pad(frames, ((0, 0), (margin, margin), (margin, margin), (0, 0)), constant_values=GREY)
    out = np.empty_like(frames)
    for frame, (row, column) in enumerate(gaze + margin):
        out[frame] = wide[frame, row : row + height, column : column + width]
    return out


@lru_cache(maxsize=1)
def _fields() -> Float:
    """Draw the receptive fields, (cell and map, field)."""
    rng = np.random.default_rng(_SEED)
    fields = [_field(rng, _READ[block]) for block in _READ for _ in range(BLOCKS[block])]
    return np.stack(fields, axis=1)


def _field(rng: np.random.Generator, names: tuple[str, ...]) -> Float:
    """Draw one receptive field on two maps, (cell and map,): a centre minus its surround, or everything."""
    row, column = np.mgrid[0 : GRID[0], 0 : GRID[1]]
    middle = rng.uniform(0.5, GRID[0] - 1.5), rng.uniform(1, GRID[1] - 2)
    away = (row - middle[0]) ** 2 + (column - middle[1]) ** 2
    width = rng.uniform(*(_NARROW if rng.random() < 0.5 else _WIDE))
    center, surround = (np.exp(-away / (2 * size**2)) for size in (width, 3 * width))
    window = center / center.sum() - _SURROUND * surround / surround.sum()
    if rng.random() < _GLOBAL:
        window = np.full(GRID, 1 / row.size)
    weights = np.zeros(len(MAPS))
    read = [MAPS.index(name) for name in rng.choice(names, size=2, replace=False)]
    weights[read] = rng.normal(size=2)
    return (window[..., None] * weights).ravel().astype(np.float32)
