"""What is chosen on held-out training sessions: settings of a system, and what its confidence is worth.

A system comes in as `HeldOut`, which draws its held-out windows under settings that are being tried. The
settings that were chosen and the weights of the confidence go out. The system puts them where they belong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rtdecode.scores.accuracy import correlations, identification_nway
from train.closed_form.brain_maps import fit_logistic

# Identification that may be given up for a better value of the figure that is preferred.
_SLACK = 0.01
_IDENTIFICATION = "identification_2way"


@dataclass(frozen=True)
class Drawn:
    """Held-out windows as a system draws them.

    Attributes
    ----------
    clips : uint8, (window, frame, row, column, 3)
    doubt : (window, feature)
        What tells how sure the system is of each clip, for instance the entropies of its probabilities.
    """

    clips: NDArray[np.uint8]
    doubt: NDArray[np.float64]


class HeldOut(Protocol):
    """Windows of sessions that no part of a system was trained on, and the system that draws them.

    Attributes
    ----------
    settings : mapping
        Name -> the values to be tried, in the order in which the settings are chosen.
    routes : sequence of str
        The sets of modalities that a window may have, by name. Settings are chosen on the first one.
    truths : uint8, (window, frame, row, column, 3)
        What was shown.
    mean_clip : (frame, row, column, 3)
        The mean of the training clips, which is taken off before clips are correlated.
    preferred : str
        The one of `figures` that decides between settings that identify equally well.
    """

    settings: Mapping[str, Sequence[float]]
    routes: Sequence[str]
    truths: NDArray[np.uint8]
    mean_clip: NDArray[np.floating]
    preferred: str

    def draw(self, route: str, settings: Mapping[str, float]) -> Drawn:
        """Draw every window by one route, from the same noise each time."""
        ...

    def figures(self, clips: NDArray[np.uint8]) -> dict[str, float]:
        """Measure what else can be told of clips that were drawn."""
        ...


@dataclass(frozen=True)
class Tuned:
    """What was found.

    Attributes
    ----------
    settings : dict
        Name -> the value that was chosen.
    confidence : dict
        Route -> weights of the features of doubt, and an offset, (feature + 1,).
    table : list of dict
        Settings, identification and further figures of everything that was tried.
    """

    settings: dict[str, float]
    confidence: dict[str, NDArray[np.float64]]
    table: list[dict[str, float]]


def tune(held: HeldOut) -> Tuned:
    """Choose the settings one after the other, and fit the confidence at those that were chosen.

    A setting that is not chosen yet has its middle value. Of the values of a setting, the one is chosen whose
    preferred figure is best, among those whose 2-way identification lies within 0.01 of the best. The
    confidence is, by route, a logistic regression of the share of 2-way comparisons that a clip wins on the
    features of its doubt.
    """
    chosen = {name: values[len(values) // 2] for name, values in held.settings.items()}
    table: list[dict[str, float]] = []
    for name, values in held.settings.items():
        rows = [row for row in table if all(row[other] == value for other, value in chosen.items())]
        known = {row[name] for row in rows}
        found = [_tried(held, chosen | {name: value}) for value in values if value not in known]
        chosen[name] = _best(rows + found, held.preferred)[name]
        table += found
    confidence: dict[str, NDArray[np.float64]] = {}
    for route in held.routes:
        drawn = held.draw(route, chosen)
        confidence[route] = fit_logistic(drawn.doubt, _wins(drawn.clips, held))
    return Tuned(chosen, confidence, table)


def _tried(held: HeldOut, settings: dict[str, float]) -> dict[str, float]:
    clips = held.draw(held.routes[0], settings).clips
    return settings | {_IDENTIFICATION: float(_wins(clips, held).mean())} | held.figures(clips)


def _best(table: list[dict[str, float]], preferred: str) -> dict[str, float]:
    best = max(row[_IDENTIFICATION] for row in table)
    fair = [row for row in table if row[_IDENTIFICATION] >= best - _SLACK]
    return max(fair, key=lambda row: row[preferred])


def _wins(clips: NDArray[np.uint8], held: HeldOut) -> NDArray[np.float64]:
    """Share of the 2-way comparisons that each clip wins; the last frame belongs to the next window too."""
    corr = correlations(list(clips[:, :-1]), list(held.truths[:, :-1]), held.mean_clip)
    return identification_nway(corr, ~np.eye(len(clips), dtype=bool), 2)
