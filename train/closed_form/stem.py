"""From a window's EEG and volumes to few features, linearly."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import idct
from scipy.sparse.linalg import svds

from train.config.run_context import Arrays

Matrix = NDArray[np.float64]

# A direction with a smaller share of the largest variance holds rounding errors.
_LEAST_VARIANCE = 1e-9
# Of more voxels than this, the whole covariance is not made: of 19,000 it would take half an hour.
_MANY_VOXELS = 2048


@dataclass(frozen=True)
class EegStem:
    """A separable reduction, ``mixing @ window @ cosines``.

    Attributes
    ----------
    mixing : (component, channel)
        Principal components of the channels, partly whitened.
    cosines : (sample, frequency)
        The slowest cosines of the window (DCT-II), scaled.
    """

    mixing: Matrix
    cosines: Matrix

    def arrays(self) -> Arrays:
        """Both, as weights hold them."""
        return {"mixing": self.mixing.astype(np.float32), "cosines": self.cosines.astype(np.float32)}

    def __call__(self, eeg: NDArray[Any]) -> NDArray[np.float32]:
        """Reduce windows, (window, channel, sample) -> (window, component * frequency)."""
        slow = eeg.astype(np.float32) @ self.cosines.astype(np.float32)
        mixed = self.mixing.astype(np.float32) @ slow
        return mixed.reshape(len(eeg), -1).astype(np.float32)


def fit_eeg_stem(eeg: NDArray[np.float32], components: int, frequencies: int, whiten: float) -> EegStem:
    """Find the reduction.

    Background EEG is strong where it is smooth in space and slow in time; a ridge penalty then
    spares exactly those directions. Dividing by a power of their spread evens that out.

    Parameters
    ----------
    eeg : (window, channel, sample)
        Z-scored.
    components, frequencies : int
        How many are kept at most; a frequency step is half a cycle a window.
    whiten : float
        Power of the standard deviation to divide by, 0 for none, 1 for all.
    """
    samples = eeg.shape[2]
    cosines = np.asarray(idct(np.eye(samples), axis=0, norm="ortho"))[:, :frequencies]
    gram = sum((x @ x.T for x in eeg.astype(np.float64)), np.zeros((eeg.shape[1],) * 2)) / eeg[:, 0].size
    values, vectors = np.linalg.eigh(gram)
    # A small cap has fewer directions than are asked for, and the average reference takes one of them.
    components = min(components, int((values > _LEAST_VARIANCE * values[-1]).sum()))
    values = values[::-1][:components]
    vectors = fixed_signs(vectors[:, ::-1][:, :components])
    mixing = (vectors / values ** (whiten / 2)).T
    slow = mixing.astype(np.float32) @ (eeg @ cosines.astype(np.float32))
    spread = slow.std(0).mean(0, dtype=np.float64)
    return EegStem(mixing, cosines / spread**whiten)


def fit_voxel_stem(fmri: NDArray[np.float32], components: int) -> Matrix:
    """Find the first principal components of the voxels, (voxel, component), from all volumes.

    Of many voxels there are at most as many components as volumes less one.
    """
    x = fmri.reshape(-1, fmri.shape[-1])
    if x.shape[1] <= _MANY_VOXELS:
        x = x.astype(np.float64)
        _, vectors = np.linalg.eigh(x.T @ x / len(x))
        return fixed_signs(vectors[:, ::-1][:, :components])
    # From a fixed start, so that the same volumes give the same components.
    decomposition: Any = svds(x, k=min(components, len(x) - 1), v0=np.ones(min(x.shape), x.dtype))
    _, sizes, rows = decomposition
    return fixed_signs(rows[np.argsort(-sizes)].T.astype(np.float64))


def fill_slots(fmri: NDArray[Any], mask: NDArray[Any]) -> NDArray[np.float64]:
    """Put the mean of the window's volumes where one is missing, (window, slot, voxel).

    Volumes of one window are alike, so the mean is a better guess than the resting level.
    """
    return fmri + (1 - mask)[:, :, None] * slot_mean(fmri, mask)[:, None]


def slot_mean(data: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean of the volumes that were received, (window, slot, voxel) -> (window, voxel)."""
    weight = mask / np.maximum(mask.sum(-1, keepdims=True), 1)
    return np.einsum("ns,nsv->nv", weight, data.astype(np.float64))


def fixed_signs(vectors: Matrix) -> Matrix:
    """Flip columns so that the largest entry is positive: an eigenvector's sign is arbitrary."""
    largest = np.abs(vectors).argmax(0)
    return vectors * np.sign(vectors[largest, np.arange(vectors.shape[1])])
