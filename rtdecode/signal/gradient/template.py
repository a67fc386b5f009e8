"""The mean epoch of the gradient artefact, and how far each channel's mixture of it has changed.

`between` reads a signal between its samples, since an epoch need not start on a sample. `Template` keeps the
last epochs on a grid that is counted from their true starts, decides which of them count, and averages them.
`Coupling` follows, within an epoch, how the channels' mixture of the mean's waveforms changes.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rtdecode.types import Float

# Samples to either side that an interpolated value uses, and the Kaiser window's shape parameter.
REACH = 10
_BETA = 9.0
# Samples interpolated by one product of matrices: the larger it is, the more of its elements are 0.
_AT_ONCE = 64
# Samples by which the template goes on beyond both ends of an epoch.
MARGIN = REACH + 2
# An epoch that was misplaced by this many samples counts half: 2 microseconds at 5 kHz.
_MISPLACED = 0.01
# Marks an empty slot. Not -1, which would pass for the epoch before number 0.
_NONE = -2
# An epoch that weighs less than this against the others is not counted.
_COUNTS = 0.1
# Shapes whose power is below this share of the strongest one's are damped: they are slow, or noise.
_FAINT = 1e-3


def kernel(part: float) -> Float:
    """Return the weights of samples -REACH + 1 to REACH that give the value `part` of a sample after 0.

    A sinc under a Kaiser window (Kaiser & Schafer 1980): at 5 kHz the error is below 1e-4 up to 1 kHz.
    """
    offsets = np.arange(-REACH + 1, REACH + 1) - part
    window = np.i0(_BETA * np.sqrt(np.maximum(0, 1 - (offsets / REACH) ** 2))) / np.i0(_BETA)
    weights = np.sinc(offsets) * window
    return (weights / weights.sum()).astype(np.float32)


def between(data: Float, part: float) -> Float:
    """Interpolate the values that lie `part` of a sample (0 to 1) after each sample.

    Parameters
    ----------
    data : (channel, n + 2 * REACH - 1)
        From REACH - 1 samples before the first to REACH samples after the last.
    part : float
        Share of a sample.

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
    """Return a matrix with the kernel in each column, one row lower than in the column before."""
    # Reshaping to rows that are one element shorter shifts the kernel by one in each row.
    rows = np.zeros((count, count + 2 * REACH), np.float32)
    rows[:, : 2 * REACH] = kernel(part)
    return rows.ravel()[: count * (count + 2 * REACH - 1)].reshape(count, -1).T


