"""Read from a clip what the simulated film shows, by inverting the drawing of `film`.

A clip of one shot comes in, and a value of each attribute goes out. Nothing is learned. The background is the
colour of most of the picture. The texture is the wave, among those that `film` draws, that explains most of
the background's brightness. The shape is the outline, among those that `film` draws, that best fits what
stands out from the background, wherever it is in each frame. Its colour is read at its centre, and its
direction from its places over time.

If an attribute cannot be seen in a clip, it is given a value all the same, right about as often as chance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from rtdecode.phantom.film.film import (
    ATTRIBUTES,
    BACKGROUNDS,
    COLORS,
    DIRECTIONS,
    FPS,
    HEIGHT,
    PANS,
    SHAPES,
    TEXTURES,
    WIDTH,
    Shot,
    _distance,
    _texture,
)

_Reals = NDArray[Any]

# Most frames of a clip that are used.
_FRAMES = 11
# Side of a block of pixels in px, for the background and for the shape.
_COARSE = 4
_FINE = 2
# Periods and radii that are tried, over the ranges that `film` draws from.
_PERIODS = tuple(range(32, 49, 2))
_RADII = (13.0, 15.0, 17.0, 19.0)
# Index of the outline that finds the shape before its kind is known, a disc of 15 px.
_MIDDLING = 1
# The fine grid with a margin, so that shapes may lie half outside the picture.
_PADDED = (48, 60)
# Range of the brightness that a texture gives the background.
_LIGHT = (0.7, 1.3)
# Distance in colour at which a pixel has a quarter of its weight as background.
_TOLERANCE = 40.0
# Distance in px from its centre within which every shape is solid.
_CORE = 8.0
# Shares of grey that may be mixed into a colour, and the distance in colour that a share of 1 costs.
_PALE = np.linspace(0, 0.5, 6, dtype=np.float32)
_PALE_COST = 100.0
# A wave of any phase is a sum of two that are a quarter of a period apart.
_QUARTERS = (0.0, np.pi / 2)
_PHASES = {
    "stripes": [(0.0, q) for q in _QUARTERS],
    "checks": list(product(_QUARTERS, _QUARTERS)),
    "rings": [(q, 0.0) for q in _QUARTERS],
}
_ANY = Shot(
    first=0,
    frames=1,
    **{name: values[0] for name, values in ATTRIBUTES.items()},
    length=1,
    center=(0.0, 0.0),
    radius=15.0,
    path=0.0,
    period=40.0,
    phase=(0.0, 0.0),
)


def read(clip: NDArray[np.uint8]) -> dict[str, str]:
    """Read the attributes of a clip that shows one shot.

    Parameters
    ----------
    clip : uint8, (frame, 64, 96, 3)
        Frames at 8 a second from the beginning of the shot, of which up to 11 are used.

    Returns
    -------
    dict
        Name to value, as in `film.ATTRIBUTES`.

    Raises
    ------
    ValueError
        If there are no frames, or frames of another size.
    """
    if clip.ndim != 4 or clip.shape[1:] != (HEIGHT, WIDTH, 3) or not len(clip):
        raise ValueError(f"a clip must have the shape (frame, {HEIGHT}, {WIDTH}, 3), found {clip.shape}")
    chosen = np.unique(np.linspace(0, len(clip) - 1, _FRAMES + 2)[1:-1].round().astype(int))
    seconds = chosen.astype(np.float32) / np.float32(FPS)
    fine = _blocks(clip[chosen].astype(np.float32), _FINE)
    coarse = _blocks(fine, _COARSE // _FINE)
    background = _background(coarse)
    texture, pan, light = _read_texture(coarse, background, seconds)
    # What the background does not explain is the shape.
    light = light.repeat(_COARSE // _FINE, 1).repeat(_COARSE // _FINE, 2)
    shape, places = _read_shape(fine - light[..., None] * background)
    return {
        "shape": shape,
        "color": _read_color(_core_color(fine, places)),
        "background": _nearest(BACKGROUNDS, background),
        "texture": texture,
        "direction": _read_direction(places, seconds),
        "pan": pan,
    }


def accuracy(
    clips: Sequence[NDArray[np.uint8]], truths: Sequence[Mapping[str, str]]
) -> dict[str, NDArray[np.float64]]:
    """Compare what is read from clips with what they should show.

    Parameters
    ----------
    clips : sequence of uint8, (frame, 64, 96, 3)
    truths : sequence of mapping
        Name to value for each clip, as in `Shot.attributes` or the attributes of an event.

    Returns
    -------
    dict
        Name to (clip,): 1 where the reading is right, 0 where it is wrong, NaN where the truth is not
        known. `rtdecode.scores.accuracy.entry` takes this, with a chance of
        ``1 / len(film.ATTRIBUTES[name])``.
    """
    found = [read(clip) for clip in clips]
    pairs = list(zip(found, truths, strict=True))
    return {
        name: np.array([float(a[name] == b[name]) if b.get(name) else np.nan for a, b in pairs])
        for name in ATTRIBUTES
    }


def _blocks(frames: _Reals, side: int) -> _Reals:
    """Return the means of square blocks of pixels."""
    n, rows, columns, _ = frames.shape
    return frames.reshape(n, rows // side, side, columns // side, side, 3).mean((2, 4))


@cache
def _grid(side: int) -> tuple[_Reals, _Reals]:
    """Return row and column of the middle of each block, px."""
    row, column = np.mgrid[0 : HEIGHT // side, 0 : WIDTH // side].astype(np.float32)
    middle = np.float32((side - 1) / 2)
    return row * np.float32(side) + middle, column * np.float32(side) + middle


def _nearest(known: Mapping[str, tuple[int, int, int]], color: _Reals) -> str:
    colors = np.array(list(known.values()), np.float32)
    return list(known)[int(np.square(colors - color).sum(1).argmin())]


def _background(frames: _Reals) -> _Reals:
    """Return the colour of the background at its mean brightness."""
    pixels = frames.reshape(-1, 3)
    # A few rounds of weighted means move from the median to the background alone.
    color = np.median(pixels, axis=0)
    for _ in range(3):
        weight = _likeness(pixels, color)
        color = weight @ pixels / weight.sum()
    return color


def _likeness(pixels: _Reals, color: _Reals) -> _Reals:
    """Return the weight of each pixel as background: 1 for its colour in any brightness of a texture."""
    light = np.clip(_brightness(pixels, color), *_LIGHT)
    squared = np.square(pixels - light[..., None] * color).sum(-1)
    return (1 + squared / np.float32(_TOLERANCE**2)) ** -2


def _brightness(pixels: _Reals, color: _Reals) -> _Reals:
    return pixels @ color / np.maximum(color @ color, np.float32(1))


@lru_cache(maxsize=4)
def _waves(seconds: tuple[float, ...]) -> list[tuple[str, str, _Reals]]:
    """Return every texture, pan and period with its waves in each independent phase, (phase, pixel)."""
    row, column = _grid(_COARSE)
    times = np.array(seconds, np.float32)[:, None, None]
    found = []
    for texture, pan, period in product(TEXTURES, PANS, _PERIODS):
        shot = replace(_ANY, texture=texture, pan=pan, period=period)
        waves = [_texture(replace(shot, phase=p), times, row, column) for p in _PHASES[texture]]
        found.append((texture, pan, np.stack(waves).reshape(len(waves), -1)))
    return found


def _read_texture(frames: _Reals, color: _Reals, seconds: _Reals) -> tuple[str, str, _Reals]:
    """Return texture, pan, and the brightness that they give the background, (frame, row, column).

    The wave with the best Akaike criterion (1974) is chosen: what it explains, less two noise variances for
    each of its free constants, with the noise that the wave itself leaves. Amplitude and phase are two
    constants; checks have two phases.
    """
    bright = _brightness(frames, color)
    weight = _likeness(frames, color).reshape(-1)
    total = weight.sum()
    mean = weight @ bright.reshape(-1) / total
    y = np.clip(bright.reshape(-1) - mean, -0.4, 0.4)
    power = weight @ y**2
    best = (-np.inf, "", "", y)
    for texture, pan, waves in _waves(tuple(seconds.tolist())):
        amplitudes, means, explained = _fit_wave(waves, weight, y)
        constants = 3 if texture == "checks" else 2
        score = explained - 2 * constants * max(power - explained, 0) / total
        if score > best[0]:
            best = (score, texture, pan, amplitudes @ (waves - means[:, None]))
    return best[1], best[2], (mean + best[3]).reshape(bright.shape)


def _fit_wave(waves: _Reals, weight: _Reals, y: _Reals) -> tuple[_Reals, _Reals, float]:
    """Fit waves and a constant by weighted least squares.

    Returns the amplitudes, the means of the waves, and the power that they explain.
    """
    weighted = waves * weight
    means = weighted.sum(1) / weight.sum()
    gram = weighted @ waves.T - weight.sum() * np.outer(means, means)
    ahead = weighted @ y - means * (weight @ y)
    little = np.float32(1e-5) * np.trace(gram) * np.eye(len(gram), dtype=np.float32)
    found = np.linalg.solve(gram + little, ahead)
    if len(found) == 4:
        # Checks are a wave along rows times one along columns, so their four amplitudes form a
        # matrix of rank one; take the nearest.
        left, size, right = np.linalg.svd(found.reshape(2, 2))
        found = (size[0] * np.outer(left[:, 0], right[0])).reshape(-1)
    return found, means, float(2 * found @ ahead - found @ gram @ found)


@cache
def _outlines() -> tuple[list[str], _Reals, NDArray[np.complex64]]:
    """Return shape, power and conjugate spectrum of every outline, shaded at its edge as in `film`."""
    row, column = np.mgrid[0 : _PADDED[0], 0 : _PADDED[1]].astype(np.float32)
    y = (row - _PADDED[0] // 2) * _FINE
    x = (column - _PADDED[1] // 2) * _FINE
    kinds = list(product(SHAPES, _RADII))
    distances = np.stack([_distance(shape, x, y, radius) for shape, radius in kinds])
    masks = np.clip(0.5 - distances / _FINE, 0, 1) * np.clip(0.6 - 0.25 * distances, 0.6, 1)
    spectra: Any = fft.rfft2(fft.ifftshift(masks, axes=(1, 2)), axes=(1, 2))
    return [shape for shape, _ in kinds], np.square(masks).sum((1, 2)), np.conj(spectra)


def _overlap(pictures: _Reals, spectra: NDArray[np.complex64]) -> _Reals:
    """Return the inner product of pictures (..., row, column) with outlines at every place."""
    ahead: Any = fft.rfft2(pictures, s=_PADDED, axes=(-2, -1))
    inner: Any = fft.irfft2(ahead * spectra, s=_PADDED, axes=(-2, -1))
    return inner[..., : pictures.shape[-2], : pictures.shape[-1]]


def _read_shape(standing: _Reals) -> tuple[str, _Reals]:
    """Return the shape, and row and column of its centre in each frame, px.

    Each outline is fitted by least squares with an amplitude in each frame. The logarithm of what is left,
    summed over frames, is the negative log likelihood if each frame has its own noise, so that a frame with
    another shape does little harm.
    """
    names, powers, spectra = _outlines()
    color = _standing_color(standing)
    share = np.clip(_brightness(standing, color), -0.5, 1.2)
    inner = _overlap(share[:, None], spectra)
    explained = np.square(np.maximum(inner, 0)) / powers[:, None, None]
    explained = explained.reshape(*explained.shape[:2], -1)
    # The extra 2 % keep one frame with a nearly perfect fit from outweighing all others.
    left = 1.02 * np.square(share).sum((1, 2))[:, None] - explained.max(-1)
    best = int(np.log(left + 1e-3).sum(0).argmin())
    places = np.unravel_index(explained[:, best].argmax(-1), share.shape[1:])
    row, column = _grid(_FINE)
    return names[best], np.stack([row[places], column[places]], -1)


def _standing_color(standing: _Reals) -> _Reals:
    """Return what the shape adds to the background's colour, the median over frames at the best places."""
    _, powers, spectra = _outlines()
    inner = _overlap(np.moveaxis(standing, -1, 1), spectra[_MIDDLING])
    inner = inner.reshape(*inner.shape[:2], -1)
    place = np.square(inner).sum(1).argmax(1)
    return np.median(inner[np.arange(len(inner)), :, place], axis=0) / powers[_MIDDLING]


