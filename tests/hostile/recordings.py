"""Damaged recordings: read through here, and some of them replayed by the command."""

import atexit
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.running import pss_mb, tree
from rtdecode.disk.film_marks import FilmMark
from rtdecode.disk.recording import Recording, RecordingWriter
from rtdecode.errors import RtDecodeError
from rtdecode.types import EegChunk, Montage, Volume
from tests.damage import damaged
from tests.hostile.cases import TRACEBACK, Rng, count_memory
from tests.streaming.bundles import BRAIN, CHANNELS, make_bundle
from tests.streaming.test_mutated_inputs import SFREQ, ZERO, clean, mutated

# One of so many recordings is replayed by the command.
REPLAYED = 20
# A replay of a session of some seconds that is not over by then hangs, s.
_WITHIN = 90.0
_SAMPLE_S = 0.1
# Share of the recordings whose items were changed before they were written.
_CHANGED = 0.2


def case(folder: Path, rng: Rng, number: int) -> list[str]:
    """Read a damaged recording through, or replay it with the command, and return what went wrong."""
    path, ways = _damaged(folder, rng)
    faults = read_through(path)
    if is_replayed(number):
        faults += replay(path, small_bundle(), folder / "out", number)
    return [f"{fault} ({ways})" for fault in faults]


def is_replayed(number: int) -> bool:
    """Return whether a case is replayed by the command."""
    return number % REPLAYED == 0


def read_through(path: Path) -> list[str]:
    """Read all of a recording; an explained error names its folder."""
    try:
        recording = Recording(path)
        for item in recording.events():
            assert not isinstance(item, EegChunk) or item.data.shape[1] == len(item.stamps)
            assert not isinstance(item, Volume) or item.affine.shape == (4, 4)
        recording.films()
        recording.digest()
        recording.has_triggers()
        recording.has_volumes()
        assert isinstance(recording.restarted_at, list)
    except RtDecodeError as error:
        return _unnamed(str(error), path)
    return []


def replay(path: Path, bundle: str | Path, out: Path, number: int) -> list[str]:
    """Replay with the command; an exit code other than 0 comes with a sentence that names the folder."""
    words = ["replay", str(path), "--bundle", str(bundle), "--speed", "max", "--out", str(out)]
    code, output = command(words, number)
    faults = [output[-4000:]] if TRACEBACK in output else []
    if code not in (0, 1, 2, 4):
        faults.append(f"`rtdecode replay` ended with {code}: {output[-2000:]}")
    return faults if code == 0 else [*faults, *_unnamed(output, path)]


def command(words: Sequence[str], number: int = -1) -> tuple[int | str, str]:
    """Run a command of rtdecode and count its memory as that of a case.

    Returns
    -------
    code : int or str
        The exit code, or in words that it hung.
    output : str
        All that it said.
    """
    environment = os.environ | {"COLUMNS": "500"}
    with tempfile.TemporaryFile() as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "rtdecode.cli", *words],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        until = time.monotonic() + _WITHIN
        while process.poll() is None and time.monotonic() < until:
            time.sleep(_SAMPLE_S)
            count_memory(number, sum(map(pss_mb, tree(process.pid))))
        code = process.poll()
        if code is None:
            # Its children are in its group, and must not outlive it.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        file.seek(0)
        output = file.read().decode(errors="backslashreplace")
    return f"nothing, as it was not over after {_WITHIN:g} s" if code is None else code, output


def _unnamed(sentence: str, path: Path) -> list[str]:
    """Return a fault if a sentence names neither a recording nor a file of it."""
    return [] if str(path) in sentence else [f"the explanation does not name {path}: {sentence[-2000:]}"]


def _damaged(folder: Path, rng: Rng) -> tuple[Path, str]:
    """Make a recording and damage it; return its folder, and how in words."""
    path = folder / "recording"
    ways = []
    if rng.random() < _CHANGED:
        _write(path, rng, float(rng.choice([0.02, 0.2, 1.0])))
        ways.append("changed items")
    else:
        shutil.copytree(_whole(), path)
    draws = random.Random(int(rng.integers(1 << 62)))
    for _ in range(int(rng.choice([1, 1, 2]))):
        ways.append(damaged(path, draws))
    return path, ", ".join(ways)


@cache
def _scratch() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="hostile-whole-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def small_bundle() -> Path:
    return make_bundle(_scratch() / "bundle", steps=2, confidence={"n": 20}, brain=BRAIN).path


@cache
def _whole() -> Path:
    """Write the recording of which most are damaged copies."""
    folder = _scratch() / "recording"
    _write(folder, np.random.default_rng(0), 0.0)
    return folder


def _write(folder: Path, rng: Rng, share: float) -> None:
    """Write a short session with a film, of which so many items are changed."""
    meta = {"simulated": True, "seconds": 8.0, "restarts": [{"told_at": ZERO + 3, "resumed_at": ZERO + 3.5}]}
    with RecordingWriter(folder, Montage(CHANNELS, SFREQ), meta) as writer:
        for item in clean(rng):
            writer.write(mutated(item, rng) if rng.random() < share else item)
        for number, label in enumerate(
            ["film start abc 25 100", *(f"frame {n}" for n in range(5)), "film end"]
        ):
            writer.write(FilmMark(ZERO + number, label, ZERO + number + 0.01))
    (folder / "truth").mkdir()
    rows = [f"{start}\t4.0\t{label}" for start, label in ((0.0, "face"), (4.0, "house"), (8.0, "chair"))]
    (folder / "truth" / "events.tsv").write_text("\n".join(["onset\tduration\ttrial_type", *rows]) + "\n")
