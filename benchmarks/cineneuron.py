"""What CineNeuron's claims come to on the simulated participant: its ablations on the same windows.

python -m benchmarks.cineneuron [--json] [--write]     # about seven hours on two cores, and resumable
python -m benchmarks.cineneuron --variants whole,text --brain-seeds 0 --steps 20 --sessions 1   # to try it

Each variant is trained with a third of the recipe's steps, from one pretrained video model and on the same
sessions. Those on which a bar rests are trained with three seeds of the brain encoder; every other one is a
single run. All of one seed then decode the same fresh sessions (`train.compare`), and a variant's figure is
how far it lies from the whole system of that seed, window by window. Over several seeds, its interval rests
on how far they lie apart.

`random-at-test` is the whole system again, whose memory is looked up at random rows; `random` was trained so.

Runs and comparisons that lie in the folder of `--work` already are left alone.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import variants
from benchmarks.result_files import RESULTS, write
from benchmarks.variants import changes_of, parser_of, steps_of, train_all
from rtdecode import terminal
from rtdecode.disk import strict_json

_OUT = RESULTS / "cineneuron.json"
_WORK = Path("runs/cineneuron")
_MEMORY = "system.encoder.memory"
_BRAIN = "system.encoder.brain"
REFERENCE = "whole"
RANDOM_AT_TEST = "random-at-test"
# Changes of the recipe. A bar rests on the first ones.
_WITH_BARS = {
    REFERENCE: (),
    "text": (f"{_MEMORY}.use=text",),
    "none": (f"{_MEMORY}.use=none",),
    "brain-alone": (f"{_MEMORY}.integration=false",),
    "random": (f"{_MEMORY}.rows=random",),
}
_MLP = (
    "{builder: brain-mlp, hidden: 256, blocks: 2, tokens: 96, width: 64, heads: 4, action: 192, "
    "categories: 15}"
)


def _without(loss: str) -> tuple[str, ...]:
    return tuple(f"phases.{phase}.losses.{loss}=null" for phase in ("enrich", "integrate"))


VARIANTS: dict[str, tuple[str, ...]] = {
    **_WITH_BARS,
    "without-action": (f"{_MEMORY}.action=false", *_without("action")),
    "without-image": (f"{_MEMORY}.image=false", *_without("image")),
    "without-category": _without("category"),
    "fmri": (f"{_BRAIN}.modalities=[fmri]",),
    "pool-32": (f"{_MEMORY}.entries=32",),
    "pool-512": (f"{_MEMORY}.entries=512",),
    "10-minutes": ("system.brain_minutes=10",),
    "60-minutes": ("system.brain_minutes=60",),
    "own-clips": (f"{_MEMORY}.own=include",),
    "mlp": (f"{_BRAIN}={_MLP}", "system.dropout.mixed=0.5"),
}
# A third of the recipe's.
_STEPS = {"enrich": 500, "integrate": 533}
_PRESETS = ("easy", "default")


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


def compared(work: Path, names: Sequence[str], seed: str, preset: str, sessions: int) -> list[dict[str, Any]]:
    """Compare the runs of a seed with the whole system, or read what was compared.

    Parameters
    ----------
    work : Path
    names : sequence of str
        Variants that have this seed.
    seed, preset : str
    sessions : int
        Of 60 s each.

    Returns
    -------
    list of dict
        Rows as of `train.compare.measure`, with ``variant``, ``preset`` and ``seed``.
    """
    runs = {f"{name}-{seed}": work / f"{name}-{seed}" for name in names}
    if REFERENCE in names:
        again = work / f"{RANDOM_AT_TEST}-{seed}"
        runs[again.name] = again if again.is_dir() else with_random_rows(runs[f"{REFERENCE}-{seed}"], again)
    rows = variants.compared(work / f"compared-{preset}-{seed}-{sessions}.json", runs, preset, sessions)
    return [
        row | {"variant": row["decoder"].removesuffix(f"-{seed}"), "preset": preset, "seed": seed}
        for row in rows
    ]


def main() -> None:
    """Train, measure, print, and write where that was asked for."""
    parser = parser_of("benchmarks.cineneuron", __doc__, _WORK, _OUT)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--brain-seeds", default="0,1,2", help="of those on which a bar rests")
    parser.add_argument("--presets", default=",".join(_PRESETS))
    options = parser.parse_args()
    steps = steps_of(options.steps, _STEPS)
    common = changes_of(steps, options.steps)
    seeds = options.brain_seeds.split(",")
    names = options.variants.split(",")
    of_seed = {seed: [name for name in names if name in _WITH_BARS or seed == seeds[0]] for seed in seeds}
    # All of one seed first, so that the first comparison is there early.
    runs = {
        f"{name}-{seed}": [*common, *VARIANTS[name], f"system.brain_seed={seed}"]
        for seed, some in of_seed.items()
        for name in some
    }
    train_all(options.work, "cineneuron", runs, common, list(_STEPS))
    rows = [
        row
        for preset in options.presets.split(",")
        for seed, some in of_seed.items()
        for row in compared(options.work, some, seed, preset, options.sessions)
    ]
    figures = {"steps": steps, "sessions": options.sessions, "variants": variants.summarised(rows)}
    if options.write:
        write(_OUT, figures)
    if options.json:
        terminal.line(json.dumps(figures))
        return
    for preset, of_preset in figures["variants"].items():
        Console().print(variants.table(of_preset, preset, REFERENCE))


if __name__ == "__main__":
    main()
