"""When the volumes of a BIDS run were acquired, by its sidecar and the header of its file.

BIDS 1.9 says it in one of two ways: ``RepetitionTime``, with a ``DelayTime`` in which nothing is acquired
at the end of each TR; or ``VolumeTiming``, the onset of every volume, with ``AcquisitionDuration`` or
``SliceTiming`` for how long one takes. All are seconds.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, isfinite
from pathlib import Path

import numpy as np

from rtdecode.errors import UsageError
from rtdecode.timing import exact
from train.data.layouts.bids_files import BidsRun
from train.data.layouts.stored_arrays import image
from train.data.slice_timing import acquired_shift_s

# No volume takes so long, s. Who writes so much has written milliseconds.
_LONGEST_S = 60
# By how much an onset may lie beside a steady one, as a share of the TR: onsets may be those of triggers.
_SCATTER = 0.01
# Units of time of a NIfTI header -> seconds. Without a unit they are seconds, as BIDS has it.
_UNITS_S = {"msec": Fraction(1, 1000), "usec": Fraction(1, 1_000_000)}


@dataclass(frozen=True, slots=True)
class VolumeTimes:
    """The volumes of a run: volume n begins at ``n * tr`` after the run's zero.

    Attributes
    ----------
    tr : Fraction
        From the beginning of a volume to that of the next, s.
    acquired : Fraction
        How much of the TR is acquisition, s; the rest is a pause.
    moment : Fraction
        The moment that a volume stands for, after its beginning, s: the middle of its acquisition, or where
        slice timing has moved it to.
    """

    tr: Fraction
    acquired: Fraction
    moment: Fraction

    def first_from(self, run_s: Fraction) -> int:
        """Return the first volume that stands for an instant of the run's time line, or a later one, s."""
        return ceil((run_s - self.moment) / self.tr)


def volume_times(run: BidsRun) -> VolumeTimes:
    """Read when the volumes of a run were acquired.

    Raises
    ------
    UsageError
        If the TR is not known, times are no seconds or contradict each other, or volumes do not follow each
        other at a steady distance.
    """
    sidecar = run.sidecar
    interval = _onsets_tr(run) if "VolumeTiming" in sidecar else None
    stated_s = _stated_tr(run) if interval is None or "RepetitionTime" in sidecar else interval
    if interval is not None and abs(stated_s - interval) > exact(_SCATTER) * interval:
        raise UsageError(
            "bold-timing-contradicts",
            "{path} has volumes every {interval_s:g} s by VolumeTiming, and the RepetitionTime {tr_s:g} s. "
            "BIDS has one of both: remove the wrong one.",
            path=run.bold,
            interval_s=float(interval),
            tr_s=float(stated_s),
        )
    tr = stated_s if interval is None else interval
    acquired = _acquired(run, tr)
    # Of data that were corrected for slice timing, a moment of the acquisition is known.
    shift = exact(round(acquired_shift_s({**sidecar, "RepetitionTime": float(acquired)}), 6))
    return VolumeTimes(tr, acquired, acquired / 2 + shift)


def _stated_tr(run: BidsRun) -> Fraction:
    """Return the TR of the sidecar, or of the file's header where the sidecar has none."""
    tr_s = run.sidecar.get("RepetitionTime")
    if tr_s is None:
        header = image(run.bold).header
        # A header's TR is a float of 32 bits.
        stored = exact(round(float(header.get_zooms()[-1]), 4))
        tr_s = float(stored * _UNITS_S.get(header.get_xyzt_units()[1], Fraction(1)))
    tr = _seconds(run.bold, "RepetitionTime", tr_s)
    if tr <= 0:
        raise _no_tr(run.bold, tr_s)
    return tr


def _no_tr(path: Path, tr_s: object) -> UsageError:
    return UsageError(
        "bold-tr-invalid",
        "{path} has the RepetitionTime {tr_s!r}; seconds were expected.",
        path=path,
        tr_s=tr_s,
    )


def _seconds(path: Path, key: str, value: object) -> Fraction:
    # JSON's true and false are numbers to Python.
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        if key == "RepetitionTime":
            raise _no_tr(path, value)
        raise UsageError(
            "bold-seconds-invalid",
            "{path} has the {key} {value!r}; seconds were expected.",
            path=path,
            key=key,
            value=value,
        )
    if value > _LONGEST_S:
        raise UsageError(
            "bold-milliseconds",
            "{path} has the {key} {value:g}, which reads as milliseconds, and BIDS has seconds. Write "
            "{seconds:g} in its sidecar if that is meant.",
            path=path,
            key=key,
            value=value,
            seconds=value / 1000,
        )
    return exact(value)


def _times(run: BidsRun, key: str) -> list[float]:
    """Return a list of times of the sidecar, which is not empty."""
    values = run.sidecar[key]
    usable = isinstance(values, list) and bool(values)
    if not usable or any(isinstance(t, bool) or not isinstance(t, int | float) for t in values):
        raise UsageError(
            "bold-seconds-invalid",
            "{path} has the {key} {value!r}; a list of seconds was expected.",
            path=run.bold,
            key=key,
            value=values,
        )
    return [float(t) for t in values]


