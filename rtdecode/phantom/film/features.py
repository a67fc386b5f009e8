"""Compute what a visual system could take from a film.

Frames come in, and one vector of features per frame goes out. `feature_maps` computes maps of luminance,
colour, form and motion. Receptive fields, the same for every subject, reduce them to features; further
features stand for what is shown, recognised with a delay. All features are standardised on a fixed film.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from rtdecode.phantom.film.film import ATTRIBUTES, FPS, Film
from rtdecode.phantom.film.watched import Watched
from rtdecode.types import Float

GRID = (8, 12)
MAPS = (
    *("luminance", "red-green", "blue-yellow", "contrast"),
    *(f"orientation-{angle}" for angle in (0, 45, 90, 135)),
    *(f"motion-{angle}" for angle in range(0, 360, 45)),
    "flicker",
)
BLOCKS = {"color": 30, "form": 16, "motion": 18, "semantic": 16}
FEATURES = sum(BLOCKS.values())
# So many of them, the first, are taken from pixels; the others stand for what is recognised.
_TAKEN = FEATURES - BLOCKS["semantic"]
# The film by which features and signal levels are standardised once and for all.
CALIBRATION = Film(200, seed=999_983)

# Indices of `MAPS` that the receptive fields of each block read.
_CHANNELS = {"color": (0, 1, 2), "form": (0, 3, 4, 5, 6, 7), "motion": (8, 9, 10, 11, 12, 13, 14, 15, 16)}
# All subjects have the same receptive fields.
_SEED = 20240
# Time constant with which the semantic features follow a cut.
_RECOGNITION_S = 0.3
# Weight of a receptive field's surround, and share of the fields that cover the whole picture.
_SURROUND = 0.8
_GLOBAL = 0.25


def feature_maps(frames: NDArray[np.uint8], previous: NDArray[np.uint8] | None = None) -> Float:
    """Compute local luminance, colour, contrast, orientation, motion and flicker.

    Parameters
    ----------
    frames : (frame, 64, 96, 3) uint8
    previous : (64, 96, 3) uint8, optional
        The frame before the first one; without it the film starts without motion.

    Returns
    -------
    (frame, 8, 12, 17) float32
        Maps in the order of `MAPS`. Map n depends on frames n - 1 and n only.

    Notes
    -----
    Orientation is the pooled magnitude of the gradient along four directions. Motion along a direction is
    the rectified product of the temporal and the spatial derivative, pooled, then its square root.
    """
    first = frames[:1] if previous is None else previous[None]
    rgb = _pool(np.concatenate([first, frames]).astype(np.float32), 2) / np.float32(255)
    luminance = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    change = np.diff(luminance, axis=0)
    rgb = rgb[1:]
    luminance = luminance[1:]
    red_green = rgb[..., 0] - rgb[..., 1]
    blue_yellow = rgb[..., 2] - (rgb[..., 0] + rgb[..., 1]) / 2
    rise, run = np.gradient(luminance, axis=(1, 2))
    mean = _pool(luminance, 4)
    contrast = np.sqrt(np.maximum(_pool(np.square(luminance), 4) - np.square(mean), 0))
    maps = [mean, _pool(red_green, 4), _pool(blue_yellow, 4), contrast]
    for angle in np.deg2rad([0, 45, 90, 135], dtype=np.float32):
        maps.append(_pool(np.abs(np.cos(angle) * run - np.sin(angle) * rise), 4))
    for angle in np.deg2rad(np.arange(0, 360, 45), dtype=np.float32):
        drive = -change * (np.cos(angle) * run - np.sin(angle) * rise)
        maps.append(np.sqrt(_pool(np.maximum(drive, 0), 4)))
    maps.append(_pool(np.abs(change), 4))
    return np.stack(maps, axis=-1)


def film_features(film: Film) -> Float:
    """Return the features of each frame of a film.

    Parameters
    ----------
    film : Film

    Returns
    -------
    (frame, `FEATURES`) float32
        Features in the order of `BLOCKS`, with zero mean and unit variance over films of this kind. The
        features of frame n depend only on frames up to n and on the attributes they show.
    """
    eye, known = _eye()
    return known if film is CALIBRATION else (_see(film, _film_maps(film), eye) - eye.mean) / eye.scale


def seen_features(film: Watched, rng: np.random.Generator) -> Float:
    """Return the features of each frame of a film that is known by its pictures alone, or of a grey screen.

    Features of what is shown cannot be computed from pixels here. These, and at a grey screen all of them,
    follow activity of the brain's own. It has the variance and the spectrum that the film of shapes gives
    them, and nothing to do with what is on the screen: a resting cortex is not silent.

    Parameters
    ----------
    film : Watched
    rng : numpy.random.Generator
        Draws the activity.

    Returns
    -------
    (frame, `FEATURES`) float32
    """
    eye, known = _eye()
    own = _own_activity(known, film.count, rng)
    if not len(film.cut_frames):
        return own
    seen = _taken(_film_maps(film), eye)
    own[:, :_TAKEN] = (seen - eye.mean[:_TAKEN]) / eye.scale[:_TAKEN]
    return own


def spread(features: Float) -> float:
    """Return the standard deviation of what a film's pixels drive, 1 for the film of shapes."""
    return float(np.sqrt(features[:, :_TAKEN].var(axis=0).mean()))


