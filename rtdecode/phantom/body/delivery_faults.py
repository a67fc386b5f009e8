"""Plan what goes wrong in a simulated session, and write it down.

A specification becomes a list of `Fault` on the run's time line (`plan`). From these follow what becomes
of each volume (`outcomes`), when the folder is away, and which samples and triggers arrive.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode import strict_json
from rtdecode.errors import UsageError


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault.

    Attributes
    ----------
    hits : str
        What suffers: ``volume``, ``folder``, ``trigger`` or ``eeg``.
    usual_s : float
        Duration if none is given.
    duration : str
        What the duration means.
    """

    hits: str
    usual_s: float
    duration: str


_SPAN = "everything that starts within it is hit; 0 takes one"

KINDS = {
    "volume-drop": Kind("volume", 0.0, _SPAN),
    "volume-dup": Kind("volume", 0.0, _SPAN),
    "volume-late": Kind("volume", 2.0, "how late one volume is"),
    "volume-reorder": Kind("volume", 0.0, "none: one volume comes after its successor"),
    "slice-drop": Kind("volume", 0.0, _SPAN),
    "file-truncate": Kind("volume", 0.0, _SPAN),
    "file-slow": Kind("volume", 1.0, "how much longer one file is being written"),
    "folder-vanish": Kind("folder", 3.0, "how long the folder is away"),
    "eeg-drop": Kind("eeg", 0.5, "samples of that time are lost"),
    "eeg-jump": Kind("eeg", 0.5, "by how much the stamps jump, for good; every other time back"),
    "eeg-restart": Kind("eeg", 1.0, "how long the outlet is away; every other time it is another source"),
    "eeg-clip": Kind("eeg", 0.2, "how long some channels are at the rail"),
    "trigger-drop": Kind("trigger", 0.0, _SPAN),
    "trigger-extra": Kind("trigger", 0.0, "a train of triggers, 0.25 s apart; 0 makes one"),
}

_ONE_VOLUME = ("volume-late", "volume-reorder", "file-slow")  # their duration is not a span of volumes
_REORDER_S = 0.15  # by which a volume comes after its successor
_EXTRA_S = 0.25  # between added triggers


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault on the run's time line, from `start_s`; `KINDS` says what the duration means."""

    kind: str
    start_s: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class DeliveryOutcome:
    """What becomes of one volume.

    Attributes
    ----------
    faults : tuple of Fault
        What hits it, in the order of their start.
    lost : bool
        No file of it is written.
    cut : float or None
        Share of one of its files that is ever written.
    hole : bool
        Whether one of its slices is lost.
    pick : float
        Which slice or file is hit, as a share of them from 0 to 1.
    late_s : float
        How much later the whole volume comes.
    slow_s : float
        How much longer one of its files takes.
    again : bool
        Whether it is written a second time.
    """

    faults: tuple[Fault, ...] = ()
    lost: bool = False
    cut: float | None = None
    hole: bool = False
    pick: float = 0.0
    late_s: float = 0.0
    slow_s: float = 0.0
    again: bool = False

    @property
    def is_readable(self) -> bool:
        """Whether the volume can ever be read in full."""
        return not self.lost and self.cut is None and not self.hole


def plan(spec: str, seconds: float, seed: int) -> tuple[Fault, ...]:
    """Lay out the faults of a session.

    Parameters
    ----------
    spec : str
        Comma list of ``kind=rate per minute`` or ``kind@second[:duration]``; empty for none.
    seconds : float
        Run time over which rates apply.
    seed : int
        Seed of the faults' times.

    Returns
    -------
    tuple of Fault
        In the order of their start.

    Raises
    ------
    UsageError
        If a kind is not built, or a value is not a number.
    """
    rng = np.random.default_rng((seed, 41))
    planned: list[Fault] = []
    for part in filter(None, (text.strip() for text in spec.split(","))):
        planned += _read(part, seconds, rng)
    return tuple(sorted(planned, key=lambda fault: fault.start_s))


