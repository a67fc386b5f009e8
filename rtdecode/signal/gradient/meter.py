"""How much of the gradient artefact is there: by its slope, sample by sample, and by its harmonics.

`SlopeDetector` finds gradients in the EEG as it comes. `ResidualMeter` compares the EEG before and after the
correction, for the report.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Channels in the report, and epochs in one spectrum. With four epochs the harmonics lie four bins
# apart, and the bin halfway between two of them lies where the main lobes of a Hann window end.
CHANNELS = 8
EPOCHS = 4
# Periods that differ by less than this share are the same.
_OTHER = 0.002
# Harmonics are judged up to this frequency, Hz.
_TOP_HZ = 250.0
# Keeps a ratio of powers finite where nothing is left.
_FLOOR_UV2 = 1e-12
# Share of what the best comb of harmonics holds that the slices' comb must hold.
_COMB_SHARE = 0.8


class SlopeDetector:
    """Find gradients by their slope: more than half of the channels change faster than a brain can.

    Parameters
    ----------
    sfreq : float
        Nominal sampling rate, Hz.
    slope_uv_s : float
        Slope that counts as steep, microvolts a second.
    hold_s : float
        Time after a steep sample that counts as steep too, s.
    """

    def __init__(self, sfreq: float, slope_uv_s: float, hold_s: float) -> None:
        self.step_uv = slope_uv_s / sfreq
        self._hold = int(hold_s * sfreq)
        self._last: NDArray[Any] | None = None
        self._since = self._hold + 1

    def push(self, data: NDArray[Any]) -> NDArray[np.bool_]:
        """Return whether there are gradients in each of the next samples, (channel, n) -> (n,)."""
        before = data[:, :1] if self._last is None else self._last
        steps = np.abs(np.diff(data, axis=1, prepend=before)) > self.step_uv
        steep = np.count_nonzero(steps, axis=0) * 2 > len(data)
        self._last = data[:, -1:].copy()
        index = np.arange(data.shape[1])
        latest = np.maximum.accumulate(np.where(steep, index, -1 - self._since))
        self._since = int(index[-1] - latest[-1])
        return index - latest <= self._hold

    def reset(self) -> None:
        """Do not compare the next sample with the last one, as after a hole."""
        self._last = None


class ResidualMeter:
    """The last epochs of a few channels before and after the correction, for the report.

    Parameters
    ----------
    sfreq : float
        Nominal sampling rate, Hz.
    channels : int
        Number of channels.
    period : float
        Length of an epoch, samples.
    """

    def __init__(self, sfreq: float, channels: int, period: float) -> None:
        self._sfreq = sfreq
        self._rows = np.unique(np.linspace(0, channels - 1, min(CHANNELS, channels)).round().astype(int))
        self._reset(period)

    def _reset(self, period: float) -> None:
        self._period = period
        self._kept = np.zeros((2, len(self._rows), round(EPOCHS * period)), np.float32)
        self._index = 0

    def push(self, before: NDArray[Any], after: NDArray[Any], period: float) -> None:
        """Take the next samples, (channel, n), and the length of an epoch now, samples."""
        if abs(period - self._period) > _OTHER * self._period:
            self._reset(period)
        length = self._kept.shape[2]
        done = 0
        while done < before.shape[1]:
            offset = self._index % length
            count = min(length - offset, before.shape[1] - done)
            part = slice(done, done + count)
            self._kept[0, :, offset : offset + count] = before[self._rows, part]
            self._kept[1, :, offset : offset + count] = after[self._rows, part]
            done += count
            self._index += count

    def report(self) -> dict[str, float | None]:
        """Return sizes and harmonics; None for each until four epochs have come.

        Returns
        -------
        dict
            ``before_uv`` and ``after_uv``: rms without the mean, median across channels. ``slice_db`` and
            ``volume_db``: power after the correction at the harmonics of slices and volumes, over the power
            halfway between them. ``slice_down_db`` and ``volume_down_db``: by how much the correction lowered
            the power at these harmonics.
        """
        length = self._kept.shape[2]
        names = ("before_uv", "after_uv", "slice_db", "volume_db", "slice_down_db", "volume_down_db")
        if self._index < length or length < 4 * EPOCHS:
            return dict.fromkeys(names)
        # The oldest sample first.
        data = np.roll(self._kept, -(self._index % length), axis=2).astype(np.float64)
        sizes = np.median(data.std(axis=2), axis=1)
        lines, around = self.spectra(data)
        slices = _comb(lines[0])
        figures = [float(size) for size in sizes]
        for pick in (slices, np.arange(len(lines[0]))):
            figures.append(_decibels(lines[1, pick].sum(), around[1, pick].sum()))
        for pick in (slices, np.arange(len(lines[0]))):
            figures.append(_decibels(lines[0, pick].sum(), lines[1, pick].sum()))
        return dict(zip(names, figures, strict=True))

    def spectra(self, data: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the power at the harmonics of the epochs up to 250 Hz, and halfway between them.

        Parameters
        ----------
        data : (recording, channel, EPOCHS * period)
            Samples of each recording.

        Returns
        -------
        (recording, harmonic), (recording, harmonic)
            From the first harmonic on, summed over channels.
        """
        window = np.hanning(data.shape[2])
        centred = data - data.mean(axis=2, keepdims=True)
        power = (np.abs(np.fft.rfft(centred * window)) ** 2).sum(axis=1)
        count = int(min(_TOP_HZ, 0.45 * self._sfreq) * self._period / self._sfreq)
        bins = EPOCHS * np.arange(1, max(count, 1) + 1)
        half = EPOCHS // 2
        return power[:, bins], (power[:, bins - half] + power[:, bins + half]) / 2


def _comb(lines: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return which harmonics of the volume are the slices': the widest comb that holds most of the power."""
    combs = [np.arange(step - 1, len(lines), step) for step in range(1, len(lines) // 2 + 1)]
    if not combs:
        return np.arange(len(lines))
    # A comb of every nth line holds 1/n of evenly spread noise by chance.
    total = lines.sum()
    excess = np.array([lines[comb].sum() - total / (n + 1) for n, comb in enumerate(combs)])
    return combs[int(np.flatnonzero(excess >= _COMB_SHARE * excess.max())[-1])]


def _decibels(power: float, other: float) -> float:
    return float(10 * np.log10((power + _FLOOR_UV2) / (other + _FLOOR_UV2)))
