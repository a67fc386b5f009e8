"""ONNX Runtime behind one call."""

import os
from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rtdecode import installing
from rtdecode.errors import BundleError, RtDecodeError

if TYPE_CHECKING:
    import onnxruntime

# An array, or what ONNX Runtime holds on a device (`OrtValue`).
Value = Any
# A provider's name, or its name and its options.
Provider = str | tuple[str, dict[str, Any]]

_PROVIDERS = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
_ON_A_GPU = _PROVIDERS[:2]
_DTYPES = {"float": "float32", "double": "float64"}


def providers() -> list[str]:
    """Name the execution providers that would be used, the fastest first.

    Raises
    ------
    RtDecodeError
        If ONNX Runtime is not installed.
    """
    there = _runtime().get_available_providers()
    return [name for name in _PROVIDERS if name in there]


def check_providers(chosen: Sequence[Provider]) -> None:
    """Refuse providers that are not there: ONNX Runtime would take another one instead.

    Raises
    ------
    RtDecodeError
    """
    there = _runtime().get_available_providers()
    if missing := [name for name in _names(chosen) if name not in there]:
        raise RtDecodeError(
            f"{', '.join(missing)} was asked for, and this ONNX Runtime has {', '.join(there)}. Ask for one "
            "of these, or install another ONNX Runtime."
        )


def device_of(chosen: Sequence[Provider]) -> str | None:
    """Say on which device the outputs of a graph can stay; None for the host's memory."""
    return "cuda" if any(name in _ON_A_GPU for name in _names(chosen)) else None


class Graph:
    """One ONNX graph on one thread of the processor.

    Parameters
    ----------
    model : bytes
        The graph itself: what was hashed is what runs, whatever becomes of the file meanwhile.
    name : str
        Where it is from, for messages.
    chosen : sequence of str or (str, dict), optional
        Execution providers, with their options; `providers` where not given.
    device : str, optional
        Where outputs may stay; `device_of` the providers where not given.
    beside : dict, optional
        The files that hold weights of it, by the names that the graph knows them by.

    Attributes
    ----------
    inputs, outputs : dict
        Name of each port -> its shape and dtype.

    Raises
    ------
    BundleError
        If it is no graph that ONNX Runtime can run, or its weights lie in a file that was not given.
    """

    def __init__(
        self,
        model: bytes,
        name: str,
        chosen: Sequence[Provider] | None = None,
        device: str | None = None,
        beside: Mapping[str, Any] | None = None,
    ) -> None:
        self._name = name
        runtime = _runtime()
        used: list[Provider] = [*providers()] if chosen is None else list(chosen)
        self._device = device_of(used) if device is None else device
        try:
            options = _options()
            if beside:
                sizes = [len(data) for data in beside.values()]
                options.add_external_initializers_from_files_in_memory(
                    list(beside), list(beside.values()), sizes
                )
            self._session = runtime.InferenceSession(model, options, providers=used)
        except (*_faults(), ValueError) as error:
            raise BundleError(f"{name} cannot be run ({error}). Export the bundle again.") from error
        self.inputs = {port.name: (port.shape, _dtype(port.type)) for port in self._session.get_inputs()}
        self.outputs = {port.name: (port.shape, _dtype(port.type)) for port in self._session.get_outputs()}

    def __call__(self, arrays: Mapping[str, Value], stay: Collection[str] = ()) -> dict[str, Value]:
        """Run the graph on arrays by port name; returns its outputs by name, as they are.

        Parameters
        ----------
        arrays : dict
            Cast to the dtype of their port, where they have another one.
        stay : collection of str
            Outputs that may stay on the device, where there is one.

        Raises
        ------
        BundleError
            If the arrays do not fit its ports.
        """
        given = {name: self._fitting(name, value) for name, value in arrays.items()}
        try:
            if self._device is None:
                found = self._session.run(list(self.outputs), given)
                return dict(zip(self.outputs, found, strict=True))
            return self._bound(given, stay, self._device)
        except (*_faults(), ValueError) as error:
            shapes = {name: tuple(np.shape(host(value))) for name, value in given.items()}
            raise BundleError(
                f"{self._name} cannot be run on {shapes} ({error}). Export the bundle again."
            ) from error

    def _fitting(self, name: str, value: Value) -> Value:
        if not isinstance(value, np.ndarray):
            return value
        dtype = self.inputs[name][1] if name in self.inputs else value.dtype
        return np.ascontiguousarray(value, dtype)

    def _bound(self, given: Mapping[str, Value], stay: Collection[str], device: str) -> dict[str, Value]:
        """Run with the outputs that may stay bound to the device, and the rest to the host."""
        binding = self._session.io_binding()
        for name, value in given.items():
            if isinstance(value, np.ndarray):
                binding.bind_cpu_input(name, value)
            else:
                binding.bind_ortvalue_input(name, value)
        for name in self.outputs:
            binding.bind_output(name, device if name in stay else "cpu")
        self._session.run_with_iobinding(binding)
        found = dict(zip(self.outputs, binding.get_outputs(), strict=True))
        return {name: value if name in stay else value.numpy() for name, value in found.items()}


def host(value: Value) -> NDArray[Any]:
    """Bring a value to the host's memory, as the array that it is."""
    return value if isinstance(value, np.ndarray) else value.numpy()


def _names(chosen: Sequence[Provider]) -> list[str]:
    return [provider if isinstance(provider, str) else provider[0] for provider in chosen]


def _dtype(said: str) -> str:
    """``tensor(float)`` -> ``float32``."""
    inner = said.removeprefix("tensor(").removesuffix(")")
    return _DTYPES.get(inner, inner)


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
    # own weights, or is given the files that the manifest lists. Without it they would be looked for in
    # the working directory.
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
