"""How alike the frames of one clip are, by the features of a network for pictures.

None of these figures looks at the truth, and a clip that stands still scores 1. So each stands beside the
film's own value, and the figure to read is the absolute difference from it. Three definitions are published,
and a figure must name its own:

- `all_pairs`: NEURONS (xmed-lab/NEURONS, ``eval_metrics.py``, ``clip_score_frame``), with CLIP ViT-L/14;
- `consecutive`: MindAnimator, with CLIP ViT-B/32. The published figure is set to 0 for clips that a video
  classifier does not recognise, which is why it cannot be compared with NEURONS';
- `to_first_and_previous`: the subject consistency of VBench (Vchitect/VBench), with DINO ViT-B/16. CineNeuron
  names it DTC and cites DINOv2.
"""

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.floating]


def all_pairs(features: Matrix) -> NDArray[np.float64]:
    """Average the cosine over all pairs of different frames.

    Parameters
    ----------
    features : (clip, frame, value)
        Features of the frames by a network for pictures.

    Returns
    -------
    (clip,) float64
        NaN for clips of one frame.
    """
    units = _units(features)
    count = units.shape[1]
    # The square of the sum holds every pair twice and every frame with itself once.
    total = np.square(units.sum(axis=1)).sum(axis=1) - count
    return _over(total, count * (count - 1))


def consecutive(features: Matrix) -> NDArray[np.float64]:
    """Average the cosine of each frame and the next, (clip,); `features` as for `all_pairs`."""
    units = _units(features)
    steps = (units[:, 1:] * units[:, :-1]).sum(axis=2)
    return _over(steps.sum(axis=1), steps.shape[1])


def to_first_and_previous(features: Matrix) -> NDArray[np.float64]:
    """Average each frame's cosine with the frame before it and with the first one, (clip,).

    Parameters
    ----------
    features : (clip, frame, value)
        Features of the frames by a network for pictures.

    Notes
    -----
    The mean over frames i >= 1 of ``(max(0, cos(i - 1, i)) + max(0, cos(0, i))) / 2``.
    """
    units = _units(features)
    before = np.maximum((units[:, 1:] * units[:, :-1]).sum(axis=2), 0)
    first = np.maximum((units[:, 1:] * units[:, :1]).sum(axis=2), 0)
    both = (before + first) / 2
    return _over(both.sum(axis=1), both.shape[1])


def _units(features: Matrix) -> NDArray[np.float64]:
    wide = features.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=2, keepdims=True)


def _over(total: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    return total / count if count else np.full(len(total), np.nan)
