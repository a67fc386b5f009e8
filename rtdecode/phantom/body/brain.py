"""Simulate a brain: from film features to a neural state, and from there to blood oxygenation.

The features of `rtdecode.phantom.film.features` come in, at the film's 8 Hz. The neural state is these
features plus noise; `bold` returns each voxel's response to the state at given times, without noise of its
own.

The noise is added to the state, before the forward models, so that EEG and fMRI share it. Neither averaging
over voxels nor joining the modalities can remove it, just as with a participant whose attention wanders.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import signal
from scipy.special import gamma

from rtdecode.phantom.body.cortex import MIXED, SHARED, STAGES, VERTICES, shared_weights, sheet
from rtdecode.phantom.film.features import CALIBRATION, FEATURES, feature_blocks, film_features
from rtdecode.phantom.film.film import FPS
from rtdecode.types import Float

TR = 0.8
# The state begins this long before the film: the amplifier's lead-in of 10 s, after one whole
# haemodynamic response.
LEAD_S = 42.0
VOXELS = VERTICES
RESPONSE_S = 32.0
# Correlation of the state's noise over one TR.
NOISE_RHO = 0.8

# Areas: share of the voxels, mean explained share of variance relative to the early areas, and the
# chance that a feature of each block drives a voxel.
_AREAS = (
    (0.55, 1.0, (0.35, 0.35, 0.25, 0.03)),
    (0.25, 0.67, (0.25, 0.25, 0.35, 0.2)),
    (0.20, 0.5, (0.1, 0.1, 0.1, 0.6)),
)
# In a shared cortex, the share of a voxel's own noise that its neighbours have too.
NEAR = 0.5
# Exponent of the features' power, by a rank that is the same for all subjects.
_SLOPE = 0.5
_RANK = np.random.default_rng(31).permutation(FEATURES) + 1
# Responses in which those of all voxels are expressed, so that few convolutions serve them all.
_BASIS = 6


@dataclass(frozen=True, slots=True)
class Traits:
    """The properties that a simulated brain keeps from session to session.

    Attributes
    ----------
    number : int
        Number of the subject.
    weights : (voxel, feature) float32
        Weights from features to voxels, sparse.
    delay, stretch : (voxel,)
        Haemodynamic delay in seconds, and time scale, of each voxel.
    share : (voxel,)
        Share of a voxel's variance that the state explains, relative to the mean over voxels.
    tsnr : (voxel,)
        Temporal signal-to-noise ratio relative to the preset's median.
    near : float
        Share of a voxel's own noise that its neighbours have too.
    """

    number: int
    weights: Float
    delay: NDArray[np.float64]
    stretch: NDArray[np.float64]
    share: NDArray[np.float64]
    tsnr: NDArray[np.float64]
    near: float = 0.0


@lru_cache(maxsize=8)
def subject(number: int, cortex: str = MIXED) -> Traits:
    """Draw the brain of a subject from its number and the kind of its cortex.

    Parameters
    ----------
    number : int
        Number of the subject; it seeds the brain.
    cortex : str
        ``mixed``: the weights of each voxel are drawn by themselves. ``shared``: they are those of a vertex
        of `rtdecode.phantom.body.cortex`, in whose order voxels then are.
    """
    # The order of the draws is part of the subject: the shipped bundle was trained on number 1.
    rng = np.random.default_rng((number, 11))
    chances = np.array([chances for _, _, chances in _AREAS])[:, feature_blocks()]
    if cortex == SHARED:
        area = STAGES[sheet().area]
        weights = shared_weights(number, chances)
    else:
        # Rounding leaves a few voxels over, which go to the early areas.
        counts = np.floor(np.array([part for part, _, _ in _AREAS]) * VOXELS).astype(int)
        counts[0] += VOXELS - counts.sum()
        area = np.repeat(np.arange(len(_AREAS)), counts)
        weights = rng.normal(size=(VOXELS, FEATURES)) * (rng.random((VOXELS, FEATURES)) < chances[area])
    share = rng.beta(1.6, 4.5, VOXELS) * np.array([level for _, level, _ in _AREAS])[area]
    return Traits(
        number=number,
        weights=(weights * feature_strengths()).astype(np.float32),
        delay=rng.normal(0, 0.6, VOXELS),
        stretch=rng.uniform(0.85, 1.15, VOXELS),
        share=share / share.mean(),
        tsnr=np.exp(rng.normal(0, 0.25, VOXELS)),
        near=NEAR if cortex == SHARED else 0.0,
    )


def feature_strengths() -> Float:
    """Return how strongly each feature drives the brain, (`FEATURES`,), a power law over a fixed order."""
    return (_RANK ** (-_SLOPE / 2)).astype(np.float32)


def neural_state(features: Float, noise: float, after_s: float, rng: np.random.Generator) -> Float:
    """Return a film's features plus the noise of the state, from `LEAD_S` before the film.

    Parameters
    ----------
    features : (frame, `FEATURES`)
        As from `rtdecode.phantom.film.features.film_features`.
    noise : float
        Standard deviation of the noise, in units of that of a feature.
    after_s : float
        How long the state continues after the film.
    rng : numpy.random.Generator
        Draws the noise of the state.

    Returns
    -------
    (frame, `FEATURES`) float32
        State at the film's 8 Hz. Outside the film the features are at their mean, 0.

    Notes
    -----
    The noise is first-order autoregressive with correlation `NOISE_RHO` over one TR.
    """
    lead = round(LEAD_S * FPS)
    tail = int(np.ceil(after_s * FPS))
    state = np.zeros((lead + len(features) + tail, FEATURES), np.float32)
    state[lead : lead + len(features)] = features
    rho = NOISE_RHO ** (1 / (TR * FPS))
    state += np.float32(noise) * autoregressive(rng, len(state), FEATURES, rho)
    return state


def autoregressive(rng: np.random.Generator, length: int, count: int, rho: float) -> Float:
    """Return stationary AR(1) series of unit variance, (length, count)."""
    drive = rng.standard_normal((length, count), dtype=np.float32)
    # The first value keeps unit variance, so that the series is stationary from the start.
    drive[1:] *= np.float32(np.sqrt(1 - rho**2))
    return np.asarray(signal.lfilter([1.0], [1.0, -rho], drive, axis=0), np.float32)


def haemodynamic_response(
    seconds: NDArray[np.float64],
    delay: float | NDArray[np.float64] = 0.0,
    stretch: float | NDArray[np.float64] = 1.0,
) -> NDArray[np.float64]:
    """Return the double-gamma response to an impulse, in SPM's shape (gammas of 6 and 16 s, ratio 1/6).

    Parameters
    ----------
    seconds : (time,)
        Times after the impulse, s.
    delay : float or (voxel, 1)
        Shift in seconds.
    stretch : float or (voxel, 1)
        Time scale.

    Returns
    -------
    (time,) or (voxel, time)
    """
    t = np.maximum((seconds - delay) / stretch, 0)
    return t**5 * np.exp(-t) / gamma(6) - t**15 * np.exp(-t) / gamma(16) / 6


def bold(person: Traits, state: Float, shift: NDArray[np.float64], times: NDArray[np.float64]) -> Float:
    """Return the noiseless response of each voxel at given times.

    Parameters
    ----------
    person : Traits
        The brain whose voxels respond.
    state : (frame, feature)
        Neural state, as from `neural_state`.
    shift : (voxel,)
        Time at which each voxel is read, in seconds after the middle of the TR.
    times : (time,)
        Times in seconds of film time.

    Returns
    -------
    (time, voxel) float32
    """
    basis, mixture = _response_basis(person.delay - shift, person.stretch)
    frames = (np.asarray(times) + LEAD_S) * FPS
    frame_before = np.clip(frames.astype(int), 0, len(state) - 2)
    part = (frames - frame_before)[:, None].astype(np.float32)
    out = np.zeros((len(times), len(person.weights)), np.float32)
    # Convolve the features with each basis response, read them at the times, mix them into voxels.
    for response, weight in zip(basis, mixture.T, strict=True):
        slow = signal.fftconvolve(state, response[:, None], axes=0)[: len(state)].astype(np.float32)
        read = slow[frame_before] * (1 - part) + slow[frame_before + 1] * part
        out += read @ (person.weights * weight[:, None].astype(np.float32)).T
    return out


def bold_scale(person: Traits, noise: float, shift: NDArray[np.float64]) -> Float:
    """Return the standard deviation of each voxel's noiseless response over a film, (voxel,) float32.

    The film is that of `calibration_state`, so that the scale does not depend on the film that is shown.
    """
    times = np.arange(20.0, CALIBRATION.count / FPS, TR)
    return bold(person, calibration_state(noise), shift, times).std(axis=0)


@lru_cache(maxsize=4)
def calibration_state(noise: float) -> Float:
    """Return the state over a fixed film by which all levels are set."""
    return neural_state(film_features(CALIBRATION), noise, 10.0, np.random.default_rng(17))


def calibration_cuts() -> NDArray[np.int64]:
    """Return the first frames of the shots in the film of `calibration_state`."""
    return CALIBRATION.cut_frames


def _response_basis(
    delay: NDArray[np.float64], stretch: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a few responses, (basis, time), and the mixture of them for each voxel, (voxel, basis)."""
    # The basis spans a bank of responses that covers the delays and time scales of voxels.
    seconds = np.arange(0, RESPONSE_S, 1 / FPS)
    voxel_responses = haemodynamic_response(seconds, delay[:, None], stretch[:, None]) / FPS
    bank = [
        haemodynamic_response(seconds, d, s) / FPS
        for d in np.linspace(-2.4, 2.4, 13)
        for s in (0.85, 0.95, 1.05, 1.15)
    ]
    basis = np.linalg.svd(np.array(bank), full_matrices=False)[2][:_BASIS]
    return basis, voxel_responses @ basis.T
