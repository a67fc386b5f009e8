"""Invalid EEG values: filled in for the filters that follow, counted for the windows.

A value is invalid if it is not finite, or beyond what an amplifier measures (`rtdecode.signal.plausible`).
Samples of all channels come in and leave without holes. One value that is not a number would stay in a
recursive filter for ever, so nothing that has a memory may see it.
"""

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal import plausible

Data = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
Times = NDArray[np.float64]

# A channel is reported again if it was whole for this long before it failed, s.
_TOLD_AGAIN_S = 10.0
# Most channels that one sentence names.
_NAMES_TOLD = 8


class SampleValidator:
    """Keep invalid values (`plausible.eeg_holes`) out of everything that has a memory.

    Such a value is replaced by the last good one of its channel (0 before the first), which is causal. A
    channel that fails for long is flat from there on: so `BadChannels` finds it and interpolates it. A
    sample in which most channels are holes counts as a gap.

    Parameters
    ----------
    names : sequence of str
        All channels of the stream.
    picks : (channel,) int
        Columns of the channels that the bundle reads.
    keep_s : float
        Time for which holes are remembered, s.

    Attributes
    ----------
    samples : int
        Number of samples in which at least one channel was a hole.
    """

    def __init__(self, names: tuple[str, ...], picks: NDArray[np.int64], keep_s: float) -> None:
        self._names = names
        self._picks = picks
        self._keep_s = keep_s
        self._good = np.zeros(len(names), np.float32)
        self._log: deque[tuple[Times, NDArray[np.float64]]] = deque()
        self._failed_at = np.full(len(names), -np.inf)
        self._notes: list[str] = []
        self.samples = 0

    def push(self, data: Data, times: Times) -> tuple[Data, Mask | None]:
        """Take the next samples.

        Parameters
        ----------
        data : (channel, sample)
            Microvolts.
        times : (sample,)
            s on the local clock.

        Returns
        -------
        data : (channel, sample)
            The same array if all of it is good.
        gone : (sample,) bool, or None
            Samples that are gaps; None where none is.
        """
        holes = plausible.eeg_holes(data)
        if holes is None:
            self._good = data[:, -1].copy()
            return data, None
        self._count(holes, times)
        filled = self._filled(data, holes)
        self._good = filled[:, -1].copy()
        gone = holes.mean(axis=0) > plausible.MOST_CHANNELS
        return filled, gone if gone.any() else None

    def missing(self, times: Times, mask: Mask, sfreq: float) -> float:
        """Return the share of a window's values that are invalid although their samples came.

        Parameters
        ----------
        times : (n,)
            Times of the window's samples: ascending, evenly spaced, s on the local clock.
        mask : (n,) bool
            Which of them are usable; the others count as missing already.
        sfreq : float
            Sampling rate of the stream, Hz.
        """
        if not self._log or len(times) < 2:
            return 0.0
        step = float(times[-1] - times[0]) / (len(times) - 1)
        invalid_times = np.concatenate([stamps for stamps, _ in self._log])
        share = np.concatenate([shares for _, shares in self._log])
        # By rounding, a raw sample may lie just before the window's first instant.
        place = np.floor((invalid_times - times[0]) / step + 1e-6).astype(np.int64)
        in_window = (place >= 0) & (place < len(times))
        counted = share[in_window] * mask[place[in_window]]
        return min(1.0, float(counted.sum()) / (len(times) * step * sfreq))

    def notes(self) -> list[str]:
        """Return one sentence for each fault that began since the last call."""
        notes = self._notes
        self._notes = []
        return notes

    def _filled(self, data: Data, holes: Mask) -> Data:
        """Fill each hole with the last good value of its channel."""
        # Column 0 is the last good value of the chunks before; the running maximum is, for every
        # sample, the column of the newest good one.
        extended = np.concatenate([self._good[:, None].astype(data.dtype), data], axis=1)
        place = np.where(holes, 0, np.arange(1, data.shape[1] + 1))
        newest = np.maximum.accumulate(place, axis=1)
        return np.take_along_axis(extended, newest, axis=1)

    def _count(self, holes: Mask, times: Times) -> None:
        some = holes.any(axis=0)
        self.samples += int(some.sum())
        share = holes[self._picks].mean(axis=0) if len(self._picks) else np.zeros(len(times))
        # A sample that is a gap lacks all of the bundle's channels.
        share = np.where(holes.mean(axis=0) > plausible.MOST_CHANNELS, 1.0, share)
        concerned = share > 0
        if concerned.any():
            self._log.append((times[concerned], share[concerned]))
        while self._log and self._log[0][0][-1] < times[-1] - self._keep_s:
            self._log.popleft()
        self._tell(holes, times)

    def _tell(self, holes: Mask, times: Times) -> None:
        failed = holes.any(axis=1)
        fresh = failed & (times[0] - self._failed_at > _TOLD_AGAIN_S)
        last = holes.shape[1] - 1 - np.argmax(holes[:, ::-1], axis=1)
        self._failed_at[failed] = times[last[failed]]
        if not fresh.any():
            return
        names = [name for name, new in zip(self._names, fresh, strict=True) if new]
        suffix = f" and {len(names) - _NAMES_TOLD} more" if len(names) > _NAMES_TOLD else ""
        self._notes.append(
            f"{', '.join(names[:_NAMES_TOLD])}{suffix}: invalid values (not a number, or beyond "
            f"{plausible.EEG_LIMIT_UV:g} uV). They count as missing, and a channel that stays invalid is "
            "interpolated if its neighbours allow it. Check the electrode, the cable and the amplifier"
        )
