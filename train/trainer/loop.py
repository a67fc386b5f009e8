"""The training loop, built on accelerate. It trains any module that offers losses by name, phase by phase.

A system, the phases of a recipe and a function that draws batches come in; the trained system and the log
go out. Every phase freezes what it does not train, takes its steps from its newest checkpoint on, and
leaves the moving average of its weights to the next phase. Of several participants, each step takes batches
of each and adds up their gradients. The files lie in a folder of the run:

- ``training.json`` says what is trained there (`train.trainer.checkpoints`).
- ``PHASE/`` keeps the newest checkpoint of a phase and, once it has finished, its weights.
- ``log.jsonl`` and ``tensorboard/`` record the losses.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from rtdecode import strict_json, terminal
from rtdecode.disk import private
from rtdecode.errors import UsageError
from train.config.run_context import ProgressLines
from train.trainer import checkpoints
from train.trainer.distributed import launch
from train.trainer.loader import Batches, Place, loader
from train.trainer.participants import NOBODY, check_weights, factors
from train.trainer.phases import ONE_CYCLE, Phase, begin, check, check_losses, end

if TYPE_CHECKING:
    from diffusers.training_utils import EMAModel

DEVICES = ("auto", "cpu")
# What stands before and after the bar.
_COLUMNS = ("{task.description}", "{task.completed}/{task.total}")
# Phase and step -> a held-out figure, the smaller the better, or nothing.
Show = Callable[[str, int], float | None]


class Trainable(nn.Module):
    """A module that the loop can train, because it offers losses by name.

    The loop leaves each part in the mode, training or evaluation, in which it finds it.

    Attributes
    ----------
    offered : tuple of str
        Names of the losses.
    """

    offered: tuple[str, ...] = ()

    def losses(self, batch: Any, names: Sequence[str]) -> dict[str, Tensor]:
        """Return the losses with these names for a batch, name -> scalar."""
        raise NotImplementedError

    def forward(self, batch: Any, names: Sequence[str]) -> dict[str, Tensor]:
        """Return `losses`. The loop calls the module itself, as it calls any torch module."""
        return self.losses(batch, names)


@dataclass(frozen=True)
class Machine:
    """The hardware and the processes that a training uses.

    Attributes
    ----------
    device : str
        ``auto`` for the accelerator that accelerate finds, or ``cpu``. Seeded trainings repeat to the bit
        on the CPU only.
    workers : int
        Processes that draw batches while the training runs; with 0 the training process draws them itself,
        between its steps.
    prefetch : int
        Batches that each worker draws ahead.
    processes : int
        Processes that train together. Each has its own batches and, where the machine has several, its own
        accelerator. 1 where torchrun or accelerate starts the processes.
    """

    device: str = "auto"
    workers: int = 0
    prefetch: int = 2
    processes: int = 1

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise UsageError(
                "machine-device-unknown",
                "device must be one of {available}, found '{device}'.",
                available=list(DEVICES),
                device=self.device,
            )


def train(
    system: Trainable,
    phases: Mapping[str, Phase],
    draw: Callable[[Place], Any],
    folder: Path,
    show: Show,
    seed: int = 0,
    machine: Machine | None = None,
    participants: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Train the system through all phases, or resume a stopped training from its last checkpoint.

    On the CPU a resumed training ends with the same bits as one that was never stopped. Several processes
    see different batches. Either this function starts them (`Machine.processes`), or torchrun has started
    them and each of them calls this function.

    Of participants that are named, a step takes `Phase.accumulate` batches of each, and adds up their
    gradients: that of a participant's mean loss counts by its share of the sum of weights. Several processes
    draw batches of the same participant at the same moment, and different rows of it.

    Parameters
    ----------
    system : Trainable
        After training it holds the moving average of its weights, on the device where it was before.
    phases : mapping
        Name -> phase, in the order in which they run.
    draw : callable
        Place -> the batch that belongs there, always the same. A batch is a tensor, a mapping or sequence
        of batches, or an object with a method `to` like that of tensors. It must be picklable for
        `Machine.workers` and `Machine.processes`.
    folder : Path
        Folder of checkpoints, ``log.jsonl``, and ``tensorboard/`` where TensorBoard is installed.
    show : callable
        Called with phase and step while the moving average is in place, in the first process alone. It
        must be picklable for `Machine.processes`, and may hold the system. Where it returns a number, that
        is how far held-out figures are from what they should be, by which a phase with `Phase.patience`
        chooses its weights and its end.
    seed : int
        Fixes the batches, the adapters' first weights and what the system draws itself.
    machine : Machine, optional
        The hardware and the processes; by default those that `Machine` has.
    participants : mapping, optional
        Name -> weight. Without any, places name no participant.

    Returns
    -------
    list of {phase, step, loss, losses, rate, seconds}
        Each entry has the mean losses since the entry before, weighted as in the step. Of participants that
        are named, ``participants`` has the mean loss of each by its name.

    Raises
    ------
    UsageError
        Before anything is trained, if the phases do not fit the system, a weight is none, the folder holds
        checkpoints of another training, or there is no room for its own.
    RtDecodeError
        If a checkpoint cannot be written. The one before is kept.
    """
    machine = machine or Machine()
    check_losses(phases, system.offered)
    check_weights(participants or {})
    checkpoints.check_room(folder, check(phases, system))
    # torchrun and accelerate tell each process that they start how many there are.
    world = max(machine.processes, int(os.environ.get("WORLD_SIZE", "1")))
    request = checkpoints.request(system, phases, seed, world, participants)
    checkpoints.refuse_others(folder, request)
    weights = dict(participants) if participants else NOBODY
    arguments = (system, phases, draw, folder, show, seed, machine, weights, request)
    if machine.processes > 1:
        launch(machine.processes, folder, _train, *arguments)
    # After other processes have trained, every phase is finished: this only loads what they left.
    return _train(*arguments)


