"""Draw a shot of the film `natural`: what a camera sees of surfaces and of things that move between them.

A shot is a description from which any instant can be drawn at any size. Lengths are in heights of a picture
that is 3 wide and 2 high, x to the right and y down from its middle; times are in seconds.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

from rtdecode.phantom.film.fit import Frames
from rtdecode.phantom.film.surfaces import Box, Color, Surface, centers, noise, paint

# Shots last whole frames of a film at so many a second.
TICKS = 24

_ASPECT = 1.5
# Half the diagonal of the picture.
_REACH = math.hypot(_ASPECT, 1) / 2
# The part of a body's texture that is painted, in radii, and of the shadows that drift over the picture.
_SKIN = (-2.8, -2.8, 2.8, 2.8)
_SHADOWS = (-6.0, -3.0, 6.0, 3.0)
# Pixels per height of the shadows.
_SHADOW_DENSITY = 8
_FADE_S = 0.7
# The outline of a disc.
_AROUND = np.linspace(0, 2 * np.pi, 32, endpoint=False)
_RING = np.stack([np.cos(_AROUND), np.sin(_AROUND)], axis=-1)
_EYE = (20, 16, 16)


@dataclass(frozen=True, slots=True)
class Camera:
    """Where the camera is: place and velocity at nearness 1, and its other movements.

    Attributes
    ----------
    velocity : (float, float)
        Heights a second.
    zoom, dolly : float
        Rates a second: of the logarithm of the focal length, and of the way towards the scene.
    roll, turn : float
        Angle in the middle of the shot, rad, and its rate, rad/s.
    shake : float
        Amplitude of a hand-held camera's sway, heights.
    phase : float
        Phase of the sway, rad.
    """

    velocity: tuple[float, float]
    zoom: float
    dolly: float
    roll: float
    turn: float
    shake: float
    phase: float

    def center(self, t: float) -> tuple[float, float]:
        """Return where it looks, `t` seconds after the middle of the shot."""
        x = self.velocity[0] * t + self.shake * math.sin(4.1 * t + self.phase)
        y = self.velocity[1] * t + self.shake * math.sin(5.3 * t + 2 * self.phase)
        return x, y

    def scale(self, t: float, near: float) -> float:
        """Return the magnification of what is at a nearness."""
        return math.exp(self.zoom * t) * math.exp(self.dolly * near * t)

    def angle(self, t: float) -> float:
        """Return the roll, rad."""
        return self.roll + self.turn * t


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that moves and deforms: a body with a head and limbs.

    Attributes
    ----------
    behind : int
        Number of the first surface that hides it.
    near : float
        Nearness, which is how much it moves with the camera.
    start, velocity : (float, float)
        Place in the middle of the shot, heights, and velocity, heights a second.
    size : float
        Radius of the body, heights.
    colors : tuple
        Of body, head and limbs.
    bumps : tuple of (amplitude, phase, rate)
        Waves around the outline of the body, with two, three, ... periods.
    limbs : tuple of (angle, length, swing, phase)
        Angles and phase in rad, length in radii of the body.
    head : float
        Radius of the head against the body's; 0 without one.
    pace : float
        Steps a second.
    seed : tuple of int
        Of its texture.
    """

    behind: int
    near: float
    start: tuple[float, float]
    velocity: tuple[float, float]
    size: float
    colors: tuple[Color, Color, Color]
    bumps: tuple[tuple[float, float, float], ...]
    limbs: tuple[tuple[float, float, float, float], ...]
    head: float
    pace: float
    seed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Light:
    """How bright the picture is.

    Attributes
    ----------
    level : float
        What pixels are multiplied by.
    wave : (float, float, float)
        Amplitude, rate (rad/s) and phase (rad) of a slow change.
    flicker, shadow : float
        Amplitudes of a quick change, and of shadows that drift over the picture.
    drift : (float, float)
        Velocity of the shadows, heights a second.
    fade : (bool, bool)
        Whether the shot begins and ends in black.
    seed : tuple of int
        Of the shadows.
    """

    level: float
    wave: tuple[float, float, float]
    flicker: float
    shadow: float
    drift: tuple[float, float]
    fade: tuple[bool, bool]
    seed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NaturalShot:
    """One shot: its first tick and length in ticks, 24 a second, and what it shows."""

    first: int
    ticks: int
    surfaces: tuple[Surface, ...]
    things: tuple[Thing, ...]
    camera: Camera
    light: Light
    colorless: bool


