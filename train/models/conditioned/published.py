"""The plan of a system at its published size: a video model from a folder on disk, conditioned by the brain.

It is trained on a data set. What it aims at was computed by ``python -m
train.targets``: latents of the clips (``vae=``), embeddings of their frames (``image=``) and of their
captions (``text=``). The brain encoder and a low-rank adapter are trained, or weights of the video model that
a phase names. They alone are kept in a run, with a digest of the network that they belong to.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import nn

from rtdecode.errors import UsageError
from train.config.builders import Later
from train.config.run_context import Arrays, RunContext
from train.data import target_cache
from train.data.arrays import golden
from train.data.set_windows import SetWindows
from train.data.sets.set_node import DataSetWindows
from train.data.target_cache import Cached, pooled_text
from train.data.target_rows import CachedTargets, picked_rows
from train.data.taught import Taught
from train.data.voxel_order import STORED
from train.data.window_arrays import WindowArray
from train.distillation.targets import Distillation
from train.interface.system import LargeWeights, Trained
from train.models.conditioned import alignment, attention, batches
from train.models.conditioned.alignment import HeldOutWindows
from train.models.conditioned.base import base_provenance, check_phases, check_sizes, check_windows
from train.models.conditioned.batches import Dropout, Windows
from train.models.conditioned.distilled import ClipRenderer, device_of, distil
from train.models.conditioned.drafts import drawing_manifest, select_modalities
from train.models.conditioned.encoder import ConditionEncoder, Encoding, ordered
from train.models.conditioned.material import in_order
from train.models.conditioned.published_system import (
    PublishedShape,
    PublishedSystem,
    PublishedVideo,
    ResizedClips,
    begin_at,
    packed,
    trained_weights,
)
from train.models.conditioned.small import (
    PRETRAIN,
    check_read,
    losses_of,
    signal_shapes,
    split_distillation_phases,
    unmerged_adapters,
)
from train.models.conditioned.system import Sampling, check_sampling
from train.models.conditioned.trainable import DENOISING, TEXT, BrainVideo, Captioned, Contrasts
from train.parts.generators import folders
from train.parts.generators.base import Generator
from train.targets.models import PRECISIONS
from train.trainer import loop
from train.trainer.loader import Place
from train.trainer.loop import Machine
from train.trainer.phases import Phase, check_losses
from train.weights.folders import count_weights

# The targets that are read, and by which key of `train.targets` each is computed.
_TARGETS = ("vae", "image", "text")
# What a video model reads of captions, token by token.
PROMPT = "prompt"


@dataclass(frozen=True)
class PublishedPlan:
    """How a system is trained on published weights. A subclass is a published system's.

    Attributes
    ----------
    encoder : Encoding
        Sizes of the brain encoder.
    video : PublishedVideo
        The folder of the published weights, and how they are used.
    targets : str
        Where ``python -m train.targets`` has put ``vae``, ``image`` and ``text``.
    conditions : int
        Number of the condition's tokens, as many as the video model reads of a text.
    sampling : Sampling
        How clips are drawn.
    dropout : Dropout
        How much of signals and captions is left out in training.
    normalised : bool
        See `train.models.conditioned.trainable.BrainVideo`.
    distillation : Distillation
        How the video model is distilled, for recipes with a phase that teaches a student.
    sampled : bool
        Whether latents are drawn from the posterior of the autoencoder anew each time (``vae.sample=true``),
        and not its mode.
    sentences : int or None
        So many consecutive sentences of a caption are drawn anew each time where a loss reads it
        (``text.sentences=``); None for the whole caption.
    apart : bool
        Whether batches of brains have no two windows that show the same clip, where others are found.
    order : str
        In which voxels are read, see `train.data.voxel_order`.
    contrasts : mapping
        See `train.models.conditioned.trainable.BrainVideo`.
    extra_losses : tuple of str
        Names of the other losses that a subclass has.
    video_phases : tuple of str
        Names of phases that a recipe may have, in which the video model learns under captions, in their
        order. They read the target ``prompt``.
    encoder_phases : mapping
        Name of a phase that a recipe may have, in which the encoder learns by itself -> its losses.
    """

    encoder: Encoding
    video: PublishedVideo
    sampling: Sampling
    dropout: Dropout
    targets: str = ""
    conditions: int = 226
    normalised: bool = True
    # Made where it is not given, and no default value: recipes without a student keep the values they had.
    distillation: Distillation = field(default_factory=Distillation)
    machine: Machine = field(default_factory=Machine)
    sampled: Later[bool] = False
    sentences: Later[int | None] = None
    apart: Later[bool] = False
    order: Later[str] = STORED

    contrasts: ClassVar[Contrasts]
    extra_losses: ClassVar[tuple[str, ...]] = ()
    video_phases: ClassVar[tuple[str, ...]] = ()
    encoder_phases: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def train(self, work: RunContext, data: DataSetWindows, phases: dict[str, Phase]) -> Trained:
        """Align the encoders with the targets, and adapt the video model."""
        # All that can be refused comes before the signals are read, which takes long.
        captioned, brains, distilling = self.divide_phases(phases)
        check_read(brains, self.encoder, self.contrasts)
        self.check_video()
        windows = data.opened(work.data)
        self.check_windows(windows)
        names = (*_TARGETS, *self.further_targets({**captioned, **brains}))
        targets = {name: target_cache.read(Path(self.targets), name) for name in names}
        clip_rows = windows.data.windows.shown[windows.split.train]
        aimed = {name: CachedTargets(cached, cached.rows(clip_rows)) for name, cached in targets.items()}
        self._check_targets(targets["vae"], targets["text"], brains)
        predicted = self.read_targets(aimed)
        _check_frames(aimed["vae"], windows.draft.clip.frames, folders.turn(Path(self.video.folder)))
        held_rows = targets["image"].rows(windows.data.windows.shown[alignment.rows_of_set(windows)])
        _, channels, times, height, width = aimed["vae"].shape
        latent = (channels, times, height, width)
        self.video.check_latent(latent)
        self.video.check_vae(targets["vae"].index["model"])
        taught = in_order(data.taught(work), windows, self.order, work.seed)
        # Both are read while the model is not in memory yet.
        has_held_out = alignment.keep_of_set(work, windows, taught) is not None
        manifest = taught.manifest
        # It is opened here so that it is refused before the training, not after.
        decoder, drawing = self.video.drawing(latent)
        torch.manual_seed(work.seed)
        video, digest = self.video.diffusion(latent, self.sampling.shift)
        check_sampling(video, self.sampling)
        _, frames, embedding = aimed["image"].shape
        signals = signal_shapes(taught.signals, self.encoder)
        encoder = self.encoder.build(signals, embedding, self.conditions, video.text)
        system = self.trainable(encoder, video, frames)
        video_adapters = unmerged_adapters(brains)
        if work.base is not None:
            video_adapters = begin_at(system, work.base, digest)
        shape = PublishedShape(
            signals=signals,
            latent=latent,
            embedding=embedding,
            conditions=self.conditions,
            width=video.text,
            frames=frames,
            size=(manifest.clip.height, manifest.clip.width),
            adapters=video_adapters,
            transformer=digest,
            decoder=drawing.digest,
        )
        read = Windows(
            latents=aimed["vae"],
            words=np.zeros((len(clip_rows), 0, 0), np.int64),
            frames=aimed["image"],
            text=aimed["text"],
            signals=taught.signals,
            units=None,
            deviations=picked_rows(targets["vae"].deviations if self.sampled else None, aimed["vae"]),
            passages=picked_rows(targets["text"].passages, aimed["text"]),
            targets=predicted,
            # A data set does not say where shots are cut.
            shots=aimed["vae"].rows if self.apart else None,
            prompts=aimed.get(PROMPT),
        )
        read = self.remember(work, encoder, read, windows, targets)
        log: list[dict[str, Any]] = []
        if captioned:
            log += loop.train(
                Captioned(video, nn.Identity()),
                captioned,
                partial(batches.batch, read, self.dropout, losses_of(captioned)),
                work.stages / PRETRAIN,
                _show_nothing,
                work.seed,
                self.machine,
            )
        encoder_log, encoder_provenance = self.begin_encoder(work, windows, encoder, read, phases)
        log += encoder_log
        aligning = alignment.aligning(brains, self.contrasts)
        held_out = None
        if has_held_out:
            held_frames = targets["image"].read(held_rows)
            held_out = HeldOutWindows(work, held_frames, aligning, alignment.origin_of_set(windows))
        log += loop.train(
            system,
            brains,
            self.draws(read, targets, losses_of(brains)),
            work.stages / "brains",
            partial(_show, work, system, read, held_out),
            work.seed,
            self.machine,
        )
        tables: dict[str, Any] = {
            "loss": log,
            "notes": [{"note": windows.division}],
            **alignment.table(work, aligning),
        }
        learning = [*captioned.values(), *brains.values()]
        weights = packed(system, shape, learning)
        weights |= attention.noted(work, dict.fromkeys(row["phase"] for row in log))
        if distilling:
            # Phases learn in single precision; a teacher draws in that of all other weights.
            for name in trained_weights(system, learning):
                weight = video.transformer.get_parameter(name)
                weight.data = weight.data.to(PRECISIONS[self.video.precision])
            renderer = ResizedClips(decoder, shape.size).to(device_of(self.machine))
            student, lessons = distil(
                work,
                encoder,
                video,
                read,
                ClipRenderer(renderer.clips, taught.stats["mean_clip"]),
                distilling,
                self,
            )
            weights |= student
            tables["loss"] += lessons.log
            tables["distillation"] = lessons.gates
        models = {name: cached.index["model"] for name, cached in targets.items()}
        models["decoder"] = drawing.to_manifest()
        provenance = {"weights": models} | encoder_provenance | base_provenance(work)
        return self.finished(taught, weights, provenance, tables, alignment.pictures(work, aligning))

    def divide_phases(
        self, phases: Mapping[str, Phase]
    ) -> tuple[dict[str, Phase], dict[str, Phase], dict[str, Phase]]:
        """Check all phases; return those under captions, those on brains, and those that teach a student.

        Raises
        ------
        UsageError
            If a phase has a loss that it cannot have.
        """
        captioned = {name: phases[name] for name in self.video_phases if name in phases}
        if captioned:
            check_losses(captioned, Captioned.offered)
        for name, losses in self.encoder_phases.items():
            if name in phases:
                check_losses({name: phases[name]}, losses)
        before = {*captioned, *self.encoder_phases}
        later = {name: phase for name, phase in phases.items() if name not in before}
        brains, distilling = split_distillation_phases(later)
        # Captions are read as single vectors, so that no condition can be brought near their tokens.
        check_losses(brains, (*self.contrasts, DENOISING, *self.extra_losses))
        return captioned, brains, distilling

    def check_video(self) -> None:
        """Refuse a folder of a video model that the plan cannot condition, before anything is read.

        Raises
        ------
        UsageError
        """
        self.video.check()

    def check_windows(self, windows: SetWindows) -> None:
        """Refuse windows that the encoder cannot read, before their signals are: by default none.

        Raises
        ------
        UsageError
        """

    def begin_encoder(
        self,
        work: RunContext,
        windows: SetWindows,
        encoder: ConditionEncoder,
        read: Windows,
        phases: Mapping[str, Phase],
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Prepare the encoder for its windows, and train it in `encoder_phases`.

        Returns
        -------
        log : list
        provenance : dict
            What a bundle says of it. By default there is nothing to prepare or to say.
        """
        return [], {}

    def draws(
        self, read: Windows, targets: Mapping[str, Cached], losses: Mapping[str, Sequence[str]]
    ) -> Callable[[Place], Any]:
        """Say how the batches of the phases on brains are drawn; see `train.trainer.loop.train`."""
        return partial(batches.batch, read, self.dropout, losses)

    def further_targets(self, phases: Mapping[str, Phase]) -> tuple[str, ...]:
        """Name the targets that are read besides those of every system, as `train.targets` calls them."""
        return (PROMPT,) if {*self.video_phases} & {*phases} else ()

    def read_targets(self, aimed: "Mapping[str, CachedTargets]") -> Mapping[str, WindowArray]:
        """Return what the encoder learns to predict, (window, ...), of the targets by name."""
        return {}

    def trainable(self, encoder: ConditionEncoder, video: Generator, frames: int) -> BrainVideo:
        """Say what the phases train, and by which losses; so many frames of a clip are embedded."""
        pooling = encoder.frame_pooling(frames)
        return BrainVideo(encoder, video, pooling, self.contrasts, normalised=self.normalised)

    def remember(
        self,
        work: RunContext,
        encoder: ConditionEncoder,
        read: Windows,
        windows: SetWindows,
        targets: Mapping[str, Cached],
    ) -> Windows:
        """Fill the memory of an encoder that has one; by default none has.

        Returns
        -------
        Windows
            With the rows that they may not look up while they teach, if there are any.
        """
        return read

    def finished(
        self,
        taught: Taught,
        weights: Arrays,
        provenance: dict[str, Any],
        tables: dict[str, Any],
        pictures: dict[str, Image.Image],
    ) -> Trained:
        """Put a run together from its weights.

        Parameters
        ----------
        taught : Taught
            The windows that taught, of whom it keeps the statistics and a few signals.
        weights : dict
            See `train.models.conditioned.published_system.packed`.
        provenance : dict
            What its manifest says of it besides the data: ``weights``, what is stated of each model that it
            rests on.
        tables, pictures : dict
            See `train.interface.system.Trained`.
        """
        trained = self.restore(weights)
        names = ordered(self.encoder.modalities)
        manifest = replace(taught.manifest, licence=self.video.licence)
        draft = drawing_manifest(manifest, trained, self.sampling, names, provenance)
        return Trained(
            system=trained,
            manifest=draft,
            stats=select_modalities(names, taught.stats),
            projection=taught.projection if "fmri" in names else None,
            golden=select_modalities(names, golden(taught.signals)),
            tables=tables,
            pictures=pictures,
        )

    def check_base(self, work: RunContext, data: DataSetWindows, phases: dict[str, Phase]) -> None:
        """Refuse a run of other sizes or windows, and phases that would change what stays.

        Raises
        ------
        UsageError
        """
        assert work.base is not None
        check_phases(work.base, phases)
        check_sizes(work.base, self, ("encoder", "conditions"))
        check_windows(work, data)

    def sized(self, data: DataSetWindows) -> DataSetWindows:
        """Return the same windows with clips of the targets' size; refuse another that they ask for.

        Raises
        ------
        UsageError
        """
        self.check_video()
        *_, rows, columns = target_cache.read(Path(self.targets), "vae").values.shape
        return data.of_size(self.video.clip_size((rows, columns), data.size if data.clip else None))

    def _check_targets(self, latents: Cached, text: Cached, phases: Mapping[str, Phase]) -> None:
        """Refuse targets that lack what is drawn anew each time."""
        if self.sampled and latents.deviations is None:
            raise UsageError(
                "target-vae-without-deviations",
                "the recipe draws latents anew each time (system.sampled), and the target vae has their mode "
                "alone. Compute it with vae.sample=true, or give system.sampled=false.",
            )
        if self.sentences is None:
            pooled_text(text)
            return
        losses = [loss for phase in phases.values() for loss in phase.losses]
        reads_text = any(TEXT in self.contrasts.get(loss, ()) for loss in losses)
        computed = text.index["options"].get("sentences")
        if reads_text and computed != self.sentences:
            raise UsageError(
                "target-text-sentences-mismatch",
                "the recipe reads {sentences} sentences of a caption (system.sentences), and the target text "
                "was computed with text.sentences={computed}. Compute it with text.sentences={sentences}, or "
                "change the recipe.",
                sentences=self.sentences,
                computed=computed,
            )

    def large_weights(self) -> LargeWeights:
        """Count the published weights that a system of this plan reads."""
        self.video.check()
        folder = Path(self.video.folder)
        network = folders.network(folder)
        # `check` found it.
        assert network is not None
        return LargeWeights(
            denoiser=count_weights(network),
            decoder=count_weights(folder / "vae"),
            bfloat16=self.video.precision == "bfloat16",
        )

    def restore(self, weights: Arrays) -> "PublishedSystem":
        """Make the system again from the weights of a run, and the folder that the recipe names."""
        return PublishedSystem(weights, self.encoder, self.video, self.sampling)


