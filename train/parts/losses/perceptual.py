"""The loss of how pictures look to a network: the error of its features and not of pixels."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class Perceptual:
    """The error of what layers of a network make of pictures; see `train.parts.losses`.

    The features of each place are brought to length 1 before they are compared (Zhang et al. 2018,
    arXiv:1801.03924, equation 1, without the learned weights), and every layer counts alike. The network
    stands still.

    Parameters
    ----------
    output, target : str
        Names of latents.
    pictures : callable
        Latents -> pictures (picture, 3, row, column) in the units of the network, by what can be
        differentiated.
    layers : sequence of nn.Module
        The network, one layer after the other.
    read : sequence of int
        Numbers of the layers whose outputs (picture, channel, row, column) are compared.
    """

    def __init__(
        self,
        output: str,
        target: str,
        pictures: Callable[[Tensor], Tensor],
        layers: Sequence[nn.Module],
        read: Sequence[int],
    ) -> None:
        self.output = output
        self.target = target
        self.pictures = pictures
        self.layers = layers
        self.read = read

    def __call__(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """Compare; a target that the system does not make is read from the batch."""
        target = outputs[self.target] if self.target in outputs else batch[self.target]
        with torch.no_grad():
            true_features = self.features(target)
        pairs = zip(self.features(outputs[self.output]), true_features, strict=True)
        return torch.stack([(features - true).square().sum(1).mean() for features, true in pairs]).mean()

    def features(self, latents: Tensor) -> list[Tensor]:
        """Return the features of pictures of latents, each of length 1 at each place."""
        values = self.pictures(latents.float())
        features: list[Tensor] = []
        for number, layer in enumerate(self.layers[: max(self.read) + 1]):
            values = layer(values)
            if number in self.read:
                features.append(functional.normalize(values, dim=1))
        return features
