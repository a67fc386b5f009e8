"""The torch modules of `tests.seam_system`."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor, nn

from train.loop import Trainable

# (channel, latent frame, row, column) of a clip of 17 frames of 48 x 80.
LATENT = (4, 4, 6, 10)
CHUNK_FRAMES = 2
TOKENS = 2
WIDTH = 16
POOLED = 8
WORDS = 12
LOOKED_UP = 2
_FEATURES = 24
_SIDE = 8


class Stem(nn.Module):
    """The way of one participant's signals to features; holes are zeros under their mask."""

    def __init__(self, channels: int, slots: int, voxels: int) -> None:
        super().__init__()
        self.eeg = nn.Linear(channels, _FEATURES)
        self.fmri = nn.Linear(slots * voxels, _FEATURES)

    def forward(self, eeg: Tensor, eeg_mask: Tensor, fmri: Tensor, fmri_mask: Tensor) -> Tensor:
        received = eeg_mask.sum(1, keepdim=True).clamp(min=1)
        loudness = (eeg.abs() * eeg_mask[:, None]).sum(2) / received
        volumes = fmri * fmri_mask[:, :, None]
        return torch.tanh(self.eeg(loudness) + 0.3 * self.fmri(volumes.flatten(1)))


class Head(nn.Module):
    """What is said of features: tokens, a pooled vector, a start and its level, and rows of the memory."""

    def __init__(self, keys: Tensor) -> None:
        super().__init__()
        self.who = nn.Embedding(3, _FEATURES)
        self.tokens = nn.Linear(_FEATURES, TOKENS * WIDTH)
        self.pooled = nn.Linear(_FEATURES, POOLED)
        self.start = nn.Linear(_FEATURES, LATENT[0])
        self.level = nn.Linear(_FEATURES, 1)
        self.register_buffer("keys", keys)

    def forward(
        self, features: Tensor, subject: Tensor, carry: Tensor, carry_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        known = features + self.who(subject)
        tokens = self.tokens(known).unflatten(1, (TOKENS, WIDTH))
        pooled = self.pooled(known)
        rows = (pooled @ self.keys.T).topk(LOOKED_UP, dim=1).indices
        colour = self.start(known)[:, :, None, None, None].expand(-1, *LATENT)
        start = colour + 0.1 * carry_mask[:, :, None, None, None] * carry
        level = 0.5 + 0.4 * torch.sigmoid(self.level(known))
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
        subject: Tensor,
        carry: Tensor,
        carry_mask: Tensor,
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
        told = torch.cat([tokens, words], 1)
        (velocity,) = self.transformer(shifted.transpose(1, 2), told, 1000 * level, return_dict=False)
        return velocity.transpose(1, 2)


class Step(nn.Module):
    """One step of a chunk, guided away from the mean brain: the stage ``denoise``."""

    def __init__(self, generator: Generator, brain: dict[str, Tensor], guidance: float) -> None:
        super().__init__()
        self.generator = generator
        self.guidance = guidance
        for name, value in brain.items():
            self.register_buffer(f"brain_{name}", value)

    def brain(self, count: int) -> dict[str, Tensor]:
        """Tokens, pooled vector and words of the mean brain, for so many rows."""
        parts = {name: self.get_buffer(f"brain_{name}") for name in ("tokens", "pooled", "words")}
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
        brain = self.brain(len(latent))
        toward = self.generator(latent, past, tokens, pooled, words, t)
        away = self.generator(latent, past, brain["tokens"], brain["pooled"], brain["words"], t)
        velocity = away + self.guidance * (toward - away)
        return latent + (r - t)[:, None, None, None, None] * velocity


class Keep(nn.Module):
    """What the next chunk is told of all before it: the stage ``remember``."""

    def forward(self, latent: Tensor, past: Tensor) -> Tensor:
        return 0.5 * past + 0.5 * latent[:, :, -1:]


class Codec(nn.Module):
    """Colours of blocks of 8 x 8 pixels; a clip glides from latent frame to latent frame.

    It has two caches: the latent frame before, and a mean of all so far.
    """

    def __init__(self, blend: float) -> None:
        super().__init__()
        self.blend = blend

    def encode(self, clips: Tensor) -> Tensor:
        """Latents of clips (row, 17, 48, 80, 3) in [0, 1]."""
        count = len(clips)
        blocks = clips.reshape(count, 17, LATENT[2], _SIDE, LATENT[3], _SIDE, 3).mean((3, 5))
        turns = [blocks[:, :5].mean(1)]
        for first in (5, 9, 13):
            turns.append(blocks[:, first : first + 4].mean(1))
        colours = 2 * torch.stack(turns, 1).permute(0, 4, 1, 2, 3) - 1
        return torch.cat([colours, colours.mean(1, keepdim=True)], 1)

    def first(self, latent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Five frames, and both caches."""
        return self.drawn([latent] * 5), latent, latent

    def next(self, latent: Tensor, last: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Four frames, and both caches."""
        steady = latent + self.blend * (mean - latent)
        frames = [last + (steady - last) * share for share in (0.25, 0.5, 0.75, 1.0)]
        return self.drawn(frames), steady, 0.5 * (mean + latent)

    def drawn(self, latents: list[Tensor]) -> Tensor:
        """Frames (row, frame, 48, 80, 3) in [0, 1]."""
        whole = torch.cat(latents, 2)
        colours = 0.4 * whole[:, :3] + 0.1 * whole[:, 3:] + 0.5
        wide = colours.repeat_interleave(_SIDE, 3).repeat_interleave(_SIDE, 4)
        return wide.permute(0, 2, 3, 4, 1).clamp(0, 1)

    def forward(self, latents: Tensor) -> Tensor:
        """Whole clips."""
        first, *others = latents.split(1, 2)
        frames, last, mean = self.first(first)
        parts = [frames]
        for latent in others:
            frames, last, mean = self.next(latent, last, mean)
            parts.append(frames)
        return torch.cat(parts, 1)


class First(nn.Module):
    """The stage ``decode_first``."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.codec.first(latent)


class Next(nn.Module):
    """The stage ``decode_next``."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, latent: Tensor, last: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.codec.next(latent, last, mean)


class Parts(Trainable):
    """All that learns."""

    offered = ("velocity", "start")

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
        found = {"start": (start - batch["latents"]).square().mean()}
        if "velocity" in names:
            chunk = batch["latents"][:, :, :CHUNK_FRAMES]
            t = batch["level"][:, None, None, None, None]
            noisy = (1 - t) * chunk + t * batch["noise"]
            told = self.generator(noisy, batch["past"], tokens, pooled, batch["table"][rows], batch["level"])
            found["velocity"] = (told - (batch["noise"] - chunk)).square().mean()
        return {name: found[name] for name in names}
