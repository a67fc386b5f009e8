"""When each EEG sample was acquired: a robust, causal fit of the amplifier's rate and offset to its stamps.

Stamps jitter, come in steps if whole chunks are stamped at their end, do not follow the nominal rate, and
jump. A `SampleClock` therefore counts samples, and a line through the stamps of the last minutes says
when the counted samples were acquired. Where stamps leave that line, the number of samples so far and the
time of their arrival tell lost samples from a jump of the stamps.
"""

import math
from collections import deque
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtdecode.clocks.lines import mad, robust_line

Times = NDArray[np.float64]

# Length of a block whose median stamp enters the fit, s, and number of blocks that are remembered.
_BLOCK_S = 0.5
_REMEMBERED = 600
# Number of blocks before the fit is trusted.
_SETTLED = 4
# Rates differ from the nominal one by some 1e-3 (499.83 Hz or 500.6 Hz for 500 Hz).
_RATE_SPREAD = 1e-3
# Least noise that is assumed for a block's median, s.
_NOISE_FLOOR = 1e-6
# A stamp that is off by more than this is not jitter, s.
_JITTER = 0.010
# A smaller step counts only if the clock is steady and the step is a whole number of samples, to
# within this fraction of one.
_SAMPLE_TOLERANCE = 0.25
# Best precision with which arrivals tell how much time has passed, s.
_ARRIVAL_FLOOR = 0.02
# If the stamps jumped, data that come later than this were lost, s.
_SILENCE = 0.25
# No trigger takes so long to arrive, s.
_NO_DELAY = 60.0
# If a step back undoes a step within this time, the first step was a late stamp, s.
_UNDONE = 1.0


class Piece(NamedTuple):
    """Samples of a chunk with no hole between them.

    Attributes
    ----------
    start, stop : int
        Their range in the chunk.
    times : (stop - start,)
        When they were acquired, s on the local clock.
    lost : int
        Number of samples that are missing before the first of them.
    """

    start: int
    stop: int
    times: Times
    lost: int


