"""A scanner's export folder as a source of volumes: complete means decoded."""

import os
import re
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rtdecode.types import Volume
from streaming.sources.dicom import is_dicom, read_dicom
from streaming.sources.image import Image, IncompleteError, NotAVolumeError, unpacked, unpacked_head
from streaming.sources.nifti import is_nifti, read_nifti, split_number
from streaming.sources.scan import FolderScan, Stamp, stamp_of
from streaming.sources.series import Accept, Moments, Runs

State = Literal["missing", "empty", "ok"]

# An undecodable file is given up this long after its last change, s.
GIVE_UP = 30.0
_BATCH = 32
_HEAD = 4096
# A file is watched at every poll for this long after a change, s; later, at each retry.
_RESTLESS = 5.0
_RETRY_FIRST, _RETRY_MOST = 0.02, 1.0
# Names that promise an image, whatever the bytes turn out to be.
_IMAGE_NAMES = (".dcm", ".ima", ".nii", ".nii.gz", ".hdr", ".img")


@dataclass(slots=True)
class _Pending:
    """A file that has not been decoded: when it last changed, and when to try again."""

    content: tuple[int, int]
    changed_at: float
    retry_at: float
    absent_at: float
    tries: int = 0
    reason: str = ""
    image: bool = False


@dataclass(frozen=True, slots=True)
class _Taken:
    """A file that was decoded: its state then, and a checksum over that many bytes."""

    content: tuple[int, int]
    size: int
    checksum: int


