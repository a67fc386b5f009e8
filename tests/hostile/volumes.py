"""Files of five scanners, mutated, before the reader of the export folder."""

import gzip
import os
import socket
import time
from collections.abc import Callable
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Protocol

import nibabel as nib
import numpy as np

from rtdecode.phantom.files.vendors import VENDORS
from rtdecode.phantom.live.names import ExportedFile, ExportedRun, files
from rtdecode.phantom.session import PhantomSession
from rtdecode.types import Volume
from streaming.sources.folder.source import GIVE_UP, FolderSource
from tests.hostile.cases import Rng
from tests.streaming.test_mutated_inputs import CHANGES

# Volumes of one case: some as they are, then mutated ones, then again some as they are.
BEFORE = 2
MUTATED = 10
AFTER = 2
# A poll is to be over after 0.06 s of processor time; one file may take longer than that, s.
_POLL_S = 5.0
# Steps of the polls' clock, s, while files come and until the last of them is given up.
_STEP = 0.02
_WAITING_STEP = 0.5
# How often each scanner comes: files of single slices take ten times as long.
_SHARES = {"siemens-mosaic": 0.3, "siemens-enhanced": 0.25, "nifti": 0.25, "ge": 0.1, "philips": 0.1}
_MB = bytes(1 << 20)
# Folders inside each other, more than Python calls functions.
_DEEP = 420


@cache
def _session() -> PhantomSession:
    return PhantomSession("easy", seed=1000, seconds=4)


@cache
def _run() -> ExportedRun:
    return ExportedRun(4, _session().uid, datetime(2026, 3, 2, 12))


@cache
def _volume(scanner: str, index: int) -> list[ExportedFile]:
    return files(_session(), scanner, _run(), index)


class Polling(Protocol):
    """What lets a folder be looked at so many times."""

    def some(self, count: int) -> None: ...


def case(folder: Path, rng: Rng, number: int) -> list[str]:
    """Let a run arrive whose middle is mutated, and return what went wrong."""
    scanner = str(rng.choice(list(_SHARES), p=list(_SHARES.values())))
    export = folder / "export"
    export.mkdir()
    before = str(rng.choice(["ignore", "read"]))
    source = FolderSource(export, before)
    polls = _Polls(source)
    story = [f"{scanner}, existing {before}"]
    for index in range(BEFORE + MUTATED + AFTER):
        told_of = "as it is"
        if BEFORE <= index < BEFORE + MUTATED:
            told_of = _mutate(export, scanner, index, rng, polls)
        else:
            for file in _volume(scanner, index):
                _put(export / file.name, file.data)
        story.append(f"{index}: {told_of}")
        polls.some(2)
    polls.until_given_up()
    (folder / "case.txt").write_text("\n".join(story) + "\n")
    faults = _faults(source, polls)
    last = range(BEFORE + MUTATED, BEFORE + MUTATED + AFTER)
    # Slices that contradict each other end their series: nobody can tell which of them is the mutated one.
    if not VENDORS[scanner].by_slice and not any(volume.index in last for volume in polls.volumes):
        indices = [volume.index for volume in polls.volumes]
        faults.append(f"no volume of {list(last)} came after the mutated ones, only {indices}")
    return [f"{fault} ({'; '.join(story)})" for fault in faults]


def put_hostile(export: Path, rng: Rng, *, bomb: bool) -> None:
    """Put the mutated files of a volume into the folder of a session that runs."""
    index = BEFORE + int(rng.integers(MUTATED))
    if bomb:
        [file] = _volume("siemens-mosaic", index)
        _a_bomb(export / file.name, file.data, rng, _Pause())
    else:
        _mutate(export, str(rng.choice(list(VENDORS))), index, rng, _Pause())


class _Pause:
    """What stands for the polls where a session makes them."""

    def some(self, count: int) -> None:
        time.sleep(_STEP * count)


