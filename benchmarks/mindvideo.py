"""What MinD-Video's claims come to on the simulated participant: its choices on the same windows.

python -m benchmarks.mindvideo [--json] [--write]     # about four hours on two cores, and resumable
python -m benchmarks.mindvideo --variants whole,text --masked-seeds 0 --steps 20 --sessions 1   # to try it

Each variant is trained once with a third of the recipe's steps, from one pretrained video model, beside the
whole system with as many. Those that are compared decode the same fresh sessions (`train.compare`), and a
variant's figure is how far it lies from its reference, window by window:

- look-ahead of 0 and of 2 volumes, and voxels in a shuffled order, against the whole system,
- contrast to captions alone, to frames alone and to none, and guidance away from no brain, against it,
- no masked pre-training, against the same system with it, with 10 and with 40 labelled minutes,
- voxels in a shuffled order, against those in the order of a cortex that participants share.

On that cortex the masked pre-training alone is also trained with several seeds, in the order of its areas and
shuffled. A bar rests on that loss alone, on volumes that taught nothing: it is lower in order.

Runs and comparisons that lie in the folder of `--work` already are left alone.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks import variants
from benchmarks.result_files import RESULTS, write
from benchmarks.variants import SHARED, changes_of, mean_interval, parser_of, steps_of, train_all, written
from rtdecode import terminal
from rtdecode.disk import private, strict_json
from train import loop
from train.data.simulated import FilmSessions
from train.data.training_films import training_films
from train.models.conditioned.batches import Windows
from train.models.conditioned.material import Material, of_sessions
from train.models.conditioned.small import signal_shapes
from train.models.mindvideo.encoder import FMRI, SpaceTimeEncoder
from train.models.mindvideo.plan import MindVideoPlan
from train.models.mindvideo.pretraining import MASKED, ORDER, MaskedVolumes, VolumeBatches
from train.phases import Phase
from train.recipe import read
from train.slots import parts_of
from train.work import Work, tracked

_OUT = RESULTS / "mindvideo.json"
_WORK = Path("runs/mindvideo")
_CORTEX = "data.who.cortex=shared"
_SHUFFLED = "system.order=shuffled"
# What signals depend on: name of the run whose stages variants share -> its changes of the recipe.
STAGES: dict[str, tuple[str, ...]] = {
    SHARED: (),
    "after-0": ("data.grid.after=0",),
    "after-2": ("data.grid.after=2",),
    "shuffled": (_SHUFFLED,),
    "cortex": (_CORTEX,),
    "cortex-shuffled": (_CORTEX, _SHUFFLED),
}
_SCRATCH = "phases.masked=null"
# Variant -> the run whose stages it shares, and its further changes.
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "whole": (SHARED, ()),
    "look-ahead-0": ("after-0", ()),
    "look-ahead-2": ("after-2", ()),
    "voxels-shuffled": ("shuffled", ()),
    "contrast-text": (SHARED, ("system.contrast=text",)),
    "contrast-image": (SHARED, ("system.contrast=image",)),
    "contrast-none": (SHARED, ("system.contrast=none",)),
    "negative-null": (SHARED, ("system.encoder.negative=null",)),
    "10-minutes": (SHARED, ("system.brain_minutes=10",)),
    "10-minutes-scratch": (SHARED, ("system.brain_minutes=10", _SCRATCH)),
    "40-minutes": (SHARED, ("system.brain_minutes=40",)),
    "40-minutes-scratch": (SHARED, ("system.brain_minutes=40", _SCRATCH)),
    "areas-in-order": ("cortex", ()),
    "areas-shuffled": ("cortex-shuffled", ()),
}
# Reference -> those that are compared with it.
COMPARISONS: dict[str, tuple[str, ...]] = {
    "whole": (
        "look-ahead-0",
        "look-ahead-2",
        "voxels-shuffled",
        "contrast-text",
        "contrast-image",
        "contrast-none",
        "negative-null",
    ),
    "10-minutes": ("10-minutes-scratch",),
    "40-minutes": ("40-minutes-scratch",),
    "areas-in-order": ("areas-shuffled",),
}
# A third of the recipe's.
_STEPS = {MASKED: 500, "align": 500, "together": 200}
_BEFORE = ("films", "frames", "pretrain")
_PRESETS = ("easy", "default")
# In which orders masked volumes are learned from on a shared cortex: as its areas lie, and shuffled.
_ORDERS = {"in order": "cortex", "shuffled": "cortex-shuffled"}


def masked_losses(work: Path, common: Sequence[str], seeds: Sequence[int]) -> dict[str, list[float]]:
    """Train masked pre-training alone, on a cortex that participants share.

    Parameters
    ----------
    work : Path
    common : sequence of str
        Changes of the recipe.
    seeds : sequence of int
        Of the first weights and the batches.

    Returns
    -------
    dict
        Order of the voxels -> the loss of each seed on volumes that taught nothing.
    """
    private.folder(work)
    losses: dict[str, list[float]] = {name: [] for name in _ORDERS}
    for name, stages in tracked(list(_ORDERS.items()), "masked pre-training"):
        for seed in seeds:
            path = work / f"masked-{stages}-{seed}.json"
            if not path.is_file():
                loss = _masked_loss(work, [*common, *STAGES[stages]], stages, seed)
                private.file(path).write_text(strict_json.dumps(loss) + "\n")
            losses[name].append(json.loads(path.read_text()))
    return losses


def _masked_loss(work: Path, changes: Sequence[str], stages: str, seed: int) -> float:
    recipe = read("mindvideo", ["scale=tiny", *changes])
    parts = parts_of(recipe.tree)
    plan = parts.system
    assert isinstance(plan, MindVideoPlan)
    assert isinstance(parts.data, FilmSessions)
    data = parts.data.with_films(training_films(parts.data.shows))
    run = Work(None, recipe.common.seed, work / f"{stages}.stages", noise_key=recipe.digest)
    material = of_sessions(run, data, plan.films, plan.voxels, plan.name, {}, None, plan.order)
    return masked_loss(plan, material, parts.phases[MASKED], work / f"masked-{stages}-{seed}", seed)


def masked_loss(plan: MindVideoPlan, material: Material, phase: Phase, folder: Path, seed: int) -> float:
    """Train the encoder on masked volumes, and return the loss on volumes that taught nothing.

    Parameters
    ----------
    plan : MindVideoPlan
        With `pretrain`.
    material : Material
    phase : Phase
    folder : Path
        Where its checkpoints lie.
    seed : int
    """
    assert plan.pretrain is not None
    torch.manual_seed(seed)
    shapes = signal_shapes(material.signals, plan.encoder)
    encoder = plan.encoder.build(shapes, plan.films.embedding, plan.films.tokens, plan.video.text)
    assert isinstance(encoder, SpaceTimeEncoder)
    model = MaskedVolumes(encoder, plan.pretrain)
    patches = encoder.tokenizer.patches
    draw = VolumeBatches.of(_windows_of(material), patches)
    with threadpool_limits(1):
        loop.train(model, {MASKED: phase}, draw, folder, _show_nothing, seed, plan.machine)
    volumes = material.held_out[FMRI].astype(np.float32).reshape(-1, shapes.voxels)
    mask = material.held_out[f"{FMRI}_mask"].astype(np.float32).reshape(-1)
    # The same patches are hidden for every seed and order.
    rng = np.random.default_rng(0)
    order = np.stack([rng.permutation(patches) for _ in volumes])
    batch = {FMRI: volumes, f"{FMRI}_mask": mask, ORDER: order}
    model.eval().cpu()
    with torch.no_grad():
        losses = model.losses({name: torch.from_numpy(values) for name, values in batch.items()}, [MASKED])
    return float(losses[MASKED])


def _windows_of(material: Material) -> Windows:
    """Return windows of which nothing but signals is read."""
    count = len(material.latents)
    return Windows(
        latents=material.latents,
        words=np.zeros((count, 0, 0), np.int64),
        frames=np.zeros((count, 0, 0), np.float32),
        text=np.zeros((count, 0), np.float32),
        signals=material.signals,
        units=material.units,
    )


def _show_nothing(phase: str, step: int) -> None:
    """Show nothing of a training whose loss alone is asked for."""


def in_order_less_shuffled(losses: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Summarise the losses of `masked_losses`: what the order of areas gains, seed by seed."""
    differences = [first - second for first, second in zip(*losses.values(), strict=True)]
    return {
        **{name: list(values) for name, values in losses.items()},
        "less": float(np.mean(differences)),
        "less_ci95": mean_interval(differences),
    }


