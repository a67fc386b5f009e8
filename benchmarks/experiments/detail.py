"""How much of the detail that no brain told of a clip should keep: the shares 0 to 1, at 1 and 4 steps.

    python -m benchmarks.experiments.detail [--json] [--write]   # half an hour on one core
    RTDECODE_DATA=DIR python -m benchmarks.experiments.detail --sheets DIR   # pictures, side by side

The shipped video model keeps a share of what it draws beyond the clip that its encoder expects
(`train.models.compact.flow.Denoiser`). Here it decodes the same sessions at every share, as a session with
``--detail`` does. For each share stand PSNR and 2-way identification against the film, the gradient energy
over that of the film, and the Fréchet distance between clips and film in the features of EfficientNet-Lite0
(`benchmarks.experiments.lite_features`), which no loss has seen. Intervals are over sessions.

The distance needs as many clips on each side, 500 here, and is biased upwards: the covariances of 500 clips
in 1280 features have rank 499. So it is told twice, in all features and in their first 64 principal
components, which are fitted to films alone. Beside it stand its floor, the distance between the film and as
many clips of other films of the kind, and the distance of the film as the decoder's codec draws it, to which
no clip of this decoder can be expected to come closer.

Seeds are of the development sets. `--write` keeps the figures as results/detail.json.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.bars import FIGURES
from benchmarks.experiments import lite_features
from benchmarks.result_files import RESULTS, write
from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle
from rtdecode.disk.clip_file import Pixels
from rtdecode.errors import RtDecodeError, explain
from rtdecode.phantom.film.watched import NATURAL, SHAPES, watched
from rtdecode.phantom.session import PhantomSession
from rtdecode.scores import intervals
from rtdecode.scores.accuracy import above, correlations, entry, identification_nway, psnr
from rtdecode.scores.events import Event, Span, distractors
from rtdecode.types import Window
from streaming.decode.decoder import SharedDecoder
from train.compare import opened
from train.data.chain import windows
from train.data.phantom import Participant, events, film_clips, spans
from train.evaluation.pictures import contact_sheet
from train.evaluation.references import recoded, watch
from train.interface.system import System
from train.metrics import fvd
from train.metrics.pixels import gradient_energy

SHARES = (0.0, 0.15, 0.3, 0.45, 0.6, 1.0)
STEPS = (1, 4)
COMPONENTS = 64
_BUNDLE = "phantom"
_FILMS = (NATURAL, SHAPES)
# Twenty sessions of 25 windows; as many films that are not decoded are the floor.
_SEEDS = range(1300, 1320)
_FLOOR_SEEDS = range(1320, 1340)
_SECONDS = 100.0
_DIGITS = 4
_OUT = RESULTS / "detail.json"
# Of the sheets: seed, windows and frames, and the shares that they show.
_SHEET_SEED = 1340
_SHEET_ROWS = 8
_SHEET_FRAMES = [4, 20]
_SHEET_SHARES = (0.0, 0.3, 0.6)
_DEVELOPMENT_FILM = Path("films", "judged", "caminandes_llamigos.mp4")

Matrix = NDArray[np.float64]
Row = dict[str, Any]


@dataclass(frozen=True)
class Sessions:
    """Sessions that are decoded again and again.

    Attributes
    ----------
    windows : list of list of Window
        Of each session, in time order.
    clips : list of uint8 (frame, row, column, 3)
        The film in each window, and the frame after it, which may lie behind a cut.
    where : list of (run, start_s, stop_s)
        The run is the seed.
    shots : dict
        Run -> shots.
    """

    windows: list[list[Window]]
    clips: list[NDArray[np.uint8]]
    where: list[Span]
    shots: dict[int, list[Event]]

    @property
    def truths(self) -> list[Pixels]:
        """The film in each window."""
        return [clip[:-1] for clip in self.clips]

    @property
    def seeds(self) -> NDArray[np.int64]:
        """Seed of each window's session."""
        return np.array([run for run, _, _ in self.where])


def simulate(bundle: Bundle, who: Participant, seeds: Sequence[int], seconds: float) -> Sessions:
    """Simulate sessions of a participant, and cut and normalise their windows as a session does.

    Parameters
    ----------
    bundle : Bundle
    who : Participant
    seeds : sequence of int
    seconds : float
        Length of each film.
    """
    sessions = Sessions([], [], [], {})
    for seed in seeds:
        session = watch(who, seed, seconds)
        sessions.windows.append(_windows(bundle, session))
        sessions.clips.extend(film_clips(session.film))
        sessions.where.extend(spans(seed, session.film.windows, bundle.manifest.grid))
        sessions.shots.update(events({seed: session.film}))
    return sessions


def _windows(bundle: Bundle, session: PhantomSession) -> list[Window]:
    """Cut the windows of a session; noise is a function of the run, which is the seed here."""
    cut = windows(bundle, session.events(chunk_s=1.0), session.montage, seconds=session.seconds)
    return [replace(window, run=session.seed) for window in cut]


