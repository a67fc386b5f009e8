"""The attributes that can be read off clips of the simulated film, in the form that a session writes them."""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.clip_file import Pixels
from rtdecode.disk.video import read_mp4, write_mp4
from rtdecode.phantom.film.film import ATTRIBUTES, FPS
from rtdecode.phantom.film.reader import read
from rtdecode.scores.accuracy import MIN_SHUFFLED, entry, sessions_of, shift_orders
from rtdecode.scores.events import Event, Span, attribute
from train.judging.judged import Figures

Reading = Mapping[str, str | None]


def readings(clips: Iterable[Pixels]) -> list[dict[str, str]]:
    """Write each clip to a video file as a session does, and read the attributes off the file.

    Parameters
    ----------
    clips : iterable of uint8 (frame, row, column, 3)
        The frames that are shown, without the last one, which may lie behind a cut.
    """
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "clip.mp4"
        found = []
        for clip in clips:
            write_mp4(path, np.ascontiguousarray(clip), FPS)
            found.append(read(read_mp4(path)))
    return found


def shown(where: Sequence[Span], known: Mapping[int, Sequence[Event]]) -> list[Reading]:
    """List what the film shows in each window, according to the shot that fills most of it."""
    values = {name: attribute(where, known, name) for name in ATTRIBUTES}
    return [{name: values[name][i] for name in ATTRIBUTES} for i in range(len(where))]


def hits(found: Sequence[Reading], truths: Sequence[Reading], name: str) -> NDArray[np.float64]:
    """Return 1 for each clip off which an attribute is read correctly, else 0; NaN where it is not known."""
    pairs = zip(found, truths, strict=True)
    return np.array([np.nan if b[name] is None else float(a[name] == b[name]) for a, b in pairs])


def figures(
    found: Sequence[Reading],
    null: Sequence[Reading],
    film: Sequence[Reading],
    where: Sequence[Span],
    known: Mapping[int, Sequence[Event]],
) -> Figures:
    """Make the figures ``attribute_*``.

    Parameters
    ----------
    found, null, film : sequence of mapping
        Attributes read off the clips, off those of the null-brain twin, and off the true ones.
    where : sequence of (run, start_s, stop_s)
    known : mapping
        Run -> shots.

    Returns
    -------
    dict
        ``constant`` is the accuracy of the null-brain twin, ``reader`` that of the true clips.
    """
    truths = shown(where, known)
    orders = shift_orders(where) if len(where) >= MIN_SHUFFLED else []
    made: Figures = {}
    for name, values in ATTRIBUTES.items():
        moved = [hits([found[i] for i in order], truths, name) for order in orders]
        figure = entry(hits(found, truths, name), 1 / len(values), moved, sessions_of(where))
        if figure is not None:
            others = {"constant": hits(null, truths, name), "reader": hits(film, truths, name)}
            made[f"attribute_{name}"] = figure | {k: float(np.nanmean(v)) for k, v in others.items()}
    return made
