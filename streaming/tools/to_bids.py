"""Write a recording as a BIDS data set: the command ``rtdecode to-bids``.

::

    DIR/dataset_description.json, README, participants.tsv
    DIR/sub-01/eeg/sub-01_task-film_eeg.vhdr, .eeg, .vmrk      float32 microvolts; NaN where samples were lost
    DIR/sub-01/eeg/sub-01_task-film_eeg.json, _channels.tsv, _events.tsv
    DIR/sub-01/func/sub-01_task-film_bold.nii.gz, _bold.json, _events.tsv
    DIR/stimuli/film.mp4                                       the film, where the recording has it
    DIR/derivatives/rtdecode, rtdecode-clips                   what the decoder said, and its clips

BIDS has one clock for the samples of a file: their number. A `SampleClock`, as a session has it, says when
each sample was acquired, and the triggers are placed between the samples by that. A volume that was lost is
written as ones, as no scanner sends it, and is listed in the sidecar, so that an import leaves it out again.
Zeros would look like the end of a file that is still being copied. The sidecar also says how many volumes are
dummies, and without triggers when the first volume began.
"""

import gzip
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from rtdecode import __version__, terminal
from rtdecode.clocks.run_clock import RunClock
from rtdecode.clocks.sample_clock import SampleClock
from rtdecode.disk import private
from rtdecode.disk.derived import BIDS_FOLDER, CLIPS, derived, note_derived
from rtdecode.disk.folders import is_in_use, made_beside
from rtdecode.disk.recording import Recording
from rtdecode.errors import UsageError
from rtdecode.timing import exact
from rtdecode.types import EegChunk, Montage, Trigger, Volume
from streaming.importing.volumes import DUMMIES, FIRST_VOLUME
from streaming.sources.formats.image import SIMULATED
from streaming.tools.bids_clips import Clips, check_spans, read_clips, write_clips
from streaming.tools.bids_files import VERSION, write_json, write_table, write_text
from streaming.tools.bids_film import write_events

_HEADER = """Brain Vision Data Exchange Header File Version 1.0
; Written by rtdecode

[Common Infos]
Codepage=UTF-8
DataFile={stem}.eeg
MarkerFile={stem}.vmrk
DataFormat=BINARY
DataOrientation=MULTIPLEXED
NumberOfChannels={count}
SamplingInterval={interval}

[Binary Infos]
BinaryFormat=IEEE_FLOAT_32

[Channel Infos]
{channels}
"""
_MARKERS = """Brain Vision Data Exchange Marker File, Version 1.0

[Common Infos]
Codepage=UTF-8
DataFile={stem}.eeg

[Marker Infos]
{markers}
"""
# What the table of triggers says.
_TRIGGERS: dict[str, Any] = {
    "trial_type": {"Description": "What happened.", "Levels": {"trigger": "The scanner began a volume."}},
    "value": {"Description": "Text of the trigger, or a digest of it."},
}
_TYPES = {"eeg": "EEG", "ecg": "ECG", "eog": "EOG", "emg": "EMG", "reference": "REF", "aux": "MISC"}


@dataclass(slots=True)
class _Written:
    """What was written of the EEG: times of the samples, and how many of them were lost."""

    samples: int = 0
    lost: int = 0
    # Times of some samples and their places, by which other times are placed.
    times: list[float] = field(default_factory=list)
    places: list[int] = field(default_factory=list)

    def place(self, stamp: float, sfreq: float) -> float:
        """Return the place of a local time among the samples; a fraction where it lies between two."""
        if not self.times:
            return 0.0
        between = float(np.interp(stamp, self.times, self.places))
        early = (stamp - self.times[0]) * sfreq
        late = (stamp - self.times[-1]) * sfreq
        return early if early < 0 else self.places[-1] + late if late > 0 else between


