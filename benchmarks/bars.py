"""The bars of the compact model, set before it is judged: some given, some from the ridge oracle.

python -m benchmarks.bars                   # write the section "compact" of bars.json
python -m benchmarks.bars DIR/figures.json  # hold figures of `python -m train.evaluate RUN out=DIR` to it
"""

import json
import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

PATH = Path(__file__).with_name("bars.json")
PRESETS = {"": "easy", "default/": "default"}
# Of what the oracle reaches above chance, and of what it gains by fusion.
SHARE = 0.8
CHANCE = {"identification_2way": 1 / 2, "identification_50way": 1 / 50}
# Milliseconds at p95, alone and on one thread, and how much slower 50 guided steps are than 4.
SPEED = {"clip_4_steps": 250.0, "first_frame": 100.0, "fifty_steps_over_four": 10.0}

_GIVEN = (
    ("identification_2way", "value", ">=", 0.90),
    ("identification_2way_above_background", "low", ">", 0.0),
    ("identification_2way_same_background", "value", ">=", 0.75),
    ("psnr_above_mean_clip", "value", ">=", 3.0),
    ("attribute_background", "value", ">=", 0.90),
    ("attribute_texture", "value", ">=", 0.45),
    ("attribute_color", "value", ">=", 0.60),
    ("attribute_shape", "value", ">=", 0.45),
    ("seam_ratio", "value", "<=", 1.5),
    ("carry_gain_2way", "value", ">=", 0.0),
)
_SHIFTED = (0.45, 0.55)
_RULES: dict[str, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le, ">": operator.gt}


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes
    ----------
    figure : str
        As `train.evaluate` names it; presets other than ``easy`` before a slash.
    part : str
        ``value``, ``low`` or ``high`` end of its interval, or ``shuffled``.
    rule : str
        How the figure stands to the bar; ``none`` where the oracle shows nothing to be reached.
    bar : float or None
    why : str
    """

    figure: str
    part: str
    rule: str
    bar: float | None
    why: str


@dataclass(frozen=True)
class Verdict:
    """A bar, what was found (None: nothing was), and whether it passes."""

    bar: Bar
    found: float | None
    passed: bool


def compact(oracle: Mapping[str, Any]) -> list[Bar]:
    """Set the bars of the compact model.

    Parameters
    ----------
    oracle : mapping
        The section ``oracle`` of ``bars.json``.
    """
    bars = [Bar(figure, part, rule, bar, "given") for figure, part, rule, bar in _GIVEN]
    for prefix, preset in PRESETS.items():
        for name, chance in CHANCE.items():
            reached = oracle[preset]["both"][name]["value"]
            least = chance + SHARE * (reached - chance)
            why = f"{SHARE} of the oracle's {reached:.3f} above chance"
            bars.append(Bar(f"{prefix}{name}", "value", ">=", least, why))
        bars += [_fusion(f"{prefix}{name}", oracle[preset][name]) for name in _gains()]
        for route in ("", "_eeg", "_fmri"):
            for rule, bar in zip((">=", "<="), _SHIFTED, strict=True):
                figure = f"{prefix}identification_2way{route}"
                bars.append(Bar(figure, "shuffled", rule, bar, "a shifted brain is at chance"))
    return bars


def _gains() -> list[str]:
    return [name.replace("identification", "fusion_gain") for name in CHANCE]


def _fusion(figure: str, gain: Mapping[str, Any]) -> Bar:
    low, high = gain["ci95"]
    told = f"the oracle's {gain['value']:.4f} ({low:.4f} to {high:.4f})"
    if low <= 0:
        return Bar(figure, "value", "none", None, f"no gain is shown by {told}")
    return Bar(figure, "value", ">=", SHARE * gain["value"], f"{SHARE} of {told}")


def read() -> list[Bar]:
    """Read the bars as they were frozen."""
    return [Bar(**row) for row in json.loads(PATH.read_text())["compact"]["figures"]]


def verdicts(figures: Mapping[str, Mapping[str, Any]], bars: Sequence[Bar]) -> list[Verdict]:
    """Hold figures against bars; a figure that is not there does not pass."""
    found = [(bar, _part(figures.get(bar.figure), bar.part)) for bar in bars]
    return [Verdict(bar, value, _passes(bar, value)) for bar, value in found]


def _part(figure: Mapping[str, Any] | None, part: str) -> float | None:
    if figure is None:
        return None
    if part in ("low", "high"):
        return figure["ci95"][part == "high"]
    return figure[part]


def _passes(bar: Bar, found: float | None) -> bool:
    if bar.bar is None:
        return True
    return found is not None and _RULES[bar.rule](found, bar.bar)


def table(found: Sequence[Verdict]) -> Table:
    """Lay out verdicts for a person."""
    laid = Table("figure", "", "found", "bar", "verdict", "why")
    for one in found:
        number = "-" if one.found is None else f"{one.found:.4f}"
        bar = "none" if one.bar.bar is None else f"{one.bar.rule} {one.bar.bar:.4f}"
        verdict = "none" if one.bar.bar is None else "pass" if one.passed else "FAIL"
        laid.add_row(one.bar.figure, one.bar.part, number, bar, verdict, one.bar.why)
    return laid


def main(arguments: Sequence[str]) -> int:
    """Freeze the bars, or hold figures against them; 1 if one is missed."""
    if not arguments:
        held = json.loads(PATH.read_text())
        figures = [asdict(bar) for bar in compact(held["oracle"])]
        PATH.write_text(json.dumps(held | {"compact": {"figures": figures, "speed": SPEED}}, indent=1) + "\n")
        return 0
    found = verdicts(json.loads(Path(arguments[0]).read_text())["figures"], read())
    Console(width=None if sys.stdout.isatty() else 170).print(table(found))
    return 0 if all(one.passed for one in found) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
