"""A live session with a page and a recording beside a simulated participant, and the memory of its parts."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from streaming import address

# What `Running.parts` may hold.
PARTS = ("session", "acquisition", "page")
# How long programs may take to end once they have been asked to, s.
_END_WITHIN = 60.0
# A session receives its first samples within this where the simulated run is short, s.
_BEGINS_WITHIN = 120.0


class Running:
    """`rtdecode simulate` and `rtdecode stream`, each with a log of all that it says.

    The session has a page, and records into ``recording``.

    Parameters
    ----------
    folder : Path
        An empty folder. The session writes into ``out``, the scanner into ``export``.
    simulator, session : sequence of str
        Further options of the two commands.

    Attributes
    ----------
    simulator, session : subprocess.Popen
    stretches : list of list of float
        When each simulator was started, and when it ended (infinity if it runs); local clock, s.
    """

    def __init__(self, folder: Path, simulator: Sequence[str], session: Sequence[str]) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.recording = folder / "recording"
        self.export = folder / "export"
        self.export.mkdir()
        self.port = address.free(address.parse("127.0.0.1:0")).port
        self.stretches: list[list[float]] = []
        self._environment = network(folder)
        self._name = f"running-{os.getpid()}-{time.monotonic_ns()}"
        self._simulator = simulator
        self._page: psutil.Process | None = None
        sources = ["--lsl", self._name, "--fmri-dir", str(self.export)]
        words = ["stream", *sources, "--out", str(self.out), "--record", str(self.recording), *session]
        self.session = self._started([*words, "--dashboard", f"127.0.0.1:{self.port}"], "stream.log")
        self.simulator = self.start_simulator()

    def start_simulator(self) -> subprocess.Popen[bytes]:
        """Start the simulated participant, also once more after it has ended."""
        words = ["simulate", "--lsl", self._name, "--fmri-dir", str(self.export), *self._simulator]
        self.simulator = self._started(words, f"simulate-{len(self.stretches)}.log")
        self.stretches.append([time.monotonic(), float("inf")])
        return self.simulator

    def kill_simulator(self) -> None:
        """Kill the simulated participant."""
        self.stretches[-1][1] = time.monotonic()
        self.simulator.kill()
        self.simulator.wait()

    def _started(self, words: Sequence[str], log: str) -> subprocess.Popen[bytes]:
        with (self.folder / log).open("wb") as lines:
            return subprocess.Popen(
                [sys.executable, "-m", "rtdecode.cli", *words],
                stdin=subprocess.DEVNULL,
                stdout=lines,
                stderr=subprocess.STDOUT,
                env=self._environment,
            )

    def wait_for_samples(self, within_s: float = _BEGINS_WITHIN) -> None:
        """Wait until the recording has begun.

        Raises
        ------
        TimeoutError
            If it does not within this time.
        """
        samples = self.recording / "eeg.f32"
        until = time.monotonic() + within_s
        while not (samples.is_file() and samples.stat().st_size):
            if time.monotonic() > until or self.session.poll() is not None:
                raise TimeoutError(f"no samples came: {self.logs()}")
            time.sleep(0.05)

    def logs(self) -> dict[str, str]:
        """Return what each program has said."""
        paths = sorted(self.folder.glob("*.log"))
        return {path.name: path.read_text(errors="backslashreplace") for path in paths}

    def parts(self) -> dict[str, psutil.Process]:
        """Return the processes of the session that run and can be told from each other, by `PARTS`."""
        try:
            session = psutil.Process(self.session.pid)
            spawned = [child for child in session.children() if "spawn_main" in " ".join(child.cmdline())]
            for child in spawned:
                if self._page is None and self._serves(child):
                    self._page = child
        except psutil.Error:
            # One of them has just ended: the next look says which.
            return {}
        processes = {"session": session} if self.session.poll() is None else {}
        # Before it serves, the page cannot be told from the acquisition.
        if self._page is not None:
            processes |= {"page" if child == self._page else "acquisition": child for child in spawned}
        return processes

    def _serves(self, process: psutil.Process) -> bool:
        connections = process.net_connections("tcp")
        return any(link.status == "LISTEN" and link.laddr.port == self.port for link in connections)

    def processes(self) -> list[psutil.Process]:
        """Return all processes of the session."""
        return tree(self.session.pid)

    def interrupt(self) -> int | None:
        """Ask the session to end as Ctrl-C does; return its exit code, or None if it does not end."""
        if self.session.poll() is None:
            self.session.send_signal(signal.SIGINT)
        try:
            return self.session.wait(_END_WITHIN)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """End both programs, and all that they have started."""
        processes = self.processes()
        if self.session.poll() is None:
            self.interrupt()
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.session.kill()
        self.session.wait()
        if self.simulator.poll() is None:
            self.kill_simulator()


def network(folder: Path) -> dict[str, str]:
    """Return an environment whose programs see only each other's LSL streams; settings go into `folder`."""
    config = folder / "lsl_api.cfg"
    name = f"running-{os.getpid()}-{time.monotonic_ns()}"
    # As `rtdecode.liblsl` sets them where a site has no settings of its own.
    tuning = "[tuning]\nTimeProbeInterval = 0.016\nContinuousResolveInterval = 0.25\n"
    config.write_text(f"[lab]\nSessionID = {name}\n[log]\nlevel = -3\n{tuning}")
    return os.environ | {"LSLAPICFG": str(config)}


def tree(pid: int) -> list[psutil.Process]:
    """Return a process and all that it has started; none if it has ended."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def pss_mb(process: psutil.Process) -> float:
    """Return the proportional set size of a process, MB; 0 for one that has ended."""
    try:
        return process.memory_full_info().pss / 1e6
    except psutil.Error:
        return 0.0
