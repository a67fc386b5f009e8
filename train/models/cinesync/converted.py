"""A run from a checkpoint of CineSync's authors, which is evaluated and exported as a trained one is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtdecode.errors import UsageError
from train.config.run_context import Arrays, RunContext
from train.data.set_windows import SetWindows
from train.data.sets.set_node import DataSetWindows
from train.interface.system import Trained
from train.models.cinesync import released
from train.models.cinesync.plan import CineSyncPublishedPlan
from train.models.cinesync.released import Checkpoint
from train.models.conditioned.encoder import Signals
from train.models.conditioned.published_system import PublishedShape, stated_shape
from train.models.conditioned.small import unmerged_adapters
from train.parts.generators.folders import CONFIG
from train.trainer import adapters
from train.weights import source
from train.weights.folders import diffusers_model

# The recipe with the sizes and the values of the public code.
RECIPE = "cinesync-released"
# Frames that a latent frame after the first one holds.
_FRAMES = 4


def convert(
    files: Sequence[Path],
    licence: str,
    plan: CineSyncPublishedPlan,
    data: DataSetWindows,
    phases: dict[str, Any],
    work: RunContext,
) -> Trained:
    """Make a run of a checkpoint.

    Everything that can be refused is, before the signals are read.

    Parameters
    ----------
    files : sequence of Path
        See `train.models.cinesync.released.read`.
    licence : str
        Of the checkpoint, as the user states it.
    plan, data, phases
        Of the recipe. Of the phases, the adapters are read.
    work : RunContext
        The run that is made; its `data` is the folder of the data set.

    Raises
    ------
    UsageError
        If the checkpoint is of another system or of other sizes, has names that mean nothing, or was trained
        on another video model than that of the folder.
    """
    plan.video.check()
    source.check_licence(licence, files[0])
    config = source.read_json(Path(plan.video.folder) / CONFIG)
    if "text_embed_dim" not in config:
        raise UsageError(
            "checkpoint-needs-cogvideox",
            "the checkpoint was trained on a CogVideoX, and {folder} holds a {actual_class}. Give the "
            "folder of CogVideoX-5B with system.video.folder=.",
            folder=plan.video.folder,
            actual_class=config["_class_name"],
        )
    latent_size = (config["sample_height"], config["sample_width"])
    data = data.of_size(plan.video.clip_size(latent_size, data.size if data.clip else None))
    windows = data.opened(work.data)
    checkpoint = released.read(files)
    latent = _latent(config, windows)
    signals = _signals(windows)
    embedding = _rows(checkpoint, "encoder.heads.fmri.weight")
    frames = _rows(checkpoint, "pooling.weights")
    width = int(config["text_embed_dim"])
    with torch.device("meta"):
        encoder = plan.encoder.build(signals, embedding, plan.conditions, width)
    released.check_shapes(checkpoint.weights, _kept(encoder.state_dict(), frames), checkpoint.unknown)
    video, digest = plan.video.diffusion(latent, plan.sampling.shift)
    released.check_base("transformer", checkpoint.transformer, video.transformer)
    released.check_positions(checkpoint, video.get_buffer("cosines"), video.get_buffer("sines"))
    autoencoder, _ = diffusers_model(Path(plan.video.folder), "vae", licence=plan.video.licence)
    released.check_base("vae", checkpoint.autoencoder, autoencoder)
    attached = unmerged_adapters(phases)
    for name, adapter in attached.items():
        adapters.inject(video, "transformer", name, adapter)
    adapted = video.transformer.state_dict()
    factors = {_layer(name): values for name, values in adapted.items() if ".lora_" in name}
    released.check_shapes(checkpoint.factors, factors)
    # They are opened again with the finished run.
    del video, autoencoder, adapted, factors
    _, drawing = plan.video.drawing(latent)
    clip = windows.draft.clip
    shape = PublishedShape(
        signals=signals,
        latent=latent,
        embedding=embedding,
        conditions=plan.conditions,
        width=width,
        frames=frames,
        size=(clip.height, clip.width),
        adapters=attached,
        transformer=digest,
        decoder=drawing.digest,
    )
    (phase,) = attached
    weights = _weights(checkpoint, phase) | {"config": stated_shape(shape)}
    models = {
        "checkpoint": source.of_files(files, "torch", licence).to_manifest(),
        "decoder": drawing.to_manifest(),
    }
    notes = [{"note": text} for text in (windows.division, *_said(checkpoint, plan.video.folder))]
    provenance = {"weights": models}
    return plan.finished(data.taught(work), weights, provenance, {"loss": [], "notes": notes}, {})


def _signals(windows: SetWindows) -> Signals:
    """Return the shapes of a window's signals, which are not read yet."""
    draft = windows.draft
    if draft.eeg is None:
        raise UsageError(
            "checkpoint-needs-eeg",
            "{folder} has no EEG, which the checkpoint's encoders read as well. Give the data set that it "
            "was trained on.",
            folder=windows.data.folder,
        )
    voxels = min(len(windows.voxels), windows.max_voxels)
    return Signals(draft.grid.slots, voxels, len(draft.eeg.channels), draft.grid.samples)


def _latent(config: dict[str, Any], windows: SetWindows) -> tuple[int, int, int, int]:
    """Return the shape of latents: frames of the data set's clips, rows and columns of the transformer's."""
    frames = (windows.draft.clip.frames - 1) // _FRAMES + 1
    return (config["in_channels"], frames, config["sample_height"], config["sample_width"])


def _rows(checkpoint: Checkpoint, name: str) -> int:
    """Return the first length of what is kept; 1 where it is missing, which is refused by its name."""
    return len(checkpoint.weights[name]) if name in checkpoint.weights else 1


def _kept(encoder: dict[str, Tensor], frames: int) -> dict[str, Tensor]:
    """List all that a run keeps beside the adapters, by name."""
    scale = torch.zeros(())
    expected = {f"encoder.{name}": values for name, values in encoder.items()}
    expected |= {"pooling.weights": torch.zeros(frames), "pooling.bias": torch.zeros(1)}
    return expected | {f"contrasts.{name}.contrast.scale": scale for name in CineSyncPublishedPlan.contrasts}


def _layer(name: str) -> str:
    """Take the name of the phase and ``weight`` out of an adapter's name."""
    layer, factor, _ = name.partition(".lora_A") if ".lora_A" in name else name.partition(".lora_B")
    return layer + factor


def _weights(checkpoint: Checkpoint, phase: str) -> Arrays:
    """Bring what a run keeps to half precision, by the names that it has in a run."""
    weights = {**checkpoint.weights}
    weights |= {f"transformer.{name}.{phase}.weight": values for name, values in checkpoint.factors.items()}
    return {name: values.half().numpy() for name, values in weights.items()}


def _said(checkpoint: Checkpoint, folder: str) -> list[str]:
    """Say what became of the checkpoint's weights."""
    weight_count = len(checkpoint.weights) + len(checkpoint.factors)
    base = len(checkpoint.transformer) + len(checkpoint.autoencoder)
    return [
        "The weights are those of the authors' checkpoint; nothing was trained here.",
        (
            f"Of the checkpoint, {weight_count} weights are kept, {base} are those of {Path(folder).name}, "
            f"and {len(checkpoint.unread)} are of networks that draw nothing (SigLIP)."
        ),
    ]
