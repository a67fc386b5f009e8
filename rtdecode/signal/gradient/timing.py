"""When epochs of the gradient artefact start, counted in samples of the amplifier.

Triggers say where the first epoch begins, and what the TR is (`PlacedTriggers`). `lag` and `find` measure
where one piece of the artefact lies in another. A line through the measured starts places the next epoch
(`TriggerLine`).
"""

from bisect import insort
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from rtdecode.types import Float

# Intervals between triggers that differ by less than this share are the same.
_SAME = 0.02
_HUBER = 1.345  # 95 % efficiency for a normal distribution (Huber 1981)
# Rounds of reweighting.
_ROUNDS = 5


@dataclass(frozen=True, slots=True, order=True)
class PlacedTrigger:
    """A volume trigger: its time, s on the local clock, its place, samples, and whether the head moved."""

    triggered_at: float
    place: float
    moved: bool = False


class PlacedTriggers:
    """Hold triggers until the sample that they belong to has come.

    Parameters
    ----------
    sfreq : float
        Nominal sampling rate, Hz.
    """

    def __init__(self, sfreq: float) -> None:
        self._sfreq = sfreq
        self._waiting: list[tuple[float, bool]] = []
        self._placed: deque[PlacedTrigger] = deque()
        self._recent: deque[float] = deque(maxlen=3)

    def add(self, triggered_at: float, moved: bool) -> None:
        """Take a trigger; its time may lie in the past or in the future."""
        insort(self._waiting, (triggered_at, moved))

    def place(self, times: NDArray[np.float64], index: int) -> None:
        """Place the triggers that lie before the end of a chunk on its samples.

        Parameters
        ----------
        times : (n,)
            Times of the chunk's samples, s on the local clock.
        index : int
            Index of its first sample.
        """
        while self._waiting and self._waiting[0][0] <= times[-1]:
            triggered_at, moved = self._waiting.pop(0)
            # Counted back from the first sample at or after the trigger, in fractions of a sample.
            first = int(np.searchsorted(times, triggered_at))
            place = index + first - (times[first] - triggered_at) * self._sfreq
            self._placed.append(PlacedTrigger(triggered_at, float(place), moved))

    def take(self, index: int) -> list[PlacedTrigger]:
        """Return the triggers at or before a sample, each of them once."""
        triggers = []
        while self._placed and self._placed[0].place <= index:
            triggers.append(self._placed.popleft())
            # A trigger that comes a second time, marked as moved, is not a new one.
            if not self._recent or triggers[-1].place > self._recent[-1]:
                self._recent.append(triggers[-1].place)
        return triggers

    def period(self, expected: float) -> float:
        """Return the samples between triggers: as expected, unless the last three agree on another TR."""
        if len(self._recent) < 3:
            return expected
        first, second = np.diff(np.array(self._recent))
        # Intervals of several whole TRs mean lost triggers, not another TR.
        n_trs = round(first / expected) if first > expected else 1
        if abs(first - second) > _SAME * second or abs(first / n_trs - expected) < _SAME * expected:
            return expected
        return float(first + second) / 2


class TriggerLine:
    """Starts of epochs on a straight line that is fitted robustly to the last measured ones.

    Parameters
    ----------
    start : float
        Start of epoch 0, samples.
    period : float
        Length of an epoch, samples, until two starts have been measured.
    count : int
        Number of epochs that the line is fitted to.

    Attributes
    ----------
    period : float
        Length of an epoch, samples.
    scatter : float
        Root mean square distance of the measured starts from the line, samples.
    """

    def __init__(self, start: float, period: float, count: int) -> None:
        self._points: deque[tuple[int, float]] = deque([(0, start)], maxlen=count)
        self._at = (0, start)
        self.period = period
        self.scatter = 0.0

    def __call__(self, epoch: int) -> float:
        """Return where an epoch starts, samples."""
        return self._at[1] + (epoch - self._at[0]) * self.period

    def add(self, epoch: int, start: float) -> None:
        """Take a measured start; it replaces an earlier measurement of the same epoch."""
        if self._points[-1][0] == epoch:
            self._points.pop()
        self._points.append((epoch, start))
        self._fit()

    def move(self, epoch: int, start: float) -> None:
        """Forget all starts but this one; keep the period."""
        self._points.clear()
        self._points.append((epoch, start))
        self._at = (epoch, start)

    def _fit(self) -> None:
        if len(self._points) < 2:
            self._at = self._points[-1]
            return
        epochs, starts = np.array(self._points, np.float64).T
        k = epochs - epochs[-1]
        y = starts - starts[-1]
        weights = np.ones(len(k))
        for _ in range(_ROUNDS):
            weights /= weights.sum()
            middle = weights @ k
            height = weights @ y
            slope = weights @ ((k - middle) * (y - height)) / (weights @ (k - middle) ** 2)
            self.period = float(slope)
            self._at = (int(epochs[-1]), float(starts[-1] + height - slope * middle))
            residuals = y - height - slope * (k - middle)
            self.scatter = float(np.sqrt(np.mean(residuals**2)))
            scale = 1.4826 * np.median(np.abs(residuals)) + 1e-6
            weights = 1 / np.maximum(1, np.abs(residuals) / (_HUBER * scale))


