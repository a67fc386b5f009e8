"""ONNX Runtime behind one call."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rtdecode import installing
from rtdecode.errors import BundleError, RtDecodeError
from rtdecode.types import Float

if TYPE_CHECKING:
    import onnxruntime

_PROVIDERS = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")


def providers() -> list[str]:
    """Name the execution providers that would be used, the fastest first.

    Raises
    ------
    RtDecodeError
        If ONNX Runtime is not installed.
    """
    there = _runtime().get_available_providers()
    return [name for name in _PROVIDERS if name in there]


class Graph:
    """One ONNX graph on one thread.

    Parameters
    ----------
    path : Path

    Raises
    ------
    BundleError
        If the file is no graph that ONNX Runtime can run.
    """

    def __init__(self, path: Path) -> None:
        runtime = _runtime()
        try:
            self._session = runtime.InferenceSession(str(path), _options(), providers=providers())
        except _faults() as error:
            raise BundleError(f"{path} cannot be run ({error}). Export the bundle again.") from error
        self.inputs = {port.name: port.shape for port in self._session.get_inputs()}
        self.outputs = [port.name for port in self._session.get_outputs()]

    def __call__(self, **arrays: Float) -> dict[str, Float]:
        """Run the graph on arrays by port name; returns its outputs by name."""
        found = self._session.run(self.outputs, {name: np.ascontiguousarray(a) for name, a in arrays.items()})
        return {name: np.asarray(value, np.float32) for name, value in zip(self.outputs, found, strict=True)}


def _faults() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for a file that it cannot run: there is no common base."""
    state = import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    names = ("Fail", "InvalidGraph", "InvalidProtobuf", "InvalidArgument", "NoSuchFile", "NotImplemented")
    return tuple(getattr(state, name) for name in names)


def _options() -> "onnxruntime.SessionOptions":
    options = _runtime().SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Spinning threads would take the cores that acquisition needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise RtDecodeError(
            "decoding needs ONNX Runtime, which is not installed. Install it with "
            f"`{installing.command('cpu')}`, or the extra gpu for CUDA and TensorRT."
        ) from error
    return onnxruntime
