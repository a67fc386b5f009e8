"""Choices made on held-out training sessions: settings of a system, and weights of its confidence.

A system comes in as a `HeldOut`, which draws its held-out windows under settings that are being tried. The
chosen settings and the weights of the confidence go out, and the system puts them where they belong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from train.closed_form.brain_maps import fit_logistic
from train.metrics.wins import wins_in_session

# The loss of identification that is accepted for a better value of the preferred figure.
_SLACK = 0.002
_IDENTIFICATION = "identification_2way"


@dataclass(frozen=True)
class TrialClips:
    """Held-out windows as a system draws them.

    Attributes
    ----------
    clips : uint8, (window, frame, row, column, 3)
        The clip that was drawn for each window.
    doubt : (window, feature)
        Features that tell how sure the system is of each clip, such as the entropies of its probabilities.
    """

    clips: NDArray[np.uint8]
    doubt: NDArray[np.float64]


class HeldOut(Protocol):
    """Windows of sessions that no part of a system was trained on, and the system that draws them.

    Attributes
    ----------
    settings : mapping
        Name -> the values to try, in the order in which the settings are chosen.
    routes : sequence of str
        The sets of modalities that a window may have, by name. Settings are chosen on the first.
    truths : uint8, (window, frame, row, column, 3)
        What was shown.
    sessions : int, (window,)
        Windows are identified among those of the same number.
    mean_clip : (frame, row, column, 3)
        The mean of the training clips, which is subtracted before clips are correlated.
    preferred : str
        Name of the figure (of `figures`) that decides between settings that identify equally well.
    """

    settings: Mapping[str, Sequence[float]]
    routes: Sequence[str]
    truths: NDArray[np.uint8]
    sessions: NDArray[np.int64]
    mean_clip: NDArray[np.floating]
    preferred: str

    def draw(self, route: str, settings: Mapping[str, float]) -> TrialClips:
        """Draw every window by one route, from the same noise at every call."""
        ...

    def figures(self, clips: NDArray[np.uint8]) -> dict[str, float]:
        """Compute further figures of the drawn clips."""
        ...


class HeldOutTogether:
    """Held-out windows of several participants, who share the settings of what draws them.

    Parameters
    ----------
    parts : sequence of HeldOut
        Those of each. Windows are identified among those of the same participant.
    """

    def __init__(self, parts: Sequence[HeldOut]) -> None:
        first = parts[0]
        self._parts = parts
        self.settings = first.settings
        self.routes = first.routes
        self.preferred = first.preferred
        self.mean_clip = first.mean_clip
        self.truths = np.concatenate([part.truths for part in parts])
        # Sessions have numbers of their own throughout.
        offsets = np.cumsum([0, *(int(part.sessions.max()) + 1 for part in parts)])
        numbers = [part.sessions + offset for part, offset in zip(parts, offsets[:-1], strict=True)]
        self.sessions = np.concatenate(numbers)

    def draw(self, route: str, settings: Mapping[str, float]) -> TrialClips:
        """Draw the windows of each participant."""
        draws = [part.draw(route, settings) for part in self._parts]
        clips = np.concatenate([part.clips for part in draws])
        return TrialClips(clips, np.concatenate([part.doubt for part in draws]))

    def figures(self, clips: NDArray[np.uint8]) -> dict[str, float]:
        """Return the mean of the participants' figures."""
        ends = np.cumsum([len(part.truths) for part in self._parts])
        split = np.split(clips, ends[:-1])
        figures = [part.figures(its_clips) for part, its_clips in zip(self._parts, split, strict=True)]
        return {name: float(np.mean([row[name] for row in figures])) for name in figures[0]}


@dataclass(frozen=True)
class Chosen:
    """The chosen settings.

    Attributes
    ----------
    settings : dict
        Name -> the chosen value.
    table : list of dict
        Settings, identification and further figures of everything that was tried.
    """

    settings: dict[str, float]
    table: list[dict[str, float]]


def choose(held_out: HeldOut) -> Chosen:
    """Choose the settings one after the other.

    A setting that is not chosen yet has its middle value. Among the values of a setting whose 2-way
    identification lies within 0.002 of the best, the one with the best preferred figure is chosen.
    """
    chosen = {name: values[len(values) // 2] for name, values in held_out.settings.items()}
    table: list[dict[str, float]] = []
    for name, values in held_out.settings.items():
        # The values chosen so far were tried together already, and are not drawn again.
        rows = [row for row in table if all(row[other] == value for other, value in chosen.items())]
        tried_values = {row[name] for row in rows}
        new_rows = [_tried(held_out, chosen | {name: value}) for value in values if value not in tried_values]
        chosen[name] = _best(rows + new_rows, held_out.preferred)[name]
        table += new_rows
    return Chosen(chosen, table)


def fit_confidence(held_out: HeldOut, settings: Mapping[str, float]) -> dict[str, NDArray[np.float64]]:
    """Fit how sure a system is of its clips: weights of the features of doubt and an offset, by route.

    They are a logistic regression of the share of 2-way comparisons that a clip wins.
    """
    weights: dict[str, NDArray[np.float64]] = {}
    for route in held_out.routes:
        decoded = held_out.draw(route, settings)
        weights[route] = fit_logistic(decoded.doubt, _wins(decoded.clips, held_out))
    return weights


def _tried(held_out: HeldOut, settings: dict[str, float]) -> dict[str, float]:
    clips = held_out.draw(held_out.routes[0], settings).clips
    return settings | {_IDENTIFICATION: float(_wins(clips, held_out).mean())} | held_out.figures(clips)


def _best(table: list[dict[str, float]], preferred: str) -> dict[str, float]:
    best = max(row[_IDENTIFICATION] for row in table)
    fair = [row for row in table if row[_IDENTIFICATION] >= best - _SLACK]
    return max(fair, key=lambda row: row[preferred])


def _wins(clips: NDArray[np.uint8], held_out: HeldOut) -> NDArray[np.float64]:
    return wins_in_session(list(clips), list(held_out.truths), held_out.sessions, held_out.mean_clip)
