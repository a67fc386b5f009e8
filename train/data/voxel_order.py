"""In what order voxels stand, for systems in which neighbours are read together.

Chen et al. 2023 (arXiv:2305.11675, section 3.2) lay V1, V2, V3 and V4 one after the other, so that neighbours
in the row see much the same. Where it is not known which area a voxel lies in, voxels stand as they are
stored.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError

STORED = "stored"
HIERARCHY = "hierarchy"
SHUFFLED = "shuffled"
ORDERS = (STORED, HIERARCHY, SHUFFLED)
# The first areas of the hierarchy, which releases also divide into a dorsal and a ventral half.
_FIRST = re.compile(r"V([1-4])[dv]?")

Voxels = NDArray[np.int64]


def check_order(order: str) -> None:
    """Refuse an order that there is not.

    Raises
    ------
    UsageError
    """
    if order not in ORDERS:
        raise UsageError(
            "voxel-order-unknown",
            "system.order must be one of {available}, found '{order}'.",
            available=list(ORDERS),
            order=order,
        )


def ordered(order: str, voxels: Voxels, areas: Mapping[str, Voxels], seed: int) -> tuple[Voxels, str]:
    """Say in which order voxels are read.

    Parameters
    ----------
    order : str
        One of `ORDERS`. `HIERARCHY` begins with V1 to V4; further areas come as `areas` has them.
    voxels : (voxel,)
        Their numbers, as they are stored.
    areas : mapping
        Name of an area -> the numbers of its voxels, neighbours beside each other.
    seed : int
        Of `SHUFFLED`.

    Returns
    -------
    (voxel,), str
        Places among the voxels, and what a bundle says of the order.
    """
    if order == SHUFFLED:
        return np.random.default_rng(seed).permutation(len(voxels)), "shuffled"
    names = [name for name in areas if _FIRST.fullmatch(name)]
    if order == STORED or not names:
        return np.arange(len(voxels)), "as stored"
    first = sorted(names, key=lambda name: (_number(name), name))
    row = [*first, *(name for name in areas if name not in first)]
    # A voxel of several areas stands in the first one, and one of no area comes last.
    places = {voxel: place for place, voxel in enumerate(_once(areas[name].tolist() for name in row))}
    ranks = [places.get(voxel, len(places)) for voxel in voxels.tolist()]
    return np.argsort(ranks, kind="stable"), f"by areas: {', '.join(first)}, then others"


def _number(name: str) -> int:
    match = _FIRST.fullmatch(name)
    return int(match[1]) if match else 0


def _once(lists: Iterable[list[int]]) -> list[int]:
    return list(dict.fromkeys(chain.from_iterable(lists)))
