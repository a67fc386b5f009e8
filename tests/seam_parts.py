"""The torch modules of `tests.seam_system`."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor, nn

from train.distillation.clock import FLOW
from train.models.conditioned.trainable import DENOISING
from train.parts.codecs.video_decoder import Cache, VideoDecoder
from train.parts.generators.base import wide
from train.parts.losses.denoising import denoising
from train.parts.losses.regression import Regression
from train.trainer.loop import Trainable

# (channel, latent frame, row, column) of a clip of 17 frames of 48 x 80.
LATENT = (4, 4, 6, 10)
CHUNK_FRAMES = 2
TOKENS = 2
WIDTH = 16
POOLED = 8
WORDS = 12
LOOKED_UP = 2
FEATURES = 24
_SIDE = 8
START = "start"
# What a chunk is told, in the order of the generator's arguments.
CONDITION_PARTS = ("tokens", "pooled", "words")


class Stem(nn.Module):
    """The way of one participant's signals to features; holes are zeros under their mask."""

    def __init__(self, channels: int, slots: int, voxels: int) -> None:
        super().__init__()
        self.eeg = nn.Linear(channels, FEATURES)
        self.fmri = nn.Linear(slots * voxels, FEATURES)

    def forward(self, eeg: Tensor, eeg_mask: Tensor, fmri: Tensor, fmri_mask: Tensor) -> Tensor:
        received = eeg_mask.sum(1, keepdim=True).clamp(min=1)
        loudness = (eeg.abs() * eeg_mask[:, None]).sum(2) / received
        volumes = fmri * fmri_mask[:, :, None]
        return torch.tanh(self.eeg(loudness) + 0.3 * self.fmri(volumes.flatten(1)))