class SampleClock:
    """Sampling times of one stream.

    The time of a sample depends only on the samples up to it. How they were cut into chunks affects nothing
    but the times of arrival.

    Parameters
    ----------
    sfreq : float
        Nominal rate, Hz.

    Attributes
    ----------
    lost, gaps : int
        Number of samples that never came, and of places at which they are missing.
    epochs : int
        Number of clock epochs: one, plus one for each jump of the stamps.

    Notes
    -----
    The residuals of the stamps against the nominal rate are reduced to the medians of half-second blocks, and
    `robust_line` is fitted to those of the last five minutes. The times move to a new line over the length of
    one block, so that they stay ascending and continuous.
    """

    def __init__(self, sfreq: float) -> None:
        self.sfreq = sfreq
        self._size = max(2, round(_BLOCK_S * sfreq))
        self._base: float | None = None
        # The line: `_carry` is the rest of the step from the line before, which fades from sample
        # `_began` on. `_shift` is the sum of the jumps of the stamps.
        self._count = self._began = 0
        self._offset = self._slope = self._carry = self._shift = 0.0
        # The block that is being filled: `_pending` samples were lost before the next piece, `_drop`
        # samples are still to be dropped, and `_jumped` blocks are still affected by a jump.
        self._rest: list[tuple[NDArray[Any], Times]] = []
        self._held = self._pending = self._drop = self._jumped = 0
        self._blocks: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)
        self._wobbles: deque[float] = deque(maxlen=8)
        self._residual = self._stray = self._wobble = 0.0
        self._delays: deque[float] = deque(maxlen=64)
        self._last_gap = (-math.inf, 0.0, 0)
        self.lost = self.gaps = 0
        self.epochs = 1

    def push(self, stamps: Times, arrived_at: float) -> list[Piece]:
        """Place the next samples.

        Parameters
        ----------
        stamps : (sample,)
            Stamps of the source, converted to the local clock, s.
        arrived_at : float
            When they were read, s on the local clock.
        """
        pieces: list[Piece] = []
        start = 0
        total = len(stamps)
        if self._base is None and total:
            self._base = float(stamps[0])
        while start < total:
            if self._drop:
                gone = min(self._drop, total - start)
                self._drop -= gone
                start += gone
                continue
            # Never across the end of a block: the fit must not depend on how the
            # samples were cut into chunks.
            take = min(total - start, self._size - self._held)
            start += self._follow(stamps[start : start + take], start, total - start, arrived_at, pieces)
        if pieces:
            self._delays.append(arrived_at - float(pieces[-1].times[-1]))
        return pieces

    def local(self, stamp: float, arrived_at: float) -> float:
        """Return the time of a trigger that was stamped by the same clock, s.

        The trigger's stamp may or may not contain the jumps so far. Of the stamp and the stamp without the
        jumps, the one whose delay until arrival is nearer to that of the samples is taken. A trigger that
        comes before the first sample behind a jump bears a jump that is not known yet: it is placed by its
        arrival.
        """
        if not self._delays:
            return stamp
        usual = float(np.median(self._delays))
        placed = min(stamp, stamp - self._shift, key=lambda time: abs(arrived_at - time - usual))
        return placed if abs(arrived_at - placed - usual) <= _NO_DELAY else arrived_at - usual

    def report(self) -> dict[str, Any]:
        """Return ``rate_hz``, ``drift_ppm``, ``jitter_ms``, ``lost_samples``, ``gaps`` and ``epochs``."""
        has_rate = len(self._blocks) >= 2
        rate = self.sfreq / (1 + self._slope) if has_rate else None
        return {
            "rate_hz": rate,
            "drift_ppm": rate and (rate / self.sfreq - 1) * 1e6,
            "jitter_ms": self._wobble * 1e3 if self._wobbles else None,
            "lost_samples": self.lost,
            "gaps": self.gaps,
            "epochs": self.epochs,
        }

    def _follow(
        self, stamps: Times, start: int, n_remaining: int, arrived_at: float, pieces: list[Piece]
    ) -> int:
        """Place the samples before the next step of the stamps, or all; return how many were placed."""
        assert self._base is not None
        index = self._count + np.arange(len(stamps))
        residuals = stamps - self._shift - self._base - index / self.sfreq
        line = self._line(index)
        steps = self._steps(residuals - line)
        stop = steps if steps is not None else len(stamps)
        if stop == 0:
            self._step(float(residuals[0] - line[0]), n_remaining, arrived_at)
            if self._drop:
                return 0
            # The step has moved the count or the shift, so its first sample is
            # placed anew, on its own.
            stop = 1
            index = index[:1] - index[0] + self._count
            residuals = stamps[:1] - self._shift - self._base - index / self.sfreq
            line = self._line(index)
        times = self._base + index[:stop] / self.sfreq + line[:stop]
        pieces.append(Piece(start, start + stop, times, self._pending))
        self._pending = 0
        self._rest.append((index[:stop], residuals[:stop]))
        self._count = int(index[stop - 1]) + 1
        self._held += stop
        if self._held == self._size:
            self._close_block(n_remaining - stop, arrived_at)
        return stop

    def _line(self, index: NDArray[Any]) -> Times:
        """Return by how much the line differs from the nominal rate at these samples, (index,) s."""
        fade = np.maximum(0.0, 1.0 - (index - self._began) / self._size)
        return self._offset + self._slope * (index / self.sfreq) + self._carry * fade

    def _steps(self, off: Times) -> int | None:
        """Find the first sample whose stamp is off by more than jitter."""
        wobble = self._wobble
        settled = len(self._blocks) >= _SETTLED
        wide = np.abs(off) > max(_JITTER, 6 * wobble)
        if settled and max(wobble, self._residual) * self.sfreq < 0.05:
            samples = off * self.sfreq
            is_integer = np.abs(samples - np.rint(samples)) < _SAMPLE_TOLERANCE
            wide |= (np.abs(samples) > 0.6) & is_integer
        jumps = np.flatnonzero(wide)
        return int(jumps[0]) if len(jumps) else None

    def _step(self, step_s: float, n_remaining: int, arrived_at: float) -> None:
        """Decide what a step of the stamps means: lost samples, a jump, or the end of a late stamp."""
        gap_at_s, before, lost = self._last_gap
        now_s = self._count / self.sfreq
        if (
            lost
            and now_s - gap_at_s < _UNDONE + before
            and abs(step_s + before) < max(_JITTER, 0.25 * before)
        ):
            # The step before was a late stamp, and no sample was lost there. The samples since then
            # stand where the next ones belong, so that many of these are dropped.
            self._drop = lost
            self._last_gap = (-math.inf, 0.0, 0)
            return
        # After lost samples, the next ones arrive later than the count says they are due, by as
        # much as their stamps step forward. Otherwise the stamps have jumped, and only a silence
        # tells of lost samples.
        late_s, spread = self._lateness(n_remaining, arrived_at)
        period = (1 + self._slope) / self.sfreq
        if 0 < step_s <= late_s + max(_ARRIVAL_FLOOR, 5 * spread):
            lost = round(step_s / period)
            self._last_gap = (now_s, step_s, lost)
        else:
            silent = math.isfinite(late_s) and late_s > max(_SILENCE, 10 * spread)
            lost = round(late_s / period) if silent else 0
            self._shift += step_s - lost * period
            self.epochs += 1
            self._jumped = 2
        self._lose(lost)

    def _lose(self, lost: int) -> None:
        self._count += lost
        self._pending += lost
        self.lost += lost
        self.gaps += lost > 0

    def _lateness(self, n_remaining: int, arrived_at: float) -> tuple[float, float]:
        """Return how late samples arrive beyond the shortest recent delay, s, and the delays' spread."""
        assert self._base is not None
        if not self._delays:
            return math.inf, 0.0
        # The time of arrival is that of the last sample of the chunk.
        last = self._count + n_remaining - 1
        due = self._base + last / self.sfreq + float(self._line(np.array([last]))[0])
        delays = np.array(self._delays)
        return arrived_at - due - float(delays.min()), mad(delays)

    def _close_block(self, n_remaining: int, arrived_at: float) -> None:
        index, residuals = (np.concatenate(parts) for parts in zip(*self._rest, strict=True))
        self._rest = []
        self._held = 0
        middle = float(np.median(residuals))
        place = float(np.median(index)) / self.sfreq
        self._wobbles.append(mad(residuals))
        self._wobble = float(np.median(self._wobbles))
        off = middle - self._offset - self._slope * place
        if self._jumped:
            self._jumped -= 1
            if self._jumped:
                return  # the block holds stamps of two epochs
            # A whole block tells better than a single stamp by how much the stamps have jumped.
            self._shift += off
            middle -= off
            off = 0.0
        self._blocks.append((place, middle))
        if self._astray(off):
            self._come_back(off, n_remaining, arrived_at)
        self._fit()

    def _astray(self, off: float) -> bool:
        """Return whether two blocks agree on a step that is too small to see in a single stamp's jitter."""
        before = self._stray
        self._stray = 0.0
        n_before = len(self._blocks) - 1
        # A line through few blocks is still uncertain, so that only a larger step counts.
        least = 20e-6 if n_before >= 20 else max(3e-3, 3 / self.sfreq)
        if n_before < _SETTLED or abs(off) <= max(least, 6 * self._residual):
            return False
        if before != 0.0 and abs(off - before) <= 0.5 * abs(off):
            return True
        self._stray = off
        return False

    def _come_back(self, off: float, n_remaining: int, arrived_at: float) -> None:
        """Follow a step that two blocks agree on: either samples were lost, or the line moves."""
        # Less than a sample, or a small step back, cannot be lost samples: the source's
        # clock was shifted. The earlier blocks move along, so that the line through all of
        # them lies at the new stamps.
        if abs(off) * self.sfreq < 0.6 or -_JITTER < off < 0:
            moved = [(x, y + off) for x, y in self._blocks]
            self._blocks.clear()
            self._blocks.extend([*moved[:-2], *((x, y - off) for x, y in moved[-2:])])
            return
        # The newest two blocks lie behind the step, and were placed before it was known.
        shift = self._shift
        count = self._count
        self._step(off, n_remaining, arrived_at)
        corrected_s = self._shift - shift + (self._count - count) / self.sfreq
        late = [self._blocks.pop() for _ in range(2)]
        self._blocks.extend((x, y - corrected_s) for x, y in reversed(late))

    def _fit(self) -> None:
        before = float(self._line(np.array([self._count]))[0])
        x, y = np.array(self._blocks).T
        line = robust_line(x, y, 0.0, noise_floor=_NOISE_FLOOR, slope_spread=_RATE_SPREAD)
        self._offset, self._slope, self._residual = line
        # The new line and the fading rest of the step meet the old line at the next sample.
        self._began = self._count
        self._carry = 0.0
        self._carry = before - float(self._line(np.array([self._count]))[0])
