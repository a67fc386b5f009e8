"""The recipe `ridge`: closed-form decoder of the simulated participant's film from EEG and fMRI."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtdecode.bundle import Bundle, Manifest
from rtdecode.errors import UsageError
from rtdecode.phantom.session import PhantomSession
from rtdecode.signal.baseline import Baseline
from rtdecode.signal.eeg import EegBand
from rtdecode.timing import TimingGrid
from train.data.arrays import golden, normalised, statistics
from train.data.chain import draft_bundle, unit_statistics
from train.data.phantom import (
    TRAINING_SEEDS,
    Participant,
    film_clips,
    manifest,
    resting_level,
    session_arrays,
)
from train.decode import clips_of
from train.judge import judge_phantom, judging
from train.parts import codec as patch
from train.parts.brain import GROUPS
from train.parts.pictures import rows
from train.parts.ridge import RidgeFit, fit_ridge
from train.parts.space import principal_components
from train.parts.stem import fit_eeg_stem, fit_voxel_stem
from train.recipe import numbers
from train.work import Arrays, Trained, Work

_SHOWN = (0, 8, 16, 24)
_SHOWN_S = 20.0


def band(highpass_hz: float, lowpass_hz: float, order: int, reference: str) -> EegBand:
    """Choose the EEG's pass band."""
    return EegBand(highpass_hz, lowpass_hz, order, reference)


def baseline(warmup: int, rate: float) -> Baseline:
    """Choose how a run's resting level is followed."""
    return Baseline(warmup, rate)


@dataclass(frozen=True)
class Sizes:
    """How much of each thing is kept.

    Attributes
    ----------
    channels : int
        Of the codec.
    components : int
        Of the latents.
    voxel_components, eeg_components, eeg_frequencies : int
        Of the stems.
    whiten : float
        See `train.parts.stem.fit_eeg_stem`.
    shares : list of float
        See `train.parts.ridge.fit_ridge`.
    restore : float
        A ridge prediction has the share R^2 of its target's variance; it is multiplied by
        R^-(2 restore), so that with 1/2 a clip has the contrast of the film.
    """

    channels: int
    components: int
    voxel_components: int
    eeg_components: int
    eeg_frequencies: int
    whiten: float
    shares: list[float]
    restore: float


def train(
    work: Work,
    who: Participant,
    grid: TimingGrid,
    band: EegBand,
    baseline: Baseline,
    sessions: str,
    seconds: float,
    sizes: Sizes,
    judged: str,
    judged_seconds: float,
) -> Trained:
    """Simulate the training sessions, fit, and judge on fresh ones.

    Parameters
    ----------
    work : Work
    who : Participant
    grid, band, baseline
        Grid of the windows, EEG filter, and how the resting level of the volumes is followed.
    sessions, judged : str
        Seeds of the training sessions (below 1000; ``seed=`` is added) and of the judging ones.
    seconds, judged_seconds : float
        Film in each session.
    sizes : Sizes

    Raises
    ------
    UsageError
        If it is given a folder of data, seeds to train on that judge, or the reverse.
    """
    work.refuse_data()
    seeds, judges = [work.seed + n for n in numbers(sessions)], judging(judged)
    if not {*seeds} <= {*TRAINING_SEEDS}:
        raise UsageError(f"seeds from 1000 on judge and are not trained on, found {seeds}.")
    draft = manifest(who, grid, band, baseline)
    level = resting_level(work, who, seeds[0], seconds)
    raw = draft_bundle(draft, unit_statistics(draft, level), who.projection())
    data = _sessions(work, raw, who, seeds, seconds)
    stats = statistics(data, level) | {"mean_clip": np.rint(data["clips"].mean(0)).astype(np.uint8)}
    weights = fit(*normalised(data, stats), data["clips"], sizes)
    provenance = {
        "participant": f"simulated, preset {who.preset}, subject {who.subject}",
        "sessions": seeds,
        "seconds": seconds,
        "explained": {name: float(weights.pop(f"explained_{name}")) for name in ("both", "eeg", "fmri")},
    }
    draft = replace(draft, provenance=provenance)
    bundle = draft_bundle(draft, stats, who.projection())
    figures = judge_phantom("patch-ridge", weights, bundle, who, judges, judged_seconds)
    sheet = _sheet(weights, bundle, who.session(judges[0], _SHOWN_S))
    told = replace(draft, provenance=provenance | {"figures": figures})
    return _trained(bundle, weights, data, told, figures, sheet)


