"""Signals that are no brain that a bundle can read, made of the normalised windows of sessions.

`EEG` and `FMRI` name the kinds of one modality. Each takes that modality's windows of a session, the
generator of its random numbers, and a level: the size of the signal as a multiple of the usual one.
`surrogates` are of both modalities, and look like the participant's.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfiltfilt

from train.config.run_context import Arrays
from train.evaluation.sections.presence import in_other_places

Signal = NDArray[np.float32]
Kind = Callable[[Signal, np.random.Generator, float], Signal]

# Multiples of the usual size at which kinds are shown where a size makes sense.
_LEVELS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
# Of normalised windows, samples a second, and the band that the chain lets through, Hz.
_SFREQ = 125.0
_BAND_HZ = (0.5, 40.0)
_MAINS_HZ = 50.0
_SINE_HZ = 10.0
_BRIDGED = 8
# Height of the rail, as a multiple of a channel's spread.
_RAIL = 30.0


def _sized(values: NDArray[np.floating], like: Signal, level: float) -> Signal:
    """Give each window the mean square of another signal's, times the level's square."""
    axes = tuple(range(1, like.ndim))
    target_power = np.square(like, dtype=np.float64).mean(axis=axes, keepdims=True)
    power = np.square(values, dtype=np.float64).mean(axis=axes, keepdims=True)
    return (level * values * np.sqrt(target_power / np.maximum(power, 1e-12))).astype(np.float32)


def _through_the_chain(eeg: NDArray[np.floating]) -> NDArray[np.floating]:
    """Filter and refer EEG as the chain does with what comes from the cap."""
    band = butter(2, _BAND_HZ, "bandpass", fs=_SFREQ, output="sos")
    filtered = sosfiltfilt(band, eeg, axis=-1)
    return filtered - filtered.mean(axis=1, keepdims=True)


def white(signal: Signal, rng: np.random.Generator, level: float) -> Signal:
    """Draw white noise, with no more above 40 Hz than the chain lets through."""
    noise = rng.standard_normal(signal.shape)
    return _sized(_through_the_chain(noise), signal, level)


def unfiltered(signal: Signal, rng: np.random.Generator, level: float) -> Signal:
    """Draw white noise up to the highest frequency of a window."""
    return _sized(rng.standard_normal(signal.shape), signal, level)


def pink(signal: Signal, rng: np.random.Generator, level: float) -> Signal:
    """Draw noise whose power falls with the frequency."""
    spectrum = np.fft.rfft(rng.standard_normal(signal.shape), axis=-1)
    frequencies = np.maximum(np.arange(spectrum.shape[-1]), 1)
    noise = np.fft.irfft(spectrum / np.sqrt(frequencies), signal.shape[-1], axis=-1)
    return _sized(_through_the_chain(noise), signal, level)


def line(signal: Signal, rng: np.random.Generator, level: float) -> Signal:
    """Hum of the mains, with a phase and a strength of its own in every channel."""
    return _tone(signal, rng, level, _MAINS_HZ, np.pi)


def sine(signal: Signal, rng: np.random.Generator, level: float) -> Signal:
    """Send a tone of 10 Hz with strengths of its own to every channel, all in one phase."""
    return _tone(signal, rng, level, _SINE_HZ, 0.0)


def _tone(signal: Signal, rng: np.random.Generator, level: float, hertz: float, spread: float) -> Signal:
    windows, channels, samples = signal.shape
    times = np.arange(samples) / _SFREQ
    phases = rng.uniform(0, 2 * np.pi, (windows, 1, 1)) + rng.uniform(-spread, spread, (1, channels, 1))
    gains = rng.standard_normal((1, channels, 1))
    return _sized(gains * np.sin(2 * np.pi * hertz * times + phases), signal, level)


def scaled(signal: Signal, _: np.random.Generator, level: float) -> Signal:
    """Take the true signal at another size."""
    return (level * signal).astype(np.float32)


def channels_permuted(signal: Signal, rng: np.random.Generator, _: float) -> Signal:
    """Plug every channel of the cap in another place, the same in all windows."""
    return in_other_places(signal, rng, 1)


def voxels_shuffled(signal: Signal, rng: np.random.Generator, _: float) -> Signal:
    """Take every voxel from another place, the same in all volumes."""
    return in_other_places(signal, rng, 2)


def saturated(signal: Signal, rng: np.random.Generator, _: float) -> Signal:
    """Drive half of the channels to the rail in turns."""
    signals = signal.copy()
    channels = rng.permutation(signal.shape[1])[: signal.shape[1] // 2]
    square = np.sign(rng.standard_normal((len(signal), len(channels), 10)))
    signals[:, channels] = _RAIL * np.repeat(square, signal.shape[2] // 10, axis=2)
    return signals


def bridged(signal: Signal, rng: np.random.Generator, _: float) -> Signal:
    """Short eight neighbouring channels, which then all have their mean."""
    signals = signal.copy()
    first = int(rng.integers(signal.shape[1] - _BRIDGED))
    channels = slice(first, first + _BRIDGED)
    signals[:, channels] = signal[:, channels].mean(axis=1, keepdims=True)
    return signals


def copied(signal: Signal, rng: np.random.Generator, level: float) -> Signal:
    """Send one channel to all."""
    source = signal[:, rng.integers(signal.shape[1])][:, None]
    return _sized(np.repeat(source, signal.shape[1], axis=1), signal, level)


def bottle(signal: Signal, rng: np.random.Generator, level: float) -> Signal:
    """Put a bottle into the coil: its picture, which is always the same, and thermal noise."""
    picture = rng.standard_normal(signal.shape[2]).repeat(50)[: signal.shape[2]]
    noise = rng.standard_normal(signal.shape)
    return _sized(picture + 0.1 * noise, signal, level)


EEG: dict[str, Kind] = {
    "white": white,
    "unfiltered white": unfiltered,
    "pink": pink,
    "line": line,
    "sine": sine,
    "scaled": scaled,
    "channels permuted": channels_permuted,
    "half saturated": saturated,
    "eight bridged": bridged,
    "one copied to all": copied,
}
FMRI: dict[str, Kind] = {
    "white": unfiltered,
    "scaled": scaled,
    "voxels shuffled": voxels_shuffled,
    "bottle": bottle,
}
# Kinds of which one level alone makes sense, and the one that is the signal itself at the level 1.
_ONE_LEVEL = ("channels permuted", "half saturated", "eight bridged", "voxels shuffled")
TRUE_AT_1 = "scaled"


def levels_of(kind: str) -> list[float]:
    """Return the levels at which a kind of `EEG` or `FMRI` makes sense and is no signal of a brain."""
    if kind in _ONE_LEVEL:
        return [1.0]
    return [level for level in _LEVELS if not (kind == TRUE_AT_1 and level == 1)]


def surrogates(inputs: Arrays, rng: np.random.Generator) -> Arrays:
    """Keep what both modalities look like and nothing of when: phases drawn anew, windows mixed."""
    spectrum = np.fft.rfft(inputs["eeg"], axis=2)
    turned = np.exp(2j * np.pi * rng.random((len(spectrum), 1, spectrum.shape[2])))
    # The mean and the highest frequency of an even number of samples have no phase.
    turned[:, :, [0, -1]] = 1
    eeg = np.fft.irfft(spectrum * turned, inputs["eeg"].shape[2], axis=2)
    rotation, _ = np.linalg.qr(rng.standard_normal((len(eeg), len(eeg))))
    fmri = np.einsum("ij,jsv->isv", rotation, inputs["fmri"])
    return inputs | {"eeg": eeg.astype(np.float32), "fmri": fmri.astype(np.float32)}
