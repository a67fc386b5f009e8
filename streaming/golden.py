"""The golden windows of a bundle: what this machine makes of them must be what the export made."""

from collections.abc import Iterable

import numpy as np

from rtdecode.bundle import Bundle
from rtdecode.errors import BundleError
from rtdecode.types import Array, Float, Window

_COMPARED = ("latent", "confidence", "scores", "frames")
_CLOSED, _DENOISED = 1e-4, 1e-3


def first(bundle: Bundle) -> dict[str, Array]:
    """Read the first golden window and what is expected of it, with a batch axis of 1."""
    return {name: array[:1] for name, array in bundle.golden().items()}


def window(bundle: Bundle) -> Window:
    """The first golden window as a session would hand it to the decoder."""
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


def take(bundle: Bundle, kept: dict[str, Array], names: Iterable[str]) -> dict[str, Float]:
    """Pick arrays of a golden window by name, as float32.

    Raises
    ------
    BundleError
        If one is not there.
    """
    if missing := sorted(set(names) - set(kept)):
        raise BundleError(
            f"{bundle.path / 'golden.npz'} lacks {', '.join(missing)}: found {', '.join(kept)}. "
            "Export the bundle again."
        )
    return {name: kept[name].astype(np.float32) for name in names}


def compare(bundle: Bundle, kept: dict[str, Array], found: dict[str, Float]) -> None:
    """Compare what was decoded of a golden window with what is expected of it.

    A closed-form latent may be 1e-4 off; a denoised one, which went through many more operations,
    a thousandth of its spread. Frames of 8 bits may differ by a rounding.

    Raises
    ------
    BundleError
        If anything is further off; the message says which and by how much.
    """
    denoised = bundle.manifest.stages.get("denoise") is not None
    for name in (name for name in _COMPARED if name in kept and name in found):
        expected, eight_bits = kept[name].astype(np.float64), kept[name].dtype == np.uint8
        tolerance = 0.6 if eight_bits else _DENOISED if denoised else _CLOSED
        if name == "latent" and denoised:
            tolerance *= float(expected.std())
        error = float(np.abs(found[name] * (255.0 if eight_bits else 1.0) - expected).max())
        if not error <= tolerance:
            raise BundleError(
                f"bundle {bundle.path}: its golden window gives {name} {error:.2g} away from golden.npz "
                f"(allowed {tolerance:.2g}). Export the bundle again with this ONNX Runtime."
            )
