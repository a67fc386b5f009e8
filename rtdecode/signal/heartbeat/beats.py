"""Which beats are believed: the electrocardiogram's while it is one, else those of the EEG itself."""

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtdecode.signal.heartbeat.match import LAST_S, Matcher
from rtdecode.signal.heartbeat.rpeaks import RPeaks
from rtdecode.signal.heartbeat.wave import PulseWave

Values = NDArray[np.float64]

REGULAR = (0.75, 1.5)  # of the usual interval
RECENT_S = LAST_S + 0.1  # of the EEG that is looked at
_LOST_S = 2.5
_WARM_S = 3.0  # more, at the beginning
_BACK = 4  # beats until a lost electrocardiogram counts again
# so many of the last ones odd: the electrocardiogram is not one
_JUDGED = 8
_DOUBTFUL = 4
_NEAR_S = 0.1
_SILENT_S = 5.0
_REFRACTORY_S = 0.25
_DUE = 0.85  # of the usual interval; an R-peak would be known 0.2 s later


class BeatFinder:
    """Beats as they become certain, from both sources.

    Parameters
    ----------
    sfreq : float
    step : int
        Samples of a step: all times are in steps.
    has_ecg : bool

    Attributes
    ----------
    last : float
        The newest beat; -inf before the first and after a reset.
    interval : float
        The usual one; 0.9 s before two beats.
    ecg_good : bool
        Whether the electrocardiogram is believed.
    found : dict
        Beats by source, ``ecg`` and ``eeg``.
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
        """Begin anew in time; the rhythm stays."""
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
    def known(self) -> bool:
        """Whether an interval has been seen."""
        return bool(self._intervals)

    def push(self, ecg: Values | None, usable: bool, recent: Values, wave: PulseWave | None) -> float | None:
        """Take the next step.

        Parameters
        ----------
        ecg : (step,) or None
        usable : bool
            Whether it is more than noise.
        recent : (n, channel)
            The newest steps of the EEG, `RECENT_S`.
        wave : PulseWave or None
            The template; None before it can be recognised.

        Returns
        -------
        float or None
            A beat that is certain now.
        """
        self._now += 1
        if not usable:
            self._barred = self._now
        at = self._by_ecg(ecg, usable)
        source = "ecg"
        if self._peaks is None or self._now - self._trust.last > _LOST_S * self._rate:
            self.ecg_good = False
        overdue = self._now - self.last > _DUE * self.interval + 0.2 * self._rate
        if not self.ecg_good or (at is None and overdue):
            at = self._by_eeg(recent, wave)
            source = "eeg"
        if at is None or not usable or at - self.last < _REFRACTORY_S * self._rate:
            return None
        self.found[source] += 1
        return at

    def accept(self, beats: Sequence[float]) -> None:
        """Beats have been taken, in order: the newest is the last one."""
        for at in beats:
            if at - self.last < 2.2 * self.interval:
                self._intervals.append(at - self.last)
                self.interval = float(np.median(self._intervals))
            self.last = at

    def judge(self, there: bool) -> None:
        """Whether the EEG had the wave of a beat where one was said to be."""
        self._trust.judge(there)

    def distrust(self) -> None:
        """The electrocardiogram's beats were none; forget them."""
        self.ecg_good = False
        self.last = -np.inf
        self._intervals.clear()
        self._trust.lose()

    def _by_ecg(self, ecg: Values | None, usable: bool) -> float | None:
        if self._peaks is None or ecg is None:
            return None
        ecg = ecg if usable else np.full(self._step, self._value)
        self._value = float(ecg[-1])
        places = self._peaks.push(ecg)
        if not places:
            return None
        at = (places[-1] - (self._step - 1) / 2) / self._step
        trust = self._trust
        trust.beat(at, self._peaks.interval_s * self._rate)
        if self.ecg_good and trust.doubtful():
            self.ecg_good = False
            trust.lose()
        elif not self.ecg_good and self._now - self.last > _SILENT_S * self._rate:
            self.ecg_good = trust.regular >= _BACK
        return at

    def _by_eeg(self, recent: Values, wave: PulseWave | None) -> float | None:
        if wave is None or self._now - self._barred <= LAST_S * self._rate:
            return None
        at = self._matcher.push(recent, self._now, wave, self.last, self.interval)
        if at is not None and not self.ecg_good:
            self.ecg_good = self._trust.agrees(at, _NEAR_S * self._rate)
        return at


class _Trust:
    """Whether the electrocardiogram is one: what it said lately, in steps."""

    def __init__(self, begin: float) -> None:
        self.last = begin
        self.regular = self._agreed = 0
        self._verdicts: deque[bool] = deque(maxlen=_JUDGED)
        self._rhythm: deque[bool] = deque(maxlen=_JUDGED)

    def beat(self, at: float, usual: float) -> None:
        regular = REGULAR[0] < (at - self.last) / usual < REGULAR[1]
        self.regular = self.regular + 1 if regular else 0
        self._rhythm.append(regular)
        self.last = at

    def judge(self, there: bool) -> None:
        """Whether the EEG had the wave of a beat where one was said to be."""
        self._verdicts.append(there)

    def doubtful(self) -> bool:
        return any(list(kind).count(False) >= _DOUBTFUL for kind in (self._verdicts, self._rhythm))

    def lose(self) -> None:
        self._agreed = 0
        self._verdicts.clear()
        self._rhythm.clear()

    def agrees(self, at: float, near: float) -> bool:
        """Whether enough beats of the EEG came at the electrocardiogram's instants; here is another."""
        self._agreed = self._agreed + 1 if abs(at - self.last) < near else 0
        return self._agreed >= _BACK and self.regular >= _BACK - 1
