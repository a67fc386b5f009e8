"""Cuts in the clips, joined to a film, against the film's; and how much clips change after a seam."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import Pixels
from rtdecode.phantom.film.cuts import cuts_of

# A cut is found if it lies within so many frames of the film's, half a second.
TOLERANCE = 4


def cut_counts(
    clips: Sequence[Pixels], cuts: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Count which of the film's cuts are found in the clips, by `rtdecode.phantom.film.cuts`.

    Parameters
    ----------
    clips : sequence of uint8 (frame, 64, 96, 3)
        Of consecutive windows, from the film's first frame on.
    cuts : sequence of int
        First frame of each shot of the film but the first, ascending.

    Returns
    -------
    score, weight : (window,) float64
        F1 of each window, and the number it is a share of: ``2 hits / (2 hits + extra + missed)``. The mean
        of the scores under the weights is the F1 of the session. A cut belongs to the window that it lies
        in. NaN and 0 for a window without a cut of either kind.

    Notes
    -----
    A found cut and a cut of the film belong together if they are at most `TOLERANCE` frames apart, each with
    one at most.
    """
    size = len(clips[0])
    count = len(clips) * size
    film = [int(cut) for cut in cuts if 0 < cut < count]
    clip_cuts = [int(cut) for cut in cuts_of(clips)]
    pairs = _pairs(clip_cuts, film)
    hits = np.zeros(len(clips))
    extra = np.zeros(len(clips))
    missed = np.zeros(len(clips))
    for _, cut in pairs:
        hits[cut // size] += 1
    for cut in {*clip_cuts} - {hit for hit, _ in pairs}:
        extra[cut // size] += 1
    for cut in {*film} - {hit for _, hit in pairs}:
        missed[cut // size] += 1
    weight = 2 * hits + extra + missed
    return np.divide(2 * hits, weight, out=np.full(len(clips), np.nan), where=weight > 0), weight


def _pairs(clip_cuts: list[int], film: list[int]) -> list[tuple[int, int]]:
    """Match the most cuts, each with the first that is near enough; both lists ascend."""
    pairs = []
    remaining = list(clip_cuts)
    for cut in film:
        near = [candidate for candidate in remaining if abs(candidate - cut) <= TOLERANCE]
        if near:
            pairs.append((near[0], cut))
            # Those before it are too early for the cuts that follow, or as good as it was.
            remaining = [candidate for candidate in remaining if candidate > near[0]]
    return pairs


def step_profile(
    clips: Sequence[Pixels], cuts: Sequence[int], frames: int
) -> tuple[NDArray[np.float64] | None, int]:
    """Compute how much the picture changes from frame to frame after a seam between two clips.

    Parameters
    ----------
    clips : sequence of (frame, row, column, 3)
        Of consecutive windows, from the film's first frame on.
    cuts : sequence of int
        First frame of each shot of the film.
    frames : int
        Number of steps; the first leads from the clip before into this one.

    Returns
    -------
    profile : (frames,) float64 or None
        Mean absolute difference of neighbouring frames in grey levels, over the seams after which the film
        does not cut within `frames` steps. None if there is no such seam.
    count : int
        Number of these seams.
    """
    size = len(clips[0])
    profiles = []
    for number in range(1, len(clips)):
        start = number * size
        if any(start <= cut < start + frames for cut in cuts):
            continue
        before = np.asarray(clips[number - 1][size - 1], np.float32)[None]
        seam_frames = np.concatenate([before, np.asarray(clips[number][:frames], np.float32)])
        profiles.append(np.abs(np.diff(seam_frames, axis=0)).mean(axis=(1, 2, 3), dtype=np.float64))
    return (np.mean(profiles, axis=0) if profiles else None), len(profiles)
