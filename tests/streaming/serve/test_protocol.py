"""Messages are read as they were written, and nothing else is read."""

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from rtdecode import __version__
from rtdecode.bundle import Bundle
from streaming.message import Message, encode
from streaming.serve.protocol import (
    FROM_DECODER,
    FROM_SESSION,
    MOST_BYTES,
    Form,
    ProtocolError,
    Shapes,
    VersionError,
    read,
    unpack_window,
    write,
)
from tests.refusals import refused
from tests.streaming.bundles import make_bundle
from tests.streaming.serve.messages import SESSION, SHAPES, a_window, from_decoder, from_session
from tests.streaming.windows import window

ROOT = Path(__file__).parents[3]
# What messages and states go through.
WAY = (
    "rtdecode/bundle/session.py",
    "streaming/session/mailbox.py",
    "streaming/decode/decoder.py",
    "streaming/decode/scheduler.py",
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("protocol") / "bundle", steps=4)


def both_ways() -> list[tuple[Message, Mapping[str, Form]]]:
    session_messages = [(message, FROM_SESSION) for message in from_session().values()]
    return [*session_messages, *((message, FROM_DECODER) for message in from_decoder().values())]


def edited(message: Message, head: dict | None = None, arrays: dict | None = None, version: int = 1) -> bytes:
    """Write a message with other keys and arrays, whatever the protocol says of them."""
    tree = {"version": version, **message.head, **(head or {})}
    tree = {key: value for key, value in tree.items() if value is not ...}
    return encode(Message(tree, message.arrays | (arrays or {})))


def raw(tree: object, payload: bytes = b"") -> bytes:
    text = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
    return struct.pack("<I", len(text)) + text + payload


def test_every_kind_is_read_as_it_was_written() -> None:
    assert from_session().keys() == FROM_SESSION.keys()
    assert from_decoder().keys() == FROM_DECODER.keys()
    for message, kinds in both_ways():
        received = read(write(message), kinds, SHAPES)
        assert received.head == {"version": 1, **message.head}
        assert received.arrays.keys() == message.arrays.keys()
        for name, array in message.arrays.items():
            assert received.arrays[name].dtype == array.dtype
            assert np.array_equal(received.arrays[name], array)
            assert received.arrays[name].flags.writeable


def test_the_shapes_are_the_bundles(bundle: Bundle) -> None:
    assert Shapes.of(bundle.manifest).exact == SHAPES.exact
    assert Shapes.of(bundle.manifest).clip == SHAPES.clip


def test_arrays_have_no_dtype_but_these_six() -> None:
    allowed = {
        dtype
        for form in (*FROM_SESSION.values(), *FROM_DECODER.values())
        for dtypes in form.arrays.values()
        for dtype in dtypes
    }
    assert allowed <= {"<f2", "<f4", "<f8", "<i8", "|b1", "|u1"}


def test_a_window_arrives_without_times_of_the_sessions_clock(bundle: Bundle) -> None:
    sent = window(3, "preview", fmri=False)
    message = read(write(a_window(revision="preview")), FROM_SESSION, SHAPES)
    assert not {"stamps", "floor_at", "session_s"} & message.head.keys()
    received = unpack_window(message, bundle.manifest)
    assert (received.run, received.index, received.revision) == (0, 3, "preview")
    assert np.array_equal(received.eeg, sent.eeg)  # type: ignore[arg-type]
    assert received.stamps == {}


def test_a_window_of_one_modality_arrives_as_it_is(bundle: Bundle) -> None:
    message = a_window()
    arrays = {name: array for name, array in message.arrays.items() if name.startswith("eeg")}
    received = unpack_window(
        read(write(Message(message.head, arrays)), FROM_SESSION, SHAPES), bundle.manifest
    )
    assert received.fmri is None
    assert received.modalities == ["eeg"]
    assert received.fmri_mask.shape == (5,)
    assert not received.fmri_mask.any()


def test_values_of_signals_that_are_no_numbers_are_holes(bundle: Bundle) -> None:
    message = a_window()
    eeg = message.arrays["eeg"].copy()
    eeg[:, 7] = np.nan
    eeg[1, 9] = np.inf
    fmri = message.arrays["fmri"].copy()
    fmri[2] = np.nan
    raw_message = write(Message(message.head, message.arrays | {"eeg": eeg, "fmri": fmri}))
    received = unpack_window(read(raw_message, FROM_SESSION, SHAPES), bundle.manifest)
    assert received.eeg is not None
    assert received.fmri is not None
    assert np.isfinite(received.eeg).all()
    assert np.flatnonzero(~received.eeg_mask).tolist() == [7]
    assert received.eeg[1, 9] == 0
    assert np.flatnonzero(~received.fmri_mask).tolist() == [2]
    assert not received.fmri[2].any()


