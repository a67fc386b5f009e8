"""Fréchet video distance: how far the features of two sets of videos lie apart, as two normal distributions.

The detector is StyleGAN-V's (universome/stylegan-v, ``i3d_torchscript.pt``), a TorchScript file that users
have. The distance does not transfer between codes: a baseline published at 45 to 53 was re-run by others at
895. It is also biased upwards where clips are few: 400 features have 80,200 covariances. So it is told
together with n, and beside its floors: the distance between two halves of the film itself, and between
training clips and the film.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import Pixels
from rtdecode.errors import UsageError
from rtdecode.scores.intervals import FEWEST, Interval, of_pseudovalues

# The detector halves time several times. It cannot take a clip of fewer frames.
LEAST_FRAMES = 10
# Clips that the detector takes at once, and fewer if they have more values together than this.
_BATCH = 4
_VALUES = 2**25

_NO_UNITS = Interval(None, 0, reason="a distance of one set of clips")

Matrix = NDArray[np.floating]
Detector = Callable[[Sequence[Pixels]], NDArray[np.float64]]


def frechet(a: Matrix, b: Matrix) -> float:
    """Compute the Fréchet distance of two sets of features, each taken for a normal distribution.

    Parameters
    ----------
    a, b : (clip, value)
        Two clips at least of each.

    Returns
    -------
    float
        ``|mean_a - mean_b|^2 + tr(A + B - 2 sqrt(A B))``, with the covariances A and B of the population, as
        in StyleGAN-V.

    Raises
    ------
    ValueError
        If a set holds fewer than two clips.

    Notes
    -----
    Dowson and Landau 1982, J. Multivar. Anal. 12:450. The square root of the product ``A B`` of two singular
    matrices is not stable. With ``A = X'X`` and ``B = Y'Y``, of centred and scaled features X and Y, its
    trace is the sum of the singular values of ``X Y'``, for which no covariance is formed.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a distance takes two clips at least on each side, found {len(a)} and {len(b)}")
    mean_a, root_a = _normal(a)
    mean_b, root_b = _normal(b)
    between = np.linalg.norm(root_a @ root_b.T, "nuc")
    mean_term = np.square(mean_a - mean_b).sum()
    distance = mean_term + np.square(root_a).sum() + np.square(root_b).sum() - 2 * between
    # Rounding may leave a little less than nothing.
    return float(max(distance, 0.0))


def _normal(features: Matrix) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean, and a matrix R with no more rows than columns whose R'R is the covariance."""
    wide = features.astype(np.float64)
    mean = wide.mean(axis=0)
    centred = (wide - mean) / np.sqrt(len(wide))
    if len(centred) <= centred.shape[1]:
        return mean, centred
    return mean, np.asarray(np.linalg.qr(centred, mode="r"))


def between_halves(features: Matrix, blocks: NDArray[np.int64], seed: int = 0) -> float | None:
    """Compute the distance between two halves of one film, which no decoder of half as many clips can beat.

    Parameters
    ----------
    features : (clip, value)
        Features of the clips by the detector.
    blocks : (clip,) int
        Clips with the same number stay in one half: neighbours in time are alike.
    seed : int
        Of the order in which blocks are dealt to the halves.

    Returns
    -------
    float or None
        None if a half would hold fewer than two clips.
    """
    order = np.random.default_rng(seed).permutation(np.unique(blocks))
    first = np.isin(blocks, order[::2])
    if min(first.sum(), (~first).sum()) < 2:
        return None
    return frechet(features[first], features[~first])


def jackknife(a: Matrix, b: Matrix, blocks: NDArray[np.int64]) -> Interval:
    """Compute the 95 % interval of `frechet` of clips and their truths, leaving out one block at a time.

    A bootstrap would draw some clips twice, which narrows the covariance and moves the distance itself.

    Parameters
    ----------
    a, b : (clip, value)
        Row i of the one belongs to row i of the other.
    blocks : (clip,) int
        Clips with the same number are left out together.

    Returns
    -------
    Interval
        A t interval by Tukey's jackknife, however many blocks there are.
    """
    numbers, sizes = np.unique(blocks, return_counts=True)
    if len(numbers) < FEWEST or len(a) - sizes.max() < 2:
        return Interval(None, len(numbers), reason="too few blocks, or one that holds nearly all clips")
    without = np.array([frechet(a[blocks != n], b[blocks != n]) for n in numbers])
    return of_pseudovalues(frechet(a, b), without)


def figure(value: float, n: int, constant: float, interval: Interval = _NO_UNITS) -> dict[str, Any]:
    """Make the figure of a distance.

    Parameters
    ----------
    value : float
    n : int
        Number of clips.
    constant : float
        The distance of one picture that is always the same.
    interval : Interval, optional
        None of a floor, which is computed of one set of clips as a whole.
    """
    return (
        {"value": value, "chance": None, "shuffled": None, "constant": constant}
        | interval.entries()
        | {"n": n}
    )


def detector(file: Path) -> Detector:
    """Load the detector.

    Parameters
    ----------
    file : Path
        ``i3d_torchscript.pt``, or any TorchScript file that is called in the same way.

    Returns
    -------
    callable
        Makes features of clips, (clip, value) float64.

    Raises
    ------
    UsageError
        If the file is missing or is no TorchScript file; and, by the callable, if clips are shorter than 10
        frames.
    """
    import torch

    if not file.is_file():
        raise UsageError(
            "fvd-detector-missing",
            "fvd={path}: there is no such file. Give StyleGAN-V's detector, i3d_torchscript.pt, "
            "which is not part of this project.",
            path=file,
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with warnings.catch_warnings():
        # The detector is published in this form alone, which torch calls deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            network = torch.jit.load(str(file), map_location=device).eval()
        except RuntimeError as error:
            raise UsageError(
                "fvd-detector-unreadable",
                "fvd={path} is no TorchScript file. Give StyleGAN-V's detector, i3d_torchscript.pt.",
                path=file,
            ) from error

    @torch.no_grad()
    def features(clips: Sequence[Pixels]) -> NDArray[np.float64]:
        batches = []
        at_once = max(1, min(_BATCH, _VALUES // math.prod(clips[0].shape)))
        for first in range(0, len(clips), at_once):
            some = np.stack([np.asarray(clip, np.uint8) for clip in clips[first : first + at_once]])
            if some.shape[1] < LEAST_FRAMES:
                raise UsageError(
                    "fvd-clips-too-short",
                    "fvd: the detector takes clips of {min_frames} frames or more, found "
                    "{frame_count}. Leave fvd= out for this bundle.",
                    min_frames=LEAST_FRAMES,
                    frame_count=some.shape[1],
                )
            # (clip, channel, frame, row, column) from 0 to 255. The detector scales and resizes by itself.
            videos = torch.from_numpy(some).permute(0, 4, 1, 2, 3).to(device, torch.float32)
            embedded = network(videos, rescale=True, resize=True, return_features=True)
            batches.append(embedded.double().cpu().numpy())
        return np.concatenate(batches)

    return features
