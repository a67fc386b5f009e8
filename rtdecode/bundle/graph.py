"""Run ONNX graphs in ONNX Runtime through one class, `Graph`, with checked providers and external weights."""

import os
import threading
import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import providers
from rtdecode.bundle.providers import CPU, RTX, Provider
from rtdecode.errors import BundleError, RtDecodeError

if TYPE_CHECKING:
    import onnxruntime

# An array, or a value on a device: of ONNX Runtime (`OrtValue`), or of an engine built ahead.
Value = Any

_DTYPES = {"float": "float32", "double": "float64"}
# The options by which a provider captures a graph.
_CAPTURED = ("enable_cuda_graph", "trt_cuda_graph_enable")


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
        Execution providers, with their options if any. By default those that are installed are tried, the
        fastest first, and `notes` tells of those that failed.
    weight_files : dict, optional
        The files that hold its external weights, by the names under which the graph knows them.

    Attributes
    ----------
    inputs, outputs : dict
        Name of each port -> its shape and dtype.
    runs_on : str
        What runs it, in words.
    notes : list of str
        A sentence on each faster provider that failed.

    Raises
    ------
    RtDecodeError
        If a provider that was asked for cannot be loaded.
    BundleError
        If ONNX Runtime cannot run the graph, or its weights lie in a file that was not given.
    """

    def __init__(
        self,
        model: bytes,
        name: str,
        chosen: Sequence[Provider] | None = None,
        weight_files: Mapping[str, Any] | None = None,
    ) -> None:
        self._name = name
        self.notes: list[str] = []
        self._session, self._fixed, used = self._loaded(model, chosen, weight_files)
        self._device = providers.device_of(used)
        self.inputs = _kinds(self._session.get_inputs())
        self.outputs = _kinds(self._session.get_outputs())
        self.runs_on = _runs_on(self._session, used)

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
        inputs = {name: self._fitting(name, value) for name, value in arrays.items()}
        try:
            if self._fixed is not None:
                return self._fixed.run(inputs, stay)
            if self._device is None:
                outputs = self._session.run(list(self.outputs), inputs)
                return dict(zip(self.outputs, outputs, strict=True))
            return self._bound(inputs, stay, self._device)
        except (*providers.faults(), ValueError) as error:
            shapes = {name: tuple(np.shape(host(value))) for name, value in inputs.items()}
            raise BundleError(
                "graph-run-failed",
                "{graph} cannot be run on {shapes} ({error}). Export the bundle again.",
                graph=self._name,
                shapes=shapes,
                error=error,
            ) from error

    def _loaded(
        self, model: bytes, chosen: Sequence[Provider] | None, weight_files: Mapping[str, Any] | None
    ) -> tuple[Any, "_Fixed | None", list[Provider]]:
        """Load the graph with the first providers that can run it; return it, its fixed ports, and these."""
        if chosen is None:
            tried, fallback = providers.attempts()
        else:
            tried = [[*chosen]]
            fallback = None
        if fallback is not None:
            self.notes.append(fallback)
        fault: Exception | None = None
        for used in tried:
            first = providers.names(used)[0]
            try:
                session = _session(model, used, weight_files)
                loaded = first in session.get_providers()
                fixed = _fixed(session) if loaded and _is_captured(used) else None
            except (*providers.faults(), RtDecodeError, RuntimeError, ValueError) as error:
                fault = error
                reason = str(error).strip()
            else:
                if loaded:
                    return session, fixed, used
                reason = "ONNX Runtime could not load it: a library or a newer driver is missing"
            if first == CPU:
                break
            self.notes.append(f"{_words(used)} did not load ({reason}).")
        if chosen is not None and self.notes:
            raise RtDecodeError(
                "graph-provider-failed",
                "{graph} cannot be run as it was asked for: {provider_faults} `rtdecode doctor` says "
                "what this machine has.",
                graph=self._name,
                provider_faults=" ".join(self.notes),
            )
        raise BundleError(
            "graph-load-failed",
            "{graph} cannot be run ({error}). Export the bundle again.",
            graph=self._name,
            error=fault,
        ) from fault

    def _fitting(self, name: str, value: Value) -> Value:
        # A value on the device stays there, if this graph runs on the same one.
        if self._device is not None and isinstance(value, providers.runtime().OrtValue):
            return value
        value = host(value)
        dtype = self.inputs[name][1] if name in self.inputs else value.dtype
        return np.ascontiguousarray(value, dtype)

    def _bound(self, inputs: Mapping[str, Value], stay: Collection[str], device: str) -> dict[str, Value]:
        """Run the graph with the outputs in `stay` bound to the device and the others to the host."""
        binding = self._session.io_binding()
        for name, value in inputs.items():
            if isinstance(value, np.ndarray):
                binding.bind_cpu_input(name, value)
            else:
                binding.bind_ortvalue_input(name, value)
        for name in self.outputs:
            binding.bind_output(name, device if name in stay else "cpu")
        self._session.run_with_iobinding(binding)
        outputs = dict(zip(self.outputs, binding.get_outputs(), strict=True))
        return {name: value if name in stay else value.numpy() for name, value in outputs.items()}


def host(value: Value) -> NDArray[Any]:
    """Return a value as an array in the host's memory."""
    return value if isinstance(value, np.ndarray) else value.numpy()


