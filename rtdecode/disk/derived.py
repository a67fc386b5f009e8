"""What was made of a recording elsewhere: bundles that were fitted to it, and BIDS folders.

The recording keeps a list of it, so that `rtdecode forget` can say what else there is of the participant.
"""

import os
from pathlib import Path

from rtdecode.disk import private, recording_text, strict_json
from rtdecode.errors import RecordingError

DERIVED = "derived.jsonl"


def note_derived(recording: Path, kind: str, path: Path) -> None:
    """Note in a recording what was made of it, unless the recording cannot be written.

    Parameters
    ----------
    recording : Path
    kind : str
        Such as ``bundle`` or ``BIDS folder``.
    path : Path
        Where it lies.
    """
    if not os.access(recording, os.W_OK):
        return
    line = strict_json.dumps({"kind": kind, "path": str(path.resolve())})
    with private.open_file(recording / DERIVED, "a") as file:
        file.write(line + "\n")


def derived(recording: Path) -> list[dict[str, str]]:
    """Return ``kind`` and ``path`` of everything that a recording knows was made of it, each once.

    A line that cannot be read is passed over: what it named is not known.
    """
    if not (recording / DERIVED).is_file():
        return []
    entries: list[dict[str, str]] = []
    try:
        for _, text in recording_text.lines(recording / DERIVED):
            try:
                entry = recording_text.parsed(text)
            except ValueError:
                continue
            if isinstance(entry, dict) and {"kind", "path"} <= entry.keys() and entry not in entries:
                entries.append({"kind": str(entry["kind"]), "path": str(entry["path"])})
    except RecordingError:
        # The file, or a line longer than any, cannot be read: what came before it is told.
        return entries
    return entries
