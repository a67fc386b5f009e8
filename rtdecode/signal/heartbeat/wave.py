"""Model the heartbeat artefact as a running template whose components are fitted to each beat.

`PulseWave` holds the template and learns from finished beats; `Beat` is one beat that is fitted while it
passes. All signals are steps of EEG, (step, channel) in microvolts, and latencies count steps after the
R-peak.

The template is the average of past beats (Allen et al. 1998, NeuroImage 8:229), aligned to a fraction of a
sample and weighted by the size of each beat. Its spatial modes and its slope may vary from beat to beat,
like the bases of Niazy et al. 2005 (NeuroImage 28:720). They are modes of the average, not of the single
beats, so that activity that is not locked to the heart does not enter them. The fit is a Gaussian posterior
over all channels: early in a beat the usual size dominates, later the beat's own samples.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

MODES = 2
PARTS = 2 + MODES  # the whole template, its slope, its modes
SPAN = 5  # points that an interpolation reads
# For this long after the R-peak nothing has moved yet, so the template's zero is taken from there.
_QUIET_S = 0.05
# Variances of the parts' amounts between beats: the first values, and the least allowed later.
_PRIOR = np.array([0.3, 0.5, *[0.15] * MODES]) ** 2
_FLOOR = np.array([0.1, 0.1, *[0.03] * MODES]) ** 2
# Circular shifts, as shares of a beat, after which residuals match the template only by chance.
_ROLLS = (0.23, 0.37, 0.61, 0.79)
# Share of each new value in the running averages.
_SLOWLY = 0.1
# A beat with this many times the usual misfit teaches nothing, unless so many come in a row.
_ODD = 4.0
_PATIENCE = 9


def lagrange(offset: float) -> Values:
    """Return the weights of five points around 0 for the value at `offset`, (5,); exact to fourth order."""
    nodes = np.arange(SPAN) - SPAN // 2
    gaps = np.where(np.eye(SPAN, dtype=bool), 1.0, nodes[:, None] - nodes[None, :])
    steps = np.where(np.eye(SPAN, dtype=bool), 1.0, offset - nodes[None, :])
    return np.asarray((steps / gaps).prod(axis=1))


def shifted(values: Values, offset: float) -> Values:
    """Interpolate between rows (time first): row n of the result is the value at n + `offset`.

    Beyond the edges, the first and the last row are repeated.
    """
    edge = SPAN // 2
    n_steps = int(np.floor(offset + 0.5))
    weights = lagrange(offset - n_steps)
    index = np.clip(np.arange(-edge, len(values) + edge) + n_steps, 0, len(values) - 1)
    padded = values[index]
    count = len(values)
    out = weights[0] * padded[:count]
    for point in range(1, SPAN):
        out += weights[point] * padded[point : point + count]
    return out


@dataclass(frozen=True, slots=True)
class Basis:
    """Components that a beat is fitted with, shifted to the samples of that beat.

    Attributes
    ----------
    parts : (latency, part, channel)
        Microvolts; the slope is per step of latency.
    weighted : (latency, part, channel)
        `parts` divided by the noise variances of the channels.
    sums : (latency, part, channel)
        Cumulative sum of `weighted` over latency, each latency included.
    gram : (latency, part, part)
        Products of the parts about their means, both taken up to each latency.
    gain : (latency, part, part)
        Maps what the usual beat leaves unexplained, projected on the parts, to the change of the amounts.
    """

    parts: Values
    weighted: Values
    sums: Values
    gram: Values
    gain: Values


class PulseWave:
    """Running template of the heartbeat artefact.

    Parameters
    ----------
    channels : int
        Number of channels.
    rate : float
        Steps of latency a second.
    reach_s : float
        How long after the R-peak the template lasts.
    memory : float
        Number of beats after which an old one counts 1/e; the average covers about twice as many.

    Attributes
    ----------
    presence : float
        Share of the template that new beats contain, on average: 1 for an artefact, 0 for noise that did
        not average out.
    beats, rejected : int
        Number of beats in the template, and of those that were too different from it.
    """

    def __init__(self, channels: int, rate: float, reach_s: float, memory: float) -> None:
        self.length = round(reach_s * rate)
        self._quiet = max(2, round(_QUIET_S * rate))
        self._keep = float(np.exp(-1 / memory))
        self._sum = np.zeros((self.length, channels))
        self._weight = np.zeros((self.length, 1))
        self._variance = np.ones(channels)
        self._prior = _PRIOR.copy()
        self._noise = 30.0
        self._modes: Values | None = None
        self._misfits: deque[float] = deque(maxlen=9)
        self._odd = 0
        self.presence = 0.0
        self.beats = self.rejected = self._met = 0

    @property
    def mean(self) -> Values:
        """The template, (latency, channel), with zero where the heart has not moved anything yet."""
        # The 0.5 shrinks an average that rests on few beats.
        mean = self._sum / (self._weight + 0.5)
        return mean - mean[: self._quiet].mean(axis=0)

    def matched(self, first: int, last: int) -> Values:
        """Return part of the template, centred and in units of the channels' noise, (latency, channel)."""
        part = self.mean[first:last] / np.sqrt(self._variance)
        return part - part.mean(axis=0)

    def whiten(self, values: Values) -> Values:
        """Return values (latency, channel), centred and in units of the channels' noise."""
        return (values - values.mean(axis=0)) / np.sqrt(self._variance)

    def basis(self, offset: float) -> Basis:
        """Return the components at latencies 0 + `offset`, 1 + `offset` and so on."""
        # Cumulative sums over latency allow a fit to any part of a beat that has been seen, with a
        # free level for each channel.
        mean = shifted(self.mean, offset)
        parts = np.stack([mean, np.gradient(mean, axis=0), *self._split(mean)], axis=1)
        weighted = parts / self._variance
        sums = np.cumsum(weighted, axis=0)
        products = np.matmul(weighted, parts.transpose(0, 2, 1)).cumsum(axis=0)
        counts = np.arange(1, self.length + 1)[:, None, None]
        gram = products - np.matmul(sums * self._variance, sums.transpose(0, 2, 1)) / counts
        gain = np.linalg.inv(gram + np.diag(self._noise / self._prior))
        return Basis(parts, weighted, sums, gram, gain)

    def learn(self, epoch: Values, amounts: Values, basis: Basis, offset: float) -> bool:
        """Take a finished beat into the template.

        Parameters
        ----------
        epoch : (n, channel)
            The samples at latencies `offset`, 1 + `offset` and so on.
        amounts : (part,)
            Amounts of the parts that were fitted to the beat.
        basis : Basis
            Parts that were fitted to the beat.
        offset : float
            Latency of the first row of `epoch`, in steps after the R-peak.

        Returns
        -------
        bool
            False if the beat was too different from the template and was left out.
        """
        count = len(epoch)
        residual = epoch - amounts @ basis.parts[:count]
        level = residual.mean(axis=0)
        residual -= level
        if self._is_odd(residual):
            self.rejected += 1
            return False
        self._judge(residual, amounts, basis)
        size = float(np.clip(amounts[0], 0.3, 3.0)) if self.beats >= 3 else 1.0
        # Slope and modes are deviations of this beat alone and are subtracted. Its size stays in,
        # and enters the average as a least-squares weight.
        usual = epoch - level - amounts[1:] @ basis.parts[:count, 1:]
        usual = shifted(usual, -offset)
        self._sum[:count] *= self._keep
        self._weight[:count] *= self._keep
        self._sum[:count] += size * usual
        self._weight[:count] += size * size
        self.beats += 1
        return True

    def meet(self, size: float) -> None:
        """Update `presence` with the size of a new beat, estimated from its own samples alone."""
        # Until ten beats were met this is their plain average.
        self._met += 1
        self.presence += max(_SLOWLY, 1 / self._met) * (float(np.clip(size, -1.0, 2.0)) - self.presence)

    def vouch(self) -> None:
        """Set `presence` to 1, because the beats were found by their artefact."""
        self.presence = 1.0
        self._met = round(1 / _SLOWLY)

    def doubt(self) -> None:
        """Reduce the weight of everything learned so far to a tenth."""
        self._sum *= 0.1
        self._weight *= 0.1

    def _split(self, mean: Values) -> list[Values]:
        """Return the strongest topographies of the template, each times its time course."""
        scale = np.sqrt(self._variance)
        if self._modes is None or self.beats % 4 == 0:
            self._modes = np.linalg.eigh((mean / scale).T @ (mean / scale))[1][:, ::-1][:, :MODES]
        course = (mean / scale) @ self._modes
        return [course[:, [mode]] * (self._modes[:, mode] * scale) for mode in range(MODES)]

    def _is_odd(self, residual: Values) -> bool:
        """Return whether a misfit is unusually large and has not yet become usual."""
        misfit = float((residual * residual / self._variance).mean())
        usual = float(np.median(self._misfits)) if len(self._misfits) > 4 else np.inf
        self._odd = self._odd + 1 if misfit > _ODD * usual else 0
        if 0 < self._odd < _PATIENCE:
            return True
        # So many large misfits in a row mean that the recording has changed: judge by the new level.
        if self._odd:
            self._misfits.clear()
        self._misfits.append(misfit)
        return False

    def _judge(self, residual: Values, amounts: Values, basis: Basis) -> None:
        """Update the noise of the channels, the noise of the fit and the spread between beats."""
        share = max(_SLOWLY, 1 / (self.beats + 1))
        variance = residual.var(axis=0) + 1e-6
        self._variance += share * (np.minimum(variance, 1e4 * np.median(variance)) - self._variance)
        if self.beats < 3:
            return
        last = basis.gram[len(residual) - 1].diagonal() + 1e-9
        # EEG is correlated over time and channels, so that amounts scatter more than under white
        # noise. Products of the template with shifted residuals show by how much.
        by_chance = [
            np.vdot(basis.weighted[: len(residual), 0], np.roll(residual, int(roll * len(residual)), axis=0))
            for roll in _ROLLS
        ]
        noise = float((np.square(by_chance) / last[0]).mean())
        self._noise += _SLOWLY * (max(noise, 1.0) - self._noise)
        # What the noise of the fit does not explain of a deviation is spread between beats.
        spread = np.square(amounts - np.eye(PARTS)[0]) - self._noise / last
        self._prior += _SLOWLY * (np.minimum(spread, 4 * _PRIOR) - self._prior)
        self._prior = np.maximum(self._prior, _FLOOR)


