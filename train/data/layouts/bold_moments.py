"""BOLD Moments (Lahner et al. 2024), as Brain Netflix reads it: a response to each showing of a video.

::

    sub-01/Group41_betas-GLMsingle_type-typed_z=1.pkl    train_data_allvoxel (1000, 3, voxel),
                                                         test_data_allvoxel (102, 10, voxel)
    sub-01/V1_betas-GLMsingle_type-typed_z=1.pkl         the same of a region, if there
    stimuli/0001.mp4 ... 1102.mp4                        the videos, if there; in any folder below

The pickles may also lie in ``prepared_allvoxel_pkl`` or ``betas-prepared/prepared_allvoxel_pkl`` of a
subject. Layout: blahner/BrainNetflixMBM, dataset.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from train.data.dataset import Chain, Column, WindowTable
from train.data.layouts.film_clips import CLIP_FPS, CLIP_SIZE, film_clips
from train.data.layouts.pickled_arrays import unpickled
from train.data.layouts.stored_arrays import finite
from train.data.window_tables import Rows, checked_rows, chosen, joined

_ENDING = "_betas-GLMsingle_type-typed_z=1.pkl"
_PLACES = ("", "prepared_allvoxel_pkl", "betas-prepared/prepared_allvoxel_pkl")
# The files of all voxels, the first that is there: 41 regions of the cortex, or all voxels that responded.
_ALL_VOXELS = ("Group41", "BMDgeneral")
_INDICES = ("roi_indices_hcp", "roi_indices_fullvolume")
_KEYS = ("train_data_allvoxel", "test_data_allvoxel")
# Videos, and showings of each, for training and for testing. A pickle cannot be mapped, so that its shapes
# are not known before it is read; every subject has these.
Counts = tuple[tuple[int, int], tuple[int, int]]
_COUNTS: Counts = ((1000, 3), (102, 10))
# Length of a video, s (Lahner et al. 2024). The volumes had a TR of 1.75 s; a response has none.
_WINDOW_S = 3.0
_NOTES = (
    (
        "A slot of fMRI is a response that GLMsingle estimated, and no volume. Its type D fits the shape of "
        "the response, the noise and the regularisation to whole sessions: every value depends on later ones."
    ),
    "The responses were z-scored with the training statistics of each session.",
    (
        "The showings of a video are kept apart, as windows of their own with repeat 0 to 2, and 0 to 9 for "
        "testing. The users' code averages them."
    ),
    "The release does not say in which run a video was shown, so each showing counts as a run of its own.",
    "Voxels that have no value in any showing are left out.",
    "A subject's pickle is read as a whole, and the last one that was read is kept in memory.",
)
_NO_FILMS = "There are no clips: the videos 0001.mp4 to 1102.mp4 are not in a folder stimuli."


@dataclass(eq=False)
class BoldMoments:
    """The release, opened; see `train.data.dataset.DataSet`.

    Attributes
    ----------
    video : int64, (window,)
        Number of the video, from 0 on, among those for training or for testing.
    films : dict
        Name of a video -> its file; empty where there are none.
    size : (int, int)
        Rows and columns of the clips.
    counts : ((int, int), (int, int))
        Videos, and showings of each, for training and for testing.
    responses_of : dict
        The last subject that was read: `_Responses`.
    """

    folder: Path
    windows: WindowTable
    video: NDArray[np.int64]
    films: Mapping[str, Path]
    columns: Sequence[Column]
    notes: Sequence[str]
    size: tuple[int, int]
    fps: float | None
    counts: Counts = _COUNTS
    responses_of: dict[str, "_Responses"] = field(default_factory=dict, repr=False)
    layout: str = "bold-moments"
    study: str = "bold-moments"
    window_s: float = _WINDOW_S
    lag_s: float = 0.0
    tr_s: float | None = None
    sfreq: float | None = None
    chain: Chain = "offline"
    missing: Sequence[str] = ()

    def read(self, column: Column, rows: Rows) -> NDArray[Any]:
        """Read a column of some windows; see `train.data.dataset.DataSet.read`."""
        subject, window_rows = checked_rows(self.windows, rows, column, self.columns, self.folder)
        if column == "clips":
            assert self.fps is not None
            # Several showings of a video read it once.
            names, places = np.unique(self.windows.shown[window_rows], return_inverse=True)
            paths = [self.films[name] for name in names]
            cut = [film_clips(path, [0.0], _WINDOW_S, self.fps, self.size) for path in paths]
            return np.concatenate(cut)[places]
        responses = self._responses(subject)
        test = self.windows.held_out[window_rows]
        values = np.empty((len(window_rows), 1, int(responses.living.sum())), np.float32)
        for stored, where in zip(responses.data, (~test, test), strict=True):
            picked = stored[self.video[window_rows][where], self.windows.repeat[window_rows][where]]
            values[where, 0] = finite(picked[:, responses.living], responses.path)
        return values

    def regions(self, subject: str) -> Mapping[str, NDArray[np.bool_]]:
        """Return the regions that have a file of their own, as masks of the voxels."""
        responses = self._responses(subject)
        if responses.indices is None:
            return {}
        masks = {}
        for path in _pickles(self.folder / subject):
            if path != responses.path:
                other = _Responses.read(path, self.counts)
                if other.indices is not None:
                    name = path.name.removesuffix(_ENDING)
                    masks[name] = np.isin(responses.indices[responses.living], other.indices)
        return masks

    def acquired(self, subject: str) -> None:
        """Return nothing: the release names neither its channels nor the place of its voxels."""

    def _responses(self, subject: str) -> "_Responses":
        if subject not in self.responses_of:
            self.responses_of.clear()
            self.responses_of[subject] = _Responses.read(_whole(self.folder / subject), self.counts)
        return self.responses_of[subject]


@dataclass(frozen=True, eq=False)
class _Responses:
    """A pickle: responses for training and for testing (video, showing, voxel), and where the voxels lie."""

    path: Path
    data: tuple[NDArray[Any], NDArray[Any]]
    living: NDArray[np.bool_]
    indices: NDArray[np.int64] | None

    @classmethod
    def read(cls, path: Path, expected_counts: Counts) -> "_Responses":
        content = unpickled(path)
        if not isinstance(content, dict) or not all(
            isinstance(content.get(key), np.ndarray) for key in _KEYS
        ):
            raise UsageError(
                "bold-moments-arrays-missing",
                "{path} is no dictionary with the arrays {keys}. Fetch the file again.",
                path=path,
                keys=" and ".join(_KEYS),
            )
        training, test = (content[key] for key in _KEYS)
        for key, stored, counts in zip(_KEYS, (training, test), expected_counts, strict=True):
            fits = stored.ndim == 3 and stored.shape[:2] == counts and stored.dtype.kind == "f"
            if not fits or stored.shape[2] != training.shape[-1]:
                raise UsageError(
                    "bold-moments-shape-mismatch",
                    "{path}: {array} is {dtype} of shape {shape}; floats of shape "
                    "({expected_videos}, {expected_repeats}, voxel) were expected, with as many "
                    "voxels as in the other array. Fetch the file again.",
                    path=path,
                    array=key,
                    dtype=stored.dtype,
                    shape=stored.shape,
                    expected_videos=counts[0],
                    expected_repeats=counts[1],
                )
        indices = next((np.asarray(content[key]).ravel() for key in _INDICES if key in content), None)
        if indices is not None and len(indices) != training.shape[2]:
            raise UsageError(
                "bold-moments-voxel-mismatch",
                "{path} says where {index_voxels} voxels lie and has responses of {response_voxels}. "
                "Fetch the file again.",
                path=path,
                index_voxels=len(indices),
                response_voxels=training.shape[2],
            )
        dead = np.isnan(training).all((0, 1)) & np.isnan(test).all((0, 1))
        return cls(path, (training, test), ~dead, indices)


def recognises(folder: Path) -> bool:
    """Whether a folder holds subjects with responses of GLMsingle."""
    return any(_pickles(place) for place in folder.glob("sub-*"))


def opened(
    folder: Path,
    subjects: list[str] | None = None,
    *,
    fps: float = CLIP_FPS,
    size: tuple[int, int] = CLIP_SIZE,
    counts: Counts = _COUNTS,
) -> BoldMoments:
    """Open the release.

    Parameters
    ----------
    folder : Path
        Holds ``sub-01``, ``sub-02``, ... and, if there, ``stimuli``.
    subjects : list of str, optional
        Such as ``sub-01``. All by default.
    fps : float
        Frames a second of the clips.
    size : (int, int)
        Rows and columns of the clips.
    counts : ((int, int), (int, int))
        Videos, and showings of each, for training and for testing: those of the whole release by default.

    Raises
    ------
    UsageError
        If a subject has no file of all voxels, or some of the videos are missing.
    """
    available = sorted(place.name for place in folder.glob("sub-*") if _pickles(place))
    names = chosen(available, subjects, folder)
    for subject in names:
        # Before hours are lost: the file is looked for now, and read when it is needed.
        _whole(folder / subject)
    tables = [_table(subject, counts, held_out=test) for subject in names for test in (False, True)]
    windows = joined(tables)
    films = _films(folder, windows)
    return BoldMoments(
        folder=folder,
        windows=windows,
        video=_numbers(windows, counts),
        films=films,
        columns=("fmri", "clips") if films else ("fmri",),
        notes=_NOTES if films else (*_NOTES, _NO_FILMS),
        size=size,
        fps=fps if films else None,
        counts=counts,
    )


def _table(subject: str, counts: Counts, *, held_out: bool) -> WindowTable:
    """Make the table of all training or all test showings: those of the first video, of the second, ..."""
    count, showings = counts[held_out]
    first = counts[0][0] + 1 if held_out else 1
    titles = np.repeat([f"{first + n:04d}" for n in range(count)], showings)
    repeat = np.tile(np.arange(showings), count)
    return WindowTable(
        subject=np.full(len(titles), subject),
        run=np.array([f"{name}_{n}" for name, n in zip(titles, repeat, strict=True)]),
        shown=titles,
        start_s=np.zeros(len(titles)),
        repeat=repeat,
        held_out=np.full(len(titles), held_out),
    )


def _numbers(windows: WindowTable, counts: Counts) -> NDArray[np.int64]:
    """Number the videos from 0 on, among those for training and among those for testing."""
    return windows.shown.astype(np.int64) - 1 - windows.held_out * counts[0][0]


def _pickles(place: Path) -> list[Path]:
    return sorted(path for subfolder in _PLACES for path in (place / subfolder).glob(f"*{_ENDING}"))


def _whole(place: Path) -> Path:
    """Find the file that holds all voxels of a subject."""
    pickles = _pickles(place)
    for name in _ALL_VOXELS:
        for path in pickles:
            if path.name == name + _ENDING:
                return path
    if len(pickles) == 1:
        return pickles[0]
    raise UsageError(
        "bold-moments-voxels-missing",
        "{folder} has responses of {regions} regions and no file {stem}{suffix} of all voxels. Fetch it.",
        folder=place,
        regions=len(pickles),
        stem=_ALL_VOXELS[0],
        suffix=_ENDING,
    )


def _films(folder: Path, windows: WindowTable) -> dict[str, Path]:
    films = {path.stem: path for path in sorted((folder / "stimuli").glob("**/*.mp4"))}
    absent = sorted(set(windows.shown.tolist()) - set(films))
    if films and absent:
        raise UsageError(
            "bold-moments-videos-missing",
            "{folder} lacks {missing_count} of the videos, the first is {video}.mp4. Fetch them, or "
            "move the folder away to go on without clips.",
            folder=folder / "stimuli",
            missing_count=len(absent),
            video=absent[0],
        )
    return films
