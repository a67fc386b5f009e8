"""Voxels that respond alike, that follow what is shown, and any: how many are driven, and what a ridge reads.

python -m benchmarks.experiments.voxel_choice [--presets easy,default] [--subjects 1] [--write]

The simulated participant watches segments of drawn film twice, at TR 2 s, and a voxel is any of the brain's.
So many are chosen as `data.choose=reproducible` of a recipe takes, and the same number as `driven` does and
at random; and once more as many as are driven, of the first the best by t without a test. A ridge learns
from each choice, and all of them are judged on the same fresh films.

What is driven is known here: precision is the share of driven voxels among the chosen ones, recall the share
of chosen ones among the driven. As in a release, each voxel's line through a run is taken off, and what is
left is z-scored over that run. `--write` keeps the figures as results/voxel_choice.json.
"""

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.signal import detrend

from benchmarks.result_files import RESULTS, write
from rtdecode.errors import UsageError
from rtdecode.phantom.body.scanner import SHAPE
from rtdecode.phantom.session import PhantomSession
from rtdecode.scores.accuracy import above, correlations, entry, identification_nway
from rtdecode.scores.intervals import ends
from rtdecode.timing import TimingGrid, exact
from train.config.run_context import Arrays, progress
from train.data.dataset import WindowTable
from train.data.driven_voxels import driven_voxels
from train.data.phantom import film_clips
from train.data.reproducible_voxels import Segment, reproducibility, reproducible_voxels, segments
from train.evaluation.oracle import fit_oracle

# As many segments and showings as cc2017 has for training; each of its segments lasts six times as long.
SEGMENTS = 18
SHOWINGS = 2
SECONDS = 80.0
TR_S = 2.0
# Films are drawn from these seeds on, and noise from others, all below 1000.
_FILMS = 700
# Fresh sessions, of which each shows a film of its own.
_JUDGED = range(1150, 1160)
_GRID = TimingGrid(exact(TR_S), sfreq=exact(125), window=exact(4), hop=exact(4), lag=exact(4), fps=exact(8))
# Frames of a clip without the one after its window.
_FRAMES = int(_GRID.window * _GRID.fps)
# A voxel that varies less does not change; what is left is rounding.
_STILL = 1e-6
_OUT = RESULTS / "voxel_choice.json"

# How voxels are chosen.
REPRODUCIBLE = "reproducible"
DRIVEN = "driven"
RANDOM = "random"

Voxels = NDArray[np.int64]
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Watched:
    """Windows of sessions, one after the other.

    Attributes
    ----------
    fmri : (window, slot, voxel) float32
        Of all voxels of the brain.
    clips : uint8 (window, frame, row, column, 3)
    film, showing : (window,)
        Number of the film, and of its showing.
    """

    fmri: NDArray[np.float32]
    clips: NDArray[np.uint8]
    film: NDArray[np.int64]
    showing: NDArray[np.int64]

    @property
    def table(self) -> WindowTable:
        """The windows as a data set lists them: a showing is a run."""
        count = len(self.film)
        places = np.arange(count) - np.searchsorted(self.film * SHOWINGS + self.showing, self._runs)
        return WindowTable(
            subject=np.full(count, "phantom"),
            run=np.array([f"{run}" for run in self._runs]),
            shown=np.array([f"{film}/{place}" for film, place in zip(self.film, places, strict=True)]),
            start_s=(float(_GRID.hop) * places).astype(np.float64),
            repeat=self.showing,
            held_out=np.zeros(count, bool),
        )

    @property
    def _runs(self) -> NDArray[np.int64]:
        return self.film * SHOWINGS + self.showing

    def sessions(self, voxels: Voxels) -> list[Arrays]:
        """Return the windows of each session at some voxels, as the ridge takes them."""
        runs = self._runs
        return [
            {"fmri": self.fmri[runs == run][..., voxels], "clips": self.clips[runs == run]}
            for run in np.unique(runs)
        ]


def watched(sessions: Iterable[tuple[int, int, PhantomSession]]) -> Watched:
    """Read the windows of sessions, each given with the numbers of its film and of the showing."""
    fmri = []
    clips = []
    places = []
    for film, showing, session in sessions:
        volumes = np.stack([session.scanner.volume(n).reshape(-1) for n in range(session.volumes)])
        series = standardised(volumes[:, session.head.brain])
        count = session.film.windows
        fmri.append(np.stack([series[list(_GRID.volumes(k))] for k in range(count)]))
        clips.append(film_clips(session.film))
        places += [(film, showing)] * count
    numbers = np.array(places)
    return Watched(np.concatenate(fmri), np.concatenate(clips), numbers[:, 0], numbers[:, 1])


def standardised(volumes: NDArray[Any]) -> NDArray[np.float32]:
    """Take the line off each voxel of a run (volume, voxel), and z-score what is left."""
    series = detrend(volumes.astype(np.float64), axis=0)
    spread = series.std(axis=0)
    return np.divide(series, spread, out=np.zeros_like(series), where=spread > _STILL).astype(np.float32)


