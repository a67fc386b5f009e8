"""What memory judging takes: 200 clips of 33 frames of 480 x 720 pixels against their truths.

python -m benchmarks.judging    # writes results/judging.json

Clips are drawn at random and kept as those of a decoder are (`rtdecode.disk.clip_file.keep`), in 15 GB of
temporary files; pictures that are made of them take another 5 GB for a while. A process of its own draws and
judges them by all that looks at pixels of any size: identification, all of `train.evaluation.film_scores`,
and the published pictures, of which the optical flow alone takes seconds for each clip, so that these are
made of the first 20 clips. It tells the most memory that it held.
"""

import argparse
import json
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import numpy as np
import psutil
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.result_files import RESULTS, write
from rtdecode.disk.clip_file import ComputedClip, Pixels, keep
from rtdecode.phantom.film.watched import Pictures
from rtdecode.scores.accuracy import correlations, identification, psnr
from rtdecode.scores.events import Event
from rtdecode.scores.seams import seam_ratio
from streaming.tools import bench
from train.evaluation.film_scores import Scores, describe, score
from train.evaluation.identification import background_clips
from train.evaluation.image_similarity import likenesses
from train.evaluation.pictures import contact_sheet
from train.metrics.pixels import NearestClips, gradient_energy

MEMORY_MB = 2000.0
_OUT = RESULTS / "judging.json"
_CLIPS = 200
_FRAMES = 33
_HEIGHT = 480
_WIDTH = 720
_CELL = 40  # px
_WINDOW_S = 4.0
# A shot lasts one and a half windows, so that every other window has a cut in its middle.
_SHOT_WINDOWS = 1.5
# Clips of which published pictures are made.
_PICTURED = 20
# Any will do: it changes the bits alone.
_TEMPERATURE = 1.0
# Time between two looks at the memory, s.
_EVERY_S = 0.5
_BACKGROUNDS = ("navy", "forest", "maroon", "sand", "sky")


def measure(frames: int = _FRAMES) -> dict[str, Any]:
    """Judge clips of some frames in a new process.

    Returns
    -------
    dict
        ``peak_mb`` (the most that the process held, as the system counts it), ``pss_mb`` (the most by
        proportional set size, looked at twice a second), ``seconds`` and ``pss_mb_by_part`` by part,
        ``identification_2way`` and ``identification_2way_centred``, the number of ``clips`` and of those that
        were ``pictured``, their ``frames`` and the ``size`` of a frame.
    """
    words = [sys.executable, "-m", "benchmarks.judging", "--here", "--frames", str(frames)]
    process = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(process.stdout)


def rows(figures: dict[str, Any]) -> list[tuple[str, float, float, str]]:
    """What was found beside its bar, for the table of ``make bench``."""
    height, width = figures["size"]
    return [(f"judging {figures['clips']} clips of {height} x {width}", figures["peak_mb"], MEMORY_MB, "MB")]