def check_prompt(shape: Sequence[int], expected: tuple[int, int]) -> None:
    """Refuse a target ``prompt`` (title, token, value) of other tokens and values than are `expected`.

    Raises
    ------
    UsageError
    """
    _, tokens, width = shape
    if (tokens, width) != expected:
        raise UsageError(
            "target-prompt-shape-mismatch",
            "the target prompt has {tokens} tokens of {width} values, and the video model is conditioned "
            "by {expected_tokens} of {expected_width}. Compute it with prompt.tokens={expected_tokens} "
            "by the text encoder of this video model.",
            tokens=tokens,
            width=width,
            expected_tokens=expected[0],
            expected_width=expected[1],
        )


def _check_frames(latents: CachedTargets, frames: int, turn: int) -> None:
    target_frames = (latents.shape[2] - 1) * turn + 1
    if target_frames != frames:
        raise UsageError(
            "target-vae-frames-mismatch",
            "the target vae has latents of {target_frames} frames, and the clips have {clip_frames}. "
            "Compute it with vae.frames={clip_frames}.",
            target_frames=target_frames,
            clip_frames=frames,
        )


def _show(
    work: RunContext,
    system: BrainVideo,
    read: Windows,
    held_out: HeldOutWindows | None,
    phase: str,
    step: int,
) -> None:
    """Say how well windows that teach nothing are told apart, and keep what the encoder attends to."""
    if held_out is not None:
        held_out.show(system, phase, step)
    attention.note(work, system.encoder, read, phase, step)


def _show_nothing(phase: str, step: int) -> None:
    """Draw nothing: at this size, a few clips take as long as a hundred steps of the training."""
