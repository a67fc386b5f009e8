"""The files that let a stopped training go on.

`note` writes into the training's folder what is trained there, and `refuse_others` compares it before
anything is resumed. While a phase runs, `keep` writes its checkpoints, of which the newest stays. When the
phase is over, `finish` writes what it learned, and `take_up` loads that into the system. Parameters that
stand still are in none of these files. Checkpoints and results are written under another name and then
renamed, so that an interrupted write leaves nothing that looks complete.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rtdecode import strict_json
from rtdecode.disk import private
from rtdecode.errors import RtDecodeError, UsageError
from train.config import disk_space
from train.trainer.phases import Phase

_NOTE = "training.json"
_BEST = "best.pt"
# A checkpoint holds each number, its moving average and the optimizer's two moments, in single precision. The
# one before is there until the new one is whole.
_VALUES = 4
_BYTES = 4
_CHECKPOINTS = 2
# What a phase could not always say. Trainings from before have the default values.
_LATER = ("patience", "warmup_share", "last_share", "betas")


def request(
    system: nn.Module,
    phases: Mapping[str, Phase],
    seed: int,
    processes: int,
    participants: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Return everything that fixes the bits of a training, as flat values that can be compared and shown."""
    shapes = [(name, list(p.shape)) for name, p in system.named_parameters()]
    digest = hashlib.sha256(strict_json.dumps(shapes).encode()).hexdigest()[:16]
    settings: dict[str, Any] = {
        "seed": seed,
        "processes": processes,
        "phases": list(phases),
        "digest of the parameters' names and shapes": digest,
    }
    # Trainings of before there were participants go on. A list, because their order counts as well.
    if participants:
        settings["participants' weights"] = [[name, weight] for name, weight in participants.items()]
    for name, phase in phases.items():
        settings |= {f"{name}.{key}": value for key, value in asdict(phase).items() if _counts(key, value)}
    # As JSON gives it back, so that it compares equal to what `note` has written.
    return json.loads(strict_json.dumps(settings))


def _counts(key: str, value: Any) -> bool:
    return key not in _LATER or value != getattr(Phase, key)


def refuse_others(folder: Path, request: dict[str, Any]) -> None:
    """Refuse to resume from what another training left in a folder.

    Raises
    ------
    UsageError
        If there is such a thing. The message names what differs.
    """
    path = folder / _NOTE
    if not path.is_file():
        return
    earlier = json.loads(path.read_text())
    names = [name for name in {**earlier, **request} if earlier.get(name) != request.get(name)]
    if names:
        changes = [f"{n} was {earlier.get(n)}, now {request.get(n)}" for n in names]
        raise UsageError(
            "checkpoints-training-mismatch",
            "{folder} holds checkpoints of another training: {changes}. Train as before, or in "
            "another folder.",
            folder=folder,
            changes="; ".join(changes),
        )


def note(folder: Path, request: dict[str, Any]) -> None:
    """Write into a folder what is trained there."""
    folder.mkdir(parents=True, exist_ok=True)
    private.write_whole(folder / _NOTE, strict_json.dumps(request, indent=1) + "\n")


def leave_out_still(system: nn.Module, learned: list[str]) -> Callable[..., None]:
    """Make a hook for accelerate that keeps parameters which stand still out of its checkpoints."""
    saved_names = _kept(system, learned)

    def leave_out(models: list[nn.Module], weights: list[dict[str, Tensor]], folder: str) -> None:
        for state in weights:
            # With several processes the module is wrapped, and its names get this prefix.
            still = [name for name in state if name.removeprefix("module.") not in saved_names]
            for name in still:
                del state[name]

    return leave_out


def _kept(system: nn.Module, learned: list[str]) -> set[str]:
    """Return the names of what learns and of all buffers. The rest may be large, and comes from elsewhere."""
    still = {name for name, _ in system.named_parameters()} - set(learned)
    return set(system.state_dict()) - still


