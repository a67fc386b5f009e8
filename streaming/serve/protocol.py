"""The messages between a session and a decoder elsewhere, read strictly.

A message has the form of those between the processes of a session (`streaming.session.mailbox`): the length
of its head, the head in JSON, and arrays. Every message names its kind and the version of this protocol.
`read` refuses whatever it does not know: a version, kind or key, a dtype, an array of a shape other than the
bundle's, a length that does not add up, numbers that are not finite, and masks that are no booleans. Nothing
in a message names a file or code.

| from the session | what |
|---|---|
| ``hello`` | begins a connection: release and session |
| ``window`` | a window, the time that it has, and the windows that it may carry on from |
| ``cancel`` | a window is not wanted any more |
| ``bye`` | the session has ended |

| from the decoder | what |
|---|---|
| ``welcome`` | answers ``hello``: release, the bundle's digest, what runs it, what clips cost |
| ``first``, ``rest`` | frames of the first turn of a clip, and the others |
| ``film`` | a part of the clip as MP4, in place of frames that would take more than 4 MB |
| ``done`` | latent, scores, durations, and the states for the next window; ends a window |
| ``skipped`` | the window was given up; ends it |
| ``failed`` | the window gave no clip; ends it |
| ``refused`` | the window was not taken; ends it |
| ``unknown`` | the decoder holds no states of the windows that it may carry on from: send it with them |
| ``closed`` | the last message before the decoder closes the connection, and why |
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from rtdecode import __version__
from rtdecode.bundle import Manifest, condition
from rtdecode.bundle.decisions import REVISIONS
from rtdecode.bundle.session import carried_bytes
from rtdecode.errors import RtDecodeError
from rtdecode.types import Array, Window
from streaming.message import LENGTH, Message, encode

VERSION = 1
# A message takes at most so many bytes, and its head so many.
MOST_BYTES = 16_000_000
_MOST_HEAD_BYTES = 65_536
# Of the states of a window: what may be carried, and what lists it.
MOST_CARRIED_BYTES = 8_000_000
_MOST_LISTED_BYTES = 16_384
# Frames of a clip that take more bytes go as MP4.
MOST_RAW_BYTES = 4_000_000
# A message takes so many bytes of an MP4, and an MP4 so many in all.
FILM_BYTES = 4_000_000
MOST_FILM_BYTES = 64_000_000
# Numbers in JSON are exact up to here.
_LARGEST = 2**53
_MOST_TEXT = 4096
_MOST_ITEMS = 1024
_SESSION = re.compile(r"[0-9a-f]{32}")

Check = Callable[[Any], bool]


class ProtocolError(RtDecodeError):
    """A message that does not follow the protocol."""

    reason = "a message came that is none of the protocol's"


class VersionError(ProtocolError):
    """A message of another version of the protocol."""

    exit_code = 4
    reason = "session and decoder speak different versions of their protocol"


@dataclass(frozen=True, slots=True)
class Shapes:
    """Shapes and dtypes of the arrays of one bundle's messages.

    Attributes
    ----------
    exact : dict
        Name -> shape.
    clip : tuple of int
        Frames of a clip, (frame, row, column, 3); a message has some of them.
    most_state_bytes : int
        States of a window take at most so many bytes.
    """

    exact: Mapping[str, tuple[int, ...]]
    clip: tuple[int, int, int, int]
    most_state_bytes: int

    @property
    def goes_as_film(self) -> bool:
        """Whether a clip goes as MP4, as its frames would take more than 4 MB."""
        return math.prod(self.clip) > MOST_RAW_BYTES

    @classmethod
    def of(cls, manifest: Manifest) -> "Shapes":
        """Return the shapes of a bundle's messages."""
        grid = manifest.grid
        exact: dict[str, tuple[int, ...]] = {}
        if manifest.eeg is not None:
            exact["eeg"] = (len(manifest.eeg.channels), grid.samples)
            exact["eeg_mask"] = (grid.samples,)
        if manifest.fmri is not None:
            exact["fmri"] = (grid.slots, manifest.fmri.voxels)
            exact["fmri_mask"] = (grid.slots,)
        exact["latent"] = tuple(manifest.latent or ())
        exact["condition"] = (len(condition.labels(manifest)),)
        clip = manifest.clip
        state_bytes = carried_bytes(manifest) + _MOST_LISTED_BYTES
        return cls(exact, (clip.frames, clip.height, clip.width, 3), state_bytes)