def _own_activity(like: Float, count: int, rng: np.random.Generator) -> Float:
    """Draw series with the spectra of others, independent of each other, (count, feature)."""
    power = np.abs(np.fft.rfft(like, axis=0)) ** 2 / len(like)
    frequencies = np.fft.rfftfreq(count)
    at = np.stack([np.interp(frequencies, np.fft.rfftfreq(len(like)), column) for column in power.T], axis=1)
    real, imaginary = rng.standard_normal((2, *at.shape))
    series = np.fft.irfft(np.sqrt(at * count / 2) * (real + 1j * imaginary), n=count, axis=0)
    return series.astype(np.float32)


def feature_blocks() -> NDArray[np.int64]:
    """Return the index of the block of `BLOCKS` that each feature belongs to, (`FEATURES`,)."""
    return np.repeat(np.arange(len(BLOCKS)), list(BLOCKS.values()))


@dataclass(frozen=True, slots=True)
class _Eye:
    """Receptive fields (map value to feature), with the mean and scale of the maps and of the features."""

    fields: Float
    semantics: Float
    map_mean: Float
    map_scale: Float
    mean: Float
    scale: Float


@lru_cache(maxsize=1)
def _eye() -> tuple[_Eye, Float]:
    """Return the eye, and the features of the calibration film, from which it is standardised."""
    rng = np.random.default_rng(_SEED)
    maps = _film_maps(CALIBRATION)
    fields = np.concatenate(
        [_field(rng, _CHANNELS[block]) for block in _CHANNELS for _ in range(BLOCKS[block])], axis=1
    )
    classes = sum(len(values) for values in ATTRIBUTES.values())
    semantics = rng.normal(size=(classes, BLOCKS["semantic"])).astype(np.float32)
    map_mean = maps.mean(axis=(0, 1, 2))
    map_scale = maps.std(axis=(0, 1, 2))
    drive = ((maps - map_mean) / map_scale).reshape(len(maps), -1) @ fields
    fields = (fields / drive.std(axis=0)).astype(np.float32)
    # `_see` does not read mean and scale, which are computed from what it returns.
    still = np.zeros(FEATURES, np.float32)
    raw = _see(CALIBRATION, maps, _Eye(fields, semantics, map_mean, map_scale, still, still))
    mean = raw.mean(axis=0)
    scale = raw.std(axis=0)
    return _Eye(fields, semantics, map_mean, map_scale, mean, scale), (raw - mean) / scale


def _field(rng: np.random.Generator, channels: tuple[int, ...]) -> Float:
    """Draw one receptive field on two maps, (map value, 1): a centre minus its surround, or everything."""
    row, col = np.mgrid[0 : GRID[0], 0 : GRID[1]]
    middle = rng.uniform(0.5, GRID[0] - 1.5), rng.uniform(1, GRID[1] - 2)
    away = (row - middle[0]) ** 2 + (col - middle[1]) ** 2
    width = rng.uniform(1.0, 2.0)
    center, surround = (np.exp(-away / (2 * size**2)) for size in (width, 3 * width))
    window = center / center.sum() - _SURROUND * surround / surround.sum()
    if rng.random() < _GLOBAL:
        window = np.full(GRID, 1 / row.size)
    weights = np.zeros(len(MAPS))
    weights[rng.choice(channels, size=2, replace=False)] = rng.normal(size=2)
    return (window[..., None] * weights).reshape(-1, 1).astype(np.float32)


def _see(film: Film, maps: Float, eye: _Eye) -> Float:
    return np.concatenate([_taken(maps, eye), _recognised(film, eye.semantics)], axis=1)


def _taken(maps: Float, eye: _Eye) -> Float:
    """Return what the receptive fields take from maps, (frame, `_TAKEN`)."""
    scaled = ((maps - eye.map_mean) / eye.map_scale).reshape(len(maps), -1)
    return np.tanh(0.8 * (scaled @ eye.fields))


def _recognised(film: Film, semantics: Float) -> Float:
    """Return features of the attributes shown: a fixed random layer, approached gradually after each cut."""
    sizes = [len(values) for values in ATTRIBUTES.values()]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    drive = np.tanh(0.6 * semantics[film.labels() + starts].sum(axis=1))
    keep = np.exp(-1 / (FPS * _RECOGNITION_S))
    return np.asarray(signal.lfilter([1 - keep], [1, -keep], drive, axis=0), np.float32)


def _film_maps(film: Watched) -> Float:
    """Return the maps of a film, computed shot by shot so that long films need little memory."""
    parts = []
    previous = None
    for shot in film.shots:
        frames = film.frames[shot.first : shot.first + shot.frames]
        parts.append(feature_maps(frames, previous))
        previous = frames[-1]
    return np.concatenate(parts)


def _pool(x: NDArray[Any], size: int) -> Float:
    """Return means over cells of size x size along axes 1 and 2."""
    n, height, width, *rest = x.shape
    return x.reshape(n, height // size, size, width // size, size, *rest).mean(axis=(2, 4), dtype=np.float32)
