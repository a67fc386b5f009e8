"""The golden windows of a bundle, which this machine must decode as the export did.

A golden window holds the signals that the stages read, the states that it carries on from (``carry``, and
``carry_mask``, which is 0 if there are none), and the ``noise`` that its latent starts from. With these
come the expected outputs, and the number of ``steps`` where they are fewer than the bundle's own, for which a
large denoiser would take long. `decode` runs such a window, and `compare` holds the result against what is
expected.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle.engine import Engine
from rtdecode.bundle.folder import Bundle
from rtdecode.bundle.frames import to_uint8
from rtdecode.bundle.manifest import PRECISIONS, Manifest
from rtdecode.bundle.noise import noise
from rtdecode.bundle.runner import Noise, Pass
from rtdecode.bundle.wiring import SIGNALS
from rtdecode.errors import BundleError
from rtdecode.types import Array, Float, Window

# The array that says how many denoising steps golden windows were decoded with.
STEPS = "steps"
_COMPARED = ("latent", "confidence", "brain", "brain_by", "scores", "frames")
# Largest differences allowed in closed form and after denoising, see `compare`.
_CLOSED = 1e-4
_DENOISED = 1e-3
# Of frames in 8 bits, in levels: where the graphs give single precision, and where they round too.
_ROUNDING = 0.6
_LEVEL = 1.0
# The lowest PSNR of a clip against that of the run's own decoder, for graphs of each precision, dB.
CLIP_DB = {"fp32": 80.0, "fp16": 40.0, "bf16": 40.0, "int8": 30.0, "fp8": 30.0}
# Stands for clips that are the same to the bit, dB.
_SAME_DB = 200.0


def first(bundle: Bundle) -> dict[str, Array]:
    """Read the first golden window and its expected outputs, with a batch axis of 1."""
    return {name: array[:1] for name, array in bundle.golden().items()}


def steps_of(golden: Mapping[str, Array], usual: int) -> int:
    """Return how many denoising steps golden windows were decoded with: those that they say, or the usual."""
    return int(golden[STEPS][0]) if STEPS in golden else usual


def window(bundle: Bundle) -> Window:
    """Build the first golden window as a session would hand it to the decoder."""
    golden = bundle.golden()
    manifest = bundle.manifest
    masks = {m: golden.get(f"{m}_mask", np.zeros((1, 0)))[0] > 0 for m in ("eeg", "fmri")}
    data = {m: golden[m][0] if m in golden else None for m in ("eeg", "fmri")}
    return Window(
        run=0,
        index=0,
        start_s=0.0,
        stop_s=float(manifest.grid.window),
        session_s=0.0,
        revision="final",
        eeg=data["eeg"],
        eeg_mask=masks["eeg"],
        fmri=data["fmri"],
        fmri_mask=masks["fmri"],
        fmri_expected=masks["fmri"],
        floor_at=0.0,
    )


def read(manifest: Manifest) -> list[str]:
    """Name the arrays that a golden window of this bundle must hold besides its expected outputs."""
    ports = [port for stage in manifest.built.values() for port in stage.inputs.values()]
    signals = [source for source in SIGNALS if any(port.source == source for port in ports)]
    states = [name for name, state in manifest.states.items() if state.scope == "session"]
    masks = [f"{name}_mask" for name in states if any(port.there and port.state == name for port in ports)]
    noise_too = ["noise"] if "denoise" in manifest.built else []
    return signals + states + masks + noise_too


def open_pass(engine: Engine, golden: Mapping[str, Array], steps: int, where: str) -> Pass:
    """Begin the pass of a golden window, whose arrays have a leading axis of 1.

    Raises
    ------
    BundleError
        If an array is missing; `where` names the file.
    """
    manifest = engine.manifest
    arrays = take(where, golden, read(manifest))
    states = [name for name, state in manifest.states.items() if state.scope == "session"]
    # A mask of 0 says that the window carries nothing on, which differs from carrying on zeros.
    before = {name: arrays[name] for name in states if arrays.get(f"{name}_mask", np.ones(1)).any()}
    later = partial(noise, manifest.noise_key, 0, 0)
    signals = {name: arrays[name] for name in SIGNALS if name in arrays}
    return Pass(engine.program, signals, Noise(arrays.get("noise"), later), steps, before)


def decode(engine: Engine, golden: Mapping[str, Array], steps: int, where: str) -> dict[str, NDArray[Any]]:
    """Decode a golden window.

    Returns
    -------
    dict
        The outputs of ``encode``, the clean ``latent``, and ``frames`` as the graphs give them.

    Raises
    ------
    BundleError
        See `open_pass`.
    """
    opened = open_pass(engine, golden, steps, where)
    outputs = opened.encode()
    frames = [frame for latent in opened.latents() for frame in opened.draw(latent)]
    return outputs | {"latent": opened.latent, "frames": np.concatenate(frames, axis=1)}


def psnr_db(expected: Array, actual: Array) -> float:
    """Return the peak signal-to-noise ratio of values whose peak is 1, in dB; at most 200."""
    error = float(np.mean((actual.astype(np.float64) - expected.astype(np.float64)) ** 2))
    # Written so that a NaN stays one.
    return _SAME_DB if error < 10 ** (-_SAME_DB / 10) else float(-10 * np.log10(error))


def take(where: str, golden: Mapping[str, Array], names: Iterable[str]) -> dict[str, Float]:
    """Pick arrays of a golden window by name, as float32.

    Raises
    ------
    BundleError
        If one of them is missing.
    """
    if missing := sorted(set(names) - set(golden)):
        raise BundleError(
            "golden-array-missing",
            "{path} lacks {missing}: found {available}. Export it again.",
            path=where,
            missing=list(missing),
            available=list(golden),
        )
    return {name: golden[name].astype(np.float32) for name in names}


def compare(
    bundle: Bundle, golden: Mapping[str, Array], actual: Mapping[str, NDArray[Any]]
) -> dict[str, float]:
    """Compare what was decoded from a golden window with what is expected.

    A closed-form latent may be off by 1e-4. A denoised latent, which went through many more operations, may
    be off by a thousandth of its standard deviation. Frames of 8 bits may differ by rounding: by a level
    where the graphs round them too. Graphs in a lower precision are held to the PSNR of their latent, whose
    peak is its range, and of their frames (`CLIP_DB`).

    Returns
    -------
    dict
        Output -> its largest difference; of frames in grey levels of 8 bits.

    Raises
    ------
    BundleError
        If anything is further off. The message says what, and by how much.
    """
    differences: dict[str, float] = {}
    expected: dict[str, Array] = {}
    for name in (name for name in _COMPARED if name in golden and name in actual):
        eight_bits = actual[name].dtype == np.uint8
        expected[name] = to_uint8(golden[name]) if eight_bits else golden[name]
    for name, values in expected.items():
        scale = _unit(values) / _unit(actual[name])
        differences[name] = float(np.abs(actual[name] * scale - values.astype(np.float64)).max())
    if bundle.manifest.precision == PRECISIONS[0]:
        _check_differences(bundle, expected, actual, differences)
    else:
        _check_psnr(bundle, expected, actual)
    return differences


def _unit(values: Array) -> float:
    """Return what a value of 1 is kept as: in 8 bits, the largest grey level."""
    return 255.0 if values.dtype == np.uint8 else 1.0


def _check_differences(
    bundle: Bundle,
    expected: Mapping[str, Array],
    outputs: Mapping[str, NDArray[Any]],
    differences: Mapping[str, float],
) -> None:
    denoised = "denoise" in bundle.manifest.built
    for name, error in differences.items():
        tolerance = _DENOISED if denoised else _CLOSED
        if expected[name].dtype == np.uint8:
            tolerance = _LEVEL if outputs[name].dtype == np.uint8 else _ROUNDING
        if name == "latent" and denoised:
            tolerance *= float(expected[name].astype(np.float64).std())
        # Written so that a NaN fails too.
        if not error <= tolerance:
            raise BundleError(
                "golden-difference-too-large",
                "bundle {path}: its golden window gives {output} {difference:.2g} away from "
                "golden.npz (allowed {tolerance:.2g}). Export the bundle again with this ONNX "
                "Runtime.",
                path=bundle.path,
                output=name,
                difference=error,
                tolerance=tolerance,
            )


def _check_psnr(bundle: Bundle, golden: Mapping[str, Array], actual: Mapping[str, NDArray[Any]]) -> None:
    precision = bundle.manifest.precision
    # A latent has no largest value of its own. One that is the same everywhere is compared as it is.
    peaks = {"latent": float(np.ptp(golden["latent"])) or 1.0, "frames": 1.0}
    for name, peak in peaks.items():
        expected = golden[name].astype(np.float64) / _unit(golden[name])
        reached = psnr_db(expected / peak, actual[name] / _unit(actual[name]) / peak)
        # Written so that a NaN fails too.
        if not reached >= CLIP_DB[precision]:
            raise BundleError(
                "golden-psnr-too-low",
                "bundle {path}: its golden window gives {output} with a PSNR of {psnr_db:.1f} dB to "
                "golden.npz, where {precision} has to reach {min_psnr_db:.0f} dB. Export the bundle "
                "again with this ONNX Runtime, or in a higher --precision.",
                path=bundle.path,
                output=name,
                psnr_db=reached,
                precision=precision,
                min_psnr_db=CLIP_DB[precision],
            )
