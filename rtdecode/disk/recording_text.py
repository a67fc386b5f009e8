"""What the text files of a recording may say: the fields of its head and lines, and what each may hold.

Everything that is read from ``recording.json``, ``events.jsonl`` and ``film.jsonl`` comes through here.
Fields of the wrong type or size, or that are missing, are errors that name file, line and field. Fields that
are not known are passed over: a later version may write them. `UnknownKeys` gathers their names.
"""

import json
import math
import os
import reprlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from rtdecode.disk.regular import open_regular
from rtdecode.errors import RecordingError
from rtdecode.types import Montage

# Beyond this a float cannot tell neighbouring whole numbers apart.
_LARGEST = 2**53
# More than any session has: of one chunk, of one run and of one stream.
_MOST_SAMPLES = 2**24
_MOST_VOLUMES = 2**20
_MOST_CHANNELS = 2**12
_FASTEST_HZ = 2.0**20
_LONGEST_TEXT = 2**12
# Bytes: of the head, of a line (a montage of the most channels), and of a chunk or a volume.
_LONGEST_HEAD = 2**24
_LONGEST_LINE = 2**21
_LARGEST_ITEM = 2**30
_SAMPLE_BYTES = np.dtype(np.float32).itemsize
_SIZES = {"b": "1", "i": "1248", "u": "1248", "f": "248"}
_DTYPES = frozenset(
    f"{order}{kind}{size}" for order in "<>|=" for kind, sizes in _SIZES.items() for size in sizes
)


@dataclass(frozen=True, slots=True)
class Value:
    """What a field may hold.

    Attributes
    ----------
    expected : str
        In words, for messages.
    fits : callable
        Whether a JSON value is such a one.
    required : bool
        Whether the field has to be there.
    """

    expected: str
    fits: Callable[[Any], bool]
    required: bool = True

    def optional(self) -> "Value":
        """Return the same for a field that may be absent."""
        return Value(self.expected, self.fits, required=False)

    def or_null(self) -> "Value":
        """Return the same for a field that may be null."""
        return Value(f"{self.expected}, or null", lambda value: value is None or self.fits(value))


class Form:
    """The fields of an object."""

    def __init__(self, **values: Value) -> None:
        self.values = values
        self._required = frozenset(name for name, value in values.items() if value.required)

    def fault(self, tree: Any) -> str | None:
        """Say what is wrong with an object; None if nothing is."""
        if not isinstance(tree, dict):
            return f"an object was expected, found {reprlib.repr(tree)}"
        for name, value in tree.items():
            allowed = self.values.get(name)
            if allowed is not None and not allowed.fits(value):
                return f"{name} must be {allowed.expected}, found {reprlib.repr(value)}"
        if not self._required <= tree.keys():
            return f"{', '.join(sorted(self._required - tree.keys()))} is missing"
        return None


def _whole_number(low: int, high: int) -> Value:
    expected = f"a whole number from {low} to {high}"
    # In Python, true and false are integers too.
    return Value(expected, lambda value: type(value) is int and low <= value <= high)


def _is_number(value: Any) -> bool:
    # Comparisons with NaN are false.
    return type(value) in (int, float) and -_LARGEST <= value <= _LARGEST


def _is_text(value: Any) -> bool:
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        return False
    # Half of a surrogate pair can neither be printed nor written.
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def _list_of(fits: Callable[[Any], bool], length: int | None = None) -> Callable[[Any], bool]:
    def fit(value: Any) -> bool:
        sized = isinstance(value, list) and (
            len(value) <= _MOST_CHANNELS if length is None else len(value) == length
        )
        return sized and all(map(fits, value))

    return fit


_NUMBER = Value("a number", _is_number)
_FLAG = Value("true or false", lambda value: isinstance(value, bool))
_TEXT = Value(f"text of at most {_LONGEST_TEXT} characters", _is_text)
_SIZE = Value("a whole number from 1 to 65536", _whole_number(1, 2**16).fits)
_TEXTS = Value(f"a list of at most {_MOST_CHANNELS} short texts", _list_of(_is_text))

