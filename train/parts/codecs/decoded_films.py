"""Clips of films as a full video decoder draws them from their latents, for a smaller decoder to learn from.

`prepare` cuts films into clips that follow each other, encodes each by a video autoencoder, decodes it again,
and keeps latents and pictures in a file a clip. A clip that is there is not computed again. The last clips of
each film are kept from the training.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from rtdecode.phantom.film.from_file import film_from_file, frames_from_file
from train.config import disk_space
from train.config.run_context import progress, write_arrays
from train.config.training_films import TrainingFilm
from train.data.shards import Shards
from train.parts.codecs.full_video_decoder import full_decoder
from train.parts.codecs.video_decoder import VideoDecoder, check_turns
from train.targets.latents import check_clip, encode, factors

# One clip of so many of a film, the last ones, is held out.
_CLIPS_PER_HELD_OUT = 10
# A clip to learn from, and one that is held out.
_LEAST = 2
# Rows and columns of the pictures by which a film's length is found.
_SMALL = (8, 12)
# Grey levels of 0 to 255 become -1 to 1.
_HALF = 127.5
_WHITE = 255
_COLOURS = 3


@dataclass(frozen=True)
class Cut:
    """How films are cut into clips.

    Attributes
    ----------
    frames : int
        Of a clip.
    size : (row, column)
        To which pictures are scaled, and of which what lies outside is cut off.
    fps : float
        Frames per second.
    seconds : float
        No more of a film is read.
    """

    frames: int
    size: tuple[int, int]
    fps: float
    seconds: float


@dataclass(frozen=True)
class DecodedClips:
    """Clips on disk.

    Attributes
    ----------
    latents : (clip, channel, latent frame, row, column) float32
        In the units that the generator draws.
    pictures : (clip, frame, colour, row, column) uint8
        What the full decoder draws from them.
    """

    latents: Shards
    pictures: Shards

    def __len__(self) -> int:
        return len(self.latents)


def check(cut: Cut, autoencoder: Any) -> None:
    """Refuse clips that an autoencoder cannot encode and decode as a whole.

    Raises
    ------
    UsageError
        Also if the autoencoder is neither Wan's nor CogVideoX's.
    """
    decoder = full_decoder(autoencoder)
    if cut.frames == 1:
        raise UsageError(
            "tiny-decoder-single-frame",
            "frames=1: a decoder of videos learns from how pictures change. Give more, such as frames=33.",
        )
    check_clip((cut.frames, 3, *cut.size), autoencoder)
    time, _ = factors(autoencoder)
    check_turns(decoder, (cut.frames - 1) // time + 1)


def counted(films: Sequence[TrainingFilm], cut: Cut) -> list[int]:
    """Count the clips of each film.

    Raises
    ------
    UsageError
        If a film is drawn and not read from a file, cannot be decoded to its end, or is too short.
    """
    return [_count(film, cut) for film in films]


def check_room(counts: Sequence[int], cut: Cut, folder: Path) -> None:
    """Refuse clips whose pictures have no room on the disk.

    Parameters
    ----------
    counts : sequence of int
        Clips of each film.
    cut : Cut
        The frames of a clip and the size of its pictures.
    folder : Path
        Where the clips will be kept. It need not exist yet.

    Raises
    ------
    UsageError
    """
    rows, columns = cut.size
    saved_bytes = sum(path.stat().st_size for path in folder.glob("*.npz"))
    needed = sum(counts) * cut.frames * rows * columns * _COLOURS - saved_bytes
    if lack := disk_space.lacking(folder, needed):
        raise UsageError(
            "decoded-clips-insufficient-disk",
            "{clips} clips of {frames} frames of {rows} x {columns} pixels take {needed_gb:.1f} GB more, and "
            "{folder} has {free_gb:.1f} GB left. Make room, give another disk with out=, or read less of "
            "each film with seconds=.",
            clips=sum(counts),
            frames=cut.frames,
            rows=rows,
            columns=columns,
            **lack,
        )


def prepare(
    films: Sequence[TrainingFilm], counts: Sequence[int], cut: Cut, autoencoder: Any, folder: Path
) -> tuple[DecodedClips, DecodedClips]:
    """Encode and decode the clips of films, where that was not done before.

    Parameters
    ----------
    films : sequence of TrainingFilm
        The films, opened one after the other.
    counts : sequence of int
        Clips of each, as `counted` found them.
    cut : Cut
        How they are cut into clips.
    autoencoder : AutoencoderKLWan or AutoencoderKLCogVideoX
        On the device where it is to compute. It can take such clips (`check`).
    folder : Path
        Where the clips are kept. They must be of this cut and this autoencoder.

    Returns
    -------
    DecodedClips
        To learn from.
    DecodedClips
        Held out: the last tenth of each film, one clip at least.
    """
    decoder = full_decoder(autoencoder)
    folder.mkdir(parents=True, exist_ok=True)
    taught: list[Path] = []
    held_out: list[Path] = []
    for film, count in zip(films, counts, strict=True):
        files = [folder / f"{film.key}-{number:05d}.npz" for number in range(count)]
        clips = zip(files, _clips(film, cut), strict=False)
        for file, clip in progress(clips, film.name, count):
            if not file.is_file():
                write_arrays(file, _decoded(clip, autoencoder, decoder))
        held_out_count = max(1, count // _CLIPS_PER_HELD_OUT)
        taught += files[:-held_out_count]
        held_out += files[-held_out_count:]
    return _opened(taught), _opened(held_out)


def _count(film: TrainingFilm, cut: Cut) -> int:
    if film.by_seed:
        raise UsageError(
            "films-drawn-unsupported",
            "films={film} is a word for films that are drawn. Give files or folders of films.",
            film=film.name,
        )
    seconds = cut.seconds if film.seconds is None else min(cut.seconds, film.seconds)
    frames, fault = film_from_file(Path(film.source), _SMALL, cut.fps, int(seconds * cut.fps))
    if fault:
        raise UsageError(
            "film-truncated",
            "films={path}: it can be decoded for {decodable_s:g} s, and not beyond ({error}). Give a "
            "whole file, or less of it with seconds=.",
            path=film.source,
            decodable_s=len(frames) / cut.fps,
            error=fault,
        )
    count = len(frames) // cut.frames
    if count < _LEAST:
        raise UsageError(
            "film-too-few-clips",
            "films={path}: {frames} frames of it can be read at {fps:g} a second, and {min_clips} "
            "clips of {clip_frames} are needed: one to learn from, and one that is held out. Give a "
            "longer film, or more frames a second with fps=.",
            path=film.source,
            frames=len(frames),
            fps=cut.fps,
            min_clips=_LEAST,
            clip_frames=cut.frames,
        )
    return count


def _clips(film: TrainingFilm, cut: Cut) -> Iterator[NDArray[np.uint8]]:
    """Yield the whole clips of a film, (frame, row, column, 3)."""
    frames = frames_from_file(Path(film.source), cut.size, cut.fps)
    while len(clip := list(islice(frames, cut.frames))) == cut.frames:
        yield np.stack(clip)


@torch.inference_mode()
def _decoded(clip: NDArray[np.uint8], autoencoder: Any, decoder: VideoDecoder) -> dict[str, NDArray[Any]]:
    """Encode a clip and decode it again, with an axis for the clip."""
    place = next(decoder.parameters())
    pictures = torch.from_numpy(clip).to(place.device).permute(0, 3, 1, 2).float() / _HALF - 1
    latents = encode(pictures.to(place.dtype), autoencoder)
    turns = [turn.float() for turn in decoder.in_turns(latents.to(place.dtype))]
    grey = (_WHITE * torch.cat(turns, dim=1)).round().byte()
    return {"latents": latents.cpu().numpy(), "pictures": grey.cpu().numpy()}


def _opened(files: Sequence[Path]) -> DecodedClips:
    return DecodedClips(Shards(files, "latents"), Shards(files, "pictures"))
