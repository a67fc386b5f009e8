"""What memory judging takes: 200 clips of 33 frames of 480 x 720 pixels against their truths.

python -m benchmarks.judging    # writes results/judging.json

Clips are drawn at random and kept as those of a decoder are (`rtdecode.disk.clip_file.keep`), in 15 GB of
temporary files. A process of its own draws and judges them by all that looks at pixels of any size, and tells
the most memory that it held.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.result_files import RESULTS, write
from rtdecode.disk.clip_file import keep
from rtdecode.scores.accuracy import correlations, identification, psnr
from rtdecode.scores.events import Event
from rtdecode.scores.seams import seam_ratio
from streaming.tools import bench
from train.judging.identification import background_clips
from train.judging.pictures import contact_sheet
from train.metrics.pixels import NearestClips, gradient_energy

MEMORY_MB = 2000.0
_OUT = RESULTS / "judging.json"
_CLIPS = 200
_FRAMES = 33
_HEIGHT = 480
_WIDTH = 720
_CELL = 40  # px
_BACKGROUNDS = ("navy", "forest", "maroon", "sand", "sky")


def measure(frames: int = _FRAMES) -> dict[str, Any]:
    """Judge clips of some frames in a new process.

    Returns
    -------
    dict
        ``peak_mb`` (the most that the process held), ``seconds`` by part, ``identification_2way`` and the
        number of ``clips``, their ``frames`` and the ``size`` of a frame.
    """
    words = [sys.executable, "-m", "benchmarks.judging", "--here", "--frames", str(frames)]
    told = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(told.stdout)


def rows(found: dict[str, Any]) -> list[tuple[str, float, float, str]]:
    """What was found beside its bar, for the table of ``make bench``."""
    height, width = found["size"]
    return [(f"judging {found['clips']} clips of {height} x {width}", found["peak_mb"], MEMORY_MB, "MB")]


def _judged(frames: int) -> dict[str, Any]:
    """Draw clips, judge them in this process."""
    seconds: dict[str, float] = {}

    def timed(name: str, part: Callable[[], Any]) -> Any:
        began = time.monotonic()
        made = part()
        seconds[name] = round(time.monotonic() - began, 1)
        return made

    where = [(0, 4.0 * k, 4.0 * k + 4) for k in range(_CLIPS)]
    known = {0: [_shot(k) for k in range(_CLIPS)]}
    truths = timed("draw_truths", lambda: keep(_film(k, frames) for k in range(_CLIPS)))
    # A clip ends with the first instant of the next window.
    clips = timed("draw_clips", lambda: keep(_faint(_film(k, frames + 1), k) for k in range(_CLIPS)))
    mean = np.full((frames, _HEIGHT, _WIDTH, 3), 128, np.uint8)
    found = timed("identification", lambda: identification(correlations(clips, truths, mean), where, known))
    told = timed("draw_backgrounds", lambda: background_clips(truths, where, known))
    timed("identification_background", lambda: correlations(told, truths, mean))
    timed("psnr", lambda: psnr(clips, truths))
    timed("psnr_background", lambda: psnr(told, truths))
    timed("sharpness", lambda: gradient_energy(clips))
    close = timed("nearest", lambda: NearestClips(truths, mean).to([clip[:-1] for clip in clips]))
    timed("seams", lambda: seam_ratio(clips, truths, where, {}))
    sheet = {"film": truths[:10], "clips": clips[:10], "nearest": close[:10]}
    timed("sheet", lambda: contact_sheet(sheet, [0, frames // 2, frames - 1], "judging"))
    two_way = found["identification_2way"]
    assert two_way is not None
    return {
        "clips": _CLIPS,
        "frames": frames,
        "size": [_HEIGHT, _WIDTH],
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1),
        "seconds": seconds,
        "identification_2way": two_way["value"],
    }


def _shot(k: int) -> Event:
    return Event(4.0 * k, 4.0, "shot", {"background": _BACKGROUNDS[k % len(_BACKGROUNDS)]})


def _film(k: int, frames: int) -> NDArray[np.uint8]:
    """Draw coloured cells that move to the right, others in every window."""
    cells = np.random.default_rng(k).integers(0, 256, (_HEIGHT // _CELL, _WIDTH // _CELL, 3), np.uint8)
    picture = cells.repeat(_CELL, 0).repeat(_CELL, 1)
    return np.stack([np.roll(picture, 3 * frame, 1) for frame in range(frames)])


def _faint(film: NDArray[np.uint8], k: int) -> NDArray[np.uint8]:
    """Halve the contrast of a film, in place, and add grain."""
    grain = np.random.default_rng((k, 1)).integers(0, 64, film.shape[1:], np.uint8)
    film //= 2
    film += grain
    return film


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=_FRAMES)
    parser.add_argument("--here", action="store_true", help="judge in this process and write no file")
    given = parser.parse_args()
    if given.here:
        sys.stdout.write(json.dumps(_judged(given.frames)))
        return
    began = time.monotonic()
    found = {"machine": bench._machine()} | measure(given.frames)
    found["wall_s"] = round(time.monotonic() - began, 1)
    Console().print_json(json.dumps(found))
    write(_OUT, found)


if __name__ == "__main__":
    main()