class Stage:
    """The surfaces of a shot, painted as finely as a size needs."""

    def __init__(self, shot: NaturalShot, size: tuple[int, int]) -> None:
        self._shot = shot
        self._size = size
        self._middle_s = shot.ticks / TICKS / 2
        # Pixels per height of the picture, which fills the size.
        self._unit = max(size[0], size[1] / _ASPECT)
        # As few as keep the edges of things smooth.
        self._fine = 2 if self._unit < 256 else 1
        self._plates = [self._painted(surface) for surface in shot.surfaces]
        self._skins = [self._skin(thing) for thing in shot.things]
        self._shadow = self._shadows()
        # What was last seen of each surface, and from where.
        self._held: dict[int, tuple[tuple[float, ...], Image.Image]] = {}

    def picture(self, second: float) -> Frames:
        """Return the picture at an instant, in seconds after the start of the shot, (row, column, 3)."""
        t = second - self._middle_s
        image = Image.new("RGBX", (self._size[1], self._size[0]))
        for number in range(len(self._plates)):
            self._add_things(image, number, t)
            layer = self._seen(number, t)
            image.paste(layer, mask=layer.getchannel(3))
        self._add_things(image, len(self._plates), t)
        if self._shot.colorless:
            image = image.convert("RGB").convert("L").convert("RGB")
        lit = np.asarray(image)[..., :3] * self._gain(t)
        return np.clip(lit, 0, 255).astype(np.uint8)

    def _painted(self, surface: Surface) -> tuple[Image.Image, Box]:
        """Paint what the camera sees of a surface during the shot, and say where that is."""
        camera = self._shot.camera
        parts = []
        scales = []
        # The camera moves so evenly that these instants tell what is seen.
        for t in np.linspace(-self._middle_s, self._middle_s, 9).tolist():
            scale = camera.scale(t, surface.near)
            x, y = camera.center(t)
            # Half the picture's diagonal, for it may roll; and a margin for interpolation and sway.
            reach = _REACH / scale + 2 * surface.near * camera.shake + 0.1
            x = surface.near * x
            y = surface.near * y
            parts.append((x - reach, y - reach, x + reach, y + reach))
            scales.append(scale)
        low = np.min(parts, axis=0)
        high = np.max(parts, axis=0)
        box = (float(low[0]), float(low[1]), float(high[2]), float(high[3]))
        return paint(surface, box, self._unit * max(scales)), box

    def _seen(self, number: int, t: float) -> Image.Image:
        """Return what the camera sees of a surface."""
        near = self._shot.surfaces[number].near
        camera = self._shot.camera
        x, y = camera.center(t)
        pose = (near * x, near * y, camera.angle(t), camera.scale(t, near))
        # A camera that holds still sees the same again.
        if number not in self._held or self._held[number][0] != pose:
            plate, box = self._plates[number]
            self._held[number] = pose, self._moved(plate, box, *pose)
        return self._held[number][1]

    def _moved(
        self,
        plate: Image.Image,
        box: Box,
        x: float,
        y: float,
        angle: float,
        scale: float,
        part: tuple[int, int, int, int] | None = None,
    ) -> Image.Image:
        """Return a plate as it is seen with its point (x, y) in the middle, or a part of the picture, px."""
        rows, columns = self._size
        first_column, first_row, last_column, last_row = part or (0, 0, columns, rows)
        wide = last_column - first_column
        high = last_row - first_row
        left_x, top_y, right_x, bottom_y = box
        x_density = plate.width / (right_x - left_x)
        y_density = plate.height / (bottom_y - top_y)
        step = 1 / (scale * self._unit)
        cosine = step * math.cos(angle)
        sine = step * math.sin(angle)
        # From the middle of the picture to the corner of the part.
        across = first_column - columns / 2
        down = first_row - rows / 2
        x = (x + cosine * across - sine * down - left_x) * x_density
        y = (y + sine * across + cosine * down - top_y) * y_density
        if angle == 0:
            # The same, in a fifth of the time.
            extent = (x, y, x + wide * step * x_density, y + high * step * y_density)
            return plate.resize((wide, high), Image.Resampling.BILINEAR, extent)
        turn = (cosine * x_density, -sine * x_density, x, sine * y_density, cosine * y_density, y)
        return plate.transform((wide, high), Image.Transform.AFFINE, turn, Image.Resampling.BILINEAR)

    def _skin(self, thing: Thing) -> Image.Image:
        """Return the texture of a thing, which is lighter above and darker below."""
        left_x, top_y, right_x, bottom_y = _SKIN
        density = max(thing.size * self._unit, 4)
        size = (math.ceil((bottom_y - top_y) * density), math.ceil((right_x - left_x) * density))
        gain = 0.75 + 0.14 * noise(thing.seed, _SKIN, size, -2.4)
        gain -= 0.15 * centers(top_y, bottom_y, size[0])[:, None]
        return Image.fromarray((255 * np.clip(gain, 0, 1)).astype(np.uint8))

    def _add_things(self, image: Image.Image, number: int, t: float) -> None:
        """Draw the things that are hidden by surface `number` and by none before it."""
        for thing, skin in zip(self._shot.things, self._skins, strict=True):
            if thing.behind == number:
                self._add(image, thing, skin, t)

    def _add(self, image: Image.Image, thing: Thing, skin: Image.Image, t: float) -> None:
        """Draw a thing over what is shown."""
        camera = self._shot.camera
        scale = camera.scale(t, thing.near)
        angle = camera.angle(t)
        x, y = camera.center(t)
        step = 2 * math.pi * thing.pace * t
        bob = 0.06 * thing.size * math.sin(2 * step)
        # Its place, in radii of the body, from the point in the middle of the picture.
        across = (thing.start[0] + thing.velocity[0] * t - thing.near * x) / thing.size
        down = (thing.start[1] + thing.velocity[1] * t + bob - thing.near * y) / thing.size
        radius = thing.size * scale * self._unit
        cosine = radius * math.cos(angle)
        sine = radius * math.sin(angle)
        rows, columns = self._size
        column = columns / 2 + cosine * across + sine * down
        row = rows / 2 - sine * across + cosine * down
        # A pixel less than its texture has.
        reach = _SKIN[2] * radius - 1
        part = (
            max(math.floor(column - reach), 0),
            max(math.floor(row - reach), 0),
            min(math.ceil(column + reach), columns),
            min(math.ceil(row + reach), rows),
        )
        wide = part[2] - part[0]
        high = part[3] - part[1]
        if wide <= 0 or high <= 0:
            return
        fine = self._fine
        # The colour of the body lies under all edges, so that they do not darken.
        canvas = Image.new("RGBX", (fine * wide, fine * high), (*thing.colors[0], 0))
        draw = ImageDraw.Draw(canvas)
        turn = fine * np.array([[cosine, -sine], [sine, cosine]])
        # Whole numbers are the middles of pixels where lines are drawn.
        middle = fine * np.array([column - part[0], row - part[1]]) - 0.5
        for color, width, points in _outlines(thing, t, step):
            placed = [(x, y) for x, y in (points @ turn + middle).tolist()]
            if width:
                draw.line(placed, (*color, 255), max(round(width * fine * radius), 1), "curve")
            else:
                draw.polygon(placed, (*color, 255))
        canvas = canvas.reduce(fine)
        shade = self._moved(skin, _SKIN, -across, -down, angle, thing.size * scale, part)
        shaded = ImageChops.multiply(canvas, Image.merge("RGBX", [shade] * 4))
        image.paste(shaded, part[:2], canvas.getchannel(3))

    def _shadows(self) -> Image.Image | None:
        """Return the noise that drifts over the picture as light and shadow; None in even light."""
        if not self._shot.light.shadow:
            return None
        left_x, top_y, right_x, bottom_y = _SHADOWS
        size = (round(_SHADOW_DENSITY * (bottom_y - top_y)), round(_SHADOW_DENSITY * (right_x - left_x)))
        return Image.fromarray(noise(self._shot.light.seed, _SHADOWS, size, -3.5))

    def _gain(self, t: float) -> NDArray[np.float32]:
        """Return what the light multiplies each pixel by, (row, column, 1) or (1, 1, 1)."""
        light = self._shot.light
        size, rate, phase = light.wave
        gain = light.level * (1 + size * math.sin(rate * t + phase))
        gain *= 1 + light.flicker * (math.sin(37 * t) + math.sin(53 * t))
        before = t + self._middle_s
        after = self._middle_s - t
        for faded, seconds in zip(light.fade, (before, after), strict=True):
            if faded:
                gain *= min(seconds / _FADE_S, 1.0)
        if self._shadow is None:
            return np.full((1, 1, 1), gain, np.float32)
        drift = (light.drift[0] * t, light.drift[1] * t)
        shadow = np.asarray(self._moved(self._shadow, _SHADOWS, *drift, 0.0, 1.0))
        return np.float32(gain) * (1 + np.float32(light.shadow) * shadow[..., None])


