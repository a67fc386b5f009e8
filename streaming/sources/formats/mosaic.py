"""Decode volumes whose slices lie as tiles in one plane: Siemens mosaics and United Imaging grids.

The header tells how many tiles there are; these are cut out, stacked, and given an affine. Geometry follows
the DICOM standard, PS3.3 C.7.6.2.1.1, with two habits of Siemens. The position in the header is that of a
plain image of the mosaic's size around the same centre. And the slices follow the SliceNormalVector of
the private header, which may point against the cross product of the axes.
"""

import math
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from streaming.sources.formats.csa import protocol_values
from streaming.sources.formats.elements import items, values
from streaming.sources.formats.fields import (
    LPS,
    elapsed,
    integer,
    moment,
    numbers,
    private_number,
    repetition_s,
    text,
)
from streaming.sources.formats.header import Header, counters_of, number_of, started, words
from streaming.sources.formats.image import Counters, Image, NotAVolumeError, compact
from streaming.sources.formats.pixels import decoded

Private = dict[str, list[str]]

_MR_HEADER = "SIEMENS MR HEADER"
_GRID_SLICES = 0x00651050
_GRID_FRAMES = 0x00651051
_POSITION = 0x00200032
# A greater number is not believed as a count of tiles.
_TILES_MOST = 4096


def mosaic_slices(header: Header, private: Private) -> int:
    """Return the number of slices in a Siemens mosaic; 0 if the file is none, whatever its ImageType says.

    Raises
    ------
    NotAVolumeError
        If it is a mosaic that does not say how many slices it has.
    """
    ds = header.ds
    counts = [float(value) for value in private.get("NumberOfImagesInMosaic", [])[:1]]
    count = counts[0] if counts else private_number(ds, 0x0019, _MR_HEADER, 0x0A) or 0
    if count or "MOSAIC" not in words(ds, "ImageType") or not _is_tiled(ds):
        return int(count) if count < _TILES_MOST else 0
    # Without the private header, the measurement protocol may still tell.
    count = protocol_values(_head(header), "sSliceArray.lSize").get("", 0)
    if not 1 < count < _TILES_MOST:
        raise NotAVolumeError(
            "mosaic-slice-count-missing",
            "a mosaic without its private header, which says how many slices it has: export it unchanged",
        )
    return int(count)


def grid_slices(header: Header) -> int:
    """Return the number of slices in a United Imaging grid; 0 if the file is none."""
    raw = header.bytes_of(_GRID_SLICES).strip(b"\0 ")
    count = float(raw) if raw else 0.0
    return int(count) if 1 < count < _TILES_MOST and _GRID_FRAMES in header.top else 0


def read_mosaic(header: Header, private: Private, slices: int) -> Image:
    """Decode a Siemens mosaic.

    Raises
    ------
    NotAVolumeError
        If the slices do not tile the plane, or the header does not place them.
    """
    # A mosaic is square, with empty tiles at the end.
    side = math.ceil(math.sqrt(slices))
    rows, columns = _tile(header.ds, side, side)
    affine = _mosaic_affine(header, (rows, columns), private)
    return _image(header, _stack(header, side, side, slices), affine)


def read_grid(header: Header, slices: int) -> Image:
    """Decode a United Imaging grid; errors as for `read_mosaic`."""
    # Unlike a mosaic, a grid has no more rows of tiles than it needs.
    across = math.ceil(math.sqrt(slices))
    down = math.ceil(slices / across)
    _tile(header.ds, down, across)
    frames = [
        values(header.body, start, stop, header.encoding, {0: frozenset({_POSITION})})
        for start, stop in islice(items(header.body, header.top[_GRID_FRAMES], header.encoding), slices + 1)
    ]
    if len(frames) != slices or not all(_POSITION in frame for frame in frames):
        raise NotAVolumeError(
            "grid-position-missing",
            "a grid of {slices} slices that does not say where each lies",
            slices=slices,
        )
    positions = np.array(
        [frame[_POSITION].decode("latin-1").strip("\0 ").split("\\") for frame in frames], float
    )
    axes, _ = _axes(header.ds)
    affine = stack_affine(axes, positions)
    return _image(header, _stack(header, down, across, slices), affine)


