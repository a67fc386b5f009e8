"""Scores of every window of a session against the film that was watched, whatever the film.

`describe` measures the film once (`FilmWindows`), and `score` holds clips against it: for each metric a score
and a weight for each window. `train.evaluation.film_figures` makes figures of them.

Clips may lie in files: all that is made of them is made of some frames, or of some rows of all clips, at a
time, so that the memory that it takes does not grow with their number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import networkx
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from rtdecode.disk.clip_file import Pixels, keep
from rtdecode.phantom.film.watched import Watched
from rtdecode.scores.accuracy import (
    blocks,
    correlations,
    identification_nway,
    identification_top1,
    psnr,
)
from rtdecode.scores.colours import layouts, one_colour
from rtdecode.scores.events import Span, distractors
from rtdecode.scores.means import less, mean_clip, mean_picture
from rtdecode.scores.ties import duels
from train.data.phantom import events
from train.metrics.cuts import cut_counts
from train.metrics.infonce import bits
from train.metrics.layout import agreement, hue, luminance
from train.metrics.motion import direction_error, motion_energy, opponent
from train.metrics.order import order
from train.metrics.pixels import gradient_energy
from train.metrics.quality import ssim

# Two windows are near-duplicates if both their layouts and their mean pictures differ by less than this, rms
# in grey levels of 255. In Nosferatu (`films/train` of the recorded data) about half of the pairs that
# share a shot differ by less.
NEAR_LAYOUT = 12.0
NEAR_PICTURE = 18.0
# Strata by the number of cuts in a window; the last holds all with as many or more.
STRATA = (0, 1, 2)
# Amplitudes of motion, in grey levels: a window that differs less from the session's mean has no score.
_LEAST_MOTION = 0.25

# Windows told apart by what changes within each alone.
TEMPORAL = "identification_2way_temporal"
# What a clip of the true colour reaches. No signal changes it.
TOLD_COLOUR = "psnr_told_colour"

# What a guess scores on average, where that is known. Where it depends on the film, the brain of another film
# stands for it.
IDENTIFICATION_CHANCE: dict[str, float | None] = {
    "identification_2way_centred": 0.5,
    "identification_10way_centred": 0.1,
    "identification_50way_centred": 0.02,
    "identification_2way_matched": 0.5,
    TEMPORAL: 0.5,
    **{f"identification_2way_centred_cuts_{number}": 0.5 for number in STRATA},
    "bits_per_window": 0.0,
}
PICTURES_CHANCE: dict[str, float | None] = {
    "layout_colour": 0.0,
    "layout_luminance": 0.0,
    "motion_energy": 0.0,
    "direction_error_deg": 90.0,
    "order": 0.5,
    "ssim": None,
    "psnr": None,
    "psnr_own_colour": None,
    TOLD_COLOUR: None,
    "sharpness": None,
    "sharpness_codec": None,
    "cut_f1": None,
}
CHANCE = IDENTIFICATION_CHANCE | PICTURES_CHANCE

Matrix = NDArray[np.float64]
# Metric -> score and weight of each window, (window,) each. A figure is the mean under the weights.
Scores = dict[str, tuple[Matrix, Matrix]]


@dataclass(frozen=True)
class Looks:
    """What is measured of clips one by one.

    Attributes
    ----------
    colours : (clip, 4, 6, 3)
        See `rtdecode.scores.colours.layouts`.
    energies : (clip, direction, 4, 6)
        See `train.metrics.motion.motion_energy`.
    sharpness : (clip,)
        Gradient energy.
    """

    colours: Matrix
    energies: Matrix
    sharpness: Matrix


@dataclass(frozen=True)
class FilmWindows:
    """What a film shows in the windows of a session.

    Attributes
    ----------
    clips : list of uint8 (frame, row, column, 3)
        True clips; on disk if they are many or large.
    where : list of (run, start_s, stop_s)
        Run and time of each window.
    cuts : list of int
        First frame of each shot of the film but the first.
    allowed : (window, window) bool
        Windows that may be told apart: they share no time and no shot, and are no near-duplicates.
    near : int
        Pairs of windows that are left out as near-duplicates.
    pairs : list of (int, int)
        See `matched`.
    within : (window,) int
        Number of cuts inside each window.
    looks : Looks
        What is measured of the true clips.
    through_codec : (window,) or None
        Gradient energy of what the decoder's codec makes of the true clips; None without a codec.
    """

    clips: list[Pixels]
    where: list[Span]
    cuts: list[int]
    allowed: NDArray[np.bool_]
    near: int
    pairs: list[tuple[int, int]]
    within: NDArray[np.int64]
    looks: Looks
    through_codec: Matrix | None


def describe(
    film: Watched,
    where: list[Span],
    recoded: Sequence[Pixels] | None = None,
    rows: NDArray[np.int64] | None = None,
) -> FilmWindows:
    """Measure what a film shows.

    Parameters
    ----------
    film : Watched
        The film on the grid of the windows.
    where : list of (run, start_s, stop_s)
        Its windows.
    recoded : sequence of (frame, row, column, 3), optional
        The true clips through the decoder's codec.
    rows : (window,) int64, optional
        Number of each window in the film. By default they follow each other from its first frame on.
    """
    numbers = list(range(len(where))) if rows is None else rows.tolist()
    # The last frame of a clip lies after the window, and may lie behind a cut.
    clips = keep(film.clip(k)[:-1] for k in numbers)
    measured = look(clips)
    comparable = distractors(where, events({where[0][0]: film}))
    near = comparable & near_duplicates(clips, measured.colours)
    allowed = comparable & ~near
    frames = len(clips[0])
    cuts = _cuts(film, numbers, frames)
    # A cut at a window's very start is not inside.
    cuts_inside = [sum(k * frames < cut < (k + 1) * frames for cut in cuts) for k in range(len(where))]
    return FilmWindows(
        clips=clips,
        where=where,
        cuts=cuts,
        allowed=allowed,
        near=int(near.sum()) // 2,
        pairs=matched(measured.colours, allowed),
        within=np.array(cuts_inside, np.int64),
        looks=measured,
        through_codec=None if recoded is None else gradient_energy(recoded),
    )


def _cuts(film: Watched, numbers: Sequence[int], frames: int) -> list[int]:
    """List the cuts of windows of a film that are put one after the other, by their first frames."""
    cuts: list[int] = []
    for place, number in enumerate(numbers):
        first = number * frames
        starts = {int(cut) - first for cut in film.cut_frames if first <= cut < first + frames}
        # Where windows between are left out, two shots meet.
        if place and number != numbers[place - 1] + 1:
            starts.add(0)
        cuts += sorted(place * frames + start for start in starts)
    return [cut for cut in cuts if cut > 0]


def look(clips: Sequence[Pixels]) -> Looks:
    """Measure clips one by one."""
    return Looks(layouts(clips), motion_energy(clips), gradient_energy(clips))


def near_duplicates(clips: Sequence[Pixels], colours: Matrix) -> NDArray[np.bool_]:
    """Tell which windows show nearly the same, (window, window); see `NEAR_LAYOUT` and `NEAR_PICTURE`."""
    # Pictures of large clips go to the disk as clips do, each as one of one frame.
    pictures = keep(mean_picture(clip).astype(np.float32)[None] for clip in clips)
    near = _distances(keep(colours.reshape(len(clips), 1, *colours.shape[1:]))) < NEAR_LAYOUT
    return near & (_distances(pictures) < NEAR_PICTURE)


def _distances(pictures: Sequence[Pixels]) -> Matrix:
    """Return the rms difference of each two pictures, each a clip (1, row, column, 3)."""
    shape = pictures[0].shape
    squares = np.zeros(len(pictures))
    twice = np.zeros((len(pictures), len(pictures)))
    for frame, rows in blocks(shape):
        x = np.stack([picture[frame, rows].ravel() for picture in pictures]).astype(np.float64)
        squares += np.square(x).sum(axis=1)
        twice += 2 * x @ x.T
    total = squares[:, None] + squares[None] - twice
    return np.sqrt(np.maximum(total, 0) / math.prod(shape))


def matched(colours: Matrix, allowed: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Pair windows so that the sum of the distances of their colour layouts is least.

    Parameters
    ----------
    colours : (window, 4, 6, 3)
        Layouts of the true clips.
    allowed : (window, window) bool
        Pairs that may be made.

    Returns
    -------
    list of (int, int)
        Each window is in one pair at most. The matching is Edmonds' (1965), by networkx.
    """
    flat = colours.reshape(len(colours), -1)
    # Not `_distances`: a matrix product rounds as the number of threads has it, which would choose partners.
    distances = cdist(flat, flat) / np.sqrt(flat.shape[1])
    graph = networkx.Graph()
    for a, b in combinations(range(len(colours)), 2):
        if allowed[a, b]:
            graph.add_edge(a, b, weight=float(distances[a, b]))
    return sorted((min(pair), max(pair)) for pair in networkx.min_weight_matching(graph))


