"""Take the gradient artefact out of the EEG while it is recorded, without delay.

This is average artefact subtraction (Allen et al. 2000, NeuroImage 12:230) from past epochs only. The timing
is taken from the artefact itself, since the clocks of scanner and amplifier differ by up to 50 ppm: each
epoch is measured against the template to a fraction of a microsecond (one Gauss-Newton step on the delay), a
robust line through the last epochs places the next one, and the template is read between the samples.
Triggers only start the removal, and show that the scanner still runs. Within an epoch the channels' mixture
of the gradients' waveforms follows the head. `docs/gradient.md` has the method and the figures.
"""

import itertools
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal.eeg.quality import CORRECTED, LEARNING, UNCORRECTED, Quality
from rtdecode.signal.gradient.follower import Follower
from rtdecode.signal.gradient.meter import ResidualMeter, SlopeDetector
from rtdecode.signal.gradient.state import Gradient

T = TypeVar("T", bound=np.floating[Any])

__all__ = ["Gradient", "GradientRemover"]

# Samples further apart than this, in samples, have others missing between them.
_HOLE = 1.5
# After this much time the sampling rate is taken from the times instead of the nominal rate, s.
_RATE_S = 10.0


class GradientRemover:
    """Subtract the gradient artefact, sample by sample.

    Output sample n depends only on inputs up to n, and any division of the input into chunks gives the
    same bits, as long as each trigger is given before the sample that it belongs to.

    Parameters
    ----------
    sfreq : float
        Nominal sampling rate, Hz.
    channels : int
        Number of channels.
    tr_s : float
        Repetition time of the expected sequence, s. Three triggers that agree on another one overrule it.
    settings : Gradient, optional
        Constants of the method.

    Raises
    ------
    ValueError
        If a TR has fewer than four blocks.
    """

    def __init__(self, sfreq: float, channels: int, tr_s: float, settings: Gradient | None = None) -> None:
        settings = settings or Gradient()
        self._sfreq = sfreq
        self._channels = channels
        self._follower = Follower(sfreq, channels, tr_s, settings)
        self._meter = ResidualMeter(sfreq, channels, tr_s * sfreq)
        self._steepness = SlopeDetector(sfreq, settings.slope_uv_s, settings.hold_s)
        self._last: float | None = None
        self._anchor = (0.0, 0)

    def trigger(self, triggered_at: float, moved: bool = False) -> None:
        """Take a volume trigger.

        Parameters
        ----------
        triggered_at : float
            Time of the trigger, s on the local clock, in the future or in the past.
        moved : bool
            Whether the head moved in this volume; its epoch then stays out of the template. It may be told
            later, by a second call for the same trigger.
        """
        self._follower.triggers.add(triggered_at, moved)

    def push(self, data: NDArray[T], times: NDArray[np.float64]) -> tuple[NDArray[T], Quality]:
        """Correct the next samples.

        Parameters
        ----------
        data : (channel, n)
            Microvolts.
        times : (n,)
            s on the local clock. A step of more than a sample and a half is a gap.

        Returns
        -------
        clean : (channel, n)
            Microvolts, of the data's type.
        quality : (n,) uint8
            `UNCORRECTED` where gradients are left in the output, `LEARNING` while the template has few
            epochs or has not been found again after a gap, else `CORRECTED`.
        """
        if data.shape != (self._channels, len(times)):
            raise ValueError(f"expected ({self._channels}, {len(times)}) samples, found {data.shape}")
        clean = data.copy()
        quality = np.full(len(times), CORRECTED, np.uint8)
        for start, stop in self._pieces(times):
            self._follower.triggers.place(times[start:stop], self._follower.index)
            self._subtract(clean[:, start:stop], quality[start:stop])
            self._meter.push(data[:, start:stop], clean[:, start:stop], self._follower.period)
            # What is still steep after the correction counts as uncorrected, whatever the cause.
            quality[start:stop][self._steepness.push(clean[:, start:stop])] = UNCORRECTED
            self._last = float(times[stop - 1])
        return clean, quality

    def report(self) -> dict[str, Any]:
        """Return what was done so far.

        Returns
        -------
        dict
            The figures of `ResidualMeter.report`; ``state`` (idle, learning, corrected); ``epochs`` in the
            template; ``timing_us``, the scatter of the epochs about the line; ``period_s``, by the nominal
            rate, and ``period_ppm``, by how much it is longer than the expected TR, where that sequence is
            running; ``trigger_jitter_ms``; and counts: ``triggers``, ``missing``, ``spurious``,
            ``learned``, ``found_again``, ``stops``, ``moved``. What is not known is None.
        """
        counts = self._follower.counts
        jitter = 1e3 * float(np.std(counts.jitter)) / self._sfreq if counts.jitter else None
        names = ("triggers", "missing", "spurious", "learned", "found_again", "stops", "moved")
        totals = {name: getattr(counts, name) for name in names}
        state = {"state": self._follower.state, "trigger_jitter_ms": jitter}
        return self._meter.report() | state | self._follower.figures() | totals

    def _subtract(self, data: NDArray[Any], quality: Quality) -> None:
        """Correct samples without a gap between them, in place."""
        done = 0
        while done < data.shape[1]:
            # Never across the end of a block: that is where the follower's state changes.
            part = slice(done, done + min(data.shape[1] - done, self._follower.n_to_block_end))
            if self._follower.learning:
                quality[part] = LEARNING
            artefact = self._follower.take(data[:, part].astype(np.float32))
            if artefact is not None:
                data[:, part] -= artefact
            done = part.stop

    def _pieces(self, times: NDArray[np.float64]) -> Iterator[tuple[int, int]]:
        """Yield the parts without a gap inside; skip the gap before a part when it is asked for."""
        if not len(times):
            return
        steps = np.diff(times, prepend=times[0] if self._last is None else self._last)
        holes = np.abs(steps - 1 / self._sfreq) > (_HOLE - 1) / self._sfreq
        holes[0] &= self._last is not None
        starts = np.flatnonzero(holes)
        edges = [0, *starts[starts > 0].tolist(), len(times)]
        for start, stop in itertools.pairwise(edges):
            if self._last is None:
                self._anchor = (float(times[0]), self._follower.index)
            elif holes[start]:
                self._skip(float(steps[start]), float(times[start]))
            yield start, stop

    def _skip(self, step: float, sample_at: float) -> None:
        """Go on after a step of the times, s, with the sample at a time `sample_at`."""
        since, first = self._anchor
        rate = self._sfreq
        last = sample_at - step
        # Over a long gap an error of 50 ppm would miscount samples: prefer the measured rate.
        if last - since > _RATE_S:
            rate = (self._follower.index - 1 - first) / (last - since)
        lost = round(step * rate) - 1
        # Times that step back do not tell how many samples are missing.
        self._follower.skip(lost if lost >= 0 else None)
        self._steepness.reset()
        if lost < 0:
            self._anchor = (sample_at, self._follower.index)