def dropped_volumes(faults: tuple[Fault, ...], tr: float, count: int) -> dict[int, Fault]:
    """Return the index of each volume that is lost, with the fault that took it."""
    lost: dict[int, Fault] = {}
    for fault in (fault for fault in faults if fault.kind == "volume-drop"):
        lost |= dict.fromkeys(_volumes(fault, tr, count), fault)
    return lost


def outcomes(faults: tuple[Fault, ...], tr: float, count: int, seed: int) -> dict[int, DeliveryOutcome]:
    """Return what becomes of each volume that something happens to.

    A volume that is lost has no other fault. One that lost a slice is not cut as well. One whose successor
    does not come is not moved behind it.
    """
    hits: dict[int, list[Fault]] = {}
    lost = dropped_volumes(faults, tr, count)
    for fault in (fault for fault in faults if KINDS[fault.kind].hits == "volume"):
        for index in _volumes(fault, tr, count):
            if fault.kind != "volume-reorder" or (index + 1 < count and index + 1 not in lost):
                hits.setdefault(index, []).append(fault)
    return {index: _fate(volume_faults, index, tr, seed) for index, volume_faults in sorted(hits.items())}


def absences(faults: tuple[Fault, ...], kind: str = "folder-vanish") -> list[tuple[float, float, Fault]]:
    """Return when the folder is away: start, stop and the fault that takes it, in order, overlaps merged."""
    away: list[tuple[float, float, Fault]] = []
    for fault in (fault for fault in faults if fault.kind == kind):
        stop = fault.start_s + fault.duration_s
        if away and fault.start_s <= away[-1][1]:
            start, earlier, first = away.pop()
            away.append((start, max(earlier, stop), first))
        else:
            away.append((fault.start_s, stop, fault))
    return away


