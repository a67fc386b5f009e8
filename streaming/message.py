"""A message between processes or machines: plain values with named arrays, and how it is encoded."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rtdecode.types import Array

# The length of a message's head, with which it begins.
LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Message:
    """One item: plain JSON values and named arrays."""

    head: Mapping[str, Any]
    arrays: dict[str, Array]


def encode(message: Message) -> bytes:
    """Write a message: the length of its head, the head in JSON, and the arrays, without gaps."""
    arrays = {name: np.ascontiguousarray(array) for name, array in message.arrays.items()}
    specs = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
    head = json.dumps({"head": message.head, "arrays": specs}).encode()
    return b"".join([LENGTH.pack(len(head)), head, *(array.tobytes() for array in arrays.values())])


def decode(raw: memoryview) -> Message:
    """Read a message that `encode` wrote, into arrays of its own."""
    (length,) = LENGTH.unpack_from(raw)
    offset = LENGTH.size + length
    tree = json.loads(bytes(raw[LENGTH.size : offset]))
    arrays: dict[str, Array] = {}
    for name, dtype, shape in tree["arrays"]:
        count = int(np.prod(shape))
        # Copied, because the slot of a mailbox is written again as soon as it is free.
        arrays[name] = np.frombuffer(raw, dtype, count, offset).reshape(shape).copy()
        offset += arrays[name].nbytes
    return Message(tree["head"], arrays)
