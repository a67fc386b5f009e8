"""What a data set looks like to the rest: a table of windows, whose arrays are read when they are asked for.

Each module in `train.data.layouts` opens one published layout as a `DataSet`. Nothing is read before `read`,
so that a set may be larger than the memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import EegInput
from rtdecode.signal.volume.baseline import Baseline
from rtdecode.signal.volume.projection import Projection

# What a window may have. A set lists those that it has.
Column = Literal["eeg", "fmri", "clips", "sound", "captions", "frame_captions", "features"]
# Whether the signals were prepared from the past alone, as a session does it, or also from the future.
Chain = Literal["causal", "offline"]


@dataclass(frozen=True, slots=True, eq=False)
class WindowTable:
    """What is known of each window without reading its arrays. All fields are (window,).

    Attributes
    ----------
    subject : str
        Who watched, such as ``sub-01``.
    run : str
        Windows of one subject and run were recorded without a break. Splits never divide a run.
    shown : str
        Name of what was shown. Windows that showed the same, whether to another subject or once more, have
        the same name.
    start_s : float
        Start on the run's time line.
    repeat : int
        Number of times that the subject had seen it before.
    held_out : bool
        Whether the release keeps the window for testing.
    """

    subject: NDArray[np.str_]
    run: NDArray[np.str_]
    shown: NDArray[np.str_]
    start_s: NDArray[np.float64]
    repeat: NDArray[np.int64]
    held_out: NDArray[np.bool_]

    def __post_init__(self) -> None:
        lengths = {column.name: len(getattr(self, column.name)) for column in fields(self)}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"fields of one length were expected, found {lengths}")

    def __len__(self) -> int:
        return len(self.subject)

    @property
    def subjects(self) -> list[str]:
        """The subjects, in the order of the table."""
        return list(dict.fromkeys(self.subject.tolist()))

    def names(self, rows: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """Return names of some windows, ``subject/run/shown@start``, which no other window has."""
        return [
            f"{self.subject[row]}/{self.run[row]}/{self.shown[row]}@{self.start_s[row]:g}s" for row in rows
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Acquired:
    """What a session has to know in order to acquire signals as a data set has them.

    Attributes
    ----------
    head : Projection
        The places of the data set's voxels in the scanner's volumes, in their order.
    baseline : Baseline
        How the resting level of the volumes is followed.
    level : float32, (voxel,) or None
        Where it starts, if the data set has differences from it; None where volumes are as they came.
    eeg : EegInput or None
        The EEG that a bundle reads; None without EEG.
    """

    head: Projection
    baseline: Baseline
    level: NDArray[np.float32] | None
    eeg: EegInput | None


class DataSet(Protocol):
    """Windows of one or more subjects who watched films.

    Attributes
    ----------
    layout : str
        Name of the layout.
    study : str
        Name of the study that was released; "" for data of one's own. Layouts of one study have the same one,
        and the same names of what was shown.
    folder : Path
        Where the data lie.
    windows : WindowTable
        What is known of each window; its rows are those that are read.
    columns : sequence of str
        What can be read of every window, see `read`.
    window_s : float
        Length of a window's stimulus, s.
    lag_s : float
        From the start of a window's stimulus to the start of its first volume, s.
    tr_s : float or None
        Time between volumes; None without fMRI, and where a slot of fMRI is the response to what was shown
        and no volume.
    sfreq : float or None
        Sampling rate of the EEG, Hz; None without EEG.
    fps : float or None
        Frames a second of the clips; None without clips.
    chain : str
        A bundle trained on an ``offline`` set says so of every clip.
    notes : sequence of str
        What a user has to know of the release, one sentence each.
    missing : sequence of str
        Files of the layout that are not there although others say that they should be, by their path in the
        folder. A window whose signals are not whole is not in the table.
    """

    layout: str
    study: str
    folder: Path
    windows: WindowTable
    columns: Sequence[Column]
    window_s: float
    lag_s: float
    tr_s: float | None
    sfreq: float | None
    fps: float | None
    chain: Chain
    notes: Sequence[str]
    missing: Sequence[str]

    def read(self, column: Column, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[Any]:
        """Read a column of some windows, which are of one subject.

        Returns
        -------
        ndarray
            ``eeg`` (window, channel, sample) float32, microvolts or as released; ``fmri`` (window, slot,
            voxel) float32, as released; ``clips`` (window, frame, row, column, 3) uint8; ``sound`` (window,
            sample) float32, one channel at 16 kHz; ``captions`` (window,) str; ``frame_captions`` (window,
            frame) str, where each frame has its own; ``features`` (window, instant, feature) float32, numbers
            that the release gives of what was shown, as released.

        Raises
        ------
        UsageError
            If a file is missing, cut short, of another shape, or holds a value that is not finite.
        """
        ...

    def regions(self, subject: str) -> Mapping[str, NDArray[np.bool_]]:
        """Return the regions that the data hold by name, each a mask (voxel,)."""
        ...

    def acquired(self, subject: str) -> Acquired | None:
        """Return how a session acquires these signals; None where a release does not tell."""
        ...
