"""MinD-Video as a plan: masked volumes, contrasts with captions and frames, and frames that become clips."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from rtdecode.errors import UsageError
from train import loop
from train.data.set_node import DataSetWindows
from train.data.unlabelled import check_folder, read_unlabelled
from train.data.voxel_order import HIERARCHY, check_order
from train.loader import Place
from train.models.conditioned.base import AnyWindows
from train.models.conditioned.batches import Windows
from train.models.conditioned.encoder import ConditionEncoder
from train.models.conditioned.material import Material
from train.models.conditioned.small import PRETRAIN, SmallPlan
from train.models.conditioned.small_system import FilmModels
from train.models.conditioned.trainable import FRAMES, TEXT, Contrasts
from train.models.mindvideo.augmentation import Augmentation, AugmentedBatches
from train.models.mindvideo.encoder import FMRI, SpaceTimeEncoder, SpaceTimeSizes
from train.models.mindvideo.pretraining import (
    MASKED,
    UNLABELLED,
    MaskedSizes,
    MaskedVolumes,
    VolumeBatches,
)
from train.parts.encoders.patches import check_patch
from train.phases import Phase
from train.work import Work

CONTRASTS = {"text": (FMRI, TEXT), "image": (FMRI, FRAMES)}
# What `MindVideoPlan.contrast` may be -> the contrasts that stay in the phases.
BOTH = "both"
NONE = "none"
_STAY = {BOTH: ("text", "image"), "text": ("text",), "image": ("image",), NONE: ()}
# Volumes that are averaged at once.
_AT_ONCE = 256


@dataclass(frozen=True)
class MindVideoPlan(SmallPlan):
    """MinD-Video at small scale; see `train.models.conditioned.small.SmallPlan`.

    Attributes
    ----------
    pretrain : MaskedSizes or None
        How hidden patches are predicted, for recipes with a phase ``masked``, and on which other data first.
    augmentation : Augmentation
    contrast : str
        Which contrasts stay in the phases: ``both``, ``text``, ``image`` or ``none``. Those that stay have
        the weight of all together.
    """

    encoder: SpaceTimeSizes
    pretrain: MaskedSizes | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    contrast: str = BOTH
    apart: bool = True
    order: str = HIERARCHY

    name: ClassVar[str] = "mindvideo-tiny"
    contrasts: ClassVar[Contrasts] = CONTRASTS
    video_phases: ClassVar[tuple[str, ...]] = ("frames", PRETRAIN)
    encoder_phases: ClassVar[Mapping[str, tuple[str, ...]]] = {MASKED: MaskedVolumes.offered}

    def __post_init__(self) -> None:
        check_patch(self.voxels, self.encoder.patch)
        check_order(self.order)
        if self.contrast not in _STAY:
            raise UsageError(
                "plan-contrast-unknown",
                "system.contrast must be one of {available}, found '{contrast}'.",
                available=list(_STAY),
                contrast=self.contrast,
            )
        if self.films.turn != 1:
            raise UsageError(
                "plan-latent-frames-not-single",
                "this system draws frame by frame, and a latent frame holds {turn} of them. Give "
                "system.films.turn=1.",
                turn=self.films.turn,
            )

    def _apart(
        self, phases: Mapping[str, Phase], *, from_base: bool
    ) -> tuple[dict[str, Phase], dict[str, Phase]]:
        """Divide the phases, and leave out the contrasts that are not asked for."""
        if MASKED in phases and self.pretrain is None:
            raise UsageError(
                "recipe-missing-masked",
                "the recipe has a phase '{phase}', and does not say how patches are hidden. Give "
                "system.pretrain, or leave phases.{phase} out.",
                phase=MASKED,
            )
        if MASKED in phases and self.pretrain is not None and self.pretrain.data:
            check_folder(Path(self.pretrain.data))
        brains, distilling = super()._apart(phases, from_base=from_base)
        contrasted = {name: _contrasted(phase, _STAY[self.contrast]) for name, phase in brains.items()}
        return {name: phase for name, phase in contrasted.items() if phase is not None}, distilling

    def begin_encoder(
        self,
        work: Work,
        data: AnyWindows,
        encoder: ConditionEncoder,
        windows: Windows,
        phases: Mapping[str, Phase],
        seed: int,
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Note the mean brain, and train the encoder on masked volumes where a phase says so."""
        assert isinstance(encoder, SpaceTimeEncoder)
        encoder.mean_brain.copy_(_mean_brain(windows))
        if MASKED not in phases:
            return [], {}
        how = self.pretrain
        assert how is not None
        masked_phases = {MASKED: phases[MASKED]}
        unlabelled = None
        provenance: dict[str, Any] = {}
        if how.data:
            target = data.opened(work.data) if isinstance(data, DataSetWindows) else None
            voxels = windows.signals[FMRI].shape[2]
            other = read_unlabelled(Path(how.data), voxels, how.fit, how.window_s, target)
            unlabelled = other.volumes
            masked_phases = {UNLABELLED: phases[MASKED], **masked_phases}
            provenance = {"pretrain": other.provenance()}
        torch.manual_seed(seed)
        log = loop.train(
            MaskedVolumes(encoder, how),
            masked_phases,
            VolumeBatches.of(windows, encoder.tokenizer.patches, unlabelled),
            work.stages / MASKED,
            _show_nothing,
            seed,
            self.machine,
        )
        return log, provenance

    def draws(
        self, windows: Windows, material: Material, models: FilmModels, losses: Mapping[str, Sequence[str]]
    ) -> Callable[[Place], Any]:
        """Draw batches whose captions and frames are changed a little each time."""
        how = self.augmentation
        return AugmentedBatches(windows, self.dropout, losses, material.pictures, models.net.eval(), how)


def _contrasted(phase: Phase, stay: Sequence[str]) -> Phase | None:
    """Leave contrasts out of a phase; what stays of them has the weight of all. None if no loss is left."""
    contrasts = {name: weight for name, weight in phase.losses.items() if name in CONTRASTS}
    remaining = {name: weight for name, weight in contrasts.items() if name in stay}
    share = sum(contrasts.values()) / sum(remaining.values()) if remaining else 0.0
    losses = {name: weight for name, weight in phase.losses.items() if name not in CONTRASTS}
    losses |= {name: share * weight for name, weight in remaining.items()}
    return replace(phase, losses=losses) if losses else None


def _mean_brain(windows: Windows) -> torch.Tensor:
    """Average the volumes of windows, as far as they are there, (volume, voxel)."""
    count, slots, voxels = windows.signals[FMRI].shape
    total = np.zeros((slots, voxels))
    present = np.zeros(slots)
    for first in range(0, count, _AT_ONCE):
        signals = windows.normalised(np.arange(first, min(first + _AT_ONCE, count)))
        mask = signals[f"{FMRI}_mask"]
        total += (mask[:, :, None] * signals[FMRI]).sum(0)
        present += mask.sum(0)
    return torch.from_numpy(total / np.maximum(present, 1)[:, None]).float()


def _show_nothing(phase: str, step: int) -> None:
    """Show nothing: a volume that was predicted tells nobody anything."""
