"""What a brain encoder offers: class vectors, and the tokens that condition the video."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from rtdecode.errors import UsageError
from train.parts.encoders.frames import FramePooling

MODALITIES = ("fmri", "eeg")
# The prediction of latents that drawing may start from, (window, channel, latent frame, row, column).
START = "start"
# The logits of categories, of which several may hold at once, (window, category).
CATEGORY_HEAD = "category_head"


class HasShape(Protocol):
    """An array, in memory or on disk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        ...


@dataclass(frozen=True)
class Signals:
    """The shapes of a window's signals."""

    slots: int
    voxels: int
    channels: int
    samples: int

    @classmethod
    def of(cls, signals: Mapping[str, HasShape]) -> "Signals":
        """Read the shapes off the signals of some windows, ``eeg`` as far as there is any."""
        _, slots, voxels = signals["fmri"].shape
        _, channels, samples = signals["eeg"].shape if "eeg" in signals else (0, 0, 0)
        return cls(slots, voxels, channels, samples)

    def nothing(self, device: torch.device) -> dict[str, Tensor]:
        """Make one window without a signal: zeros under zero masks."""
        window = {
            "fmri": torch.zeros(1, self.slots, self.voxels),
            "fmri_mask": torch.zeros(1, self.slots),
            "eeg": torch.zeros(1, self.channels, self.samples),
            "eeg_mask": torch.zeros(1, self.samples),
        }
        return {name: values.to(device) for name, values in window.items()}


@dataclass(frozen=True)
class Encoded:
    """What the encoder says of some windows.

    Attributes
    ----------
    classes : dict
        Modality -> its class vector, (window, embedding).
    tokens : (window, token, width)
        The condition, in place of the tokens of a text.
    predicted : dict
        Name -> what else the encoder predicts of windows, such as of their action, for losses alone; the
        latents under `START` are also drawn from, where the sampling says so.
    """

    classes: dict[str, Tensor]
    tokens: Tensor
    predicted: dict[str, Tensor] = field(default_factory=dict)


class ConditionEncoder(nn.Module, ABC):
    """An encoder of the signals of a window.

    Attributes
    ----------
    modalities : tuple of str
        What it reads, in the order of `MODALITIES`.
    """

    modalities: tuple[str, ...]

    @property
    def offset(self) -> Tensor | None:
        """A learned vector that is added to each token of the condition, (token, width), if it has one."""
        return None

    @abstractmethod
    def forward(self, signals: Mapping[str, Tensor]) -> Encoded:
        """Encode windows.

        Parameters
        ----------
        signals : mapping
            ``fmri`` (window, volume, voxel), ``eeg`` (window, channel, sample), and ``fmri_mask`` (window,
            volume), ``eeg_mask`` (window, sample), of the modalities that the encoder reads. A modality whose
            mask is zero everywhere is missing.
        """

    def without_condition(self, signals: Mapping[str, Tensor]) -> Encoded:
        """Encode windows for losses that do not read the condition, whose tokens need not be computed."""
        return self(signals)

    def present(self, name: str, signals: Mapping[str, Tensor]) -> Tensor:
        """Tell which windows have a modality at all: 1 or 0, (window,)."""
        return signals[f"{name}_mask"].amax(1).gt(0).float()

    def pooled(self, encoded: Encoded, signals: Mapping[str, Tensor]) -> Tensor:
        """Average the class vectors of the modalities that are there, each of length 1, (window, embedding).

        Where no modality is there, the vectors of what stands for them are averaged.
        """
        is_present = torch.stack([self.present(name, signals) for name in encoded.classes], dim=1)
        shares = torch.where(is_present.sum(1, keepdim=True) > 0, is_present, torch.ones_like(is_present))
        vectors = [functional.normalize(x, dim=1) for x in encoded.classes.values()]
        mean = (shares[:, :, None] * torch.stack(vectors, dim=1)).sum(1)
        return functional.normalize(mean, dim=1)

    def condition(self, signals: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the condition's tokens of windows, and the mean class vectors."""
        encoded = self(signals)
        return encoded.tokens, self.pooled(encoded, signals)

    def started_condition(self, signals: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `condition` does, and the latents that drawing starts from.

        Raises
        ------
        UsageError
            If the encoder predicts no such latents.
        """
        encoded = self(signals)
        if START not in encoded.predicted:
            raise UsageError(
                "encoder-predicts-no-start",
                "drawing shall start from latents (system.sampling.start_level), and the recipe's encoder "
                "predicts none. Leave it out to draw from noise alone.",
            )
        return encoded.tokens, self.pooled(encoded, signals), encoded.predicted[START]

    def frame_pooling(self, frames: int) -> nn.Module:
        """Make what pools the embeddings of a clip's frames, for class vectors to be compared with.

        It maps (clip, frame, embedding) to (clip, embedding) of length 1.
        """
        return FramePooling(frames)

    @torch.no_grad()
    def null(self, signals: Signals, device: torch.device) -> Tensor:
        """Encode a window without a signal, (token, width)."""
        return self(signals.nothing(device)).tokens[0]

    def negative(self, signals: Signals, device: torch.device) -> Tensor:
        """Return the tokens that guidance leads away from, (token, width): by default those of no signal."""
        return self.null(signals, device)


class FrontEncoder(ConditionEncoder):
    """An encoder whose first part each participant has of its own, before what all share.

    Such an encoder takes what `front` returned in place of signals.
    """

    @abstractmethod
    def front(self, signals: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Read signals: name -> what goes on to the shared part, (window, ...)."""


class Encoding(Protocol):
    """What a recipe says of an encoder; the slot ``encoder``."""

    @property
    def modalities(self) -> Sequence[str]:
        """``fmri``, ``eeg`` or both."""
        ...

    def check(self, conditions: int) -> None:
        """Refuse a number of the condition's tokens that the encoder cannot make.

        Raises
        ------
        UsageError
        """
        ...

    def build(self, signals: Signals, embedding: int, conditions: int, width: int) -> ConditionEncoder:
        """Make the encoder with random weights.

        Parameters
        ----------
        signals : Signals
            Shapes of the signals that are read.
        embedding : int
            Width of the class vectors: that of the embeddings they are compared with.
        conditions, width : int
            Number and width of the condition's tokens.
        """
        ...


def ordered(modalities: Sequence[str]) -> tuple[str, ...]:
    """Bring modalities into the order of `MODALITIES`."""
    return tuple(name for name in MODALITIES if name in modalities)
