"""The newest volume on the page: three slices through the region that is decoded, with the region in them.

The acquisition cuts them, and the page draws them.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Plane = NDArray[Any]

# Slices of a volume, and pixels along each side of one at most: it is thinned to that.
PLANES = 3
SIDE = 96
# A slab of fewer slices is not cut across.
_THIN = 8
# Shares of a slice's values that become black and white.
_BLACK = 0.01
_WHITE = 0.995
# The region's colour (Okabe and Ito 2008): the grey levels stay in it as brightness.
_REGION = (230, 159, 0)


def cut(data: Plane, affine: NDArray[np.float64], region: NDArray[np.int64]) -> tuple[Plane, Mask]:
    """Cut a volume along its three axes, through the middle of a region.

    Parameters
    ----------
    data : (i, j, k)
        Values of the volume.
    affine : (4, 4)
        Voxel indices to scanner RAS+, mm: it says which way up the slices are.
    region : int, (3, voxel)
        Voxels that are decoded; those outside the volume are left out.

    Returns
    -------
    slices : uint8, (row, column)
        Sagittal, coronal and axial beside each other: right (sagittal: front) to the right, top (axial:
        front) at the top.
    in_region : bool, (row, column)
        Pixels of the region.
    """
    within = ((region >= 0) & (region < np.array(data.shape)[:, None])).all(0)
    mask = np.zeros(data.shape, bool)
    mask[tuple(region[:, within])] = True
    middle = np.median(region[:, within], axis=1) if within.any() else np.array(data.shape) / 2
    # Axes in the order right, anterior, superior, each rising.
    order = np.abs(affine[:3, :3]).argmax(1)
    if len(set(order)) < 3:
        order = np.arange(3)
    rising = [affine[world, axis] > 0 for world, axis in enumerate(order)]
    planes: list[tuple[Plane, Mask]] = []
    for across in range(PLANES):
        plane, in_region = (
            _plane(np.take(side, int(middle[order[across]]), order[across]), across, order, rising)
            for side in (data, mask)
        )
        if min(plane.shape) >= _THIN:
            planes.append((_thinned(_grey(plane)), _thinned(in_region)))
    if not planes:
        return np.zeros((1, 1), np.uint8), np.zeros((1, 1), bool)
    return _beside([plane for plane, _ in planes]), _beside([in_region for _, in_region in planes])


def picture(slices: Plane, in_region: Mask) -> bytes:
    """Encode slices with their region in colour (PNG)."""
    # Imported here, as the acquisition draws nothing.
    from PIL import Image

    colours = np.repeat(slices[..., None], 3, 2).astype(np.float32)
    # Half of the colour, so that what lies there can still be seen.
    colours[in_region] = 0.5 * colours[in_region] + 0.5 * np.array(_REGION)
    buffer = io.BytesIO()
    Image.fromarray(colours.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _plane(plane: Plane, across: int, order: NDArray[np.int64], rising: Sequence[bool]) -> Plane:
    """Turn a slice so that its columns and rows rise to the right (or front) and to the top.

    Parameters
    ----------
    plane : (.., ..)
        The volume's other two axes, in storage order.
    across : int
        World axis that the slice lies across.
    order : (3,)
        Storage axis of each world axis.
    rising : sequence of bool
        Whether each world axis rises along its storage axis.
    """
    level, up = (world for world in range(3) if world != across)
    if order[level] > order[up]:
        plane = plane.T
    if not rising[level]:
        plane = plane[::-1]
    if not rising[up]:
        plane = plane[:, ::-1]
    # Rows of a picture run downwards.
    return plane.T[::-1]


def _grey(plane: Plane) -> Plane:
    low, high = np.nanquantile(plane, [_BLACK, _WHITE])
    return np.nan_to_num(np.clip((plane - low) / max(high - low, 1e-9), 0, 1) * 255).astype(np.uint8)


def _thinned(plane: Plane) -> Plane:
    step = -(-max(plane.shape) // SIDE)
    return plane[::step, ::step]


def _beside(planes: list[Plane]) -> Plane:
    tall = max(plane.shape[0] for plane in planes)
    spaces = [((tall - plane.shape[0]) // 2, tall - plane.shape[0]) for plane in planes]
    padded = [
        np.pad(plane, ((top, both - top), (0, 0))) for plane, (top, both) in zip(planes, spaces, strict=True)
    ]
    return np.concatenate(padded, axis=1)
