"""Simulate the scanner: a head, and volumes of it as a scanner would deliver them.

The neural state comes in, and volumes go out one by one, (i, j, k) int16. The head's image is drawn once
from the number of the subject. Each volume is this image with the response to the film and the noise of the
tissue, moved with the head if it moves, plus thermal noise.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.phantom.body.brain import TR, VOXELS, Traits, autoregressive, bold, bold_scale
from rtdecode.phantom.body.cortex import MIXED, folded
from rtdecode.phantom.body.movement import Resampler
from rtdecode.phantom.body.presets import Preset
from rtdecode.types import Float

SHAPE = (64, 64, 36)
# Middle of the head, scanner RAS+ mm.
CENTRE = (0.0, -12.0, 6.0)

# Standard deviation of the thermal noise, in scanner units.
THERMAL = 6.0
# Components of the shared noise, of the drift, and of what neighbours share.
SHARED = 30
DRIFTS = 6
NEIGHBOURS = 200
# Distance at which the correlation of what neighbours share is exp(-1/2), mm.
NEAR_MM = 10.0
# The slices are oblique, so that a wrong orientation shows.
_TILT_DEG = (9.0, -4.0, 3.0)
# Shares of the noise variance.
PRIVATE = 0.40
COMMON = 0.40
DRIFT = 0.15
CYCLES = 0.05
# Correlation of a voxel's own noise, and of the shared noise, over 0.8 s.
PRIVATE_RHO = 0.35
SHARED_RHO = 0.7
# Rates of heartbeat and breathing, each in two phases.
CYCLES_HZ = (1.1, 1.1, 0.27, 0.27)
# Voxels beyond the grid from which tissue can move in.
_MARGIN = 6
# Grey matter at 3 T: Wansapura et al. 1999, JMRI 9:531.
_T1_S = 1.33
_FLIP_DEG = 52.0


@dataclass(frozen=True, slots=True)
class PhantomHead:
    """A head at rest in the scanner.

    Attributes
    ----------
    shape : (int, int, int)
        Voxels along each axis.
    affine : float64, (4, 4)
        Voxel indices to scanner RAS+ coordinates, mm.
    mean : float32, (i, j, k)
        Image without noise.
    brain : int64
        Flat C-order indices of the voxels of the brain.
    voxels : int64, (voxel,)
        Flat C-order indices of the voxels that the film drives: ascending, or in the order of the vertices of
        a shared cortex.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    mean: Float
    brain: NDArray[np.int64]
    voxels: NDArray[np.int64]


@lru_cache(maxsize=4)
def head(number: int, shape: tuple[int, int, int] = SHAPE, cortex: str = MIXED) -> PhantomHead:
    """Return the head of a subject on a grid of 3 mm voxels (2 mm for grids of 84 voxels and more)."""
    affine = _affine(shape)
    mean, depth, rng = _anatomy(number, shape, affine)
    # The film drives voxels near the surface at the back of the brain, off the midline.
    brain = np.flatnonzero(depth < 0.88)
    x, y, z = _places(shape, affine).reshape(3, -1)[:, brain]
    posterior = (y < -8) & (depth.reshape(-1)[brain] > 0.6) & (np.abs(x) > 4) & (np.abs(z) < 45)
    if cortex == MIXED:
        voxels = np.sort(rng.choice(brain[posterior], VOXELS, replace=False))
    else:
        candidates = np.stack([x, y, z], axis=1)[posterior].astype(np.float64)
        voxels = brain[posterior][folded(candidates, _half_axes(np.random.default_rng((number, 12))))]
    return PhantomHead(shape, affine, mean, brain, voxels)


def settling_factor(index: int, tr_s: float = TR) -> float:
    """Return the signal of volume `index` relative to the steady state, in a run from full magnetisation.

    Notes
    -----
    For one tissue (grey matter), the longitudinal magnetisation after n pulses of a flip angle a is
    ``M(n) = M + (1 - M) (E cos a)^n`` with ``E = exp(-TR / T1)``, ``M = (1 - E) / (1 - E cos a)``.
    """
    decay = np.exp(-tr_s / _T1_S)
    ratio = decay * np.cos(np.deg2rad(_FLIP_DEG))
    steady = (1 - decay) / (1 - ratio)
    return float(1 + (1 / steady - 1) * ratio**index)


