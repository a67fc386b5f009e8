"""MinD-Video as a plan: masked volumes, contrasts with captions and frames, and frames that become clips."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rtdecode.errors import UsageError
from train.config.run_context import RunContext
from train.data.set_windows import SetWindows
from train.data.sets.set_node import DataSetWindows
from train.data.voxel_order import HIERARCHY, check_order
from train.models.conditioned.base import AnyWindows
from train.models.conditioned.batches import Windows
from train.models.conditioned.encoder import ConditionEncoder
from train.models.conditioned.material import Material
from train.models.conditioned.small import PRETRAIN, SmallPlan
from train.models.conditioned.small_system import FilmModels
from train.models.conditioned.trainable import Contrasts
from train.models.mindvideo.augmentation import Augmentation, AugmentedBatches
from train.models.mindvideo.contrasts import BOTH, CONTRASTS, check_contrast, contrasted
from train.models.mindvideo.encoder import SpaceTimeSizes, check_voxels
from train.models.mindvideo.pretraining import MASKED, MaskedSizes, MaskedVolumes, begin, check_pretraining
from train.parts.encoders.patches import check_patch
from train.trainer.loader import Place
from train.trainer.phases import Phase


@dataclass(frozen=True)
class MindVideoPlan(SmallPlan):
    """MinD-Video at small scale; see `train.models.conditioned.small.SmallPlan`.

    Attributes
    ----------
    pretrain : MaskedSizes or None
        How hidden patches are predicted, for recipes with a phase ``masked``, and on which other data first.
    augmentation : Augmentation
        How often frames and captions are changed before they are embedded.
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
        check_contrast(self.contrast)
        if self.films.turn != 1:
            raise UsageError(
                "plan-latent-frames-not-single",
                "this system draws frame by frame, and a latent frame holds {turn} of them. Give "
                "system.films.turn=1.",
                turn=self.films.turn,
            )

    def divide_phases(
        self, phases: Mapping[str, Phase], *, from_base: bool
    ) -> tuple[dict[str, Phase], dict[str, Phase]]:
        """Divide the phases, and leave out the contrasts that are not asked for."""
        check_pretraining(phases, self.pretrain, self.encoder)
        brains, distilling = super().divide_phases(phases, from_base=from_base)
        return contrasted(brains, self.contrast), distilling

    def check_windows(self, windows: SetWindows) -> None:
        """Refuse windows of which fewer voxels are read than a patch has."""
        check_voxels(windows, self.encoder)

    def begin_encoder(
        self,
        work: RunContext,
        data: AnyWindows,
        encoder: ConditionEncoder,
        windows: Windows,
        phases: Mapping[str, Phase],
        seed: int,
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Note the mean brain, and train the encoder on masked volumes where a phase says so."""
        target = data.opened(work.data) if isinstance(data, DataSetWindows) else None
        return begin(work, encoder, windows, self.pretrain, phases, target, seed, self.machine)

    def draws(
        self, windows: Windows, material: Material, models: FilmModels, losses: Mapping[str, Sequence[str]]
    ) -> Callable[[Place], Any]:
        """Draw batches whose captions and frames are changed a little each time."""
        how = self.augmentation
        return AugmentedBatches(windows, self.dropout, losses, material.pictures, models.net.eval(), how)
