"""Judge the signals of a session by what its own classes count and measure."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from streaming.checks import table
from streaming.checks.finding import OK, Check, Finding, judged


def eeg(report: Mapping[str, Any]) -> list[Finding]:
    """Judge the EEG that came: gaps, jumps of its stamps, what is left of gradients, and bad channels.

    Parameters
    ----------
    report : mapping
        What the chain reports (`rtdecode.eeg.stream.EegStream.report`), as far as it is known.
    """
    findings = [jumps(report), bad_channels(report)]
    threshold_findings = judged((table.EEG_GAPS, table.GRADIENT_RESIDUAL), report)
    return threshold_findings + [finding for finding in findings if finding is not None]


def jumps(report: Mapping[str, Any]) -> Finding | None:
    """Count the jumps of the stamps; None without any."""
    # The stream's first clock epoch is no jump.
    count = (report.get("epochs") or 1) - 1
    return table.EEG_JUMPS.find(jumps=count) if count > 0 else None


def bad_channels(report: Mapping[str, Any]) -> Finding | None:
    """Judge the bad channels; None without any."""
    check = table.TOO_MANY_BAD if report.get("too_many_bad") else table.BAD_CHANNELS
    return check.of(report) if report.get("bad_channels") else None


def volumes(counts: Mapping[str, Any]) -> Finding:
    """Describe the volumes that came, by a session's counts."""
    volume_counts = {name: counts.get(name) or 0 for name in ("volumes", "missing", "burst")}
    finding = table.VOLUMES.find(**volume_counts)
    burst = table.BURST.find(**volume_counts)
    # The largest burst of the session is no fault of the present: it adds its sentence alone.
    return finding if burst.state == OK else replace(finding, found=f"{finding.found}, {burst.found}")


def volumes_stopped(silent_s: float, tr_s: float, cause: str = "") -> Finding:
    """Judge the time since the last volume, s; `cause` says what is likely, and what to do."""
    return _stopped(tr_s).find(silent_s=silent_s, cause=cause)


def silence_limits(tr_s: float) -> dict[str, float]:
    """Return the seconds of silence after which a source is named: ``eeg`` and ``fmri``."""
    limits = {"eeg": table.EEG_SILENT.note, "fmri": _stopped(tr_s).note}
    return {name: limit for name, limit in limits.items() if limit is not None}


def _stopped(tr_s: float) -> Check:
    """Return the check of volumes that stopped, whose limits are some TRs at least."""
    check = table.VOLUMES_STOPPED
    trs = table.STOPPED_TRS
    note = max(check.note or 0.0, trs["note"] * tr_s)
    bad = max(check.bad or 0.0, trs["bad"] * tr_s)
    return replace(check, note=note, bad=bad)


def clip_age(age_s: float, hop_s: float) -> Finding:
    """Judge whether the newest clip still shows the present, by its age."""
    return table.CLIP_AGE.find(age_hops=age_s / hop_s, age_s=age_s)


def is_stale(age_s: float, hop_s: float) -> bool:
    """Return whether a clip of this age is too old to show the present."""
    return clip_age(age_s, hop_s).state != OK
