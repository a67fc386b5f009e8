"""Run numbered cases in processes of their own: one that dies or hangs costs its case and no more."""

import json
import queue
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from benchmarks.running import network

Rng = np.random.Generator
# Fills a folder, tries it, and returns what went wrong, in sentences; the last argument is its number.
Case = Callable[[Path, Rng, int], list[str]]

PARTS = ("kills", "volumes", "recordings", "streams")
# Bar of the memory that the product takes, MB.
PEAK_MB = 1500.0
# Address space that a process may have, bytes: it keeps the machine alive where the product is not bounded.
_SPACE = 7 << 30
# A case that says nothing for so long hangs, s.
_HANGS_S = 120.0
# Innermost calls that are told of an exception.
_CALLS = 12
TRACEBACK = "Traceback (most recent call last)"


# Most memory that the commands of a case took, MB.
_commands_mb: dict[int, float] = {}


@dataclass
class Outcome:
    """What a part of the run did.

    Attributes
    ----------
    counts : dict
        How often each thing was done.
    faults : list of str
        What went wrong, each with its case.
    peak_mb : float
        Most memory that the product took.
    lost_s : float
        Most that a killed writer lost, s.
    """

    counts: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    peak_mb: float = 0.0
    lost_s: float = 0.0

    def count(self, name: str, times: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + times

    def add(self, other: "Outcome") -> None:
        for name, times in other.counts.items():
            self.count(name, times)
        self.faults += other.faults
        self.peak_mb = max(self.peak_mb, other.peak_mb)
        self.lost_s = max(self.lost_s, other.lost_s)


def generator(seed: int, part: str, case: int) -> Rng:
    """Return the generator of one case."""
    return np.random.default_rng((seed, PARTS.index(part), case))


def command(part: str, seed: int, case: int) -> str:
    """Return what repeats one case."""
    return f"python -m tests.hostile --only {part} --seed {seed} --case {case}"


def limit_space() -> None:
    """Bound what this process and its children may take, for the sake of the machine."""
    resource.setrlimit(resource.RLIMIT_AS, (_SPACE, _SPACE))


def count_memory(case: int, peak_mb: float) -> None:
    """Count the memory of a command that a case has run."""
    _commands_mb[case] = max(_commands_mb.get(case, 0.0), peak_mb)


def fault_of(error: BaseException) -> str:
    """Describe an exception that should not have been, with its traceback."""
    return "".join(traceback.format_exception(error, limit=-_CALLS)).strip()


@contextmanager
def folder_of(keep: Path, name: str) -> Iterator[tuple[Path, list[str]]]:
    """Give a folder for a case and a list for its faults; the folder is kept if there are any."""
    folder = Path(tempfile.mkdtemp(prefix=f"hostile-{name}-"))
    faults: list[str] = []
    try:
        yield folder, faults
    finally:
        if faults:
            keep.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(keep / name, ignore_errors=True)
            # Renamed where it can be: copying would unpack sparse files and follow what must not be followed.
            try:
                folder.rename(keep / name)
            except OSError:
                shutil.move(folder, keep / name)
            (keep / f"{name}.txt").write_text("\n\n".join(faults) + "\n", errors="backslashreplace")
        else:
            delete(folder)


def delete(folder: Path) -> None:
    """Delete a folder however deep it is, which `shutil.rmtree` of Python 3.11 does by recursion."""
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def work(part: str, case: Case, seed: int, first: int, stop: int, keep: Path, out: IO[str]) -> None:
    """Do cases in this process, and write a line of JSON before and after each."""
    for number in range(first, stop):
        _tell(out, {"begins": number})
        _forget_peak()
        with folder_of(keep, f"{part}-{seed}-{number}") as (folder, faults):
            try:
                faults += case(folder, generator(seed, part, number), number)
            # Whatever leaves a case is what the run is there to find.
            except Exception as error:  # noqa: BLE001
                faults.append(fault_of(error))
            peak_mb = max(_peak_mb(), _commands_mb.pop(number, 0.0))
            if peak_mb > PEAK_MB:
                faults.append(f"took {peak_mb:.0f} MB")
        _tell(out, {"ends": number, "faults": faults, "peak_mb": peak_mb})


def run(part: str, seed: int, first: int, stop: int, keep: Path, say: Callable[[str], None]) -> Outcome:
    """Do cases `first` to `stop` in processes of their own, one after the other."""
    outcome = Outcome()
    while first < stop:
        first = _run_until_it_dies(part, seed, first, stop, keep, say, outcome)
    return outcome


def _run_until_it_dies(
    part: str, seed: int, first: int, stop: int, keep: Path, say: Callable[[str], None], outcome: Outcome
) -> int:
    """Return the number of the next case, which is `stop` where all are done."""
    words = [sys.executable, "-m", "tests.hostile", "--only", part, "--seed", str(seed)]
    words += ["--worker", f"{first}:{stop}", "--keep", str(keep)]
    with (
        tempfile.TemporaryDirectory(prefix="hostile-lsl-") as settings,
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=errors, text=True, env=network(Path(settings))
        ) as worker,
    ):
        assert worker.stdout is not None
        lines: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=_drain, args=(worker.stdout, lines), daemon=True)
        reader.start()
        number = first
        hangs = False
        while True:
            try:
                line = lines.get(timeout=_HANGS_S)
            except queue.Empty:
                hangs = True
                worker.kill()
                break
            if line is None:
                break
            report: dict[str, Any] = json.loads(line)
            number = report.get("begins", number)
            if "ends" in report:
                outcome.count("cases")
                outcome.peak_mb = max(outcome.peak_mb, report["peak_mb"])
                outcome.faults += [f"{command(part, seed, number)}: {fault}" for fault in report["faults"]]
                number += 1
                if report["faults"]:
                    say(f"{part} {number - 1}: {report['faults'][0].splitlines()[-1]}")
        code = worker.wait()
        reader.join()
        errors.seek(0)
        complaint = errors.read()
    if number < stop or code != 0:
        why = f"hung for {_HANGS_S:g} s" if hangs else f"ended the process with {code}"
        outcome.count("cases")
        outcome.faults.append(f"{command(part, seed, number)}: {why}: {complaint[-2000:]}")
        say(outcome.faults[-1])
        number += 1
    elif TRACEBACK in complaint:
        outcome.faults.append(f"{part}, seed {seed}: a thread said: {complaint[-4000:]}")
    return number


def _drain(lines: IO[str], into: "queue.Queue[str | None]") -> None:
    for line in lines:
        into.put(line)
    into.put(None)


def _tell(out: IO[str], line: dict[str, Any]) -> None:
    out.write(json.dumps(line) + "\n")
    out.flush()


def _forget_peak() -> None:
    """Let the kernel's record of the most memory begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024 / 1e6