BAD_WINDOWS = {
    "another kind": {"kind": "clip"},
    "a kind of the other side": {"kind": "done"},
    "no kind": {"kind": ...},
    "a key that is not known": {"file": "/etc/passwd"},
    "a key that is missing": {"index": ...},
    "no session's name": {"session": "../" + SESSION[3:]},
    "a negative number": {"number": -1},
    "a number that is no whole one": {"number": 1.5},
    "a flag for a number": {"run": True},
    "a large number": {"index": 2**53 + 1},
    "negative time left": {"left_s": -0.1},
    "text for a time": {"left_s": "1"},
    "time left that is not a number": {"left_s": float("nan")},
    "endless time left": {"left_s": float("inf")},
    "a revision that is not known": {"revision": "latest"},
    "a revision that is no text": {"revision": ["final"]},
    "more than all detail": {"detail": 1.1},
    "negative steps": {"steps": -4},
    "a number for a flag": {"null": 0},
    "windows that are no list": {"carry_from": {"0": 1}},
    "windows that are no numbers": {"carry_from": ["final"]},
    "too many windows": {"carry_from": [0] * 1025},
}


@pytest.mark.parametrize("name", BAD_WINDOWS)
def test_a_window_with_a_bad_head_is_refused(name: str) -> None:
    with refused(ProtocolError, "serve-message-invalid"):
        read(edited(a_window(), BAD_WINDOWS[name]), FROM_SESSION, SHAPES)


@pytest.mark.parametrize(
    "changes", [{"times_s": [0.1] * 5}, {"presence": [0.5, 0.5]}, {"times_s": [-1.0] * 6}]
)
def test_a_clip_with_too_few_times_or_probabilities_is_refused(changes: dict) -> None:
    with refused(ProtocolError, "serve-message-invalid"):
        read(edited(from_decoder()["done"], changes), FROM_DECODER, SHAPES)


