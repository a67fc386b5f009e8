"""Masked pre-training of the encoder: on single volumes, of which most patches are hidden.

The volumes are those of windows that teach, after those of any other data where a recipe names some. Nothing
that was shown is read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.data.unlabelled import WRAP, check_fit
from train.loader import Place
from train.loop import Trainable
from train.models.conditioned.batches import Windows
from train.models.mindvideo.encoder import FMRI, SpaceTimeEncoder
from train.parts.encoders.masked import MaskedAutoencoder
from train.parts.encoders.transformer import TrunkSizes
from train.parts.losses.masked import Masked
from train.work import Arrays

# The loss, and the name of the phase that has it.
MASKED = "masked"
# The same phase on other data, which comes before it.
UNLABELLED = "unlabelled"
ORDER = "order"


@dataclass(frozen=True)
class MaskedSizes:
    """The slot ``pretrain``: what is hidden, the decoder that predicts it, and other data to begin with.

    Attributes
    ----------
    decoder : TrunkSizes
    share : float
        Of the patches that are hidden in each volume.
    data : str
        A folder of any data with fMRI, whose volumes are learned from first; none by default.
    window_s : float or None
        Length of its windows, s, which are averaged, in layouts that leave it to the reader; 7.2 for ten
        volumes of the Human Connectome Project.
    fit : str
        How volumes of another number of voxels are read, see `train.data.unlabelled.fitted`.
    """

    decoder: TrunkSizes
    share: float = 0.75
    data: str = ""
    window_s: float | None = None
    fit: str = WRAP

    def __post_init__(self) -> None:
        check_fit(self.fit)


class MaskedVolumes(Trainable):
    """Tokenizer and trunk of an encoder, and the decoder that they learn with.

    Its loss is ``masked``, the squared error of the hidden patches alone.
    """

    offered = (MASKED,)

    def __init__(self, encoder: SpaceTimeEncoder, sizes: MaskedSizes) -> None:
        super().__init__()
        width = encoder.missing.numel()
        self.loss = Masked(output="predicted", target="patches", mask="hidden")
        self.autoencoder = MaskedAutoencoder(
            encoder.tokenizer, encoder.trunk, width, sizes.decoder, sizes.share
        )

    def losses(self, batch: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        """Return the loss of ``fmri`` (volume, voxel) with patches in an ``order`` (volume, patch)."""
        reconstruction = self.autoencoder(batch[FMRI], batch[ORDER])
        # A volume that is missing teaches nothing.
        hidden = reconstruction.hidden * batch[f"{FMRI}_mask"][:, None]
        outputs = {**reconstruction._asdict(), "hidden": hidden}
        return {MASKED: self.loss(outputs, batch)}


@dataclass(frozen=True)
class VolumeBatches:
    """Draws single volumes from windows, and in what order their patches are seen.

    Attributes
    ----------
    windows : Windows
    patches : int
        Of a volume.
    unlabelled : float32, (volume, voxel), or None
        The volumes of the phase ``unlabelled``.
    """

    windows: Windows
    patches: int
    unlabelled: NDArray[np.float32] | None = None

    @classmethod
    def of(
        cls, windows: Windows, patches: int, unlabelled: NDArray[np.float32] | None = None
    ) -> "VolumeBatches":
        """Draw from the volumes of windows, whatever else is known of them."""
        signals = {name: values for name, values in windows.signals.items() if name.startswith(FMRI)}
        return cls(replace(windows, signals=signals), patches, unlabelled)

    def __call__(self, place: Place) -> dict[str, Tensor]:
        """Draw the batch that belongs at a place."""
        orders = [place.draws(row).permutation(self.patches) for row in range(place.size)]
        batch = {name: torch.from_numpy(values) for name, values in self._volumes(place).items()}
        return batch | {ORDER: torch.from_numpy(np.stack(orders))}

    def _volumes(self, place: Place) -> Arrays:
        if place.phase == UNLABELLED:
            assert self.unlabelled is not None
            volumes = self.unlabelled[place.rows(len(self.unlabelled))]
            return {FMRI: volumes, f"{FMRI}_mask": np.ones(len(volumes), np.float32)}
        count, slots, _ = self.windows.signals[FMRI].shape
        windows, slot = np.divmod(place.rows(count * slots), slots)
        signals = self.windows.normalised(windows)
        return {name: values[np.arange(place.size), slot] for name, values in signals.items()}
