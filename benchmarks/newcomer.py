"""A bundle with tokenizers, fitted to newcomers: how its encoder tells their windows apart.

python -m benchmarks.newcomer RUN [--subjects 2,3] [--minutes 2,4,10] [--film natural] [--seed 1065]
python -m benchmarks.newcomer RUN --stages DIR --write    # sessions of RUN are kept; so are the figures
python -m benchmarks.newcomer RUN --base --write NAME     # also trains from RUN on the same recordings

RUN is made fittable where it is not (`train.make_fittable`), and exported. `rtdecode fit`
takes the bundle to recordings of simulated participants that are as long as asked; with `--base`, a training
that begins at RUN (`train.run base=`) learns from each as well, but for its last fifth. Each bundle then
reads a session that neither has seen: the vectors of its encoder are identified by what was shown
(`condition_2way`), with both modalities and with each alone, and its clips by their pixels. Beside this stand
the bundle as it is, read by the newcomer and by the participant who was trained on, and what a film shifted
by a half would have.
"""

import argparse
import contextlib
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.played import opened, played, record, with_interval
from benchmarks.result_files import RESULTS, write
from export import fit
from rtdecode.bundle import Bundle
from rtdecode.bundle.graph import Graph
from rtdecode.disk.recording import Recording
from rtdecode.errors import RtDecodeError, explain
from rtdecode.phantom.film.watched import NATURAL, SHAPES
from rtdecode.phantom.session import PhantomSession
from rtdecode.scores import intervals
from rtdecode.scores.accuracy import identification_nway
from train.artifacts.run_folder import restored
from train.config.recipe import build, numbers
from train.config.run_context import progress
from train.config.run_files import read_run
from train.data.phantom import session_clips, window_arrays
from train.data.recorded import cut_windows
from train.evaluation.identification import judging_seeds
from train.interface.system import System
from train.make_fittable import make_fittable
from train.models.conditioned.fittable import FITTER
from train.run_recipe import run as train

_OUT = "newcomer"
# The session that is fitted, which no shipped recipe trains on, and the one that is judged.
_FITTED = 600
_JUDGED = 1065
# Half of the samples that a session has otherwise; the band that is read lies far below.
_SFREQ = 500.0
_STRETCH_S = 24.0
_ROUTES = {"both": ("fmri", "eeg"), "fmri": ("fmri",), "eeg": ("eeg",)}

Figures = dict[str, Any]


def fittable(run: Path, stages: Path | None, scratch: Path) -> Path:
    """Return a run to which newcomers can be fitted: a copy where it is none."""
    if read_run(run)["manifest"].get("fitter") == FITTER:
        return run
    make_fittable(run, scratch / "run", stages or scratch / "stages")
    return scratch / "run"


def measure(
    bundle: Bundle,
    system: System,
    subject: int,
    minutes: Sequence[float],
    film: str,
    seed: int = _JUDGED,
    seconds: float = 400.0,
    base: Path | None = None,
) -> Figures:
    """Fit a bundle to one participant, and let each fit read the same session.

    Parameters
    ----------
    bundle : Bundle
    system : System
        Of its run; it says what vectors clips should lead to.
    subject : int
    minutes : sequence of float
        Lengths of the recordings that are fitted.
    film : str
        What is watched, in both sessions: their drawings differ by seed.
    seed, seconds
        Of the session that is judged.
    base : Path, optional
        A run that a training on each recording begins at.

    Returns
    -------
    dict
        Minutes, ``as it is``, or minutes with ``, base`` -> figures, or why there are none.
    """
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        session = PhantomSession("easy", subject, seed, seconds, sfreq=_SFREQ, film=film)
        judged = record(session, scratch / "judged")
        aims = system.targets(session_clips(bundle.manifest, session))
        assert aims is not None
        figures["as it is"] = read(bundle, judged, aims, scratch / "out")
        for length in progress(minutes, "fits"):
            fitted = PhantomSession("easy", subject, _FITTED, 60 * length, sfreq=_SFREQ, film=film)
            recording = record(fitted, scratch / f"session-{length:g}")
            fitted_path = scratch / f"fitted-{length:g}"
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    mine = fit.run([recording], None, None, str(bundle.path), fitted_path)
            except RtDecodeError as error:
                figures[f"{length:g}"] = str(error)
                continue
            proof = mine.manifest.provenance["fitted"]["held_out"]["both"]
            session_figures = read(mine, judged, aims, scratch / f"out-{length:g}")
            figures[f"{length:g}"] = session_figures | {"read alone": proof.get("alone")}
        if base is not None:
            for length in progress(minutes, "trainings"):
                recording = scratch / f"session-{length:g}"
                figures[f"{length:g}, base"] = _trained(base, recording, judged, session)
    return figures


