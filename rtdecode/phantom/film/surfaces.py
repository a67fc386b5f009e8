"""Paint surfaces of the film `natural`: octaves of noise, leaves that hide each other, ragged outlines."""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Reals = NDArray[np.float32]
Box = tuple[float, float, float, float]
Color = tuple[int, int, int]

# Octaves of noise: the coarsest has cells of 1 height, the finest is never finer than this.
_OCTAVES = 10


@dataclass(frozen=True, slots=True)
class Surface:
    """A plane parallel to the picture.

    Attributes
    ----------
    outline : str
        ``full``, ``ground`` (all below a ragged line), ``clumps`` (foliage about a line), or ``trunks``.
    near : float
        Nearness: how much it moves with the camera; the sky's is about 0.
    level : float
        Height of the line, heights below the middle of the picture.
    ragged : float
        Standard deviation of the outline about its line, heights.
    colors : (Color, Color)
        Colours of its dark and light places, 0 to 255.
    contrast, slope, stretch : float
        Of its texture: how much of the way between the colours one standard deviation is, the slope of the
        power spectrum, and how much wider than high its cells are.
    slant : float
        How much lighter it gets, as a share of that way, in one height downwards.
    leaves : float
        Leaves a square height.
    seed : tuple of int
        Of its outline and texture.
    """

    outline: str
    near: float
    level: float
    ragged: float
    colors: tuple[Color, Color]
    contrast: float
    slope: float
    stretch: float
    slant: float
    leaves: float
    seed: tuple[int, ...]


def noise(
    seed: tuple[int, ...], box: Box, size: tuple[int, int], slope: float, stretch: float = 1.0
) -> Reals:
    """Return noise whose power falls with frequency, the same at any resolution.

    Parameters
    ----------
    seed : tuple of int
        Seed of the noise.
    box : (float, float, float, float)
        Left, top, right and bottom, heights.
    size : (int, int)
        Rows and columns. Octaves finer than a pixel are left out.
    slope : float
        Power is proportional to frequency to this power, about -3 to -2.
    stretch : float
        How much wider than high the cells are.

    Returns
    -------
    (row, column) float32
        With unit variance, if all octaves are there.
    """
    left_x, top_y, right_x, bottom_y = box
    rows, columns = size
    total = np.zeros(size, np.float32)
    # Power in an octave of a plane is proportional to frequency to slope + 2.
    amplitudes = _amplitudes(slope)
    for octave, amplitude in enumerate(amplitudes):
        cell = 0.5**octave
        if cell * rows < bottom_y - top_y:
            break
        wide = cell * stretch
        x0 = math.floor(left_x / wide) - 2
        y0 = math.floor(top_y / cell) - 2
        across = math.ceil(right_x / wide) + 3 - x0
        down = math.ceil(bottom_y / cell) + 3 - y0
        rng = np.random.default_rng((*seed, octave))
        lattice = Image.fromarray(rng.standard_normal((down, across), np.float32))
        part = (left_x / wide - x0, top_y / cell - y0, right_x / wide - x0, bottom_y / cell - y0)
        fine = lattice.resize((columns, rows), Image.Resampling.BICUBIC, box=part)
        total += np.float32(amplitude) * np.asarray(fine)
    return total


@cache
def _amplitudes(slope: float) -> tuple[float, ...]:
    power = np.exp2(np.arange(_OCTAVES) * (slope + 2))
    # Bicubic interpolation between cells leaves about half of their variance.
    return tuple(np.sqrt(power / power.sum() / 0.5).tolist())


def paint(surface: Surface, box: Box, density: float) -> Image.Image:
    """Paint the part of a surface that a shot shows.

    Parameters
    ----------
    surface : Surface
        The surface to paint.
    box : (float, float, float, float)
        Left, top, right and bottom of the part, heights.
    density : float
        Pixels per height.

    Returns
    -------
    Image
        RGBX, of which X is how much of each pixel is covered; the whole box.
    """
    left_x, top_y, right_x, bottom_y = box
    rows = math.ceil((bottom_y - top_y) * density)
    columns = math.ceil((right_x - left_x) * density)
    texture = noise((*surface.seed, 1), box, (rows, columns), surface.slope, surface.stretch)
    y = centers(top_y, bottom_y, rows)[:, None]
    tone = 0.5 + surface.contrast * texture + surface.slant * (y - surface.level)
    dark, light = (np.array(color, np.float32) for color in surface.colors)
    rgb = dark + np.clip(tone, 0, 1)[..., None] * (light - dark)
    if surface.leaves:
        leafy = _with_leaves(Image.fromarray(rgb.astype(np.uint8)), surface, box)
        rgb = np.asarray(leafy) * (1 + 0.3 * surface.contrast * texture[..., None])
    picture = Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))
    # Colours go on outside the outline, so RGBX, which is not multiplied by its fourth band, is the truth.
    return Image.merge("RGBX", (*picture.split(), _outline(surface, box, rows, columns)))


