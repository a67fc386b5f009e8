"""Make a recording of files that other programs wrote: the command ``rtdecode import``.

The recording is made in a folder beside its place and moved there once it is complete, so that a refusal
leaves nothing behind.
"""

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rtdecode import terminal
from rtdecode.disk.folders import made_beside
from rtdecode.disk.recording import RecordingWriter, check_unused
from rtdecode.errors import UsageError
from rtdecode.types import EegChunk, Trigger, Volume
from streaming.importing import volumes as images
from streaming.importing.eeg import EegFile
from streaming.importing.files import PARTS, SUFFIXES, read_file, read_triggers
from streaming.importing.films import Showing, read_showing
from streaming.importing.pairing import Placed, place
from streaming.importing.volumes import VolumeRun
from streaming.importing.xdf import PACKED, read_xdf

# How XDF files end.
XDF = (".xdf", PACKED)


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What `rtdecode import` was asked for.

    Attributes
    ----------
    sources : sequence of Path
        One file of EEG, and one file or folder of volumes; either may be missing.
    out : Path
        The recording's folder.
    stream, markers : str or None
        Streams of an XDF file, by name or number.
    channels, unit : str or None
        Names of its channels, with commas between them, and their unit, where the file states none.
    trigger : str or None
        Text of the volume trigger.
    trigger_run, first_trigger, volumes_at
        See `streaming.importing.pairing.place`; `volumes_at` is the start of the first volume after the first
        sample, s, where there are no triggers.
    by_clocks : bool
        Place the volumes by the times of day in the headers of EEG and volumes.
    series, tr_s, moco, include
        See `streaming.importing.volumes.read_volumes`.
    sidecar : mapping or None
        What the sidecars of a BIDS data set say of the volumes, in place of the one beside the file.
    seconds : float or None
        How much of the run counts, s.
    triggers : Path or None
        A table of volume triggers, in place of the markers of the EEG.
    film, events : Path or None
        What was shown, and when, from the start of the first volume on.
    film_at : str or None
        See `streaming.importing.films.read_showing`.
    markers_beside : Path or None
        A table of markers that are read besides those of the EEG.
    offline : str
        What was done to the signals after they were recorded, as far as the caller knows.
    """

    sources: Sequence[Path]
    out: Path
    stream: str | None = None
    markers: str | None = None
    channels: str | None = None
    unit: str | None = None
    trigger: str | None = None
    trigger_run: int | None = None
    first_trigger: int | None = None
    volumes_at: float | None = None
    by_clocks: bool = False
    series: int | None = None
    tr_s: float | None = None
    moco: bool = False
    include: str = ""
    sidecar: Mapping[str, Any] | None = None
    seconds: float | None = None
    triggers: Path | None = None
    film: Path | None = None
    events: Path | None = None
    film_at: str | None = None
    markers_beside: Path | None = None
    offline: str = ""


def of_bids(
    options: ImportOptions,
    *,
    bold: Path,
    eeg: Path | None,
    tr_s: float,
    sidecar: Mapping[str, Any],
    markers_beside: Path | None,
    events: Path | None,
    film: Path | None,
    film_at_s: float | None,
    prepared: bool,
) -> ImportOptions:
    """Take the files of a run of a BIDS folder, where the options do not say otherwise.

    Raises
    ------
    UsageError
        If other sources were given beside the folder.
    """
    if len(options.sources) > 1:
        raise UsageError(
            "import-bids-sources",
            "--subject takes one BIDS folder, and {count} sources were given: {sources}.",
            count=len(options.sources),
            sources=[str(path) for path in options.sources],
        )
    film_at = options.film_at
    if film_at is None and film_at_s is not None and options.film is None:
        film_at = repr(film_at_s)
    done = "fMRIPrep prepared its volumes from the whole run" if prepared else ""
    # As `rtdecode to-bids` writes it.
    if sidecar.get("Chain") == "offline":
        done = "its sidecar says so"
    return replace(
        options,
        sources=[bold] if eeg is None else [eeg, bold],
        tr_s=options.tr_s or tr_s,
        sidecar=sidecar,
        markers_beside=markers_beside,
        events=options.events or events,
        film=options.film or film,
        film_at=film_at,
        offline=options.offline or done,
    )


@dataclass(frozen=True, slots=True)
class _Sources:
    eeg: Path | None = None
    volumes: Path | None = None


def run(options: ImportOptions) -> int:
    """Import a recording.

    Returns
    -------
    int
        Exit code.

    Raises
    ------
    UsageError
        If the sources are not those of one run, or the recording's folder is in use.
    """
    sources = _sorted(options.sources)
    check_unused(options.out)
    with made_beside(options.out) as folder, ExitStack() as stack:
        eeg = None if sources.eeg is None else _read_eeg(sources.eeg, options)
        volumes = None
        if sources.volumes is not None:
            volumes = stack.enter_context(
                images.read_volumes(
                    sources.volumes,
                    folder.parent,
                    series=options.series,
                    tr_s=options.tr_s,
                    moco=options.moco,
                    include=options.include,
                    sidecar=options.sidecar,
                )
            )
        placed = _placed(eeg, volumes, options)
        showing = _showing(eeg, placed, volumes.dummies if volumes else 0, options)
        notes = _write(folder, eeg, volumes, placed, showing, sources, options)
    for note in [*_described(eeg, volumes, placed), *notes]:
        terminal.say(note)
    terminal.line(options.out)
    return 0


def _described(eeg: EegFile | None, volumes: VolumeRun | None, placed: Placed | None) -> Iterator[str]:
    """Say what was imported, a sentence for each source."""
    if eeg is not None:
        length_s = eeg.last_at - eeg.first_at
        montage = eeg.montage
        yield f"EEG: {len(montage.channels)} channels at {montage.sfreq:g} Hz, {length_s:.1f} s."
    if volumes is not None and placed is not None:
        shape = " x ".join(str(size) for size in volumes.shape)
        yield f"Volumes: {len(volumes.indices)} of {shape} voxels, TR {placed.tr_s:g} s."


def _sorted(paths: Sequence[Path]) -> _Sources:
    """Say which source is the EEG and which the volumes."""
    eeg: list[Path] = []
    volumes: list[Path] = []
    for path in paths:
        name = path.name.lower()
        if not path.exists():
            raise UsageError("import-source-missing", "{path} is not there.", path=path)
        if (path / "dataset_description.json").is_file():
            raise UsageError(
                "import-bids-subject",
                "{path} is a BIDS folder: say with --subject whose run is imported.",
                path=path,
            )
        if path.is_dir() or name.endswith(images.SUFFIXES):
            volumes.append(path)
        elif name.endswith((*XDF, *SUFFIXES)):
            eeg.append(path)
        elif path.suffix.lower() in PARTS:
            raise UsageError(
                "import-source-part",
                "{path} is a part of another file: give the one that ends in {suffix}.",
                path=path,
                suffix=PARTS[path.suffix.lower()],
            )
        else:
            raise UsageError(
                "import-source-unknown",
                "{path} is nothing that is imported: EEG ({eeg}), a folder of DICOM files, or a file of "
                "volumes (.nii, .nii.gz, .par) was expected.",
                path=path,
                eeg=[*XDF, *SUFFIXES],
            )
    for kind, listed in (("EEG", eeg), ("volumes", volumes)):
        if len(listed) > 1:
            raise UsageError(
                "import-sources-too-many",
                "{count} sources of {kind} were given, and a recording is made of one: {paths}.",
                count=len(listed),
                kind=kind,
                paths=[str(path) for path in listed],
            )
    return _Sources(eeg[0] if eeg else None, volumes[0] if volumes else None)


def _read_eeg(path: Path, options: ImportOptions) -> EegFile:
    if path.name.lower().endswith(XDF):
        labels = None if options.channels is None else [word.strip() for word in options.channels.split(",")]
        eeg = read_xdf(path, options.stream, options.markers, labels, options.unit)
    else:
        eeg = read_file(path)
    if options.triggers is not None:
        return replace(eeg, markers=read_triggers(options.triggers))
    if options.markers_beside is not None:
        # The table comes first: its times are finer than the samples that other markers lie at.
        return replace(eeg, markers=[*read_triggers(options.markers_beside), *eeg.markers])
    return eeg


def _placed(eeg: EegFile | None, volumes: VolumeRun | None, options: ImportOptions) -> Placed | None:
    if volumes is None:
        return None
    begins_s = None if eeg is None else _begins_s(eeg, volumes, options)
    if eeg is not None and begins_s is None:
        placed = place(
            eeg.markers,
            volumes,
            label=options.trigger,
            trigger_run=options.trigger_run,
            first_trigger=options.first_trigger,
        )
        _check_overlap(eeg, placed)
        return placed
    if volumes.tr_s is None:
        raise UsageError(
            "import-tr-missing", "the volumes state no repetition time: give it with --tr, in seconds."
        )
    begins_at = 0.0 if eeg is None else eeg.first_at + (begins_s or 0.0)
    notes = []
    if eeg is not None:
        notes.append(f"No trigger places the volumes: they begin {begins_s:.3f} s after the first sample.")
        if eeg.markers:
            notes.append(f"{len(eeg.markers)} markers of the EEG are left out.")
    if options.by_clocks:
        notes.append(
            "The clocks of scanner and EEG computer place it. Nothing says how far they differ, and by so "
            "much EEG and volumes may lie apart."
        )
    return Placed(begins_at, volumes.tr_s, volumes.tr_s, [], notes)


def _begins_s(eeg: EegFile, volumes: VolumeRun, options: ImportOptions) -> float | None:
    """Say how long after the first sample volume 0 began, s; None where triggers have to say it."""
    if options.volumes_at is not None:
        return options.volumes_at
    if not options.by_clocks:
        return None if eeg.markers else volumes.first_after_s
    unknown = [name for name, source in (("EEG", eeg), ("volumes", volumes)) if source.began is None]
    if eeg.began is None or volumes.began is None:
        raise UsageError(
            "import-clocks-missing",
            "--by-clocks: the file of the {sources} states no time of day. Place the first volume with "
            "--volumes-at, or give the triggers with --triggers TSV.",
            sources=" and that of the ".join(unknown),
        )
    begins_s = (volumes.began - eeg.began).total_seconds()
    length_s = eeg.last_at - eeg.first_at
    if not 0 <= begins_s <= length_s:
        raise UsageError(
            "import-clocks-apart",
            "--by-clocks: by the clocks, the first volume began {begins_s:.3f} s after the first sample, and "
            "the EEG lasts {length_s:.3f} s. The clocks differ, or the files are of two runs: place the "
            "first volume with --volumes-at.",
            begins_s=begins_s,
            length_s=length_s,
        )
    return begins_s


def _showing(
    eeg: EegFile | None, placed: Placed | None, dummies: int, options: ImportOptions
) -> Showing | None:
    if options.film is None and options.events is None:
        return None
    markers = eeg.markers if eeg else []
    if placed is not None:
        begins_at = placed.begins_at
        rate = placed.local_tr_s / placed.tr_s
        lead_s = placed.tr_s * dummies
    else:
        # Without volumes, a run begins with its first trigger, or else with the first sample.
        triggers = [marker.stamp for marker in markers if options.trigger in (None, marker.label)]
        begins_at = min(triggers, default=eeg.first_at if eeg else 0.0)
        rate = 1.0
        lead_s = 0.0
    return read_showing(options.film, options.events, options.film_at, markers, begins_at, rate, lead_s)


def _check_overlap(eeg: EegFile, placed: Placed) -> None:
    first = placed.triggers[0].stamp
    last = placed.triggers[-1].stamp
    if last < eeg.first_at or first > eeg.last_at:
        raise UsageError(
            "import-triggers-elsewhere",
            "the triggers lie at {first:.3f} to {last:.3f} s, and the EEG at {eeg_first:.3f} to "
            "{eeg_last:.3f} s: their clocks are not joined. Give triggers on the clock of the EEG.",
            first=first,
            last=last,
            eeg_first=eeg.first_at,
            eeg_last=eeg.last_at,
        )


def _write(
    folder: Path,
    eeg: EegFile | None,
    volumes: VolumeRun | None,
    placed: Placed | None,
    showing: Showing | None,
    sources: _Sources,
    options: ImportOptions,
) -> list[str]:
    """Write the recording, and return what has to be said of it."""
    notes = [
        *(eeg.notes if eeg else []),
        *(volumes.notes if volumes else []),
        *(placed.notes if placed else []),
    ]
    triggers = (
        placed.triggers
        if placed
        else [
            Trigger(marker.stamp, marker.label, marker.stamp)
            for marker in (eeg.markers if eeg else [])
            if options.trigger in (None, marker.label)
        ]
    )
    triggers = sorted(triggers, key=lambda trigger: trigger.stamp)
    if placed is None and triggers:
        texts = sorted({trigger.label for trigger in triggers})
        notes.append(
            f"Without volumes, {len(triggers)} markers count as triggers ({', '.join(texts[:8])}), and the "
            "run begins with the first of them; --trigger TEXT chooses."
        )
    meta: dict[str, Any] = {
        "simulated": bool((eeg and eeg.montage.simulated) or (volumes and volumes.simulated)),
        "imported": {
            "eeg": sources.eeg.suffix.lower() if sources.eeg else None,
            "volumes": _kind(sources.volumes),
        },
        "asked": [name for name, source in (("eeg", eeg), ("fmri", volumes)) if source],
        "triggers_expected": bool(triggers),
    }
    offline = options.offline or (eeg.offline if eeg else "")
    if offline:
        meta["chain"] = "offline"
        notes.append(f"The recording counts as processed offline: {offline}. No figure of it holds live.")
    if volumes is not None and volumes.dummies:
        meta["dummies"] = volumes.dummies
    if options.seconds is not None:
        meta["seconds"] = options.seconds
    with RecordingWriter(folder, eeg.montage if eeg else None, meta) as writer:
        streams: list[Iterator[EegChunk | Trigger | Volume]] = [iter(triggers)]
        if eeg is not None:
            streams.append(_chunks(eeg))
        for mark in [*(eeg.film_marks if eeg else []), *(showing.marks() if showing else [])]:
            writer.write(mark)
        if showing is not None:
            showing.write(folder / "truth")
        if volumes is not None and placed is not None:
            streams.append(volumes.volumes(placed.begins_at, placed.tr_s, placed.local_tr_s))
        newest = -math.inf
        for item in heapq.merge(*streams, key=lambda item: item.arrived_at):
            writer.write(item)
            if isinstance(item, Volume):
                newest = item.arrived_at
        # The run ends with its last volume, and nothing tells when the files became readable.
        if math.isfinite(newest):
            writer.note(rested_at=newest)
    return notes


def _kind(volumes: Path | None) -> str | None:
    if volumes is None:
        return None
    if volumes.is_dir():
        return "folder"
    # The ending alone: the rest of a name may tell who was scanned.
    endings = [suffix for suffix in images.SUFFIXES if volumes.name.lower().endswith(suffix)]
    return max(endings, key=len)


def _chunks(eeg: EegFile) -> Iterator[EegChunk]:
    arrived_at = -math.inf
    for data, stamps in eeg.blocks():
        arrived_at = max(arrived_at, float(stamps[-1]))
        yield EegChunk(data, stamps, arrived_at)
