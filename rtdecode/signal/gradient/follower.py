"""Follow the gradient artefact block by block: learn it, place its epochs, tell what to subtract next.

Raw samples of one stream come in; what is to be subtracted from each of them comes out. State changes only at
the ends of blocks, which are counted from the start of an epoch (one TR). There triggers are counted, the
artefact is looked for where the line expects it, the channels' mixture and the epoch's timing are measured,
and complete blocks of the epoch are stored. With the first block of the next epoch, the one that is over goes
into the timing line and the template.
"""

import math

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal.gradient.state import Counts, Epoch, Gradient, Learned
from rtdecode.signal.gradient.template import MARGIN, REACH, Coupling, Template, between
from rtdecode.signal.gradient.timing import PlacedTrigger, PlacedTriggers, TriggerLine, find, lag
from rtdecode.types import Float

# The first two epochs must correlate by more than this to be of one sequence.
_LIKE = 0.5
# After a gap, a place in the template counts as found if the correlation there exceeds this.
_MIN_LIKENESS = 0.9
# Blocks of fewer samples are not judged.
_MIN_SAMPLES = 32
# Artefacts flatter than what counts as steep are learned too, down to this share of that slope.
_STEEP_SHARE = 0.1
# Periods that differ from the expected TR by less than this share are that TR.
_SAME_TR = 0.01
# A gap of more epochs than this ends the sequence.
_LONG_GAP = 10
# After this many epochs without a trigger and without the artefact, the scanner has stopped.
_SILENCE = 1.5
# An epoch that leaves this many times the channel's usual rms stays out of that channel's template.
_OUTLIER = 3.0
# Share of its weight that the noise measured so far keeps with each block.
_NOISE_MEMORY = 0.95
# Floor for the power of differences in time, microvolts squared.
_FAINT_UV2 = 0.01
# Number of channels, those with the most artefact, in which a lag is looked for.
_LOUDEST = 16


