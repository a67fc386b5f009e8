"""What an evaluation of clips of 480 x 720 holds in memory, and how long an export takes beside what it says.

    python -m benchmarks.full_scale --evaluation [--clips 4,20] [--write]

A run of the recipe `cinesync` over a CogVideoX of one layer, whose latents have the published shape, is
judged by published metrics on few and on more held-out windows, and exported. Memory is what no other process
shares (USS), of the program and its children, several times a second. On a CPU most of it is what torch
unfolds for a convolution of the autoencoder, 1.2 GB of 8 frames.
"""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks import full_scale_stand_ins as stand_ins
from rtdecode.errors import RtDecodeError
from train.data import cinebrain_clips

# Bytes that an evaluation may hold, whatever its clips.
LARGEST = 2e9
# Of the time that an export takes over what it says.
SLOWEST = 1.5
_LATENT = (4, 9, 60, 90)
_SIZE = "480x720"
_TEACHING = 6
_READ_EVERY_S = 0.2
_STATED_TIME = re.compile(r"The export takes about (?:(\d+) minutes?|(\d+) s)\b")


def measure(clips: Sequence[int]) -> dict[str, Any]:
    """Train on a stand-in, judge so many windows, and export.

    Returns
    -------
    dict
        ``evaluations``: number of windows -> ``mb`` and ``seconds``; ``mb_a_clip`` from fewest to most.
        ``export``: ``mb``, ``seconds``, ``stated_s`` and their ``ratio``. ``met``: whether both bars are.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        release = folder / "release"
        run = folder / "run"
        stand_ins.release(release, _TEACHING, max(clips) // cinebrain_clips.HELD_RUNS)
        stand_ins.pipeline(folder / "pipeline", _LATENT)
        stand_ins.targets(folder, _LATENT)
        phases = [f"phases.{name}.{key}=1" for name in ("align", "diffuse") for key in ("steps", "batch")]
        changes = [f"out={run}", f"data.clip={_SIZE}", "system.sampling.steps=1", *phases]
        _run("train.run", "cinesync", *stand_ins.changes(folder, workers=0), *changes)
        published = ["published=true", "sections=published"]
        evaluations = {}
        for count in clips:
            out = f"out={folder / f'page-{count}'}"
            judged = _run("train.evaluate", str(run), f"data={release}", *published, f"windows={count}", out)
            evaluations[count] = {"mb": round(judged["bytes"] / 1e6), "seconds": round(judged["seconds"])}
        exported = _run("rtdecode.cli", "export", str(run), "--out", str(folder / "bundle"))
    minutes, seconds = _STATED_TIME.findall(exported["output"])[0]
    stated_s = 60 * int(minutes) if minutes else int(seconds)
    ratio = exported["seconds"] / stated_s
    fewest = min(clips)
    largest = max(clips)
    growth = evaluations[largest]["mb"] - evaluations[fewest]["mb"]
    return {
        "evaluations": evaluations,
        "mb_a_clip": round(growth / max(largest - fewest, 1), 2),
        "export": {
            "mb": round(exported["bytes"] / 1e6),
            "seconds": round(exported["seconds"]),
            "stated_s": stated_s,
            "ratio": round(ratio, 2),
        },
        "met": bool(evaluations[largest]["mb"] <= LARGEST / 1e6 and ratio <= SLOWEST),
    }


def _run(*words: str) -> dict[str, Any]:
    """Run a program of the project; return its output, its time, and the most memory that it held."""
    began = time.monotonic()
    peak_bytes = 0
    with tempfile.TemporaryFile("w+") as log:
        process = psutil.Popen([sys.executable, "-m", *words], stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None:
            try:
                everybody = [process, *process.children(recursive=True)]
                peak_bytes = max(peak_bytes, sum(member.memory_full_info().uss for member in everybody))
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                # It ended meanwhile.
                continue
            time.sleep(_READ_EVERY_S)
        log.seek(0)
        output = log.read()
    if process.returncode:
        raise RtDecodeError(
            "benchmark-program-failed",
            "{program} ended with {code}:\n{output}",
            program=words[0],
            code=process.returncode,
            output=output,
        )
    return {"output": output, "seconds": time.monotonic() - began, "bytes": peak_bytes}
