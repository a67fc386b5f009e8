"""What an export takes: memory, disk and time. It is told before, and corrected meanwhile.

`check_room` refuses an export for which the machine or its GPU has too little memory, or the disk too little
room, before any weights are read. `Outlook` counts the operations of the stages, without computing them, and
says from the speed of the machine how long they take.
"""

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rtdecode import terminal
from rtdecode.bundle import memory_check
from rtdecode.disk.folders import existing
from rtdecode.errors import UsageError
from train.artifacts.slots import HasLargeWeights
from train.interface.system import LargeWeights, Stage, Traced

# Python, torch, onnx and ONNX Runtime.
_PROGRAM = 1.5e9
# The weights of a graph lie on disk as they were traced, beside the files of a bundle, and in it.
_COPIES = 3
# What is left free, as a share of what is written.
_SPARE = 0.1
# The share of the speed of a large matrix product that whole stages reach.
_REACHED = 0.4
# Tracing takes so long for each operation of a stage, and each stage so long besides, s.
_OPERATION_S = 0.01
_STAGE_S = 3.0
# It is said anew how long an export takes if that changes by more than this share, and for as long, s.
_OFF = 0.25
_SHORT_S = 20.0
# Rows and columns of the matrices by whose product speed is measured, and how often.
_SIDE = 1024
_TRIED = 3
CPU = "cpu"
# The parts of an export, in order.
GOLDEN = "Decoding the golden windows"
GRAPHS = "Writing the graphs"
CHECK = "Checking them"


@dataclass(frozen=True)
class Need:
    """What an export takes, in bytes.

    Attributes
    ----------
    memory, gpu, disk : float
        Main memory, and memory of a GPU where there is one, and room on disk until the bundle is whole.
    """

    memory: float
    gpu: float
    disk: float


def need_of(weights: LargeWeights, run_bytes: int, precision: str) -> Need:
    """Count what an export takes.

    Parameters
    ----------
    weights : LargeWeights
        How many numbers the system's published weights are.
    run_bytes : int
        Of the run's own weights, in half precision.
    precision : str
        Of the graphs.
    """
    stays = weights.bfloat16 and precision == "bf16"
    step = weights.denoiser * (2 if stays else 4)
    # A graph in single precision or in the precision of its weights is written from them; any other is made
    # from a graph in single precision, as a copy.
    copies = 1 if stays or precision == "fp32" else 3
    learned = 2 * run_bytes
    decoder = 4 * weights.decoder
    files = {"fp32": 4, "fp16": 2, "bf16": 2}.get(precision, 1) * weights.denoiser + run_bytes + decoder
    # What the run keeps lies in memory in single precision, and so in a graph.
    memory = copies * step + 2 * learned + 2 * decoder + _PROGRAM
    return Need(memory=memory, gpu=step + learned + decoder, disk=_COPIES * files)


def check_room(plan: object, run: Path, out: Path, precision: str) -> None:
    """Say what an export takes, and refuse one for which there is too little room, before weights are read.

    Systems whose weights are all in their run are small, and nothing is said of them.

    Raises
    ------
    UsageError
    """
    if not isinstance(plan, HasLargeWeights):
        return
    need = need_of(plan.large_weights(), (run / "weights.npz").stat().st_size, precision)
    terminal.say(
        f"The export takes about {need.memory / 1e9:.1f} GB of memory and {need.disk / 1e9:.1f} GB of disk "
        "until the bundle is whole."
    )
    places = {"memory": (need.memory, memory_check.available()), "disk": (need.disk, _free(out))}
    on_gpu = _free_on_gpu()
    if on_gpu is not None:
        places["GPU memory"] = (need.gpu, on_gpu)
    for name, (needed, free) in places.items():
        if needed > free:
            raise UsageError(
                "export-no-room",
                "the export in {precision} takes about {needed_gb:.1f} GB of {place}, and {free_gb:.1f} GB "
                "are free. Export in bf16 (--precision bf16), which takes least, or on a machine with more.",
                precision=precision,
                needed_gb=needed / 1e9,
                place=name,
                free_gb=free / 1e9,
            )


def _free(out: Path) -> float:
    return shutil.disk_usage(existing(out.absolute().parent)).free / (1 + _SPARE)


def _free_on_gpu() -> int | None:
    """Return the free bytes of the GPU that torch computes on; None where there is none."""
    if find_spec("torch") is None:
        return None
    import torch

    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else None