def _sessions(work: Work, raw: Bundle, who: Participant, seeds: list[int], seconds: float) -> Arrays:
    """Windows and clips of all training sessions; each session is a stage."""

    def make(seed: int) -> Arrays:
        session = who.session(seed, seconds)
        return session_arrays(raw, session) | {"clips": film_clips(session.film)}

    parts = [work.stage(f"session-{s}", lambda s=s: make(s)) for s in work.track(seeds, "sessions")]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def fit(eeg: NDArray[Any], fmri: NDArray[Any], clips: NDArray[np.uint8], sizes: Sizes) -> Arrays:
    """Fit codec, latent components, stems, and the three linear maps.

    Parameters
    ----------
    eeg, fmri : (window, channel, sample), (window, slot, voxel)
        Normalised.
    clips : uint8, (window, frame, row, column, 3)
    sizes : Sizes

    Returns
    -------
    dict
        Weights as `train.decode` reads them, and ``explained_*``, the held-out R^2.
    """
    codec = patch.fit_codec(clips, sizes.channels)
    latent = patch.encode(codec, clips)
    mean, basis, targets = principal_components(latent.reshape(len(latent), -1), sizes.components)
    stem = fit_eeg_stem(eeg, sizes.eeg_components, sizes.eeg_frequencies, sizes.whiten)
    voxels = fit_voxel_stem(fmri, sizes.voxel_components).astype(np.float16)
    x_eeg = stem(eeg)
    x_fmri = (fmri @ voxels.astype(np.float32)).reshape(len(clips), -1)
    fits = {
        "both": fit_ridge([x_fmri, x_eeg], targets, sizes.shares),
        "fmri": fit_ridge([x_fmri], targets, sizes.shares),
        "eeg": fit_ridge([x_eeg], targets, sizes.shares),
    }
    weights: Arrays = {
        "codec_mean": codec.mean,
        "codec_basis": codec.basis,
        "latent_mean": mean.astype(np.float32),
        "latent_basis": basis.astype(np.float16),
        "latent_shape": np.array(latent.shape[1:]),
        "voxels": voxels,
    }
    weights |= stem.arrays() | _maps(fits, sizes.restore)
    spread = targets.var(0)
    return weights | {
        f"explained_{name}": np.array((found.explained * spread).sum() / spread.sum())
        for name, found in fits.items()
    }


def _maps(fits: dict[str, RidgeFit], restore: float) -> Arrays:
    """The maps of each combination, in half precision, with the means they are applied after."""
    arrays: Arrays = {}
    for name, found in fits.items():
        gain = np.clip(found.explained, 0.02, 1) ** -restore
        for group, mean, linear in zip(GROUPS[name], found.means, found.maps, strict=True):
            arrays[f"{group}_feature_mean"] = mean.astype(np.float32)
            arrays[f"{name}_{group}"] = (linear * gain).astype(np.float16)
    return arrays


def _trained(
    bundle: Bundle,
    weights: Arrays,
    data: Arrays,
    draft: Manifest,
    figures: dict[str, dict[str, Any]],
    sheet: Image.Image,
) -> Trained:
    stats, projection = bundle.stats, bundle.projection
    assert projection is not None
    few = {name: values[:3].copy() for name, values in data.items()}
    eeg, fmri = normalised(few, stats)
    inputs = {"eeg": eeg, "eeg_mask": few["eeg_mask"], "fmri": fmri, "fmri_mask": few["fmri_mask"]}
    return Trained(
        model="patch-ridge",
        manifest=draft,
        weights=weights,
        stats=stats,
        projection=projection.to_arrays(),
        golden=golden(inputs),
        figures=figures,
        pictures={"fresh.png": sheet},
    )


def _sheet(weights: Arrays, bundle: Bundle, session: PhantomSession) -> Image.Image:
    """Film and reconstruction of a fresh session, row below row."""
    shown = clips_of("patch-ridge", weights, session_arrays(bundle, session))
    pairs = zip(film_clips(session.film), shown, strict=True)
    sheet = rows([clip for pair in pairs for clip in pair], _SHOWN)
    return sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.LANCZOS)