def slice_times(slices: int, tr_s: float = TR) -> NDArray[np.float64]:
    """Return when each slice's acquisition starts, in seconds after the volume's start.

    Slices are interleaved, and several bands are acquired at once.
    """
    shots = -(-slices // max(1, round(slices / 9)))
    order = np.argsort(np.concatenate([np.arange(0, shots, 2), np.arange(1, shots, 2)]))
    return tr_s * order[np.arange(slices) % shots] / shots


class Scanner:
    """Volumes of a subject whose neural state is known.

    Parameters
    ----------
    place : PhantomHead
        The head, and where its voxels lie.
    person : Traits
        The brain whose voxels respond.
    preset : Preset
        Levels of signal and noise.
    state : (frame, feature)
        Neural state, as from `rtdecode.phantom.body.brain.neural_state`.
    count : int
        Number of volumes to scan, one per TR from film time 0 on.
    seed : int
        Seed of the noise.
    path : (volume, 6), optional
        Position of the head, as from `rtdecode.phantom.body.movement.head_path`; at rest by default.
        Thermal noise does not move with it.
    settling : bool
        Whether the first volumes are brighter, until the magnetisation has settled.
    tr_s : float
        Repetition time, s.

    Notes
    -----
    A driven voxel is ``mean * (1 + (sqrt(r) n + sqrt(1 - r) z) / tSNR)``, where n is its standardised
    response and z is noise of unit variance. Of z, 40 % is its own, AR(1) with 0.35 over 0.8 s; 40 %
    is shared and smooth in space, AR(1) with 0.7; 15 % is drift; 5 % is heartbeat and breathing, aliased at
    the TR. Thermal noise is everywhere, and adds to the total where it is larger than the voxel's own share.
    Other voxels of the brain have the shared part alone. In a shared cortex, half of a voxel's own noise is
    common to what lies within 10 mm.
    """

    def __init__(
        self,
        place: PhantomHead,
        person: Traits,
        preset: Preset,
        state: Float,
        count: int,
        seed: int,
        path: NDArray[np.float64] | None = None,
        settling: bool = False,
        tr_s: float = TR,
    ) -> None:
        self.head = place
        self._tr = tr_s
        self.count = count
        self._seed = seed
        self._settling = settling
        if path is not None:
            place = _enlarged(place, person.number)
            self._resampler = Resampler(place.mean, _MARGIN, self.head.affine, CENTRE)
        self._path = path
        self._body = place
        rng = np.random.default_rng((seed, 21))
        mean = place.mean.reshape(-1)
        spread = np.full(mean.size, 1 / preset.tsnr, np.float32)
        spread[place.voxels] /= person.tsnr
        share = explained_share(person, preset)
        physiology = np.full(mean.size, 1.0)
        physiology[place.voxels] = 1 - share
        # Shared noise: where it acts belongs to the subject, when it acts to the run.
        self._series = _common_series(rng, count, tr_s)
        maps = _common_maps(np.random.default_rng((person.number, 22)), _places(place.shape, place.affine))
        amplitude = mean * spread * np.sqrt(physiology)
        self._maps = (maps[:, place.brain] * amplitude[place.brain]).astype(np.float32)
        response = self._response(person, preset, state) * np.sqrt(share)
        near, room = own_noise(person, share, (mean * spread)[place.voxels])
        private = np.sqrt(room) * autoregressive(rng, count, VOXELS, _over(PRIVATE_RHO, tr_s))
        if person.near:
            common = autoregressive(rng, count, NEIGHBOURS, _over(PRIVATE_RHO, tr_s))
            private += np.sqrt(near) * (common @ near_maps(place, person.number))
        self._driven = ((mean * spread)[place.voxels] * (response + private)).astype(np.float32)

    def volume(self, index: int) -> NDArray[np.int16]:
        """Return volume `index`, (i, j, k), with values from 0 to 4095, whatever the order of calls."""
        rng = np.random.default_rng((self._seed, 23, index))
        out = rng.standard_normal(self.head.mean.size, dtype=np.float32)
        out *= np.float32(THERMAL)
        if self._path is None and not self._settling:
            self._add_tissue(out, index)
        else:
            out += self._scene(index)
        # A scanner delivers magnitudes, in 12 bits.
        np.abs(out, out=out)
        return np.minimum(np.rint(out), 4095).astype(np.int16).reshape(self.head.shape)

    def _add_tissue(self, out: Float, index: int) -> None:
        out += self._body.mean.reshape(-1)
        out[self._body.brain] += self._series[index] @ self._maps
        out[self._body.voxels] += self._driven[index]

    def _scene(self, index: int) -> Float:
        """Return the image without thermal noise, flat."""
        out = np.zeros(self._body.mean.size, np.float32)
        self._add_tissue(out, index)
        if self._settling:
            out *= np.float32(settling_factor(index, self._tr))
        return out if self._path is None else self._resampler.moved(out, self._path[index])

    def _response(self, person: Traits, preset: Preset, state: Float) -> Float:
        shift = read_shift(self.head, self._tr)
        times = np.arange(0.5, self.count, dtype=np.float64) * self._tr
        scale = bold_scale(person, preset.feature_noise, shift)
        return bold(person, state, shift, times) / scale


def own_noise(
    person: Traits, share: NDArray[np.float64], deviation: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Divide each voxel's own noise into what its neighbours have too and what is its own alone.

    Parameters
    ----------
    person : Traits
        The brain whose voxels are noisy.
    share : (voxel,)
        As from `explained_share`.
    deviation : (voxel,)
        Standard deviation of each voxel, in scanner units.

    Returns
    -------
    near, room : (voxel,)
        Shares of the variance. The thermal noise takes its part of the latter.
    """
    private = PRIVATE * (1 - share)
    near = private * person.near
    return near, np.maximum(private - near - (THERMAL / deviation) ** 2, 0)


def near_maps(place: PhantomHead, number: int) -> Float:
    """Draw where noise that neighbours share acts on driven voxels, (component, voxel).

    The squares of the components add up to about 1.
    """
    rng = np.random.default_rng((number, 24))
    where = _places(place.shape, place.affine).reshape(3, -1)[:, place.voxels]
    return _waves(rng, where, NEIGHBOURS, 1 / NEAR_MM) / np.float32(np.sqrt(NEIGHBOURS))


def explained_share(person: Traits, preset: Preset) -> NDArray[np.float64]:
    """Return the share of each driven voxel's variance that its response has, (voxel,)."""
    return np.clip(preset.bold_share * person.share, 0, 0.9)


def read_shift(place: PhantomHead, tr_s: float) -> NDArray[np.float64]:
    """Return when each driven voxel is read, s after the middle of the TR, (voxel,)."""
    slices = np.unravel_index(place.voxels, place.shape)[2]
    return slice_times(place.shape[2], tr_s)[slices] - tr_s / 2


def _over(rho: float, tr_s: float) -> float:
    """Return the correlation of noise over a TR, given that over the TR for which levels are stated."""
    return float(rho ** (tr_s / TR))


def _affine(shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """Return the affine of oblique axial slices: i runs to the left, j to the back, k upwards."""
    size = 3.0 if shape[0] < 84 else 2.0
    turn = np.eye(3)
    for axis, degrees in enumerate(_TILT_DEG):
        angle = np.deg2rad(degrees)
        step = np.eye(3)
        a, b = [other for other in range(3) if other != axis]
        step[a, a] = step[b, b] = np.cos(angle)
        step[a, b], step[b, a] = -np.sin(angle), np.sin(angle)
        turn = turn @ step
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-size, -size, size])
    affine[:3, 3] = np.add(CENTRE, (1.5, 0.0, 0.0)) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def _places(shape: tuple[int, int, int], affine: NDArray[np.float64]) -> Float:
    """Return the position of each voxel relative to the middle of the head, mm, (3, i, j, k)."""
    index = np.indices(shape, dtype=np.float64).reshape(3, -1)
    place = affine[:3, :3] @ index + affine[:3, 3:] - np.array(CENTRE)[:, None]
    return place.reshape(3, *shape).astype(np.float32)


def _anatomy(
    number: int, shape: tuple[int, int, int], affine: NDArray[np.float64]
) -> tuple[Float, Float, np.random.Generator]:
    """Return image and depth of a subject's head on any grid, and the generator that drew them."""
    rng = np.random.default_rng((number, 12))
    axes = _half_axes(rng)
    place = _places(shape, affine)
    depth = _depth(place, axes)
    return _mean_image(place, depth, rng), depth, rng


def _half_axes(rng: np.random.Generator) -> tuple[float, float, float]:
    """Draw how long the half axes of a head are, mm."""
    size = 1 + 0.03 * rng.normal(size=3)
    return 72 * size[0], 88 * size[1], 62 * size[2]


def _enlarged(place: PhantomHead, number: int) -> PhantomHead:
    """Return the same head on a grid that is larger by `_MARGIN` voxels on every side."""
    shape = (place.shape[0] + 2 * _MARGIN, place.shape[1] + 2 * _MARGIN, place.shape[2] + 2 * _MARGIN)
    affine = place.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, _MARGIN)
    mean, depth, _ = _anatomy(number, shape, affine)
    index = np.stack(np.unravel_index(place.voxels, place.shape)) + _MARGIN
    voxels = np.asarray(np.ravel_multi_index(tuple(index), shape), np.int64)
    return PhantomHead(shape, affine, mean, np.flatnonzero(depth < 0.88), voxels)


