"""Lay the driven voxels out on a sheet: a visual cortex that participants share.

In a cortex that is `mixed`, a voxel's weights are drawn by themselves, and no voxel has anything to do with
a neighbour or with a voxel of somebody else. In one that is `shared`, each vertex of a sheet has a place, and
how strongly a feature drives it is read from a field that is smooth over the sheet and the same for all
participants. Each of them reads it through a smooth displacement of their own, which is what the registration
of two surfaces leaves.

`docs/phantom.md` lists the constants with their sources.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from scipy.spatial import KDTree

from rtdecode.errors import UsageError
from rtdecode.phantom.film.features import FEATURES, receptive_fields
from rtdecode.phantom.film.maps import GRID

Reals = NDArray[np.float64]

MIXED = "mixed"
SHARED = "shared"
CORTICES = (MIXED, SHARED)

# Vertices of both hemispheres, each of which is a voxel.
VERTICES = 2000
# Areas in the order of the visual hierarchy: name in the multi-modal parcellation (MMP), vertices in both
# hemispheres of fsLR-32k, stage (early, middle, high), and by how much receptive fields grow a degree.
_AREAS = (
    ("V1", 1618, 0, 0.10),
    ("V2", 1220, 0, 0.15),
    ("V3", 684, 0, 0.27),
    ("V4", 661, 0, 0.40),
    ("V3A", 298, 0, 0.40),
    ("V3B", 150, 0, 0.40),
    ("V3CD", 149, 0, 0.40),
    ("LO1", 80, 1, 0.60),
    ("LO2", 83, 1, 0.60),
    ("LO3", 125, 1, 0.60),
    ("V4t", 87, 1, 0.60),
    ("MT", 100, 1, 0.60),
    ("MST", 149, 1, 0.60),
    ("FST", 175, 1, 0.60),
    ("V6", 237, 1, 0.60),
    ("V6A", 96, 1, 0.60),
    ("V7", 89, 1, 0.60),
    ("IP0", 203, 1, 0.60),
    ("V8", 113, 1, 0.60),
    ("PIT", 124, 1, 0.60),
    ("PH", 397, 1, 0.60),
    ("VVC", 250, 2, 0.60),
    ("VMV1", 201, 2, 0.60),
    ("VMV2", 129, 2, 0.60),
    ("VMV3", 115, 2, 0.60),
    ("FFC", 318, 2, 0.60),
    ("PHA1", 220, 2, 0.60),
    ("PHA2", 129, 2, 0.60),
    ("PHA3", 205, 2, 0.60),
)
AREAS = tuple(name for name, *_ in _AREAS)
_STAGE_NAMES = ("early", "middle", "high")
STAGES = np.array([stage for _, _, stage, _ in _AREAS])
_GROWTH = np.array([growth for *_, growth in _AREAS])
# Where each area ends, as a share of the sheet's length.
_ENDS = np.cumsum([vertices for _, vertices, _, _ in _AREAS]) / sum(vertices for _, vertices, _, _ in _AREAS)
# Mean area of one vertex of fsLR-32k, mm^2: 973 cm^2 a hemisphere over 29,696 vertices.
_VERTEX_MM2 = 97_300 / 29_696
# Cortical magnification M(E) = A / (E + E2), mm a degree.
_MAGNIFICATION_MM = 17.3
_HALF_DEG = 0.75
# A receptive field's standard deviation in the fovea, degrees.
_FOVEAL_DEG = 0.5
# A cell of the maps that features read, degrees: the screen is 18 degrees wide.
_CELL_DEG = 18 / GRID[1]
# The eccentricity of the screen's corners, and how far it lies from the fovea on the sheet.
_FARTHEST_DEG = float(np.hypot(*GRID)) / 2 * _CELL_DEG
_REACH_MM = _MAGNIFICATION_MM * np.log1p(_FARTHEST_DEG / _HALF_DEG)
# Length of the sheet along the hierarchy.
_LENGTH_MM = sum(vertices for _, vertices, _, _ in _AREAS) / 2 * _VERTEX_MM2 / (2 * _REACH_MM)
# Point spread of gradient-echo BOLD, full width at half maximum.
POINT_SPREAD_MM = 3.5
# Root mean square of the length of a displacement, and the distance at which its correlation is exp(-1/2).
DISPLACEMENT_MM = 4.0
DISPLACEMENT_REACH_MM = 15.0
# Grid on which fields are drawn, and how far it goes on beyond the sheet.
_STEP_MM = 2.0
_MARGIN_MM = 24.0
_SEED = 20251
# The sheet in a head: how deep it lies (1 on the surface of the head), how far its folds go, their length
# along the head, and the share of the head's height that it takes.
_DEPTH = 0.74
_FOLD = 0.12
_FOLD_DEG = 26.0
_HEIGHT = 0.88
_BACK_DEG = (6.0, 83.0)
# Voxels nearest to a vertex, of which it takes one.
_NEAREST = 64


@dataclass(frozen=True, slots=True)
class Sheet:
    """Where vertices lie, area by area, and within an area hemisphere by hemisphere.

    Attributes
    ----------
    place : (vertex, 2)
        Along the hierarchy, and from the lower edge of the visual field (below 0) to the upper one, mm.
    right : (vertex,) bool
        Whether it is in the right hemisphere, which sees the left half of the visual field.
    area : (vertex,) int64
        Index into `AREAS`.
    """

    place: Reals
    right: NDArray[np.bool_]
    area: NDArray[np.int64]


@lru_cache(maxsize=1)
def sheet() -> Sheet:
    """Return the sheet, which is the same for all participants."""
    count = VERTICES // 2
    number = np.arange(count)
    along = (number + 0.5) / count * _LENGTH_MM
    # Multiples of the golden ratio spread points evenly, and no two of them lie equally far along.
    across = (number * (np.sqrt(5) - 1) / 2 % 1 * 2 - 1) * _REACH_MM
    place = np.tile(np.stack([along, across], axis=1), (2, 1))
    right = np.repeat([False, True], count)
    area = _area_at(place)
    order = np.lexsort((place[:, 1], right, area))
    return Sheet(place[order], right[order], area[order])


def regions() -> dict[str, NDArray[np.bool_]]:
    """Return areas and stages by name, each a mask of the vertices, (vertex,)."""
    area = sheet().area
    areas = {name: area == number for number, name in enumerate(AREAS)}
    return areas | {name: STAGES[area] == number for number, name in enumerate(_STAGE_NAMES)}


def smoothness(place: Reals) -> Reals:
    """Return the standard deviation of the Gaussian by which weights are smooth at places, (vertex,), mm.

    Notes
    -----
    The squares of two widths add up: that of the point spread, and that of the part of the sheet on which
    one point of the picture is seen, which is the size of a receptive field times the magnification. In later
    areas fields are larger and there is less magnification, so V1 stands for all.
    """
    away = eccentricity(place)
    image = (_FOVEAL_DEG + _GROWTH[0] * away) * _MAGNIFICATION_MM / (away + _HALF_DEG)
    return np.hypot(POINT_SPREAD_MM / np.sqrt(8 * np.log(2)), image)


def eccentricity(place: Reals) -> Reals:
    """Return the eccentricity that places on the sheet see, (vertex,), degrees.

    Notes
    -----
    The integral of Horton and Hoyt's magnification 17.3 / (E + 0.75), solved for E.
    """
    return _HALF_DEG * np.expm1(np.abs(place[:, 1]) / _MAGNIFICATION_MM)


def population_fields(place: Reals, right: NDArray[np.bool_]) -> tuple[Reals, Reals]:
    """Return the receptive fields of places on the sheet.

    Returns
    -------
    centre : (vertex, 2)
        Degrees right of the middle of the screen, and above it.
    size : (vertex,)
        Standard deviation, degrees.
    """
    area = _area_at(place)
    starts = np.append(0, _ENDS[:-1])
    part = np.clip((place[:, 0] / _LENGTH_MM - starts[area]) / (_ENDS - starts)[area], 0, 1)
    # Neighbouring areas meet at a meridian, the horizontal or the vertical one by turns.
    angle = np.where(area % 2 == 0, part, 1 - part) * np.pi / 2
    away = eccentricity(place)
    horizontal = away * np.cos(angle) * np.where(right, -1, 1)
    vertical = away * np.sin(angle) * np.sign(place[:, 1])
    return np.stack([horizontal, vertical], axis=1), _FOVEAL_DEG + _GROWTH[area] * away


def shared_weights(number: int, chances: Reals) -> Reals:
    """Return the weights of a participant's vertices on features.

    Parameters
    ----------
    number : int
        The participant's.
    chances : (stage, feature)
        Share of a stage's vertices that a feature drives.

    Returns
    -------
    (vertex, feature) float64
        Sparse; those of a stage's driven vertices have a mean square of about 1.
    """
    on = sheet()
    place = on.place + displacement(number)
    stage = STAGES[_area_at(place)]
    least, scale = _thresholds(tuple(map(tuple, chances.tolist())))
    drive = _drive(place, on.right)
    return np.where(np.abs(drive) > least[stage], drive / scale[stage], 0)


def displacement(number: int) -> Reals:
    """Return how far off each vertex of a participant reads the shared field, (vertex, 2), mm."""
    on = sheet()
    rng = np.random.default_rng((number, 13))
    # The field that is smooth by a Gaussian has a correlation that is wider by the square root of 2.
    width = np.full(VERTICES, DISPLACEMENT_REACH_MM / np.sqrt(2))
    unit = smooth_fields(on.place, on.right, width, 2, rng)
    return unit * DISPLACEMENT_MM / np.sqrt(2)


def smooth_fields(
    place: Reals, right: NDArray[np.bool_], width: Reals, count: int, rng: np.random.Generator
) -> Reals:
    """Read fields of unit variance at places: white noise that is smoothed by a Gaussian.

    Parameters
    ----------
    place : (vertex, 2)
        Places on the sheet, mm.
    right : (vertex,) bool
        Hemispheres have fields of their own.
    width : (vertex,)
        Standard deviation of the Gaussian, mm.
    count : int
        Number of fields.
    rng : numpy.random.Generator
        Draws the white noise.

    Returns
    -------
    (vertex, count)
    """
    along = np.arange(-_MARGIN_MM, _LENGTH_MM + _MARGIN_MM, _STEP_MM)
    across = np.arange(-_REACH_MM - _MARGIN_MM, _REACH_MM + _MARGIN_MM, _STEP_MM)
    out = np.zeros((len(place), count))
    for hemisphere in (False, True):
        noise = rng.standard_normal((len(along), len(across), count))
        targets = place[right == hemisphere]
        size = width[right == hemisphere, None]
        # A Gaussian in the plane is the product of one along each axis.
        first = np.exp(-np.square(targets[:, :1] - along) / (2 * size**2))
        second = np.exp(-np.square(targets[:, 1:] - across) / (2 * size**2))
        first /= np.linalg.norm(first, axis=1, keepdims=True)
        second /= np.linalg.norm(second, axis=1, keepdims=True)
        rows = (first @ noise.reshape(len(along), -1)).reshape(len(targets), len(across), count)
        out[right == hemisphere] = np.einsum("vb,vbc->vc", second, rows)
    return out


def folded(places: Reals, axes: tuple[float, float, float]) -> NDArray[np.int64]:
    """Fold the sheet into a head, and give each vertex a voxel of its own.

    Parameters
    ----------
    places : (voxel, 3)
        Voxels that may be taken, x, y, z from the middle of the head, mm.
    axes : (float, float, float)
        Half axes of the head, mm.

    Returns
    -------
    (vertex,) int64
        Numbers of voxels, none twice, so that all together lie as near as they can to the folded sheet.
    """
    distance, voxel = KDTree(places).query(_in_head(axes), k=_NEAREST)
    vertex = np.repeat(np.arange(VERTICES), _NEAREST)
    # Where there is no weight there is no edge, so distances begin at 1.
    shape = (VERTICES, len(places))
    edges = coo_array((np.ravel(distance) + 1, (vertex, np.ravel(voxel))), shape).tocsr()
    rows, columns = min_weight_full_bipartite_matching(edges)
    return np.asarray(columns[np.argsort(rows)], np.int64)


def check_cortex(cortex: str, option: str = "--cortex") -> None:
    """Refuse a word that names no cortex; `option` is what it was given for.

    Raises
    ------
    UsageError
    """
    if cortex not in CORTICES:
        raise UsageError(
            "phantom-cortex-unknown",
            "{option} is one of {available}, found {cortex!r}.",
            option=option,
            available=list(CORTICES),
            cortex=cortex,
        )


def _in_head(axes: tuple[float, float, float]) -> Reals:
    """Return where the vertices would lie if voxels were infinitely small, (vertex, 3), mm."""
    on = sheet()
    first, last = _BACK_DEG
    # The hierarchy runs from the back of the head to its side, the upper visual field lies below.
    turn = first + (last - first) * on.place[:, 0] / _LENGTH_MM
    depth = _DEPTH + _FOLD * np.sin(2 * np.pi * turn / _FOLD_DEG)
    height = -_HEIGHT * on.place[:, 1] / _REACH_MM
    # Equal heights of an ellipsoid have equal areas.
    round_ = np.sqrt(1 - height**2)
    side = np.where(on.right, 1, -1) * np.sin(np.deg2rad(turn)) * round_
    back = -np.cos(np.deg2rad(turn)) * round_
    return depth[:, None] * np.stack([side, back, height], axis=1) * np.array(axes)


def _area_at(place: Reals) -> NDArray[np.int64]:
    """Return the area in which places on the sheet lie, (vertex,); beyond an end it goes on."""
    return np.searchsorted(_ENDS[:-1], place[:, 0] / _LENGTH_MM, side="right")


@lru_cache(maxsize=1)
def _thresholds(chances: tuple[tuple[float, ...], ...]) -> tuple[Reals, Reals]:
    """Return the least drive that counts, and the root mean square of those that do, (stage, feature) each.

    They are taken from the sheet before anybody's displacement.
    """
    on = sheet()
    drive = np.abs(_drive(on.place, on.right))
    least = np.zeros((len(chances), FEATURES))
    scale = np.zeros((len(chances), FEATURES))
    for stage, shares in enumerate(chances):
        of_stage = drive[STAGES[on.area] == stage]
        for feature, share in enumerate(shares):
            column = of_stage[:, feature]
            least[stage, feature] = np.quantile(column, 1 - share)
            strong = column[column > least[stage, feature]]
            scale[stage, feature] = np.sqrt(np.square(strong).mean())
    return least, scale


def _drive(place: Reals, right: NDArray[np.bool_]) -> Reals:
    """Return the field of every feature, where its receptive field and that of the place overlap."""
    field = smooth_fields(place, right, smoothness(place), FEATURES, np.random.default_rng(_SEED))
    return field * _overlap(place, right)


def _overlap(place: Reals, right: NDArray[np.bool_]) -> Reals:
    """Return how much of each feature's receptive field lies in that of each place, (vertex, feature)."""
    centre, size = population_fields(place, right)
    row, column = np.mgrid[0 : GRID[0], 0 : GRID[1]]
    cells = np.stack([column - (GRID[1] - 1) / 2, (GRID[0] - 1) / 2 - row], axis=-1)
    away = np.square(centre[:, None] - cells.reshape(-1, 2) * _CELL_DEG).sum(axis=2)
    # A cell is no point: the variance of a uniform one of its width adds to that of the receptive field.
    weights = np.exp(-away / (2 * (np.square(size) + _CELL_DEG**2 / 12))[:, None])
    return weights / weights.sum(axis=1, keepdims=True) @ receptive_fields().T
