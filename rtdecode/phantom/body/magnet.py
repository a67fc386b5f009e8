"""Simulate what the scanner's gradients add to the EEG, in continuous time.

Times in seconds of the run come in, and microvolts in every channel go out. The waveforms of one TR are
computed once, as a table. To read it, times are turned into phases of the TR, and the waveforms are mixed
into channels with couplings that change as the head moves.

Every voltage follows the rate at which a gradient changes (Yan et al. 2009, NeuroImage 46:459), on three
axes with a coupling to each channel. The sequence is echo-planar. Each shot has fat saturation, slice
selection, a train of readout trapezoids (676 Hz, blips at 1.35 kHz) and a spoiler, and takes several slices
if several bands are excited at once. The switching also shakes leads and head in the static field and
leaves eddy currents. This slow part repeats with the shots and with the volumes; it is an assumption, as is
its size, `IN_BAND_UV`. The amplifier's analogue low-pass is included (250 Hz, 30 dB per octave: BrainAmp MR,
operating manual).

When the head moves, the couplings change by about 1 % per mm (from 40 % over 40 mm along the bore,
Mullinger et al. 2011, NeuroImage 54:1942).
"""

import numpy as np
from numpy.typing import NDArray
from scipy import fft, signal

from rtdecode.types import Float

# Behind the low-pass and over all channels: the whole artefact, and its slow part.
RMS_UV = 770.0
IN_BAND_UV = 165.0
LOW_PASS_HZ = 250.0
LOW_PASS_ORDER = 5
# Length of the preparation volumes before the first volume, and of a reference scan before them.
PREPARATION_S = 3.0
REFERENCE_S = 1.2

# Coarsest step of the table of waveforms.
_STEP_S = 20e-6
# Time per line of the readout, and number of lines.
_ECHO_MS = 0.74
_LINES = 64
# Standard deviation over channels of the logarithm of their size.
_SPREAD = 0.3
# Relative change of the couplings per mm, and per degree.
_PER_MM = 0.01
# Gradients begin and end over this time.
_EDGE_S = 0.02
# The reference scan's rate and size relative to the run's, and the pause after it.
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
        Number of the subject, which decides how the cap lies in the field.
    channels : int
        Number of channels.
    tr_s : float
        TR, which need not be a whole number of samples.
    slices, multiband : int
        Number of slices in a volume, and of slices that are excited at once.
    seed : int
        Seed of the head's slow motion.
    slow : float
        Relative standard deviation of the couplings under that motion; 0 for none.
    path : (volume, 6), optional
        Position of the head in each volume, as from `rtdecode.phantom.body.movement.head_path`, in mm and
        rad.
    volumes : int, optional
        Number of volumes after which the gradients end; by default they never do.
    preparation_s : float
        For about this long before the first volume, the scanner runs volumes without a trigger, after a
        short reference scan at another rate; 0 for neither.

    Notes
    -----
    Without motion the artefact repeats exactly with the TR. Time is that of the scanner.
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

    def voltages(self, times_s: NDArray[np.float64]) -> Float:
        """Return the artefact at given times of the run.

        Parameters
        ----------
        times_s : float64, (n,)
            Seconds after the start of the first volume.

        Returns
        -------
        (channels, n) float32
            Microvolts behind the low-pass.
        """
        waves = self._waves(times_s)
        parts = [waves, *(waves * strength for strength in self._motion.changes(times_s))]
        return self._fields @ np.concatenate(parts)

    def turning(self, times_s: NDArray[np.float64]) -> Float:
        """Return how fast the head turns about each axis, (3, n), degrees a second; 0 without a path."""
        step = 1e-3
        change = self._motion.places(times_s + step / 2) - self._motion.places(times_s - step / 2)
        return (change[3:] / (step * _PER_MM)).astype(np.float32)

    def _waves(self, times: NDArray[np.float64]) -> Float:
        """Return the waveforms of the three axes and of the shaking, (row, n)."""
        out = self._read(times / self._tr)
        out *= _gate(times, self._start, self._stop)
        if self._start < 0:
            stop = self._start - _PAUSE_S
            gate = _gate(times, stop - REFERENCE_S, stop)
            if gate.any():
                out += self._read((times - stop) * _REFERENCE_RATE / self._tr) * (_REFERENCE_GAIN * gate)
        return out

    def _read(self, turns: NDArray[np.float64]) -> Float:
        """Read the table at phases of the TR by four-point Lagrange interpolation, (row, n)."""
        count = self._table.shape[1] - 3
        place = (turns % 1) * count
        # Rounding may carry the phase to the very end of the table.
        index = np.minimum(place.astype(np.int64), count - 1)
        x = (place - index).astype(np.float32)
        before = x + 1
        after = x - 1
        weights = (-x * after * (x - 2) / 6, before * after * (x - 2) / 2)
        weights += (-before * x * (x - 2) / 2, before * x * after / 6)
        out = self._table[:, index] * weights[0]
        for shift in (1, 2, 3):
            out += self._table[:, index + shift] * weights[shift]
        return out


