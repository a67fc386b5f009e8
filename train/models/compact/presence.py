"""Whether a window holds a brain that the encoder can read: the fit of the probabilities.

Windows of sessions that trained nothing are shown to the encoder: those in which a film was watched, at
several presets, and windows that hold something else. The latter are a participant at rest, white noise in
place of both signals, and EEG that belongs to another window than the volumes. Two logistic regressions on
the evidence (`train.models.compact.evidence`) tell them apart, for each route. They are fitted to the prior
that the bundle states. Other participants and caps that are put on wrongly are not shown here: on them the
probabilities are judged.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from train.closed_form.brain_maps import fit_logistic
from train.closed_form.refine import ROUTES
from train.models.compact.encoder import BrainEncoder
from train.models.compact.evidence import CLIP, COUNT, KNOWN
from train.work import Arrays

Matrix = NDArray[np.float64]

# Probabilities, before a window was seen, that it holds a brain, signals that do not belong together, or
# nothing that can be read.
PRIOR = {"brain": 0.5, "inconsistent": 0.25, "neither": 0.25}
# Windows between one whose volumes are taken and one whose EEG is.
_APART = 10
_AT_ONCE = 50
# Ridge penalty of the regressions. There are some dozens of terms, and thousands of windows.
_PENALTY = 0.1


@dataclass(frozen=True)
class Shown:
    """Evidence of windows, (window, number), by what they hold; in its own units until `standardise`."""

    brain: Matrix
    inconsistent: Matrix
    neither: list[Matrix]


@torch.no_grad()
def evidence_of(encoder: BrainEncoder, windows: Arrays) -> Matrix:
    """Measure normalised windows, given by port, in the numbers' own units, (window, number)."""
    found = []
    for n in range(0, len(windows["eeg"]), _AT_ONCE):
        rows = [torch.from_numpy(windows[name][n : n + _AT_ONCE]) for name in ("eeg", "fmri", "fmri_mask")]
        found.append(encoder.measure(*rows).numpy().astype(np.float64))
    return np.concatenate(found)


def show(encoder: BrainEncoder, watched: Sequence[Arrays], resting: Sequence[Arrays], seed: int) -> Shown:
    """Show windows of sessions to the encoder, those that hold a brain and others made of them.

    Parameters
    ----------
    encoder : BrainEncoder
    watched, resting : sequence of dict
        Normalised windows by port, of each session in which a film was watched, and at rest. Where nobody
        rested, white noise alone is nothing that can be read.
    seed : int
    """
    rng = np.random.default_rng((seed, 71))
    swapped = [one | {"eeg": np.roll(one["eeg"], _apart(len(one["eeg"])), axis=0)} for one in watched]
    noise = [
        one | {name: rng.standard_normal(one[name].shape, np.float32) for name in ("eeg", "fmri")}
        for one in watched
    ]

    def measured(sets: Sequence[Arrays]) -> Matrix:
        return np.concatenate([evidence_of(encoder, one) for one in sets])

    return Shown(measured(watched), measured(swapped), [measured(sets) for sets in (resting, noise) if sets])


def _apart(windows: int) -> int:
    """Return how far apart volumes and EEG are taken that do not belong together."""
    # A short session turned by its whole length would be the same again.
    return min(_APART, windows // 2)


def standardise(encoder: BrainEncoder, shown: Shown) -> Shown:
    """Let the encoder measure against windows that hold a brain, and return the numbers measured so."""
    middle = shown.brain.mean(0)
    scale = np.maximum(shown.brain.std(0), 1e-6)
    encoder.evidence.middle.copy_(torch.from_numpy(middle))
    encoder.evidence.scale.copy_(torch.from_numpy(scale))
    return Shown(
        (shown.brain - middle) / scale,
        (shown.inconsistent - middle) / scale,
        [(one - middle) / scale for one in shown.neither],
    )


def fit_presence(shown: Shown) -> Arrays:
    """Fit the weights of `BrainEncoder.presence`, by their names in the encoder.

    With one modality alone nothing can be inconsistent, and its share of the prior is left out.
    """
    found: Arrays = {}
    for route in ROUTES:
        known = KNOWN[route]
        brain, inconsistent, *neither = (
            terms(one[:, known]) for one in (shown.brain, shown.inconsistent, *shown.neither)
        )
        there = [(brain, PRIOR["brain"])]
        if route == "both":
            there.append((inconsistent, PRIOR["inconsistent"]))
        nothing = [(one, PRIOR["neither"] / len(neither)) for one in neither]
        found[f"neither_{route}"] = _wide(_told_apart(there, nothing), known)
        if route == "both":
            found["inconsistent"] = _wide(_told_apart(there[:1], there[1:]), known)
    return found


def terms(evidence: Matrix) -> Matrix:
    """Return the numbers and their squares: too little of something tells as much as too much."""
    kept = np.clip(evidence, -CLIP, CLIP)
    return np.concatenate([kept, kept**2], axis=1)


def _told_apart(ones: Sequence[tuple[Matrix, float]], others: Sequence[tuple[Matrix, float]]) -> Matrix:
    """Fit the probability of the others; each set of windows weighs as much as the prior says."""
    rows = np.concatenate([x for x, _ in (*ones, *others)])
    weights = np.concatenate([np.full(len(x), share / len(x)) for x, share in (*ones, *others)])
    told = np.concatenate([np.zeros(sum(len(x) for x, _ in ones)), np.ones(sum(len(x) for x, _ in others))])
    return fit_logistic(rows, told, _PENALTY, weights=weights * len(rows) / weights.sum())


def _wide(weights: Matrix, known: slice) -> NDArray[np.float64]:
    """Lay weights of the numbers that a route knows out among those of all, with the offset last."""
    whole = np.arange(COUNT)[known]
    found = np.zeros(2 * COUNT + 1)
    found[whole] = weights[: len(whole)]
    found[COUNT + whole] = weights[len(whole) : -1]
    found[-1] = weights[-1]
    return found