def centers(first: float, last: float, count: int) -> Reals:
    """Return the middles of so many equal parts of a length, (count,)."""
    return np.float32(first) + (np.arange(count, dtype=np.float32) + 0.5) * np.float32((last - first) / count)


def _with_leaves(picture: Image.Image, surface: Surface, box: Box) -> Image.Image:
    """Draw ellipses over each other, with a power law of sizes: the dead leaves of Lee et al. (2001)."""
    left_x, top_y, right_x, bottom_y = box
    rng = np.random.default_rng((*surface.seed, 2))
    number = int(surface.leaves * (right_x - left_x) * (bottom_y - top_y))
    # Drawn at twice the size, so that edges are smooth.
    picture = picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST)
    densities = np.array([picture.width / (right_x - left_x), picture.height / (bottom_y - top_y)] * 2)
    # The density of radii falls with their third power between these two.
    smallest = 0.02
    largest = 0.3
    share = rng.random(number)
    radii = (smallest**-2 + share * (largest**-2 - smallest**-2)) ** -0.5
    x = rng.uniform(left_x, right_x, number)
    y = rng.uniform(top_y, bottom_y, number)
    ratio = np.exp(rng.normal(0, 0.35, number))
    dark, light = (np.array(color) for color in surface.colors)
    tone = rng.uniform(-0.2, 1.2, number)[:, None]
    colors = np.clip(dark + tone * (light - dark), 0, 255).astype(int)
    draw = ImageDraw.Draw(picture)
    # Large leaves first, so that small ones are seen.
    for k in np.argsort(-radii):
        wide = radii[k] * ratio[k]
        high = radii[k] / ratio[k]
        edges = np.array(
            [x[k] - wide - left_x, y[k] - high - top_y, x[k] + wide - left_x, y[k] + high - top_y]
        )
        first_x, first_y, last_x, last_y = (edges * densities).tolist()
        # The last pixel is drawn, too.
        if last_x - 1 >= first_x and last_y - 1 >= first_y:
            draw.ellipse((first_x, first_y, last_x - 1, last_y - 1), fill=tuple(colors[k].tolist()))
    return picture.reduce(2)


def _outline(surface: Surface, box: Box, rows: int, columns: int) -> Image.Image:
    """Return how much of each pixel the surface covers."""
    left_x, top_y, right_x, bottom_y = box
    density = rows / (bottom_y - top_y)
    if surface.outline == "full":
        return Image.new("L", (columns, rows), 255)
    seed = (*surface.seed, 3)
    y = centers(top_y, bottom_y, rows)[:, None] - np.float32(surface.level)
    if surface.outline == "ground":
        line = noise(seed, (left_x, 0, right_x, (right_x - left_x) / columns), (1, columns), -2.8)
        depth = y - np.float32(surface.ragged) * line
    elif surface.outline == "clumps":
        bumps = noise(seed, box, (rows, columns), -2.6)
        depth = y + np.float32(surface.ragged) * (2 * bumps - 0.5)
    else:
        rng = np.random.default_rng((*surface.seed, 4))
        x = centers(left_x, right_x, columns)[None]
        bend = noise(seed, (0, top_y, (bottom_y - top_y) / rows, bottom_y), (rows, 1), -3.2)
        depth = np.full((rows, columns), -1, np.float32)
        for _ in range(rng.integers(1, 4)):
            middle = rng.uniform(left_x, right_x)
            half = rng.uniform(0.3, 1) * surface.ragged
            lean = rng.normal(0, 0.15)
            depth = np.maximum(depth, half * (1 + 0.3 * y) - np.abs(x - middle - lean * y - 0.04 * bend))
    return Image.fromarray((255 * np.clip(0.5 + density * depth, 0, 1)).astype(np.uint8))
