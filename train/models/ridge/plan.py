"""The plan `patch-ridge`: patches, principal components and ridge regression, in closed form throughout.

The windows that teach come from simulated sessions or from a data set. `fit` takes them normalised, with
their clips, and returns the weights from which `PatchRidge` is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from train.closed_form import patch_codec as patch
from train.closed_form.brain_maps import GROUPS, StemSizes
from train.closed_form.components import principal_components
from train.closed_form.patch_codec import CodecSizes
from train.closed_form.ridge import RidgeFit, fit_ridge
from train.closed_form.stem import fit_eeg_stem, fit_voxel_stem
from train.config.run_context import Arrays, RunContext
from train.data.arrays import golden
from train.data.taught import Taught
from train.interface.system import OfSubject, Trained, of_another
from train.models.ridge.system import PatchRidge


class Teaching(Protocol):
    """Data that the plan learns from."""

    def everybody_taught(self, work: RunContext) -> dict[str, Taught]:
        """Return the windows that teach, by participant, the default one first."""
        ...


@dataclass(frozen=True)
class PatchRidgePlan:
    """How the linear decoder is made.

    Attributes
    ----------
    codec : CodecSizes
        How much the latents keep, and how many components of a clip are predicted.
    encoder : StemSizes
        How many features are kept of volumes and EEG.
    gain : float
        A ridge prediction has the share R^2 of its target's variance. It is multiplied by R^-(2 gain), so
        that with 1/2 a clip has the contrast of the film.
    """

    codec: CodecSizes
    encoder: StemSizes
    gain: float

    # `train.run` asks for it where it is given films.
    learns_any_film: ClassVar[bool] = True
    # And where it is given several simulated participants.
    learns_several_participants: ClassVar[bool] = True

    def train(self, work: RunContext, data: Teaching, phases: dict[str, Any]) -> Trained:
        """Fit the windows that teach. There are no phases.

        Of several participants, codec and components are fitted to the clips of all, each window of each as
        one clip, and stems and maps to each participant's own windows.
        """
        everybody = data.everybody_taught(work)
        default = next(iter(everybody))
        weights, targets = fit_latents([taught.clips_in_memory() for taught in everybody.values()], self)
        belongings: dict[str, OfSubject] = {}
        for (name, taught), own_targets in zip(everybody.items(), targets, strict=True):
            maps, explained = fit_maps(taught.signals_in_memory(), own_targets, self, taught.folds)
            weights |= maps if name == default else of_another(name, maps)
            belongings[name] = _belonging(taught, explained)
        trained = belongings.pop(default)
        return Trained(
            system=PatchRidge(weights),
            manifest=trained.manifest,
            stats=trained.stats,
            projection=trained.projection,
            golden=trained.golden,
            subjects=belongings,
        )

    def restore(self, weights: Arrays) -> PatchRidge:
        """Make the system again from the weights of a run."""
        return PatchRidge(weights)


def _belonging(taught: Taught, explained: dict[str, float]) -> OfSubject:
    provenance = taught.manifest.provenance | {"explained": explained}
    return OfSubject(
        manifest=replace(taught.manifest, provenance=provenance),
        stats=taught.stats,
        projection=taught.projection,
        golden=golden(taught.signals),
    )


def fit_latents(
    clips: Sequence[NDArray[np.uint8]], plan: PatchRidgePlan
) -> tuple[Arrays, list[NDArray[np.float64]]]:
    """Fit codec and latent components to the clips of one or more participants.

    Where all have watched the same, the clips of one of them say it all: counted several times over, they
    would give the same codec and components.

    Parameters
    ----------
    clips : sequence of uint8, (window, frame, row, column, 3)
        Those of each participant.
    plan : PatchRidgePlan
        Its `codec` says how much is kept.

    Returns
    -------
    weights : dict
    targets : list of (window, component)
        Of each participant.
    """
    first, *further = clips
    same = all(np.array_equal(first, clips_of_another) for clips_of_another in further)
    together = first if same else np.concatenate(clips)
    codec = patch.fit_codec(together, plan.codec.channels)
    latent = patch.encode(codec, together)
    mean, basis, targets = principal_components(latent.reshape(len(latent), -1), plan.codec.components)
    weights: Arrays = {
        "codec_mean": codec.mean,
        "codec_basis": codec.basis,
        "latent_mean": mean.astype(np.float32),
        "latent_basis": basis.astype(np.float16),
        "latent_shape": np.array(latent.shape[1:]),
    }
    if same:
        return weights, [targets for _ in clips]
    ends = np.cumsum([len(clips_of_one) for clips_of_one in clips])
    return weights, np.split(targets, ends[:-1])


def fit_maps(
    signals: Arrays,
    targets: NDArray[np.float64],
    plan: PatchRidgePlan,
    folds: NDArray[np.int64] | None = None,
) -> tuple[Arrays, dict[str, float]]:
    """Fit one participant's stems, and the linear map of each route to the components; see `fit`."""
    sizes = plan.encoder
    # The maps are fitted on what the rounded components give, as the decoder will read them.
    voxels = fit_voxel_stem(signals["fmri"], sizes.voxel_components).astype(np.float16)
    weights: Arrays = {"voxels": voxels}
    features = {"fmri": (signals["fmri"] @ voxels.astype(np.float32)).reshape(len(targets), -1)}
    if "eeg" in signals:
        stem = fit_eeg_stem(signals["eeg"], sizes.eeg_components, sizes.eeg_frequencies, sizes.whiten)
        weights |= stem.arrays()
        features["eeg"] = stem(signals["eeg"])
    routes = {route: groups for route, groups in GROUPS.items() if {*groups} <= features.keys()}
    fits = {
        route: fit_ridge([features[group] for group in groups], targets, sizes.shares, folds)
        for route, groups in routes.items()
    }
    weights |= _maps(fits, plan.gain)
    spread = targets.var(0)
    explained = {name: float((ridge.explained * spread).sum() / spread.sum()) for name, ridge in fits.items()}
    return weights, explained


def _maps(fits: dict[str, RidgeFit], power: float) -> Arrays:
    """Collect the maps of each route in half precision, and the feature means that come off before them."""
    arrays: Arrays = {}
    for name, ridge in fits.items():
        # A component that is hardly explained would otherwise be blown up without bound.
        gain = np.clip(ridge.explained, 0.02, 1) ** -power
        for group, mean, linear in zip(GROUPS[name], ridge.means, ridge.maps, strict=True):
            arrays[f"{group}_feature_mean"] = mean.astype(np.float32)
            arrays[f"{name}_{group}"] = (linear * gain).astype(np.float16)
    return arrays
