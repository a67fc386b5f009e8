"""A session as one page that keeps and travels: the command ``rtdecode report``.

Everything is read from the session's folder and goes into one HTML file, pictures and curves included, so
that the file alone can be sent, printed and filed. Names of files, streams and participants are not in it.
"""

import base64
import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode import terminal
from rtdecode.bundle.manifest import CAUSAL
from rtdecode.disk import private
from rtdecode.disk.animation import animated_webp
from rtdecode.disk.film_file import open_film
from rtdecode.disk.folders import holder, locked, what_is_there
from rtdecode.disk.video import count_frames, iter_mp4
from rtdecode.errors import UsageError
from rtdecode.scores import intervals
from streaming.checks.finding import counted
from streaming.sinks.accuracy import BASELINES
from streaming.sinks.aside import is_aside
from streaming.sinks.session_folder import killed, recover
from streaming.sinks.text import banner

Frames = NDArray[np.uint8]

# Clips of each kind that are shown.
_CLIPS_PER_KIND = 3
_BINS = 24
# Of a clip's frames every second one is shown.
_FRAME_STEP = 2
# Frames a second of a film that does not say it.
_FPS = 8.0
_FIGURES = {
    "identification_2way": "identification, 2-way",
    "identification_2way_same_background": "identification, 2-way, same background",
    "identification_50way": "identification, 50-way",
    "identification_top1": "identification, top 1",
    "classification_top1": "category, top 1",
}
_LATENCIES = {
    "beyond_floor": "final, after the last of its input",
    "beyond_floor_preview": "preview, after the last of its input",
    "since_stimulus": "final, after the stimulus",
}
# Stands for a control that was not computed.
_MISSING = "-"
_WHY_MISSING = (
    "A dash stands for an interval or a control that the session was too short for, or for a control that "
    "its bundle does not have."
)
_FLOORS = (
    "Colours alone say much: the clips stand beside their own mean colour and still layout, and beside the "
    "true ones, which were told. A ridge regression of the same data and the nearest training clip need what "
    "the bundle was trained on: python -m train.evaluate RUN has them."
)
_MANY = "The intervals are not corrected for their number."
_STYLE = """
body { font: 15px/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f23; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; display: block; max-width: 100%; overflow-x: auto; }
td, th { padding: 0.15rem 0.9rem 0.15rem 0; text-align: left; }
.note { color: #b34700; font-weight: 600; } .small { color: #5a6269; font-size: 13px; }
figure { display: inline-block; margin: 0 1rem 1rem 0; max-width: 100%; }
figure img { width: 18rem; max-width: 100%; } svg { max-width: 100%; }
"""


@dataclass(frozen=True, slots=True)
class Session:
    """What a session left.

    Attributes
    ----------
    report : dict
        Its ``report.json``.
    clips : list of dict
        The lines of its ``clips.jsonl``.
    film : Path
        Its ``film.mp4``.
    state : str
        That it still runs or was killed, and what that means for the page; empty where it has ended.
    """

    report: dict[str, Any]
    clips: list[dict[str, Any]]
    film: Path
    state: str = ""

    @property
    def finals(self) -> list[dict[str, Any]]:
        """The finals, in order."""
        return [clip for clip in self.clips if clip["revision"] == "final"]


def run(folder: Path, out: Path | None) -> int:
    """Write the page, and print where it is.

    Raises
    ------
    UsageError
        If the folder holds no session, or the page cannot be written.
    """
    target = out or folder / "report.html"
    if is_aside(folder) and holder(folder) is None:
        with locked(folder, "OUT", "rtdecode report"):
            recover(folder)
        sentence = (
            f"A session in {folder} was killed before its first window: the files of the one before are back."
        )
        terminal.say(sentence)
    session = read(folder)
    if session.state:
        terminal.say(f"{folder}: {session.state}.")
    content = page(session)
    try:
        private.file(target).write_text(content, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            "page-unwritable",
            "the page cannot be written to {path}: {error}. Give another file by --out.",
            path=target,
            error=error,
        ) from error
    terminal.line(target)
    return 0