def score(
    clips: Sequence[Pixels],
    truth: FilmWindows,
    mean_clip: Pixels,
    temperature: float,
    looks: Looks | None = None,
) -> Scores:
    """Hold the clips of one session against its film: `told_apart` and `pictured`."""
    return told_apart(clips, truth, mean_clip, temperature) | pictured(clips, truth, looks)


def pictured(clips: Sequence[Pixels], truth: FilmWindows, looks: Looks | None = None) -> Scores:
    """Compare the clips of one session with its film as pictures and as moving ones.

    Parameters
    ----------
    clips : sequence of uint8 (frame, row, column, 3)
        A clip for each window; frames beyond those of the truth are left out.
    truth : FilmWindows
        What the film shows in the same windows.
    looks : Looks, optional
        What was measured of the clips already.
    """
    truths = truth.clips
    frames = len(truths[0])
    cut: list[Pixels] = [clip[:frames] for clip in clips]
    looks = look(cut) if looks is None else looks
    film = truth.looks
    ones = np.ones(len(truths))
    error, moving = direction_error(looks.energies, film.energies)
    motion = agreement(opponent(looks.energies), opponent(film.energies), _LEAST_MOTION)
    scores = {
        "layout_colour": (agreement(hue(looks.colours), hue(film.colours)), ones),
        "layout_luminance": (agreement(luminance(looks.colours), luminance(film.colours)), ones),
        "motion_energy": (motion, ones),
        "direction_error_deg": (error, moving),
        "order": (order(cut, truths, truth.within > 0), ones),
        "ssim": (ssim(cut, truths), ones),
        "psnr": (psnr(cut, truths), ones),
        "psnr_own_colour": (psnr(one_colour(cut), truths), ones),
        TOLD_COLOUR: (psnr(one_colour(truths), truths), ones),
        "sharpness": _over(looks.sharpness, film.sharpness),
        "cut_f1": cut_counts(cut, truth.cuts),
    }
    if truth.through_codec is not None:
        scores["sharpness_codec"] = _over(looks.sharpness, truth.through_codec)
    return scores


