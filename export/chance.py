"""Judge a fit: how well held-out windows are identified, beside what fits to films that nobody saw give.

`report` prints and returns these figures by route, which is what a fit reads: ``fmri``, ``eeg`` or ``both``.
`check` refuses a fit whose figures do not differ from chance, and `say_routes` warns of single modalities
that do not.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from rtdecode.bundle import Manifest
from rtdecode.errors import RtDecodeError
from rtdecode.scores import intervals
from train.config.run_context import progress
from train.data.recorded import Recorded
from train.fitting.fitter import Fitted, Fitter, Matrix, Story, identified

# Chance of 2-way identification.
_CHANCE = 0.5
_NAMES = {"eeg": "EEG", "fmri": "fMRI"}
# Neighbouring windows are alike in film and signal, so the units of intervals are whole stretches of film of
# this length (s) rather than single windows; blocks of ten windows or more where there are fewer than 20.
_STRETCH_S = 24.0
# The films that nobody saw are shifted by ninths of the recording. The figure of one more of them is in 99 of
# 100 cases no more standard deviations than this above their mean: Student's t with seven degrees of freedom,
# 2.998, times the square root of 1 + 1/8 (Hahn and Meeker, Statistical Intervals: a prediction interval).
SHIFTS = tuple(n / 9 for n in range(1, 9))
_DEVIATIONS = 3.18


def report(
    console: Console, recorded: Recorded, story: Story, fitter: Fitter, fitted: Fitted
) -> dict[str, dict[str, Any]]:
    """Print 2-way identification of held-out windows by route, and return the figures.

    Beside each route stands its control: the same after fits to shifted films, which nobody saw, with what
    one of them would reach by luck. Whatever a fit chooses by held-out windows, such as the modality that is
    read, these fits choose as well.

    Parameters
    ----------
    console : Console
        Where the figures are printed.
    recorded : Recorded
        What was recorded of the participant.
    story : Story
        What was shown in each window.
    fitter : Fitter
        Fits the windows to the shifted films.
    fitted : Fitted
        The fit that is judged.

    Returns
    -------
    dict
        Route -> ``value``, ``chance``, ``ci95``, ``n`` and what `by_luck` returns.
    """
    nulls: dict[str, list[float]] = {route: [] for route in fitted.held_out}
    for share in progress(SHIFTS, "films that nobody saw"):
        other = story.shifted(share)
        control = fitter.fit(recorded, other)
        for route, values in nulls.items():
            values.append(float(identified(control.held_out[route], recorded, other).mean()))
    table = Table("2-way, held out, from", "value", "95 %", "of shifted films", "at most (99 %)")
    figures: dict[str, dict[str, Any]] = {}
    for route, points in fitted.held_out.items():
        figure: dict[str, Any] = figure_of(points, recorded, story) | by_luck(nulls[route])
        name = " + ".join(_read_by(route))
        cells = [figure["value"], figure["shifted"], figure["shifted_99"]]
        value, null, upper = (f"{cell:.3f}" for cell in cells)
        table.add_row(name, value, intervals.words(figure), null, upper)
        figures[route] = figure
    console.print(table)
    return figures


def figure_of(points: Matrix, recorded: Recorded, story: Story) -> dict[str, Any]:
    """Compute the identification of held-out windows, with an interval over stretches of film.

    Parameters
    ----------
    points : (window, target)
        What a fit makes of each window that it has not seen.
    recorded : Recorded
        What was recorded of the participant.
    story : Story
        What was shown in each window.

    Returns
    -------
    dict
        ``value``, ``chance``, ``ci95`` and ``n``, as `rtdecode.scores.intervals` has them.
    """
    scores = identified(points, recorded, story)
    units = intervals.stretches(stretches(recorded), recorded.film)
    return {
        "value": round(float(scores.mean()), 4),
        "chance": _CHANCE,
        **intervals.rounded(intervals.of_mean(scores, units).entries(), 4),
        "n": len(scores),
    }


def stretches(recorded: Recorded) -> NDArray[np.int64]:
    """Number the stretch of film that each window begins in: 24 s of one recording, (window,)."""
    # Stretches of different recordings never share a number.
    number = (recorded.start_s // _STRETCH_S).astype(np.int64)
    return recorded.film * (int(number.max()) + 1) + number


def by_luck(values: Sequence[float]) -> dict[str, float]:
    """Return the mean of figures for films that nobody saw, and what one more of them stays below.

    Parameters
    ----------
    values : sequence of float
        A figure for each of `SHIFTS`.

    Returns
    -------
    dict
        ``shifted``, the mean, and ``shifted_99``, which one more figure exceeds in one of 100 cases.
    """
    mean = float(np.mean(values))
    upper = mean + _DEVIATIONS * float(np.std(values, ddof=1))
    return {"shifted": round(mean, 4), "shifted_99": round(upper, 4)}


def check(figures: dict[str, dict[str, Any]]) -> None:
    """Refuse a fit that tells nothing, judged by the route that reads all modalities there are.

    Parameters
    ----------
    figures : dict
        As `report` returns them.

    Raises
    ------
    RtDecodeError
        If the interval of that route does not lie above chance, or its value not above what luck gives.
    """
    # The first route is ``both`` where both modalities were recorded (see `Fitted.held_out`).
    route = next(iter(figures))
    figure = figures[route]
    if not _beyond_chance(figure):
        low, high = figure["ci95"] or (0.0, 1.0)
        raise RtDecodeError(
            "fit-not-above-chance",
            "held-out windows are identified at {accuracy:.3f} (95 % {ci_low:.3f} to {ci_high:.3f}; "
            "after fits to films that nobody saw {null_mean:.3f}, at most {null_max:.3f}) from "
            "{modalities}, which does not differ from chance ({chance}): no bundle was written. "
            "Check that the film given is the one that was shown and began when the recording says, "
            "that the participant watched, and record ten minutes or more.",
            accuracy=figure["value"],
            ci_low=low,
            ci_high=high,
            null_mean=figure["shifted"],
            null_max=figure["shifted_99"],
            modalities=" + ".join(_NAMES[name] for name in _read_by(route)),
            chance=_CHANCE,
        )


def say_routes(
    console: Console, figures: dict[str, dict[str, Any]], recorded: Recorded, manifest: Manifest
) -> None:
    """Print which modalities the new bundle ignores, and warn of those that are at chance.

    Parameters
    ----------
    console : Console
        Where it is printed.
    figures : dict
        As `report` returns them; of ``both``, with ``alone`` and ``fused`` where one modality is read alone.
    recorded : Recorded
        What was recorded of the participant.
    manifest : Manifest
        Of the bundle that is fitted.
    """
    alone = figures.get("both", {}).get("alone")
    if alone is not None:
        both = figures["both"]
        console.print(
            f"Where both are present, only {_NAMES[alone]} is read: held-out windows are identified at "
            f"{both['value']:.3f} from {_NAMES[alone]} and at {both['fused']:.3f} from both. The other is "
            f"used only where {_NAMES[alone]} is absent."
        )
    for name in manifest.modalities:
        if getattr(recorded, name) is None:
            console.print(
                f"no {_NAMES[name]} was recorded: the new bundle draws nothing from {_NAMES[name]}."
            )
        elif not _beyond_chance(figures[name]):
            console.print(
                f"warning: {_NAMES[name]} alone does not differ from chance: a clip that rests on it alone "
                "shows nothing that was seen.",
                style="bold",
            )


def _beyond_chance(figure: dict[str, Any]) -> bool:
    """Return whether the interval lies above chance, and the value above what luck gives."""
    # Too few windows for an interval prove nothing.
    low, _ = figure["ci95"] or (0.0, 1.0)
    return low > max(_CHANCE, figure["shifted"]) and figure["value"] > figure["shifted_99"]


def _read_by(route: str) -> tuple[str, ...]:
    """Return the modalities that a route reads."""
    return ("fmri", "eeg") if route == "both" else (route,)
