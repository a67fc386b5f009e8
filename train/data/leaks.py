"""What would leak from the test into training, each found by name.

`find_leaks` runs every check that needs no long reading; near-duplicates among clips are looked for where
they are asked for (`train.data.near_duplicates`), because every clip is decoded for it.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from train.data import cinebrain_clips
from train.data.dataset import Column, DataSet, WindowTable
from train.data.near_duplicates import Pair
from train.data.splits import Split
from train.data.standard import SIGNALS, Statistics

Kind = Literal[
    "test window in the statistics",
    "same film on both sides",
    "same subject twice",
    "wrong season",
    "near-duplicate clips",
    "scaled run by run",
    "filtered run by run",
    "test scaled by itself",
    "run copied",
    "test beside training",
    "EEG stands still",
    "values cut off",
    "captions",
    "shifted signals",
    "shifted captions",
]
# What answers to one clip lasts so long after it, s: signals of windows that are nearer share it.
RESPONSE_S = 20.0
# Runs are compared by so many windows from their beginning, and by so many voxels or channels at most.
_COMPARED = 3
_VOXELS = 2000
# Rounding leaves copies correlated by more than this. With fewer values of a voxel nothing is compared.
COPY = 0.98
_LEAST_VALUES = 6
_LEAST_NUMBERS = 25
# What stands for no caption.
_NOTHING_SAID = {"", "n/a", "na", "nan", "none", "null", "unknown"}
# No more names than these are written out in a sentence.
_MAX_NAMES = 3


@dataclass(frozen=True, slots=True)
class Leak:
    """Something of the test that training would know, or another fault of a data set.

    Attributes
    ----------
    kind : str
        What is wrong, such as ``same subject twice``; one of `Kind`.
    names : tuple of str
        The windows, clips, subjects or files that are concerned.
    says : str
        What it is and what to do, in a sentence or two.
    """

    kind: Kind
    names: tuple[str, ...]
    says: str


class Signals(Protocol):
    """Windows of several subjects whose signals can be read, such as a `DataSet`."""

    windows: WindowTable
    columns: Sequence[Column]

    def read(self, column: Column, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[Any]:
        """Read a column of some windows, which are of one subject."""
        ...


def find_leaks(
    data: DataSet, split: Split, statistics: Mapping[str, Statistics] | None = None, near: Sequence[Pair] = ()
) -> list[Leak]:
    """Look for every leak.

    Parameters
    ----------
    split : Split
        Rows that train, validate and test.
    statistics : mapping, optional
        Subject -> the statistics that signals are standardised by.
    near : sequence of Pair
        Near-duplicates that were found (`near_duplicates.pairs`).
    """
    subject_statistics = list(statistics.values()) if statistics else []
    return [
        *copies(data, split),
        *wrong_seasons(data),
        *on_both_sides(data.windows, split),
        *beside_training(data, split),
        *in_statistics(data.windows, split, subject_statistics),
        *near_duplicates(near),
    ]


def in_statistics(windows: WindowTable, split: Split, statistics: Iterable[Statistics]) -> list[Leak]:
    """Find windows of the test that statistics rest on, and statistics that cannot undo the release's own."""
    leaks = []
    tested = set(windows.names(split.test))
    for stats in statistics:
        overlap = sorted(tested & set(stats.windows))
        if overlap:
            says = (
                f"The statistics of {stats.subject} rest on {len(overlap)} windows of the test "
                f"({some(overlap)}). Compute them from the training windows."
            )
            leaks.append(Leak("test window in the statistics", tuple(overlap), says))
        leaks += [Leak("scaled run by run", (stats.subject,), says) for says in stats.warnings()]
    return leaks


def on_both_sides(windows: WindowTable, split: Split) -> list[Leak]:
    """Find what is shown both in the test and in training or validation, to whichever subject."""
    tested = set(windows.shown[split.test].tolist())
    trained = set(windows.shown[split.train].tolist()) | set(windows.shown[split.validation].tolist())
    both = sorted(tested & trained)
    if not both:
        return []
    says = (
        f"{len(both)} clips are shown both in the test and in training ({some(both)}). Leave their windows "
        "out of training, as train.data.splits does."
    )
    return [Leak("same film on both sides", tuple(both), says)]


