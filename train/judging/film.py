"""The judge `film`: identification, pictures, attributes, seams and confidence on fresh sessions.

Fresh sessions of the simulated participant are decoded by every route and, at the first preset, with other
numbers of steps, without a brain, and without carry. Figures, tables and pictures of all of it go out.
``docs/figures.md`` says what each figure means.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtdecode.bundle import Bundle
from rtdecode.disk.clip_file import Pixels
from rtdecode.phantom.film.film import FPS
from rtdecode.scores.accuracy import (
    above,
    correlations,
    entry,
    identification,
    identification_nway,
    psnr,
    sessions_of,
)
from rtdecode.scores.events import Span, distractors
from rtdecode.scores.reliability import reliability, risk_coverage
from rtdecode.scores.seams import seam_ratio
from train.data.clip_grid import shown_frames
from train.data.phantom import Participant, clips_of_training
from train.data.simulated import SimulatedSessions
from train.judging.identification import (
    ROUTES,
    Fresh,
    Identification,
    background_baseline,
    background_clips,
    background_wins,
    by_preset,
    fresh,
    judging_seeds,
    named,
    only,
)
from train.judging.judged import Figures, Judged, Request, Show, unknown
from train.judging.pictures import confidence_curves, contact_sheet, step_curves
from train.metrics import attributes
from train.metrics.pixels import gradient_energy, nearest
from train.recipe import numbers
from train.reconstruct import Reconstruction
from train.system import Plan, Trained
from train.work import Work

STEPS = (1, 2, 4, 8)
FREE_SEED = 1010
_WAYS = {"2way": 2, "50way": 50}
# Why no window gives a figure.
_NO_COMPARISON = "no window has others enough that it could be taken for"
_NO_SEAM = "no clip holds the instant at which the next begins, or none follows another without a cut"
_SHEET_ROWS = 10

Scores = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class FilmJudge(Identification):
    """The judge `film`: everything that is measured of a decoder that draws the simulated film."""

    def judge(self, work: Work, plan: Plan, data: SimulatedSessions, trained: Trained, show: Show) -> Judged:
        """Judge what was just trained, with every table and picture."""
        return judge(show, trained.bundle, data.who, judging_seeds(self.seeds), self.seconds)

    def evaluate(self, data: SimulatedSessions, bundle: Bundle, show: Show, request: Request) -> Judged:
        """Judge a finished run: everything at the first preset, identification alone at the others."""
        return by_preset(data.who, request, partial(self._figures, bundle, show, request))

    def _figures(self, bundle: Bundle, show: Show, request: Request, who: Participant, first: bool) -> Judged:
        judged = judge if first else judge_preset
        return judged(show, bundle, who, numbers(request.seeds), request.seconds)


@dataclass(frozen=True)
class Route:
    """Clips of one route through the decoder, how well they identify each window, and CPU time per clip."""

    made: Reconstruction
    figures: Figures
    scores: Scores
    cpu_s: float


def judge(
    show: Show,
    bundle: Bundle,
    who: Participant,
    seeds: Sequence[int],
    seconds: float,
    free_seed: int = FREE_SEED,
) -> Judged:
    """Judge on fresh sessions, with every table and picture.

    Parameters
    ----------
    show : callable
        See `Show`.
    bundle : Bundle
        Its statistics, default number of steps, and seeds of the training films are used.
    who : Participant
    seeds : sequence of int
        1000 and up.
    seconds : float
        Length of the film in each session, and in the freely cut one.
    free_seed : int
        Seed of the freely cut film.
    """
    data = fresh(bundle, who, seeds, seconds)
    steps = bundle.manifest.steps
    mean = bundle.stats["mean_clip"]
    routes = judge_routes(show, data, mean, steps)
    null = _route(show, data, mean, "_null", steps=steps, null=True)
    read = attributes.readings(_shown(routes[""], data))
    rows, one = step_rows(show, data, mean, steps, routes[""], read)
    # A control that draws nothing: the training windows that are most like the clips of one step.
    length = shown_frames(bundle.manifest)
    close = nearest([clip[:length] for clip in one.clips], clips_of_training(bundle), mean)
    figures = routes_figures(routes, data.where) | baselines(data, mean, routes[""]) | null.figures
    figures |= named(_identified(close, data, mean), "_nearest")
    figures |= null_figures(data, read, null)
    # The sessions above are cut at every window's start. Joins are judged on a film cut anywhere.
    joined, seams = judge_seams(show, fresh(bundle, who, [free_seed], seconds, "free"), mean, steps)
    told, curves = confidence_rows(routes)
    tables: dict[str, Any] = {
        "steps": rows,
        "fusion": fusion_rows(figures),
        "seam": seams,
        "confidence": told,
    }
    clips: dict[str, Sequence[Pixels]] = {"film": data.truths}
    clips |= {"both": routes[""].made.clips, "EEG alone": routes["_eeg"].made.clips}
    clips |= {"null brain": null.made.clips, "1 step": one.clips}
    title = f"simulated participant, preset {who.preset}, fresh session {seeds[0]}, {steps} steps"
    pictures = {"sheet.png": _sheet(clips, title), "steps.png": step_curves(rows)}
    if curves:
        tables["curves"] = curves
        pictures["reliability.png"] = confidence_curves(curves)
    return Judged(figures | joined, tables, pictures)


def judge_preset(
    show: Show, bundle: Bundle, who: Participant, seeds: Sequence[int], seconds: float
) -> Judged:
    """Judge identification, fusion and PSNR alone; arguments as for `judge`."""
    data = fresh(bundle, who, seeds, seconds)
    mean = bundle.stats["mean_clip"]
    routes = judge_routes(show, data, mean, bundle.manifest.steps)
    figures = routes_figures(routes, data.where) | baselines(data, mean, routes[""])
    return Judged(figures, {"fusion": fusion_rows(figures)})


def judge_routes(show: Show, data: Fresh, mean: NDArray[np.uint8], steps: int) -> dict[str, Route]:
    """Judge both modalities together and each alone, with carry, as a session decodes them."""
    return {
        suffix: _route(show, replace(data, inputs=only(data.inputs, kept)), mean, suffix, steps=steps)
        for suffix, kept in ROUTES.items()
    }


def _route(show: Show, data: Fresh, mean: NDArray[np.uint8], suffix: str, **how: Any) -> Route:
    # CPU time, which other programs on the machine do not lengthen.
    start = time.process_time()
    made = show(data.inputs, data.where, **how)
    spent = (time.process_time() - start) / len(data.where)
    corr = correlations(made.clips, data.truths, mean)
    allowed = distractors(data.where, data.known)
    scores = {name: identification_nway(corr, allowed, n) for name, n in _WAYS.items()}
    found = identification(corr, data.where, data.known)
    return Route(made, named(found, suffix), scores, spent)


def _identified(clips: Sequence[Pixels], data: Fresh, mean: NDArray[np.uint8]) -> dict[str, Any]:
    return identification(correlations(clips, data.truths, mean), data.where, data.known)


def routes_figures(routes: dict[str, Route], where: list[Span]) -> Figures:
    """Collect the figures of all routes, and what both modalities gain over the better of the two.

    ``fusion_gain_*`` is the mean paired difference. The better modality is the one with the higher mean.
    """
    figures = {name: figure for route in routes.values() for name, figure in route.figures.items()}
    for way in _WAYS:
        scores = {suffix: route.scores[way] for suffix, route in routes.items()}
        if not np.isfinite(scores[""]).any():
            figures[f"fusion_gain_{way}"] = unknown(0.0, 0, _NO_COMPARISON) | {"over": None}
            continue
        better = max(("_eeg", "_fmri"), key=lambda name: float(np.nanmean(scores[name])))
        gain = above(scores[""], scores[better], sessions_of(where))
        figures[f"fusion_gain_{way}"] = _plain(gain) | {"over": better[1:]}
    return figures


def baselines(data: Fresh, mean: NDArray[np.uint8], both: Route) -> Figures:
    """Compare the clips with the background alone and with the mean clip, window by window."""
    sessions = sessions_of(data.where)
    wins = background_wins(data.truths, data.where, data.known, mean)
    noise = psnr(both.made.clips, data.truths)
    flat = psnr([mean] * len(data.truths), data.truths)
    told = psnr(background_clips(data.truths, data.where, data.known), data.truths)
    figures = background_baseline(wins, data.where)
    return figures | {
        "identification_2way_above_background": _gain(both.scores["2way"], wins, sessions),
        "psnr": _decibel(noise, sessions),
        "psnr_mean_clip": _decibel(flat, sessions),
        "psnr_above_mean_clip": _plain(above(noise, flat, sessions)),
        "psnr_background": _decibel(told, sessions),
    }


def _gain(
    ours: NDArray[np.float64], others: NDArray[np.float64], sessions: NDArray[np.int64] | None
) -> dict[str, Any]:
    """Make the figure of a paired difference of shares of comparisons won."""
    if not np.isfinite(others).any():
        return unknown(0.0, 0, _NO_COMPARISON)
    return _plain(above(ours, others, sessions))


def _decibel(values: NDArray[np.float64], sessions: NDArray[np.int64] | None) -> dict[str, Any]:
    found = entry(values, 0.0, groups=sessions)
    assert found is not None
    return _plain(found) | {"chance": None}


def _plain(figure: dict[str, Any]) -> dict[str, Any]:
    return {**figure, "constant": None}


def null_figures(data: Fresh, read: list[dict[str, str]], null: Route) -> Figures:
    """Make the figures of the attributes read off the clips and off the null-brain twin, and its PSNR."""
    twin = attributes.readings(_shown(null, data))
    film = attributes.readings(data.truths)
    found = attributes.figures(read, twin, film, data.where, data.known)
    noise = psnr(null.made.clips, data.truths)
    return found | {"psnr_null": _decibel(noise, sessions_of(data.where))}


def _shown(route: Route, data: Fresh) -> list[Pixels]:
    """Return the frames that a session emits of each clip."""
    frames = len(data.truths[0])
    return [clip[:frames] for clip in route.made.clips]


def step_rows(
    show: Show,
    data: Fresh,
    mean: NDArray[np.uint8],
    steps: int,
    shown: Route,
    read: list[dict[str, str]],
) -> tuple[list[dict[str, Any]], Reconstruction]:
    """Judge other numbers of steps: return a row for each number, and the clips of one step.

    `shown` are the clips of the default number of steps, and `read` the attributes read off them.
    ``sharpness`` is the gradient energy of the clips over that of the film, ``cpu_s`` the CPU time of a clip
    from the encoder's ports to pixels.
    """
    truth = gradient_energy(data.truths).mean()
    rows = []
    one = shown.made
    for count in STEPS:
        route = shown if count == steps else _route(show, data, mean, "", steps=count)
        one = route.made if count == 1 else one
        found = read if count == steps else attributes.readings(_shown(route, data))
        sharp = float(gradient_energy(_shown(route, data)).mean() / truth)
        rows.append(
            {"steps": count, **_legible(route, data, found), "sharpness": sharp, "cpu_s": route.cpu_s}
        )
    return rows, one


def _legible(route: Route, data: Fresh, read: list[dict[str, str]]) -> dict[str, float | None]:
    seen = attributes.shown(data.where, data.known)
    names = ("background", "texture", "color", "shape")
    ways = {f"identification_{way}": _mean(scores) for way, scores in route.scores.items()}
    noise = {"psnr": _mean(psnr(route.made.clips, data.truths))}
    return ways | noise | {name: _mean(attributes.hits(read, seen, name)) for name in names}


def _mean(scores: NDArray[np.float64]) -> float | None:
    there = scores[np.isfinite(scores)]
    return float(there.mean()) if len(there) else None


def judge_seams(
    show: Show, data: Fresh, mean: NDArray[np.uint8], steps: int
) -> tuple[Figures, list[dict[str, Any]]]:
    """Judge how clips of a freely cut film join, with carry and without.

    Returns
    -------
    figures : dict
        ``seam_ratio`` and identification on that film (``_free``), each with carry and without, and
        ``carry_gain_2way``, the paired difference of the identifications.
    rows : list of dict
        What `rtdecode.scores.seams.seam_ratio` finds for each kind of pairs.
    """
    cuts = {run: [shot.onset_s for shot in shots] for run, shots in data.known.items()}
    figures: Figures = {}
    rows = []
    wins = []
    for suffix, carry in (("", True), ("_without_carry", False)):
        route = _route(show, data, mean, f"_free{suffix}", steps=steps, carry=carry)
        wins.append(route.scores["2way"])
        figures |= route.figures
        ratio = seam_ratio(route.made.clips, data.truths, data.where, cuts)
        rows += _seam_rows(carry, ratio or {})
        figures[f"seam_ratio{suffix}"] = _seam_figure(ratio)
    figures["carry_gain_2way"] = _gain(wins[0], wins[1], sessions_of(data.where))
    return figures, rows


def _seam_rows(carry: bool, ratio: dict[str, Any]) -> list[dict[str, Any]]:
    names = ("reconstruction", "shown", "steepest", "truth", "steepest_truth", "n")
    kinds = {"": "no cut", "_same_shot": "same shot", "_all": "all"}
    return [
        {"carry": carry, "pairs": kind, **{name: ratio.get(f"{name}{suffix}") for name in names}}
        for suffix, kind in kinds.items()
    ]


def _seam_figure(ratio: dict[str, Any] | None) -> dict[str, Any]:
    if ratio is None or ratio["reconstruction"] is None:
        return unknown(None, 0, _NO_SEAM)
    more = {"value": ratio["reconstruction"], "chance": None, "shuffled": None, "constant": None}
    return more | {name: ratio[name] for name in ("ci95", "interval", "n", "truth", "shown", "steepest")}


def confidence_rows(routes: dict[str, Route]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Compare the confidence with the share of 2-way comparisons won: a row for each route, and curves."""
    rows = []
    curves = {}
    for suffix, route in routes.items():
        sure = route.made.confidence
        wins = route.scores["2way"]
        if sure is None:
            continue
        comparable = np.isfinite(wins) & np.isfinite(sure)
        if not comparable.any():
            continue
        bins = reliability(sure[comparable], wins[comparable])
        risks = risk_coverage(sure[comparable], wins[comparable])
        name = suffix[1:] or "both"
        curves[name] = {"reliability": bins, "risk_coverage": risks}
        rows.append(
            {
                "route": name,
                "confidence": float(sure[comparable].mean()),
                "wins": float(wins[comparable].mean()),
                "calibration_error": bins["ece"],
                "risk_area": risks["area"],
                "risk_of_all": risks["risk"][-1],
                "n": bins["n"],
            }
        )
    return rows, curves


def fusion_rows(figures: Figures) -> list[dict[str, Any]]:
    """List the identification of each route, and what fusion gains."""
    rows = []
    for way in _WAYS:
        found = {suffix[1:] or "both": figures.get(f"identification_{way}{suffix}") for suffix in ROUTES}
        gain = figures.get(f"fusion_gain_{way}")
        if gain and gain["value"] is not None:
            values = {name: figure["value"] for name, figure in found.items() if figure}
            low, high = gain["ci95"] or (None, None)
            rows.append({"way": way, **values, "gain": gain["value"], "low": low, "high": high})
    return rows


def _sheet(clips: dict[str, Sequence[Pixels]], title: str) -> Image.Image:
    count = len(clips["film"])
    rows = np.linspace(0, count - 1, min(_SHEET_ROWS, count)).astype(int)
    picked = {name: [each[row] for row in rows] for name, each in clips.items()}
    return contact_sheet(picked, [round(FPS * s) for s in (1.0, 2.25, 3.5)], title)