def choices(teaching: Watched, repeated: Sequence[Segment], count: int | None) -> dict[str, Voxels]:
    """Choose voxels by every way; their places among the brain's.

    Parameters
    ----------
    teaching : Watched
    repeated : sequence of Segment
    count : int or None
        How many are chosen; None takes the better half of those that pass the test of reproducibility.

    Raises
    ------
    UsageError
        If none passes.
    """
    candidates = teaching.fmri.shape[2]
    if count is None:
        reproducible = reproducible_voxels(teaching.fmri, repeated, candidates)
    else:
        order = np.argsort(-reproducibility(teaching.fmri, repeated), kind="stable")
        reproducible = np.sort(order[:count])
    number = len(reproducible)
    return {
        REPRODUCIBLE: reproducible,
        DRIVEN: driven_voxels(list(teaching.clips), teaching.fmri, teaching.film, number),
        RANDOM: np.sort(np.random.default_rng(number).choice(candidates, number, replace=False)),
    }


def wins(teaching: Watched, judged: Watched, voxels: Voxels) -> NDArray[np.float64]:
    """Return how often each judged window wins its 2-way identification by a ridge from some voxels."""
    films = [int(run) // SHOWINGS for run in np.unique(teaching.film * SHOWINGS + teaching.showing)]
    ridge = fit_oracle(teaching.sessions(voxels), frames=_FRAMES, carry=False, films=films)
    clips = [clip[:_FRAMES] for session in judged.sessions(voxels) for clip in ridge.clips(session)]
    truths = [clip[:_FRAMES] for clip in judged.clips]
    mean = np.rint(teaching.clips[:, :_FRAMES].mean(axis=0)).astype(np.uint8)
    corr = correlations(clips, truths, mean)
    return identification_nway(corr, ~np.eye(len(corr), dtype=bool), 2)


def measure(preset: str, subject: int) -> dict[str, Row]:
    """Choose voxels of one participant, and judge what a ridge reads from each choice.

    Returns
    -------
    dict
        ``test`` and ``as many as are driven``, each with how many ``voxels`` were chosen and, for each
        choice, ``precision``, ``recall`` and ``identification_2way``; for all but the first choice
        ``less``, by how much the first is better, paired. ``reason`` alone where none passed the test.
    """

    def session(film: int, seed: int) -> PhantomSession:
        return PhantomSession(
            preset, subject, seed, SECONDS, sfreq=250, shape=SHAPE, tr_s=TR_S, film_seed=film
        )

    numbers = [(film, showing) for film in range(SEGMENTS) for showing in range(SHOWINGS)]
    sessions = [(f, s, session(_FILMS + f, SHOWINGS * f + s)) for f, s in numbers]
    teaching = watched(progress(sessions, f"{preset}, participant {subject}"))
    judged = watched([(n, 0, session(seed, seed)) for n, seed in enumerate(_JUDGED)])
    place = sessions[0][2].head
    # Places of the driven voxels among those of the brain.
    driven = np.flatnonzero(np.isin(place.brain, place.voxels))
    table = teaching.table
    repeated = segments(table, np.arange(len(table)))
    rows: dict[str, Row] = {}
    for title, count in (("test", None), ("as many as are driven", len(driven))):
        try:
            chosen = choices(teaching, repeated, count)
        except UsageError as error:
            rows[title] = {"reason": str(error)}
            continue
        rows[title] = {"voxels": len(chosen[REPRODUCIBLE])} | compared(teaching, judged, chosen, driven)
    return rows


def compared(teaching: Watched, judged: Watched, chosen: Mapping[str, Voxels], driven: Voxels) -> Row:
    """Hold choices against the driven voxels, and what is read from them against the first."""
    scores = {name: wins(teaching, judged, voxels) for name, voxels in chosen.items()}
    row: Row = {}
    for name, voxels in chosen.items():
        hits = len(np.intersect1d(voxels, driven))
        row[name] = {
            "precision": hits / len(voxels),
            "recall": hits / len(driven),
            "identification_2way": entry(scores[name], 0.5, groups=judged.film),
        }
        if name != REPRODUCIBLE:
            row[name]["less"] = above(scores[REPRODUCIBLE], scores[name], judged.film)
    return row


def _lines(figures: Mapping[str, Mapping[str, Row]]) -> Iterator[list[str]]:
    for setting, rows in figures.items():
        for title, row in rows.items():
            if "reason" in row:
                yield [f"{setting}, {title}", row["reason"]]
                continue
            for name in (REPRODUCIBLE, DRIVEN, RANDOM):
                entries = row[name]
                two = entries["identification_2way"]
                less = entries.get("less")
                yield [
                    f"{setting}, {title}, {name}",
                    str(row["voxels"]),
                    f"{entries['precision']:.3f}",
                    f"{entries['recall']:.3f}",
                    f"{two['value']:.3f} ({ends(two)})",
                    "-" if less is None else f"{less['value']:+.3f} ({ends(less)})",
                ]


def main() -> None:
    """Measure, print, and write where that was arguments for."""
    options = argparse.ArgumentParser(description="Voxels chosen by repeats, by what is shown, and at random")
    options.add_argument("--presets", default="easy,default")
    options.add_argument("--subjects", default="1")
    options.add_argument("--write", action="store_true")
    arguments = options.parse_args()
    figures = {
        f"{preset}, {subject}": measure(preset, int(subject))
        for preset in arguments.presets.split(",")
        for subject in arguments.subjects.split(",")
    }
    columns = (
        "preset, participant, choice",
        "voxels",
        "precision",
        "recall",
        "2-way",
        "reproducible less it",
    )
    table = Table(*columns)
    for line in _lines(figures):
        table.add_row(*line)
    Console(width=160).print(table)
    if arguments.write:
        write(_OUT, {"segments": SEGMENTS, "seconds": SECONDS, "participants": figures})


if __name__ == "__main__":
    main()
