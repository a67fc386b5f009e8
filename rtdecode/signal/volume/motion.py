"""Find where the head is in each volume, by rigid alignment to a reference.

Volumes come in one at a time, and a `Motion` goes out for each. The search starts at the last aligned
volume. If that fails, it starts again on a coarser image, and if that fails too, the volume is flagged.

The method is Gauss-Newton on some thousand points of the head in the inverse compositional form (Baker &
Matthews 2004, IJCV 56:221, section 3.2): the derivatives of the reference are computed once, so that a
volume costs one smoothing, and each iteration one interpolation and one small solve. It minimises squares
over six motions, an intensity scale and an offset, as in Friston et al. 1995, HBM 3:165. Tukey's weights
keep eyes, jaw and artefacts from pulling.

The head is taken to be still within a volume: slices acquired at different times during a motion are out of
scope.
"""

from collections import deque
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import GeometryError
from rtdecode.signal.volume.align import (
    COARSE,
    FINE,
    MATCH,
    Fit,
    Grid,
    gauss_newton,
    grid_of,
    level_of,
    shrink,
)
from rtdecode.signal.volume.rigid import Matrix, framewise_displacement, parameters_of, rigid
from rtdecode.types import Array

__all__ = ["THIN", "Aligner", "Motion", "framewise_displacement", "parameters_of", "rigid"]

# Fewest voxels along each axis with which a head can be aligned.
THIN = 4
# A misfit (1 - match squared) this many times the run's usual one and above the floor is odd: the
# volume shows another head, or one that turned while it was scanned. Set on recorded and on
# simulated heads.
_ODD = 20.0
_FLOOR = 0.04


@dataclass(frozen=True, slots=True)
class Motion:
    """Where the head was in one volume.

    Attributes
    ----------
    matrix : float64, (4, 4)
        Takes a position in the reference to the position of the same tissue in this volume, both in
        scanner RAS+, mm.
    parameters : float64, (6,)
        Parameters of `rigid` that give `matrix` about the aligner's centre, in mm and rad.
    fd_mm : float
        Framewise displacement from the last aligned volume; 0 for the first of a run, NaN if this volume
        could not be aligned.
    converged : bool
        If False, `matrix` and `parameters` are those of the last aligned volume.
    iterations : int
        Number of iterations that the alignment took.
    """

    matrix: Matrix
    parameters: Matrix
    fd_mm: float
    converged: bool
    iterations: int


