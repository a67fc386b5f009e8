"""cc2017 as the authors of NeuroClips released it (``gongzx/cc2017_dataset``).

::

    subj01_train_fmri.pt     (4320, 2, voxel), both showings of the training films
    subj01_test_fmri.pt      (1200, 10, voxel), all ten showings of the test films
    GT_train_3fps.pt         (4320, 6, 3, 224, 224), float32 from 0 to 1; GT_test_3fps.pt
    GT_train_caption.pt      4320 strings; GT_test_caption.pt

Layout: gongzix/NeuroClips, src/train_SR.py, src/train_PR.py and src/caption.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from train.data.dataset import Chain, Column, WindowTable
from train.data.layouts import cc2017
from train.data.layouts.stored_arrays import finite, mapped_pt, pixels, present, strings_pt
from train.data.window_tables import Rows, checked_rows, chosen, joined

_RELEASE = "the NeuroClips release of cc2017"
_VOXEL_AXES = ("window", "repeat", "voxel")
_PICTURE_AXES = ("window", "frame", "channel", "row", "column")
_NOTES = (
    (
        "The ten showings of a test film are kept apart, as windows of their own with repeat 0 to 9. The "
        "users' code averages them, so no published number of this release is one of single showings."
    ),
    cc2017.DETRENDED,
    cc2017.SELECTED,
    "A volume begins 4 s after its window. The release does not say so: it follows from the scans' lengths.",
    (
        "In the scan test2_9 of subject 3 (repeat 8) the recording was about 10 s behind the film, says the "
        "data set's README; whether the release corrects it is not known."
    ),
)
_NO_CAPTIONS = "There are no captions: GT_train_caption.pt and GT_test_caption.pt were not found."


@dataclass(eq=False)
class NeuroClips:
    """The release, opened; see `train.data.dataset.DataSet`.

    Attributes
    ----------
    index : int64, (window,)
        Place of each window among the training or the test windows as they are stored.
    voxels : dict
        Subject -> training and test array, (window, repeat, voxel), not read yet.
    pictures : tuple of ndarray
        Training and test array, (window, frame, 3, row, column), not read yet.
    texts : tuple of ndarray or None
        Captions of the training and of the test windows.
    """

    folder: Path
    windows: WindowTable
    index: NDArray[np.int64]
    voxels: Mapping[str, tuple[NDArray[Any], NDArray[Any]]]
    pictures: tuple[NDArray[Any], NDArray[Any]]
    texts: tuple[NDArray[np.str_], NDArray[np.str_]] | None
    columns: Sequence[Column]
    notes: Sequence[str]
    layout: str = "neuroclips"
    study: str = cc2017.STUDY
    window_s: float = cc2017.WINDOW_S
    lag_s: float = cc2017.LAG_S
    tr_s: float | None = cc2017.TR_S
    sfreq: float | None = None
    fps: float | None = cc2017.FPS
    chain: Chain = "offline"
    missing: Sequence[str] = ()

    def read(self, column: Column, rows: Rows) -> NDArray[Any]:
        """Read a column of some windows; see `train.data.dataset.DataSet.read`."""
        subject, window_rows = checked_rows(self.windows, rows, column, self.columns, self.folder)
        test = self.windows.held_out[window_rows]
        index = self.index[window_rows]
        if column == "captions":
            assert self.texts is not None
            parts = [texts[index[where]] for texts, where in zip(self.texts, (~test, test), strict=True)]
        elif column == "clips":
            parts = [self._clips(n, index[where]) for n, where in enumerate((~test, test))]
        else:
            repeat = self.windows.repeat[window_rows]
            parts = [
                self._fmri(subject, n, index[where], repeat[where]) for n, where in enumerate((~test, test))
            ]
        return cc2017.in_order(parts, test)

    def regions(self, subject: str) -> Mapping[str, NDArray[np.bool_]]:
        """Return no regions: the release does not say where its voxels lie."""
        return {}

    def acquired(self, subject: str) -> None:
        """Return nothing: the release names neither its channels nor the place of its voxels."""

    def _fmri(self, subject: str, n: int, index: NDArray[Any], repeat: NDArray[Any]) -> NDArray[np.float32]:
        path = self.folder / _fmri_name(subject, ("train", "test")[n])
        return finite(self.voxels[subject][n][index, repeat][:, None], path)

    def _clips(self, n: int, index: NDArray[Any]) -> NDArray[np.uint8]:
        stored = self.pictures[n][index]
        return pixels(np.moveaxis(stored, 2, -1), 1.0, self.folder / _film_name(("train", "test")[n]))


def recognises(folder: Path) -> bool:
    """Whether a folder holds the release."""
    return any(folder.glob("subj0*_train_fmri.pt"))


def opened(folder: Path, subjects: list[str] | None = None) -> NeuroClips:
    """Open the release.

    Parameters
    ----------
    folder : Path
        Holds ``subj01_train_fmri.pt`` and the other files.
    subjects : list of str, optional
        Such as ``subj01``. All by default.

    Raises
    ------
    UsageError
        If a file is missing, damaged, or does not fit the others.
    """
    available = sorted(
        path.name.removesuffix("_train_fmri.pt") for path in folder.glob("subj0*_train_fmri.pt")
    )
    names = chosen(available, subjects, folder)
    films = [present(folder / _film_name(part), _RELEASE) for part in ("train", "test")]
    training, test = (mapped_pt(path, _PICTURE_AXES, "fu") for path in films)
    length = cc2017.segment_windows(len(training), len(test), *films)
    if training.shape[1:] != test.shape[1:] or training.shape[2] != 3:
        raise UsageError(
            "neuroclips-clip-mismatch",
            "{training_path} has clips of shape {training_shape} and {test_path} of {test_shape}; "
            "one shape (frame, 3, row, column) was expected. Fetch the files again.",
            training_path=films[0],
            training_shape=training.shape[1:],
            test_path=films[1],
            test_shape=test.shape[1:],
        )
    voxels: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
    tables = []
    indices = []
    for name in names:
        voxels[name] = _voxels(folder, name, (len(training), len(test)))
        for stored, held_out in zip(voxels[name], (False, True), strict=True):
            segments = cc2017.TEST_SEGMENTS if held_out else cc2017.TRAINING_SEGMENTS
            tables.append(cc2017.segment_tables(name, length, stored.shape[1], held_out=held_out))
            indices.append(cc2017.segment_indices(length, stored.shape[1], segments))
    texts = _texts(folder, (len(training), len(test)))
    return NeuroClips(
        folder=folder,
        windows=joined(tables),
        index=np.concatenate(indices),
        voxels=voxels,
        pictures=(training, test),
        texts=texts,
        columns=("fmri", "clips") if texts is None else ("fmri", "clips", "captions"),
        notes=(*_NOTES, _NO_CAPTIONS) if texts is None else _NOTES,
    )


def _fmri_name(subject: str, part: str) -> str:
    return f"{subject}_{part}_fmri.pt"


def _film_name(part: str) -> str:
    return f"GT_{part}_3fps.pt"


def _voxels(folder: Path, subject: str, counts: tuple[int, int]) -> tuple[NDArray[Any], NDArray[Any]]:
    paths = [present(folder / _fmri_name(subject, part), _RELEASE) for part in ("train", "test")]
    training, test = (mapped_pt(path, _VOXEL_AXES) for path in paths)
    for path, stored, count in zip(paths, (training, test), counts, strict=True):
        if len(stored) != count:
            raise UsageError(
                "neuroclips-window-mismatch",
                "{path} has {windows} windows, and the film has {film_windows}. Fetch both again.",
                path=path,
                windows=len(stored),
                film_windows=count,
            )
    if training.shape[2] != test.shape[2]:
        raise UsageError(
            "neuroclips-voxel-mismatch",
            "{training_path} has {training_voxels} voxels and {test_path} {test_voxels}. Fetch both "
            "again: they are of different selections.",
            training_path=paths[0],
            training_voxels=training.shape[2],
            test_path=paths[1],
            test_voxels=test.shape[2],
        )
    return training, test


def _texts(folder: Path, counts: tuple[int, int]) -> tuple[NDArray[np.str_], NDArray[np.str_]] | None:
    paths = [folder / f"GT_{part}_caption.pt" for part in ("train", "test")]
    if not all(path.is_file() for path in paths):
        return None
    training, test = (strings_pt(path) for path in paths)
    for path, texts, count in zip(paths, (training, test), counts, strict=True):
        if texts.shape != (count,):
            raise UsageError(
                "neuroclips-caption-mismatch",
                "{path} has strings of shape {shape}, and {expected} captions were expected. Fetch "
                "the file again, or move it away to go on without captions.",
                path=path,
                shape=texts.shape,
                expected=count,
            )
    return training, test
