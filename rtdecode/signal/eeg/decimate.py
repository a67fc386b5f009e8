"""Lower a stream's sampling rate causally and without aliasing, by a linear-phase low-pass."""

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal.eeg.quality import LEARNING, Quality

# Attenuation of what would be folded, dB; it also sets the ripple of the pass band.
_STOP_DB = 70.0
# The pass band ends at this share of the new rate; the stop band begins at half of the new rate.
_PASS = 0.25
# A ratio of rates this close to a whole number is that number.
_SAME = 1e-6


class Decimator:
    """Resample a stream to a lower rate.

    Frequencies up to a quarter of the new rate are kept (within 0.3 %); from half of it on they are 70 dB
    down. An output depends only on inputs up to its own time plus `delay_s`, and any division of the input
    into chunks gives the same bits.

    Parameters
    ----------
    sfreq, target : float
        Rates of input and output, Hz. A ratio within a millionth of a whole number is taken as that number;
        any other must be a fraction of small numbers.

    Attributes
    ----------
    sfreq, target : float
        Rates of input and output, Hz.
    delay_s : float
        Delay of the low-pass, s. The time of an output lies so much before the newest input it depends on.

    Raises
    ------
    ValueError
        If the target is not lower than the input's rate, or the ratio is no fraction of small numbers.

    Notes
    -----
    Kaiser's window design; polyphase evaluation.
    """

    def __init__(self, sfreq: float, target: float) -> None:
        factor = round(sfreq / target)
        if abs(sfreq / target - factor) < _SAME * factor:
            # A rate as amplifiers state it (1666.667 Hz) is no fraction of small numbers.
            ratio = Fraction(1, factor)
            target = sfreq / factor
        else:
            ratio = Fraction(target).limit_denominator(1000) / Fraction(sfreq).limit_denominator(1000)
        if not 0 < ratio < 1 or ratio.numerator > 1000:
            raise ValueError(f"a stream of {sfreq:g} Hz cannot be decimated to {target:g} Hz")
        from scipy import signal

        self._up = ratio.numerator
        self._down = ratio.denominator
        fast = sfreq * self._up
        count, beta = signal.kaiserord(_STOP_DB, (0.5 - _PASS) * target / (fast / 2))
        # An odd number of taps: the delay is a whole number of steps at the common rate.
        count += 1 - count % 2
        window = np.kaiser(count, beta)
        taps = signal.firwin(count, (0.5 + _PASS) / 2 * target, window="boxcar", fs=fast) * window
        taps = np.asarray(taps) / np.sum(taps) * self._up
        self.sfreq = sfreq
        self.target = target
        self.delay_s = (count - 1) / 2 / fast
        self._span = -(-count // self._up)  # inputs that an output depends on
        padded = np.concatenate([taps, np.zeros(self._span * self._up - count)])
        self._phases = np.ascontiguousarray(padded.reshape(self._span, self._up)[::-1].T)
        self.reset()

    def reset(self) -> None:
        """Start afresh, as after a hole: the next sample is taken as the resting level."""
        self._past: NDArray[np.float64] | None = None
        self._times = np.zeros(0)
        self._quality = np.zeros(0, np.uint8)
        self._first = self._next = 0

    def push(
        self, data: NDArray[np.floating], times: NDArray[np.float64], quality: Quality
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], Quality]:
        """Take the next samples.

        Parameters
        ----------
        data : (channel, n)
            Samples at the higher rate.
        times : (n,)
            s.
        quality : (n,) uint8
            Marks of `rtdecode.signal.eeg.quality`. An output is as good as the worst input it depends on.

        Returns
        -------
        data : (channel, m) float64
        times : (m,)
            Times of the outputs: `delay_s` before the newest input that each depends on, s.
        quality : (m,) uint8
        """
        if not data.shape[1]:
            return data.astype(np.float64), times[:0], quality[:0]
        x = self._with_past(data.astype(np.float64), times, quality)
        newest = self._first + x.shape[1] - 1
        # Output m depends on inputs up to floor(m * down / up); input 0 is the first after a start.
        stop = (newest * self._up + self._up - 1) // self._down + 1
        output_index = np.arange(self._next, max(self._next, stop))
        filtered = self._filtered(x, output_index)
        place = output_index * self._down / self._up - self._first
        when = self._when(place) - self.delay_s
        good = self._worst(np.floor(place).astype(int))
        self._next = max(self._next, stop)
        self._forget(x)
        return filtered, when, good

    def _with_past(
        self, data: NDArray[np.float64], times: NDArray[np.float64], quality: Quality
    ) -> NDArray[np.float64]:
        if self._past is None:
            # As many samples at the resting level as the filter is long: a start makes no
            # transient. They have the numbers below 0.
            ahead = self._span
            self._past = np.repeat(data[:, :1], ahead, axis=1)
            self._times = times[0] - np.arange(ahead, 0, -1) / self.sfreq
            self._quality = np.full(ahead, min(LEARNING, quality[0]), np.uint8)
            self._first = -ahead
        self._times = np.concatenate([self._times, times])
        self._quality = np.concatenate([self._quality, quality])
        return np.concatenate([self._past, data], axis=1)

    def _filtered(self, x: NDArray[np.float64], output_index: NDArray[np.int64]) -> NDArray[np.float64]:
        if not len(output_index):
            return np.zeros((len(x), 0))
        fast = output_index * self._down
        first = fast // self._up - self._first - self._span + 1
        windows = np.lib.stride_tricks.sliding_window_view(x, self._span, axis=1)
        inputs = windows[:, first[0] : first[-1] + 1 : self._down] if self._up == 1 else windows[:, first]
        # Each output sums along the last axis, in an order that does not depend on their number.
        return np.einsum("cmt,mt->cm", inputs, self._phases[fast % self._up])

    def _when(self, place: NDArray[np.float64]) -> NDArray[np.float64]:
        before = np.floor(place).astype(int)
        share = place - before
        return self._times[before] + share / self.sfreq

    def _worst(self, last: NDArray[np.int64]) -> Quality:
        if not len(last):
            return np.zeros(0, np.uint8)
        windows = np.lib.stride_tricks.sliding_window_view(self._quality, self._span)
        return windows[last - self._span + 1].min(axis=1)

    def _forget(self, x: NDArray[np.float64]) -> None:
        gone = max(0, self._next * self._down // self._up - self._first - self._span + 1)
        gone = min(gone, x.shape[1])
        self._past = np.ascontiguousarray(x[:, gone:])
        self._first += gone
        self._times = self._times[gone:]
        self._quality = self._quality[gone:]


def rate_within(sfreq: float, limit_hz: float) -> float:
    """Return the highest rate up to `limit_hz`, Hz, that is a stream's rate over a whole number."""
    return sfreq / max(1, math.ceil(sfreq / limit_hz - 1e-9))
