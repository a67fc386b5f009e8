"""Remove the heartbeat artefact from EEG recorded inside the magnet, causally and with a bounded delay.

Chunks of EEG with a quality mark per sample come in; the same samples leave in the same order, cleaned.
There are two methods. With reference or carbon-wire channels, the artefact is regressed on them and nothing
is delayed. Without them, a template locked to the heartbeat is fitted to each beat as it passes. Samples are
then held for at most `Heartbeat.hold_s`, so that the size of a beat can be estimated from its first part
before the first sample of its wave leaves.

Both methods work in steps of about 8 ms. For the template, each step is averaged and stored, a beat is
looked for (`BeatFinder`), the current beat is fitted to the step (`Beat`), and the oldest held step leaves
with the fitted wave subtracted. When the next beat begins, the finished one updates the template
(`PulseWave`).
"""

from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal.eeg.quality import GAP, LEARNING, UNCORRECTED, Quality
from rtdecode.signal.eeg.regress import ReferenceRegression
from rtdecode.signal.heartbeat.beats import RECENT_S, REGULAR, BeatFinder
from rtdecode.signal.heartbeat.match import find_beats
from rtdecode.signal.heartbeat.wave import SPAN, Beat, PulseWave, lagrange

Values = NDArray[np.float64]

# Steps a second: the rate at which the template is kept; it is interpolated to the samples.
_STEP_HZ = 125.0
# The wave of one beat is faded out, and that of the next faded in, this long after the R-peak.
_JOIN_S = (0.04, 0.08)
# A search for beats without a template reads this much EEG, and is repeated this often.
_SEARCH_S = 12.0
_SEARCH_EVERY_S = 3.0
# Share of the template that new beats contain. Below the first it is more noise than artefact and is
# not subtracted; below the second, the EEG is searched for other beats.
_PRESENT = 0.5
_ABSENT = 0.3
# A wave smaller than this share of the usual one means that there was no beat.
_WEAK = 0.35
# After this many usual intervals without a beat, one has been missed.
_ALIVE = 1.6
_LEAST_CHANNELS = 4


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """How the heartbeat artefact is removed.

    Attributes
    ----------
    hold_s : float
        Longest time for which a sample is held, in seconds. With references nothing is held.
    reach_s : float
        How long after the R-peak the wave of a beat lasts if no other beat follows.
    memory : float
        Number of beats after which an old beat counts 1/e in the template.
    first, enough : int
        Number of beats in the template from which on it is subtracted, and trusted.
    reference_memory_s, reference_enough_s : float
        For the regression on references: the time after which the past counts 1/e, and the time of
        learning after which it is trusted.
    """

    hold_s: float = 0.3
    reach_s: float = 1.25
    memory: float = 20.0
    first: int = 3
    enough: int = 12
    reference_memory_s: float = 60.0
    reference_enough_s: float = 10.0

    def __post_init__(self) -> None:
        if not 0.2 <= self.hold_s <= 0.3:
            raise ValueError(f"hold_s must lie between 0.2 and 0.3 s, found {self.hold_s}")


