"""A session's calibration: where the features lie in this head, and their level at rest.

`rtdecode calibrate` writes one with `write`; `load` reads and verifies it for a session.

::

    calibration.json   what it was made of and how it fits together, and its own digest
    reference.npz      volume (i, j, k) float32, affine (4, 4): the mean of the aligned volumes
    projection.npz     the matrix, its grid, and the affine that places the grid on this head
    warmup.npz         mean, scale (feature,) of the aligned volumes' features
    quality.html, .png a report for people

A calibration is read as strictly as a bundle: an unknown key, a wrong hash or a missing file is an error that
names it.
"""

import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk import hashed_folder, private, typed
from rtdecode.disk.hashed_folder import HashedFolder, read_tree
from rtdecode.errors import BundleError, GeometryError, UsageError
from rtdecode.signal.volume.projection import Projection, Reals
from rtdecode.types import Float

SCHEMA = 1
_AGAIN = "Calibrate again."
_HEAD = "calibration.json"


@dataclass(frozen=True, slots=True)
class Placement:
    """How the head of an earlier session lies in this one.

    Attributes
    ----------
    matrix : list, (4, 4)
        Maps a world position in the earlier session to one in this session, mm.
    correlation : float
        Correlation of the two sessions' mean volumes.
    moved_mm, turned_deg : float
        Shift, mm, and rotation, degrees, that the matrix stands for.
    """

    matrix: list[list[float]]
    correlation: float
    moved_mm: float
    turned_deg: float


@dataclass(frozen=True, slots=True)
class QualityFigures:
    """The numbers of the quality report; None for those that cannot be known.

    Attributes
    ----------
    max_fd_mm, mean_fd_mm : float or None
        Framewise displacement; None without motion correction.
    unaligned : int
        Number of volumes that could not be aligned and were left out.
    tsnr_region, tsnr_brain : float or None
        Median temporal signal-to-noise ratio of the features and of the brain's voxels.
    drift_percent : float or None
        Median absolute linear trend of the features, percent of their mean per minute.
    region_in_brain : float
        Fraction of the features' voxels that lie in the brain.
    outside : int
        Number of voxels of the region that lie outside the volumes.
    """

    max_fd_mm: float | None
    mean_fd_mm: float | None
    unaligned: int
    tsnr_region: float | None
    tsnr_brain: float | None
    drift_percent: float | None
    region_in_brain: float
    outside: int


@dataclass(frozen=True, slots=True)
class Record:
    """All that a calibration states about itself.

    Attributes
    ----------
    origin, origin_digest : str
        Where the features come from (``mask``, ``bundle`` or ``calibration``), and its digest.
    labels : list of int or None
        Value of each feature's region, if the features are means over regions.
    volumes, dropped : int
        Number of volumes it is based on, and of those before them that were left out as not yet steady.
    shape, affine
        Shape and affine of the reference.
    projection : str
        Digest of the matrix (`Projection.digest`).
    placement : Placement or None
        None if no earlier session's head was looked for.
    """

    schema: int
    version: str
    made_at: str
    origin: str
    origin_digest: str
    labels: list[int] | None
    features: int
    series: int
    tr_s: float | None
    volumes: int
    dropped: int
    shape: list[int]
    affine: list[list[float]]
    projection: str
    placement: Placement | None
    figures: QualityFigures
    files: dict[str, str]


