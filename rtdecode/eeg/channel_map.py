"""From the channels of a stream to those of a bundle.

Clean samples of all channels come in. The bundle's channels are picked, re-referenced and filtered; bad ones
are interpolated from their neighbours after the filter.
"""

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

# Bad channels are looked for in caps of at least this many channels.
_LEAST = 16


class ChannelMap:
    """The bundle's channels of one stream.

    As long as no channel is bad, the channels pass one `EegFilter` and nothing else. A bad channel is
    replaced after the filter, so that the change leaves no step to ring in it, and it stays out of the
    average reference.

    Parameters
    ----------
    eeg_input : EegInput
        The channels and the band that the bundle reads.
    picks : (channel,) int
        Column of each of the bundle's channels in the stream, from `rtdecode.eeg.channels.match`.
    sfreq : float
        Sampling rate, Hz.
    reference : str
        Label of the recording reference.
    """

    def __init__(
        self, eeg_input: EegInput, picks: NDArray[np.int64], sfreq: float, reference: str = ""
    ) -> None:
        self._names = eeg_input.channels
        self._picks = picks
        self._absent = picks == channels.ABSENT
        self._average = eeg_input.band.reference == "average"
        self._filter = EegFilter(eeg_input.band, sfreq)
        self.delay_s = eeg_input.band.delay_s(sfreq)
        names = [channels.canonical(name) for name in eeg_input.channels]
        placed = all(name in electrodes.places() for name in names)
        self._judge: BadChannels | None = None
        if self._absent.any() or (placed and len(picks) >= _LEAST):
            # A channel that is the recording reference is zero by definition, not by a fault.
            reference_name = channels.canonical(reference)
            flat = names.index(reference_name) if reference_name in names else None
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
        """Start the filter afresh, as after a hole."""
        self._filter.reset()

    def pick(self, data: NDArray[Any]) -> NDArray[Any]:
        """Return the bundle's channels out of all, (channel, n); absent ones are zero."""
        picked = data[self._picks]
        if self._absent.any():
            picked[self._absent] = 0.0
        return picked

    def saturated(self, block: Float) -> None:
        """Look in a second of raw samples for channels at the amplifier's limits, or that stand still."""
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
            Filtered samples, microvolts.
        bad : (channel,) bool or None
            Channels that were interpolated; None where none was.
        m : int
            Number of samples in this part.
        """
        judge = self._judge
        start = 0
        while start < data.shape[1]:
            # A verdict falls at the end of the judge's block and counts from the next sample on,
            # however the samples were cut into chunks.
            stop = data.shape[1] if judge is None else min(data.shape[1], start + judge.room)
            part = data[:, start:stop]
            values, mean = self._filter.push_with_mean(part)
            bad = None
            if judge is not None:
                if judge.bad.any():
                    # The average that was subtracted contains the bad channels: it is added again
                    # here, and `_repaired` subtracts that of the good ones.
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