class Head(nn.Module):
    """What is said of features: tokens, a pooled vector, a start and its level, and rows of the memory.

    Participants have numbers from 1 on; nobody is number 0.
    """

    def __init__(self, keys: Tensor) -> None:
        super().__init__()
        self.who = nn.Embedding(3, FEATURES)
        self.tokens = nn.Linear(FEATURES, TOKENS * WIDTH)
        self.pooled = nn.Linear(FEATURES, POOLED)
        self.start = nn.Linear(FEATURES, LATENT[0])
        self.level = nn.Linear(FEATURES, 1)
        self.register_buffer("keys", keys)

    def forward(
        self, features: Tensor, subject: Tensor, carry: Tensor, carry_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        subject_features = features + self.who(subject)
        tokens = self.tokens(subject_features).unflatten(1, (TOKENS, WIDTH))
        pooled = self.pooled(subject_features)
        rows = (pooled @ self.keys.T).topk(LOOKED_UP, dim=1).indices
        colour = self.start(subject_features)[:, :, None, None, None].expand(-1, *LATENT)
        start = colour + 0.1 * carry_mask[:, :, None, None, None] * carry
        level = 0.5 + 0.4 * torch.sigmoid(self.level(subject_features))
        return tokens, pooled, rows, start, level


class Encode(nn.Module):
    """Stem and head of one participant: the stage ``encode``."""

    def __init__(self, stem: Stem, head: Head) -> None:
        super().__init__()
        self.stem = stem
        self.head = head

    def forward(
        self,
        eeg: Tensor,
        eeg_mask: Tensor,
        fmri: Tensor,
        fmri_mask: Tensor,
        carry: Tensor,
        carry_mask: Tensor,
        subject: Tensor,
    ) -> tuple[Tensor, ...]:
        features = self.stem(eeg, eeg_mask, fmri, fmri_mask)
        return self.head(features, subject, carry, carry_mask)


class Generator(nn.Module):
    """A published video transformer at toy size that is told a condition and the chunk before."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        channels, _, rows, columns = LATENT
        self.shift = nn.Linear(POOLED, 2 * channels)
        self.transformer = CogVideoXTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=2 * channels,
            out_channels=channels,
            time_embed_dim=8,
            text_embed_dim=WIDTH,
            num_layers=layers,
            sample_width=columns,
            sample_height=rows,
            sample_frames=4 * (CHUNK_FRAMES - 1) + 1,
            max_text_seq_length=TOKENS + LOOKED_UP,
        )

    def forward(
        self, latent: Tensor, past: Tensor, tokens: Tensor, pooled: Tensor, words: Tensor, level: Tensor
    ) -> Tensor:
        """The velocity of a chunk (row, channel, latent frame, row, column) at noise levels (row,)."""
        both = torch.cat([latent, past.expand_as(latent)], 1)
        shifted = both + self.shift(pooled)[:, :, None, None, None]
        context = torch.cat([tokens, words], 1)
        (velocity,) = self.transformer(shifted.transpose(1, 2), context, 1000 * level, return_dict=False)
        return velocity.transpose(1, 2)


class Step(nn.Module):
    """One step of a chunk, guided away from what is said of nobody: the stage ``denoise``."""

    def __init__(self, generator: Generator, nobody: dict[str, Tensor], guidance: float) -> None:
        super().__init__()
        self.generator = generator
        self.guidance = guidance
        for name in CONDITION_PARTS:
            self.register_buffer(f"nobody_{name}", nobody[name])

    def nobody(self, count: int) -> dict[str, Tensor]:
        """Tokens, pooled vector and words of nobody, for so many rows."""
        parts = {name: self.get_buffer(f"nobody_{name}") for name in CONDITION_PARTS}
        return {name: part.expand(count, *part.shape[1:]) for name, part in parts.items()}

    def forward(
        self,
        latent: Tensor,
        past: Tensor,
        tokens: Tensor,
        pooled: Tensor,
        words: Tensor,
        t: Tensor,
        r: Tensor,
    ) -> Tensor:
        toward = self.generator(latent, past, tokens, pooled, words, t)
        away = self.generator(latent, past, **self.nobody(len(latent)), level=t)
        velocity = away + self.guidance * (toward - away)
        return latent + wide(r - t) * velocity


class Keep(nn.Module):
    """What the next chunk is told of all before it: the stage ``remember``."""

    def forward(self, latent: Tensor, past: Tensor) -> Tensor:
        return 0.5 * past + 0.5 * latent[:, :, -1:]


class Codec(VideoDecoder):
    """Colours of blocks of 8 x 8 pixels; a clip glides from latent frame to latent frame.

    It has two caches: the latent frame before, and a mean of all so far.
    """

    def __init__(self, blend: float) -> None:
        super().__init__()
        self.blend = nn.Parameter(torch.tensor(blend))

    def encode(self, clips: Tensor) -> Tensor:
        """Latents of clips (row, 17, 48, 80, 3) in [0, 1]."""
        count = len(clips)
        blocks = clips.reshape(count, 17, LATENT[2], _SIDE, LATENT[3], _SIDE, 3).mean((3, 5))
        turns = [blocks[:, :5].mean(1)]
        for first in (5, 9, 13):
            turns.append(blocks[:, first : first + 4].mean(1))
        colours = 2 * torch.stack(turns, 1).permute(0, 4, 1, 2, 3) - 1
        return torch.cat([colours, colours.mean(1, keepdim=True)], 1)

    def first(self, latent: Tensor) -> tuple[Tensor, Cache]:
        """Five frames."""
        return self.decode([latent] * 5), {"cache_last": latent, "cache_mean": latent}

    def next(self, latent: Tensor, cache: Mapping[str, Tensor]) -> tuple[Tensor, Cache]:
        """Four frames."""
        last = cache["cache_last"]
        mean = cache["cache_mean"]
        steady = latent + self.blend * (mean - latent)
        frames = [last + (steady - last) * share for share in (0.25, 0.5, 0.75, 1.0)]
        return self.decode(frames), {"cache_last": steady, "cache_mean": 0.5 * (mean + latent)}

    def decode(self, latents: list[Tensor]) -> Tensor:
        """Pictures (row, frame, 3, 48, 80) in [0, 1]."""
        latent = torch.cat(latents, 2)
        colours = 0.4 * latent[:, :3] + 0.1 * latent[:, 3:] + 0.5
        pixels = colours.repeat_interleave(_SIDE, 3).repeat_interleave(_SIDE, 4)
        return pixels.transpose(1, 2).clamp(0, 1)


class Parts(Trainable):
    """All that learns."""

    offered = (DENOISING, START)

    def __init__(self, stems: dict[str, Stem], head: Head, generator: Generator) -> None:
        super().__init__()
        self.stems = nn.ModuleDict(stems)
        self.head = head
        self.generator = generator

    def losses(self, batch: dict[str, Any], names: Sequence[str]) -> dict[str, Tensor]:
        stem = self.stems[batch["name"]]
        features = stem(batch["eeg"], batch["eeg_mask"], batch["fmri"], batch["fmri_mask"])
        fresh = torch.zeros(len(features), 1)
        nothing = torch.zeros(len(features), LATENT[0], 1, *LATENT[2:])
        tokens, pooled, rows, start, _ = self.head(features, batch["subject"], nothing, fresh)
        losses = {START: Regression(START, "latents")({START: start}, batch)}
        if DENOISING in names:
            words = batch["table"][rows]
            level = batch["left"]

            def predict(noisy: Tensor) -> Tensor:
                return self.generator(noisy, batch["past"], tokens, pooled, words, level)

            chunk, noise = (batch[name][:, :, :CHUNK_FRAMES] for name in ("latents", "noise"))
            sigma = wide(level)
            losses[DENOISING] = denoising(predict, FLOW, chunk, noise, 1 - sigma, sigma)
        return {name: losses[name] for name in names}