def _core_color(frames: _Reals, places: _Reals) -> _Reals:
    """Return the colour around the shape's centre, the median over frames."""
    row, column = _grid(_FINE)
    apart = np.hypot(row - places[:, 0, None, None], column - places[:, 1, None, None])
    return np.median([frame[near].mean(0) for frame, near in zip(frames, apart < _CORE, strict=True)], axis=0)


def _read_color(seen: _Reals) -> str:
    """Return the nearest colour in light or shade, mixed with grey where that brings it much nearer."""
    colors = np.array(list(COLORS.values()), np.float32)
    pale = _PALE[:, None, None]
    mixed = pale * colors.mean(1, keepdims=True) + (1 - pale) * colors
    light = np.clip(mixed @ seen / np.square(mixed).sum(-1), 0.8, 1.3)
    off = np.square(light[..., None] * mixed - seen).sum(-1) + np.square(_PALE_COST * _PALE)[:, None]
    return list(COLORS)[int(off.min(0).argmin())]


def _read_direction(places: _Reals, seconds: _Reals) -> str:
    # The slope of a straight line through the places gives the direction; rows count downwards.
    down, right = (seconds - seconds.mean()) @ places
    return DIRECTIONS[int(np.rint(np.arctan2(-down, right) / (np.pi / 4))) % len(DIRECTIONS)]
