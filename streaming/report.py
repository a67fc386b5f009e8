"""The report of a session, and its table."""

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rtdecode import __version__
from rtdecode.accuracy import METRICS
from rtdecode.bundle import Bundle
from streaming.output import Output

_EEG = ("samples", "lost_samples", "gaps", "rate_hz", "drift_ppm", "triggers", "artifact_residual_db")
_FMRI = ("volumes", "missing", "late", "duplicate", "out_of_order", "rejected_files", "max_fd_mm")
_CLOCK = ("source", "slope_ppm", "offset_s", "residual_ms")
_FIGURES = {
    "identification_2way": "identification, 2-way",
    "identification_2way_same_background": "  same background",
    "identification_50way": "identification, 50-way",
    "identification_top1": "identification, top 1",
    "classification_top1": "category, top 1",
}


def build(
    session: str,
    bundle: Bundle,
    output: Output,
    status: dict[str, Any],
    *,
    simulated: bool,
    ended: str,
    memory_mb: float | None,
    accuracy: dict[str, Any] | None,
) -> dict[str, Any]:
    """Make the report; what is not known is None.

    Parameters
    ----------
    session : str
    bundle : Bundle
    output : Output
    status : dict
        The last status of the acquisition: `counters` and `expected`.
    simulated : bool
    ended : str
        Why the session ended, in words.
    memory_mb : float or None
        Highest sum of the processes' PSS.
    accuracy : dict or None
        Its section, once the session is over.
    """
    counters = status.get("counters", {})
    counts = output.counts
    sections = {
        name: {key: counters.get(name, {}).get(key) for key in keys}
        for name, keys in (("eeg", _EEG), ("fmri", _FMRI), ("clock", _CLOCK))
    }
    windows = {key: counts[key] for key in ("final", "preview", "refined", "skipped", "degraded")}
    return {
        "session": session,
        "version": __version__,
        "bundle": bundle.digest,
        "simulated": simulated,
        "note": bundle.manifest.note,
        "ended": ended,
        "windows": {"expected": status.get("expected", 0), **windows},
        **sections,
        "latency_ms": output.meter.summary(),
        "memory_mb": {"peak": memory_mb},
        "accuracy": accuracy or dict.fromkeys(METRICS),
    }


def write(path: Path, report: dict[str, Any]) -> None:
    """Write a report in one step: it is whole at any time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(json.dumps(report, indent=1) + "\n")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def show(report: dict[str, Any]) -> None:
    """Print the table of a session on stdout."""
    note = "SIMULATED PARTICIPANT" if report["simulated"] else report["note"] or ""
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(f"session {report['session']}   {note}", highlight=False)
    table = Table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    windows = report["windows"]
    table.add_row("windows expected", str(windows["expected"]))
    for key in ("final", "preview", "skipped", "degraded"):
        table.add_row(f"  {key}", str(windows[key]))
    for key, title in _FIGURES.items():
        if report["accuracy"][key] is not None:
            table.add_row(title, _figure(report["accuracy"][key]))
    latency = report["latency_ms"]
    for key, title in (
        ("beyond_floor", "final, beyond the floor"),
        ("beyond_floor_preview", "preview, beyond the floor"),
        ("since_stimulus", "final, since the stimulus"),
    ):
        table.add_row(title, _spread(latency[key]))
    table.add_row("peak memory", _or_dash(report["memory_mb"]["peak"], "{:.0f} MB"))
    console.print(table)


def _figure(entry: dict[str, Any]) -> str:
    low, high = entry["ci95"]
    shuffled = _or_dash(entry["shuffled"], "{:.2f}")
    return (
        f"{entry['value']:.3f} [{low:.2f}, {high:.2f}]   chance {entry['chance']:.3f}   "
        f"shifted brain {shuffled}   n {entry['n']}"
    )


def _spread(entry: dict[str, float] | None) -> str:
    if entry is None:
        return "-"
    return f"p50 {entry['p50']:.0f} ms   p95 {entry['p95']:.0f} ms   max {entry['max']:.0f} ms"


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
