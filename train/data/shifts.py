"""Whether signals follow the clips that they are paired with, or clips that were shown earlier or later.

A ridge from signals to the colours of the clips is fitted at several lags, on windows that teach, and judged
on windows that were left out. A set whose pairs were moved by a window is told where another lag than 0 is
better by more than chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdecode.scores import intervals
from rtdecode.scores.colours import layouts
from train.closed_form.encoding import blocks
from train.data.dataset import Column, DataSet

Reals = NDArray[np.float64]

# Volumes by which signals are taken later than they are paired.
LAGS = (-2, -1, 0, 1, 2, 3)
# With fewer windows nothing is fitted.
_LEAST = 40
# Most voxels or channels' figures that are read.
_FEATURES = 4000
# Neighbouring windows are alike: so many are drawn together.
_TOGETHER = 6
# Chance of a false alarm, over all lags but 0.
_ALPHA = 0.05
# How often clips are put beside the signals of other windows, to see what chance alone gains.
_MOVED = 100
# A gain counts above so many times the largest that chance alone had.
_BEYOND = 1.5
# The ridge's penalty, in units of the mean square of a window's signals.
_PENALTY = 0.3
# Windows that are read at a time.
_AT_A_TIME = 16
# Starts that differ by less are the same, s.
_SAME_S = 1e-3
# Pieces of a window of EEG where there is no TR.
_PIECES = 5


@dataclass(frozen=True, slots=True)
class Shift:
    """At which lag the signals of a subject follow their clips best.

    Attributes
    ----------
    subject : str
        Whose signals they are.
    column : str
        Which signals: ``eeg`` or ``fmri``.
    windows : int
        How many windows it rests on; 0 where nothing could be fitted.
    lag : int
        Volumes by which the signals come later than they are paired.
    lag_s : float
        The same, s.
    gain, low, high : float
        By how much the correlation of predicted and true colours exceeds that at lag 0, with its interval,
        which counts all lags.
    by_chance : float
        The largest gain where the clips were put beside other windows' signals.
    """

    subject: str
    column: Column
    windows: int
    lag: int = 0
    lag_s: float = 0.0
    gain: float = 0.0
    low: float = 0.0
    high: float = 0.0
    by_chance: float = 0.0

    @property
    def is_told(self) -> bool:
        """Whether another lag than 0 is better by more than chance."""
        return self.lag != 0 and self.low > 0 and self.gain > _BEYOND * self.by_chance

    @property
    def says(self) -> str:
        """The finding in a sentence."""
        whose = f"{self.subject}'s {self.column}"
        if not self.is_told:
            return f"Whether {whose} is shifted against its clips cannot be told from {self.windows} windows."
        when = "later" if self.lag > 0 else "earlier"
        return (
            f"{whose} follows its clips better {abs(self.lag)} volumes ({abs(self.lag_s):g} s) {when} than "
            f"it is paired: the correlation with their colours gains {self.gain:.3f} ({self.low:.3f} to "
            f"{self.high:.3f}, {self.windows} windows). See whether pairs are off by a window, or whether "
            "the lag of the layout is that of these data."
        )


def shifts(data: DataSet, rows: Sequence[int] | NDArray[np.int64]) -> list[Shift]:
    """Look for a shift of each subject's EEG and fMRI, apart from each other.

    Parameters
    ----------
    data : DataSet
        With clips.
    rows : (window,)
        The windows that teach.
    """
    table = data.windows
    teaching = np.unique(np.asarray(rows, np.int64))
    columns: list[Column] = [column for column in ("eeg", "fmri") if column in data.columns]
    results = []
    for subject in dict.fromkeys(table.subject[teaching].tolist()):
        of_subject = teaching[table.subject[teaching] == subject]
        stretches = stretches_of(data, of_subject)
        colours = [_colours(data, stretch) for stretch in stretches]
        for column in columns:
            signals = [_pieces(data, column, stretch) for stretch in stretches]
            results.append(_shift(data, subject, column, signals, colours))
    return results


def stretches_of(data: DataSet, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Divide windows of one subject into stretches that follow each other without a gap or an overlap."""
    table = data.windows
    order = np.lexsort((table.start_s[rows], np.unique(table.run[rows], return_inverse=True)[1]))
    rows = rows[order]
    gaps = np.abs(np.diff(table.start_s[rows]) - data.window_s) > _SAME_S
    other = table.run[rows][1:] != table.run[rows][:-1]
    return np.split(rows, np.flatnonzero(gaps | other) + 1)


def _colours(data: DataSet, rows: NDArray[np.int64]) -> Reals:
    """Return what the clips of windows show, (window, colour)."""
    parts = [
        layouts(list(data.read("clips", rows[first : first + _AT_A_TIME])))
        for first in range(0, len(rows), _AT_A_TIME)
    ]
    return np.concatenate(parts).reshape(len(rows), -1)


