"""What one acquisition process hands to the next: triggers and volumes without their pixels, and counts.

A run's time line rests on these alone, so it goes on where it was; only pixels and samples are lost.
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from rtdecode.types import EegChunk, Trigger, Volume
from rtdecode.windows.assembler import Counters
from streaming.session.orders import Past

_OF_A_VOLUME = (
    *("index", "series", "tr_s", "acquired_s", "recon_s", "readable_at", "arrived_at", "parsed_at"),
    *("name", "uid", "simulated", "clock_at"),
)
# Files that changed so long before the last status may not have been read when it was made, s.
_UNSURE = 5.0


def line(item: Trigger | Volume) -> dict[str, Any]:
    """What is remembered of an item; plain values."""
    if isinstance(item, Trigger):
        return asdict(item)
    return {name: getattr(item, name) for name in _OF_A_VOLUME}


class Resumed:
    """The past of an acquisition that goes on for one that died.

    Parameters
    ----------
    past : Past
    """

    def __init__(self, past: Past) -> None:
        self._items = past.items
        self._status = past.status
        self._known = {(one["uid"], one["index"], one["name"]) for one in past.items if "uid" in one}
        self._hole: dict[str, int] = {}

    @property
    def since(self) -> float | None:
        """Wall time from which on files count as new; None to do with them as at the start."""
        wall_s = self._status["wall_s"]
        return None if wall_s is None or self.behind else wall_s - _UNSURE

    @property
    def behind(self) -> bool:
        """Whether volumes that lay there before were still being read."""
        return self._status["behind"]

    @property
    def begun(self) -> bool:
        """Whether a run had begun."""
        return bool(self._items) or self.first_sample_at is not None

    @property
    def told_at(self) -> float | None:
        """Local time of the last status, s."""
        return self._status["at"]

    @property
    def first_sample_at(self) -> float | None:
        """Local time of the EEG sample with which the run began; None where it began otherwise."""
        return self._status["first_sample_at"]

    @property
    def heard_since(self) -> list[float]:
        """Stamps of what was heard first after earlier restarts."""
        return self._status["heard_since"]

    @property
    def triggers_expected(self) -> bool:
        """Whether a run without volumes waits for its first trigger."""
        return self._status["triggers_expected"]

    def items(self) -> Iterator[Trigger | Volume]:
        """The items, volumes as ones that are not decoded."""
        nothing = np.zeros((1, 1, 1), np.float32)
        nowhere = np.eye(4)
        for one in self._items:
            if "uid" in one:
                yield Volume(nothing, nowhere, live=False, **one)
            else:
                yield Trigger(**one)

    def knows(self, volume: Volume) -> bool:
        """Whether the volume was taken before: its file is read a second time."""
        return (volume.uid, volume.index, volume.name) in self._known

    def measure(self, chunk: EegChunk, sfreq: float) -> None:
        """Tell from the first chunk how many samples are lost."""
        newest_at = self._status["newest_sample_at"]
        if self._hole or newest_at is None or not chunk.data.shape[1]:
            return
        lost = round((float(chunk.stamps[0]) - newest_at) * sfreq) - 1
        self._hole = {"lost_samples": max(0, lost), "gaps": 1}

    def counted(self, counters: Counters) -> Counters:
        """Counters of the session: what was counted before, the hole, and what was counted since."""
        before = self._status["counters"]
        eeg = dict(counters["eeg"])
        fmri = dict(counters["fmri"])
        for name in ("samples", "lost_samples", "gaps", "epochs"):
            eeg[name] = eeg.get(name, 0) + before["eeg"].get(name, 0) + self._hole.get(name, 0)
        # The volumes of the past were pushed again and counted; what else there was of files was not.
        for name in ("duplicate", "rejected_files", "out_of_order", "late", "saturated"):
            fmri[name] = max(fmri[name], before["fmri"].get(name, 0))
        return {**counters, "eeg": eeg, "fmri": fmri}
