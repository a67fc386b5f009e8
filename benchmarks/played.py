"""Simulated sessions played through the runtime: recorded, replayed on the virtual clock, and judged.

`benchmarks.road`, `benchmarks.newcomer` and experiments use it. A recording is decoded by the code of a live
session; what it emitted is then held against the film, from the files that it wrote.
"""

import contextlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export import run as exporting
from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle
from rtdecode.disk.clip_file import Pixels
from rtdecode.disk.recording import Recording, RecordingWriter
from rtdecode.disk.video import unpack_mp4
from rtdecode.phantom.session import PhantomSession
from rtdecode.scores import intervals
from rtdecode.scores.accuracy import correlations, identification, identification_nway
from rtdecode.scores.events import Span, distractors, film_clip, non_overlapping, read_events
from streaming.session import replay
from train.data.phantom import window_arrays
from train.data.recorded import cut_windows
from train.evaluation.oracle import Oracle

# An amplifier sends ten times as many chunks; the same windows come of them, in more time.
_CHUNK_S = 0.2

Figure = dict[str, Any]


@dataclass(frozen=True)
class Played:
    """What came of a session: 2-way identification, each {value, chance, shuffled, ci95, n} or None.

    Attributes
    ----------
    finals : dict or None
        Of the clips that came out in time.
    last : dict or None
        Of the last revision of each window, which may have been refined with volumes that came later.
    null : dict or None
        Of the clips without any signal, from the same noise.
    windows : dict
        How many windows came out, by revision.
    wins : dict
        ``finals``, ``last`` and ``null`` -> window -> the share of its 2-way comparisons that it won.
    """

    finals: Figure | None
    last: Figure | None
    null: Figure | None
    windows: dict[str, int]
    wins: dict[str, dict[Span, float]]


def opened(path: str, scratch: Path) -> Bundle:
    """Load a bundle, or export a run into a scratch folder.

    Parameters
    ----------
    path : str
        Path or name of a bundle, or the folder of a run.
    scratch : Path
        A new folder, for the bundle of a run.
    """
    if not (Path(path) / "run.json").is_file():
        return bundles.load(path)
    with _silent():
        return exporting.run(Path(path), scratch)


def record(session: PhantomSession, folder: Path) -> Path:
    """Write what `rtdecode simulate --record` writes, in fewer chunks."""
    meta = {
        "simulated": True,
        "preset": session.preset.name,
        "subject": session.subject,
        "seconds": session.seconds,
    }
    with RecordingWriter(folder, session.montage, meta) as writer:
        session.truth(folder / "truth")
        for item in session.events(_CHUNK_S):
            writer.write(item)
    return folder


def played(recording: Path, bundle: Bundle, out: Path) -> Played:
    """Decode a recording as a live session would, and judge what came out.

    Parameters
    ----------
    recording : Path
    bundle : Bundle
    out : Path
        A new folder for what the session writes.
    """
    report = out / "report.json"
    with _silent():
        # With twins a bundle that does not denoise has a null brain as well.
        replay.run(recording, str(bundle.path), "max", out=out, report=report, twin=True)
    session_report = json.loads(report.read_text())
    finals, last = revisions(out)
    in_time, in_time_wins = _identified(recording, bundle, out, finals)
    refined, refined_wins = _identified(recording, bundle, out, last)
    twins = (session_report["baselines"] or {}).get("null_brain") or {}
    null_wins = {
        _span(line): line["null_wins"] for line in session_report["identified"] or [] if "null_wins" in line
    }
    return Played(
        finals=in_time,
        last=refined,
        null=twins.get("identification_2way"),
        windows={
            name: session_report["windows"][name] for name in ("final", "refined", "skipped", "degraded")
        },
        wins={"finals": in_time_wins, "last": refined_wins, "null": null_wins},
    )


def revisions(out: Path) -> tuple[dict[Span, str], dict[Span, str]]:
    """Return the files of a session's finals, and of the last revision of each window, by window."""
    lines = [json.loads(line) for line in (out / "clips.jsonl").read_text().splitlines()]
    finals = {_span(line): line["file"] for line in lines if line["revision"] == "final"}
    # A refined clip comes after its final.
    last = finals | {_span(line): line["file"] for line in lines if line["revision"] == "refined"}
    return finals, last


def _span(line: dict[str, Any]) -> Span:
    start, stop = line["window_s"]
    return line["run"], start, stop


def _identified(
    recording: Path, bundle: Bundle, out: Path, files: dict[Span, str]
) -> tuple[Figure | None, dict[Span, float]]:
    """Identify the clips of windows that do not overlap, off the files that the session wrote.

    Returns
    -------
    figure : dict or None
    wins : dict
        Window -> the share of its comparisons that it won.
    """
    return _told_apart(recording, bundle, list(files), lambda span: unpack_mp4(out / files[span]))


def ridge_wins(recording: Path, bundle: Bundle, ridge: Oracle) -> dict[str, dict[Span, float]]:
    """Identify what a ridge reads of the finals of a recording, and of their mean colours, drawn flat.

    Parameters
    ----------
    recording : Path
    bundle : Bundle
        By which the ridge was fitted.
    ridge : Oracle

    Returns
    -------
    dict
        ``ridge`` and ``colour`` -> window -> the share of its comparisons that it won.
    """
    finals = cut_windows(bundle, Recording(recording), bundle.manifest.modalities)
    inputs = window_arrays(bundle.manifest, finals)
    spans = [(window.run, window.start_s, window.stop_s) for window in finals]
    frames = bundle.manifest.grid.hop_frames
    wins: dict[str, dict[Span, float]] = {}
    for name, clips in (("ridge", ridge.clips(inputs)), ("colour", ridge.floors(inputs)[0])):
        by_window = {span: clip[:frames] for span, clip in zip(spans, clips, strict=True)}
        wins[name] = _told_apart(recording, bundle, spans, by_window.__getitem__)[1]
    return wins


def _told_apart(
    recording: Path, bundle: Bundle, spans: Sequence[Span], clip_of: Callable[[Span], Pixels]
) -> tuple[Figure | None, dict[Span, float]]:
    """Identify the clips of windows that do not overlap, each by what `clip_of` gives; see `_identified`."""
    manifest = bundle.manifest
    film = unpack_mp4(recording / "truth" / "film.mp4")
    frames = manifest.grid.hop_frames
    disjoint = [spans[number] for number in non_overlapping(spans)]
    truths = {span: film_clip(film, span[1], manifest.clip.fps, frames) for span in disjoint}
    # The film may end inside the last window.
    complete = [span for span in disjoint if len(truths[span]) == frames]
    if len(complete) < 2:
        return None, {}
    clips = [clip_of(span) for span in complete]
    corr = correlations(clips, [np.asarray(truths[span]) for span in complete], bundle.stats["mean_clip"])
    events = {0: read_events(recording / "truth" / "events.tsv")}
    wins = identification_nway(corr, distractors(complete, events), 2)
    won = {span: float(win) for span, win in zip(complete, wins, strict=True) if np.isfinite(win)}
    return identification(corr, complete, events)["identification_2way"], won


def with_interval(figure: Figure | None) -> str:
    """Write a figure with its interval."""
    if figure is None:
        return "-"
    return f"{figure['value']:.3f} ({intervals.words(figure)})"


def _silent() -> contextlib.redirect_stdout[io.StringIO]:
    return contextlib.redirect_stdout(io.StringIO())
