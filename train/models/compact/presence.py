"""Fit the probabilities that a window holds a brain that the encoder can read.

Windows of sessions that trained nothing are shown to the encoder: those in which a film was watched, at
several presets and with what a session may suffer (`train.data.phantom.DISTURBANCES`), and windows that
hold something else. The latter are a participant at rest, white noise in place of both signals, and EEG that
belongs to another window than the volumes.

Two things are fitted to the evidence of these windows (`train.models.compact.evidence`). For each modality
and each kind of session in which a film was watched, a normal density says what its numbers look like, and
its distance what is too unlike them to be read at all: noise of any strength, another participant, a cap put
on wrongly. None of these is shown here. Within that distance, two logistic regressions for each route tell
the kinds apart. They are fitted to the prior that the bundle states.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rtdecode.bundle.brain import MODALITIES
from train.closed_form.brain_maps import fit_logistic
from train.closed_form.refine import ROUTES
from train.config.run_context import Arrays
from train.data.phantom import ELECTRODE
from train.models.compact.encoder import CompactEncoder
from train.models.compact.evidence import CLIP, COLUMNS, COUNT

Matrix = NDArray[np.float64]
Standard = tuple[Matrix, Matrix]
# The kind of a session, such as "easy motion", and the evidence of its windows, (window, number).
Session = tuple[str, Matrix]

# Probabilities, before a window was seen, that it holds a brain, signals that do not belong together, or
# nothing that can be read.
PRIOR = {"brain": 0.5, "inconsistent": 0.25, "neither": 0.25}
# Share of the windows of a kind of session that lie within the distance fitted to it; and of a kind in which
# something is suffered, which is broader, and would take in too much that is no brain.
_WITHIN = 0.99
_WITHIN_DISTURBED = 0.95
# Windows between one whose volumes are taken and one whose EEG is.
_EEG_SHIFT = 10
_AT_ONCE = 50
# Ridge penalty of the regressions. There are some dozens of terms, and thousands of windows.
_PENALTY = 0.1
# What a kind of session counts in which a brain is hard to read, by its preset or by what is suffered: at
# `hard` most windows cannot be told from rest, and were they to count fully, rest would pass for a film.
_LESS = 0.3
_UNREADABLE = "hard"
# Parts of a session that are left out in turns where there is one alone.
_PARTS = 5
# Share of a covariance that is replaced by its diagonal: a kind of session has some hundred windows.
_SHRINKAGE = 0.05
_LEAST = 1e-6


@dataclass(frozen=True)
class EvidenceByClass:
    """Evidence of windows, (window, number), by what they hold; in its own units until `standardise`.

    Attributes
    ----------
    held_out, presence : list of Session
        Kind and windows of each session in which a film was watched: those on which choices are made, and
        those that only show what a brain looks like.
    inconsistent : list of Session
        The same sessions with EEG of other windows.
    neither : list of list of Session
        By what they hold instead.
    """

    held_out: list[Session]
    presence: list[Session]
    inconsistent: list[Session]
    neither: list[list[Session]]

    @property
    def brain(self) -> list[Session]:
        """All sessions that hold a brain."""
        return [*self.held_out, *self.presence]


@torch.no_grad()
def evidence_of(encoder: CompactEncoder, windows: Arrays) -> Matrix:
    """Measure normalised windows, given by port, in the numbers' own units, (window, number)."""
    numbers = []
    for n in range(0, len(windows["eeg"]), _AT_ONCE):
        rows = [torch.from_numpy(windows[name][n : n + _AT_ONCE]) for name in ("eeg", "fmri", "fmri_mask")]
        numbers.append(encoder.measure(*rows).numpy().astype(np.float64))
    return np.concatenate(numbers)