def _onsets_tr(run: BidsRun) -> Fraction:
    """Return the distance of the onsets in VolumeTiming, which has to be steady."""
    onsets = np.array(_times(run, "VolumeTiming"))
    volumes = int(image(run.bold).shape[-1])
    if len(onsets) != volumes or len(onsets) < 2:
        raise UsageError(
            "bold-onset-count-mismatch",
            "{path} has {volumes} volumes, and VolumeTiming has {onsets} onsets. One for each of two volumes "
            "or more was expected.",
            path=run.bold,
            volumes=volumes,
            onsets=len(onsets),
        )
    if onsets[0] != 0:
        raise UsageError(
            "bold-onsets-not-from-zero",
            "{path} has its first volume at {onset_s:g} s by VolumeTiming, and events count from the first "
            "volume. Write onsets that begin at 0.",
            path=run.bold,
            onset_s=float(onsets[0]),
        )
    mean_s = float(onsets[-1]) / (volumes - 1)
    # The shortest decimal that is near enough: onsets that were measured scatter.
    for digits in (3, 6):
        tr = exact(round(mean_s, digits))
        deviation = np.abs(onsets - float(tr) * np.arange(volumes)).max()
        if tr > 0 and deviation <= _SCATTER * mean_s:
            return _seconds(run.bold, "VolumeTiming", float(tr))
    distances = np.diff(onsets)
    usual = float(np.median(distances))
    place_at = int(np.abs(distances - usual).argmax()) + 1
    raise UsageError(
        "bold-onsets-unsteady",
        "{path} has volume {volume} {distance_s:g} s after the one before by VolumeTiming, and most begin "
        "{usual_s:g} s after each other. Windows are read of volumes at a steady distance: leave the run "
        "out, or prepare its volumes on a steady grid.",
        path=run.bold,
        volume=place_at,
        distance_s=float(distances[place_at - 1]),
        usual_s=usual,
    )


def _acquired(run: BidsRun, tr: Fraction) -> Fraction:
    """Return for how long of a TR a volume is acquired; without another word it is all of it."""
    sidecar = run.sidecar
    slices = _slices_end(run) if sidecar.get("SliceTiming") else None
    key = "DelayTime" if "VolumeTiming" not in sidecar else "AcquisitionDuration"
    if key == "DelayTime":
        delay = _seconds(run.bold, key, sidecar.get(key, 0))
        stated_s = None if delay == 0 else tr - delay
    else:
        # With RepetitionTime some programs keep the length of the whole run under this name.
        duration = sidecar.get(key)
        stated_s = None if duration is None else _seconds(run.bold, key, duration)
        if stated_s is None and slices is None:
            raise UsageError(
                "bold-acquisition-unknown",
                "{path} has VolumeTiming and neither AcquisitionDuration nor SliceTiming, so it is not known "
                "how long a volume takes. Add one of them.",
                path=run.bold,
            )
    if stated_s is not None and not 0 < stated_s <= tr:
        raise _contradiction(run.bold, stated_s, key, tr)
    if slices is None:
        return tr if stated_s is None else stated_s
    last, after = slices
    end = tr if stated_s is None else stated_s
    if last >= end:
        raise _contradiction(run.bold, last, "SliceTiming", end)
    # How long one slice takes is rounded. What its end misses of the TR by less is no pause.
    return end if stated_s is not None or after > tr - (after - last) else after


def _slices_end(run: BidsRun) -> tuple[Fraction, Fraction] | None:
    """Return when the last slice of a volume begins and ends, s; None where all begin together."""
    times = _times(run, "SliceTiming")
    # Slices that are excited together have one time, but for rounding.
    begins = np.unique(np.round(times, 3))
    last = _seconds(run.bold, "SliceTiming", float(begins[-1]))
    if begins[0] < 0:
        raise UsageError(
            "bold-seconds-invalid",
            "{path} has the {key} {value!r}; seconds after the volume's beginning were expected.",
            path=run.bold,
            key="SliceTiming",
            value=float(begins[0]),
        )
    if len(begins) < 2:
        return None
    return last, last + exact(round(float(np.median(np.diff(begins))), 6))


def _contradiction(path: Path, place_at: Fraction, key: str, end: Fraction) -> UsageError:
    return UsageError(
        "bold-acquisition-contradicts",
        "{path}: by {key} a volume is acquired until {at_s:g} s, and by what else is told it ends within "
        "{acquired_s:g} s. Write the right one, in seconds.",
        path=path,
        key=key,
        at_s=float(place_at),
        acquired_s=float(end),
    )


def pauses(times: Iterable[VolumeTimes]) -> str:
    """Return what a user has to know of volumes with pauses between them; empty where there are none."""
    values = sorted(
        {(float(times.acquired), float(times.tr)) for times in times if times.acquired < times.tr}
    )
    if not values:
        return ""
    listed = ", ".join(f"{acquired:g} of {tr:g} s" for acquired, tr in values)
    return (
        f"The scanner paused between volumes (acquisition in {listed}): a volume stands for the middle of "
        "its own acquisition."
    )