def told_apart(clips: Sequence[Pixels], truth: FilmWindows, mean_clip: Pixels, temperature: float) -> Scores:
    """Identify windows by the clips of one session.

    Parameters
    ----------
    clips : sequence of uint8 (frame, row, column, 3)
        A clip for each window; frames beyond those of the truth are left out.
    truth : FilmWindows
        What the film shows in the same windows.
    mean_clip : (frame, row, column, 3)
        Training mean.
    temperature : float
        See `train.metrics.infonce.bits`.
    """
    cut: list[Pixels] = [clip[: len(truth.clips[0])] for clip in clips]
    plain = correlations(cut, truth.clips, mean_clip)
    moving = similarity(changes(cut), changes(truth.clips))
    identified = identify(similarity(cut, truth.clips), plain, truth, temperature)
    return identified | {TEMPORAL: (identification_nway(moving, truth.allowed, 2), np.ones(len(cut)))}


def changes(clips: Sequence[Pixels]) -> list[Pixels]:
    """Take from each clip its own mean over time. Nothing is left of one that stands still.

    What is left is computed where it is looked at; the means are kept, on disk if they are large.
    """
    means = keep(mean_picture(clip).astype(np.float32)[None] for clip in clips)
    return [less(clip, mean) for clip, mean in zip(clips, means, strict=True)]


