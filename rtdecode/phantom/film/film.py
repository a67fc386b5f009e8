"""Draw the film that the simulated participant watches.

A length and a seed come in; the shots, their attributes and the frames of a film of moving shapes go out.
The film is free of rights.
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from rtdecode.phantom.film.fit import resampled
from rtdecode.phantom.film.known import SEEN_VALUES, novelty
from rtdecode.types import Float

FPS = 8
HEIGHT = 64
WIDTH = 96
SHOT_FRAMES = 32

COLORS = {
    "red": (228, 52, 48),
    "orange": (243, 140, 36),
    "yellow": (250, 222, 60),
    "green": (84, 200, 84),
    "cyan": (64, 214, 222),
    "blue": (52, 92, 224),
    "magenta": (216, 72, 190),
    "white": (246, 246, 246),
}
BACKGROUNDS = {
    "navy": (30, 38, 112),
    "forest": (22, 100, 60),
    "maroon": (122, 30, 42),
    "sand": (190, 164, 116),
    "sky": (92, 136, 200),
}
SHAPES = ("disc", "square", "triangle")
TEXTURES = ("stripes", "checks", "rings")
DIRECTIONS = ("right", "up-right", "up", "up-left", "left", "down-left", "down", "down-right")
PANS = ("still", "pan-left", "pan-right")
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "color": tuple(COLORS),
    "background": tuple(BACKGROUNDS),
    "texture": TEXTURES,
    "direction": DIRECTIONS,
    "pan": PANS,
}

# Pixels a second.
_PAN_SPEEDS = {"still": 0.0, "pan-left": -9.0, "pan-right": 9.0}
# Largest relative change of the background's brightness by stripes.
_TEXTURE_DEPTH = 0.2


@dataclass(frozen=True, slots=True)
class Shot:
    """One shot: what it shows, and where.

    Attributes
    ----------
    first, frames : int
        First film frame, and number of frames that are shown.
    shape, color, background, texture, direction, pan : str
        Values of `ATTRIBUTES`.
    length : int
        Number of frames for which the movement was planned; more than `frames` if the film ends early.
    center : (float, float)
        Row and column that the shape passes in the middle of the shot, px.
    radius, path, period : float
        Radius of the shape, length of its path, and period of the texture, px.
    phase : (float, float)
        Phase of the texture along rows and columns, rad.
    """

    first: int
    frames: int
    shape: str
    color: str
    background: str
    texture: str
    direction: str
    pan: str
    length: int
    center: tuple[float, float]
    radius: float
    path: float
    period: float
    phase: tuple[float, float]

    @property
    def onset(self) -> float:
        """Start of the shot, in seconds after the film's start."""
        return self.first / FPS

    @property
    def duration(self) -> float:
        """Length of the shot as it is shown, in seconds."""
        return self.frames / FPS

    @property
    def attributes(self) -> dict[str, str]:
        """Mapping of name to value, in the order of `ATTRIBUTES`."""
        return {name: getattr(self, name) for name in ATTRIBUTES}


class Film:
    """A procedural film of moving shapes, 64 x 96 px at `fps` (8) frames a second.

    Parameters
    ----------
    seconds : float
        Length, rounded down to whole frames.
    seed : int
        Seed of shots and textures.
    cuts : str
        With ``grid`` there is a cut every 4 s, on the window grid. With ``free`` shots last 1.5 to 10 s, 4 s
        on average.
    known_only : bool
        Draw no shot but those that `rtdecode.phantom.film.known.novelty` calls known.

    Raises
    ------
    UsageError
        If `cuts` has another value, or the film is shorter than one frame.
    """

    fps: ClassVar[float] = FPS

    def __init__(self, seconds: float, seed: int, cuts: str = "grid", known_only: bool = False) -> None:
        if cuts not in ("grid", "free"):
            raise UsageError("film-cuts-unknown", "cuts must be 'grid' or 'free', found {cuts!r}", cuts=cuts)
        self.count = frame_count(seconds)
        self.shots = _draw_shots(self.count, np.random.default_rng((seed, 1)), cuts, known_only)

    @cached_property
    def frames(self) -> NDArray[np.uint8]:
        """All frames, (frame, 64, 96, 3)."""
        return np.concatenate([render(shot, shot.frames) for shot in self.shots])

    @property
    def cut_frames(self) -> NDArray[np.int64]:
        """Index of the first frame of each shot, (shot,)."""
        return np.array([shot.first for shot in self.shots], dtype=np.int64)

    @property
    def windows(self) -> int:
        """Number of whole windows of 32 frames."""
        return self.count // SHOT_FRAMES

    def clip(self, k: int) -> NDArray[np.uint8]:
        """Return window k and one frame more, in which its last shot goes on, (33, 64, 96, 3).

        The window consists of frames 32k to 32k + 31.
        """
        stop = (k + 1) * SHOT_FRAMES
        if not 0 <= k < self.windows:
            raise IndexError(f"there is no window {k} in a film of {self.windows} windows")
        window_shots = [shot for shot in self.shots if stop - SHOT_FRAMES < shot.first + shot.frames]
        parts = []
        for shot in (shot for shot in window_shots if shot.first < stop):
            last = shot.first + shot.frames >= stop
            start = max(stop - SHOT_FRAMES - shot.first, 0)
            parts.append(render(shot, stop + 1 - shot.first if last else shot.frames)[start:])
        return np.concatenate(parts)

    def labels(self) -> NDArray[np.int64]:
        """Return the index of each attribute's value at each frame, (frame, attribute)."""
        rows = [[ATTRIBUTES[name].index(value) for name, value in s.attributes.items()] for s in self.shots]
        return np.repeat(np.array(rows, dtype=np.int64), [s.frames for s in self.shots], axis=0)

    def resampled(self, size: tuple[int, int], fps: float) -> Iterator[NDArray[np.uint8]]:
        """Yield the film at another size and rate, (row, column, 3) each.

        It is drawn at 64 x 96 px and 8 fps, as it always is, and scaled until it fills the size.
        """
        return resampled(self.frames, FPS, size, fps)

    def write_events(self, path: Path) -> None:
        """Write the shots as a BIDS events file."""
        write_shots(self.shots, path)


