"""The report of a session: ``report.json``, and the table that is printed at the end."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from rtdecode import __version__, strict_json, terminal
from rtdecode.bundle import Bundle
from rtdecode.disk import private
from rtdecode.scores.intervals import ends
from rtdecode.windows.assembler import Counters
from streaming.checks.finding import counted
from streaming.sinks.accuracy import BASELINES, AccuracySections, nothing
from streaming.sinks.clip_emitter import ClipEmitter
from streaming.sinks.text import banner

_EEG = (
    *("samples", "lost_samples", "gaps", "rate_hz", "drift_ppm", "triggers", "artifact_residual_db"),
    *("epochs", "bad_channels", "age_ms", "nonfinite_samples"),
)
_FMRI = (
    *("volumes", "missing", "late", "duplicate", "out_of_order", "rejected_files", "max_fd_mm"),
    *("saturated", "implausible", "nonfinite_voxels", "burst", "delay_s"),
)
_CLOCK = ("source", "slope_ppm", "offset_s", "residual_ms")
_FIGURES = {
    "identification_2way": "identification, 2-way",
    "identification_2way_same_background": "  same background",
    "identification_50way": "identification, 50-way",
    "identification_top1": "identification, top 1",
    "classification_top1": "category, top 1",
}


class Report(AccuracySections):
    """Contents of ``report.json``; docs/session.md explains the values."""

    session: str
    version: str
    bundle: str
    simulated: bool
    bundle_simulated: bool
    note: str | None
    chain: str
    ended: str
    windows: dict[str, int]
    late: int
    eeg: dict[str, Any]
    eeg_stream: dict[str, Any] | None
    fmri: dict[str, Any]
    clock: dict[str, Any]
    runs: list[dict[str, Any]]
    latency_ms: dict[str, Any]
    memory_mb: dict[str, float | None]
    recording: dict[str, Any] | None
    replayed: str | None
    recording_chain: str | None
    as_live: dict[str, int] | None
    restarts: list[dict[str, Any]]
    told: list[dict[str, Any]] | None
    steps: dict[str, int] | None
    detail: float | None
    runs_on: dict[str, str]
    pixels: str
    brain: dict[str, Any] | None
    no_final: str | None


def build(
    session: str,
    bundle: Bundle,
    output: ClipEmitter,
    counters: Counters,
    expected: int,
    *,
    simulated: bool,
    ended: str,
    memory_mb: float | None,
    judged: AccuracySections | None,
    dropped_previews: int = 0,
    recording: dict[str, Any] | None = None,
    restarts: list[dict[str, Any]] | None = None,
    sentences: list[dict[str, Any]] | None = None,
    eeg_stream: dict[str, Any] | None = None,
    recording_chain: str | None = None,
    replayed: str | None = None,
    as_live: dict[str, int] | None = None,
) -> Report:
    """Make the report; what is not known is None.

    Parameters
    ----------
    session : str
        Name of the session.
    bundle : Bundle
        What the session decoded with.
    output : ClipEmitter
        Knows what has become of the windows.
    counters : Counters
        Counts of the newest status, see `streaming.status.Status`.
    expected : int
        Windows that a session of this length has.
    simulated : bool
        Whether a source says that the participant is simulated, whatever the bundle was made for.
    ended : str
        Why the session ended, in words that name no file, stream or host.
    memory_mb : float or None
        Highest sum of the processes' PSS, MB.
    judged : AccuracySections or None
        The sections that rest on the truth, once the session is over.
    dropped_previews : int
        Previews that were never decoded, because their final waited already or they had waited too long.
    recording : dict or None
        `fault`: why ``--record`` ended before the session, None if it did not. None without ``--record``.
    restarts : list of dict or None
        One entry for each death of the acquisition process: `exit_code`, `run_s` (run time told last, s) and
        `hole_s` (how long nothing was received, s; None if nothing came any more).
    sentences : list of dict or None
        What the operator was told last, in order: `run_s` (time of the newest run, s; None before the
        first) and `text`. None where nobody was (a replay).
    eeg_stream : dict or None
        As in a status; None without EEG, and in a replay.
    replayed : str or None
        ``as-live`` or ``best`` in a replay; None in a live session.
    recording_chain : str or None
        ``offline`` in a replay of signals that were filtered or cleaned after their session, else ``causal``;
        None in a live session.
    as_live : dict or None
        How many ``windows`` a session had decided on, how many of them a replay ``repeated``, and how many of
        these ``bit_for_bit``. None unless `replayed` is ``as-live``.
    """
    counts = output.tally.counts
    steps = output.tally.steps
    windows = {key: counts[key] for key in ("final", "preview", "refined", "skipped", "degraded", "fallback")}
    return {
        "session": session,
        "version": __version__,
        "bundle": bundle.digest,
        "simulated": simulated,
        "bundle_simulated": bundle.manifest.simulated,
        "note": bundle.manifest.note,
        "chain": bundle.manifest.chain,
        "ended": ended,
        "windows": {"expected": expected, **windows, "dropped_previews": dropped_previews},
        "late": counts["late"],
        "eeg": {key: counters["eeg"].get(key) for key in _EEG},
        "eeg_stream": None if eeg_stream is None else _eeg_stream(eeg_stream),
        "fmri": {key: counters["fmri"].get(key) for key in _FMRI},
        "clock": {key: counters["clock"].get(key) for key in _CLOCK},
        "runs": counters["runs"],
        "latency_ms": output.tally.meter.summary(),
        "memory_mb": {"peak": memory_mb},
        "recording": recording,
        "replayed": replayed,
        "recording_chain": recording_chain,
        "as_live": as_live,
        "restarts": restarts or [],
        "told": sentences,
        "steps": {str(n): steps[n] for n in sorted(steps, reverse=True) if n} or None,
        "detail": output.detail,
        "runs_on": output.runs_on,
        "pixels": output.pixels,
        "brain": output.tally.presence.section(),
        "no_final": None if windows["final"] else _no_final(counters, windows["skipped"]),
        **(judged or nothing()),
    }


def _no_final(counters: Counters, skipped: int) -> str | None:
    """Say of a session whose windows were all skipped what came; None where no window was reached."""
    if not skipped:
        return None
    fmri = counters["fmri"]
    eeg = counters["eeg"]
    parts = list[str]()
    if fmri.get("values"):
        refused = f"{fmri['implausible']} of {fmri['volumes']} volumes were refused"
        parts.append(f"fMRI: {refused}; in the newest one, {fmri['values']}.")
    if eeg.get("values"):
        parts.append(f"EEG: {eeg['values']}.")
    if not parts:
        parts.append("No volume and no EEG came that the bundle could read.")
    return " ".join([f"None of {skipped} windows has a clip.", *parts])


def _eeg_stream(stream: Mapping[str, Any]) -> dict[str, Any]:
    """Say which stream was read.

    It is named only where its name was not asked for: then nothing else tells afterwards whose signals the
    session read, and elsewhere no name goes to disk.
    """
    by_other_means = stream["matched_by"] != "name"
    return {
        "matched_by": stream["matched_by"],
        "name": stream["name"] if by_other_means else None,
        "host": stream["host"] if by_other_means else None,
        "sources": len(stream["keys"]),
    }


def write(path: Path, report: Report) -> None:
    """Write a report in one step, so that the file is whole at any time."""
    if not path.parent.exists():
        private.folder(path.parent)
    private.write_whole(path, strict_json.dumps(report, indent=1) + "\n")


def show(report: Report) -> None:
    """Print the table of a session on stdout."""
    of_bundle = report["bundle_simulated"]
    note = banner(report["note"], report["chain"], simulated=report["simulated"], bundle_simulated=of_bundle)
    # Without a terminal rich takes 80 columns, which would cut the longest rows.
    console = terminal.console(width=None if sys.stdout.isatty() else 120)
    console.print(f"session {report['session']}   {note}", highlight=False)
    table = Table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    windows = report["windows"]
    table.add_row("windows expected", str(windows["expected"]))
    for key in ("final", "preview", "refined", "skipped", "degraded"):
        table.add_row(f"  {key}", str(windows[key]))
    if windows["fallback"]:
        table.add_row("  by the fallback", str(windows["fallback"]))
    table.add_row("clips that came late", str(report["late"]))
    if report["steps"]:
        table.add_row("clips by steps", "   ".join(f"{n}: {count}" for n, count in report["steps"].items()))
    if report["brain"]:
        table.add_row("finals with a brain", _presence(report["brain"]))
    for title, text in _judged(report):
        table.add_row(title, text)
    latency = report["latency_ms"]
    for key, title in (
        ("beyond_floor", "final, beyond the floor"),
        ("beyond_floor_preview", "preview, beyond the floor"),
        ("since_stimulus", "final, since the stimulus"),
    ):
        table.add_row(title, _spread(latency[key]))
    table.add_row("peak memory", _or_dash(report["memory_mb"]["peak"], "{:.0f} MB"))
    console.print(table)
    if report["no_final"]:
        console.print(report["no_final"], highlight=False, markup=False, soft_wrap=True)


def _presence(brain: dict[str, Any]) -> str:
    count = len(brain["gone"])
    lost = f"lost {counted(count, 'time')}" if count else "never lost"
    return f"{_or_dash(brain['share'], '{:.0%}')} of {brain['finals']}   {lost}"


def _judged(report: Report) -> list[tuple[str, str]]:
    """Return the rows on the clips' accuracy, as far as it is known."""
    accuracy = report["accuracy"]
    baselines = report["baselines"] or {}
    rows = [(title, _figure(accuracy[key])) for key, title in _FIGURES.items() if accuracy[key]]
    for name, title in BASELINES.items():
        baseline = (baselines.get(name) or {}).get("identification_2way")
        if baseline:
            rows.append((f"  {title}, 2-way", _figure(baseline)))
    if report["confidence"] is not None:
        curve = report["confidence"]["reliability"]
        risks = report["confidence"]["risk_coverage"]
        text = f"calibration error {curve['ece']:.3f}   risk area {risks['area']:.3f}   n {curve['n']}"
        rows.append(("confidence", text))
    if report["seam"] is not None:
        rows += [_seam(report["seam"], *names) for names in (("seam ratio", ""), ("  with cuts", "_all"))]
    return rows


def _seam(seam: dict[str, Any], title: str, suffix: str) -> tuple[str, str]:
    reconstruction, truth = (_or_dash(seam[name + suffix], "{:.2f}") for name in ("reconstruction", "truth"))
    return title, f"{reconstruction}   truth {truth}   n {seam['n' + suffix]}"


def _figure(entry: dict[str, Any]) -> str:
    span = "[no interval]" if entry["ci95"] is None else f"[{ends(entry, '.2f', ', ')}]"
    shuffled = _or_dash(entry["shuffled"], "{:.2f}")
    return (
        f"{entry['value']:.3f} {span}   chance {entry['chance']:.3f}   "
        f"shifted brain {shuffled}   n {entry['n']}   units {entry['interval']['units']}"
    )


def _spread(entry: dict[str, float] | None) -> str:
    if entry is None:
        return "-"
    return f"p50 {entry['p50']:.0f} ms   p95 {entry['p95']:.0f} ms   max {entry['max']:.0f} ms"


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
