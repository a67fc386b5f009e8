"""The bundle of a fitted participant: its own stages, and golden windows to hold them to."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from export.digest import digest
from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle, Manifest, engine
from rtdecode.bundle.golden import decode
from rtdecode.errors import BundleError
from train.data.arrays import golden, golden_noise, normalised_eeg
from train.data.recorded import Recorded
from train.fitting.fitter import Fitted, Fitter
from train.system import signal_ports
from train.work import Arrays

_GOLDEN = 3
# Of the spread of what is compared.
_TOLERANCE = 1e-3
_KEPT = ("latent", "confidence", "scores", "frames")


def write(
    base: Bundle,
    fitter: Fitter,
    fitted: Fitted,
    recorded: Recorded,
    changes: dict[str, Any],
    out: Path,
) -> Bundle:
    """Write the bundle of a fitted participant.

    Parameters
    ----------
    base : Bundle
    fitter : Fitter
        Of that bundle.
    fitted : Fitted
    recorded : Recorded
    changes : dict
        Fields of the manifest to be replaced.
    out : Path

    Raises
    ------
    BundleError
        If the new graphs do not give what the fit says.
    """
    graphs = fitter.graphs(fitted)
    models = {stage: graph.SerializeToString(deterministic=True) for stage, graph in graphs.items()}
    windows = golden_inputs(base, recorded, fitted)
    held_to, parity = verified(base, models, windows, partial(fitter.expected, fitted))
    digests = {stage: digest(graph) for stage, graph in graphs.items()}
    parity["digests"] = base.manifest.parity.get("digests", {}) | digests
    arrays = {"stats": base.stats | fitted.statistics, "golden": held_to}
    if recorded.fmri is not None and fitted.voxels is not None:
        head = recorded.fmri.head
        arrays["projection"] = replace(head, voxels=head.voxels[fitted.voxels]).to_arrays()
    manifest = _with_own(base.manifest, graphs)
    apart = {name for stage in graphs for name in base.manifest.built[stage].data}
    files = {name: base.path / name for name in base.manifest.files if name not in apart}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for stage, model in models.items():
            name = manifest.built[stage].file
            files[name] = folder / f"{stage}.onnx"
            files[name].write_bytes(model)
        for name, held in arrays.items():
            files[f"{name}.npz"] = folder / f"{name}.npz"
            np.savez_compressed(files[f"{name}.npz"], allow_pickle=False, **held)
        return bundles.write(out, replace(manifest, parity=parity, **changes), files)


def _with_own(manifest: Manifest, graphs: Mapping[str, ModelProto]) -> Manifest:
    """Copy a manifest whose own stages are these graphs, which hold their weights themselves."""
    own = {name: replace(manifest.built[name], data=[]) for name in graphs}
    return replace(manifest, stages=manifest.stages | own)


def golden_inputs(base: Bundle, recorded: Recorded, fitted: Fitted) -> Arrays:
    """Make three windows that take every way through the encoder: whole, EEG alone, fMRI with a hole."""
    ports = signal_ports(base.manifest)
    found: Arrays = {port.name: np.zeros((_GOLDEN, *port.shape), np.float32) for port in ports}
    if recorded.eeg is not None:
        mask = found["eeg_mask"] = recorded.eeg.mask[:_GOLDEN]
        found["eeg"] = normalised_eeg(recorded.eeg.data[:_GOLDEN], mask, fitted.statistics)
    if recorded.fmri is not None and fitted.voxels is not None:
        rows = recorded.fmri.rows[:_GOLDEN]
        volumes = recorded.fmri.volumes[:, fitted.voxels] / fitted.statistics["fmri_scale"]
        found["fmri"], found["fmri_mask"] = volumes[rows] * (rows >= 0)[:, :, None], rows >= 0
    return golden(found)


def verified(
    base: Bundle,
    models: Mapping[str, bytes],
    windows: Arrays,
    expected: Callable[[Arrays], Arrays],
) -> tuple[Arrays, dict[str, Any]]:
    """Decode the golden windows with new graphs, and hold these to what the fit says.

    Parameters
    ----------
    base : Bundle
        All other stages are its own.
    models : dict
        Stage -> the bytes of its graph.
    windows : dict
    expected : callable
        Gives what is expected of the golden windows, see `train.fitting.fitter.Fitter.expected`.

    Returns
    -------
    golden : dict
        The last window carries on from the first.
    parity : dict

    Raises
    ------
    BundleError
        As of `compare`.
    """
    loaded = engine.load(base, instead=models)
    manifest = base.manifest
    given = dict(windows)
    if "denoise" in manifest.built:
        given["noise"] = golden_noise(_GOLDEN, loaded.program.latent[1:])
    given |= _nothing_carried(manifest)
    found: list[Arrays] = []
    for n in range(_GOLDEN):
        if n == _GOLDEN - 1:
            _carry(manifest, given, found[0]["latent"])
        one = {name: value[n : n + 1] for name, value in given.items()}
        found.append(decode(loaded, one, manifest.steps, "a golden window"))
    made = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    parity = {
        "windows": _GOLDEN,
        "runtime": onnxruntime.__version__,
        "compared": "the graphs with what the fit computes without them; golden clips are the graphs' own",
        "largest_difference": compare(expected(given), made),
    }
    kept = {name: made[name] for name in _KEPT if name in made}
    kept["frames"] = np.rint(255 * kept["frames"][:1]).astype(np.uint8)
    return given | kept, manifest.parity | parity


def _nothing_carried(manifest: Manifest) -> Arrays:
    """Empty states for windows that follow no other."""
    found: Arrays = {}
    for name, state in manifest.states.items():
        if state.scope == "session":
            found[name] = np.zeros((_GOLDEN, *state.shape[1:]), np.float32)
            found[f"{name}_mask"] = np.zeros((_GOLDEN, 1), np.float32)
    return found


def _carry(manifest: Manifest, given: Arrays, latent: NDArray[Any]) -> None:
    """Let the last window carry on from the end of a clean latent."""
    for name, state in manifest.states.items():
        if state.source == "latent":
            given[name][-1] = latent[0, :, -state.shape[2] :].astype(np.float16)
            given[f"{name}_mask"][-1] = 1


def compare(expected: Arrays, made: Arrays) -> dict[str, float]:
    """Measure how far graphs are from what a fit says, each output over its spread.

    Parameters
    ----------
    expected, made : dict
        Output -> (window, channel, ...); of the channels the first ones may be expected alone.

    Raises
    ------
    BundleError
        If nothing is expected, the graphs do not give it, or it is more than a thousandth of its spread away.
    """
    if not expected or not set(expected) <= set(made):
        raise BundleError(
            f"the fit expects {', '.join(expected) or 'nothing'} of its graphs, and they give "
            f"{', '.join(made)}: nothing was written. Report it to whoever made the bundle's fitter."
        )
    found: dict[str, float] = {}
    for name, values in expected.items():
        given = made[name][:, : values.shape[1]]
        error = float(np.abs(given - values).max() / max(float(values.std()), 1e-9))
        if not error <= _TOLERANCE:
            raise BundleError(
                f"the fitted graphs give a {name} that is {error:.2g} of its spread away from what the fit "
                f"says (allowed {_TOLERANCE}). Nothing was written; report it with the version of ONNX "
                "Runtime."
            )
        found[name] = float(f"{error:.2g}")
    return found