def decode(
    shared: SharedDecoder, sessions: Sequence[Sequence[Window]], steps: int, share: float
) -> Iterator[NDArray[np.uint8]]:
    """Decode sessions at one share, and yield the frames that are emitted of each clip."""
    for session in sessions:
        decoder = shared.session()
        for window in session:
            yield decoder.decode(window, steps, detail=share).clip.frames[:-1]


@dataclass(frozen=True)
class Space:
    """A linear space of features, fitted to films alone.

    Attributes
    ----------
    mean : (value,)
    axes : (value, component)
    variance_share : float
        Share of the films' variance in it.
    """

    mean: Matrix
    axes: Matrix
    variance_share: float

    def of(self, features: Matrix) -> Matrix:
        """Project features, (clip, value), into it."""
        return (features - self.mean) @ self.axes


def fit_space(films: Matrix, components: int = COMPONENTS) -> Space:
    """Fit the first principal components of features of films, (clip, value)."""
    mean = films.mean(axis=0)
    _, spread, axes = np.linalg.svd(films - mean, full_matrices=False)
    power = np.square(spread)
    return Space(mean, axes[:components].T, float(power[:components].sum() / power.sum()))


@dataclass(frozen=True)
class Judge:
    """What clips of one kind of film are held against.

    Attributes
    ----------
    sessions : Sessions
    mean_clip : uint8 (frame, row, column, 3)
        Subtracted before clips are correlated.
    network : Lite0
    film, other : (clip, value)
        Features of the film, and of as many clips of other films of the kind.
    space : Space
    """

    sessions: Sessions
    mean_clip: Pixels
    network: lite_features.Lite0
    film: Matrix
    other: Matrix
    space: Space

    def floors(self) -> Row:
        """Make the distances between films of the kind."""
        return self._distances(self.other)

    def through_codec(self, bundle: Bundle, system: System) -> Row:
        """Make the figures of the film as the decoder's codec draws it."""
        seeds = self.sessions.seeds
        clips: list[Pixels] = []
        for seed in np.unique(seeds):
            film = np.stack([self.sessions.clips[n] for n in np.flatnonzero(seeds == seed)])
            clips += recoded(system, bundle, film) or []
        figures, _ = self.row(clips, None)
        return figures

    def row(self, clips: Sequence[Pixels], base: Matrix | None) -> tuple[Row, Matrix]:
        """Judge clips.

        Parameters
        ----------
        clips : sequence of uint8 (frame, row, column, 3)
        base : (clip,) or None
            PSNR of the clips that these are compared with, dB.

        Returns
        -------
        row : dict
            Figures as `rtdecode.scores.accuracy.entry` makes them.
        noise : (clip,)
            PSNR of each clip, dB.
        """
        truths = self.sessions.truths
        seeds = self.sessions.seeds
        noise = psnr(clips, truths)
        figures: Row = {"psnr": entry(noise, 0.0, groups=seeds)}
        figures["psnr_above_none"] = above(noise, noise if base is None else base, seeds)
        figures["identification_2way"] = entry(self._wins(clips), 0.5, groups=seeds)
        figures["gradient_energy"] = float(gradient_energy(clips).mean() / gradient_energy(truths).mean())
        figures |= self._distances(lite_features.of_clips(self.network, clips))
        return figures, noise

    def _wins(self, clips: Sequence[Pixels]) -> Matrix:
        """Return the share of 2-way comparisons within its session that each clip wins."""
        allowed = distractors(self.sessions.where, self.sessions.shots)
        wins = np.full(len(clips), np.nan)
        for run in np.unique(self.sessions.seeds):
            rows = np.flatnonzero(self.sessions.seeds == run)
            emitted = [clips[int(n)] for n in rows]
            corr = correlations(emitted, [self.sessions.truths[int(n)] for n in rows], self.mean_clip)
            wins[rows] = identification_nway(corr, allowed[np.ix_(rows, rows)], 2)
        return wins

    def _distances(self, features: Matrix) -> Row:
        near = (self.space.of(features), self.space.of(self.film))
        return {
            f"frechet_{COMPONENTS}": self._distance(*near),
            f"frechet_{lite_features.WIDTH}": self._distance(features, self.film),
        }

    def _distance(self, clips: Matrix, film: Matrix) -> Row:
        interval = fvd.jackknife(clips, film, self.sessions.seeds)
        return {"value": fvd.frechet(clips, film), **interval.entries(), "n": len(clips)}


def judge_of(
    bundle: Bundle, network: lite_features.Lite0, who: Participant, seeds: Sequence[int], floor: Sequence[int]
) -> Judge:
    """Simulate the sessions of one kind of film, and measure the film."""
    sessions = simulate(bundle, who, seeds, _SECONDS)
    truth = lite_features.of_clips(network, sessions.truths)
    films = (watched(who.film, _SECONDS, seed, "free") for seed in floor)
    clips = (clip[:-1] for film in films for clip in film_clips(film))
    other = lite_features.of_clips(network, clips)
    space = fit_space(np.concatenate([truth, other]))
    return Judge(sessions, bundle.stats["mean_clip"], network, truth, other, space)