class _Polls:
    """Polls of a folder on a clock of their own, which passes faster than time."""

    def __init__(self, source: FolderSource) -> None:
        self.volumes: list[Volume] = []
        self.longest_s = 0.0
        self._source = source
        self._now = time.monotonic()

    def some(self, count: int, step: float = _STEP) -> None:
        for _ in range(count):
            self._now = max(self._now + step, time.monotonic())
            began = time.thread_time()
            self.volumes += self._source.poll(self._now)
            self.longest_s = max(self.longest_s, time.thread_time() - began)

    def until_given_up(self) -> None:
        while self._source.unread:
            self.some(1)
        # Slices are given up a moment after a pause of the polls.
        time.sleep(0.05)
        self.some(round(1.2 * GIVE_UP / _WAITING_STEP), _WAITING_STEP)


def _faults(source: FolderSource, polls: _Polls) -> list[str]:
    faults = [f"a volume's affine is {v.affine}" for v in polls.volumes if not np.isfinite(v.affine).all()]
    faults += [f"a volume has the shape {v.data.shape}" for v in polls.volumes if v.data.ndim != 3]
    source.counters()
    texts = [source.state, *(text for pair in [*source.ignored, *source.waiting] for text in pair)]
    faults += [f"what is told is not printable: {text!r}" for text in texts if not text.isprintable()]
    if polls.longest_s > _POLL_S:
        faults.append(f"a poll took {polls.longest_s:.1f} s of processor time")
    return faults


def _mutate(export: Path, scanner: str, index: int, rng: Rng, polls: Polling) -> str:
    """Write the files of a volume, one or more of them mutated; return how."""
    volume = list(_volume(scanner, index))
    hit = set(rng.choice(len(volume), min(len(volume), int(rng.choice([1, 1, 3]))), replace=False).tolist())
    story = []
    for place, file in enumerate(volume):
        path = export / file.name
        if place not in hit:
            _put(path, file.data)
            continue
        data = file.data
        for _ in range(int(rng.choice([0, 1, 1, 2]))):
            change = _CONTENTS[rng.integers(len(_CONTENTS))]
            story.append(change.__name__.strip("_"))
            data = change(data, rng)
        put = _PLACES[rng.integers(len(_PLACES))] if story == [] or rng.random() < 0.4 else _plainly
        if scanner == "nifti" and rng.random() < 0.2:
            story.append("values")
            data = _other_values(index, rng)
        story.append(put.__name__.strip("_"))
        path.parent.mkdir(parents=True, exist_ok=True)
        put(path, data, rng, polls)
    return " ".join(story)


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}"[:250])
    part.write_bytes(data)
    part.rename(path)


# What is done to the bytes of a file.


def _where(data: bytes, rng: Rng) -> int:
    """Choose a place, in the header more often than in the pixels."""
    reach = min(len(data), int(rng.choice([400, 2000, 8000, len(data) or 1])))
    return int(rng.integers(max(1, reach)))


def _flipped(data: bytes, rng: Rng) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.choice([1, 2, 8]))):
        if changed:
            changed[_where(data, rng)] = int(rng.integers(256))
    return bytes(changed)


def _noise(data: bytes, rng: Rng) -> bytes:
    place = _where(data, rng)
    length = int(rng.choice([4, 64, 4000]))
    return data[:place] + rng.bytes(length) + data[place + length :]


def _emptied(data: bytes, rng: Rng) -> bytes:
    place = _where(data, rng)
    length = int(rng.choice([2, 64, 4000]))
    return data[:place] + bytes([int(rng.choice([0, 255]))]) * length + data[place + length :]


def _extreme(data: bytes, rng: Rng) -> bytes:
    """Put an extreme number where a length or a size may be."""
    numbers = [0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 0xFFFFFFFE, 0x00010000, 0x7F800000, 0x7FC00000]
    place = _where(data, rng) // 2 * 2
    return data[:place] + int(rng.choice(numbers)).to_bytes(4, "little") + data[place + 4 :]


def _removed(data: bytes, rng: Rng) -> bytes:
    place = _where(data, rng)
    return data[:place] + data[place + int(rng.choice([1, 2, 100, 10_000])) :]


