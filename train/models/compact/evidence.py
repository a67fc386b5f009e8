"""What a window says of whether it holds a brain that the encoder can read: few numbers, and their fit.

The encoder was trained on windows of one participant who watched films. Other windows differ from them: in
how strong the signals are along the directions that were learned and beside them, in how large the points
are that the maps lead to, in whether these points are like those that films lead to, and in whether EEG and
volumes tell the same. `Evidence` computes these numbers inside the encoder's graph, and `fit_evidence` fits
what they are measured against to the training windows.
`train.models.compact.presence` makes probabilities of them.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rtdecode.bundle.brain import MODALITIES
from train.closed_form.canonical import canonical
from train.closed_form.ridge import fit_ridge
from train.config.run_context import Arrays

# Parts of the EEG's mixed channels and of its cosines whose energies are told one by one: what a cap that is
# put on wrongly changes most are the weakest channels.
_MIXED = 4
_BANDS = 3
# Directions of the volumes that are predicted from EEG.
_PREDICTED = 48
# Directions in which points are compared with those of films, and with those of the other modality.
_FILM = 60
_SHARED = 20
_SHRINKAGE = 0.3
# Numbers of a window, by the modality that they need.
FMRI = 4
EEG = _MIXED + _BANDS + 3
BOTH = 3
COUNT = FMRI + EEG + BOTH
# Columns of the numbers that a route has.
COLUMNS = {
    "both": slice(0, COUNT),
    "fmri": slice(0, FMRI),
    "eeg": slice(FMRI, FMRI + EEG),
}
# Numbers further out than so many standard deviations tell no more.
CLIP = 8.0
# Neither is it told how far beyond this they are.
_FAR = 100.0
# Width of the edge of what a brain looks like, as a share of the distance from its middle to the edge.
_EDGE = 0.05
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
    # The map from EEG features to `axes`, under the name that it has in shipped weights.
    told: Tensor
    trust: Tensor
    weight: Tensor
    film_fmri: Tensor
    film_eeg: Tensor
    gain_fmri: Tensor
    gain_eeg: Tensor
    pair_fmri: Tensor
    pair_eeg: Tensor
    pair: Tensor
    middle: Tensor
    scale: Tensor

    def __init__(self, arrays: Arrays, components: int) -> None:
        super().__init__()
        # A run of before 0.2 was not told what a brain of each modality looks like.
        self.by_modality = f"{MODALITIES[0]}_middle" in arrays
        for name, value in (anything(1) | arrays).items():
            self.register_buffer(name, torch.from_numpy(value.astype(np.float32)), persistent=name in arrays)
        self.components = components

    def forward(
        self, eeg: Tensor, volumes: Tensor, of_eeg: Tensor, of_fmri: Tensor, places: Tensor, voxels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Measure windows, standardised by windows that hold a brain.

        Parameters
        ----------
        eeg : (batch, channel, sample)
            Normalised EEG.
        volumes : (batch, slot, voxel)
            Without holes.
        of_eeg, of_fmri : (batch, feature)
            The encoder's features.
        places : (batch, route, target)
            The points of the linear maps.
        voxels : (voxel, component)
            Directions of the volumes that were learned.

        Returns
        -------
        numbers : (batch, `COUNT`)
            None further out than `CLIP`.
        in_range : (batch, 2)
            For each of `MODALITIES`, how far its numbers are within what a brain looks like: 1 within it, 0
            outside of it in whatever direction, and one half at its edge.
        """
        numbers = (self.raw(eeg, volumes, of_eeg, of_fmri, places, voxels) - self.middle) / self.scale
        in_range = torch.stack([self._in_range(numbers, modality) for modality in MODALITIES], 1)
        return numbers.clamp(-CLIP, CLIP), in_range

    def _in_range(self, numbers: Tensor, modality: str) -> Tensor:
        """Compare one modality's numbers with the kind of session that they are most like, (batch,)."""
        # Bounded, so that an amplitude that overflows stays a number.
        of_modality = numbers[:, COLUMNS[modality]].clamp(-_FAR, _FAR)
        differences = of_modality[:, None] - self.get_buffer(f"{modality}_middle")
        white = (differences[:, :, None] @ self.get_buffer(f"{modality}_root"))[:, :, 0]
        nearest = white.square().sum(2).amin(1).clamp(min=_LEAST).sqrt()
        return ((1 - nearest) / _EDGE).sigmoid()

    def raw(
        self, eeg: Tensor, volumes: Tensor, of_eeg: Tensor, of_fmri: Tensor, places: Tensor, voxels: Tensor
    ) -> Tensor:
        """Measure windows in the numbers' own units; arguments as of `forward`."""
        fmri = of_fmri / self.fmri_spread
        slow = (of_eeg / self.eeg_spread).unflatten(1, (self.components, -1))
        learned_energy = (volumes @ voxels).square().sum(2)
        other_energy = (volumes.square().sum(2) - learned_energy).clamp(min=0) / volumes.shape[2]
        parts = [part.square().mean((1, 2)) for part in slow.tensor_split(_MIXED, 1)]
        parts += [part.square().mean((1, 2)) for part in slow.tensor_split(_BANDS, 2)]
        weighed = places[:, 1:].square() @ self.weight
        fmri_film = (places[:, 1] @ self.film_fmri).square() @ self.gain_fmri
        eeg_film = (places[:, 2] @ self.film_eeg).square() @ self.gain_eeg
        # In the order of `COLUMNS`: of the volumes, of the EEG, of both.
        sizes = [fmri.square().mean(1), other_energy.mean(1), weighed[:, 0], fmri_film[:, 0]]
        sizes += [*parts, eeg.square().mean((1, 2)), weighed[:, 1], eeg_film[:, 0]]
        # In logarithms, too little of an energy stands out as much as too much of it.
        energies = torch.stack(sizes, 1).clamp(min=_LEAST).log()
        whitened = fmri @ self.axes
        predicted = of_eeg @ self.told
        agreed = [
            _alike(predicted, whitened, self.trust),
            _alike(places[:, 1], places[:, 2], self.weight),
            _together(places[:, 1] @ self.pair_fmri, places[:, 2] @ self.pair_eeg, self.pair),
        ]
        return torch.cat([energies, torch.stack(agreed, 1)], 1)


