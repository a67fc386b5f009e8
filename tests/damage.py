"""Ways in which a recording gets damaged, for tests that read damaged ones.

`KINDS` names them. Each takes the folder of a recording, which it changes, and a generator of random
numbers; `damaged` applies one at random and says which. A kind that does not fit a recording (volumes are cut
where there are none) leaves it as it is.
"""

import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

Damage = Callable[[Path, random.Random], None]

_DATA = ("eeg.f32", "stamps.f64", "volumes.bin")
_TEXT = ("recording.json", "events.jsonl")
_FILES = (*_DATA, *_TEXT)
# What stands where another value is expected.
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, -5, 2**31, 2**63, 10**30, -(10**30), 10**4000, 0.5, -0.5, 1e18, 1e300),
    *(float("nan"), float("inf"), float("-inf"), "", "x", "1", "\ud800", "\x1b[2J", "a" * 5000, "../../etc"),
    *([], [[]], [None], [1, 2], [1, 2, 3], [10**9] * 3, [[0.0] * 4] * 4, [["x"] * 4] * 4, {}, {"x": {}}),
)
_DTYPES = (
    "|O",
    "O",
    "<U8",
    "|S4",
    "V8",
    "<c16",
    "<M8[s]",
    "<f16",
    "f99",
    "i2,f4",
    "object",
    "<i2 ",
    ">f8",
    "",
)

_OTHER_LINES = (
    *(b"", b"[1]", b"null", b"{}", b"1", b'"x"', b"\xff", b"\x00" * 10),
    *(
        b'{"samples": 20}',
        b'{"stamp": 1}',
        b'{"shape": [1, 1, 1]}',
        b'{"samples": 1, "stamp": 1, "shape": 1}',
    ),
    *(b"9" * 10_000, b'{"samples": ' + b"9" * 10_000 + b"}"),
    *(b"{" * 100_000, b"[" * 100_000, b"x" * 3_000_000),
)
_LABELS = (
    *("film start abc 25 100", "film start abc 0 0", "film end", "frame 1", "frame -1", "x", ""),
    *("frame " + "9" * 30, "frame " + "9" * 5000, "film start abc " + "9" * 500 + " 1", "frame \u0661"),
)


def _folder_at(path: Path) -> None:
    """Put a folder where a file was."""
    if _free(path):
        path.mkdir()


def _free(path: Path) -> bool:
    """Make room for something else than a file; say whether there is."""
    if path.is_dir() and not path.is_symlink():
        return False
    path.unlink(missing_ok=True)
    return True


def _plain(path: Path) -> bool:
    """Return whether a file can be opened: an earlier damage may have put something else there."""
    return path.is_file() and not path.is_symlink()


def _there(folder: Path, names: tuple[str, ...], rng: random.Random) -> Path:
    return folder / rng.choice(names)


def _cut(file: Path, size: int) -> None:
    if _plain(file):
        os.truncate(file, max(0, min(size, file.stat().st_size)))


def _lines(folder: Path) -> list[bytes]:
    file = folder / "events.jsonl"
    return file.read_bytes().splitlines(keepends=True) if _plain(file) else []


def _write_lines(folder: Path, lines: list[bytes]) -> None:
    if _plain(folder / "events.jsonl"):
        (folder / "events.jsonl").write_bytes(b"".join(lines))


def _dumped(tree: Any) -> bytes:
    # NaN and infinities stay, as Python's own writer leaves them.
    return json.dumps(tree).encode()