@dataclass(frozen=True, slots=True)
class _Timeline:
    """Where the run lies in a file.

    Attributes
    ----------
    zero_s : float
        Onset of the run's zero, from which windows count, s.
    length_s : float
        Length of the file from there on, s.
    """

    zero_s: float
    length_s: float


def run(
    recording: Path, directory: Path, *, subject: str = "01", task: str = "film", clips: Path | None = None
) -> int:
    """Write a recording as a BIDS data set.

    Parameters
    ----------
    recording : Path
        Folder of the recording.
    directory : Path
        A new or empty folder.
    subject, task : str
        Labels, of letters and digits.
    clips : Path, optional
        Folder of a session or replay of the recording, whose clips are written too. By default the newest
        that the recording knows of.

    Returns
    -------
    int
        Exit code.

    Raises
    ------
    UsageError
        If the folder is in use, a label is none of BIDS, the recording has more than one run, or the clips
        are not of it.
    RecordingError
        If the recording is not whole.
    """
    for name, label in (("--subject", subject), ("--task", task)):
        if not (label.isascii() and label.isalnum()):
            raise UsageError(
                "bids-label-invalid", "{name} {label}: BIDS takes letters and digits.", name=name, label=label
            )
    if is_in_use(directory):
        raise UsageError(
            "bids-folder-not-empty", "{folder} is in use. Give a new or empty folder.", folder=directory
        )
    source = Recording(recording)
    folder = _newest_session(recording) if clips is None else clips
    decoded = None if folder is None else read_clips(folder)
    with made_beside(directory) as root:
        private.folder(root)
        _write(source, root, f"sub-{subject}", task, decoded)
    note_derived(recording, BIDS_FOLDER, directory)
    if folder is None:
        terminal.say(
            "No clips are in it: the recording knows no session or replay that is still there. Give one with "
            "--clips."
        )
    else:
        terminal.say(f"The clips in it are those of {folder}.")
    terminal.line(directory)
    return 0


def _newest_session(recording: Path) -> Path | None:
    """Return the newest session or replay of a recording that has clips, as far as the recording knows."""
    sessions = [Path(entry["path"]) for entry in derived(recording) if entry["kind"] == CLIPS]
    return next((path for path in reversed(sessions) if _has_clips(path)), None)


def _has_clips(folder: Path) -> bool:
    lines = folder / "clips.jsonl"
    return lines.is_file() and lines.stat().st_size > 0


def _write(recording: Recording, root: Path, subject: str, task: str, decoded: Clips | None) -> None:
    stem = f"{subject}_task-{task}"
    write_json(
        root / "dataset_description.json",
        {
            "Name": "A recording of rtdecode",
            "BIDSVersion": VERSION,
            "DatasetType": "raw",
            "GeneratedBy": [{"Name": "rtdecode", "Version": __version__}],
        },
    )
    write_text(root / "README", f"{_described(recording)}\n")
    write_table(root / "participants.tsv", ("participant_id",), [(subject,)])
    timeline = _Timeline(0.0, 0.0)
    datatype = "eeg"
    first_at = None
    if recording.montage is not None:
        first_at, timeline = _write_eeg(recording, recording.montage, root / subject / "eeg", stem, task)
    # EEG may go on behind the last volume.
    eeg_s = timeline.length_s
    if recording.has_volumes():
        datatype = "func"
        timeline = _write_volumes(recording, root, root / subject / "func", stem, task, first_at)
    if decoded is not None:
        check_spans(decoded, recording.path, _is_simulated(recording), max(timeline.length_s, eeg_s))
        write_clips(decoded, root, subject, task, datatype, timeline.zero_s)


def _described(recording: Recording) -> str:
    simulated = " The participant is simulated." if _is_simulated(recording) else ""
    offline = " The signals were filtered or cleaned after their session." if recording.offline else ""
    return f"Written by rtdecode {__version__} from a recording.{simulated}{offline}"


