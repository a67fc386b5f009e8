"""What Brain Netflix's claims come to on simulated participants: its choices on the same windows.

python -m benchmarks.brainnetflix [--json] [--write]     # about three hours on two cores, and resumable
python -m benchmarks.brainnetflix --variants four,one --steps 20 --sessions 1   # to try it

Each variant is trained once with a third of the recipe's steps, from one pretrained video model, beside the
whole system of four participants with as many. All decode the same fresh sessions of the first participant
(`train.compare`), and a variant's figure is how far it lies from its reference, window by window:

- one, two and eight participants against four, and one against four with ten minutes of each,
- readings aligned with captions and with nothing,
- clips that start at lower levels, and from noise alone.

Runs and comparisons that lie in the folder of `--work` already are left alone.
"""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import variants
from benchmarks.result_files import RESULTS, write
from benchmarks.variants import SHARED, changes_of, parser_of, steps_of, train_all
from rtdecode import terminal

_OUT = RESULTS / "brainnetflix.json"
_WORK = Path("runs/brainnetflix")
_TEN_MINUTES = "system.brain_minutes=10"
# What signals depend on: name of the run whose stages variants share -> its changes of the recipe.
STAGES: dict[str, tuple[str, ...]] = {
    SHARED: (),
    "of-one": ("data.subject=1",),
    "of-two": ("data.subject=1-2",),
    "of-eight": ("data.subject=1-8",),
}
# Variant -> the run whose stages it shares, and its further changes.
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "four": (SHARED, ()),
    "one": ("of-one", ()),
    "two": ("of-two", ()),
    "eight": ("of-eight", ()),
    "four-10-minutes": (SHARED, (_TEN_MINUTES,)),
    "one-10-minutes": ("of-one", (_TEN_MINUTES,)),
    "alignment-text": (SHARED, ("system.alignment=text",)),
    "alignment-none": (SHARED, ("system.alignment=none",)),
    "start-0.454": (SHARED, ("system.sampling.start_level=0.454",)),
    "start-0.695": (SHARED, ("system.sampling.start_level=0.695",)),
    "from-noise": (SHARED, ("system.sampling.start_level=1",)),
}
# Reference -> those that are compared with it.
COMPARISONS: dict[str, tuple[str, ...]] = {
    "four": (
        "one",
        "two",
        "eight",
        "alignment-text",
        "alignment-none",
        "start-0.454",
        "start-0.695",
        "from-noise",
    ),
    "four-10-minutes": ("one-10-minutes",),
}
# A third of the recipe's.
_STEPS = {"align": 67, "regress": 200}
_PRESETS = ("easy", "default")


def main() -> None:
    """Train, measure, print, and write where that was asked for."""
    parser = parser_of("benchmarks.brainnetflix", __doc__, _WORK, _OUT)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--presets", default=",".join(_PRESETS))
    options = parser.parse_args()
    steps = steps_of(options.steps, _STEPS)
    common = changes_of(steps, options.steps)
    names = options.variants.split(",")
    for stages, changes in STAGES.items():
        sharing = [*common, *changes]
        runs = {name: [*sharing, *VARIANTS[name][1]] for name in names if VARIANTS[name][0] == stages}
        if runs:
            train_all(options.work, "brainnetflix", runs, sharing, list(_STEPS), stages)
    figures: dict[str, Any] = {
        "steps": steps,
        "sessions": options.sessions,
        "comparisons": variants.with_references(
            options.work, COMPARISONS, names, options.presets.split(","), options.sessions
        ),
    }
    if options.write:
        write(_OUT, figures)
    if options.json:
        terminal.line(json.dumps(figures))
        return
    console = Console()
    for reference, summary in figures["comparisons"].items():
        for preset, of_preset in summary.items():
            console.print(variants.table(of_preset, preset, reference))


if __name__ == "__main__":
    main()
