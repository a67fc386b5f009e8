"""What a training at full size holds in memory, from stand-in data of two sizes.

    python -m benchmarks.full_scale --memory [--json] [--write] [--windows 60,600] [--workers 2]

Each size is a release in CineBrain's layout whose signals have the published shapes, with targets of the
published shapes but for latents, which are mapped as signals are, and a CogVideoX of one layer. The recipe
`cinesync` is trained on it for some steps of both phases, with encoders of one layer, so that nearly all
that it holds is beside model and optimizer. USS, the memory that no other process shares, of the training and
of the processes that draw batches is read from the system several times a second. A line through both sizes
gives what a training holds whatever its windows, what each window adds, and what all of the release take. A
process that draws batches holds more or less of them at each moment, so that what a window adds to it is read
from the least that it held.
"""

import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from rich.table import Table

from rtdecode.disk.video import write_mp4
from train.config.run_context import Arrays
from train.data import cinebrain_clips
from train.data.layouts import cinebrain
from train.data.layouts.cinebrain_set import CAPTIONS, FPS, FRAMES, SAMPLES
from train.data.target_cache import Target, compute
from train.targets.models import files_of
from train.weights import source

# Bytes that a training may hold beside model and optimizer, and for each process that draws batches.
LARGEST_BASE = 2e9
LARGEST_WORKER = 0.3e9
# Of the peak while a phase starts over what stands while it runs.
LARGEST_PEAK = 1.2
_PHASES = ("align", "diffuse")
_STEPS = 60
# Steps after which a phase is taken to stand.
_STARTED = 20
_SUBJECT = "sub-0001"
# Windows of each run that is held out, enough to be told apart.
_HELD_OUT = 6
# Rows of a segment of the release, 64 of them EEG.
_ROWS = 69
_VOXELS = 18946
_EMBEDDING = 1152
# Windows of the whole release that teach.
_TEACHING = (cinebrain_clips.RUNS - cinebrain_clips.HELD_RUNS) * cinebrain_clips.RUN_CLIPS
# Latents of 16 x 32 pixels, for a model that is none of what is measured.
_LATENT = (4, 9, 2, 4)
_READ_EVERY_S = 0.2
_LICENCE = "random weights"
_MB = 1e6


@dataclass
class Phase:
    """What was read of memory while a phase ran, bytes.

    Attributes
    ----------
    starting, standing : list of (main, workers)
        Memory of the training with all processes but those that draw batches, and of each of these, while the
        phase starts and once it stands.
    """

    starting: list[tuple[int, list[int]]] = field(default_factory=list)
    standing: list[tuple[int, list[int]]] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """Return bytes of the main process, of a worker, and the peak of all over what stands."""
        total = median(main + sum(workers) for main, workers in self.standing)
        peak = max(main + sum(workers) for main, workers in [*self.starting, *self.standing])
        sizes = [size for _, workers in self.standing for size in workers]
        return {
            "base": median(main for main, _ in self.standing),
            "worker": median(sizes),
            "worker_least": min(sizes),
            "worker_peak": max(sizes),
            "peak_ratio": round(peak / total, 3),
        }


@dataclass
class Training:
    """What was read of memory while a training ran, bytes.

    Attributes
    ----------
    phases : dict
        Name -> readings.
    reading : int
        The largest one of all processes before the first phase.
    """

    phases: dict[str, Phase] = field(default_factory=lambda: {name: Phase() for name in _PHASES})
    reading: int = 0


def measure(windows: Sequence[int], workers: int) -> dict[str, Any]:
    """Train on releases of some numbers of windows, and project; see `projected`."""
    return projected({count: _trained(count, workers) for count in windows}, workers)


