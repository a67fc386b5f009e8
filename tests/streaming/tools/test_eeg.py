"""`rtdecode eeg` against real outlets, on an LSL network of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streaming.tools.eeg_watch import KEYS
from tests.streaming.sessions import LIMIT

_COMMAND = """
import sys
from streaming.tools import eeg, eeg_watch
# So that a stream that cannot be read is tried again while somebody looks.
eeg_watch._RETRY_S = 0.5
name, seconds, as_json = sys.argv[1:]
sys.exit(eeg.run(name or None, float(seconds) or None, as_json == "json"))
"""
# An amplifier of four EEG channels and an ECG at 500 Hz, triggers every 0.5 s; of each 1.5 s, 0.2 s are lost.
_AMPLIFIER = """
import sys, time
import numpy as np
import pylsl
name, seconds = sys.argv[1], float(sys.argv[2])
info = pylsl.StreamInfo(name, "EEG", 5, 500.0, pylsl.cf_float32, name)
channels = info.desc().append_child("channels")
for label in ("Fp1", "Fz", "Cz", "Oz", "ECG"):
    channel = channels.append_child("channel")
    kind = "ECG" if label == "ECG" else "EEG"
    for key, value in (("label", label), ("unit", "microvolts"), ("type", kind)):
        channel.append_child_value(key, value)
eeg = pylsl.StreamOutlet(info)
marks = pylsl.StreamOutlet(pylsl.StreamInfo(f"{name}-markers", "Markers", 1, 0, pylsl.cf_string, name))
print("on", flush=True)
while not (eeg.have_consumers() and marks.have_consumers()):
    time.sleep(0.02)
rng, began, sent, marked = np.random.default_rng(1), pylsl.local_clock(), 0, 0
while sent < seconds * 500:
    time.sleep(0.02)
    due = int((pylsl.local_clock() - began) * 500)
    data = rng.normal(0, 20, (due - sent, 5)).astype(np.float32)
    stamps = began + np.arange(sent, due) / 500
    kept = (np.arange(sent, due) % 750) < 650
    if kept.any():
        eeg.push_chunk(data[kept], stamps[kept].tolist())
    sent = due
    while marked * 0.5 <= sent / 500:
        marks.push_sample(["R128"], began + marked * 0.5)
        marked += 1
"""
_BARE = """
import time, pylsl
outlet = pylsl.StreamOutlet(pylsl.StreamInfo("bare", "EEG", 4, 100.0, pylsl.cf_float32, "bare"))
print("on", flush=True)
time.sleep(600)
"""


@pytest.fixture
def network(tmp_path: Path) -> dict[str, str]:
    """Environment in which LSL sees only what is started here."""
    config = tmp_path / "lsl_api.cfg"
    config.write_text(f"[lab]\nSessionID = test-{os.getpid()}-{time.monotonic_ns()}\n[log]\nlevel = -3\n")
    return os.environ | {"LSLAPICFG": str(config), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}


@contextmanager
def amplifier(network: dict[str, str], name: str, seconds: float) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-c", _AMPLIFIER, name, str(seconds)]
    with subprocess.Popen(command, env=network, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "on\n"
            yield process
        finally:
            process.kill()


def interrupted(process: subprocess.Popen) -> tuple[str, str]:
    """End the command, and return what else it wrote."""
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=LIMIT)


def is_complete(lines: list[dict], name: str) -> bool:
    """Whether the last line of a stream says all there is to say."""
    stream_lines = [line for line in lines if line["stream"] == name]
    if not stream_lines or not stream_lines[-1]["gaps"] or not stream_lines[-1]["triggers"]:
        return False
    return stream_lines[-1]["rate_hz"] == pytest.approx(500, rel=1e-3)


@contextmanager
def started(network: dict[str, str], name: str, seconds: float, how: str) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-c", _COMMAND, name, str(seconds), how]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=network, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_every_stream_has_a_line_a_second_with_what_was_lost(network: dict[str, str]) -> None:
    with (
        amplifier(network, "one", 600),
        amplifier(network, "two", 600),
        started(network, "", 0, "json") as process,
    ):
        assert process.stdout is not None
        lines: list[dict] = []
        began_at = time.monotonic()
        while not (is_complete(lines, "one") and is_complete(lines, "two")):
            assert time.monotonic() < began_at + LIMIT, lines[-2:]
            lines.append(json.loads(process.stdout.readline()))
        seconds = time.monotonic() - began_at
        _, err = interrupted(process)
    assert process.returncode == 0, err
    assert all(tuple(line) == KEYS for line in lines), err
    for name in ("one", "two"):
        stream_lines = [line for line in lines if line["stream"] == name]
        last = stream_lines[-1]
        assert 1 <= len(stream_lines) <= seconds + 1
        assert last["rate_hz"] == pytest.approx(500, rel=1e-3)
        assert last["lost_samples"] == 100 * last["gaps"] > 0, last
        assert last["triggers"] >= 1
        assert last["artifact_residual_db"] is None
        assert last["age_ms"] >= 0


@pytest.mark.full
def test_a_stream_that_is_not_there_is_waited_for_and_ctrl_c_ends_it(network: dict[str, str]) -> None:
    with amplifier(network, "other", 600), started(network, "absent", 0, "json") as process:
        time.sleep(9)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    assert out == ""
    waiting_lines = [line for line in err.splitlines() if "'absent'" in line]
    assert 1 <= len(waiting_lines) <= 3
    assert "other (EEG, 5 ch)" in waiting_lines[-1]


@pytest.mark.full
def test_the_page_says_it_in_words(network: dict[str, str]) -> None:
    with amplifier(network, "cap", 600), started(network, "cap", 11, "page") as process:
        out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err
    page = out[out.rindex("channels") :]
    assert "4 EEG and ECG (ecg)" in page
    assert "nominally 500 Hz" in page
    assert "one every 0.500 s, the last R128" in page
    lost, gaps = re.search(r"(\d+) samples in (\d+) gap", page).groups()
    assert int(lost) == 100 * int(gaps) > 0


def test_a_stream_without_labels_is_refused_with_the_reason_and_nothing_else_is_known(
    network: dict[str, str],
) -> None:
    command = [sys.executable, "-c", _BARE]
    with subprocess.Popen(command, env=network, stdout=subprocess.PIPE, text=True) as bare:
        assert bare.stdout is not None
        try:
            assert bare.stdout.readline() == "on\n"
            with started(network, "bare", 0, "json") as process:
                assert process.stdout is not None
                lines = [json.loads(process.stdout.readline()) for _ in range(3)]
                _, err = interrupted(process)
        finally:
            bare.kill()
    assert all(line == dict.fromkeys(KEYS) | {"stream": "bare"} for line in lines)
    assert err.count("desc/channels/channel/label") == 1
