"""EEG with a heartbeat artefact of which the truth is known, apart from the phantom's own."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import signal

Values = NDArray[np.float64]

EEG_UV = 12.0
PEAK_UV = 150.0
INTERVAL_S = 0.85
INTERVAL_JITTER = 0.05
SIZE_JITTER = 0.20
_SOURCES = 30
_LONGEST_DELAY_S = 0.015


@dataclass(frozen=True)
class HeartbeatSignals:
    """A recording and what it is made of.

    Attributes
    ----------
    data : (channel, sample)
        EEG, references if any, and the electrocardiogram last, microvolts.
    eeg : (channel, sample)
        Without the artefact.
    beats : (beat,)
        Instants of the R-peaks, s.
    """

    sfreq: float
    data: Values
    eeg: Values
    beats: Values

    @property
    def artefact(self) -> Values:
        """The heartbeat artefact alone."""
        return self.data[: len(self.eeg)] - self.eeg


@dataclass(frozen=True)
class HeartbeatSettings:
    """What to record; jitter in s is of each beat's artefact against its R-peak."""

    seconds: float = 90.0
    sfreq: float = 1000.0
    channels: int = 64
    references: int = 0
    seed: int = 0
    t_wave_uv: float = 1500.0
    gradient_uv: float = 60.0
    modes_jitter: float = 0.05
    jitter_s: float = 0.003
    size_jitter: float = SIZE_JITTER
    artefact: bool = True
    interval_s: float = INTERVAL_S
    ectopic: tuple[int, ...] = field(default=())


def record(settings: HeartbeatSettings) -> HeartbeatSignals:
    """Make a recording."""
    rng = np.random.default_rng(settings.seed)
    times = np.arange(round(settings.seconds * settings.sfreq)) / settings.sfreq
    count = int(settings.seconds / settings.interval_s) + 10
    intervals = settings.interval_s * (1 + INTERVAL_JITTER * np.clip(rng.standard_normal(count), -3, 3))
    for beat in settings.ectopic:  # too early, and a pause behind it
        intervals[beat] *= 0.6
        intervals[beat + 1] *= 1.4
    beats = np.cumsum(intervals) - 2
    eeg = _eeg(rng, settings, times)
    artefact, references = _ballistic(rng, settings, times, beats)
    ecg = _ecg(rng, settings, times, beats)
    data = np.concatenate([eeg + artefact if settings.artefact else eeg, references, ecg[None]])
    return HeartbeatSignals(settings.sfreq, data, eeg, beats[(beats > 0) & (beats < times[-1])])


def _eeg(rng: np.random.Generator, settings: HeartbeatSettings, times: Values) -> Values:
    """Sources with a falling spectrum, an alpha rhythm that waxes and wanes, noise of the sensors."""
    count = len(times)
    spectrum = np.fft.rfft(rng.standard_normal((_SOURCES, count)))
    hz = np.fft.rfftfreq(count, 1 / settings.sfreq)
    sources = np.fft.irfft(spectrum / np.maximum(hz, 0.3) ** 0.7, count)
    eeg = rng.standard_normal((settings.channels, _SOURCES)) @ sources
    eeg /= eeg.std()
    band = signal.butter(2, (8.5, 11.5), "bandpass", fs=settings.sfreq, output="sos")
    alpha = np.asarray(signal.sosfilt(band, rng.standard_normal((2, count))))
    alpha /= alpha.std()
    eeg += 0.7 * np.abs(rng.standard_normal((settings.channels, 2))) @ alpha
    return EEG_UV * eeg / eeg.std() + 0.5 * rng.standard_normal(eeg.shape)


def _ballistic(
    rng: np.random.Generator, settings: HeartbeatSettings, times: Values, beats: Values
) -> tuple[Values, Values]:
    """The artefact in every channel, each with delays of its own, and in the references."""
    rows = settings.channels + settings.references
    waves = ((0.20, 0.035), (0.29, 0.045), (0.42, 0.075))
    angle = np.linspace(0, 2 * np.pi, settings.channels, endpoint=False)
    smooth = np.stack([np.cos(angle), np.sin(angle + 0.4), np.cos(2 * angle)], axis=1)
    field_ = np.concatenate([smooth, rng.standard_normal((settings.references, 3))])
    field_ += 0.2 * rng.standard_normal(field_.shape)
    field_ *= [1.0, -1.0, 0.5]
    delays = rng.uniform(0, _LONGEST_DELAY_S, (rows, 1))
    sizes = np.maximum(1 + settings.size_jitter * rng.standard_normal(len(beats)), 0.2)
    spread = 1 + settings.modes_jitter * rng.standard_normal((len(beats), 3))
    late = settings.jitter_s * rng.standard_normal(len(beats))
    out = np.zeros((rows, len(times)))
    for beat in range(len(beats)):
        start = max(0, int((beats[beat] - 0.1) * settings.sfreq))
        stop = min(len(times), int((beats[beat] + 1.0) * settings.sfreq))
        if start >= stop:
            continue
        since = times[start:stop] - beats[beat] - late[beat] - delays
        for mode, (delay, width) in enumerate(waves):
            wave = np.exp(-0.5 * ((since - delay) / width) ** 2)
            out[:, start:stop] += sizes[beat] * spread[beat, mode] * field_[:, [mode]] * wave
    usual = np.abs(out[: settings.channels]).max() / sizes.max()
    out *= PEAK_UV / usual
    references = out[settings.channels :] + 0.5 * rng.standard_normal((settings.references, len(times)))
    return out[: settings.channels], references


def _ecg(rng: np.random.Generator, settings: HeartbeatSettings, times: Values, beats: Values) -> Values:
    """QRS complexes, a raised T-wave, breathing, and what is left of the gradients."""
    since = times - beats[np.clip(np.searchsorted(beats, times + 0.1) - 1, 0, None)]
    out = np.zeros(len(times))
    waves = ((-0.03, 0.01, -120), (0, 0.011, 1100), (0.03, 0.012, -260), (0.27, 0.045, settings.t_wave_uv))
    for delay, width, size in waves:
        out += size * np.exp(-0.5 * ((since - delay) / width) ** 2)
    out += 60 * np.sin(2 * np.pi * 0.25 * times)
    for hz in (13.9, 27.8, 41.7):
        out += settings.gradient_uv * np.sin(2 * np.pi * hz * times + rng.uniform(0, 6))
    return out + 5 * rng.standard_normal(len(times))