@dataclass(frozen=True)
class Calibration:
    """A calibration that was read and verified.

    Attributes
    ----------
    path : Path
        The calibration's folder.
    record : Record
        The content of ``calibration.json``.
    digest : str
        First 16 hexadecimal digits of the SHA-256 over the record's values.
    reference : float32, (i, j, k)
        Mean of the aligned volumes.
    affine : float64, (4, 4)
        Affine of the reference.
    projection : Projection
        Its affine places the grid on this session's head.
    warmup_mean, warmup_scale : float32, (feature,)
        Mean and scale of each feature at rest.
    """

    path: Path
    record: Record
    digest: str
    reference: Float = field(repr=False)
    affine: Reals = field(repr=False)
    projection: Projection = field(repr=False)
    warmup_mean: Float = field(repr=False)
    warmup_scale: Float = field(repr=False)

    def matched(self, trained: Projection) -> "Calibration":
        """Return the calibration with its features in the order of a bundle's.

        Parameters
        ----------
        trained : Projection
            The bundle's projection.

        Raises
        ------
        GeometryError
            If it does not read the bundle's features: their number, the grid or the voxels differ, or the
            head was not registered to the bundle's.
        """
        # A registered head has the bundle's own matrix, moved to today's position. Without
        # registration the two must read the same voxels, and at most their order differs.
        mine = self.projection
        if self.record.placement is not None:
            if mine.digest == trained.digest and _same_size(mine, trained):
                return self
            raise self._misfit(trained, "the head was registered, but for other features")
        order = self._order(trained)
        if order is None:
            raise self._misfit(trained, "no head was registered, so both must read the same voxels")
        moved = replace(mine, voxels=mine.voxels[order]) if mine.weights is None else mine
        return replace(
            self,
            projection=moved,
            warmup_mean=self.warmup_mean[order],
            warmup_scale=self.warmup_scale[order],
        )

    def _order(self, trained: Projection) -> NDArray[np.int64] | None:
        """Find the bundle's features in this calibration's vector, (feature,); None if one is missing."""
        mine = self.projection
        try:
            bundle_voxels = trained.bind(mine.shape, mine.affine)
        except GeometryError:
            return None
        # Weighted features can be matched only as a whole, and plain voxels one by one.
        if mine.weights is not None:
            return np.arange(mine.features) if mine.digest == trained.digest else None
        if trained.weights is not None or not np.array_equal(np.sort(bundle_voxels), np.sort(mine.voxels)):
            return None
        by_voxel = np.argsort(mine.voxels)
        return by_voxel[np.searchsorted(mine.voxels, bundle_voxels, sorter=by_voxel)]

    def _misfit(self, trained: Projection, why: str) -> GeometryError:
        mine = _say(self.projection)
        bundle_features = _say(trained)
        return GeometryError(
            "calibration-bundle-mismatch",
            "the calibration in {path} reads {calibration_features}; the bundle reads "
            "{bundle_features}: {mismatch}. Calibrate with --bundle, or give the bundle that was "
            "trained on this calibration.",
            path=self.path,
            calibration_features=mine,
            bundle_features=bundle_features,
            mismatch=why,
        )


def check_target(target: Path) -> None:
    """Refuse a target that `write` would refuse; see `rtdecode.disk.hashed_folder.check_target`."""
    hashed_folder.check_target(target, _HEAD, "calibration")


def write(
    target: Path, record: Record, parts: dict[str, dict[str, Any]], extra: dict[str, bytes]
) -> Calibration:
    """Write a calibration in one step, into a temporary folder that is renamed when it is complete.

    Parameters
    ----------
    target : Path
        Folder to create. An existing calibration there is replaced; anything else is refused.
    record : Record
        Its `files` are filled in here.
    parts : dict
        ``reference``, ``projection`` and ``warmup`` -> their arrays.
    extra : dict
        Name -> contents of further files.

    Raises
    ------
    UsageError
        If `target` holds anything but a calibration.
    """
    check_target(target)
    with hashed_folder.replacing(target) as part:
        for name, arrays in parts.items():
            np.savez_compressed(private.file(part / f"{name}.npz"), **arrays)
        for name, data in extra.items():
            private.file(part / name).write_bytes(data)
        hashed_folder.write_tree(part / _HEAD, asdict(record))
    return load(target)


