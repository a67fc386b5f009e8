"""The loss of a generator: the error of what it predicts of noisy latents."""

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor

from train.distillation.clock import FLOW, NOISE, VELOCITY


class HasLoss(Protocol):
    """A generator, as far as its loss is concerned; see `train.parts.generators.base.Generator.loss`."""

    def loss(self, latents: Tensor, noise: Tensor, level: Tensor, tokens: Tensor, /) -> Tensor:
        """Compute the error of what is predicted of noisy latents under tokens."""
        ...


def denoising(
    predict: Callable[[Tensor], Tensor],
    predicts: str,
    latents: Tensor,
    noise: Tensor,
    alpha: Tensor,
    sigma: Tensor,
) -> Tensor:
    """Compute the mean squared error of what is predicted of ``alpha x + sigma e``.

    Parameters
    ----------
    predict : callable
        Noisy latents -> what the network predicts.
    predicts : str
        ``flow`` for ``e - x`` (Lipman et al. 2023, arXiv:2210.02747), ``velocity`` for
        ``alpha e - sigma x`` (Salimans and Ho 2022, arXiv:2202.00512, appendix D), or ``noise`` for e (Ho et
        al. 2020, arXiv:2006.11239, equation 14).
    latents, noise : (batch, channel, latent frame, row, column)
        x and e.
    alpha, sigma : (batch, 1, 1, 1, 1)
        Factors of the clean latents and of the noise.
    """
    noisy = alpha * latents + sigma * noise
    targets = {
        FLOW: lambda: noise - latents,
        VELOCITY: lambda: alpha * noise - sigma * latents,
        NOISE: lambda: noise,
    }
    # The forward pass may run in bf16; the loss is computed in single precision.
    return (predict(noisy).float() - targets[predicts]()).square().mean()


class Denoising:
    """The generator's loss under the tokens of the condition; see `train.parts.losses`.

    Parameters
    ----------
    generator : HasLoss
        Computes the loss of a batch.
    """

    def __init__(self, generator: HasLoss) -> None:
        self.generator = generator

    def __call__(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """Read ``tokens`` of the outputs, and ``latents``, ``noise`` and ``level`` of the batch."""
        return self.generator.loss(batch["latents"], batch["noise"], batch["level"], outputs["tokens"])