def _train(
    system: Trainable,
    phases: Mapping[str, Phase],
    draw: Callable[[Place], Any],
    folder: Path,
    show: Show,
    seed: int,
    machine: Machine,
    participants: dict[str, float],
    request: dict[str, Any],
) -> list[dict[str, Any]]:
    """Train through all phases as one of the processes."""
    home = next(system.parameters()).device
    log: list[dict[str, Any]] = []
    for order, (name, phase) in enumerate(phases.items()):
        accelerator = _accelerator(machine, phase, folder, len(participants))
        if order == 0:
            # `train` has looked for a note. No process may write one while another still looks.
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                checkpoints.note(folder, request)
        # `begin` draws the first weights of adapters. They must be the same in every process and every
        # time, whatever torch has drawn before.
        torch.manual_seed(seed)
        learned = begin(system, name, phase)
        phase_folder = folder / name
        if not checkpoints.finished(phase_folder):
            first = Place(
                phase=name,
                size=phase.batch,
                seed=seed,
                order=order,
                number=0,
                process=accelerator.process_index,
                processes=accelerator.num_processes,
            )
            running = _start(accelerator, system, phase, learned, phase_folder, participants)
            _go_on(running, Batches(draw, first, list(participants)), machine, log, show)
            running.ema.copy_to(running.learned)
            if running.position.best is not None:
                checkpoints.take_best(phase_folder, system)
            if accelerator.is_main_process:
                with checkpoints.writing(phase_folder, running.position.step):
                    checkpoints.finish(phase_folder, system, learned, running.position.rows)
            # The other processes read below what the first one writes here.
            accelerator.wait_for_everyone()
            accelerator.free_memory()
        system.to(home)
        # Weights always come from the file, even those of a phase that has just run: all processes then
        # have the same ones, and so has a later call, which finds the phase finished.
        log += checkpoints.take_up(phase_folder, system)
        end(system, phase)
    return log


def _accelerator(machine: Machine, phase: Phase, folder: Path, participants: int) -> Accelerator:
    return Accelerator(
        cpu=machine.device == "cpu" or not torch.accelerator.is_available(),
        # Each phase has its own precision, but accelerate has one for the life of a process.
        # `_Weighted` sets it instead.
        mixed_precision="no",
        # accelerate divides every loss by this number.
        gradient_accumulation_steps=phase.accumulate * participants,
        # Otherwise accelerate moves the schedule on by as many steps as there are processes.
        step_scheduler_with_optimizer=False,
        log_with="tensorboard" if find_spec("tensorboard") else None,
        project_dir=folder / "tensorboard",
    )