def _depth(place: Float, axes: tuple[float, float, float]) -> Float:
    """Return the depth in an ellipsoid: 0 in the middle, 1 on the surface."""
    x, y, z = place
    return np.sqrt((x / axes[0]) ** 2 + (y / axes[1]) ** 2 + (z / axes[2]) ** 2)


def _mean_image(place: Float, depth: Float, rng: np.random.Generator) -> Float:
    """Draw scalp, dark skull, brain with folds and ventricles, and eyes, under a smooth coil profile."""
    x, y, z = place
    folds = sum(
        np.cos(np.tensordot(rng.normal(0, 0.12, 3).astype(np.float32), place, 1) + rng.uniform(0, 6))
        for _ in range(8)
    )
    tissue = 1000 + 45 * folds
    ventricles = np.minimum(
        _depth(place - _at(11, 4, 8), (9, 30, 12)), _depth(place + _at(11, -4, -8), (8, 27, 12))
    )
    tissue = np.where(ventricles < 1, 1650, tissue)
    image = np.select([depth < 0.88, depth < 0.97, depth < 1.07], [tissue, 220.0, 700.0], 14.0)
    eyes = np.minimum(
        _depth(place - _at(32, 88, -30), (12, 12, 12)), _depth(place - _at(-32, 88, -30), (12, 12, 12))
    )
    image = np.where(eyes < 1, 1500, image)
    coil = 1 - 0.0012 * y + 0.0009 * x + 0.15 * np.minimum(depth, 1.1) ** 2 - 0.0006 * z
    return (image * np.where(image > 20, coil, 1)).astype(np.float32)