MONTAGE = Form(
    channels=_TEXTS,
    sfreq=Value(
        f"a positive number up to {_FASTEST_HZ:g}", lambda hz: _is_number(hz) and 0 < hz <= _FASTEST_HZ
    ),
    reference=_TEXT,
    # Recordings of earlier versions state neither kinds nor whether the participant is simulated.
    kinds=_TEXTS.optional(),
    simulated=_FLAG.optional(),
)
_MONTAGE = Value("a montage", lambda tree: isinstance(tree, dict))

HEAD = Form(
    schema=_whole_number(-_LARGEST, _LARGEST),
    montage=_MONTAGE.or_null(),
    meta=Value("an object", lambda tree: isinstance(tree, dict)),
)

# Anything else may stand in `meta` too: nothing that reads a recording depends on it.
META = Form(
    simulated=_FLAG.optional(),
    seconds=Value("a positive number", lambda value: _is_number(value) and value > 0).or_null().optional(),
    dummies=_whole_number(0, _MOST_VOLUMES).optional(),
    triggers_expected=_FLAG.optional(),
    calibration=_TEXT.or_null().optional(),
    calibration_digest=_TEXT.or_null().optional(),
    restarts=Value(
        "a list of objects with resumed_at, a time",
        lambda value: (
            isinstance(value, list)
            and all(isinstance(restart, dict) and _is_number(restart.get("resumed_at")) for restart in value)
        ),
    ).optional(),
    unread=_FLAG.optional(),
    bundle=_TEXT.optional(),
    ended_at=_NUMBER.optional(),
    rested_at=_NUMBER.or_null().optional(),
)

CHUNK = Form(
    samples=_whole_number(0, _MOST_SAMPLES),
    arrived_at=_NUMBER,
    live=_FLAG.optional(),
    clock_at=_NUMBER.or_null().optional(),
    source=_whole_number(0, 2**31).optional(),
    montage=_MONTAGE.optional(),
)

# JSON has no NaN: a number that was not finite was written as null.
TRIGGER = Form(
    stamp=_NUMBER.or_null(),
    label=_TEXT,
    arrived_at=_NUMBER,
    clock_at=_NUMBER.or_null().optional(),
)

VOLUME = Form(
    index=_whole_number(0, _MOST_VOLUMES),
    series=_whole_number(-_LARGEST, _LARGEST),
    tr_s=_NUMBER.or_null(),
    acquired_s=_NUMBER.or_null(),
    recon_s=_NUMBER.or_null(),
    readable_at=_NUMBER,
    arrived_at=_NUMBER,
    parsed_at=_NUMBER,
    name=_TEXT.optional(),
    uid=_TEXT.optional(),
    simulated=_FLAG.optional(),
    clock_at=_NUMBER.or_null().optional(),
    shape=Value("three whole numbers from 1 to 65536", _list_of(_SIZE.fits, 3)),
    dtype=Value("a type of numbers such as '<i2'", lambda value: isinstance(value, str) and value in _DTYPES),
    at=_whole_number(0, 2**62),
    affine=Value("a 4 x 4 matrix", _list_of(_list_of(_NUMBER.or_null().fits, 4), 4)),
)

MARK = Form(stamp=_NUMBER.or_null(), label=_TEXT, arrived_at=_NUMBER)


@dataclass(slots=True)
class UnknownKeys:
    """Names of fields that were passed over, by the file that held them."""

    names: dict[str, set[str]] = field(default_factory=dict)

    def without(self, file: str, form: Form, tree: dict[str, Any]) -> dict[str, Any]:
        """Return an object without the fields that its form does not have, and note these."""
        if tree.keys() <= form.values.keys():
            return tree
        self.names.setdefault(file, set()).update(tree.keys() - form.values.keys())
        return {name: value for name, value in tree.items() if name in form.values}

    def sentences(self) -> list[str]:
        """Say for each file what was passed over."""
        return [
            f"{file} has fields that this version does not know and passes over: "
            f"{', '.join(reprlib.repr(name) for name in sorted(names)[:8])}."
            for file, names in sorted(self.names.items())
        ]


