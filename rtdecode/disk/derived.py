"""What was made of a recording elsewhere: clips, training runs, bundles that were fitted to it, BIDS folders.

The recording keeps a list of it, so that `rtdecode forget` can say what else there is of the participant. A
training run keeps one too: the bundles that were exported of it.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from rtdecode import strict_json, terminal
from rtdecode.disk import private, recording_text
from rtdecode.errors import RecordingError

DERIVED = "derived.jsonl"
# The kind of folders of sessions and replays.
CLIPS = "clips"
BUNDLE = "bundle"
TRAINING_RUN = "training run"
BIDS_FOLDER = "BIDS folder"
# Where recordings lie in a folder of data, and what each has.
_HEADS = ("recording.json", "*/recording.json", "*/*/recording.json")


def note_derived(recording: Path, kind: str, path: Path) -> None:
    """Note in a recording what was made of it, unless the recording cannot be written.

    Parameters
    ----------
    recording : Path
        The recording's folder.
    kind : str
        `CLIPS`, `BUNDLE`, `TRAINING_RUN` or `BIDS_FOLDER`.
    path : Path
        Where it lies.
    """
    if not os.access(recording, os.W_OK):
        return
    line = strict_json.dumps({"kind": kind, "path": str(path.resolve())})
    try:
        with private.open_file(recording / DERIVED, "a") as file:
            file.write(line + "\n")
    except OSError as error:
        # What was made is whole all the same.
        terminal.say(
            f"{recording} could not note that {path} was made of it ({error.strerror}): `rtdecode forget` "
            "will not list it."
        )


def note_training(folders: Iterable[Path], run: Path) -> None:
    """Note a training run in the recordings that it learned from, and begin its own list.

    Parameters
    ----------
    folders : iterable of Path
        Recordings, and folders of data in which there may be some.
    run : Path
        The folder of the run.
    """
    recordings = {head.parent for folder in folders for pattern in _HEADS for head in folder.glob(pattern)}
    for recording in sorted(recordings):
        note_derived(recording, TRAINING_RUN, run)
    if recordings:
        private.file(run / DERIVED)


def note_export(run: Path, bundle: Path) -> None:
    """Note a bundle in the training run that it was exported of, if that learned from recordings."""
    if (run / DERIVED).is_file():
        note_derived(run, BUNDLE, bundle)


def derived(recording: Path) -> list[dict[str, str]]:
    """Return ``kind`` and ``path`` of everything that a recording knows was made of it, each once.

    Bundles that were exported of its training runs are among them. A line that cannot be read is passed over:
    what it named is not known.
    """
    entries: list[dict[str, str]] = []
    for entry in _listed(recording):
        of_run = _listed(Path(entry["path"])) if entry["kind"] == TRAINING_RUN else []
        entries += [candidate for candidate in (entry, *of_run) if candidate not in entries]
    return entries


def _listed(recording: Path) -> list[dict[str, str]]:
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