def copy(calibration: Calibration, target: Path) -> None:
    """Copy a calibration's files unchanged into a folder, so that the copy has the same digest."""
    private.folder(target)
    for name in (*calibration.record.files, _HEAD):
        shutil.copyfile(calibration.path / name, private.file(target / name))


def load(path: Path) -> Calibration:
    """Read a calibration and check every file against its hash.

    Raises
    ------
    UsageError
        If there is no calibration.
    BundleError
        If a file is missing or was changed, or the files do not fit together.
    """
    file = path / _HEAD
    if not file.is_file():
        raise UsageError(
            "calibration-missing",
            "no calibration at {path}: a folder made by `rtdecode calibrate --out` was expected.",
            path=path,
        )
    tree, digest = read_tree(file, _AGAIN)
    # Another schema has other keys, so it is named before the strict reading can
    # complain about these.
    if tree.get("schema") != SCHEMA:
        raise BundleError(
            "calibration-schema-unsupported",
            "{path} has schema {schema}, this version reads {supported_schema}. {advice}",
            path=file,
            schema=tree.get("schema"),
            supported_schema=SCHEMA,
            advice=_AGAIN,
        )
    record = typed.read(Record, tree, str(file))
    files = HashedFolder(file, record.files, _AGAIN)
    files.check()
    return _fitted(path, record, files, digest)


def _fitted(path: Path, record: Record, files: HashedFolder, digest: str) -> Calibration:
    """Read the arrays, and check them against the record."""
    reference = files.arrays("reference.npz", "volume", "affine")
    warmup = files.arrays("warmup.npz", "mean", "scale")
    try:
        projection = Projection.from_arrays(files.arrays("projection.npz"))
    except ValueError as error:
        raise BundleError(
            "calibration-projection-invalid",
            "{path}: {error}. {advice}",
            path=path / "projection.npz",
            error=error,
            advice=_AGAIN,
        ) from error
    size = (record.features,)
    for name, values in {**reference, **warmup}.items():
        # A mean volume may have holes.
        if values.dtype.kind not in "iuf" or not (name == "volume" or np.isfinite(values).all()):
            raise BundleError(
                "calibration-not-numbers",
                "{path}: {array} must hold numbers, found other values of type {dtype}. {advice}",
                path=path,
                array=name,
                dtype=values.dtype,
                advice=_AGAIN,
            )
    for what, is_, expected in (
        ("the reference's number of axes", reference["volume"].ndim, 3),
        ("the shape of the reference's affine", reference["affine"].shape, (4, 4)),
        ("the reference's shape", reference["volume"].shape, tuple(record.shape)),
        ("the reference's affine", reference["affine"].tolist(), record.affine),
        ("the number of features", (projection.features,), size),
        ("the matrix's digest", projection.digest, record.projection),
        ("the warm-up mean's shape", warmup["mean"].shape, size),
        ("the warm-up scale's shape", warmup["scale"].shape, size),
    ):
        if is_ != expected:
            raise BundleError(
                "calibration-record-mismatch",
                "{path}: {quantity} is {actual}, calibration.json says {expected}. {advice}",
                path=path,
                quantity=what,
                actual=is_,
                expected=expected,
                advice=_AGAIN,
            )
    affine = reference["affine"].astype(np.float64)
    volume = reference["volume"].astype(np.float32)
    mean, scale = (warmup[name].astype(np.float32) for name in ("mean", "scale"))
    return Calibration(path, record, digest, volume, affine, projection, mean, scale)


def _same_size(first: Projection, other: Projection) -> bool:
    """Return whether two grids have equal shapes, and steps of equal lengths and angles."""
    a, b = (steps.T @ steps for steps in (first.affine[:3, :3], other.affine[:3, :3]))
    return first.shape == other.shape and bool(np.abs(a - b).max() < 0.01 * np.abs(b).max())


def _say(projection: Projection) -> str:
    return (
        f"{projection.features} features of a grid of {projection.shape} voxels with the affine "
        f"{np.round(projection.affine, 2).tolist()}"
    )