@dataclass
class _Position:
    """How far a phase has come. accelerate keeps it in checkpoints.

    Attributes
    ----------
    step : int
        Steps of the optimizer that were taken.
    seconds : float
        Time spent on them, over all runs of the phase.
    rows : list of dict
        The phase's part of the log.
    best : float or None
        The best held-out figure so far, of a phase with patience.
    waited : int
        Pictures since then.
    """

    step: int = 0
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    best: float | None = None
    waited: int = 0

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.seconds = state["seconds"]
        self.rows = state["rows"]
        self.best = state["best"]
        self.waited = state["waited"]


class _Weighted(nn.Module):
    """A system with the losses and the precision of a phase, in the form that accelerate prepares.

    With several processes accelerate wraps it, and the wrapper exchanges buffers between them before it calls
    this module. The exchange fails for buffers in half precision, so the precision is set in here.
    """

    def __init__(self, system: Trainable, phase: Phase, device: str) -> None:
        super().__init__()
        self.system = system
        self.weights = phase.losses
        self.lower = phase.precision == "bf16"
        self.device = device

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum of the losses, and each of them by its name."""
        with torch.autocast(self.device, torch.bfloat16, enabled=self.lower):
            losses = self.system(batch, list(self.weights))
            weighted = [weight * losses[name] for name, weight in self.weights.items()]
            return torch.stack(weighted).sum(), losses


@dataclass(frozen=True)
class _Running:
    """A phase that is being trained: its parts as accelerate prepared them, and how far it has come."""

    accelerator: Accelerator
    phase: Phase
    folder: Path
    model: Any
    system: Trainable
    names: list[str]
    learned: list[nn.Parameter]
    optimizer: Any
    rates: Any
    ema: "EMAModel"
    position: _Position
    # Name -> what the loss of a participant's batch is multiplied by.
    factors: dict[str, float]

    @property
    def batches(self) -> int:
        """Batches of a step."""
        return self.phase.accumulate * len(self.factors)


def _start(
    accelerator: Accelerator,
    system: Trainable,
    phase: Phase,
    names: list[str],
    folder: Path,
    participants: Mapping[str, float],
) -> _Running:
    """Make a phase's optimizer, schedule and moving average, and load its newest checkpoint if it has one."""
    # Imported where training begins: it takes seconds, and what judges or exports needs none of it.
    from diffusers.training_utils import EMAModel

    learned = [system.get_parameter(name) for name in names]
    first_decay, second_decay = phase.betas
    optimizer = AdamW(learned, lr=phase.rate, weight_decay=phase.decay, betas=(first_decay, second_decay))
    rates = _schedule(optimizer, phase)
    weighted = _Weighted(system, phase, accelerator.device.type)
    model, optimizer, rates = accelerator.prepare(weighted, optimizer, rates)
    # diffusers recommends the power 3/4 for trainings of less than a million steps.
    ema = EMAModel(learned, decay=phase.ema, use_ema_warmup=True, power=0.75)
    position = _Position()
    accelerator.register_for_checkpointing(ema, position)
    learned_names = [f"system.{name}" for name in names]
    accelerator.register_save_state_pre_hook(checkpoints.leave_out_still(weighted, learned_names))
    newest = checkpoints.newest(folder)
    if newest is not None:
        # Not strict, because the checkpoint lacks the parameters that stand still.
        accelerator.load_state(str(newest), strict=False)
        # accelerate loads registered objects to the CPU.
        ema.to(accelerator.device)
    return _Running(
        accelerator=accelerator,
        phase=phase,
        folder=folder,
        model=model,
        system=system,
        names=names,
        learned=learned,
        optimizer=optimizer,
        rates=rates,
        ema=ema,
        position=position,
        factors=factors(participants),
    )


def _schedule(optimizer: AdamW, phase: Phase) -> LRScheduler:
    if phase.schedule == ONE_CYCLE:
        return OneCycleLR(optimizer, phase.rate, total_steps=phase.steps)
    from diffusers.optimization import get_scheduler

    rates = get_scheduler(
        phase.schedule,
        optimizer,
        num_warmup_steps=phase.warmup,
        num_training_steps=phase.steps,
    )
    (course,) = rates.lr_lambdas
    rates.lr_lambdas = [_within_shares(course, phase)]
    return rates