def write(message: Message) -> bytes:
    """Write a message, which gets the version of the protocol.

    Raises
    ------
    ProtocolError
        If it takes more than 16 MB.
    """
    raw = encode(replace(message, head={"version": VERSION, **message.head}))
    if len(raw) > MOST_BYTES:
        _refuse(f"a message of {len(raw)} bytes", f"at most {MOST_BYTES}")
    return raw


def read(raw: bytes | str, kinds: Mapping[str, "Form"], shapes: Shapes | None = None) -> Message:
    """Read a message.

    Parameters
    ----------
    raw : bytes
        The message as it came; a text is refused.
    kinds : dict
        The kinds that may come: `FROM_SESSION` or `FROM_DECODER`.
    shapes : Shapes, optional
        Those of the bundle; without them no message with arrays is read.

    Raises
    ------
    VersionError
        If it has another version.
    ProtocolError
        If it is none of the protocol's.
    """
    if isinstance(raw, str):
        _refuse("text", "a binary message")
    if len(raw) > MOST_BYTES:
        _refuse(f"a message of {len(raw)} bytes", f"at most {MOST_BYTES}")
    if len(raw) < LENGTH.size:
        _refuse(f"{len(raw)} bytes", "the length of a head and more")
    (length,) = LENGTH.unpack_from(raw)
    start = LENGTH.size + length
    if length > _MOST_HEAD_BYTES or start > len(raw):
        _refuse(f"a head of {length} bytes in a message of {len(raw)}", f"at most {_MOST_HEAD_BYTES}")
    tree = _parsed(raw[LENGTH.size : start])
    if not _is_tree(tree):
        _refuse("a head that is no object", "one with head and arrays")
    head = tree["head"]
    _check_version(head)
    kind = head.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        _refuse(f"the kind {str(kind)[:40]!r}", ", ".join(kinds))
    form = kinds[kind]
    _check_head(kind, head, form.keys)
    arrays = _arrays(memoryview(raw), start, tree["arrays"], kind, form.arrays, shapes)
    if absent := [name for name in form.required if name not in arrays]:
        _refuse(f"a '{kind}' without {', '.join(absent)}", "it")
    for signal in ("eeg", "fmri"):
        if (signal in arrays) != (f"{signal}_mask" in arrays):
            _refuse(f"one of '{signal}' and '{signal}_mask'", "both or neither")
    return Message(head, arrays)


def pack_window(window: Window, session: str, number: int, **keys: Any) -> Message:
    """Make the message of a window: what a decoder reads of it, and no time of the session's clock.

    Parameters
    ----------
    window : Window
        The window to be decoded elsewhere.
    session : str
        Random name of the session.
    number : int
        Its number in the session.
    **keys
        The other keys of a ``window``.
    """
    names = ("eeg", "eeg_mask", "fmri", "fmri_mask")
    arrays: dict[str, Array] = {}
    for name in names:
        if getattr(window, name.removesuffix("_mask")) is not None:
            arrays[name] = getattr(window, name)
    head = {"run": window.run, "index": window.index, "revision": window.revision}
    return Message({"kind": "window", "session": session, "number": number, **head, **keys}, arrays)


