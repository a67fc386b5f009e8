"""A bounded queue between two processes in shared memory; when it is full the sender waits.

A message is a head of plain JSON values with named arrays, and takes one slot of fixed size. Nothing is
dropped.
"""

from collections.abc import Mapping
from dataclasses import fields
from multiprocessing.context import SpawnContext
from typing import Any

from rtdecode.bundle import Bundle
from rtdecode.types import Array, Window
from streaming.message import Message, decode, encode
from streaming.session.slices import PLANES, SIDE
from streaming.status import Status

# Room in each slot for the head of a message. A status, which is a head alone, has to fit too.
_HEAD_BYTES = 65536
_ARRAYS = ("eeg", "eeg_mask", "fmri", "fmri_mask", "fmri_expected")


class Mailbox:
    """Pass messages from one process to one other, in order.

    The memory has no name, so nothing is left behind however the processes end.

    Parameters
    ----------
    context : SpawnContext
        The multiprocessing context of both processes.
    slots : int
        Number of messages that may wait.
    slot_bytes : int
        Size of the largest message, bytes.
    """

    def __init__(self, context: SpawnContext, slots: int, slot_bytes: int) -> None:
        self._memory = context.RawArray("B", slots * slot_bytes)
        self._slots = slots
        self._slot_bytes = slot_bytes
        self._free = context.Semaphore(slots)
        self._full = context.Semaphore(0)
        # Not shared: one process counts what it put, the other what it got, and the slots are a ring.
        self._put = self._got = 0

    def put(self, message: Message, timeout: float) -> bool:
        """Append a message; return False if every slot was taken for `timeout` seconds."""
        # Asked for a slot first: a sender that does not wait tries often, and encoding takes time.
        if not self._free.acquire(timeout=timeout):
            return False
        raw = encode(message)
        if len(raw) > self._slot_bytes:
            self._free.release()
            raise ValueError(f"a message has {len(raw)} bytes, a slot holds {self._slot_bytes}")
        start = (self._put % self._slots) * self._slot_bytes
        memoryview(self._memory).cast("B")[start : start + len(raw)] = raw
        self._put += 1
        self._full.release()
        return True

    def get(self, timeout: float) -> Message | None:
        """Take the oldest message; return None if there was none for `timeout` seconds."""
        if not self._full.acquire(timeout=timeout):
            return None
        start = (self._got % self._slots) * self._slot_bytes
        message = decode(memoryview(self._memory).cast("B")[start : start + self._slot_bytes])
        self._got += 1
        self._free.release()
        return message


def slot_bytes(bundle: Bundle) -> int:
    """Return the bytes that a window of this bundle takes in a mailbox."""
    manifest = bundle.manifest
    samples = manifest.grid.samples
    slots = manifest.grid.slots
    # float32 values, with masks of one byte: one mask for EEG, two for volumes (received, expected).
    eeg = len(manifest.eeg.channels) * samples * 4 + samples if manifest.eeg else 0
    fmri = slots * (manifest.fmri.voxels * 4 + 2) if manifest.fmri else 0
    # A status with what the page shows has to fit too; its EEG takes half of what a window's takes.
    return _HEAD_BYTES + eeg + fmri + 2 * PLANES * SIDE**2


def pack(window: Window, **head: Any) -> Message:
    """Make a message of a window and further plain values."""
    plain = {f.name: getattr(window, f.name) for f in fields(Window) if f.name not in _ARRAYS}
    arrays = {name: getattr(window, name) for name in _ARRAYS if getattr(window, name) is not None}
    return Message({"kind": "window", "window": plain, **head}, arrays)


def unpack(message: Message) -> Window:
    """Read the window of a message."""
    return Window(**message.head["window"], **{name: message.arrays.get(name) for name in _ARRAYS})  # type: ignore[arg-type]


def pack_status(status: Status, arrays: Mapping[str, Array] | None = None, *, ends: bool = False) -> Message:
    """Make a message of a status and the arrays beside it; `ends` marks the last one."""
    return Message({"kind": "end" if ends else "status", "status": status.to_json()}, dict(arrays or {}))


def unpack_status(message: Message) -> Status:
    """Read the status of a message."""
    return Status.from_json(message.head["status"])