class Beat:
    """One beat while it passes, with the components fitted to the steps seen so far.

    Parameters
    ----------
    place : float
        The R-peak, in steps.
    wave : PulseWave
        Template that the beat is fitted with.

    Attributes
    ----------
    first : int
        The first step that is not before the R-peak.
    amounts, before : (part,)
        The fit after the last step and after the one before.
    """

    def __init__(self, place: float, wave: PulseWave) -> None:
        self.at = place
        self.first = int(np.ceil(place))
        self.offset = self.first - place
        self.basis = wave.basis(self.offset)
        # The usual beat is the whole template once, without slope or modes.
        self.amounts = np.eye(PARTS)[0]
        self.before = self.amounts
        self._usual = self.amounts
        self._products, self._level = np.zeros(PARTS), np.zeros(self.basis.parts.shape[2])
        self.seen = 0

    @property
    def size(self) -> float:
        """The beat's size in units of the template, estimated without the prior."""
        if not self.seen:
            return 0.0
        products = self._products[0] - float(self.basis.sums[self.seen - 1, 0] @ self._level) / self.seen
        return float(products / max(self.basis.gram[self.seen - 1, 0, 0], 1e-12))

    def see(self, rows: Values) -> None:
        """Update the fit with the next steps, (n, channel)."""
        rows = rows[: len(self.basis.parts) - self.seen]
        self.before = self.amounts
        if not len(rows):
            return
        weighted = self.basis.weighted[self.seen : self.seen + len(rows)]
        self._products += np.matmul(weighted, rows[:, :, None]).sum(axis=0)[:, 0]
        self._level += rows.sum(axis=0)
        self.seen += len(rows)
        last = self.seen - 1
        # Posterior mean about the usual beat, whose own projection is the first column of `gram`.
        products = self._products - self.basis.sums[last] @ self._level / self.seen
        self.amounts = self._usual + self.basis.gain[last] @ (products - self.basis.gram[last, :, 0])
