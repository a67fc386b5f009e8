"""Find R-peaks in an electrocardiogram, causally.

Samples come in, and the positions of R-peaks go out within 0.31 s. The signal is averaged down to about
250 Hz and band-pass filtered, its energy is smoothed, peaks of the energy are compared with an adaptive
threshold, and the time of a peak is refined by the usual shape of the QRS complex.

Inside the magnet the flow of blood raises the T-wave and the gradients leave residues, so only the energy
between 9 and 32 Hz is used. Band-pass, energy and adaptive thresholds are those of Pan & Tompkins 1985
(IEEE Trans. Biomed. Eng. 32:230), with linear-phase filters.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

# Samples are averaged in the largest bins that leave at least this rate.
_RATE = 250.0
_BAND_HZ = (9.0, 32.0)
# Samples of the matched QRS complex to either side of its middle, 60 ms.
_REACH = 15
# Most samples by which the refinement moves a peak.
_SLIP = 10


@dataclass(frozen=True, slots=True)
class Peaks:
    """Settings of the R-peak detector.

    Attributes
    ----------
    refractory_s : float
        Shortest time between two beats.
    warm_up_s : float
        Length of signal from which the thresholds are set before the first beat is reported.
    share : float
        Position of the threshold between the level of the noise's peaks (0) and that of the beats (1).
    late : float
        After so many usual intervals without a beat, half the threshold is enough. This holds also for a
        peak that was seen before and can still be reported in time.
    """

    refractory_s: float = 0.3
    warm_up_s: float = 2.5
    share: float = 0.3
    late: float = 1.15


class RPeaks:
    """Causal R-peak detector that reports a peak within 0.31 s.

    The result does not depend on how the signal is cut into chunks.

    Parameters
    ----------
    sfreq : float
        Sampling rate of the electrocardiogram, Hz; 200 or more.
    settings : Peaks
        Constants of the method.

    Raises
    ------
    ValueError
        If `sfreq` is below 200 Hz.
    """

    def __init__(self, sfreq: float, settings: Peaks | None = None) -> None:
        # Imported where it is used, as in `rtdecode.signal.eeg.band`: it takes as long to load as all else.
        from scipy import signal

        if sfreq < 200:
            raise ValueError(f"finding R-peaks needs at least 200 samples a second, found {sfreq}")
        self._set = settings or Peaks()
        self._bin = max(1, int(sfreq / _RATE))
        self._rate = rate = sfreq / self._bin
        half = round(0.08 * rate)
        self._taps = np.asarray(signal.firwin(2 * half + 1, _BAND_HZ, pass_zero=False, fs=rate))
        self._taps -= self._taps.mean()  # the window method alone lets an electrode's offset through
        width = round(0.05 * rate)
        self._smooth = np.hanning(2 * width + 3)[1:-1]
        self._smooth /= self._smooth.sum()
        self._confirm = round(0.09 * rate)
        self._back = half + width  # delay of both filters
        self._longest = round(0.31 * rate)
        self.reset()

    def reset(self) -> None:
        """Forget everything, as is needed after a gap; positions count from 0 again."""
        self._rest = np.zeros(0)
        self._count = 0
        self._start_level: float | None = None
        self._raw, self._narrow, self._energy, self._track = (_Tail(256) for _ in range(4))
        self._levels: deque[float] = deque(maxlen=8)
        self._usual_level = 0.0
        self._interval = 0.9 * self._rate
        self._noise = 0.0
        self._warm = np.zeros(4)
        self._last = -np.inf
        self._gaps: deque[float] = deque(maxlen=8)
        self._pending: tuple[int, float] | None = None
        self._shape: Values | None = None

    @property
    def interval_s(self) -> float:
        """Usual time between two beats, in seconds; 0.9 until three beats are known."""
        return self._interval / self._rate

    def push(self, ecg: Values) -> list[float]:
        """Take the next samples.

        Parameters
        ----------
        ecg : (n,)
            Microvolts, of either polarity.

        Returns
        -------
        list of float
            Positions of the beats that have become certain, in samples since the last reset, with
            fractions.
        """
        values = np.concatenate([self._rest, np.asarray(ecg, np.float64)])
        n_bins = len(values) // self._bin
        self._rest = values[n_bins * self._bin :]
        beats = []
        for value in values[: n_bins * self._bin].reshape(n_bins, self._bin).mean(axis=1).tolist():
            place = self._step(value)
            # From the middle of a bin to samples.
            if place is not None:
                beats.append((place + 0.5) * self._bin - 0.5)
        return beats

    def _step(self, value: float) -> float | None:
        # Subtract the first value: to the filter, an electrode's offset would look like a step.
        if self._start_level is None:
            self._start_level = value
        self._raw.append(value - self._start_level)
        narrow = float(self._taps @ self._raw.last(len(self._taps)))
        self._narrow.append(narrow)
        self._energy.append(narrow * narrow)
        self._track.append(float(np.sqrt(self._smooth @ self._energy.last(len(self._smooth)))))
        self._count += 1
        return self._judge()

    def _judge(self) -> float | None:
        """Return the place of a beat that has become certain, in samples of the lower rate."""
        track = self._track.last(2 * self._confirm + 1)
        value = float(track[self._confirm])
        place = self._count - 1 - self._confirm - self._back  # the sample of the signal that `value` is for
        if not self._warmed(float(track[-1])):
            return None
        # Of equal values the first is the peak: argmax returns it.
        if value > 0 and int(track.argmax()) == self._confirm:
            if value >= self._threshold(place):
                return self._accept(place, value)
            # A lower peak counts as noise, but may turn out to be a beat once one is overdue.
            self._noise += 0.1 * (value - self._noise)
            self._pending = (place, value)
        return self._search_back()

    def _warmed(self, value: float) -> bool:
        """Return whether the thresholds are set, which they are from the first seconds of signal.

        Not every quarter of these seconds contains a beat, but two of them do, so the second highest peak
        is that of a beat.
        """
        total = round(self._set.warm_up_s * self._rate)
        if self._count <= 2 * self._back:
            return False
        if self._count < total:
            quarter = 4 * self._count // total
            self._warm[quarter] = max(self._warm[quarter], value)
            return False
        if self._count == total:
            self._learn_level(float(np.sort(self._warm)[-2]))
        return True

    def _learn_level(self, value: float) -> None:
        self._levels.append(value)
        self._usual_level = float(np.median(self._levels))

    def _threshold(self, place: int) -> float:
        level = self._usual_level
        since = place - self._last
        usual = self._interval
        if since < self._set.refractory_s * self._rate:
            return np.inf
        # Without a beat for seconds the level itself must be too high: halve it every two seconds.
        forgotten = 0.5 ** max(0.0, (min(since, 1e6) - 2.5 * self._rate) / (2 * self._rate))
        level *= forgotten if np.isfinite(self._last) else 1.0
        noise = min(self._noise, 0.5 * level)
        # Early peaks must be higher, and so must all peaks until the usual interval is known.
        share = 0.75 if since < 0.6 * usual else self._set.share if len(self._gaps) > 2 else 0.6
        return noise + share * (level - noise)

    def _search_back(self) -> float | None:
        """Accept a lower peak if a beat is overdue and the peak can still be reported in time."""
        if self._pending is None:
            return None
        place, value = self._pending
        if self._count - 1 - place > self._longest - 1:
            self._pending = None
            return None
        since = (self._count - 1 - self._last) / self._interval
        overdue = self._set.late < since < 2
        if (
            overdue
            and len(self._gaps) > 2
            and value >= 0.5 * self._threshold(place)
            and value > 2 * self._noise
        ):
            return self._accept(place, value)
        return None

    def _accept(self, place: int, value: float) -> float:
        self._pending = None
        gap = place - self._last
        # After a long silence, beats may have another size, so the old levels are dropped.
        if gap > 2.5 * self._rate:
            self._levels.clear()
            self._usual_level = value
        else:
            self._gaps.append(gap)
            self._interval = float(np.median(self._gaps)) if len(self._gaps) > 1 else self._interval
        self._last = place
        # A single very large peak must not raise the threshold far.
        self._learn_level(min(value, 2 * self._usual_level))
        return place + self._refined(place)

    def _refined(self, place: int) -> float:
        """Return the offset of the QRS complex from `place`, by its usual shape."""
        back = self._count - 1 - place - (len(self._taps) - 1) // 2
        around = self._narrow.last(back + _REACH + _SLIP + 1)[: 2 * (_REACH + _SLIP) + 1]
        # The first beat defines the shape, centred on its largest deflection of either polarity.
        if self._shape is None:
            shift = int(np.argmax(np.abs(around[_REACH:-_REACH]))) - _SLIP
            self._shape = around[_SLIP + shift : _SLIP + shift + 2 * _REACH + 1].copy()
            return float(shift)
        match = np.correlate(around, self._shape)
        best = int(np.argmax(match))
        segment = around[best : best + 2 * _REACH + 1]
        like = match[best] / max(float(np.linalg.norm(segment) * np.linalg.norm(self._shape)), 1e-12)
        if like > 0.6:
            self._shape += 0.1 * (segment - self._shape)
        return best - _SLIP + vertex(match, best)


class _Tail:
    """The last values of a signal, contiguous in memory."""

    def __init__(self, size: int) -> None:
        self._kept = np.zeros(4 * size)
        self._size = size
        self._end = size

    def append(self, value: float) -> None:
        if self._end == len(self._kept):
            self._kept[: self._size] = self._kept[-self._size :]
            self._end = self._size
        self._kept[self._end] = value
        self._end += 1

    def last(self, count: int) -> Values:
        return self._kept[self._end - count : self._end]


def vertex(values: Values, best: int) -> float:
    """Return the offset of a maximum from its sample, by a parabola through its neighbours; 0 at the ends."""
    if not 0 < best < len(values) - 1:
        return 0.0
    before, middle, after = values[best - 1 : best + 2]
    bend = before - 2 * middle + after
    return float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)) if bend < 0 else 0.0
