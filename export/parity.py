"""The exported graphs against the run's own decoder on the golden windows."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from export.files import packed
from rtdecode.bundle import Manifest
from rtdecode.bundle.engine import Engine
from rtdecode.bundle.golden import decode
from rtdecode.bundle.memory import Rows
from rtdecode.errors import BundleError
from train.data.arrays import golden_noise
from train.system import System, Table
from train.work import Arrays

_TOLERANCE = 1e-4
# A probability far from one half amplifies the rounding of what it is computed from.
_LOOSE = {"confidence": 1e-3}


def expected(system: System, windows: Arrays, steps: int = 0) -> Arrays:
    """Decode the golden windows with the run's own decoder; the last of them carries on from the first.

    Returns
    -------
    dict
        The windows with ``latent``, ``frames`` and, where there are any, ``scores``, ``confidence``,
        ``carry``, ``carry_mask`` and the ``noise`` to begin with, float32.
    """
    count = len(next(iter(windows.values())))
    noise = golden_noise(count, system.latent_shape)
    given = windows | _nothing_carried(system, count)
    condition = system.condition(given)
    latents = system.sample(condition, noise, steps)
    if system.carried:
        given["carry"][-1] = latents[0, :, -system.carried :].astype(np.float16)
        given["carry_mask"][-1] = 1
        condition = system.condition(given)
        latents = system.sample(condition, noise, steps)
    found = {"latent": latents, "scores": condition.scores, "confidence": condition.confidence}
    found["frames"] = system.frames(latents)
    said = {name: np.asarray(value, np.float32) for name, value in found.items() if value is not None}
    return given | ({"noise": noise} if system.denoises else {}) | said


def _nothing_carried(system: System, count: int) -> Arrays:
    if not system.carried:
        return {}
    channels, _, rows, columns = system.latent_shape
    carry = np.zeros((count, channels, system.carried, rows, columns), np.float32)
    return {"carry": carry, "carry_mask": np.zeros((count, 1), np.float32)}


def allowed(name: str) -> float:
    """How far an output of this name may be off."""
    return _LOOSE.get(name, _TOLERANCE)


def compare(
    manifest: Manifest,
    graphs: dict[str, ModelProto],
    golden: Arrays,
    memories: Mapping[str, Table] | None = None,
) -> dict[str, Any]:
    """Decode the golden windows with the graphs and measure how far they are off.

    A bundle keeps the frames of its first golden window alone.

    Parameters
    ----------
    manifest : Manifest
        With the stages of the graphs.
    graphs : dict
        Stage -> graph.
    golden : dict
        As `expected` gives them.
    memories : mapping, optional
        As of `System.memories`.

    Raises
    ------
    BundleError
        As of `held_to`.
    """
    tables = (memories or {}).items()
    rows = {name: Rows(table.values, table.dtype, f"the memory '{name}'") for name, table in tables}
    files = {name: packed(model, name) for name, model in graphs.items()}
    models = {name: file.graph for name, file in files.items()}
    beside = {name: file.beside for name, file in files.items()}
    engine = Engine(manifest, models, "the export", beside=beside, memories=rows)
    count = len(golden["latent"])
    found = []
    for n in range(count):
        window = {name: values[n : n + 1] for name, values in golden.items()}
        found.append(decode(engine, window, manifest.steps, "the run's golden.npz"))
    return {
        "windows": count,
        "runtime": onnxruntime.__version__,
        "largest_difference": held_to(golden, found),
    }


def held_to(golden: Arrays, found: list[dict[str, NDArray[Any]]]) -> dict[str, float]:
    """Measure how far decoded windows are from the expected ones.

    Parameters
    ----------
    golden : dict
        What is expected, one row a window.
    found : list of dict
        What was decoded, a window each, with a leading 1.

    Returns
    -------
    dict
        The largest difference of each output.

    Raises
    ------
    BundleError
        If anything is off by more than 1e-4 (the confidence 1e-3), frames of 8 bits by more than their
        rounding besides.
    """
    worst: dict[str, float] = {}
    for n, window in enumerate(found):
        for name, value in ((name, window[name]) for name in window if n < len(golden.get(name, ()))):
            unit, slack = (255, 0.5) if golden[name].dtype == np.uint8 else (1, 0.0)
            error = float(np.abs(value[0] - golden[name][n].astype(np.float64) / unit).max()) - slack / unit
            # A value that is no number differs from every other.
            worst[name] = max(worst.get(name, 0.0), error if np.isfinite(error) else np.inf)
    beyond = {name: error for name, error in worst.items() if error > allowed(name)}
    if beyond:
        limits = {name: allowed(name) for name in beyond}
        raise BundleError(
            f"the graphs differ from the run's own decoder: {beyond}, allowed {limits}. "
            "Nothing was exported; train the run again, or report the ONNX Runtime version."
        )
    return {name: float(f"{error:.2g}") for name, error in worst.items()}