def _object(text: bytes) -> dict[str, Any]:
    """Read an object; an empty one where there is none, after an earlier damage."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _changed_line(
    folder: Path, rng: random.Random, change: Callable[[dict[str, Any]], None], key: str = ""
) -> None:
    """Change a random line that holds `key`."""
    lines = _lines(folder)
    places = [n for n, line in enumerate(lines) if f'"{key}'.encode() in line]
    if not places:
        return
    n = rng.choice(places)
    tree = _object(lines[n])
    if not tree:
        return
    change(tree)
    lines[n] = _dumped(tree) + b"\n"
    _write_lines(folder, lines)


def _changed_head(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = folder / "recording.json"
    if not _plain(file):
        return
    tree = _object(file.read_bytes())
    if not tree:
        return
    change(tree)
    file.write_bytes(_dumped(tree))


# A copy that was cut short.


def data_cut(folder: Path, rng: random.Random) -> None:
    """A data file ends somewhere."""
    file = _there(folder, _DATA, rng)
    _cut(file, rng.randrange(file.stat().st_size + 1) if _plain(file) else 0)


def data_cut_a_little(folder: Path, rng: random.Random) -> None:
    """A data file lacks its last bytes."""
    file = _there(folder, _DATA, rng)
    _cut(file, file.stat().st_size - rng.randrange(1, 9000) if _plain(file) else 0)


def data_empty(folder: Path, rng: random.Random) -> None:
    """A data file is empty."""
    _cut(_there(folder, _DATA, rng), 0)


def data_longer(folder: Path, rng: random.Random) -> None:
    """A data file goes on after what the lines name."""
    file = _there(folder, _DATA, rng)
    if _plain(file):
        with file.open("ab") as longer:
            longer.write(rng.randbytes(rng.randrange(1, 200_000)))


def all_cut(folder: Path, rng: random.Random) -> None:
    """Every file ends somewhere."""
    for name in _FILES:
        file = folder / name
        _cut(file, rng.randrange(file.stat().st_size + 1) if _plain(file) else 0)


def file_gone(folder: Path, rng: random.Random) -> None:
    """A file is missing."""
    file = _there(folder, _FILES, rng)
    if _plain(file):
        file.unlink()


def lines_cut(folder: Path, rng: random.Random) -> None:
    """The index ends somewhere, in a line or behind one."""
    file = folder / "events.jsonl"
    _cut(file, rng.randrange(file.stat().st_size + 1) if _plain(file) else 0)


def lines_cut_whole(folder: Path, rng: random.Random) -> None:
    """The index ends behind some line."""
    lines = _lines(folder)
    _write_lines(folder, lines[: rng.randrange(len(lines) + 1)])


# Bytes that changed.


def bytes_flipped(folder: Path, rng: random.Random) -> None:
    """A few bytes of a file are others."""
    file = _there(folder, _FILES, rng)
    if not _plain(file) or not file.stat().st_size:
        return
    data = bytearray(file.read_bytes())
    for _ in range(rng.choice((1, 1, 3, 50))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    file.write_bytes(data)


def block_zeroed(folder: Path, rng: random.Random) -> None:
    """A block of a file is zero, as after a power failure."""
    file = _there(folder, _FILES, rng)
    if not _plain(file):
        return
    size = file.stat().st_size
    start = rng.randrange(size + 1)
    with file.open("r+b") as data:
        data.seek(start)
        data.write(bytes(min(4096, size - start)))


def text_binary(folder: Path, rng: random.Random) -> None:
    """A text file holds bytes that are no text."""
    file = _there(folder, _TEXT, rng)
    if _free(file):
        file.write_bytes(
            rng.choice((b"\xff\xfe{}", b"\x00" * 5000, rng.randbytes(3000), b"\xef\xbb\xbf{}\n"))
        )


def stamps_not_finite(folder: Path, rng: random.Random) -> None:
    """A stamp of a sample is not a number, or is far away."""
    file = folder / "stamps.f64"
    if not _plain(file) or file.stat().st_size < 8:
        return
    with file.open("r+b") as data:
        data.seek(8 * rng.randrange(file.stat().st_size // 8))
        data.write(
            struct.pack("<d", rng.choice((float("nan"), float("inf"), -1e308, 1e300, 1e12, -1e9, 0.0)))
        )


# Lines and the head.


def line_torn(folder: Path, rng: random.Random) -> None:
    """A line in the middle is only its beginning."""
    lines = _lines(folder)
    if lines:
        n = rng.randrange(len(lines))
        lines[n] = lines[n][: rng.randrange(len(lines[n]))] + b"\n"
        _write_lines(folder, lines)


def line_joined(folder: Path, rng: random.Random) -> None:
    """Two lines are one."""
    lines = _lines(folder)
    if lines:
        n = rng.randrange(len(lines))
        lines[n] = lines[n].rstrip(b"\n")
        _write_lines(folder, lines)


def line_gone(folder: Path, rng: random.Random) -> None:
    """A line is missing."""
    lines = _lines(folder)
    if lines:
        del lines[rng.randrange(len(lines))]
        _write_lines(folder, lines)


def line_twice(folder: Path, rng: random.Random) -> None:
    """A line stands there twice."""
    lines = _lines(folder)
    if lines:
        n = rng.randrange(len(lines))
        lines.insert(rng.randrange(len(lines)), lines[n])
        _write_lines(folder, lines)


def lines_shuffled(folder: Path, rng: random.Random) -> None:
    """Lines are out of order."""
    lines = _lines(folder)
    if rng.random() < 0.5:
        rng.shuffle(lines)
    elif len(lines) > 1:
        a, b = rng.sample(range(len(lines)), 2)
        lines[a], lines[b] = lines[b], lines[a]
    _write_lines(folder, lines)


def line_other(folder: Path, rng: random.Random) -> None:
    """A line is something else."""
    lines = _lines(folder)
    other = rng.choice(_OTHER_LINES)
    lines.insert(rng.randrange(len(lines) + 1), other + b"\n")
    _write_lines(folder, lines)


def line_key_gone(folder: Path, rng: random.Random) -> None:
    """A line lacks a key."""
    kind = rng.choice(("samples", "stamp", "shape"))
    _changed_line(folder, rng, lambda tree: tree.pop(rng.choice(list(tree))), kind)


def line_value_other(folder: Path, rng: random.Random) -> None:
    """A value of a line is of another type or size."""
    kind = rng.choice(("samples", "stamp", "shape"))
    _changed_line(folder, rng, lambda tree: tree.update({rng.choice(list(tree)): rng.choice(_VALUES)}), kind)


def line_number_other(folder: Path, rng: random.Random) -> None:
    """A number of a line is another one, of the same type."""

    def change(tree: dict[str, Any]) -> None:
        names = [name for name, value in tree.items() if type(value) in (int, float)]
        name = rng.choice(names)
        tree[name] = rng.choice(
            (-tree[name], tree[name] * 10, tree[name] + 1, tree[name] + 1000, type(tree[name])(0))
        )

    _changed_line(folder, rng, change, rng.choice(("samples", "stamp", "shape")))


def line_key_more(folder: Path, rng: random.Random) -> None:
    """A line has a key that is not known."""
    _changed_line(
        folder, rng, lambda tree: tree.update({rng.choice(("x", "schema", "")): rng.choice(_VALUES)})
    )


def line_key_twice(folder: Path, rng: random.Random) -> None:
    """A line has a key twice."""
    lines = _lines(folder)
    if lines:
        n = rng.randrange(len(lines))
        lines[n] = lines[n].replace(b'"arrived_at"', b'"arrived_at": 1e99, "arrived_at"', 1)
        _write_lines(folder, lines)


def chunk_size_other(folder: Path, rng: random.Random) -> None:
    """A line names another number of samples."""
    count = rng.choice((0, 1, 19, 21, 10**6, 10**9, -20, 2**62))
    _changed_line(folder, rng, lambda tree: tree.update(samples=count), "samples")


def volume_shape_other(folder: Path, rng: random.Random) -> None:
    """A line names another shape."""
    shape = rng.choice(
        ([2, 2, 2], [0, 4, 4], [-1, -1, 1], [2**40] * 3, [2**31, 2**31, 4], [64, 64], [10**5] * 3)
    )
    _changed_line(folder, rng, lambda tree: tree.update(shape=shape), "shape")


def volume_dtype_other(folder: Path, rng: random.Random) -> None:
    """A line names another type of voxels."""
    _changed_line(folder, rng, lambda tree: tree.update(dtype=rng.choice(_DTYPES)), "shape")


def volume_at_other(folder: Path, rng: random.Random) -> None:
    """A line names another place in the file of the voxels."""
    place = rng.choice((-5, -1, 1, 3, 10**6, 2**62, 2**64, 0.5))
    _changed_line(folder, rng, lambda tree: tree.update(at=place), "shape")


def montage_on_a_line(folder: Path, rng: random.Random) -> None:
    """A line changes the montage to one that cannot be."""
    montage = {"channels": ["a", "b"], "sfreq": 1000.0, "reference": "FCz", "kinds": ["eeg", "eeg"]}
    _spoil_montage(montage, rng)
    _changed_line(folder, rng, lambda tree: tree.update(montage=montage), "samples")


def head_key_gone(folder: Path, rng: random.Random) -> None:
    """The head lacks a key."""
    _changed_head(folder, lambda tree: tree.pop(rng.choice(list(tree))))


def head_value_other(folder: Path, rng: random.Random) -> None:
    """A value of the head is of another type or size."""
    _changed_head(folder, lambda tree: tree.update({rng.choice(list(tree)): rng.choice(_VALUES)}))


def head_key_more(folder: Path, rng: random.Random) -> None:
    """The head has a key that is not known."""
    _changed_head(folder, lambda tree: tree.update({rng.choice(("x", "", "files")): rng.choice(_VALUES)}))


def head_other(folder: Path, rng: random.Random) -> None:
    """The head is something else."""
    file = folder / "recording.json"
    if _free(file):
        other = (
            b"",
            b"[1]",
            b"null",
            b"{}",
            b"1",
            b"[" * 100_000,
            b'{"schema": 1}',
            b'{"schema": 1, "schema": 1}',
        )
        file.write_bytes(rng.choice(other))


def head_schema_other(folder: Path, rng: random.Random) -> None:
    """The head has another schema."""
    schema = rng.choice((2, 0, -1, 1.0, "1", None, True, [1], 10**30))
    _changed_head(folder, lambda tree: tree.update(schema=schema))


def head_montage_other(folder: Path, rng: random.Random) -> None:
    """The head has a montage that cannot be."""

    def change(tree: dict[str, Any]) -> None:
        if isinstance(tree.get("montage"), dict):
            _spoil_montage(tree["montage"], rng)

    _changed_head(folder, change)


def _spoil_montage(montage: dict[str, Any], rng: random.Random) -> None:
    channels = montage.get("channels")
    channels = channels if isinstance(channels, list) else []
    key = rng.choice(("channels", "sfreq", "reference", "kinds", "simulated"))
    change: list[Callable[[], Any]] = [
        lambda: montage.update({key: rng.choice(_VALUES)}),
        lambda: montage.pop(key, None),
        lambda: montage.update(channels=channels[:-1]),
        lambda: montage.update(channels=[*channels, "more"]),
        lambda: montage.update(channels=channels * 2),
        lambda: montage.update(channels=[str(n) for n in range(100_000)], kinds=[]),
        lambda: montage.update(sfreq=rng.choice((1e-9, 1e9, 1e300, 0, -1))),
        lambda: montage.update(kinds=["eeg"]),
        lambda: montage.update(more=1),
    ]
    rng.choice(change)()


def meta_other(folder: Path, rng: random.Random) -> None:
    """The head's `meta` has a value of another type or size."""
    names = ("simulated", "seconds", "dummies", "triggers_expected", "calibration", "calibration_digest")
    names += ("restarts", "unread", "bundle", "ended_at", "rested_at", "preset", "subject")

    def change(tree: dict[str, Any]) -> None:
        if isinstance(tree.get("meta"), dict):
            value = rng.choice((*_VALUES, [{}], [{"resumed_at": "x"}], [{"resumed_at": 1e300}]))
            tree["meta"][rng.choice(names)] = value

    _changed_head(folder, change)