class FolderSource:
    """Volumes as they become readable in a folder and its subfolders.

    Nothing is written, moved or locked. A file counts once, when it decodes; until then it is tried
    again, at each change and with growing pauses between. What is no volume of a followed run is
    listed in `ignored` with the reason, and never ends a session.

    Parameters
    ----------
    directory : Path
        May not exist yet.
    existing : str
        ``ignore`` passes over the files that lie there now and counts them; ``read`` takes them.
    series : int or None
        Take only this SeriesNumber.
    bound : bool
        Follow one kind of series (see `Runs`).
    accept : callable or None
        Maps (shape, affine) of a series to the reason why it is not wanted, or None.
    exclude : Path or None
        A subfolder that is not looked into: the program's own output.
    """

    def __init__(
        self,
        directory: Path,
        existing: str = "ignore",
        series: int | None = None,
        *,
        bound: bool = True,
        accept: Accept | None = None,
        exclude: Path | None = None,
    ) -> None:
        self.directory = directory
        self.runs = Runs(bound, series, accept)
        self.existing = 0
        self._scan = FolderScan(directory, exclude)
        self._drained = False
        self._pending: dict[str, _Pending] = {}
        self._ignored: dict[str, str] = {}
        self._taken: dict[tuple[int, int], _Taken] = {}
        self._firsts: dict[str, int] = {}
        self._rejected: set[str] = set()
        self._volumes = 0
        self._polled_at = -float("inf")
        if existing == "ignore":
            self.existing = len(self._scan.poll(-float("inf")))

    @property
    def state(self) -> State:
        """``missing``: no such folder now; ``empty``: nothing has come into it; ``ok``."""
        if not self._scan.alive:
            return "missing"
        return "ok" if self._pending or self._ignored or self._volumes else "empty"

    @property
    def ignored(self) -> list[tuple[str, str]]:
        """Files that are no volumes, each once, with the reason; names relative to the folder."""
        return list(self._ignored.items())

    @property
    def waiting(self) -> list[tuple[str, str]]:
        """Files that have not been decoded yet, with what is wanting."""
        return [(name, pending.reason) for name, pending in self._pending.items()]

    def counters(self) -> dict[str, int]:
        """Volumes and files so far, by what became of them.

        `rejected_files` are those that are images, or are named like one, and gave no volume: refused,
        or incomplete and unchanged for 5 s now. A second file for a volume is a `duplicate` instead.
        """
        now_at = max(self._polled_at, time.monotonic())
        stuck = {
            name
            for name, pending in self._pending.items()
            if _is_image(name, pending) and now_at - pending.changed_at > _RESTLESS
        }
        return {
            "volumes": self._volumes,
            "missing": sum(len(run.missing()) for run in self.runs),
            "duplicate": self.runs.duplicate,
            "out_of_order": self.runs.out_of_order,
            "rejected_files": len(self._rejected | stuck),
            "ignored_files": len(self._ignored),
            "existing_files": self.existing,
        }

    def poll(self, now_at: float) -> list[Volume]:
        """Look once, without waiting, and return the volumes that have become readable.

        Parameters
        ----------
        now_at : float
            Local clock, s.

        Returns
        -------
        list of Volume
            Of at most 32 files, in order of run and index; the next call goes on with the rest.
        """
        self._look(now_at)
        return self._take(now_at)

    def drain(self) -> list[Volume]:
        """Read what lay there at the first call: a batch a call, at last none.

        Nothing is waited for. Files that cannot be decoded now are listed in `ignored` at the end.
        """
        now = time.monotonic()
        if not self._drained:
            self._drained = True
            self._look(now)
        while any(not pending.tries for pending in self._pending.values()):
            if volumes := self._take(now):
                return volumes
        for name, pending in list(self._pending.items()):
            self._ignore(name, pending.reason)
        return []

    def _look(self, now_at: float) -> None:
        self._polled_at = now_at
        swept_at = self._scan.swept_at
        for name, stamp in self._scan.poll(now_at).items():
            self._pending[name] = _Pending(stamp.content, now_at, now_at, swept_at)

    def _take(self, now_at: float) -> list[Volume]:
        due = [name for name, pending in self._pending.items() if self._is_due(name, pending, now_at)]
        found = [v for name in sorted(due, key=_natural)[:_BATCH] for v in self._try(name, now_at)]
        self._volumes += len(found)
        return sorted(found, key=lambda volume: (self.runs.of(volume).order, volume.index))

    def _is_due(self, name: str, pending: _Pending, now_at: float) -> bool:
        if not pending.tries or now_at >= pending.retry_at:
            return True
        if now_at - pending.changed_at > _RESTLESS:
            return False
        try:
            content = stamp_of(os.stat(self.directory / name)).content
        except OSError:
            return False
        if content != pending.content:
            pending.content, pending.changed_at, pending.tries = content, now_at, 1
            return True
        return False

    def _try(self, name: str, now_at: float) -> list[Volume]:
        pending = self._pending[name]
        arrived_at = time.monotonic()
        try:
            stamp, images = self._read(name)
        except FileNotFoundError:
            self._gone(name, pending, now_at)
            return []
        except NotAVolumeError as error:
            self._ignore(name, str(error))
            return []
        except (IncompleteError, OSError) as error:
            self._postpone(name, str(error), now_at)
            return []
        del self._pending[name]
        moments = Moments(_readable_at(stamp, pending.absent_at, arrived_at), arrived_at, time.monotonic())
        return self._place(name, images, moments)

    def _gone(self, name: str, pending: _Pending, now_at: float) -> None:
        """Drop a file that was deleted or renamed; keep it in mind while the whole folder is away."""
        if self.directory.is_dir():
            del self._pending[name]
            self._scan.forget(name)
        else:
            pending.tries, pending.retry_at, pending.reason = 1, now_at, "the folder has vanished"

    def _read(self, name: str) -> tuple[Stamp, list[Image]]:
        """Stamp and volumes of a file; no volumes if they were taken from it before."""
        with (self.directory / name).open("rb") as file:
            before = stamp_of(os.fstat(file.fileno()))
            taken = self._taken.get(before.inode)
            if taken is not None and taken.content == before.content:
                return before, []
            head = file.read(_HEAD)
            kind = _kind(head)
            self._pending[name].image = True
            data = head + file.read()
            stamp = stamp_of(os.fstat(file.fileno()))
        if _changed_while_read(before, stamp, len(data)):
            raise IncompleteError(f"{len(data)} bytes, and still being written")
        # Other times, or more bytes behind the image: still the file that was decoded.
        known = taken is not None and zlib.crc32(data[: taken.size]) == taken.checksum
        images = [] if known else _decode(data, kind, name)
        self._taken[stamp.inode] = _Taken(stamp.content, len(data), zlib.crc32(data))
        return stamp, images

    def _place(self, name: str, images: list[Image], moments: Moments) -> list[Volume]:
        if images:
            self._ignored.pop(name, None)
            self._rejected.discard(name)
        volumes, doubles = [], self.runs.duplicate
        for image in images:
            first = self._first_number(name, image) if image.uid.startswith("nifti:") else 0
            placed = self.runs.place(image, name, moments, first)
            if isinstance(placed, Volume):
                volumes.append(placed)
            else:
                self._ignored[name] = placed
        if len(volumes) + self.runs.duplicate - doubles < len(images):
            self._rejected.add(name)
        return volumes

    def _first_number(self, name: str, image: Image) -> int:
        """Number that the names of a run of NIfTI volumes begin with: index 0."""
        if image.number is None or image.uid == f"nifti:{name}":
            return 0
        if image.uid not in self._firsts:
            stem = split_number(name)[0]
            split = (split_number(other) for other in self._scan.files)
            self._firsts[image.uid] = min(n for s, n in split if s == stem and n is not None)
        return self._firsts[image.uid]

    def _postpone(self, name: str, reason: str, now_at: float) -> None:
        pending = self._pending[name]
        pending.reason, pending.absent_at = reason, time.monotonic()
        if now_at - pending.changed_at >= GIVE_UP:
            self._ignore(name, f"{reason}, unchanged for {GIVE_UP:.0f} s")
            return
        pending.retry_at = now_at + min(_RETRY_FIRST * 2**pending.tries, _RETRY_MOST)
        pending.tries += 1

    def _ignore(self, name: str, reason: str) -> None:
        if _is_image(name, self._pending.pop(name)):
            self._rejected.add(name)
        self._ignored[name] = reason


def _is_image(name: str, pending: _Pending) -> bool:
    return pending.image or name.lower().endswith(_IMAGE_NAMES)


def _changed_while_read(before: Stamp, after: Stamp, size: int) -> bool:
    """Whether what was read may be neither the earlier nor the later state; growth read whole is fine."""
    return after.size != size or (before.size == size and before.content != after.content)


def _kind(head: bytes) -> str:
    """Tell by its first bytes what a file is, before the rest is read."""
    start = unpacked_head(head)
    if is_dicom(start):
        return "dicom"
    if is_nifti(start):
        return "nifti"
    raise IncompleteError(f"{len(head)} bytes" if len(start) < 352 else "neither DICOM nor NIfTI")


def _decode(data: bytes, kind: str, name: str) -> list[Image]:
    data = unpacked(data)
    return [read_dicom(data)] if kind == "dicom" else read_nifti(data, name)


def _readable_at(stamp: Stamp, absent_at: float, arrived_at: float) -> float:
    """Local time of a file's last change, between when it was not there yet and when it was read."""
    age = time.time() - stamp.changed_at
    return min(max(time.monotonic() - age, absent_at), arrived_at)


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Order names as people do: numbers by value."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(part), part) if part.isdigit() else (0, 0, part) for part in parts]
