"""Draw the film `natural`: endless, with the statistics of real films, and free of rights.

A seed gives the shots, and a shot gives its picture at any instant and any size. Shots come in places,
which share their colours. A place has surfaces at depths, from the sky to what is close to the camera; the
camera pans, zooms, rolls and comes nearer, and near surfaces move more than far ones. Between them things
with limbs move, deform, and hide each other. Light changes.
"""

import math
from collections.abc import Iterator
from colorsys import hsv_to_rgb
from dataclasses import dataclass
from itertools import count

import numpy as np

from rtdecode.phantom.film.fit import Frames
from rtdecode.phantom.film.scene import TICKS, Camera, Light, NaturalShot, Stage, Thing
from rtdecode.phantom.film.surfaces import Color, Surface

# Logarithm of a shot's seconds: mean and standard deviation over the 164 shots that `find_cuts` finds in
# `films/train` of the recorded data, and the bounds within which nearly all of them lie.
_LOG_LENGTH = (0.99, 0.79)
_SHORTEST_S = 0.6
_LONGEST_S = 25.0
# A place is left for another after a shot with this probability.
_LEAVE = 0.2

# Hue, saturation and value, 0 to 1.
Hsv = tuple[float, float, float]


def natural_shots(seed: int) -> Iterator[NaturalShot]:
    """Yield the shots of an endless film in order."""
    place = first = 0
    for number in count():
        rng = np.random.default_rng((seed, 61, number))
        seconds = float(np.clip(np.exp(rng.normal(*_LOG_LENGTH)), _SHORTEST_S, _LONGEST_S))
        ticks = round(seconds * TICKS)
        yield _draw_shot(first, ticks, np.random.default_rng((seed, 62, place)), rng, (seed, 63, number))
        first += ticks
        place += rng.random() < _LEAVE


def natural_frames(seed: int, frames: int, size: tuple[int, int], fps: float) -> Iterator[Frames]:
    """Yield the first frames of the film, (row, column, 3) each.

    It is drawn shot by shot. The picture is half as wide again as high; it fills the size, and what then lies
    outside is cut off.

    Parameters
    ----------
    seed : int
        Seed of the film.
    frames : int
        How many in all; frame n is the instant n / fps.
    size : (int, int)
        Rows and columns.
    fps : float
        Frames a second.
    """
    done = 0
    for shot in natural_shots(seed):
        stop = min(math.ceil((shot.first + shot.ticks) * fps / TICKS), frames)
        stage = Stage(shot, size)
        for frame in range(done, stop):
            yield stage.picture(frame / fps - shot.first / TICKS)
        done = stop
        if done == frames:
            break


@dataclass(frozen=True, slots=True)
class _Place:
    """What the shots of one place share: outdoors or not, colours by name, brightness."""

    outdoors: bool
    colors: dict[str, tuple[Color, Color]]
    things: tuple[tuple[Color, Color, Color], ...]
    level: float
    colorless: bool


def _draw_place(rng: np.random.Generator) -> _Place:
    outdoors = bool(rng.random() < 0.65)
    # Hue, saturation and value of the light places; the sky is blue, warm or grey, and so on.
    sky = _one_of(rng, ((0.58, 0.45, 0.95), (0.55, 0.25, 1.0), (0.07, 0.35, 0.95), (0.6, 0.1, 0.8)))
    ground = _one_of(rng, ((0.24, 0.6, 0.75), (0.28, 0.5, 0.55), (0.09, 0.45, 0.65), (0.11, 0.12, 0.85)))
    leaf = _one_of(rng, ((0.27, 0.65, 0.55), (0.33, 0.5, 0.45), (0.12, 0.6, 0.55), (0.4, 0.4, 0.5)))
    wood = _one_of(rng, ((0.07, 0.4, 0.5), (0.05, 0.5, 0.35), (0.08, 0.2, 0.6)))
    wall = _one_of(
        rng, ((0.1, 0.3, 0.75), (0.55, 0.25, 0.6), (0.03, 0.5, 0.5), (0.6, 0.5, 0.35), (0.0, 0.0, 0.6))
    )
    things = []
    for _ in range(4):
        hue = rng.random()
        saturation = 0.7 * rng.random() ** 1.5
        value = rng.uniform(0.25, 1)
        things.append(tuple(_rgb((hue + 0.04 * k, saturation, value * (1 - 0.15 * k))) for k in range(3)))
    return _Place(
        outdoors=outdoors,
        colors={
            "sky": _pair(rng, sky, 0.75),
            "ground": _pair(rng, ground, 0.25),
            "hill": _pair(rng, (ground[0] + 0.08, 0.6 * ground[1], 0.9 * ground[2]), 0.5),
            "leaf": _pair(rng, leaf, 0.2),
            "wood": _pair(rng, wood, 0.3),
            "wall": _pair(rng, wall, 0.3),
            "close": _pair(rng, (leaf[0], leaf[1], 0.5 * leaf[2]), 0.2),
        },
        things=tuple(things),
        level=float(np.clip(np.exp(rng.normal(0 if outdoors else -0.25, 0.25)), 0.3, 1.25)),
        colorless=bool(rng.random() < 0.15),
    )


