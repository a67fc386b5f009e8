"""Read a vector of features from a raw volume, at the place where the head is now.

A `Projection` says which voxels of a reference grid each feature is made of, and with which weights. A
`VoxelReader` binds it to the geometry of one series; then volumes come in, each with the head's motion if
that is known, and vectors of features go out. There is one interpolation at most, straight from the raw
volume.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csr_array

from rtdecode.errors import GeometryError
from rtdecode.types import Array, Float

Reals = NDArray[np.float64]

# An index this close to an integer is taken for one, because products of affines leave errors of
# this size. So a head that does not move gives the very values of its voxels.
_VOXEL_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Projection:
    """The features that a model reads, as a sparse matrix over the voxels of a reference grid.

    Attributes
    ----------
    voxels : int64, (voxel,)
        Flat C-order indices into an array of `shape`: the columns of the matrix that are not empty.
    shape : (int, int, int)
        Shape of the reference grid.
    affine : float64, (4, 4)
        Voxel indices of that grid to scanner RAS+ coordinates, mm. If the head of a session lies elsewhere
        than at training, another affine places the same grid on it.
    weights : csr_array or None, (feature, voxel)
        Columns in the order of `voxels`; None is the identity, with each voxel a feature.
    """

    voxels: NDArray[np.int64]
    shape: tuple[int, int, int]
    affine: Reals
    weights: Any = None

    @classmethod
    def of_matrix(cls, matrix: Any, shape: tuple[int, int, int], affine: Reals) -> "Projection":
        """Make a projection from its whole matrix.

        Parameters
        ----------
        matrix : scipy sparse, (feature, voxel of the grid)
            If every row is a single 1, the projection is a selection of voxels.
        shape, affine
            Geometry of the reference grid.

        Raises
        ------
        ValueError
            If the matrix does not fit the grid, or is empty.
        """
        csr: Any = csr_array(matrix, dtype=np.float64)
        if csr.shape[1] != np.prod(shape):
            raise ValueError(
                f"the matrix has {csr.shape[1]} columns, but the grid {shape} has {np.prod(shape)} voxels"
            )
        if csr.nnz == 0:
            raise ValueError("the projection has no voxels")
        single = np.array_equal(csr.indptr, np.arange(csr.shape[0] + 1))
        if single and np.all(csr.data == 1):
            return cls(csr.indices.astype(np.int64), shape, affine)
        voxels, columns = np.unique(csr.indices, return_inverse=True)
        size = (csr.shape[0], len(voxels))
        return cls(voxels.astype(np.int64), shape, affine, csr_array((csr.data, columns, csr.indptr), size))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "Projection":
        """Make a projection from the arrays that `to_arrays` returns.

        Parameters
        ----------
        arrays : mapping
            ``shape``, ``affine``, and ``voxels`` or the ``data``, ``indices``, ``indptr`` of a CSR matrix.

        Raises
        ------
        ValueError
            If arrays are missing or do not fit together.
        """
        names = {"voxels"} if "voxels" in arrays else {"data", "indices", "indptr"}
        if missing := ({"shape", "affine"} | names) - set(arrays):
            raise ValueError(f"missing arrays: {', '.join(sorted(missing))}")
        affine = np.asarray(arrays["affine"], np.float64)
        shape = np.asarray(arrays["shape"])
        # No scanner has as many voxels along an axis, and sizes of that many can be multiplied.
        sizes = (
            shape.dtype.kind in "iu" and shape.shape == (3,) and bool(((shape > 0) & (shape < 2**16)).all())
        )
        if not sizes or affine.shape != (4, 4):
            raise ValueError(
                "expected a grid of three axes and a (4, 4) affine, "
                f"found {shape.tolist()} and {affine.shape}"
            )
        i, j, k = (int(n) for n in shape)
        if "voxels" in names:
            voxels = np.asarray(arrays["voxels"]).astype(np.int64)
            if voxels.ndim != 1 or not voxels.size or voxels.min() < 0 or voxels.max() >= i * j * k:
                raise ValueError(f"voxels must lie in a grid of {i} x {j} x {k}")
            return cls(voxels, (i, j, k), affine)
        parts = (arrays["data"], arrays["indices"], arrays["indptr"])
        if any(part.ndim != 1 for part in parts):
            raise ValueError("the parts of a matrix must have one axis each")
        matrix = csr_array(parts, (len(arrays["indptr"]) - 1, i * j * k))
        # The arrays come from a file, and scipy's constructor does not check every index.
        matrix.check_format(full_check=True)
        return cls.of_matrix(matrix, (i, j, k), affine)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that define the projection, as they are stored in ``projection.npz``."""
        grid = {"shape": np.array(self.shape), "affine": self.affine}
        if self.weights is None:
            return {"voxels": self.voxels, **grid}
        csr = self.matrix
        return {"data": csr.data, "indices": csr.indices, "indptr": csr.indptr, **grid}

    @property
    def matrix(self) -> Any:
        """The whole matrix as a CSR array, (feature, voxel of the grid) float64."""
        size = int(np.prod(self.shape))
        if self.weights is None:
            rows = np.arange(len(self.voxels) + 1)
            return csr_array((np.ones(len(self.voxels)), self.voxels, rows), (len(self.voxels), size))
        parts = (self.weights.data, self.voxels[self.weights.indices], self.weights.indptr)
        return csr_array(parts, (self.features, size))

    @property
    def features(self) -> int:
        """Length of the feature vector."""
        return len(self.voxels) if self.weights is None else int(self.weights.shape[0])

    @property
    def digest(self) -> str:
        """Digest of matrix and grid shape, 16 hexadecimal digits; where the grid is placed does not count."""
        csr = self.matrix
        # One order of the entries and fixed types, so that equal matrices have equal digests.
        csr.sort_indices()
        checksum = hashlib.sha256(np.array(self.shape, np.int64).tobytes())
        for part, kind in ((csr.indptr, np.int64), (csr.indices, np.int64), (csr.data, np.float64)):
            checksum.update(part.astype(kind).tobytes())
        return checksum.hexdigest()[:16]

    @property
    def points_mm(self) -> Reals:
        """World positions of `voxels`, (3, voxel), in mm."""
        index = np.stack(np.unravel_index(self.voxels, self.shape))
        return self.affine[:3, :3] @ index + self.affine[:3, 3:]

    def bind(self, shape: tuple[int, ...], affine: Reals, name: str = "") -> NDArray[np.int64]:
        """Return the flat indices of the same voxels in an array of another storage order.

        Parameters
        ----------
        shape : (i, j, k)
            Shape of the arrays to be read.
        affine : (4, 4)
            Affine of these arrays.
        name : str
            Origin of these arrays, for the error message.

        Raises
        ------
        GeometryError
            If the array is not the same grid up to flipped or permuted axes.
        """
        indices = self._flips(shape, affine)
        if indices is None:
            raise GeometryError(
                "volume-grid-mismatch",
                "the bundle reads volumes of {bundle_shape} voxels with the affine {bundle_affine}, "
                "but {series} has {shape} with {affine}. Scan with the trained protocol, or train a "
                "bundle on it.",
                bundle_shape=self.shape,
                bundle_affine=np.round(self.affine, 2).tolist(),
                series=name or "this series",
                shape=tuple(shape),
                affine=np.round(affine, 2).tolist(),
            )
        return indices

    def _flips(self, shape: tuple[int, ...], affine: Reals) -> NDArray[np.int64] | None:
        # From voxel indices of the reference grid to those of the array. Between grids that differ
        # by flipped or permuted axes only, all entries are integers.
        step = np.linalg.solve(affine, self.affine)
        mapping = np.rint(step)
        if not (np.allclose(step, mapping, atol=0.02) and self._is_permutation(mapping, shape)):
            return None
        corner = np.stack(np.unravel_index(self.voxels, self.shape)).astype(np.float64)
        target = np.rint(mapping[:3, :3] @ corner + mapping[:3, 3:]).astype(np.int64)
        return np.asarray(np.ravel_multi_index(tuple(target), tuple(shape)), np.int64)

    def _is_permutation(self, mapping: Reals, shape: tuple[int, ...]) -> bool:
        axes = np.abs(mapping[:3, :3])
        if not (np.all(axes.sum(0) == 1) and np.all(axes.sum(1) == 1)):
            return False
        if tuple((axes @ np.array(self.shape)).astype(int)) != tuple(shape):
            return False
        # The first and the last voxel of the reference must be opposite corners of the array.
        first = mapping[:3, 3]
        last = mapping[:3, :3] @ (np.array(self.shape) - 1) + first
        return bool(np.all(np.minimum(first, last) == 0))


