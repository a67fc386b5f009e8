"""Causal EEG filtering: the same object in training and in a session."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.types import Float

_SETTLED = 0.01
_NOTCH_Q = 30.0


@dataclass(frozen=True, slots=True)
class EegBand:
    """A band-pass that a causal filter realises.

    Attributes
    ----------
    highpass_hz, lowpass_hz : float
        Edges of the pass band (-3 dB).
    order : int
        Order of each Butterworth edge.
    reference : str
        ``average``: the mean over channels is subtracted from each sample; ``none``: nothing is.
    notch_hz : float or None
        Mains frequency that is cut out, 50 or 60 Hz (-3 dB a sixtieth to either side).
    compensate : bool
        Whether the low-pass's delay is taken off the samples' times (`delay_s`). The phase of the lower
        edge stays as it is.
    """

    highpass_hz: float = 0.5
    lowpass_hz: float = 40.0
    order: int = 2
    reference: str = "average"
    notch_hz: float | None = None
    compensate: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.highpass_hz < self.lowpass_hz:
            raise ValueError(f"the band must rise from above 0 Hz, found {self}")
        if self.reference not in ("average", "none"):
            raise ValueError(f"reference is 'average' or 'none', found {self.reference!r}")

    def sections(self, sfreq: float) -> NDArray[np.float64]:
        """Second-order sections at a sampling rate, (section, 6)."""
        if max(self.lowpass_hz, self.notch_hz or 0.0) >= sfreq / 2:
            notch = f" with a notch at {self.notch_hz} Hz" if self.notch_hz else ""
            raise ValueError(
                f"a low-pass at {self.lowpass_hz} Hz{notch} needs more than {sfreq} samples a second"
            )
        from scipy import signal  # a third of a second that only acquisition and training need

        high = signal.butter(self.order, self.highpass_hz, "highpass", fs=sfreq, output="sos")
        return np.concatenate([np.asarray(high), self._upper(sfreq)])

    def settling_s(self, sfreq: float) -> float:
        """Time after which the answer to a step stays below 1 %, s: 8.2 s for 0.1 Hz, 1.7 s for 0.5."""
        from scipy import signal

        sections = self.sections(sfreq)
        block = int(sfreq)
        state = np.zeros((len(sections), 2))
        last = 0
        at = 0
        while at == 0 or at - last < block * max(2.0, 2 / self.highpass_hz):
            both: Any = signal.sosfilt(sections, np.ones(block), zi=state)
            answer, state = both
            late = np.flatnonzero(np.abs(answer) > _SETTLED)
            last = at + int(late[-1]) + 1 if len(late) else last
            at += block
        return last / sfreq

    def delay_s(self, sfreq: float) -> float:
        """What `compensate` takes off the times: the upper edge's mean delay from 4 Hz to half of it, s."""
        if not self.compensate:
            return 0.0
        from scipy import signal

        at = np.linspace(4.0, max(8.0, self.lowpass_hz / 2), 32)
        step = 0.01
        both = np.concatenate([at - step, at + step])
        answer: Any = signal.sosfreqz(self._upper(sfreq), both, fs=sfreq)[1]
        turned = np.angle(answer[len(at) :] / answer[: len(at)])
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

    Output sample n depends on input samples up to n only, and any way of cutting the input into
    chunks gives the same bits.

    Parameters
    ----------
    band : EegBand
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
        """As `push`, and what was subtracted from all channels, through the same band, (sample,)."""
        if data.shape[1] == 0:
            return data.astype(np.float32), np.zeros(0)
        from scipy import signal

        x = np.zeros((len(data) + 1, data.shape[1]))
        x[:-1] = data
        if self._band.reference == "average":
            x[-1] = mean_over(x[:-1])
            x[:-1] -= x[-1]
        if self._state is None:
            rest = signal.sosfilt_zi(self._sections)
            self._state = rest[:, None, :] * x[None, :, :1]
        y, self._state = signal.sosfilt(self._sections, x, axis=1, zi=self._state)
        return y[:-1].astype(np.float32), y[-1]


def mean_over(x: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Mean over channels, (channel, sample) -> (sample,): a lone sample gives the bits it gives in a row."""
    return x.mean(axis=0) if x.shape[1] != 1 else np.repeat(x, 2, axis=1).mean(axis=0)[:1]