def _one_of(rng: np.random.Generator, choices: tuple[Hsv, ...]) -> Hsv:
    return choices[rng.integers(len(choices))]


def _pair(rng: np.random.Generator, hsv: Hsv, dark: float) -> tuple[Color, Color]:
    """Return a dark and a light colour near one; the dark has this share of the other's value."""
    hue, saturation, value = hsv
    hue += rng.normal(0, 0.02)
    saturation = float(np.clip(saturation * np.exp(rng.normal(0, 0.3)), 0, 0.9))
    value = float(np.clip(value * np.exp(rng.normal(0, 0.15)), 0, 1))
    return _rgb((hue, min(1.2 * saturation, 1), dark * value)), _rgb((hue, saturation, value))


def _rgb(hsv: Hsv) -> Color:
    red, green, blue = hsv_to_rgb(hsv[0] % 1, hsv[1], hsv[2])
    return round(255 * red), round(255 * green), round(255 * blue)


def _draw_shot(
    first: int, ticks: int, place_rng: np.random.Generator, rng: np.random.Generator, seed: tuple[int, ...]
) -> NaturalShot:
    place = _draw_place(place_rng)
    surfaces = _draw_surfaces(place, rng, seed)
    # A close-up has one large thing before a blurred place.
    close_up = bool(rng.random() < 0.3)
    if close_up:
        surfaces = surfaces[:2]
    number = 1 if close_up else int(rng.integers(0, 4))
    things = tuple(_draw_thing(place, surfaces, rng, (*seed, 20 + k), close_up) for k in range(number))
    camera = _draw_camera(things, ticks / TICKS, rng)
    return NaturalShot(first, ticks, surfaces, things, camera, _draw_light(place, rng, seed), place.colorless)


def _draw_surfaces(place: _Place, rng: np.random.Generator, seed: tuple[int, ...]) -> tuple[Surface, ...]:
    """Draw what stands at each depth, the farthest first."""
    surfaces: list[Surface] = []

    def add(color: str, outline: str, near: float, level: float, ragged: float, **other: float) -> None:
        values = {"contrast": 0.45, "slope": -2.3, "stretch": 1.0, "slant": 0.0, "leaves": 0.0} | other
        surfaces.append(
            Surface(outline, near, level, ragged, place.colors[color], seed=(*seed, len(surfaces)), **values)
        )

    horizon = float(rng.normal(0.1, 0.15))
    if place.outdoors:
        add("sky", "full", 0.05, 0.0, 0.0, contrast=0.4, slope=-2.9, stretch=2.0, slant=0.5)
        if rng.random() < 0.6:
            add("hill", "ground", 0.15, horizon - 0.12, 0.08, contrast=0.4)
        if rng.random() < 0.7:
            add("leaf", "clumps", 0.3, horizon - rng.uniform(-0.1, 0.2), 0.12, leaves=rng.uniform(0, 250))
        add("ground", "ground", 0.5, horizon, 0.03, stretch=3.0, slant=rng.uniform(-0.4, 0.4), contrast=0.4)
    else:
        add(
            "wall",
            "full",
            0.3,
            0.0,
            0.0,
            contrast=0.3,
            leaves=rng.uniform(0, 25),
            slant=rng.uniform(-0.5, 0.5),
        )
        add("ground", "ground", 0.5, horizon + 0.2, 0.01, stretch=3.0, slant=rng.uniform(-0.4, 0.4))
    if rng.random() < 0.4:
        add("wood", "trunks", 0.7, 0.0, rng.uniform(0.05, 0.25), stretch=0.3)
    if rng.random() < 0.35:
        add("close", "clumps", 1.4, rng.uniform(0.4, 0.65), 0.15, leaves=rng.uniform(0, 60))
    return tuple(surfaces)


