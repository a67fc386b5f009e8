"""The judge `held-out-runs`: a decoder that was trained on a data set, on the runs that were kept from it.

Every window is a trial of its own, unless averaged repeats are asked for. Beside each figure stand the brain
of other times of the same run, the null brain and the training mean. Identification is also given without the
windows that look like something that taught.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle
from rtdecode.errors import UsageError
from train.config.builders import Later
from train.config.run_context import RunContext
from train.data.set_windows import SetRun, SetWindows
from train.data.sets.set_node import DataSetWindows
from train.data.splits import Repeats
from train.evaluation import section
from train.evaluation.beside import DECODER
from train.evaluation.examples import examples
from train.evaluation.film_scores import Scores
from train.evaluation.held_runs import sessions_of
from train.evaluation.pictures import sheet
from train.evaluation.published import load
from train.evaluation.references import References
from train.evaluation.result import OF_SECTIONS, Decode, Evaluation, Figures, Request
from train.evaluation.section import EvaluatedRun, sections_for, sections_of
from train.evaluation.section_runner import decode_ahead, evaluate
from train.interface.system import Plan, Trained

# Identification without the windows that look like something that taught.
CLEAR = "_without_near_duplicates"
_SHIFTED = "_shifted"
# Clips are shifted in time by so many parts of a run, and by no less than this, s.
_PARTS = 3
_LEAST_S = 30.0


@dataclass(frozen=True)
class HeldOutRuns:
    """The judge `held-out-runs`.

    Attributes
    ----------
    sections : str
        Groups of metrics: words, with commas between them (`train.evaluation.section`).
    windows : int or None
        So many windows are evaluated, drawn by a fixed seed; None evaluates all.
    """

    sections: Later[str] = section.OF_RECORDED
    windows: Later[int | None] = None

    reads: ClassVar[Sequence[str]] = ("data", *OF_SECTIONS)

    def check(self, data: Any) -> None:
        """Refuse data that are no data set, and sections that are not known.

        Raises
        ------
        UsageError
        """
        if not isinstance(data, DataSetWindows):
            raise UsageError(
                "judge-needs-data-set",
                "the judge held-out-runs is for a data set (data=DIR). Choose another.",
            )
        sections_of(self.sections)

    def judge(
        self, work: RunContext, plan: Plan, data: DataSetWindows, trained: Trained, show: Decode
    ) -> Evaluation:
        """Judge what was just trained on the runs that are held out, of every participant.

        Figures of participants other than the default one have the participant's name and a slash before
        their own.
        """
        everybody = data.participants(work.data)
        (default, *names) = everybody
        request = Request(sections=self.sections, windows=self.windows)
        judgement = judged(everybody[default], trained, show, request)
        for name in names:
            another = trained.of_subject(name)
            decoder = show.of(another.system, another.manifest)
            other = judged(everybody[name], another, decoder, request)
            judgement = _together(judgement, name, other)
        return judgement

    def evaluate(self, data: DataSetWindows, trained: Trained, show: Decode, request: Request) -> Evaluation:
        """Judge a finished run on the held-out runs of ``data=DIR``, the data sets that it was trained on.

        Of several participants, one is judged: the default one, or that of ``subject=NAME``.
        """
        if request.data is None:
            raise UsageError(
                "evaluate-missing-data-set",
                "this run was trained on a data set: name its folder with data=DIR.",
            )
        everybody = data.participants(request.data)
        if request.subject is not None and request.subject not in everybody:
            raise UsageError(
                "evaluate-subject-without-data",
                "subject={subject}: data={data} has {available}. Name all folders that the run was trained "
                "on.",
                subject=request.subject,
                data=request.data,
                available=list(everybody),
            )
        windows = everybody[request.subject or next(iter(everybody))]
        _check_windows(trained.bundle, windows, request)
        provenance = trained.manifest.provenance
        if provenance["taught"] != windows.digest:
            raise UsageError(
                "evaluate-data-mismatch",
                "data={data} is not what this run was trained on ({participant}, {window_count} "
                "windows of {run_count} runs). Windows that taught it might be judged. Give the same "
                "folder.",
                data=request.data,
                participant=provenance["participant"],
                window_count=provenance["windows"],
                run_count=len(provenance["runs"]),
            )
        options = {"sections": request.sections or self.sections, "windows": request.windows or self.windows}
        return judged(windows, trained, show, replace(request, **options))


def _together(default: Evaluation, name: str, other: Evaluation) -> Evaluation:
    """Put the findings of another participant beside those of the default one, in the same tables."""
    tables = {title: [*rows, *other.tables.get(title, [])] for title, rows in default.tables.items()}
    return replace(default.with_participant(name, other), tables=tables)


def _check_windows(bundle: Bundle, data: SetWindows, request: Request) -> None:
    """Refuse windows of another length, or with other volumes, than the bundle reads."""
    grid = bundle.manifest.grid
    other = data.draft.grid
    if (grid.window, grid.slots) != (other.window, other.slots):
        raise UsageError(
            "evaluate-window-mismatch",
            "data={data} has windows of {found_s:g} s with {found_volumes} volumes, and this run reads "
            "windows of {window_s:g} s with {volumes}. Give the folder that it was trained on.",
            data=request.data,
            found_s=float(other.window),
            found_volumes=other.slots,
            window_s=float(grid.window),
            volumes=grid.slots,
        )


def judged(data: SetWindows, trained: Trained, show: Decode, request: Request) -> Evaluation:
    """Judge a decoder on the runs of a data set that are held out.

    Parameters
    ----------
    data : SetWindows
        Windows of the data set, of which the held-out runs are judged.
    trained : Trained
        What the training left: the system and the bundle.
    show : callable
        See `Decode`.
    request : Request
        `repeats`, `sections`, `windows`, `keep`, `ahead` and the networks of published metrics are read.

    Raises
    ------
    UsageError
        If repeats are to be averaged and there are none, a network cannot be loaded, or no window was held
        out, or fewer than are asked for.
    """
    bundle = trained.bundle
    sections = sections_for(request, section.OF_RECORDED)
    networks = load(request)
    test_runs = data.test_runs(request.repeats)
    baselines = References(clips=data.taught_clips)
    run = EvaluatedRun(
        show,
        bundle,
        trained.system,
        baselines,
        networks,
        decodes_twice=request.decodes_twice,
        regions=_regions(bundle, data),
    )
    is_same = _same_shown(data, test_runs)
    sessions = sessions_of(run, test_runs, request.windows, same=is_same)
    count = _count(data, test_runs, request.repeats)
    if request.ahead:
        decode_ahead(run, sessions, sections)
        return Evaluation({})
    evaluation = evaluate(run, sessions, sections, {_SHIFTED: partial(_shifts, data.data.window_s)})
    own_scores = evaluation.scores.get(DECODER, [{}] * len(test_runs))
    evaluation.scores[CLEAR] = [
        _only(_identification(scores), data.clear(test_run.rows[rows]))
        for scores, test_run, rows in zip(own_scores, test_runs, sessions.rows, strict=True)
    ]
    # Where every run showed the same, a window's score is its mean over them.
    figures = evaluation.figures(fixed=is_same)
    signals = "single trials" if count == 1 else f"mean of {count} repeats"
    films = [{"film": data.data.layout, "repeats": count, "signals": signals}]
    notes = [{"note": text} for text in (data.division, *bundle.manifest.provenance["told"])]
    listed = {"networks": networks.network_rows()} if networks.networks() else {}
    return Evaluation(
        figures=_with_shifted(figures),
        tables={"films": films, "notes": notes} | listed,
        pictures={
            "held-out-runs.webp": sheet(evaluation.first, bundle.manifest, "held-out run"),
            **evaluation.pictures("held-out-runs"),
        },
        examples=examples(
            "the first held-out run", evaluation.wins, evaluation.first, bundle.manifest.clip.fps
        ),
        simulated=bundle.manifest.simulated,
    )


def _regions(bundle: Bundle, data: SetWindows) -> dict[str, NDArray[np.bool_]]:
    """Say where the regions of a data set lie among the voxels that a bundle reads."""
    if bundle.projection is None:
        return {}
    places = data.places(bundle.projection)
    masks = {name: mask[places] for name, mask in data.data.regions(data.subject).items()}
    return {name: mask for name, mask in masks.items() if mask.any()}


def _count(data: SetWindows, test_runs: Sequence[SetRun], repeats: Repeats) -> int:
    """Return how many showings a trial averages at most."""
    count = max(len(trial) for run in test_runs for trial in run.trials)
    if repeats == "averaged" and count == 1:
        raise UsageError(
            "judge-no-repeated-windows",
            "repeats=averaged: no window that is held out in {folder} was shown twice. Leave it out.",
            folder=data.data.folder,
        )
    return count


def _same_shown(data: SetWindows, test_runs: Sequence[SetRun]) -> bool:
    """Whether what is judged are showings of the same, as those of responses are."""
    names = [data.data.windows.shown[run.rows].tolist() for run in test_runs]
    return data.data.tr_s is None and len(test_runs) > 1 and all(videos == names[0] for videos in names)


def _identification(scores: Scores) -> Scores:
    return {name: value for name, value in scores.items() if name.startswith("identification")}


def _only(scores: Scores, mask: NDArray[np.bool_]) -> Scores:
    return {name: (value, weight * mask) for name, (value, weight) in scores.items()}


def _shifts(window_s: float, number: int, counts: Sequence[int]) -> list[tuple[int, int]]:
    """Choose the clips of other times of a run: shifted by parts of it, round about."""
    count = counts[number]
    least = int(np.ceil(_LEAST_S / window_s))
    steps = {round(count * part / _PARTS) for part in range(1, _PARTS)}
    # A short run is shifted by half of it, whatever that is.
    shifts = sorted(step for step in steps if least <= step <= count - least) or [max(1, count // 2)]
    return [(number, step) for step in shifts]


def _with_shifted(figures: Figures) -> Figures:
    """Put the figures of the shifted brain where figures name it."""
    shifted = {
        name.removesuffix(_SHIFTED): figure for name, figure in figures.items() if name.endswith(_SHIFTED)
    }
    return {
        name: figure | {"shuffled": shifted[name]["value"] if name in shifted else None}
        for name, figure in figures.items()
        if not name.endswith(_SHIFTED)
    }
