"""Judge a decoder on any film: ``python -m train.evaluate RUN film=FILE``.

One participant watches the film in several sessions. Each session goes through the chain and the decoder,
and its clips are identified among the film's own windows. The film is the same in all sessions, so a window's
score is its mean over them, and an interval resamples blocks of the film: it tells what to expect of these
windows with other noise, and little of other films.

Beside each figure of the decoder stand two that it must not reach: those of a brain at rest, put through the
same chain and decoder (``_rest``), and of the decoder without any signal (``_null``).
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import networkx
import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle
from rtdecode.disk.clip_file import Pixels
from rtdecode.errors import UsageError
from rtdecode.phantom.film.watched import NONE, watched
from rtdecode.scores.accuracy import (
    MIN_SESSIONS,
    Score,
    correlations,
    entry,
    identification_nway,
    identification_top1,
)
from rtdecode.scores.events import distractors
from train.data.phantom import Participant, events, film_clips, session_arrays, spans
from train.data.simulated import SimulatedSessions
from train.judging.identification import ROUTES, by_preset, judging_seeds, only
from train.judging.judged import Figures, Judged, Request, Show

# Windows of one block of the film stay together in an interval, s.
_BLOCK_S = 30.0
# Rows and columns of the colour layout by which windows are paired.
_LAYOUT = (4, 6)


def on_film(data: Any, bundle: Bundle, show: Show, request: Request) -> Judged:
    """Judge a finished run on the film of a request, at each of its presets.

    Raises
    ------
    UsageError
        Before anything is judged, if the run was not trained on the simulated participant, or a seed is one
        for training.
    """
    if not isinstance(data, SimulatedSessions):
        raise UsageError(
            f"film={request.film} is for runs trained on the simulated participant, who can watch any film. "
            "Judge this run on recorded data (runs=, data=)."
        )
    seeds = judging_seeds(request.seeds)
    watching = replace(data.who, film=request.film)
    return by_preset(watching, request, lambda who, _: Judged(judge_film(show, bundle, who, seeds)))


def judge_film(show: Show, bundle: Bundle, who: Participant, seeds: Sequence[int]) -> Figures:
    """Judge identification on sessions in which one film was watched.

    Parameters
    ----------
    show : callable
        See `Show`.
    bundle : Bundle
    who : Participant
        Its `film` is the path of a film, which is shown as a whole.
    seeds : sequence of int
        Sessions, 1000 and up. They differ in their noise.

    Returns
    -------
    dict
        ``identification_2way``, ``_10way``, ``_top1`` with the session's mean removed, and
        ``identification_2way_matched``: windows in pairs of the most similar colour layouts, averaged over
        both members. All with both modalities, with ``_eeg`` and ``_fmri`` for one alone, and with ``_rest``
        and ``_null`` for the controls. A figure that fewer than half of the windows have is left out.
    """
    # The film is the same in all sessions.
    film = watched(who.film, None, 0, "grid")
    truths = [clip[:-1] for clip in film_clips(film)]
    windows = spans(0, film.windows, bundle.manifest.grid)
    allowed = distractors(windows, events({0: film}))
    pairs = matched(truths, allowed)
    scores: dict[tuple[str, str], list[Score]] = {}
    for seed in seeds:
        session = who.session(seed, None)
        where = spans(seed, film.windows, bundle.manifest.grid)
        inputs = session_arrays(bundle, session)
        rest = session_arrays(bundle, replace(who, film=NONE).session(seed, session.seconds))
        made = {suffix: show(only(inputs, kept), where) for suffix, kept in ROUTES.items()}
        made |= {"_rest": show(rest, where), "_null": show(inputs, where, null=True)}
        for suffix, reconstruction in made.items():
            found = _scores(reconstruction.clips, truths, bundle.stats["mean_clip"], allowed, pairs)
            for metric, each in found.items():
                scores.setdefault((metric, suffix), []).append(each)
    blocks = np.array([start // _BLOCK_S for _, start, _ in windows]).astype(np.int64)
    # An interval over fewer blocks would rest on too few numbers.
    groups = blocks if len(np.unique(blocks)) >= MIN_SESSIONS else None
    # Chance, and what a constant clip scores: without variance it ties with everything, and in pairs it wins
    # for one member what it loses for the other.
    known = {
        "identification_2way": (0.5, 0.0),
        "identification_10way": (0.1, 0.0),
        "identification_top1": (float(np.mean(1 / (allowed.sum(1) + 1))), 0.0),
        "identification_2way_matched": (0.5, 0.5),
    }
    figures: Figures = {}
    for (metric, suffix), each in scores.items():
        chance, constant = known[metric]
        figure = entry(np.mean(each, axis=0), chance, groups=groups)
        if figure is not None and figure["n"] >= len(windows) / 2:
            figures[metric + suffix] = figure | {"constant": constant}
    return figures


def matched(truths: Sequence[Pixels], allowed: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Pair windows so that the sum of the distances of their colour layouts is least.

    Parameters
    ----------
    truths : sequence of (frame, row, column, 3)
    allowed : (window, window) bool
        Pairs that may be made.

    Returns
    -------
    list of (int, int)
        Each window is in one pair at most. The matching is Edmonds' (1965), by networkx.
    """
    layouts = np.array([_layout(truth) for truth in truths])
    graph = networkx.Graph()
    for a, b in combinations(range(len(truths)), 2):
        if allowed[a, b]:
            graph.add_edge(a, b, weight=float(np.linalg.norm(layouts[a] - layouts[b])))
    return sorted((min(pair), max(pair)) for pair in networkx.min_weight_matching(graph))


def _layout(clip: Pixels) -> NDArray[np.float64]:
    """Return the mean colours of the cells of a clip, flat."""
    picture = np.asarray(clip, np.float64).mean(axis=0)
    rows, columns = _LAYOUT
    height, width = picture.shape[:2]
    cells = picture.reshape(rows, height // rows, columns, width // columns, 3)
    return cells.mean(axis=(1, 3)).ravel()


def _scores(
    clips: Sequence[Pixels],
    truths: Sequence[Pixels],
    mean_clip: Pixels,
    allowed: NDArray[np.bool_],
    pairs: list[tuple[int, int]],
) -> dict[str, Score]:
    """Score each window of one session, (window,)."""
    frames = len(truths[0])
    cut = [np.asarray(clip[:frames], np.float32) for clip in clips]
    corr = correlations(_centred(cut), _centred(truths), np.zeros_like(cut[0]))
    found = {
        "identification_2way": identification_nway(corr, allowed, 2),
        "identification_10way": identification_nway(corr, allowed, 10),
        "identification_top1": identification_top1(corr, allowed),
    }
    # Not with the session's mean removed: a clip that is always the same would have nothing left.
    corr = correlations(cut, truths, mean_clip)
    return found | {"identification_2way_matched": _in_pairs(corr, pairs)}


def _centred(clips: Sequence[Pixels]) -> list[Pixels]:
    """Take the mean over a session's windows away from each."""
    whole = np.stack([np.asarray(clip, np.float32) for clip in clips])
    return list(whole - whole.mean(axis=0))


def _in_pairs(corr: Score, pairs: list[tuple[int, int]]) -> Score:
    """Return the mean of both members' wins for each window in a pair, (window,); NaN for one without."""
    found = np.full(len(corr), np.nan)
    for a, b in pairs:
        found[[a, b]] = (float(corr[a, a] > corr[a, b]) + float(corr[b, b] > corr[b, a])) / 2
    return found