def unpack_window(message: Message, manifest: Manifest) -> Window:
    """Make the window of a ``window`` message that was read.

    Values that are not finite are holes, as in a session: they become zero, and a sample or volume that has
    no finite value is masked.
    """
    head = message.head
    grid = manifest.grid
    start_s = float(head["index"] * grid.hop)
    eeg, eeg_mask = _with_holes(message.arrays, "eeg", 0, grid.samples)
    fmri, fmri_mask = _with_holes(message.arrays, "fmri", 1, grid.slots)
    return Window(
        run=head["run"],
        index=head["index"],
        start_s=start_s,
        stop_s=start_s + float(grid.window),
        session_s=start_s,
        revision=head["revision"],
        eeg=eeg,
        eeg_mask=eeg_mask,
        fmri=fmri,
        fmri_mask=fmri_mask,
        fmri_expected=fmri_mask,
        floor_at=0.0,
    )


@dataclass(frozen=True, slots=True)
class Form:
    """What a kind of message consists of.

    Attributes
    ----------
    keys : dict
        Key of the head -> whether a value of it is valid. All of them have to be there, and no other.
    arrays : dict
        Name -> the dtypes that it may have. Those in `required` have to be there.
    required : tuple of str
        Names of the arrays that have to be there.
    """

    keys: Mapping[str, Check]
    arrays: Mapping[str, tuple[str, ...]]
    required: tuple[str, ...] = ()


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _LARGEST


