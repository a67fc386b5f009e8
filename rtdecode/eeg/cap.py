"""From the channels of a stream to those of a bundle: picked, repaired, re-referenced, filtered."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import EegInput
from rtdecode.eeg import channels, electrodes
from rtdecode.signal.eeg.badchannels import BadChannels, saturated
from rtdecode.signal.eeg.band import EegFilter, mean_over
from rtdecode.signal.eeg.quality import Quality
from rtdecode.types import Float

# Bad channels are looked for in caps of at least so many.
_LEAST = 16


class Cap:
    """The bundle's channels of one stream.

    As long as no channel is bad, they go through one `EegFilter` and nothing else. A bad one is replaced
    behind the filter, which leaves no step, and stays out of the average reference.

    Parameters
    ----------
    wanted : EegInput
    picks : (channel,) int
        Column of each of the bundle's channels in the stream, as of `rtdecode.eeg.channels.match`.
    sfreq : float
        Hz.
    reference : str
        Label of the recording reference.
    """

    def __init__(self, wanted: EegInput, picks: NDArray[np.int64], sfreq: float, reference: str = "") -> None:
        self._names = wanted.channels
        self._picks = picks
        self._absent = picks == channels.ABSENT
        self._average = wanted.band.reference == "average"
        self._filter = EegFilter(wanted.band, sfreq)
        self.delay_s = wanted.band.delay_s(sfreq)
        names = [channels.canonical(name) for name in wanted.channels]
        placed = all(name in electrodes.places() for name in names)
        self._judge: BadChannels | None = None
        if self._absent.any() or (placed and len(picks) >= _LEAST):
            own = channels.canonical(reference)
            flat = names.index(own) if own in names else None
            self._judge = BadChannels(channels.places(names), sfreq, self._absent, flat)

    @property
    def bad_channels(self) -> list[str]:
        """Names of the channels that are interpolated now."""
        if self._judge is None:
            return []
        return [name for name, bad in zip(self._names, self._judge.bad, strict=True) if bad]

    @property
    def judges(self) -> bool:
        """Whether bad channels are looked for."""
        return self._judge is not None

    @property
    def too_many(self) -> bool:
        """Whether more channels are bad than may be interpolated."""
        return self._judge is not None and self._judge.too_many

    def reset(self) -> None:
        """Filter afresh, as after a hole."""
        self._filter.reset()

    def pick(self, data: NDArray[Any]) -> NDArray[Any]:
        """The bundle's channels of all, (channel, n); absent ones are zero."""
        picked = data[self._picks]
        if self._absent.any():
            picked[self._absent] = 0.0
        return picked

    def saturated(self, block: Float) -> None:
        """Look at a second of raw samples for channels at the amplifier's limits, or that stand still."""
        if self._judge is not None:
            still = block.max(axis=1) == block.min(axis=1)
            self._judge.rails(saturated(block) | (still & ~self._judge.may_be_flat))

    def push(
        self, data: NDArray[Any], quality: Quality
    ) -> Iterator[tuple[Float, NDArray[np.bool_] | None, int]]:
        """Filter the next samples of the picked channels, (channel, n).

        Yields
        ------
        values : (channel, m) float32
        bad : (channel,) bool or None
            Which of them were interpolated.
        m : int
        """
        judge = self._judge
        start = 0
        while start < data.shape[1]:
            stop = data.shape[1] if judge is None else min(data.shape[1], start + judge.room)
            part = data[:, start:stop]
            values, mean = self._filter.push_with_mean(part)
            bad = None
            if judge is not None:
                if judge.bad.any():
                    bad = judge.bad
                    values = self._repaired(values + mean, judge)
                judge.push(part, quality[start:stop])
            yield values, bad, stop - start
            start = stop

    def _repaired(self, plain: NDArray[np.float64], judge: BadChannels) -> Float:
        x = judge.interpolate(plain)
        if self._average and not judge.bad.all():
            x -= mean_over(x[~judge.bad])
        return x.astype(np.float32)