def project(data: Array, voxels: NDArray[np.int64]) -> Float:
    """Return the values of the bound voxels, (voxel,) float32."""
    return np.asarray(data).reshape(-1)[voxels].astype(np.float32)


def sample(data: Array, volume_affine: Reals, points_mm: Reals) -> Float:
    """Interpolate a raw volume trilinearly at world positions.

    Parameters
    ----------
    data : (i, j, k)
        Values of the voxels.
    volume_affine : (4, 4)
        Voxel indices to world, mm.
    points_mm : (3, point)
        World positions, mm. Positions outside the volume take the nearest value inside (see `outside`).

    Returns
    -------
    (point,) float32
    """
    return _values(data, voxel_indices(volume_affine, points_mm))


def _values(data: Array, index: Reals) -> Float:
    values: Any = ndimage.map_coordinates(data, index, np.float32, order=1, mode="nearest", prefilter=False)
    return values


def outside(shape: tuple[int, ...], volume_affine: Reals, points_mm: Reals) -> NDArray[np.bool_]:
    """Return which positions (3, point) lie beyond the faces of the outermost voxels, (point,)."""
    return _beyond(shape, voxel_indices(volume_affine, points_mm))


def _beyond(shape: tuple[int, ...], index: Reals) -> NDArray[np.bool_]:
    edge = np.array(shape)[:, None] - 0.5
    return np.any((index < -0.5) | (index > edge), axis=0)


