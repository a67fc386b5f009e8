"""Follow the gradient artefact block by block: learn it, place its epochs, tell what to subtract next."""

import math

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal.gradient.state import Counts, Epoch, Gradient, Learned
from rtdecode.signal.gradient.template import MARGIN, REACH, Coupling, Template, between
from rtdecode.signal.gradient.timing import PlacedTrigger, PlacedTriggers, TriggerLine, find, lag
from rtdecode.types import Float

# Epochs that correlate less are not of one sequence; a place is found again from this on.
_LIKE = 0.5
_FOUND = 0.9
# Samples that a block must have to be judged.
_FEW = 32
# An artefact this much flatter than what counts as steep is learned all the same.
_STEEP_SHARE = 0.1
# A period closer than this to the TR expected is that TR.
_SAME_TR = 0.01
# A gap of more epochs than this is the end.
_LONG_GAP = 10
# Neither trigger nor sign of the artefact for so many epochs: the scanner stopped.
_SILENCE = 1.5
# An epoch that leaves so many times the channel's usual rms does not enter its template.
_OUTLIER = 3.0
# What is left of the weight of a channel's noise after a block.
_NOISE_MEMORY = 0.95
# Less noise than this, of differences, is not believed, microvolts squared.
_FAINT_UV2 = 0.01
# Channels that a lag is looked for in.
_LOUDEST = 16


