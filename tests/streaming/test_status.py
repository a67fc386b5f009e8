"""One status: what it is before anything came, and the same at both ends of the mailbox."""

import json

import pytest

from streaming.session.mailbox import pack_status, unpack_status
from streaming.status import Status


def test_a_status_is_the_same_at_the_other_end() -> None:
    runs = [{"run": 0, "volumes": 3}, {"run": 1, "volumes": 1}]
    sent = Status(
        elapsed=1.5,
        waiting=[],
        eeg_stream={"source": 2},
        counters={"eeg": {"gaps": 1}, "fmri": {}, "clock": {}, "runs": runs},
        sent_at=7.25,
    )
    message = pack_status(sent, ends=True)
    assert message.head["kind"] == "end"
    read = unpack_status(type(message)(json.loads(json.dumps(message.head)), {}))
    assert read == sent
    assert (read.eeg_source, read.newest_run) == (2, runs[1])


def test_before_the_first_status_everything_is_waited_for() -> None:
    nothing = Status()
    assert nothing.waiting == ["the acquisition process"]
    assert (nothing.elapsed, nothing.newest_run, nothing.eeg_source) == (None, None, 0)
    nothing.counters["eeg"]["gaps"] = 1
    assert Status().counters["eeg"] == {}, "each has counts of its own"


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(TypeError, match="elapsde"):
        Status.from_json({"elapsde": 1.0})