class HeadSway:
    """Motion of the head, in units of the relative change of the couplings.

    Parameters
    ----------
    seed : int
        Seed of the slow waves.
    tr_s : float
        Repetition time, s.
    path : (volume, 6) or None
        Position of the head in each volume, in mm and rad. It is reached within 0.3 s of the volume's start
        and then held.
    slow : float
        Standard deviation of the slow part, which is made of waves of 40 to 200 s; 0 for none.
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
        # The first and the last position also hold before and after the run.
        if path is not None:
            self._path = np.concatenate([path[:1], path, path[-1:]]) * (
                [_PER_MM] * 3 + [np.rad2deg(_PER_MM)] * 3
            )

    @property
    def count(self) -> int:
        """Number of signals that `at` returns."""
        return self._SLOW * bool(self._slow) + 6 * (self._path is not None)

    def changes(self, times: NDArray[np.float64]) -> Float:
        """Return the relative changes, (signal, n)."""
        changes: list[NDArray[np.float64]] = []
        if self._slow:
            # The waves are slow enough to be interpolated linearly between 50 points a second.
            knots = np.arange(np.floor(times[0] * 50), np.ceil(times[-1] * 50) + 2) / 50
            slow = self._slow * np.sin(self._turn * knots + self._phase).sum(axis=1)
            changes += [np.interp(times, knots, wave) for wave in slow]
        if self._path is not None:
            changes += list(self.places(times))
        return np.array(changes, np.float32).reshape(len(changes), len(times))

    def places(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the changes by the path alone, (6, n), 0.01 per mm and per degree."""
        if self._path is None:
            return np.zeros((6, len(times)))
        index = np.floor(times / self._tr)
        since = np.clip((times - index * self._tr) / self._CHANGE_S, 0, 1)
        # A smooth step, so that the head's speed, which induces a voltage, does not jump.
        share = since * since * (3 - 2 * since)
        now = np.clip(index.astype(np.int64) + 1, 0, len(self._path) - 1)
        old = np.maximum(now - 1, 0)
        return (self._path[old] + (self._path[now] - self._path[old]) * share[:, None]).T


def low_pass(sfreq: float) -> NDArray[np.float64]:
    """Return the analogue low-pass as a digital filter at a sampling rate, in second-order sections."""
    return np.asarray(signal.butter(LOW_PASS_ORDER, LOW_PASS_HZ, fs=sfreq, output="sos"))


