"""The plan `patch-ridge`: patches, principal components and ridge regression, in closed form throughout.

Sessions are simulated and run through the causal chain, each as a stage on disk. `fit` then takes normalised
windows and clips, and returns the weights from which `PatchRidge` is made.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle
from train.closed_form import patch_codec as patch
from train.closed_form.brain_maps import GROUPS, StemSizes
from train.closed_form.components import principal_components
from train.closed_form.patch_codec import CodecSizes
from train.closed_form.ridge import RidgeFit, fit_ridge
from train.closed_form.stem import fit_eeg_stem, fit_voxel_stem
from train.data.arrays import golden, normalised, statistics
from train.data.chain import draft_bundle, unit_statistics
from train.data.phantom import film_clips, resting_level, session_arrays
from train.data.simulated import Showing, SimulatedSessions
from train.models.ridge.system import PatchRidge
from train.system import Trained
from train.work import Arrays, Work


@dataclass(frozen=True)
class PatchRidgePlan:
    """How the linear decoder is made.

    Attributes
    ----------
    codec : CodecSizes
    encoder : StemSizes
    gain : float
        A ridge prediction has the share R^2 of its target's variance. It is multiplied by R^-(2 gain), so
        that with 1/2 a clip has the contrast of the film.
    """

    codec: CodecSizes
    encoder: StemSizes
    gain: float

    # `train.run` asks for it where it is given films.
    learns_any_film: ClassVar[bool] = True

    def train(self, work: Work, data: SimulatedSessions, phases: dict[str, Any]) -> Trained:
        """Simulate the sessions and fit. There are no phases."""
        showings = data.showings(work)
        first = showings[0]
        projection = data.who.projection()
        draft = data.manifest()
        # The sessions first go through a chain that leaves signals in their own units, because the
        # statistics that normalise them are computed from its windows.
        level = resting_level(work, first.who, first.seed, first.seconds, first.name)
        raw = draft_bundle(draft, unit_statistics(draft, level), projection)
        watched = _sessions(work, raw, showings)
        mean_clip = np.rint(watched["clips"].mean(0)).astype(np.uint8)
        stats = statistics(watched, level) | {"mean_clip": mean_clip}
        folds = data.left_out(work)
        weights, explained = fit(*normalised(watched, stats), watched["clips"], self, folds)
        return Trained(
            system=PatchRidge(weights),
            manifest=replace(draft, provenance=data.provenance(work) | {"explained": explained}),
            stats=stats,
            projection=projection,
            golden=_golden(watched, stats),
        )

    def restore(self, weights: Arrays) -> PatchRidge:
        """Make the system again from the weights of a run."""
        return PatchRidge(weights)


def _golden(watched: Arrays, stats: Arrays) -> Arrays:
    few = {name: values[:3].copy() for name, values in watched.items()}
    eeg, fmri = normalised(few, stats)
    masks = {name: few[name] for name in ("eeg_mask", "fmri_mask")}
    return golden({"eeg": eeg, "eeg_mask": masks["eeg_mask"], "fmri": fmri, "fmri_mask": masks["fmri_mask"]})


def _sessions(work: Work, raw: Bundle, showings: list[Showing]) -> Arrays:
    """Make windows and clips of all training sessions. Each session is a stage."""

    def make(one: Showing) -> Arrays:
        session = one.who.session(one.seed, one.seconds)
        return session_arrays(raw, session) | {"clips": film_clips(session.film)}

    parts = [
        work.stage(f"session-{one.name}", lambda one=one: make(one))
        for one in work.track(showings, "sessions")
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def fit(
    eeg: NDArray[Any],
    fmri: NDArray[Any],
    clips: NDArray[np.uint8],
    plan: PatchRidgePlan,
    folds: NDArray[np.int64] | None = None,
) -> tuple[Arrays, dict[str, float]]:
    """Fit codec, latent components, stems, and the three linear maps.

    Parameters
    ----------
    eeg, fmri : (window, channel, sample), (window, slot, voxel)
        Normalised signals.
    clips : uint8, (window, frame, row, column, 3)
    plan : PatchRidgePlan
    folds : (window,), optional
        Windows of the same number are left out together when penalties and weightings are chosen.

    Returns
    -------
    weights : dict
        The weights that `train.models.ridge.system.PatchRidge` takes.
    explained : dict
        Route -> held-out R^2.
    """
    sizes = plan.encoder
    codec = patch.fit_codec(clips, plan.codec.channels)
    latent = patch.encode(codec, clips)
    mean, basis, targets = principal_components(latent.reshape(len(latent), -1), plan.codec.components)
    stem = fit_eeg_stem(eeg, sizes.eeg_components, sizes.eeg_frequencies, sizes.whiten)
    # The maps are fitted on what the rounded components give, as the decoder will read them.
    voxels = fit_voxel_stem(fmri, sizes.voxel_components).astype(np.float16)
    x_eeg = stem(eeg)
    x_fmri = (fmri @ voxels.astype(np.float32)).reshape(len(clips), -1)
    fits = {
        "both": fit_ridge([x_fmri, x_eeg], targets, sizes.shares, folds),
        "fmri": fit_ridge([x_fmri], targets, sizes.shares, folds),
        "eeg": fit_ridge([x_eeg], targets, sizes.shares, folds),
    }
    weights: Arrays = {
        "codec_mean": codec.mean,
        "codec_basis": codec.basis,
        "latent_mean": mean.astype(np.float32),
        "latent_basis": basis.astype(np.float16),
        "latent_shape": np.array(latent.shape[1:]),
        "voxels": voxels,
    }
    weights |= stem.arrays() | _maps(fits, plan.gain)
    spread = targets.var(0)
    explained = {name: float((found.explained * spread).sum() / spread.sum()) for name, found in fits.items()}
    return weights, explained


def _maps(fits: dict[str, RidgeFit], power: float) -> Arrays:
    """Collect the maps of each route in half precision, and the feature means that come off before them."""
    arrays: Arrays = {}
    for name, found in fits.items():
        # A component that is hardly explained would otherwise be blown up without bound.
        gain = np.clip(found.explained, 0.02, 1) ** -power
        for group, mean, linear in zip(GROUPS[name], found.means, found.maps, strict=True):
            arrays[f"{group}_feature_mean"] = mean.astype(np.float32)
            arrays[f"{name}_{group}"] = (linear * gain).astype(np.float16)
    return arrays
