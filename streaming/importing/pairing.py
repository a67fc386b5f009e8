"""Fit volume triggers to volumes by their times, and place the volumes on the clock of the EEG.

Markers are sorted by origin and text. Those of a run lie whole TRs apart: each has a place on the acquisition
grid, so a trigger that was lost leaves a place empty and shifts nothing. A run of triggers belongs to the
volumes if it has as many places as they have. Where it has more or fewer, it is not known which volume the
first trigger started, and the caller has to say so.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdecode.clocks.lines import robust_line
from rtdecode.errors import UsageError
from rtdecode.types import Trigger
from streaming.importing.eeg import Marker
from streaming.importing.volumes import VolumeRun

# A pause between triggers that ends a run, s and TRs.
_PAUSE_S = 10.0
_PAUSE_TRS = 4.5
# How far from its place a trigger may lie, as a fraction of the TR.
_NEAR = 0.1
# The same of a slice trigger, as a fraction of their distance, and at least, s.
_NEAR_SLICES = 1 / 6
_LEAST_NEAR_S = 1e-3
# Fraction of a run's steps that are single TRs, and of its triggers that have a place.
_SINGLE = 0.5
_PLACED = 0.5
# Triggers nearer to each other than this fraction of a TR are those of slices.
_DENSE = 0.65
# The clocks of scanner and amplifier differ by less than this.
_MOST_DRIFT = 5e-3
# Two markers of different origin within this time are copies of one trigger, s.
_SAME_S = 5e-3
# First triggers that may be strays.
_STRAYS = 4


@dataclass(frozen=True, slots=True)
class TriggerRun:
    """The triggers of one run.

    Attributes
    ----------
    origin, label : str
        Those of its markers, see `Marker`.
    stamps : (trigger,)
        s.
    index : (trigger,) int
        Places on the acquisition grid; the first is 0.
    strays : int
        Markers of that text in between that have no place.
    slices : int
        Triggers for one volume; the first of them is kept.
    """

    origin: str
    label: str
    stamps: NDArray[np.float64]
    index: NDArray[np.int64]
    strays: int
    slices: int

    @property
    def span(self) -> int:
        """Number of places on the grid, from the first trigger to the last."""
        return int(self.index[-1]) + 1

    @property
    def words(self) -> str:
        """Say what it is, for messages."""
        return f"{len(self.index)} of '{self.label}' from {self.stamps[0]:.3f} to {self.stamps[-1]:.3f} s"


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the run lies on the clock of the EEG.

    Attributes
    ----------
    begins_at : float
        Start of volume 0, s.
    tr_s, local_tr_s : float
        TR by the scanner's clock, and by that of the EEG.
    triggers : list of Trigger
        The triggers of the run that was chosen, by the clock of the EEG.
    notes : list of str
        What was found and left out, one sentence each.
    """

    begins_at: float
    tr_s: float
    local_tr_s: float
    triggers: list[Trigger]
    notes: list[str]


def place(
    markers: Sequence[Marker],
    run: VolumeRun,
    *,
    label: str | None = None,
    trigger_run: int | None = None,
    first_trigger: int | None = None,
) -> Placed:
    """Find the triggers of a run of volumes.

    Parameters
    ----------
    markers : sequence of Marker
        Markers of the EEG file, in order.
    run : VolumeRun
        The volumes whose triggers are looked for.
    label : str, optional
        Text of the volume trigger; by default the markers that come once a TR.
    trigger_run : int, optional
        Which run of triggers belongs to the volumes, from 1, where there are several.
    first_trigger : int, optional
        Index of the volume that the first trigger of the run started; below 0 for volumes that were
        discarded. By default what a sidecar says, or 0 if there are as many triggers as volumes.

    Raises
    ------
    UsageError
        If no marker comes once a TR, or it cannot be told which volume the first trigger started.
    """
    runs = _runs(markers, run, label)
    tr_s = run.tr_s or _median_tr(runs[0])
    chosen = _chosen(runs, run, trigger_run)
    first = _first_volume(chosen, run) if first_trigger is None else first_trigger
    volume = chosen.index + first
    line = robust_line(np.asarray(volume * tr_s, np.float64), chosen.stamps)
    if abs(line.slope - 1) > _MOST_DRIFT:
        raise UsageError(
            "import-trigger-interval",
            "the triggers '{label}' come every {interval_s:.4f} s, and the volumes have a TR of {tr_s:g} s. "
            "Give the EEG and the volumes of one run, or the right TR with --tr.",
            label=chosen.label,
            interval_s=line.slope * tr_s,
            tr_s=tr_s,
        )
    residual_s = float(np.abs(chosen.stamps - line.offset - line.slope * volume * tr_s).max())
    notes = _notes(chosen, run, volume, residual_s)
    triggers = [Trigger(float(stamp), chosen.label, float(stamp)) for stamp in chosen.stamps]
    return Placed(line.offset, tr_s, line.slope * tr_s, triggers, notes)


