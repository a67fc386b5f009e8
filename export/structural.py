"""Look at graphs that cannot be decoded on this machine, as far as that goes.

`structural_check` runs the checker of ONNX, strict shape inference, and a load by ONNX Runtime without
optimisation. `cannot_run` says why a machine cannot decode with some graphs.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnxruntime

from export.decoded import providers_for
from rtdecode.bundle import memory_check
from rtdecode.bundle.providers import CPU
from rtdecode.errors import BundleError

OK = "ok"
# What ONNX Runtime says where it has no kernel for a node in its type.
_NO_KERNEL = "NOT_IMPLEMENTED"
# Decoding holds a graph's weights several times over: as bytes, as ONNX Runtime reads them, and packed for
# its kernels. A graph of 2.84 GB in half precision took 6.78 GB.
_COPIES = 2.5
# It takes fp16 back to single precision without a word, so that no overflow would be seen.
_NOT_ON_THE_CPU = {
    "fp16": "ONNX Runtime computes graphs of fp16 in single precision on the CPU",
    "bf16": "ONNX Runtime has no kernels for bf16 on the CPU",
}


def cannot_run(files: Sequence[Path], precision: str) -> str | None:
    """Say why graphs cannot be decoded with on this machine; None if they can.

    Parameters
    ----------
    files : sequence of Path
        The graphs, and the files of their weights.
    precision : str
        The precision that they compute in.
    """
    if precision in _NOT_ON_THE_CPU and providers_for(precision) == [CPU]:
        return f"{_NOT_ON_THE_CPU[precision]}, and this machine offers no other provider"
    need = _COPIES * sum(file.stat().st_size for file in files)
    free = memory_check.available()
    if need > free:
        return f"decoding takes about {need / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB were free"
    return None


def structural_check(graph: Path) -> dict[str, str]:
    """Check a graph by its path, so that weights beside it are found.

    See `check_kernels` for a graph that must pass.

    Returns
    -------
    dict
        ``checker``, ``shapes`` and ``load``: each ``ok``, or what was said.
    """
    return {
        "checker": _told(lambda: onnx.checker.check_model(str(graph))),
        "shapes": _told(lambda: _infer(graph)),
        "load": _told(lambda: _load(graph)),
    }


def check_kernels(graph: Path) -> dict[str, str]:
    """Check a graph, which may lack nothing but kernels of its precision on this machine.

    Raises
    ------
    BundleError
        If the checker or the inference of shapes refuses it, or ONNX Runtime does so for any other reason.
    """
    checks = structural_check(graph)
    faults = {check: message for check, message in checks.items() if message != OK}
    if _NO_KERNEL in faults.get("load", ""):
        del faults["load"]
    if faults:
        raise BundleError(
            "export-graph-invalid",
            "the graph {graph} is refused: {faults}. Nothing was exported; report it.",
            graph=graph.name,
            faults=faults,
        )
    return checks


def _infer(graph: Path) -> None:
    """Infer the shapes of all values, and raise where one does not fit."""
    with TemporaryDirectory() as folder:
        inferred = Path(folder) / "shapes.onnx"
        onnx.shape_inference.infer_shapes_path(str(graph), str(inferred), strict_mode=True)


def _load(graph: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(graph), options, providers=[CPU])


def _told(check: Callable[[], None]) -> str:
    """Run a check; return ``ok`` or what it says."""
    try:
        check()
    except Exception as error:  # noqa: BLE001 - onnx and ONNX Runtime raise errors without a common base
        return f"{type(error).__name__}: {str(error)[:300]}"
    return OK
