"""Write the bundle of a fitted participant.

`write` takes the base bundle, its fitter and the fit. It makes the graphs of the participant's own stages,
decodes three golden windows with them, compares the result with what the fit computes without graphs, and
writes a bundle in which everything else is copied from the base.
"""

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
from rtdecode.bundle import Bundle, Manifest, Subject, engine
from rtdecode.bundle.frames import to_uint8
from rtdecode.bundle.golden import decode
from rtdecode.errors import BundleError
from train.config.run_context import Arrays
from train.data.arrays import golden, golden_noise, normalised_eeg
from train.data.recorded import Recorded
from train.fitting.fitter import Fitted, Fitter
from train.interface.system import signal_ports

# Golden windows; `train.data.arrays.golden` gives each of them another way through the encoder.
_GOLDEN = 3
# Largest difference allowed, as a share of the spread of what is compared.
_TOLERANCE = 1e-3
# Outputs that golden.npz keeps.
_GOLDEN_OUTPUTS = ("latent", "confidence", "brain", "brain_by", "scores", "frames")


def write(
    base: Bundle,
    fitter: Fitter,
    fitted: Fitted,
    recorded: Recorded,
    changes: dict[str, Any],
    out: Path,
    name: str | None = None,
) -> Bundle:
    """Write the bundle of a fitted participant.

    In place of the base's default participant, or, under a name, as one more of its participants.

    Parameters
    ----------
    base : Bundle
        The bundle that was fitted, whose other contents are kept.
    fitter : Fitter
        The fitter of that bundle.
    fitted : Fitted
        What the fit found for this participant.
    recorded : Recorded
        What was recorded of the participant.
    changes : dict
        Fields of the manifest to be replaced.
    out : Path
        Folder of the new bundle.
    name : str, optional
        What the participant is called among those of the base, who all stay.

    Raises
    ------
    BundleError
        If the new graphs do not give what the fit computes.
    """
    # Serialise once: the bytes that are verified are the bytes that are written.
    graphs = fitter.graphs(fitted)
    models = {stage: graph.SerializeToString(deterministic=True) for stage, graph in graphs.items()}
    windows = golden_inputs(base, recorded, fitted)
    held_to, parity = verified(base, models, windows, partial(fitter.expected, fitted))
    digests = {stage: digest(graph) for stage, graph in graphs.items()}
    parity["digests"] = base.manifest.parity.get("digests", {}) | digests
    if name is not None:
        parity["digests"] = digests
    # Arrays that the fit changes; without fMRI the base's projection is kept.
    arrays = {"stats": base.stats | fitted.statistics, "golden": held_to}
    if recorded.fmri is not None and fitted.voxels is not None:
        head = recorded.fmri.head
        arrays["projection"] = replace(head, voxels=head.voxels[fitted.voxels]).to_arrays()
    manifest = _with_own(base.manifest, graphs)
    if name is not None:
        return _joined(base, manifest, models, arrays, parity, changes, out, name)
    # Leave out weight files of the stages that are replaced: the new graphs hold their own weights.
    dropped = {name for stage in graphs for name in base.manifest.built[stage].data}
    # Engines of these stages were built from the graphs that are replaced.
    dropped |= {engine.file for engine in base.manifest.engines if engine.stage in graphs}
    files = {name: base.path / name for name in base.manifest.files if name not in dropped}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for stage, model in models.items():
            name = manifest.built[stage].file
            files[name] = folder / f"{stage}.onnx"
            files[name].write_bytes(model)
        for name, contents in arrays.items():
            files[f"{name}.npz"] = folder / f"{name}.npz"
            np.savez_compressed(files[f"{name}.npz"], allow_pickle=False, **contents)
        return bundles.write(out, replace(manifest, parity=parity, **changes), files)


