"""What all releases of cc2017 share: its films in segments of 8 minutes, and how they were scanned.

Wen, Shi, Zhang, Lu, Cao and Liu 2017, "Neural encoding and decoding with deep learning for dynamic natural
vision". Three subjects watched 18 training films twice and 5 test films ten times, at TR 2 s.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from train.data.dataset import WindowTable
from train.data.window_tables import joined, of_run

# The study, whichever release of it a folder holds.
STUDY = "cc2017"
TRAINING_SEGMENTS = 18
TEST_SEGMENTS = 5
# Every window is one volume, s.
TR_S = 2.0
WINDOW_S = 2.0
# The first volume that is kept began so long after the film, s: the scan of the training films and of the
# first test film began at 2 s and loses one volume, that of the other films began with the film and loses two
# (the authors' README, and their movie_fmri_data_processing.m).
LAG_S = 4.0
# Both releases have frames at this rate, Hz.
FPS = 3.0

DETRENDED = (
    "Each segment was detrended by a polynomial of the 4th order and z-scored as a whole, test segments too: "
    "every volume depends on later ones (movie_fmri_data_processing.m)."
)
SELECTED = "The voxels were selected by how alike the two showings of the training films were."


def segment_windows(training: int, test: int, training_path: Path, test_path: Path) -> int:
    """Return how many windows a segment has (240 in the releases).

    Parameters
    ----------
    training, test : int
        Number of windows of all training segments, and of all test segments.
    training_path, test_path : Path
        For messages.

    Raises
    ------
    UsageError
        If they do not make 18 and 5 segments of one length.
    """
    length = training // TRAINING_SEGMENTS
    if not length or training != length * TRAINING_SEGMENTS or test != length * TEST_SEGMENTS:
        raise UsageError(
            "cc2017-segment-mismatch",
            "{training_path} has {training_windows} windows and {test_path} {test_windows}; "
            "{training_segments} and {test_segments} segments of one length were expected (4320 and "
            "1200). Fetch the files again.",
            training_path=training_path,
            training_windows=training,
            test_path=test_path,
            test_windows=test,
            training_segments=TRAINING_SEGMENTS,
            test_segments=TEST_SEGMENTS,
        )
    return length


def segment_tables(subject: str, length: int, repeats: int, *, held_out: bool) -> WindowTable:
    """Make the table of all training or all test segments: repeats of segment 1, then those of segment 2, ...

    A repeat of a segment is a run of its own, and has the name of its scan, like ``seg1_2``.
    """
    kind = "test" if held_out else "seg"
    count = TEST_SEGMENTS if held_out else TRAINING_SEGMENTS
    starts = WINDOW_S * np.arange(length)
    tables = []
    for segment in range(1, count + 1):
        titles = [f"{STUDY}/{kind}{segment}/{k:03d}" for k in range(length)]
        tables += [
            of_run(subject, f"{kind}{segment}_{repeat + 1}", titles, starts, repeat, held_out=held_out)
            for repeat in range(repeats)
        ]
    return joined(tables)


def in_order(parts: Sequence[NDArray[Any]], test: NDArray[np.bool_]) -> NDArray[Any]:
    """Put rows of training windows and rows of test windows back to the places at which they were asked for.

    Parameters
    ----------
    parts : sequence of (row, ...)
        The rows of the training windows, then those of the test windows.
    test : (window,)
        Which windows are for testing.
    """
    order = np.argsort(np.concatenate([np.flatnonzero(~test), np.flatnonzero(test)]))
    return np.concatenate(parts)[order]


def segment_indices(length: int, repeats: int, segments: int) -> NDArray[np.int64]:
    """Number the windows of `segment_tables` as they are stored, segment after segment, (window,) int64."""
    stored = np.arange(segments * length).reshape(segments, 1, length)
    return np.broadcast_to(stored, (segments, repeats, length)).reshape(-1)