def received(faults: tuple[Fault, ...], seconds: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return whether the EEG sample at each run time (sample,) arrives."""
    arrives = np.ones(len(seconds), bool)
    for fault in (fault for fault in faults if fault.kind in ("eeg-drop", "eeg-restart")):
        arrives &= (seconds < fault.start_s) | (seconds >= fault.start_s + fault.duration_s)
    return arrives


def triggers(
    faults: tuple[Fault, ...], tr: float, count: int
) -> tuple[list[float], list[tuple[Fault, float]]]:
    """Return the triggers that are sent, and what is wrong with them.

    Returns
    -------
    sent : list of float
        In order; volume `i` has ``i * tr`` unless it is dropped.
    trigger_faults : list of (Fault, float)
        Each trigger that was dropped or added, with its run time, in order.
    """
    trigger_faults: list[tuple[Fault, float]] = []
    sent = {i: i * tr for i in range(count)}
    for fault in faults:
        if fault.kind == "trigger-drop":
            trigger_faults += [(fault, sent.pop(i)) for i in _volumes(fault, tr, count) if i in sent]
        elif fault.kind == "trigger-extra":
            # Half a step where no duration is given, so that there is one trigger at least.
            steps = np.arange(0, max(fault.duration_s, _EXTRA_S / 2), _EXTRA_S)
            trigger_faults += [(fault, round(fault.start_s + float(step), 6)) for step in steps]
    extra = [time_s for fault, time_s in trigger_faults if fault.kind == "trigger-extra"]
    return sorted([*sent.values(), *extra]), sorted(trigger_faults, key=lambda entry: entry[1])


@dataclass(frozen=True, slots=True)
class FaultLog:
    """A file in which each fault is written down as it happens: one JSON line of kind, t and detail."""

    path: Path | None

    def write(self, kind: str, t: float, detail: dict[str, Any]) -> None:
        """Append one line."""
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(strict_json.dumps({"kind": kind, "t": round(t, 6), "detail": detail}) + "\n")


def volume_fault(index: int, fault: Fault, name: str) -> dict[str, Any]:
    """Return what is logged of every volume that something happens to."""
    return {"index": index, "file": name, "planned_s": fault.start_s}


def folder_fault(start_s: float, stop_s: float, volumes: list[int]) -> dict[str, Any]:
    """Return what is logged of a folder that was away: how long, and the volumes that came meanwhile."""
    return {"duration_s": round(stop_s - start_s, 6), "volumes": volumes}


def trigger_lines(
    faults: tuple[Fault, ...], tr: float, count: int
) -> list[tuple[str, float, dict[str, Any]]]:
    """Return what is logged of triggers, in order: kind, run time, detail.

    A trigger's index is that of the volume that lacks its trigger, or into whose TR an added one falls.
    """
    return [
        (fault.kind, time_s, {"index": int(time_s / tr + 1e-6), "planned_s": fault.start_s})
        for fault, time_s in triggers(faults, tr, count)[1]
    ]


def _volumes(fault: Fault, tr: float, count: int) -> range:
    """Return the volumes that start within a fault, at least the one in which it begins."""
    # The tolerances let a fault at 2.4 s hit volume 3 of TR 0.8 s, although 2.4 / 0.8 is just below 3.
    first = int(fault.start_s / tr + 1e-9)
    span = 0.0 if fault.kind in _ONE_VOLUME else fault.duration_s
    last = int(np.ceil((fault.start_s + span) / tr - 1e-9))
    return range(first, min(max(last, first + 1), count))


def _fate(faults: list[Fault], index: int, tr: float, seed: int) -> DeliveryOutcome:
    # Seeded by volume, so that what happens to one does not change the draw of another.
    cut, pick = np.random.default_rng((seed, 42, index)).uniform((0.05, 0), (0.95, 1))
    # Reversed, so that of several faults of one kind the earliest is kept.
    by_kind = {fault.kind: fault for fault in reversed(faults)}
    lost = by_kind.get("volume-drop")
    if lost is not None:
        return DeliveryOutcome((lost,), lost=True)
    if "slice-drop" in by_kind:
        by_kind.pop("file-truncate", None)
    fate = DeliveryOutcome(tuple(sorted(by_kind.values(), key=lambda fault: fault.start_s)))
    if "volume-reorder" in by_kind:
        fate = replace(fate, late_s=tr + _REORDER_S)
    if "volume-late" in by_kind:
        fate = replace(fate, late_s=max(fate.late_s, by_kind["volume-late"].duration_s))
    return replace(
        fate,
        cut=float(cut) if "file-truncate" in by_kind else None,
        hole="slice-drop" in by_kind,
        pick=float(pick),
        slow_s=by_kind["file-slow"].duration_s if "file-slow" in by_kind else 0.0,
        again="volume-dup" in by_kind,
    )


def _read(part: str, seconds: float, rng: np.random.Generator) -> list[Fault]:
    kind, mark = (part.split("@")[0], "@") if "@" in part else (part.split("=")[0], "=")
    if kind not in KINDS:
        raise UsageError(
            "simulated-fault-unknown",
            "--faults asks for {fault_kind!r}; built so far: {available}",
            fault_kind=kind,
            available=list(KINDS),
        )
    value = part[len(kind) + len(mark) :]
    usual = KINDS[kind].usual_s
    try:
        if mark == "@":
            start, _, duration = value.partition(":")
            return [_checked(Fault(kind, float(start), float(duration) if duration else usual))]
        times = rng.uniform(0, seconds, rng.poisson(float(value) * seconds / 60))
    except ValueError as error:
        raise UsageError(
            "simulated-fault-malformed",
            "--faults cannot read {fault!r} ({error}); write kind=rate per minute or kind@second[:duration]",
            fault=part,
            error=error,
        ) from error
    return [Fault(kind, float(t), usual) for t in times]


def _checked(fault: Fault) -> Fault:
    # The EEG begins before the run's time line does, so its faults may have negative times.
    if not (np.isfinite(fault.start_s) and (fault.start_s >= 0 or KINDS[fault.kind].hits == "eeg")):
        raise ValueError(f"a fault starts at 0 s of the run or later, found {fault.start_s:g}")
    if not (np.isfinite(fault.duration_s) and fault.duration_s >= 0):
        raise ValueError(f"a duration is 0 s or more, found {fault.duration_s:g}")
    return fault
