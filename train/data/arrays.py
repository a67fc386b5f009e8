"""Arrays of windows: statistics, normalisation, and the golden windows that a bundle is tested with."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.config.run_context import Arrays
from train.data.window_arrays import WindowArray

_GOLDEN = 3
# Least scale, in the data's own units, so that a dead channel is not divided by zero.
_LEAST_SCALE = 1e-3
# A voxel is taken to lie in the head above this share of the mean image's 98th percentile.
_HEAD = 0.3
_BRIGHT = 98


def statistics(data: Arrays, level: NDArray[Any]) -> Arrays:
    """Compute mean and scale of channels and voxels over the training windows.

    Parameters
    ----------
    data : dict
        ``eeg`` (window, channel, sample), if there is any, and ``fmri`` (window, slot, voxel) in their own
        units.
    level : (voxel,)
        Resting level.

    Returns
    -------
    dict
        ``eeg_mean``, ``eeg_scale`` (channel,), ``fmri_mean``, ``fmri_scale`` (voxel,), float32.
    """
    voxels = data["fmri"].reshape(-1, data["fmri"].shape[-1])
    scale = np.maximum(voxels.std(0, dtype=np.float64), _LEAST_SCALE)
    fmri = {"fmri_mean": level.astype(np.float32), "fmri_scale": scale.astype(np.float32)}
    return (eeg_statistics(data["eeg"]) if "eeg" in data else {}) | fmri


def eeg_statistics(eeg: NDArray[Any]) -> Arrays:
    """Compute mean and scale of the channels of windows (window, channel, sample)."""
    scale = np.maximum(eeg.std((0, 2), dtype=np.float64), _LEAST_SCALE)
    mean = eeg.mean((0, 2), dtype=np.float64)
    return {"eeg_mean": mean.astype(np.float32), "eeg_scale": scale.astype(np.float32)}


def normalised(data: Arrays, stats: Arrays) -> tuple[NDArray[Any], NDArray[Any]]:
    """Normalise windows in their own units: EEG (window, channel, sample), fMRI (window, slot, voxel)."""
    signals = normalised_signals(data, stats)
    return signals["eeg"], signals["fmri"]


def normalised_signals(data: Arrays, stats: Arrays) -> Arrays:
    """Normalise ``fmri`` and, if there is any, ``eeg`` of windows; see `statistics`."""
    scaled = {"fmri": data["fmri"] / stats["fmri_scale"]}
    if "eeg" in data:
        scaled["eeg"] = normalised_eeg(data["eeg"], data["eeg_mask"], stats)
    return scaled


def normalised_eeg(eeg: NDArray[Any], mask: NDArray[Any], stats: Arrays) -> NDArray[Any]:
    """Normalise EEG (window, channel, sample). Samples that are missing stay zero."""
    return (eeg - stats["eeg_mean"][:, None]) / stats["eeg_scale"][:, None] * mask[:, None]


def averaged_signals(repeats: Sequence[Arrays]) -> Arrays:
    """Average the windows of sessions that showed the same, over those that have a sample or a volume.

    Parameters
    ----------
    repeats : sequence of dict
        Of each session ``eeg`` (window, channel, sample), ``fmri`` (window, slot, voxel), and their masks
        (window, sample) and (window, slot); one signal may be missing in all.
    """
    if len(repeats) == 1:
        return repeats[0]
    averages: Arrays = {}
    for name, axis in (("eeg", 1), ("fmri", 2)):
        if name not in repeats[0]:
            continue
        masks = [np.expand_dims(repeat[f"{name}_mask"], axis) for repeat in repeats]
        counts = np.sum(masks, axis=0)
        total = np.sum([repeat[name] * mask for repeat, mask in zip(repeats, masks, strict=True)], axis=0)
        averages[name] = (total / np.maximum(counts, 1)).astype(np.float32)
        averages[f"{name}_mask"] = (counts > 0).squeeze(axis).astype(np.float32)
    return averages


def in_head(mean: NDArray[Any]) -> NDArray[np.int64]:
    """Return the flat indices of the voxels that are taken for the head, by the mean image, (voxel,)."""
    return np.flatnonzero(mean > _HEAD * np.percentile(mean, _BRIGHT))


def few_bits(values: NDArray[Any]) -> NDArray[np.float32]:
    """Round to the significant bits of half precision, so that golden values compress well and stay exact."""
    return values.astype(np.float16).astype(np.float32)


def golden_noise(count: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Draw the noise that golden windows start from, (count, *shape)."""
    return few_bits(np.random.default_rng(0).standard_normal((count, *shape), np.float32))


def golden(inputs: Mapping[str, WindowArray]) -> Arrays:
    """Make golden windows that take every route through the encoder: whole, EEG alone, fMRI with a hole.

    Parameters
    ----------
    inputs : mapping
        Signals and their masks, of one modality or both, for at least three windows.
    """
    arrays = {name: values[:_GOLDEN].astype(np.float32) for name, values in inputs.items()}
    # Window 0 stays whole, window 1 has EEG alone, window 2 fMRI alone and without its second volume.
    for window, name in ((2, "eeg"), (1, "fmri")):
        if name in arrays:
            arrays[name] = few_bits(arrays[name])
            arrays[name][window] = arrays[f"{name}_mask"][window] = 0
    if "fmri" in arrays and arrays["fmri"].shape[1] > 1:
        arrays["fmri"][2, 1] = arrays["fmri_mask"][2, 1] = 0
    return arrays
