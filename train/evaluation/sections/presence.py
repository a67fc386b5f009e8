"""The section `presence`: whether a decoder notices that what it gets is not the brain of its participant.

Beside the windows of each judged session stand as many of five kinds that are not what the decoder is made
for. A system that says how likely a window is to be of a brain (`train.interface.system.Condition.brain`)
is judged by that probability alone: does it tell true windows from each kind, better than a detector that
looks at energy, and does it hold what it promises? ``docs/evaluation.md`` says what each figure is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.scores import intervals
from rtdecode.scores.accuracy import MIN_SHIFT_S
from rtdecode.scores.intervals import Interval
from rtdecode.scores.reliability import brier_skill, calibration_error, squared_calibration_error
from rtdecode.scores.ties import duels
from train.closed_form.brain_maps import fit_logistic
from train.config.run_context import Arrays
from train.evaluation.beside import DECODER, OTHER_SUBJECT, RESTING_BRAIN, ROUTES, only, routes_of
from train.evaluation.film_scores import Scores
from train.evaluation.reconstruct import brain_of
from train.evaluation.result import Figures
from train.evaluation.section import Decoded, EvaluatedRun, HeldOutWindows, Scorer, Section
from train.interface.system import System

# Kinds of windows that hold no brain that the decoder could read. They share a quarter of the mixture in
# which probabilities are held against what is true; a further quarter are windows of the other kind.
_RESTING = "rest"
_STRANGER = "other_subject"
_CAP_MOVED = "cap"
NEITHER = (_RESTING, _STRANGER, "noise", _CAP_MOVED)
INCONSISTENT = "inconsistent"
# The judged windows themselves.
_TRUE = ""
# Kinds that need a modality beside or instead of the other say nothing of a route without it.
_ROUTES = {_CAP_MOVED: ("", "_eeg"), INCONSISTENT: ("",)}
# Column of the probability that there is a brain.
BRAIN = 0
_MODALITIES = ("eeg", "fmri")
# Columns of the energies that a route has.
_ENERGIES = {"_eeg": slice(0, 1), "_fmri": slice(1, 2)}
_ALL_COLUMNS = slice(None)
# Seeds of the noise and of the order in which the cap's channels are plugged.
_NOISE = 61
_CAP = 62

Matrix = NDArray[np.float64]


class BrainPresence(Section):
    """See the module. Of a system that says nothing of brains there are no figures."""

    def begin(self, run: EvaluatedRun) -> Scorer:
        """Start to score a run."""
        routes = tuple(routes_of(run.bundle.manifest))
        return _Noticed(Presence(run.system, float(run.bundle.manifest.grid.hop), routes))


class _Noticed(Scorer):
    def __init__(self, presence: "Presence") -> None:
        self._presence = presence
        self._confidence: Matrix | None = None

    def wants(self, suffix: str) -> bool:
        return suffix == DECODER

    def score(self, suffix: str, decoded: Decoded, windows: HeldOutWindows) -> Scores:
        self._confidence = decoded.confidence
        return {}

    def stand_in(self, suffix: str, decoded: Decoded, windows: HeldOutWindows) -> Scores:
        return {}

    def close(self, windows: HeldOutWindows, scores: Mapping[str, Scores]) -> dict[str, Scores]:
        # A clip keeps its promise by being told apart, if the section `identification` did that.
        unknown = np.full(len(windows.truth.clips), np.nan)
        wins, _ = scores.get(DECODER, {}).get("identification_2way_centred", (unknown, None))
        controls = {_RESTING: RESTING_BRAIN, _STRANGER: OTHER_SUBJECT}
        signals = {
            kind: windows.controls[suffix] for kind, suffix in controls.items() if suffix in windows.controls
        }
        self._presence.add(windows.inputs, signals, self._confidence, wins)
        return {}

    def figures(self, units: NDArray[np.int64]) -> Figures:
        return self._presence.figures(units)


@dataclass(frozen=True)
class _Seen:
    """What is known of the windows of one kind in one session.

    Attributes
    ----------
    brain : dict
        Route -> probability of a brain, (window,).
    energies : (window, modality)
        Logarithm of the mean square of the normalised signals, see `energies`.
    """

    brain: dict[str, Matrix]
    energies: Matrix


@dataclass
class Presence:
    """The judge of what a system says of brains. Sessions are added one by one, and figures asked for once.

    Parameters
    ----------
    system : System
        The system that is asked for a brain, see `train.evaluation.reconstruct.brain_of`.
    hop_s : float
        Distance between the starts of two windows, s.
    routes : sequence of str
        Suffixes of the modalities that it is given.
    """

    system: System
    hop_s: float
    routes: Sequence[str] = tuple(ROUTES)
    _sessions: dict[str, list[_Seen]] = field(default_factory=dict)
    _confidence: list[Matrix] = field(default_factory=list)
    _wins: list[Matrix] = field(default_factory=list)
    _first: Arrays = field(default_factory=dict)
    _before: Arrays = field(default_factory=dict)

    def add(
        self,
        inputs: Arrays,
        controls: Mapping[str, Arrays],
        confidence: Matrix | None,
        wins: Matrix,
    ) -> None:
        """Look at the windows of one session, if the system says anything of brains.

        Parameters
        ----------
        inputs : dict
            Signals by port of the judged windows.
        controls : mapping
            ``rest`` and ``other_subject`` -> the same of as many windows of these, if there are such.
        confidence : (window,) or None
            What the system promised for its clips.
        wins : (window,)
            Share of the 2-way comparisons that each clip won.
        """
        if brain_of(self.system, inputs) is None:
            return
        number = len(self._sessions.get(_TRUE, []))
        kinds = {
            _TRUE: inputs,
            "noise": noise(inputs, np.random.default_rng((number, _NOISE))),
            **controls,
        }
        if "eeg" in inputs:
            kinds[_CAP_MOVED] = permuted(inputs)
        # Of one modality alone nothing is inconsistent.
        if {*_MODALITIES} <= {*inputs}:
            if self._before:
                kinds[INCONSISTENT] = together(inputs, self._before)
            else:
                self._first = inputs
            self._before = inputs
        for kind, windows in kinds.items():
            self._sessions.setdefault(kind, []).append(self._look(kind, windows))
        self._wins.append(wins)
        if confidence is not None:
            self._confidence.append(confidence)

    def _look(self, kind: str, windows: Arrays) -> _Seen:
        brain = {}
        for route in self._routes(kind):
            readings = brain_of(self.system, only(windows, ROUTES[route]))
            assert readings is not None, "asked of a system that says nothing of brains"
            brain[route] = readings[:, BRAIN]
        return _Seen(brain, energies(windows))

    def _routes(self, kind: str) -> list[str]:
        return [route for route in _ROUTES.get(kind, self.routes) if route in self.routes]

    def figures(self, units: NDArray[np.int64]) -> Figures:
        """Make the figures of all sessions; none for a system that says nothing of brains.

        Parameters
        ----------
        units : (window,) int
            Of the windows of all sessions, one after the other. Those with the same number are one unit.
        """
        if not self._sessions:
            return {}
        self._close()
        figures: Figures = {}
        for kind in (*NEITHER, INCONSISTENT):
            for route in self._routes(kind) if kind in self._sessions else ():
                figures |= self._told_apart(kind, route, units)
        return figures | self._promised(units)

    def _close(self) -> None:
        """Mix the first session, which had none before it, with the last one.

        If it is the only one, it is mixed with itself, unless its halves are too close in time.
        """
        if not self._first:
            return
        sessions = len(self._sessions[_TRUE])
        count = len(self._wins[0])
        shift_s = count // 2 * self.hop_s
        if sessions > 1 or shift_s >= MIN_SHIFT_S:
            mixed = together(self._first, self._before)
            self._sessions.setdefault(INCONSISTENT, []).insert(0, self._look(INCONSISTENT, mixed))

    def _told_apart(self, kind: str, route: str, units: NDArray[np.int64]) -> Figures:
        name = f"brain_auroc_{kind}{route}"
        decoder_auroc = _Auroc.of(self._brain(_TRUE, route), self._brain(kind, route), units)
        figures = {name: _figure(decoder_auroc.value, decoder_auroc.interval(), 0.5, len(units))}
        # Without another session, or without rest, there is nothing that the detector could learn from.
        if len(self._sessions[_TRUE]) > 1 and _RESTING in self._sessions:
            energy = _Auroc.of(self._energetic(_TRUE, route), self._energetic(kind, route), units)
            above = _figure(decoder_auroc.value - energy.value, decoder_auroc.above(energy), 0.0, len(units))
            figures[f"{name}_energy"] = _figure(energy.value, energy.interval(), 0.5, len(units))
            figures[f"{name}_above_energy"] = above | {"constant": None}
        return figures

    def _brain(self, kind: str, route: str) -> Matrix:
        return np.concatenate([session.brain[route] for session in self._sessions[kind]])

    def _energetic(self, kind: str, route: str) -> Matrix:
        """Tell windows of film from those of rest by energy alone, as the other sessions taught it."""
        columns = _ENERGIES.get(route, _ALL_COLUMNS)
        scores = []
        for number, session in enumerate(self._sessions[kind]):
            sides = [
                np.concatenate(
                    [other.energies for n, other in enumerate(self._sessions[side]) if n != number]
                )
                for side in (_RESTING, _TRUE)
            ]
            taught = np.repeat([0.0, 1.0], [len(side) for side in sides])
            line = fit_logistic(np.concatenate(sides)[:, columns], taught)
            scores.append(session.energies[:, columns] @ line[:-1] + line[-1])
        return np.concatenate(scores)

    def _promised(self, units: NDArray[np.int64]) -> Figures:
        figures: Figures = {}
        wins = np.concatenate(self._wins)
        if len(self._confidence) == len(self._wins):
            sure = np.concatenate(self._confidence)
            # A film of one window has nothing that it could be told from, and where no brain is read nothing
            # is promised.
            comparable = np.isfinite(wins) & np.isfinite(sure)
            if comparable.any():
                figures |= promises("confidence", sure[comparable], wins[comparable], units[comparable])
        if INCONSISTENT in self._sessions:
            true = self._brain(_TRUE, "")
            probabilities = np.concatenate([true, self._mixture()])
            right = np.repeat([1.0, 0.0], len(true))
            figures |= promises("brain", probabilities, right, np.concatenate([units, units]))
        return figures

    def _mixture(self) -> Matrix:
        """Choose one other window for each true one: every second is inconsistent, the rest take turns."""
        neither = [kind for kind in NEITHER if kind in self._sessions]
        by_kind = {kind: self._brain(kind, "") for kind in (*neither, INCONSISTENT)}
        mixture = []
        for number in range(len(by_kind[INCONSISTENT])):
            turn = neither[number // 2 % len(neither)]
            mixture.append(by_kind[INCONSISTENT if number % 2 == 0 else turn][number])
        return np.array(mixture)


def noise(inputs: Arrays, rng: np.random.Generator) -> Arrays:
    """Put white noise in the place of the signals, as strong in each window and modality as they were."""
    noisy = dict(inputs)
    for name in _present(inputs):
        values = inputs[name]
        power = np.square(values, dtype=np.float64).mean(axis=(1, 2), keepdims=True)
        noisy[name] = (rng.standard_normal(values.shape) * np.sqrt(power)).astype(np.float32)
    return noisy


def _present(inputs: Arrays) -> list[str]:
    return [name for name in _MODALITIES if name in inputs]


def permuted(inputs: Arrays) -> Arrays:
    """Plug every channel of the cap in another place, the same in all windows; volumes stay as they are."""
    return {**inputs, "eeg": in_other_places(inputs["eeg"], np.random.default_rng(_CAP), 1)}


def in_other_places(signal: NDArray[np.float32], rng: np.random.Generator, axis: int) -> NDArray[np.float32]:
    """Take what lies at every place along an axis from another one, the same in all windows."""
    order = rng.permutation(signal.shape[axis])
    # One round through all of them, so that none stays where it is.
    sources = np.empty_like(order)
    sources[order] = np.roll(order, 1)
    return np.take(signal, sources, axis)


def together(inputs: Arrays, other_inputs: Arrays) -> Arrays:
    """Put the volumes of windows beside the EEG of others, which is taken half of their session later."""
    half = len(other_inputs["eeg"]) // 2
    return {**inputs, **{name: np.roll(other_inputs[name], half, axis=0) for name in ("eeg", "eeg_mask")}}


def energies(inputs: Arrays) -> Matrix:
    """Compute the logarithm of the mean square of the normalised signals, (window, modality)."""
    powers = [np.square(inputs[name], dtype=np.float64).mean(axis=(1, 2)) for name in _present(inputs)]
    # Signals are in units of their own spread, so that this is next to nothing.
    return np.log(np.stack(powers, axis=1) + 1e-9)


@dataclass(frozen=True)
class _Auroc:
    """The area under the curve, and what it is made of.

    Attributes
    ----------
    value : float
        Share of pairs in which the true window scores higher; a tie is half.
    won : (unit, unit)
        How often a true window of the one unit scores higher than another window of the other.
    size : (unit,)
        Number of windows on each side.
    """

    value: float
    won: Matrix
    size: Matrix

    @staticmethod
    def of(true: Matrix, other: Matrix, units: NDArray[np.int64]) -> "_Auroc":
        """Compute the share of pairs in which the true window scores higher; a tie is half.

        Windows of both sides with the same number in `units` are one unit.
        """
        ids = np.unique(units, return_inverse=True)[1]
        member = np.eye(int(ids.max()) + 1)[ids]
        higher = duels(true[:, None], other[None])
        won = member.T @ higher @ member
        return _Auroc(float(higher.mean()), won, member.sum(axis=0))

    def areas(self, counts: Matrix) -> Matrix:
        """Compute the area where each unit was drawn so often, (draw, unit) -> (draw,)."""
        sums = np.einsum("rg,gh,rh->r", counts, self.won, counts, optimize=True)
        return sums / np.square(counts @ self.size)

    def interval(self) -> Interval:
        """Make the interval of the area."""
        single = bool((self.size == 1).all())
        return intervals.of_statistic(self.areas, len(self.size), bounded=True, single=single)

    def above(self, other: "_Auroc") -> Interval:
        """Make the interval of how much larger this area is than another of the same units."""
        single = bool((self.size == 1).all())
        return intervals.of_statistic(
            lambda counts: self.areas(counts) - other.areas(counts), len(self.size), single=single
        )


def promises(name: str, probabilities: Matrix, right: Matrix, units: NDArray[np.int64]) -> Figures:
    """Make the figures of probabilities against what came true.

    Parameters
    ----------
    name : str
        What the figures' names begin with.
    probabilities, right : (promise,)
        Probabilities, and whether (or how often) each came true, from 0 to 1.
    units : (promise,) int
        Promises with the same number are one unit of intervals.

    Returns
    -------
    dict
        ``NAME_calibration_error`` and ``NAME_brier_skill`` (`rtdecode.scores.reliability`).
    """
    figures: Figures = {}
    error = calibration_error(probabilities, right)
    if np.isfinite(error):
        # Resampling adds its own variance to a square. On average it must not.
        squares = _interval(squared_calibration_error, probabilities, right, units, centred=True)
        figure = _figure(error, _rooted(squares), None, len(probabilities))
        figures[f"{name}_calibration_error"] = figure | {"constant": 0.0}
    skill = brier_skill(probabilities, right)
    if np.isfinite(skill):
        skills = _interval(brier_skill, probabilities, right, units)
        figures[f"{name}_brier_skill"] = _figure(skill, skills, 0.0, len(probabilities))
    return figures


def _interval(
    statistic: Callable[[Matrix, Matrix], float],
    promised: Matrix,
    right: Matrix,
    groups: NDArray[np.int64],
    *,
    centred: bool = False,
) -> Interval:
    ids = np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(ids)

    def resampled(counts: Matrix) -> Matrix:
        draws = [np.repeat(np.arange(len(ids)), row[ids].astype(np.int64)) for row in counts]
        return np.array([statistic(promised[rows], right[rows]) for rows in draws])

    # A window has a second promise where another one stands beside it.
    return intervals.of_statistic(resampled, len(sizes), single=bool(sizes.max() <= 2), centred=centred)


def _rooted(squares: Interval) -> Interval:
    """Take the root of an interval of squares, which may reach below 0 by chance, and is cut there."""
    if squares.ci95 is None:
        return squares
    roots = [float(np.sqrt(max(0.0, end))) for end in squares.ci95]
    return replace(squares, ci95=roots, cut=squares.ci95[0] < 0)


def _figure(value: float, interval: Interval, chance: float | None, n: int) -> dict[str, Any]:
    """Lay out a figure; one that always says the same does as chance does."""
    figure = {"value": value, "chance": chance, "shuffled": None, "constant": chance}
    return figure | interval.entries() | {"n": n}
