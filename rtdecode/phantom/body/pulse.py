"""What the heart, the helium pump and a moving head add to EEG inside the magnet.

The ballistocardiogram begins some 150 ms after the R-peak and lasts about 400 ms; it comes from the head's
nodding and the scalp's pulsation in the static field (Mullinger et al. 2013, NeuroImage 71:75), so it is
smooth over the cap and turns its sign from side to side. Its size, the spread of the intervals and of the
sizes are those of the task: `PULSE_UV`, `INTERVAL_JITTER`, `SIZE_JITTER`. The electrocardiogram is a sum of
Gaussians (McSharry et al. 2003, IEEE Trans. Biomed. Eng. 50:289) with the T-wave raised by the flow of
blood across the field; its levels are assumptions, as are those of the pump (20 to 60 Hz as Rothlübbers
et al. 2015, Brain Topogr. 28:208, have it).
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
TURN_UV = 50.0  # per degree a second: induction in 10 square centimetres at 3 T

_BEFORE_S = 0.35
_AFTER_S = 0.9
# Delay after the R-peak, width (s), weight of each wave: three ways in which head and scalp move.
_BALLISTIC = (
    ((0.19, 0.035, 1.0), (0.27, 0.045, -1.1), (0.38, 0.070, 0.6)),
    ((0.22, 0.040, -0.7), (0.31, 0.050, 1.0), (0.45, 0.080, -0.5)),
    ((0.25, 0.060, 0.8), (0.40, 0.090, -0.6)),
)
# P, Q, R, S, T and what the flowing blood adds, microvolts.
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
    """The heartbeat of one run, in every channel and in the electrocardiogram.

    Parameters
    ----------
    number : int
        Of the subject.
    places : (channel, 3)
        Unit vectors; rows of zeros for loops that lie anywhere.
    seed : int
        Of the beats.
    start_s, stop_s : float
        The part of the run's time line that will be asked for.

    Attributes
    ----------
    beats, sizes : (beat,) float64
        Instants of the R-peaks, s, and the size of each beat's artefact.
    field : (channel, 3) float32
        Coupling to the ways of moving, microvolts.
    """

    def __init__(self, number: int, places: Float, seed: int, start_s: float, stop_s: float) -> None:
        rng = np.random.default_rng((seed, 74))
        count = int((stop_s - start_s + 4) / INTERVAL_S * 1.2) + 8
        intervals = INTERVAL_S * (1 + INTERVAL_JITTER * np.clip(rng.standard_normal(count), -3, 3))
        self.beats = start_s - 2 + np.cumsum(intervals)
        self.sizes = np.maximum(1 + SIZE_JITTER * rng.standard_normal(count), 0.2)
        self._phase = rng.uniform(0, 2 * np.pi)
        self.field = _field(number, places)

    def at(self, times_s: NDArray[np.float64]) -> Float:
        """The ballistocardiogram, (channel, n) float32, microvolts."""
        return self.field @ self.movement(times_s)

    def movement(self, times_s: NDArray[np.float64]) -> Float:
        """How head and scalp move, (3, n), any unit."""
        return np.stack([_train(times_s, self.beats, self.sizes, shape) for shape in _BALLISTIC])

    def ecg(self, times_s: NDArray[np.float64]) -> Float:
        """The electrocardiogram, (n,) float32, microvolts; breathing moves its baseline."""
        breath = _BREATH_UV * np.sin(2 * np.pi * _BREATH_HZ * times_s + self._phase)
        return _train(times_s, self.beats, np.ones(len(self.beats)), _ECG) + breath.astype(np.float32)


class Pump:
    """The vibration of the helium pump.

    Parameters
    ----------
    number : int
        Of the subject.
    channels : int
    seed : int

    Attributes
    ----------
    hz : (4,) float64
        Its lines, the strongest first.
    """

    def __init__(self, number: int, channels: int, seed: int) -> None:
        rng = np.random.default_rng((seed, 75))
        self.hz = np.array([*rng.uniform(38, 48, 1), *rng.uniform(20, 60, 3)])
        self._phase = rng.uniform(0, 2 * np.pi, 4)
        self._swell = rng.uniform(0.05, 0.6, 4), rng.uniform(0, 2 * np.pi, 4)
        field = np.random.default_rng((number, 76)).standard_normal((channels, 4)) * [1, 0.35, 0.3, 0.25]
        self._field = (field * (PUMP_UV / np.sqrt((field**2).sum(axis=1).mean() / 2 * 1.125))).astype(
            np.float32
        )

    def at(self, times_s: NDArray[np.float64]) -> Float:
        """Its vibration, (channel, n) float32, microvolts."""
        rate, phase = (part[:, None] for part in self._swell)
        swell = 1 + 0.5 * np.sin(2 * np.pi * rate * times_s + phase)
        wave = np.sin(2 * np.pi * self.hz[:, None] * times_s + self._phase[:, None])
        return self._field @ (swell * wave).astype(np.float32)


def turning_field(number: int, channels: int) -> Float:
    """Voltage that a turning head induces, (channel, 3), microvolts per degree a second about each axis."""
    return (TURN_UV * np.random.default_rng((number, 77)).standard_normal((channels, 3))).astype(np.float32)


def _field(number: int, places: Float) -> Float:
    rng = np.random.default_rng((number, 78))
    # The strongest way of moving has its sign turn from left to right, then up and down, then front and back.
    smooth = places @ np.array([[1.0, 0.2, 0.3], [0.25, -0.3, 1.0], [0.2, 1.0, 0.3]])
    loops = rng.standard_normal((len(places), 3)) * np.where(places.any(axis=1), 0.25, 2.0)[:, None]
    field = (smooth + loops) * [1.0, 0.6, 0.5]
    moments = np.arange(0, _AFTER_S, 0.002)
    one = np.stack([_train(moments, np.zeros(1), np.ones(1), shape) for shape in _BALLISTIC])
    on_cap = field[places.any(axis=1)]
    return (field * (PULSE_UV / np.abs(on_cap @ one).max())).astype(np.float32)


def _train(
    times: NDArray[np.float64],
    beats: NDArray[np.float64],
    sizes: NDArray[np.float64],
    shape: Sequence[tuple[float, float, float]],
) -> Float:
    """Sum over beats of a shape made of Gaussians, (n,)."""
    out = np.zeros(len(times), np.float32)
    near = np.flatnonzero((beats > times[0] - _AFTER_S) & (beats < times[-1] + _BEFORE_S))
    for beat in near:
        first, last = np.searchsorted(times, (beats[beat] - _BEFORE_S, beats[beat] + _AFTER_S))
        since = (times[first:last] - beats[beat]).astype(np.float32)
        for delay, width, weight in shape:
            wave = np.exp(np.float32(-0.5) * ((since - np.float32(delay)) / np.float32(width)) ** 2)
            out[first:last] += np.float32(weight * sizes[beat]) * wave
    return out
