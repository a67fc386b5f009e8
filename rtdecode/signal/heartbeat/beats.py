"""Decide which heartbeats to believe, those of the electrocardiogram or those of the EEG itself.

Steps of the electrocardiogram and the recent EEG come in; a beat goes out once it is certain. R-peaks come
first (`RPeaks`). While the electrocardiogram is lost, or when it misses a single beat, beats are recognised
in the EEG by the template of the artefact (`Matcher`). The electrocardiogram is judged by its rhythm and by
whether the EEG has a wave after its beats.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal.heartbeat.match import LAST_S, Matcher
from rtdecode.signal.heartbeat.rpeaks import RPeaks
from rtdecode.signal.heartbeat.wave import PulseWave

Values = NDArray[np.float64]

# Bounds of a regular interval, in usual intervals.
REGULAR = (0.75, 1.5)
# How much EEG the template is matched to.
RECENT_S = LAST_S + 0.1
# Without an R-peak for this long, the electrocardiogram is lost. At the beginning it has more time,
# because the detector must set its thresholds first.
_LOST_S = 2.5
_WARM_S = 3.0
# Good beats after which a lost electrocardiogram counts again.
_BACK = 4
# If so many of the last beats were odd, the channel does not show a heartbeat.
_JUDGED = 8
_DOUBTFUL = 4
# A beat of the EEG and an R-peak that are this close agree.
_NEAR_S = 0.1
# After this long without a beat, a regular electrocardiogram counts even if the EEG is silent.
_SILENT_S = 5.0
_REFRACTORY_S = 0.25
# Share of the usual interval after which a beat is due; its R-peak would be known about 0.2 s later.
_DUE = 0.85


class BeatFinder:
    """Report beats of both sources as they become certain; all times are in steps.

    Parameters
    ----------
    sfreq : float
        Sampling rate, Hz.
    step : int
        Number of samples in a step.
    has_ecg : bool
        Whether there is an electrocardiogram.

    Attributes
    ----------
    last : float
        The newest beat; -inf before the first and after a reset.
    interval : float
        The usual interval between beats; until two beats are known, 0.9 s in steps.
    ecg_good : bool
        Whether the electrocardiogram is believed.
    found : dict
        Number of beats by source, ``ecg`` and ``eeg``.
    """

    def __init__(self, sfreq: float, step: int, has_ecg: bool) -> None:
        self._step = step
        self._rate = sfreq / step
        self._peaks = RPeaks(sfreq) if has_ecg else None
        self._matcher = Matcher(self._rate)
        self._intervals: deque[float] = deque(maxlen=8)
        self.interval = 0.9 * self._rate
        self.found = {"ecg": 0, "eeg": 0}
        self.reset()

    def reset(self) -> None:
        """Start again after a gap; the usual interval is kept."""
        self.last = -np.inf
        self._now = -1
        self._barred = -1
        self._trust = _Trust(_WARM_S * self._rate)
        self.ecg_good = self._peaks is not None
        self._value = 0.0
        self._matcher.reset()
        if self._peaks:
            self._peaks.reset()

    @property
    def is_regular(self) -> bool:
        """Whether an interval has been seen."""
        return bool(self._intervals)

    def push(self, ecg: Values | None, usable: bool, recent: Values, wave: PulseWave | None) -> float | None:
        """Take the next step.

        Parameters
        ----------
        ecg : (step,) or None
            The electrocardiogram of the step; None without one.
        usable : bool
            False for a step that holds GAP or UNCORRECTED samples.
        recent : (n, channel)
            The newest `RECENT_S` of the EEG, in steps.
        wave : PulseWave or None
            The template; None while it cannot be recognised.

        Returns
        -------
        float or None
            A beat that has just become certain.
        """
        self._now += 1
        if not usable:
            self._barred = self._now
        place = self._by_ecg(ecg, usable)
        source = "ecg"
        if self._peaks is None or self._now - self._trust.last > _LOST_S * self._rate:
            self.ecg_good = False
        # While the electrocardiogram is good, the EEG is asked only for a beat that it has missed.
        overdue = self._now - self.last > _DUE * self.interval + 0.2 * self._rate
        if not self.ecg_good or (place is None and overdue):
            place = self._by_eeg(recent, wave)
            source = "eeg"
        if place is None or not usable or place - self.last < _REFRACTORY_S * self._rate:
            return None
        self.found[source] += 1
        return place

    def accept(self, beats: Sequence[float]) -> None:
        """Take beats, in order, into the rhythm; the newest becomes `last`."""
        for place in beats:
            # A longer interval is a pause or a gap and says nothing about the rhythm.
            if place - self.last < 2.2 * self.interval:
                self._intervals.append(place - self.last)
                self.interval = float(np.median(self._intervals))
            self.last = place

    def judge(self, has_wave: bool) -> None:
        """Note whether the EEG had the wave of a beat where one was reported."""
        # While the electrocardiogram is not believed, the beats come from the EEG and say nothing about it.
        if self.ecg_good:
            self._trust.judge(has_wave)

    def distrust(self) -> None:
        """Stop believing the electrocardiogram and forget the rhythm of its beats."""
        self.ecg_good = False
        self.last = -np.inf
        self._intervals.clear()
        self._trust.lose()

    def _by_ecg(self, ecg: Values | None, usable: bool) -> float | None:
        if self._peaks is None or ecg is None:
            return None
        # The last good value stands in for bad samples, so that the detector sees no jump.
        ecg = ecg if usable else np.full(self._step, self._value)
        self._value = float(ecg[-1])
        places = self._peaks.push(ecg)
        if not places:
            return None
        # From samples to steps, which are numbered at their middles.
        place = (places[-1] - (self._step - 1) / 2) / self._step
        trust = self._trust
        trust.beat(place, self._peaks.interval_s * self._rate)
        if self.ecg_good and trust.doubtful():
            self.ecg_good = False
            trust.lose()
        elif not self.ecg_good and self._now - self.last > _SILENT_S * self._rate:
            self.ecg_good = trust.regular >= _BACK
        return place

    def _by_eeg(self, recent: Values, wave: PulseWave | None) -> float | None:
        # The match reads `LAST_S` of EEG, none of which may be bad.
        if wave is None or self._now - self._barred <= LAST_S * self._rate:
            return None
        place = self._matcher.push(recent, self._now, wave, self.last, self.interval)
        if place is not None and not self.ecg_good:
            self.ecg_good = self._trust.agrees(place, _NEAR_S * self._rate)
        return place


class _Trust:
    """Judge from its recent beats, in steps, whether the electrocardiogram shows a heart."""

    def __init__(self, begin: float) -> None:
        self.last = begin
        self.regular = self._agreed = 0
        self._verdicts: deque[bool] = deque(maxlen=_JUDGED)
        self._rhythm: deque[bool] = deque(maxlen=_JUDGED)

    def beat(self, place: float, usual: float) -> None:
        regular = REGULAR[0] < (place - self.last) / usual < REGULAR[1]
        self.regular = self.regular + 1 if regular else 0
        self._rhythm.append(regular)
        self.last = place

    def judge(self, has_wave: bool) -> None:
        """Note whether the EEG had the wave of a beat where one was reported."""
        self._verdicts.append(has_wave)

    def doubtful(self) -> bool:
        return any(list(kind).count(False) >= _DOUBTFUL for kind in (self._verdicts, self._rhythm))

    def lose(self) -> None:
        self._agreed = 0
        self._verdicts.clear()
        self._rhythm.clear()

    def agrees(self, place: float, near: float) -> bool:
        """Compare a beat of the EEG with the last R-peak; return whether enough of them have agreed."""
        self._agreed = self._agreed + 1 if abs(place - self.last) < near else 0
        return self._agreed >= _BACK and self.regular >= _BACK - 1