def _draw_thing(
    place: _Place,
    surfaces: tuple[Surface, ...],
    rng: np.random.Generator,
    seed: tuple[int, ...],
    close_up: bool,
) -> Thing:
    behind = len(surfaces) if close_up else int(rng.integers(1, len(surfaces) + 1))
    near = 0.9 if close_up else min(surfaces[behind - 1].near + 0.1, 1.2)
    size = float(rng.uniform(0.3, 0.55) if close_up else np.clip(np.exp(rng.normal(-2.0, 0.5)), 0.05, 0.35))
    speed = float(np.exp(rng.normal(-2.4, 1.0)))
    way = rng.choice([0, np.pi]) + rng.normal(0, 0.4)
    # Some stand still, and hardly stir.
    life = 0.1 if rng.random() < 0.4 else 1.0
    limbs = [
        (
            float(a + rng.normal(0, 0.1)),
            rng.uniform(0.5, 1.2),
            rng.uniform(0.1, 0.8),
            rng.uniform(0, 2 * np.pi),
        )
        for a in ((1.2, 1.9), (1.2, 1.9, 0.1, 3.0), (0.9, 1.3, 1.8, 2.3), ())[rng.integers(4)]
    ]
    return Thing(
        behind=behind,
        near=near,
        start=(float(rng.uniform(-0.5, 0.5)), float(rng.uniform(-0.1, 0.35))),
        velocity=(life * speed * math.cos(way), life * speed * math.sin(way)),
        size=size,
        colors=place.things[rng.integers(len(place.things))],
        bumps=tuple(
            (0.12 / k * rng.normal(), rng.uniform(0, 2 * np.pi), life * rng.normal(0, 3)) for k in (1, 2, 3)
        ),
        limbs=tuple(limbs),
        head=float(rng.uniform(0.5, 0.9)) if rng.random() < 0.75 else 0.0,
        pace=life * float(rng.uniform(0.2, 1.5)),
        seed=seed,
    )


def _draw_camera(things: tuple[Thing, ...], seconds: float, rng: np.random.Generator) -> Camera:
    kind = rng.choice(["hold", "sway", "pan", "follow", "zoom"], p=[0.5, 0.13, 0.16, 0.08, 0.13])
    velocity = (0.0, 0.0)
    zoom = dolly = turn = shake = 0.0
    # Nothing moves farther in a shot than this.
    farthest = 2.5 / seconds
    if kind == "pan":
        speed = min(np.exp(rng.normal(-1.0, 0.9)), farthest)
        way = rng.choice([0, np.pi]) + rng.normal(0, 0.4)
        velocity = (float(speed * np.cos(way)), float(speed * np.sin(way)))
    elif kind == "follow" and things:
        x, y = np.clip(np.array(things[0].velocity) / things[0].near, -farthest, farthest).tolist()
        velocity = (x, y)
    elif kind == "zoom":
        rates = np.clip(rng.normal(0, 0.12, 2), -0.8 / seconds, 0.8 / seconds)
        zoom = float(rates[0])
        dolly = float(rates[1])
    if kind in ("sway", "follow"):
        shake = float(np.exp(rng.normal(-4.8, 0.7)))
    roll = 0.0
    if rng.random() < 0.2:
        roll = float(rng.normal(0, 0.05))
        turn = float(np.clip(rng.normal(0, 0.1), -0.5 / seconds, 0.5 / seconds))
    return Camera(velocity, zoom, dolly, roll, turn, shake, float(rng.uniform(0, 2 * np.pi)))


def _draw_light(place: _Place, rng: np.random.Generator, seed: tuple[int, ...]) -> Light:
    return Light(
        level=place.level * float(np.exp(rng.normal(0, 0.12))),
        wave=(
            float(abs(rng.normal(0, 0.05))) if rng.random() < 0.4 else 0.0,
            float(rng.uniform(0.3, 3)),
            float(rng.uniform(0, 2 * np.pi)),
        ),
        flicker=0.02 if place.colorless else 0.0,
        shadow=float(rng.uniform(0.05, 0.25)) if rng.random() < 0.5 else 0.0,
        drift=(float(rng.normal(0, 0.06)), float(rng.normal(0, 0.02))),
        fade=(bool(rng.random() < 0.03), bool(rng.random() < 0.03)),
        seed=(*seed, 40),
    )
