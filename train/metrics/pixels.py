"""How sharp clips are, and the clips of the training film that come nearest to them."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from rtdecode.phantom.film import Film
from rtdecode.types import Float

_EVERY, _SIDE = 4, 8  # frames, px


def gradient_energy(clips: Iterable[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """Mean squared difference of neighbouring pixels along rows and columns, (clip,).

    Parameters
    ----------
    clips : iterable of uint8 (frame, row, column, 3)
    """
    return np.array([_steps(clip.astype(np.float32)) for clip in clips])


def _steps(clip: Float) -> float:
    return float(np.mean([np.square(np.diff(clip, axis=axis)).mean() for axis in (1, 2)]))


def nearest(
    clips: NDArray[np.uint8], films: Iterable[Film], mean_clip: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Choose for each clip the window of some films that correlates with it best.

    Every fourth frame is compared, averaged over blocks of 8 x 8 pixels, the mean clip subtracted.

    Parameters
    ----------
    clips : uint8, (clip, frame, row, column, 3)
    films : iterable of Film
    mean_clip : uint8, (frame, row, column, 3)

    Returns
    -------
    uint8, (clip, frame, row, column, 3)
    """
    frames = clips.shape[1]
    centre = _blocks(mean_clip[:frames])
    wanted = _unit(np.stack([_blocks(clip) - centre for clip in clips]))
    best = np.full(len(clips), -np.inf)
    chosen = np.zeros_like(clips)
    for film in films:
        windows = np.stack([film.clip(k)[:frames] for k in range(film.windows)])
        match = wanted @ _unit(np.stack([_blocks(window) - centre for window in windows])).T
        top = match.argmax(1)
        values = match[np.arange(len(clips)), top]
        better = values > best
        best[better], chosen[better] = values[better], windows[top[better]]
    return chosen


def _blocks(clip: NDArray[np.uint8]) -> Float:
    frames = clip[::_EVERY].astype(np.float32)
    t, h, w, _ = frames.shape
    return frames.reshape(t, h // _SIDE, _SIDE, w // _SIDE, _SIDE, 3).mean((2, 4)).reshape(-1)


def _unit(x: Float) -> Float:
    x = x - x.mean(1, keepdims=True)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.float32(1e-6))
