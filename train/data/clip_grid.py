"""A recipe's grid: the timing of windows, and what the clips of films look like in them.

`ClipGrid` is what the nodes `grid` and `look-ahead-grid` of a recipe build, and `with_size` gives
its clips another size (``data.clip=480x720``). `clip_of` says which clips a system learns, and `shown_frames`
how many frames of a bundle's clip lie in its window.
"""

from dataclasses import dataclass, fields
from typing import Protocol

from rtdecode.bundle import ClipGeometry
from rtdecode.errors import UsageError
from rtdecode.phantom.film.film import HEIGHT, WIDTH
from rtdecode.timing import TimingGrid, exact

SIZE = (HEIGHT, WIDTH)
# Codecs take patches, or strides, of so many rows and columns.
_PATCH = 8
# Codecs that take so many frames at a time want a frame more.
_TURN = 4


@dataclass(frozen=True, slots=True)
class ClipGrid(TimingGrid):
    """The timing of windows, as `rtdecode.timing.TimingGrid` has it, and their clips.

    Attributes
    ----------
    size : (int, int)
        Rows and columns of a clip, in multiples of 8.
    frame_after : bool or None
        Whether a clip has the frame after its window as well, as codecs want that take the first frame alone
        and then four at a time. None where the frames of a window are a multiple of four.
    """

    size: tuple[int, int] = SIZE
    frame_after: bool | None = None

    def __post_init__(self) -> None:
        TimingGrid.__post_init__(self)
        if any(not isinstance(side, int) or side < _PATCH or side % _PATCH for side in self.size):
            raise ValueError(f"size is rows and columns in multiples of {_PATCH}, found {list(self.size)}")
        for name, length in (("window", self.window), ("hop", self.hop)):
            frames = length * self.fps
            if frames.denominator != 1:
                raise ValueError(
                    f"a {name} of {float(length):g} s has {float(frames):g} frames at {float(self.fps):g} "
                    "frames a second, and a whole number is needed. Change one of them"
                )


def read_size(text: object, key: str) -> tuple[int, int]:
    """Read rows and columns that were given as ``480x720`` under a key.

    Raises
    ------
    UsageError
    """
    # A command line may have made a number of it.
    rows, _, columns = str(text).partition("x")
    if not (rows.isdecimal() and columns.isdecimal() and int(rows) and int(columns)):
        raise UsageError(
            "frame-size-malformed",
            "{key}={size} is no size. Give ROWSxCOLUMNS, such as 480x720.",
            key=key,
            size=text,
        )
    return int(rows), int(columns)


def with_size(grid: TimingGrid, text: object) -> TimingGrid:
    """Give the clips of a grid a size that was given as ``data.clip``; "" leaves the grid as it is.

    Raises
    ------
    UsageError
        If it is no size, or windows have no whole number of frames.
    """
    if text == "":
        return grid
    size = read_size(text, "data.clip")
    frame_after = grid.frame_after if isinstance(grid, ClipGrid) else None
    timing = {field.name: getattr(grid, field.name) for field in fields(TimingGrid)}
    try:
        return ClipGrid(**timing, size=size, frame_after=frame_after)
    except ValueError as error:
        raise UsageError(
            "clip-size-invalid", "data.clip={size} cannot be used: {error}.", size=text, error=error
        ) from error


def timing_of(grid: TimingGrid) -> TimingGrid:
    """Return the timing of a grid, without what its clips look like."""
    return TimingGrid(**{field.name: getattr(grid, field.name) for field in fields(TimingGrid)})


def clip_of(grid: TimingGrid) -> ClipGeometry:
    """Return the geometry of the clips that a system learns on a grid.

    A grid that says nothing of its clips has those of the simulated participant's films.
    """
    size = SIZE
    frame_after = None
    if isinstance(grid, ClipGrid):
        size = grid.size
        frame_after = grid.frame_after
    frames = int(grid.window * grid.fps)
    if frame_after is None:
        frame_after = frames % _TURN == 0
    return ClipGeometry(frames + frame_after, *size, float(grid.fps))


class HasClips(Protocol):
    """What has windows with clips: a bundle's manifest, or a grid with the clips that are learned on it."""

    @property
    def grid(self) -> TimingGrid:
        """The timing of the windows."""
        ...

    @property
    def clip(self) -> ClipGeometry:
        """What a clip looks like."""
        ...


@dataclass(frozen=True, slots=True)
class ClipWindows:
    """A grid and its clips, before there is a bundle."""

    grid: TimingGrid
    clip: ClipGeometry


def shown_frames(windows: HasClips) -> int:
    """Return how many frames of a clip lie in its window, without the one after it."""
    fps = windows.grid.fps
    # A third of a frame has no finite decimals: the clip's own rate is rounded.
    if float(fps) != windows.clip.fps:
        fps = exact(windows.clip.fps)
    within = int(windows.grid.window * fps)
    return min(windows.clip.frames, within)
