"""Live sessions whose page, acquisition, session and simulator are killed at random moments."""

import json
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from benchmarks.running import Running, pss_mb
from rtdecode.disk.recording import Recording
from rtdecode.types import EegChunk
from tests.hostile import volumes
from tests.hostile.cases import (
    PEAK_MB,
    TRACEBACK,
    Outcome,
    Rng,
    command,
    fault_of,
    folder_of,
    generator,
)
from tests.hostile.recordings import command as run_command

# A killed writer loses no more than this, s.
LOST_S = 1.0
_FATAL = (TRACEBACK, "Fatal Python error", "Exception in thread")
# How many kills a session has, and how often each process is killed.
_KILLS = (1, 2, 2, 3, 4)
_VICTIMS = {"page": 0.3, "acquisition": 0.35, "simulator": 0.2, "session": 0.15}
# Share of the sessions whose first kill comes while they start, so long after their command, s.
_STARTING = 0.2
_STARTING_S = (0.5, 8.0)
# In others, between the first samples and the first kill; then between kills, and after the last one, s.
_FIRST_S = (0.5, 20.0)
_NEXT_S = (0.5, 12.0)
_LAST_S = (2.0, 10.0)
# An acquisition that dies once more than so often within a minute ends its session.
_RESTARTS = 2
# A victim that is not there comes within this, or is left alone, s.
_THERE_WITHIN = 15.0
_GONE_WITHIN = 30.0
# Samples that lie further apart were lost between them, s.
_HOLE_S = 0.2
_SAMPLE_S = 0.2
_HOSTILE_FILES = 3


@dataclass
class _Kill:
    """A process that was killed, when, and when the process that recorded then had begun; local clock, s."""

    victim: str
    killed_at: float
    writer_at: float


@dataclass
class _Memory:
    """The most memory that the processes of a session took together, MB."""

    peak_mb: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)

    def watch(self, running: Running) -> None:
        while not self.stop.wait(_SAMPLE_S):
            with suppress(psutil.Error):
                self.peak_mb = max(self.peak_mb, sum(pss_mb(process) for process in running.processes()))


def run(kills: int, seed: int, keep: Path, say: Callable[[str], None]) -> Outcome:
    """Run sessions until so many processes have been killed."""
    outcome = Outcome()
    number = 0
    # Where sessions do not even start, nothing can be killed.
    while outcome.counts.get("kills", 0) < kills and number < 2 * kills:
        outcome.add(session(seed, number, keep, say, kills - outcome.counts.get("kills", 0)))
        number += 1
    return outcome


def session(seed: int, number: int, keep: Path, say: Callable[[str], None], limit: int = 100) -> Outcome:
    """Run one session, kill some of its processes, and judge what it left."""
    outcome = Outcome({"sessions": 1})
    rng = generator(seed, "kills", number)
    with folder_of(keep, f"kills-{seed}-{number}") as (folder, faults):
        seconds = "150"
        simulator = ["--preset", "easy", "--film", "shapes", "--seconds", seconds, "--seed", "1000"]
        running = Running(folder, simulator, ["--lost-after", "20"])
        memory = _Memory()
        watcher = threading.Thread(target=memory.watch, args=(running,))
        watcher.start()
        killed: list[_Kill] = []
        code: int | None = None
        try:
            _kill_some(running, rng, limit, killed)
            time.sleep(rng.uniform(*_LAST_S))
            processes = running.processes()
            code = running.interrupt()
            _, alive = psutil.wait_procs(processes, timeout=_GONE_WITHIN)
            faults += [f"a process outlived the session: {_named(process)}" for process in alive]
        # Whatever leaves a case is what the run is there to find.
        except Exception as error:  # noqa: BLE001
            faults.append(fault_of(error))
        finally:
            memory.stop.set()
            watcher.join()
            running.close()
        faults += _judged(running, killed, code, outcome)
        outcome.peak_mb = memory.peak_mb
        if memory.peak_mb > PEAK_MB:
            faults.append(f"the session took {memory.peak_mb:.0f} MB")
        outcome.count("kills", len(killed))
        story = ", ".join(
            f"{kill.victim} after {kill.killed_at - running.stretches[0][0]:.1f} s" for kill in killed
        )
        say(f"kills {number}: {story or 'nothing'}; exit code {code}, {len(faults)} faults")
        for fault in faults:
            say(f"    {fault.splitlines()[-1][:300]}")
        outcome.faults = [f"{command('kills', seed, number)} ({story}): {fault}" for fault in faults]
    return outcome