def projected(trainings: Mapping[int, Training], workers: int) -> dict[str, Any]:
    """Draw what trainings held on to all windows of the release.

    Parameters
    ----------
    trainings : dict
        Number of windows -> what was read while it was trained on.
    workers : int
        Processes that draw batches.

    Returns
    -------
    dict
        ``windows`` and ``workers``. ``measured``: of each size, of each phase, MB of the training and of a
        worker, and the ratio of the peak. ``base_mb``, ``kb_a_window``, ``worker_mb`` and
        ``worker_kb_a_window`` of the phase with the most; ``projected_windows``, those of the whole release,
        and ``projected_base_mb`` and ``projected_worker_mb`` for them; ``peak_ratio``; ``reading_peak_mb``
        before the first phase; ``met``, whether all keep to their bars.
    """
    sizes = {
        count: {name: phase.figures() for name, phase in training.phases.items()}
        for count, training in trainings.items()
    }
    lines = {
        name: {key: _line({count: phases[name][key] for count, phases in sizes.items()}) for key in _KEYS}
        for name in _PHASES
    }
    base, base_slope = max((line["base"] for line in lines.values()), key=_projected)
    worker_slope = max(slope for line in lines.values() for _, slope in [line["worker_least"]])
    worker = max(phase["worker"] for phases in sizes.values() for phase in phases.values())
    peak = max(phase["peak_ratio"] for phases in sizes.values() for phase in phases.values())
    projected_base = _projected((base, base_slope))
    projected_worker = worker + worker_slope * (_TEACHING - max(sizes))
    return {
        "windows": list(trainings),
        "workers": workers,
        "measured": {
            str(count): {
                name: {key: round(x / _MB, 1) if key in _BYTES else x for key, x in phase.items()}
                for name, phase in phases.items()
            }
            for count, phases in sizes.items()
        },
        "base_mb": round(base / _MB, 1),
        "kb_a_window": round(base_slope / 1e3, 2),
        "worker_mb": round(worker / _MB, 1),
        "worker_kb_a_window": round(worker_slope / 1e3, 2),
        "projected_windows": _TEACHING,
        "projected_base_mb": round(projected_base / _MB, 1),
        "projected_worker_mb": round(projected_worker / _MB, 1),
        "peak_ratio": peak,
        "reading_peak_mb": round(max(training.reading for training in trainings.values()) / _MB, 1),
        "met": bool(
            projected_base <= LARGEST_BASE and projected_worker <= LARGEST_WORKER and peak <= LARGEST_PEAK
        ),
    }


_KEYS = ("base", "worker_least")
_BYTES = (*_KEYS, "worker", "worker_peak")


def _line(values: dict[int, float]) -> tuple[float, float]:
    """Fit a line: bytes without a window, and bytes of each.

    Where more windows took less, what was read is noise alone, and the most that was read counts for all.
    """
    slope, start = np.polyfit(list(values), list(values.values()), 1)
    return (float(start), float(slope)) if slope > 0 else (max(values.values()), 0.0)


def _projected(line: tuple[float, float]) -> float:
    start, slope = line
    return start + slope * _TEACHING


def table(figures: dict[str, Any]) -> Table:
    """Lay out the figures as they are printed."""
    laid = Table("memory beside model and optimizer", "measured", "all windows", "at most")
    laid.add_row(
        "training, MB",
        f"{figures['base_mb']} + {figures['kb_a_window']} kB a window",
        str(figures["projected_base_mb"]),
        str(LARGEST_BASE / _MB),
    )
    laid.add_row(
        "a process that draws batches, MB",
        f"{figures['worker_mb']}, and {figures['worker_kb_a_window']} kB a window more",
        str(figures["projected_worker_mb"]),
        str(LARGEST_WORKER / _MB),
    )
    laid.add_row("peak while signals are read, MB", str(figures["reading_peak_mb"]), "", "")
    laid.add_row("peak over standing", str(figures["peak_ratio"]), "", str(LARGEST_PEAK))
    return laid


def _trained(windows: int, workers: int) -> Training:
    """Train on a release of a size, and read its memory."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _release(folder / "release", windows)
        _pipeline(folder / "pipeline")
        _targets(folder)
        command = [sys.executable, "-m", "train.run", "cinesync", *_arguments(folder, workers)]
        with (folder / "log.txt").open("w") as log:
            process = psutil.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            training = _watched(process, folder / "run.part" / "stages" / "brains")
        if process.wait():
            raise RuntimeError((folder / "log.txt").read_text())
    return training


def _watched(process: psutil.Popen, stages: Path) -> Training:
    """Read memory until a training ends, and divide the readings by how far its phases have come."""
    training = Training()
    while process.poll() is None:
        time.sleep(_READ_EVERY_S)
        # Before and after: a reading belongs to what was true all the while.
        before = Progress.read(stages)
        reading = _reading(process)
        if reading is None or before != Progress.read(stages):
            continue
        if before is None:
            main, workers = reading
            training.reading = max(training.reading, main + sum(workers))
        elif before.name in training.phases:
            phase = training.phases[before.name]
            (phase.standing if before.stands else phase.starting).append(reading)
    return training


@dataclass(frozen=True)
class Progress:
    """How far a training has come.

    Attributes
    ----------
    name : str
        The phase that runs; empty after the last one.
    stands : bool
        Whether it has written a checkpoint.
    """

    name: str
    stands: bool

    @classmethod
    def read(cls, stages: Path) -> "Progress | None":
        """Look into the folder of a training's stages; None before its first phase."""
        if not (stages / "training.json").is_file():
            return None
        name = next((phase for phase in _PHASES if not (stages / phase / "done.pt").is_file()), "")
        return cls(name, bool(name) and any((stages / name).glob("step-*[0-9]")))