def _is_simulated(recording: Recording) -> bool:
    """Return whether any source of a recording says that the participant is simulated."""
    if recording.meta.get("simulated") or (recording.montage is not None and recording.montage.simulated):
        return True
    first = next((item for item in recording.events() if isinstance(item, Volume)), None)
    return first is not None and first.simulated


def _write_eeg(
    recording: Recording, montage: Montage, folder: Path, stem: str, task: str
) -> tuple[float | None, _Timeline]:
    """Write the EEG; return the time of its first sample on the local clock, and where the run lies."""
    private.folder(folder)
    name = f"{stem}_eeg"
    triggers: list[Trigger] = []
    clock = SampleClock(montage.sfreq)
    written = _Written()
    with private.open_file(folder / f"{name}.eeg", "wb") as file:
        for item in recording.events():
            if isinstance(item, EegChunk):
                if item.montage is not None:
                    raise UsageError(
                        "bids-montage-changes",
                        "the channels of {recording} change while it runs, and a file of BIDS has one set. "
                        "Import its parts.",
                        recording=recording.path,
                    )
                _append(file, item, clock, written)
            elif isinstance(item, Trigger):
                triggers.append(item)
    channels = [f"Ch{n}={label},,1,µV" for n, label in enumerate(montage.channels, 1)]
    interval = 1e6 / montage.sfreq
    write_text(
        folder / f"{name}.vhdr",
        _HEADER.format(stem=name, count=len(channels), interval=repr(interval), channels="\n".join(channels)),
    )
    places = [written.place(trigger.stamp, montage.sfreq) for trigger in triggers]
    marks = ["Mk1=New Segment,,1,1,0,00000000000000000000"] + [
        f"Mk{n}=Response,{trigger.label},{round(place) + 1},1,0"
        for n, (trigger, place) in enumerate(zip(triggers, places, strict=True), 2)
    ]
    write_text(folder / f"{name}.vmrk", _MARKERS.format(stem=name, markers="\n".join(marks)))
    rows = [
        (repr(round(place / montage.sfreq, 9)), "0", "trigger", trigger.label)
        for trigger, place in zip(triggers, places, strict=True)
    ]
    write_table(folder / f"{stem}_events.tsv", ("onset", "duration", "trial_type", "value"), rows)
    write_json(folder / f"{stem}_events.json", _TRIGGERS)
    kinds = [_TYPES.get(kind, "MISC") for kind in montage.kinds]
    write_table(
        folder / f"{stem}_channels.tsv",
        ("name", "type", "units"),
        [(label, kind, "µV") for label, kind in zip(montage.channels, kinds, strict=True)],
    )
    write_json(
        folder / f"{name}.json",
        {
            "TaskName": task,
            "SamplingFrequency": montage.sfreq,
            "EEGReference": montage.reference,
            "PowerLineFrequency": "n/a",
            "SoftwareFilters": "n/a",
            "EEGChannelCount": kinds.count("EEG"),
            "ECGChannelCount": kinds.count("ECG"),
            "EOGChannelCount": kinds.count("EOG"),
            "RecordingDuration": written.samples / montage.sfreq,
            "RecordingType": "continuous",
            "LostSamples": written.lost,
        },
    )
    zero_s = min(places, default=0.0) / montage.sfreq
    first_at = written.times[0] if written.times else None
    return first_at, _Timeline(zero_s, written.samples / montage.sfreq - zero_s)


def _append(file: IO[bytes], chunk: EegChunk, clock: SampleClock, written: _Written) -> None:
    """Write the samples of a chunk, with NaN where samples were lost before them."""
    dated = np.isfinite(chunk.stamps)
    data = chunk.data[:, dated]
    if not chunk.live:
        # It came too late to be decoded, or is missing from a copy that was cut short.
        data = np.full(data.shape, np.nan, np.float32)
    for piece in clock.push(chunk.stamps[dated], chunk.arrived_at):
        if piece.lost:
            file.write(np.full((piece.lost, len(data)), np.nan, "<f4").tobytes())
            written.samples += piece.lost
            written.lost += piece.lost
        file.write(np.ascontiguousarray(data[:, piece.start : piece.stop].T, "<f4").tobytes())
        if len(piece.times):
            last = written.samples + piece.stop - piece.start - 1
            ends = {written.samples: piece.times[0], last: piece.times[-1]}
            for place, time in ends.items():
                # Times of one clock ascend; where the stamps jump back, the newer ones place nothing.
                if not written.times or time > written.times[-1]:
                    written.times.append(float(time))
                    written.places.append(place)
        written.samples += piece.stop - piece.start


