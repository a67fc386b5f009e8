"""The training loop, on accelerate: it trains any module that offers losses by name."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from rtdecode import strict_json


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes
    ----------
    steps, batch : int
    rate : float
        Largest learning rate; it rises over the first `warmup` steps and falls along a cosine.
    warmup : int
    decay : float
        Weight decay.
    ema : float
        Decay of the moving average of the weights that is kept.
    precision : str
        Of accelerate: ``no`` or ``bf16``.
    keep_every, show_every : int
        Steps between checkpoints and between pictures.
    """

    steps: int
    batch: int
    rate: float
    warmup: int
    decay: float
    ema: float
    precision: str
    keep_every: int
    show_every: int


def train(
    system: nn.Module,
    losses: dict[str, float],
    draw: Callable[[int], Any],
    schedule: Schedule,
    folder: Path,
    show: Callable[[int], None],
) -> list[dict[str, float]]:
    """Train, keeping a checkpoint; a run that was stopped goes on from it to the same bits.

    Parameters
    ----------
    system : Module
        Called with a batch and names of losses it returns these losses, name -> scalar. After training it
        holds the moving average of its weights.
    losses : dict
        Name of a loss -> its weight in the sum that is minimised.
    draw : callable
        Step -> its batch, always the same.
    schedule : Schedule
    folder : Path
        Of the checkpoint, ``log.jsonl`` and what `show` writes.
    show : callable
        Called with the step while the moving average is in place.

    Returns
    -------
    list of {step, loss, seconds}
        Mean loss since the entry before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Batches, pictures and calibration are the CPU's, and so are the bits of a recorded seed.
    accelerator = Accelerator(mixed_precision=schedule.precision, cpu=True)
    learned = [p for p in system.parameters() if p.requires_grad]
    model, optimizer, rates = accelerator.prepare(system, *_optimizer(learned, schedule))
    ema = EMAModel(learned, decay=schedule.ema, use_ema_warmup=True, power=0.75)
    state = {"model": system, "optimizer": optimizer, "rates": rates, "ema": ema}
    first, log = _load(folder / "checkpoint.pt", state, schedule)
    total, count, started = 0.0, 0, time.monotonic()
    before = log[-1]["seconds"] if log else 0.0
    with _progress(accelerator) as bar:
        task = bar.add_task("training", total=schedule.steps, completed=first)
        for step in range(first, schedule.steps):
            found = model(draw(step), list(losses))
            loss = torch.stack([weight * found[name] for name, weight in losses.items()]).sum()
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(learned, 1.0)
            optimizer.step()
            rates.step()
            optimizer.zero_grad()
            ema.step(learned)
            total, count = total + float(loss.detach()), count + 1
            bar.update(task, advance=1, description=f"training, loss {total / count:.4f}")
            done = step + 1
            # First the pictures: a run that is stopped here draws them again, and lacks none later.
            if done % schedule.show_every == 0 or done == schedule.steps:
                with _averaged(ema, learned):
                    show(done)
            if done % schedule.keep_every == 0 or done == schedule.steps:
                spent = before + time.monotonic() - started
                log.append({"step": done, "loss": total / count, "seconds": round(spent, 1)})
                total, count = 0.0, 0
                _save(folder / "checkpoint.pt", state, done, log, schedule)
                (folder / "log.jsonl").write_text("".join(strict_json.dumps(row) + "\n" for row in log))
    ema.copy_to(learned)
    return log


def _optimizer(learned: list[nn.Parameter], schedule: Schedule) -> tuple[AdamW, LambdaLR]:
    optimizer = AdamW(learned, lr=schedule.rate, weight_decay=schedule.decay, betas=(0.9, 0.99))
    return optimizer, LambdaLR(optimizer, lambda n: _rate(n, schedule))


@contextmanager
def _averaged(ema: EMAModel, learned: list[nn.Parameter]) -> Iterator[None]:
    """Put the moving average in place of the weights; a fault ends the run, and leaves it there."""
    ema.store(learned)
    ema.copy_to(learned)
    yield
    ema.restore(learned)


def _rate(step: int, schedule: Schedule) -> float:
    rise = min(1.0, (step + 1) / schedule.warmup)
    done = torch.tensor(min(1.0, step / schedule.steps))
    return rise * float(0.02 + 0.98 * (1 + torch.cos(torch.pi * done)) / 2)


def _progress(accelerator: Accelerator) -> Progress:
    console = Console(stderr=True)
    columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}")]
    hidden = not (console.is_terminal and accelerator.is_main_process)
    return Progress(*columns, TimeRemainingColumn(), console=console, disable=hidden)


def _save(path: Path, state: dict[str, Any], step: int, log: list[Any], schedule: Schedule) -> None:
    held = {name: part.state_dict() for name, part in state.items()}
    part = path.with_suffix(".part")
    torch.save({"step": step, "log": log, "schedule": asdict(schedule), **held}, part)
    part.replace(path)


def _load(path: Path, state: dict[str, Any], schedule: Schedule) -> tuple[int, list[Any]]:
    if not path.is_file():
        return 0, []
    held = torch.load(path, weights_only=True)
    if held["schedule"] != asdict(schedule):
        raise ValueError(f"{path} is of another schedule: {held['schedule']}")
    for name, part in state.items():
        part.load_state_dict(held[name])
    return held["step"], held["log"]