def show(
    encoder: CompactEncoder,
    held_out: Iterable[tuple[str, Arrays]],
    presence: Iterable[tuple[str, Arrays]],
    resting: Iterable[tuple[str, Arrays]],
    seed: int,
) -> EvidenceByClass:
    """Show windows of sessions to the encoder, those that hold a brain and others made of them.

    Parameters
    ----------
    encoder : CompactEncoder
        Measures the windows.
    held_out, presence : iterable of (str, dict)
        Of each session in which a film was watched, its kind and its normalised windows by port; see
        `EvidenceByClass`.
    resting : iterable of (str, dict)
        The same of sessions at rest. Where nobody rested, white noise alone is nothing that can be read.
    seed : int
        Seed of the white noise.
    """
    rng = np.random.default_rng((seed, 71))
    swapped: list[Session] = []
    noise: list[Session] = []

    def looked_at(kind: str, windows: Arrays) -> Session:
        later = np.roll(windows["eeg"], _apart(len(windows["eeg"])), axis=0)
        swapped.append((kind, evidence_of(encoder, windows | {"eeg": later})))
        white = {name: rng.standard_normal(windows[name].shape, np.float32) for name in ("eeg", "fmri")}
        noise.append((kind, evidence_of(encoder, windows | white)))
        return kind, evidence_of(encoder, windows)

    held_out_sessions = [looked_at(kind, windows) for kind, windows in held_out]
    presence_sessions = [looked_at(kind, windows) for kind, windows in presence]
    resting_sessions = [(kind, evidence_of(encoder, windows)) for kind, windows in resting]
    return EvidenceByClass(
        held_out_sessions, presence_sessions, swapped, [sets for sets in (resting_sessions, noise) if sets]
    )


