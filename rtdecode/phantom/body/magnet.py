"""What the scanner's gradients do to the EEG, in continuous time.

Every voltage follows the rate at which a gradient changes (Yan et al. 2009, NeuroImage 46:459): three
axes, each with its own coupling to a channel. The sequence is echo-planar: fat saturation, slice
selection, a train of readout trapezoids (676 Hz, blips at 1.35 kHz), a spoiler, once per shot; a shot
takes several slices where several bands are excited at once. The switching shakes leads and head in the
static field and leaves eddy currents; this slow part repeats with the shots and with the volumes, and is
an assumption, as is its size, `IN_BAND_UV`. The amplifier's analogue low-pass is already in it (250 Hz,
30 dB per octave: BrainAmp MR, operating manual).

A head that moves sees other couplings: about 1 % per mm (from 40 % over 40 mm along the bore, Mullinger
et al. 2011, NeuroImage 54:1942).
"""

import numpy as np
from numpy.typing import NDArray
from scipy import fft, signal

from rtdecode.types import Float

RMS_UV, IN_BAND_UV = 770.0, 165.0  # behind the low-pass, over all channels; the slow part of it
LOW_PASS_HZ = 250.0
LOW_PASS_ORDER = 5
# of gradients before the first volume
PREPARATION_S = 3.0
REFERENCE_S = 1.2

_STEP_S = 20e-6
_ECHO_MS = 0.74
_LINES = 64
_SPREAD = 0.3  # of the channels' sizes, log
_PER_MM = 0.01
_EDGE_S = 0.02  # over which gradients come and go
_REFERENCE_RATE = 0.8
_REFERENCE_GAIN = 0.7
_PAUSE_S = 0.4

# Trapezoids of a shot: axis, start, ramp, flat (ms), height. The spoilers come after the readout.
_BEFORE = (
    (2, 0.8, 0.4, 3.0, 0.8),
    (0, 0.8, 0.4, 2.5, -0.5),
    (1, 0.8, 0.4, 3.0, 0.6),
    (2, 6.5, 0.3, 4.0, 0.6),
    (2, 11.2, 0.3, 1.4, -0.8),
    (0, 11.6, 0.2, 0.9, -0.8),
    (1, 11.6, 0.2, 0.9, -0.9),
)
_AFTER = ((2, 0.3, 0.4, 3.0, 0.9), (0, 0.3, 0.4, 2.5, 0.5))
_READOUT_MS = 13.6
_SPOIL_MS = 4.6


