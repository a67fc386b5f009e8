"""ONNX Runtime behind one call."""

import os
from importlib import import_module
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
    model : bytes
        The graph itself: what was hashed is what runs, whatever becomes of the file meanwhile.
    name : str
        Where it is from, for messages.

    Attributes
    ----------
    inputs, outputs : dict
        Name of each port -> its shape.

    Raises
    ------
    BundleError
        If it is no graph that ONNX Runtime can run, or its weights lie in another file.
    """

    def __init__(self, model: bytes, name: str) -> None:
        self._name = name
        runtime = _runtime()
        try:
            self._session = runtime.InferenceSession(model, _options(), providers=providers())
        except _faults() as error:
            raise BundleError(f"{name} cannot be run ({error}). Export the bundle again.") from error
        self.inputs = {port.name: port.shape for port in self._session.get_inputs()}
        self.outputs = {port.name: port.shape for port in self._session.get_outputs()}

    def __call__(self, **arrays: Float) -> dict[str, Float]:
        """Run the graph on arrays by port name; returns its outputs by name.

        Raises
        ------
        BundleError
            If the arrays do not fit its ports.
        """
        given = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        try:
            found = self._session.run(list(self.outputs), given)
        except (*_faults(), ValueError) as error:
            shapes = {name: array.shape for name, array in given.items()}
            raise BundleError(
                f"{self._name} cannot be run on {shapes} ({error}). Export the bundle again."
            ) from error
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
    # Weights beside a graph are looked for here, and nothing can lie below a device: a graph holds its
    # own weights, or it is refused. Without it they would be looked for in the working directory.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
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