def parsed(text: bytes) -> Any:
    """Read strict JSON, in UTF-8, without names that stand twice.

    Raises
    ------
    ValueError
        Also for what is nested too deeply.
    """
    try:
        return _DECODER.decode(text.decode())
    except UnicodeDecodeError as error:
        raise ValueError("it is not text in UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error.msg}, character {error.pos})") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return tree


def _not_json(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


# One decoder for all lines: `json.loads` would make one for each.
_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_not_json)


def montage_of(tree: dict[str, Any], unknown: UnknownKeys, file: str) -> Montage:
    """Make a montage of its fields.

    Raises
    ------
    ValueError
        If they make none.
    """
    if fault := MONTAGE.fault(tree):
        raise ValueError(f"montage: {fault}")
    values = unknown.without(file, MONTAGE, tree)
    channels = tuple(values["channels"])
    kinds = tuple(values.get("kinds") or ())
    return Montage(channels, values["sfreq"], values["reference"], kinds, bool(values.get("simulated")))


def chunk_bytes(samples: int, channels: int) -> int:
    """Return the size of a chunk's samples, bytes.

    Raises
    ------
    ValueError
        If no chunk is as large.
    """
    size = samples * channels * _SAMPLE_BYTES
    if size > _LARGEST_ITEM:
        raise ValueError(f"{samples} samples of {channels} channels are more than any chunk has")
    return size


def volume_bytes(line: dict[str, Any]) -> int:
    """Return the size of a volume's voxels, bytes.

    Raises
    ------
    ValueError
        If no volume is as large.
    """
    size = math.prod(line["shape"]) * np.dtype(line["dtype"]).itemsize
    if size > _LARGEST_ITEM:
        raise ValueError(f"shape {line['shape']} of {line['dtype']} is larger than any volume")
    return size


def opened(path: Path) -> IO[bytes]:
    """Open a file of a recording to read it.

    Raises
    ------
    RecordingError
        If it cannot be opened or is no file. A named pipe, which would wait for ever, is none.
    """
    try:
        return open_regular(path)
    except OSError as error:
        raise RecordingError(
            "recording-file-unreadable",
            "{path} cannot be read ({error}). Copy the recording again from where it was made.",
            path=path,
            error=error.strerror or error,
        ) from error


def size_of(path: Path) -> int:
    """Return the size of a data file, bytes; 0 if there is none.

    Raises
    ------
    RecordingError
        If something else lies there, or it cannot be read.
    """
    if not path.exists() and not path.is_symlink():
        return 0
    with opened(path) as file:
        return os.fstat(file.fileno()).st_size


def head_bytes(path: Path) -> bytes:
    """Read ``recording.json``.

    Raises
    ------
    RecordingError
    """
    with opened(path) as file:
        text = file.read(_LONGEST_HEAD + 1)
    if len(text) > _LONGEST_HEAD:
        raise head_fault(path, f"it has more than {_LONGEST_HEAD} bytes")
    return text


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield number and text of each line; a last one without its end was torn and is left out.

    Raises
    ------
    RecordingError
        If the file cannot be read, or a line is longer than any.
    """
    with opened(path) as file:
        number = 0
        while text := file.readline(_LONGEST_LINE):
            number += 1
            if text.endswith(b"\n"):
                yield number, text
            elif len(text) == _LONGEST_LINE:
                raise line_fault(path, number, f"it has {_LONGEST_LINE} bytes or more")


def head_fault(path: Path, fault: str) -> RecordingError:
    """Make the error for a head that no recording can have."""
    return RecordingError(
        "recording-head-invalid",
        "{path} is damaged: {fault}. Copy the recording again from where it was made.",
        path=path,
        fault=fault,
    )


def line_fault(path: Path, number: int, fault: str) -> RecordingError:
    """Make the error for a line that no recording can have."""
    return RecordingError(
        "recording-line-invalid",
        "{path}, line {line} is damaged: {fault}. Copy the recording again from where it was made.",
        path=path,
        line=number,
        fault=fault,
    )