def lag(first: Float, second: Float, max_lag: int) -> tuple[float, float]:
    """Measure how many samples the second recording of an artefact lies behind the first.

    Differences in time are correlated, so that slow signals count little, over all channels together. A
    parabola finds the top between the samples.

    Parameters
    ----------
    first, second : (channel, n)
        Two recordings of one artefact.
    max_lag : int
        Largest lag that is looked for, to both sides, samples.

    Returns
    -------
    lag : float
        Samples.
    likeness : float
        Median correlation across channels at that lag, -1 to 1.
    """
    a = _level(np.diff(first))
    b = _level(np.diff(second))
    # Padded by the largest lag, so that the circular correlation does not wrap around.
    count = int(fft.next_fast_len(a.shape[1] + max_lag, real=True) or 0)
    product = np.sum(_spectrum(a, count).conj() * _spectrum(b, count), axis=0)
    curve = np.asarray(fft.irfft(product, count))[np.arange(-max_lag, max_lag + 1)]
    # The parabola needs a value to either side of the top.
    top = int(np.argmax(curve[1:-1])) + 1
    shift = top - max_lag
    common = a.shape[1] - abs(shift)
    early = a[:, max(0, -shift) :][:, :common]
    late = b[:, max(0, shift) :][:, :common]
    return shift + _summit(*curve[top - 1 : top + 2]), _alike(early, late)


def _spectrum(data: Float, count: int) -> NDArray[np.complexfloating]:
    return np.asarray(fft.rfft(data, count))


def _summit(before: float, top: float, after: float) -> float:
    bend = before - 2 * top + after
    return float(0.5 * (before - after) / bend) if bend < 0 else 0.0


def find(template: Float, data: Float) -> tuple[float, float]:
    """Find where in a periodic template a short recording begins.

    Parameters
    ----------
    template : (channel, period)
        One period of the artefact.
    data : (channel, n)
        The recording to place.

    Returns
    -------
    place : float
        Samples after the template's first one.
    likeness : float
        Median correlation across channels at that place, -1 to 1.
    """
    period = template.shape[1]
    count = data.shape[1] - 1
    # The recording may run across the end of the template, which begins again there.
    going_on = np.concatenate([template, template[:, : count + 1]], axis=1)
    a = _level(np.diff(going_on))
    b = _level(np.diff(data))
    size = int(fft.next_fast_len(a.shape[1], real=True) or 0)
    product = np.sum(_spectrum(a, size) * _spectrum(b, size).conj(), axis=0)
    # Divided by the template's energy at each place, or the loudest part would always win.
    energy = np.cumsum(np.concatenate([[0.0], np.sum(a * a, axis=0, dtype=np.float64)]))
    energy = energy[count : count + period] - energy[:period]
    curve = np.asarray(fft.irfft(product, size))[:period] / np.sqrt(np.maximum(energy, 1e-3 * energy.max()))
    top = int(np.argmax(curve))
    around = curve[[top - 1, top, (top + 1) % period]]
    return top + _summit(*around), _alike(a[:, top : top + count], b)


def _level(data: Float) -> Float:
    """Scale rows to unit length, so that a loud channel counts like the others."""
    length = np.sqrt(np.einsum("cn,cn->c", data, data))[:, None]
    return data / np.maximum(length, np.float32(1e-12))


def _alike(a: Float, b: Float) -> float:
    """Return the median correlation across channels."""
    return float(np.median(np.einsum("cn,cn->c", _level(a), _level(b))))