def _within_shares(course: Callable[[int], float], phase: Phase) -> Callable[[int], float]:
    """Keep a schedule, which goes from 0 to 1 and back, within the shares of a phase."""

    def share(step: int) -> float:
        if step < phase.warmup:
            return min(course(step), phase.warmup_share)
        return phase.last_share + (1 - phase.last_share) * course(step)

    return share


def _go_on(
    running: _Running,
    batches: Batches,
    machine: Machine,
    log: list[dict[str, Any]],
    show: Show,
) -> None:
    """Take the remaining steps of a phase, and write pictures, log and checkpoints on the way."""
    accelerator = running.accelerator
    phase = running.phase
    position = running.position
    name = batches.first.phase
    # Batches have numbers, so that a resumed phase begins with the one that it would have drawn next.
    first = position.step * running.batches
    last = phase.steps * running.batches
    pinned = accelerator.device.type == "cuda"
    batch_stream = iter(loader(batches, first, last, machine.workers, machine.prefetch, pinned=pinned))
    meter = _Meter(list(phase.losses), running.factors)
    started = time.monotonic() - position.seconds
    if phase.patience and batches.first.order > 0 and position.step == 0:
        # What the phases before left counts as well: this one may make nothing of it better.
        _picture(running, name, show)
    with _progress(accelerator) as bar, _tracked(accelerator, name, position.step):
        task = bar.add_task(name, total=phase.steps, completed=position.step)
        lines = ProgressLines(phase.steps)
        at_end = False
        while position.step < phase.steps and not at_end:
            _step(running, batches, batch_stream, meter)
            description = f"{name}, loss {meter.loss:.4f}"
            bar.update(task, advance=1, description=description)
            if bar.disable and accelerator.is_main_process:
                lines.tell(description, position.step)
            at_end = position.step == phase.steps
            # Pictures come before the checkpoint: a run that is stopped in between draws them again.
            # The other way round, they would be missing for good.
            if at_end or position.step % phase.show_every == 0:
                _picture(running, name, show)
                at_end = at_end or _enough(running)
            if at_end or position.step % phase.keep_every == 0:
                # Time and log are part of the position, which the checkpoint keeps.
                position.seconds = time.monotonic() - started
                with checkpoints.writing(running.folder, position.step):
                    _write_log(running, name, meter, log)
                    if not at_end:
                        checkpoints.keep(accelerator, running.folder, position.step)


def _picture(running: _Running, name: str, show: Show) -> None:
    """Show a picture in the first process, and keep the weights of the best one of a phase with patience."""
    if not running.accelerator.is_main_process:
        return
    with _averaged(running.ema, running.learned):
        figure = show(name, running.position.step)
        if running.phase.patience and figure is not None:
            _keep_best(running, figure)


def _keep_best(running: _Running, figure: float) -> None:
    """Keep the moving average, which is in place, if no figure before was better."""
    position = running.position
    if position.best is not None and figure >= position.best:
        position.waited += 1
        return
    position.best = figure
    position.waited = 0
    with checkpoints.writing(running.folder, position.step):
        checkpoints.keep_best(running.folder, running.system, running.names)


def _enough(running: _Running) -> bool:
    """Say in every process whether the phase ends here, by what the first one has seen."""
    from accelerate.utils import broadcast_object_list

    position = running.position
    patience_state = [position.best, position.waited]
    broadcast_object_list(patience_state)
    position.best, position.waited = patience_state
    return bool(running.phase.patience) and position.waited >= running.phase.patience


