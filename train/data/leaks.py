"""What would leak from the test into training, each found by name.

`found` runs every check that needs no long reading; near-duplicates among clips are looked for where they are
asked for (`train.data.near_duplicates`), because every clip is decoded for it.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from train.data.dataset import Column, DataSet, WindowTable
from train.data.layouts import cinebrain_clips
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
]
# No more names than these are written out in a sentence.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Leak:
    """Something of the test that training would know.

    Attributes
    ----------
    kind : str
    names : tuple of str
        The windows, clips, subjects or files that are concerned.
    says : str
        What it is and what to do, in a sentence or two.
    """

    kind: Kind
    names: tuple[str, ...]
    says: str


def found(
    data: DataSet, split: Split, statistics: Mapping[str, Statistics] | None = None, near: Sequence[Pair] = ()
) -> list[Leak]:
    """Look for every leak.

    Parameters
    ----------
    data : DataSet
    split : Split
    statistics : mapping, optional
        Subject -> the statistics that signals are standardised by.
    near : sequence of Pair
        Near-duplicates that were found (`near_duplicates.pairs`).
    """
    known = list(statistics.values()) if statistics else []
    return [
        *same_subjects(data),
        *wrong_seasons(data),
        *on_both_sides(data.windows, split),
        *in_statistics(data.windows, split, known),
        *near_duplicates(near),
    ]


def in_statistics(windows: WindowTable, split: Split, statistics: Iterable[Statistics]) -> list[Leak]:
    """Find windows of the test that statistics rest on, and statistics that cannot undo the release's own."""
    leaks = []
    tested = set(windows.names(split.test))
    for one in statistics:
        inside = sorted(tested & set(one.windows))
        if inside:
            says = (
                f"The statistics of {one.subject} rest on {len(inside)} windows of the test "
                f"({_some(inside)}). Compute them from the training windows."
            )
            leaks.append(Leak("test window in the statistics", tuple(inside), says))
        leaks += [Leak("scaled run by run", (one.subject,), says) for says in one.told()]
    return leaks


def on_both_sides(windows: WindowTable, split: Split) -> list[Leak]:
    """Find what is shown both in the test and in training or validation, to whichever subject."""
    tested = set(windows.shown[split.test].tolist())
    known = set(windows.shown[split.train].tolist()) | set(windows.shown[split.validation].tolist())
    both = sorted(tested & known)
    if not both:
        return []
    says = (
        f"{len(both)} clips are shown both in the test and in training ({_some(both)}). Leave their windows "
        "out of training, as train.data.splits does."
    )
    return [Leak("same film on both sides", tuple(both), says)]


def same_subjects(data: DataSet) -> list[Leak]:
    """Find subjects who have the same signals: one of them is a copy of the other.

    The first window of each run is compared, bit by bit, whatever was shown in it. Windows in which nothing
    changes are left out, because holes may be filled with the same value for everybody.
    """
    leaks = []
    columns: list[Column] = [column for column in SIGNALS if column in data.columns]
    first = _first_of_runs(data.windows)
    for column in columns if len(data.windows.subjects) > 1 else ():
        seen: dict[str, tuple[str, str]] = {}
        twins: dict[tuple[str, str], list[str]] = {}
        for row in first:
            subject = str(data.windows.subject[row])
            run = str(data.windows.run[row])
            values = data.read(column, [row])
            if values.min() == values.max():
                continue
            digest = hashlib.sha256(values.tobytes()).hexdigest()
            other, other_run = seen.setdefault(digest, (subject, run))
            if other != subject:
                where = run if run == other_run else f"{other_run} and {run}"
                twins.setdefault((other, subject), []).append(where)
        for (one, other), runs in twins.items():
            says = (
                f"{one} and {other} have the same {column} in {len(runs)} runs ({_some(runs)}), so one of "
                f"them is a copy of the other. Leave one out, for example with subjects={one}."
            )
            leaks.append(Leak("same subject twice", (one, other), says))
    return leaks


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
        own = np.flatnonzero(table.subject == subject)
        clips = table.shown[own].astype(np.int64)
        unseen = [clip for clip in clips.tolist() if cinebrain_clips.place_of(subject, clip) is None]
        twice = len(clips) - len(set(clips.tolist()))
        if unseen or twice:
            named = _some([f"{clip:06d}" for clip in unseen]) or "none"
            second = cinebrain_clips.SECOND[subject]
            says = (
                f"Of the {len(clips)} windows of {subject}, {len(unseen)} show clips of a season that it did "
                f"not see ({named}), and {twice} show a clip that another shows. Pair its second half with "
                f"clips from {second} on."
            )
            leaks.append(Leak("wrong season", (subject,), says))
    return leaks


def near_duplicates(pairs: Sequence[Pair]) -> list[Leak]:
    """Say which clips of the test look nearly like one of training."""
    if not pairs:
        return []
    some = [f"{pair.test} like {pair.train}" for pair in pairs]
    says = (
        f"{len(pairs)} clips of the test look nearly like a clip of training ({_some(some)}). Give results "
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


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