def _trained(base: Path, recording: Path, judged: Path, session: PhantomSession) -> Figures | str:
    """Begin a training at a run, and let its bundle read a session; or say why there is none."""
    out = recording.with_name(f"{recording.name}-base")
    recipe = read_run(base)
    changes = [
        f"scale={recipe['scale']}",
        f"base={base}",
        f"data={recording}",
        f"film={recording / 'truth' / 'film.mp4'}",
        "judge=none",
        f"out={out}",
    ]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            run = train(recipe["recipe"], changes)
    except RtDecodeError as error:
        return str(error)
    # What class vectors are compared with is pooled anew in every training.
    system = restored(run, build(read_run(run)["arguments"])["system"])
    bundle = opened(str(run), out.with_name(f"{out.name}-bundle"))
    aims = system.targets(session_clips(bundle.manifest, session))
    assert aims is not None
    return read(bundle, judged, aims, out.with_name(f"{out.name}-out"))


def read(bundle: Bundle, judged: Path, aims: np.ndarray, out: Path) -> Figures:
    """Let a bundle read a session: identification by the vectors of its encoder, and by its clips."""
    recording = Recording(judged)
    cut = cut_windows(bundle, recording, list(bundle.manifest.modalities))[: len(aims)]
    inputs = window_arrays(bundle.manifest, cut)
    encode = Graph(bundle.read(bundle.manifest.built["encode"].file), "encode.onnx")
    start_s = np.array([window.start_s for window in cut], np.float64)
    figures: Figures = {}
    for route, modalities in _ROUTES.items():
        signals = {name: values * (name.partition("_")[0] in modalities) for name, values in inputs.items()}
        one_by_one = ({name: signals[name][n : n + 1] for name in encode.inputs} for n in range(len(cut)))
        vectors = np.concatenate([encode(ports)["embedding"] for ports in one_by_one])
        figures[route] = _identified(vectors, aims, start_s)
        if route == "both":
            figures["shifted"] = _identified(vectors, np.roll(aims, len(aims) // 2, axis=0), start_s)
    clips = played(judged, bundle, out)
    return figures | {"clips": clips.finals, "clips, null brain": clips.null}


def _identified(vectors: np.ndarray, aims: np.ndarray, start_s: np.ndarray) -> Figures:
    """Identify windows by their vectors, each set less its mean, by the cosine; chance is 0.5."""
    alike = _unit(vectors) @ _unit(aims).T
    scores = identification_nway(alike, ~np.eye(len(alike), dtype=np.bool_), 2)
    units = intervals.stretches((start_s // _STRETCH_S).astype(np.int64), np.zeros(len(scores), np.int64))
    figure = {"value": float(scores.mean()), **intervals.of_mean(scores, units).entries(), "n": len(scores)}
    return intervals.rounded(figure, 4)


def _unit(values: np.ndarray) -> np.ndarray:
    about = values.astype(np.float64) - values.mean(0, dtype=np.float64)
    return about / np.maximum(np.linalg.norm(about, axis=1, keepdims=True), 1e-12)


def table(figures: Figures) -> Table:
    """Lay out what was measured."""
    columns = ("both", "fmri", "eeg", "shifted", "clips", "clips, null brain")
    laid = Table("participant", "minutes", *columns, title="2-way (95 %), chance 0.5", title_justify="left")
    for who, rows in figures.items():
        for title, row in rows.items():
            cells = [row] if isinstance(row, str) else [with_interval(row[name]) for name in columns]
            laid.add_row(who, title, *cells)
    return laid


def main() -> int:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run of cinesync on the simulated participant")
    parser.add_argument("--subjects", default="2,3", help="the newcomers")
    parser.add_argument("--minutes", default="2,4,10", help="minutes of recording, separated by commas")
    parser.add_argument("--film", default=NATURAL, choices=(SHAPES, NATURAL))
    parser.add_argument("--seed", type=int, default=_JUDGED, help="of the judged session, 1000 and up")
    parser.add_argument("--seconds", type=float, default=400.0, help="length of the judged session")
    parser.add_argument("--stages", type=Path, help="a folder for sessions of the run, to be kept")
    parser.add_argument("--base", action="store_true", help="also train from the run on each recording")
    parser.add_argument(
        "--write",
        nargs="?",
        const=_OUT,
        metavar="NAME",
        help=f"keep the figures in results/NAME.json, or {_OUT}.json",
    )
    options = parser.parse_args()
    minutes = [float(word) for word in options.minutes.split(",")]
    how = (options.film, options.seed, options.seconds)
    figures: Figures = {}
    try:
        judging_seeds([options.seed])
        system = restored(options.run, build(read_run(options.run)["arguments"])["system"])
        with tempfile.TemporaryDirectory() as name:
            run = fittable(options.run, options.stages, Path(name))
            bundle = opened(str(run), Path(name) / "bundle")
            base = run if options.base else None
            for subject in numbers(options.subjects):
                figures[f"participant {subject}"] = measure(bundle, system, subject, minutes, *how, base=base)
            figures["participant 1"] = measure(bundle, system, 1, [], *how)
    except RtDecodeError as error:
        return explain(error)
    Console(width=180).print(table(figures))
    if options.write:
        write(RESULTS / f"{options.write}.json", figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
