"""Take artefacts out of EEG by regression on channels that see artefacts only.

Reference electrodes or carbon-wire loops move with the head and touch no scalp (Masterton et al. 2007,
NeuroImage 37:202). Their present and recent past are regressed out of every channel. The weights follow
slowly, as in the Kalman filter of Levitt et al. 2023 (NeuroImage 273:120092): recursive least squares with
forgetting, fitted only to the past.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

# Lags of the references that enter the regression, steps.
_LAGS = (0, 2, 4, 6, 8, 10)
# Most inputs of the regression: the more references, the fewer lags each of them has.
_MAX_INPUTS = 48
# Steps between two fits.
_BATCH = 12
# High-pass of what the weights are fitted to: slow drifts do not count.
_FIT_HZ = 0.5
# Low-pass with which the references' resting level is followed.
_BASE_HZ = 0.02
# Added to the diagonal, as a share of its sum.
_RIDGE = 1e-5


class ReferenceRegression:
    """Weights of the references for every channel, and what these explain, without delay.

    Parameters
    ----------
    channels, references : int
        Numbers of channels and of references.
    step : int
        Number of samples in a step. The weights are fitted to averages over steps.
    rate : float
        Steps a second.
    memory_s : float
        Time after which the past counts 1/e, s.

    Attributes
    ----------
    seen_s : float
        Time from which the weights have been learned, s.
    """

    def __init__(self, channels: int, references: int, step: int, rate: float, memory_s: float) -> None:
        self._step = step
        self._rate = rate
        self._lags = _LAGS[: max(1, _MAX_INPUTS // references)]
        size = references * len(self._lags)
        self._own = np.zeros((size, size))
        self._cross = np.zeros((size, channels))
        self._weights = np.zeros((channels, size))
        self._keep = float(np.exp(-_BATCH / (memory_s * rate)))
        self._pole = 1 / (1 + 2 * np.pi * _FIT_HZ / rate)
        self._slow = 2 * np.pi * _BASE_HZ / rate
        self._channels = channels
        self._references = references
        self.seen_s = 0.0
        self.reset()

    def reset(self) -> None:
        """Forget the recent samples, as after a gap; keep the weights."""
        width = (max(self._lags) + 1) * self._step
        self._past = np.zeros((self._references, width))
        self._level: Values | None = None
        self._before: Values | None = None
        self._passed = np.zeros(self._channels + self._references)
        self._lagged = np.zeros((max(self._lags) + 1, self._references))
        self._rows: list[tuple[Values, Values]] = []

    def explained(self, references: Values) -> Values:
        """Return what the references explain in a step, (channel, step).

        Parameters
        ----------
        references : (reference, n)
            Samples of the step that have come so far.

        Returns
        -------
        (channel, step)
            Microvolts. The columns from n on mean nothing.
        """
        if self._level is None:
            self._level = references[:, 0].copy()
            self._past[:] = 0
        self._past[:, -self._step :] = 0
        self._past[:, -self._step :][:, : references.shape[1]] = references - self._level[:, None]
        stop = self._past.shape[1]
        lagged = [
            self._past[:, stop - (lag + 1) * self._step : stop - lag * self._step] for lag in self._lags
        ]
        return self._weights @ np.concatenate(lagged)

    def close(self, data: Values, references: Values, usable: bool) -> None:
        """Learn from a step that is complete, (channel, step) and (reference, step).

        A step that is not usable teaches nothing.
        """
        assert self._level is not None
        means = references.mean(axis=1)
        row = np.concatenate([data.mean(axis=1), means])
        self._passed = self._pole * (self._passed + row - (row if self._before is None else self._before))
        self._before = row
        self._lagged = np.concatenate([self._passed[None, self._channels :], self._lagged[:-1]])
        if usable:
            self._rows.append((self._lagged[list(self._lags)].ravel(), self._passed[: self._channels]))
        self._level = self._level + self._slow * (means - self._level)
        self._past = np.concatenate([self._past[:, self._step :], np.zeros((len(means), self._step))], axis=1)
        if len(self._rows) == _BATCH:
            self._fit(self._rows)
            self._rows = []

    def _fit(self, rows: Sequence[tuple[Values, Values]]) -> None:
        inputs = np.stack([row[0] for row in rows])
        targets = np.stack([row[1] for row in rows])
        self._own = self._keep * self._own + inputs.T @ inputs
        self._cross = self._keep * self._cross + inputs.T @ targets
        self.seen_s += len(rows) / self._rate
        ridge = _RIDGE * np.trace(self._own) + 1e-9
        self._weights = np.linalg.solve(self._own + ridge * np.eye(len(self._own)), self._cross).T.copy()
