"""Recordings of the simulated participant, which ``rtdecode simulate --record`` wrote."""

from pathlib import Path

from rtdecode.errors import UsageError
from rtdecode.timing import TimingGrid
from train.data.layouts.recordings import GRID, Recordings, is_simulated, opened_as, recordings_in

_NOTES = (
    "The participant is SIMULATED: no figure on these windows says anything about people.",
    "EEG and volumes went through the chain of a session, so nothing in a window depends on what came later.",
)


def recognises(folder: Path) -> bool:
    """Whether a folder holds recordings, all of them of the simulated participant."""
    recordings = recordings_in(folder)
    return bool(recordings) and all(is_simulated(path) for path in recordings)


def opened(folder: Path, subjects: list[str] | None = None, *, grid: TimingGrid = GRID) -> Recordings:
    """Open recordings of the simulated participant; see `train.data.layouts.recordings.opened`.

    Raises
    ------
    UsageError
        If there is none, or one of them is not simulated.
    """
    real = [path for path in recordings_in(folder) if not is_simulated(path)]
    if real:
        raise UsageError(
            "phantom-not-simulated",
            "{path} does not say that its participant is simulated. Open the folder with the layout "
            "'recordings'.",
            path=real[0],
        )
    return opened_as("phantom", _NOTES, folder, subjects, grid)
