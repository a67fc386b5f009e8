"""The index of a recording, ``events.jsonl``, and how it fits what the data files hold.

`entries` reads the lines and says where the data of each lie. `survey` reads all of them once, and says what
the recording lacks: a copy that was cut short holds less than its index says, or more.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rtdecode.disk import recording_text
from rtdecode.disk.recording_text import CHUNK, TRIGGER, VOLUME, Form, UnknownKeys, line_fault
from rtdecode.types import Montage

# A writer hands on what it holds at least this often, s: a killed one loses what waits there.
FLUSH_S = 1.0
EVENTS = "events.jsonl"
EEG = "eeg.f32"
STAMPS = "stamps.f64"
VOLUMES = "volumes.bin"

# No session lasts longer, s. A time that is farther off would be followed window by window.
_LONGEST_S = 2 * 86400.0
_SAMPLE_BYTES = np.dtype(np.float32).itemsize
_STAMP_BYTES = np.dtype(np.float64).itemsize


class Entry(NamedTuple):
    """A line of the index.

    Attributes
    ----------
    line : dict
        Its fields, checked; those that are not known are left out.
    montage : Montage or None
        Montage of a chunk; that of the last chunk for other items.
    changed : Montage or None
        The montage that this line states.
    index_end, eeg_end, stamps_end, volumes_end : int
        Sizes of the files where they hold this item and all before it, bytes.
    """

    line: dict[str, Any]
    montage: Montage | None
    changed: Montage | None
    index_end: int
    eeg_end: int
    stamps_end: int
    volumes_end: int


@dataclass(frozen=True, slots=True)
class Loss:
    """What a recording lacks.

    Attributes
    ----------
    samples, eeg_s : int, float
        Samples that the index names and the data files do not hold, and how long they last, s.
    volumes : int
        Volumes of that kind.
    unlisted_samples, unlisted_eeg_s : int, float
        Samples that the data files hold after the last one that the index names.
    unlisted_volumes : int
        Volumes of that kind, as far as their size is known.
    torn : bool
        True where all of it is what a writer loses that is killed. False is damage, if anything is lost.
    """

    samples: int = 0
    eeg_s: float = 0.0
    volumes: int = 0
    unlisted_samples: int = 0
    unlisted_eeg_s: float = 0.0
    unlisted_volumes: int = 0
    torn: bool = False

    def __bool__(self) -> bool:
        return bool(self.samples or self.volumes or self.unlisted_samples or self.unlisted_volumes)

    @property
    def damage(self) -> bool:
        """Whether more is lost than by a writer that was killed."""
        return bool(self) and not self.torn

    def sentence(self) -> str:
        """Say what is lost."""
        missing = (
            [f"{self.eeg_s:.3g} s of EEG ({_number_of(self.samples, 'sample')})"] if self.samples else []
        )
        missing += [_number_of(self.volumes, "volume")] if self.volumes else []
        unlisted = [f"{self.unlisted_eeg_s:.3g} s of EEG"] if self.unlisted_samples else []
        unlisted += [_number_of(self.unlisted_volumes, "volume")] if self.unlisted_volumes else []
        parts = [f"{' and '.join(missing)} that {EVENTS} names are missing"] if missing else []
        parts += [f"{' and '.join(unlisted)} lie behind the end of {EVENTS}"] if unlisted else []
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Survey:
    """What the index of a recording names, and what of it is there.

    Attributes
    ----------
    triggers, volumes : int
        Numbers of lines.
    loss : Loss
        How much the index names and the files lack.
    intact : Entry
        The last item before which, itself included, nothing is missing; of no size where there is none.
    """

    triggers: int
    volumes: int
    loss: Loss
    intact: Entry


def _number_of(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def entries(path: Path, montage: Montage | None, unknown: UnknownKeys) -> Iterator[Entry]:
    """Yield the lines of an index; a last one without its end was torn and is left out.

    Parameters
    ----------
    path : Path
        Folder of the recording.
    montage : Montage or None
        As the head states it.
    unknown : UnknownKeys
        Takes the fields that are passed over.

    Raises
    ------
    RecordingError
        If the index cannot be read, or a line is none that a recording has.
    """
    file = path / EVENTS
    began_at = math.nan
    index_end = eeg_end = stamps_end = volumes_end = 0
    for number, text in recording_text.lines(file):
        changed = None
        try:
            tree = recording_text.parsed(text)
            form = _form(tree)
            if fault := form.fault(tree):
                raise ValueError(fault)
            line = unknown.without(EVENTS, form, tree)
            if math.isnan(began_at):
                began_at = line["arrived_at"]
            _check_time("arrived_at", line["arrived_at"], began_at)
            clock_at = line.get("clock_at")
            # Of a backlog, the clock may stand at any time before.
            _check_time("clock_at", None if clock_at is None else max(clock_at, began_at), began_at)
            if form is CHUNK:
                if "montage" in line:
                    changed = montage = recording_text.montage_of(line["montage"], unknown, EVENTS)
                if montage is None:
                    raise ValueError("samples came, and no montage says of which channels")
                eeg_end += recording_text.chunk_bytes(line["samples"], len(montage.channels))
                stamps_end += line["samples"] * _STAMP_BYTES
            elif form is VOLUME:
                _check_place(line["at"], volumes_end)
                volumes_end += recording_text.volume_bytes(line)
        except ValueError as error:
            raise line_fault(file, number, str(error)) from error
        index_end += len(text)
        yield Entry(line, montage, changed, index_end, eeg_end, stamps_end, volumes_end)


def _form(tree: Any) -> Form:
    if isinstance(tree, dict) and "samples" in tree:
        return CHUNK
    return TRIGGER if isinstance(tree, dict) and "stamp" in tree else VOLUME


def _check_time(name: str, at_s: float | None, began_at: float) -> None:
    if at_s is not None and abs(at_s - began_at) > _LONGEST_S:
        raise ValueError(f"{name} is {at_s:g}, more than two days from the first line's {began_at:g}")


def _check_place(start: int, expected: int) -> None:
    if start != expected:
        raise ValueError(
            f"its voxels begin at byte {start} and those before end at {expected}: lines are missing or out "
            "of order"
        )


def survey(path: Path, head: Montage | None, unknown: UnknownKeys) -> Survey:
    """Read an index to its end, and say what of it the data files hold; see `entries`."""
    eeg, stamps, voxels = (recording_text.size_of(path / name) for name in (EEG, STAMPS, VOLUMES))
    triggers = volumes = 0
    lost_samples = lost_volumes = 0
    lost_s = longest_s = 0.0
    # Until a line tells, all voxels together count as one volume.
    volume_bytes = max(1, voxels)
    lost_at = math.inf
    newest_at = -math.inf
    last = intact = Entry({}, head, None, 0, 0, 0, 0)
    for last in entries(path, head, unknown):
        line = last.line
        missing = False
        if "samples" in line:
            assert last.montage is not None
            chunk_s = line["samples"] / last.montage.sfreq
            longest_s = max(longest_s, chunk_s)
            missing = last.eeg_end > eeg or last.stamps_end > stamps
            lost_samples += missing * line["samples"]
            lost_s += missing * chunk_s
        elif "stamp" in line:
            triggers += 1
        else:
            volumes += 1
            volume_bytes = last.volumes_end - line["at"]
            missing = last.volumes_end > voxels
            lost_volumes += missing
        newest_at = max(newest_at, line["arrived_at"])
        lost_at = min(lost_at, line["arrived_at"]) if missing else lost_at
        intact = intact if lost_at < math.inf else last
    channels = 1 if last.montage is None else len(last.montage.channels)
    # Parts of a sample count as one.
    unlisted = max(
        0,
        math.ceil((eeg - last.eeg_end) / (channels * _SAMPLE_BYTES)),
        math.ceil((stamps - last.stamps_end) / _STAMP_BYTES),
    )
    unlisted_s = 0.0 if last.montage is None else unlisted / last.montage.sfreq
    unlisted_volumes = max(0, math.ceil((voxels - last.volumes_end) / volume_bytes))
    loss = Loss(
        samples=lost_samples,
        eeg_s=round(lost_s, 3),
        volumes=lost_volumes,
        unlisted_samples=unlisted,
        unlisted_eeg_s=round(unlisted_s, 3),
        unlisted_volumes=unlisted_volumes,
        torn=newest_at - lost_at <= FLUSH_S
        and unlisted_s <= FLUSH_S + longest_s
        # A volume and its line go out together.
        and unlisted_volumes <= 1,
    )
    return Survey(triggers, volumes, loss, intact)
