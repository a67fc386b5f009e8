"""Who is asked for of several folders, and what is said of each of them: ``data.window=A:2,B:3``.

`read_subjects` reads participants, and `read_values` a value for each. Before a value stands whom it is for,
and a colon: a folder by its name or its path (``A:2``), a subject as `data.subject` names it (``sub-01:2``),
or both (``A:sub-01:2``). A value with nothing before it is for everybody of whom nothing else is said.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from rtdecode.errors import UsageError
from train.config.recipe import parsed, words

# Between a folder, a subject of it, and what is said of them.
_OF = ":"


@dataclass(frozen=True, slots=True)
class FolderSubject:
    """A participant that is asked for: a folder, and a subject of it; "" where the folder has one alone."""

    folder: Path
    subject: str

    def __str__(self) -> str:
        """Return how the participant is called before a value."""
        return f"{self.folder.name}{_OF}{self.subject}" if self.subject else self.folder.name


def folders_of(data: Path) -> list[Path]:
    """Return the folders that ``data=`` names. A folder whose own name has a comma is one."""
    if data.is_dir():
        return [data]
    return [Path(word) for word in words(str(data))] or [data]


def read_subjects(data: Path, subject: str | Sequence[str]) -> list[FolderSubject]:
    """Read who is asked for, folder by folder in their order.

    Parameters
    ----------
    data : Path
        A folder, or several with commas between them.
    subject : str or sequence of str
        Subjects, with commas between them. Where there are several folders, the name or the path of one
        stands before each, and a colon.

    Raises
    ------
    UsageError
        If a folder or a participant is named twice, or it is not clear whose folder a subject is of.
    """
    folders = folders_of(data)
    subjects: dict[Path, list[str]] = {folder: [] for folder in folders}
    for word in words(subject if isinstance(subject, str) else ",".join(map(str, subject))):
        folder, name = _split_name(word, folders)
        if folder is None and len(folders) > 1:
            raise UsageError(
                "data-subject-without-folder",
                "data.subject={subject}: there are several folders ({folders}). Write FOLDER:SUBJECT.",
                subject=word,
                folders=[str(path) for path in folders],
            )
        subjects[folder or folders[0]].append(name)
    participants = [FolderSubject(folder, name) for folder in folders for name in subjects[folder] or [""]]
    for first, second in combinations(participants, 2):
        if first.subject == second.subject and first.folder.resolve() == second.folder.resolve():
            raise UsageError(
                "data-participant-named-twice",
                "{folder} {subject} is named twice. Name every participant once.",
                folder=first.folder,
                subject=first.subject,
            )
    return participants


def runs_of(test: str, folder: Path, folders: Sequence[Path]) -> list[str]:
    """Return the names of runs that are for one of several folders: those of it, and those of none."""
    runs = [_split_name(word, folders) for word in words(test)]
    return [name for of, name in runs if of in (None, folder)]


def read_values(key: str, value: Any, participants: Sequence[FolderSubject], default: Any) -> list[Any]:
    """Read the value of a key for each participant.

    Parameters
    ----------
    key : str
        Such as ``window``, for messages.
    value : str or any other
        See the module. What is no text, and a text without a colon, is for everybody.
    participants : sequence of FolderSubject
        Those who are asked for; each gets one value.
    default : any
        For those of whom nothing is said.

    Returns
    -------
    list
        As the command line reads each.

    Raises
    ------
    UsageError
        If a value is for nobody, or there are two for one participant.
    """
    if not isinstance(value, str) or _OF not in value:
        return [value] * len(participants)
    # By participant: how many names stood before each of its values, and the value.
    sayings: list[list[tuple[int, Any]]] = [[(-1, default)] for _ in participants]
    for word in words(value):
        before, _, text = word.rpartition(_OF)
        names = [_names(participant, before) for participant in participants]
        if all(count is None for count in names):
            raise UsageError(
                "data-value-for-nobody",
                "data.{key}={value}: {word} is for none of the participants, which are {participants}. "
                "Write the name or the path of a folder, a subject, or FOLDER:SUBJECT before the colon.",
                key=key,
                value=value,
                word=word,
                participants=[str(participant) for participant in participants],
            )
        for values, count in zip(sayings, names, strict=True):
            if count is not None:
                values.append((count, parsed(text, f"data.{key}={value}")))
    return [
        _closest(key, value, participant, values)
        for participant, values in zip(participants, sayings, strict=True)
    ]


def _closest(key: str, value: str, participant: FolderSubject, sayings: list[tuple[int, Any]]) -> Any:
    """Return the value that names a participant most closely."""
    largest = max(names for names, _ in sayings)
    closest = [text for names, text in sayings if names == largest]
    if len(closest) > 1:
        raise UsageError(
            "data-value-twice",
            "data.{key}={value} says {values} of {participant}. Give one of them, or write FOLDER:SUBJECT "
            "before the one that is meant.",
            key=key,
            value=value,
            values=closest,
            participant=str(participant),
        )
    return closest[0]


def _names(participant: FolderSubject, before: str) -> int | None:
    """Count the names before a value, which may be for everybody; None if they mean somebody else."""
    if not before:
        return 0
    if _is_folder(before, participant.folder) or before == participant.subject:
        return 1
    folder, _, subject = before.rpartition(_OF)
    is_both = subject == participant.subject and _is_folder(folder, participant.folder)
    return 2 if is_both else None


def _is_folder(name: str, folder: Path) -> bool:
    return name == folder.name or (bool(name) and Path(name) == folder)


def _split_name(word: str, folders: Sequence[Path]) -> tuple[Path | None, str]:
    """Take the folder off a name; None where there is none before it.

    Raises
    ------
    UsageError
        If it is none of the folders, or several bear the name.
    """
    before, colon, name = word.rpartition(_OF)
    if not colon:
        return None, name
    matching = [folder for folder in folders if _is_folder(before, folder)]
    if len(matching) != 1:
        raise UsageError(
            "data-folder-of-subject-unknown",
            "'{word}': {count} of the folders {folders} are called {folder}. Write the name or the path of "
            "one before the colon.",
            word=word,
            count=len(matching),
            folders=[str(folder) for folder in folders],
            folder=before,
        )
    return matching[0], name
