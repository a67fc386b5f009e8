"""Run engines that were built ahead, with TensorRT or TensorRT-RTX: `matching_engine` and `TensorRtGraph`.

An engine runs on GPUs of one compute capability, by one version of its builder. `matching_engine` loads those
of a bundle that this machine can run, and says of the others why it cannot. An `TensorRtGraph` is called as a
`Graph` of ONNX Runtime is; what stays on the device is a `DeviceArray`.
"""

import threading
import weakref
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode import installing
from rtdecode.bundle import driver, gpu
from rtdecode.bundle.folder import Bundle
from rtdecode.bundle.graph import Value, host
from rtdecode.bundle.manifest import BuiltEngine, Stage
from rtdecode.errors import BundleError, RtDecodeError

# The package that gives Python the CUDA runtime: memory, streams and graphs.
_CUDA = "cuda.bindings"
_INSTEAD = "The graphs run in ONNX Runtime instead."


class UnfitError(RtDecodeError):
    """An engine cannot run on this machine; the message says why."""


class CudaError(RtDecodeError):
    """A call of the CUDA runtime failed."""


def matching_engine(
    bundle: Bundle, stages: Iterable[str], builders: Collection[str], *, must: bool = False
) -> tuple[dict[str, "TensorRtGraph"], list[str]]:
    """Load the engines of a bundle that this machine can run.

    Parameters
    ----------
    bundle : Bundle
        The bundle whose engines are wanted.
    stages : iterable of str
        The stages that are to be run.
    builders : collection of str
        The builders whose engines may be used, the first one first.
    must : bool
        Whether an engine is asked for, so that a stage without one is an error.

    Returns
    -------
    engines : dict
        Stage -> its engine, ready to run.
    notes : list of str
        Why engines that the bundle has are not used; a sentence each.

    Raises
    ------
    RtDecodeError
        If a stage has no engine that fits, and `must` is true.
    BundleError
        If the file of an engine was changed, or its ports are not those of the manifest.
    """
    engines: dict[str, TensorRtGraph] = {}
    notes: list[str] = []
    for stage in stages:
        candidates = [engine for engine in bundle.manifest.engines if engine.stage == stage]
        candidates = [engine for builder in builders for engine in candidates if engine.builder == builder]
        faults: list[str] = []
        for engine in candidates:
            try:
                engines[stage] = _loaded(bundle, engine)
                break
            except UnfitError as error:
                faults.append(str(error))
        if stage in engines:
            continue
        notes += faults
        if must:
            reason = " ".join(faults) or f"The bundle has none of {' or '.join(builders)}."
            raise RtDecodeError(
                "engine-stage-unavailable",
                "bundle {path}: an engine built ahead was asked for, and none runs {stage} here. {faults}",
                path=bundle.path,
                stage=stage,
                faults=reason,
            )
    return engines, [*dict.fromkeys(notes)]


def check_fit(engine: BuiltEngine) -> None:
    """Refuse an engine of another GPU, of another version of its builder, or of one that is not installed.

    So is one whose builder was made for a newer CUDA than the driver supports.

    Raises
    ------
    UnfitError
    """
    name = f"Engines of {engine.builder} {engine.version} for compute capability {engine.compute_capability}"
    instead = _INSTEAD
    try:
        device = gpu.find()
    except gpu.NoGpuError as error:
        raise UnfitError(
            "engine-gpu-missing",
            "{engines} are not used: {error}. {fallback}",
            engines=name,
            error=error,
            fallback=instead,
        ) from error
    if device.capability != engine.compute_capability:
        raise UnfitError(
            "engine-wrong-gpu",
            "{engines} are not used: {gpu} has {gpu_capability}. {fallback} Build them for this GPU: "
            "`python -m export.engines BUNDLE --out DIR --sm {gpu_capability}`.",
            engines=name,
            gpu=device.name,
            gpu_capability=device.capability,
            fallback=instead,
        )
    package = engine.builder.replace("_", "-")
    extra = installing.command(package)
    for module in (engine.builder, _CUDA):
        if not _is_installed(module):
            raise UnfitError(
                "engine-module-missing",
                "{engines} are not used: {module} is not installed. {fallback} Install it: `{command}`.",
                engines=name,
                module=module,
                fallback=instead,
                command=extra,
            )
    if too_old := driver.fault(device, [engine.builder, _CUDA]):
        raise UnfitError(
            "engine-driver-outdated",
            "{engines} are not used: {driver_fault} {fallback}",
            engines=name,
            driver_fault=too_old,
            fallback=instead,
        )
    version = import_module(engine.builder).__version__
    if version != engine.version:
        raise UnfitError(
            "engine-version-mismatch",
            "{engines} are not used: version {installed_version} of the builder is installed, and an "
            "engine runs in the version that built it alone. {fallback} Install that one (`pip "
            "install {package}=={required_version}`), or build the engines again.",
            engines=name,
            installed_version=version,
            fallback=instead,
            package=package,
            required_version=engine.version,
        )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        # Of a module in a package that is not there.
        return False


