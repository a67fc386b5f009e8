"""The parts of the video model that are trained together, and their loss.

A `train.models.compact.batches.Batch` comes in, and a scalar loss goes out. The training loop decides which
parameters learn.
"""

from collections.abc import Sequence

from torch import Tensor

from train.models.compact.batches import Batch
from train.models.compact.encoder import CompactEncoder
from train.models.compact.flow import Denoiser, VideoFlow, preconditioning
from train.parts.codecs.patch import ClipDecoder, making_up
from train.trainer.loop import Trainable


class Trainables(Trainable):
    """The encoder and the flow. They offer one loss, ``velocity``.

    Of the encoder only the tokens are learned with this loss. Where there are several participants it is the
    default one's, and batches of others say what else they are conditioned by (`Batch.seams`).
    """

    offered = ("velocity",)

    def __init__(self, encoder: CompactEncoder, flow: VideoFlow) -> None:
        super().__init__()
        self.encoder = encoder
        self.flow = flow

    def denoiser(
        self, decoder: ClipDecoder, shift: float, guidance: float, calm: float, detail: float = 1.0
    ) -> Denoiser:
        """Make a step of the sampler from the parts as they are at this moment."""
        null = self.encoder.null
        return Denoiser(self.flow, shift, guidance, calm, null, making_up(decoder), detail)

    def losses(self, batch: Batch, names: Sequence[str]) -> dict[str, Tensor]:
        """Return the losses with these names, name -> scalar."""
        return {name: {"velocity": self.velocity}[name](batch) for name in names}

    def velocity(self, batch: Batch) -> Tensor:
        """Compute the mean squared error of the network's output, with channels weighted by their variance.

        The target is the output that turns the noisy latents into the clean ones under
        `train.models.compact.flow.preconditioning`, both without what the encoder draws.
        """
        condition, embedding = self.encoder.condition(
            batch.glimpses, batch.cuts, batch.route, batch.carry, batch.carry_mask, batch.seams
        )
        spread = self.flow.deviation
        t = batch.level.view(-1, 1, 1, 1, 1)
        clean = batch.latents - self.flow.encoder_clip(condition)
        noisy = (1 - t) * clean + t * batch.noise
        keep, gain, scale = preconditioning(batch.level, spread)
        target = (clean - keep * noisy) / gain
        output = self.flow.network(noisy * scale, batch.level, condition, embedding)
        # The forward pass may run in bf16; the loss is computed in single precision.
        return ((output.float() - target).square() * spread**2).mean()
