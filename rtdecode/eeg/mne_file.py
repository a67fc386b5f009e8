"""Open EEG files by MNE-Python, apart from those whose samples it would put at wrong times."""

import re
import warnings
from pathlib import Path
from typing import Any

from rtdecode import installing
from rtdecode.errors import UsageError

# Where an EDF says whether its records follow each other, bytes.
_CONTINUITY = slice(192, 197)


def open_file(path: Path, extra: str) -> Any:
    """Open a file as ``mne.io.BaseRaw``; its samples are read once they are asked for.

    Parameters
    ----------
    path : Path
        BrainVision, EDF, BDF, EEGLAB or FIF.
    extra : str
        The extra of the installation that has MNE-Python, for the message where it is missing.

    Raises
    ------
    UsageError
        If the file cannot be read, is an EDF whose records do not follow each other, or a BrainVision header
        whose marker file is missing; or if MNE-Python is not installed.
    """
    try:
        import mne
    except ModuleNotFoundError as error:
        raise UsageError(
            "mne-not-installed",
            "{path} is read by MNE-Python, which is not installed. Install it with `{command}`.",
            path=path,
            command=installing.command(extra),
        ) from error
    try:
        if path.suffix.lower() in (".edf", ".bdf"):
            _check_continuous(path)
        elif path.suffix.lower() == ".vhdr":
            _check_markers(path)
        with warnings.catch_warnings():
            # A file's oddities that MNE-Python warns of, like a missing coordinate, do not touch its samples.
            warnings.simplefilter("ignore", RuntimeWarning)
            return mne.io.read_raw(path, preload=False, verbose="error")
    except (OSError, ValueError, RuntimeError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise UsageError(
            "eeg-unreadable",
            "{path} cannot be read as EEG: {error}. Give the file as it was recorded, with all its parts.",
            path=path,
            error=" ".join(str(error).split()) or type(error).__name__,
        ) from error


def _check_markers(path: Path) -> None:
    """Refuse a header whose marker file is not there: MNE-Python reads the samples without it."""
    entry = re.search(rb"^MarkerFile\s*=\s*(.+?)\s*$", path.read_bytes(), re.MULTILINE)
    if entry is None:
        return
    # `$b` stands for the header's own name.
    name = entry[1].decode("utf-8", "replace").replace("$b", path.stem)
    if not (path.parent / name).is_file():
        raise UsageError(
            "eeg-markers-missing",
            "{path} names the marker file {name}, and that is not beside it. Put it there.",
            path=path,
            name=name,
        )


def _check_continuous(path: Path) -> None:
    with path.open("rb") as file:
        continuity = file.read(_CONTINUITY.stop)[_CONTINUITY]
    if continuity in (b"EDF+D", b"BDF+D"):
        raise UsageError(
            "eeg-discontinuous",
            "{path} is discontinuous ({form}): time passed between its records, and MNE-Python reads them as "
            "one stretch. Export it as {continuous} or in another format.",
            path=path,
            form=continuity.decode(),
            continuous=continuity.decode()[:-1] + "C",
        )