class _Fixed:
    """The inputs and outputs of a captured graph, which stay at their addresses; one call at a time.

    Parameters
    ----------
    session
        Of ONNX Runtime.
    inputs, outputs : dict
        Name of each port -> its shape and dtype.
    device : str
        Device of ONNX Runtime, such as ``cuda``.
    """

    def __init__(
        self,
        session: Any,
        inputs: Mapping[str, tuple[list[int], str]],
        outputs: Mapping[str, tuple[list[int], str]],
        device: str,
    ) -> None:
        self._session = session
        self._device = device
        self._kinds = outputs
        self._lock = threading.Lock()
        self._inputs = {name: self._empty(*port) for name, port in inputs.items()}
        self._outputs = {name: self._empty(*port) for name, port in outputs.items()}
        self._binding = session.io_binding()
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def run(self, inputs: Mapping[str, Value], stay: Collection[str]) -> dict[str, Value]:
        """Copy the inputs to where the graph reads them, run it, and copy its outputs away."""
        # Sessions share the graph, and each call overwrites the values of the one before.
        with self._lock:
            for name, value in inputs.items():
                self._inputs[name].update_inplace(value)
            self._session.run_with_iobinding(self._binding)
            return {name: self._taken(name, stays=name in stay) for name in self._outputs}

    def _taken(self, name: str, *, stays: bool) -> Value:
        value = self._outputs[name]
        if not stays:
            return value.numpy()
        copy = self._empty(*self._kinds[name])
        copy.update_inplace(value)
        return copy

    def _empty(self, shape: Sequence[int], dtype: str) -> Any:
        value = providers.runtime().OrtValue
        return value.ortvalue_from_shape_and_type(list(shape), np.dtype(dtype).type, self._device, 0)


def _session(model: bytes, used: Sequence[Provider], weight_files: Mapping[str, Any] | None) -> Any:
    options = _options()
    if weight_files:
        sizes = [len(data) for data in weight_files.values()]
        options.add_external_initializers_from_files_in_memory(
            list(weight_files), list(weight_files.values()), sizes
        )
    if providers.device_of(used) is not None:
        # For `runs_on`: which provider got which nodes.
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    make = providers.runtime().InferenceSession
    if providers.names(used)[0] == RTX:
        # Plugins are given by their devices, and not by name.
        devices = providers.plugin()
        if not devices:
            raise RtDecodeError(
                "provider-device-missing",
                "the plugin of TensorRT-RTX offers no device on this machine",
            )
        settings = used[0][1] if isinstance(used[0], tuple) else {}
        options.add_provider_for_devices(list(devices), settings)
        return make(model, options, enable_fallback=0)
    if providers.device_of(used) is not None:
        providers.preload()
    with warnings.catch_warnings():
        # ONNX Runtime warns of a provider that it lacks and goes on without it. `Graph` says so itself.
        warnings.simplefilter("ignore", UserWarning)
        # Without its own fallback, which prints to stdout.
        return make(model, options, providers=list(used), enable_fallback=0)


def _fixed(session: Any) -> "_Fixed":
    """Make the ports of a captured graph, which reads and writes where it did when it was captured."""
    return _Fixed(session, _kinds(session.get_inputs()), _kinds(session.get_outputs()), "cuda")


def _kinds(ports: Sequence[Any]) -> dict[str, tuple[list[int], str]]:
    """Return shape and dtype of ports by name."""
    return {port.name: (port.shape, _dtype(port.type)) for port in ports}


def _is_captured(used: Sequence[Provider]) -> bool:
    first = used[0]
    settings = first[1] if isinstance(first, tuple) else {}
    return any(str(settings.get(name, "0")) in ("1", "True") for name in _CAPTURED)


def _words(used: Sequence[Provider]) -> str:
    first = providers.names(used)[0]
    return f"{first} with a CUDA graph" if _is_captured(used) else first


def _runs_on(session: Any, used: Sequence[Provider]) -> str:
    """Say what runs a graph, and how many of its nodes fell to the CPU although it runs on a GPU."""
    version = f"ONNX Runtime {providers.runtime().__version__}"
    if providers.device_of(used) is None:
        return f"{version} on the CPU"
    places = Counter[str]()
    for part in session.get_provider_graph_assignment_info():
        places[part.ep_name] += len(part.get_nodes())
    on_the_cpu = places[CPU]
    fallback_text = f", {on_the_cpu} of {places.total()} nodes on the CPU" if on_the_cpu else ""
    return f"{version}, {_words(used)}{fallback_text}"


def _dtype(onnx_type: str) -> str:
    """Convert ONNX Runtime's name of a type to numpy's: ``tensor(float)`` to ``float32``."""
    inner = onnx_type.removeprefix("tensor(").removesuffix(")")
    return _DTYPES.get(inner, inner)


def _options() -> "onnxruntime.SessionOptions":
    options = providers.runtime().SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Spinning threads would take the cores that acquisition needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # It would join a convolution in fp8 with its scales to one node, which has no such type.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    # ONNX Runtime looks for external weights in this folder, by default in the working directory.
    # Nothing can lie below a device, so a graph gets only the weights that it holds and the files
    # that the manifest lists, whose hashes were checked.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    options.log_severity_level = 3  # errors only
    return options
