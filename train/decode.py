"""The decoders in plain numpy: what the exported graphs must equal."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.clip_file import Pixels, keep
from train.parts import codec
from train.parts.lda import softmax
from train.parts.stem import fill_slots, slot_mean
from train.work import Arrays

_AT_ONCE = 20


def decode(model: str, weights: Arrays, inputs: Arrays) -> Arrays:
    """Decode windows.

    Parameters
    ----------
    model : str
        The run's model.
    weights : dict
        The run's weights.
    inputs : dict
        Ports of the encode graph, one row a window; a modality that is absent has a mask of zeros.

    Returns
    -------
    dict
        ``latent`` (window, channel, latent frame, row, column) and, for named categories,
        ``scores`` (window, label); float64.
    """
    return _ENCODERS[model](weights, inputs)


def frames(model: str, weights: Arrays, latent: NDArray[Any]) -> NDArray[np.float64]:
    """Turn latents into clips, (window, frame, row, column, 3) in [0, 1]."""
    return _DECODERS[model](weights, latent)


def clips_of(model: str, weights: Arrays, inputs: Arrays) -> list[Pixels]:
    """Decode windows to clips as a session emits them, each uint8 (frame, row, column, 3)."""
    latent = decode(model, weights, inputs)["latent"]
    starts = range(0, len(latent), _AT_ONCE)
    parts = (frames(model, weights, latent[start : start + _AT_ONCE]) for start in starts)
    return keep(clip for part in parts for clip in np.rint(part * 255).astype(np.uint8))


def _category(weights: Arrays, inputs: Arrays) -> Arrays:
    mean = slot_mean(inputs["fmri"], inputs["fmri_mask"])
    scores = softmax(mean @ weights["weights"].astype(np.float64) + weights["offset"])
    hot = np.eye(scores.shape[1])[scores.argmax(1)]
    return {"latent": np.repeat(hot[:, :, None, None, None], 9, axis=2), "scores": scores}


def _pages(weights: Arrays, latent: NDArray[Any]) -> NDArray[np.float64]:
    shown = np.concatenate([latent[:, :, :1], np.repeat(latent[:, :, 1:], 4, axis=2)], axis=2)[..., 0, 0]
    return np.einsum("nlf,lhwc->nfhwc", shown, weights["pictures"] / 255.0)


def _patch_ridge(weights: Arrays, inputs: Arrays) -> Arrays:
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    there = {name: inputs[f"{name}_mask"].max(1, keepdims=True) for name in ("fmri", "eeg")}
    volumes = fill_slots(inputs["fmri"], inputs["fmri_mask"]) @ w["voxels"]
    slow = w["mixing"] @ (inputs["eeg"].astype(np.float64) @ w["cosines"])
    count = len(slow)
    total = np.zeros((count, w["latent_basis"].shape[0]))
    for name, other, features in (("fmri", "eeg", volumes), ("eeg", "fmri", slow)):
        x = (features.reshape(count, -1) - w[f"{name}_feature_mean"]) * there[name]
        total += there[other] * (x @ w[f"both_{name}"]) + (1 - there[other]) * (x @ w[f"{name}_{name}"])
    latent = total @ w["latent_basis"] + w["latent_mean"]
    return {"latent": latent.reshape(count, *weights["latent_shape"])}


def _patches(weights: Arrays, latent: NDArray[Any]) -> NDArray[np.float64]:
    return codec.decode(codec.Codec(weights["codec_mean"], weights["codec_basis"]), latent)


_ENCODERS: dict[str, Callable[[Arrays, Arrays], Arrays]] = {
    "category": _category,
    "patch-ridge": _patch_ridge,
}
_DECODERS: dict[str, Callable[[Arrays, NDArray[Any]], NDArray[np.float64]]] = {
    "category": _pages,
    "patch-ridge": _patches,
}
