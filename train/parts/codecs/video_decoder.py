"""Decoders of video latents that take a clip in turns: its first frames leave before its last are drawn.

A turn takes the next latent frames and what the turn before kept, and gives pictures and what the next turn
needs. A decoder keeps nothing itself, so any number of sessions can share one. `stages` makes the bundle
stages ``decode_first`` and ``decode_next`` of any of them, with what is kept as states of the runtime.
"""

import copy
from abc import abstractmethod
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from rtdecode.bundle.wiring import PortBindings, Source
from rtdecode.errors import UsageError
from train.interface.system import Traced

# What the turns of a clip keep, by name.
Cache = dict[str, Tensor]
# Shape of the latents of a clip: channel, latent frame, row, column.
Latent = tuple[int, int, int, int]


class VideoDecoder(nn.Module):
    """From latents, in the units that a video model draws, to pictures.

    Attributes
    ----------
    turns : (int, int)
        Latent frames that the first turn takes, and that each later one takes.
    """

    turns: tuple[int, int] = (1, 1)

    @abstractmethod
    def first(self, latent: Tensor) -> tuple[Tensor, Cache]:
        """Decode a clip's first latent frames.

        Parameters
        ----------
        latent : (clip, channel, latent frame, row, column)
            Latents of the clip's first turn.

        Returns
        -------
        pictures : (clip, frame, colour, row, column)
            In [0, 1].
        cache : dict
            What `next` takes.
        """

    @abstractmethod
    def next(self, latent: Tensor, cache: Mapping[str, Tensor]) -> tuple[Tensor, Cache]:
        """Decode the next latent frames; shapes as for `first`."""

    def in_turns(self, latent: Tensor) -> Iterator[Tensor]:
        """Decode whole clips, yielding the pictures of each turn."""
        first, later = self.turns
        pictures, cache = self.first(latent[:, :, :first])
        yield pictures
        for start in range(first, latent.shape[2], later):
            pictures, cache = self.next(latent[:, :, start : start + later], cache)
            yield pictures

    def forward(self, latent: Tensor) -> Tensor:
        """Decode whole clips, (clip, frame, colour, row, column)."""
        return torch.cat(list(self.in_turns(latent)), dim=1)


def frames(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring pictures (clip, frame, colour, row, column) to a size, as (clip, frame, row, column, colour)."""
    if tuple(pictures.shape[3:]) != size:
        flat = functional.interpolate(pictures.flatten(0, 1), size, mode="bilinear", antialias=True)
        pictures = flat.unflatten(0, pictures.shape[:2])
    return pictures.permute(0, 1, 3, 4, 2)


def cache_shapes(decoder: VideoDecoder, latent: Latent) -> dict[str, tuple[int, ...]]:
    """Find the shapes of what one session keeps between turns, without computing or allocating it."""
    _, cache = _rehearsed(decoder, latent)
    return {name: tuple(values.shape) for name, values in cache.items()}


def cache_bytes(decoder: VideoDecoder, latent: Latent) -> int:
    """Count the bytes that one session keeps between turns, without computing or allocating them."""
    _, cache = _rehearsed(decoder, latent)
    return sum(values.nbytes for values in cache.values())


def check_turns(decoder: VideoDecoder, count: int) -> None:
    """Refuse latents whose frames do not make whole turns of a decoder.

    Raises
    ------
    UsageError
    """
    first, later = decoder.turns
    if count < first or (count - first) % later:
        raise UsageError(
            "latent-frames-indivisible",
            "{latent_frames} latent frames cannot be decoded in turns: {first_turn_frames} were "
            "expected, and {later_turn_frames} for each later turn. Take clips of another length; 33 "
            "frames have 9 latent frames.",
            latent_frames=count,
            first_turn_frames=first,
            later_turn_frames=later,
        )


def stages(decoder: VideoDecoder, latent: Latent, size: tuple[int, int]) -> list[Traced]:
    """List the stages that decode clips with these latents in turns, and give frames of a size.

    A later turn may keep more than the first: a state that nothing has written is zeros, as the runtime has
    it, and means the same to the decoder.

    Raises
    ------
    UsageError
        If the latent frames do not make whole turns.
    """
    check_turns(decoder, latent[1])
    first_cache, cache = _rehearsed(decoder, latent)
    # The examples are only traced: their shapes matter, their values do not.
    examples = {name: torch.zeros_like(values, device="cpu") for name, values in cache.items()}
    now, later = (torch.zeros_like(x, device="cpu") for x in _latents(decoder, latent))
    first = Traced(
        "decode_first",
        _First(decoder, size, list(first_cache)),
        {"latent": now},
        ["frames", *map(_port, first_cache)],
        PortBindings(writes={_port(name): name for name in first_cache}),
    )
    if latent[1] == decoder.turns[0]:
        return [first]
    reads = {name: Source("state", state=name) for name in cache}
    writes = {_port(name): name for name in cache}
    following = Traced(
        "decode_next",
        _Next(decoder, size, list(cache)),
        {"latent": later, **examples},
        ["frames", *map(_port, cache)],
        PortBindings(reads, writes),
    )
    return [first, following]


def _rehearsed(decoder: VideoDecoder, latent: Latent) -> tuple[Cache, Cache]:
    """Take two turns with tensors that have shapes alone; return what each keeps."""
    hollow = copy.deepcopy(decoder).to("meta")
    now, later = _latents(hollow, latent)
    _, first_cache = hollow.first(now)
    _, cache = hollow.next(later, first_cache)
    return first_cache, cache


def _latents(decoder: VideoDecoder, latent: Latent) -> list[Tensor]:
    """Make the latents of the first turn and of a later one, without values."""
    dtype = next(decoder.parameters()).dtype
    channels, _, *size = latent
    return [torch.empty(1, channels, count, *size, dtype=dtype, device="meta") for count in decoder.turns]


class _First(nn.Module):
    """The first turn with a port for each thing that it keeps, as an export traces it."""

    def __init__(self, decoder: VideoDecoder, size: tuple[int, int], names: list[str]) -> None:
        super().__init__()
        self.decoder = decoder
        self.size = size
        self.names = names

    def forward(self, latent: Tensor) -> tuple[Tensor, ...]:
        pictures, cache = self.decoder.first(latent)
        return frames(pictures, self.size), *(cache[name] for name in self.names)


class _Next(nn.Module):
    """A later turn with ports for what it reads and keeps, as an export traces it."""

    def __init__(self, decoder: VideoDecoder, size: tuple[int, int], names: list[str]) -> None:
        super().__init__()
        self.decoder = decoder
        self.size = size
        self.names = names

    def forward(self, latent: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        pictures, cache = self.decoder.next(latent, dict(zip(self.names, values, strict=True)))
        return frames(pictures, self.size), *(cache[name] for name in self.names)


def _port(name: str) -> str:
    """Name the output port that writes a state; an input port cannot have the same name."""
    return f"{name}_next"
