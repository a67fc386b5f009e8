"""Delete a recording so that nothing is left that names or pictures the participant: ``rtdecode forget``.

What a recording holds is deleted by name, its head last, so that a command that was interrupted can be run
again. Anything else in its folder is not the recording's: it stays, and is listed. So is what was made of the
recording elsewhere, as far as the recording knows of it.
"""

import os
import shutil
from pathlib import Path

from rtdecode import strict_json, terminal
from rtdecode.disk import recording_index
from rtdecode.disk.derived import DERIVED, derived
from rtdecode.disk.folders import holder, what_is_there
from rtdecode.errors import UsageError

HEAD = "recording.json"
# What a recording holds besides its head.
CONTENTS = (
    recording_index.EVENTS,
    recording_index.EEG,
    recording_index.STAMPS,
    recording_index.VOLUMES,
    "film.jsonl",
    "decisions.jsonl",
    DERIVED,
    f"{HEAD}.part",
    "truth",
    "calibration",
    ".rtdecode-lock",
)


def run(recording: Path, *, as_json: bool) -> int:
    """Delete a recording, and say what was deleted, what is left, and what was made of it elsewhere.

    Parameters
    ----------
    recording : Path
        Folder of the recording.
    as_json : bool
        Print JSON instead of sentences.

    Returns
    -------
    int
        0, or 1 if something is left.

    Raises
    ------
    UsageError
        If the folder is no recording, or a session writes into it.
    """
    if not os.path.lexists(recording / HEAD):
        raise UsageError(
            "forget-no-recording",
            "{path} is no recording: found {contents}, and a folder with recording.json was expected.",
            path=recording,
            contents=what_is_there(recording),
        )
    if owner := holder(recording):
        raise UsageError(
            "forget-in-use",
            "{path} belongs to {owner}, which is running. Stop it first.",
            path=recording,
            owner=owner,
        )
    elsewhere = derived(recording)
    deleted: list[str] = []
    for name in (*CONTENTS, HEAD):
        deleted += _delete(recording, recording / name)
    remaining = sorted(str(path.relative_to(recording)) for path in recording.rglob("*"))
    if not remaining:
        # A link to the folder of the recording leads nowhere then.
        target = recording.resolve()
        target.rmdir()
        if recording.is_symlink():
            recording.unlink()
        deleted.append(".")
    if as_json:
        terminal.line(strict_json.dumps({"deleted": deleted, "left": remaining, "derived": elsewhere}))
    else:
        _tell(recording, deleted, remaining, elsewhere)
    return int(bool(remaining))


def _delete(root: Path, path: Path) -> list[str]:
    """Delete a file, a link or a folder; return what it held, relative to the recording."""
    if not os.path.lexists(path):
        return []
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return [str(path.relative_to(root))]
    names = sorted(str(entry.relative_to(root)) for entry in path.rglob("*") if not entry.is_dir())
    shutil.rmtree(path)
    return names


def _tell(recording: Path, deleted: list[str], remaining: list[str], elsewhere: list[dict[str, str]]) -> None:
    terminal.line(f"{recording}: {sum(name != '.' for name in deleted)} files are deleted.")
    if remaining:
        terminal.line("Not of the recording, and still there:", *(f"  {name}" for name in remaining))
    if elsewhere:
        terminal.line(
            "Made of it elsewhere, and not deleted:",
            *(f"  {entry['kind']}: {entry['path']}" for entry in elsewhere),
        )
