"""The exported graphs against the run's own decoder on the golden windows."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from rtdecode.errors import BundleError
from train.decode import decode, frames
from train.work import Arrays

TOLERANCE = 1e-4
# Golden clips are kept to this fraction of full brightness, far below a display's 1/255.
_GRAIN = 2.0**-14


def expected(model: str, weights: Arrays, windows: Arrays) -> Arrays:
    """Decode the golden windows in plain numpy.

    Returns
    -------
    dict
        The windows with ``latent``, ``frames`` and, where there are any, ``scores``, float32.
    """
    found = decode(model, weights, windows)
    clips = frames(model, weights, found["latent"])
    found["frames"] = np.round(clips / _GRAIN) * _GRAIN
    return windows | {name: value.astype(np.float32) for name, value in found.items()}


def session(model: ModelProto | Path) -> onnxruntime.InferenceSession:
    """Load a graph on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def decode_window(
    sessions: dict[str, onnxruntime.InferenceSession], window: dict[str, NDArray[Any]]
) -> Arrays:
    """Run the graphs on one window, whose ports carry a leading 1."""
    encode = sessions["encode"]
    names = [port.name for port in encode.get_outputs()]
    found = dict(zip(names, (np.asarray(v) for v in encode.run(names, window)), strict=True))
    latent, clip = found["latent"], []
    for t in range(latent.shape[2]):
        graph = sessions["decode_next" if t else "decode_first"]
        clip.append(np.asarray(graph.run(["frames"], {"latent": latent[:, :, t : t + 1]})[0]))
    return found | {"frames": np.concatenate(clip, axis=1)}


def compare(graphs: dict[str, ModelProto], golden: Arrays) -> dict[str, Any]:
    """Decode the golden windows with the graphs and measure how far they are off.

    Raises
    ------
    BundleError
        If anything is off by more than 1e-4.
    """
    sessions = {name: session(model) for name, model in graphs.items()}
    ports = [port.name for port in sessions["encode"].get_inputs()]
    worst: dict[str, float] = {}
    for n in range(len(golden["latent"])):
        found = decode_window(sessions, {port: golden[port][n : n + 1].astype(np.float32) for port in ports})
        for name, value in found.items():
            error = float(np.abs(value[0] - golden[name][n]).max())
            worst[name] = max(worst.get(name, 0.0), error)
    beyond = {name: error for name, error in worst.items() if error > TOLERANCE}
    if beyond:
        raise BundleError(
            f"the graphs differ from the run's own decoder: {beyond}, allowed {TOLERANCE}. "
            "Nothing was exported; train the run again, or report the ONNX Runtime version."
        )
    return {
        "windows": len(golden["latent"]),
        "runtime": onnxruntime.__version__,
        "largest_difference": {name: float(f"{error:.2g}") for name, error in worst.items()},
    }
