"""Choose what ONNX Runtime runs a graph on: its execution providers, in the order in which they are tried.

`runtime` imports ONNX Runtime and explains what is wrong with its installation, `attempts` lists the
providers to try with their options, and `clash` tells whether two packages claim the same module. What a
provider builds for this GPU is kept in the user's cache, one folder for each GPU, driver and version.
"""

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import cache
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rtdecode import installing
from rtdecode.bundle import driver, gpu
from rtdecode.disk.cache import place
from rtdecode.errors import RtDecodeError

# A provider's name, or its name with its options.
Provider = str | tuple[str, dict[str, Any]]

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
RTX = "NvTensorRTRTXExecutionProvider"
# The fastest first. Only what a provider cannot run goes to those after it.
_ORDER = (RTX, TENSORRT, CUDA, CPU)
_ON_A_GPU = _ORDER[:3]
# The package that brings the provider of TensorRT-RTX, which ONNX Runtime loads as a plugin.
_PLUGIN = "onnxruntime_ep_nv_tensorrt_rtx"
# Packages that install the module onnxruntime.
_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")


def runtime() -> Any:
    """Import ONNX Runtime.

    Raises
    ------
    RtDecodeError
        If it is not installed, or two packages have overwritten each other's files.
    """
    try:
        import onnxruntime
    except ImportError as error:
        clash_note = "" if clash() is None else f" {clash()}"
        raise RtDecodeError(
            "onnxruntime-missing",
            "decoding needs ONNX Runtime, which cannot be imported ({error}).{package_clash} Install "
            "it with `{command}`, or the extra gpu for CUDA and TensorRT.",
            error=error,
            package_clash=clash_note,
            command=installing.command("cpu"),
        ) from error
    # What is left of the module when one of two packages was uninstalled is an empty folder.
    if not hasattr(onnxruntime, "InferenceSession"):
        raise RtDecodeError(
            "onnxruntime-incomplete",
            "the module onnxruntime is there, but holds no ONNX Runtime: two packages install it, "
            "and taking one away has taken files of the other. {remedy}",
            remedy=clash() or _again(_installed()),
        )
    return onnxruntime


def clash() -> str | None:
    """Say what to do if more than one package installs the module onnxruntime; else return None."""
    packages = _installed()
    if len(packages) < 2:
        return None
    return (
        f"The packages {' and '.join(packages)} are both installed and install the same module, so that the "
        f"one installed last has overwritten files of the other. {_again(packages)}"
    )


def _installed() -> list[str]:
    packages = {
        str(package.metadata["Name"]).lower().replace("_", "-") for package in metadata.distributions()
    }
    return [name for name in _PACKAGES if name in packages]


def _again(packages: Sequence[str]) -> str:
    names = " ".join(packages or _PACKAGES[:2])
    return (
        f"Take all of them away (`pip uninstall {names}`) and install one: `{installing.command('cpu')}`, or "
        f"`{installing.command('gpu')}`."
    )


def available() -> list[str]:
    """Name the providers that are installed and used by default, the fastest first.

    An installed provider may still fail to load, for want of a driver or a library.

    Raises
    ------
    RtDecodeError
        See `runtime`.
    """
    providers = {*runtime().get_available_providers()}
    if find_spec(_PLUGIN) is not None:
        providers.add(RTX)
    return [name for name in _ORDER if name in providers]


def check(chosen: Sequence[Provider]) -> None:
    """Refuse providers that this machine cannot run, because ONNX Runtime would use another one instead.

    They are refused if they are not installed, if there is no GPU for them, and if its driver is too old.

    Raises
    ------
    RtDecodeError
    """
    usable = {*runtime().get_available_providers(), *available()}
    if missing := [name for name in names(chosen) if name not in usable]:
        raise RtDecodeError(
            "provider-unavailable",
            "{missing} was asked for, but this ONNX Runtime has only {available}. Ask for one of "
            "these, or install another ONNX Runtime.",
            missing=list(missing),
            available=sorted(usable),
        )
    on_a_gpu = [name for name in names(chosen) if name in _ON_A_GPU]
    if not on_a_gpu:
        return
    named_gpu_providers = " and ".join(on_a_gpu)
    try:
        device = gpu.find()
    except gpu.NoGpuError as error:
        raise RtDecodeError(
            "provider-gpu-missing",
            "{providers} was asked for, and {error}. Leave it out to decode on the CPU, or decode on "
            "a machine with an NVIDIA GPU.",
            providers=named_gpu_providers,
            error=error,
        ) from error
    if too_old := driver.fault(device, [_module_of(name) for name in on_a_gpu]):
        raise RtDecodeError(
            "provider-driver-outdated",
            "{providers} was asked for: {driver_fault}",
            providers=named_gpu_providers,
            driver_fault=too_old,
        )


def names(chosen: Sequence[Provider]) -> list[str]:
    """Return the names of providers without their options."""
    return [provider if isinstance(provider, str) else provider[0] for provider in chosen]


