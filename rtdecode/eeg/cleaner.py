"""From raw samples of all channels to clean ones at 1000 Hz or less.

Samples pass these stages in order: the gradient artefact is subtracted, short gaps are bridged, the rate is
lowered, the heartbeat artefact is subtracted. Outside the magnet, at 1000 Hz or less and without gaps, they
pass untouched.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.eeg.channels import kind_of
from rtdecode.signal.eeg.decimate import Decimator, rate_within
from rtdecode.signal.eeg.quality import CORRECTED, INTERPOLATED, LEARNING, Quality
from rtdecode.signal.gradient.meter import SlopeDetector
from rtdecode.signal.gradient.remover import Gradient, GradientRemover
from rtdecode.signal.heartbeat.remover import HeartbeatRemover
from rtdecode.types import Montage

Data = NDArray[np.floating[Any]]
Times = NDArray[np.float64]

# Faster streams are thinned by a whole number, to this rate or less.
MOST_HZ = 1000.0
# Gaps up to this long are bridged by a straight line.
SHORT_GAP_S = 0.020
# Gradients cannot be removed from slower streams, in which a block of
# 50 ms has too few samples for the follower, nor from fewer channels.
# Such streams are treated as if they came from outside the magnet.
_LEAST_HZ = 1280.0
_LEAST_CHANNELS = 4
# The TR to begin with where none is known; triggers overrule it. Sequences with a shorter TR than
# the least one are not followed.
_ANY_TR_S = 2.0
_LEAST_TR_S = 0.3


@dataclass(frozen=True, slots=True)
class Part:
    """Clean samples.

    Attributes
    ----------
    data : (channel, sample)
        Microvolts, of all channels of the montage.
    times : (sample,)
        When they were taken, s on the local clock.
    quality : (sample,) uint8
        Mark of each sample, see `rtdecode.signal.eeg.quality`.
    hole : bool
        Samples are missing before the first of them.
    """

    data: Data
    times: Times
    quality: Quality
    hole: bool


class Cleaner:
    """Clean all channels of a stream, before those of a bundle are picked.

    The output depends only on earlier input, and not on how it was divided into chunks. Removal of the
    gradient artefact begins with the first sample at which more than half of the channels change faster
    than a brain can. Removal of the heartbeat artefact begins once a gradient template is being learned.

    Parameters
    ----------
    montage : Montage
        Labels and kinds of all channels of the stream.
    tr_s : float or None
        Repetition time that is expected, s.

    Attributes
    ----------
    rate : float
        Sampling rate of the output, Hz.
    """

    def __init__(self, montage: Montage, tr_s: float | None) -> None:
        self._montage = montage
        self._tr_s = tr_s or _ANY_TR_S
        count = len(montage.channels)
        self.rate = rate_within(montage.sfreq, MOST_HZ)
        self._decimator = Decimator(montage.sfreq, self.rate) if self.rate < montage.sfreq else None
        self._power: SlopeDetector | None = None
        if montage.sfreq >= _LEAST_HZ and count >= _LEAST_CHANNELS and self._tr_s >= _LEAST_TR_S:
            rules = Gradient()
            self._power = SlopeDetector(montage.sfreq, rules.slope_uv_s, 0.0)
        self._triggers: deque[tuple[float, bool]] = deque(maxlen=64)
        self._gradient: GradientRemover | None = None
        self._heart: HeartbeatRemover | None = None
        # Times of the samples that the heartbeat remover holds.
        self._held = np.zeros(0)
        # Value, time and quality of the last sample, from which a short gap is bridged.
        self._edge: tuple[Data, float, int] | None = None
        self._hole = False

    @property
    def delay_s(self) -> float:
        """Longest time from a sample's arrival until it leaves, s."""
        return (self._decimator.delay_s if self._decimator else 0.0) + (
            self._heart.hold_s if self._heart else 0.0
        )

    @property
    def in_magnet(self) -> bool:
        """Whether a gradient artefact has been seen."""
        return self._gradient is not None

    @property
    def looks_for_gradients(self) -> bool:
        """Whether the stream is fast and wide enough for gradients to be removed from it."""
        return self._power is not None

    def trigger(self, triggered_at: float, moved: bool = False) -> None:
        """Take a volume trigger, s on the local clock; `moved` may be told later, by a second call."""
        # Kept for a remover that does not exist yet: triggers may come before the gradients are seen.
        self._triggers.append((triggered_at, moved))
        if self._gradient is not None:
            self._gradient.trigger(triggered_at, moved)

    def push(self, data: Data, times: Times, lost: int) -> list[Part]:
        """Take the next samples.

        Parameters
        ----------
        data : (channel, n)
            Microvolts.
        times : (n,)
            Without a hole between them, s on the local clock.
        lost : int
            Number of samples that are missing before them.
        """
        # After a long gap everything starts afresh; a short one is bridged.
        long = lost > SHORT_GAP_S * self._montage.sfreq
        parts = self._cut() if long else []
        if lost and self._power is not None:
            self._power.reset()
        for clean, quality, when in self._without_gradient(data, times):
            bridge = self._bridge(clean, when, quality, 0 if long else lost)
            lost = 0
            for piece in (*bridge, (clean, quality, when)):
                parts += self._thin(*piece)
        return [part for part in parts if len(part.times)]

    def report(self) -> dict[str, Any]:
        """Return ``artifact_residual_db``, and the removers' reports as ``gradient`` and ``heartbeat``."""
        gradient = self._gradient.report() if self._gradient is not None else None
        return {
            "artifact_residual_db": gradient["slice_db"] if gradient is not None else None,
            "gradient": gradient,
            "heartbeat": self._heart.report() if self._heart is not None else None,
        }

    def _without_gradient(self, data: Data, times: Times) -> list[tuple[Data, Quality, Times]]:
        if self._gradient is not None:
            return [(*self._gradient.push(data, times), times)]
        quality = np.full(len(times), CORRECTED, np.uint8)
        if self._power is None or not (steep := self._power.push(data)).any():
            return [(data, quality, times)]
        # The remover starts at the first steep sample, wherever that lies in the chunk: the bits
        # must not depend on the chunks.
        first = int(np.argmax(steep))
        self._gradient = GradientRemover(self._montage.sfreq, len(data), self._tr_s)
        for triggered_at, moved in self._triggers:
            self._gradient.trigger(triggered_at, moved)
        before = [(data[:, :first], quality[:first], times[:first])] if first else []
        return [*before, *self._without_gradient(data[:, first:], times[first:])]

    def _bridge(
        self, data: Data, times: Times, quality: Quality, lost: int
    ) -> list[tuple[Data, Quality, Times]]:
        """Interpolate linearly over the samples that are missing before the first of these."""
        edge = self._edge
        self._edge = data[:, -1:].copy(), float(times[-1]), int(quality[-1])
        if not lost or edge is None:
            return []
        # The line is no better than the samples at its ends.
        share = np.arange(1, lost + 1) / (lost + 1)
        between = edge[0] + (data[:, :1] - edge[0]) * share.astype(data.dtype)
        mark = min(INTERPOLATED, edge[2], int(quality[0]))
        return [(between, np.full(lost, mark, np.uint8), edge[1] + (times[0] - edge[1]) * share)]

    def _thin(self, data: Data, quality: Quality, times: Times) -> list[Part]:
        if self._decimator is not None:
            data, times, quality = self._decimator.push(data, times, quality)
        if self._heart is None and self._gradient is not None and (quality == LEARNING).any():
            # Here, too, removal starts at the first such sample, wherever that lies in the chunk.
            first = int(np.argmax(quality == LEARNING))
            self._heart = self._new_heart()
            if self._heart is not None and first:
                first_part = self._part(data[:, :first], times[:first], quality[:first])
                return [first_part, *self._beatless(data[:, first:], quality[first:], times[first:])]
        return self._beatless(data, quality, times)

    def _beatless(self, data: Data, quality: Quality, times: Times) -> list[Part]:
        if self._heart is None:
            return [self._part(data, times, quality)]
        self._held = np.concatenate([self._held, times])
        return [self._release(*self._heart.push(data, quality))]

    def _release(self, data: Data, quality: Quality) -> Part:
        times = self._held[: len(quality)]
        self._held = self._held[len(quality) :]
        return self._part(data, times, quality)

    def _part(self, data: Data, times: Times, quality: Quality) -> Part:
        hole = self._hole and len(times) > 0
        self._hole = self._hole and not len(times)
        return Part(data, times, quality, hole)

    def _cut(self) -> list[Part]:
        """Release what is held before a gap, and start afresh after it."""
        parts = [self._release(*self._heart.flush())] if self._heart is not None else []
        if self._decimator is not None:
            self._decimator.reset()
        self._held = np.zeros(0)
        self._edge = None
        self._hole = True
        return parts

    def _new_heart(self) -> HeartbeatRemover | None:
        # The labels count as well, for streams that call every channel EEG.
        pairs = zip(self._montage.channels, self._montage.kinds, strict=True)
        kinds = [kind_of(label, stated_type) for label, stated_type in pairs]
        references = tuple(i for i, kind in enumerate(kinds) if kind == "reference")
        ecg = kinds.index("ecg") if "ecg" in kinds else None
        if kinds.count("eeg") < _LEAST_CHANNELS:
            return None
        return HeartbeatRemover(self.rate, len(kinds), ecg, references)
