"""Options that several commands share, the values some of them accept, and their checks."""

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rtdecode.disk import private
from rtdecode.errors import UsageError

# Seconds, minutes and factors beyond this are typing errors: as seconds it is four months.
_LARGEST = 1e7


def positive(option: typer.CallbackParam, value: float | None) -> float | None:
    """Refuse an option's value unless it is a number above 0, or None because it was not given."""
    # The comparison is false for NaN, which typer's own bounds would let through.
    if value is not None and not 0 < value < math.inf:
        raise UsageError(
            "option-not-positive",
            "{option} {value:g}: a number above 0 was expected.",
            option=option.opts[0],
            value=value,
        )
    return _bounded(option, value)


def from_zero(option: typer.CallbackParam, value: float | None) -> float | None:
    """Refuse an option's value unless it is a number from 0 on, or None because it was not given."""
    if value is not None and not 0 <= value < math.inf:
        raise UsageError(
            "option-negative",
            "{option} {value:g}: a number from 0 on was expected.",
            option=option.opts[0],
            value=value,
        )
    return _bounded(option, value)


def _bounded(option: typer.CallbackParam, value: float | None) -> float | None:
    if value is not None and value > _LARGEST:
        raise UsageError(
            "option-too-large",
            "{option} {value:g}: a number up to {most:g} was expected.",
            option=option.opts[0],
            value=value,
            most=_LARGEST,
        )
    return value


def _share(value: bool) -> bool:
    """Open to the group what this process writes from here on, or close it."""
    private.share_with_group(value)
    return value


Json = Annotated[bool, typer.Option("--json", help="Print JSON only.")]
Out = Annotated[Path | None, typer.Option(help="Output folder; default runs/COMMAND-TIME.", metavar="DIR")]
ReportFile = Annotated[
    Path | None, typer.Option(help="Report file; default OUT/report.json.", metavar="FILE")
]
BundleName = Annotated[str, typer.Option(help="A bundle's folder, or the name of a shipped one.")]
SubjectName = Annotated[
    str | None,
    typer.Option(
        "--subject", help="One of the bundle's subjects, by name or number; default: its own.", metavar="NAME"
    ),
]
Steps = Annotated[
    int | None, typer.Option(help="Denoising steps of a clip, 1 or more; default: the bundle's.", min=1)
]
Detail = Annotated[
    float | None,
    typer.Option(
        help="Share of the detail that no brain told, 0 (none) to 1 (all); default: the bundle's.",
        metavar="S",
        callback=from_zero,
    ),
]
Carry = Annotated[bool, typer.Option("--carry/--no-carry", help="Carry each clip on from the one before it.")]
Twin = Annotated[
    bool, typer.Option("--twin", help="Show what the bundle decodes from no signal beside each clip.")
]
Dashboard = Annotated[
    str | None,
    typer.Option(help="Serve a page for the operator, for example at 127.0.0.1:8080.", metavar="HOST:PORT"),
]
Outlet = Annotated[
    str | None,
    typer.Option(help="Send each clip's values as LSL streams, NAME-clips and others.", metavar="NAME"),
]
Osc = Annotated[
    str | None,
    typer.Option(help="Send each clip's values by OSC, for example to 127.0.0.1:9000.", metavar="HOST:PORT"),
]
Peers = Annotated[
    str | None,
    typer.Option(help="Hosts to ask for LSL streams if discovery is blocked.", metavar="HOST,..."),
]
Series = Annotated[int | None, typer.Option(help="Take this SeriesNumber alone.")]
Moco = Annotated[
    bool, typer.Option("--moco", help="Take the scanner's motion-corrected copy instead of the original.")
]
Include = Annotated[
    str,
    typer.Option(
        help="Take series whose name holds this, where the name alone speaks against them.",
        metavar="PATTERN",
    ),
]
Wait = Annotated[
    float,
    typer.Option(help="Seconds to wait for a reader of the EEG stream; 0: not at all.", callback=from_zero),
]


GroupReadable = Annotated[
    bool,
    typer.Option(
        "--group-readable",
        help="Let the group read what is written; default: its owner alone.",
        callback=_share,
    ),
]


class StartOn(StrEnum):
    """What starts a film."""

    trigger = "trigger"
    key = "key"
    now = "now"


class PresetName(StrEnum):
    """How informative the simulated participant's signals are."""

    easy = "easy"
    default = "default"
    hard = "hard"


class Existing(StrEnum):
    """What to do with files that were already in the folder at the start."""

    ignore = "ignore"
    read = "read"
