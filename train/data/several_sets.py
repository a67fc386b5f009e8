"""Several participants in one training: what they are called, and what must not pass from one to another.

The functions take the windows of all of them by name (`Participants`), the default participant first. Who is
asked for is read by `train.data.participant_values`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from train.data import near_duplicates
from train.data.dataset import Column
from train.data.leaks import COPY, changes, same_subjects, some
from train.data.same_brain import SAME_BRAIN, same_brain
from train.data.set_windows import SetWindows
from train.data.splits import Rows
from train.data.window_tables import joined

# Name -> windows.
Participants = dict[str, SetWindows]
# Participants are compared by so many windows from the beginning.
_COMPARED = 24
# What a participant is called whose own name may be a person's.
_NAMELESS = "participant"


def names_of(opened: Sequence[SetWindows]) -> list[str]:
    """Name participants by subject, and by layout and subject where two subjects have one name.

    A name that may be a person's is not used, nor is a folder's.
    """
    codes = [windows.code or _NAMELESS for windows in opened]
    layouts = [f"{windows.data.layout}-{code}" for windows, code in zip(opened, codes, strict=True)]
    names: list[str] = []
    for number, (code, of_layout) in enumerate(zip(codes, layouts, strict=True), 1):
        if codes.count(code) == 1:
            names.append(code)
        elif layouts.count(of_layout) == 1:
            names.append(of_layout)
        else:
            names.append(f"{of_layout}-{number}")
    return names


def check_clips(everybody: Participants) -> None:
    """Refuse clips that differ in their number of frames or in their size.

    Raises
    ------
    UsageError
    """
    clips = {name: windows.draft.clip for name, windows in everybody.items()}
    looks = {(clip.frames, clip.height, clip.width) for clip in clips.values()}
    if len(looks) == 1:
        return
    lengths_s = {name: float(windows.draft.grid.window) for name, windows in everybody.items()}
    descriptions = [
        f"{name}: {clip.frames} frames of {clip.height} x {clip.width} for {lengths_s[name]:g} s"
        for name, clip in clips.items()
    ]
    raise UsageError(
        "data-clips-differ",
        "clips of all participants must have as many frames, of one size: {clips}. Ask for as many in every "
        "window with data.frames=N.",
        clips="; ".join(descriptions),
    )


def held_for_all(everybody: Participants) -> Participants:
    """Hold out for everybody what is held out for one of them.

    Names of what was shown are compared within a study, or a layout that holds none. Windows that teach and
    show it are left out.

    Raises
    ------
    UsageError
        If nothing is left to teach one of them.
    """
    titles: dict[str, set[str]] = {}
    for windows in everybody.values():
        shown_in_test = windows.data.windows.shown[windows.split.test].tolist()
        titles.setdefault(_names_of(windows), set()).update(shown_in_test)
    return {name: _without(name, windows, titles[_names_of(windows)]) for name, windows in everybody.items()}


def _names_of(windows: SetWindows) -> str:
    """Return what the names of what was shown hold for: a study, or a layout that holds none."""
    return windows.data.study or windows.data.layout


def _without(name: str, windows: SetWindows, titles: set[str]) -> SetWindows:
    split = windows.split
    in_test = np.isin(windows.data.windows.shown[split.train], sorted(titles))
    if in_test.all():
        raise UsageError(
            "data-participant-without-training",
            "every window that could teach {subject} shows what is held out for another participant. "
            "Hold out the same for all of them, with data.test=RUN,RUN.",
            subject=name,
        )
    left_out = np.union1d(split.left_out, split.train[in_test])
    return replace(windows, split=replace(split, train=split.train[~in_test], left_out=left_out))


def check_copies(everybody: Participants) -> None:
    """Refuse participants who are one, by the bits of a run, or of the first windows but for rounding.

    Raises
    ------
    UsageError
    """
    twins = [leak.names for leak in same_subjects(_Together(everybody))]
    twins += [names for names in combinations(everybody, 2) if _alike(*(everybody[name] for name in names))]
    if twins:
        first, second = twins[0]
        raise _copied(everybody, first, second, "they have the same signals, or the same but for rounding")


def _copied(everybody: Participants, first: str, second: str, reason: str) -> UsageError:
    return UsageError(
        "data-participant-copied",
        "{first} ({first_folder}) and {second} ({second_folder}) are one participant: {explanation}. Name "
        "one of them.",
        first=first,
        first_folder=everybody[first].data.folder,
        second=second,
        second_folder=everybody[second].data.folder,
        explanation=reason,
    )


def check_studies(everybody: Participants) -> Participants:
    """Refuse a participant whom two folders of one study hold, with other voxels, and note the study.

    Folders are of one study by its name (`train.data.dataset.DataSet.study`), and participants are one brain
    by `train.data.same_brain`.

    Returns
    -------
    dict
        The participants; those of a study that is there in several folders have a note that names it.

    Raises
    ------
    UsageError
    """
    notes: dict[str, list[str]] = {name: [] for name in everybody}
    for first, second in combinations(everybody, 2):
        data, other = (everybody[name].data for name in (first, second))
        if not data.study or data.study != other.study or data.folder == other.folder:
            continue
        likeness = same_brain(everybody[first], everybody[second])
        if likeness is not None and likeness > SAME_BRAIN:
            reason = (
                f"both folders ({data.layout}, {other.layout}) hold the study {data.study}, and which of its "
                f"windows are alike correlates at {likeness:.2f} between them, where more than "
                f"{SAME_BRAIN:g} is one brain"
            )
            raise _copied(everybody, first, second, reason)
        compared = "they were shown too little of the same" if likeness is None else f"{likeness:.2f}"
        note = (
            f"Two folders ({data.layout}, {other.layout}) hold the study {data.study}. Whether {first} and "
            f"{second} are one brain was asked by which of the windows that both were shown are alike: "
            f"{compared} (one brain: more than {SAME_BRAIN:g})."
        )
        notes[first].append(note)
        notes[second].append(note)
    return {name: replace(windows, study_notes=notes[name]) for name, windows in everybody.items()}


def _alike(first_windows: SetWindows, second_windows: SetWindows) -> bool:
    """Whether two participants begin with the same changes; see `train.data.leaks.copies`."""
    first, second = (_beginning(windows) for windows in (first_windows, second_windows))
    if first is None or second is None or first.shape != second.shape:
        return False
    return float((first * second).mean()) > COPY


def _beginning(windows: SetWindows) -> NDArray[np.float32] | None:
    rows = range(min(_COMPARED, len(windows.data.windows)))
    return changes("fmri", windows.data.read("fmri", rows))


def check_near_duplicates(everybody: Participants) -> None:
    """Refuse clips that teach one participant and nearly look like a clip that another folder holds out.

    Within a folder such clips are no reason to refuse it: figures are given with and without them.

    Raises
    ------
    UsageError
    """
    for (name, windows), (other_name, other) in permutations(everybody.items(), 2):
        if windows.data.folder == other.data.folder:
            continue
        pairs = near_duplicates.pairs(
            windows.shown_hashes(windows.split.test), other.shown_hashes(other.split.train)
        )
        if pairs:
            raise UsageError(
                "data-clip-held-and-taught",
                "{count} clips that are held out for {held} teach {taught}, or look nearly like a clip that "
                "does: {clips}. Hold out their runs in both with data.test=, or leave a folder out.",
                count=len(pairs),
                held=name,
                taught=other_name,
                clips=some([f"{pair.test} like {pair.train}" for pair in pairs]),
            )


class _Together:
    """The signals of all participants as those of one data set, so that they can be compared."""

    def __init__(self, everybody: Mapping[str, SetWindows]) -> None:
        self._everybody = everybody
        self.windows = joined(
            [
                replace(participant.data.windows, subject=np.full(len(participant.data.windows), name))
                for name, participant in everybody.items()
            ]
        )
        # The first row of each participant.
        self._first = {name: int(np.argmax(self.windows.subject == name)) for name in everybody}
        self.columns: Sequence[Column] = ["fmri"]
        if all("eeg" in windows.data.columns for windows in everybody.values()):
            self.columns = ["eeg", "fmri"]

    def read(self, column: Column, rows: Sequence[int] | Rows) -> NDArray[Any]:
        """Read a column of some windows of one participant."""
        numbers = np.asarray(rows)
        name = str(self.windows.subject[numbers[0]])
        return self._everybody[name].data.read(column, numbers - self._first[name])