def _runs(markers: Sequence[Marker], run: VolumeRun, label: str | None) -> list[TriggerRun]:
    """Return the runs of the markers that are the volume triggers."""
    by_text: dict[tuple[str, str], list[float]] = {}
    for marker in markers:
        if math.isfinite(marker.stamp) and label in (None, marker.label):
            by_text.setdefault((marker.origin, marker.label), []).append(marker.stamp)
    trains = {key: _sorted_runs(*key, stamps, run.tr_s) for key, stamps in by_text.items()}
    trains = {key: runs for key, runs in trains.items() if runs}
    if not trains:
        listed = [
            f"{len(stamps)} of '{text}'{_pace(stamps)}"
            for (_, text), stamps in sorted(by_text.items(), key=lambda entry: -len(entry[1]))[:8]
        ]
        raise UsageError(
            "import-triggers-missing",
            "no marker comes once a TR{tr}; the EEG has {available}. Give the triggers with --triggers TSV, "
            "or place the first volume with --volumes-at, or by the clocks of both files with --by-clocks.",
            tr="" if run.tr_s is None else f" of {run.tr_s:g} s",
            available=listed or ["no markers"],
        )
    ranked = sorted(trains.values(), key=lambda runs: -_total(runs))
    best = ranked[0]
    rivals = [runs for runs in ranked[1:] if not _copies(runs, best) and _total(runs) > _total(best) / 2]
    if rivals:
        raise UsageError(
            "import-triggers-unclear",
            "several markers come once a TR: {available}. Say with --trigger which is the volume trigger.",
            available=[f"{_total(runs)} of '{runs[0].label}' ({runs[0].origin})" for runs in [best, *rivals]],
        )
    return best


def _total(runs: list[TriggerRun]) -> int:
    return sum(len(run.index) for run in runs)


def _pace(stamps: list[float]) -> str:
    return "" if len(stamps) < 2 else f" every {float(np.median(np.diff(stamps))):.3f} s"


def _copies(runs: list[TriggerRun], best: list[TriggerRun]) -> bool:
    """Return whether triggers are those that another origin has told already, as on a stim channel."""
    best_stamps = np.concatenate([run.stamps for run in best])
    stamps = np.concatenate([run.stamps for run in runs])
    nearest_s = np.abs(stamps[:, None] - best_stamps).min(axis=1)
    return bool(np.mean(nearest_s <= _SAME_S) > _PLACED)


def _sorted_runs(origin: str, label: str, stamps: list[float], tr_s: float | None) -> list[TriggerRun]:
    """Divide the stamps of one text into runs; those that do not come once a TR are left out."""
    times = np.unique(np.array(stamps))
    if len(times) < 2:
        return []
    tr_s = tr_s or float(np.median(np.diff(times)))
    cuts = np.flatnonzero(np.diff(times) > max(_PAUSE_S, _PAUSE_TRS * tr_s)) + 1
    runs = [_on_grid(origin, label, part, tr_s) for part in np.split(times, cuts)]
    return [run for run in runs if run is not None]


