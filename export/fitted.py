"""The bundle of a fitted participant: the weights of its encoder, and golden windows to hold it to."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto

from export.digest import digest
from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle, Stage
from rtdecode.bundle.engine import Engine
from rtdecode.bundle.golden import decode
from rtdecode.bundle.wiring import SIGNALS
from train.data.arrays import golden, normalised_eeg
from train.data.recorded import Recorded
from train.fitting.closed_form import Fitted
from train.fitting.encoder_graph import compare, replaced
from train.work import Arrays

_GOLDEN = 3
_KEPT = ("denoise", "decode_first", "decode_next")


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
