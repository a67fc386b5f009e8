"""Run ONNX graphs through one class, `Graph`, with checked providers and external weights."""

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

# An array, or a value that ONNX Runtime holds on a device (`OrtValue`).
Value = Any
# A provider's name, or its name with its options.
Provider = str | tuple[str, dict[str, Any]]

_PROVIDERS = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
_ON_A_GPU = _PROVIDERS[:2]
_DTYPES = {"float": "float32", "double": "float64"}


def providers() -> list[str]:
    """Name the available execution providers that are used by default, the fastest first.

    Raises
    ------
    RtDecodeError
        If ONNX Runtime is not installed.
    """
    there = _runtime().get_available_providers()
    return [name for name in _PROVIDERS if name in there]


def check_providers(chosen: Sequence[Provider]) -> None:
    """Refuse providers that are not available, because ONNX Runtime would use another one instead.

    Raises
    ------
    RtDecodeError
    """
    there = _runtime().get_available_providers()
    if missing := [name for name in _names(chosen) if name not in there]:
        raise RtDecodeError(
            f"{', '.join(missing)} was asked for, but this ONNX Runtime has only {', '.join(there)}. Ask for "
            "one of these, or install another ONNX Runtime."
        )


def device_of(chosen: Sequence[Provider]) -> str | None:
    """Return the device on which the outputs of a graph can stay; None for the host's memory."""
    return "cuda" if any(name in _ON_A_GPU for name in _names(chosen)) else None


class Graph:
    """One ONNX graph, run on a single CPU thread or on a GPU.

    Parameters
    ----------
    model : bytes
        The graph itself. Taking bytes rather than a path means that what was hashed is what runs, even if
        the file changes in the meantime.
    name : str
        Where it is from, for messages.
    chosen : sequence of str or (str, dict), optional
        Execution providers, with their options if any; by default `providers`.
    device : str, optional
        Device on which outputs may stay; by default `device_of` the providers.
    beside : dict, optional
        The files that hold its external weights, by the names under which the graph knows them.

    Attributes
    ----------
    inputs, outputs : dict
        Name of each port -> its shape and dtype.

    Raises
    ------
    BundleError
        If ONNX Runtime cannot run the graph, or its weights lie in a file that was not given.
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
        """Run the graph on arrays by port name, and return its outputs by name, in their own dtypes.

        Parameters
        ----------
        arrays : dict
            Values of the input ports. An array whose dtype is not that of its port is cast.
        stay : collection of str
            Outputs that may stay on the device, if there is one.

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
        """Run the graph with the outputs in `stay` bound to the device and the others to the host."""
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
    """Return a value as an array in the host's memory."""
    return value if isinstance(value, np.ndarray) else value.numpy()


def _names(chosen: Sequence[Provider]) -> list[str]:
    return [provider if isinstance(provider, str) else provider[0] for provider in chosen]


def _dtype(said: str) -> str:
    """Convert ONNX Runtime's name of a type to numpy's: ``tensor(float)`` to ``float32``."""
    inner = said.removeprefix("tensor(").removesuffix(")")
    return _DTYPES.get(inner, inner)


def _faults() -> tuple[type[Exception], ...]:
    """List what ONNX Runtime raises for a graph it cannot run; the exceptions have no common base."""
    state = import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    names = ("Fail", "InvalidGraph", "InvalidProtobuf", "InvalidArgument", "NoSuchFile", "NotImplemented")
    return tuple(getattr(state, name) for name in names)


def _options() -> "onnxruntime.SessionOptions":
    options = _runtime().SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Spinning threads would take the cores that acquisition needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # ONNX Runtime looks for external weights in this folder, by default in the working directory.
    # Nothing can lie below a device, so a graph gets only the weights that it holds and the files
    # that the manifest lists, whose hashes were checked.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    options.log_severity_level = 3  # errors only
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
