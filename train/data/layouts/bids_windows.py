"""Windows of a BIDS folder's films, and the volumes that belong to them."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from rtdecode.timing import exact
from train.data.dataset import WindowTable
from train.data.layouts.bids_files import BidsRun, ShownFilm
from train.data.layouts.bids_timing import VolumeTimes, volume_times
from train.data.layouts.film_clips import film_length_s
from train.data.layouts.stored_arrays import image
from train.data.window_tables import joined, of_run

# By default windows are the whole number of TRs that is nearest to this, s.
_ABOUT_S = Fraction(4)
# Grids that differ by less are one, as a share of a voxel.
_APART_VOXELS = 0.02
# A film's length in its file may be short of whole windows by rounding, s.
_SLACK_S = Fraction(1, 100)


@dataclass(frozen=True, slots=True, eq=False)
class CutFilms:
    """The windows of some runs.

    Attributes
    ----------
    windows : WindowTable
        Table of the windows, in the order of `where`.
    where : int64, (window, 2)
        Number of the run, and of the window's first volume in it.
    films : sequence of Path
        The film of each window.
    film_s : (window,)
        Film time at which each window starts, s.
    slots : int
        Number of volumes of a window.
    tr : Fraction
        Time between volumes, s. A window lasts `slots` of them.
    times : mapping
        A run's volumes (`BidsRun.bold`) -> when they were acquired.
    """

    windows: WindowTable
    where: NDArray[np.int64]
    films: Sequence[Path]
    film_s: NDArray[np.float64]
    slots: int
    tr: Fraction
    times: Mapping[Path, VolumeTimes]


def cut_films(
    folder: Path,
    runs: Sequence[BidsRun],
    shown_in: Callable[[BidsRun], list[ShownFilm]],
    lag_s: float,
    window_s: float | None,
) -> CutFilms:
    """Cut the films that runs showed into windows, each with all its volumes.

    Parameters
    ----------
    folder : Path
        Where the films lie; windows are named by a film's path in it.
    runs : sequence of BidsRun
        In the order in which they were recorded.
    shown_in : callable
        Returns which films a run showed.
    lag_s : float
        Haemodynamic lag, s.
    window_s : float or None
        Length of a window, s; None takes the whole number of TRs that is nearest to 4 s.

    Raises
    ------
    UsageError
        If there is no window, or runs do not fit together.
    """
    # Runs without a film may have another TR or grid.
    showing = [(number, run, shown_in(run)) for number, run in enumerate(runs)]
    showing = [(number, run, films) for number, run, films in showing if films]
    if not showing:
        raise UsageError(
            "bids-no-windows",
            "{folder}: no run of {subjects} shows a film. Name the films in the column stim_file of the "
            "events, with onset and duration.",
            folder=folder,
            subjects=", ".join(dict.fromkeys(run.subject for run in runs)),
        )
    times = {run.bold: volume_times(run) for _, run, _ in showing}
    tr = _shared_tr([run for _, run, _ in showing], times)
    slots = _slots(tr, window_s)
    window = slots * tr
    tables: list[WindowTable] = []
    places: list[NDArray[np.int64]] = []
    films: list[Path] = []
    film_s: list[float] = []
    lengths: dict[Path, Fraction] = {}
    grids: dict[str, tuple[Any, Path]] = {}
    times_shown: Counter[tuple[str, str]] = Counter()
    for number, run, shown_films in showing:
        volumes = _grid_of(run, grids)
        for shown_film in shown_films:
            if shown_film.film not in lengths:
                lengths[shown_film.film] = exact(round(film_length_s(shown_film.film), 3))
            length = lengths[shown_film.film]
            if shown_film.duration_s is not None:
                length = min(length, shown_film.duration_s)
            starts = [shown_film.onset_s + k * window for k in range(int((length + _SLACK_S) / window))]
            firsts = [times[run.bold].first_from(start + exact(lag_s)) for start in starts]
            full_windows = [k for k, first in enumerate(firsts) if 0 <= first <= volumes - slots]
            if not full_windows:
                continue
            titles = [f"{shown_film.film.relative_to(folder).as_posix()}/{k:04d}" for k in full_windows]
            repeat = np.array([times_shown[run.subject, name] for name in titles])
            times_shown.update((run.subject, name) for name in titles)
            tables.append(
                of_run(run.subject, run.name, titles, [float(starts[k]) for k in full_windows], repeat)
            )
            places.append(np.array([(number, firsts[k]) for k in full_windows]))
            films += [shown_film.film] * len(full_windows)
            film_s += [float(k * window) for k in full_windows]
    if not tables:
        longest = max(_grid_of(run, {}) for _, run, _ in showing)
        raise UsageError(
            "bids-runs-too-short",
            "{folder}: no window of a film has all its volumes. A window of {window_s:g} s has {slots} "
            "volumes from {lag_s:g} s after its start on, and the longest run that shows a film has "
            "{volumes} of {tr_s:g} s. Give longer runs, or films and lengths that fit them.",
            folder=folder,
            window_s=float(window),
            slots=slots,
            lag_s=lag_s,
            volumes=longest,
            tr_s=float(tr),
        )
    return CutFilms(joined(tables), np.concatenate(places), films, np.array(film_s), slots, tr, times)


def check_places(paths: Sequence[Path]) -> None:
    """Refuse runs whose volumes lie at another place than those of the first one.

    Parameters
    ----------
    paths : sequence of Path
        Volumes of one shape.

    Raises
    ------
    UsageError
        If the affine of one differs by more than a fiftieth of a voxel.
    """
    first = np.asarray(image(paths[0]).affine)
    for path in paths[1:]:
        affine = np.asarray(image(path).affine)
        if np.allclose(np.linalg.solve(first, affine), np.eye(4), atol=_APART_VOXELS):
            continue
        raise UsageError(
            "bold-affine-mismatch",
            "{path} has volumes with the affine {affine}, and {first_path} with {first_affine}: a voxel "
            "of one is elsewhere in the other. Bring the runs to one grid, or put those of one session into "
            "a folder of their own (links will do).",
            path=path,
            affine=np.round(affine, 2).tolist(),
            first_path=paths[0],
            first_affine=np.round(first, 2).tolist(),
        )


def _shared_tr(runs: Sequence[BidsRun], times: Mapping[Path, VolumeTimes]) -> Fraction:
    by_tr: dict[Fraction, Path] = {}
    for run in runs:
        by_tr.setdefault(times[run.bold].tr, run.bold)
    if len(by_tr) > 1:
        listed = ", ".join(f"{path.name}: {float(tr):g} s" for tr, path in by_tr.items())
        raise UsageError(
            "runs-tr-mismatch",
            "the runs differ in TR ({trs}). Open them apart: windows have one length.",
            trs=listed,
        )
    (tr,) = by_tr
    return tr


def _slots(tr: Fraction, window_s: float | None) -> int:
    if window_s is None:
        return max(1, round(_ABOUT_S / tr))
    slots = exact(window_s) / tr
    if slots.denominator != 1 or slots < 1:
        raise UsageError(
            "window-not-whole-trs",
            "a window has a whole number of TRs of {tr_s:g} s, and {window_s:g} s were asked for. Ask for a "
            "multiple of the TR.",
            tr_s=float(tr),
            window_s=window_s,
        )
    return int(slots)


def _grid_of(run: BidsRun, grids: dict[str, tuple[Any, Path]]) -> int:
    """Return a run's number of volumes, and refuse one that lies elsewhere than the subject's first."""
    header = image(run.bold)
    if len(header.shape) != 4:
        raise UsageError(
            "bold-not-4d",
            "{path} has the shape {shape}; volumes (i, j, k, volume) were expected.",
            path=run.bold,
            shape=header.shape,
        )
    first, path = grids.setdefault(run.subject, (header.shape[:3], run.bold))
    if header.shape[:3] != first:
        raise UsageError(
            "bold-grid-mismatch",
            "{path} has volumes of shape {shape}, and {first_bold} of {first_shape}. Prepare the "
            "runs on one grid, or open them apart.",
            path=run.bold,
            shape=header.shape[:3],
            first_bold=path.name,
            first_shape=first,
        )
    return int(header.shape[3])
