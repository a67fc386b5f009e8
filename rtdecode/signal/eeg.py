"""Causal EEG filtering: the same object in training and in a session."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdecode.types import Float


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
    """

    highpass_hz: float = 0.5
    lowpass_hz: float = 40.0
    order: int = 2
    reference: str = "average"

    def __post_init__(self) -> None:
        if not 0 < self.highpass_hz < self.lowpass_hz:
            raise ValueError(f"the band must rise from above 0 Hz, found {self}")
        if self.reference not in ("average", "none"):
            raise ValueError(f"reference is 'average' or 'none', found {self.reference!r}")

    def sections(self, sfreq: float) -> NDArray[np.float64]:
        """Second-order sections at a sampling rate, (section, 6)."""
        if self.lowpass_hz >= sfreq / 2:
            raise ValueError(f"a low-pass at {self.lowpass_hz} Hz needs more than {sfreq} samples a second")
        from scipy import signal  # a third of a second that only acquisition and training need

        high = signal.butter(self.order, self.highpass_hz, "highpass", fs=sfreq, output="sos")
        low = signal.butter(2 * self.order, self.lowpass_hz, "lowpass", fs=sfreq, output="sos")
        return np.concatenate([np.asarray(high), np.asarray(low)])


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
        if data.shape[1] == 0:
            return data
        from scipy import signal

        x = data.astype(np.float64)
        if self._band.reference == "average":
            x -= x.mean(axis=0)
        if self._state is None:
            rest = signal.sosfilt_zi(self._sections)
            self._state = rest[:, None, :] * x[None, :, :1]
        y, self._state = signal.sosfilt(self._sections, x, axis=1, zi=self._state)
        return y.astype(np.float32)
