"""The usual chain of an analysis after the session, which knows the future, to compare the causal one with.

EEG is filtered forwards and backwards, so that nothing is delayed. Volumes are detrended over the whole run.
Channels and voxels are brought to mean 0 and deviation 1 over the whole run. Windows are cut as a session
cuts them. A system that is trained on this (``data.chain=offline``) says so in its bundle.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from rtdecode.bundle import Bundle
from rtdecode.phantom.body.amplifier import LEAD_IN_S
from rtdecode.phantom.session import PhantomSession
from rtdecode.signal.eeg.band import EegBand, mean_over
from rtdecode.timing import TimingGrid
from train.config.run_context import Arrays
from train.data.arrays import normalised_eeg

# Least deviation that a series is divided by: a dead voxel or channel has none.
_LEAST = 1e-6


def detrended(series: NDArray[np.floating]) -> NDArray[np.floating]:
    """Take a quadratic trend off series (sample, series), and bring them to deviation 1."""
    powers = np.vander(np.linspace(-1, 1, len(series)), 3)
    residual = series - powers @ np.linalg.lstsq(powers, series, rcond=None)[0]
    return residual / np.maximum(residual.std(0), _LEAST)


def zero_phase(eeg: NDArray[np.floating], band: EegBand, sfreq: float) -> NDArray[np.floating]:
    """Reference and filter EEG (channel, sample) forwards and backwards; bring channels to deviation 1."""
    if band.reference == "average":
        eeg = eeg - mean_over(eeg)
    filtered = signal.sosfiltfilt(band.sections(sfreq), eeg, axis=1)
    filtered -= filtered.mean(axis=1, keepdims=True)
    return filtered / np.maximum(filtered.std(axis=1, keepdims=True), _LEAST)


def offline_arrays(bundle: Bundle, session: PhantomSession, count: int | None = None) -> Arrays:
    """Prepare a whole session outside the magnet, and cut its first `count` windows; all by default.

    Returns
    -------
    dict
        The arrays of `train.data.phantom.window_arrays`, with a row for each window of the film.
    """
    manifest = bundle.manifest
    grid = manifest.grid
    windows = range(session.film.windows if count is None else count)
    arrays: Arrays = {}
    if manifest.eeg is not None:
        series = zero_phase(np.concatenate([*session.eeg_blocks()], axis=1), manifest.eeg.band, session.sfreq)
        # The low-pass of the band lies far below half of the grid's rate.
        step = round(session.sfreq / float(grid.sfreq))
        session_eeg = series[:, LEAD_IN_S * session.sfreq :: step]
        starts = [round(float(grid.span(k)[0] * grid.sfreq)) for k in windows]
        eeg = np.stack([session_eeg[:, start : start + grid.samples] for start in starts])
        arrays["eeg_mask"] = np.ones((len(windows), grid.samples), np.float32)
        arrays["eeg"] = normalised_eeg(eeg, arrays["eeg_mask"], bundle.stats).astype(np.float32)
    if manifest.fmri is not None:
        assert bundle.projection is not None
        voxels = bundle.projection.voxels
        values = [session.scanner.volume(n).reshape(-1)[voxels] for n in range(session.volumes)]
        fmri, mask = _slotted(detrended(np.stack(values).astype(np.float64)), grid, windows)
        arrays["fmri"] = (fmri / bundle.stats["fmri_scale"]).astype(np.float32)
        arrays["fmri_mask"] = mask
    return arrays


def _slotted(
    series: NDArray[np.floating], grid: TimingGrid, windows: Iterable[int]
) -> tuple[NDArray[np.floating], NDArray[np.float32]]:
    """Put volumes (volume, voxel) into the slots of their windows; return also which slots have one."""
    rows = [*windows]
    slotted = np.zeros((len(rows), grid.slots, series.shape[1]))
    mask = np.zeros((len(rows), grid.slots), np.float32)
    for row, k in enumerate(rows):
        first = grid.empty_slots(k)
        volumes = [n for n in grid.volumes(k) if n < len(series)]
        slotted[row, first : first + len(volumes)] = series[volumes]
        mask[row, first : first + len(volumes)] = 1
    return slotted, mask