def _joined(
    base: Bundle,
    fitted_manifest: Manifest,
    models: Mapping[str, bytes],
    arrays: Mapping[str, Arrays],
    parity: dict[str, Any],
    changes: dict[str, Any],
    out: Path,
    name: str,
) -> Bundle:
    """Write the base with one more participant, whose stages are those of `fitted_manifest`."""
    before = f"subjects/{name}"
    built = fitted_manifest.built
    stages = {stage: replace(built[stage], file=f"{before}/{built[stage].file}") for stage in models}
    # Graphs that read a participant's number hold the newcomer's weights where the default participant's
    # were, so that the newcomer has that number.
    number = fitted_manifest.subject
    newcomer = Subject(fitted_manifest.eeg, changes.get("fmri", fitted_manifest.fmri), stages, number)
    manifest = base.manifest
    # What is said of the base's other participants stays with them.
    of_newcomer = {key: value for key, value in parity.items() if key != "subjects"}
    parities = manifest.parity.get("subjects", {}) | {name: of_newcomer}
    newcomers = manifest.provenance.get("newcomers", {}) | {name: changes["provenance"]}
    files = {file: base.path / file for file in manifest.files}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for stage, model in models.items():
            files[stages[stage].file] = folder / f"{stage}.onnx"
            files[stages[stage].file].write_bytes(model)
        for key, values in arrays.items():
            files[f"{before}/{key}.npz"] = folder / f"{key}.npz"
            np.savez_compressed(folder / f"{key}.npz", allow_pickle=False, **values)
        joined = replace(
            manifest,
            subjects=manifest.subjects | {name: newcomer},
            parity=manifest.parity | {"subjects": parities},
            provenance=manifest.provenance | {"newcomers": newcomers},
        )
        return bundles.write(out, joined, files)


def _with_own(manifest: Manifest, graphs: Mapping[str, ModelProto]) -> Manifest:
    """Return a copy of a manifest whose own stages hold their weights in the graph itself.

    The new graphs have no engines, and were not run on a GPU.
    """
    own_stages = {name: replace(manifest.built[name], data=[]) for name in graphs}
    engines = [engine for engine in manifest.engines if engine.stage not in graphs]
    return replace(manifest, stages=manifest.stages | own_stages, engines=engines, gpu=None)


def golden_inputs(base: Bundle, recorded: Recorded, fitted: Fitted) -> Arrays:
    """Make three golden windows that take every way through the encoder.

    One is whole, one has EEG alone, and one has fMRI alone with a missing volume.
    """
    ports = signal_ports(base.manifest)
    # A modality that was not recorded stays zero, and so does its mask.
    inputs: Arrays = {port.name: np.zeros((_GOLDEN, *port.shape), np.float32) for port in ports}
    if recorded.eeg is not None:
        mask = inputs["eeg_mask"] = recorded.eeg.mask[:_GOLDEN]
        inputs["eeg"] = normalised_eeg(recorded.eeg.data[:_GOLDEN], mask, fitted.statistics)
    if recorded.fmri is not None and fitted.voxels is not None:
        rows = recorded.fmri.rows[:_GOLDEN]
        volumes = recorded.fmri.volumes[:, fitted.voxels] / fitted.statistics["fmri_scale"]
        received = rows >= 0
        inputs["fmri"] = volumes[rows] * received[:, :, None]
        inputs["fmri_mask"] = received
    return golden(inputs)


