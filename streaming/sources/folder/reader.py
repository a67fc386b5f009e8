"""Decode files into images, and give each content once.

A file comes in by name; out come the volumes, or the slice, that it has not given before. Its first bytes
say what it is. A file that was renamed, dated anew, padded, or mounted anew is recognised by its content;
a file of several volumes (4-D NIfTI, PAR/REC) is read further wherever it left off.
"""

import os
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from streaming.sources.folder import files
from streaming.sources.folder.files import HEAD, Container, HalfError, ReadAt, Tails
from streaming.sources.folder.scan import Content, Stamp, stamp_of
from streaming.sources.formats import nifti, parrec
from streaming.sources.formats.dicom import read_dicom
from streaming.sources.formats.image import Image, IncompleteError, NotAVolumeError, Plane, patience_s
from streaming.sources.formats.unpacked import MAX_BYTES

# Volumes that one reading takes from one file: the reading cannot be interrupted, and a poll is short.
_MOST_VOLUMES = 16
# Bytes to which a file may unpack at least, whatever series is followed: a file of another one is then named
# for what it is.
_UNPACKED_LEAST = 64 << 20
# A renamed file is recognised by its inode among this many that were taken last.
_RECENT = 1024


@dataclass(frozen=True, slots=True)
class _Taken:
    """A file that was decoded: its state then, and a checksum over its first `size` bytes (0: none)."""

    content: Content
    size: int
    checksum: int


@dataclass(frozen=True, slots=True)
class _Given:
    """What a file of volumes has given so far.

    `count` volumes as run `uid`; `number` is that in the file's name, `first` a checksum of the first
    volume, `size` the smallest size seen (bytes), and `by_name` says that the name numbers the volume.
    """

    count: int
    uid: str
    number: int | None
    first: int
    size: int
    by_name: bool


@dataclass(frozen=True, slots=True)
class Reading:
    """What one reading of a file gave.

    Attributes
    ----------
    images : list of Image, or Plane
        What it had not given before.
    stamp : Stamp
        The file's state.
    still_to_come : str
        What is still to come from it, in words; empty if nothing is.
    by_name : bool
        Whether the images' numbers come from file names, which may begin anywhere.
    mates : tuple of str
        Names that the other half may have, where the file is one of a pair.
    """

    images: list[Image] | Plane
    stamp: Stamp
    still_to_come: str = ""
    by_name: bool = False
    mates: tuple[str, ...] = ()