def frame_count(seconds: float) -> int:
    """Return the number of whole frames in a length.

    Raises
    ------
    UsageError
        If it is shorter than one frame.
    """
    count = int(Fraction(str(seconds)) * FPS)
    if count < 1:
        raise UsageError(
            "film-under-one-frame",
            "a film must have at least one frame ({frame_s} s), found {duration_s} s",
            frame_s=1 / FPS,
            duration_s=seconds,
        )
    return count


def write_shots(shots: Iterable[Any], path: Path, fps: float = FPS) -> None:
    """Write shots, with `first`, `frames` and `attributes`, as a BIDS events file; ``n/a`` is not known."""
    with path.open("w", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(["onset", "duration", "trial_type", *ATTRIBUTES])
        for shot in shots:
            cells = [shot.attributes.get(name, "n/a") for name in ATTRIBUTES]
            table.writerow([shot.first / fps, shot.frames / fps, "shot", *cells])


def render(shot: Shot, frames: int) -> NDArray[np.uint8]:
    """Draw the first frames of a shot.

    Parameters
    ----------
    shot : Shot
        What the shot shows.
    frames : int
        Number of frames. It may exceed ``shot.frames``; the movement then goes on.

    Returns
    -------
    (frame, 64, 96, 3) uint8
        RGB.
    """
    seconds = np.arange(frames, dtype=np.float32)[:, None, None] / np.float32(FPS)
    row, col = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    texture = 1 + _TEXTURE_DEPTH * _texture(shot, seconds, row, col)
    picture = texture[..., None] * np.array(BACKGROUNDS[shot.background], np.float32)
    # Pixel positions relative to the shape, which moves along its path; rows count downwards.
    angle = DIRECTIONS.index(shot.direction) * np.pi / 4
    way = shot.path * (seconds * FPS / shot.length - 0.5)
    y = row - (shot.center[0] - way * np.float32(np.sin(angle)))
    x = col - (shot.center[1] + way * np.float32(np.cos(angle)))
    distance = _distance(shot.shape, x, y, shot.radius)
    # The edge is one pixel wide; light falls from the upper left and fades towards the edge.
    cover = np.clip(0.5 - distance, 0, 1)[..., None]
    light = np.clip(1 - 0.006 * (x + y), 0.75, 1.15) * np.clip(0.6 - 0.25 * distance, 0.6, 1)
    surface = light[..., None] * np.array(COLORS[shot.color], np.float32)
    return np.rint(np.clip(picture + cover * (surface - picture), 0, 255)).astype(np.uint8)


def _texture(shot: Shot, seconds: Float, row: Float, col: Float) -> Float:
    wave = np.float32(2 * np.pi / shot.period)
    speed = np.float32(_PAN_SPEEDS[shot.pan])
    x = wave * (col - speed * seconds) + np.float32(shot.phase[1])
    y = wave * row + np.float32(shot.phase[0])
    if shot.texture == "stripes":
        return np.sin(x + 0.4 * y)
    if shot.texture == "checks":
        return np.float32(1.4) * np.sin(x) * np.sin(y)
    rise = wave * (row - HEIGHT / 2)
    run = wave * (col - WIDTH / 2 - speed * seconds)
    return np.cos(np.float32(1.3) * np.hypot(rise, run) + np.float32(shot.phase[0]))


def _distance(shape: str, x: Float, y: Float, radius: float) -> Float:
    """Return the signed distance to the outline in px, negative inside."""
    if shape == "disc":
        return np.hypot(x, y) - np.float32(radius)
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - np.float32(0.86 * radius)
    slope = np.float32(np.sqrt(3) / 2)
    return np.maximum(slope * np.abs(x) - y / 2, y) - np.float32(0.62 * radius)


def _draw_shots(count: int, rng: np.random.Generator, cuts: str, known_only: bool) -> tuple[Shot, ...]:
    shots: list[Shot] = []
    first = 0
    while first < count:
        free = min(12 + int(rng.exponential(20)), 80)
        length = SHOT_FRAMES if cuts == "grid" else free
        shot = _draw_shot(first, length, min(length, count - first), rng)
        # Drawn anew, known shots are as frequent among themselves as they are in any film of shapes.
        while known_only and novelty(shot.attributes) != SEEN_VALUES:
            shot = _draw_shot(first, length, min(length, count - first), rng)
        shots.append(shot)
        first += length
    return tuple(shots)


def _draw_shot(first: int, length: int, frames: int, rng: np.random.Generator) -> Shot:
    names = {name: values[rng.integers(len(values))] for name, values in ATTRIBUTES.items()}
    return Shot(
        first=first,
        frames=frames,
        length=length,
        center=(HEIGHT / 2 + rng.uniform(-4, 4), WIDTH / 2 + rng.uniform(-10, 10)),
        radius=rng.uniform(14, 19),
        path=rng.uniform(26, 36),
        period=rng.uniform(32, 48),
        phase=(rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi)),
        **names,
    )