def check_room(folder: Path, learned: Mapping[str, int]) -> None:
    """Refuse a training whose checkpoints have no room on the disk.

    Parameters
    ----------
    folder : Path
        It need not exist yet.
    learned : mapping
        Name of each phase -> how many numbers it learns.

    Raises
    ------
    UsageError
    """
    name = max(learned, key=lambda phase: learned[phase])
    if lack := disk_space.lacking(folder, _CHECKPOINTS * _VALUES * _BYTES * learned[name]):
        raise UsageError(
            "checkpoints-insufficient-disk",
            "phase '{phase}' learns {parameters_millions:.1f} million numbers, whose checkpoints "
            "take {needed_gb:.1f} GB, and {folder} has {free_gb:.1f} GB left. Make room, or give "
            "another disk with out=.",
            phase=name,
            parameters_millions=learned[name] / 1e6,
            **lack,
        )


def newest(folder: Path) -> Path | None:
    """Return the newest complete checkpoint in the folder of a phase, or None."""
    # The pattern leaves out ``.part``. The step has leading zeros, so that names sort by number.
    return max(folder.glob("step-*[0-9]"), default=None)


def keep(accelerator: Accelerator, folder: Path, step: int) -> None:
    """Write a checkpoint, completely or not at all, and remove the one before."""
    checkpoint = folder / f"step-{step:08d}"
    part = checkpoint.with_suffix(".part")
    # Every process writes files of its own into the folder. It is complete when all have done so.
    accelerator.save_state(str(part))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        before = newest(folder)
        part.rename(checkpoint)
        if before is not None:
            shutil.rmtree(before)
    accelerator.wait_for_everyone()


@contextmanager
def writing(folder: Path, step: int) -> Iterator[None]:
    """Say of a phase's files that cannot be written, on a full disk, what is kept and how to go on.

    Raises
    ------
    RtDecodeError
    """
    try:
        yield
    # torch says of a full disk that a writer failed, as a RuntimeError.
    except (OSError, RuntimeError) as error:
        for part in folder.glob("*.part"):
            shutil.rmtree(part) if part.is_dir() else part.unlink()
        before = newest(folder)
        fallback = "there is none before it" if before is None else f"{before.name} is kept"
        raise RtDecodeError(
            "checkpoint-write-failed",
            "what was trained up to step {step} could not be written into {folder} ({error}); "
            "{previous_checkpoint}. Make room there, and go on with resume=.",
            step=step,
            folder=folder,
            error=error,
            previous_checkpoint=fallback,
        ) from error


def finish(folder: Path, system: nn.Module, learned: list[str], rows: list[dict[str, Any]]) -> None:
    """Write what a phase leaves behind, and remove its checkpoints."""
    saved_names = _kept(system, learned)
    weights = {name: value for name, value in system.state_dict().items() if name in saved_names}
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "done.part"
    torch.save({"weights": weights, "rows": rows}, part)
    part.replace(folder / "done.pt")
    (folder / _BEST).unlink(missing_ok=True)
    for path in folder.glob("step-*"):
        shutil.rmtree(path)


def keep_best(folder: Path, system: nn.Module, learned: list[str]) -> None:
    """Write the weights of the best step so far, completely or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    state = system.state_dict()
    part = folder / "best.part"
    torch.save({name: state[name] for name in learned}, part)
    part.replace(folder / _BEST)


def take_best(folder: Path, system: nn.Module) -> None:
    """Load the weights of the best step into the system."""
    best = torch.load(folder / _BEST, map_location="cpu", weights_only=True)
    system.load_state_dict(best, strict=False)


def finished(folder: Path) -> bool:
    """Whether a phase has finished."""
    return (folder / "done.pt").is_file()


def take_up(folder: Path, system: nn.Module) -> list[dict[str, Any]]:
    """Load what a finished phase left behind into the system; return the rows of its log."""
    saved = torch.load(folder / "done.pt", map_location="cpu", weights_only=True)
    system.load_state_dict(saved["weights"], strict=False)
    return saved["rows"]
