"""The page's first sheet: `rtdecode preflight` while a session waits for a run.

The command runs as a program of its own, with the page's low priority, and reads the same stream and folder.
Some of what it finds names streams and files. The page shows those findings without their words.
"""

import json
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

from rtdecode import child
from streaming.checks.finding import OK, Finding
from streaming.session.options import StreamOptions

# What is found of these subjects names no stream, file or folder.
_WORDS = [
    "rate",
    "samples",
    "stamps",
    "level",
    "triggers",
    "sync",
    "impedances",
    "ECG",
    "TR",
    "voxels",
    "delivery",
    "head",
    "battery",
]
_ELSEWHERE = "rtdecode preflight says more on a terminal"


class Preflight:
    """Run the command on request, and keep what it found last.

    Parameters
    ----------
    options : StreamOptions
        The session's sources.
    bundle : Path
        The session's bundle.
    folder : Path
        The session's folder.
    seconds : float
        How long to listen, s.

    Attributes
    ----------
    findings : list of Finding
        What was found last; empty before that.
    fault : str
        Why nothing was found; empty if something was.
    """

    def __init__(self, options: StreamOptions, bundle: Path, folder: Path, seconds: float = 10.0) -> None:
        self._command = _command(options, bundle, folder, seconds)
        self._program: subprocess.Popen[str] | None = None
        self.running = False
        self.findings: list[Finding] = []
        self.fault = ""

    def start(self) -> None:
        """Begin to look and listen, unless that is going on."""
        if not self.running:
            self.running = True
            threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        """End the program, if it is running."""
        if self._program is not None:
            self._program.kill()

    def _run(self) -> None:
        nobody = subprocess.DEVNULL
        with subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=nobody, stdin=nobody, text=True
        ) as self._program:
            output, _ = self._program.communicate()
        findings = _findings(output)
        self.findings = [_nameless(finding) for finding in findings]
        code = self._program.returncode
        self.fault = (
            "" if findings else f"preflight ended with exit code {code}: start it on a terminal to see why"
        )
        self.running = False


def _command(options: StreamOptions, bundle: Path, folder: Path, seconds: float) -> list[str]:
    flags = {
        "--lsl": options.lsl,
        "--fmri-dir": options.fmri_dir,
        "--calibration": options.calibration,
        # Places on the same disks that are not in use.
        "--out": folder / "next",
        "--record": None if options.record is None else options.record / "next",
        "--minutes": None if options.seconds is None else options.seconds / 60,
        "--peers": ",".join(options.peers) or None,
    }
    words = ["preflight", "--bundle", str(bundle), "--json", "--seconds", f"{seconds:g}"]
    for flag, value in flags.items():
        words += [] if value is None else [flag, str(value)]
    return child.command(*words)


def _findings(printed: str) -> list[Finding]:
    """Read what the command printed; none if it printed an error, or nothing as it was killed."""
    try:
        tree = json.loads(printed)
    except ValueError:
        return []
    return [Finding(**values) for values in tree] if isinstance(tree, list) else []


def _nameless(finding: Finding) -> Finding:
    """Return a finding without words that could name something."""
    if finding.subject in _WORDS:
        return finding
    return replace(finding, found="", advice="" if finding.state == OK else _ELSEWHERE)
