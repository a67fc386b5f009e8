"""Classification as the papers count it, and strictly, from the class scores of a classifier.

A network for pictures or for videos scores its classes on the true clip and on the emitted one. The truth's
best classes by that network are taken for the truth. The emitted clip wins if one of them scores higher than
all of n - 1 other classes.

Two rules are in use, and a figure must say which:

- the papers' rule (`PAPERS`): any of the truth's best three classes may win. Chance is 3 / (n + 2), which is
  0.75 for 2 ways and 0.058 for 50, and not 1 / n;
- the strict rule (`STRICT`): the truth's best class alone. Chance is 1 / n.

The rule, the 100 draws and the networks come from MinD-Video (Chen, Qing and Zhou 2023, arXiv:2305.11675;
jqin4749/MindVideo), and NEURONS, GLFA and EEG2Video use the same function (xmed-lab/NEURONS,
``eval_metrics.py``).
"""

from math import comb

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from rtdecode.scores.ties import NO_SIZE, beats
from train.metrics.hypergeometric import prob_top_k

# How many of the truth's best classes are accepted.
PAPERS = 3
STRICT = 1
RULES = {"papers": PAPERS, "strict": STRICT}

Matrix = NDArray[np.floating]


def nway(
    decoded: Matrix, true: Matrix, n: int, places: int = 1, accepted: int = PAPERS
) -> NDArray[np.float64]:
    """Compute the exact n-way top-k accuracy of each clip or frame: the mean over all draws of classes.

    Parameters
    ----------
    decoded : (..., class)
        Scores of the emitted clips or frames, logits or probabilities.
    true : (..., class)
        Scores of the true ones. The two are broadcast against each other.
    n : int
        Number of classes that stand against each other, the right one included.
    places : int
        The k of top-k.
    accepted : int
        `PAPERS` or `STRICT`.

    Returns
    -------
    (...) float64
        NaN if the network has fewer than ``n - 1 + accepted`` classes.

    Notes
    -----
    Classes are drawn from those that are not accepted, without replacement. A tie is lost, and so is a score
    that is no number. So scores that are all equal win nothing.
    """
    right = accepted_classes(true, accepted)
    best = np.where(right, decoded, -np.inf).max(axis=-1, keepdims=True)
    # Written with "not beaten", so that what is no number counts as ahead.
    ahead = (~beats(best, decoded, NO_SIZE) & ~right).sum(axis=-1)
    return prob_top_k(ahead, true.shape[-1] - accepted, n - 1, places)


def accepted_classes(true: Matrix, accepted: int) -> NDArray[np.bool_]:
    """Mark the truth's best classes, (..., class); of classes that are level, those with a lower number."""
    order = np.argsort(-true, axis=-1, kind="stable")[..., :accepted]
    marked = np.zeros(true.shape, bool)
    np.put_along_axis(marked, order, True, axis=-1)
    return marked


def chance(n: int, places: int = 1, accepted: int = PAPERS) -> float:
    """Compute what scores in a random order win, which do not depend on the truth.

    The accepted classes and n - 1 others stand in a random order. The clip loses if the first `places` of
    them are all others. With one place this is ``accepted / (n - 1 + accepted)``.
    """
    return 1 - comb(n - 1, places) / comb(n - 1 + accepted, places)


def marginal(true: Matrix, accepted: int = PAPERS) -> NDArray[np.float64]:
    """Make the scores of a decoder that sees no brain, and knows how often each class is shown.

    Where a film shows few classes again and again, such a decoder is far above chance (a situation comedy has
    few of the 400 classes of Kinetics). It is told the judged clips themselves, so it is better than any
    guess that training could give.

    Parameters
    ----------
    true : (..., class)
        Scores of all true clips or frames: logits.
    accepted : int
        `PAPERS` or `STRICT`.

    Returns
    -------
    (class,) float64
        How many of the true clips have the class among their accepted ones. Their mean probability, which is
        below 1, decides between classes that have the same number.
    """
    classes = true.shape[-1]
    counts = accepted_classes(true, accepted).reshape(-1, classes).sum(axis=0)
    share = softmax(true, axis=-1).reshape(-1, classes).mean(axis=0, dtype=np.float64)
    return counts + share