def _outlines(thing: Thing, t: float, step: float) -> Iterator[tuple[Color, float, NDArray[np.float64]]]:
    """Yield colour, width of the line (0: it is filled) and points (radii) of each part, rearmost first."""
    body, head, limb = thing.colors
    for angle, length, swing, phase in thing.limbs:
        way = angle + swing * math.sin(step + phase)
        bent = way + 0.5 * swing * math.cos(step + phase)
        hip = _toward(angle)
        knee = hip + length / 2 * _toward(way)
        yield limb, 0.32, np.stack([0.7 * hip, knee, knee + length / 2 * _toward(bent)])
    bumps = [
        size * np.sin(n * _AROUND + phase + rate * t) for n, (size, phase, rate) in enumerate(thing.bumps, 2)
    ]
    yield body, 0.0, (1 + np.sum(bumps, axis=0))[:, None] * _RING
    if thing.head:
        neck = np.array([0.25 * math.sin(0.7 * step), -1.0 - 0.5 * thing.head])
        yield head, 0.0, neck + thing.head * _RING
        for side in (-0.35, 0.35):
            yield _EYE, 0.0, neck + thing.head * (0.16 * _RING + (side, -0.1))


def _toward(angle: float) -> NDArray[np.float64]:
    return np.array([math.cos(angle), math.sin(angle)])