def _switching(tr_s: float, shots: int) -> NDArray[np.float64]:
    """Return the rates of change of the three axes over a TR behind the low-pass, (3, point), in any unit."""
    count = _points(tr_s)
    # The corners of the trapezoids lie between the points of the table, so the waves are drawn more
    # finely and brought to its points in the frequency domain, where low-pass and derivative are
    # exact.
    fine = 4 * count
    times = np.arange(fine) * (tr_s / fine)
    frequencies = np.arange(fine // 2 + 1) / tr_s
    passed = _analogue(frequencies) * 2j * np.pi * frequencies
    corners = [_corners(tr_s / shots, shots, axis) for axis in range(3)]
    waves = np.array([np.interp(times, *knots) for knots in corners])
    spectrum = (np.asarray(fft.rfft(waves)) * passed)[:, : count // 2 + 1]
    spectrum[:, -1] = 0
    return np.asarray(fft.irfft(spectrum, count))


def _analogue(frequencies: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Return the response of the low-pass, a Butterworth filter, whose poles lie on a circle."""
    angles = np.pi * (2 * np.arange(LOW_PASS_ORDER) + 1 + LOW_PASS_ORDER) / (2 * LOW_PASS_ORDER)
    plane = 1j * np.asarray(frequencies)[:, None] / LOW_PASS_HZ
    return 1 / np.prod(plane - np.exp(1j * angles), axis=1)


def _points(tr_s: float) -> int:
    """Return the number of points of a table over a TR, a power of two."""
    return 2 ** int(np.ceil(np.log2(tr_s / _STEP_S)))


def _corners(shot_s: float, shots: int, axis: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the corners of one gradient over a TR, their times in seconds and their heights."""
    # A short shot has fewer lines; one too short even for eight of them is compressed in time.
    squeeze = min(1.0, 1000 * shot_s / (_READOUT_MS + _SPOIL_MS + 8 * _ECHO_MS))
    lines = min(_LINES, int((1000 * shot_s / squeeze - _READOUT_MS - _SPOIL_MS) / _ECHO_MS + 1e-9))
    pulses: list[tuple[float, float, float, float]] = [part[1:] for part in _BEFORE if part[0] == axis]
    for line in range(lines):
        start = _READOUT_MS + line * _ECHO_MS
        pulses += [[(start, 0.15, 0.44, (-1.0) ** line)], [(start, 0.1, 0.0, 0.3)], []][axis]
    end = _READOUT_MS + lines * _ECHO_MS
    pulses += [(end + start, ramp, flat, height) for a, start, ramp, flat, height in _AFTER if a == axis]
    times = []
    heights = []
    for shot in range(shots):
        # Spoilers differ between shots, so that the artefact repeats with the volumes alone.
        gain = 1 + 0.1 * np.sin(2.4 * shot * shot)
        for start, ramp, flat, height in pulses:
            edges = np.cumsum([start, ramp, flat, ramp]) * (squeeze / 1000) + shot * shot_s
            times += list(edges)
            high = height * (gain if start >= end or start < 6 else 1.0)
            heights += [0.0, high, high, 0.0]
    return np.array(times), np.array(heights)


def _shaking(tr_s: float, shots: int) -> NDArray[np.float64]:
    """Return the slow waves that repeat with the shots (two rows) and with the volumes (two), (4, point).

    The first two have unit rms, the others half of it.
    """
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
    """Return couplings of the channels to waves, (channel, row), with a given rms over all channels."""
    field = size * rng.standard_normal((len(size), len(waves)))
    power = np.einsum("cr,rs,cs->c", field, waves @ waves.T / waves.shape[1], field)
    # Halve the deviations of the channels in log size: no lead is free of the artefact.
    field *= (power.mean() / power[:, None]) ** 0.25
    power = np.einsum("cr,rs,cs->c", field, waves @ waves.T / waves.shape[1], field)
    return field * (rms_uv / np.sqrt(power.mean()))


def _padded(waves: NDArray[np.float64]) -> Float:
    """Return a periodic table with one point added before it and two behind, for the interpolation."""
    return np.concatenate([waves[:, -1:], waves, waves[:, :2]], axis=1).astype(np.float32)


def _gate(times: NDArray[np.float64], start: float, stop: float) -> Float:
    """Return 1 between two times and 0 outside, with soft edges."""
    margin_s = np.minimum(times - start, stop - times)
    return (0.5 - 0.5 * np.cos(np.pi * np.clip(margin_s / _EDGE_S, 0, 1))).astype(np.float32)
