"""The bundle of a fitted participant: the weights of its encoder, and golden windows to hold it to."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from export.digest import digest
from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle, Stage
from rtdecode.bundle.engine import Engine
from rtdecode.bundle.golden import decode
from rtdecode.bundle.wiring import SIGNALS
from rtdecode.errors import BundleError
from train.data.arrays import golden, normalised_eeg
from train.data.recorded import Recorded
from train.fit import Fitted
from train.parts.brain import GROUPS, features, place
from train.parts.refine import LAYERS, PREFIX, perceptron, refine
from train.parts.stem import fill_slots
from train.work import Arrays

# Of the spread of what the encoder draws.
_TOLERANCE = 1e-3
_GOLDEN = 3
_KEPT = ("denoise", "decode_first", "decode_next")
_WEIGHTS = (
    *("voxels", "mixing", "cosines", "fmri_feature_mean", "eeg_feature_mean", "basis"),
    *(f"{route}_{group}" for route, groups in GROUPS.items() for group in groups),
    *("heat", "reads", f"{PREFIX}scale"),
    *(f"{PREFIX}body.{layer}.{part}" for layer in LAYERS for part in ("weight", "bias")),
)


def weights_of(model: ModelProto, where: Path) -> Arrays:
    """Read the weights of an encoder that belong to a participant.

    Raises
    ------
    BundleError
        If one is not there by its name.
    """
    held = {tensor.name.removesuffix(".half"): tensor for tensor in model.graph.initializer}
    if missing := [name for name in _WEIGHTS if name not in held]:
        raise BundleError(
            f"{where / 'encode.onnx'} has no weights called {', '.join(missing)}. Export the bundle again."
        )
    return {name: numpy_helper.to_array(held[name]) for name in _WEIGHTS}


def replaced(model: ModelProto, weights: Arrays) -> ModelProto:
    """Copy an encoder with other weights, each in the shape and precision of the old one.

    Raises
    ------
    BundleError
        If a shape differs.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        value = weights.get(tensor.name.removesuffix(".half"))
        if value is None:
            continue
        if list(value.shape) != list(tensor.dims):
            raise BundleError(
                f"the encoder takes {tensor.name} of shape {list(tensor.dims)}, found {list(value.shape)}. "
                "Fit with the version that exported the bundle."
            )
        kept = np.ascontiguousarray(value.astype(numpy_helper.to_array(tensor).dtype))
        tensor.CopyFrom(numpy_helper.from_array(kept, tensor.name))
    held = {tensor.name for tensor in copy.graph.initializer}
    if weights.get("yields", np.zeros(2)).any() and "yields" not in held:
        _let_yield(copy, weights["yields"])
    onnx.checker.check_model(copy)
    return copy


def _let_yield(model: ModelProto, yields: NDArray[np.floating[Any]]) -> None:
    """Take a modality for absent where the other one is there: ``read * (1 - yields * other's presence)``.

    Parameters
    ----------
    model : ModelProto
        An encoder that multiplies which modalities are there, (batch, [fmri, eeg]), by ``reads``.
    yields : ([fmri, eeg],)
        1 for the modality that gives way.
    """
    nodes = list(model.graph.node)
    at = next(index for index, node in enumerate(nodes) if "reads" in node.input)
    reading = nodes[at]
    there = next(name for name in reading.input if name != "reads")
    read = reading.output[0]
    reading.output[0] = "read_of_all"
    gate = [
        helper.make_node("Gather", [there, "other_modality"], ["other_there"], axis=1),
        helper.make_node("Mul", ["other_there", "yields"], ["gives_way"]),
        helper.make_node("Sub", ["one_of_each", "gives_way"], ["stays"]),
        helper.make_node("Mul", ["read_of_all", "stays"], [read]),
    ]
    constants = {
        "other_modality": np.array([1, 0]),
        "yields": yields.astype(np.float32),
        "one_of_each": np.ones(2, np.float32),
    }
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    del model.graph.node[:]
    model.graph.node.extend([*nodes[: at + 1], *gate, *nodes[at + 1 :]])


def write(
    base: Bundle,
    model: ModelProto,
    weights: Arrays,
    recorded: Recorded,
    fitted: Fitted,
    changes: dict[str, Any],
    out: Path,
) -> Bundle:
    """Write the bundle of a fitted participant.

    Parameters
    ----------
    base : Bundle
    model : ModelProto
        Its encoder.
    weights : dict
        All that `weights_of` names.
    recorded : Recorded
    fitted : Fitted
    changes : dict
        Fields of the manifest to be replaced.
    out : Path

    Raises
    ------
    BundleError
        If the new encoder does not draw what the fit says.
    """
    encoder = replaced(model, weights)
    golden, parity = verified(base, encoder, weights, golden_inputs(base, recorded, fitted))
    arrays = {"stats": base.stats | fitted.statistics, "golden": golden}
    if recorded.fmri is not None and fitted.voxels is not None:
        head = recorded.fmri.head
        arrays["projection"] = replace(head, voxels=head.voxels[fitted.voxels]).to_arrays()
    files = {name: base.path / name for name in base.manifest.files}
    with tempfile.TemporaryDirectory() as place_:
        folder = Path(place_)
        (folder / "encode.onnx").write_bytes(encoder.SerializeToString(deterministic=True))
        for name, held in arrays.items():
            np.savez_compressed(folder / f"{name}.npz", allow_pickle=False, **held)
        files |= {file.name: file for file in folder.iterdir()}
        return bundles.write(out, replace(base.manifest, parity=parity, **changes), files)