def _write_volumes(
    recording: Recording, root: Path, folder: Path, stem: str, task: str, first_at: float | None
) -> _Timeline:
    """Write the volumes; `first_at` is the time of the first EEG sample, if there is any."""
    private.folder(folder)
    by_index: dict[int, Volume] = {}
    triggers: list[Trigger] = []
    series = set()
    for item in recording.events():
        if isinstance(item, Volume):
            series.add(item.uid)
            by_index.setdefault(item.index, item)
        elif isinstance(item, Trigger):
            triggers.append(item)
    if len(series) > 1:
        raise UsageError(
            "bids-several-runs",
            "{recording} has {count} runs of volumes, and one is written at a time. Record them one by one.",
            recording=recording.path,
            count=len(series),
        )
    first = by_index[min(by_index)]
    tr_s = first.tr_s or 0.0
    dummies = recording.meta.get("dummies", 0)
    # Events count from the first volume of the file, and those of a run from its first one that is no dummy.
    lead_s = dummies * tr_s
    clock = _clock(tr_s, triggers, by_index.values()) if tr_s else None
    # Where no triggers say it.
    begins_s = None
    if clock is not None and first_at is not None and not triggers:
        begins_s = round(float(clock.to_local(0.0, math.inf)) - first_at, 9)
    count = max(by_index) + 1
    lost = sorted(set(range(count)) - by_index.keys())
    header = nib.Nifti1Image(np.zeros((*first.data.shape, 1), first.data.dtype), first.affine).header
    header.set_data_shape((*first.data.shape, count))
    header.set_xyzt_units("mm", "sec")
    header["pixdim"][4] = tr_s
    header["scl_slope"] = 1.0
    header["scl_inter"] = 0.0
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    header["descrip"] = SIMULATED.encode() if _is_simulated(recording) else b""
    absent: NDArray[Any] = np.ones(first.data.shape, first.data.dtype)
    with (
        private.open_file(folder / f"{stem}_bold.nii.gz", "wb") as packed,
        # No name and no time of the day in the packed file.
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=1, mtime=0) as file,
    ):
        file.write(header.binaryblock + b"\0\0\0\0")
        for index in range(count):
            data = by_index[index].data if index in by_index else absent
            file.write(np.asfortranarray(data).tobytes(order="F"))
    write_json(
        folder / f"{stem}_bold.json",
        {"TaskName": task, "RepetitionTime": first.tr_s, "LostVolumes": lost}
        | ({DUMMIES: dummies} if dummies else {})
        | ({} if begins_s is None else {FIRST_VOLUME: begins_s})
        | ({"Chain": "offline"} if recording.offline else {}),
    )
    films = [] if clock is None else [(clock.elapsed(film.onset_at), film) for film in recording.films()]
    write_events(recording.truth, films, root, folder / f"{stem}_events.tsv", lead_s)
    return _Timeline(lead_s, count * tr_s - lead_s)


def _clock(tr_s: float, triggers: Iterable[Trigger], volumes: Iterable[Volume]) -> RunClock:
    """Return the time line of the run as a session has it; its zero is the first volume, dummies included."""
    clock = RunClock(exact(tr_s), volumes_come=True)
    for trigger in triggers:
        clock.add_trigger(trigger.stamp, trigger.label)
    for volume in volumes:
        clock.add_volume(volume)
    return clock