def _step(running: _Running, batches: Batches, batch_stream: Iterator[Any], meter: "_Meter") -> None:
    """Take one step of the optimizer, on as many batches of each participant as the phase accumulates."""
    accelerator = running.accelerator
    phase = running.phase
    first = running.position.step * running.batches
    for number in range(first, first + running.batches):
        batch = send_to_device(next(batch_stream), accelerator.device)
        place = batches.place(number)
        # What the system draws itself, such as dropout, depends on the place of the batch alone, too.
        torch.manual_seed(place.torch_seed)
        with accelerator.accumulate(running.model):
            loss, losses = running.model(batch)
            accelerator.backward(running.factors[place.participant] * loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(running.learned, phase.clip)
            # accelerate lets both do nothing until the last of the accumulated batches.
            running.optimizer.step()
            running.optimizer.zero_grad()
        meter.add(place.participant, loss, losses)
    running.rates.step()
    running.ema.step(running.learned)
    running.position.step += 1


class _Meter:
    """Add up the losses of each batch, and give their means since they were last read.

    The means over all batches are weighted as the gradient is. Participants that are named have the mean loss
    of their own batches beside them.
    """

    def __init__(self, names: list[str], factors: Mapping[str, float]) -> None:
        self.names = names
        self.factors = factors
        self.participants = [name for name in factors if name]
        self._begin()

    def _begin(self) -> None:
        self.count = 0
        self.totals = [0.0] * (1 + len(self.names))
        self.by_participant = dict.fromkeys(self.participants, 0.0)

    def add(self, participant: str, loss: Tensor, losses: Mapping[str, Tensor]) -> None:
        # Stacked, so that all losses come from the accelerator in one transfer.
        values = torch.stack([loss, *(losses[name] for name in self.names)]).tolist()
        factor = self.factors[participant]
        self.totals = [total + factor * value for total, value in zip(self.totals, values, strict=True)]
        self.count += 1
        if participant:
            self.by_participant[participant] += values[0]

    @property
    def loss(self) -> float:
        return self.totals[0] / self.count

    def read(self, accelerator: Accelerator) -> dict[str, Any]:
        """Return the means over all processes, as `_write_log` writes them, and start again from zero."""
        # Participants take turns, so that all have the same number of batches.
        batches = self.count // len(self.factors)
        by_participant = [total / batches for total in self.by_participant.values()]
        means = torch.tensor(
            [[*(total / self.count for total in self.totals), *by_participant]], device=accelerator.device
        )
        self._begin()
        gathered: Any = accelerator.gather(means)
        loss, *values = gathered.mean(0).tolist()
        losses = dict(zip(self.names, values, strict=False))
        if not self.participants:
            return {"loss": loss, "losses": losses}
        last = values[len(self.names) :]
        return {
            "loss": loss,
            "losses": losses,
            "participants": dict(zip(self.participants, last, strict=True)),
        }


def _write_log(running: _Running, name: str, meter: _Meter, log: list[dict[str, Any]]) -> None:
    accelerator = running.accelerator
    position = running.position
    means = meter.read(accelerator)
    rate = running.rates.get_last_lr()[0]
    row = {
        "phase": name,
        "step": position.step,
        **means,
        "rate": rate,
        "seconds": round(position.seconds, 1),
    }
    position.rows.append(row)
    by_name = {
        f"{kind}/{n}": x for kind in ("losses", "participants") for n, x in means.get(kind, {}).items()
    }
    accelerator.log({"loss": means["loss"], "rate": rate, **by_name}, position.step)
    if accelerator.is_main_process:
        # The whole file is written anew: a stopped run may have logged rows after its last checkpoint.
        lines = [strict_json.dumps(entry) + "\n" for entry in [*log, *position.rows]]
        private.write_whole(running.folder.parent / "log.jsonl", "".join(lines))


@contextmanager
def _averaged(ema: "EMAModel", learned: list[nn.Parameter]) -> Iterator[None]:
    """Put the moving average in place of the weights inside a ``with`` block.

    The weights are not put back after an exception, which ends the run.
    """
    ema.store(learned)
    ema.copy_to(learned)
    yield
    ema.restore(learned)


@contextmanager
def _tracked(accelerator: Accelerator, name: str, step: int) -> Iterator[None]:
    """Log for TensorBoard, and let it forget what a stopped run logged after its last checkpoint."""
    accelerator.init_trackers(name, init_kwargs={"tensorboard": {"purge_step": step}})
    try:
        yield
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()


def _progress(accelerator: Accelerator) -> Progress:
    # Standard output is for results.
    console = terminal.console(stderr=True)
    name, count = (TextColumn(text, markup=False) for text in _COLUMNS)
    hidden = not (console.is_terminal and accelerator.is_main_process)
    return Progress(name, BarColumn(), count, TimeRemainingColumn(), console=console, disable=hidden)