def same_subjects(data: Signals) -> list[Leak]:
    """Find subjects who have the same signals: one of them is a copy of the other.

    The first window of each run is compared, bit by bit, whatever was shown in it. Windows in which nothing
    changes are left out, because holes may be filled with the same value for everybody.
    """
    leaks = []
    columns: list[Column] = [column for column in SIGNALS if column in data.columns]
    first = _first_of_runs(data.windows)
    for column in columns if len(data.windows.subjects) > 1 else ():
        first_with: dict[str, tuple[str, str]] = {}
        twins: dict[tuple[str, str], list[str]] = {}
        for row in first:
            subject = str(data.windows.subject[row])
            run = str(data.windows.run[row])
            values = data.read(column, [row])
            if values.min() == values.max():
                continue
            digest = hashlib.sha256(values.tobytes()).hexdigest()
            other, other_run = first_with.setdefault(digest, (subject, run))
            if other != subject:
                where = run if run == other_run else f"{other_run} and {run}"
                twins.setdefault((other, subject), []).append(where)
        for (first_subject, other), runs in twins.items():
            says = (
                f"{first_subject} and {other} have the same {column} in {len(runs)} runs ({some(runs)}), so "
                f"one of them is a copy of the other. Leave one out, for example with "
                f"subjects={first_subject}."
            )
            leaks.append(Leak("same subject twice", (first_subject, other), says))
    return leaks


def copies(data: DataSet, split: Split | None = None) -> list[Leak]:
    """Find runs that are another's copy, also where one of them was rounded or scaled again.

    The first windows of each run are compared, each voxel by its changes in units of their deviation. Of one
    subject's runs, a copy is told where one of them is tested on and the other is trained on.

    Parameters
    ----------
    split : Split, optional
        Without one, subjects alone are compared.
    """
    leaks = same_subjects(data)
    exact = {(leak.names, leak.says.split(" in ")[0]) for leak in leaks}
    part = _part_of_runs(data.windows, split)
    columns: list[Column] = [column for column in SIGNALS if column in data.columns]
    for column in columns:
        twins: dict[tuple[str, str], list[str]] = {}
        copied: dict[str, list[str]] = {}
        for (first, run), (other, other_run) in _alike(data, column):
            if first != other:
                where = run if run == other_run else f"{run} and {other_run}"
                twins.setdefault((first, other), []).append(where)
            elif {part.get((first, run)), part.get((other, other_run))} == {"train", "test"}:
                copied.setdefault(first, []).append(f"{run} and {other_run}")
        for (first, other), runs in twins.items():
            sentence = f"{first} and {other} have the same {column}"
            if ((first, other), sentence) in exact:
                continue
            says = (
                f"{sentence}, but for rounding or scaling, in {len(runs)} runs ({some(runs)}), so one of "
                f"them is a copy of the other. Leave one out, for example with subjects={first}."
            )
            leaks.append(Leak("same subject twice", (first, other), says))
        for subject, pairs in copied.items():
            says = (
                f"{len(pairs)} runs that are tested on are copies of runs that are trained on, by their "
                f"{column} ({subject}: {some(pairs)}). Leave one of each pair out."
            )
            leaks.append(Leak("run copied", (subject,), says))
    return leaks