class Follower:
    """The artefact of one stream.

    Samples come in by `take`, never more than `left` at once; what is to be subtracted from them was fixed
    when the block they are in began.

    Parameters
    ----------
    sfreq : float
    channels : int
    tr_s : float
    settings : Gradient

    Attributes
    ----------
    index : int
        Of the next sample, lost ones included.
    triggers : PlacedTriggers
    counts : Counts
    """

    def __init__(self, sfreq: float, channels: int, tr_s: float, settings: Gradient) -> None:
        self._settings = settings
        self._sfreq = sfreq
        self._channels = channels
        self._nominal = tr_s * sfreq
        self._size = round(settings.block_s * sfreq)
        if self._size < 2 * _FEW or self._nominal < 4 * self._size:
            raise ValueError(
                f"a block needs {2 * _FEW} samples and a TR four blocks; found blocks of {self._size} "
                f"samples ({settings.block_s} s at {sfreq} Hz) and a TR of {tr_s} s"
            )
        self.triggers = PlacedTriggers(sfreq)
        self.counts = Counts()
        self.index = self._from = self._valid_from = 0
        self._history = np.zeros((channels, 4 * self._size + 4 * MARGIN), np.float32)
        self._parts: list[Float] = []
        self._noise: NDArray[np.float64] | None = None
        self._step_uv = settings.slope_uv_s / sfreq
        self._known: Learned | None = None
        self._now: Epoch | None = None
        self._past: Epoch | None = None
        self._base: Float | None = None
        self._taken: Float | None = None
        self._unsure = False
        self._ahead = -1
        self._open()

    @property
    def left(self) -> int:
        """Samples up to the end of the block."""
        return self._stop - self.index

    @property
    def learning(self) -> bool:
        """Whether an artefact is followed that is not known well enough."""
        known = self._known
        return known is not None and (self._unsure or known.template.epochs < self._settings.needed)

    @property
    def state(self) -> str:
        """``idle``, ``learning`` or ``corrected``."""
        return "idle" if self._known is None else "learning" if self.learning else "corrected"

    @property
    def period(self) -> float:
        """Samples of an epoch."""
        return self._nominal if self._known is None else self._known.line.period

    def figures(self) -> dict[str, float | int | None]:
        """Epochs in the template, scatter about the line, the period, and by how much the TR it is off."""
        known = self._known
        if known is None or not known.template.ready:
            return {"epochs": 0, "timing_us": None, "period_s": None, "period_ppm": None}
        off = known.line.period / self._nominal - 1
        return {
            "epochs": known.template.epochs,
            "timing_us": 1e6 * known.line.scatter / self._sfreq,
            "period_s": known.line.period / self._sfreq,
            "period_ppm": 1e6 * off if abs(off) < _SAME_TR else None,
        }

    def take(self, data: Float) -> Float | None:
        """Take the next samples, (channel, n); what to subtract from them, or None."""
        at = self.index - self._from
        count = data.shape[1]
        found = None if self._taken is None else self._taken[:, at : at + count]
        self._parts.append(data)
        self.index += count
        if self.index == self._stop:
            self._close()
            self._open()
        return found

    def skip(self, lost: int | None) -> None:
        """Samples are missing, so many, or nobody knows how many."""
        self._parts.clear()
        self.index += lost or 0
        self._valid_from = self.index
        known = self._known
        if known is not None:
            if not known.template.ready or (lost or 0) > _LONG_GAP * known.line.period:
                self._end()
            else:
                self._unsure = True
                self._place(known)
        self._open()

    def _place(self, known: Learned) -> None:
        """Go to the epoch that the next sample is in."""
        number = math.floor((self.index - known.line(0)) / known.line.period) - 1
        while known.line(number + 1) <= self.index:
            number += 1
        start = math.ceil(known.line(number))
        self._now = Epoch(number, start, start - known.line(number), whole=False)
        self._past = None

    def _end(self) -> None:
        """Stop subtracting: the next trigger starts anew."""
        self._known = self._now = self._past = None
        self._unsure = False

    def _open(self) -> None:
        """Fix what is subtracted from the next block."""
        self._from = self.index
        self._base = self._taken = None
        if self._known is None:
            self._ahead = -1
        known = self._known
        now = self._now
        if known is None or now is None:
            self._stop = self.index + self._size // 4
            return
        self._next = math.ceil(known.line(now.number + 1))
        block = (self.index - now.start) // self._size
        self._stop = min(now.start + (block + 1) * self._size, self._next)
        if known.template.ready:
            for ahead in (block + 1,) if self._ahead == block else (block, block + 1):
                known.template.refresh(ahead)
            self._ahead = block + 1
            self._base = known.template.read(self.index - now.start, self._stop - self.index, now.phase)
            self._taken = known.coupling.mix @ self._base

    def _close(self) -> None:
        """Learn from the block that is complete."""
        block = self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts, axis=1)
        self._parts.clear()
        length = self._history.shape[1]
        self._history = np.concatenate([self._history, block], axis=1)[:, -length:]
        found = self.triggers.take(self.index)
        known = self._known
        now = self._now
        if known is None or now is None:
            self._begin(found)
            return
        self._count(known, found)
        now.samples += block.shape[1]
        now.total = now.total + block.sum(axis=1, dtype=np.float64)
        if not self._fits(known, now, block) or self._silent(known):
            self._lose(known)
            return
        if self._past is not None and self.index - now.start >= self._size // 2:
            self._finish(known, self._past, now)
        if self._known is known:
            self._store(known.template, now)
            self._advance(known)

    def _begin(self, found: list[PlacedTrigger]) -> None:
        """Start to learn at a trigger."""
        if not found:
            return
        settings = self._settings
        size = self._size
        period = self.triggers.period(self._nominal)
        memory = math.exp(-settings.block_s / settings.adapt_s)
        self._known = Learned(
            Template(self._channels, period, settings.epochs, size),
            TriggerLine(self.index, period, settings.line),
            Coupling(self._channels, settings.shapes, memory),
            found[-1].place - self.index,
            found[-1].place,
            self.index,
        )
        self._noise = None
        self._now = Epoch(0, self.index, 0.0)
        self._past = None
        self._now.whole = self.index - self._valid_from >= 2 * MARGIN
        self.counts.learned += 1
        self.counts.triggers += 1

    def _count(self, known: Learned, found: list[PlacedTrigger]) -> None:
        """Compare triggers with the line."""
        counts = self.counts
        most = self._settings.seed_s * self._sfreq
        for trigger in found:
            epoch = round((trigger.place - known.offset - known.line(0)) / known.line.period)
            off = trigger.place - known.offset - known.line(epoch)
            if abs(off) > 2 * most:
                counts.spurious += 1
                continue
            if trigger.moved:
                known.moved.add(epoch)
                counts.moved += known.template.moved(epoch)
            if epoch > known.last:
                counts.missing += epoch - known.last - 1
                counts.triggers += 1
                counts.jitter = [*counts.jitter[-99:], off]
                known.last = epoch
                known.triggered = trigger.place

    def _fits(self, known: Learned, now: Epoch, block: Float) -> bool:
        """Learn mixture and timing from a block; whether the artefact was where it was expected."""
        if self._base is None or self._taken is None or block.shape[1] < _FEW:
            return True
        clean = block - self._taken
        base = np.diff(self._base)
        rest = np.diff(block - self._base)
        power = np.einsum("cn,cn->c", base, base).astype(np.float64)
        if np.median(power) > self._step_uv**2 * base.shape[1]:
            # A share per channel, so that no bad channel speaks for the others.
            share = 1 + np.median(np.einsum("cn,cn->c", rest, base) / np.maximum(power, _FAINT_UV2))
            if not 0.5 < share < 1.5:
                return False
            known.matched = self.index
            self._unsure = False
        known.coupling.update(rest, base)
        left = np.diff(clean)
        slope = np.diff(np.gradient(self._base, axis=1))
        noise = np.einsum("cn,cn->c", left, left).astype(np.float64) / left.shape[1]
        if self._noise is not None:
            noise = _NOISE_MEMORY * self._noise + (1 - _NOISE_MEMORY) * noise
        self._noise = noise
        weights = 1 / (noise + _FAINT_UV2)
        now.shift -= float(weights @ np.einsum("cn,cn->c", left, slope))
        now.power += float(weights @ np.einsum("cn,cn->c", slope, slope))
        now.judged += block.shape[1]
        now.rest = now.rest + clean.sum(axis=1, dtype=np.float64)
        now.square = now.square + np.einsum("cn,cn->c", clean, clean, dtype=np.float64)
        return True

    def _silent(self, known: Learned) -> bool:
        return self.index - max(known.triggered, known.matched) > _SILENCE * known.line.period

    def _lose(self, known: Learned) -> None:
        """The artefact is not where it was expected: after a gap look for it, else stop."""
        count = min(self.index - self._valid_from, 2 * self._size)
        if self._unsure and count < 2 * self._size:
            self._advance(known)
            return
        if self._unsure:
            cycle = known.template.cycle()
            loud = _loudest(cycle)
            place, likeness = find(cycle[loud], self._history[loud, -count:])
            if likeness > _FOUND:
                start = self.index - count - place
                known.line.move(round((start - known.line(0)) / known.line.period), start)
                self._place(known)
                known.matched = self.index
                self.counts.found_again += 1
                return
        self.counts.stops += 1
        self._end()

    def _advance(self, known: Learned) -> None:
        """Go to the next epoch if this one is over."""
        now = self._now
        if now is not None and self.index == self._next:
            self._past = now
            self._now = Epoch(now.number + 1, self._next, self._next - known.line(now.number + 1))

    def _store(self, template: Template, epoch: Epoch) -> None:
        """Put what is complete of an epoch on the template's grid."""
        while epoch.whole and epoch.stored < template.blocks:
            width = template.width(epoch.stored)
            first = epoch.start + epoch.stored * self._size - MARGIN - REACH
            behind = self.index - (first + width + 2 * REACH - 1)
            if behind < 0:
                return
            if first < self._valid_from:
                epoch.whole = False
                return
            end = self._history.shape[1] - behind
            data = self._history[:, end - width - 2 * REACH + 1 : end]
            template.store(epoch.number, epoch.stored, between(data, 1 - epoch.phase))
            epoch.stored += 1

    def _finish(self, known: Learned, past: Epoch, now: Epoch) -> None:
        """Let the epoch that is over into timing, mixture and template."""
        self._past = None
        self._store(known.template, past)
        moved = past.number in known.moved
        known.moved = {number for number in known.moved if number > past.number}
        self.counts.moved += moved
        if past.number <= 1:
            shift, fine = self._compare(known, past) if past.number else (0.0, past.whole)
            if not fine:
                self._end()
                return
            known.template.keep(past.number, shift, past.level, None, moved)
            if past.number == 0:
                return
            # The epoch that has begun stands where the period expected had put it.
            now.whole = False
            now.start = math.ceil(known.line(now.number))
            now.phase = now.start - known.line(now.number)
        elif past.power > 0 and past.judged > self._size:
            shift = past.shift / past.power
            known.line.add(past.number, past.start - past.phase + shift)
            if past.whole:
                known.template.keep(past.number, shift, past.level, past.left, moved)
        known.template.weigh(now.number, _OUTLIER, self._settings.needed)
        known.coupling.turn()

    def _compare(self, known: Learned, past: Epoch) -> tuple[float, bool]:
        """Take the period from the first two epochs; by how much it was off, and whether they are alike."""
        first = known.template.epoch(0)
        second = known.template.epoch(1)
        loud = _loudest(first)
        shift, likeness = lag(first[loud], second[loud], round(self._settings.seed_s * self._sfreq))
        known.line.add(1, past.start - past.phase + shift)
        steep = float(np.diff(first[loud]).std()) > _STEEP_SHARE * self._step_uv
        return shift, past.whole and steep and likeness > _LIKE


def _loudest(template: Float) -> NDArray[np.intp]:
    """The channels with the most artefact."""
    return np.argsort(np.diff(template).std(axis=1))[-_LOUDEST:]
