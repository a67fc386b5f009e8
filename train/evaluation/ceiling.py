"""The ceiling: windows identified by their signals alone, by someone who knows how the simulator makes them.

The film of every candidate window is known, and with it the neural state that it drives, the responses and
weights of this participant's voxels and sources, and the noise. The candidate is chosen under which the
window's volumes and EEG are most likely. No decoder that is given one window's signals identifies more on
average, so a figure says how much of what the signals hold a decoder has found.

The windows are those of the bundle's grid, with all volumes that it reads, its look-ahead included; a bundle
that reads one modality is held against that one alone. Where a window holds no whole number of TRs, its
volumes lie elsewhere in it than those of the next one: each candidate's are predicted for the instants at
which the window in question has its own.

Two things are less than exact, so that it may lie a little too low: the noise that EEG and fMRI share counts
as if each had its own, and the EEG's noise is estimated from a session instead of being derived. A decoder
that gets the end of the clip before knows more than one window's signals, and may come nearer or go beyond.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, toeplitz

from rtdecode.bundle import Bundle
from rtdecode.phantom.body import scanner
from rtdecode.phantom.body.amplifier import LEAD_IN_S, evoked, evoked_gain, leads, source_drive
from rtdecode.phantom.body.brain import (
    NOISE_RHO,
    RESPONSE_S,
    TR,
    bold,
    bold_scale,
    haemodynamic_response,
    neural_state,
)
from rtdecode.phantom.film.film import FPS
from rtdecode.phantom.session import SCAN_ON_S, PhantomSession
from rtdecode.signal.eeg.band import EegFilter
from rtdecode.signal.volume.baseline import Baseline, normalizer
from rtdecode.timing import TimingGrid
from train.config.run_context import Arrays
from train.data.phantom import windows_of

Matrix = NDArray[np.float64]

# Responses in which those of all voxels are expressed.
_BASIS = 4
# Directions in time of the noise of the state are kept down to this share of the strongest one's variance.
_LEAST_VARIANCE = 1e-3
# The covariance of the EEG's noise is estimated over this many neighbouring frequencies on either side, and
# over more until there are this many samples for each channel.
_AROUND = 8
_SAMPLES = 10


@dataclass(frozen=True)
class Forward:
    """The forward model of one participant at one preset, as a bundle's chain shows it.

    Attributes
    ----------
    volumes : dict
        How many volumes a window has -> their noise. Empty where the bundle reads none.
    cross : (frequency, channel, channel) complex, or None
        Inverse covariance of the EEG's noise at each frequency of a window; None where it reads no EEG.
    """

    volumes: dict[int, "SharedNoise"]
    cross: NDArray[np.complex128] | None


def fit_forward(bundle: Bundle, session: PhantomSession, inputs: Arrays) -> Forward:
    """Make the forward model; a session that is not judged gives the covariance of the EEG's noise."""
    volumes: dict[int, SharedNoise] = {}
    if bundle.manifest.fmri is not None:
        volumes = {count: _volume_noise(bundle, session, count) for count in _counts(bundle.manifest.grid)}
    cross = None if bundle.manifest.eeg is None else _inverse_cross(bundle, session, inputs)
    return Forward(volumes, cross)