class HeartbeatRemover:
    """Remove the heartbeat artefact from a stream.

    The output does not depend on how the stream is cut into chunks.

    Parameters
    ----------
    sfreq : float
        Sampling rate, from 200 Hz to 1000 Hz or a little more.
    channels : int
        Number of channels in the stream, electrocardiogram and references included.
    ecg : int or None
        Index of the electrocardiogram. Without one, and while its signal is lost, beats are found in the
        EEG.
    references : tuple of int
        Channels that record artefacts only. With them nothing is delayed.
    settings : Heartbeat
        Constants of the method.

    Attributes
    ----------
    hold_s : float
        Longest time for which a sample is held, in seconds.

    Raises
    ------
    ValueError
        If an index is not a channel or is given twice, or if fewer than 4 EEG channels remain (with
        references, none).

    Notes
    -----
    Electrocardiogram and references leave unchanged, after the same delay as the EEG.
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
        non_eeg = (*references, *(() if ecg is None else (ecg,)))
        self._eeg = np.array([i for i in range(channels) if i not in non_eeg], np.intp)
        _check(channels, len(self._eeg), non_eeg, bool(references))
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
        self._taught = 0  # beats in the template that held no sample marked LEARNING or worse
        self._clear = False  # whether the last search found no artefact
        self._dtype: Any = np.float32
        self.reset()

    def reset(self) -> None:
        """Start again after a gap; what was learned about the artefact is kept.

        Samples that are still held are dropped: call `flush` first.
        """
        # Samples of the unfinished step; with references, how many of them have left already.
        self._data = np.zeros((self._channels, 0))
        self._quality = np.zeros(0, np.uint8)
        self._given = 0
        # Steps that are held, and the averages of past steps with the index behind the newest.
        self._blocks: deque[tuple[Values, Quality]] = deque()
        self._rows = np.zeros((4096, len(self._eeg)))
        self._end = 0
        # The newest step, the newest unusable one, and the newest one marked LEARNING or worse.
        self._now = self._barred = self._doubted = -1
        self._next_search = 0
        self._beat: Beat | None = None
        self._previous: Beat | None = None
        self._beats.reset()
        if self._regression:
            self._regression.reset()

    def push(self, data: NDArray[Any], quality: Quality) -> tuple[NDArray[Any], Quality]:
        """Take the next samples and return those that are final.

        Parameters
        ----------
        data : float32 or float64, (channel, n)
            Microvolts.
        quality : uint8, (n,)
            Marks of `rtdecode.signal.eeg.quality`. Nothing is learned from UNCORRECTED or GAP samples.

        Returns
        -------
        data : (channel, m)
        quality : uint8, (m,)
            At most LEARNING until the template or the weights can be trusted, and where no beat was found.

        Raises
        ------
        ValueError
            If the shapes do not match the stream.
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
            # Copy the block: numpy's sums round differently for other strides, and the strides of
            # the view depend on how long the chunk was.
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
        """Return the samples that are held, cleaned as well as possible, and reset."""
        done = [self._empty()]
        if not self._regression:
            while self._blocks:
                done.append(self._release(self._now - len(self._blocks) + 1))
            done.append((self._data, self._quality))
            # These samples may contain the wave of a beat whose R-peak was not certain yet.
            done = [(data, np.minimum(marks, LEARNING).astype(np.uint8)) for data, marks in done]
        out = self._joined(done)
        self.reset()
        return out

    def report(self) -> dict[str, Any]:
        """Return the method, the number of beats by source, the heart rate and the state of the template."""
        usual = self._beats.interval / self._rate if self._beats.is_regular else None
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
        """Return the weights that interpolate from steps to the samples of one step, (sample, 10).

        The columns are the five steps around the sample, each with the fit before and after its last
        update.
        """
        size = self._step
        # Across the step, the weight moves from the old fit to the new one, lest an update jump.
        points = np.stack([lagrange((n - (size - 1) / 2) / size) for n in range(size)])
        ramp = (np.arange(size)[:, None, None] + 0.5) / size
        return (points[:, :, None] * np.concatenate([1 - ramp, ramp], axis=2)).reshape(size, 2 * SPAN)

    # Regression on references.

    def _regress(self, block: Values, marks: Quality) -> list[tuple[Values, Quality]]:
        """Clean a whole or unfinished step and return the samples that have not left yet."""
        regression = self._regression
        count = block.shape[1]
        assert regression is not None
        references = _known(block[self._references], bool(marks.min() > GAP))
        trusted = regression.seen_s >= self._set.reference_enough_s
        explained = regression.explained(references)
        clean = block.copy()
        clean[self._eeg] -= explained[:, :count]
        quality = marks if trusted else np.minimum(marks, LEARNING).astype(np.uint8)
        n_sent = self._given
        self._given = count
        # The weights are updated with whole steps only, wherever the chunks end.
        if count == self._step:
            usable = bool(marks.min() > UNCORRECTED)
            regression.close(_known(block[self._eeg], usable), references, usable)
            self._given = 0
        return [(clean[:, n_sent:], quality[n_sent:])]

    # Template.

    def _hold(self, block: Values, marks: Quality) -> list[tuple[Values, Quality]]:
        self._now += 1
        usable = bool(marks.min() > UNCORRECTED)
        self._keep(np.add.reduce(_known(block[self._eeg], usable), axis=1) / self._step, usable)
        self._blocks.append((block, marks))
        if marks.min() <= LEARNING:
            self._doubted = self._now
        place = self._listen(block, usable)
        # A beat that begins is fitted to everything since its R-peak, this step included.
        if place is not None:
            self._begin(place)
        elif self._beat is not None:
            self._beat.see(self._recent(1))
        # Every step in which the previous beat still fades out has left.
        if self._previous is not None and self._now - self._beat_at() > self._join[1] + self._held + 1:
            self._previous = None
        return [self._release(self._now - self._held)] if len(self._blocks) > self._held else []

    def _beat_at(self) -> float:
        return np.inf if self._beat is None else self._beat.at

    def _keep(self, row: Values, usable: bool) -> None:
        # A full buffer drops its older half, so that the newest rows lie in one piece for `_recent`.
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
        place = self._beats.push(ecg, usable, recent, self._wave if present else None)
        good = self._beats.ecg_good
        absent = ready and self._wave.presence < _ABSENT
        # The electrocardiogram was just lost, and its beats had not led to a trusted template.
        if was_good and not good and (absent or self._taught < self._set.enough):
            self._forget()
        # No source has beats: there is neither an electrocardiogram nor a template, or the
        # electrocardiogram's beats leave no wave in the EEG.
        if (not good and not ready) or (absent and self._taught >= self._set.enough):
            self._search()
        return place

    def _forget(self) -> None:
        """Discard the template, because the instants it was learned from were not beats."""
        self._wave = self._new_wave()
        self._taught = 0
        self._beat = self._previous = None

    def _search(self) -> None:
        """Search the recent EEG for beats and learn a template from those that are found."""
        needed = round(_SEARCH_S * self._rate)
        if self._now < max(self._next_search, self._barred + needed):
            return
        self._next_search = self._now + round(_SEARCH_EVERY_S * self._rate)
        rows = self._recent(needed)
        places = find_beats(rows - rows.mean(axis=0), self._rate)
        self._clear = not len(places)
        if len(places) and self._wave.beats:
            self._forget()
            self._beats.distrust()
        for beat_place, after in pairwise(places.tolist()):
            if beat_place >= 0:
                self._learn_from(rows, beat_place, after - beat_place)
        self._beats.accept([place + self._now + 1 - len(rows) for place in places.tolist()])

    def _learn_from(self, rows: Values, place: float, interval: float) -> None:
        beat = Beat(place, self._wave)
        epoch = rows[beat.first : beat.first + self._whole(interval)]
        beat.see(epoch)
        self._wave.vouch()
        self._taught += self._wave.learn(epoch, beat.amounts, beat.basis, beat.offset)

    def _whole(self, interval: float) -> int:
        """Return the number of steps from a beat to the beginning of the next one's wave."""
        return min(self._wave.length, int(interval + self._join[0]))

    def _begin(self, place: float) -> None:
        """Begin a beat; the one before it is over and is learned from."""
        if self._beat is not None:
            self._end_beat(self._beat, place - self._beat.at)
        self._beats.accept([place])
        self._previous = self._beat
        self._beat = Beat(place, self._wave)
        self._beat.see(self._recent(self._now + 1 - self._beat.first))
        # There is no older fit to fade from.
        self._beat.before = self._beat.amounts

    def _end_beat(self, beat: Beat, interval: float) -> None:
        usual = self._beats.interval
        regular = REGULAR[0] < interval / usual < REGULAR[1] or self._wave.beats < self._set.first
        length = self._whole(interval)
        start = self._end - (self._now + 1 - beat.first)
        weak = False
        if self._wave.beats >= self._set.first:
            self._wave.meet(beat.size)
            weak = self._taught >= self._set.enough and self._wave.presence > _PRESENT and beat.size < _WEAK
            self._beats.judge(not weak)
        # A beat teaches nothing if it came early or late, holds unusable samples, began before the
        # buffer, moved nothing, or was recorded while an earlier stage still learned. Only until the
        # first beat without such samples are doubtful beats better than none.
        doubted = self._doubted >= beat.first - 1
        if not regular or self._barred >= beat.first - 1 or start < 0 or weak or (doubted and self._taught):
            return
        if not doubted and not self._taught:
            self._wave.doubt()
        epoch = self._rows[start : min(start + length, self._end)]
        self._taught += self._wave.learn(epoch, beat.amounts, beat.basis, beat.offset) and not doubted

    def _release(self, step: int) -> tuple[Values, Quality]:
        """Return the oldest held step, with the artefact subtracted."""
        block, marks = self._blocks.popleft()
        clean = block.copy()
        present = self._wave.beats >= self._set.first and self._wave.presence > _PRESENT
        if present:
            clean[self._eeg] -= self._artefact(step)
        # The step is trusted while beats keep coming, the template has had enough of them, and
        # either the current beat has the wave or a search has shown that there is no artefact.
        alive = step - self._beats.last < _ALIVE * self._beats.interval
        fits = self._beat is not None and self._beat.amounts[0] > _WEAK
        trusted = alive and self._taught >= self._set.enough and (fits if present else self._clear)
        return clean, marks if trusted else np.minimum(marks, LEARNING).astype(np.uint8)

    def _artefact(self, step: int) -> Values:
        """Return the sum of the waves of the two latest beats in a step, (channel, sample)."""
        out = np.zeros((self._step, len(self._eeg)))
        for beat, later in ((self._previous, self._beat), (self._beat, None)):
            if beat is not None:
                self._add(out, beat, later, step)
        return out.T

    def _add(self, out: Values, beat: Beat, later: Beat | None, step: int) -> None:
        since = step - beat.first
        edge = SPAN // 2
        # The interpolation needs two steps of the template to either side.
        if since < edge or since + edge >= self._wave.length:
            return
        start, stop = (self._share(beat, later, step + side) for side in (-0.5, 0.5))
        if start == stop == 0:
            return
        amounts = np.stack([beat.before * start, beat.amounts * stop])
        parts = amounts @ beat.basis.parts[since - edge : since + edge + 1]
        out += self._spread @ parts.reshape(2 * SPAN, -1)

    def _share(self, beat: Beat, later: Beat | None, step: float) -> float:
        """Return the weight of a beat's wave at an instant, 0 to 1.

        It rises after the beat's own R-peak, falls after the next one's, and falls at the template's end.
        """
        first, last = self._join
        rise = (step - beat.at - first) / (last - first)
        fall = 0.0 if later is None else (step - later.at - first) / (last - first)
        end = (beat.at + self._wave.length - SPAN - step) / (last - first)
        return min(max(min(rise, end), 0.0), 1.0) * (1 - min(max(fall, 0.0), 1.0))


def _check(channels: int, eeg: int, non_eeg: tuple[int, ...], helped: bool) -> None:
    invalid = [index for index in non_eeg if not 0 <= index < channels]
    if invalid or len(set(non_eeg)) != len(non_eeg):
        raise ValueError(
            f"electrocardiogram and references must be different channels from 0 to {channels - 1}, "
            f"found {non_eeg}"
        )
    least = 1 if helped else _LEAST_CHANNELS
    if eeg < least:
        raise ValueError(f"removing the heartbeat needs {least} or more EEG channels, found {eeg}")


def _known(values: Values, good: bool) -> Values:
    """Return the values, with 0 in place of those that are not finite."""
    return values if good else np.nan_to_num(values, posinf=0.0, neginf=0.0)