def _table(masked: Mapping[str, Any]) -> Table:
    laid = Table(
        "order", "masked loss of each seed", title="masked pre-training alone, on volumes that taught nothing"
    )
    for name in _ORDERS:
        laid.add_row(name, ", ".join(f"{loss:.3f}" for loss in masked[name]))
    laid.add_row("in order less shuffled", written(masked["less"], masked["less_ci95"]))
    return laid


def main() -> None:
    """Train, measure, print, and write where that was asked for."""
    parser = parser_of("benchmarks.mindvideo", __doc__, _WORK, _OUT)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--masked-seeds", default="0,1,2", help="of the masked pre-training alone")
    parser.add_argument("--presets", default=",".join(_PRESETS))
    options = parser.parse_args()
    steps = steps_of(options.steps, _STEPS, _BEFORE)
    common = changes_of(steps, options.steps, _BEFORE)
    names = options.variants.split(",")
    for stages, changes in STAGES.items():
        sharing = [*common, *changes]
        runs = {name: [*sharing, *VARIANTS[name][1]] for name in names if VARIANTS[name][0] == stages}
        if runs:
            train_all(options.work, "mindvideo", runs, sharing, list(_STEPS), stages)
    seeds = [int(seed) for seed in options.masked_seeds.split(",") if seed]
    figures: dict[str, Any] = {
        "steps": steps,
        "sessions": options.sessions,
        "comparisons": variants.with_references(
            options.work, COMPARISONS, names, options.presets.split(","), options.sessions
        ),
    }
    if seeds:
        figures["masked"] = in_order_less_shuffled(masked_losses(options.work, common, seeds))
    if options.write:
        write(_OUT, figures)
    if options.json:
        terminal.line(json.dumps(figures))
        return
    console = Console()
    for reference, summary in figures["comparisons"].items():
        for preset, of_preset in summary.items():
            console.print(variants.table(of_preset, preset, reference))
    if seeds:
        console.print(_table(figures["masked"]))


if __name__ == "__main__":
    main()
