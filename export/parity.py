"""Hold exported graphs against the run's own decoder on the golden windows.

`expected` decodes the golden windows with the system that was trained. `checked` has the graphs decode them
in a process of its own, through the engine that a session uses, and raises an error where the two differ too
much. Where a machine cannot run the graphs, nothing is said to have passed: they are looked at as far as that
goes.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from export import decoded, structural
from export.files import on_disk, write
from rtdecode.bundle import Manifest
from rtdecode.bundle.golden import CLIP_DB, psnr_db
from rtdecode.bundle.manifest import OWN_STAGES
from rtdecode.errors import BundleError
from rtdecode.types import Array
from train.config.run_context import Arrays
from train.data.arrays import golden_noise
from train.interface.system import Stage, System, Table, Traced

PASSED = "passed"
STRUCTURAL = "structural"
# Largest difference allowed of an output in single precision.
_TOLERANCE = 1e-4
# A probability far from one half amplifies the rounding of what it is computed from.
_PROBABILITIES = ("confidence", "brain", "brain_by", "scores")
_LOOSE = {"confidence": 1e-3, "brain": 1e-3, "brain_by": 1e-3}
# Largest difference allowed of what the denoiser is told, of its largest value where that is above 1.
_CONDITION = 1e-5
# Largest difference allowed of a probability in a lower precision.
_LOWER = {"fp16": 0.01, "bf16": 0.05, "int8": 0.05, "fp8": 0.05}


@dataclass(frozen=True)
class StandIn:
    """Graphs that are run where others cannot be.

    Attributes
    ----------
    manifest : Manifest
        It has the stages of these graphs, whose states may have other types. Its precision says what is
        allowed.
    graphs : dict
        Stage -> graph.
    """

    manifest: Manifest
    graphs: dict[str, ModelProto]


def expected(system: System, windows: Arrays, steps: int = 0) -> Arrays:
    """Decode the golden windows with the run's own decoder.

    If the system carries latents from clip to clip, the last window carries on from the first.

    Returns
    -------
    dict
        The windows with ``latent``, ``frames`` and, if the system has them, ``scores``, ``confidence``,
        ``brain``, ``brain_by``, ``carry``, ``carry_mask`` and the starting ``noise``; float32.
    """
    count = len(next(iter(windows.values())))
    noise = golden_noise(count, system.latent_shape)
    inputs = windows | _nothing_carried(system, count)
    condition = system.condition(inputs)
    latents = system.sample(condition, noise, steps)
    if system.carried:
        # What is carried on is itself decoded from the first window, so everything is decoded
        # twice. Half precision keeps the golden file small and its values exact.
        inputs["carry"][-1] = latents[0, :, -system.carried :].astype(np.float16)
        inputs["carry_mask"][-1] = 1
        condition = system.condition(inputs)
        latents = system.sample(condition, noise, steps)
    outputs = {"latent": latents, "scores": condition.scores, "confidence": condition.confidence}
    outputs |= {"brain": condition.brain, "brain_by": condition.brain_by, "frames": system.frames(latents)}
    arrays = {name: np.asarray(value, np.float32) for name, value in outputs.items() if value is not None}
    return inputs | ({"noise": noise} if system.denoises else {}) | arrays


def _nothing_carried(system: System, count: int) -> Arrays:
    if not system.carried:
        return {}
    channels, _, rows, columns = system.latent_shape
    carry = np.zeros((count, channels, system.carried, rows, columns), np.float32)
    return {"carry": carry, "carry_mask": np.zeros((count, 1), np.float32)}


def condition(stages: list[Stage], windows: Mapping[str, Array]) -> Arrays:
    """Compute what ``encode`` tells the denoiser in the golden windows, with the modules that were traced.

    Parameters
    ----------
    stages : list of Stage
        The stages of the bundle, of which ``front`` and ``encode`` are looked for.
    windows : mapping
        The golden windows, as `expected` returns them.

    Returns
    -------
    dict
        Port -> (window, ...), without the probabilities. Empty where no ``encode`` is traced, or where it
        reads anything that neither the golden windows nor ``front`` have, such as rows of a memory.
    """
    available: Mapping[str, Array] = windows
    for name in OWN_STAGES:
        stage = next((stage for stage in stages if stage.name == name), None)
        if not isinstance(stage, Traced) or not set(stage.inputs) <= set(available):
            continue
        outputs = _of_module(stage, available)
        if name == "encode":
            return {port: values for port, values in outputs.items() if port not in _PROBABILITIES}
        available = {**available, **outputs}
    return {}


def _of_module(stage: Traced, windows: Mapping[str, Array]) -> Arrays:
    """Run the module of a stage in the golden windows, one after the other: port -> (window, ...)."""
    import torch

    rows: list[list[NDArray[Any]]] = []
    for n in range(len(windows["latent"])):
        inputs = [
            torch.from_numpy(np.asarray(windows[name][n : n + 1])).to(example.dtype)
            for name, example in stage.inputs.items()
        ]
        with torch.no_grad():
            outputs = stage.module(*inputs)
        rows.append([value.numpy() for value in (outputs if isinstance(outputs, tuple) else (outputs,))])
    ports = dict(zip(stage.outputs, zip(*rows, strict=True), strict=True))
    return {name: np.concatenate(values) for name, values in ports.items()}


def allowed(name: str, precision: str = "fp32") -> float:
    """Return how far an output may be off; in a lower precision clips are judged by their PSNR."""
    if precision == "fp32":
        return _LOOSE.get(name, _TOLERANCE)
    return _LOWER[precision] if name in _PROBABILITIES else float("inf")


def checked(
    manifest: Manifest,
    graphs: dict[str, ModelProto],
    golden: Arrays,
    memories: Mapping[str, Table] | None = None,
    conditions: Mapping[str, Array] | None = None,
    stand_ins: Callable[[], Mapping[str, StandIn]] | None = None,
) -> dict[str, Any]:
    """Hold graphs against the run's own decoder, or look at them where this machine cannot run them.

    Parameters
    ----------
    manifest, graphs, golden, memories, conditions
        See `compare`.
    stand_ins : callable, optional
        Makes what is run where the graphs themselves cannot be: ``fp32``, the graphs in single precision, and
        ``emulated``, graphs that compute in single precision and round to the lower one.

    Returns
    -------
    dict
        What `compare` returns, with the ``status`` ``passed``. Else the ``status`` is ``structural``, with
        the ``reason`` and what each of the ``checks`` of a graph said; ``largest_difference`` and
        ``clip_psnr_db`` are None, and beside them stands what this function returns of each stand-in.

    Raises
    ------
    BundleError
        If an output is too far off, see `compare`, or a graph is refused, see `structural.check_kernels`.
    """
    with TemporaryDirectory(dir=_beside(graphs)) as place:
        files = [file for name, model in graphs.items() for file in write(model, name, Path(place))]
        reason = structural.cannot_run(files, manifest.precision)
        checks = (
            {name: structural.check_kernels(Path(place) / f"{name}.onnx") for name in graphs}
            if reason
            else {}
        )
    if reason is None:
        return {"status": PASSED} | compare(manifest, graphs, golden, memories, conditions)
    stand_in_reports: dict[str, Any] = {}
    for name, other in ({} if stand_ins is None else stand_ins()).items():
        stand_in_reports[name] = _stand_in(name, other, golden, memories, conditions)
    return {
        "status": STRUCTURAL,
        "reason": reason,
        "windows": 0,
        "runtime": onnxruntime.__version__,
        "largest_difference": None,
        "clip_psnr_db": None,
        "checks": checks,
    } | stand_in_reports


def _stand_in(
    name: str,
    other: StandIn,
    golden: Arrays,
    memories: Mapping[str, Table] | None,
    conditions: Mapping[str, Array] | None,
) -> dict[str, Any]:
    """Run graphs that compute in single precision, and hold them to what their manifest allows."""
    if name == "fp32":
        return checked(other.manifest, other.graphs, golden, memories, conditions)
    return {"status": PASSED} | compare(other.manifest, other.graphs, golden, memories, conditions)


def compare(
    manifest: Manifest,
    graphs: dict[str, ModelProto],
    golden: Arrays,
    memories: Mapping[str, Table] | None = None,
    conditions: Mapping[str, Array] | None = None,
) -> dict[str, Any]:
    """Decode the golden windows with the graphs in a process of its own, and measure how far they are off.

    Parameters
    ----------
    manifest : Manifest
        It must have the stages of the graphs. Its precision says what is allowed.
    graphs : dict
        Stage -> graph.
    golden : dict
        The golden windows, as `expected` returns them or as a bundle holds them, with the frames of its
        first window only.
    memories : mapping, optional
        Name -> table, as in `System.memories`.
    conditions : mapping, optional
        What ``encode`` tells the denoiser, as `condition` returns it.

    Raises
    ------
    BundleError
        If an output is too far off, see `held_to`.
    """
    with _laid_out(graphs, memories or {}) as (folder, memory_files):
        outputs = decoded.decode_in_process(manifest, folder, golden, memory_files)
    report: dict[str, Any] = {"windows": len(golden["latent"]), "runtime": onnxruntime.__version__}
    report["largest_difference"] = held_to(golden, outputs, conditions or {}, manifest.precision)
    # Frames of 8 bits are off by their rounding, so that they do not tell how far off a clip is.
    if golden["frames"].dtype != np.uint8:
        report["clip_psnr_db"] = _clips_held_to(golden["frames"], outputs["frames"], manifest.precision)
    return report


def calls(
    manifest: Manifest, graphs: dict[str, ModelProto], golden: Arrays, memories: Mapping[str, Table]
) -> dict[str, Arrays]:
    """Decode the golden windows as `compare` does, and return what each graph was given.

    Returns
    -------
    dict
        Stage -> port -> one row for each call.
    """
    with _laid_out(graphs, memories) as (folder, memory_files):
        recorded = decoded.decode_in_process(manifest, folder, golden, memory_files, calls=True)
    inputs_of: dict[str, Arrays] = {name: {} for name in graphs}
    for name, rows in recorded.items():
        stage, _, port = name.partition(".")
        inputs_of[stage][port] = rows
    return inputs_of


@contextmanager
def _laid_out(
    graphs: Mapping[str, ModelProto], memories: Mapping[str, Table]
) -> Iterator[tuple[Path, dict[str, tuple[Path, str]]]]:
    """Write graphs as a bundle has them, large ones with their weights apart; name the files of memories."""
    with TemporaryDirectory(dir=_beside(graphs)) as place:
        folder = Path(place)
        for name, model in graphs.items():
            write(model, name, folder)
        yield folder, {name: (_file(name, table, folder), table.dtype) for name, table in memories.items()}


def _beside(graphs: Mapping[str, ModelProto]) -> Path | None:
    """Return the folder of weights that lie on disk, where there is room; None where there are none."""
    files = [file for model in graphs.values() if (file := on_disk(model)) is not None]
    return files[0].parent if files else None


def _file(name: str, table: Table, folder: Path) -> Path:
    """Return the file of a memory, which is written only if the table is not mapped from a whole file."""
    values = table.values
    if isinstance(values, np.memmap) and values.filename is not None:
        mapped = Path(values.filename)
        if mapped.stat().st_size == values.offset + values.nbytes:
            return mapped
    path = folder / f"{name}.npy"
    np.save(path, values)
    return path


def held_to(
    golden: Mapping[str, Array],
    actual: Mapping[str, Array],
    conditions: Mapping[str, Array] | None = None,
    precision: str = "fp32",
) -> dict[str, float]:
    """Measure how far decoded windows are from the expected ones.

    Parameters
    ----------
    golden : mapping
        What is expected, one row per window.
    actual : mapping
        What was decoded, one row per window.
    conditions : mapping, optional
        What is expected of the condition.
    precision : str
        The precision that the graphs compute in.

    Returns
    -------
    dict
        The largest difference of each output. That of a condition is a share of its largest value, where that
        is above 1.

    Raises
    ------
    BundleError
        If an output is off by more than 1e-4 (the confidence and ``brain`` by more than 1e-3, what is told of
        the condition by more than 1e-5), in a lower precision a probability by more than it allows; or if an
        output is not a number. Frames kept in 8 bits may be off by their rounding as well.
    """
    condition_arrays = conditions or {}
    worst: dict[str, float] = {}
    limits: dict[str, float] = {}
    for name, value in actual.items():
        reference = condition_arrays.get(name, golden.get(name))
        if reference is None:
            continue
        # Frames may be there for fewer windows than latents.
        computed = value[: len(reference)].astype(np.float64)
        limits[name] = allowed(name, precision)
        scale = 1.0
        if name in condition_arrays:
            scale = max(1.0, float(np.abs(reference.astype(np.float64)).max()))
            limits[name] = _CONDITION if precision == "fp32" else float("inf")
        # Half a grey level is what rounding to 8 bits costs.
        eight_bits = reference.dtype == np.uint8
        unit = 255 if eight_bits else 1
        slack = 0.5 / unit if eight_bits else 0.0
        error = float(np.abs(computed - reference.astype(np.float64) / unit).max()) / scale - slack
        # NaN is neither smaller nor larger than a limit: count it as infinitely far off.
        worst[name] = max(0.0, error) if np.isfinite(error) else np.inf
    beyond = {name: error for name, error in worst.items() if error > limits[name] or not np.isfinite(error)}
    if beyond:
        refused = {name: limits[name] for name in beyond}
        raise BundleError(
            "export-difference-too-large",
            "the graphs differ from the run's own decoder: {differences}, allowed {tolerances}. "
            "Nothing was exported; train the run again, or report the ONNX Runtime version.",
            differences=beyond,
            tolerances=refused,
        )
    return {name: float(f"{error:.2g}") for name, error in worst.items()}


def _clips_held_to(reference: Array, actual: Array, precision: str) -> float:
    """Return the lowest PSNR of a clip in dB, before its values become 8 bits; refuse one that is too low."""
    lowest = min(psnr_db(clip, other) for clip, other in zip(reference, actual, strict=True))
    # Written so that a NaN fails too.
    if not lowest >= CLIP_DB[precision]:
        raise BundleError(
            "export-psnr-too-low",
            "the clips of the graphs differ from those of the run's own decoder: a PSNR of "
            "{psnr_db:.1f} dB, where {precision} has to reach {min_psnr_db:.0f} dB. Nothing was "
            "exported; take a higher --precision, or report the ONNX Runtime version.",
            psnr_db=lowest,
            precision=precision,
            min_psnr_db=CLIP_DB[precision],
        )
    return float(f"{lowest:.4g}")
