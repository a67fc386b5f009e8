"""What goes wrong in a simulated session: which volumes and samples never arrive."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError

KINDS = ("volume-drop", "eeg-drop")

_EEG_DROP_S = 0.5


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault on the run's time line, from `start_s` for `duration_s` (0: whatever lies at the start)."""

    kind: str
    start_s: float
    duration_s: float


def plan(spec: str, seconds: float, seed: int) -> tuple[Fault, ...]:
    """Lay out the faults of a session.

    Parameters
    ----------
    spec : str
        Comma list of ``kind=rate per minute`` or ``kind@second[:duration]``; empty for none.
    seconds : float
        Run time over which rates apply.
    seed : int

    Returns
    -------
    tuple of Fault
        In the order of their start.

    Raises
    ------
    UsageError
        For a kind that is not built, or a value that is no number.
    """
    rng = np.random.default_rng((seed, 41))
    found: list[Fault] = []
    for part in filter(None, (text.strip() for text in spec.split(","))):
        found += _read(part, seconds, rng)
    return tuple(sorted(found, key=lambda fault: fault.start_s))


def dropped_volumes(faults: tuple[Fault, ...], tr: float, count: int) -> dict[int, Fault]:
    """Index of each volume that is lost, with the fault that took it."""
    lost: dict[int, Fault] = {}
    for fault in (fault for fault in faults if fault.kind == "volume-drop"):
        first = int(fault.start_s / tr + 1e-9)
        last = int(np.ceil((fault.start_s + fault.duration_s) / tr - 1e-9))
        lost |= {i: fault for i in range(first, max(last, first + 1)) if i < count}
    return lost


def received(faults: tuple[Fault, ...], seconds: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether the EEG sample of each run time (sample,) arrives."""
    kept = np.ones(len(seconds), bool)
    for fault in (fault for fault in faults if fault.kind == "eeg-drop"):
        kept &= (seconds < fault.start_s) | (seconds >= fault.start_s + fault.duration_s)
    return kept


@dataclass(frozen=True, slots=True)
class FaultLog:
    """Where each fault is written down as it happens: one JSON line of kind, t and detail."""

    path: Path | None

    def write(self, kind: str, t: float, detail: dict[str, Any]) -> None:
        """Append one line."""
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps({"kind": kind, "t": round(t, 6), "detail": detail}) + "\n")


def volume_fault(index: int, fault: Fault, name: str) -> dict[str, Any]:
    """What is logged of a lost volume."""
    return {"index": index, "file": name, "planned_s": fault.start_s}


def eeg_fault(fault: Fault) -> dict[str, Any]:
    """What is logged of lost samples."""
    return {"duration_s": fault.duration_s}


def _read(part: str, seconds: float, rng: np.random.Generator) -> list[Fault]:
    kind, mark = (part.split("@")[0], "@") if "@" in part else (part.split("=")[0], "=")
    if kind not in KINDS:
        raise UsageError(f"--faults asks for {kind!r}; built so far: {', '.join(KINDS)}")
    value = part[len(kind) + len(mark) :]
    usual = _EEG_DROP_S if kind == "eeg-drop" else 0.0
    try:
        if mark == "@":
            start, _, duration = value.partition(":")
            return [Fault(kind, float(start), float(duration) if duration else usual)]
        times = rng.uniform(0, seconds, rng.poisson(float(value) * seconds / 60))
    except ValueError as error:
        raise UsageError(
            f"--faults cannot read {part!r} ({error}); write kind=rate per minute or kind@second[:duration]"
        ) from error
    return [Fault(kind, float(t), usual) for t in times]