def similarity(clips: Sequence[Pixels], truths: Sequence[Pixels]) -> Matrix:
    """Correlate clips and true clips of one session, each less its own mean over the session.

    Returns
    -------
    (clip, truth) float64
        NaN for a clip that is always the same: it has nothing left.
    """
    still = np.zeros(truths[0].shape, np.float32)
    return correlations(_centred(clips), _centred(truths), still)


def _centred(clips: Sequence[Pixels]) -> list[Pixels]:
    # In double precision, so that nothing is left of a clip that is always the same.
    mean = mean_clip(clips)
    return [less(clip, mean) for clip in clips]


def identify(alike: Matrix, plain: Matrix, truth: FilmWindows, temperature: float) -> Scores:
    """Identify windows among those of their session.

    A name that ends in ``_centred`` says that the session's own mean was removed from its clips and from its
    film. Without that ending it is the training mean, as in a session's report (`rtdecode.scores.accuracy`).

    Parameters
    ----------
    alike : (clip, truth)
        How alike each clip and each true clip are, with the session's mean removed.
    plain : (clip, truth)
        The same without that, for windows in pairs: a clip that is always the same has something to be
        compared with, and wins half.
    truth : FilmWindows
        What the film shows in the same windows.
    temperature : float
        See `train.metrics.infonce.bits`.
    """
    allowed = truth.allowed
    two = identification_nway(alike, allowed, 2)
    values = {
        "identification_2way_centred": two,
        "identification_10way_centred": identification_nway(alike, allowed, 10),
        "identification_50way_centred": identification_nway(alike, allowed, 50),
        "identification_top1_centred": identification_top1(alike, allowed),
        "identification_2way_matched": in_pairs(plain, truth.pairs),
        "bits_per_window": bits(alike, allowed, temperature),
    }
    for number in STRATA:
        in_stratum = truth.within >= number if number == STRATA[-1] else truth.within == number
        values[f"identification_2way_centred_cuts_{number}"] = np.where(in_stratum, two, np.nan)
    return {name: (value, np.ones(len(value))) for name, value in values.items()}


def in_pairs(corr: Matrix, pairs: list[tuple[int, int]]) -> Matrix:
    """Return the mean of both members' wins for each window in a pair, (window,); NaN for one without.

    A tie is half a win, and so is a correlation that does not exist: any clip that is always the same, the
    mean clip included, scores 0.5.
    """
    finite_corr = np.nan_to_num(corr)
    shares = np.full(len(corr), np.nan)
    for a, b in pairs:
        shares[[a, b]] = duels(
            [finite_corr[a, a], finite_corr[b, b]], [finite_corr[a, b], finite_corr[b, a]]
        ).mean()
    return shares


def averaged(scores: Sequence[Scores], metric: str) -> tuple[Matrix, Matrix]:
    """Average several scores of the same windows under their weights, and add up the weights."""
    values = [np.nan_to_num(member[metric][0]) for member in scores]
    weights = [np.where(np.isfinite(member[metric][0]), member[metric][1], 0) for member in scores]
    total = np.sum(weights, axis=0)
    summed = np.sum([value * weight for value, weight in zip(values, weights, strict=True)], axis=0)
    return np.divide(summed, total, out=np.full(len(total), np.nan), where=total > 0), total


def _over(decoded: Matrix, film: Matrix) -> tuple[Matrix, Matrix]:
    """Return a ratio and its weight, so that the mean under the weights is the ratio of the sums."""
    return np.divide(decoded, film, out=np.full(len(film), np.nan), where=film > 0), film


def look_once(clip: Pixels, count: int) -> Looks:
    """Measure a clip that is the same in so many windows once, and repeat what was measured."""
    looks = look([clip])
    return Looks(
        np.repeat(looks.colours, count, axis=0),
        np.repeat(looks.energies, count, axis=0),
        np.repeat(looks.sharpness, count),
    )