def stack_affine(axes: NDArray[np.float64], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the affine of slices that are evenly spaced along one direction.

    Parameters
    ----------
    axes : float64, (2, 3)
        Steps from column to column and from row to row, mm, in DICOM's patient coordinates.
    positions : float64, (slices, 3)
        ImagePositionPatient of each slice.

    Returns
    -------
    float64, (4, 4)
        Voxel indices to scanner RAS+ coordinates, mm.

    Raises
    ------
    NotAVolumeError
        If the slices are not evenly spaced.
    """
    # The mean step over the stack: stated spacings are rounded.
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    places = positions[0] + np.arange(len(positions))[:, None] * step
    off = float(np.linalg.norm(positions - places, axis=1).max())
    if not off <= 0.05 * np.linalg.norm(step):
        raise NotAVolumeError(
            "slices-unevenly-spaced",
            "slices that are not evenly spaced: one lies {deviation_mm:.2f} mm off its place",
            deviation_mm=off,
        )
    affine = np.eye(4)
    affine[:3, :3] = LPS @ np.stack([*axes, step], axis=1)
    affine[:3, 3] = LPS @ positions[0]
    return affine


def _image(header: Header, data: NDArray[Any], affine: NDArray[np.float64]) -> Image:
    ds = header.ds
    acquired = started(ds)
    slope, intercept = (numbers(ds, name) or [0.0] for name in ("RescaleSlope", "RescaleIntercept"))
    echo = integer(ds, "EchoNumbers") or 1
    counters = _counters(header)
    return Image(
        data=compact(data, slope[0] or 1.0, intercept[0]),
        affine=affine,
        number=number_of(counters),
        series=integer(ds, "SeriesNumber") or 0,
        uid=text(ds, "SeriesInstanceUID") + (f" echo {echo}" if echo > 1 else ""),
        tr_s=repetition_s(numbers(ds, "RepetitionTime")),
        acquired=acquired,
        recon_s=elapsed(acquired, moment(ds, "Content")),
        counters=counters,
    )


def _counters(header: Header) -> Counters:
    """Return the counters that count volumes; in a multi-echo run InstanceNumber is none.

    There each acquisition gives one image per echo, and InstanceNumber counts them all.
    """
    counters = counters_of(header.ds)
    if counters.acquisition and protocol_values(_head(header), "lContrasts").get("", 1) > 1:
        return replace(counters, instance=None)
    return counters


def _tile(ds: Dataset, down: int, across: int) -> tuple[int, int]:
    """Return the rows and columns of one tile."""
    if ds.Rows % down or ds.Columns % across:
        raise NotAVolumeError(
            "mosaic-tiling-mismatch",
            "{tiles_down} x {tiles_across} slices do not tile {rows} x {columns} pixels",
            tiles_down=down,
            tiles_across=across,
            rows=ds.Rows,
            columns=ds.Columns,
        )
    return ds.Rows // down, ds.Columns // across


def _stack(header: Header, down: int, across: int, slices: int) -> NDArray[Any]:
    """Stack the tiles, row by row, to an array (i, j, k)."""
    plane = decoded(header)[0]
    rows = plane.shape[0] // down
    columns = plane.shape[1] // across
    tiles = plane.reshape(down, rows, across, columns).transpose(0, 2, 1, 3)
    return tiles.reshape(down * across, rows, columns)[:slices].transpose(2, 1, 0)


def _axes(ds: Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the steps from column to column and from row to row, mm, and the first pixel's position."""
    directions = numbers(ds, "ImageOrientationPatient")
    steps = numbers(ds, "PixelSpacing")
    position = numbers(ds, "ImagePositionPatient") or [0.0] * 3
    if len(directions) != 6 or len(steps) != 2 or len(position) != 3:
        raise NotAVolumeError(
            "mosaic-geometry-missing",
            "tiles without orientation or spacing: a picture for display, export the images themselves",
        )
    along = np.array(directions).reshape(2, 3)
    lengths = np.linalg.norm(along, axis=1, keepdims=True)
    if not (lengths.all() and all(steps) and np.isfinite([*directions, *steps, *position]).all()):
        raise NotAVolumeError(
            "mosaic-axes-degenerate",
            "axes of zero length, or not finite",
        )
    return along / lengths * np.array(steps)[::-1, None], np.array(position)


def _mosaic_affine(header: Header, tile_shape: tuple[int, int], private: Private) -> NDArray[np.float64]:
    ds = header.ds
    if not numbers(ds, "ImagePositionPatient"):
        raise NotAVolumeError(
            "mosaic-position-missing",
            "a mosaic without a position: a picture for display, export the images themselves",
        )
    axes, position = _axes(ds)
    normal = np.cross(*axes)
    normal /= np.linalg.norm(normal)
    slice_normal = [float(value) for value in private.get("SliceNormalVector", [])] or _protocol_normal(
        header
    )
    if len(slice_normal) == 3 and np.dot(normal, slice_normal) < 0:
        normal = -normal
    spacing = (numbers(ds, "SpacingBetweenSlices") or numbers(ds, "SliceThickness"))[0]
    # The header places a plain image of the mosaic's size: move from its corner to that of one tile
    # around the same centre.
    beyond = np.array([ds.Columns - tile_shape[1], ds.Rows - tile_shape[0]]) / 2
    affine = np.eye(4)
    affine[:3, :3] = LPS @ np.stack([*axes, normal * spacing], axis=1)
    affine[:3, 3] = LPS @ (position + beyond @ axes)
    if not abs(np.linalg.det(affine[:3, :3])) > 1e-9:
        raise NotAVolumeError(
            "mosaic-slice-spacing-zero",
            "slices without spacing",
        )
    return affine


def _protocol_normal(header: Header) -> list[float]:
    """Return the direction from the first slice to the last by the protocol, [] if it does not say.

    It stands in for the SliceNormalVector where the private header is gone.
    """
    places = protocol_values(_head(header), "sSliceArray.asSlice[")
    last = int(max((float(name.split("]")[0]) for name in places), default=0))
    ends = [[places.get(f"{k}].sPosition.d{axis}", 0.0) for axis in ("Sag", "Cor", "Tra")] for k in (0, last)]
    return [b - a for a, b in zip(*ends, strict=True)] if last else []


def _is_tiled(ds: Dataset) -> bool:
    """Return whether the plane is larger than what was acquired, beyond any interpolation."""
    acquired = max((int(n) for n in ds.get("AcquisitionMatrix") or [0]), default=0)
    return not acquired or max(ds.Rows, ds.Columns) > 2.5 * acquired


def _head(header: Header) -> bytes:
    pixels = header.pixels
    return header.body if pixels is None else header.body[: pixels.head]
