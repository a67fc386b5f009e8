"""Trainings that several runs share: the result is kept by what was trained, on what, and how.

A run that asks for a training which another one has finished finds its weights and takes no step.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from rtdecode import strict_json
from rtdecode.disk.cache import place
from train.config.run_files import digest
from train.trainer import checkpoints, loop
from train.trainer.loader import Place
from train.trainer.loop import Machine, Trainable
from train.trainer.phases import Phase

# Part of every key. It grows when the same phases on the same data give other weights.
_VERSION = 1


def train(
    system: Trainable,
    phases: Mapping[str, Phase],
    draw: Callable[[Place], Any],
    folder: Path,
    show: Callable[[str, int], None],
    seed: int,
    machine: Machine,
    data: Iterable[NDArray[Any]],
) -> list[dict[str, Any]]:
    """Train as `train.trainer.loop.train` does, unless this very training has been finished before.

    Parameters
    ----------
    system, phases, draw, folder, show, seed, machine
        See `train.trainer.loop.train`.
    data : iterable of ndarray
        All that the batches are drawn from. Its content is a part of the key.

    Returns
    -------
    list of {phase, step, loss, losses, rate, seconds}
        The log, as it was when the training ran.
    """
    identity = {"version": _VERSION, "data": digest(data)} | checkpoints.request(system, phases, seed, 1)
    key = hashlib.sha256(strict_json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
    cached = place() / "trained" / key
    if cached.is_dir() and not folder.exists():
        shutil.copytree(cached, folder)
    log = loop.train(system, phases, draw, folder, show, seed, machine)
    if not cached.exists():
        _keep(folder, cached)
    return log


def _keep(folder: Path, cached: Path) -> None:
    """Copy a finished training, so that its name appears only once the copy is whole."""
    cached.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=cached.name, dir=cached.parent))
    shutil.copytree(folder, part, dirs_exist_ok=True, ignore=shutil.ignore_patterns("tensorboard"))
    try:
        part.rename(cached)
    except OSError:
        # Another run has kept the same in the meantime.
        shutil.rmtree(part)