class GradientArtifact:
    """The gradient artefact of one run in every channel.

    Parameters
    ----------
    number : int
        Of the subject: how the cap lies in the field.
    channels : int
    tr_s : float
        Need not be a whole number of samples.
    slices, multiband : int
        Slices of a volume, and how many of them are excited at once.
    seed : int
        Of the head's slow motion.
    slow : float
        Standard deviation of the couplings under that motion, relative; 0 for none.
    path : (volume, 6), optional
        Where the head is in each volume, as of `rtdecode.phantom.body.movement.head_path`: mm and rad.
    volumes : int, optional
        The gradients end after so many; never by default.
    preparation_s : float
        Volumes without a trigger run for about that long before the first, after a short reference
        scan of another rate; 0 for neither.

    Notes
    -----
    Without motion it repeats exactly with the TR. Time is the scanner's.
    """

    def __init__(
        self,
        number: int,
        channels: int,
        tr_s: float,
        slices: int,
        multiband: int,
        seed: int,
        *,
        slow: float = _PER_MM,
        path: NDArray[np.float64] | None = None,
        volumes: int | None = None,
        preparation_s: float = PREPARATION_S,
    ) -> None:
        shots = -(-slices // multiband)
        self._tr = tr_s
        self._stop = np.inf if volumes is None else volumes * tr_s
        self._start = -np.ceil(preparation_s / tr_s) * tr_s
        fast = _switching(tr_s, shots)
        slowly = _shaking(tr_s, shots)
        rng = np.random.default_rng((number, 71))
        size = np.exp(_SPREAD * rng.standard_normal((channels, 1)))
        still = np.concatenate(
            [
                _scaled(rng, size, fast, np.sqrt(RMS_UV**2 - IN_BAND_UV**2)),
                _scaled(rng, size, slowly, IN_BAND_UV),
            ],
            axis=1,
        )
        self._table = _padded(np.concatenate([fast, slowly]))
        self._motion = HeadSway(seed, tr_s, path, slow)
        turned = rng.standard_normal((self._motion.count, *still.shape)) * still
        self._fields = np.concatenate([still, *turned], axis=1).astype(np.float32)

    def at(self, times_s: NDArray[np.float64]) -> Float:
        """The artefact at given times of the run.

        Parameters
        ----------
        times_s : float64, (n,)
            Seconds after the first volume's start.

        Returns
        -------
        (channels, n) float32
            Microvolts, as the low-pass lets it through.
        """
        waves = self._waves(times_s)
        parts = [waves, *(waves * strength for strength in self._motion.at(times_s))]
        return self._fields @ np.concatenate(parts)

    def turning(self, times_s: NDArray[np.float64]) -> Float:
        """How fast the head turns about each axis, (3, n), degrees a second; all 0 without a path."""
        step = 1e-3
        change = self._motion.places(times_s + step / 2) - self._motion.places(times_s - step / 2)
        return (change[3:] / (step * _PER_MM)).astype(np.float32)

    def _waves(self, times: NDArray[np.float64]) -> Float:
        """The voltages of the axes and of what shakes, (row, n)."""
        out = self._read(times / self._tr)
        out *= _gate(times, self._start, self._stop)
        if self._start < 0:
            stop = self._start - _PAUSE_S
            gate = _gate(times, stop - REFERENCE_S, stop)
            if gate.any():
                out += self._read((times - stop) * _REFERENCE_RATE / self._tr) * (_REFERENCE_GAIN * gate)
        return out

    def _read(self, turns: NDArray[np.float64]) -> Float:
        """The table at a phase of the TR, (row, n): four-point Lagrange interpolation."""
        count = self._table.shape[1] - 3
        place = (turns % 1) * count
        whole = np.minimum(place.astype(np.int64), count - 1)
        x = (place - whole).astype(np.float32)
        before = x + 1
        after = x - 1
        weights = (-x * after * (x - 2) / 6, before * after * (x - 2) / 2)
        weights += (-before * x * (x - 2) / 2, before * x * after / 6)
        out = self._table[:, whole] * weights[0]
        for shift in (1, 2, 3):
            out += self._table[:, whole + shift] * weights[shift]
        return out


class HeadSway:
    """How the head departs from where it lay, in units of the couplings' relative change.

    Parameters
    ----------
    seed : int
    tr_s : float
    path : (volume, 6) or None
        mm and rad; a volume's position is held, and changed within 0.3 s of its start.
    slow : float
        Standard deviation of the slow part, waves of 40 to 200 s; 0 for none.
    """

    _WAVES = 5
    _SLOW = 2
    _CHANGE_S = 0.3

    def __init__(self, seed: int, tr_s: float, path: NDArray[np.float64] | None, slow: float) -> None:
        rng = np.random.default_rng((seed, 72))
        self._slow = slow * np.sqrt(2 / (self._WAVES * self._SLOW)) if slow else 0.0
        self._turn = 2 * np.pi / rng.uniform(40, 200, (self._SLOW, self._WAVES, 1))
        self._phase = rng.uniform(0, 2 * np.pi, (self._SLOW, self._WAVES, 1))
        self._tr = tr_s
        self._path = None
        if path is not None:
            self._path = np.concatenate([path[:1], path, path[-1:]]) * (
                [_PER_MM] * 3 + [np.rad2deg(_PER_MM)] * 3
            )

    @property
    def count(self) -> int:
        """Signals that `at` returns."""
        return self._SLOW * bool(self._slow) + 6 * (self._path is not None)

    def at(self, times: NDArray[np.float64]) -> Float:
        """Relative changes, (signal, n)."""
        found: list[NDArray[np.float64]] = []
        if self._slow:
            # Slow enough for a straight line between 50 points a second.
            knots = np.arange(np.floor(times[0] * 50), np.ceil(times[-1] * 50) + 2) / 50
            slow = self._slow * np.sin(self._turn * knots + self._phase).sum(axis=1)
            found += [np.interp(times, knots, wave) for wave in slow]
        if self._path is not None:
            found += list(self.places(times))
        return np.array(found, np.float32).reshape(len(found), len(times))

    def places(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """The path alone, (6, n), 0.01 per mm and per degree."""
        if self._path is None:
            return np.zeros((6, len(times)))
        index = np.floor(times / self._tr)
        since = np.clip((times - index * self._tr) / self._CHANGE_S, 0, 1)
        share = since * since * (3 - 2 * since)
        now = np.clip(index.astype(np.int64) + 1, 0, len(self._path) - 1)
        old = np.maximum(now - 1, 0)
        return (self._path[old] + (self._path[now] - self._path[old]) * share[:, None]).T


def low_pass(sfreq: float) -> NDArray[np.float64]:
    """The analogue low-pass as a filter of a sampling rate, second-order sections."""
    return np.asarray(signal.butter(LOW_PASS_ORDER, LOW_PASS_HZ, fs=sfreq, output="sos"))


def _switching(tr_s: float, shots: int) -> NDArray[np.float64]:
    """Rates of change of the three axes over a TR behind the low-pass, (3, point), any unit."""
    count = _points(tr_s)
    fine = 4 * count  # a trapezoid's corners lie between the points
    times = np.arange(fine) * (tr_s / fine)
    frequencies = np.arange(fine // 2 + 1) / tr_s
    passed = _analogue(frequencies) * 2j * np.pi * frequencies
    corners = [_corners(tr_s / shots, shots, axis) for axis in range(3)]
    waves = np.array([np.interp(times, *knots) for knots in corners])
    spectrum = (np.asarray(fft.rfft(waves)) * passed)[:, : count // 2 + 1]
    spectrum[:, -1] = 0
    return np.asarray(fft.irfft(spectrum, count))


def _analogue(frequencies: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Response of the low-pass: the poles of a Butterworth filter lie on a circle."""
    angles = np.pi * (2 * np.arange(LOW_PASS_ORDER) + 1 + LOW_PASS_ORDER) / (2 * LOW_PASS_ORDER)
    plane = 1j * np.asarray(frequencies)[:, None] / LOW_PASS_HZ
    return 1 / np.prod(plane - np.exp(1j * angles), axis=1)


def _points(tr_s: float) -> int:
    """Points of a table over a TR."""
    return 2 ** int(np.ceil(np.log2(tr_s / _STEP_S)))


def _corners(shot_s: float, shots: int, axis: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corners of a gradient over a TR: times, s, and heights."""
    squeeze = min(1.0, 1000 * shot_s / (_READOUT_MS + _SPOIL_MS + 8 * _ECHO_MS))
    lines = min(_LINES, int((1000 * shot_s / squeeze - _READOUT_MS - _SPOIL_MS) / _ECHO_MS + 1e-9))
    found: list[tuple[float, float, float, float]] = [part[1:] for part in _BEFORE if part[0] == axis]
    for line in range(lines):
        start = _READOUT_MS + line * _ECHO_MS
        found += [[(start, 0.15, 0.44, (-1.0) ** line)], [(start, 0.1, 0.0, 0.3)], []][axis]
    end = _READOUT_MS + lines * _ECHO_MS
    found += [(end + start, ramp, flat, height) for a, start, ramp, flat, height in _AFTER if a == axis]
    times = []
    heights = []
    for shot in range(shots):
        # Spoilers change from shot to shot, so that a volume is more than its shots.
        gain = 1 + 0.1 * np.sin(2.4 * shot * shot)
        for start, ramp, flat, height in found:
            edges = np.cumsum([start, ramp, flat, ramp]) * (squeeze / 1000) + shot * shot_s
            times += list(edges)
            high = height * (gain if start >= end or start < 6 else 1.0)
            heights += [0.0, high, high, 0.0]
    return np.array(times), np.array(heights)


def _shaking(tr_s: float, shots: int) -> NDArray[np.float64]:
    """What repeats with the shots (two rows) and with the volumes (two rows), (4, point), unit rms."""
    count = _points(tr_s)
    rng = np.random.default_rng((shots, 73))
    spectrum = np.zeros((4, count // 2 + 1), complex)
    for row, step, low, high in ((0, shots, 0.5, 70), (1, shots, 0.5, 70), (2, 1, 0.5, 30), (3, 1, 0.5, 30)):
        harmonics = np.arange(step, max(step + 1, int(high * tr_s) + 1), step)
        harmonics = harmonics[harmonics / tr_s >= low] if harmonics[-1] / tr_s >= low else harmonics[-1:]
        phase = rng.uniform(0, 2 * np.pi, len(harmonics))
        spectrum[row, harmonics] = np.exp(1j * phase) * np.sqrt(harmonics[0] / harmonics)
    waves = np.asarray(fft.irfft(spectrum, count))
    waves /= waves.std(axis=1, keepdims=True)
    return waves * np.array([1, 1, 0.5, 0.5])[:, None]


def _scaled(
    rng: np.random.Generator, size: NDArray[np.float64], waves: NDArray[np.float64], rms_uv: float
) -> NDArray[np.float64]:
    """Couplings of the channels to waves, (channel, row), of a given rms over all channels."""
    field = size * rng.standard_normal((len(size), len(waves)))
    power = np.einsum("cr,rs,cs->c", field, waves @ waves.T / waves.shape[1], field)
    # Half of a channel's luck is taken away: no lead is free of the artefact.
    field *= (power.mean() / power[:, None]) ** 0.25
    power = np.einsum("cr,rs,cs->c", field, waves @ waves.T / waves.shape[1], field)
    return field * (rms_uv / np.sqrt(power.mean()))


def _padded(waves: NDArray[np.float64]) -> Float:
    """A periodic table with one point before and two behind."""
    return np.concatenate([waves[:, -1:], waves, waves[:, :2]], axis=1).astype(np.float32)


def _gate(times: NDArray[np.float64], start: float, stop: float) -> Float:
    """1 between two times, 0 outside, with soft edges."""
    inside = np.minimum(times - start, stop - times)
    return (0.5 - 0.5 * np.cos(np.pi * np.clip(inside / _EDGE_S, 0, 1))).astype(np.float32)