def golden_inputs(base: Bundle, recorded: Recorded, fitted: Fitted) -> Arrays:
    """Make three windows that take every way through the encoder: whole, EEG alone, fMRI with a hole."""
    ports = {port.source: port for port in _stage(base, "encode").inputs.values() if port.source in SIGNALS}
    found: Arrays = {name: np.zeros((_GOLDEN, *port.shape[1:]), np.float32) for name, port in ports.items()}
    if recorded.eeg is not None:
        mask = found["eeg_mask"] = recorded.eeg.mask[:_GOLDEN]
        found["eeg"] = normalised_eeg(recorded.eeg.data[:_GOLDEN], mask, fitted.statistics)
    if recorded.fmri is not None and fitted.voxels is not None:
        rows = recorded.fmri.rows[:_GOLDEN]
        volumes = recorded.fmri.volumes[:, fitted.voxels] / fitted.statistics["fmri_scale"]
        found["fmri"], found["fmri_mask"] = volumes[rows] * (rows >= 0)[:, :, None], rows >= 0
    return golden(found)


def _stage(base: Bundle, name: str) -> Stage:
    stage = base.manifest.stages[name]
    assert stage is not None
    return stage


def verified(
    base: Bundle, encoder: ModelProto, weights: Arrays, windows: Arrays
) -> tuple[Arrays, dict[str, Any]]:
    """Decode the golden windows, and hold the encoder against the closed form in numpy.

    Returns
    -------
    golden : dict
        The last window carries on from the first.
    parity : dict

    Raises
    ------
    BundleError
        If what the encoder draws differs from the closed form by more than a thousandth of its spread.
    """
    models = {name: base.read(_stage(base, name).file) for name in _KEPT}
    models["encode"] = encoder.SerializeToString()
    engine = Engine(base.manifest, models, f"the bundle fitted from {base.path}")
    carry = base.manifest.states["carry"].shape
    noise = np.random.default_rng(0).standard_normal((_GOLDEN, *engine.program.latent[1:]), np.float32)
    given = windows | {
        "noise": noise.astype(np.float16).astype(np.float32),
        "carry": np.zeros((_GOLDEN, *carry[1:]), np.float32),
        "carry_mask": np.zeros((_GOLDEN, 1), np.float32),
    }
    found: list[Arrays] = []
    for n in range(_GOLDEN):
        if n == _GOLDEN - 1:
            given["carry"][n] = found[0]["latent"][0, :, -carry[2] :].astype(np.float16)
            given["carry_mask"][n] = 1
        one = {name: value[n : n + 1] for name, value in given.items()}
        found.append(decode(engine, one, base.manifest.steps, "a golden window"))
    drawn = np.concatenate([part["condition"][:, : carry[1]] for part in found])
    difference = compare(weights, windows, drawn)
    kept = {
        name: np.concatenate([part[name] for part in found]) for name in ("latent", "confidence", "frames")
    }
    kept["frames"] = np.rint(255 * kept["frames"][:1]).astype(np.uint8)
    return given | kept, _parity(base, encoder, difference)


def _parity(base: Bundle, encoder: ModelProto, difference: float) -> dict[str, Any]:
    digests = {
        name: digest(onnx.load_model_from_string(base.read(_stage(base, name).file))) for name in _KEPT
    }
    return {
        "windows": _GOLDEN,
        "runtime": onnxruntime.__version__,
        "compared": "the encoder's drawing with the closed form in numpy; golden clips are the graphs' own",
        "largest_difference": {"condition": difference},
        "digests": {"encode": digest(encoder), **digests},
    }


def compare(weights: Arrays, windows: Arrays, drawn: NDArray[np.float32]) -> float:
    """Hold what the encoder draws against the closed form.

    Parameters
    ----------
    weights : dict
    windows : dict
        ``eeg``, ``eeg_mask``, ``fmri``, ``fmri_mask``.
    drawn : (window, channel, latent frame, row, column)

    Returns
    -------
    float
        Largest difference over the spread.

    Raises
    ------
    BundleError
        If it is above a thousandth.
    """
    fmri = fill_slots(windows["fmri"], windows["fmri_mask"])
    places, net = place(weights, features(weights, windows["eeg"], fmri)), perceptron(weights)
    there = np.hstack([windows[f"{name}_mask"].max(1, keepdims=True) for name in ("fmri", "eeg")])
    read = there * weights["reads"] * (1 - weights["yields"] * there[:, ::-1])
    fmri_in = read[:, :1]
    eeg_in = read[:, 1:]
    chosen = (
        fmri_in * eeg_in * refine(net, places, "both")
        + fmri_in * (1 - eeg_in) * refine(net, places, "fmri")
        + eeg_in * (1 - fmri_in) * refine(net, places, "eeg")
    )
    basis = weights["basis"].astype(np.float64)
    expected = (chosen[:, : len(basis)] @ basis).reshape(drawn.shape)
    error = float(np.abs(drawn - expected).max() / max(float(expected.std()), 1e-9))
    if not error <= _TOLERANCE:
        raise BundleError(
            f"the fitted encoder draws something {error:.2g} of its spread away from the closed form "
            f"(allowed {_TOLERANCE}). Nothing was written; report it with the version of ONNX Runtime."
        )
    return float(f"{error:.2g}")
