"""What a film shows in the windows of a grid: the clips that a system learns, and is judged by.

The simulated participant's film has windows of its own (4 s, 32 frames of 64 x 96 pixels at 8 frames a
second). `on_grid` returns a film with the windows, the size and the rate of a bundle instead.
"""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import ClipGeometry
from rtdecode.disk.clip_file import Pixels, joined
from rtdecode.errors import UsageError
from rtdecode.phantom.film.film import FPS, HEIGHT, SHOT_FRAMES, WIDTH
from rtdecode.phantom.film.watched import Pictures, Watched
from rtdecode.timing import TimingGrid, exact
from train.data.clip_grid import HasClips, shown_frames

Frames = NDArray[np.uint8]


def count_windows(film: Watched, grid: TimingGrid) -> int:
    """Count the windows that lie wholly inside a film."""
    return grid.count(Fraction(film.count) / exact(film.fps))


def film_clips(film: Watched, windows: HasClips | None = None) -> Frames:
    """Cut a film into the clips of its windows, (window, frame, row, column, 3); see `each_clip`."""
    clips = [*each_clip(film, windows)]
    if windows is not None and not clips:
        return np.zeros((0, windows.clip.frames, windows.clip.height, windows.clip.width, 3), np.uint8)
    return np.stack(clips)


def each_clip(film: Watched, windows: HasClips | None = None) -> Iterator[Frames]:
    """Yield the clips of the windows of a film, (frame, row, column, 3) each.

    Without any given they are the windows of the film itself, each with the frame after it.
    """
    if windows is None or _is_drawn(windows.grid, windows.clip):
        yield from (film.clip(k) for k in range(film.windows))
        return
    length = shown_frames(windows)
    frames = _shown(film, windows.clip)
    for start in _starts(film, windows.grid).tolist():
        clip = np.array(frames[start : start + length])
        # The frame after the window may lie behind a cut. The window's last frame stands in for it.
        yield clip if windows.clip.frames == length else np.concatenate([clip, clip[-1:]])


def clip_cuts(film: Watched, windows: HasClips) -> NDArray[np.bool_]:
    """Say which frames of the windows begin a shot, (window, frame). The film's beginning counts as a cut."""
    firsts = np.append(0, _cuts(film, windows.clip.fps))
    frames = _starts(film, windows.grid)[:, None] + np.arange(shown_frames(windows))
    return np.isin(frames, firsts)


def on_grid(film: Watched, windows: HasClips) -> Watched:
    """Return a film whose windows are those of a bundle, in the size and at the rate of its clips.

    Raises
    ------
    UsageError
        If the windows overlap, or leave gaps: a film is judged as a whole.
    """
    if _is_drawn(windows.grid, windows.clip):
        return film
    check_adjacent(windows.grid)
    fps = windows.clip.fps
    frames = _shown(film, windows.clip)
    cuts = _cuts(film, fps)
    return Pictures(
        frames,
        cuts[cuts > 0],
        on_screen=len(film.cut_frames) > 0,
        window=shown_frames(windows),
        fps=fps,
    )


def check_adjacent(grid: TimingGrid) -> None:
    """Refuse windows that overlap or leave gaps, by which no film is judged.

    Raises
    ------
    UsageError
    """
    if grid.hop != grid.window:
        raise UsageError(
            "film-windows-not-adjacent",
            "a film is judged by windows that follow each other, and these of {window_s:g} s begin every "
            "{hop_s:g} s. Give the grid a hop of its window's length (data.grid.hop).",
            window_s=float(grid.window),
            hop_s=float(grid.hop),
        )


def _is_drawn(grid: TimingGrid, clip: ClipGeometry) -> bool:
    """Whether windows and clips are those that the simulated participant's films have by themselves."""
    length = Fraction(SHOT_FRAMES, FPS)
    usual = ClipGeometry(SHOT_FRAMES + 1, HEIGHT, WIDTH, float(FPS))
    return clip == usual and grid.window == grid.hop == length


def _shown(film: Watched, clip: ClipGeometry) -> Pixels:
    """Return all frames of a film in the size and at the rate of a clip; on disk if they are large."""
    size = (clip.height, clip.width)
    if clip.fps == film.fps and film.frames.shape[1:3] == size:
        return film.frames
    return joined(film.resampled(size, clip.fps))


def _starts(film: Watched, grid: TimingGrid) -> NDArray[np.int64]:
    """Return the first frame of each window, (window,)."""
    return np.arange(count_windows(film, grid)) * grid.hop_frames


def _cuts(film: Watched, fps: float) -> NDArray[np.int64]:
    """Return the first frame of each shot at a frame rate, (shot,)."""
    # At each instant the frame is shown that is on, so that a shot begins with the first instant in it.
    ratio = exact(fps) / exact(film.fps)
    firsts = [-(-cut * ratio.numerator // ratio.denominator) for cut in film.cut_frames.tolist()]
    return np.unique(np.array(firsts, np.int64))
