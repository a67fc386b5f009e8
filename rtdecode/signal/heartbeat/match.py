"""Find heartbeats in the EEG itself.

Steps of EEG, (step, channel), come in and the steps at which beats begin go out. With a template of the
artefact, `Matcher` finds beats one by one, as they come. Without one, `find_beats` searches several seconds
for a wave that returns with the interval of a heart.
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal.heartbeat.rpeaks import vertex
from rtdecode.signal.heartbeat.wave import PulseWave

Values = NDArray[np.float64]

# Part of the template that the EEG is compared with, after the R-peak.
FIRST_S = 0.024
LAST_S = 0.264
# A score is a beat only if none is higher within this time to either side.
_CONFIRM_S = 0.048
# Least correlation of a beat with the template.
_LIKE = 0.4

# Search without a template: band of the EEG, range of intervals, rounds of averaging.
_BAND_HZ = (1.0, 7.0)
_INTERVALS_S = (0.4, 1.5)
_ROUNDS = 4
# Least correlation of a beat with the average of the others.
_SURE = 0.85
# Half the length of an epoch.
_HALF_S = 0.3
# The wave begins between these times before its highest point.
_BEFORE_S = (0.06, 0.45)
# There is little energy from `_AHEAD_S` before the beginning to `_JOINED_S` after it, and much from
# there on. By then the remover has faded the wave in.
_JOINED_S = 0.09
_AHEAD_S = 0.1
# Of the intervals, at least the share `_REGULAR_SHARE` lies within the share `_STEADY` of the usual one.
_STEADY = 0.25
_REGULAR_SHARE = 0.75
# Largest size of the peaks between beats, as a share of those of the beats.
_ALONE = 0.5


class Matcher:
    """Find beats as the instants at which the EEG looks like the beginning of the template.

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
        """Forget the recent past; the usual score of a beat is kept."""
        # Infinite scores prevent a maximum from being reported before its neighbours are known.
        self._scores: deque[float] = deque([np.inf] * (2 * self._confirm + 1), maxlen=2 * self._confirm + 1)
        self._part = np.zeros((0, 0))
        self._norm = 1.0
        self._of = (-1, -1)
        self._step = -1

    def push(self, recent: Values, step: int, wave: PulseWave, since: float, usual: float) -> float | None:
        """Look at the newest step; if steps were skipped since the last call, start again.

        Parameters
        ----------
        recent : (n, channel)
            The newest steps, `LAST_S` or more.
        step : int
            Number of the newest step.
        wave : PulseWave
            Template that the EEG is compared with.
        since : float
            The last known beat, in steps; -inf for none.
        usual : float
            The usual interval, in steps.

        Returns
        -------
        float or None
            A beat that has just become certain, in steps.
        """
        if step != self._step + 1:
            self.reset()
        self._step = step
        # The template changes only when a beat was learned or when it was replaced.
        if self._of != (id(wave), wave.beats):
            self._part = wave.matched(self._first, self._last)
            self._of = (id(wave), wave.beats)
            self._norm = max(float(np.linalg.norm(self._part)), 1e-12)
        whitened = wave.whiten(recent[-len(self._part) :])
        size = float(np.vdot(self._part, whitened)) / self._norm
        like = size / max(float(np.linalg.norm(whitened)), 1e-12)
        # Correlation alone does not tell a beat from something faint of its shape, size alone not
        # from a sudden movement.
        self._scores.append(like * float(np.clip(size / self._norm, 0.0, 1.0)) ** 0.5 if size > 0 else 0.0)
        middle = self._confirm
        place = step - (self._last - 1) - self._confirm
        score = self._scores[middle]
        if np.isinf(score) or score < max(self._scores) or not self._is_beat(score, place - since, usual):
            return None
        self._likes.append(score)
        return place + vertex(np.array(self._scores), middle)

    def _is_beat(self, score: float, since: float, usual: float) -> bool:
        if since < max(0.55 * usual, 0.3 * self._rate):
            return False
        # The threshold follows the scores of past beats and is lower once a beat is overdue.
        least = max(0.5 * float(np.median(self._likes)), 0.5 * _LIKE) if len(self._likes) > 3 else _LIKE
        return score >= (least if since < 1.2 * usual else 0.7 * least)


