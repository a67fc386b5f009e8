"""Intervals of 95 %: what the values of independent units say of the mean over all that there could be.

A unit is what may be drawn anew: a session, or a block of neighbouring windows, which share the noise of one
brain and the shots of one film. An interval rests on the number of its units, so that number always stands
beside it.

- From 20 units on, it is the percentile interval of a bootstrap, expanded for that number (Hesterberg 2015,
  The American Statistician 69:371).
- Below 20, a percentile bootstrap covers too little (0.83 with five units, where it promises 0.95). A t
  interval stands in its place, by the jackknife over units (Miller 1974, Biometrika 61:1); of a figure that
  lies within [0, 1] on the scale of logits, so that it stays there.
- Below 4 there is none. Single windows are no units below 20: they are too much alike.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, ndtr, stdtrit

Float = NDArray[np.float64]
# Makes figures of how often each unit was drawn: (draw, unit) -> (draw,). It is NaN where there is none.
Statistic = Callable[[Float], Float]

# Fewest units of an interval, and fewest of one by percentiles.
FEWEST = 4
MANY = 20
# Up to so many units, the values of all stand beside the interval.
MIN_UNITS = 5
# A block has at least so many windows where there are fewer than `MANY` blocks.
BLOCK = 10
# Draws of a bootstrap, and how many of them are made at once.
RESAMPLES = 2000
_AT_ONCE = 100
# Share of the means below an interval, and above it: 95 % lie within.
TAIL = 0.025


@dataclass(frozen=True)
class Interval:
    """An interval and what it rests on.

    Attributes
    ----------
    ci95 : [low, high] or None
        Ends of the 95 % interval; None where there is none, see `reason`.
    units : int
        Number of units that it rests on.
    method : str or None
        ``percentiles``, ``t`` or ``t of logits``.
    values : list of float or None
        The figure of each unit. None for single windows, and for a figure that is not a mean over units.
    reason : str or None
        Why there is no interval.
    cut : bool
        Whether it reached beyond what the figure can be, and ends there.
    """

    ci95: list[float] | None
    units: int
    method: str | None = None
    values: list[float] | None = None
    reason: str | None = None
    cut: bool = False

    def entries(self) -> dict[str, Any]:
        """Lay it out as a part of a figure: ``ci95``, and ``interval`` with all the rest."""
        names = ("units", "method", "values", "reason", "cut")
        return {"ci95": self.ci95, "interval": {name: getattr(self, name) for name in names}}


def of_mean(
    scores: ArrayLike,
    groups: NDArray[np.integer] | None = None,
    weights: ArrayLike | None = None,
    *,
    bounded: bool | None = None,
    tail: float = TAIL,
) -> Interval:
    """Make the interval of the mean of windows under their weights.

    Parameters
    ----------
    scores : (window,)
        Finite.
    groups : (window,) int, optional
        Unit of each window; by default each is one.
    weights : (window,), optional
        Above 0; by default all the same.
    bounded : bool, optional
        Whether the mean can only be within [0, 1]; by default, if all scores are.
    tail : float
        As for `of_statistic`.
    """
    values = np.asarray(scores, np.float64)
    weighted = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    ids, units, single = numbered(values, groups)
    total = np.bincount(ids, values * weighted, units)
    weight = np.bincount(ids, weighted, units)
    if bounded is None:
        bounded = bool(((values >= 0) & (values <= 1)).all())
    listed = None if single else (total / weight).tolist()
    return of_statistic(
        lambda counts: (counts @ total) / (counts @ weight),
        units,
        bounded=bounded,
        single=single,
        values=listed,
        tail=tail,
    )


def numbered(scores: ArrayLike, groups: NDArray[np.integer] | None) -> tuple[NDArray[np.int64], int, bool]:
    """Number the units of windows from 0 on.

    Returns
    -------
    ids : (window,) int64
    units : int
    single : bool
        Whether each window is a unit.
    """
    count = len(np.asarray(scores))
    ids = np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1].astype(np.int64)
    units = int(ids.max()) + 1 if count else 0
    return ids, units, units == count


def of_statistic(
    statistic: Statistic,
    units: int,
    *,
    bounded: bool = False,
    single: bool = False,
    centred: bool = False,
    values: list[float] | None = None,
    tail: float = TAIL,
) -> Interval:
    """Make the interval of any figure that is computed of units.

    Parameters
    ----------
    statistic : callable
        See `Statistic`.
    units : int
        Number of units.
    bounded : bool
        Whether the figure can only be within [0, 1].
    single : bool
        Whether the units are single windows.
    centred : bool
        Whether the draws of a bootstrap are moved so that their mean is the figure: for figures that
        resampling itself moves.
    values : list of float, optional
        The figure of each unit, which is handed on.
    tail : float
        Share below the interval, and above it.
    """
    if units < FEWEST:
        return Interval(None, units, values=values, reason=f"fewer than {FEWEST} units")
    if units < MANY and single:
        return Interval(None, units, reason=f"single windows are no units where there are fewer than {MANY}")
    if units < MANY:
        ends = _by_jackknife(statistic, units, bounded=bounded, tail=tail)
        method = "t of logits" if bounded else "t"
    else:
        ends = _by_percentiles(statistic, units, centred=centred, tail=tail)
        method = "percentiles"
    if ends is None:
        return Interval(None, units, values=values, reason="the figure rests on a single unit")
    return Interval(ends, units, method, values)


def _by_jackknife(statistic: Statistic, units: int, *, bounded: bool, tail: float) -> list[float] | None:
    rows = np.concatenate([np.ones((1, units)), 1 - np.eye(units)])
    # A unit that holds all there is leaves nothing to divide by.
    with np.errstate(invalid="ignore", divide="ignore"):
        figures = np.asarray(statistic(rows), np.float64)
    return _of_jackknifed(float(figures[0]), figures[1:], bounded=bounded, tail=tail)


def _of_jackknifed(figure: float, without: Float, *, bounded: bool, tail: float) -> list[float] | None:
    """Return the t interval of a figure by what it is without each unit."""
    if not (np.isfinite(figure) and np.isfinite(without).all()):
        return None
    units = len(without)
    pseudo = units * figure - (units - 1) * without
    error = float(pseudo.std(ddof=1)) / np.sqrt(units)
    reach = float(stdtrit(units - 1, 1 - tail)) * error
    if not bounded:
        return [float(figure - reach), float(figure + reach)]
    if not 0 < figure < 1:
        return [figure, figure]
    # The error of a logit by its derivative.
    reach /= figure * (1 - figure)
    middle = logit(figure)
    return [float(expit(middle - reach)), float(expit(middle + reach))]


def _by_percentiles(statistic: Statistic, units: int, *, centred: bool, tail: float) -> list[float] | None:
    rng = np.random.default_rng(0)
    figures: list[Float] = []
    # Some at a time: all draws of a long session together would take tens of MB.
    for _ in range(0, RESAMPLES, _AT_ONCE):
        numbers = rng.integers(0, units, (_AT_ONCE, units)) + units * np.arange(_AT_ONCE)[:, None]
        counts = np.bincount(numbers.ravel(), minlength=_AT_ONCE * units).reshape(_AT_ONCE, units)
        with np.errstate(invalid="ignore", divide="ignore"):
            figures.append(np.asarray(statistic(counts.astype(np.float64)), np.float64))
    draws = np.concatenate(figures)
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return None
    if centred:
        draws = draws + float(statistic(np.ones((1, units)))[0]) - draws.mean()
    # The variance of draws is (n - 1) / n of the true one, and a sample does not know its own variance.
    expanded = float(ndtr(-np.sqrt(units / (units - 1)) * stdtrit(units - 1, 1 - tail)))
    return [float(end) for end in np.quantile(draws, [expanded, 1 - expanded])]


def of_pseudovalues(figure: float, without: Float, *, tail: float = TAIL) -> Interval:
    """Make the t interval of a figure by what it is without each unit, whatever their number.

    Parameters
    ----------
    figure : float
        The figure of all units.
    without : (unit,)
        The figure without each unit in turn.
    tail : float
        Probability beyond each end.
    """
    units = len(without)
    if units < FEWEST:
        return Interval(None, units, reason=f"fewer than {FEWEST} units")
    return Interval(_of_jackknifed(figure, without, bounded=False, tail=tail), units, "t")


def in_blocks(parts: NDArray[np.integer]) -> NDArray[np.int64] | None:
    """Put neighbouring windows into blocks.

    Parameters
    ----------
    parts : (window,) int
        What no block reaches beyond: the run or the film of each window, in the order of time.

    Returns
    -------
    (window,) int64, or None
        Number of each window's block, of `BLOCK` windows; the last of each part takes what is left. None if
        there are fewer than four, or a part has fewer windows: windows then stand singly.
    """
    blocks = np.zeros(len(parts), np.int64)
    count = 0
    for part in dict.fromkeys(parts.tolist()):
        members = np.flatnonzero(parts == part)
        n_blocks = max(1, len(members) // BLOCK)
        blocks[members] = count + np.minimum(np.arange(len(members)) // BLOCK, n_blocks - 1)
        count += n_blocks
    return blocks if count >= FEWEST and np.bincount(blocks).min() >= BLOCK else None


def stretches(fine: NDArray[np.integer], parts: NDArray[np.integer]) -> NDArray[np.int64] | None:
    """Choose the units of windows that come in short stretches of a film.

    Parameters
    ----------
    fine : (window,) int
        Number of the stretch that each window lies in.
    parts : (window,) int
        As for `in_blocks`.

    Returns
    -------
    (window,) int64, or None
        The stretches, if there are 20; what `in_blocks` makes if there are fewer.
    """
    return fine.astype(np.int64) if len(np.unique(fine)) >= MANY else in_blocks(parts)


def rounded(figure: dict[str, Any], digits: int) -> dict[str, Any]:
    """Round a figure's value and interval, and the values of its units, to so many digits."""
    shorter = dict(figure)
    if figure.get("value") is not None:
        shorter["value"] = round(figure["value"], digits)
    if figure["ci95"] is not None:
        shorter["ci95"] = [round(end, digits) for end in figure["ci95"]]
    interval = figure.get("interval")
    if interval is not None and interval["values"] is not None:
        values = [round(value, digits) for value in interval["values"]]
        shorter["interval"] = {**interval, "values": values}
    return shorter


def ends(figure: dict[str, Any], form: str = ".3f", joint: str = " to ") -> str:
    """Write the interval of a figure, ``0.700 to 0.900``; - for none.

    Parameters
    ----------
    figure : dict
        With ``ci95``.
    form : str
        Format of a number.
    joint : str
        What stands between the ends.
    """
    if figure.get("ci95") is None:
        return "-"
    return joint.join(format(end, form) for end in figure["ci95"])


def words(figure: dict[str, Any], form: str = ".3f", joint: str = " to ") -> str:
    """Write the interval of a figure with its units, ``0.7 to 0.9, 20 units``, or why there is none.

    With few units their own values follow. Figures of earlier versions do not know their units. Parameters
    are those of `ends`.
    """
    interval = figure.get("interval")
    if interval is None:
        return ends(figure, form, joint)
    if figure["ci95"] is None:
        return f"no interval: {interval['reason']}"
    counted = f"{ends(figure, form, joint)}, {interval['units']} units"
    if interval["values"] is None or interval["units"] > MIN_UNITS:
        return counted
    return f"{counted}: {', '.join(format(value, form) for value in interval['values'])}"