class Reader:
    """Read the files of a folder, and remember what each has given.

    Parameters
    ----------
    directory : Path
        The export folder.
    moco : bool
        Take the motion-corrected series of a Siemens scanner instead of the plain one.
    include : str
        Part of the names of series that are not refused for their name alone.
    voxels : callable, optional
        Returns the number of voxels in the volumes of the series that is followed; None while there is none.

    Attributes
    ----------
    image : bool
        Whether the file that was read last is an image by its first bytes.
    watched : str
        The file whose changes matter to it: the file itself or, for a header, its data file.
    """

    def __init__(
        self,
        directory: Path,
        moco: bool = False,
        include: str = "",
        voxels: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._directory = directory
        self._voxels = voxels
        self._moco = moco
        self._include = include
        self._tails = Tails()
        # One entry for each file that was decoded, by which it is known when it is dated anew, or comes back
        # with its share: some 400 bytes, 2 MB for an hour of volumes at a TR of 0.8 s, and 150 MB where each
        # of them is 84 files of a slice. `_given` has one for each NIfTI or PAR file, of about the same size.
        self._taken: dict[str, _Taken] = {}
        self._recent: OrderedDict[tuple[int, int], str] = OrderedDict()
        self._given: dict[str, _Given] = {}
        self._lowest: dict[str, int] = {}
        self._generation: dict[str, int] = {}
        self._last_header: tuple[str, bytes, Container] | None = None
        self.image = False
        self.watched = ""

    @property
    def limit_bytes(self) -> int:
        """Bytes to which a file may unpack: some volumes of the series that is followed, if there is one."""
        voxels = self._voxels()
        return (
            MAX_BYTES if voxels is None else min(MAX_BYTES, max(_UNPACKED_LEAST, _MOST_VOLUMES * 8 * voxels))
        )

    def knows(self, name: str) -> bool:
        """Return whether a file of that name was taken before."""
        return name in self._taken

    def content(self, name: str) -> Content | None:
        """Return the size and modification time of a file now; None if it is not there."""
        try:
            return stamp_of(os.stat(self._directory / name)).content
        except OSError:
            return None

    def read(self, name: str, age: float) -> Reading:
        """Decode what a file holds and has not given before.

        Parameters
        ----------
        name : str
            Relative to the folder.
        age : float
            Time since the last change, s; infinity if nothing is to be waited for.

        Raises
        ------
        IncompleteError
            If something is missing that may still come; `HalfError` if that is the header of a pair.
        NotAVolumeError
            If the file holds no volume.
        OSError
            If the file cannot be opened or read.
        """
        self.image = False
        self.watched = name
        with files.opened(self._directory / name) as file:
            before = stamp_of(os.fstat(file.fileno()))
            if self._is_taken(name, before):
                return Reading([], before)
            head = file.read(HEAD)
            kind = _kind(head, name)
            self.image = True
            if kind == "dicom" or files.is_packed(head):
                return self._whole(name, file, kind, head, before, age)
            return self._parts(name, file, kind, head, before, age)

    def _is_taken(self, name: str, stamp: Stamp) -> bool:
        previous = self._taken.get(name)
        if previous is not None:
            return previous.content == stamp.content
        # Another name for the same inode and content is a rename, or a second link.
        other = self._recent.get(stamp.inode)
        if other is None or self._taken[other].content != stamp.content:
            return False
        self._taken[name] = self._taken[other]
        if other in self._given:
            self._given[name] = self._given[other]
        return True

    def _take(self, name: str, stamp: Stamp, size: int, checksum: int) -> None:
        self._taken[name] = _Taken(stamp.content, size, checksum)
        self._recent[stamp.inode] = name
        if len(self._recent) > _RECENT:
            self._recent.popitem(last=False)

    def _whole(self, name: str, file: BinaryIO, kind: str, head: bytes, before: Stamp, age: float) -> Reading:
        """Read a file that counts only once all of it is there."""
        data = files.read_whole(file, MAX_BYTES)
        stamp = stamp_of(os.fstat(file.fileno()))
        if _changed_while_read(before, stamp, len(data)):
            raise IncompleteError(
                "file-changed-while-read", "{size_bytes} bytes, and still being written", size_bytes=len(data)
            )
        previous = self._taken.get(name)
        same_content = (
            previous and previous.size and files.fingerprint(data, previous.size) == previous.checksum
        )
        reading = Reading([], stamp)
        if not same_content:
            if kind == "dicom":
                plain = files.gunzip(data, self.limit_bytes)
                reading = Reading(self._dicom(plain, plain is not data, age), stamp)
            elif kind == "nifti":
                container = _container(kind, files.unpacked_head(head), name)
                plain = files.gunzip(data, self._promised_bytes(container))
                reading = self._parts_of(name, container, plain, stamp)
            else:
                # A packed header says nothing of where its data are.
                raise NotAVolumeError(
                    "header-packed", "a packed header: deliver it unpacked, beside its data"
                )
        # A known file that was dated anew, or padded at its end, only has its new state noted.
        if not reading.still_to_come:
            self._take(name, stamp, len(data), files.fingerprint(data, len(data)))
        return reading

    def _dicom(self, data: bytes, packed: bool, age: float) -> list[Image] | Plane:
        decoded = read_dicom(data, moco=self._moco, include=self._include, limit_bytes=self.limit_bytes)
        # A gzip stream carries its own checksum, so its zeros are real.
        if packed or (isinstance(decoded, list) and not decoded):
            return decoded
        # Slices at different positions may end in different numbers of zeros: each has its own record.
        last = decoded if isinstance(decoded, Plane) else decoded[-1]
        place = round(100 * last.normal_mm) if isinstance(last, Plane) else 0
        size = last.data.size * last.value_bytes
        self._tails.check((last.uid, place), last.data, size, _tail_of(data), age, patience_s(last.tr_s))
        return decoded

    def _parts(self, name: str, file: BinaryIO, kind: str, head: bytes, before: Stamp, age: float) -> Reading:
        """Read what is there of a file, or of a pair of files, whose header gives the layout."""
        if kind == "nifti":
            return self._volumes(name, _container(kind, head, name), _reads(file), before, age)
        header = files.read_whole(file, files.HEADER_MOST)
        if _changed_while_read(before, stamp_of(os.fstat(file.fileno())), len(header)):
            raise IncompleteError(
                "header-changed-while-read",
                "a header that is still being written",
            )
        container = self._parsed(kind, header, name)
        self.watched, mates = self._mate(name)
        with files.opened(self._directory / self.watched) as data:
            stamp = stamp_of(os.fstat(data.fileno()))
            if self.watched.lower().endswith(".gz"):
                packed = files.read_whole(data, MAX_BYTES)
                plain = files.gunzip(packed, self._promised_bytes(container))
                reading = self._parts_of(name, container, plain, stamp)
            else:
                reading = self._volumes(name, container, _reads(data), stamp, age)
        if not reading.still_to_come:
            self._take(name, before, len(header), zlib.crc32(header))
        return replace(reading, mates=mates)

    def _promised_bytes(self, container: Container) -> int:
        """Return the bytes to which a packed file may unpack: what its header promises, and one volume more.

        Raises
        ------
        NotAVolumeError
            If that is more than one file may unpack to.
        """
        _, volume_bytes = container.span(0)
        promised = sum(container.span(container.promised - 1))
        if promised > self.limit_bytes:
            raise NotAVolumeError(
                "file-promises-oversized",
                "{volumes} packed volumes of {volume_bytes} bytes, and {limit_bytes} bytes are unpacked at "
                "most: deliver them unpacked",
                volumes=container.promised,
                volume_bytes=volume_bytes,
                limit_bytes=self.limit_bytes,
            )
        return promised + volume_bytes

    def _parsed(self, kind: str, header: bytes, name: str) -> Container:
        """Return the layout by a pair's header.

        The header is read again for every volume that arrives in the data file; it is parsed only once.
        """
        if self._last_header is None or self._last_header[:2] != (name, header):
            self._last_header = name, header, _container(kind, header, name)
        return self._last_header[2]

    def _mate(self, name: str) -> tuple[str, tuple[str, ...]]:
        mates = tuple(files.counterparts(name))
        for mate in mates:
            if self.content(mate) is not None:
                return mate, mates
        if not mates:
            raise IncompleteError("pair-data-missing", "waits for its data file")
        raise IncompleteError(
            "pair-data-missing", "waits for its data file {file}", file=files.printable(mates[0])
        )

    def _parts_of(self, name: str, container: Container, data: bytes, stamp: Stamp) -> Reading:
        """Read all volumes of unpacked data, which the checksum of gzip has proved to be whole."""
        size = container.complete_volumes(len(data))
        if size < container.promised:
            raise IncompleteError(
                "file-volumes-incomplete",
                "{available_volumes} of {expected_volumes} volumes in {size_bytes} bytes",
                available_volumes=size,
                expected_volumes=container.promised,
                size_bytes=len(data),
            )
        sized = replace(stamp, size=len(data))
        # A lone volume is not copied. One of many is, or it would hold the memory of all of them.
        source = memoryview(data) if container.promised == 1 else data
        reading = self._volumes(
            name,
            container,
            lambda start, n: source[start : start + n],
            sized,
            float("inf"),
            container.promised,
        )
        return replace(reading, stamp=stamp)

    def _volumes(
        self,
        name: str,
        container: Container,
        read_at: ReadAt,
        stamp: Stamp,
        age: float,
        max_volumes: int = _MOST_VOLUMES,
    ) -> Reading:
        _, volume_bytes = container.span(0)
        if volume_bytes > MAX_BYTES:
            raise NotAVolumeError(
                "volume-oversized",
                "a volume of {volume_bytes} bytes: a damaged header",
                volume_bytes=volume_bytes,
            )
        available = container.complete_volumes(stamp.size)
        delivered, first = self._begun(name, container, read_at, available, stamp)
        # A writer may set the number of volumes only at the end, so while a file grows it may hold more
        # than its header promises. In a file that has not grown, such a header is not trusted.
        grew = stamp.size > delivered.size
        if available > container.promised and not grew:
            self._given[name] = delivered
            raise IncompleteError(
                "file-volumes-exceed-header",
                "bytes for {available_volumes} volumes, but the header promises {expected_volumes}",
                available_volumes=available,
                expected_volumes=container.promised,
            )
        images = []
        reason = ""
        for t in range(delivered.count, min(available, delivered.count + max_volumes)):
            try:
                image = container.image(t, read_at) if t or first is None else first
                images.append(self._checked(image, container, t, read_at, age, delivered))
            except (IncompleteError, NotAVolumeError) as error:
                if not images:
                    self._given[name] = delivered
                    raise
                # The volumes before this one are good: give them, and name the reason for the rest.
                reason = str(error)
                break
        count = delivered.count + len(images)
        self._given[name] = replace(delivered, count=count)
        if not reason and count < max(available, container.promised):
            reason = f"{count} of {max(available, container.promised)} volumes so far"
        elif not reason and not count:
            reason = f"{stamp.size} bytes, no volume yet"
        # No checksum is needed here: `_begun` recognises the file by its first volume.
        if not reason:
            self._take(name, stamp, 0, 0)
        return Reading(images, stamp, reason, delivered.by_name)

    def _checked(
        self, image: Image, container: Container, t: int, read_at: ReadAt, age: float, delivered: _Given
    ) -> Image:
        tail = _tail_in(container, t, read_at)
        _, size = container.span(t)
        self._tails.check((delivered.uid, 0), image.data, size, tail, age, patience_s(image.tr_s))
        number = t
        if delivered.by_name:
            number = None if delivered.number is None else delivered.number + t
        return replace(image, uid=delivered.uid, number=number)

    def _begun(
        self, name: str, container: Container, read_at: ReadAt, available: int, stamp: Stamp
    ) -> tuple[_Given, Image | None]:
        """Return what the file has given; if its first volume is another one, begin again with that.

        The first volume is returned too where it had to be decoded.
        """
        delivered = self._given.get(name)
        if available == 0:
            # Keep this size: a file that has grown since may hold more than its header promises.
            self._given.setdefault(name, _Given(0, "", None, -1, stamp.size, False))
            raise IncompleteError(
                "file-first-volume-incomplete",
                "{size_bytes} bytes, not one volume yet",
                size_bytes=stamp.size,
            )
        checksum = zlib.crc32(read_at(*container.span(0)))
        if delivered is not None and delivered.first == checksum:
            return replace(delivered, size=min(delivered.size, stamp.size)), None
        image = container.image(0, read_at)
        # A file of one volume takes its number from its name; in a longer one volumes count from 0.
        by_name = container.promised == 1
        uid = image.uid
        number = image.number
        lowest = self._lowest.get(uid, number)
        # A second run may overwrite the files of the first one by one. Only the file with the lowest
        # number begins the new run; the others then belong to it.
        begins = number is not None and (not by_name or number == lowest)
        if delivered is not None and delivered.count and begins:
            self._generation[uid] = self._generation.get(uid, 1) + 1
        if by_name and number is not None and lowest is not None:
            self._lowest[uid] = min(lowest, number)
        generation = self._generation.get(uid, 1)
        full = uid if generation == 1 else f"{uid} ({generation})"
        size = stamp.size if delivered is None else min(delivered.size, stamp.size)
        return _Given(0, full, number, checksum, size, by_name), image


def _kind(head: bytes, name: str) -> str:
    # A pair's data have no signature: their name alone says that they belong to a header.
    half = files.is_data_half(name)
    try:
        kind = files.kind_of(head)
    except IncompleteError as error:
        if half:
            raise HalfError.wrap(error, "pair-header-missing", "{error}, and no header beside it") from error
        raise
    if kind == "other" and half:
        raise HalfError(
            "pair-header-missing",
            "no header beside it",
        )
    if kind == "other":
        raise NotAVolumeError(
            "file-format-unknown",
            "neither DICOM, NIfTI nor PAR/REC",
        )
    return kind


def _container(kind: str, data: bytes, name: str) -> Container:
    if kind == "par":
        par = parrec.read_par(data)
        return Container(
            len(par.lines),
            par.complete_volumes,
            par.span,
            lambda t, read_at: parrec.read_volume(par, name, t, read_at),
        )
    layout = nifti.read_layout(data)
    return Container(
        layout.promised,
        layout.complete_volumes,
        layout.span,
        lambda t, read_at: nifti.read_volume(layout, name, t, read_at),
    )


def _reads(file: BinaryIO) -> ReadAt:
    number = file.fileno()
    return lambda offset, length: os.pread(number, length, offset)


def _tail_of(data: bytes) -> ReadAt:
    return lambda back, n: data[max(0, len(data) - back - n) : len(data) - back]


def _tail_in(container: Container, t: int, read_at: ReadAt) -> ReadAt:
    start, length = container.span(t)
    return lambda back, n: read_at(start + max(0, length - back - n), min(n, length - back))


def _changed_while_read(before: Stamp, after: Stamp, size: int) -> bool:
    """Return whether the bytes may mix two states of the file; growth that was read whole is fine."""
    return after.size != size or (before.size == size and before.content != after.content)
