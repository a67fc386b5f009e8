"""The judge `last-run`: what can be judged of a decoder that was trained on one's own recordings.

The run that was kept from teaching goes through the chain and the decoder, and its clips are held against
what was shown (`train.judging.film_scores`), beside each modality alone and the null brain. Intervals
resample blocks of 30 s. Guidance was chosen on the same run, and no weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rtdecode.bundle import Bundle
from rtdecode.disk.clip_file import Pixels
from rtdecode.errors import UsageError
from rtdecode.scores.events import Span
from train.data.phantom import spans
from train.data.recorded_sessions import RecordedSessions
from train.data.recorded_showing import RecordedShowing
from train.judging.film_figures import CONSTANT, figures
from train.judging.film_scores import Scores, Shown, constant_scores, describe, score, told_apart
from train.judging.identification import ROUTES, only
from train.judging.judged import Judged, Request, Show
from train.judging.pictures import contact_sheet
from train.judging.references import recoded
from train.system import Plan, System, Trained
from train.work import Work

# Bits need a temperature from windows that are neither taught nor judged, and there are none.
_WITHOUT = "bits_per_window"
_TEMPERATURE = 1.0
_SHEET_ROWS = 12
# Frames of a clip that the sheet shows.
_SHEET_FRAMES = [4, 16, 28]
# Windows whose starts lie closer together than this on the time of one film show some of the same, s.
_SAME_S = 4.0


@dataclass(frozen=True)
class LastRun:
    """The judge `last-run`. It has no settings."""

    def check(self, data: Any) -> None:
        """Refuse data that are no recordings.

        Raises
        ------
        UsageError
        """
        if not isinstance(data, RecordedSessions):
            raise UsageError("the judge last-run is for recordings (data=REC film=FILE). Choose another.")

    def judge(self, work: Work, plan: Plan, data: RecordedSessions, trained: Trained, show: Show) -> Judged:
        """Judge what was just trained on the held run."""
        bundle = trained.bundle
        mean_clip = bundle.stats["mean_clip"][:-1]
        scores: dict[str, list[Scores]] = {}
        shown: list[Shown] = []
        sheet: dict[str, Sequence[Pixels]] = {}
        for number, one in enumerate(data.held):
            film = _describe(one, number, trained.system, bundle)
            shown.append(film)
            clips = _clips(show, one, number, bundle)
            sheet = sheet or {"film": film.clips, "both": clips[""], "null brain": clips["_null"]}
            for suffix, some in clips.items():
                # Of one modality alone no other figure is made.
                alone = suffix in ROUTES and suffix != ""
                held = (told_apart if alone else score)(some, film, mean_clip, _TEMPERATURE)
                scores.setdefault(suffix, []).append(_without_bits(held))
            constant = constant_scores(mean_clip, film, _TEMPERATURE)
            scores.setdefault(CONSTANT, []).append(_without_bits(constant))
        notes = [{"note": text} for text in (data.division, novelty(data))]
        picture = contact_sheet(_picked(sheet), _SHEET_FRAMES, f"held run, {bundle.manifest.steps} steps")
        return Judged(figures(scores, shown, fixed=False), {"notes": notes}, {"last-run.png": picture})

    def evaluate(self, data: Any, bundle: Bundle, show: Show, request: Request) -> Judged:
        """Refuse to judge a finished run by itself: it does not say where its recordings lie.

        Raises
        ------
        UsageError
        """
        raise UsageError(
            "this run was trained on recordings, and judged on the last one when it was trained (run.json). "
            "Judge it on another recording with its truth: data=RECORDING."
        )


def novelty(data: RecordedSessions) -> str:
    """Say in a sentence whether the held windows show what was taught."""
    new = [one for one in data.held if one.source not in {other.source for other in data.taught}]
    if len(new) == len(data.held):
        return "The held run shows a film that teaches nothing: the figures tell what to expect of new films."
    known = 0
    for one in data.held:
        taught = [other.start_s for other in data.taught if other.source == one.source]
        if taught:
            apart = np.abs(one.start_s[:, None] - np.concatenate(taught)).min(axis=1)
            known += int((apart < _SAME_S).sum())
    total = sum(one.windows for one in data.held)
    if not known:
        return (
            "No held session is of a fresh film: the held windows are other parts of films that teach. New "
            "films may be read less well."
        )
    return (
        f"No held session is of a fresh film: {known} of {total} held windows show what also taught. The "
        "figures tell how well a known film is recognised, and not what to expect of new ones."
    )


def _describe(one: RecordedShowing, number: int, system: System, bundle: Bundle) -> Shown:
    # Windows are described one after the other, without the gaps between them.
    where = spans(number, one.windows, bundle.manifest.grid)
    return describe(one.watched(), where, recoded(system, bundle, one.film().clips))


def _clips(show: Show, one: RecordedShowing, number: int, bundle: Bundle) -> dict[str, Sequence[Pixels]]:
    """Return the clips of the decoder, of each modality alone, and of the null brain, by suffix."""
    inputs = one.arrays(bundle)
    window_s = float(bundle.manifest.grid.window)
    # Where they lie in the run: a clip carries on from the one before unless there is a gap.
    where: list[Span] = [(number, float(start), float(start) + window_s) for start in one.run_s]
    found = {suffix: show(only(inputs, kept), where).clips for suffix, kept in ROUTES.items()}
    return {**found, "_null": show(inputs, where, null=True).clips}


def _without_bits(scores: Scores) -> Scores:
    return {name: value for name, value in scores.items() if name != _WITHOUT}


def _picked(sheet: dict[str, Sequence[Pixels]]) -> dict[str, Sequence[Pixels]]:
    """Choose some windows for the sheet, from all over the run."""
    count = len(sheet["film"])
    rows = np.linspace(0, count - 1, min(_SHEET_ROWS, count)).astype(int)
    return {name: [clips[row] for row in rows] for name, clips in sheet.items()}