class Aligner:
    """Align each volume to a reference.

    The output for a volume depends on that volume and earlier ones only.

    Parameters
    ----------
    reference : (i, j, k)
        Volume of any real dtype and any storage order.
    affine : (4, 4)
        Voxel indices of the reference to scanner RAS+, mm.
    mask : bool (i, j, k) or None
        Part of the reference to align to; None takes the whole head.

    Attributes
    ----------
    centre : float64, (3,)
        Middle of the head, or of its part in the mask, about which `Motion.parameters` turn, mm.

    Raises
    ------
    GeometryError
        If the reference is too thin or too empty to be aligned to.
    """

    def __init__(self, reference: Array, affine: Matrix, mask: NDArray[np.bool_] | None = None) -> None:
        data = np.asarray(reference)
        if data.ndim != 3 or min(data.shape) < THIN:
            raise GeometryError(
                "reference-too-thin",
                "motion correction needs at least {min_voxels} voxels along each axis, found "
                "{shape}. Run without motion correction.",
                min_voxels=THIN,
                shape=data.shape,
            )
        self._affine = np.asarray(affine, np.float64)
        self._fine, self.centre = level_of(data, self._affine, mask, FINE, None)
        self._coarse, _ = level_of(data, self._affine, mask, COARSE, self.centre)
        self._grids: tuple[Matrix, Grid, Grid] | None = None
        self._matrix = np.eye(4)
        self._weights = np.ones(self._fine.columns.shape[0])
        self._misfits: deque[float] = deque(maxlen=20)
        self._lost = True
        self._last: Matrix | None = None

    def reset(self) -> None:
        """Start a run: the next volume may lie anywhere near the reference, and its displacement is 0."""
        self._lost = True
        self._last = None
        self._misfits.clear()

    def push(self, data: Array, affine: Matrix | None = None) -> Motion:
        """Align the next volume.

        Parameters
        ----------
        data : (i, j, k)
            Values of the voxels.
        affine : (4, 4) or None
            Voxel indices of the volume to scanner RAS+, mm; None takes the affine of the reference.

        Returns
        -------
        Motion

        Raises
        ------
        GeometryError
            If the volume has the reference's affine but not its shape, or is too thin.
        """
        volume = np.asarray(data)
        fine, coarse = self._both(volume.shape, self._affine if affine is None else np.asarray(affine))
        fit = None if self._lost else self._refine(volume, fine, self._matrix, self._weights, 0)
        if fit is None or not fit.converged:
            fit = self._search(volume, fine, coarse, 0 if fit is None else fit.iterations)
        # Where a volume fails, the head is reported where it was last seen, and the next volume is
        # searched for on the coarse image first.
        self._lost = self._odd(fit) or not fit.converged
        if self._lost:
            parameters = parameters_of(self._matrix, self.centre)
            return Motion(self._matrix.copy(), parameters, float("nan"), False, fit.iterations)
        self._matrix = fit.matrix
        self._weights = fit.weights
        values = parameters_of(fit.matrix, self.centre)
        moved = 0.0 if self._last is None else framewise_displacement(values, self._last)
        self._last = values
        return Motion(fit.matrix.copy(), values.copy(), moved, True, fit.iterations)

    def _odd(self, fit: Fit) -> bool:
        """Return whether an aligned volume shows something else than the last ones of the run."""
        if not fit.converged:
            return False
        misfit = 1 - fit.match**2
        # The first volumes of a run have nothing to be compared with.
        usual = float(np.median(self._misfits)) if len(self._misfits) >= 3 else misfit
        # Odd ones count as well: a head that turned and stays where it fits badly has another usual
        # misfit, and is followed again after ten volumes at most.
        self._misfits.append(misfit)
        return misfit > max(_FLOOR, _ODD * usual)

    def _both(self, shape: tuple[int, ...], affine: Matrix) -> tuple[Grid, Grid]:
        # Grids depend on shape and affine alone, so they are kept until one of them changes.
        grids = self._grids
        if grids is None or grids[1].shape != shape or not np.array_equal(grids[0], affine):
            if len(shape) != 3 or min(shape) < THIN:
                raise GeometryError(
                    "volume-too-thin",
                    "the volume to align has {shape} voxels: at least {min_voxels} are needed along "
                    "each axis",
                    shape=shape,
                    min_voxels=THIN,
                )
            grids = (affine.copy(), grid_of(shape, affine, FINE), grid_of(shape, affine, COARSE))
            self._grids = grids
        return grids[1], grids[2]

    def _refine(self, volume: Array, grid: Grid, start: Matrix, weights: Matrix, iterations: int) -> Fit:
        fit = gauss_newton(self._fine, shrink(volume, grid), grid, start, weights, self.centre)
        return replace(fit, iterations=fit.iterations + iterations)

    def _search(self, volume: Array, fine: Grid, coarse: Grid, iterations: int) -> Fit:
        """Fit the coarse image from the last position and from the reference's, and refine the better fit.

        The iterations of all fits are added up.
        """
        image = shrink(volume, coarse)
        ones = np.ones(self._coarse.columns.shape[0])
        starts = [self._matrix] if np.array_equal(self._matrix, np.eye(4)) else [self._matrix, np.eye(4)]
        fits = [gauss_newton(self._coarse, image, coarse, start, ones, self.centre) for start in starts]
        best = max(fits, key=lambda fit: fit.match)
        iterations += sum(fit.iterations for fit in fits)
        if best.match < MATCH / 2:
            return replace(best, converged=False, iterations=iterations)
        return self._refine(volume, fine, best.matrix, np.ones_like(self._weights), iterations)
