"""Heartbeats from the EEG itself: by their template, or where there is none yet by their periodicity."""

from collections import deque

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from rtdecode.signal.heartbeat.rpeaks import vertex
from rtdecode.signal.heartbeat.wave import PulseWave

Values = NDArray[np.float64]

# of the template, after the R-peak
FIRST_S = 0.024
LAST_S = 0.264
_CONFIRM_S = 0.048
_LIKE = 0.4  # least correlation of a beat with the template
_BAND_HZ = (1.0, 7.0)
_INTERVALS_S = (0.4, 1.5)
_ROUNDS = 4
_SURE = 0.85  # least correlation of a beat with the average of the others
_HALF_S = 0.3
_BEFORE_S = (0.06, 0.45)  # its top, the wave begins
# after that nothing of it may be missed, and before it nothing is
_JOINED_S = 0.09
_AHEAD_S = 0.1
# so far from the usual interval at most are so many of them
_STEADY = 0.25
_MOST = 0.75
_ALONE = 0.5  # size of other peaks against those of the beats


class Matcher:
    """Beats as the instants at which the EEG looks like the beginning of the template.

    Parameters
    ----------
    rate : float
        Steps a second.
    """

    def __init__(self, rate: float) -> None:
        self._first = round(FIRST_S * rate)
        self._last = round(LAST_S * rate)
        self._confirm = round(_CONFIRM_S * rate)
        self._rate = rate
        self._likes: deque[float] = deque(maxlen=8)
        self.reset()

    def reset(self) -> None:
        """Forget the recent past; what is usual stays."""
        # Nothing is a maximum before its neighbours are known.
        self._scores: deque[float] = deque([np.inf] * (2 * self._confirm + 1), maxlen=2 * self._confirm + 1)
        self._part = np.zeros((0, 0))
        self._norm = 1.0
        self._of = (-1, -1)
        self._step = -1

    def push(self, recent: Values, step: int, wave: PulseWave, since: float, usual: float) -> float | None:
        """Look at the newest step; steps left out make it begin anew.

        Parameters
        ----------
        recent : (n, channel)
            The newest steps, `LAST_S` or more.
        step : int
            Number of the newest.
        wave : PulseWave
        since : float
            The last known beat, in steps; -inf for none.
        usual : float
            The usual interval, in steps.

        Returns
        -------
        float or None
            A beat that is certain now, in steps.
        """
        if step != self._step + 1:
            self.reset()
        self._step = step
        if self._of != (id(wave), wave.beats):
            self._part = wave.matched(self._first, self._last)
            self._of = (id(wave), wave.beats)
            self._norm = max(float(np.linalg.norm(self._part)), 1e-12)
        seen = wave.whiten(recent[-len(self._part) :])
        size = float(np.vdot(self._part, seen)) / self._norm
        like = size / max(float(np.linalg.norm(seen)), 1e-12)
        # Likeness alone does not know a beat from a whisper, size alone not from a jerk.
        self._scores.append(like * float(np.clip(size / self._norm, 0.0, 1.0)) ** 0.5 if size > 0 else 0.0)
        middle = self._confirm
        at = step - (self._last - 1) - self._confirm
        score = self._scores[middle]
        if np.isinf(score) or score < max(self._scores) or not self._is_beat(score, at - since, usual):
            return None
        self._likes.append(score)
        return at + vertex(np.array(self._scores), middle)

    def _is_beat(self, score: float, since: float, usual: float) -> bool:
        if since < max(0.55 * usual, 0.3 * self._rate):
            return False
        least = max(0.5 * float(np.median(self._likes)), 0.5 * _LIKE) if len(self._likes) > 3 else _LIKE
        return score >= (least if since < 1.2 * usual else 0.7 * least)


def find_beats(rows: Values, rate: float) -> Values:
    """Find heartbeats in EEG of which nothing is known.

    The first principal component between 1 and 7 Hz is searched for a wave that returns with the interval
    of a heart: an average over guessed beats finds better ones, a few times over.

    Parameters
    ----------
    rows : (step, channel)
        10 s or more.
    rate : float
        Steps a second.

    Returns
    -------
    (beat,) float64
        Steps at which the artefact begins, 0 to 0.1 s after the R-peaks; none where no wave returns.
    """
    course = _first_component(rows, rate)
    period = _period(course, rate)
    if period is None:
        return np.zeros(0)
    half = round(_HALF_S * rate)
    centres = _spaced(np.abs(course), period, half)
    template = np.zeros(2 * half + 1)
    score = course
    for _ in range(_ROUNDS):
        template = _aligned_mean(course, centres, half)
        score = np.correlate(course, template, "same") / max(float(template @ template), 1e-12)
        centres = _spaced(score, period, half)
    if len(centres) < 5 or not _is_heart(course, score, centres, half):
        return np.zeros(0)
    tops = np.array([c + vertex(score, c) for c in centres])
    return tops + _beginning(rows, centres, rate)


