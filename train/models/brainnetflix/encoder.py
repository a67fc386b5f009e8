"""The encoder of Brain Netflix: a layer for each participant, a perceptron that all share, and three heads.

`SharedSizes` is what a recipe says of it. `SharedEncoder` begins at what was found in closed form: the layers
are those of `train.closed_form.shared_space`, the perceptron passes their readings on, and each head is the
linear map from points of the shared space to what it regresses (`SharedEncoder.begin`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rtdecode.errors import UsageError
from train.closed_form.ridge import fit_ridge
from train.closed_form.shared_space import LINEAR, STEMS, Layer, fit_space
from train.config.builders import Later
from train.fitting.shared_space import PRESENT, READING
from train.models.conditioned.encoder import START, Encoded, FrontEncoder, Signals
from train.parts.encoders.frames import FrameMean

FMRI = "fmri"
# Predictions: what the layer alone says of a clip's vector (`READING`), and what the perceptron says.
VECTOR = "vector"
# What a batch holds besides signals: the number of the participant, and what is added to a layer's readings
# of windows that taught it.
PARTICIPANT = "participant"
CORRECTION = "correction"
_MASK = f"{FMRI}_mask"


@dataclass(frozen=True)
class SharedSizes:
    """The slot ``encoder``.

    Attributes
    ----------
    clip, start : int
        Components of the shared space for what clips are aligned with, and for their latents.
    hidden, blocks : int
        Width of the layer inside each block of the perceptron, and number of blocks.
    dropout : float
        Share of the values of a block's inner layer that are left out in training.
    tokens : int
        Components of the text tokens that their head regresses.
    stem : str
        ``linear``, a layer for each participant, or ``vertex``, one for the same vertices of all.
    latent : (channel, latent frame, row, column)
        Of clips, as the plan finds them.
    """

    clip: int
    start: int
    hidden: int
    blocks: int
    dropout: float
    tokens: int
    stem: str = LINEAR
    latent: Later[tuple[int, ...]] = ()

    def __post_init__(self) -> None:
        if self.stem not in STEMS:
            raise UsageError(
                "shared-space-stem-unknown",
                "system.encoder.stem must be one of {available}, found '{stem}'.",
                available=list(STEMS),
                stem=self.stem,
            )

    @property
    def modalities(self) -> tuple[str, ...]:
        """What is read."""
        return (FMRI,)

    def check(self, conditions: int) -> None:
        """Accept any number of the condition's tokens: a linear map makes them."""

    def build(self, signals: Signals, embedding: int, conditions: int, width: int) -> "SharedEncoder":
        """Make the encoder with random weights; see `train.models.conditioned.encoder.Encoding`."""
        return SharedEncoder(self, signals, embedding, conditions, width)


class Stem(nn.Module):
    """The linear layer of a participant, from the volumes of a window to the shared space.

    A volume that is missing is taken to be the mean of those that are there.

    Parameters
    ----------
    signals : Signals
        Shapes of the participant's signals: the number of volumes and voxels counts.
    width : int
        Of the shared space.
    """

    def __init__(self, signals: Signals, width: int) -> None:
        super().__init__()
        # Not a linear layer of torch, whose weight an exporter transposes and renames.
        self.map = nn.Parameter(torch.zeros(signals.slots * signals.voxels, width))
        self.offset = nn.Parameter(torch.zeros(width))

    @torch.no_grad()
    def take(self, layer: Layer) -> None:
        """Become a layer that was found in closed form."""
        # Where clips differ in fewer ways than the space has components, the last ones stay silent.
        components = layer.map.shape[1]
        self.map[:, :components] = torch.from_numpy(layer.map)
        self.offset[:components] = torch.from_numpy(layer.offset - layer.mean @ layer.map)

    def forward(self, volumes: Tensor, mask: Tensor) -> Tensor:
        """Read volumes (window, volume, voxel) with their mask (window, volume), (window, component)."""
        is_present = mask[:, :, None]
        mean = (is_present * volumes).sum(1, keepdim=True) / is_present.sum(1, keepdim=True).clamp(min=1)
        filled = is_present * volumes + (1 - is_present) * mean
        return filled.flatten(1) @ self.map + self.offset


class Residual(nn.Module):
    """A block of the perceptron. It passes on what it is given until it has learned something.

    Parameters
    ----------
    width, hidden : int
        Components that go in and out, and width of the layer between.
    dropout : float
        Share of the hidden values that are left out in training.
    """

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        last = nn.Linear(hidden, width)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), last
        )

    def forward(self, values: Tensor) -> Tensor:
        """Add to (window, component)."""
        return values + self.layers(values)


