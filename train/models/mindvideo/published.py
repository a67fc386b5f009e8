"""MinD-Video on Stable Diffusion 1.5 from a folder, and what is read of targets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from rtdecode.errors import UsageError
from train.config.run_context import RunContext
from train.data.set_windows import SetWindows
from train.data.target_cache import Cached
from train.data.target_rows import CachedTargets
from train.data.voxel_order import HIERARCHY, check_order
from train.data.window_arrays import WindowArray
from train.models.conditioned.batches import Windows
from train.models.conditioned.encoder import ConditionEncoder
from train.models.conditioned.published import PROMPT, PublishedPlan, check_prompt
from train.models.conditioned.small import PRETRAIN
from train.models.conditioned.trainable import Contrasts
from train.models.mindvideo.augmentation import IMAGE_VARIANTS, TEXT_VARIANTS, VariantBatches, Variants
from train.models.mindvideo.contrasts import BOTH, CONTRASTS, check_contrast, contrasted
from train.models.mindvideo.encoder import SpaceTimeSizes, check_voxels
from train.models.mindvideo.pretraining import MASKED, MaskedSizes, MaskedVolumes, begin, check_pretraining
from train.parts.generators import folders
from train.parts.generators.stable_diffusion import TEXT, TOKENS, check_unet
from train.trainer.loader import Place
from train.trainer.phases import Phase


@dataclass(frozen=True)
class MindVideoPublishedPlan(PublishedPlan):
    """MinD-Video at its published size; see `train.models.conditioned.published.PublishedPlan`.

    Attributes
    ----------
    width : int
        Of the tokens that the U-Net reads.
    pretrain : MaskedSizes or None
        How hidden patches are predicted, for recipes with a phase ``masked``, and on which other data first.
    augmentation : Variants
        How often a changed frame or caption is taken.
    contrast : str
        Which contrasts stay in the phases: ``both``, ``text``, ``image`` or ``none``. Those that stay have
        the weight of all together.
    """

    encoder: SpaceTimeSizes
    conditions: int = TOKENS
    width: int = TEXT
    pretrain: MaskedSizes | None = None
    augmentation: Variants = field(default_factory=Variants)
    contrast: str = BOTH
    apart: bool = True
    order: str = HIERARCHY

    contrasts: ClassVar[Contrasts] = CONTRASTS
    video_phases: ClassVar[tuple[str, ...]] = ("frames", PRETRAIN)
    encoder_phases: ClassVar[Mapping[str, tuple[str, ...]]] = {MASKED: MaskedVolumes.offered}

    def __post_init__(self) -> None:
        check_order(self.order)
        check_contrast(self.contrast)

    def divide_phases(
        self, phases: Mapping[str, Phase]
    ) -> tuple[dict[str, Phase], dict[str, Phase], dict[str, Phase]]:
        """Divide the phases, and leave out the contrasts that are not asked for."""
        check_pretraining(phases, self.pretrain, self.encoder)
        captioned, brains, distilling = super().divide_phases(phases)
        return captioned, contrasted(brains, self.contrast), distilling

    def check_video(self) -> None:
        """Refuse a folder that does not hold the U-Net of Stable Diffusion 1.5."""
        self.video.check()
        folder = Path(self.video.folder)
        check_unet(folders.settings(folder), folder, self.width)

    def check_windows(self, windows: SetWindows) -> None:
        """Refuse windows of which fewer voxels are read than a patch has."""
        check_voxels(windows, self.encoder)

    def begin_encoder(
        self,
        work: RunContext,
        windows: SetWindows,
        encoder: ConditionEncoder,
        read: Windows,
        phases: Mapping[str, Phase],
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Note the mean brain, and train the encoder on masked volumes where a phase says so."""
        return begin(work, encoder, read, self.pretrain, phases, windows, work.seed, self.machine)

    def read_targets(self, aimed: Mapping[str, CachedTargets]) -> Mapping[str, WindowArray]:
        """Return frames and captions with their changes, as far as they were embedded."""
        if PROMPT in aimed:
            check_prompt(aimed[PROMPT].shape, (self.conditions, self.width))
        names = {IMAGE_VARIANTS: "image", TEXT_VARIANTS: "text"}
        by_name = {name: aimed[target].variants for name, target in names.items()}
        variants = {name: values for name, values in by_name.items() if values is not None}
        if TEXT_VARIANTS in variants:
            _check_captions(variants[TEXT_VARIANTS].shape[1], aimed["image"].shape[1])
        return variants

    def draws(
        self, read: Windows, targets: Mapping[str, Cached], losses: Mapping[str, Sequence[str]]
    ) -> Callable[[Place], Any]:
        """Draw batches with one frame of each window and its caption, both changed a little at times."""
        return VariantBatches(read, self.dropout, losses, self.augmentation)


def _check_captions(captioned: int, frames: int) -> None:
    """Refuse captions of other frames than were embedded."""
    if captioned not in (1, frames):
        raise UsageError(
            "target-text-frames-mismatch",
            "the target text has captions of {captioned} frames of a clip, and the target image {frames} "
            "frames. Compute both of all frames, without image.frames.",
            captioned=captioned,
            frames=frames,
        )
