"""Read a mask or label image, and choose the voxels of the volumes that it covers.

`read_region` turns a NIfTI file into labels. `choose` carries them over to the grid of a reference volume,
refuses a region that does not lie in the brain, and makes the projection that reads its voxels or the mean of
each label.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csr_array

from rtdecode.disk.folders import what_is_there
from rtdecode.errors import UsageError
from rtdecode.signal.volume.projection import Projection, Reals
from rtdecode.signal.volume.register import head_of
from rtdecode.types import Array

Labels = NDArray[np.int32]

# Share of a region that must lie in the brain.
_IN_BRAIN = 0.5
# Probability from which a voxel of a probability map counts.
_PROBABLE = 0.5


@dataclass(frozen=True, slots=True)
class Region:
    """A label image: 0 is outside, every other value is a region.

    Attributes
    ----------
    labels : int32, (i, j, k)
        Number of the region that each voxel belongs to; 0 outside.
    affine : (4, 4)
        Voxel indices to scanner RAS+, mm.
    digest : str
        SHA-256 of the file, first 16 hexadecimal digits.
    """

    labels: Labels
    affine: Reals
    digest: str


def read_region(path: Path) -> Region:
    """Read a mask, a label image or a probability map.

    Whole numbers are labels. In a map with fractions, values from 0.5 on count if none is above 1;
    otherwise all values above 0 count.

    Raises
    ------
    UsageError
        If the file is not a 3-D NIfTI, or nothing in it is above 0.
    """
    if not path.is_file():
        raise UsageError(
            "mask-missing",
            "--mask {path} is no file: found {found}. Give a 3-D NIfTI (.nii or .nii.gz).",
            path=path,
            found=what_is_there(path),
        )
    try:
        image: Any = nib.load(path)
        values = np.nan_to_num(np.asarray(image.dataobj, np.float64))
    except (ImageFileError, OSError, EOFError, ValueError) as error:
        raise UsageError(
            "mask-unreadable", "--mask {path} cannot be read as NIfTI ({error}).", path=path, error=error
        ) from error
    # A single 3-D image may be stored with a fourth axis of length one.
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise UsageError(
            "mask-not-3d",
            "--mask {path} has the shape {shape}: a 3-D image is needed.",
            path=path,
            shape=values.shape,
        )
    labels = _labels(values)
    if not labels.any():
        raise UsageError(
            "mask-empty",
            "--mask {path} is empty: no voxel of its {shape} is above 0. Give another mask.",
            path=path,
            shape=values.shape,
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return Region(labels, np.asarray(image.affine, np.float64), digest)


def _labels(values: Reals) -> Labels:
    rounded = np.rint(values)
    # Labels may be stored as scaled floating-point numbers, and then miss whole numbers slightly.
    if np.allclose(values, rounded, atol=1e-3):
        return np.maximum(rounded, 0).astype(np.int32)
    return (values >= _PROBABLE if values.max() <= 1 else values > 0).astype(np.int32)


def nearest(
    into: NDArray[Any], points: NDArray[Any], shape: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Find the voxels nearest to some positions.

    Parameters
    ----------
    into : (4, 4)
        Maps positions to voxel indices.
    points : (3, point)
        Positions, in the units that `into` takes.
    shape : tuple of int
        Shape of the grid.

    Returns
    -------
    index : int64, (3, point)
        Voxel indices, also where there is no such voxel.
    inside : bool, (point,)
        Whether the voxel exists.
    """
    index = np.rint(into[:3, :3] @ points + into[:3, 3:]).astype(np.int64)
    return index, np.all((index >= 0) & (index < np.array(shape)[:, None]), axis=0)


def on_grid(region: Region, shape: tuple[int, ...], affine: Reals) -> Labels:
    """Look up a region's labels at the voxels of another grid in the same space, by nearest neighbour."""
    into = np.linalg.inv(region.affine) @ affine
    region_index, in_grid = nearest(into, np.indices(shape).reshape(3, -1), region.labels.shape)
    out = np.zeros(in_grid.size, np.int32)
    out[in_grid] = region.labels[tuple(region_index[:, in_grid])]
    return out.reshape(shape)


def choose(
    region: Region, path: Path, brain: NDArray[np.bool_], affine: Reals, *, mean: bool
) -> tuple[Projection, list[int] | None]:
    """Make the projection that reads a region on the grid of a reference volume.

    Parameters
    ----------
    region : Region
        The regions to be read, on their own grid.
    path : Path
        The region's file, for messages.
    brain, affine
        Where the reference shows the brain (i, j, k), see `brain_of`, and the reference's affine.
    mean : bool
        True makes one feature of each label, its mean, in ascending order of labels; False makes one of
        each voxel.

    Returns
    -------
    projection : Projection
    labels : list of int or None
        The label of each feature; None without `mean`.

    Raises
    ------
    UsageError
        If less than half of the region lies in the brain.
    """
    labels = on_grid(region, brain.shape, affine)
    _check_place(region, path, brain, affine)
    flat = labels.reshape(-1)
    voxels = np.flatnonzero(flat).astype(np.int64)
    i, j, k = brain.shape
    if not mean:
        return Projection(voxels, (i, j, k), affine), None
    # One row per label, whose weights average the label's voxels.
    names, rows = np.unique(flat[voxels], return_inverse=True)
    weights = 1.0 / np.bincount(rows)[rows]
    matrix = csr_array((weights, (rows, voxels)), (len(names), flat.size))
    return Projection.of_matrix(matrix, (i, j, k), affine), [int(n) for n in names]


def brain_of(reference: Array) -> NDArray[np.bool_]:
    """Return the head of a reference volume with its holes filled, (i, j, k)."""
    return np.asarray(ndimage.binary_fill_holes(head_of(reference)))


def _check_place(region: Region, path: Path, brain: NDArray[np.bool_], affine: Reals) -> None:
    """Refuse a region that does not lie in the brain; the message says how much of it lies where."""
    # Count the mask's own voxels: those that lie outside the volumes are missing from `on_grid`.
    index = np.argwhere(region.labels).T
    volume_index, in_volume = nearest(np.linalg.inv(affine) @ region.affine, index, brain.shape)
    brain_voxels = int(brain[tuple(volume_index[:, in_volume])].sum())
    if brain_voxels >= _IN_BRAIN * index.shape[1]:
        return
    raise UsageError(
        "mask-outside-brain",
        "--mask {path} does not lie in the brain: of its {mask_voxels} voxels {voxels_in_volume} lie "
        "in the volumes and {voxels_in_brain} in the brain. The mask has {mask_shape} voxels with "
        "the affine {mask_affine}, the volumes {volume_shape} with {volume_affine}. Draw it on a "
        "volume of this session, or give the session it was drawn in with --reference.",
        path=path,
        mask_voxels=index.shape[1],
        voxels_in_volume=int(in_volume.sum()),
        voxels_in_brain=brain_voxels,
        mask_shape=region.labels.shape,
        mask_affine=np.round(region.affine, 2).tolist(),
        volume_shape=brain.shape,
        volume_affine=np.round(affine, 2).tolist(),
    )
