"""The files of one run of a BIDS folder, for `rtdecode import`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdecode.errors import UsageError
from train.data.layouts.bids_files import BidsRun, bids_runs, entities_of, shown_by_events
from train.data.layouts.bids_timing import volume_times


@dataclass(frozen=True, slots=True)
class BidsSources:
    """What one run is imported from.

    Attributes
    ----------
    bold : Path
        File of the volumes.
    eeg, events, markers, film : Path or None
        `markers` is the table of events beside the EEG, which counts from its first sample.
    sidecar : mapping
        What the sidecars of the volumes say.
    tr_s : float
        Time between volumes, s.
    film_at_s : float or None
        When the film began, s after the start of the first volume.
    """

    bold: Path
    eeg: Path | None
    events: Path | None
    markers: Path | None
    film: Path | None
    sidecar: Mapping[str, Any]
    tr_s: float
    film_at_s: float | None


def bids_sources(
    folder: Path, subject: str, entities: Mapping[str, str | None], *, prepared: bool = False, space: str = ""
) -> BidsSources:
    """Find the files of a run.

    Parameters
    ----------
    folder : Path
        Root of the BIDS folder.
    subject : str
        With or without ``sub-``.
    entities : mapping
        Values of ``ses``, ``task`` and ``run`` that are asked for; None for any.
    prepared, space
        As for `train.data.layouts.bids_files.bids_runs`.

    Raises
    ------
    UsageError
        If there is no such run, or more than one, or its timing cannot be read.
    """
    if not (folder / "dataset_description.json").is_file():
        raise UsageError(
            "import-bids-folder",
            "{folder} is no BIDS folder: it has no dataset_description.json. Give the root of the data set.",
            folder=folder,
        )
    name = f"sub-{subject.removeprefix('sub-')}"
    runs = bids_runs(folder, prepared=prepared, space=space)
    matching = [run for run in runs if run.subject == name and _has(run, entities)]
    if len(matching) != 1:
        raise UsageError(
            "import-bids-run-unclear",
            "{folder} has {count} runs of {subject}{entities}, and a recording is made of one. Choose by "
            "--session, --task and --run; it has {available}.",
            folder=folder,
            count=len(matching),
            subject=name,
            entities="".join(f" {key}-{value}" for key, value in entities.items() if value is not None),
            available=[f"{run.subject} {run.name}" for run in runs],
        )
    run = matching[0]
    films = shown_by_events(folder, run)
    if len({showing.film for showing in films}) > 1 or len(films) > 1:
        # Each of them is in the events; one film alone can be the recording's own.
        films = []
    return BidsSources(
        bold=run.bold,
        eeg=run.eeg,
        events=run.events,
        markers=_markers(run.eeg),
        film=films[0].film if films else None,
        sidecar=run.sidecar,
        tr_s=float(volume_times(run).tr),
        film_at_s=float(films[0].onset_s) if films else None,
    )


def _has(run: BidsRun, entities: Mapping[str, str | None]) -> bool:
    run_entities = entities_of(run.bold)
    chosen = {key: value.removeprefix(f"{key}-") for key, value in entities.items() if value is not None}
    return all(run_entities.get(key) == value for key, value in chosen.items())


def _markers(eeg: Path | None) -> Path | None:
    if eeg is None:
        return None
    table = eeg.with_name(eeg.name.removesuffix(eeg.suffix).removesuffix("_eeg") + "_events.tsv")
    return table if table.is_file() else None
