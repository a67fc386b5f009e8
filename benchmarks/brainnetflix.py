"""What Brain Netflix's claims come to on simulated participants: its choices on the same windows.

python -m benchmarks.brainnetflix [--json] [--write]     # about three hours on two cores, and resumable
python -m benchmarks.brainnetflix --variants four,one --steps 20 --sessions 1   # to try it

Each variant is trained once with a third of the recipe's steps, from one pretrained video model, beside the
whole system of four participants with as many. All decode the same fresh sessions of the first participant
(`train.compare`), and a variant's figure is how far it lies from its reference, window by window:

- one, two and eight participants against four,
- one against four with ten minutes of each, and against four of whom the three others have forty,
- four participants who watch the same films, against two groups with films of their own, and four,
- readings aligned with captions and with nothing,
- clips that start at lower levels, and from noise alone,
- a ridge of the first participant's volumes, which learns from the same films.

Runs and comparisons that lie in the folder of `--work` already are left alone.
"""

import sys
from pathlib import Path

from benchmarks.result_files import RESULTS
from benchmarks.variants import SHARED, SHORT_WINDOWS, Ablation, Variant, main, ridge_beside

_OUT = RESULTS / "brainnetflix.json"
_WORK = Path("runs/brainnetflix")
_TEN_MINUTES = "system.brain_minutes=10"
_ALIGNMENT = "system.alignment"
_START = "system.sampling.start_level"
_OF_ONE = "of-one"
ABLATION = Ablation(
    recipe="brainnetflix",
    # Signals depend on these.
    stages={
        SHARED: (),
        _OF_ONE: ("data.subject=1",),
        "of-two": ("data.subject=1-2",),
        "of-eight": ("data.subject=1-8",),
        "of-two-sets": ("data.film_sets=2",),
        "of-four-sets": ("data.film_sets=4",),
    },
    variants={
        "four": Variant(),
        "one": Variant(stages=_OF_ONE),
        "two": Variant(stages="of-two"),
        "eight": Variant(stages="of-eight"),
        "four-10-minutes": Variant((_TEN_MINUTES,)),
        "one-10-minutes": Variant((_TEN_MINUTES,), _OF_ONE),
        "others-40-minutes": Variant((_TEN_MINUTES, "system.others_minutes=40")),
        # Of as many minutes of everybody, in as many steps.
        "two-sets": Variant(stages="of-two-sets"),
        "films-of-their-own": Variant(stages="of-four-sets"),
        "alignment-text": Variant((f"{_ALIGNMENT}=text",)),
        "alignment-none": Variant((f"{_ALIGNMENT}=none",)),
        "start-0.454": Variant((f"{_START}=0.454",)),
        "start-0.695": Variant((f"{_START}=0.695",)),
        "from-noise": Variant((f"{_START}=1",)),
        # Of the same forty minutes of the first participant.
        "ridge": ridge_beside(*SHORT_WINDOWS, "data.grid.after=1", "data.sessions=0-1"),
    },
    comparisons={
        "four": (
            "one",
            "two",
            "eight",
            "two-sets",
            "films-of-their-own",
            "alignment-text",
            "alignment-none",
            "start-0.454",
            "start-0.695",
            "from-noise",
            "ridge",
        ),
        "four-10-minutes": ("one-10-minutes", "others-40-minutes"),
    },
    # A third of the recipe's.
    steps={"align": 67, "regress": 200},
)


if __name__ == "__main__":
    sys.exit(main(ABLATION, "benchmarks.brainnetflix", __doc__, _WORK, _OUT))