def voxel_indices(volume_affine: Reals, points_mm: Reals) -> Reals:
    """Return where world positions (3, point), in mm, lie in a volume, in voxels, (3, point)."""
    into = np.linalg.inv(volume_affine)
    index = into[:3, :3] @ points_mm + into[:3, 3:]
    rounded = np.rint(index)
    return np.where(np.abs(index - rounded) < _VOXEL_TOLERANCE, rounded, index)


class VoxelReader:
    """Read the features of the volumes of one series.

    Parameters
    ----------
    projection : Projection
        Weights and places of the voxels of each feature.
    shape, affine
        Geometry of the volumes.
    name : str
        Origin of the volumes, for the error message.
    placed : bool
        Whether a calibration placed the projection's grid on the head of this session. If so, volumes on
        any grid can be read; otherwise only volumes on the projection's own grid, up to flipped or
        permuted axes.

    Attributes
    ----------
    outside : int
        Number of voxels that lay outside the last volume that was interpolated.

    Raises
    ------
    GeometryError
        If the projection was not placed and the volumes lie on another grid.
    """

    def __init__(
        self,
        projection: Projection,
        shape: tuple[int, ...],
        affine: Reals,
        name: str = "",
        *,
        placed: bool = False,
    ) -> None:
        self._affine = np.asarray(affine, np.float64)
        self._weights = projection.weights
        self._shape = tuple(shape)
        if placed:
            self._voxels = projection._flips(self._shape, self._affine)
        else:
            self._voxels = projection.bind(self._shape, self._affine, name)
        self._points = projection.points_mm
        self.outside = 0

    def read(self, data: Array, motion: Reals | None = None) -> Float:
        """Return the features of a volume, (feature,) float32.

        Parameters
        ----------
        data : (i, j, k)
            Values of the voxels.
        motion : (4, 4) or None
            Takes a world position in the reference to that in this volume; None for a head that lies as in
            the reference. With a motion, `outside` counts the voxels that have left the volume.
        """
        # Without motion and on the same grid there is nothing to interpolate.
        if motion is None and self._voxels is not None:
            values = project(data, self._voxels)
        else:
            moved = self._points if motion is None else motion[:3, :3] @ self._points + motion[:3, 3:]
            index = voxel_indices(self._affine, moved)
            values = _values(data, index)
            self.outside = int(_beyond(self._shape, index).sum())
        return values if self._weights is None else (self._weights @ values).astype(np.float32)