def _inverse_cross(bundle: Bundle, session: PhantomSession, inputs: Arrays) -> NDArray[np.complex128]:
    residual = np.fft.rfft(inputs["eeg"] - predicted_eeg(bundle, session), axis=2)
    # (frequency, channel, window)
    noise = residual.transpose(2, 1, 0)
    spectra = np.einsum("fcw,fdw->fcd", noise, noise.conj()) / noise.shape[2]
    frequencies, channels, windows = noise.shape
    around = max(_AROUND, -(-_SAMPLES * channels // (2 * windows)))
    bands = [spectra[max(0, f - around) : f + around + 1] for f in range(frequencies)]
    cross = np.array([band.mean(axis=0) for band in bands])
    # The filter leaves nothing at some frequencies, and the average reference nothing along one direction.
    least = 1e-3 * np.trace(cross, axis1=1, axis2=2).real.max() / channels
    return np.linalg.inv(cross + least * np.eye(channels))


def likelihood(
    forward: Forward,
    bundle: Bundle,
    session: PhantomSession,
    inputs: Arrays,
    rows: NDArray[np.int64] | None = None,
) -> Matrix:
    """Compute how likely each window's signals are if they were those of each other window.

    Parameters
    ----------
    forward : Forward
        The noise of volumes and EEG, against which the signals are held.
    bundle : Bundle
        Its chain and its grid made the inputs.
    session : PhantomSession
        The session that the windows are of.
    inputs : dict
        Signals by port.
    rows : (window,) int64, optional
        Which windows of the session they are; by default all.

    Returns
    -------
    (window, candidate) float64
        Logarithm of the density, up to a constant a window.
    """
    rows = np.arange(windows_of(bundle.manifest, session)) if rows is None else rows
    likely = np.zeros((len(rows), len(rows)))
    if forward.volumes:
        likely += _volumes(forward, bundle, session, inputs, rows)
    if forward.cross is not None:
        likely += _eeg(forward.cross, bundle, session, inputs, rows)
    return likely


def _volumes(
    forward: Forward, bundle: Bundle, session: PhantomSession, inputs: Arrays, rows: NDArray[np.int64]
) -> Matrix:
    grid = bundle.manifest.grid
    driven = _driven(bundle, session)
    count = windows_of(bundle.manifest, session)
    likely = np.zeros((len(rows), len(rows)))
    for offsets, windows in _alike(grid, count).items():
        places = np.flatnonzero(np.isin(rows, windows))
        # Slots before the run's first volume are empty.
        first = grid.empty_slots(windows[0])
        slots = slice(first, first + len(offsets))
        measured = inputs["fmri"][places, slots][:, :, driven.columns]
        measured = measured.reshape(len(places), -1).astype(np.float64)
        model = predicted_volumes(bundle, session, offsets).reshape(count, -1)[rows]
        weighed = forward.volumes[len(offsets)].precision(model)
        likely[places] = measured @ weighed.T - np.einsum("ij,ij->i", model, weighed) / 2
    return likely


def _eeg(
    cross: NDArray[np.complex128],
    bundle: Bundle,
    session: PhantomSession,
    inputs: Arrays,
    rows: NDArray[np.int64],
) -> Matrix:
    measured = np.fft.rfft(inputs["eeg"], axis=2).transpose(2, 0, 1)
    model = np.fft.rfft(predicted_eeg(bundle, session)[rows], axis=2).transpose(2, 0, 1)
    weighed = np.einsum("fcd,fwd->fwc", cross, model)
    # Each frequency but the first and the last stands for two.
    twice = np.full(len(measured), 2.0)
    twice[[0, -1]] = 1
    fits = np.einsum("f,fic,fjc->ij", twice, measured, weighed.conj(), optimize=True).real
    energy = np.einsum("f,fjc,fjc->j", twice, model, weighed.conj(), optimize=True).real
    return fits - energy / 2


# When volumes are read, middle of their acquisition after the start of a window, s.
Offsets = tuple[Fraction, ...]


def volume_offsets(grid: TimingGrid, k: int) -> Offsets:
    """Return when the volumes of window k are read."""
    assert grid.tr is not None
    start, _ = grid.span(k)
    return tuple((n + Fraction(1, 2)) * grid.tr - start for n in grid.volumes(k))


def _alike(grid: TimingGrid, count: int) -> dict[Offsets, list[int]]:
    """Group the first windows of a run by where their volumes lie in them; those without any are left out."""
    groups: dict[Offsets, list[int]] = {}
    for k in range(count):
        groups.setdefault(volume_offsets(grid, k), []).append(k)
    return {offsets: rows for offsets, rows in groups.items() if offsets}


def _counts(grid: TimingGrid) -> list[int]:
    """List how many volumes a window may have."""
    assert grid.tr is not None
    # The first windows may reach back behind the run's first volume; then they repeat.
    begins = ceil(grid.before * grid.tr / grid.hop) + 1
    period = (grid.hop / grid.tr).denominator
    return sorted({len(grid.volumes(k)) for k in range(begins + period)} - {0})


def predicted_volumes(bundle: Bundle, session: PhantomSession, offsets: Offsets | None = None) -> Matrix:
    """Predict what the chain makes of a session's volumes without noise, (window, volume, driven voxel).

    Parameters
    ----------
    bundle : Bundle
        Whose chain, grid and driven voxels are taken.
    session : PhantomSession
        The session whose film is seen.
    offsets : tuple of Fraction, optional
        When the volumes are read, middle of their acquisition after the start of a window, s. By default as
        in the first window.
    """
    driven = _driven(bundle, session)
    stats = {name: bundle.stats[name][driven.columns] for name in ("fmri_mean", "fmri_scale")}
    chain = normalizer(stats, _baseline(bundle))
    middles = np.arange(0.5, session.volumes) * session.tr_s
    clean = _clean(session, driven, middles)
    series = np.stack([chain.push(volume) for volume in clean]).astype(np.float64)
    grid = bundle.manifest.grid
    assert grid.tr is not None
    reading = volume_offsets(grid, 0) if offsets is None else offsets
    starts = [grid.span(k)[0] for k in range(windows_of(bundle.manifest, session))]
    instants = [start + offset for start in starts for offset in reading]
    # The volume that is acquired at each instant, or was last, and whether it lies there exactly.
    places = [instant / grid.tr - Fraction(1, 2) for instant in instants]
    volumes = np.array([min(max(floor(place), 0), session.volumes - 1) for place in places])
    between = np.array([place != volume for place, volume in zip(places, volumes.tolist(), strict=True)])
    normalized = series[volumes]
    if between.any():
        # The resting level that the chain takes off is that of the last volume.
        level = clean[volumes] - normalized * stats["fmri_scale"]
        values = _clean(session, driven, np.array([float(instant) for instant in instants]))
        normalized = np.where(between[:, None], (values - level) / stats["fmri_scale"], normalized)
    return normalized.reshape(len(starts), len(reading), -1)


def _clean(session: PhantomSession, driven: "_Driven", times: Matrix) -> NDArray[np.float32]:
    """Return the values of driven voxels at instants of the film, without noise, (time, voxel)."""
    state = neural_state(session.features, 0.0, SCAN_ON_S + 2.0, np.random.default_rng(0))
    person = session.person
    shift = scanner.read_shift(session.head, session.tr_s)
    response = bold(person, state, shift, times) / bold_scale(person, session.preset.feature_noise, shift)
    gain, rest_level = (values[driven.voxel_indices] for values in _levels(session))
    return (rest_level + gain * response[:, driven.voxel_indices]).astype(np.float32)


def predicted_eeg(bundle: Bundle, session: PhantomSession) -> Matrix:
    """Predict what the chain makes of a session's EEG without noise, (window, channel, sample)."""
    eeg = bundle.manifest.eeg
    assert eeg is not None
    cuts = session.film.cut_frames
    state = neural_state(session.features, 0.0, SCAN_ON_S + 2.0, np.random.default_rng(0))
    gain = evoked_gain(session.subject, session.preset.feature_noise, session.preset.eeg_db)
    drive = gain * source_drive(session.subject, state, cuts)
    head = leads(session.subject)
    band = EegFilter(eeg.band, session.sfreq)
    seconds = session.samples // session.sfreq
    starts = range(-LEAD_IN_S, seconds - LEAD_IN_S)
    within = np.arange(session.sfreq) / session.sfreq
    blocks = [band.push(evoked(head, drive, start + within).T) for start in starts]
    grid = bundle.manifest.grid
    step = round(session.sfreq / float(grid.sfreq))
    series = np.concatenate(blocks, axis=1)[:, LEAD_IN_S * session.sfreq :: step]
    hop = round(float(grid.hop * grid.sfreq))
    cut = [series[:, k * hop : k * hop + grid.samples] for k in range(windows_of(bundle.manifest, session))]
    return np.stack(cut) / bundle.stats["eeg_scale"][:, None]


def known_weights(bundle: Bundle, session: PhantomSession) -> Matrix:
    """Return how far the film drives each voxel that a bundle reads, (voxel,).

    It is the root of the share of the voxel's variance that the film explains: the standard deviation of the
    response, in that of the voxel. Voxels that no film drives have 0.
    """
    assert bundle.projection is not None
    driven = _driven(bundle, session)
    weights = np.zeros(len(bundle.projection.voxels))
    _, _, share = _voxels(session)
    weights[driven.columns] = np.sqrt(share[driven.voxel_indices])
    return weights


class SharedNoise:
    """Noise of windows of volumes: each voxel's own, and some that voxels share.

    Parameters
    ----------
    private_cov : (voxel, slot, slot)
        Covariance of each voxel's own noise over the window's slots.
    columns : (slot * voxel, column)
        One column for each independent direction of the shared noise.

    Notes
    -----
    The covariance is ``N + U U^T``, with N made of the blocks of `private_cov` and U of the columns. Its
    inverse is ``P - P U (1 + U^T P U)^-1 U^T P`` with ``P = N^-1`` (Woodbury 1950).
    """

    def __init__(self, private_cov: Matrix, columns: Matrix) -> None:
        self._own = np.linalg.inv(private_cov)
        self._weighed = self._without_shared(columns.T).T
        self._inner = cho_factor(np.eye(columns.shape[1]) + columns.T @ self._weighed)

    def precision(self, windows: Matrix) -> Matrix:
        """Multiply windows (window, slot * voxel) by the inverse covariance."""
        alone = self._without_shared(windows)
        return alone - cho_solve(self._inner, self._weighed.T @ windows.T).T @ self._weighed.T

    def _without_shared(self, windows: Matrix) -> Matrix:
        parts = windows.reshape(len(windows), self._own.shape[1], -1)
        weighed = np.einsum("vst,ntv->nsv", self._own, parts, optimize=True)
        return weighed.reshape(len(windows), -1)


def _volume_noise(bundle: Bundle, session: PhantomSession, slots: int) -> SharedNoise:
    """Return the noise of volumes that follow each other, in the units that the chain gives them."""
    driven = _driven(bundle, session)
    scale = bundle.stats["fmri_scale"].astype(np.float64)[driven.columns]
    gain = _levels(session)[0][driven.voxel_indices]
    state = _state_columns(session, gain / scale, slots, driven.voxel_indices)
    shared = _shared_columns(session, scale, slots, driven.voxel_indices)
    deviation, thermal = _private(session)
    deviation = deviation[driven.voxel_indices]
    blocks = deviation[:, None, None] ** 2 * toeplitz(_over(scanner.PRIVATE_RHO, session) ** np.arange(slots))
    private_cov = (blocks + thermal**2 * np.eye(slots)) / scale[:, None, None] ** 2
    return SharedNoise(private_cov, np.concatenate([state, shared], axis=1))


@dataclass(frozen=True)
class _Driven:
    """The voxels that a bundle reads and the film drives.

    Attributes
    ----------
    voxel_indices : (voxel,)
        Their places among the voxels that the film drives.
    columns : (voxel,)
        Their places among those that the bundle reads.
    """

    voxel_indices: NDArray[np.int64]
    columns: NDArray[np.int64]


def _driven(bundle: Bundle, session: PhantomSession) -> _Driven:
    """Find them. Voxels that are read and not driven tell nothing but shared noise, and are left out."""
    assert bundle.projection is not None
    _, columns, indices = np.intersect1d(bundle.projection.voxels, session.head.voxels, return_indices=True)
    return _Driven(indices, columns)


def _levels(session: PhantomSession) -> tuple[Matrix, Matrix]:
    """Return what one unit of the standardised response adds to each voxel, and its level at rest."""
    rest_level, spread, share = _voxels(session)
    return rest_level * spread * np.sqrt(share), rest_level


def _voxels(session: PhantomSession) -> tuple[Matrix, Matrix, Matrix]:
    """Return level at rest, relative standard deviation and explained share of each voxel, see `Scanner`."""
    person = session.person
    rest_level = session.head.mean.reshape(-1)[session.head.voxels].astype(np.float64)
    spread = 1 / (session.preset.tsnr * person.tsnr)
    return rest_level, spread, scanner.explained_share(person, session.preset)


def _private(session: PhantomSession) -> tuple[Matrix, float]:
    """Return the standard deviation of each voxel's own noise, and of the thermal noise."""
    rest_level, spread, share = _voxels(session)
    _, room = scanner.own_noise(session.person, share, rest_level * spread)
    return rest_level * spread * np.sqrt(room), scanner.THERMAL


def _over(rho: float, session: PhantomSession) -> float:
    """Return the correlation of noise from volume to volume, given that over the simulator's own TR."""
    return float(rho ** (session.tr_s / TR))


def _shared_columns(session: PhantomSession, scale: Matrix, slots: int, indices: NDArray[np.int64]) -> Matrix:
    """Return the columns of the noise that voxels share, (slot * voxel, column)."""
    place = session.head
    maps = session.scanner._maps[:, np.searchsorted(place.brain, place.voxels[indices])] / scale
    waves, drifts, cycles = np.split(maps, np.cumsum([scanner.SHARED, scanner.DRIFTS]))
    lags = np.arange(slots)
    lasting = np.linalg.cholesky(toeplitz(_over(scanner.SHARED_RHO, session) ** lags))
    together = lasting * np.sqrt(scanner.COMMON / scanner.SHARED)
    # Within a window a drift is constant, and heartbeat and breathing are waves of any phase.
    still = np.full((slots, 1), np.sqrt(scanner.DRIFT / scanner.DRIFTS))
    columns = [np.einsum("cv,se->svce", waves, together), np.einsum("cv,se->svce", drifts, still)]
    for cycle_map, rate in zip(cycles, scanner.CYCLES_HZ, strict=True):
        angles = 2 * np.pi * rate * lags * session.tr_s
        phases = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.sqrt(scanner.CYCLES / 4)
        columns.append(np.einsum("cv,se->svce", cycle_map[None], phases))
    if session.person.near:
        near = np.linalg.cholesky(toeplitz(_over(scanner.PRIVATE_RHO, session) ** lags))
        columns.append(np.einsum("cv,se->svce", _near_maps(session, scale, indices), near))
    size = slots * maps.shape[1]
    return np.concatenate([part.reshape(size, -1) for part in columns], axis=1)


def _near_maps(session: PhantomSession, scale: Matrix, indices: NDArray[np.int64]) -> Matrix:
    """Return where the noise that neighbours share acts, (component, voxel)."""
    rest_level, spread, share = _voxels(session)
    near, _ = scanner.own_noise(session.person, share, rest_level * spread)
    maps = scanner.near_maps(session.head, session.subject)
    return (maps * rest_level * spread * np.sqrt(near))[:, indices] / scale


def _state_columns(session: PhantomSession, gain: Matrix, slots: int, indices: NDArray[np.int64]) -> Matrix:
    """Return the columns of the noise of the state, as voxels show it, (slot * voxel, column).

    The state's noise is the same for all features but independent (`neural_state`). Its covariance over
    slots and responses is reduced to few directions in time, each of which makes a column a feature.
    """
    person = session.person
    shift = scanner.read_shift(session.head, session.tr_s)
    seconds = np.arange(0, RESPONSE_S, 1 / FPS)
    delay = (person.delay[indices] - shift[indices])[:, None]
    responses = haemodynamic_response(seconds, delay, person.stretch[indices][:, None]) / FPS
    basis = np.linalg.svd(responses, full_matrices=False)[2][:_BASIS]
    mixture = responses @ basis.T
    strength = np.sqrt(np.square(mixture).mean(axis=0))
    # Each response, read at each slot, as weights of the frames of the state before it.
    frames = np.rint(np.arange(slots) * session.tr_s * FPS).astype(int)
    reads = np.zeros((_BASIS, slots, len(seconds) + frames[-1]))
    for slot, frame in enumerate(frames):
        reads[:, slot, frame : frame + len(seconds)] = (basis * strength[:, None])[:, ::-1]
    rho = NOISE_RHO ** (1 / (TR * FPS))
    flat = reads.reshape(_BASIS * slots, -1)
    covariance = flat @ toeplitz(rho ** np.arange(flat.shape[1])) @ flat.T
    values, vectors = np.linalg.eigh(covariance * session.preset.feature_noise**2)
    significant = values > _LEAST_VARIANCE * values[-1]
    time = (vectors[:, significant] * np.sqrt(values[significant])).reshape(_BASIS, slots, -1)
    voxel_patterns = np.einsum("vb,bse->sve", mixture / strength, time)
    scale = bold_scale(person, session.preset.feature_noise, shift)[indices]
    weights = person.weights[indices] * (gain / scale)[:, None]
    return np.einsum("vk,sve->svke", weights, voxel_patterns).reshape(slots * len(gain), -1)


def _baseline(bundle: Bundle) -> Baseline:
    assert bundle.manifest.fmri is not None
    return bundle.manifest.fmri.baseline
