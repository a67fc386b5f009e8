"""The files of a BIDS folder that belong to a run: its volumes, their sidecar, its events, its EEG.

BIDS 1.9: names are made of entities (``sub-01_task-film_run-1_bold.nii.gz``), and a sidecar or an events file
in a folder above holds for all files whose entities include its own.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from rtdecode.disk.tsv import read_tsv
from rtdecode.errors import UsageError
from rtdecode.timing import exact

# Entities that volumes have when they were prepared, and the run's other files do not.
_PREPARED = {"space", "res", "den", "desc", "echo", "part"}
# What events name that is a film.
_FILMS = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv"}
# How a file of volumes may end, and where below a subject it may lie.
IMAGES = (".nii.gz", ".nii")
_PLACES = ("func", "ses-*/func")
_EEG = (".vhdr", ".edf", ".bdf", ".set")


@dataclass(frozen=True, slots=True)
class ShownFilm:
    """A film that was shown in a run.

    Attributes
    ----------
    onset_s, duration_s : Fraction
        On the run's time line, which begins with its first volume, s. The duration is None where the events
        do not say it.
    film : Path
        File of the film.
    """

    onset_s: Fraction
    duration_s: Fraction | None
    film: Path


@dataclass(frozen=True, slots=True)
class BidsRun:
    """One run.

    Attributes
    ----------
    subject : str
        Such as ``sub-01``.
    name : str
        Its other entities, such as ``ses-01_task-film_run-1``.
    task : str
        Value of the entity ``task``; "" without one.
    bold : Path
        File of the volumes.
    sidecar : dict
        What the sidecars of the volumes say.
    events : Path or None
        Table of the run's events, if there is one.
    eeg : Path or None
        File of the EEG, if there is one.
    """

    subject: str
    name: str
    task: str
    bold: Path
    sidecar: Mapping[str, Any]
    events: Path | None
    eeg: Path | None


def bids_runs(folder: Path, *, prepared: bool = False, space: str = "") -> list[BidsRun]:
    """List the runs with volumes.

    Parameters
    ----------
    folder : Path
        Root of the BIDS folder.
    prepared : bool
        Whether the volumes that fMRIPrep prepared are taken, from ``derivatives/fmriprep``.
    space : str
        Their space, which is needed where there are several.

    Raises
    ------
    UsageError
        If a run's volumes are there in several spaces, or a sidecar cannot be read.
    """
    root = folder / "derivatives" / "fmriprep" if prepared else folder
    runs: dict[tuple[str, str], BidsRun] = {}
    for path in volume_files(root, "_desc-preproc_bold" if prepared else "_bold"):
        entities = entities_of(path)
        if space and entities.get("space") != space:
            continue
        run_entities = {name: value for name, value in entities.items() if name not in _PREPARED}
        name = "_".join(f"{key}-{value}" for key, value in run_entities.items() if key != "sub")
        key = (f"sub-{run_entities['sub']}", name)
        if key in runs:
            raise UsageError(
                "bold-run-ambiguous",
                "{path} and {duplicate} are volumes of one run. Give the space that is wanted, or "
                "leave one echo, or one of the two files.",
                path=path,
                duplicate=runs[key].bold.name,
            )
        place = folder / path.relative_to(root).parent
        events = next(_holding(folder, place, run_entities, "_events.tsv"), None)
        eeg = _eeg(place.parent / "eeg", run_entities)
        runs[key] = BidsRun(*key, run_entities.get("task", ""), path, sidecar_of(root, path), events, eeg)
    return list(runs.values())


def volume_files(root: Path, suffix: str = "_bold") -> list[Path]:
    """List the files of a data set that hold volumes, compressed or not, in the order of their names."""
    listings = [root.glob(f"sub-*/{place}/*{suffix}{ending}") for place in _PLACES for ending in IMAGES]
    return sorted(path for paths in listings for path in paths)


def entities_of(path: Path) -> dict[str, str]:
    """Return the entities of a name, in order: ``{"sub": "01", "task": "film"}``."""
    parts = path.name.split(".")[0].split("_")
    return dict(part.split("-", 1) for part in parts if "-" in part)


def sidecar_of(root: Path, path: Path) -> dict[str, Any]:
    """Read the sidecars of a file; those that lie nearer to it win.

    Raises
    ------
    UsageError
        If one of them is no JSON object.
    """
    suffix = "_" + path.name.split(".")[0].rpartition("_")[2] + ".json"
    metadata: dict[str, Any] = {}
    for sidecar in reversed(list(_holding(root, path.parent, entities_of(path), suffix))):
        try:
            read = json.loads(sidecar.read_text("utf-8-sig"))
        except (OSError, ValueError) as error:
            raise UsageError(
                "sidecar-unreadable",
                "{path} cannot be read as JSON ({error}). Write it again.",
                path=sidecar,
                error=error,
            ) from error
        if not isinstance(read, dict):
            raise UsageError(
                "sidecar-not-object", "{path} holds no JSON object. Write it again.", path=sidecar
            )
        metadata |= read
    return metadata


def shown_by_events(folder: Path, run: BidsRun) -> list[ShownFilm]:
    """Read which films the events of a run name (``stim_file``, below ``stimuli``).

    Raises
    ------
    UsageError
        If the events cannot be read, or a film is not there.
    """
    if run.events is None:
        return []
    showings = []
    for row in read_tsv(run.events):
        _check_columns(run.events, row)
        name = row.get("stim_file") or "n/a"
        if Path(name).suffix.lower() not in _FILMS:
            continue
        film = _film(folder / "stimuli", name)
        if film is None:
            raise UsageError(
                "events-film-missing",
                "{events} names the film {film}, and {path} is not there. Put it there; films "
                "are often kept out of a release.",
                events=run.events,
                film=name,
                path=folder / "stimuli" / name,
            )
        onset = _seconds(run.events, row, "onset")
        if onset is None:
            raise UsageError(
                "events-onset-missing",
                "{path} does not say when {film} began. Write its onset, in seconds.",
                path=run.events,
                film=name,
            )
        showings.append(ShownFilm(onset, _seconds(run.events, row, "duration"), film))
    return showings


def _check_columns(path: Path, row: Mapping[str, str]) -> None:
    """Refuse a table whose columns are not separated by tabs: a film that it names would be passed over."""
    joined = [name for name in row if "stim_file" in name and name != "stim_file"]
    if joined and "stim_file" not in row:
        raise UsageError(
            "events-columns-joined",
            "{path} has a column {column!r}, so its columns are not separated by tabs. Write it again with "
            "tabs, as BIDS has it.",
            path=path,
            column=joined[0],
        )


def _film(stimuli: Path, name: str) -> Path | None:
    """Find a film by the name that events have for it; None where it is not there.

    BIDS names a film relative to ``stimuli``. Some begin with that folder, or divide folders as Windows does.
    """
    divided = name.replace("\\", "/").lstrip("/")
    names = [name.lstrip("/"), divided, divided.removeprefix("stimuli/")]
    return next((stimuli / spelt for spelt in names if (stimuli / spelt).is_file()), None)


def _seconds(path: Path, row: Mapping[str, Any], name: str) -> Fraction | None:
    text = row.get(name)
    if text in (None, "", "n/a"):
        return None
    try:
        return exact(str(text))
    except ValueError as error:
        raise UsageError(
            "events-seconds-invalid",
            "{path} has the {column} {value!r}; a number of seconds was expected.",
            path=path,
            column=name,
            value=text,
        ) from error


def _holding(root: Path, place: Path, entities: Mapping[str, str], suffix: str) -> Iterator[Path]:
    """Yield the files that hold for a file with such entities, the nearest first."""
    entity_pairs = set(entities.items())
    while True:
        matches = [
            path
            for path in sorted(place.glob(f"*{suffix}"))
            if set(entities_of(path).items()) <= entity_pairs
        ]
        # Of several in one folder, the one with the most entities is the nearest.
        yield from sorted(matches, key=lambda path: -len(entities_of(path)))
        # In the root a name may begin with the task, or be the suffix alone.
        yield from [path for path in [place / suffix.lstrip("_")] if path.is_file()]
        if place == root or root not in place.parents:
            return
        place = place.parent


def _eeg(place: Path, entities: Mapping[str, str]) -> Path | None:
    candidates = [path for ending in _EEG for path in sorted(place.glob(f"*_eeg{ending}"))]
    run_entities = dict(entities)
    # The acquisition is that of the scanner, and the EEG has none of it.
    for path in candidates:
        if {**entities_of(path), "acq": ""} == {**run_entities, "acq": ""}:
            return path
    return None