def _on_grid(origin: str, label: str, times: NDArray[np.float64], tr_s: float) -> TriggerRun | None:
    pitch_s = float(np.median(np.diff(times))) if len(times) > 1 else tr_s
    dense = pitch_s < _DENSE * tr_s
    slices = max(1, round(tr_s / pitch_s)) if dense else 1
    # The trigger of the slice before must not be taken for that of the volume.
    near_s = max(_LEAST_NEAR_S, _NEAR_SLICES * pitch_s) if dense else _NEAR * tr_s
    # The first ones may be strays: the grid begins where most triggers have a place.
    begins = [_places(times[start:], tr_s, near_s) for start in range(min(_STRAYS, len(times)))]
    start = max(range(len(begins)), key=lambda n: (len(begins[n][0]), -n))
    rows, index = begins[start]
    if len(rows) < 2:
        return None
    single = np.mean(np.diff(index) == 1)
    if single < _SINGLE or len(rows) * slices < _PLACED * len(times):
        return None
    strays = len(times) - len(rows) if slices == 1 else 0
    return TriggerRun(origin, label, times[start:][rows], index, strays, slices)


def _places(
    times: NDArray[np.float64], tr_s: float, near_s: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the triggers that lie whole TRs after the last one that does, and their places."""
    rows = [0]
    index = [0]
    for row in range(1, len(times)):
        steps = (times[row] - times[rows[-1]]) / tr_s
        if round(steps) >= 1 and abs(steps - round(steps)) * tr_s <= near_s:
            rows.append(row)
            index.append(index[-1] + round(steps))
    return np.array(rows), np.array(index)


def _median_tr(run: TriggerRun) -> float:
    return round(float(np.median(np.diff(run.stamps) / np.diff(run.index))), 4)


def _chosen(runs: list[TriggerRun], volumes: VolumeRun, trigger_run: int | None) -> TriggerRun:
    numbered = [f"run {number}: {run.words}" for number, run in enumerate(runs, start=1)]
    if trigger_run is not None and not 1 <= trigger_run <= len(runs):
        raise UsageError(
            "import-trigger-run-unknown",
            "--trigger-run {number}: the EEG has {available}.",
            number=trigger_run,
            available=numbered,
        )
    fitting = [run for run in runs if run.span in volumes.spans]
    if trigger_run is not None:
        return runs[trigger_run - 1]
    if len(runs) == 1:
        return runs[0]
    if len(fitting) == 1:
        return fitting[0]
    raise UsageError(
        "import-trigger-run-unclear",
        "the EEG has {count} runs of triggers, and {fitting} of them have as many places as there are "
        "volumes, {volumes}. Choose one with --trigger-run: {available}.",
        count=len(runs),
        fitting=len(fitting),
        volumes=volumes.count,
        available=numbered,
    )


def _first_volume(run: TriggerRun, volumes: VolumeRun) -> int:
    """Return the volume that the first trigger started; below 0 for one that was discarded."""
    if run.span in volumes.spans:
        return volumes.count - run.span
    expected = min(volumes.spans, key=lambda span: abs(run.span - span))
    discarded = expected - volumes.count
    raise UsageError(
        "import-trigger-count",
        "the triggers have {triggers} places ({words}), and there are {volumes} volumes{discarded}: "
        "{difference}. It is not known which volume the first trigger started: say it with --first-trigger, "
        "0 for the first volume, -1 for one that was discarded before it.",
        triggers=run.span,
        words=run.words,
        volumes=volumes.count,
        discarded=f" and {discarded} that were discarded" if discarded else "",
        difference=f"{abs(run.span - expected)} too {'many' if run.span > expected else 'few'}",
    )


def _notes(run: TriggerRun, volumes: VolumeRun, volume: NDArray[np.int64], residual_s: float) -> list[str]:
    farthest = f"the farthest lies {1000 * residual_s:.2f} ms from its place"
    notes = [f"{len(run.index)} triggers '{run.label}' place {volumes.count} volumes; {farthest}."]
    if run.slices > 1:
        notes.append(f"There are {run.slices} triggers for each volume: the first of them counts.")
    if run.strays:
        notes.append(f"{run.strays} markers '{run.label}' lie between the triggers' places and are left out.")
    if without := sorted(set(range(volumes.count)) - set(volume.tolist())):
        listed = ", ".join(str(index) for index in without[:12])
        notes.append(f"{len(without)} volumes have no trigger of their own, counted from 0: {listed}.")
    if before := int((volume < 0).sum()):
        notes.append(f"{before} triggers belong to volumes that were discarded before the first one.")
    if after := int((volume >= volumes.count).sum()):
        notes.append(f"{after} triggers come after the last volume.")
    return notes
