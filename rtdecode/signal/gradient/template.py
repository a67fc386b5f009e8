"""The mean epoch of the gradient artefact, between the samples, and how the channels' share of it changes."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rtdecode.types import Float

# Samples to either side that an interpolated value rests on, and how the window falls off.
REACH = 10
_BETA = 9.0
# Samples interpolated by one product of matrices, most of whose elements are 0.
_AT_ONCE = 64
# Beyond both ends of an epoch the template goes on by so many samples.
MARGIN = REACH + 2
# An epoch misplaced by so many samples counts half.
_MISPLACED = 0.01
_NONE = -2  # for a number; no neighbour of one
# One that weighs less than this against the others is not counted.
_COUNTS = 0.1
# Shapes with less than this share of the strongest one's power are held back: they are slow, or noise.
_FAINT = 1e-3


def kernel(part: float) -> Float:
    """Weights of samples -REACH + 1 to REACH for the value a part of a sample after sample 0.

    A sinc under a Kaiser window (Kaiser & Schafer 1980): at 5 kHz the error is below 1e-4 up to 1 kHz.
    """
    at = np.arange(-REACH + 1, REACH + 1) - part
    window = np.i0(_BETA * np.sqrt(np.maximum(0, 1 - (at / REACH) ** 2))) / np.i0(_BETA)
    weights = np.sinc(at) * window
    return (weights / weights.sum()).astype(np.float32)


def between(data: Float, part: float) -> Float:
    """Values a part of a sample (0 to 1) after each sample.

    Parameters
    ----------
    data : (channel, n + 2 * REACH - 1)
        From REACH - 1 samples before the first to REACH samples after the last.
    part : float

    Returns
    -------
    (channel, n) float32
    """
    count = data.shape[1] - 2 * REACH + 1
    if part in (0, 1):
        return data[:, REACH - 1 + int(part) :][:, :count]
    out = np.empty((len(data), count), np.float32)
    for start in range(0, count, _AT_ONCE):
        width = min(_AT_ONCE, count - start)
        reads = data[:, start : start + width + 2 * REACH - 1]
        np.matmul(reads, _rows(part, width), out=out[:, start : start + width])
    return out


@lru_cache(maxsize=16)
def _rows(part: float, count: int) -> Float:
    """The kernel, one sample further down in each column."""
    rows = np.zeros((count, count + 2 * REACH), np.float32)
    rows[:, : 2 * REACH] = kernel(part)
    return rows.ravel()[: count * (count + 2 * REACH - 1)].reshape(count, -1).T


class Template:
    """The last epochs on a grid that starts MARGIN samples before an epoch, and their mean.

    Parameters
    ----------
    channels : int
    period : float
        Samples of an epoch.
    epochs : int
        Of which the mean is taken.
    block : int
        Samples that are stored and averaged at a time.

    Attributes
    ----------
    length, blocks : int
        Samples and blocks of the grid.
    epochs : int
        Epochs that the mean of the middle channel rests on.
    """

    def __init__(self, channels: int, period: float, epochs: int, block: int) -> None:
        self.length = int(np.ceil(period)) + 3 + 2 * MARGIN
        self.blocks = -(-self.length // block)
        self._block = block
        self._period = period
        self._slots = epochs + 1  # one is being written
        self._ring = np.zeros((self.blocks, channels, self._slots, block), np.float32)
        self._mean = np.zeros((channels, self.blocks * block), np.float32)
        self._levels, self._powers = np.zeros((2, channels, self._slots))
        self._steps = np.zeros((channels, self._slots))
        self._drift = np.zeros((channels, 1))
        self._numbers = np.full(self._slots, _NONE)
        self._misplaced = np.zeros(self._slots)
        self._moved = np.zeros(self._slots, bool)
        self._weights = np.zeros((channels, self._slots), np.float32)
        self.epochs = 0

    @property
    def ready(self) -> bool:
        """Whether there is anything to subtract."""
        return self.epochs > 0

    def width(self, block: int) -> int:
        """Samples of a block; the last may be shorter."""
        return min(self._block, self.length - block * self._block)

    def store(self, epoch: int, block: int, data: Float) -> None:
        """Keep a block of an epoch, (channel, width)."""
        slot = epoch % self._slots
        self._numbers[slot] = _NONE
        self._ring[block, :, slot, : data.shape[1]] = data

    def epoch(self, epoch: int) -> Float:
        """A kept epoch, (channel, sample)."""
        whole = self._ring[:, :, epoch % self._slots].transpose(1, 0, 2)
        return whole.reshape(len(whole), -1)[:, MARGIN : self.length - MARGIN]

    def cycle(self) -> Float:
        """The mean, one period to the nearest sample, (channel, sample)."""
        return self._mean[:, MARGIN : MARGIN + round(self._period)]

    def keep(
        self,
        epoch: int,
        misplaced: float,
        level: NDArray[np.float64],
        power: NDArray[np.float64] | None,
        moved: bool,
    ) -> None:
        """Let an epoch into the mean.

        Parameters
        ----------
        epoch : int
        misplaced : float
            By how many samples it was stored too early.
        level : (channel,)
            Its mean, which is no part of the artefact, microvolts.
        power : (channel,) or None
            What was left of it, microvolts squared; None where nothing was subtracted yet.
        moved : bool
            The head moved: it counts only where there are too few others.
        """
        slot = epoch % self._slots
        before = (epoch - 1) % self._slots
        self._numbers[slot] = epoch
        self._misplaced[slot] = misplaced
        self._moved[slot] = moved
        self._levels[:, slot] = level
        self._steps[:, slot] = level - self._levels[:, before] if self._numbers[before] == epoch - 1 else 0
        self._powers[:, slot] = np.nan if power is None else power

    def moved(self, epoch: int) -> bool:
        """The head moved in an epoch; whether it had been taken for a still one."""
        slot = epoch % self._slots
        found = bool(self._numbers[slot] == epoch and not self._moved[slot])
        self._moved[slot] |= found
        return found

    def weigh(self, writing: int, outlier: float, least: int) -> None:
        """Decide which epochs the mean is taken of.

        Parameters
        ----------
        writing : int
            The epoch being written.
        outlier : float
            More rms than so many times the channel's median is too much.
        least : int
            With fewer epochs than this the ones with motion are taken too.
        """
        used = self._numbers >= 0
        used[writing % self._slots] = False
        if np.count_nonzero(used & ~self._moved) >= least:
            used &= ~self._moved
        self._weights[:] = 0
        self.epochs = 0
        if not used.any():
            return
        powers = np.where(np.isnan(self._powers[:, used]), 0, self._powers[:, used])
        fine = powers <= outlier**2 * np.maximum(np.median(powers, axis=1, keepdims=True), 1.0)
        weights = fine / (1 + (self._misplaced[used] / _MISPLACED) ** 2)
        weights[weights.sum(axis=1) < _COUNTS] = 1
        self.epochs = int(np.median(np.count_nonzero(weights > _COUNTS, axis=1)))
        self._weights[:, used] = weights / weights.sum(axis=1, keepdims=True)
        usual = outlier * np.median(np.abs(self._steps[:, used]), axis=1, keepdims=True)
        self._drift = np.sum(self._weights * np.clip(self._steps, -usual, usual), axis=1, keepdims=True)

    def refresh(self, block: int) -> None:
        """Take the mean of a block anew."""
        if block >= self.blocks:
            return
        mean = np.matmul(self._weights[:, None], self._ring[block])[:, 0]
        level = np.sum(self._weights * self._levels, axis=1, keepdims=True)
        at = block * self._block + np.arange(self._block) - MARGIN
        mean -= (level + self._drift * (at / self._period - 0.5)).astype(np.float32)
        self._mean[:, block * self._block : (block + 1) * self._block] = mean

    def read(self, first: int, count: int, phase: float) -> Float:
        """The mean at samples of an epoch.

        Parameters
        ----------
        first, count : int
            Samples after the epoch's first one.
        phase : float
            By what part of a sample the first one lies behind the epoch's start.
        """
        start = first + MARGIN - REACH + 1
        return between(self._mean[:, start : start + count + 2 * REACH - 1], phase)


class Coupling:
    """How far each channel's share of the artefact has moved from the mean: least squares with a memory.

    A head that moves sees other mixtures of the few waveforms that the gradient coils make. They span the
    strongest principal components of the template across the channels; what the mean leaves of the last
    moments is regressed on them, on differences in time, where the EEG is faint.

    Parameters
    ----------
    channels, shapes : int
    memory : float
        Of a block of full length: what is left of a block's weight when the next one has come.
    """

    def __init__(self, channels: int, shapes: int, memory: float) -> None:
        self._shapes = shapes
        self._memory = memory
        self._rest, self._power, self._long = np.zeros((3, channels, channels))
        self._basis = np.zeros((channels, shapes))
        self.mix = np.eye(channels, dtype=np.float32)

    def update(self, rest: Float, template: Float) -> None:
        """Take a block: what the mean left, and the mean; differences in time, (channel, n)."""
        power = (template @ template.T).astype(np.float64)
        self._rest = self._memory * self._rest + rest @ template.T
        self._power = self._memory * self._power + power
        self._long = 0.99 * self._long + power
        within = self._basis.T @ self._power @ self._basis
        strongest = float(np.max(np.diag(within), initial=0))
        if strongest > 0:
            within += _FAINT * strongest * np.eye(len(within))
            change = self._rest @ self._basis @ np.linalg.solve(within, self._basis.T)
            self.mix = (np.eye(len(change)) + change).astype(np.float32)

    def turn(self) -> None:
        """Find the components anew, once an epoch."""
        self._basis = np.linalg.eigh(self._long)[1][:, ::-1][:, : self._shapes]
