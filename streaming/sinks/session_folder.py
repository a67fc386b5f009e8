"""A session's folder: made, refused while it is in use, emptied, and put back as it was."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rtdecode.disk import private
from rtdecode.disk.folders import is_in_use
from rtdecode.errors import OutputError, UsageError
from streaming.sinks import aside, operator_log

# Holds the finals until they are compared with the truth; a session that ends deletes it.
ARCHIVE = ".finals"
# What a session, or its page, writes beside its clips; --overwrite replaces these files and no others.
_SESSION_FILES = (
    "clips.jsonl",
    "film.mp4",
    "contact_sheet.png",
    "confidence.png",
    "report.json",
    "report.html",
    # Leads to the page of a session that was killed.
    "page.html",
    operator_log.NAME,
    ARCHIVE,
)
# Folders that a session fills, and what its files in them are called.
_FOLDERS = {"clips": "clip_*.*", operator_log.SNAPSHOTS: "clip_*.png"}
# How a report calls the end of a session that has not ended.
RUNNING = "running"


def check_free(out: Path) -> None:
    """Refuse a folder that is not empty, or a path that is no folder.

    Raises
    ------
    UsageError
        If the folder is in use.
    """
    if is_in_use(out):
        explanation = killed(out)
        raise UsageError(
            "output-folder-not-empty",
            "--out {folder} is in use{state}. Give a new or empty folder, or --overwrite.",
            folder=out,
            state="" if explanation is None else f": {explanation} (see `rtdecode report {out}`)",
        )


def killed(out: Path) -> str | None:
    """Say of a session whose folder nobody holds that it was killed; None if it ended, or there is none.

    Parameters
    ----------
    out : Path
        A session's folder. While a session runs in it, it looks the same.
    """
    # A session that ends deletes its archive, and its report says how it ended.
    report = _report_of(out / "report.json")
    if not (out / ARCHIVE).is_file() and (report is None or report.get("ended") != RUNNING):
        return None
    lines = (out / "clips.jsonl").read_bytes().count(b"\n") if (out / "clips.jsonl").is_file() else 0
    emitted = f"the {lines} clips that it emitted are whole" if lines else "it emitted no clip"
    return f"the session in it was killed before it could end, and {emitted}"


def _report_of(file: Path) -> dict[str, Any] | None:
    """Read a report; None without one that can be read."""
    try:
        report = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) else None


def prepare(out: Path, *, overwrite: bool) -> None:
    """Make the session's folder; with `overwrite`, move the files of an earlier session aside.

    Files that a start before this one moved aside, and did not live to put back, are put back first.

    Raises
    ------
    UsageError
        If the folder is in use already, or cannot be made.
    """
    try:
        recover(out)
        if not overwrite:
            check_free(out)
        private.folder(out)
        aside.put_aside(out, _files(out))
        # Folders that are empty now.
        clear(out)
        # What others put there, if anything, was not theirs alone before.
        private.folder(out, exclusive=not is_in_use(out, allowed=aside.EARLIER))
        private.folder(out / "clips")
    except OSError as error:
        raise UsageError(
            "output-folder-unwritable",
            "--out {folder} cannot be made or written ({error}). Give another folder.",
            folder=out,
            error=error.strerror,
        ) from error


def recover(out: Path) -> bool:
    """Put back what lies aside in a folder that nobody holds, or delete it; return whether it was put back.

    A session that was killed before its first window has left the files of the one before it aside, and has
    nothing of its own that is worth keeping.

    Raises
    ------
    OSError
        If a file cannot be moved or deleted.
    """
    back = aside.is_aside(out)
    if (out / aside.EARLIER).is_dir():
        clear(out)
    if back:
        aside.put_back(out)
    aside.delete(out)
    return back


def clear(out: Path) -> None:
    """Delete the files that a session writes into its folder, and no others.

    Raises
    ------
    OSError
        If one cannot be deleted.
    """
    for file in _files(out):
        file.unlink()
    for folder in _FOLDERS:
        # Left where others put something into it.
        if (out / folder).is_dir() and not any((out / folder).iterdir()):
            (out / folder).rmdir()


def _files(out: Path) -> list[Path]:
    """List the files that a session has written into its folder."""
    files = [out / name for name in _SESSION_FILES if os.path.lexists(out / name)]
    return [*files, *(file for folder, names in _FOLDERS.items() for file in (out / folder).glob(names))]


@contextmanager
def writing() -> Iterator[None]:
    """Turn the error of a full or failing disk into a sentence.

    Raises
    ------
    OutputError
        If the block raises an OSError.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            "output-write-failed",
            "the session's folder cannot be written any more: {error}. What was emitted before is "
            "whole. Free space, or give --out on another disk, and start again.",
            reason=f"{OutputError.reason}: {error.strerror or type(error).__name__}",
            error=error.strerror or error,
        ) from error