def _alike(data: DataSet, column: Column) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Return the pairs of runs, each as subject and run, that begin with the same changes."""
    table = data.windows
    first_rows: dict[tuple[str, str], list[int]] = {}
    for row in range(len(table)):
        rows = first_rows.setdefault((str(table.subject[row]), str(table.run[row])), [])
        if len(rows) < _COMPARED:
            rows.append(row)
    # Runs of other lengths, voxels or channels cannot be told to be copies.
    sizes: dict[tuple[int, ...], list[tuple[tuple[str, str], NDArray[np.float32]]]] = {}
    for name, rows in first_rows.items():
        moved = changes(column, data.read(column, rows))
        if moved is not None:
            sizes.setdefault(moved.shape, []).append((name, moved.ravel()))
    pairs = []
    for comparable in sizes.values():
        table_of = np.stack([values for _, values in comparable])
        alike = table_of @ table_of.T / table_of.shape[1]
        for n, k in np.argwhere(np.triu(alike > COPY, 1)).tolist():
            pairs.append((comparable[n][0], comparable[k][0]))
    return pairs


def changes(column: Column, values: NDArray[Any]) -> NDArray[np.float32] | None:
    """Return the changes of each voxel in units of their deviation, (value, voxel); None if there are few."""
    axis = 2 if column == "fmri" else 1
    table = np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis]).astype(np.float64)
    step = -(-table.shape[1] // _VOXELS)
    table = table[:, ::step]
    if column == "eeg":
        # Neighbouring samples say the same.
        table = table[:: max(1, len(table) // _VOXELS)]
    deviation = table.std(axis=0)
    living = deviation > 0
    if len(table) < _LEAST_VALUES or living.sum() * len(table) < _LEAST_NUMBERS:
        return None
    scaled = (table - table.mean(axis=0)) / np.where(living, deviation, 1)
    # Each counts alike, however many of them change.
    return (scaled * np.sqrt(len(living) / living.sum())).astype(np.float32)


def _part_of_runs(windows: WindowTable, split: Split | None) -> dict[tuple[str, str], str]:
    """Return whether each run, by subject and name, is trained or tested on."""
    parts = {} if split is None else {"train": split.train, "test": split.test}
    return {
        (str(windows.subject[row]), str(windows.run[row])): name
        for name, rows in parts.items()
        for row in rows.tolist()
    }


def beside_training(data: DataSet, split: Split) -> list[Leak]:
    """Find windows of the test that lie beside windows of training in their run: they share a response.

    The blood's response lasts 12 s and follows its clip by seconds, and neighbouring clips are alike.
    """
    table = data.windows
    taught: dict[tuple[str, str], list[float]] = {}
    for row in split.train.tolist():
        run = (str(table.subject[row]), str(table.run[row]))
        taught.setdefault(run, []).append(float(table.start_s[row]))
    close = []
    for row in split.test.tolist():
        starts = taught.get((str(table.subject[row]), str(table.run[row])), [])
        gaps = np.abs(np.array(starts) - table.start_s[row]) - data.window_s
        if (gaps < RESPONSE_S).any():
            close.append(row)
    if not close:
        return []
    names = tuple(table.names(close))
    says = (
        f"{len(close)} of {len(split.test)} windows of the test lie within {RESPONSE_S:g} s of a window of "
        f"training in the same run ({some(names)}): they share their response, and their clips are alike. "
        "Test on whole runs."
    )
    return [Leak("test beside training", names, says)]


def poor_captions(data: DataSet) -> list[Leak]:
    """Find captions that say nothing, and captions that several clips share."""
    if "captions" not in data.columns:
        return []
    table = data.windows
    captions: dict[str, str] = {}
    for subject in table.subjects:
        rows = np.flatnonzero(table.subject == subject)
        fresh = [row for row in rows.tolist() if str(table.shown[row]) not in captions]
        if fresh:
            texts = data.read("captions", fresh).tolist()
            names = table.shown[fresh].tolist()
            captions |= {name: " ".join(text.split()) for name, text in zip(names, texts, strict=True)}
    empty = [clip for clip, text in captions.items() if text.lower() in _NOTHING_SAID]
    clips: dict[str, list[str]] = {}
    for clip, text in captions.items():
        if clip not in empty:
            clips.setdefault(text.lower(), []).append(clip)
    doubled = [clip for shared in clips.values() if len(shared) > 1 for clip in shared]
    faults = []
    if empty:
        says = (
            f"{len(empty)} of {len(captions)} clips have a caption that says nothing ({some(empty)}). Write "
            "them, or leave the clips out where captions are learned from."
        )
        faults.append(Leak("captions", tuple(empty), says))
    if doubled:
        says = (
            f"{len(doubled)} of {len(captions)} clips share their caption with another clip "
            f"({some(doubled)}), so it cannot tell them apart. See whether captions were shifted or written "
            "twice."
        )
        faults.append(Leak("captions", tuple(doubled), says))
    return faults


def wrong_seasons(data: DataSet) -> list[Leak]:
    """Find signals of CineBrain that are paired with clips of the season that the subject did not see.

    The table itself is checked, and so is each list of pairs that lies in the folder (``sub-*.json``),
    because other programs are trained with it.
    """
    if data.layout != "cinebrain":
        return []
    leaks = [Leak("wrong season", (says.split()[0],), says) for says in _wrong_lists(data.folder)]
    table = data.windows
    for subject in table.subjects:
        rows = np.flatnonzero(table.subject == subject)
        clips = table.shown[rows].astype(np.int64)
        unseen = [clip for clip in clips.tolist() if cinebrain_clips.place_of(subject, clip) is None]
        twice = len(clips) - len(set(clips.tolist()))
        if unseen or twice:
            examples = some([f"{clip:06d}" for clip in unseen]) or "none"
            second = cinebrain_clips.SECOND[subject]
            says = (
                f"Of the {len(clips)} windows of {subject}, {len(unseen)} show clips of a season that it "
                f"did not see ({examples}), and {twice} show a clip that another shows. Pair its second half "
                f"with clips from {second} on."
            )
            leaks.append(Leak("wrong season", (subject,), says))
    return leaks


def near_duplicates(pairs: Sequence[Pair]) -> list[Leak]:
    """Say which clips of the test look nearly like one of training."""
    if not pairs:
        return []
    alike = [f"{pair.test} like {pair.train}" for pair in pairs]
    says = (
        f"{len(pairs)} clips of the test look nearly like a clip of training ({some(alike)}). Give results "
        "with and without them."
    )
    return [Leak("near-duplicate clips", tuple(pair.test for pair in pairs), says)]


def _wrong_lists(folder: Path) -> list[str]:
    lists = sorted(folder.glob("sub-*.json"))
    return [says for path in lists for says in cinebrain_clips.wrong_pairs(path)]


def _first_of_runs(windows: WindowTable) -> list[int]:
    first: dict[tuple[str, str], int] = {}
    for row in range(len(windows)):
        first.setdefault((str(windows.subject[row]), str(windows.run[row])), row)
    return list(first.values())


def some(names: Sequence[str]) -> str:
    """Write a few names out, and say if there are more."""
    return ", ".join(names[:_MAX_NAMES]) + (", ..." if len(names) > _MAX_NAMES else "")