def verified(
    base: Bundle,
    models: Mapping[str, bytes],
    windows: Arrays,
    expected: Callable[[Arrays], Arrays],
) -> tuple[Arrays, dict[str, Any]]:
    """Decode the golden windows with new graphs, and compare the result with what the fit computes.

    Parameters
    ----------
    base : Bundle
        The bundle that all other stages are taken from.
    models : dict
        Stage -> the bytes of its new graph.
    windows : dict
        The golden windows, as `golden_inputs` makes them.
    expected : callable
        Computes what is expected of the golden windows, see `train.fitting.fitter.Fitter.expected`.

    Returns
    -------
    golden : dict
        The golden windows and what the graphs made of them. The last window carries on from the first.
    parity : dict
        The result of the comparison, for the manifest.

    Raises
    ------
    BundleError
        If the graphs differ from the fit, see `compare`.
    """
    loaded = engine.load(base, instead=models)
    manifest = base.manifest
    inputs = dict(windows)
    if "denoise" in manifest.built:
        inputs["noise"] = golden_noise(_GOLDEN, loaded.program.latent[1:])
    inputs |= _nothing_carried(manifest)
    decoded_windows: list[Arrays] = []
    # One window after the other, since the last one needs the latent of the first.
    for n in range(_GOLDEN):
        if n == _GOLDEN - 1:
            _carry(manifest, inputs, decoded_windows[0]["latent"])
        window = {name: value[n : n + 1] for name, value in inputs.items()}
        decoded_windows.append(decode(loaded, window, manifest.steps, "a golden window"))
    outputs = {name: np.concatenate([part[name] for part in decoded_windows]) for name in decoded_windows[0]}
    parity = {
        "status": "passed",
        # The golden clips are the new graphs' own, so that nothing tells how far off they are.
        "clip_psnr_db": None,
        "windows": _GOLDEN,
        "runtime": onnxruntime.__version__,
        "compared": "the graphs with what the fit computes without them; golden clips are the graphs' own",
        "largest_difference": compare(expected(inputs), outputs),
    }
    golden_outputs = {name: outputs[name] for name in _GOLDEN_OUTPUTS if name in outputs}
    # As in an export: frames in 8 bits, and of the first window only, keep the file small.
    golden_outputs["frames"] = to_uint8(golden_outputs["frames"][:1])
    return inputs | golden_outputs, manifest.parity | parity


def _nothing_carried(manifest: Manifest) -> Arrays:
    """Make empty states, as for windows that follow no other."""
    empty_states: Arrays = {}
    for name, state in manifest.states.items():
        if state.scope == "session":
            empty_states[name] = np.zeros((_GOLDEN, *state.shape[1:]), np.float32)
            empty_states[f"{name}_mask"] = np.zeros((_GOLDEN, 1), np.float32)
    return empty_states


def _carry(manifest: Manifest, inputs: Arrays, latent: NDArray[Any]) -> None:
    """Let the last window carry on from the end of another window's clean latent."""
    for name, state in manifest.states.items():
        if state.source == "latent":
            # Few bits, as in all golden inputs: the file stays small and its values exact.
            inputs[name][-1] = latent[0, :, -state.shape[2] :].astype(np.float16)
            inputs[f"{name}_mask"][-1] = 1


def compare(expected: Arrays, actual: Arrays) -> dict[str, float]:
    """Measure how far graphs are from what a fit computes, as a share of each output's spread.

    Parameters
    ----------
    expected, actual : dict
        Output -> (window, channel, ...). `expected` may hold the first channels only.

    Raises
    ------
    BundleError
        If nothing is expected, the graphs lack an expected output, or an output is off by more than a
        thousandth of its spread.
    """
    if not expected or not set(expected) <= set(actual):
        expected_text = f"the outputs {', '.join(expected)}" if expected else "no outputs"
        raise BundleError(
            "fit-outputs-mismatch",
            "the fit expects {expected}, but the graphs give {actual}: nothing was written. Report "
            "it to whoever made the bundle's fitter.",
            expected=expected_text,
            actual=list(actual),
        )
    differences: dict[str, float] = {}
    for name, values in expected.items():
        computed = actual[name][:, : values.shape[1]]
        error = float(np.abs(computed - values).max() / max(float(values.std()), 1e-9))
        # Not `error > _TOLERANCE`, which NaN would pass.
        if not error <= _TOLERANCE:
            raise BundleError(
                "fit-difference-too-large",
                "the fitted graphs give a {output} that is {difference:.2g} of its spread away from "
                "what the fit computes (allowed {tolerance}). Nothing was written; report it with "
                "the version of ONNX Runtime.",
                output=name,
                difference=error,
                tolerance=_TOLERANCE,
            )
        differences[name] = float(f"{error:.2g}")
    return differences
