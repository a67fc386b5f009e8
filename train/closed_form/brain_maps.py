"""The closed-form part of the brain encoder: stems, maps by route, logistic regression."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.closed_form.ridge import fit_ridge
from train.closed_form.stem import fit_eeg_stem, fit_voxel_stem
from train.config.run_context import Arrays

Matrix = NDArray[np.float64]
GROUPS = {"both": ("fmri", "eeg"), "fmri": ("fmri",), "eeg": ("eeg",)}


@dataclass(frozen=True)
class StemSizes:
    """How much the stems keep; see `train.closed_form.stem`, and `train.closed_form.ridge` for the shares."""

    voxel_components: int
    eeg_components: int
    eeg_frequencies: int
    whiten: float
    shares: list[float]


def fit_stems(eeg: NDArray[np.float32], fmri: NDArray[np.float32], sizes: StemSizes) -> Arrays:
    """Fit what reduces normalised windows to features, without means yet."""
    stem = fit_eeg_stem(eeg, sizes.eeg_components, sizes.eeg_frequencies, sizes.whiten)
    voxels = fit_voxel_stem(fmri, sizes.voxel_components).astype(np.float16)
    return {"voxels": voxels, **stem.arrays()}


def features(stems: Arrays, eeg: NDArray[Any], fmri: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
    """Reduce whole windows, (window, feature) a modality."""
    slow = stems["mixing"] @ (eeg.astype(np.float32) @ stems["cosines"])
    components = fmri.astype(np.float32) @ stems["voxels"].astype(np.float32)
    return {"eeg": slow.reshape(len(eeg), -1), "fmri": components.reshape(len(fmri), -1)}


def fit_maps(
    x: dict[str, NDArray[np.float32]],
    y: Matrix,
    sizes: StemSizes,
    folds: NDArray[np.int64] | None = None,
) -> tuple[Arrays, Arrays]:
    """Map features to standardised targets, each route by itself.

    Parameters
    ----------
    x : dict
        Modality -> features, (window, feature).
    y : (window, target)
        What each window showed, standardised.
    sizes : StemSizes
        Only its `shares` are read: candidate weights of the volumes beside the EEG.
    folds : (window,), optional
        Windows of the same number are left out together; each by itself where none are given.

    Returns
    -------
    maps : dict
        ``{modality}_feature_mean`` and ``{route}_{modality}``, in half precision.
    held_out : dict
        Route -> predictions of each window by a fit that left it out, (window, target).
    """
    maps: Arrays = {}
    held_out: Arrays = {}
    for route, groups in GROUPS.items():
        ridge = fit_ridge([x[group] for group in groups], y, sizes.shares, folds)
        for group, mean, linear in zip(groups, ridge.means, ridge.maps, strict=True):
            maps[f"{group}_feature_mean"] = mean.astype(np.float32)
            maps[f"{route}_{group}"] = linear.astype(np.float16)
        held_out[route] = ridge.held_out
    return maps, held_out


def place(maps: Arrays, x: dict[str, NDArray[np.float32]]) -> Arrays:
    """Predict windows that were not fitted, route -> (window, target)."""
    centred = {name: value - maps[f"{name}_feature_mean"] for name, value in x.items()}
    return {
        route: sum(centred[g].astype(np.float64) @ maps[f"{route}_{g}"].astype(np.float64) for g in groups)
        for route, groups in GROUPS.items()
    }  # type: ignore[return-value]


def fit_logistic(
    x: Matrix, y: Matrix, penalty: float = 1.0, rounds: int = 50, weights: Matrix | None = None
) -> Matrix:
    """Fit the logistic regression of a share in [0, 1], with the constant last, (feature + 1,).

    Newton's method with a ridge penalty on standardised features (Hastie, Tibshirani and Friedman
    2009, The Elements of Statistical Learning, equation 4.26). Rows count by their `weights`, all alike where
    none are given.
    """
    counts = np.ones(len(x)) if weights is None else weights
    mean = x.mean(0)
    scale = np.maximum(x.std(0), 1e-9)
    z = np.concatenate([(x - mean) / scale, np.ones((len(x), 1))], axis=1)
    penalties = penalty * np.diag([1.0] * x.shape[1] + [1e-3])
    w = np.zeros(z.shape[1])
    for _ in range(rounds):
        p = 1 / (1 + np.exp(-z @ w))
        hessian = (z * (counts * p * (1 - p))[:, None]).T @ z + penalties
        w = w + np.linalg.solve(hessian, z.T @ (counts * (y - p)) - penalties @ w)
    slope = w[:-1] / scale
    return np.append(slope, w[-1] - slope @ mean)
