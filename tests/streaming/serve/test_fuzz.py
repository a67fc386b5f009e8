"""Messages that were changed somewhere: each is read or refused, and nothing else happens."""

import random
import struct

import pytest

from streaming.serve.protocol import FROM_DECODER, FROM_SESSION, ProtocolError, read, write
from tests.streaming.serve.messages import SHAPES, from_decoder, from_session

SEED = 63
# What heads consist of, so that mutations get further than the parser.
WORDS = [
    b"null", b"true", b"-1", b"1e308", b"1e999", b"NaN", b"[]", b"{}", b'""', b"9007199254740993",
    b"window", b"done", b"eeg", b"states", b"|O", b"<f8", b"[4, 500]", b"[2000000000]", b"\\u0000",
]  # fmt: skip


def mutated(raw: bytes, rng: random.Random) -> bytes:
    """Change a message in one to three places; most changes are in its head."""
    changed = bytearray(raw)
    head_bytes = 4 + struct.unpack_from("<I", raw)[0]
    for _ in range(rng.randint(1, 3)):
        end = head_bytes if rng.random() < 0.8 else len(changed)
        start = rng.randrange(max(1, min(end, len(changed))))
        what = rng.randrange(6)
        if what == 0:
            changed[start : start + 1] = bytes([rng.randrange(256)])
        elif what == 1:
            del changed[start : start + rng.randint(1, 40)]
        elif what == 2:
            changed[start:start] = rng.randbytes(rng.randint(1, 8))
        elif what == 3:
            word = rng.choice(WORDS)
            changed[start : start + len(word)] = word
        elif what == 4:
            changed[:4] = struct.pack("<I", rng.choice([0, 1, len(raw), 2**32 - 1, head_bytes]))
        else:
            del changed[start:]
        if not changed:
            break
        # The length of the head is mended half of the time, so that what follows it is read.
        if rng.random() < 0.5 and len(changed) >= 4:
            grown = len(changed) - len(raw)
            changed[:4] = struct.pack("<I", max(0, head_bytes - 4 + grown))
    return bytes(changed)


def check(count: int) -> dict[str, int]:
    rng = random.Random(SEED)
    messages = [(write(message), FROM_SESSION) for message in from_session().values()]
    messages += [(write(message), FROM_DECODER) for message in from_decoder().values()]
    ends = {"read": 0, "refused": 0}
    for _ in range(count):
        raw, kinds = rng.choice(messages)
        try:
            read(mutated(raw, rng), kinds, SHAPES)
            ends["read"] += 1
        except ProtocolError:
            ends["refused"] += 1
    return ends


def test_2000_mutated_messages_are_read_or_refused() -> None:
    ends = check(2000)
    assert ends["refused"] > 1000
    assert ends["read"] > 10


@pytest.mark.full
def test_20000_mutated_messages_are_read_or_refused() -> None:
    assert check(20_000)["refused"] > 10_000