def _inserted(data: bytes, rng: Rng) -> bytes:
    place = _where(data, rng)
    return data[:place] + rng.bytes(int(rng.choice([1, 2, 100, 10_000]))) + data[place:]


def _moved(data: bytes, rng: Rng) -> bytes:
    place, to = _where(data, rng), _where(data, rng)
    stretch = data[place : place + 300]
    return data[:to] + stretch + data[to + len(stretch) :]


def _truncated(data: bytes, rng: Rng) -> bytes:
    return data[: int(len(data) * rng.random())]


def _doubled(data: bytes, rng: Rng) -> bytes:
    return data + data[: int(rng.integers(len(data) + 1))]


def _spliced(data: bytes, rng: Rng) -> bytes:
    other = _any_file(rng)
    place = int(len(data) * rng.random())
    return data[:place] + other[int(len(other) * rng.random()) :]


def _of_another_scanner(data: bytes, rng: Rng) -> bytes:
    return _any_file(rng)


def _text(data: bytes, rng: Rng) -> bytes:
    return b"[red]\x1b[2Jtext\x00, not an image\r\n" * int(rng.integers(1, 50))


def _none(data: bytes, rng: Rng) -> bytes:
    return b""


_CONTENTS: list[Callable[[bytes, Rng], bytes]] = [
    *[_flipped, _extreme, _noise] * 3,
    _emptied,
    _removed,
    _inserted,
    _moved,
    _truncated,
    _doubled,
    _spliced,
    _of_another_scanner,
    _text,
    _none,
]


def _any_file(rng: Rng) -> bytes:
    scanner = str(rng.choice(list(VENDORS)))
    volume = _volume(scanner, int(rng.integers(BEFORE + MUTATED + AFTER)))
    return volume[int(rng.integers(len(volume)))].data


