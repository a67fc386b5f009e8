"""Runs of `rtdecode stream` beside a player, and what they leave."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from streaming.address import Address
from tests.streaming.player import Player

_NUMBER = count()
WINDOW = Fraction(1)
TR = Fraction(1, 2)
# Nothing here takes so long: it only ends a test that would hang, s.
LIMIT = 180


@dataclass
class Ended:
    """What a session left."""

    code: int
    output: str
    out: Path
    report: dict[str, Any] = field(default_factory=dict)
    clips: list[dict[str, Any]] = field(default_factory=list)

    def finals(self) -> list[dict[str, Any]]:
        return [clip for clip in self.clips if clip["revision"] == "final"]


def stream(*flags: str, before: Sequence[str] = ()) -> subprocess.Popen[str]:
    command = [*before, sys.executable, "-m", "rtdecode.cli", "stream", *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def end(process: subprocess.Popen[str], out: Path) -> Ended:
    try:
        output, _ = process.communicate(timeout=LIMIT)
    finally:
        gone(process)
    ended = Ended(process.returncode, output, out)
    if (out / "report.json").is_file():
        ended.report = json.loads((out / "report.json").read_text())
    if (out / "clips.jsonl").is_file():
        ended.clips = [json.loads(line) for line in (out / "clips.jsonl").read_text().splitlines()]
    return ended


def gone(process: subprocess.Popen[str]) -> None:
    """Leave nothing of a program to a later test, however it ended: no process, no open pipe."""
    if process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
    process.kill()
    process.communicate()


def play(
    folder: Path,
    bundle: Path,
    *flags: str,
    eeg: bool = True,
    fmri: bool = True,
    during: Callable[[subprocess.Popen[str], Path], None] | None = None,
    before: Sequence[str] = (),
    **how: Any,
) -> Ended:
    """Run one session with a player beside it; `before` is put before its command line."""
    folder.mkdir()
    volumes = folder / "volumes"
    out = folder / "out"
    volumes.mkdir()
    name = f"session-{os.getpid()}-{next(_NUMBER)}"
    options = ["--bundle", str(bundle), "--out", str(out), *flags]
    options += ["--lsl", name] if eeg else []
    options += ["--fmri-dir", str(volumes)] if fmri else []
    player = Player(name if eeg else None, volumes if fmri else None, tr=float(TR), **how)
    player.start()
    process = stream(*options, before=before)
    try:
        if during is not None:
            during(process, out)
        return end(process, out)
    finally:
        gone(process)
        player.cancel.set()
        player.join()


def interrupt(process: subprocess.Popen[str], out: Path) -> None:
    """Ctrl-C after the first final."""
    until(lambda: '"final"' in text(out / "clips.jsonl"))
    process.send_signal(signal.SIGINT)


def text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def until(condition: Callable[[], bool]) -> None:
    last = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < last, "did not happen in time"
        time.sleep(0.05)


def printed(process: subprocess.Popen[str], words: str) -> str:
    """Read what a program prints, up to and with the first line that holds these words."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return "".join(lines)
    raise AssertionError(f"{words!r} was not printed: {''.join(lines)}")


def address(process: subprocess.Popen[str]) -> str:
    """Read where the page is from what the session prints."""
    return printed(process, "http://").split()[-1]


def root(url: str) -> str:
    """What paths of the page begin with; nothing where the address has no token."""
    place = urlsplit(url)
    token = place.query.removeprefix("token=")
    return Address(place.hostname or "", place.port or 0, token).root if token else ""


def get(url: str, path: str, **headers: str) -> tuple[int, bytes]:
    """Ask for a path of the page exactly as it is written: no library tidies it up.

    The token is taken from the address, and sent as a browser sends it.
    """
    place = urlsplit(url)
    token = place.query.removeprefix("token=")
    path = root(url) + path
    connection = http.client.HTTPConnection(place.netloc, timeout=60)
    try:
        cookie = {"Cookie": f"rtdecode-{place.port}={token}"} if token else {}
        connection.request("GET", path, headers=cookie | headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
