"""EEG under the phantom's gradient artefact, with the truth beside it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from rtdecode.phantom.body.in_scanner_eeg import converted
from rtdecode.phantom.body.magnet import GradientArtifact
from rtdecode.signal.eeg.quality import Quality
from rtdecode.signal.gradient.remover import Gradient, GradientRemover
from rtdecode.types import Float

SFREQ = 5000.0
# The local clock's time of the first sample.
START_AT = 1000.0
_COARSE = 10  # the EEG is made at this part of the rate


@dataclass(frozen=True, slots=True)
class GradientSignals:
    """What an amplifier sends in the scanner.

    Attributes
    ----------
    data, eeg, artifact : (channel, n) float32
        Microvolts: everything, the same without the artefact, the artefact as it was before the converter.
    times : (n,)
        Seconds on the local clock.
    triggers : (volume,)
        When the volumes start, seconds on the same clock.
    tr_s : float
    """

    data: Float
    eeg: Float
    artifact: Float
    times: NDArray[np.float64]
    triggers: NDArray[np.float64]
    tr_s: float


def recorded(
    seconds: float,
    channels: int = 8,
    *,
    tr_s: float = 1.26,
    drift_ppm: float = 20.0,
    eeg_uv: float = 12.0,
    motion: float = 0.0,
    slices: int = 33,
    multiband: int = 3,
    volumes: int | None = None,
    lead_s: float = 6.0,
    sfreq: float = SFREQ,
    seed: int = 1,
) -> GradientSignals:
    """Record a run of which the first trigger comes after `lead_s`.

    Parameters
    ----------
    seconds : float
        In all.
    channels : int
    tr_s, slices, multiband, volumes
        As of `GradientArtifact`.
    drift_ppm : float
        By how much the amplifier is fast against the scanner.
    eeg_uv : float
        rms of the EEG.
    motion : float
        Relative change of the couplings, standard deviation.
    lead_s, sfreq : float
    seed : int
        Of EEG and motion.
    """
    gradients = GradientArtifact(1, channels, tr_s, slices, multiband, seed, slow=motion, volumes=volumes)
    count = round(seconds * sfreq)
    scanner = np.arange(count) / (sfreq * (1 + 1e-6 * drift_ppm)) - lead_s
    parts = [gradients.voltages(scanner[i : i + 50_000]) for i in range(0, count, 50_000)]
    artifact = np.concatenate(parts, axis=1)
    eeg = background(channels, count, sfreq, eeg_uv, seed)
    starts = np.arange(int(min((seconds - lead_s) / tr_s, np.inf if volumes is None else volumes - 1)) + 1)
    triggers = np.asarray((starts * tr_s + lead_s) * (1 + 1e-6 * drift_ppm) + START_AT, np.float64)
    times = np.arange(count) / sfreq + START_AT
    return GradientSignals(converted(eeg + artifact), converted(eeg), artifact, times, triggers, tr_s)


def background(channels: int, count: int, sfreq: float, rms_uv: float, seed: int) -> Float:
    """EEG-like noise: 1/f power from 0.3 to 100 Hz, (channel, n)."""
    coarse_count = count // _COARSE + 40
    rng = np.random.default_rng((seed, 5))
    hz = np.fft.rfftfreq(coarse_count, _COARSE / sfreq)
    shape = np.where(hz < 100, 1 / np.sqrt(np.maximum(hz, 0.3)), 0)
    slow = np.fft.irfft(np.fft.rfft(rng.standard_normal((channels, coarse_count))) * shape, coarse_count)
    fine = signal.resample_poly(slow, _COARSE, 1, axis=1)[:, 20 * _COARSE :][:, :count]
    return (fine * (rms_uv / fine.std())).astype(np.float32)


def corrected(
    recording: GradientSignals, chunk: int = 1000, settings: Gradient | None = None
) -> tuple[Float, Quality, GradientRemover]:
    """Run a recording through the correction, its triggers told in time."""
    rate = round(1 / float(recording.times[1] - recording.times[0]))
    remover = GradientRemover(rate, len(recording.data), recording.tr_s, settings)
    for trigger_s in recording.triggers:
        remover.trigger(float(trigger_s))
    parts = [
        remover.push(recording.data[:, i : i + chunk], recording.times[i : i + chunk])
        for i in range(0, len(recording.times), chunk)
    ]
    clean, quality = (np.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
    return clean, quality, remover


def error_uv(clean: NDArray[np.floating], eeg: NDArray[np.floating]) -> float:
    """Root mean square over all channels of what differs, each channel's mean apart."""
    return float(np.std(clean - eeg - np.mean(clean - eeg, axis=1, keepdims=True)))


def down_db(
    before: NDArray[np.floating], after: NDArray[np.floating], spacing_hz: float, sfreq: float
) -> float:
    """By how much the power at the harmonics of a frequency, up to 250 Hz, went down."""
    length = before.shape[1]
    window = np.hanning(length)
    bins = np.arange(spacing_hz, 250, spacing_hz) * length / sfreq
    rows = (np.round(bins)[:, None] + np.arange(-2, 3)).astype(int).ravel()
    spectra = [np.asarray(np.fft.rfft(x * window)) for x in (before, after)]
    powers = [float(np.sum(np.abs(x[:, rows]) ** 2)) for x in spectra]
    return float(10 * np.log10(powers[0] / max(powers[1], 1e-12)))


def likeness(data: NDArray[np.floating], eeg: NDArray[np.floating], sfreq: float, settle_s: float) -> float:
    """Correlation with the EEG from 0.5 to 30 Hz, the middle channel's."""
    sections = signal.butter(2, [0.5, 30], "bandpass", fs=sfreq, output="sos")
    start = round(settle_s * sfreq)
    a, b = (np.asarray(signal.sosfilt(sections, x.astype(np.float64)))[:, start:] for x in (data, eeg))
    return float(np.median([np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]))