def _apart(windows: int) -> int:
    """Return how far apart volumes and EEG are taken that do not belong together."""
    # A short session turned by its whole length would be the same again.
    return min(_EEG_SHIFT, windows // 2)


def fit(encoder: CompactEncoder, evidence: EvidenceByClass, standard: Standard | None = None) -> list[Matrix]:
    """Fit the limits and the probabilities of a brain, and set them in the encoder.

    Parameters
    ----------
    encoder : CompactEncoder
        Gets the limits and the weights of the probabilities.
    evidence : EvidenceByClass
        What `show` returned, in its own units.
    standard : (number,), (number,), optional
        Middle and scale by which the numbers are standardised; by default those of `held_out`.

    Returns
    -------
    list of (window, number)
        The numbers of each session of `held_out`, as the encoder measures them now.
    """
    evidence = standardise(encoder, evidence, standard)
    for name, values in fit_limits(evidence).items():
        # The number of kinds is not known before.
        encoder.evidence.register_buffer(name, torch.from_numpy(values))
    for name, weights in fit_presence(evidence).items():
        encoder.get_buffer(name).copy_(torch.from_numpy(weights))
    return [numbers for _, numbers in evidence.held_out]


def standardise(
    encoder: CompactEncoder, evidence: EvidenceByClass, standard: Standard | None = None
) -> EvidenceByClass:
    """Standardise the encoder's numbers by the windows `held_out`, and return them standardised."""
    if standard is None:
        watched = np.concatenate([numbers for _, numbers in evidence.held_out])
        standard = watched.mean(0), np.maximum(watched.std(0), _LEAST)
    middle, scale = standard
    encoder.evidence.middle.copy_(torch.from_numpy(middle))
    encoder.evidence.scale.copy_(torch.from_numpy(scale))

    def measured(sessions: list[Session]) -> list[Session]:
        return [(kind, (numbers - middle) / scale) for kind, numbers in sessions]

    return EvidenceByClass(
        measured(evidence.held_out),
        measured(evidence.presence),
        measured(evidence.inconsistent),
        [measured(sessions) for sessions in evidence.neither],
    )


def fit_limits(evidence: EvidenceByClass) -> Arrays:
    """Fit what `Evidence` compares each modality's numbers with, by their names there.

    The Mahalanobis distance to a kind of session is divided by the one within which 99 % of the windows of
    a session lie that was left out of the fit, and 95 % where something was suffered. An electrode without
    contact moves the numbers of its session, by its place, and makes them no broader: each such session is
    a kind of its own, of the shape that its preset has without.
    """
    limits: Arrays = {}
    for modality in MODALITIES:
        kinds: dict[str, list[Matrix]] = {}
        for kind, numbers in evidence.brain:
            kinds.setdefault(kind, []).append(numbers[:, COLUMNS[modality]])
        middles: list[Matrix] = []
        roots: list[Matrix] = []
        for kind, sessions in kinds.items():
            preset, *disturbances = kind.split()
            within = _WITHIN_DISTURBED if disturbances else _WITHIN
            if ELECTRODE in disturbances:
                middles += [numbers.mean(0) for numbers in sessions]
                roots += [_limited(kinds[preset], within)] * len(sessions)
            else:
                middles.append(np.concatenate(sessions).mean(0))
                roots.append(_limited(sessions, within))
        limits[f"{modality}_middle"] = np.stack(middles).astype(np.float32)
        limits[f"{modality}_root"] = np.stack(roots).astype(np.float32)
    return limits


def _limited(sessions: list[Matrix], within: float) -> Matrix:
    """Return the root that brings the distance within which a share of left-out windows lies to 1."""
    # Parts of the only session stand for sessions.
    parts = sessions if len(sessions) > 1 else np.array_split(sessions[0], _PARTS)
    left_out = [
        _distances(numbers, *_normal(np.concatenate([*parts[:number], *parts[number + 1 :]])))
        for number, numbers in enumerate(parts)
    ]
    _, root = _normal(np.concatenate(sessions))
    return root / np.quantile(np.concatenate(left_out), within)


def _normal(rows: Matrix) -> tuple[Matrix, Matrix]:
    """Return mean and a root of the inverse covariance, so that ``(x - mean) @ root`` is white."""
    covariance = np.cov(rows, rowvar=False)
    covariance = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * np.diag(np.diag(covariance))
    values, vectors = np.linalg.eigh(covariance)
    return rows.mean(0), vectors / np.sqrt(np.maximum(values, _LEAST))


def _distances(rows: Matrix, middle: Matrix, root: Matrix) -> Matrix:
    return np.linalg.norm((rows - middle) @ root, axis=1)


def fit_presence(evidence: EvidenceByClass) -> Arrays:
    """Fit the weights of `CompactEncoder.presence`, by their names in the encoder.

    With one modality alone nothing can be inconsistent, and its share of the prior is left out.
    """
    weights: Arrays = {}
    for route in ROUTES:
        columns = COLUMNS[route]
        brain = _weighed(evidence.brain, columns, PRIOR["brain"])
        inconsistent = _weighed(evidence.inconsistent, columns, PRIOR["inconsistent"])
        share = PRIOR["neither"] / len(evidence.neither)
        nothing = [_weighed(sessions, columns, share) for sessions in evidence.neither]
        something = [brain, inconsistent] if route == "both" else [brain]
        weights[f"neither_{route}"] = _wide(_logistic(something, nothing), columns)
        if route == "both":
            weights["inconsistent"] = _wide(_logistic([brain], [inconsistent]), columns)
    return weights


def _weighed(sessions: Sequence[Session], columns: slice, share: float) -> tuple[Matrix, Matrix]:
    """Return the terms of the windows of some sessions, and their weights, which sum to a share.

    Every kind of session counts as much as any other, but for those of `_LESS`.
    """
    windows = Counter[str]()
    for kind, numbers in sessions:
        windows[kind] += len(numbers)
    per_session = [np.full(len(numbers), _weight(kind) / windows[kind]) for kind, numbers in sessions]
    weights = np.concatenate(per_session)
    rows = np.concatenate([numbers[:, columns] for _, numbers in sessions])
    return terms(rows), share * weights / weights.sum()


def _weight(kind: str) -> float:
    preset, *disturbances = kind.split()
    return _LESS ** ((preset == _UNREADABLE) + len(disturbances))


def terms(evidence: Matrix) -> Matrix:
    """Return the numbers and their squares: too little of something tells as much as too much."""
    clipped = np.clip(evidence, -CLIP, CLIP)
    return np.concatenate([clipped, clipped**2], axis=1)


def _logistic(
    negatives: Sequence[tuple[Matrix, Matrix]], positives: Sequence[tuple[Matrix, Matrix]]
) -> Matrix:
    """Fit the probability of the positives to sets of rows with their weights."""
    rows = np.concatenate([x for x, _ in (*negatives, *positives)])
    weights = np.concatenate([weight for _, weight in (*negatives, *positives)])
    labels = np.concatenate(
        [np.zeros(sum(len(x) for x, _ in negatives)), np.ones(sum(len(x) for x, _ in positives))]
    )
    return fit_logistic(rows, labels, _PENALTY, weights=weights * len(rows) / weights.sum())


def _wide(weights: Matrix, columns: slice) -> NDArray[np.float64]:
    """Put the weights of a route's numbers in their places among all numbers, with the offset last."""
    numbers = np.arange(COUNT)[columns]
    wide = np.zeros(2 * COUNT + 1)
    wide[numbers] = weights[: len(numbers)]
    wide[COUNT + numbers] = weights[len(numbers) : -1]
    wide[-1] = weights[-1]
    return wide
