"""Find channels that do not measure the brain while they are recorded, and fill them in from the others.

Unfiltered EEG comes in (`BadChannels.push`). At the end of each block of a second every channel is judged: is
it flat, saturated, noisier than its neighbours, or unlike what the others predict? Bad channels are
interpolated by spherical splines (`BadChannels.interpolate`).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.clocks.lines import mad
from rtdecode.signal.eeg.quality import LEARNING, Quality

Reals = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

# Spherical splines: m of Perrin et al., terms of the series, and what is added to the diagonal.
_ORDER = 4
_TERMS = 50
_RIDGE = 1e-5
# With fewer good channels nothing is interpolated.
_LEAST_GOOD = 4
# Share of samples at an extreme value beyond which a channel counts as saturated.
_RAIL_SHARE = 0.02
# Samples are averaged over this time before channels are compared with what the others predict, s.
_BIN_S = 0.02


@dataclass(frozen=True, slots=True)
class Judgement:
    """Limits that make a channel bad. All figures are those of one block.

    Attributes
    ----------
    block_s : float
        Length of a block, s.
    neighbours : int
        Number of nearest channels with whose median level a channel is compared.
    noisy_z, noisy_ratio : float
        A channel is noisy if its level exceeds that of its neighbours by more than this robust z over the
        channels and by more than this ratio of the standard deviations.
    flat_uv, flat_ratio : float
        A channel is flat if its standard deviation is below this, microvolts, or below this share of the
        median channel's.
    apart_z, apart_r : float
        A channel stands alone if its correlation with the spline prediction is low: by more than this robust
        z of its Fisher transform over the channels, and below this value.
    enter, leave : int
        Number of bad blocks in a row after which a channel is bad (one is enough where it is flat or
        saturated), and of good blocks after which it is good again.
    max_share : float
        Largest share of the channels that may be interpolated.
    """

    block_s: float = 1.0
    neighbours: int = 6
    noisy_z: float = 5.0
    noisy_ratio: float = 5.0
    flat_uv: float = 0.1
    flat_ratio: float = 0.02
    apart_z: float = 5.0
    apart_r: float = 0.3
    enter: int = 3
    leave: int = 10
    max_share: float = 1 / 8


def saturated(block: Reals | NDArray[np.float32]) -> Mask:
    """Find the channels of a block (channel, sample) that stay at an extreme value repeatedly, (channel,)."""
    high = block.max(axis=1, keepdims=True)
    low = block.min(axis=1, keepdims=True)
    stays = (block[:, 1:] == block[:, :-1]) & ((block[:, 1:] == high) | (block[:, 1:] == low))
    # A quiet channel may repeat its extremes too; one at the amplifier's rail covers a wide range.
    return (stays.mean(axis=1) > _RAIL_SHARE) & ((high - low)[:, 0] > 500.0)


class BadChannels:
    """Judge channels block by block, with hysteresis, and interpolate the bad ones.

    Parameters
    ----------
    places : (channel, 3)
        Directions from the middle of the head.
    sfreq : float
        Sampling rate, Hz.
    absent : (channel,) bool, optional
        Channels that the stream lacks: they are always bad.
    reference : int, optional
        Index of the recording reference, where it is one of the channels; it may be flat.
    rules : Judgement, optional
        Limits by which channels count as bad.

    Attributes
    ----------
    bad : (channel,) bool
        The verdict that holds for the next sample.
    may_be_flat : (channel,) bool
        True for the recording reference.
    allowed : int
        Number of channels that may be interpolated.
    """

    def __init__(
        self,
        places: Reals,
        sfreq: float,
        absent: Mask | None = None,
        reference: int | None = None,
        rules: Judgement | None = None,
    ) -> None:
        self._rules = rules or Judgement()
        count = len(places)
        places = _unit(places)
        self._places = places
        self._absent = np.zeros(count, bool) if absent is None else absent
        self.may_be_flat = np.arange(count) == (-1 if reference is None else reference)
        self._size = round(self._rules.block_s * sfreq)
        self._bin = max(1, round(_BIN_S * sfreq))
        nearest = np.argsort(-(places @ places.T), axis=1, kind="stable")
        self._near = nearest[:, 1 : 1 + self._rules.neighbours]
        self._counts = np.zeros(count, int)
        self._block = np.zeros((count, self._size))
        self._held = 0
        self._whole = True
        self._rails = np.zeros(count, bool)
        self.allowed = int(count * self._rules.max_share)
        self.bad = self._absent.copy()
        self._learn()

    @property
    def too_many(self) -> bool:
        """Whether more channels are bad than may be interpolated, or too few are left to do it."""
        return int(self.bad.sum()) > self.allowed or self._too_few

    @property
    def room(self) -> int:
        """Number of samples until the next verdict."""
        return self._size - self._held

    def rails(self, channels: Mask) -> None:
        """Say which channels were saturated before artefacts were removed, (channel,)."""
        self._rails |= channels

    def push(self, data: NDArray[Any], quality: Quality) -> None:
        """Take the next samples, at most `room` of them.

        Parameters
        ----------
        data : (channel, n)
            Microvolts, not re-referenced.
        quality : (n,) uint8
            A block is judged only if every sample in it is better than `LEARNING`.
        """
        self._block[:, self._held : self._held + data.shape[1]] = data
        self._whole &= bool((quality > LEARNING).all())
        self._held += data.shape[1]
        if self._held == self._size:
            if self._whole:
                self._judge()
            self._held = 0
            self._whole = True

    def interpolate(self, data: Reals) -> Reals:
        """Replace the bad channels of (channel, n) by what the others predict, where there are enough."""
        if not self.bad.any() or self._too_few:
            return data
        out = data.copy()
        # The sum runs along an axis that is not the last, in the order of the
        # channels, so that its bits do not depend on the number of samples. A
        # lone sample would be summed in another order: it is doubled.
        good = data[~self.bad] if data.shape[1] != 1 else np.repeat(data[~self.bad], 2, axis=1)
        out[self.bad] = (self._fill[:, :, None] * good).sum(axis=1)[:, : data.shape[1]]
        return out

    def _learn(self) -> None:
        good = self._places[~self.bad]
        self._too_few = bool(self.bad.any()) and len(good) < _LEAST_GOOD
        if self._too_few:
            return
        inverse = _inverse(good)
        self._fill = _weights(inverse, good, self._places[self.bad])
        self._alone = inverse[:-1, :-1] / np.diag(inverse)[:-1, None]

    def _judge(self) -> None:
        rules = self._rules
        before = self.bad
        x = detrended(self._block)
        # Flat is judged as recorded: less the median channel, a dead one is not flat.
        flat = self._flat(_spread(x))
        x -= np.median(x[~before], axis=0) if not before.all() else 0.0
        at_once = (flat | self._rails) & ~self._absent
        odd = at_once | self._noisy(_spread(x)) | self._apart(x, flat)
        self._rails = np.zeros(len(odd), bool)
        self._counts = np.where(odd != before, self._counts + 1, 0)
        self._counts[at_once & ~before] = rules.enter
        enter = ~before & (self._counts >= rules.enter)
        leave = before & (self._counts >= rules.leave)
        self.bad = (before | enter) & ~leave | self._absent
        if not np.array_equal(self.bad, before):
            self._counts[enter | leave] = 0
            self._learn()

    def _flat(self, spread: Reals) -> Mask:
        usual = float(np.median(spread[~self.bad])) if not self.bad.all() else 0.0
        flat = (spread < self._rules.flat_uv) | (spread < self._rules.flat_ratio * usual)
        return flat & ~self.may_be_flat

    def _noisy(self, spread: Reals) -> Mask:
        rules = self._rules
        level = np.log10(np.maximum(spread, 1e-3))
        excess = level - self._around(level)
        return (_robust_z(excess, ~self.bad) > rules.noisy_z) & (excess > np.log10(rules.noisy_ratio))

    def _around(self, level: Reals) -> Reals:
        """Return the median over each channel's good neighbours, or over all good channels if it has none."""
        near = np.sort(np.where(self.bad, np.inf, level)[self._near], axis=1)
        count = np.isfinite(near).sum(axis=1)
        rows = np.arange(len(near))
        middle = (near[rows, np.maximum(count - 1, 0) // 2] + near[rows, count // 2]) / 2
        return np.where(count > 0, middle, np.median(level[~self.bad]) if not self.bad.all() else 0.0)

    def _apart(self, x: Reals, flat: Mask) -> Mask:
        good = ~self.bad
        # From a few channels nothing can be predicted.
        if good.sum() < 8:
            return np.zeros(len(x), bool)
        bins = x[:, : self._size // self._bin * self._bin].reshape(len(x), -1, self._bin).mean(axis=2)
        predicted = np.empty_like(bins)
        # Each good channel from all the others: the leave-one-out residual of a linear fit follows
        # from the inverse of its system, without a system for each channel.
        predicted[good] = bins[good] - self._alone @ bins[good]
        predicted[~good] = self._fill @ bins[good]
        together = _correlation(bins, predicted)
        fisher = np.arctanh(np.clip(together, -0.999, 0.999))
        low = _robust_z(-fisher, good) > self._rules.apart_z
        return low & (together < self._rules.apart_r) & ~flat


def _unit(places: Reals) -> Reals:
    return places / np.linalg.norm(places, axis=1, keepdims=True)


def _kernel(cosine: Reals) -> Reals:
    degree = np.arange(1, _TERMS + 1)
    factors = (2 * degree + 1) / (degree * (degree + 1.0)) ** _ORDER / (4 * np.pi)
    return np.asarray(np.polynomial.legendre.legval(np.clip(cosine, -1, 1), [0.0, *factors]))


def _weights(inverse: Reals, sources: Reals, targets: Reals) -> Reals:
    return _kernel(targets @ sources.T) @ inverse[:-1, :-1] + inverse[-1, :-1]


def _inverse(places: Reals) -> Reals:
    """Invert the spline system of some electrodes, with its constant, (n + 1, n + 1).

    These are splines on a sphere (Perrin, Pernier, Bertrand & Echallier 1989, Electroenceph. clin.
    Neurophysiol. 72:184, equations 1 to 4, with m = 4).
    """
    count = len(places)
    system = np.ones((count + 1, count + 1))
    system[:-1, :-1] = _kernel(places @ places.T) + _RIDGE * np.eye(count)
    system[-1, -1] = 0.0
    return np.linalg.inv(system)


def detrended(block: Reals) -> Reals:
    """Return the rows of a block (channel, sample) without their mean and slope."""
    ramp = np.linspace(-1.0, 1.0, block.shape[1])
    x = block - block.mean(axis=1, keepdims=True)
    return x - (x @ ramp / (ramp @ ramp))[:, None] * ramp


def _spread(x: Reals) -> Reals:
    spread: Any = np.sqrt(np.mean(x**2, axis=1))
    return spread


def _robust_z(values: Reals, among: Mask) -> Reals:
    reference = values[among] if among.any() else values
    # The floor keeps tiny differences between channels that are much alike from counting as outliers.
    z: Any = (values - np.median(reference)) / max(mad(reference), 0.05)
    return z


def _correlation(a: Reals, b: Reals) -> Reals:
    a = a - a.mean(axis=1, keepdims=True)
    b = b - b.mean(axis=1, keepdims=True)
    size = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    together: Any = (a * b).sum(axis=1) / np.maximum(size, 1e-12)
    return together