# What lies where a file should be.


def folder_for_a_file(folder: Path, rng: random.Random) -> None:
    """A folder lies in place of a file."""
    _folder_at(_there(folder, _FILES, rng))


def pipe_for_a_file(folder: Path, rng: random.Random) -> None:
    """A named pipe lies in place of a file: opening it would wait for ever."""
    file = _there(folder, (*_FILES, "film.jsonl"), rng)
    if _free(file):
        os.mkfifo(file)


def link_for_a_file(folder: Path, rng: random.Random) -> None:
    """A link lies in place of a file: to nothing, to itself, to the folder, to a device."""
    file = _there(folder, _FILES, rng)
    if _free(file):
        file.symlink_to(rng.choice(("/no/such/file", file.name, ".", "/dev/zero", "/dev/null")))


# What lies beside it.


def film_other(folder: Path, rng: random.Random) -> None:
    """The markers of a film are damaged."""
    file = folder / "film.jsonl"
    if not _free(file):
        return
    label = rng.choice(_LABELS)
    mark: dict[str, Any] = {"stamp": 1.0, "label": label, "arrived_at": 1.0}
    change: list[Callable[[], Any]] = [
        lambda: mark.update({rng.choice(list(mark)): rng.choice(_VALUES)}),
        lambda: mark.pop(rng.choice(list(mark))),
        lambda: mark.update(more=1),
        lambda: None,
    ]
    rng.choice(change)()
    line = rng.choice((_dumped(mark), _dumped(mark), b"[", b"\xff", b"null", b""))
    before = b'{"stamp": 1.0, "label": "frame 1", "arrived_at": 1.0}\n'
    file.write_bytes(before + line + b"\n" + rng.choice((before, b"", b'{"sta')))


