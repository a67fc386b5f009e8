"""The states of a window as bytes: read again they are the same, and nothing else is read."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest

from rtdecode.bundle import Bundle, Manifest, State
from rtdecode.bundle.session import (
    Carry,
    StatesError,
    carried_bytes,
    check_carried,
    from_bytes,
    to_bytes,
)
from rtdecode.errors import BundleError
from tests.refusals import refused
from tests.streaming import rich
from tests.streaming.windows import window

STATES = {
    "cache": State("session", [1, 2, 3], "float16"),
    "seen": State("session", [4], "bool"),
    "count": State("session", [1], "int64"),
    "inner": State("window", [9, 9], "float32"),
}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    bundle: Bundle = rich.make(tmp_path_factory.mktemp("carried") / "bundle")
    return replace(bundle.manifest, states=STATES)


def values() -> dict[str, np.ndarray]:
    return {
        "cache": np.arange(6, dtype=np.float16).reshape(1, 2, 3) / 7,
        "seen": np.array([True, False, False, True]),
        "count": np.array([-(2**40)]),
    }


class OnDevice:
    """Values that lie elsewhere, as those of ONNX Runtime do."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def numpy(self) -> np.ndarray:
        return self._array


def test_states_are_read_as_they_were_written_wherever_they_lay(manifest: Manifest) -> None:
    raw = to_bytes({name: OnDevice(array) for name, array in values().items()})
    assert raw == to_bytes(values())
    states = from_bytes(memoryview(raw), manifest)
    assert states.keys() == values().keys()
    for name, expected in values().items():
        assert states[name].dtype == expected.dtype
        assert np.array_equal(states[name], expected)
    assert carried_bytes(manifest) == 12 + 4 + 8
    assert states["count"].flags.writeable


def test_states_that_do_not_fit_are_refused(manifest: Manifest) -> None:
    raw = to_bytes(values())
    listed = json.dumps([["cache", "float16", [1, 2, 3]]]).encode()
    not_a_number = values() | {"cache": np.full((1, 2, 3), np.nan, np.float16)}
    bad_flag = bytearray(raw)
    bad_flag[-1] = 2
    bad = {
        "nothing": b"",
        "short": raw[:-1],
        "long": raw + b"\0",
        "mark": b"X" + raw[1:],
        "version": raw[:4] + struct.pack("<H", 2) + raw[6:],
        "length that lies": raw[:6] + struct.pack("<I", 2**32 - 1) + raw[10:],
        "no list": struct.pack("<4sHI", b"RTDS", 1, 3) + b"[[[",
        "deep": struct.pack("<4sHI", b"RTDS", 1, 200_000) + b"[" * 200_000,
        "one alone": struct.pack("<4sHI", b"RTDS", 1, len(listed)) + listed + raw[-24:],
        "another shape": to_bytes(values() | {"count": np.array([1, 2])}),
        "another dtype": to_bytes(values() | {"count": np.array([1.0])}),
        "another name": to_bytes({("other" if k == "seen" else k): v for k, v in values().items()}),
        "more": to_bytes(values() | {"inner": np.zeros((9, 9), np.float32)}),
        "not finite": to_bytes(not_a_number),
        "a flag of 2": bytes(bad_flag),
    }
    for name, raw in bad.items():
        with refused(StatesError, "states-invalid") as caught:
            from_bytes(raw, manifest)
        assert "starts afresh" in str(caught.value), name


def test_a_bundle_that_carries_too_much_is_named_with_its_size(manifest: Manifest) -> None:
    check_carried(manifest, 24)
    large = replace(manifest, states={"kv": State("session", [1024, 1024, 2], "float32")})
    with refused(BundleError, "states-too-large-to-send", bundle="rich", size_mb=2**23 / 1e6) as caught:
        check_carried(large, 8_000_000)
    assert "carries 8.4 MB from each window to the next, and at most 8 MB" in str(caught.value)
    assert caught.value.exit_code == 4


def test_what_a_window_carries_on_from_is_chosen_without_any_graph() -> None:
    carry = Carry()
    carry.put(window(0, "preview", windowed_at=4.0), {"carry": np.zeros(1)})
    carry.put(window(0, windowed_at=8.8), {"carry": np.ones(1)})
    preview = carry.before(window(1, "preview", windowed_at=8.0))
    final = carry.before(window(1, windowed_at=12.8))
    assert preview is not None
    assert preview.revision == "preview", "the final was cut later"
    assert final is not None
    assert final.revision == "final"
    assert carry.before(window(1, windowed_at=12.8), []) is None
    assert carry.before(window(2, windowed_at=16.8)) is None
    carry.put(window(1, windowed_at=12.8), {})
    assert carry.before(window(2, windowed_at=16.8)) is None, "it left no states"