def _reading(process: psutil.Popen) -> tuple[int, list[int]] | None:
    """Read the memory of a training and of its workers, bytes; None if one of them ends meanwhile."""
    try:
        main = process.memory_full_info().uss
        workers = []
        for child in process.children(recursive=True):
            size = child.memory_full_info().uss
            if any("spawn_main" in word for word in child.cmdline()):
                workers.append(size)
            else:
                main += size
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return None
    return main, workers


def _arguments(folder: Path, workers: int) -> list[str]:
    small = "{builder: transformer, depth: 1, width: 16, heads: 2, inner: 24}"
    return [
        f"out={folder / 'run'}",
        f"data={folder / 'release'}",
        f"data.voxels={_VOXELS}",
        f"system.targets={folder / 'targets'}",
        f"system.video.folder={folder / 'pipeline'}",
        f"system.video.licence={_LICENCE}",
        "system.encoder.tokens=8",
        "system.encoder.eeg_tokens=4",
        f"system.encoder.fmri={small}",
        f"system.encoder.eeg={small}",
        "system.conditions=4",
        "system.machine.device=cpu",
        f"system.machine.workers={workers}",
        *(f"phases.{name}.steps={_STEPS}" for name in _PHASES),
        *(f"phases.{name}.show_every={_STEPS}" for name in _PHASES),
        *(f"phases.{name}.keep_every={_STARTED}" for name in _PHASES),
        *(f"phases.{name}.warmup=0" for name in _PHASES),
        "phases.diffuse.accumulate=1",
        "judge=none",
    ]


def _release(folder: Path, windows: int) -> None:
    """Write a release whose signals are noise, and whose clips all show the same."""
    folder.mkdir()
    held_out = [
        _TEACHING + run * cinebrain_clips.RUN_CLIPS + n
        for run in range(cinebrain_clips.HELD_RUNS)
        for n in range(_HELD_OUT)
    ]
    places = np.array([*range(windows), *held_out])
    numbers = [int(place) * cinebrain_clips.TRS + n for place in places for n in range(cinebrain_clips.TRS)]
    random = np.random.default_rng(0)
    subject = folder / _SUBJECT
    subject.mkdir()
    _pack(
        subject / "fMRI_preprocessed_data.tar",
        ((f"visual_audio/{n}.npy", _npy(random.standard_normal(_VOXELS))) for n in numbers),
    )
    _pack(
        subject / "EEG_preprocessed_data.tar",
        ((f"eeg_02/{n}.npy", _npy(random.standard_normal((_ROWS, SAMPLES), np.float32))) for n in numbers),
    )
    film = folder / "film.mp4"
    pictures = random.integers(0, 256, (1, 3, 4, 3)).astype(np.uint8).repeat(16, 1).repeat(16, 2)
    write_mp4(film, pictures.repeat(FRAMES, 0), FPS)
    clips = cinebrain_clips.clips_at(_SUBJECT, places).tolist()
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


def _pipeline(folder: Path) -> None:
    """Save a video model of one layer, and its autoencoder, as CogVideoX is published."""
    from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
    from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel

    channels, _, rows, columns = _LATENT
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


def _targets(folder: Path) -> None:
    """Write targets of noise, as ``python -m train.targets`` does."""
    pipeline = folder / "pipeline"
    # A training refuses latents of another autoencoder than the folder's.
    autoencoder = files_of(pipeline / "vae", "diffusers folder", _LICENCE)
    stand_in = source.of_files([pipeline / "model_index.json"], "diffusers folder", _LICENCE)
    models = {
        "vae": (autoencoder, _LATENT),
        "image": (stand_in, (FRAMES, _EMBEDDING)),
        "text": (stand_in, (_EMBEDDING,)),
    }
    targets = [
        Target(name, "captions", model, {}, partial(_Noise, shape)) for name, (model, shape) in models.items()
    ]
    compute(cinebrain.opened(folder / "release"), targets, folder / "targets")


@dataclass(frozen=True)
class _Noise:
    """Makes values of a shape of captions, (title, ...)."""

    shape: tuple[int, ...]

    def __call__(self, captions: NDArray[Any]) -> Arrays:
        random = np.random.default_rng(0)
        return {"values": random.standard_normal((len(captions), *self.shape), np.float32)}
