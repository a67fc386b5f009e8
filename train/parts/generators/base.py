"""What every generator has: a video model under tokens, its noise levels, its loss and its guided step."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rtdecode.errors import UsageError
from train.distillation.clock import Schedule
from train.parts.losses.denoising import denoising

# Noise levels in training.
LEVELS = 1000
# What the course of guidance follows, where it has one: the share of the levels that were left behind, or the
# number of the level beside that of the steps.
PROGRESS = "progress"
LEVEL = "level"
RISES = (PROGRESS, LEVEL)


class Generator(nn.Module, ABC):
    """A video model under tokens. A subclass says what it predicts, and how noisy its latents are.

    Attributes
    ----------
    transformer : nn.Module
        The network, one of diffusers', which takes adapters.
    predicts : str
        What it predicts, see `train.distillation.clock.Schedule`.
    refused : mapping
        See `train.interface.system.System`.
    """

    transformer: Any
    predicts: str
    refused: Mapping[str, str] = MappingProxyType({})

    @property
    @abstractmethod
    def text(self) -> int:
        """Width of the tokens that condition it."""

    def adds(self, weight: str) -> bool:
        """Tell whether the network that was published has no weight of this name: by default all are its."""
        return False

    @abstractmethod
    def forward(self, noisy: Tensor, level: Tensor, tokens: Tensor, span: Tensor | None = None) -> Tensor:
        """Predict a velocity or the noise, as `predicts` says.

        Parameters
        ----------
        noisy : (batch, channel, latent frame, row, column)
            Latents at that level.
        level : (batch,)
            Noise level, in the units of `native`.
        tokens : (batch, token, width)
            Tokens that condition each clip.
        span : (batch,), optional
            How far a step goes on the clock, from 0 to 1, for a transformer with spans
            (`train.distillation.interval_embedding`).

        Returns
        -------
        (batch, channel, latent frame, row, column)
        """

    @abstractmethod
    def schedule(self) -> Schedule:
        """Return its noise levels on the clock of a flow."""

    @abstractmethod
    def native(self, level: Tensor) -> Tensor:
        """Return the noise level that `forward` takes, of a number from 0 to 999."""

    @abstractmethod
    def mixture(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors of clean latents and of noise at levels with numbers from 0 to 999, (batch,)."""

    @abstractmethod
    def guided(self, null: Tensor, strength: float, noisy: Tensor, level: Tensor, tokens: Tensor) -> Tensor:
        """Predict with guidance.

        Parameters
        ----------
        null : (token, width)
            The condition without a brain.
        strength : float
            1 for no guidance at all.
        noisy, level, tokens
            See `forward`.
        """

    @abstractmethod
    def step(self, null: Tensor, strength: float, rise: str = PROGRESS) -> "GuidedStep":
        """Return a step of its sampler, guided away from the null condition.

        Parameters
        ----------
        null, strength
            See `guided`.
        rise : str
            One of `RISES`.

        Raises
        ------
        UsageError
            If its guidance has no course that could follow anything else than the progress.
        """

    def step_from(self, null: Tensor, strength: float, level: float) -> "GuidedStep":
        """Return a step of its sampler where drawing starts from latents that are mixed with noise.

        Parameters
        ----------
        null, strength
            See `guided`.
        level : float
            Share of the noise in them, on the clock (`train.distillation.clock`).

        Raises
        ------
        UsageError
            If the model draws from noise alone, or was not trained at the level.
        """
        raise UsageError(
            "sampling-start-unsupported",
            "system.sampling.start_level={level:g}: this video model draws from noise alone. Leave it out, "
            "or take one that predicts noise.",
            level=level,
        )

    def loss(self, latents: Tensor, noise: Tensor, level: Tensor, tokens: Tensor) -> Tensor:
        """Compute the mean squared error of what is predicted.

        Parameters
        ----------
        latents, noise : (batch, channel, latent frame, row, column)
            Clean latents, and the noise that is mixed with them.
        level : int64, (batch,)
            Numbers of the noise levels, from 0 to 999.
        tokens : (batch, token, width)
            Tokens that condition each clip.
        """
        alpha, sigma = self.mixture(level)

        def predict(noisy: Tensor) -> Tensor:
            return self(noisy, self.native(level), tokens)

        return denoising(predict, self.predicts, latents, noise, alpha, sigma)


class VideoModel(Protocol):
    """What a recipe says of a video model that is trained from nothing; the slot ``video``."""

    @property
    def text(self) -> int:
        """Width of the tokens that condition it."""
        ...

    @property
    def patch(self) -> int:
        """Rows and columns of latents in a token."""
        ...

    def generator(self, latent: tuple[int, int, int, int], shift: float) -> Generator:
        """Make it with random weights.

        Parameters
        ----------
        latent : (channel, latent frame, row, column)
            Shape of a clip's latents.
        shift : float
            How far its noise levels are moved towards noise.

        Raises
        ------
        UsageError
            If latents cannot be cut into its patches.
        """
        ...


class GuidedStep(nn.Module, ABC):
    """One step of a sampler with guidance, its schedule inside: what ``denoise.onnx`` computes."""

    @abstractmethod
    def clock(self) -> dict[str, Tensor]:
        """Return examples of what tells it where the step begins and ends: input -> (1,) float."""

    @abstractmethod
    def levels(self, steps: int) -> list[float]:
        """Return the standard deviation of the noise before each of some steps."""

    @abstractmethod
    def sample(self, noise: Tensor, condition: Tensor, steps: int) -> Tensor:
        """Take all steps from noise to clean latents."""


def check_patch(patch: int, rows: int, columns: int) -> None:
    """Refuse latents that cannot be cut into patches of so many rows and columns.

    Raises
    ------
    UsageError
    """
    if rows % patch or columns % patch:
        raise UsageError(
            "video-patch-indivisible",
            "latents of {rows} x {columns} cannot be cut into patches of {patch}. Choose a patch "
            "that divides both.",
            rows=rows,
            columns=columns,
            patch=patch,
        )


def wide(values: Tensor) -> Tensor:
    """Give (batch,) the axes of latents."""
    return values.view(-1, 1, 1, 1, 1)


def example(value: float) -> Tensor:
    """Return an example of a clock's input, (1,)."""
    return value * torch.ones(1)
