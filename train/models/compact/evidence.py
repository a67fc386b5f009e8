"""What a window says of whether it holds a brain that the encoder can read: few numbers, and their fit.

The encoder was trained on windows of one participant who watched films. Other windows differ from them: in
how strong the signals are along the directions that were learned and beside them, in how large the points
are that the maps lead to, and in whether EEG and volumes tell the same. `Evidence` computes these numbers
inside the encoder's graph, and `fit_evidence` fits what they are measured against to the training windows.
`train.models.compact.presence` makes probabilities of them.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from train.closed_form.ridge import fit_ridge
from train.work import Arrays

# Parts of the EEG's mixed channels and of its cosines whose energies are told one by one: what a cap that is
# put on wrongly changes most are the weakest channels.
_MIXED = 4
_BANDS = 3
# Directions of the volumes that the EEG is asked for.
_TOLD = 48
# Numbers of a window, by the modality that they need.
FMRI = 3
EEG = _MIXED + _BANDS + 2
BOTH = 2
COUNT = FMRI + EEG + BOTH
# Which of the numbers a route knows.
KNOWN = {
    "both": slice(0, COUNT),
    "fmri": slice(0, FMRI),
    "eeg": slice(FMRI, FMRI + EEG),
}
# Numbers further out than so many standard deviations tell no more.
CLIP = 8.0
_LEAST = 1e-6
PREFIX = "evidence."


class Evidence(nn.Module):
    """Compute the numbers.

    Parameters
    ----------
    arrays : dict
        As `fit_evidence` returns them.
    components : int
        Number of components of the EEG's mixed channels.
    """

    fmri_spread: Tensor
    eeg_spread: Tensor
    axes: Tensor
    told: Tensor
    trust: Tensor
    weight: Tensor
    middle: Tensor
    scale: Tensor

    def __init__(self, arrays: Arrays, components: int) -> None:
        super().__init__()
        for name, value in arrays.items():
            self.register_buffer(name, torch.from_numpy(value.astype(np.float32)))
        self.components = components

    def forward(
        self, eeg: Tensor, volumes: Tensor, of_eeg: Tensor, of_fmri: Tensor, places: Tensor, voxels: Tensor
    ) -> Tensor:
        """Measure windows, (batch, `COUNT`), standardised by windows that hold a brain.

        Parameters
        ----------
        eeg : (batch, channel, sample)
        volumes : (batch, slot, voxel)
            Without holes.
        of_eeg, of_fmri : (batch, feature)
            The encoder's features.
        places : (batch, route, target)
            The points of the linear maps.
        voxels : (voxel, component)
            Directions of the volumes that were learned.
        """
        found = self.raw(eeg, volumes, of_eeg, of_fmri, places, voxels)
        return ((found - self.middle) / self.scale).clamp(-CLIP, CLIP)

    def raw(
        self, eeg: Tensor, volumes: Tensor, of_eeg: Tensor, of_fmri: Tensor, places: Tensor, voxels: Tensor
    ) -> Tensor:
        """Measure windows in the numbers' own units; arguments as of `forward`."""
        fmri = of_fmri / self.fmri_spread
        slow = (of_eeg / self.eeg_spread).unflatten(1, (self.components, -1))
        inside = (volumes @ voxels).square().sum(2)
        beside = (volumes.square().sum(2) - inside).clamp(min=0) / volumes.shape[2]
        parts = [part.square().mean((1, 2)) for part in slow.tensor_split(_MIXED, 1)]
        parts += [part.square().mean((1, 2)) for part in slow.tensor_split(_BANDS, 2)]
        weighed = places[:, 1:].square() @ self.weight
        sizes = [fmri.square().mean(1), beside.mean(1), weighed[:, 0]]
        sizes += [*parts, eeg.square().mean((1, 2)), weighed[:, 1]]
        energies = torch.stack(sizes, 1).clamp(min=_LEAST).log()
        shown = fmri @ self.axes
        told = of_eeg @ self.told
        agreed = [
            _alike(told, shown, self.trust),
            _alike(places[:, 1], places[:, 2], self.weight),
        ]
        return torch.cat([energies, torch.stack(agreed, 1)], 1)


def _alike(one: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted correlation of two vectors about zero, (batch,)."""
    both = (one * other) @ weight
    size = (one.square() @ weight) * (other.square() @ weight)
    return both / size.clamp(min=_LEAST).sqrt()


def fit_evidence(
    features: dict[str, NDArray[np.float32]],
    held_out: Sequence[NDArray[np.float64]],
    folds: NDArray[np.int64],
) -> Arrays:
    """Fit what the numbers are measured against.

    Parameters
    ----------
    features : dict
        Modality -> features of the training windows, not centred, (window, feature).
    held_out : sequence of (window, target)
        Held-out points of the routes fmri and eeg.
    folds : (window,)
        Windows of the same number are left out together.

    Returns
    -------
    dict
        ``middle`` and ``scale`` are left at 0 and 1 until windows are measured (`standardised`).
    """
    spreads = {name: np.maximum(values.std(0), _LEAST) for name, values in features.items()}
    fmri = (features["fmri"] - features["fmri"].mean(0)) / spreads["fmri"]
    values, vectors = np.linalg.eigh((fmri.T @ fmri / len(fmri)).astype(np.float64))
    count = min(_TOLD, len(values))
    axes = vectors[:, ::-1][:, :count] / np.sqrt(np.maximum(values[::-1][:count], _LEAST))
    shown = fmri @ axes
    found = fit_ridge([features["eeg"]], shown, [1.0], folds)
    # A direction of the volumes counts by what the EEG tells of it, and one of the space by what the two
    # modalities have in common there.
    trust = np.maximum(found.explained, 0)
    shared = np.maximum((held_out[0] * held_out[1]).mean(0), 0)
    return {
        "fmri_spread": spreads["fmri"].astype(np.float32),
        "eeg_spread": spreads["eeg"].astype(np.float32),
        "axes": axes.astype(np.float16),
        "told": found.maps[0].astype(np.float16),
        "trust": (trust / max(trust.sum(), _LEAST)).astype(np.float32),
        "weight": (shared / max(shared.sum(), _LEAST)).astype(np.float32),
        "middle": np.zeros(COUNT, np.float32),
        "scale": np.ones(COUNT, np.float32),
    }
