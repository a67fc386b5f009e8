"""Simulate what the heart, the helium pump and a moving head add to EEG inside the magnet.

Times in seconds of the run come in, and microvolts in every channel go out.

The ballistocardiogram begins some 150 ms after the R-peak and lasts about 400 ms. It comes from the nodding
of the head and the pulsation of the scalp in the static field (Mullinger et al. 2013, NeuroImage 71:75), so
it is smooth over the cap and changes its sign from side to side. Its size and the spread of intervals and
sizes (`PULSE_UV`, `INTERVAL_JITTER`, `SIZE_JITTER`) are chosen, not fitted.

The electrocardiogram is a sum of Gaussians (McSharry et al. 2003, IEEE Trans. Biomed. Eng. 50:289), with the
T-wave raised by the flow of blood across the field. Its levels are assumptions, as are those of the pump
(20 to 60 Hz as in Rothlübbers et al. 2015, Brain Topogr. 28:208).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtdecode.types import Float

PULSE_UV = 150.0
INTERVAL_S = 0.92
INTERVAL_JITTER = 0.05
SIZE_JITTER = 0.20
PUMP_UV = 3.0
# Per degree a second: induction in 10 square centimetres at 3 T.
TURN_UV = 50.0

# A beat's waves are computed from this long before its R-peak to this long after it.
_BEFORE_S = 0.35
_AFTER_S = 0.9
# Delay after the R-peak, width (s), weight of each wave: three ways in which head and scalp move.
_BALLISTIC = (
    ((0.19, 0.035, 1.0), (0.27, 0.045, -1.1), (0.38, 0.070, 0.6)),
    ((0.22, 0.040, -0.7), (0.31, 0.050, 1.0), (0.45, 0.080, -0.5)),
    ((0.25, 0.060, 0.8), (0.40, 0.090, -0.6)),
)
# The same for P, Q, R, S, T and what the flowing blood adds, in microvolts.
_ECG = (
    (-0.17, 0.025, 120.0),
    (-0.030, 0.010, -120.0),
    (0.0, 0.011, 1100.0),
    (0.030, 0.012, -260.0),
    (0.27, 0.045, 350.0),
    (0.18, 0.060, 300.0),
)
_BREATH_HZ = 0.27
_BREATH_UV = 40.0


class Heart:
    """The heartbeats of one run, in every channel and in the electrocardiogram.

    Parameters
    ----------
    number : int
        Number of the subject.
    places : (channel, 3)
        Unit vectors of the electrodes; rows of zeros for loops, which may lie anywhere.
    seed : int
        Seed of the beats.
    start_s, stop_s : float
        Part of the run's time line for which beats are needed.

    Attributes
    ----------
    beats, sizes : (beat,) float64
        Instants of the R-peaks in seconds, and size of each beat's artefact.
    field : (channel, 3) float32
        Coupling of each channel to the three ways of moving, microvolts.
    """

    def __init__(self, number: int, places: Float, seed: int, start_s: float, stop_s: float) -> None:
        rng = np.random.default_rng((seed, 74))
        count = int((stop_s - start_s + 4) / INTERVAL_S * 1.2) + 8
        intervals = INTERVAL_S * (1 + INTERVAL_JITTER * np.clip(rng.standard_normal(count), -3, 3))
        self.beats = start_s - 2 + np.cumsum(intervals)
        self.sizes = np.maximum(1 + SIZE_JITTER * rng.standard_normal(count), 0.2)
        self._phase = rng.uniform(0, 2 * np.pi)
        self.field = _field(number, places)

    def voltages(self, times_s: NDArray[np.float64]) -> Float:
        """Return the ballistocardiogram, (channel, n) float32, in microvolts."""
        return self.field @ self.movement(times_s)

    def movement(self, times_s: NDArray[np.float64]) -> Float:
        """Return how head and scalp move, (3, n), in any unit."""
        return np.stack([_train(times_s, self.beats, self.sizes, shape) for shape in _BALLISTIC])

    def ecg(self, times_s: NDArray[np.float64]) -> Float:
        """Return the electrocardiogram, (n,) float32 in microvolts, with a baseline that breathing moves."""
        breath = _BREATH_UV * np.sin(2 * np.pi * _BREATH_HZ * times_s + self._phase)
        return _train(times_s, self.beats, np.ones(len(self.beats)), _ECG) + breath.astype(np.float32)


class Pump:
    """The vibration of the helium pump.

    Parameters
    ----------
    number : int
        Number of the subject.
    channels : int
        Number of channels.
    seed : int
        Seed of the vibration.

    Attributes
    ----------
    hz : (4,) float64
        Frequencies of the lines, the strongest first.
    """

    def __init__(self, number: int, channels: int, seed: int) -> None:
        rng = np.random.default_rng((seed, 75))
        self.hz = np.array([*rng.uniform(38, 48, 1), *rng.uniform(20, 60, 3)])
        self._phase = rng.uniform(0, 2 * np.pi, 4)
        self._swell = rng.uniform(0.05, 0.6, 4), rng.uniform(0, 2 * np.pi, 4)
        # `PUMP_UV` is the rms over channels. The mean square of a swelling wave is 1.125 / 2.
        field = np.random.default_rng((number, 76)).standard_normal((channels, 4)) * [1, 0.35, 0.3, 0.25]
        self._field = (field * (PUMP_UV / np.sqrt((field**2).sum(axis=1).mean() / 2 * 1.125))).astype(
            np.float32
        )

    def voltages(self, times_s: NDArray[np.float64]) -> Float:
        """Return the vibration, (channel, n) float32, in microvolts."""
        rate, phase = (part[:, None] for part in self._swell)
        swell = 1 + 0.5 * np.sin(2 * np.pi * rate * times_s + phase)
        wave = np.sin(2 * np.pi * self.hz[:, None] * times_s + self._phase[:, None])
        return self._field @ (swell * wave).astype(np.float32)


def turning_field(number: int, channels: int) -> Float:
    """Return the voltage of a turning head, (channel, 3), microvolts per degree a second about each axis."""
    return (TURN_UV * np.random.default_rng((number, 77)).standard_normal((channels, 3))).astype(np.float32)


def _field(number: int, places: Float) -> Float:
    rng = np.random.default_rng((number, 78))
    # The strongest way of moving changes its sign from left to right, the second from bottom to top,
    # and the third from back to front. Loops add to this in every lead, and are all that carbon-wire
    # loops see.
    smooth = places @ np.array([[1.0, 0.2, 0.3], [0.25, -0.3, 1.0], [0.2, 1.0, 0.3]])
    loops = rng.standard_normal((len(places), 3)) * np.where(places.any(axis=1), 0.25, 2.0)[:, None]
    field = (smooth + loops) * [1.0, 0.6, 0.5]
    moments = np.arange(0, _AFTER_S, 0.002)
    beat = np.stack([_train(moments, np.zeros(1), np.ones(1), shape) for shape in _BALLISTIC])
    on_cap = field[places.any(axis=1)]
    return (field * (PULSE_UV / np.abs(on_cap @ beat).max())).astype(np.float32)


def _train(
    times: NDArray[np.float64],
    beats: NDArray[np.float64],
    sizes: NDArray[np.float64],
    shape: Sequence[tuple[float, float, float]],
) -> Float:
    """Return the sum over beats of a shape made of Gaussians, (n,)."""
    out = np.zeros(len(times), np.float32)
    near = np.flatnonzero((beats > times[0] - _AFTER_S) & (beats < times[-1] + _BEFORE_S))
    for beat in near:
        first, last = np.searchsorted(times, (beats[beat] - _BEFORE_S, beats[beat] + _AFTER_S))
        since = (times[first:last] - beats[beat]).astype(np.float32)
        for delay, width, weight in shape:
            wave = np.exp(np.float32(-0.5) * ((since - np.float32(delay)) / np.float32(width)) ** 2)
            out[first:last] += np.float32(weight * sizes[beat]) * wave
    return out