class Head(nn.Module):
    """A linear map to the principal components of what is regressed, and from these to its values.

    The components stand still; the map to them learns.

    Parameters
    ----------
    width : int
        Of what is read.
    components : int
        Number of principal components; as many as there are values at most.
    shape : sequence of int
        Of what is regressed.
    """

    mean: Tensor
    basis: Tensor

    def __init__(self, width: int, components: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        size = math.prod(self.shape)
        self.to_components = nn.Linear(width, min(components, size))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("basis", torch.zeros(min(components, size), size))

    @torch.no_grad()
    def begin(self, points: NDArray[np.float64], values: NDArray[np.floating]) -> None:
        """Become the ridge regression from points (window, component) to values (window, ...)."""
        space = fit_space({"": values}, {"": len(self.basis)})
        components = space.kinds[""]
        ridge = fit_ridge([points], components.spread * space.points({"": values}), [1.0])
        count = len(components.basis)
        # Where values differ in fewer ways than there are components, the others stay silent.
        self.basis.zero_()
        self.to_components.weight.zero_()
        self.to_components.bias.zero_()
        self.mean.copy_(torch.from_numpy(components.mean))
        self.basis[:count] = torch.from_numpy(components.basis)
        self.to_components.weight[:count] = torch.from_numpy(ridge.maps[0].T)
        self.to_components.bias[:count] = torch.from_numpy(-ridge.means[0] @ ridge.maps[0])

    def forward(self, values: Tensor) -> Tensor:
        """Map (window, component) to (window, ...)."""
        return (self.to_components(values) @ self.basis + self.mean).unflatten(1, self.shape)


class SharedEncoder(FrontEncoder):
    """Layers of participants, the perceptron, and heads for text tokens, clip vector and start latents.

    A window without a volume has the tokens of a caption without a word, zeros, and the mean start.

    Parameters
    ----------
    sizes : SharedSizes
        Sizes of the shared space, the perceptron and the heads.
    signals : Signals
        Of the first participant.
    embedding, conditions, width : int
        See `train.models.conditioned.encoder.Encoding.build`.

    Attributes
    ----------
    stems : list of Stem
        Those of the participants, one for each, or one for all of them. Batches name theirs by its number;
        signals without a number are read by the first one.
    """

    modalities = (FMRI,)

    def __init__(
        self, sizes: SharedSizes, signals: Signals, embedding: int, conditions: int, width: int
    ) -> None:
        super().__init__()
        space = sizes.clip + sizes.start
        self.stems = nn.ModuleList([Stem(signals, space)])
        self.reading = Head(space, embedding, (embedding,))
        self.trunk = nn.Sequential(
            *(Residual(space, sizes.hidden, sizes.dropout) for _ in range(sizes.blocks))
        )
        self.vector = Head(space, embedding, (embedding,))
        self.tokens = Head(space, sizes.tokens, (conditions, width))
        self.start = Head(space, sizes.start, sizes.latent)

    @property
    def width(self) -> int:
        """Width of the shared space."""
        return self.reading.to_components.in_features

    def begin(self, points: NDArray[np.float64], values: Mapping[str, NDArray[np.floating]]) -> None:
        """Let the heads begin in closed form, at what points of the shared space say.

        A layer expects points, so a linear map of them expects values, whoever the layer is of. A map from
        readings takes its largest weights from components that hardly differ, which are those that nobody's
        voxels follow, and other people's layers have other noise there.

        Parameters
        ----------
        points : (window, component)
            Points of the windows that teach. Where clips differ in fewer ways than the space has components,
            the last ones are not there, and stay silent.
        values : mapping
            ``vector`` (window, embedding), ``tokens`` (window, token, width) and ``start`` (window, channel,
            latent frame, row, column) of what they showed.
        """
        padded = np.pad(points, [(0, 0), (0, self.width - points.shape[1])])
        heads = {VECTOR: (self.reading, self.vector), "tokens": (self.tokens,), START: (self.start,)}
        for name, of_values in heads.items():
            for head in of_values:
                head.begin(padded, values[name])

    def read(self, signals: Mapping[str, Tensor]) -> Tensor:
        """Read windows by the layer of their participant, (window, component)."""
        number = int(signals[PARTICIPANT]) if PARTICIPANT in signals else 0
        stem = self.stems[min(number, len(self.stems) - 1)]
        reading = stem(signals[FMRI], signals[_MASK])
        return reading + signals[CORRECTION] if CORRECTION in signals else reading

    def present(self, name: str, signals: Mapping[str, Tensor]) -> Tensor:
        """Tell which windows have a volume, 1 or 0, (window,)."""
        return signals[PRESENT][:, 0] if PRESENT in signals else super().present(name, signals)

    def front(self, signals: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Read windows by the layer of their participant; without a volume a reading is zero.

        Returns
        -------
        dict
            `READING`, (window, component), and `PRESENT`, (window, 1).
        """
        is_present = self.present(FMRI, signals)[:, None]
        return {READING: is_present * self.read(signals), PRESENT: is_present}

    def forward(self, signals: Mapping[str, Tensor]) -> Encoded:
        """Encode windows; see `train.models.conditioned.encoder.ConditionEncoder.forward`.

        A batch may also hold `PARTICIPANT` and `CORRECTION`.
        """
        read = signals if PRESENT in signals else self.front(signals)
        reading = read[READING]
        is_present = read[PRESENT]
        values = self.trunk(reading)
        vector = self.vector(values)
        start = self.start(is_present * values)
        tokens = is_present[:, :, None] * self.tokens(values)
        predicted = {READING: self.reading(reading), VECTOR: vector, START: start}
        return Encoded({FMRI: vector}, tokens, predicted)

    def frame_pooling(self, frames: int) -> nn.Module:
        """Make the mean over frames."""
        return FrameMean()
