"""What CineNeuron's claims come to on the simulated participant: its ablations on the same windows.

python -m benchmarks.cineneuron [--json] [--write]     # about seven hours on two cores, and resumable
python -m benchmarks.cineneuron --variants whole,text --brain-seeds 0 --steps 20 --sessions 1   # to try it

Each variant is trained with a third of the recipe's steps, from one pretrained video model and on the same
sessions. Those on which a bar rests are trained with three seeds of the brain encoder; every other one is a
single run. All decode the same fresh sessions (`train.compare`), and a variant's figure is
how far it lies from the whole system of that seed, window by window. Over several seeds, its interval rests
on how far they lie apart.

`random-at-test` is the whole system again, whose memory is looked up at random rows; `random` was trained so.
`ridge` is a ridge regression that learns from a quarter of the sessions of the same films.

With `--write` each run is added to the result file as soon as it is judged, and those that it holds are not
made again, so that runs may be made on different days; those that lie in the folder of `--work` are not
trained again:

python -m benchmarks.cineneuron --variants whole,text --brain-seeds 1 --write
"""

import json
import os
import shutil
import sys
from pathlib import Path

from benchmarks.result_files import RESULTS
from benchmarks.variants import Ablation, Variant, main, ridge_beside
from rtdecode import strict_json

_OUT = RESULTS / "cineneuron.json"
_WORK = Path("runs/cineneuron")
_MEMORY = "system.encoder.memory"
_BRAIN = "system.encoder.brain"
REFERENCE = "whole"
RANDOM_AT_TEST = "random-at-test"
_MLP = (
    "{builder: brain-mlp, hidden: 256, blocks: 2, tokens: 96, width: 64, heads: 4, action: 192, "
    "categories: 15}"
)


def with_random_rows(run: Path, out: Path) -> Path:
    """Write a copy of a run that looks random rows of its memory up.

    Parameters
    ----------
    run, out : Path
        The copy's files are links to the run's, but for ``run.json``.
    """
    shutil.copytree(run, out, copy_function=os.link)
    tree = json.loads((run / "run.json").read_text())
    tree["arguments"]["system"]["encoder"]["memory"]["rows"] = "random"
    # The link, and not the run's own file.
    (out / "run.json").unlink()
    (out / "run.json").write_text(strict_json.dumps(tree))
    return out


def _without(loss: str) -> tuple[str, ...]:
    return tuple(f"phases.{phase}.losses.{loss}=null" for phase in ("enrich", "integrate"))


# A bar rests on the first ones.
_WITH_BARS = {
    REFERENCE: Variant(),
    "text": Variant((f"{_MEMORY}.use=text",)),
    "none": Variant((f"{_MEMORY}.use=none",)),
    "brain-alone": Variant((f"{_MEMORY}.integration=false",)),
    "random": Variant((f"{_MEMORY}.rows=random",)),
    RANDOM_AT_TEST: Variant(of=REFERENCE, copied=with_random_rows),
}
_PRINTED = {
    "without-action": Variant((f"{_MEMORY}.action=false", *_without("action"))),
    "without-image": Variant((f"{_MEMORY}.image=false", *_without("image"))),
    "without-category": Variant(_without("category")),
    "fmri": Variant((f"{_BRAIN}.modalities=[fmri]",)),
    "pool-32": Variant((f"{_MEMORY}.entries=32",)),
    "pool-512": Variant((f"{_MEMORY}.entries=512",)),
    "10-minutes": Variant(("system.brain_minutes=10",)),
    "60-minutes": Variant(("system.brain_minutes=60",)),
    "own-clips": Variant((f"{_MEMORY}.own=include",)),
    "mlp": Variant((f"{_BRAIN}={_MLP}", "system.dropout.mixed=0.5")),
    # Of a quarter of the sessions: all of them would take too much memory.
    "ridge": ridge_beside("data.sessions=0-3"),
}
ABLATION = Ablation(
    recipe="cineneuron",
    variants=_WITH_BARS | _PRINTED,
    comparisons={REFERENCE: tuple(name for name in (*_WITH_BARS, *_PRINTED) if name != REFERENCE)},
    # A third of the recipe's.
    steps={"enrich": 500, "integrate": 533},
    seeds=("0", "1", "2"),
    several=tuple(_WITH_BARS),
)


if __name__ == "__main__":
    sys.exit(main(ABLATION, "benchmarks.cineneuron", __doc__, _WORK, _OUT))