BAD_ARRAYS = {
    "another shape": {"eeg": np.zeros((4, 499), np.float32)},
    "one axis more": {"eeg": np.zeros((1, 4, 500), np.float32)},
    "another dtype": {"eeg": np.zeros((4, 500))},
    "objects": {"eeg": np.zeros((4, 500), np.dtype([("a", "<f4")]))},
    "a mask of numbers": {"eeg_mask": np.ones(500, np.float32)},
    "an array that is not known": {"frames": np.zeros((1, 64, 96, 3), np.uint8)},
    "too many states": {"states": np.zeros(5000, np.uint8)},
    "states that are no bytes": {"states": np.zeros(8, np.float32)},
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_a_window_with_bad_arrays_is_refused(name: str) -> None:
    with refused(ProtocolError, "serve-message-invalid"):
        read(edited(a_window(), arrays=BAD_ARRAYS[name]), FROM_SESSION, SHAPES)


def test_a_signal_comes_with_its_mask() -> None:
    message = a_window()
    for name in ("eeg", "eeg_mask", "fmri"):
        arrays = {key: array for key, array in message.arrays.items() if key != name}
        with refused(ProtocolError, "serve-message-invalid", expected="both or neither"):
            read(write(Message(message.head, arrays)), FROM_SESSION, SHAPES)


def test_what_a_decoder_sends_is_finite_and_whole() -> None:
    done = from_decoder()["done"]
    latent = done.arrays["latent"].copy()
    latent[0, 0, 0, 0, 0] = np.nan
    for arrays in ({"latent": latent}, {"condition": np.zeros(4, np.float32)}):
        with refused(ProtocolError, "serve-message-invalid"):
            read(edited(done, arrays=arrays), FROM_DECODER, SHAPES)
    with refused(ProtocolError, "serve-message-invalid", received="a 'done' without latent"):
        read(write(Message(done.head, {})), FROM_DECODER, SHAPES)
    first = from_decoder()["first"]
    for shape in ((0, 64, 96, 3), (34, 64, 96, 3), (1, 64, 97, 3), (64, 96, 3)):
        with refused(ProtocolError, "serve-message-invalid"):
            read(edited(first, arrays={"frames": np.zeros(shape, np.uint8)}), FROM_DECODER, SHAPES)
    for head in ({"confidence": 2}, {"calls": [["encode"]]}, {"scores": [1]}, {"presence": [0.5, None]}):
        with refused(ProtocolError, "serve-message-invalid"):
            read(edited(done, head), FROM_DECODER, SHAPES)


def test_bytes_that_are_no_message_are_refused() -> None:
    intact = write(a_window())
    head = {"version": 1, "kind": "bye", "session": SESSION}
    twice = b'{"head": {"version": 1, "kind": "bye", "session": "0", "session": "1"}, "arrays": []}'
    entry = ["eeg", "<f4", [4, 500]]
    window_head = json.loads(intact[4 : 4 + struct.unpack_from("<I", intact)[0]])["head"]
    bad = {
        "nothing": b"",
        "text": "hello",
        "half a length": b"\1\0",
        "truncated": intact[:-1],
        "more": intact + b"\0",
        "length that lies": struct.pack("<I", 2**31) + intact[4:],
        "head beyond the end": struct.pack("<I", len(intact)) + intact[4:],
        "17 MB": bytes(17_000_000),
        "no JSON": raw(b"{"),
        "not UTF-8": raw(b'{"head": "\xff"}'),
        "depth": raw(b"[" * 60_000),
        "digits": raw(b"9" * 60_000),
        "a list": raw([]),
        "no arrays": raw({"head": head}),
        "more than head and arrays": raw({"head": head, "arrays": [], "code": "1"}),
        "a key twice": raw(twice),
        "1e999": raw(b'{"head": 1e999, "arrays": []}'),
        "an array that is no list": raw({"head": window_head, "arrays": ["eeg"]}),
        "an array twice": raw({"head": window_head, "arrays": [entry, entry]}, bytes(16_000)),
        "negative size": raw({"head": window_head, "arrays": [["eeg", "<f4", [-4, -500]]]}, bytes(8000)),
        "huge size": raw({"head": window_head, "arrays": [["states", "|u1", [2**52]]]}),
        "dtype O": raw({"head": window_head, "arrays": [["eeg", "|O", [4, 500]]]}, bytes(16_000)),
        "a mask of 2": intact.replace(b"\1" * 500, b"\2" * 500),
    }
    for name, message in bad.items():
        with refused(ProtocolError, "serve-message-invalid") as caught:
            read(message, FROM_SESSION, SHAPES)
        assert "expected" in str(caught.value), name
        assert len(str(caught.value)) < 600, name


def test_no_array_is_read_before_the_bundle_is_known() -> None:
    assert read(write(from_session()["hello"]), FROM_SESSION).head["kind"] == "hello"
    with refused(ProtocolError, "serve-message-invalid", expected="messages without arrays"):
        read(write(a_window()), FROM_SESSION)


@pytest.mark.parametrize("version", [0, 2, "1", None, True])
def test_another_version_names_both_releases(version: object) -> None:
    message = edited(from_session()["hello"], {"version": version, "release": "9.9"})
    with refused(
        VersionError, "serve-version-mismatch", release="release 9.9", own_release=__version__
    ) as caught:
        read(message, FROM_SESSION)
    assert caught.value.exit_code == 4
    assert "9.9" in str(caught.value)
    assert __version__ in str(caught.value)


def test_a_message_that_is_too_large_is_not_written() -> None:
    large = Message({"kind": "first", "number": 0}, {"frames": np.zeros(MOST_BYTES, np.uint8)})
    with refused(ProtocolError, "serve-message-invalid"):
        write(large)


def test_nothing_on_the_way_can_run_code() -> None:
    files = [*(ROOT / "streaming" / "serve").rglob("*.py"), *(ROOT / name for name in WAY)]
    assert len(files) >= 6
    forbidden = re.compile(r"\b(pickle|allow_pickle|eval|exec|marshal|__import__)\b|np\.load\b")
    for file in files:
        assert not forbidden.search(file.read_text()), file


def test_the_message_that_the_page_shows_byte_by_byte_is_one() -> None:
    page = (ROOT / "docs" / "serve.md").read_text()
    dump = re.findall(r"^[0-9a-f]{4}  ((?:[0-9a-f]{2} )+)", page, re.MULTILINE)
    raw_message = bytes.fromhex("".join(dump))
    message = read(raw_message, FROM_DECODER, SHAPES)
    assert message.head == {"version": 1, "kind": "film", "number": 7}
    assert message.arrays["film"].tolist() == [1, 2, 3, 4]
    assert write(Message(message.head, message.arrays)) == raw_message