def _pieces(data: DataSet, column: Column, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
    """Return the volumes of windows, or their EEG in pieces of a TR, (window, piece, value).

    None where the volumes of neighbouring windows overlap, or do not fill them.
    """
    count = round(data.window_s / data.tr_s) if data.tr_s else _PIECES
    parts = []
    for first in range(0, len(rows), _AT_A_TIME):
        values = data.read(column, rows[first : first + _AT_A_TIME])
        if column == "fmri":
            if values.shape[1] != count:
                return None
            parts.append(values[..., :: -(-values.shape[2] // _FEATURES)])
            continue
        length = values.shape[2] // count
        cut = values[..., : length * count].reshape(*values.shape[:2], count, length)
        # The level of each piece, and its power.
        power = np.log(cut.var(axis=3) + 1e-6)
        parts.append(np.concatenate([cut.mean(axis=3), power], axis=1).transpose(0, 2, 1))
    return np.concatenate(parts).astype(np.float32)


def _shift(
    data: DataSet,
    subject: str,
    column: Column,
    signals: Sequence[NDArray[np.float32] | None],
    colours: Sequence[Reals],
) -> Shift:
    usable = [
        (stretch, colours_of)
        for stretch, colours_of in zip(signals, colours, strict=True)
        if stretch is not None
    ]
    laid = [_at_lags(stretch, colours_of) for stretch, colours_of in usable]
    laid = [stretch for stretch in laid if stretch is not None]
    windows = sum(len(colours_of) for _, colours_of in laid)
    if windows < _LEAST:
        return Shift(subject, column, windows)
    colours_of = _scaled(np.concatenate([colours_of for _, colours_of in laid]))
    at_lags = [_scaled(np.concatenate([at_lag[n] for at_lag, _ in laid])) for n in range(len(LAGS))]
    hats = [_hat(signals, blocks(windows)) for signals in at_lags]
    gains = _gains(hats, colours_of)
    best = int(gains.mean(axis=1).argmax())
    low, high = _interval(gains[best])
    # Predictions of different windows rest on the same fit, so their scores go together by chance, and the
    # interval does not know it.
    away = np.unique(np.linspace(_TOGETHER, windows - _TOGETHER, _MOVED).astype(int))
    chance = max(float(_gains(hats, np.roll(colours_of, by, axis=0)).mean(axis=1).max()) for by in away)
    every_s = data.tr_s or data.window_s / _PIECES
    lag = LAGS[best]
    gain = float(gains[best].mean())
    return Shift(subject, column, windows, lag, round(lag * every_s, 6), gain, low, high, chance)


def _at_lags(
    pieces: NDArray[np.float32], colours_of: Reals
) -> tuple[list[NDArray[np.float32]], Reals] | None:
    """Return the signals of a stretch's windows at each lag, (window, value), where they have all lags."""
    windows, count, size = pieces.shape
    series = pieces.reshape(windows * count, size)
    first = -(min(LAGS) // count)
    last = windows - -(-max(LAGS) // count)
    if first >= last:
        return None
    begins = np.arange(first, last) * count
    places = [begins[:, None] + lag + np.arange(count) for lag in LAGS]
    # Volumes are averaged: the response is slow.
    return [series[stretch].mean(axis=1) for stretch in places], colours_of[first:last]


def _scaled(values: NDArray[np.floating]) -> Reals:
    deviation = values.std(axis=0)
    living = deviation > 0
    return (values[:, living] - values[:, living].mean(axis=0)) / deviation[living]


def _hat(signals: Reals, folds: NDArray[np.int64]) -> Reals:
    """Return each window's ridge prediction as weights of the windows of other folds, (window, window)."""
    kernel = signals @ signals.T
    penalty = _PENALTY * np.trace(kernel) / len(kernel)
    hat = np.zeros(kernel.shape)
    for fold in range(int(folds.max()) + 1):
        outside = folds == fold
        taught = ~outside
        lifted = kernel[np.ix_(taught, taught)] + penalty * np.eye(int(taught.sum()))
        hat[np.ix_(outside, taught)] = np.linalg.solve(lifted, kernel[np.ix_(taught, outside)]).T
    return hat


def _scores(hat: Reals, colours_of: Reals) -> Reals:
    """Correlate what is predicted of each window that was left out with what it showed, (window,)."""
    predicted = hat @ colours_of
    product = (predicted * colours_of).sum(axis=1)
    norm = np.linalg.norm(predicted, axis=1) * np.linalg.norm(colours_of, axis=1)
    return product / np.maximum(norm, 1e-12)


def _gains(hats: Sequence[Reals], colours_of: Reals) -> Reals:
    """Return by how much each window is predicted better at each lag than at lag 0, (lag, window)."""
    scores = np.array([_scores(hat, colours_of) for hat in hats])
    return scores - scores[LAGS.index(0)]


def _interval(gains: Reals) -> tuple[float, float]:
    """Return the interval of a mean, over stretches of neighbouring windows; infinite if they are too few."""
    # The best of several lags was chosen.
    tail = _ALPHA / 2 / (len(LAGS) - 1)
    places = np.arange(len(gains))
    units = intervals.stretches(places // _TOGETHER, 0 * places)
    low, high = intervals.of_mean(gains, units, bounded=False, tail=tail).ci95 or (-np.inf, np.inf)
    return low, high
