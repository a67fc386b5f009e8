"""The heartbeat artefact out of EEG recorded inside the magnet, causally and with a bounded hold.

With reference or carbon-wire channels: regression on them, without delay. Without: a template locked to the
heartbeat, fitted to each beat as it passes; samples are held for at most `Heartbeat.hold_s`, so that a
beat's size is known from its own beginning when its first sample leaves.
"""

from collections import deque
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal.eeg.quality import GAP, LEARNING, UNCORRECTED, Quality
from rtdecode.signal.eeg.regress import ReferenceRegression
from rtdecode.signal.heartbeat.beats import RECENT_S, REGULAR, BeatFinder
from rtdecode.signal.heartbeat.match import find_beats
from rtdecode.signal.heartbeat.state import Heartbeat
from rtdecode.signal.heartbeat.wave import SPAN, Beat, PulseWave, lagrange

__all__ = ["Heartbeat", "HeartbeatRemover"]

Values = NDArray[np.float64]

_STEP_HZ = 125.0
_JOIN_S = (0.04, 0.08)  # after an R-peak one beat's wave gives way to the next's
_SEARCH_S = 12.0
_SEARCH_EVERY_S = 3.0
_PRESENT = 0.5  # of the template comes back in new beats: below, it is more noise than artefact
_ABSENT = 0.3
_WEAK = 0.35  # of the usual size: no beat was there
_ALIVE = 1.6  # usual intervals without a beat: one has been missed
_LEAST_CHANNELS = 4


