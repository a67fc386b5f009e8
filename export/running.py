"""The graphs of a bundle run one window at a time, as a session runs them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from train.work import Arrays


def session(model: ModelProto | Path | bytes) -> onnxruntime.InferenceSession:
    """Load a graph on one thread; bytes are the graph itself."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    source = model.SerializeToString() if isinstance(model, ModelProto) else model
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def decode_window(
    sessions: dict[str, onnxruntime.InferenceSession], window: dict[str, NDArray[Any]], steps: int = 0
) -> Arrays:
    """Run the graphs on one window, whose ports carry a leading 1."""
    encode = sessions["encode"]
    names = [port.name for port in encode.get_outputs()]
    given = {port.name: window[port.name] for port in encode.get_inputs()}
    found = dict(zip(names, (np.asarray(v) for v in encode.run(names, given)), strict=True))
    if "denoise" in sessions:
        found["latent"] = denoised(sessions["denoise"], found, window["noise"], steps)
    latent, clip = found["latent"], []
    caches: Arrays = {}
    for t in range(latent.shape[2]):
        graph = sessions["decode_next" if t else "decode_first"]
        frame, *rest = graph.run(None, {"latent": latent[:, :, t : t + 1], **caches})
        clip.append(np.asarray(frame))
        caches = {"cache": np.asarray(rest[0])} if rest else {}
    return found | {"frames": np.concatenate(clip, axis=1)}


def denoised(
    graph: onnxruntime.InferenceSession, encoded: Arrays, noise: NDArray[Any], steps: int
) -> NDArray[Any]:
    """Take all steps from noise to clean latents."""
    latent = noise
    given = {port.name: encoded[port.name] for port in graph.get_inputs() if port.name in encoded}
    for step in range(steps):
        at = {"step": np.array([step], np.float32), "steps": np.array([steps], np.float32)}
        latent = np.asarray(graph.run(None, {"latent": latent, **given, **at})[0])
    return latent
