"""What to read of the figures of a run: two sentences, and which figures are the main ones.

The names of figures end in what was decoded: nothing for the decoder itself, and the suffix of a floor or of
a control. `train.evaluation.page` and the programs show what is found here.
"""

from typing import Any

from rtdecode.scores.intervals import ends
from train.evaluation.beside import (
    DECODED_COLOURS,
    NEAREST,
    NULL,
    ORACLE,
    OTHER_FILM,
    OTHER_SUBJECT,
    RESTING_BRAIN,
    TOLD_COLOURS,
)
from train.evaluation.film_figures import ENOUGH, at_chance
from train.evaluation.image_similarity import FROZEN
from train.evaluation.published import FILM, HALVES, MARGINAL, TRAINING
from train.evaluation.result import Figures

# Suffixes of what stands beside a figure -> what it is called.
REFERENCE_HEADINGS = {
    NULL: "null brain",
    DECODED_COLOURS[0]: "decoded mean colour",
    DECODED_COLOURS[1]: "decoded still layout",
    NEAREST: "nearest training clip",
    TOLD_COLOURS[0]: "told mean colour",
    TOLD_COLOURS[1]: "told still layout",
    ORACLE: "ridge, same data",
    MARGINAL: "marginal",
    FROZEN: "standing still",
    FILM: "the film itself",
    HALVES: "halves of the film",
    TRAINING: "training clips",
}
# Suffixes of brains that tell nothing of the film -> what they are called.
CONTROLS = {
    NULL: "null brain",
    OTHER_FILM: "brain at another film",
    RESTING_BRAIN: "brain at rest",
    OTHER_SUBJECT: "another participant",
}
# What the headline says, and what a clip must be better than to be more than colour: the first that is there.
_HEADLINES = {
    "identification_2way_centred": "Two windows are told apart by their clips in {value} of all pairs",
    "identification_2way": "Two windows are told apart by their clips in {value} of all pairs",
    "identification_2way_features": "Two windows are told apart by their features in {value} of all pairs",
    "classification_top1": "The category of a window is right in {value}",
}
# Floors that the sentences name, in this order.
_NAMED_FLOORS = (NULL, *DECODED_COLOURS, ORACLE)


def main_figures(figures: Figures) -> list[str]:
    """Name the figures that were computed of the null brain as well; all, if there is none of them."""
    with_null = [name for name in figures if f"{name}{NULL}" in figures]
    return with_null or list(figures)


def reading(figures: Figures) -> list[str]:
    """Say in two sentences what to read: the headline beside its floors, and what it means.

    Parameters
    ----------
    figures : dict
        Metric with suffix -> {value, chance, shuffled, constant, ci95, n}.
    """
    name = next((name for name in _HEADLINES if figures.get(name, {}).get("value") is not None), None)
    if name is None:
        return [
            "No headline figure could be computed: there are too few windows that can be told apart.",
            "What is missing is listed with its reason.",
        ]
    figure = figures[name]
    within = f" (95 %: {ends(figure)})" if figure["ci95"] else ""
    sampling = f", on {figure['n']} windows drawn of {figure['drawn_of']}" if "drawn_of" in figure else ""
    floors = {REFERENCE_HEADINGS[suffix]: figures.get(f"{name}{suffix}") for suffix in _NAMED_FLOORS}
    computed = {
        floor: entry for floor, entry in floors.items() if entry is not None and entry["value"] is not None
    }
    comparisons = [
        f"a guess {figure['chance']:.3f}",
        *(f"{floor} {entry['value']:.3f}" for floor, entry in computed.items()),
    ]
    first = _HEADLINES[name].format(value=f"{figure['value']:.3f}")
    return [
        f"{first}{within}{sampling}; beside it: {', '.join(comparisons)}.",
        _meaning(name, figure, figures),
    ]


def _meaning(name: str, figure: dict[str, Any], figures: Figures) -> str:
    """Say which floors the headline lies above, by its lower end or by a paired difference."""
    if figure["ci95"] is None:
        return f"There is no interval, so that nothing can be said of it yet: {_reason(figure)}."
    low = figure["ci95"][0]
    if low <= figure["chance"]:
        return "Its interval does not lie above chance: these clips tell nothing of what was watched."
    above = ["chance"]
    below = []
    for suffix in _NAMED_FLOORS:
        floor = figures.get(f"{name}{suffix}")
        if floor is None or floor["value"] is None:
            continue
        paired = figures.get(f"{name}_above{suffix}", {}).get("ci95")
        is_above = paired[0] > 0 if paired else low > floor["value"]
        (above if is_above else below).append(REFERENCE_HEADINGS[suffix])
    not_above = f", and not above {_joined(below)}" if below else ""
    return f"Its interval lies above {_joined(above)}{not_above}."


def _joined(words: list[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _reason(figure: dict[str, Any]) -> str:
    interval = figure.get("interval") or {}
    return interval.get("reason") or "no units were counted"


def at_chance_words(figure: dict[str, Any]) -> str:
    """Say whether a control is at chance, or that there are too few windows to tell."""
    if figure["ci95"] is None or figure["n"] < ENOUGH:
        return f"too few windows to tell ({figure['n']} of {ENOUGH})"
    return "at chance" if at_chance(figure) else "NOT at chance"


def missing(figures: Figures) -> list[dict[str, Any]]:
    """List the figures that could not be computed, by reason."""
    names: dict[str, list[str]] = {}
    for name, figure in figures.items():
        if figure["value"] is None:
            names.setdefault(figure.get("reason") or "no window gives it", []).append(name)
    return [{"why": reason, "figures": ", ".join(some)} for reason, some in names.items()]
