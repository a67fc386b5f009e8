"""Causal EEG filtering: re-reference, then band-pass. Training and sessions use the same object."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.types import Float

# Share of a step below which the filter's answer to it counts as settled.
_SETTLED = 0.01
# Width of the notch: a thirtieth of its frequency, from -3 dB to -3 dB.
_NOTCH_Q = 30.0


@dataclass(frozen=True, slots=True)
class EegBand:
    """A band-pass for a causal filter.

    Attributes
    ----------
    highpass_hz, lowpass_hz : float
        Edges of the pass band (-3 dB).
    order : int
        Order of each Butterworth edge.
    reference : str
        ``average`` subtracts the mean over channels from each sample; ``none`` subtracts nothing.
    notch_hz : float or None
        Mains frequency that is cut out, 50 or 60 Hz (-3 dB at a sixtieth of it to either side).
    compensate : bool
        Whether the delay of the low-pass is taken off the times of the samples (`delay_s`). The phase of
        the lower edge stays as it is.
    """

    highpass_hz: float = 0.5
    lowpass_hz: float = 40.0
    order: int = 2
    reference: str = "average"
    notch_hz: float | None = None
    compensate: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.highpass_hz < self.lowpass_hz:
            raise ValueError(f"0 < highpass_hz < lowpass_hz must hold, found {self}")
        if self.reference not in ("average", "none"):
            raise ValueError(f"reference must be 'average' or 'none', found {self.reference!r}")

    def sections(self, sfreq: float) -> NDArray[np.float64]:
        """Return the filter's second-order sections at a sampling rate, (section, 6)."""
        if max(self.lowpass_hz, self.notch_hz or 0.0) >= sfreq / 2:
            notch = f" with a notch at {self.notch_hz} Hz" if self.notch_hz else ""
            raise ValueError(
                f"a low-pass at {self.lowpass_hz} Hz{notch} needs more than {sfreq} samples a second"
            )
        # Imported here: it takes a third of a second, which only acquisition and training need.
        from scipy import signal

        high = signal.butter(self.order, self.highpass_hz, "highpass", fs=sfreq, output="sos")
        return np.concatenate([np.asarray(high), self._upper(sfreq)])

    def settling_s(self, sfreq: float) -> float:
        """Return the time after which the answer to a step stays below 1 %, s.

        With the lower edge at 0.1 Hz it is 8.2 s, at 0.5 Hz 1.7 s.
        """
        from scipy import signal

        # The answer swings about zero: it must stay small for two periods of the lower edge.
        sections = self.sections(sfreq)
        block = int(sfreq)
        state = np.zeros((len(sections), 2))
        last = 0
        n_samples = 0
        while n_samples == 0 or n_samples - last < block * max(2.0, 2 / self.highpass_hz):
            both: Any = signal.sosfilt(sections, np.ones(block), zi=state)
            answer, state = both
            late = np.flatnonzero(np.abs(answer) > _SETTLED)
            last = n_samples + int(late[-1]) + 1 if len(late) else last
            n_samples += block
        return last / sfreq

    def delay_s(self, sfreq: float) -> float:
        """Return the delay that `compensate` takes off the times, s.

        It is the mean delay of the upper edge, from 4 Hz to half of the edge.
        """
        if not self.compensate:
            return 0.0
        from scipy import signal

        freqs_hz = np.linspace(4.0, max(8.0, self.lowpass_hz / 2), 32)
        step = 0.01
        both = np.concatenate([freqs_hz - step, freqs_hz + step])
        answer: Any = signal.sosfreqz(self._upper(sfreq), both, fs=sfreq)[1]
        # Group delay: the change of phase over a small difference in frequency.
        turned = np.angle(answer[len(freqs_hz) :] / answer[: len(freqs_hz)])
        return float(np.mean(-turned / (2 * np.pi * 2 * step)))

    def _upper(self, sfreq: float) -> NDArray[np.float64]:
        from scipy import signal

        low = np.asarray(signal.butter(2 * self.order, self.lowpass_hz, "lowpass", fs=sfreq, output="sos"))
        if self.notch_hz is None:
            return low
        notch = signal.tf2sos(*signal.iirnotch(self.notch_hz, _NOTCH_Q, fs=sfreq))
        return np.concatenate([low, np.asarray(notch)])


class EegFilter:
    """Re-reference and band-pass, sample by sample, with state carried between chunks.

    Output sample n depends only on input samples up to n, and any division of the input into chunks gives
    the same bits.

    Parameters
    ----------
    band : EegBand
        Edges, order and reference.
    sfreq : float
        Sampling rate of the input, Hz.
    """

    def __init__(self, band: EegBand, sfreq: float) -> None:
        self._band = band
        self._sections = band.sections(sfreq)
        self._state: NDArray[np.float64] | None = None

    def reset(self) -> None:
        """Forget the past, as after a hole: the next sample is taken as the resting level."""
        self._state = None

    def push(self, data: Float) -> Float:
        """Filter the next samples.

        Parameters
        ----------
        data : (channel, sample)
            Microvolts.

        Returns
        -------
        (channel, sample) float32
            Microvolts.
        """
        return self.push_with_mean(data)[0]

    def push_with_mean(self, data: NDArray[np.floating[Any]]) -> tuple[Float, NDArray[np.float64]]:
        """Filter as `push` does; return also the average that was subtracted, in the same band, (sample,)."""
        if data.shape[1] == 0:
            return data.astype(np.float32), np.zeros(0)
        from scipy import signal

        # The average is one more channel of the filter, so that it can be added again afterwards.
        x = np.zeros((len(data) + 1, data.shape[1]))
        x[:-1] = data
        if self._band.reference == "average":
            x[-1] = mean_over(x[:-1])
            x[:-1] -= x[-1]
        if self._state is None:
            # As if the first sample had been there for ever: an offset makes no transient.
            steady_state = signal.sosfilt_zi(self._sections)
            self._state = steady_state[:, None, :] * x[None, :, :1]
        y, self._state = signal.sosfilt(self._sections, x, axis=1, zi=self._state)
        return y[:-1].astype(np.float32), y[-1]


def mean_over(x: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return the mean over channels, (channel, sample) -> (sample,), bit-identical for any chunk size."""
    # NumPy sums a single column in another order than several: a lone sample is doubled.
    return x.mean(axis=0) if x.shape[1] != 1 else np.repeat(x, 2, axis=1).mean(axis=0)[:1]