def _is_heart(course: Values, score: Values, centres: NDArray[np.int64], half: int) -> bool:
    """Whether the beats are alike, evenly spaced, and stand out of what lies between them.

    A rhythm of the brain has as large a wave before and after as well.
    """
    epochs = np.stack([course[c - half : c + half + 1] for c in centres])
    gaps = np.diff(centres)
    usual = np.median(gaps)
    others, _ = signal.find_peaks(score[half:-half])
    far = np.abs(others[:, None] + half - centres[None, :]).min(axis=1) > 0.15 * usual
    between = score[others[far] + half]
    apart = float(np.quantile(between, 0.75)) if len(between) else 0.0
    steady = float((np.abs(gaps - usual) < _STEADY * usual).mean())
    alone = apart < _ALONE * float(np.median(score[centres]))
    return alone and steady >= _MOST and _agreement(epochs) >= _SURE


def _first_component(rows: Values, rate: float) -> Values:
    band = signal.butter(2, _BAND_HZ, "bandpass", fs=rate, output="sos")
    narrow = np.asarray(signal.sosfiltfilt(band, rows, axis=0))
    # A loose electrode is not the heart.
    size = narrow.std(axis=0)
    narrow = narrow[:, size < 5 * np.median(size) + 1e-12]
    strongest = np.linalg.eigh(narrow.T @ narrow)[1][:, -1]
    course = narrow @ strongest
    return course / max(float(course.std()), 1e-12)


def _period(course: Values, rate: float) -> float | None:
    """The interval at which a course looks most like itself, in steps."""
    count = len(course)
    spectrum = np.fft.rfft(course, 2 * count)
    own = np.fft.irfft(np.abs(spectrum) ** 2)[:count] / np.arange(count, 0, -1)
    first, last = (round(bound * rate) for bound in _INTERVALS_S)
    # Twice the interval fits as well: the shorter one wins.
    slope = 1 - 0.2 * np.arange(last - first) / (last - first)
    best = int(np.argmax(own[first:last] * slope)) + first
    return float(best) if own[best] > 0.1 * own[0] else None


def _spaced(score: Values, period: float, half: int) -> NDArray[np.int64]:
    """The places of the largest values that are at least 0.65 periods apart, in order."""
    inner = score[half:-half]
    places, _ = signal.find_peaks(inner, distance=max(1, round(0.65 * period)))
    high = inner[places] > 0.4 * float(np.median(np.sort(inner[places])[len(places) // 2 :]))
    return np.asarray(places[high] + half, np.int64)


def _aligned_mean(course: Values, centres: NDArray[np.int64], half: int) -> Values:
    """Average about the centres; at first their signs differ, and the larger group counts."""
    epochs = np.stack([course[c - half : c + half + 1] for c in centres])
    signs = np.sign(epochs[:, half])
    return np.asarray(epochs[signs == (1.0 if signs.sum() >= 0 else -1.0)].mean(axis=0))


def _agreement(epochs: Values) -> float:
    """Mean correlation of each epoch with the average of the others."""
    others = (epochs.sum(axis=0) - epochs) / (len(epochs) - 1)
    products = (epochs * others).sum(axis=1)
    norms = np.linalg.norm(epochs, axis=1) * np.linalg.norm(others, axis=1)
    return float((products / np.maximum(norms, 1e-12)).mean())


def _beginning(rows: Values, centres: NDArray[np.int64], rate: float) -> int:
    """Where against the centres a beat begins: much behind it, little before."""
    reach = round((_HALF_S + _BEFORE_S[1] + 0.15) * rate)
    inside = centres[(centres >= reach) & (centres < len(rows) - reach)]
    mean = np.mean([rows[c - reach : c + reach + 1] for c in inside], axis=0)
    mean -= mean.mean(axis=0)
    energy = ((mean / (rows.std(axis=0) + 1e-12)) ** 2).sum(axis=1)
    half, (near, far) = round(_HALF_S * rate), (round(before * rate) for before in _BEFORE_S)
    top = int(np.argmax(energy[reach - half : reach + half + 1])) + reach - half
    starts = np.arange(top - far, top - near)
    joined, last, ahead = (round(span * rate) for span in (_JOINED_S, LAST_S, _AHEAD_S))
    after = np.array([energy[n + joined : n + last].mean() for n in starts])
    before = np.array([energy[n - ahead : n + joined].mean() for n in starts])
    return int(starts[np.argmax(after - 2 * before)]) - reach
