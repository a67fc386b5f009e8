"""What one acquisition process hands to the next: triggers, volumes without their pixels, and counts.

A run's time line rests on these alone. The acquisition that takes over from one that died is given them, and
the runs go on where they were; only pixels and samples are lost.
"""

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from rtdecode import strict_json
from rtdecode.types import EegChunk, Trigger, Volume
from rtdecode.windows.assembler import Counters
from streaming.session.options import ResumeState
from streaming.sources.lsl.opened import OpenedStream

_OF_A_VOLUME = (
    *("index", "series", "tr_s", "acquired_s", "recon_s", "readable_at", "arrived_at", "parsed_at"),
    *("name", "uid", "simulated", "clock_at"),
)
# Items that are compressed together.
_BLOCK = 256
# A file that changed up to so long before the last status may not have been read by then, s.
_UNSURE = 5.0


def to_record(item: Trigger | Volume) -> dict[str, Any]:
    """Return what is remembered of an item, as plain values."""
    if isinstance(item, Trigger):
        return asdict(item)
    return {name: getattr(item, name) for name in _OF_A_VOLUME}


class Items:
    """The items of a session that its acquisition has told of, as compressed text.

    All of them are kept, as a restarted acquisition places the runs by them: some 50 bytes each, 0.5 MB for
    an hour of triggers and volumes at a TR of 0.8 s.
    """

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._newest: list[str] = []

    def add(self, items: Sequence[dict[str, Any]]) -> None:
        """Take the items of a status, in order."""
        self._newest += [strict_json.dumps(item) for item in items]
        if len(self._newest) >= _BLOCK:
            self._blocks.append(zlib.compress("\n".join(self._newest).encode()))
            self._newest = []

    def all(self) -> list[dict[str, Any]]:
        """Return all items, in order."""
        text = [entry for block in self._blocks for entry in zlib.decompress(block).decode().split("\n")]
        return [json.loads(entry) for entry in [*text, *self._newest]]


class Resumption:
    """The past of an acquisition that takes over from one that died.

    Parameters
    ----------
    past : ResumeState
        What that acquisition had told.
    """

    def __init__(self, past: ResumeState) -> None:
        self._items = past.items
        self._status = past.status
        self._known = {
            (record["uid"], record["index"], record["name"]) for record in past.items if "uid" in record
        }
        self._hole: dict[str, int] = {}

    @property
    def since(self) -> float | None:
        """Wall time from which on files count as new; None to treat them as at the start."""
        # In a backlog, old files are still to be read; `knows` then tells those that have been read.
        wall_s = self._status.wall_s
        return None if wall_s is None or self.behind else wall_s - _UNSURE

    @property
    def behind(self) -> bool:
        """Whether volumes that lay in the folder before the session were still being read."""
        return self._status.behind

    @property
    def rests(self) -> bool:
        """Whether the newest run had ended with its last volume, as its files were of an earlier time."""
        return self._status.rests

    @property
    def has_begun(self) -> bool:
        """Whether a run had begun."""
        return bool(self._items) or self.first_sample_at is not None

    @property
    def told_at(self) -> float | None:
        """Local time of the last status, s."""
        return self._status.sent_at

    @property
    def first_sample_at(self) -> float | None:
        """Local time of the EEG sample with which the run began; None if it did not begin with one."""
        return self._status.first_sample_at

    @property
    def newest_sample_at(self) -> float | None:
        """Local time of the newest EEG sample; None if none had come."""
        return self._status.newest_sample_at

    @property
    def heard_since(self) -> list[float]:
        """Stamps of what was heard first after each earlier restart."""
        return self._status.heard_since

    @property
    def listening_since(self) -> float | None:
        """Local time from which on the session reads its sources, s; None before the first status."""
        return self._status.listening_since

    @property
    def opened(self) -> OpenedStream | None:
        """The EEG stream that the session stays with; None if none had been found."""
        tree = self._status.eeg_stream
        return None if tree is None else OpenedStream.from_json(tree)

    @property
    def triggers_expected(self) -> bool:
        """Whether a run without volumes waits for its first trigger."""
        return self._status.triggers_expected

    def items(self) -> Iterator[Trigger | Volume]:
        """Yield the items, volumes as ones that are not decoded."""
        # The pixels are gone; one voxel stands in for them, and is not decoded.
        nothing = np.zeros((1, 1, 1), np.float32)
        nowhere = np.eye(4)
        for record in self._items:
            if "uid" in record:
                yield Volume(nothing, nowhere, live=False, **record)
            else:
                yield Trigger(**record)

    def knows(self, volume: Volume) -> bool:
        """Whether the volume was taken before, so that its file is being read a second time."""
        return (volume.uid, volume.index, volume.name) in self._known

    def measure(self, chunk: EegChunk, sfreq: float) -> None:
        """Count the samples that were lost, from the first chunk that comes in."""
        if self._hole or self.newest_sample_at is None or not chunk.data.shape[1]:
            return
        lost = round((float(chunk.stamps[0]) - self.newest_sample_at) * sfreq) - 1
        self._hole = {"lost_samples": max(0, lost), "gaps": 1}

    def counted(self, counters: Counters) -> Counters:
        """Return counters of the whole session: those of before, the hole, and what was counted since."""
        before = self._status.counters
        eeg = dict(counters["eeg"])
        fmri = dict(counters["fmri"])
        for name in ("samples", "lost_samples", "gaps"):
            eeg[name] = eeg.get(name, 0) + before["eeg"].get(name, 0) + self._hole.get(name, 0)
        # Each process begins with a clock epoch of its own, and that is no jump of the stamps.
        epochs = [count for count in (before["eeg"].get("epochs"), eeg.get("epochs")) if count]
        eeg["epochs"] = sum(epochs) - max(0, len(epochs) - 1)
        # The assembler has counted the volumes of the past once more. These counts are about files,
        # of which some are read again: the larger count is taken, so that none counts twice.
        for name in ("duplicate", "rejected_files", "out_of_order", "late", "saturated"):
            fmri[name] = max(fmri[name], before["fmri"].get(name, 0))
        return {**counters, "eeg": eeg, "fmri": fmri}
