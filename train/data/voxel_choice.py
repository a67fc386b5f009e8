"""The voxels that follow films, chosen from the volumes of training sessions alone.

Nobody tells which voxels a film drives. An encoding model from features of films to every voxel of the head
is fitted to all sessions but one, and says how well it predicts the one left out; the voxels that are
predicted best are read. Where there is one session alone, a fifth of its time is left out in turn.
"""

from collections.abc import Sequence

import numpy as np

from train.closed_form.encoding import PICKING, best_explained, fold_errors
from train.closed_form.film_encoding import fit_features
from train.closed_form.film_space import ClipTargets
from train.config.run_context import Arrays
from train.data.film_stages import encode_film
from train.data.showing import PARTS, AnyShowing

# Responses overlap, so this much on either side of a fifth that is left out is left out of the fit, s.
_GAP_S = 5.0


def find_voxels(codec: Arrays, showings: Sequence[AnyShowing], count: int, window_s: float) -> Arrays:
    """Choose voxels.

    Parameters
    ----------
    codec : dict
        See `train.parts.codecs.fitted_patch.fit_codec`.
    showings : sequence of AnyShowing
        Sessions of one participant.
    count : int
        Number of voxels.
    window_s : float
        Length of a window.

    Returns
    -------
    dict
        ``voxels`` (voxel,), ascending flat indices into a volume, ``level`` (voxel,), their resting
        level, and ``explained`` (voxel,), the share of their variance that is predicted.
    """
    encoded = [_seen(codec, showing) for showing in showings]
    arrays = [np.concatenate([getattr(clips, name) for clips in encoded]) for name in ClipTargets.__slots__]
    features = fit_features(ClipTargets(*arrays), window_s)
    first = showings[0].volumes()
    responses = []
    volumes = []
    fold = []
    for number, showing in enumerate(showings):
        head_volumes = first if number == 0 else showing.volumes(first.voxels)
        series = features.series(encoded[number])
        x = features.kernel(head_volumes.times, len(series)) @ series
        responses.append(x - x.mean(0))
        volumes.append(head_volumes.values - head_volumes.values.mean(0))
        fold.append(np.full(len(head_volumes.times), number))
    together = np.concatenate(volumes)
    folds = np.concatenate(fold)
    # Sessions do not overlap, so that no volumes between them have to be left out.
    gap = 0
    if len(showings) == 1:
        folds = np.arange(len(together)) * PARTS // len(together)
        gap = int(np.ceil(_GAP_S / np.median(np.diff(first.times))))
    errors, sizes = fold_errors(np.concatenate(responses), together, folds, gap, PICKING)
    best = np.sort(best_explained(errors.sum(0), sizes.sum(0), count))
    explained = 1 - errors.sum(0)[best] / sizes.sum(0)[best]
    return {"voxels": first.voxels[best], "level": first.level[best], "explained": explained}


def _seen(codec: Arrays, showing: AnyShowing) -> ClipTargets:
    encoded = encode_film(codec, showing.tiles())
    return ClipTargets(encoded["latents"], encoded["structure"])