def read(folder: Path) -> Session:
    """Read a session's folder.

    Raises
    ------
    UsageError
        If it holds no session.
    """
    owner = holder(folder)
    state = f"{owner} still runs, and this is how it stood" if owner else killed(folder) or ""
    if state and not (folder / "report.json").is_file():
        raise UsageError(
            "session-without-report",
            "{folder}: {state}. It had not written a report yet: its clips and its film are all there is.",
            folder=folder,
            state=state,
        )
    missing = [name for name in ("report.json", "clips.jsonl") if not (folder / name).is_file()]
    if missing:
        raise UsageError(
            "session-missing-files",
            "{folder} holds no session: found {found}, without {missing_files}. Give the folder that "
            "`rtdecode stream`, `replay` or `demo` named at its end (--out).",
            folder=folder,
            found=what_is_there(folder),
            missing_files=" and ".join(missing),
        )
    # A line without its end was being written.
    lines = (folder / "clips.jsonl").read_text().split("\n")[:-1]
    report = json.loads((folder / "report.json").read_text())
    return Session(report, [json.loads(line) for line in lines], folder / "film.mp4", state)


def page(session: Session) -> str:
    """Make the page."""
    report = session.report
    note = banner(
        report["note"],
        report.get("chain", CAUSAL),
        simulated=report["simulated"],
        # Earlier reports called the session simulated in that case.
        bundle_simulated=report.get("bundle_simulated", False),
    )
    parts = [
        f"<h1>Session {_text(report['session'])}</h1>",
        f'<p class="note">{_text(note)}</p>' if note else "",
        f'<p class="note">{_text(session.state)}.</p>' if session.state else "",
        f"<p>{_text(methods(session))}</p>",
        _section("What was shown", _pictures(session)),
        _section("Against the truth", _accuracy(report)),
        _section("How long it took", _latencies(session)),
        _section("What arrived, and what did not", _arrived(report)),
        _section("Runs", _runs(report["runs"])),
        _section("What the operator was told", _told(report.get("told"))),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Session {_text(report['session'])}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def methods(session: Session) -> str:
    """Say in a paragraph what was done, as for a methods section."""
    report = session.report
    windows = report["windows"]
    eeg = report["eeg"]
    fmri = report["fmri"]
    by = f"Clips were decoded by rtdecode {report['version']} (bundle {report['bundle']})."
    complete = f"{windows['final']} of {windows['expected']} windows have a final clip"
    less = f"{windows['degraded']} of them from incomplete data, and {windows['skipped']} were skipped."
    sentences = [by, f"{complete}, {less}"]
    if eeg["samples"]:
        came = f"{eeg['samples']} samples, {counted(eeg['gaps'] or 0, 'gap')}"
        sentences.append(f"EEG arrived at {eeg['rate_hz'] or 0:.1f} Hz ({came}).")
    if fmri["volumes"]:
        sentences.append(f"{fmri['volumes']} volumes arrived and {fmri['missing']} are missing.")
    if report["clock"]["source"]:
        residual = report["clock"]["residual_ms"]
        fits = "" if residual is None else f" (residual {residual:.3f} ms)"
        sentences.append(f"Both were placed on one time line by the {report['clock']['source']}{fits}.")
    figure = report["accuracy"]["identification_2way"]
    if figure:
        span = ("" if figure["ci95"] is None else "95 % interval ") + intervals.words(figure)
        sentences.append(
            f"2-way identification of single windows was {figure['value']:.3f} ({span}, chance "
            f"{figure['chance']:g}, n = {figure['n']})."
        )
    sentences.append(f"The session ended because of this: {report['ended']}.")
    return " ".join(sentences)


def _pictures(session: Session) -> str:
    """Show the best, median and worst clips, or some from all over where the truth is not known."""
    if not session.film.is_file() or not session.finals:
        return ""
    chosen = _chosen(session)
    if not chosen:
        return ""
    hops = dict(_hops(session, {number for _, number in chosen}))
    fps = _fps(session.film)
    figures = []
    for words, number in chosen:
        if number in hops:
            data = base64.b64encode(animated_webp(hops[number][::_FRAME_STEP], fps / _FRAME_STEP)).decode()
            picture = f'<img alt="{_text(words)}" src="data:image/webp;base64,{data}">'
            figures.append(f"<figure>{picture}<figcaption>{_text(words)}</figcaption></figure>")
    return "".join(figures)


def _chosen(session: Session) -> list[tuple[str, int]]:
    """Choose clips: what is said of each, and its number."""
    numbers = {(record["run"], *record["window_s"]): record["clip"] for record in session.finals}
    judged = session.report.get("identified") or []
    rated = [(entry["wins"], numbers.get((entry["run"], *entry["window_s"]))) for entry in judged]
    ranked = sorted((wins, number) for wins, number in rated if number is not None)
    if len(ranked) < 3 * _CLIPS_PER_KIND:
        indices = np.linspace(
            0, len(session.finals) - 1, min(2 * _CLIPS_PER_KIND, len(session.finals))
        ).astype(int)
        return [(f"clip {session.finals[n]['clip']}", session.finals[n]["clip"]) for n in indices]
    middle = len(ranked) // 2 - _CLIPS_PER_KIND // 2
    places = {
        "best": ranked[::-1][:_CLIPS_PER_KIND],
        "median": ranked[middle : middle + _CLIPS_PER_KIND],
        "worst": ranked[:_CLIPS_PER_KIND],
    }
    return [
        (f"{word}: clip {number} wins {wins:.0%} of its comparisons", number)
        for word, some in places.items()
        for wins, number in some
    ]


def _hops(session: Session, numbers: set[int]) -> Iterator[tuple[int, Frames]]:
    """Yield the wanted windows' frames of the film, which has a hop of frames for each window in order."""
    last = max(numbers)
    frames = iter_mp4(session.film)
    length = _hop_frames(session)
    for number in range(last + 1):
        hop = list(islice(frames, length))
        if len(hop) < length:
            return
        if number in numbers:
            yield number, np.stack(hop)


def _fps(film_path: Path) -> float:
    with open_film(film_path) as film:
        return _FPS if film.fps is None else float(film.fps)


def _hop_frames(session: Session) -> int:
    """Count the film's frames of one window."""
    count = count_frames(session.film)
    windows = session.report["windows"]
    return max(1, count // max(1, windows["final"] + windows["skipped"]))


def _accuracy(report: Mapping[str, Any]) -> str:
    """Show each figure with its chance, its controls and its interval."""
    baselines = report["baselines"] or {}
    # Older reports have fewer of them.
    controls = [name for name in BASELINES if name == "null_brain" or name in baselines]
    rows = []
    for key, title in _FIGURES.items():
        figure = report["accuracy"][key]
        if figure is None:
            continue
        shifted = _MISSING if figure["shuffled"] is None else f"{figure['shuffled']:.3f}"
        control_values = [_baseline(baselines.get(name), key) for name in controls]
        values = (f"{figure['value']:.3f}", intervals.ends(figure), f"{figure['chance']:.3f}")
        rows.append((title, *values, shifted, *control_values, str(figure["n"]), _units(figure)))
    if not rows:
        return "<p>The truth is not known.</p>"
    floors = [BASELINES[name] for name in controls]
    headings = ("", "value", "95 % interval", "chance", "shifted brain", *floors, "n", "units")
    sentences = [_MANY, _FLOORS] if len(controls) > 1 else [_MANY]
    if any(_MISSING in row for row in rows):
        sentences.insert(0, _WHY_MISSING)
    return _table(headings, rows) + f"<p>{_text(' '.join(sentences))}</p>"


def _baseline(figures: Mapping[str, Any] | None, key: str) -> str:
    """Write the figure of a baseline."""
    figure = (figures or {}).get(key)
    return _MISSING if figure is None else f"{figure['value']:.3f}"


def _units(figure: Mapping[str, Any]) -> str:
    """Return the number of units of an interval, and each of few; older reports do not say it."""
    interval = figure.get("interval")
    if interval is None:
        return ""
    is_short = interval["units"] <= intervals.MIN_UNITS and interval["values"] is not None
    values = interval["values"] if is_short else []
    return " ".join([str(interval["units"]), *(f"{value:.3f}" for value in values)])


def _latencies(session: Session) -> str:
    histograms = []
    for name, title in _LATENCIES.items():
        revision = "preview" if name == "beyond_floor_preview" else "final"
        values = [record["latency_ms"][name] for record in session.clips if record["revision"] == revision]
        measured = [value for value in values if value is not None]
        if measured:
            histograms.append(histogram(f"{title}, ms (n {len(measured)})", measured))
    return "".join(histograms) or "<p>Not known: this is a replay on a virtual clock.</p>"


def histogram(title: str, values: Sequence[float]) -> str:
    """Draw how often which value was found (SVG).

    Parameters
    ----------
    title : str
        What was measured, with its unit.
    values : sequence of float
        The values that were found.
    """
    counts, edges = np.histogram(values, _BINS)
    wide = 560 / _BINS
    bars = []
    for n, count in enumerate(counts):
        tall = 100 * count / max(counts.max(), 1)
        place = f'x="{20 + n * wide:.1f}" y="{130 - tall:.1f}" width="{wide - 1:.1f}" height="{tall:.1f}"'
        bars.append(f'<rect {place} fill="#0072B2"><title>{edges[n]:.0f}: {count}</title></rect>')
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 160" width="600">'
        f'<text x="20" y="18" font-size="14">{_text(title)}</text>{"".join(bars)}'
        f'<text x="20" y="150" font-size="12">{edges[0]:.0f}</text>'
        f'<text x="580" y="150" font-size="12" text-anchor="end">{edges[-1]:.0f}</text></svg>'
    )


def _arrived(report: Mapping[str, Any]) -> str:
    rows = [
        (f"{part}: {name.replace('_', ' ')}", _value(value))
        for part in ("eeg", "fmri", "clock")
        for name, value in report[part].items()
        if value is not None
    ]
    return _table(("", ""), rows)


def _runs(runs: Sequence[Mapping[str, Any]]) -> str:
    if not runs:
        return "<p>No run began.</p>"
    names = ("run", "volumes", "missing", "began", "ended", "framewise displacement", "tSNR", "verdict")
    rows = []
    for run in runs:
        motion = run["motion"] or {}
        values = (run["run"], run["volumes"], run["missing"], run["began_s"], run["ended_s"])
        moved = (motion.get("mean_fd_mm"), motion.get("tsnr"), motion.get("verdict"))
        rows.append(tuple(_value(value) for value in (*values, *moved)))
    return _table(names, rows)


def _told(sentences: Sequence[Mapping[str, Any]] | None) -> str:
    if sentences is None:
        return "<p>Nobody was told anything: this is a replay.</p>"
    if not sentences:
        return "<p>Nothing happened that had to be told.</p>"
    rows = [
        ("" if sentence["run_s"] is None else f"{sentence['run_s']:.0f} s", sentence["text"])
        for sentence in sentences
    ]
    return _table(("run time", ""), rows)


def _value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(part)}" for name, part in value.items())
    return ", ".join(map(_value, value)) if isinstance(value, list) else str(value)


def _section(title: str, content: str) -> str:
    return f"<h2>{_text(title)}</h2>{content}" if content else ""


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _text(words: str) -> str:
    return html.escape(str(words))
