"""Keep a run's weights once: in the graphs of the bundle that ships it.

``python -m train.bundled_weights RUN BUNDLE`` looks for each of a run's weights among the initialisers
of the bundle's graphs. Those that are there to the bit, or transposed, leave ``weights.npz``. The file
``bundled_weights.json`` says where each of them lies, and holds a digest of all. `read` brings them back, and
refuses a bundle that was exported from other weights.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from rtdecode import bundle as bundles
from rtdecode import strict_json
from rtdecode.disk import private
from rtdecode.errors import UsageError
from train.config.run_context import Arrays, read_arrays, write_arrays

FILE = "bundled_weights.json"
_WEIGHTS = "weights.npz"


def move(run: Path, bundle: str) -> tuple[int, int]:
    """Take out of a run's ``weights.npz`` what the bundle's graphs hold.

    Parameters
    ----------
    run : Path
        The folder of a run. Weights of it that lie in another bundle are looked for in this one.
    bundle : str
        Name of a shipped bundle, or the path of one.

    Returns
    -------
    int, int
        How many weights the bundle holds now, and how many the run keeps.

    Raises
    ------
    UsageError
        If there is no run with weights.
    BundleError
        If there is no such bundle.
    """
    if not (run / _WEIGHTS).is_file():
        raise UsageError(
            "run-missing-weights",
            "{folder} has no {file}: the folder of a run was expected.",
            folder=run,
            file=_WEIGHTS,
        )
    run_weights = read_arrays(run / _WEIGHTS)
    weights = run_weights | read(run)
    places: dict[tuple[str, tuple[int, ...], bytes], list[str]] = {}
    for stage, initialisers in _graphs(bundle).items():
        for name, values in initialisers.items():
            places.setdefault(_content(values), [stage, name])
    as_is = {name: places[_content(x)] for name, x in weights.items() if _content(x) in places}
    # A graph may multiply by the transpose of what torch's layer holds.
    turned = {
        name: places[_content(x.T)]
        for name, x in weights.items()
        if name not in as_is and _content(x.T) in places
    }
    in_bundle = as_is | turned
    run_weights = {name: values for name, values in weights.items() if name not in in_bundle}
    digest = _digest({name: weights[name] for name in in_bundle})
    tree = {"bundle": bundle, "digest": digest, "weights": as_is, "transposed": turned}
    # The list first: weights that both hold do no harm, weights that neither holds are lost.
    private.write_whole(run / FILE, strict_json.dumps(tree, indent=1) + "\n")
    write_arrays(run / _WEIGHTS, run_weights, compressed=True)
    return len(in_bundle), len(run_weights)


def read(run: Path) -> Arrays:
    """Read those weights of a run that lie in a bundle; empty if none do.

    Raises
    ------
    UsageError
        If the bundle's graphs do not hold these weights.
    BundleError
        If there is no such bundle.
    """
    path = run / FILE
    if not path.is_file():
        return {}
    tree: dict[str, Any] = json.loads(path.read_text())
    graphs = _graphs(tree["bundle"])
    as_is: dict[str, list[str]] = tree["weights"]
    turned: dict[str, list[str]] = tree.get("transposed", {})
    weights: Arrays = {}
    for name, (stage, initialiser) in (as_is | turned).items():
        if initialiser in graphs.get(stage, {}):
            values = graphs[stage][initialiser]
            # A copy can be written to, as torch wants it; what ONNX reads from bytes cannot.
            weights[name] = (values.T if name in turned else values).copy(order="C")
    if len(weights) < len(as_is | turned) or _digest(weights) != tree["digest"]:
        raise UsageError(
            "bundled-weights-mismatch",
            "{path} says that this run's weights lie in the bundle '{bundle}', but its graphs hold "
            "others. Restore the bundle that was exported from this run, or train the run again.",
            path=path,
            bundle=tree["bundle"],
        )
    return weights


def _graphs(bundle: str) -> dict[str, Arrays]:
    """Read the initialisers of a bundle's graphs: stage, or SUBJECT/STAGE, -> name -> values."""
    loaded = bundles.load(bundle)
    graphs: dict[str, Arrays] = {}
    stages = dict(loaded.manifest.built)
    for subject, of_subject in loaded.manifest.subjects.items():
        stages |= {f"{subject}/{name}": stage for name, stage in of_subject.stages.items()}
    for name, stage in stages.items():
        graph = onnx.load(str(loaded.path / stage.file)).graph
        graphs[name] = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    return graphs


def _content(values: NDArray[Any]) -> tuple[str, tuple[int, ...], bytes]:
    """What makes two arrays the same to the bit."""
    return str(values.dtype), values.shape, values.tobytes()


def _digest(weights: Arrays) -> str:
    """Hash names, types, shapes and values, in the order of the names."""
    hasher = hashlib.sha256()
    for name in sorted(weights):
        dtype, shape, data = _content(weights[name])
        hasher.update(f"{name} {dtype} {shape}\n".encode())
        hasher.update(data)
    return hasher.hexdigest()
