"""The marker source against a real outlet in a process of its own, which can be halted."""

import os
import signal
import subprocess
import sys

import pylsl
import pytest

from streaming.sources.lsl.markers import MarkerSource
from tests.streaming.sources.lsl.test_source import until

_SENDER = """
import sys, time
from rtdecode.liblsl import pylsl
outlet = pylsl.StreamOutlet(pylsl.StreamInfo(sys.argv[1], "Markers", 1, 0, pylsl.cf_string, ""))
while True:
    outlet.push_sample(["R128"])
    time.sleep(0.05)
"""


def test_a_stream_that_does_not_answer_does_not_hold_up_a_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"marker-test-{os.getpid()}"
    film = f"{name}-film"
    network = pylsl.ContinuousResolver(forget_after=5.0)
    monkeypatch.setattr(pylsl, "ContinuousResolver", lambda **_: network)
    source = MarkerSource(name, "-film")
    with subprocess.Popen([sys.executable, "-c", _SENDER, film]) as sender:
        try:
            until(lambda: any(stream.name() == film for stream in network.results()))
            sender.send_signal(signal.SIGSTOP)
            assert source.poll() == []
            # Whoever waits for the stream within a poll comes back only to say this.
            assert "does not answer" not in source.state
            sender.send_signal(signal.SIGCONT)
            until(lambda: any(label == "R128" for label, _, _ in source.poll()))
        finally:
            sender.kill()