def measure(bundle: Bundle, films: Sequence[str] = _FILMS) -> dict[str, Any]:
    """Decode and judge all films at all shares.

    Returns
    -------
    dict
        Film -> ``clips`` on each side of the distances, ``variance_kept`` in the components, the ``floor`` of
        the distances, figures of the film through the ``codec``, and ``rows`` by steps and share.
    """
    console = Console(stderr=True)
    shared = SharedDecoder(bundle)
    network = lite_features.load()
    # It draws the film through the codec, which its graphs cannot: they hold no way from pixels to latents.
    system = opened(FIGURES.parent).system
    tree: dict[str, Any] = {}
    for film in films:
        judge = judge_of(bundle, network, Participant(film=film), _SEEDS, _FLOOR_SEEDS)
        console.print(f"{film}: {len(judge.sessions.truths)} windows", highlight=False)
        rows: list[Row] = []
        for steps in STEPS:
            base: Matrix | None = None
            for share in SHARES:
                clips = list(decode(shared, judge.sessions.windows, steps, share))
                figures, noise = judge.row(clips, base)
                base = noise if base is None else base
                rows.append({"steps": steps, "detail": share, **figures})
                console.print(f"{film}, {steps} steps, {share:g}: {_words(rows[-1])}", highlight=False)
        tree[film] = {
            "clips": len(judge.film),
            "variance_kept": judge.space.variance_share,
            "floor": judge.floors(),
            "codec": judge.through_codec(bundle, system),
            "rows": rows,
        }
    return _rounded(tree)


def _rounded(tree: Any) -> Any:
    """Round every number to what intervals leave of its digits."""
    if isinstance(tree, dict):
        return {name: _rounded(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_rounded(value) for value in tree]
    return round(tree, _DIGITS) if isinstance(tree, float) else tree


def _words(row: Row) -> str:
    figures = {name: figure for name, figure in row.items() if isinstance(figure, dict)}
    return ", ".join(f"{name} {figure['value']:.3f}" for name, figure in figures.items())


def table(film: str, figures: dict[str, Any]) -> Table:
    """Lay out the rows of one film, and the floor."""
    names = [name for name, figure in figures["rows"][0].items() if isinstance(figure, dict)]
    layout = Table("steps", "share", *names, "gradient energy", title=f"{film}, {figures['clips']} clips")
    for row in figures["rows"]:
        cells = [f"{row[name]['value']:.3f} ({intervals.words(row[name])})" for name in names]
        layout.add_row(str(row["steps"]), f"{row['detail']:g}", *cells, f"{row['gradient_energy']:.3f}")
    for title, row in (("codec", figures["codec"]), ("other film", figures["floor"])):
        cells = [f"{row[name]['value']:.3f}" if name in row else "" for name in names]
        energy = row.get("gradient_energy")
        layout.add_row("", title, *cells, "" if energy is None else f"{energy:.3f}")
    return layout


def draw(bundle: Bundle, folder: Path) -> None:
    """Draw the shares side by side on each film, and on one of the development set, into PNG files."""
    root = os.environ.get("RTDECODE_DATA")
    if root is None:
        raise SystemExit(
            f"RTDECODE_DATA is not set: it names the folder of the recorded data, with {_DEVELOPMENT_FILM}."
        )
    shared = SharedDecoder(bundle)
    films = {film: film for film in _FILMS}
    films |= {_DEVELOPMENT_FILM.stem: str(Path(root) / _DEVELOPMENT_FILM)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, film in films.items():
        sessions = simulate(bundle, Participant(film=film), [_SHEET_SEED], _SECONDS)
        picked = np.linspace(0, len(sessions.truths) - 1, _SHEET_ROWS).astype(int)
        columns = {"film": [sessions.truths[n] for n in picked]}
        for steps in STEPS:
            for share in _SHEET_SHARES:
                clips = list(decode(shared, sessions.windows, steps, share))
                columns[f"{share:g} at {steps}"] = [clips[n] for n in picked]
        title = f"simulated participant, preset easy, {name}: share of detail at 1 and 4 steps"
        contact_sheet(columns, _SHEET_FRAMES, title).save(folder / f"{name}.png")


def main() -> int:
    """Decode, judge and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument("--write", action="store_true", help=f"keep the figures as results/{_OUT.name}")
    parser.add_argument("--bundle", default=_BUNDLE, help="a shipped bundle's name, or a folder")
    parser.add_argument("--sheets", type=Path, metavar="DIR", help="draw pictures into a folder instead")
    arguments = parser.parse_args()
    try:
        bundle = bundles.load(arguments.bundle)
        if arguments.sheets is not None:
            draw(bundle, arguments.sheets)
            return 0
        figures = measure(bundle)
    except RtDecodeError as error:
        return explain(error)
    if arguments.json:
        sys.stdout.write(json.dumps(figures, indent=1) + "\n")
    else:
        for film, rows in figures.items():
            Console(width=None if sys.stdout.isatty() else 200).print(table(film, rows))
    if arguments.write:
        write(_OUT, {"films": figures})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
