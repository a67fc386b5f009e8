"""Would a bundle have read a recording, and if not, why: ``rtdecode doctor REC``."""

from dataclasses import replace
from pathlib import Path

from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle
from rtdecode.bundle.prepared import check_live
from rtdecode.disk.recording import Recording
from rtdecode.errors import RtDecodeError
from rtdecode.types import Volume
from streaming.checks import table
from streaming.checks.finding import BAD, NOTE, OK, Finding
from streaming.session import replay
from streaming.tools import doctor
from streaming.tools.doctor_eeg import cap
from streaming.tools.doctor_fmri import tr


def run(path: Path, bundle: str, *, as_json: bool) -> int:
    """Judge a recording against a bundle, by its path or name, and print what was seen.

    Returns
    -------
    int
        0, or 1 if the bundle cannot read it, or reads nothing of it.

    Raises
    ------
    UsageError
        If `path` is no recording.
    """
    recording = Recording(path, partial=True)
    try:
        loaded = bundles.load(bundle)
        check_live(loaded.manifest)
    except RtDecodeError as error:
        return doctor.tell([table.BUNDLE_REFUSED.find(error=error)], as_json=as_json)
    return doctor.tell(judge(recording, loaded), as_json=as_json)


def judge(recording: Recording, bundle: Bundle) -> list[Finding]:
    """Say of each thing that a replay needs whether the recording has it."""
    notes = recording.notes()
    findings = [Finding("recording", NOTE if notes else OK, " ".join(notes) or "all of it is there")]
    of_sources = (_eeg(recording, bundle), _volumes(recording, bundle), _triggers(recording))
    findings += [finding for finding in of_sources if finding is not None]
    if all(finding.state != BAD for finding in findings):
        findings.append(_windows(recording, bundle))
    return findings


def _eeg(recording: Recording, bundle: Bundle) -> Finding | None:
    if bundle.manifest.eeg is None:
        return None
    montage = recording.montage
    if montage is None:
        return Finding("EEG", NOTE, "there is none; the bundle reads EEG", "windows have volumes alone")
    fits = cap(bundle.manifest.eeg, montage)
    sentence = fits.found if fits.state == BAD else f"{fits.found}, at {montage.sfreq:g} Hz"
    return replace(fits, subject="EEG", found=sentence)


def _volumes(recording: Recording, bundle: Bundle) -> Finding | None:
    if bundle.manifest.fmri is None:
        return None
    first = next((item for item in recording.events() if isinstance(item, Volume)), None)
    if first is None:
        return Finding("volumes", NOTE, "there are none; the bundle reads them", "windows have EEG alone")
    fits = tr(first, bundle)
    if fits.state != OK:
        return replace(fits, subject="volumes")
    try:
        if bundle.projection is not None and recording.calibration() is None:
            bundle.projection.bind(first.data.shape, first.affine)
    except RtDecodeError as error:
        return replace(table.OTHER_GRID.find(error=error), subject="volumes")
    shape = " x ".join(str(size) for size in first.data.shape)
    return Finding("volumes", OK, f"{recording.survey.volumes} of {shape}, TR {fits.found}")


def _triggers(recording: Recording) -> Finding | None:
    if recording.montage is None:
        return None
    count = recording.survey.triggers
    if count:
        return table.TRIGGERS.find(triggers=count)
    placed = "volumes are placed by their times" if recording.has_volumes() else "the first sample is zero"
    return table.NO_TRIGGERS_RECORDED.find(placed=placed)


def _windows(recording: Recording, bundle: Bundle) -> Finding:
    """Cut the windows that a replay would decode, and count them."""
    try:
        assembler = replay.assembler(recording, bundle, recording.calibration(), recording.montage)
        counts = {"final": 0, "degraded": 0}
        for window in assembler.play(recording.events(), rested_at=recording.meta.get("rested_at")):
            counts["final"] += window.revision == "final" and bool(window.modalities)
            counts["degraded"] += window.revision == "final" and any(window.missing.values())
    except RtDecodeError as error:
        return Finding("windows", BAD, str(error))
    notes = " ".join(assembler.notes())
    if not counts["final"]:
        needed_s = float(bundle.manifest.grid.window + bundle.manifest.grid.wait)
        words = f"none has what the bundle reads; a run of {needed_s:g} s or longer is needed. {notes}"
        return Finding("windows", BAD, words.strip())
    words = f"{counts['final']} would be decoded, {counts['degraded']} of them with holes. {notes}"
    return Finding("windows", NOTE if counts["degraded"] else OK, words.strip())
