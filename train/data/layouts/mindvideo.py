"""cc2017 as the authors of MinD-Video released it: a folder ``preprocessed`` of ``.npy`` files.

::

    video_train_256_3hz.npy    (18, 240, 6, 256, 256, 3), 0 to 255
    video_test_256_3hz.npy     (5, 240, 6, 256, 256, 3)
    fmri_train_subject1.npy    (18, 240, voxel)
    fmri_test_subject1.npy     (5, 240, voxel)
    text_train_256_3hz.npy     (18, 240, 6), a caption for each frame
    text_test_256_3hz.npy      (5, 240, 6)

``test_seg_id_3hz.npy`` is there too, and is not read: what it numbers is not published.
Layout: jqin4749/MindVideo, src/MindVideo/utils/dataset.py, create_Wen_dataset.
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
from train.data.layouts.stored_arrays import finite, mapped_npy, npy_header, pixels, present
from train.data.window_tables import Rows, checked_rows, chosen, joined

_RELEASE = "the MinD-Video release of cc2017"
_PARTS = ("train", "test")
_VOXEL_AXES = ("segment", "window", "voxel")
_PICTURE_AXES = ("segment", "window", "frame", "row", "column", "channel")
_TEXT_AXES = ("segment", "window", "frame")
_WHITE = 255.0
_NOTES = (
    (
        "The test volumes fmri_test_*.npy are averages over the ten showings of the test films: the array "
        "has no axis of repeats. No session can do that, so no figure on them is one of single showings."
    ),
    "Whether the training volumes are averages over both showings is not published.",
    cc2017.DETRENDED,
    cc2017.SELECTED,
    (
        "A volume is taken to begin 4 s after its window, as in the data set's own processing. The release "
        "does not say so."
    ),
    (
        "The users' code takes the mean of the test volumes as the unconditional input, and normalises them "
        "with the statistics of training volumes that are normalised already. Neither is done here."
    ),
)
_CAPTIONS = (
    "Each of the six frames of a window has a caption. That of the window is the first; a training that "
    "picks a frame reads its own (text.by_frame=true of python -m train.targets)."
)
_NO_CAPTIONS = "There are no captions: text_train_256_3hz.npy and text_test_256_3hz.npy were not both found."
_OBJECTS = (
    "There are no captions: {name} is an array of Python objects, which only code from the file could read. "
    "Write it again as strings, with numpy.save of an array of dtype str."
)


@dataclass(eq=False)
class MindVideo:
    """The release, opened; see `train.data.dataset.DataSet`.

    Attributes
    ----------
    index : int64, (window,)
        Place of each window among the training or the test windows as they are stored, segment after segment.
    arrays : dict
        File name -> array (segment, window, ...), not read yet.
    """

    folder: Path
    windows: WindowTable
    index: NDArray[np.int64]
    arrays: Mapping[str, NDArray[Any]]
    columns: Sequence[Column]
    notes: Sequence[str]
    layout: str = "mindvideo"
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
        parts = []
        for part, where in zip(_PARTS, (~test, test), strict=True):
            name = _name(column, part, subject)
            stored = self.arrays[name]
            values = stored[np.unravel_index(self.index[window_rows][where], stored.shape[:2])]
            if column == "captions":
                parts.append(values[:, 0])
            elif column == "frame_captions":
                parts.append(values)
            elif column == "clips":
                parts.append(pixels(values, _WHITE, self.folder / name))
            else:
                parts.append(finite(values[:, None], self.folder / name))
        return cc2017.in_order(parts, test)

    def regions(self, subject: str) -> Mapping[str, NDArray[np.bool_]]:
        """Return no regions: the release does not say where its voxels lie."""
        return {}

    def acquired(self, subject: str) -> None:
        """Return nothing: the release names neither its channels nor the place of its voxels."""


def recognises(folder: Path) -> bool:
    """Whether a folder is the release, or holds its folder ``preprocessed``."""
    return any(_inside(folder).glob("fmri_train_subject*.npy"))


def opened(folder: Path, subjects: list[str] | None = None) -> MindVideo:
    """Open the release.

    Parameters
    ----------
    folder : Path
        ``preprocessed``, or the folder that holds it.
    subjects : list of str, optional
        Such as ``subject1``. All by default.

    Raises
    ------
    UsageError
        If a file is missing, damaged, or does not fit the others.
    """
    place = _inside(folder)
    available = sorted(
        path.stem.removeprefix("fmri_train_") for path in place.glob("fmri_train_subject*.npy")
    )
    names = chosen(available, subjects, folder)
    arrays = {}
    for part in _PARTS:
        film = _name("clips", part)
        arrays[film] = mapped_npy(present(place / film, _RELEASE), _PICTURE_AXES, "uf")
        if arrays[film].shape[-1] != 3:
            raise UsageError(
                "mindvideo-colours-mismatch",
                "{path} has {colours} colours; 3 were expected.",
                path=place / film,
                colours=arrays[film].shape[-1],
            )
        for subject in names:
            fmri = _name("fmri", part, subject)
            arrays[fmri] = mapped_npy(present(place / fmri, _RELEASE), _VOXEL_AXES)
            _same_windows(place, arrays, fmri, film)
    films = [_name("clips", part) for part in _PARTS]
    training, test = (arrays[film].shape for film in films)
    paths = [place / film for film in films]
    length = cc2017.segment_windows(training[0] * training[1], test[0] * test[1], *paths)
    for subject in names:
        _same_voxels(place, arrays, subject)
    texts, note = _texts(place)
    for name, text in texts.items():
        _same_windows(place, arrays | {name: text}, name, name.replace("text", "video"))
    tables = []
    indices = []
    for subject in names:
        for held_out in (False, True):
            tables.append(cc2017.segment_tables(subject, length, 1, held_out=held_out))
            segments = cc2017.TEST_SEGMENTS if held_out else cc2017.TRAINING_SEGMENTS
            indices.append(cc2017.segment_indices(length, 1, segments))
    return MindVideo(
        folder=place,
        windows=joined(tables),
        index=np.concatenate(indices),
        arrays=arrays | texts,
        columns=("fmri", "clips", "captions", "frame_captions") if texts else ("fmri", "clips"),
        notes=(*_NOTES, note),
    )


def _inside(folder: Path) -> Path:
    return folder / "preprocessed" if (folder / "preprocessed").is_dir() else folder


def _name(column: str, part: str, subject: str = "") -> str:
    if column == "fmri":
        return f"fmri_{part}_{subject}.npy"
    # Captions of windows and those of frames are in one file.
    return f"{'video' if column == 'clips' else 'text'}_{part}_256_3hz.npy"


def _same_windows(place: Path, arrays: Mapping[str, NDArray[Any]], name: str, other: str) -> None:
    first = arrays[name].shape[:2]
    second = arrays[other].shape[:2]
    if first != second:
        raise UsageError(
            "mindvideo-window-mismatch",
            "{path} has {segments} segments of {windows} windows, and {film} has {film_segments} of "
            "{film_windows}. Fetch both again.",
            path=place / name,
            segments=first[0],
            windows=first[1],
            film=other,
            film_segments=second[0],
            film_windows=second[1],
        )


def _same_voxels(place: Path, arrays: Mapping[str, NDArray[Any]], subject: str) -> None:
    names = [_name("fmri", part, subject) for part in _PARTS]
    training, test = (arrays[name].shape[2] for name in names)
    if training != test:
        raise UsageError(
            "mindvideo-voxel-mismatch",
            "{training_path} has {training_voxels} voxels and {test_file} {test_voxels}. Fetch both "
            "again: they are of different selections.",
            training_path=place / names[0],
            training_voxels=training,
            test_file=names[1],
            test_voxels=test,
        )


def _texts(place: Path) -> tuple[dict[str, NDArray[Any]], str]:
    """Map the captions, and say of them what a user has to know; there are none where they are objects."""
    paths = [place / _name("captions", part) for part in _PARTS]
    if not all(path.is_file() for path in paths):
        return {}, _NO_CAPTIONS
    for path in paths:
        # An array of objects is a pickle inside.
        if npy_header(path)[1].hasobject:
            return {}, _OBJECTS.format(name=path.name)
    return {path.name: mapped_npy(path, _TEXT_AXES, "U") for path in paths}, _CAPTIONS