class _Memory(threading.Thread):
    """Looks at the proportional set size of this process until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._stop_now = threading.Event()
        self.most_mb = 0.0

    def run(self) -> None:
        """Look until `stop` is called."""
        process = psutil.Process()
        while not self._stop_now.wait(_EVERY_S):
            self.most_mb = max(self.most_mb, process.memory_full_info().pss / 1e6)

    def stop(self) -> float:
        """Return the most that was seen, MB."""
        self._stop_now.set()
        self.join()
        return round(self.most_mb, 1)


def _judged(frames: int) -> dict[str, Any]:
    """Draw clips, judge them in this process."""
    seconds: dict[str, float] = {}
    part_pss_mb: dict[str, float] = {}

    def timed(name: str, part: Callable[[], Any]) -> Any:
        memory = _Memory()
        memory.start()
        began = time.monotonic()
        returned = part()
        seconds[name] = round(time.monotonic() - began, 1)
        part_pss_mb[name] = memory.stop()
        return returned

    where = [(0, _WINDOW_S * k, _WINDOW_S * (k + 1)) for k in range(_CLIPS)]
    shots = {0: [_shot(k) for k in range(_CLIPS)]}
    film = _film(frames)
    described = timed("draw_and_describe_truths", lambda: describe(film, where))
    truths = described.clips
    # A clip ends with the first instant of the next window.
    ends = [(k * frames, (k + 1) * frames + 1) for k in range(_CLIPS)]
    clips = timed("draw_clips", lambda: keep(_faint(film.frames[a:b], a) for a, b in ends))
    mean = np.full((frames, _HEIGHT, _WIDTH, 3), 128, np.uint8)
    identified = timed(
        "identification", lambda: identification(correlations(clips, truths, mean), where, shots)
    )
    backgrounds = timed("draw_backgrounds", lambda: background_clips(truths, where, shots))
    timed("identification_background", lambda: correlations(backgrounds, truths, mean))
    timed("psnr", lambda: psnr(clips, truths))
    timed("psnr_background", lambda: psnr(backgrounds, truths))
    timed("sharpness", lambda: gradient_energy(clips))
    close = timed("nearest", lambda: NearestClips(truths, mean).to([clip[:-1] for clip in clips]))
    timed("seams", lambda: seam_ratio(clips, truths, where, {}))
    scores: Scores = timed("film_scores", lambda: score(clips, described, mean, _TEMPERATURE))
    pictured_clips = {"": [clip[:-1] for clip in clips[:_PICTURED]]}
    timed("published_pictures", lambda: likenesses(pictured_clips, truths[:_PICTURED], ("_constant", mean)))
    sheet = {"film": truths[:10], "clips": clips[:10], "nearest": close[:10]}
    timed("sheet", lambda: contact_sheet(sheet, [0, frames // 2, frames - 1], "judging"))
    two_way = identified["identification_2way"]
    assert two_way is not None
    centred, _ = scores["identification_2way_centred"]
    return {
        "clips": _CLIPS,
        "pictured": _PICTURED,
        "frames": frames,
        "size": [_HEIGHT, _WIDTH],
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1),
        "pss_mb": max(part_pss_mb.values()),
        "pss_mb_by_part": part_pss_mb,
        "seconds": seconds,
        "identification_2way": two_way["value"],
        "identification_2way_centred": float(np.nanmean(centred)),
    }


def _shot(k: int) -> Event:
    return Event(_WINDOW_S * k, _WINDOW_S, "shot", {"background": _BACKGROUNDS[k % len(_BACKGROUNDS)]})


def _film(frames: int) -> Pictures:
    """Return a film with so many frames in a window, which is drawn where it is looked at."""
    # The last clip has a frame after its window.
    count = _CLIPS * frames + 1
    length = int(_SHOT_WINDOWS * frames)

    def draw(frame: int, rows: slice) -> NDArray[np.uint8]:
        shot, number = divmod(frame, length)
        return np.roll(_picture(shot)[rows], 3 * number, 1)

    # Nothing is asked of its frames but to be cut into clips.
    film_frames = cast(NDArray[np.uint8], ComputedClip((count, _HEIGHT, _WIDTH, 3), draw))
    cuts = np.arange(length, count, length)
    return Pictures(film_frames, cuts, window=frames, fps=frames / _WINDOW_S)


@lru_cache(maxsize=2)
def _picture(shot: int) -> NDArray[np.uint8]:
    """Draw coloured cells, others in every shot; they move to the right in it."""
    cells = np.random.default_rng(shot).integers(0, 256, (_HEIGHT // _CELL, _WIDTH // _CELL, 3), np.uint8)
    return cells.repeat(_CELL, 0).repeat(_CELL, 1)


def _faint(film: Pixels, seed: int) -> NDArray[np.uint8]:
    """Halve the contrast of a film, and add grain."""
    grain = np.random.default_rng((seed, 1)).integers(0, 64, film.shape[1:], np.uint8)
    return np.asarray(film) // 2 + grain


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=_FRAMES)
    parser.add_argument("--here", action="store_true", help="judge in this process and write no file")
    args = parser.parse_args()
    if args.here:
        sys.stdout.write(json.dumps(_judged(args.frames)))
        return
    began = time.monotonic()
    figures = {"machine": bench._machine()} | measure(args.frames)
    figures["wall_s"] = round(time.monotonic() - began, 1)
    Console().print_json(json.dumps(figures))
    write(_OUT, figures)


if __name__ == "__main__":
    main()