def _is_duration(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_text(value: Any) -> bool:
    return type(value) is str and len(value) <= _MOST_TEXT


def _is_session(value: Any) -> bool:
    return type(value) is str and _SESSION.fullmatch(value) is not None


def _is_revision(value: Any) -> bool:
    return type(value) is str and value in REVISIONS


def _is_none_or(check: Check, value: Any) -> bool:
    return value is None or check(value)


def _is_list_of(check: Check, value: Any) -> bool:
    return type(value) is list and len(value) <= _MOST_ITEMS and all(map(check, value))


def _is_row_of(length: int, check: Check, value: Any) -> bool:
    return type(value) is list and len(value) == length and all(map(check, value))


def _is_dict_of(check: Check, value: Any) -> bool:
    is_dict = type(value) is dict and len(value) <= _MOST_ITEMS
    return is_dict and all(_is_text(key) and check(item) for key, item in value.items())


def _is_call(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and _is_text(value[0]) and _is_duration(value[1])


def _maybe(check: Check) -> Check:
    return partial(_is_none_or, check)


_STATES = {"states": ("|u1",)}
_FRAMES = Form({"number": _is_count}, {"frames": ("|u1",)}, ("frames",))
# What a session sends.
FROM_SESSION: Mapping[str, Form] = {
    "hello": Form({"release": _is_text, "session": _is_session}, {}),
    "window": Form(
        {
            "session": _is_session,
            "number": _is_count,
            "run": _is_count,
            "index": _is_count,
            "revision": _is_revision,
            # Seconds from when it was sent; null for a window without a deadline.
            "left_s": _maybe(_is_duration),
            # Null for those of the bundle.
            "steps": _maybe(_is_count),
            "detail": _maybe(_is_share),
            "null": _is_flag,
            "condition": _is_flag,
            # Numbers of windows, the best first. With states they are those of the first.
            "carry_from": partial(_is_list_of, _is_count),
        },
        {"eeg": ("<f4",), "eeg_mask": ("|b1",), "fmri": ("<f4",), "fmri_mask": ("|b1",), **_STATES},
    ),
    "cancel": Form({"session": _is_session, "number": _is_count}, {}),
    "bye": Form({"session": _is_session}, {}),
}
# What a decoder sends.
FROM_DECODER: Mapping[str, Form] = {
    "welcome": Form(
        {
            "release": _is_text,
            "bundle": _is_text,
            "digest": _is_text,
            "runs_on": partial(_is_dict_of, _is_text),
            "notes": partial(_is_list_of, _is_text),
            # Encoding, a step, and drawing, s.
            "cost_s": partial(_is_row_of, 3, _is_duration),
        },
        {},
    ),
    "first": _FRAMES,
    "rest": _FRAMES,
    "film": Form({"number": _is_count}, {"film": ("|u1",)}, ("film",)),
    "done": Form(
        {
            "number": _is_count,
            "steps": _is_count,
            "detail": _maybe(_is_share),
            "carried_from": _maybe(_is_count),
            "confidence": _maybe(_is_share),
            "presence": _maybe(partial(_is_row_of, 3, _is_share)),
            "brain_by": _maybe(partial(_is_dict_of, _maybe(_is_share))),
            "scores": _maybe(partial(_is_dict_of, _is_share)),
            "recorded": partial(_is_dict_of, partial(_is_list_of, _is_number)),
            "calls": partial(_is_list_of, _is_call),
            # From when the window came, s: begun, encoded, denoised, first and last frame, and sent.
            "times_s": partial(_is_row_of, 6, _is_duration),
            "denoising_s": _is_duration,
            # What was wrong with the states that came with the window, which then started afresh.
            "note": _maybe(_is_text),
        },
        {"latent": ("<f2", "<f4", "<f8"), "condition": ("<f4",), **_STATES},
        ("latent",),
    ),
    "skipped": Form({"number": _is_count, "why": _is_text}, {}),
    "failed": Form({"number": _is_count, "message": _is_text}, {}),
    "refused": Form({"number": _is_count, "message": _is_text}, {}),
    "unknown": Form({"number": _is_count}, {}),
    "closed": Form({"release": _is_text, "code": _is_text, "message": _is_text, "exit_code": _is_count}, {}),
}


def _refuse(actual: str, expected: str) -> NoReturn:
    raise ProtocolError(
        "serve-message-invalid",
        "a message is refused: received {received}, expected {expected}.",
        received=actual,
        expected=expected,
    )


def _parsed(raw: bytes) -> Any:
    """Read JSON without what it may not have: numbers that are not finite, and keys that come twice."""
    try:
        return json.loads(
            raw,
            parse_constant=_not_finite,
            parse_float=_finite,
            parse_int=_whole,
            object_pairs_hook=_once,
        )
    except (ValueError, RecursionError) as error:
        raise ProtocolError(
            "serve-message-invalid",
            "a message is refused: received {received}, expected {expected}.",
            received=f"a head that cannot be read ({type(error).__name__})",
            expected="JSON with finite numbers, and every key once",
        ) from error


def _not_finite(text: str) -> NoReturn:
    raise ValueError(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _whole(text: str) -> int:
    value = int(text)
    if abs(value) > _LARGEST:
        raise ValueError(text[:40])
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        raise ValueError("a key comes twice")
    return tree


def _is_tree(tree: Any) -> bool:
    return (
        type(tree) is dict
        and tree.keys() == {"head", "arrays"}
        and type(tree["head"]) is dict
        and type(tree["arrays"]) is list
    )


def _check_version(head: Mapping[str, Any]) -> None:
    version = head.get("version")
    if version == VERSION and type(version) is int:
        return
    # Only beginnings say what release they are of.
    release = head.get("release")
    raise VersionError(
        "serve-version-mismatch",
        "the other side, {release}, speaks version {version} of the protocol, and this one, release "
        "{own_release}, speaks version {expected}. Install the same release on both machines.",
        release=f"release {release[:40]}" if isinstance(release, str) else "of an unknown release",
        own_release=__version__,
        version=str(version)[:40],
        expected=VERSION,
    )


def _check_head(kind: str, head: Mapping[str, Any], keys: Mapping[str, Check]) -> None:
    expected = {"version", "kind", *keys}
    if head.keys() != expected:
        extra = sorted(name[:40] for name in head.keys() - expected)
        absent = sorted(expected - head.keys())
        _refuse(f"a '{kind}' with the keys {extra} and without {absent}", ", ".join(sorted(expected)))
    for name, check in keys.items():
        if not check(head[name]):
            _refuse(f"{name} {str(head[name])[:40]!r} of a '{kind}'", "a value that it can have")


def _arrays(
    raw: memoryview,
    start: int,
    entries: list[Any],
    kind: str,
    dtypes: Mapping[str, tuple[str, ...]],
    shapes: Shapes | None,
) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for entry in entries:
        name, dtype, shape = _entry(entry, kind, dtypes)
        if name in arrays:
            _refuse(f"'{name}' twice in a '{kind}'", "every array once")
        if shapes is None:
            _refuse(f"a '{kind}' before its bundle is known", "messages without arrays")
        _check_shape(name, tuple(shape), shapes)
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if start + size > len(raw):
            _refuse(f"{len(raw) - start} bytes for '{name}'", f"{size}")
        arrays[name] = _values(raw[start : start + size], name, dtype, shape)
        start += size
    if start != len(raw):
        _refuse(f"{len(raw) - start} bytes after the last array", "none")
    return arrays


def _entry(entry: Any, kind: str, dtypes: Mapping[str, tuple[str, ...]]) -> tuple[str, str, list[int]]:
    if type(entry) is not list or len(entry) != 3:
        _refuse(f"the array {str(entry)[:80]}", "its name, dtype and shape")
    name, dtype, shape = entry
    if not isinstance(name, str) or name not in dtypes:
        _refuse(f"the array {str(name)[:40]!r} in a '{kind}'", ", ".join(dtypes) or "none")
    if not isinstance(dtype, str) or dtype not in dtypes[name]:
        _refuse(f"'{name}' of dtype {str(dtype)[:40]!r}", " or ".join(dtypes[name]))
    if not _is_list_of(_is_count, shape):
        _refuse(f"'{name}' of shape {str(shape)[:80]}", "whole numbers")
    return name, dtype, shape


def _check_shape(name: str, shape: tuple[int, ...], shapes: Shapes) -> None:
    if name == "frames":
        count, *size = shapes.clip
        if not (len(shape) == 4 and 1 <= shape[0] <= count and list(shape[1:]) == size):
            _refuse(f"frames of shape {shape}", f"at most {shapes.clip}")
    elif name == "film":
        if not (len(shape) == 1 and 1 <= shape[0] <= FILM_BYTES):
            _refuse(f"a part of a film of shape {shape}", f"1 to {FILM_BYTES} bytes")
    elif name == "states":
        if not (len(shape) == 1 and shape[0] <= shapes.most_state_bytes):
            _refuse(f"states of shape {shape}", f"at most {shapes.most_state_bytes} bytes")
    elif name not in shapes.exact:
        _refuse(f"'{name}'", f"{', '.join(shapes.exact)}, which the bundle has")
    elif shape != shapes.exact[name]:
        _refuse(f"'{name}' of shape {shape}", f"{shapes.exact[name]}")


def _values(raw: memoryview, name: str, dtype: str, shape: list[int]) -> NDArray[Any]:
    # Copied, because what a message was received in may be used again, and graphs want aligned values.
    values = np.frombuffer(raw, dtype).reshape(shape).copy()
    if dtype == "|b1":
        if values.view(np.uint8).max(initial=0) > 1:
            _refuse(f"bytes other than 0 and 1 in '{name}'", "booleans")
    # Of signals, values that are not finite are holes.
    elif name not in ("eeg", "fmri") and not np.isfinite(values).all():
        _refuse(f"values of '{name}' that are not finite", "finite ones")
    return values


def _with_holes(
    arrays: Mapping[str, Array], name: str, axis: int, length: int
) -> tuple[NDArray[Any] | None, NDArray[np.bool_]]:
    """Return a signal without values that are not finite, and the mask of its samples or volumes."""
    if name not in arrays:
        return None, np.zeros(length, bool)
    values = arrays[name]
    finite = np.isfinite(values)
    mask = np.asarray(arrays.get(f"{name}_mask", np.ones(length, bool)), np.bool_)
    return np.where(finite, values, np.float32(0)), mask & finite.any(axis=axis)
