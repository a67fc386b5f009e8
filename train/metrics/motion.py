"""How clips move: motion energy along eight directions in each part of the picture, and its direction.

The energies share nothing with the simulated participant's eye, which multiplies derivatives: they are the
power in half-planes of the clip's spectrum.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import Pixels, pieces
from rtdecode.scores.colours import CELLS
from train.metrics.layout import LUMINANCE

# Directions of motion, counted as an angle from rightwards to upwards.
DIRECTIONS = np.arange(0, 360, 45)
# Pictures are averaged over squares with sides of so many pixels.
_SIDE = 2
# Middle of the band of spatial frequencies, in periods a pixel, and its standard deviation in octaves. Finer
# detail moves by more than half a period a frame and would seem to go backwards.
_BAND = 1 / 16
_OCTAVES = 0.7
# A part of the picture moves where its amplitude, in grey levels of 255, is at least so large, and the sum of
# its energies as vectors at least such a share of their plain sum. A texture that moves steadily has a share
# of 0.6, a cut 0, and flickering noise less than 0.15 in 99 parts of 100.
_LEAST_AMPLITUDE = 1.5
_LEAST_SHARE = 0.2

Matrix = NDArray[np.float64]


def motion_energy(clips: Sequence[Pixels]) -> Matrix:
    """Compute the power that moves in each direction, (clip, direction, 4, 6), in squared grey levels.

    Parameters
    ----------
    clips : sequence of (frame, row, column, 3)
        Luminance is averaged over 2 x 2 pixels. The picture that stands still all the time is subtracted.

    Notes
    -----
    A pattern that moves with the velocity v has its power where the temporal frequency is ``-k . v``, with k
    the spatial frequency. So at positive temporal frequencies it lies in the half-plane of k against v,
    whatever the speed. A filter there with the weight ``cos(angle)^2`` around one direction has a complex
    output, whose squared magnitude is the energy of a pair in quadrature (Adelson and Bergen 1985, J. Opt.
    Soc. Am. A 2:284). Energy is averaged over time and over 4 x 6 cells.
    """
    count, height, width = clips[0].shape[:3]
    filters = _filters((count, height // _SIDE, width // _SIDE))
    return np.array([_energy(_reduced(clip), filters) for clip in clips])


def opponent(energies: Matrix) -> Matrix:
    """Subtract the energy of the opposite direction, as amplitudes with a sign, (clip, 4 * 4 * 6).

    Flicker and cuts have as much of both and cancel. The root is taken, so that one part of the picture with
    strong edges does not outweigh all others.
    """
    half = len(DIRECTIONS) // 2
    amplitudes = np.sqrt(energies)
    return (amplitudes[:, :half] - amplitudes[:, half:]).reshape(len(energies), -1)


def direction_error(decoded: Matrix, true: Matrix) -> tuple[Matrix, Matrix]:
    """Compare the direction of motion in the parts of the picture where the film moves.

    Parameters
    ----------
    decoded, true : (window, direction, 4, 6)
        Energies of the emitted clips and of the film.

    Returns
    -------
    error : (window,) float64
        Mean angle between the two directions in degrees, 0 to 180; 90 for a part that stands still in the
        clip, which is also the mean for a direction drawn at random. NaN where nothing moves in the film.
    moving : (window,) float64
        Number of moving parts.
    """
    decoded_vectors = _vectors(decoded)
    true_vectors = _vectors(true)
    amplitude = np.sqrt(true.sum(axis=1))
    moves = (amplitude >= _LEAST_AMPLITUDE) & (_share(true, true_vectors) >= _LEAST_SHARE)
    # No direction at all where hardly anything moves; the rounding of pixels would choose one.
    still = np.sqrt(decoded.sum(axis=1)) < 0.1 * _LEAST_AMPLITUDE
    turn = np.rad2deg(np.abs(np.angle(decoded_vectors * np.conj(true_vectors))))
    turn = np.where(still, 90.0, turn)
    moving = moves.sum(axis=(1, 2)).astype(np.float64)
    total = np.where(moves, turn, 0).sum(axis=(1, 2))
    error = np.divide(total, moving, out=np.full(len(total), np.nan), where=moving > 0)
    return error, moving


def _vectors(energies: Matrix) -> NDArray[np.complex128]:
    """Add up the energies as vectors in their directions, (window, 4, 6)."""
    units = np.exp(1j * np.deg2rad(DIRECTIONS))
    return np.einsum("d,ndrc->nrc", units, energies)


def _share(energies: Matrix, vectors: NDArray[np.complex128]) -> Matrix:
    total = energies.sum(axis=1)
    return np.divide(np.abs(vectors), total, out=np.zeros_like(total), where=total > 0)


def _reduced(clip: Pixels) -> NDArray[np.float32]:
    # Some frames at a time: a large clip lies in a file.
    return np.concatenate([_halved(np.asarray(clip[part], np.float32)) for part in pieces(clip.shape)])


def _halved(clip: NDArray[np.float32]) -> NDArray[np.float32]:
    frames = clip @ LUMINANCE
    count, height, width = frames.shape
    rows = height // _SIDE
    columns = width // _SIDE
    cropped = frames[:, : rows * _SIDE, : columns * _SIDE]
    return cropped.reshape(count, rows, _SIDE, columns, _SIDE).mean(axis=(2, 4))


def _filters(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the weight of each frequency for each direction, (direction, frame, row, column)."""
    times = np.fft.fftfreq(shape[0])[:, None, None]
    # Rows count downwards, and angles upwards.
    upwards = -np.fft.fftfreq(shape[1], _SIDE)[:, None]
    rightwards = np.fft.fftfreq(shape[2], _SIDE)[None]
    size = np.hypot(upwards, rightwards)
    with np.errstate(divide="ignore"):
        band = np.exp(-0.5 * (np.log2(size / _BAND) / _OCTAVES) ** 2)
    # Against the motion, because the temporal frequency is -k . v.
    along = np.arctan2(-upwards, -rightwards)
    turns = along[None] - np.deg2rad(DIRECTIONS)[:, None, None]
    lobes = np.maximum(np.cos(turns), 0) ** 2
    # The highest temporal frequency has no sign, so it has no direction either.
    forwards = (times > 0) & (times < 0.5)
    filters = np.empty((len(DIRECTIONS), *shape), np.float32)
    # One by one: together, in double precision, they take several times as much.
    for direction, lobe in enumerate(lobes):
        filters[direction] = lobe * band * forwards
    return filters


def _energy(frames: NDArray[np.float32], filters: NDArray[np.float32]) -> Matrix:
    spectrum = np.fft.fftn(frames - frames.mean(axis=0)).astype(np.complex64)
    energies = np.empty((len(filters), *CELLS))
    rows, columns = CELLS
    height = frames.shape[1] // rows
    width = frames.shape[2] // columns
    for direction, weight in enumerate(filters):
        # One half of the spectrum has half of the amplitude.
        moving = 2 * np.fft.ifftn(spectrum * weight)
        power = np.square(np.abs(moving)).mean(axis=0)[: rows * height, : columns * width]
        energies[direction] = power.reshape(rows, height, columns, width).mean(axis=(1, 3))
    return energies
