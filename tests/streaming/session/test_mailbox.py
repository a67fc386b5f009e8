import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest

from streaming.message import Message
from streaming.session.mailbox import Mailbox, pack, slot_bytes, unpack
from tests.streaming.bundles import make_bundle
from tests.streaming.windows import window

CONTEXT = multiprocessing.get_context("spawn")


def send(mailbox: Mailbox, count: int) -> None:
    """Body of the sending process."""
    for n in range(count):
        array = np.full((3, n + 1), n, np.float32)
        assert mailbox.put(Message({"n": n}, {"x": array, "none": np.zeros(0, bool)}), timeout=120)


def test_messages_cross_processes_in_order() -> None:
    mailbox = Mailbox(CONTEXT, slots=3, slot_bytes=4096)
    process = CONTEXT.Process(target=send, args=(mailbox, 50))
    process.start()
    for n in range(50):
        message = mailbox.get(timeout=120)
        assert message is not None
        assert message.head == {"n": n}
        assert message.arrays["x"].shape == (3, n + 1)
        assert (message.arrays["x"] == n).all()
        assert message.arrays["none"].shape == (0,)
    process.join(120)
    assert process.exitcode == 0


def test_a_full_mailbox_blocks_and_drops_nothing() -> None:
    mailbox = Mailbox(CONTEXT, slots=2, slot_bytes=1024)
    messages = [Message({"n": n}, {}) for n in range(3)]
    assert mailbox.put(messages[0], timeout=0)
    assert mailbox.put(messages[1], timeout=0)
    began = time.monotonic()
    assert not mailbox.put(messages[2], timeout=0.1)
    assert time.monotonic() - began >= 0.09
    assert mailbox.get(timeout=0) == messages[0]
    assert mailbox.put(messages[2], timeout=0)
    assert mailbox.get(timeout=0) == messages[1]
    assert mailbox.get(timeout=0) == messages[2]
    assert mailbox.get(timeout=0) is None


def test_what_was_read_is_not_overwritten() -> None:
    mailbox = Mailbox(CONTEXT, slots=1, slot_bytes=1024)
    assert mailbox.put(Message({}, {"x": np.zeros(8)}), timeout=0)
    first = mailbox.get(timeout=0)
    assert mailbox.put(Message({}, {"x": np.ones(8)}), timeout=0)
    assert first is not None
    assert (first.arrays["x"] == 0).all()


@pytest.mark.parametrize("which", [{"eeg": False}, {"fmri": False}, {}])
def test_a_window_survives_and_fits_its_slot(tmp_path: Path, which: dict[str, bool]) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    mailbox = Mailbox(CONTEXT, slots=1, slot_bytes=slot_bytes(bundle))
    sent = window(3, **which)
    assert mailbox.put(pack(sent, clip=7, costs={"eeg_push": 1.5}), timeout=0)
    message = mailbox.get(timeout=0)
    assert message is not None
    assert (message.head["clip"], message.head["costs"]) == (7, {"eeg_push": 1.5})
    got = unpack(message)
    assert (got.index, got.stamps, got.floor_at) == (sent.index, sent.stamps, sent.floor_at)
    for name in ("eeg", "eeg_mask", "fmri", "fmri_mask", "fmri_expected"):
        before = getattr(sent, name)
        after = getattr(got, name)
        assert (after is None) if before is None else np.array_equal(before, after)


def test_a_message_that_does_not_fit_is_refused() -> None:
    mailbox = Mailbox(CONTEXT, slots=1, slot_bytes=128)
    with pytest.raises(ValueError, match="128"):
        mailbox.put(Message({}, {"x": np.zeros(100)}), timeout=0)