def _other_values(index: int, rng: Rng) -> bytes:
    """Return a NIfTI file of floating-point values, changed as `test_mutated_inputs` changes them."""
    [file] = _volume("nifti", index)
    values = np.asarray(nib.Nifti1Image.from_bytes(file.data).dataobj, np.float32)
    image = nib.Nifti1Image(CHANGES[rng.integers(len(CHANGES))](values, rng), _session().head.affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = _session().tr_s
    return image.to_bytes()


# How it is put into the folder.


def _plainly(path: Path, data: bytes, rng: Rng, polls: Polling) -> None:
    _put(path, data)


def _packed(path: Path, data: bytes, rng: Rng, polls: Polling) -> None:
    _put(_gz(path), gzip.compress(data, 1))


def _packed_and_cut(path: Path, data: bytes, rng: Rng, polls: Polling) -> None:
    _put(_gz(path), _flipped(gzip.compress(data, 1), rng)[: -int(rng.integers(1, 100))])


def _packed_again_and_again(path: Path, data: bytes, rng: Rng, polls: Polling) -> None:
    for _ in range(int(rng.integers(2, 6))):
        data = gzip.compress(data, 1)
    _put(_gz(path), data)


def _a_bomb(path: Path, data: bytes, rng: Rng, polls: Polling) -> None:
    """Pack so many zeros behind a file that they fill the memory."""
    zeros = gzip.compress(_MB, 9, mtime=0) * int(rng.choice([300, 1200, 4000]))
    _put(_gz(path), gzip.compress(data, 1) + zeros)


def _named(path: Path, data: bytes, rng: Rng, polls: Polling) -> None:
    names = [
        b"[red]\x1b[2J\x07[link=x.dcm",
        b"line\nfeed\r.nii",
        b"\xff\xfe\xc3.dcm",
        "\u202egpj.dcm\u2066".encode(),
        b"n" * 255,
        b" ",
        b"-rf",
        b"%s%n{x}$(reboot).nii.gz",
        b"vol_" + b"9" * 200 + b".nii",
        b"run-" + "\u0663\u00b2".encode() + b".nii",
        b"only.hdr",
        b"only.img",
        b"only.par",
        b"only.REC",
    ]
    name = names[rng.integers(len(names))]
    Path(os.fsdecode(os.fsencode(path.parent) + b"/" + name)).write_bytes(data)


def _without_permission(path: Path, data: bytes, rng: Rng, polls: Polling) -> None:
    _put(path, data)
    path.chmod(0)


def _as_a_link(path: Path, data: bytes, rng: Rng, polls: Polling) -> None:
    targets = [
        "/dev/zero",
        "/dev/random",
        "/proc/self/mem",
        "/proc/self/environ",
        "/",
        ".",
        "nothing",
        path.name,
    ]
    path.symlink_to(str(rng.choice(targets)))


def _linked(path: Path, data: bytes, rng: Rng, polls: Polling) -> None:
    _put(path, data)
    os.link(path, path.with_name(f"again-{path.name}"))


def _as_a_pipe(path: Path, data: bytes, rng: Rng, polls: Polling) -> None:
    os.mkfifo(path)


def _as_a_socket(path: Path, data: bytes, rng: Rng, polls: Polling) -> None:
    listening = socket.socket(socket.AF_UNIX)
    # The path of a socket may have some 100 characters.
    place = os.open(path.parent, os.O_RDONLY)
    try:
        listening.bind(f"/proc/self/fd/{place}/{path.name}")
    finally:
        os.close(place)
        listening.close()


def _as_a_folder(path: Path, data: bytes, rng: Rng, polls: Polling) -> None:
    path.mkdir()
    (path / path.name).write_bytes(data)


def _deep(path: Path, data: bytes, rng: Rng, polls: Polling) -> None:
    """Put the file into more folders inside each other than a path may name."""
    place = os.open(path.parent, os.O_RDONLY)
    for _ in range(_DEEP):
        if "d" not in os.listdir(place):
            os.mkdir("d", dir_fd=place)
        inner = os.open("d", os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    file = os.open(path.name, os.O_WRONLY | os.O_CREAT, 0o666, dir_fd=place)
    os.write(file, data)
    os.close(file)
    os.close(place)


def _sparse(path: Path, data: bytes, rng: Rng, polls: Polling) -> None:
    path = path.with_suffix(str(rng.choice([".nii", ".dcm", ".rec"])))
    with path.open("wb") as file:
        file.write(data)
        file.truncate(int(rng.choice([1 << 30, 5 << 30, 1 << 40])))


def _in_pieces(path: Path, data: bytes, rng: Rng, polls: Polling) -> None:
    with path.open("wb", buffering=0) as file:
        for piece in range(4):
            file.write(data[piece * len(data) // 4 : (piece + 1) * len(data) // 4])
            polls.some(1)


def _shrinking(path: Path, data: bytes, rng: Rng, polls: Polling) -> None:
    _put(path, data)
    polls.some(1)
    os.truncate(path, len(data) // 2)


def _overwritten(path: Path, data: bytes, rng: Rng, polls: Polling) -> None:
    _put(path, _any_file(rng))
    polls.some(1)
    path.write_bytes(data)


def _renamed(path: Path, data: bytes, rng: Rng, polls: Polling) -> None:
    _put(path, data)
    polls.some(int(rng.integers(2)))
    path.rename(path.with_name(f"{path.name}.old"))


def _deleted(path: Path, data: bytes, rng: Rng, polls: Polling) -> None:
    path.write_bytes(data[:-1])
    polls.some(int(rng.integers(2)))
    path.unlink()


def _dated(path: Path, data: bytes, rng: Rng, polls: Polling) -> None:
    _put(path, data)
    times = [-(1 << 31), 0, 1 << 31, 1 << 33]
    os.utime(path, (0, int(rng.choice(times))))


_PLACES: list[Callable[[Path, bytes, Rng, Polling], None]] = [
    *[_packed, _packed_and_cut, _named, _in_pieces] * 4,
    *[_packed_again_and_again, _without_permission, _as_a_link, _linked, _as_a_pipe, _as_a_socket] * 2,
    *[_as_a_folder, _sparse, _shrinking, _overwritten, _renamed, _deleted, _dated] * 2,
    _deep,
    _a_bomb,
]


def _gz(path: Path) -> Path:
    return path.with_name(f"{path.name}.gz")