def _at(x: float, y: float, z: float) -> Float:
    return np.array([x, y, z], np.float32).reshape(3, 1, 1, 1)


def _common_maps(rng: np.random.Generator, place: Float) -> Float:
    """Draw where the shared noise acts, (component, voxel), as smooth waves of unit variance."""
    return _waves(rng, place.reshape(3, -1), SHARED + DRIFTS + 4, 2 * np.pi / 70)


def _waves(rng: np.random.Generator, place: Float, count: int, rate: float) -> Float:
    """Draw waves of unit variance at places (3, voxel), -> (wave, voxel).

    Their correlation over a distance is that of a Gaussian whose standard deviation is 1 / rate.
    """
    waves = rng.normal(0, rate, (count, 3)).astype(np.float32)
    phases = rng.uniform(0, 6.28, (count, 1)).astype(np.float32)
    return np.float32(np.sqrt(2)) * np.cos(waves @ place + phases)


def _common_series(rng: np.random.Generator, count: int, tr_s: float) -> Float:
    """Draw when the shared noise acts, (volume, component)."""
    # AR(1) series, then drifts (slow waves and a line), then heartbeat and breathing in both phases.
    seconds = np.arange(count)[:, None] * tr_s
    shared = autoregressive(rng, count, SHARED, _over(SHARED_RHO, tr_s)) * np.sqrt(COMMON / SHARED)
    period = rng.uniform(120, 400, DRIFTS - 1)
    waves = np.sqrt(2) * np.cos(2 * np.pi * seconds / period + rng.uniform(0, 6.28, DRIFTS - 1))
    line = (seconds - seconds.mean()) / 150 * rng.choice([-1, 1])
    drift = np.concatenate([waves, line], axis=1) * np.sqrt(DRIFT / DRIFTS)
    rate = np.array(CYCLES_HZ) * (1 + 0.01 * rng.normal())
    phase = np.array([0, np.pi / 2, 0, np.pi / 2]) + rng.uniform(0, 6.28)
    cycles = np.sqrt(2) * np.cos(2 * np.pi * rate * seconds + phase) * np.sqrt(CYCLES / 4)
    return np.concatenate([shared, drift, cycles], axis=1).astype(np.float32)
