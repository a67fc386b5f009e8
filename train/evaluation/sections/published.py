"""The section `published`: the metrics that papers publish, by the networks that a request names.

The decoder, the constant picture and the floors of `JUDGED` are scored: the rest would take as long again for
each. `train.evaluation.published` computes the metrics.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import Pixels
from train.evaluation.beside import CONSTANT, DECODER, NEAREST, NULL, OTHER_FILM
from train.evaluation.film_scores import Scores
from train.evaluation.image_similarity import likenesses
from train.evaluation.published import (
    CHANCE,
    CLASSIFIERS,
    FILM,
    HALVES,
    MARGINAL,
    TRAINING,
    WAYS,
    NetworkFeatures,
    Published,
    Truth,
    weighted,
)
from train.evaluation.result import Figures
from train.evaluation.section import Decoded, EvaluatedRun, HeldOutWindows, Scorer, Section
from train.metrics import fvd
from train.metrics.classification import RULES, marginal, nway

JUDGED = (DECODER, NULL, NEAREST, OTHER_FILM)


class PublishedMetrics(Section):
    """See the module."""

    def begin(self, run: EvaluatedRun) -> Scorer | None:
        """Start to score a run; None where no network is named and no pictures are asked for."""
        return Tally(run.networks, run.mean_clip, run.baselines.clips) if run.networks else None


class Tally(Scorer):
    """What the clips of all sessions lead to.

    Parameters
    ----------
    networks : Published
        The networks that look at the clips.
    mean_clip : (frame, row, column, 3)
        The training mean: the constant picture.
    training : sequence of (frame, row, column, 3)
        Windows of training films.
    """

    chance = CHANCE

    def __init__(self, networks: Published, mean_clip: Pixels, training: Sequence[Pixels]) -> None:
        self._networks = networks
        self._mean_clip = mean_clip
        self._training = training
        self._truths: list[Truth] = []
        # Of each suffix, what was made of its clips in each session.
        self._seen: dict[str, list[NetworkFeatures]] = {}
        # The clips of the last session by suffix, if pictures are wanted.
        self._drawn: dict[str, Sequence[Pixels]] = {}
        self._still: NetworkFeatures | None = None

    def wants(self, suffix: str) -> bool:
        """Whether it scores what has this suffix."""
        return suffix in (*JUDGED, CONSTANT)

    def film(self, windows: HeldOutWindows) -> None:
        """Let the networks look at the film of the next session."""
        clips = windows.truth.clips
        # Sessions that show the same film share what is measured of it.
        is_same = bool(self._truths) and self._truths[-1].features.clips is clips
        features = self._truths[-1].features if is_same else self._networks.look(clips)
        self._truths.append(Truth(features, windows.truth.allowed))

    def score(self, suffix: str, decoded: Decoded, windows: HeldOutWindows) -> Scores:
        """Score every window by what the networks see."""
        truth = self._truths[windows.number]
        if suffix == CONSTANT:
            return self._networks.score(self._constant(), truth)
        features = self._look(decoded, truth)
        # Of the floors, the features of the Fréchet distance alone are needed once they are scored.
        stored = features if suffix == DECODER else NetworkFeatures((), motion=features.motion)
        self._seen.setdefault(suffix, []).append(stored)
        if self._networks.pictures:
            self._drawn[suffix] = features.clips
        return self._networks.score(features, truth)

    def stand_in(self, suffix: str, decoded: Decoded, windows: HeldOutWindows) -> Scores:
        """Score clips of other windows by what was seen of them."""
        assert decoded.origin is not None, "stand-ins are clips of a session"
        session, steps = decoded.origin
        features = self._networks.shifted(self._seen[DECODER][session], steps)
        return self._networks.score(features, self._truths[windows.number])

    def close(self, windows: HeldOutWindows, scores: Mapping[str, Scores]) -> dict[str, Scores]:
        """Score the clips of all decoders as pictures: the flow of the film is computed once for all."""
        if not self._networks.pictures:
            return {}
        films = self._truths[windows.number].features.clips
        metrics = likenesses(self._drawn, films, (CONSTANT, np.asarray(self._mean_clip)))
        self._drawn = {}
        return {
            suffix: weighted(
                {name: np.array([window_metrics[name] for window_metrics in values]) for name in values[0]},
                len(films),
            )
            for suffix, values in metrics.items()
        }

    def _look(self, decoded: Decoded, truth: Truth) -> NetworkFeatures:
        frames = len(truth.features.clips[0])
        return self._networks.look([clip[:frames] for clip in decoded.clips])

    def _constant(self) -> NetworkFeatures:
        if self._still is None:
            self._still = self._networks.look([np.asarray(self._mean_clip)])
        return self._still

    def references(self) -> dict[str, list[Scores]]:
        """Score the marginal, and the film itself by what takes no truth."""
        return {
            MARGINAL: self._marginal(),
            FILM: [self._networks.of_film(truth) for truth in self._truths],
        }

    def _marginal(self) -> list[Scores]:
        """Score a decoder that knows how often each class is shown, by each network and rule."""
        session_scores: list[Scores] = [{} for _ in self._truths]
        for network in CLASSIFIERS:
            true = [getattr(truth.features, network) for truth in self._truths]
            if not true or true[0] is None:
                continue
            for rule, accepted in RULES.items():
                guess = marginal(np.concatenate(true), accepted)
                for scores, logits in zip(session_scores, true, strict=True):
                    for n in WAYS:
                        won = nway(guess, logits, n, accepted=accepted).reshape(len(logits), -1).mean(axis=1)
                        scores |= weighted({f"classification_{n}way_{network}_{rule}": won}, len(logits))
        return session_scores

    def figures(self, units: NDArray[np.int64]) -> Figures:
        """Make the figures of the Fréchet distance."""
        if self._networks.detector is None:
            return {}
        film = _motion([truth.features for truth in self._truths])
        constant = np.repeat(_motion([self._constant()]), len(film), axis=0)
        same = fvd.frechet(constant, film)
        figures: Figures = {}
        for suffix in JUDGED:
            if suffix in self._seen:
                motion = _motion(self._seen[suffix])
                figures[f"fvd{suffix}"] = fvd.figure(
                    fvd.frechet(motion, film), len(motion), same, fvd.jackknife(motion, film, units)
                )
        halves = fvd.between_halves(film, units)
        if halves is not None:
            figures[f"fvd{HALVES}"] = fvd.figure(halves, len(film) // 2, same)
        if len(self._training) > 1:
            frames = len(self._truths[0].features.clips[0])
            learned = self._networks.detector([clip[:frames] for clip in self._training])
            figures[f"fvd{TRAINING}"] = fvd.figure(fvd.frechet(learned, film), len(learned), same)
        return figures


def _motion(sessions: Sequence[NetworkFeatures]) -> NDArray[np.float64]:
    return np.concatenate([features.motion for features in sessions if features.motion is not None]).astype(
        np.float64
    )
