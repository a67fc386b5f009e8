"""What MinD-Video's claims come to on the simulated participant: its choices on the same windows.

python -m benchmarks.mindvideo [--json] [--write]     # about four hours on two cores, and resumable
python -m benchmarks.mindvideo --variants whole,text --masked-seeds 0 --steps 20 --sessions 1   # to try it

Each variant is trained once with a third of the recipe's steps, from one pretrained video model, beside the
whole system with as many. Those that are compared decode the same fresh sessions (`train.compare`), and a
variant's figure is how far it lies from its reference, window by window:

- look-ahead of 0 and of 2 volumes, and voxels in a shuffled order, against the whole system,
- contrast to captions alone, to frames alone and to none, and guidance away from no brain, against it,
- no masked pre-training, against the same system with it, with 10 and with 40 labelled minutes,
- voxels in a shuffled order, against those in the order of a cortex that participants share,
- ridges of the same films, which look ahead by 0, 1 and 2 volumes.

On that cortex the masked pre-training alone is also trained with several seeds, with all of the recipe's
steps, in the order of its areas and shuffled. A bar rests on that loss alone, on volumes that taught nothing:
it is lower in order. Beside it stands what least squares leaves of the same hidden patches, from the voxels
that are seen.

With `--write` each run and each of these losses is added to the result file as soon as it is there, and those
that it holds are not made again, so that runs may be made on different days; those that lie in the folder of
`--work` are not trained again:

python -m benchmarks.mindvideo --variants whole,look-ahead-0 --masked-seeds "" --write
python -m benchmarks.mindvideo --variants "" --masked-seeds 0 --write
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks import variant_outcomes
from benchmarks.result_files import RESULTS
from benchmarks.variant_outcomes import mean_interval, written
from benchmarks.variants import (
    SHARED,
    SHORT_WINDOWS,
    Ablation,
    Variant,
    add_runs,
    compared,
    parser_of,
    ridge_beside,
    show,
)
from rtdecode import terminal
from rtdecode.disk import private
from rtdecode.errors import RtDecodeError, explain
from train.artifacts.slots import parts_of
from train.config.recipe import read
from train.config.run_context import Arrays, RunContext, progress
from train.config.training_films import training_films
from train.data.simulated import FilmSessions
from train.models.conditioned.batches import Windows
from train.models.conditioned.material import Material, of_sessions
from train.models.conditioned.small import signal_shapes
from train.models.mindvideo.encoder import FMRI, SpaceTimeEncoder
from train.models.mindvideo.plan import MindVideoPlan
from train.models.mindvideo.pretraining import MASKED, ORDER, MaskedVolumes, VolumeBatches
from train.trainer import loop
from train.trainer.phases import Phase

_OUT = RESULTS / "mindvideo.json"
_WORK = Path("runs/mindvideo")
_CORTEX = "data.who.cortex=shared"
_SHUFFLED = "system.order=shuffled"
_SCRATCH = "phases.masked=null"
_TEN_MINUTES = "system.brain_minutes=10"
_FORTY_MINUTES = "system.brain_minutes=40"
_ONLY = "masked"
# Ridges of the same films and sessions -> the volumes after a window's own that they read.
_RIDGES = {"ridge": 1, "ridge-ahead-0": 0, "ridge-ahead-2": 2}
ABLATION = Ablation(
    recipe="mindvideo",
    # Signals depend on these.
    stages={
        SHARED: (),
        "after-0": ("data.grid.after=0",),
        "after-2": ("data.grid.after=2",),
        "shuffled": (_SHUFFLED,),
        "cortex": (_CORTEX,),
        "cortex-shuffled": (_CORTEX, _SHUFFLED),
    },
    variants={
        "whole": Variant(),
        "look-ahead-0": Variant(stages="after-0"),
        "look-ahead-2": Variant(stages="after-2"),
        "voxels-shuffled": Variant(stages="shuffled"),
        "contrast-text": Variant(("system.contrast=text",)),
        "contrast-image": Variant(("system.contrast=image",)),
        "contrast-none": Variant(("system.contrast=none",)),
        "negative-null": Variant(("system.encoder.negative=null",)),
        "10-minutes": Variant((_TEN_MINUTES,)),
        "10-minutes-scratch": Variant((_TEN_MINUTES, _SCRATCH)),
        "40-minutes": Variant((_FORTY_MINUTES,)),
        "40-minutes-scratch": Variant((_FORTY_MINUTES, _SCRATCH)),
        "areas-in-order": Variant(stages="cortex"),
        "areas-shuffled": Variant(stages="cortex-shuffled"),
        **{
            name: ridge_beside(*SHORT_WINDOWS, "data.sessions=0-7", f"data.grid.after={after}")
            for name, after in _RIDGES.items()
        },
    },
    comparisons={
        "whole": (
            "look-ahead-0",
            "look-ahead-2",
            "voxels-shuffled",
            "contrast-text",
            "contrast-image",
            "contrast-none",
            "negative-null",
            "ridge",
        ),
        "ridge": ("ridge-ahead-0", "ridge-ahead-2"),
        "10-minutes": ("10-minutes-scratch",),
        "40-minutes": ("40-minutes-scratch",),
        "areas-in-order": ("areas-shuffled",),
    },
    # A third of the recipe's.
    steps={MASKED: 500, "align": 500, "together": 200},
    before=("films", "frames", "pretrain"),
    ahead=2,
)
# In which orders masked volumes are learned from on a shared cortex: as its areas lie, and shuffled.
_ORDERS = {"in order": "cortex", "shuffled": "cortex-shuffled"}
_LEAST_SQUARES = "least squares"

# Order of the voxels -> seed -> the loss on volumes that taught nothing; least squares -> order -> its loss.
Losses = Mapping[str, Mapping[str, float]]


def masked_losses(
    work: Path, common: Sequence[str], seeds: Sequence[str], earlier: Losses
) -> Iterator[Losses]:
    """Train masked pre-training alone, on a cortex that participants share.

    Parameters
    ----------
    work : Path
    common : sequence of str
        Changes of the recipe.
    seeds : sequence of str
        Of the first weights and the batches.
    earlier : mapping
        Losses that are not found again.

    Yields
    ------
    mapping
        All, after each, and what least squares leaves of the same hidden patches.
    """
    private.folder(work)
    losses = {name: dict(earlier.get(name, {})) for name in (*_ORDERS, _LEAST_SQUARES)}
    missing = [(name, seed) for seed in seeds for name in _ORDERS if seed not in losses[name]]
    for name, seed in progress(missing, "masked pre-training"):
        stages = _ORDERS[name]
        plan, phase, material = _taught(work, [*common, *ABLATION.stages[stages]], stages)
        losses[name][seed] = masked_loss(plan, material, phase, work / f"masked-{stages}-{seed}", int(seed))
        if name not in losses[_LEAST_SQUARES]:
            losses[_LEAST_SQUARES][name] = least_squares_loss(plan, material)
        yield losses


def _taught(work: Path, changes: Sequence[str], stages: str) -> tuple[MindVideoPlan, Phase, Material]:
    """Return a system, its masked phase, and the windows that teach it."""
    recipe = read("mindvideo", ["scale=tiny", *changes])
    parts = parts_of(recipe.tree)
    plan = parts.system
    assert isinstance(plan, MindVideoPlan)
    assert isinstance(parts.data, FilmSessions)
    data = parts.data.with_films(training_films(parts.data.shows))
    run = RunContext(None, recipe.common.seed, work / f"{stages}.stages", noise_key=recipe.digest)
    material = of_sessions(run, data, plan.films, plan.voxels, plan.name, {}, None, plan.order)
    return plan, parts.phases[MASKED], material


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
    torch.manual_seed(seed)
    encoder, model = _untrained(plan, material)
    patches = encoder.tokenizer.patches
    draw = VolumeBatches.of(_windows_of(material), patches)
    with threadpool_limits(1):
        loop.train(model, {MASKED: phase}, draw, folder, _show_nothing, seed, plan.machine)
    batch = _held_out(material, patches)
    model.eval().cpu()
    with torch.no_grad():
        losses = model.losses({name: torch.from_numpy(values) for name, values in batch.items()}, [MASKED])
    return float(losses[MASKED])


def least_squares_loss(plan: MindVideoPlan, material: Material) -> float:
    """Predict the same patches of the same volumes as `masked_loss` does, by least squares from what is seen.

    Parameters
    ----------
    plan : MindVideoPlan
        With `pretrain`.
    material : Material
    """
    encoder, model = _untrained(plan, material)
    seen_count = model.autoencoder.seen
    patch_voxels = encoder.patch_voxels()
    windows = _windows_of(material)
    taught = windows.normalised(np.arange(len(material.latents)))
    volumes = taught[FMRI][taught[f"{FMRI}_mask"] > 0].astype(np.float64)
    mean = volumes.mean(0)
    covariance = np.cov(volumes.T)
    batch = _held_out(material, len(patch_voxels))
    is_there = batch[f"{FMRI}_mask"] > 0
    losses = []
    for volume, order in zip(batch[FMRI][is_there] - mean, batch[ORDER][is_there], strict=True):
        seen_voxels = np.unique(patch_voxels[order[:seen_count]])
        hidden_voxels = patch_voxels[order[seen_count:]].ravel()
        maps = np.linalg.lstsq(
            covariance[np.ix_(seen_voxels, seen_voxels)], covariance[np.ix_(seen_voxels, hidden_voxels)]
        )[0]
        losses.append(float(np.mean((volume[seen_voxels] @ maps - volume[hidden_voxels]) ** 2)))
    return float(np.mean(losses))


def _untrained(plan: MindVideoPlan, material: Material) -> tuple[SpaceTimeEncoder, MaskedVolumes]:
    assert plan.pretrain is not None
    shapes = signal_shapes(material.signals, plan.encoder)
    encoder = plan.encoder.build(shapes, plan.films.embedding, plan.films.tokens, plan.video.text)
    assert isinstance(encoder, SpaceTimeEncoder)
    return encoder, MaskedVolumes(encoder, plan.pretrain)


def _held_out(material: Material, patches: int) -> Arrays:
    """Return the volumes that taught nothing, and in what order their patches are seen."""
    volumes = material.held_out[FMRI].astype(np.float32)
    mask = material.held_out[f"{FMRI}_mask"].astype(np.float32).reshape(-1)
    # The same patches are hidden for every seed and order.
    rng = np.random.default_rng(0)
    orders = np.stack([rng.permutation(patches) for _ in mask])
    return {FMRI: volumes.reshape(len(mask), -1), f"{FMRI}_mask": mask, ORDER: orders}


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


def in_order_less_shuffled(losses: Losses) -> dict[str, Any]:
    """Summarise the losses of `masked_losses`: what the order of areas gains, seed by seed."""
    in_order, shuffled = (losses[name] for name in _ORDERS)
    differences = [loss - shuffled[seed] for seed, loss in in_order.items() if seed in shuffled]
    if not differences:
        return {**losses, "less": variant_outcomes.MISSING}
    less = {"value": float(np.mean(differences)), "ci95": mean_interval(differences)}
    return {**losses, "less": less}


def _table(masked: Mapping[str, Any]) -> Table:
    laid = Table(
        "order",
        "masked loss of each seed",
        _LEAST_SQUARES,
        title="masked pre-training alone, on volumes that taught nothing",
    )
    for name in _ORDERS:
        of_seeds = ", ".join(f"{loss:.3f}" for loss in masked[name].values())
        linear = [f"{loss:.3f}" for order, loss in masked[_LEAST_SQUARES].items() if order == name]
        laid.add_row(name, of_seeds or variant_outcomes.MISSING, *linear)
    laid.add_row("in order less shuffled", written(masked["less"]))
    return laid


def main() -> int:
    """Train, measure, print, and write where that was asked for; return the exit status."""
    parser = parser_of(ABLATION, "benchmarks.mindvideo", __doc__, _WORK, _OUT)
    parser.add_argument("--masked-seeds", default="0,1,2", help="of the masked pre-training alone")
    options = parser.parse_args()
    seeds = [seed for seed in options.masked_seeds.split(",") if seed]
    # Alone it has all of the recipe's steps, which take two minutes.
    common = [] if options.steps is None else ABLATION.common(options.steps)
    try:
        outcomes = add_runs(ABLATION, options, _OUT)
        for losses in masked_losses(options.work, common, seeds, outcomes.further.get(_ONLY, {})):
            if options.write:
                # Another process may have added runs meanwhile.
                outcomes = variant_outcomes.read(_OUT, outcomes.how)
            outcomes = replace(outcomes, further={**outcomes.further, _ONLY: in_order_less_shuffled(losses)})
            if options.write:
                outcomes.write(_OUT, compared(ABLATION, outcomes))
    except RtDecodeError as error:
        return explain(error, as_json=options.json)
    comparisons = compared(ABLATION, outcomes)
    if options.json:
        terminal.line(json.dumps({"how": outcomes.how, "comparisons": comparisons, **outcomes.further}))
        return 0
    show(comparisons)
    if _ONLY in outcomes.further:
        Console().print(_table(outcomes.further[_ONLY]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