def device_of(chosen: Sequence[Provider]) -> str | None:
    """Return the device on which the outputs of a graph can stay; None for the host's memory."""
    return "cuda" if any(name in _ON_A_GPU for name in names(chosen)) else None


def attempts() -> tuple[list[list[Provider]], str | None]:
    """List the providers to try by default, the fastest first; the last attempt is the CPU alone.

    On a GPU a graph is first tried with a CUDA graph, which replays all of its kernels in one call. A graph
    that does not lie wholly on the GPU cannot be captured, so the same provider is tried without one too.

    Returns
    -------
    provider_lists : list of list
    fallback : str or None
        Why providers on a GPU that are installed are not tried.
    """
    usable = available()
    on_a_gpu = [name for name in _ON_A_GPU if name in usable]
    if not on_a_gpu:
        return [[CPU]], None
    try:
        here = gpu.find()
    except gpu.NoGpuError as error:
        words = f"{' and '.join(on_a_gpu)} cannot be used: {error}. The graphs run on the CPU instead."
        return [[CPU]], words
    provider_lists: list[list[Provider]] = []
    too_old: dict[str, list[str]] = {}
    for name in on_a_gpu:
        if fault := driver.fault(here, [_module_of(name)]):
            too_old.setdefault(fault, []).append(name)
            continue
        fallbacks: list[Provider] = [CUDA] if name == TENSORRT and CUDA in usable else []
        provider_lists += [
            [(name, options(name, captured=captured)), *fallbacks, CPU] for captured in (True, False)
        ]
    notes = [f"{' and '.join(same)} cannot be used: {fault}" for fault, same in too_old.items()]
    if not provider_lists:
        notes.append("The graphs run on the CPU instead.")
    return [*provider_lists, [CPU]], " ".join(notes) or None


def options(name: str, *, captured: bool) -> dict[str, str]:
    """Return the options of a provider on a GPU.

    Parameters
    ----------
    name : str
        Name of the provider, as ONNX Runtime has it.
    captured : bool
        Whether the graph is captured as a CUDA graph.
    """
    switch = "1" if captured else "0"
    if name == CUDA:
        # Products of single precision would be rounded to 10 bits (TF32), and a latent be 0.3 % of its
        # deviation off: a golden window is held to 0.1 %.
        return {"enable_cuda_graph": switch, "use_tf32": "0"}
    folder = str(cached(name))
    if name == RTX:
        return {"enable_cuda_graph": switch, "nv_runtime_cache_path": folder}
    return {
        "trt_cuda_graph_enable": switch,
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
    }


def cached(name: str) -> Path:
    """Return the folder for what a provider builds on this machine: of its GPU, driver and version alone."""
    try:
        device = gpu.find()
        machine = f"{device.name}-sm{device.capability}-cuda{device.cuda}".replace(" ", "-").replace("/", "-")
    except gpu.NoGpuError:
        machine = "no-gpu"
    versions = [f"onnxruntime-{runtime().__version__}"]
    versions += [f"{module}-{import_module(module).__version__}" for module in _beside(name)]
    return place() / "engines" / name / machine / "-".join(versions)


def _module_of(name: str) -> str:
    """Name the module that brings a provider."""
    return _PLUGIN if name == RTX else "onnxruntime"


def _beside(name: str) -> list[str]:
    """Name the modules whose version decides whether an engine of a provider can be used again."""
    modules = {TENSORRT: ("tensorrt",), RTX: (_PLUGIN,)}.get(name, ())
    return [module for module in modules if find_spec(module) is not None]


def faults() -> tuple[type[Exception], ...]:
    """List what ONNX Runtime raises for a graph it cannot run; the exceptions have no common base."""
    state = import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    kinds = ("Fail", "InvalidGraph", "InvalidProtobuf", "InvalidArgument", "NoSuchFile", "NotImplemented")
    # Of a provider: its memory cannot be had, or it refuses the graph.
    kinds += ("EPFail", "EngineError", "RuntimeException")
    return tuple(getattr(state, name) for name in kinds)


@cache
def preload() -> None:
    """Load the libraries of CUDA that the extra gpu has installed, which lie where no program looks."""
    onnxruntime = runtime()
    # An ONNX Runtime for the CPU has no use for them.
    if CUDA in onnxruntime.get_available_providers():
        # It prints what it does not find, and stdout may be for JSON alone.
        with redirect_stdout(sys.stderr):
            onnxruntime.preload_dlls()


@cache
def plugin() -> tuple[Any, ...]:
    """Load the provider of TensorRT-RTX, and return the devices that it can use.

    Raises
    ------
    RtDecodeError
        If it cannot be loaded; the message has ONNX Runtime's words.
    """
    module = import_module(_PLUGIN)
    onnxruntime = runtime()
    try:
        onnxruntime.register_execution_provider_library(RTX, module.get_library_path())
    except faults() as error:
        raise RtDecodeError("provider-plugin-load-failed", "{error}", error=error) from error
    return tuple(device for device in onnxruntime.get_ep_devices() if device.ep_name == RTX)
