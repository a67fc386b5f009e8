"""Compare exported graphs with the run's own decoder on the golden windows.

`expected` decodes the golden windows with the system that was trained; `compare` decodes them with the
graphs, through the engine that a session uses, and raises an error where the two differ too much.
"""

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

# Largest difference allowed of an output.
_TOLERANCE = 1e-4
# A probability far from one half amplifies the rounding of what it is computed from.
_LOOSE = {"confidence": 1e-3, "brain": 1e-3}


def expected(system: System, windows: Arrays, steps: int = 0) -> Arrays:
    """Decode the golden windows with the run's own decoder.

    If the system carries latents from clip to clip, the last window carries on from the first.

    Returns
    -------
    dict
        The windows with ``latent``, ``frames`` and, if the system has them, ``scores``, ``confidence``,
        ``brain``, ``carry``, ``carry_mask`` and the starting ``noise``; float32.
    """
    count = len(next(iter(windows.values())))
    noise = golden_noise(count, system.latent_shape)
    given = windows | _nothing_carried(system, count)
    condition = system.condition(given)
    latents = system.sample(condition, noise, steps)
    if system.carried:
        # What is carried on is itself decoded from the first window, so everything is decoded
        # twice. Half precision keeps the golden file small and its values exact.
        given["carry"][-1] = latents[0, :, -system.carried :].astype(np.float16)
        given["carry_mask"][-1] = 1
        condition = system.condition(given)
        latents = system.sample(condition, noise, steps)
    found = {"latent": latents, "scores": condition.scores, "confidence": condition.confidence}
    found |= {"brain": condition.brain, "frames": system.frames(latents)}
    said = {name: np.asarray(value, np.float32) for name, value in found.items() if value is not None}
    return given | ({"noise": noise} if system.denoises else {}) | said


def _nothing_carried(system: System, count: int) -> Arrays:
    if not system.carried:
        return {}
    channels, _, rows, columns = system.latent_shape
    carry = np.zeros((count, channels, system.carried, rows, columns), np.float32)
    return {"carry": carry, "carry_mask": np.zeros((count, 1), np.float32)}


def allowed(name: str) -> float:
    """Return how far an output of this name may be off."""
    return _LOOSE.get(name, _TOLERANCE)


def compare(
    manifest: Manifest,
    graphs: dict[str, ModelProto],
    golden: Arrays,
    memories: Mapping[str, Table] | None = None,
) -> dict[str, Any]:
    """Decode the golden windows with the graphs, and measure how far they are off.

    Parameters
    ----------
    manifest : Manifest
        It must have the stages of the graphs.
    graphs : dict
        Stage -> graph.
    golden : dict
        The golden windows, as `expected` returns them or as a bundle holds them, with the frames of its
        first window only.
    memories : mapping, optional
        Name -> table, as in `System.memories`.

    Raises
    ------
    BundleError
        If an output is too far off, see `held_to`.
    """
    tables = (memories or {}).items()
    rows = {name: Rows(table.values, table.dtype, f"the memory '{name}'") for name, table in tables}
    # Run the graphs from the bytes that will be written, large ones with their weights apart.
    files = {name: packed(model, name) for name, model in graphs.items()}
    models = {name: file.graph for name, file in files.items()}
    beside = {name: file.beside for name, file in files.items()}
    engine = Engine(manifest, models, "the export", beside=beside, memories=rows)
    # Frames may be there for fewer windows, latents are there for all.
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
        What is expected, one row per window.
    found : list of dict
        What was decoded, one window each, with a leading axis of 1.

    Returns
    -------
    dict
        The largest difference of each output.

    Raises
    ------
    BundleError
        If an output is off by more than 1e-4 (the confidence and ``brain`` by more than 1e-3). Frames kept in
        8 bits may be off by their rounding as well.
    """
    worst: dict[str, float] = {}
    for n, window in enumerate(found):
        for name, value in ((name, window[name]) for name in window if n < len(golden.get(name, ()))):
            # Half a grey level is what rounding to 8 bits costs.
            unit, slack = (255, 0.5) if golden[name].dtype == np.uint8 else (1, 0.0)
            error = float(np.abs(value[0] - golden[name][n].astype(np.float64) / unit).max()) - slack / unit
            # NaN is neither smaller nor larger than a limit: count it as infinitely far off.
            worst[name] = max(worst.get(name, 0.0), error if np.isfinite(error) else np.inf)
    beyond = {name: error for name, error in worst.items() if error > allowed(name)}
    if beyond:
        limits = {name: allowed(name) for name in beyond}
        raise BundleError(
            f"the graphs differ from the run's own decoder: {beyond}, allowed {limits}. "
            "Nothing was exported; train the run again, or report the ONNX Runtime version."
        )
    return {name: float(f"{error:.2g}") for name, error in worst.items()}