def _alike(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted correlation of two vectors about zero, (batch,)."""
    both = (first * second) @ weight
    size = (first.square() @ weight) * (second.square() @ weight)
    return both / size.clamp(min=_LEAST).sqrt()


def _together(first: Tensor, second: Tensor, correlations: Tensor) -> Tensor:
    """Return by how much likelier two vectors are as a pair than alone, (batch,).

    The logarithm of the ratio of normal likelihoods, but for a constant. Values have variance 1, and
    correlate with the one of the same number alone.
    """
    r = correlations
    shared = r * first * second - r.square() * (first.square() + second.square()) / 2
    return (shared / (1 - r.square())).sum(1)


def fit_evidence(
    features: dict[str, NDArray[np.float32]],
    held_out: Sequence[NDArray[np.float64]],
    film_points: NDArray[np.float64],
    folds: NDArray[np.int64],
) -> Arrays:
    """Fit what the numbers are measured against.

    Parameters
    ----------
    features : dict
        Modality -> features of the training windows, not centred, (window, feature).
    held_out : sequence of (window, target)
        Held-out points of the routes fmri and eeg.
    film_points : (window, target)
        The points of the films that were shown.
    folds : (window,)
        Windows of the same number are left out together.

    Returns
    -------
    dict
        ``middle`` and ``scale`` are left at 0 and 1, and every window is within what a brain looks like,
        until `train.models.compact.presence` has measured windows.
    """
    spreads = {name: np.maximum(values.std(0), _LEAST) for name, values in features.items()}
    fmri = (features["fmri"] - features["fmri"].mean(0)) / spreads["fmri"]
    values, vectors = np.linalg.eigh((fmri.T @ fmri / len(fmri)).astype(np.float64))
    count = min(_PREDICTED, len(values))
    axes = vectors[:, ::-1][:, :count] / np.sqrt(np.maximum(values[::-1][:count], _LEAST))
    ridge = fit_ridge([features["eeg"]], fmri @ axes, [1.0], folds)
    # A direction of the volumes counts by how well the EEG predicts it, and one of the space by what the two
    # modalities have in common there.
    of_fmri, of_eeg = held_out
    trust = np.maximum(ridge.explained, 0)
    shared = np.maximum((of_fmri * of_eeg).mean(0), 0)
    pair = canonical(of_fmri, of_eeg, _SHARED, _SHRINKAGE)
    films = [canonical(points, film_points, _FILM, _SHRINKAGE) for points in held_out]
    # What does not follow films is noise. Without a film the variance of a direction is what is left of 1,
    # and this is half the difference of the inverse variances, as in the ratio of normal likelihoods.
    gains = [r**2 / (1 - r**2) / 2 for r in (film.correlations for film in films)]
    return {
        "fmri_spread": spreads["fmri"].astype(np.float32),
        "eeg_spread": spreads["eeg"].astype(np.float32),
        "axes": axes.astype(np.float16),
        "told": ridge.maps[0].astype(np.float16),
        "trust": (trust / max(trust.sum(), _LEAST)).astype(np.float32),
        "weight": (shared / max(shared.sum(), _LEAST)).astype(np.float32),
        "film_fmri": films[0].first.astype(np.float32),
        "film_eeg": films[1].first.astype(np.float32),
        "gain_fmri": gains[0][:, None].astype(np.float32),
        "gain_eeg": gains[1][:, None].astype(np.float32),
        "pair_fmri": pair.first.astype(np.float32),
        "pair_eeg": pair.second.astype(np.float32),
        "pair": pair.correlations.astype(np.float32),
        "middle": np.zeros(COUNT, np.float32),
        "scale": np.ones(COUNT, np.float32),
        **anything(1),
    }


def anything(kinds: int) -> Arrays:
    """Make what `Evidence` compares windows of so many kinds with, so that every window is within it."""
    arrays: Arrays = {}
    for modality in MODALITIES:
        columns = COLUMNS[modality]
        count = columns.stop - columns.start
        arrays[f"{modality}_middle"] = np.zeros((kinds, count), np.float32)
        arrays[f"{modality}_root"] = np.zeros((kinds, count, count), np.float32)
    return arrays