class Outlook:
    """Tells how long an export takes, and corrects it when its parts are done.

    Nothing is said of graphs in closed form, which take no time.

    Parameters
    ----------
    stages : iterable of Stage
        The stages to be exported; those that are traced count.
    latent_frames : int
        Of a clip.
    windows, steps : int
        Golden windows, and denoising steps of each.
    on_gpu : bool
        Whether the graphs are checked on a GPU.
    """

    def __init__(
        self, stages: Iterable[Stage], latent_frames: int, windows: int, steps: int, *, on_gpu: bool
    ) -> None:
        traced = [stage for stage in stages if isinstance(stage, Traced)]
        # Part -> the seconds that it is thought to take.
        self._left: dict[str, float] = {}
        if not traced:
            return
        calls = calls_of(traced, latent_frames, windows, steps)
        works = {stage.name: work_of(stage) for stage in traced}
        flop = sum(calls[name] * work.flop for name, work in works.items())
        operations = sum(work.operations for work in works.values())
        decoding = {device: flop / (_REACHED * speed(device)) for device in devices()}
        self._left = {
            GOLDEN: decoding[devices()[-1]],
            GRAPHS: _STAGE_S * len(traced) + _OPERATION_S * operations,
            CHECK: decoding[devices()[-1] if on_gpu else CPU] + _STAGE_S * len(traced),
        }
        self._last = time.monotonic()
        self._told_s = sum(self._left.values())
        terminal.say(f"The export takes about {terminal.duration(self._told_s)}.")

    def after(self, part: str) -> None:
        """Say how long the rest takes once a part is done, if that is not what was said."""
        if part not in self._left:
            return
        now = time.monotonic()
        taken_s = now - self._last
        self._last = now
        thought_s = self._left.pop(part)
        # The graphs compute what the golden windows did, and as slowly.
        if part == GOLDEN:
            self._left[CHECK] += max(0.0, taken_s - thought_s)
        left_s = sum(self._left.values())
        said_s = self._told_s - thought_s
        off_s = taken_s - thought_s + left_s - said_s
        if abs(off_s) > max(_SHORT_S, _OFF * self._told_s):
            duration = terminal.duration
            terminal.say(f"{part} took {duration(taken_s)}, and the rest takes about {duration(left_s)}.")
        self._told_s = left_s


@dataclass(frozen=True)
class StageWork:
    """What a stage computes in one call.

    Attributes
    ----------
    flop : int
        Floating-point operations.
    operations : int
        Number of torch's operations.
    """

    flop: int
    operations: int


def work_of(stage: Traced) -> StageWork:
    """Count what a stage computes, from the shapes of its values alone."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode

    class Counted(TorchDispatchMode):
        operations = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.operations += 1
            return func(*args, **(kwargs or {}))

    flops = FlopCounterMode(display=False)
    counted = Counted()
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as fake, flops, counted:
        stage.module(*(fake.from_tensor(example) for example in stage.inputs.values()))
    return StageWork(flops.get_total_flops(), counted.operations)


def calls_of(stages: Iterable[Traced], latent_frames: int, windows: int, steps: int) -> dict[str, int]:
    """Count how often each stage is called to decode some windows."""
    counts: dict[str, int] = {}
    turns = {
        stage.name: stage.inputs["latent"].shape[2] for stage in stages if stage.name.startswith("decode_")
    }
    for stage in stages:
        in_window = 1
        if stage.name == "denoise":
            in_window = steps
        elif stage.name == "decode_next":
            in_window = (latent_frames - turns["decode_first"]) // turns["decode_next"]
        counts[stage.name] = windows * in_window
    return counts


def devices() -> list[str]:
    """Name what torch computes on here, the fastest last."""
    import torch

    return [CPU, *(["cuda"] if torch.cuda.is_available() else [])]


def speed(device: str) -> float:
    """Measure how many operations a second a large matrix product takes in single precision."""
    import torch

    matrix = torch.ones(_SIDE, _SIDE, device=device)
    seconds: list[float] = []
    for _ in range(_TRIED):
        start_s = time.perf_counter()
        # To read a value waits until a GPU is done.
        (matrix @ matrix)[0, 0].item()
        seconds.append(time.perf_counter() - start_s)
    return 2 * _SIDE**3 / min(seconds)