class Template:
    """The last epochs, on a grid that starts MARGIN samples before an epoch, and their mean.

    Parameters
    ----------
    channels : int
        Number of channels.
    period : float
        Length of an epoch, samples.
    epochs : int
        Number of epochs that are averaged.
    block : int
        Number of samples that are stored and averaged at a time.

    Attributes
    ----------
    length, blocks : int
        Samples and blocks of the grid.
    epochs : int
        Number of epochs in the mean; median over the channels.
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
        """Return the number of samples in a block; the last one may be shorter."""
        return min(self._block, self.length - block * self._block)

    def store(self, epoch: int, block: int, data: Float) -> None:
        """Store a block of an epoch, (channel, width)."""
        slot = epoch % self._slots
        # The slot does not count until `keep` says that its new epoch is complete.
        self._numbers[slot] = _NONE
        self._ring[block, :, slot, : data.shape[1]] = data

    def epoch(self, epoch: int) -> Float:
        """Return a stored epoch, (channel, sample)."""
        stored = self._ring[:, :, epoch % self._slots].transpose(1, 0, 2)
        return stored.reshape(len(stored), -1)[:, MARGIN : self.length - MARGIN]

    def cycle(self) -> Float:
        """Return the mean over one period, to the nearest sample, (channel, sample)."""
        return self._mean[:, MARGIN : MARGIN + round(self._period)]

    def keep(
        self,
        epoch: int,
        misplaced: float,
        level: NDArray[np.float64],
        power: NDArray[np.float64] | None,
        moved: bool,
    ) -> None:
        """Make a stored epoch available for the mean.

        Parameters
        ----------
        epoch : int
            Number of the epoch.
        misplaced : float
            Number of samples by which it was stored too early.
        level : (channel,)
            Mean of the epoch, microvolts. It is no part of the artefact.
        power : (channel,) or None
            Power of what the correction left, microvolts squared; None where nothing was subtracted yet.
        moved : bool
            Whether the head moved. Such an epoch counts only where there are too few others.
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
        """Mark an epoch in which the head moved; return whether it had counted as a still one."""
        slot = epoch % self._slots
        was_still = bool(self._numbers[slot] == epoch and not self._moved[slot])
        self._moved[slot] |= was_still
        return was_still

    def weigh(self, writing: int, outlier: float, least: int) -> None:
        """Decide which epochs enter the mean, and with what weight, channel by channel.

        Parameters
        ----------
        writing : int
            Number of the epoch that is being stored.
        outlier : float
            Multiple of the channel's median rms beyond which an epoch is an outlier.
        least : int
            With fewer epochs than this without motion, those with motion are used too.
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
        # A channel that no epoch fits well takes all of them.
        weights[weights.sum(axis=1) < _COUNTS] = 1
        self.epochs = int(np.median(np.count_nonzero(weights > _COUNTS, axis=1)))
        self._weights[:, used] = weights / weights.sum(axis=1, keepdims=True)
        # The usual step between the levels of epochs is the electrode's drift; a jump is clipped.
        usual = outlier * np.median(np.abs(self._steps[:, used]), axis=1, keepdims=True)
        self._drift = np.sum(self._weights * np.clip(self._steps, -usual, usual), axis=1, keepdims=True)

    def refresh(self, block: int) -> None:
        """Compute the mean of a block anew."""
        if block >= self.blocks:
            return
        # Level and slope belong to the electrodes, not to the artefact: they stay in the EEG.
        mean = np.matmul(self._weights[:, None], self._ring[block])[:, 0]
        level = np.sum(self._weights * self._levels, axis=1, keepdims=True)
        index = block * self._block + np.arange(self._block) - MARGIN
        mean -= (level + self._drift * (index / self._period - 0.5)).astype(np.float32)
        self._mean[:, block * self._block : (block + 1) * self._block] = mean

    def read(self, first: int, count: int, phase: float) -> Float:
        """Return the mean at the samples of an epoch, (channel, count).

        Parameters
        ----------
        first, count : int
            First sample, counted from the epoch's first one, and number of samples.
        phase : float
            Share of a sample by which the epoch's first sample lies after its true start.
        """
        start = first + MARGIN - REACH + 1
        return between(self._mean[:, start : start + count + 2 * REACH - 1], phase)


class Coupling:
    """How far each channel's mixture of the artefact has moved from the mean: least squares with a memory.

    A head that moves sees other mixtures of the few waveforms that the gradient coils make. These waveforms
    span the strongest principal components of the template across the channels. What the mean leaves of the
    last moments is regressed on those components, on differences in time, where the EEG is faint.

    Parameters
    ----------
    channels : int
        Number of channels.
    shapes : int
        Number of principal components; 0 for the plain mean.
    memory : float
        Share of its weight that a block of full length keeps when the next one has come.

    Attributes
    ----------
    mix : (channel, channel) float32
        Takes the mean to the artefact that is expected now.
    """

    def __init__(self, channels: int, shapes: int, memory: float) -> None:
        self._shapes = shapes
        self._memory = memory
        self._rest, self._power, self._long = np.zeros((3, channels, channels))
        self._basis = np.zeros((channels, shapes))
        self.mix = np.eye(channels, dtype=np.float32)

    def update(self, residual: Float, template: Float) -> None:
        """Take a block: what the mean left, and the mean, both as differences in time, (channel, n)."""
        power = (template @ template.T).astype(np.float64)
        self._rest = self._memory * self._rest + residual @ template.T
        self._power = self._memory * self._power + power
        self._long = 0.99 * self._long + power
        within = self._basis.T @ self._power @ self._basis
        strongest = float(np.max(np.diag(within), initial=0))
        if strongest > 0:
            within += _FAINT * strongest * np.eye(len(within))
            change = self._rest @ self._basis @ np.linalg.solve(within, self._basis.T)
            self.mix = (np.eye(len(change)) + change).astype(np.float32)

    def turn(self) -> None:
        """Find the principal components anew, once an epoch."""
        self._basis = np.linalg.eigh(self._long)[1][:, ::-1][:, : self._shapes]