def _loaded(bundle: Bundle, engine: BuiltEngine) -> "TensorRtGraph":
    check_fit(engine)
    # Read last: its hash is checked, and what was hashed is what is run.
    data = bundle.read(engine.file)
    name = f"{bundle.path}/{engine.file}"
    try:
        return TensorRtGraph(data, engine, bundle.manifest.built[engine.stage], name)
    except (CudaError, ImportError, MemoryError, OSError, RuntimeError) as error:
        # What loads the libraries of CUDA raises an ImportError, an OSError or a RuntimeError.
        raise UnfitError(
            "engine-start-failed",
            "{engine} is not used: it cannot be made ready on this GPU ({error}). {fallback}",
            engine=name,
            error=str(error) or type(error).__name__,
            fallback=_INSTEAD,
        ) from error


class DeviceArray:
    """An array in the GPU's memory, which is freed with it.

    Attributes
    ----------
    shape : tuple of int
        Size of each axis.
    dtype : numpy.dtype
        Type of the values, as numpy names it.
    address : int
        Address of the first value in the GPU's memory.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape = shape
        self.dtype = dtype
        self.nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        (address,) = _cuda("cudaMalloc", max(1, self.nbytes))
        self.address = int(address)
        _free_with(self, "cudaFree", self.address)

    def numpy(self) -> NDArray[Any]:
        """Copy the values to the host."""
        array = np.empty(self.shape, self.dtype)
        _cuda("cudaMemcpy", array.ctypes.data, self.address, self.nbytes, _kind("DeviceToHost"))
        return array


@dataclass(frozen=True)
class _Captured:
    """A CUDA graph of one run of the engine, and the stream that it runs on."""

    stream: Any
    graph: Any


class TensorRtGraph:
    """One engine that was built ahead, run on the GPU that it was built for.

    Parameters
    ----------
    data : bytes
        The engine. Its hash was checked.
    engine : BuiltEngine
        What the manifest says of it. It fits this machine, see `check_fit`.
    stage : Stage
        Its ports.
    name : str
        Where it is from, for messages.

    Attributes
    ----------
    inputs, outputs : dict
        Name of each port -> its shape and dtype.
    runs_on : str
        What runs it, in words.
    notes : list of str
        Empty: an engine that does not run raises an error.

    Raises
    ------
    UnfitError
        If the builder refuses the engine on this machine, for example because the driver is too old, or has
        no memory for it.
    CudaError
        If the GPU has no memory for its values, or its run cannot be captured.
    BundleError
        If the ports are not those of the manifest.
    """

    def __init__(self, data: bytes, engine: BuiltEngine, stage: Stage, name: str) -> None:
        self._name = name
        self.notes: list[str] = []
        self._log: list[str] = []
        self._runtime, self._engine = deserialised(engine.builder, data, self._log, name)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise UnfitError(
                "engine-context-refused",
                "{engine} is not used: {builder} cannot make it ready, which happens where the GPU's memory "
                "is taken ({log}). {fallback}",
                engine=name,
                builder=engine.builder,
                log=_words(self._log),
                fallback=_INSTEAD,
            )
        self.inputs = {port: (kind.shape, kind.dtype) for port, kind in stage.inputs.items()}
        self.outputs = {port: (kind.shape, kind.dtype) for port, kind in stage.outputs.items()}
        self._check_ports()
        # Sessions share the engine, and each call overwrites the values of the one before.
        self._lock = threading.Lock()
        self._values: dict[str, DeviceArray] = {}
        for port, (shape, dtype) in (self.inputs | self.outputs).items():
            self._values[port] = DeviceArray(tuple(shape), np.dtype(dtype))
            self._context.set_tensor_address(port, self._values[port].address)
        self._captured = self._capture()
        self.runs_on = (
            f"{engine.builder} {engine.version}, built ahead for compute capability "
            f"{engine.compute_capability} ({engine.flavour}), with a CUDA graph"
        )

    def __call__(self, arrays: Mapping[str, Value], stay: Collection[str] = ()) -> dict[str, Value]:
        """Run the engine on arrays by port name; see `rtdecode.bundle.graph.Graph`.

        Raises
        ------
        BundleError
            If an array has not the shape of its port.
        """
        with self._lock:
            for name, value in arrays.items():
                self._give(name, value)
            _cuda("cudaGraphLaunch", self._captured.graph, self._captured.stream)
            _cuda("cudaStreamSynchronize", self._captured.stream)
            return {name: self._take(name, stays=name in stay) for name in self.outputs}

    def _give(self, name: str, value: Value) -> None:
        """Copy a value to where the engine reads it."""
        buffer = self._values[name]
        if isinstance(value, DeviceArray) and value.dtype == buffer.dtype and value.shape == buffer.shape:
            _cuda("cudaMemcpy", buffer.address, value.address, buffer.nbytes, _kind("DeviceToDevice"))
            return
        array = np.ascontiguousarray(host(value), buffer.dtype)
        if array.shape != buffer.shape:
            raise BundleError(
                "engine-input-shape-mismatch",
                "{engine} cannot be run: its port '{port}' has the shape {expected}, and {actual} "
                "was given. Export the bundle again.",
                engine=self._name,
                port=name,
                expected=buffer.shape,
                actual=array.shape,
            )
        _cuda("cudaMemcpy", buffer.address, array.ctypes.data, buffer.nbytes, _kind("HostToDevice"))

    def _take(self, name: str, *, stays: bool) -> Value:
        """Copy an output away, because the next call overwrites it."""
        value = self._values[name]
        if not stays:
            return value.numpy()
        copy = DeviceArray(value.shape, value.dtype)
        _cuda("cudaMemcpy", copy.address, value.address, value.nbytes, _kind("DeviceToDevice"))
        return copy

    def _capture(self) -> _Captured:
        """Capture one run, which later calls replay: shapes and addresses never change."""
        (stream,) = _cuda("cudaStreamCreate")
        _free_with(self, "cudaStreamDestroy", stream)
        # The first run may allocate memory, which a capture must not.
        self._enqueue(stream)
        _cuda("cudaStreamSynchronize", stream)
        modes = _runtime().cudaStreamCaptureMode
        _cuda("cudaStreamBeginCapture", stream, modes.cudaStreamCaptureModeThreadLocal)
        try:
            self._enqueue(stream)
        except UnfitError:
            # As long as a capture goes on, this thread cannot ask for memory. That this one failed is known.
            _runtime().cudaStreamEndCapture(stream)
            raise
        (graph,) = _cuda("cudaStreamEndCapture", stream)
        (ready,) = _cuda("cudaGraphInstantiate", graph, 0)
        return _Captured(stream, ready)

    def _enqueue(self, stream: Any) -> None:
        if not self._context.execute_async_v3(int(stream)):
            raise UnfitError(
                "engine-run-failed",
                "{engine} is not used, as it does not run on this GPU ({log}). {fallback}",
                engine=self._name,
                log=_words(self._log),
                fallback=_INSTEAD,
            )

    def _check_ports(self) -> None:
        names = [self._engine.get_tensor_name(n) for n in range(self._engine.num_io_tensors)]
        actual = {name: list(self._engine.get_tensor_shape(name)) for name in names}
        expected = {name: shape for name, (shape, _) in (self.inputs | self.outputs).items()}
        if actual != expected:
            raise BundleError(
                "engine-ports-mismatch",
                "{engine} has the ports {actual}, manifest.json says {expected}. Build the engines again.",
                engine=self._name,
                actual=actual,
                expected=expected,
            )


def deserialised(builder: str, data: bytes, log: list[str], name: str) -> tuple[Any, Any]:
    """Hand an engine to its builder's runtime; return the runtime, which has to outlive it, and the engine.

    Raises
    ------
    UnfitError
        If the builder refuses it; the message has its words.
    """
    module = import_module(builder)
    runtime = module.Runtime(logger(module, log))
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        raise UnfitError(
            "engine-deserialisation-failed",
            "{engine} is refused by {builder} {builder_version} ({log}). {fallback} If a driver is named, "
            "install a newer one; else build the engines again.",
            engine=name,
            builder=builder,
            builder_version=module.__version__,
            log=_words(log),
            fallback=_INSTEAD,
        )
    return runtime, engine


def logger(module: Any, errors: list[str]) -> Any:
    """Return a logger for a builder or its runtime, which keeps errors and nothing else.

    Parameters
    ----------
    module
        ``tensorrt`` or ``tensorrt_rtx``.
    errors : list of str
        Grows by each error.
    """

    class Log(module.ILogger):
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (module.ILogger.INTERNAL_ERROR, module.ILogger.ERROR):
                errors.append(message)

    return Log()


def _runtime() -> Any:
    return import_module(f"{_CUDA}.runtime")


def _kind(name: str) -> Any:
    return getattr(_runtime().cudaMemcpyKind, f"cudaMemcpy{name}")


def _words(log: list[str]) -> str:
    """Return what a builder has logged, cut to a few lines."""
    return " ".join(log)[:400] or "without a word"


def _free_with(owner: object, function: str, what: Any) -> None:
    """Free something of the CUDA runtime once its owner is gone.

    Not at the end of the program, when the runtime may be gone already. Whether it can be freed is not asked:
    after a fault of the GPU nothing can.
    """
    weakref.finalize(owner, lambda: getattr(_runtime(), function)(what)).atexit = False


def _cuda(function: str, *arguments: Any) -> tuple[Any, ...]:
    """Call a function of the CUDA runtime, and return what it gives besides its error."""
    error, *outputs = getattr(_runtime(), function)(*arguments)
    if int(error) != 0:
        raise CudaError(
            "cuda-call-failed",
            "the GPU failed in {function}: {cuda_error}. Start the session again.",
            function=function,
            cuda_error=error.name,
        )
    return tuple(outputs)