class Follower:
    """The gradient artefact of one stream.

    Samples come in through `take`, never more than `left` at once. What is to be subtracted from a sample
    was fixed when the block that it is in began.

    Parameters
    ----------
    sfreq : float
        Nominal sampling rate, Hz.
    channels : int
        Number of channels.
    tr_s : float
        Repetition time that is expected, s.
    settings : Gradient
        Constants of the method.

    Attributes
    ----------
    index : int
        Index of the next sample, lost ones included.
    triggers : PlacedTriggers
        Volume triggers, placed among the samples.
    counts : Counts
        What was seen and corrected so far.
    """

    def __init__(self, sfreq: float, channels: int, tr_s: float, settings: Gradient) -> None:
        self._settings = settings
        self._sfreq = sfreq
        self._channels = channels
        self._nominal = tr_s * sfreq
        self._size = round(settings.block_s * sfreq)
        if self._size < 2 * _MIN_SAMPLES or self._nominal < 4 * self._size:
            raise ValueError(
                f"a block needs {2 * _MIN_SAMPLES} samples and a TR four blocks; found blocks of "
                f"{self._size} samples ({settings.block_s} s at {sfreq} Hz) and a TR of {tr_s} s"
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
    def n_to_block_end(self) -> int:
        """Number of samples up to the end of the block."""
        return self._stop - self.index

    @property
    def learning(self) -> bool:
        """Whether an artefact is followed that is not known well enough yet."""
        learned = self._known
        return learned is not None and (self._unsure or learned.template.epochs < self._settings.needed)

    @property
    def state(self) -> str:
        """``idle``, ``learning`` or ``corrected``."""
        return "idle" if self._known is None else "learning" if self.learning else "corrected"

    @property
    def period(self) -> float:
        """Length of an epoch, samples."""
        return self._nominal if self._known is None else self._known.line.period

    def figures(self) -> dict[str, float | int | None]:
        """Return the template's epochs, the scatter about the line, the period and its distance to the TR."""
        learned = self._known
        if learned is None or not learned.template.ready:
            return {"epochs": 0, "timing_us": None, "period_s": None, "period_ppm": None}
        off = learned.line.period / self._nominal - 1
        return {
            "epochs": learned.template.epochs,
            "timing_us": 1e6 * learned.line.scatter / self._sfreq,
            "period_s": learned.line.period / self._sfreq,
            "period_ppm": 1e6 * off if abs(off) < _SAME_TR else None,
        }

    def take(self, data: Float) -> Float | None:
        """Take the next samples, (channel, n); return what to subtract from them, or None."""
        start = self.index - self._from
        count = data.shape[1]
        artifact = None if self._taken is None else self._taken[:, start : start + count]
        self._parts.append(data)
        self.index += count
        if self.index == self._stop:
            self._close()
            self._open()
        return artifact

    def skip(self, lost: int | None) -> None:
        """Go on after `lost` missing samples; None if their number is not known."""
        # A block with a hole teaches nothing.
        self._parts.clear()
        self.index += lost or 0
        self._valid_from = self.index
        learned = self._known
        if learned is not None:
            if not learned.template.ready or (lost or 0) > _LONG_GAP * learned.line.period:
                self._end()
            else:
                self._unsure = True
                self._place(learned)
        self._open()

    def _place(self, learned: Learned) -> None:
        """Move to the epoch that the next sample lies in."""
        number = math.floor((self.index - learned.line(0)) / learned.line.period) - 1
        while learned.line(number + 1) <= self.index:
            number += 1
        start = math.ceil(learned.line(number))
        self._now = Epoch(number, start, start - learned.line(number), complete=False)
        self._past = None

    def _end(self) -> None:
        """Stop subtracting; the next trigger begins a new template."""
        self._known = self._now = self._past = None
        self._unsure = False

    def _open(self) -> None:
        """Fix what is subtracted from the next block."""
        self._from = self.index
        self._base = self._taken = None
        if self._known is None:
            self._ahead = -1
        learned = self._known
        now = self._now
        if learned is None or now is None:
            # Short blocks while idle: an epoch can begin soon after its trigger.
            self._stop = self.index + self._size // 4
            return
        self._next = math.ceil(learned.line(now.number + 1))
        block = (self.index - now.start) // self._size
        self._stop = min(now.start + (block + 1) * self._size, self._next)
        if learned.template.ready:
            # The mean is taken anew block by block, so that the work is spread over the epoch, and
            # one block ahead, since interpolation also reads samples beyond the block.
            for ahead in (block + 1,) if self._ahead == block else (block, block + 1):
                learned.template.refresh(ahead)
            self._ahead = block + 1
            self._base = learned.template.read(self.index - now.start, self._stop - self.index, now.phase)
            self._taken = learned.coupling.mix @ self._base

    def _close(self) -> None:
        """Learn from the block that is complete."""
        block = self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts, axis=1)
        self._parts.clear()
        length = self._history.shape[1]
        self._history = np.concatenate([self._history, block], axis=1)[:, -length:]
        triggers = self.triggers.take(self.index)
        learned = self._known
        now = self._now
        if learned is None or now is None:
            self._begin(triggers)
            return
        self._count(learned, triggers)
        now.samples += block.shape[1]
        now.total = now.total + block.sum(axis=1, dtype=np.float64)
        if not self._fits(learned, now, block) or self._silent(learned):
            self._lose(learned)
            return
        # By now the samples beyond the last epoch's end have come, which the template's margin needs.
        if self._past is not None and self.index - now.start >= self._size // 2:
            self._finish(learned, self._past, now)
        if self._known is learned:
            self._store(learned.template, now)
            self._advance(learned)

    def _begin(self, triggers: list[PlacedTrigger]) -> None:
        """Begin to learn at a trigger."""
        if not triggers:
            return
        settings = self._settings
        size = self._size
        period = self.triggers.period(self._nominal)
        memory = math.exp(-settings.block_s / settings.adapt_s)
        self._known = Learned(
            Template(self._channels, period, settings.epochs, size),
            TriggerLine(self.index, period, settings.line),
            Coupling(self._channels, settings.shapes, memory),
            triggers[-1].place - self.index,
            triggers[-1].place,
            self.index,
        )
        self._noise = None
        self._now = Epoch(0, self.index, 0.0)
        self._past = None
        self._now.complete = self.index - self._valid_from >= 2 * MARGIN
        self.counts.learned += 1
        self.counts.triggers += 1

    def _count(self, learned: Learned, triggers: list[PlacedTrigger]) -> None:
        """Count triggers that are in place, missing or spurious by the line; they move nothing."""
        counts = self.counts
        tolerance = self._settings.seed_s * self._sfreq
        for trigger in triggers:
            epoch = round((trigger.place - learned.offset - learned.line(0)) / learned.line.period)
            off = trigger.place - learned.offset - learned.line(epoch)
            if abs(off) > 2 * tolerance:
                counts.spurious += 1
                continue
            if trigger.moved:
                learned.moved.add(epoch)
                counts.moved += learned.template.moved(epoch)
            # A trigger that comes a second time, marked as moved, is counted once.
            if epoch > learned.last:
                counts.missing += epoch - learned.last - 1
                counts.triggers += 1
                counts.jitter = [*counts.jitter[-99:], off]
                learned.last = epoch
                learned.triggered = trigger.place

    def _fits(self, learned: Learned, now: Epoch, block: Float) -> bool:
        """Learn mixture and timing from a block; return whether the artefact was where it was expected."""
        if self._base is None or self._taken is None or block.shape[1] < _MIN_SAMPLES:
            return True
        clean = block - self._taken
        # Differences in time, where the EEG is faint: of the mean epoch, and of what it leaves.
        base = np.diff(self._base)
        excess = np.diff(block - self._base)
        power = np.einsum("cn,cn->c", base, base).astype(np.float64)
        # Only a block in which the artefact is strong can tell whether it is there.
        if np.median(power) > self._step_uv**2 * base.shape[1]:
            # The share of the mean that is in the block: the median over channels, so that no bad
            # channel speaks for the others.
            share = 1 + np.median(np.einsum("cn,cn->c", excess, base) / np.maximum(power, _FAINT_UV2))
            if not 0.5 < share < 1.5:
                return False
            learned.matched = self.index
            self._unsure = False
        learned.coupling.update(excess, base)
        # One Gauss-Newton step on the epoch's delay: what is left is regressed
        # on the template's slope, with the channels weighted by their noise.
        # `_finish` divides the sums over all blocks of the epoch.
        residual = np.diff(clean)
        slope = np.diff(np.gradient(self._base, axis=1))
        noise = np.einsum("cn,cn->c", residual, residual).astype(np.float64) / residual.shape[1]
        if self._noise is not None:
            noise = _NOISE_MEMORY * self._noise + (1 - _NOISE_MEMORY) * noise
        self._noise = noise
        weights = 1 / (noise + _FAINT_UV2)
        now.shift -= float(weights @ np.einsum("cn,cn->c", residual, slope))
        now.power += float(weights @ np.einsum("cn,cn->c", slope, slope))
        now.judged += block.shape[1]
        now.residual_sum = now.residual_sum + clean.sum(axis=1, dtype=np.float64)
        now.square = now.square + np.einsum("cn,cn->c", clean, clean, dtype=np.float64)
        return True

    def _silent(self, learned: Learned) -> bool:
        return self.index - max(learned.triggered, learned.matched) > _SILENCE * learned.line.period

    def _lose(self, learned: Learned) -> None:
        """Deal with an artefact that is not where it was expected: after a gap look for it, else stop."""
        count = min(self.index - self._valid_from, 2 * self._size)
        if self._unsure and count < 2 * self._size:
            # Too few samples since the gap to look for the place; go on for another block.
            self._advance(learned)
            return
        if self._unsure:
            cycle = learned.template.cycle()
            loud = _loudest(cycle)
            place, likeness = find(cycle[loud], self._history[loud, -count:])
            if likeness > _MIN_LIKENESS:
                # The period stays, and the nearest epoch of the line moves to where the artefact is.
                start = self.index - count - place
                learned.line.move(round((start - learned.line(0)) / learned.line.period), start)
                self._place(learned)
                learned.matched = self.index
                self.counts.found_again += 1
                return
        self.counts.stops += 1
        self._end()

    def _advance(self, learned: Learned) -> None:
        """Move to the next epoch if this one is over."""
        now = self._now
        if now is not None and self.index == self._next:
            self._past = now
            self._now = Epoch(now.number + 1, self._next, self._next - learned.line(now.number + 1))

    def _store(self, template: Template, epoch: Epoch) -> None:
        """Put the complete blocks of an epoch on the template's grid."""
        while epoch.complete and epoch.stored < template.blocks:
            width = template.width(epoch.stored)
            # The grid begins MARGIN samples before the epoch, and interpolation reads REACH more to
            # either side. An epoch that a hole touches stays out.
            first = epoch.start + epoch.stored * self._size - MARGIN - REACH
            behind = self.index - (first + width + 2 * REACH - 1)
            if behind < 0:
                return
            if first < self._valid_from:
                epoch.complete = False
                return
            end = self._history.shape[1] - behind
            data = self._history[:, end - width - 2 * REACH + 1 : end]
            template.store(epoch.number, epoch.stored, between(data, 1 - epoch.phase))
            epoch.stored += 1

    def _finish(self, learned: Learned, past: Epoch, now: Epoch) -> None:
        """Take the epoch that is over into timing, mixture and template."""
        self._past = None
        self._store(learned.template, past)
        moved = past.number in learned.moved
        learned.moved = {number for number in learned.moved if number > past.number}
        self.counts.moved += moved
        if past.number <= 1:
            # Nothing was subtracted from the first two epochs. They begin the template: are they
            # alike?
            shift, fine = self._compare(learned, past) if past.number else (0.0, past.complete)
            if not fine:
                self._end()
                return
            learned.template.keep(past.number, shift, past.level, None, moved)
            if past.number == 0:
                return
            # The epoch under way began where the expected period had put
            # it. Now that the period has been measured it is moved; an
            # epoch that was moved on its way stays out of the template.
            now.complete = False
            now.start = math.ceil(learned.line(now.number))
            now.phase = now.start - learned.line(now.number)
        elif past.power > 0 and past.judged > self._size:
            shift = past.shift / past.power
            # An epoch with a hole can still be timed; only a whole one enters the template.
            learned.line.add(past.number, past.start - past.phase + shift)
            if past.complete:
                learned.template.keep(past.number, shift, past.level, past.residual_power, moved)
        learned.template.weigh(now.number, _OUTLIER, self._settings.needed)
        learned.coupling.turn()

    def _compare(self, learned: Learned, past: Epoch) -> tuple[float, bool]:
        """Take the period from the first two epochs; return how far it was off and whether they are alike."""
        first = learned.template.epoch(0)
        second = learned.template.epoch(1)
        loud = _loudest(first)
        shift, likeness = lag(first[loud], second[loud], round(self._settings.seed_s * self._sfreq))
        learned.line.add(1, past.start - past.phase + shift)
        steep = float(np.diff(first[loud]).std()) > _STEEP_SHARE * self._step_uv
        return shift, past.complete and steep and likeness > _LIKE


def _loudest(template: Float) -> NDArray[np.intp]:
    """Return the channels with the most artefact."""
    return np.argsort(np.diff(template).std(axis=1))[-_LOUDEST:]
