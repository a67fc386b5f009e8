"""Write the clips of a session, and what its decoder said of them, as BIDS derivatives.

::

    derivatives/rtdecode/dataset_description.json, README
    derivatives/rtdecode/sub-01/func/sub-01_task-film_events.tsv, _events.json    one row per clip
    derivatives/rtdecode-clips/sub-01_task-film_clip_00007_final.mp4

Of a recording without volumes the table lies in ``eeg``. BIDS has no names for decoded clips, and takes any
folder in ``derivatives``: they lie in one of their own, and ``clip_file`` in the table names each.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdecode import __version__
from rtdecode.disk import private
from rtdecode.errors import UsageError
from streaming.sinks.text import banner
from streaming.tools.bids_files import VERSION, write_json, write_table, write_text
from streaming.tools.session_page import Session, read

# Where the clips lie in the data set.
_CLIPS = "derivatives/rtdecode-clips"
# Columns of the table, and what the sidecar says of each.
_COLUMNS: dict[str, dict[str, Any]] = {
    "trial_type": {
        "Description": "Revision of the clip.",
        "Levels": {
            "preview": "Decoded from EEG alone, before the volumes came.",
            "final": "Decoded once the last volume of the window was there.",
            "refined": "Decoded again at a later lag.",
        },
    },
    "clip": {"Description": "Number of the clip in its session."},
    "clip_file": {"Description": "The clip, relative to the root of the data set that was decoded."},
    "modalities": {"Description": "What the clip was decoded from."},
    "missing_eeg": {"Description": "Share of the window's EEG that was missing.", "Units": "1"},
    "missing_fmri": {"Description": "Share of the window's volumes that were missing.", "Units": "1"},
    "confidence": {"Description": "Probability that the clip wins its 2-way identification."},
    "brain": {"Description": "Probability that the window holds a brain that the decoder can read."},
    "steps": {"Description": "Denoising steps."},
    "scores": {"Description": "Probability of each category that the decoder names."},
}


@dataclass(frozen=True, slots=True)
class Clips:
    """The clips of a session, and the folder they lie in."""

    folder: Path
    session: Session


def read_clips(folder: Path) -> Clips:
    """Read the folder of a session or of a replay.

    Raises
    ------
    UsageError
        If it holds no session, decoded nothing, or lacks one of its clips.
    """
    session = read(folder)
    if not session.clips:
        raise UsageError(
            "bids-no-clips",
            "the session in {folder} has no clip. Give another one, or leave --clips out.",
            folder=folder,
        )
    for clip in session.clips:
        if not (folder / clip["file"]).is_file():
            raise UsageError(
                "bids-clip-missing",
                "{folder} lacks {file}, which its clips.jsonl lists. Copy the session again from where it "
                "was made.",
                folder=folder,
                file=clip["file"],
            )
    return Clips(folder, session)


def check_spans(clips: Clips, recording: Path, simulated: bool, length_s: float) -> None:
    """Refuse clips that cannot be of a recording.

    Parameters
    ----------
    clips : Clips
        Clips of the session.
    recording : Path
        Folder of the recording, for messages.
    simulated : bool
        Whether the participant of the recording is simulated.
    length_s : float
        Length of the recording, s.

    Raises
    ------
    UsageError
        If there is a clip of a second run, of a window beyond the recording's end, or of another kind of
        participant.
    """
    last = clips.session.clips[-1]
    last_s = max(clip["window_s"][1] for clip in clips.session.clips)
    faults = [
        (any(clip["run"] for clip in clips.session.clips), "it has several runs"),
        (last_s > length_s, f"its last window ends at {last_s:g} s, and the recording at {length_s:g} s"),
        (bool(last["simulated"]) != simulated, "one of them alone is of a simulated participant"),
    ]
    for applies, fault in faults:
        if applies:
            raise UsageError(
                "bids-clips-elsewhere",
                "the session in {folder} was not decoded from {recording}: {fault}. Give the folder of a "
                "session or replay of this recording.",
                folder=clips.folder,
                recording=recording,
                fault=fault,
            )


def write_clips(clips: Clips, root: Path, subject: str, task: str, datatype: str, zero_s: float) -> None:
    """Write the derivatives.

    Parameters
    ----------
    clips : Clips
        Clips of the session, and the folder that they are copied from.
    root : Path
        Of the data set.
    subject, task : str
        Such as ``sub-01`` and ``film``.
    datatype : str
        ``func`` or ``eeg``: the file whose time the onsets count by.
    zero_s : float
        Onset of the run's zero in that file, s.
    """
    report = clips.session.report
    home = root / "derivatives" / "rtdecode"
    stem = f"{subject}_task-{task}"
    private.folder(home)
    private.folder(root / _CLIPS)
    write_json(home / "dataset_description.json", _description(report))
    write_text(home / "README", f"{_described(report)}\n")
    rows = []
    for clip in sorted(clips.session.clips, key=lambda clip: clip["window_s"]):
        name = f"{_CLIPS}/{stem}_{Path(clip['file']).name}"
        shutil.copyfile(clips.folder / clip["file"], private.file(root / name))
        rows.append(_row(clip, name, zero_s))
    folder = private.folder(home / subject / datatype)
    write_table(folder / f"{stem}_events.tsv", ("onset", "duration", *_COLUMNS), rows)
    write_json(folder / f"{stem}_events.json", _COLUMNS)


def _description(report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Name": "Clips that rtdecode decoded",
        "BIDSVersion": VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [
            {
                "Name": "rtdecode",
                "Version": report.get("version", __version__),
                "Description": f"Decoded with the bundle {report['bundle']}.",
            }
        ],
        "SourceDatasets": [{"URL": "file:../.."}],
    }


def _described(report: Mapping[str, Any]) -> str:
    note = banner(
        report["note"],
        report["chain"],
        simulated=report["simulated"],
        bundle_simulated=report["bundle_simulated"],
    )
    how = "in a replay of the recording" if report.get("replayed") else "while it was recorded"
    words = [f"Clips of the recording in this data set, decoded {how}. {note}".strip()]
    if report.get("recording_chain") == "offline":
        words.append("The signals were filtered or cleaned after their session: no figure of it holds live.")
    return " ".join(words)


def _row(clip: Mapping[str, Any], name: str, zero_s: float) -> tuple[str, ...]:
    start_s, stop_s = clip["window_s"]
    missing = clip["missing"]
    scores = clip.get("scores") or {}
    values = (
        round(zero_s + start_s, 9),
        round(stop_s - start_s, 9),
        clip["revision"],
        clip["clip"],
        name,
        "+".join(clip["modalities"]) or None,
        missing.get("eeg"),
        missing.get("fmri"),
        clip["confidence"],
        clip["brain"],
        clip["steps"],
        " ".join(f"{label}={share:.6f}" for label, share in scores.items()) or None,
    )
    return tuple("n/a" if value is None else str(value) for value in values)