def find_beats(rows: Values, rate: float) -> Values:
    """Find heartbeats in EEG without any prior knowledge of them.

    The first principal component between 1 and 7 Hz is searched for a wave that returns with the interval
    of a heart. Guessed beats are averaged, the average finds better ones, and so on for a few rounds.

    Parameters
    ----------
    rows : (step, channel)
        10 s of EEG or more.
    rate : float
        Steps a second.

    Returns
    -------
    (beat,) float64
        Steps at which the artefact begins, 0 to 0.1 s after the R-peaks; empty if no wave returns.
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
    """Return whether the beats are alike, evenly spaced, and larger than the peaks between them.

    The last condition rules out rhythms of the brain, whose neighbouring waves are as large.
    """
    # Imported where it is used, as in `rtdecode.signal.eeg.band`: it takes as long to load as all else.
    from scipy import signal

    epochs = np.stack([course[c - half : c + half + 1] for c in centres])
    gaps = np.diff(centres)
    usual = np.median(gaps)
    peaks, _ = signal.find_peaks(score[half:-half])
    far = np.abs(peaks[:, None] + half - centres[None, :]).min(axis=1) > 0.15 * usual
    between = score[peaks[far] + half]
    between_size = float(np.quantile(between, 0.75)) if len(between) else 0.0
    steady = float((np.abs(gaps - usual) < _STEADY * usual).mean())
    alone = between_size < _ALONE * float(np.median(score[centres]))
    return alone and steady >= _REGULAR_SHARE and _agreement(epochs) >= _SURE


def _first_component(rows: Values, rate: float) -> Values:
    from scipy import signal

    band = signal.butter(2, _BAND_HZ, "bandpass", fs=rate, output="sos")
    narrow = np.asarray(signal.sosfiltfilt(band, rows, axis=0))
    # Leave out loose electrodes, which would make up the component by themselves.
    size = narrow.std(axis=0)
    narrow = narrow[:, size < 5 * np.median(size) + 1e-12]
    strongest = np.linalg.eigh(narrow.T @ narrow)[1][:, -1]
    course = narrow @ strongest
    return course / max(float(course.std()), 1e-12)


def _period(course: Values, rate: float) -> float | None:
    """Return the interval at which a time course is most like itself, in steps; None if at none."""
    count = len(course)
    spectrum = np.fft.rfft(course, 2 * count)
    autocorrelation = np.fft.irfft(np.abs(spectrum) ** 2)[:count] / np.arange(count, 0, -1)
    first, last = (round(bound * rate) for bound in _INTERVALS_S)
    # Twice the interval fits as well as the interval itself, so shorter ones are preferred.
    slope = 1 - 0.2 * np.arange(last - first) / (last - first)
    best = int(np.argmax(autocorrelation[first:last] * slope)) + first
    return float(best) if autocorrelation[best] > 0.1 * autocorrelation[0] else None


def _spaced(score: Values, period: float, half: int) -> NDArray[np.int64]:
    """Return the places of the highest peaks that are at least 0.65 periods apart, in order."""
    from scipy import signal

    inner = score[half:-half]
    places, _ = signal.find_peaks(inner, distance=max(1, round(0.65 * period)))
    # The higher half of the peaks are taken for beats, and set the level for the others.
    high = inner[places] > 0.4 * float(np.median(np.sort(inner[places])[len(places) // 2 :]))
    return np.asarray(places[high] + half, np.int64)


def _aligned_mean(course: Values, centres: NDArray[np.int64], half: int) -> Values:
    """Average the epochs about the centres whose sign is the more frequent one.

    In the first round the centres are peaks of the absolute value, and so have either sign.
    """
    epochs = np.stack([course[c - half : c + half + 1] for c in centres])
    signs = np.sign(epochs[:, half])
    return np.asarray(epochs[signs == (1.0 if signs.sum() >= 0 else -1.0)].mean(axis=0))


def _agreement(epochs: Values) -> float:
    """Return the correlation of each epoch with the average of the others, averaged over epochs."""
    other_mean = (epochs.sum(axis=0) - epochs) / (len(epochs) - 1)
    products = (epochs * other_mean).sum(axis=1)
    norms = np.linalg.norm(epochs, axis=1) * np.linalg.norm(other_mean, axis=1)
    return float((products / np.maximum(norms, 1e-12)).mean())


def _beginning(rows: Values, centres: NDArray[np.int64], rate: float) -> int:
    """Return where a beat begins, in steps from its centre: much energy follows, little precedes."""
    reach = round((_HALF_S + _BEFORE_S[1] + 0.15) * rate)
    inner = centres[(centres >= reach) & (centres < len(rows) - reach)]
    mean = np.mean([rows[c - reach : c + reach + 1] for c in inner], axis=0)
    mean -= mean.mean(axis=0)
    energy = ((mean / (rows.std(axis=0) + 1e-12)) ** 2).sum(axis=1)
    half, (near, far) = round(_HALF_S * rate), (round(before * rate) for before in _BEFORE_S)
    top = int(np.argmax(energy[reach - half : reach + half + 1])) + reach - half
    starts = np.arange(top - far, top - near)
    joined, last, ahead = (round(span * rate) for span in (_JOINED_S, LAST_S, _AHEAD_S))
    after = np.array([energy[n + joined : n + last].mean() for n in starts])
    before = np.array([energy[n - ahead : n + joined].mean() for n in starts])
    return int(starts[np.argmax(after - 2 * before)]) - reach