def _kill_some(running: Running, rng: Rng, limit: int, killed: list[_Kill]) -> None:
    count = min(limit, int(rng.choice(_KILLS)))
    if rng.random() < _STARTING:
        wait = rng.uniform(*_STARTING_S)
    else:
        running.wait_for_samples()
        wait = rng.uniform(*_FIRST_S)
    began_at = time.monotonic()
    hostile = [began_at + after for after in rng.uniform(0.0, 20.0, _HOSTILE_FILES)]
    for _ in range(count):
        _sleep(running, wait, rng, hostile)
        wait = rng.uniform(*_NEXT_S)
        if running.session.poll() is not None:
            return
        victim = str(rng.choice(list(_VICTIMS), p=list(_VICTIMS.values())))
        if victim == "acquisition" and sum(kill.victim == victim for kill in killed) >= _RESTARTS:
            victim = "page"
        if victim == "simulator":
            if running.simulator.poll() is None:
                killed.append(_Kill(victim, time.monotonic(), math.inf))
                running.kill_simulator()
                if rng.random() < 0.7:
                    time.sleep(rng.uniform(0.0, 5.0))
                    running.start_simulator()
            continue
        process = _there(running, victim)
        if process is not None:
            writer_at = _began_at(running.parts().get("acquisition"))
            killed.append(_Kill(victim, time.monotonic(), writer_at))
            process.kill()
        if victim == "session":
            return


def _sleep(running: Running, seconds: float, rng: Rng, hostile: list[float]) -> None:
    """Wait, and put hostile files into the export folder meanwhile."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.05)
        for due_at in [due_at for due_at in hostile if due_at <= time.monotonic()]:
            hostile.remove(due_at)
            # One of them is a bomb, whatever the others are.
            volumes.put_hostile(running.export, rng, bomb=len(hostile) == 1)


def _began_at(process: psutil.Process | None) -> float:
    """Return when a process was started, by the local clock, s; infinity without one."""
    if process is None:
        return math.inf
    return time.monotonic() - (time.time() - process.create_time())


def _there(running: Running, victim: str) -> psutil.Process | None:
    until = time.monotonic() + _THERE_WITHIN
    while time.monotonic() < until:
        process = running.parts().get(victim)
        if process is not None:
            return process
        time.sleep(0.05)
    return None


def _judged(running: Running, killed: list[_Kill], code: int | None, outcome: Outcome) -> list[str]:
    faults = [
        f"{name}: {log[max(0, log.index(word) - 500) :][:4000]}"
        for name, log in running.logs().items()
        for word in _FATAL
        if word in log
    ]
    victims = [kill.victim for kill in killed]
    simulated = running.stretches[-1][1] == float("inf") or running.simulator.poll() is None
    allowed = {0} if simulated or "simulator" not in victims else {0, 3}
    allowed = {-9} if "session" in victims else allowed
    # A session whose participant went before its run began has nothing that begins.
    allowed |= {1, 3} if "simulator" in victims and "session" not in victims else set()
    if code not in allowed:
        log = running.logs()["stream.log"][-1500:]
        faults.append(f"the session ended with {code}, not {sorted(allowed)}: {log}")
    if running.recording.is_dir() and any(running.recording.iterdir()):
        outcome.count("recordings")
        try:
            items = list(Recording(running.recording).events())
            outcome.count("recordings_opened")
            faults += _lost(running, killed, [item for item in items if isinstance(item, EegChunk)], outcome)
        # Explained or not: what a killed session recorded has to open.
        except Exception as error:  # noqa: BLE001
            faults.append(f"the recording does not open: {fault_of(error)}")
    faults += _report(running)
    return faults


def _lost(running: Running, killed: list[_Kill], chunks: list[EegChunk], outcome: Outcome) -> list[str]:
    """Compare what was recorded with when the writers were killed."""
    faults = []
    arrivals = np.array([chunk.arrived_at for chunk in chunks])
    for kill in killed:
        before = arrivals[arrivals <= kill.killed_at]
        if kill.victim not in ("acquisition", "session") or not len(before):
            continue
        last = float(before[-1])
        # A writer that had not received anything yet lost nothing.
        if last < kill.writer_at:
            continue
        sent_until = next((stop for start, stop in reversed(running.stretches) if start <= last), last)
        lost_s = min(kill.killed_at, sent_until) - last
        outcome.lost_s = max(outcome.lost_s, lost_s)
        if lost_s > LOST_S:
            faults.append(f"{lost_s:.2f} s were lost when the {kill.victim} was killed")
    if not {"acquisition", "simulator"} & {kill.victim for kill in killed} and chunks:
        stamps = np.concatenate([chunk.stamps for chunk in chunks])
        hole_s = float(np.diff(stamps).max(initial=0.0))
        if hole_s > _HOLE_S:
            faults.append(f"{hole_s:.2f} s are missing, although no writer was killed")
    return faults


def _report(running: Running) -> list[str]:
    """Read what the session left, and make its page."""
    faults = []
    clips = running.out / "clips.jsonl"
    lines = clips.read_text().splitlines(keepends=True) if clips.is_file() else []
    for line in lines:
        if line.endswith("\n"):
            json.loads(line)
    report = running.out / "report.json"
    if report.is_file():
        json.loads(report.read_text())
        code, log = run_command(["report", str(running.out)])
        if code != 0 or TRACEBACK in log:
            faults.append(f"`rtdecode report` ended with {code}: {log[-3000:]}")
    return faults


def _named(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return str(process.pid)
