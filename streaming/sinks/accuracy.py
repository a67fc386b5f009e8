"""What the truth says of a session's clips: the sections of the report that rest on it.

Each clip is identified among the true clips. The baselines are the null-brain twins, the mean clip, and what
colour alone says: clips of one colour, or of 2 x 3, which stand still. Named categories are compared with the
events.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle
from rtdecode.disk.clip_file import Pixels
from rtdecode.scores.accuracy import (
    METRICS,
    correlations,
    identification,
    identification_nway,
    report_accuracy,
)
from rtdecode.scores.colours import STILL, drawn_layout, layouts
from rtdecode.scores.events import Event, distractors, non_overlapping
from rtdecode.scores.reliability import reliability, risk_coverage
from rtdecode.scores.seams import seam_ratio
from rtdecode.types import Array
from streaming.sinks import curves
from streaming.sinks.truth import Archive, Truth

# Curves over fewer clips would say nothing.
_FEWEST = 20

# What a session's clips are held beside, and its words: clips without a brain, the training mean, and clips
# that stand still, of one colour or of 2 x 3, as the session's own clips have them and as the film has them.
BASELINES = {
    "null_brain": "null brain",
    "mean_clip": "mean clip",
    "own_colour": "its own mean colour alone",
    "own_layout": "its own still layout alone",
    "told_colour": "told mean colour",
    "told_layout": "told still layout",
}

Events = Mapping[int, Sequence[Event]]


class AccuracySections(TypedDict):
    """Sections of the report; what is not known is None.

    Attributes
    ----------
    accuracy : dict
        Each metric of `rtdecode.scores.accuracy` and its figure.
    baselines : dict or None
        The identification figures of what tells nothing, or colours alone: see `BASELINES`. ``null_brain`` is
        None where no twins were made.
    confidence : dict or None
        ``reliability`` and ``risk_coverage``, from 20 clips on.
    seam : dict or None
        See `rtdecode.scores.seams`.
    identified : list of dict or None
        Of each clip that was judged its ``run``, ``window_s`` and ``wins``, the share of its 2-way
        comparisons that it won; if twins were made, ``null_wins`` too, the share that its twin won.
    """

    accuracy: dict[str, Any]
    baselines: dict[str, Any] | None
    confidence: dict[str, Any] | None
    seam: dict[str, Any] | None
    identified: list[dict[str, Any]] | None


def nothing() -> AccuracySections:
    """Return sections in which nothing is known."""
    return {
        "accuracy": dict.fromkeys(METRICS),
        "baselines": None,
        "confidence": None,
        "seam": None,
        "identified": None,
    }


class Scorer:
    """Compare the finals of a session with the truth.

    Parameters
    ----------
    truth : Truth
        Film and events that the clips are compared with.
    archived : Archive
        The finals.
    bundle : Bundle
        Its categories, mean clip and onset correction are used.

    Attributes
    ----------
    sections : AccuracySections
        As they were scored last; nothing is known before.
    """

    def __init__(self, truth: Truth, archived: Archive, bundle: Bundle) -> None:
        self._truth = truth
        self._archived = archived
        self._bundle = bundle
        self.sections = nothing()

    def score(self) -> AccuracySections:
        """Compare what is in the archive now; return the sections of the report that rest on it."""
        scored = sections(self._truth, self._archived, self._bundle)
        # A truth that turns out to be unreadable only here has judged nothing.
        self.sections = nothing() if self._truth.fault else scored
        return self.sections

    def save_curves(self, path: Path, note: str) -> None:
        """Draw the reliability of the confidence, with a sentence below; nothing where it is not known."""
        if self.sections["confidence"] is not None:
            curves.save(path, self.sections["confidence"], note)


def sections(truth: Truth, archive: Archive, bundle: Bundle) -> AccuracySections:
    """Compare what was emitted with the truth.

    Parameters
    ----------
    truth : Truth
        Film and events that the clips are compared with.
    archive : Archive
        The finals.
    bundle : Bundle
        Its categories, mean clip and onset correction are used.
    """
    accuracy_sections = nothing()
    if not truth.has_events:
        return accuracy_sections
    events = {0: truth.events()}
    mean_clip = bundle.stats.get("mean_clip")
    # One clip alone cannot be told from another.
    if len(non_overlapping(archive.paired)) > 1 and mean_clip is not None:
        accuracy_sections = _clips(archive, events, mean_clip)
    labels = bundle.manifest.labels
    if archive.scored and labels:
        scores = np.array([[clip_scores[name] for name in labels] for clip_scores in archive.scores])
        correction = bundle.manifest.onset_correction_s
        classification = report_accuracy(
            archive.scored, events, scores=scores, labels=labels, onset_correction_s=correction
        )
        accuracy_sections["accuracy"]["classification_top1"] = classification["classification_top1"]
    return accuracy_sections


def _clips(archive: Archive, events: Events, mean_clip: Array) -> AccuracySections:
    """Compare the clips of windows that do not overlap with their truths."""
    indices = non_overlapping(archive.paired)
    spans = [archive.paired[i] for i in indices]
    parts = {name: [frames[i] for i in indices] for name, frames in archive.pairs().items()}
    corr = correlations(parts["clip"], parts["truth"], mean_clip)
    accuracy_sections = nothing()
    accuracy_sections["accuracy"] |= identification(corr, spans, events)
    allowed = distractors(spans, events)
    wins = identification_nway(corr, allowed, 2)
    accuracy_sections["confidence"] = _confidence([archive.confidences[i] for i in indices], wins)
    onsets = {run: [event.onset_s for event in run_events] for run, run_events in events.items()}
    accuracy_sections["seam"] = seam_ratio(parts["clip"], parts["truth"], spans, onsets)
    accuracy_sections["identified"] = [
        {"run": run, "window_s": [start_s, stop_s], "wins": float(won)}
        for (run, start_s, stop_s), won in zip(spans, wins, strict=True)
        if np.isfinite(won)
    ]
    baselines = dict.fromkeys(BASELINES) | {
        name: correlations(clips, parts["truth"], mean_clip)
        for name, clips in _baseline_clips(parts, mean_clip)
    }
    accuracy_sections["baselines"] = {
        name: None if baseline is None else identification(baseline, spans, events)
        for name, baseline in baselines.items()
    }
    if baselines["null_brain"] is not None:
        null_wins = identification_nway(baselines["null_brain"], allowed, 2)
        # A twin has the same distractors as its clip, so that it can be scored where the clip can.
        for line, won in zip(accuracy_sections["identified"], null_wins[np.isfinite(wins)], strict=True):
            line["null_wins"] = float(won)
    return accuracy_sections


def _baseline_clips(
    parts: Mapping[str, Sequence[Pixels]], mean_clip: Array
) -> Iterator[tuple[str, Sequence[Pixels]]]:
    """Yield the clips of each baseline; those of colours are pictures that fill a clip, and take no room."""
    if "twin" in parts:
        yield "null_brain", parts["twin"]
    yield "mean_clip", [mean_clip] * len(parts["clip"])
    shape = parts["truth"][0].shape
    for whose, part in (("own", "clip"), ("told", "truth")):
        colours: dict[str, list[NDArray[np.float64]]] = {"colour": [], "layout": []}
        for clip in parts[part]:
            # Read once, one at a time. A clip may have a frame more than its truth.
            pixels = [np.asarray(clip[: shape[0]])]
            colours["colour"] += list(layouts(pixels, (1, 1)))
            colours["layout"] += list(layouts(pixels, STILL))
        for name, of_clips in colours.items():
            yield f"{whose}_{name}", drawn_layout(np.array(of_clips), shape)


def _confidence(confidences: Sequence[float | None], wins: NDArray[np.float64]) -> dict[str, Any] | None:
    indices = [
        i for i, confidence in enumerate(confidences) if confidence is not None and np.isfinite(wins[i])
    ]
    if len(indices) < _FEWEST:
        return None
    sure = np.array([confidences[i] for i in indices], np.float64)
    return {
        "reliability": reliability(sure, wins[indices]),
        "risk_coverage": risk_coverage(sure, wins[indices]),
    }