class HeartbeatRemover:
    """Remove the heartbeat artefact from a stream; chunking changes nothing.

    Parameters
    ----------
    sfreq : float
        200 to 1000 Hz or a little more.
    channels : int
        Of the stream, electrocardiogram and references included.
    ecg : int or None
        Index of the electrocardiogram. Without one, and while it is lost, beats are found in the EEG.
    references : tuple of int
        Channels that see artefacts only. With them nothing is delayed.
    settings : Heartbeat

    Attributes
    ----------
    hold_s : float
        A sample leaves at most that much after it came.

    Raises
    ------
    ValueError
        For an index that is no channel, or fewer than 4 channels of EEG without any help.

    Notes
    -----
    Electrocardiogram and references leave as they came, with the same hold.
    """

    def __init__(
        self,
        sfreq: float,
        channels: int,
        ecg: int | None,
        references: tuple[int, ...] = (),
        settings: Heartbeat | None = None,
    ) -> None:
        self._set = settings or Heartbeat()
        others = (*references, *(() if ecg is None else (ecg,)))
        self._eeg = np.array([i for i in range(channels) if i not in others], np.intp)
        _check(channels, len(self._eeg), others, bool(references))
        self._sfreq = sfreq
        self._channels = channels
        self._lead = ecg
        self._references = np.array(references, np.intp)
        self._step = max(1, int(sfreq / _STEP_HZ))
        self._rate = sfreq / self._step
        self._join = tuple(after * self._rate for after in _JOIN_S)
        self._spread = self._interpolation()
        self._held = 0 if references else int(self._set.hold_s * sfreq / self._step) - 1
        self.hold_s = self._set.hold_s if not references else 0.0
        self._regression: ReferenceRegression | None = None
        if references:
            self._regression = ReferenceRegression(
                len(self._eeg), len(references), self._step, self._rate, self._set.reference_memory_s
            )
        self._wave = self._new_wave()
        self._beats = BeatFinder(sfreq, self._step, ecg is not None and not references)
        self._taught = 0  # beats that came without doubt
        self._clear = False  # a search found no artefact
        self._dtype: Any = np.float32
        self.reset()

    def reset(self) -> None:
        """Begin anew in time, as after a gap; what was learned of the artefact stays.

        Samples that are still held are dropped: `flush` them before.
        """
        self._data = np.zeros((self._channels, 0))
        self._quality = np.zeros(0, np.uint8)
        self._given = 0  # samples of the step begun that have left already
        self._blocks: deque[tuple[Values, Quality]] = deque()
        self._rows = np.zeros((4096, len(self._eeg)))
        self._end = 0
        self._now = self._barred = self._doubted = -1  # the newest step; that is no good; that is learning
        self._next_search = 0
        self._beat: Beat | None = None
        self._previous: Beat | None = None
        self._beats.reset()
        if self._regression:
            self._regression.reset()

    def push(self, data: NDArray[Any], quality: Quality) -> tuple[NDArray[Any], Quality]:
        """Take the next samples and hand out those that are final.

        Parameters
        ----------
        data : float32 or float64, (channel, n)
            Microvolts.
        quality : uint8, (n,)
            `rtdecode.signal.eeg.quality`. What is UNCORRECTED or a GAP teaches nothing.

        Returns
        -------
        data : (channel, m)
        quality : uint8, (m,)
            LEARNING until the template, or the weights, can be trusted, and where no beat was found.
        """
        if data.shape[0] != self._channels or quality.shape != (data.shape[1],):
            raise ValueError(
                f"expected {self._channels} channels and as many qualities as samples, "
                f"found {data.shape} and {quality.shape}"
            )
        self._dtype = data.dtype
        self._data = np.concatenate([self._data, data.astype(np.float64)], axis=1)
        finite = np.isfinite(data)
        if not finite.all():
            quality = np.where(finite.all(axis=0), quality, GAP).astype(np.uint8)
        self._quality = np.concatenate([self._quality, quality])
        done = [self._empty()]
        size = self._step
        start = 0
        while start + size <= self._data.shape[1]:
            # A copy: sums over other strides have other bits.
            block = self._data[:, start : start + size].copy()
            marks = self._quality[start : start + size]
            done += self._regress(block, marks) if self._regression else self._hold(block, marks)
            start += size
        self._data = self._data[:, start:]
        self._quality = self._quality[start:]
        if self._regression and self._data.shape[1] > self._given:
            done += self._regress(self._data, self._quality)
        return self._joined(done)

    def flush(self) -> tuple[NDArray[Any], Quality]:
        """Hand out what is held, as good as it is known, and begin anew."""
        done = [self._empty()]
        if not self._regression:
            while self._blocks:
                done.append(self._release(self._now - len(self._blocks) + 1))
            done.append((self._data, self._quality))
            # The next beat's wave may be in it, and its R-peak was not certain yet.
            done = [(data, np.minimum(marks, LEARNING).astype(np.uint8)) for data, marks in done]
        out = self._joined(done)
        self.reset()
        return out

    def report(self) -> dict[str, Any]:
        """How it goes: method, beats by source, beats a minute, template, sizes."""
        usual = self._beats.interval / self._rate if self._beats.known else None
        return {
            "method": "references" if self._regression else "template",
            "hold_s": self.hold_s,
            "beats_ecg": self._beats.found["ecg"],
            "beats_eeg": self._beats.found["eeg"],
            "beats_learned": self._wave.beats,
            "beats_rejected": self._wave.rejected,
            "per_minute": 60 / usual if usual else None,
            "peak_uv": float(np.abs(self._wave.mean).max()) if self._wave.beats else None,
            "learned_s": self._regression.seen_s if self._regression else None,
        }

    def _new_wave(self) -> PulseWave:
        return PulseWave(len(self._eeg), self._rate, self._set.reach_s, self._set.memory)

    def _empty(self) -> tuple[Values, Quality]:
        return np.zeros((self._channels, 0)), np.zeros(0, np.uint8)

    def _joined(self, done: list[tuple[Values, Quality]]) -> tuple[NDArray[Any], Quality]:
        data = np.concatenate([part[0] for part in done], axis=1)
        return data.astype(self._dtype), np.concatenate([part[1] for part in done])

    def _interpolation(self) -> Values:
        """From steps to samples, (sample, 10): five steps around, each before and after the fit's update."""
        size = self._step
        points = np.stack([lagrange((n - (size - 1) / 2) / size) for n in range(size)])
        ramp = (np.arange(size)[:, None, None] + 0.5) / size
        return (points[:, :, None] * np.concatenate([1 - ramp, ramp], axis=2)).reshape(size, 2 * SPAN)

    # Regression on references.

    def _regress(self, block: Values, marks: Quality) -> list[tuple[Values, Quality]]:
        """A step, whole or begun, of which the first samples may have left already."""
        regression = self._regression
        count = block.shape[1]
        assert regression is not None
        references = _known(block[self._references], bool(marks.min() > GAP))
        trusted = regression.seen_s >= self._set.reference_enough_s
        explained = regression.explained(references)
        clean = block.copy()
        clean[self._eeg] -= explained[:, :count]
        quality = marks if trusted else np.minimum(marks, LEARNING).astype(np.uint8)
        given = self._given
        self._given = count
        if count == self._step:
            usable = bool(marks.min() > UNCORRECTED)
            regression.close(_known(block[self._eeg], usable), references, usable)
            self._given = 0
        return [(clean[:, given:], quality[given:])]

    # Template.

    def _hold(self, block: Values, marks: Quality) -> list[tuple[Values, Quality]]:
        self._now += 1
        usable = bool(marks.min() > UNCORRECTED)
        self._keep(np.add.reduce(_known(block[self._eeg], usable), axis=1) / self._step, usable)
        self._blocks.append((block, marks))
        if marks.min() <= LEARNING:
            self._doubted = self._now
        at = self._listen(block, usable)
        if at is not None:
            self._begin(at)
        elif self._beat is not None:
            self._beat.see(self._recent(1))
        if self._previous is not None and self._now - self._beat_at() > self._join[1] + self._held + 1:
            self._previous = None
        return [self._release(self._now - self._held)] if len(self._blocks) > self._held else []

    def _beat_at(self) -> float:
        return np.inf if self._beat is None else self._beat.at

    def _keep(self, row: Values, usable: bool) -> None:
        if self._end == len(self._rows):
            half = len(self._rows) // 2
            self._rows[:half] = self._rows[half:]
            self._end = half
        self._rows[self._end] = row if usable or not self._end else self._rows[self._end - 1]
        self._end += 1
        if not usable:
            self._barred = self._now

    def _recent(self, count: int) -> Values:
        return self._rows[max(0, self._end - count) : self._end]

    def _listen(self, block: Values, usable: bool) -> float | None:
        ready = self._wave.beats >= self._set.first
        present = ready and self._wave.presence > _PRESENT
        ecg = None if self._lead is None else block[self._lead]
        was_good = self._beats.ecg_good
        recent = self._recent(round(RECENT_S * self._rate))
        at = self._beats.push(ecg, usable, recent, self._wave if present else None)
        good = self._beats.ecg_good
        absent = ready and self._wave.presence < _ABSENT
        if was_good and not good and (absent or self._taught < self._set.enough):
            self._forget()
        if (not good and not ready) or (absent and self._taught >= self._set.enough):
            self._search()
        return at

    def _forget(self) -> None:
        """What was learned at instants that were no beats is nothing."""
        self._wave = self._new_wave()
        self._taught = 0
        self._beat = self._previous = None

    def _search(self) -> None:
        """Without an electrocardiogram, or where its beats leave nothing in the EEG: look there for beats."""
        needed = round(_SEARCH_S * self._rate)
        if self._now < max(self._next_search, self._barred + needed):
            return
        self._next_search = self._now + round(_SEARCH_EVERY_S * self._rate)
        rows = self._recent(needed)
        found = find_beats(rows - rows.mean(axis=0), self._rate)
        self._clear = not len(found)
        if len(found) and self._wave.beats:
            self._forget()
            self._beats.distrust()
        for at, after in pairwise(found.tolist()):
            if at >= 0:
                self._learn_from(rows, at, after - at)
        self._beats.accept([at + self._now + 1 - len(rows) for at in found.tolist()])

    def _learn_from(self, rows: Values, at: float, interval: float) -> None:
        beat = Beat(at, self._wave)
        epoch = rows[beat.first : beat.first + self._whole(interval)]
        beat.see(epoch)
        self._wave.vouch()
        self._taught += self._wave.learn(epoch, beat.amounts, beat.basis, beat.offset)

    def _whole(self, interval: float) -> int:
        """Steps of a beat until the next one's wave begins."""
        return min(self._wave.length, int(interval + self._join[0]))

    def _begin(self, at: float) -> None:
        """A beat is there: the one before is over, learn from it."""
        if self._beat is not None:
            self._end_beat(self._beat, at - self._beat.at)
        self._beats.accept([at])
        self._previous, self._beat = self._beat, Beat(at, self._wave)
        self._beat.see(self._recent(self._now + 1 - self._beat.first))
        self._beat.before = self._beat.amounts

    def _end_beat(self, beat: Beat, interval: float) -> None:
        usual = self._beats.interval
        regular = REGULAR[0] < interval / usual < REGULAR[1] or self._wave.beats < self._set.first
        whole = self._whole(interval)
        start = self._end - (self._now + 1 - beat.first)
        weak = False
        if self._wave.beats >= self._set.first:
            self._wave.meet(beat.size)
            weak = self._taught >= self._set.enough and self._wave.presence > _PRESENT and beat.size < _WEAK
            self._beats.judge(not weak)
        doubted = self._doubted >= beat.first - 1
        if not regular or self._barred >= beat.first - 1 or start < 0 or weak or (doubted and self._taught):
            return
        if not doubted and not self._taught:
            self._wave.doubt()
        epoch = self._rows[start : min(start + whole, self._end)]
        self._taught += self._wave.learn(epoch, beat.amounts, beat.basis, beat.offset) and not doubted

    def _release(self, step: int) -> tuple[Values, Quality]:
        """Hand out a step that is final."""
        block, marks = self._blocks.popleft()
        clean = block.copy()
        present = self._wave.beats >= self._set.first and self._wave.presence > _PRESENT
        if present:
            clean[self._eeg] -= self._artefact(step)
        alive = step - self._beats.last < _ALIVE * self._beats.interval
        fits = self._beat is not None and self._beat.amounts[0] > _WEAK
        trusted = alive and self._taught >= self._set.enough and (fits if present else self._clear)
        return clean, marks if trusted else np.minimum(marks, LEARNING).astype(np.uint8)

    def _artefact(self, step: int) -> Values:
        """The wave of the beats around a step, (channel, sample)."""
        out = np.zeros((self._step, len(self._eeg)))
        for beat, later in ((self._previous, self._beat), (self._beat, None)):
            if beat is not None:
                self._add(out, beat, later, step)
        return out.T

    def _add(self, out: Values, beat: Beat, later: Beat | None, step: int) -> None:
        since = step - beat.first
        edge = SPAN // 2
        if since < edge or since + edge >= self._wave.length:
            return
        start, stop = (self._share(beat, later, step + side) for side in (-0.5, 0.5))
        if start == stop == 0:
            return
        amounts = np.stack([beat.before * start, beat.amounts * stop])
        parts = amounts @ beat.basis.parts[since - edge : since + edge + 1]
        out += self._spread @ parts.reshape(2 * SPAN, -1)

    def _share(self, beat: Beat, later: Beat | None, step: float) -> float:
        """How much of a beat's wave counts at a moment: it begins, gives way to the next, or ends."""
        first, last = self._join
        rise = (step - beat.at - first) / (last - first)
        fall = 0.0 if later is None else (step - later.at - first) / (last - first)
        end = (beat.at + self._wave.length - SPAN - step) / (last - first)
        return min(max(min(rise, end), 0.0), 1.0) * (1 - min(max(fall, 0.0), 1.0))


def _check(channels: int, eeg: int, others: tuple[int, ...], helped: bool) -> None:
    wrong = [index for index in others if not 0 <= index < channels]
    if wrong or len(set(others)) != len(others):
        raise ValueError(
            f"electrocardiogram and references are different channels from 0 to {channels - 1}, "
            f"found {others}"
        )
    if eeg < (1 if helped else _LEAST_CHANNELS):
        raise ValueError(f"removing the heartbeat needs {_LEAST_CHANNELS} EEG channels or more, found {eeg}")


def _known(values: Values, good: bool) -> Values:
    """Values without those that are no numbers."""
    return values if good else np.nan_to_num(values, posinf=0.0, neginf=0.0)
