"""A release, a pipeline and targets of noise, with published shapes: what memory and time are measured on."""

import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rtdecode.disk.video import write_mp4
from train.config.run_context import Arrays
from train.data import cinebrain_clips
from train.data.layouts import cinebrain
from train.data.layouts.cinebrain_set import CAPTIONS, FPS, FRAMES, SAMPLES
from train.data.target_cache import Target, compute
from train.targets.models import files_of
from train.weights import source

LICENCE = "random weights"
SUBJECT = "sub-0001"
VOXELS = 18946
# Windows of the whole release that teach.
TEACHING = (cinebrain_clips.RUNS - cinebrain_clips.HELD_RUNS) * cinebrain_clips.RUN_CLIPS
# Rows of a segment of the release, 64 of them EEG.
_ROWS = 69
_EMBEDDING = 1152


def changes(folder: Path, workers: int) -> list[str]:
    """Say what the recipe ``cinesync`` is told, so that model and optimizer take next to nothing.

    Parameters
    ----------
    folder : Path
        Holds what `release`, `pipeline` and `targets` wrote.
    workers : int
        Processes that draw batches.
    """
    small = "{builder: transformer, depth: 1, width: 16, heads: 2, inner: 24}"
    return [
        f"data={folder / 'release'}",
        f"data.voxels={VOXELS}",
        f"system.targets={folder / 'targets'}",
        f"system.video.folder={folder / 'pipeline'}",
        f"system.video.licence={LICENCE}",
        "system.encoder.tokens=8",
        "system.encoder.eeg_tokens=4",
        f"system.encoder.fmri={small}",
        f"system.encoder.eeg={small}",
        "system.conditions=4",
        "system.machine.device=cpu",
        f"system.machine.workers={workers}",
        "phases.align.warmup=0",
        "phases.diffuse.warmup=0",
        "phases.diffuse.accumulate=1",
        "judge=none",
    ]


def release(folder: Path, windows: int, held_out: int) -> None:
    """Write a release of CineBrain's layout whose signals are noise, and whose clips all show the same.

    Parameters
    ----------
    folder : Path
        A new folder.
    windows : int
        So many that teach.
    held_out : int
        So many of each run that is held out.
    """
    folder.mkdir()
    held_out_places = [
        TEACHING + run * cinebrain_clips.RUN_CLIPS + n
        for run in range(cinebrain_clips.HELD_RUNS)
        for n in range(held_out)
    ]
    places = np.array([*range(windows), *held_out_places])
    numbers = [int(place) * cinebrain_clips.TRS + n for place in places for n in range(cinebrain_clips.TRS)]
    random = np.random.default_rng(0)
    subject = folder / SUBJECT
    subject.mkdir()
    _pack(
        subject / "fMRI_preprocessed_data.tar",
        ((f"visual_audio/{n}.npy", _npy(random.standard_normal(VOXELS))) for n in numbers),
    )
    _pack(
        subject / "EEG_preprocessed_data.tar",
        ((f"eeg_02/{n}.npy", _npy(random.standard_normal((_ROWS, SAMPLES), np.float32))) for n in numbers),
    )
    film = folder / "film.mp4"
    pictures = random.integers(0, 256, (1, 3, 4, 3)).astype(np.uint8).repeat(16, 1).repeat(16, 2)
    write_mp4(film, pictures.repeat(FRAMES, 0), FPS)
    clips = cinebrain_clips.clips_at(SUBJECT, places).tolist()
    _pack(folder / "videos.tar", ((f"videos/{clip:06d}.mp4", film.read_bytes()) for clip in clips))
    film.unlink()
    captions = [{"video": f"videos/{clip:06d}.mp4", "text": f"Clip {clip}."} for clip in clips]
    (folder / CAPTIONS).write_text(json.dumps(captions))


def _npy(values: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def _pack(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def pipeline(folder: Path, latent: tuple[int, int, int, int]) -> None:
    """Save a video model of one layer for latents of a shape, and its autoencoder, in CogVideoX's layout."""
    from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
    from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel

    channels, _, rows, columns = latent
    torch.manual_seed(0)
    CogVideoXTransformer3DModel(
        num_attention_heads=1,
        attention_head_dim=16,
        in_channels=channels,
        out_channels=channels,
        time_embed_dim=8,
        text_embed_dim=12,
        num_layers=1,
        sample_width=columns,
        sample_height=rows,
        sample_frames=FRAMES,
        use_rotary_positional_embeddings=True,
    ).save_pretrained(folder / "transformer")
    blocks: dict[str, Any] = {
        "down_block_types": ("CogVideoXDownBlock3D",) * 4,
        "up_block_types": ("CogVideoXUpBlock3D",) * 4,
        "block_out_channels": (4, 4, 4, 4),
    }
    autoencoder = AutoencoderKLCogVideoX(
        **blocks, latent_channels=channels, layers_per_block=1, norm_num_groups=2
    )
    autoencoder.save_pretrained(folder / "vae")
    parts = {
        "_class_name": "CogVideoXPipeline",
        "transformer": ["diffusers", "CogVideoXTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLCogVideoX"],
    }
    (folder / "model_index.json").write_text(json.dumps(parts))


def targets(folder: Path, latent: tuple[int, int, int, int]) -> None:
    """Write targets of noise, as ``python -m train.targets`` does, for what `release` and `pipeline` wrote.

    Parameters
    ----------
    folder : Path
        Holds both as ``release`` and ``pipeline``, and gets ``targets``.
    latent : (channel, latent frame, row, column)
        Of a clip.
    """
    pipeline_folder = folder / "pipeline"
    # A training refuses latents of another autoencoder than the folder's.
    autoencoder = files_of(pipeline_folder / "vae", "diffusers folder", LICENCE)
    stand_in = source.of_files([pipeline_folder / "model_index.json"], "diffusers folder", LICENCE)
    models = {
        "vae": (autoencoder, latent),
        "image": (stand_in, (FRAMES, _EMBEDDING)),
        "text": (stand_in, (_EMBEDDING,)),
    }
    targets_to_write = [
        Target(name, "captions", model, {}, partial(_Noise, shape)) for name, (model, shape) in models.items()
    ]
    compute(cinebrain.opened(folder / "release"), targets_to_write, folder / "targets")


@dataclass(frozen=True)
class _Noise:
    """Makes values of a shape of captions, (title, ...)."""

    shape: tuple[int, ...]

    def __call__(self, captions: NDArray[Any]) -> Arrays:
        random = np.random.default_rng(0)
        return {"values": random.standard_normal((len(captions), *self.shape), np.float32)}