def truth_other(folder: Path, rng: random.Random) -> None:
    """The truth is damaged."""
    truth = folder / "truth"
    if not truth.is_dir():
        return
    file = truth / rng.choice(("events.tsv", "film.mp4"))
    if not _plain(file):
        return
    change: list[Callable[[], Any]] = [
        lambda: _cut(file, rng.randrange(file.stat().st_size + 1)),
        lambda: file.write_bytes(rng.randbytes(3000)),
        file.unlink,
        lambda: _folder_at(file),
    ]
    rng.choice(change)()


def calibration_other(folder: Path, rng: random.Random) -> None:
    """The calibration is damaged; one that holds nothing is put there where there is none."""
    calibration = folder / "calibration"
    calibration.mkdir(exist_ok=True)
    _changed_head(folder, _state_calibration)
    files = sorted(file for file in calibration.iterdir() if _plain(file))
    if not files:
        (calibration / "calibration.json").write_bytes(rng.choice((b"", b"{}", b"[", b"[1]", b"\xff")))
        return
    file = rng.choice(files)
    change: list[Callable[[], Any]] = [
        lambda: _cut(file, rng.randrange(file.stat().st_size + 1)),
        lambda: file.write_bytes(rng.randbytes(3000)),
        file.unlink,
        lambda: _folder_at(file),
        lambda: shutil.rmtree(calibration),
    ]
    rng.choice(change)()


def _state_calibration(tree: dict[str, Any]) -> None:
    if isinstance(tree.get("meta"), dict):
        tree["meta"]["calibration"] = "x"


KINDS: tuple[Damage, ...] = (
    *(data_cut, data_cut_a_little, data_empty, data_longer, all_cut, file_gone, lines_cut, lines_cut_whole),
    *(bytes_flipped, block_zeroed, text_binary, stamps_not_finite),
    *(line_torn, line_joined, line_gone, line_twice, lines_shuffled, line_other, line_key_gone),
    *(
        line_value_other,
        line_number_other,
        line_key_more,
        line_key_twice,
        chunk_size_other,
        volume_shape_other,
    ),
    *(volume_dtype_other, volume_at_other, montage_on_a_line),
    *(head_key_gone, head_value_other, head_key_more, head_other, head_schema_other, head_montage_other),
    *(meta_other, folder_for_a_file, pipe_for_a_file, link_for_a_file),
    *(film_other, truth_other, calibration_other),
)


def damaged(folder: Path, rng: random.Random) -> str:
    """Damage a recording in one way at random, and return the name of the way."""
    kind = rng.choice(KINDS)
    kind(folder, rng)
    return kind.__name__
