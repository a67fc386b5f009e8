"""Prepare a session at the scanner: the command ``rtdecode calibrate``.

`run` takes a run's first volumes from the scanner's folder (`gather`), aligns and averages them (`align`),
and decides which voxels the session reads: those of a mask, or those of a bundle or an earlier calibration,
placed on today's head by registration. It then reads these features from every aligned volume, as a session
would (`measure`), and writes the reference volume, the projection, the features' statistics at rest and a
page on their quality.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from rich.console import Console

from rtdecode import __version__, terminal
from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle
from rtdecode.bundle.prepared import check_live
from rtdecode.disk import calibration as calibrations
from rtdecode.disk.calibration import SCHEMA, Calibration, Placement, QualityFigures, Record
from rtdecode.errors import GeometryError, UsageError
from rtdecode.signal.volume.motion import THIN
from rtdecode.signal.volume.projection import Projection, Reals, outside
from rtdecode.signal.volume.register import Registration, register, register_points
from rtdecode.timing import check_tr
from rtdecode.types import Volume
from streaming.calibrate import page
from streaming.calibrate.gather import gather
from streaming.calibrate.region import Region, brain_of, choose, nearest, read_region
from streaming.calibrate.warmup import Aligned, Warmup, align, measure
from streaming.sinks.session_folder import check_free
from streaming.sources.folder.source import FolderSource

LABELS = ("voxels", "mean")
_MAX_VOLUMES = 600
# The mean volumes of one head in two sessions correlate above this; those of two simulated heads
# were seen to correlate at 0.885.
_SAME_HEAD = 0.9
# Largest share of the features' voxels that may lie outside the volumes.
_MOST_OUTSIDE = 0.1
# Registration by a bundle's features alone is exact to this: a smaller move counts as none.
_POINTS_MM = 2.0
_POINTS_DEG = 1.0


@dataclass(frozen=True, slots=True)
class _Sources:
    """What says which features to read: a mask with its file, a bundle, or an earlier calibration."""

    mask: tuple[Path, Region] | None
    trained: Bundle | None
    earlier: Calibration | None
    mean: bool


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What the session reads, and where that came from."""

    projection: Projection
    origin: str
    digest: str
    labels: list[int] | None
    placement: Placement | None


def run(
    fmri_dir: Path,
    mask: Path | None,
    out: Path,
    *,
    bundle: str | None = None,
    reference: Path | None = None,
    fmriprep: Path | None = None,
    subject: str | None = None,
    labels: str = "voxels",
    volumes: int = 60,
    series: int | None = None,
    include: str = "",
    existing: str = "read",
    wait: float = 60.0,
    overwrite: bool = False,
) -> int:
    """Read a run's first volumes, and write the session's calibration and its quality report.

    Parameters
    ----------
    fmri_dir : Path
        The scanner's export folder.
    mask : Path or None
        Mask or label image in the space of the volumes; with `reference`, in that calibration's space.
    out : Path
        The calibration's folder. With `overwrite`, a calibration that is already there is replaced.
    bundle, reference : str, Path or None
        A bundle, or an earlier calibration, whose head is to be found again. Without a `mask`, an earlier
        calibration's features are taken.
    fmriprep, subject
        Not supported yet: refused.
    labels : str
        ``voxels`` makes every voxel a feature, ``mean`` makes one feature per label.
    volumes : int
        Number of volumes the calibration rests on.
    series : int or None
        Take only runs with this SeriesNumber.
    include : str
        Part of the names of series that are not left out for their name alone.
    existing : str
        ``read`` or ``ignore`` files that already lie in the folder.
    wait : float
        Seconds to wait for the first volume; 0 waits for ever.

    Raises
    ------
    UsageError
        If flags do not go together, the mask lies outside the brain, or `out` holds something else.
    GeometryError
        If the earlier head is not found in the volumes.
    RtDecodeError
        If there are too few volumes, or they do not show one head.
    """
    _check(fmri_dir, mask, bundle, reference, fmriprep, subject, labels, volumes, wait)
    calibrations.check_target(out)
    if not overwrite:
        check_free(out)
    # Read the files first: a faulty one is named before anyone waits for the scanner.
    loaded = None if bundle is None else bundles.load(bundle)
    if loaded is not None:
        check_live(loaded.manifest)
    sources = _Sources(
        None if mask is None else (mask, read_region(mask)),
        loaded,
        None if reference is None else calibrations.load(reference),
        labels == "mean",
    )
    console = terminal.console(stderr=True)
    # Not bound to one kind of series: `gather` chooses among all runs in the folder.
    source = FolderSource(fmri_dir, existing, series, include=include, bound=False)
    scans = gather(source, volumes, wait, console)
    aligned = align(scans, lambda to_align, word: _track(to_align, word, console))
    chosen = _choose(aligned, sources)
    _say(_write(out, aligned, chosen, measure(aligned, chosen.projection)), console)
    return 0


def _check(
    fmri_dir: Path,
    mask: Path | None,
    bundle: str | None,
    reference: Path | None,
    fmriprep: Path | None,
    subject: str | None,
    labels: str,
    volumes: int,
    wait: float,
) -> None:
    if fmriprep is not None or subject is not None:
        raise UsageError(
            "calibrate-fmriprep-unsupported",
            "regions from an fMRIPrep folder (--fmriprep, --subject) cannot be read yet. Give a mask "
            "or label image in the space of the volumes with --mask.",
        )
    if mask is None and bundle is None and reference is None:
        raise UsageError(
            "calibrate-voxels-unspecified",
            "nothing says which voxels to read: give --mask, --bundle or --reference.",
        )
    if bundle is not None and (mask is not None or reference is not None):
        raise UsageError(
            "calibrate-voxels-ambiguous",
            "a bundle brings its own voxels: leave out --mask and --reference, or --bundle.",
        )
    if labels not in LABELS:
        raise UsageError(
            "calibrate-labels-unknown",
            "--labels must be one of {available}, found '{labels}'",
            available=list(LABELS),
            labels=labels,
        )
    if not 2 <= volumes <= _MAX_VOLUMES:
        raise UsageError(
            "calibrate-volumes-out-of-range",
            "--volumes lies between 2 and {max_volumes}, found {volumes}",
            max_volumes=_MAX_VOLUMES,
            volumes=volumes,
        )
    if wait < 0:
        raise UsageError(
            "calibrate-wait-negative",
            "--wait must be 0 (for ever) or a number of seconds, found {wait_s:g}",
            wait_s=wait,
        )
    # The folder may appear only when the scanner exports, but a path without a parent is mistyped.
    if not fmri_dir.absolute().parent.is_dir():
        raise UsageError(
            "fmri-dir-parent-missing",
            "--fmri-dir {folder}: there is no folder {parent}",
            folder=fmri_dir,
            parent=fmri_dir.absolute().parent,
        )


def _track(volumes: Iterable[Volume], word: str, console: Console) -> Iterator[Volume]:
    return iter(
        terminal.track(list(volumes), word, console=console, transient=True, disable=not console.is_terminal)
    )


def _choose(aligned: Aligned, sources: _Sources) -> _Chosen:
    if sources.trained is not None:
        return _of_bundle(aligned, sources.trained)
    if sources.earlier is not None:
        return _of_earlier(aligned, sources.earlier, sources)
    assert sources.mask is not None
    path, region = sources.mask
    projection, labels = choose(region, path, aligned.brain, aligned.affine, mean=sources.mean)
    return _Chosen(projection, "mask", region.digest, labels, None)


def _of_bundle(aligned: Aligned, trained: Bundle) -> _Chosen:
    projection = trained.projection
    if projection is None:
        raise UsageError(
            "calibrate-bundle-without-fmri",
            "the bundle {bundle} reads no volumes: it needs no calibration.",
            bundle=trained.manifest.name,
        )
    check_tr(aligned.volumes[0].tr_s, float(trained.manifest.grid.tr or 0))
    if min(*aligned.reference.shape, *projection.shape) < THIN:
        # Too few slices to register: the volumes must be on the grid that the bundle reads.
        projection.bind(aligned.reference.shape, aligned.affine, "this series")
        return _Chosen(projection, "bundle", trained.digest, None, None)
    if projection.weights is not None:
        raise UsageError(
            "calibrate-bundle-without-reference",
            "the bundle {bundle} holds no reference volume to find its head by. Calibrate with "
            "--reference, the calibration it was trained on.",
            bundle=trained.manifest.name,
        )
    # A bundle holds no reference volume: the resting level of its voxels takes that place.
    level = trained.stats["fmri_mean"].astype(np.float64)
    registration = register_points(projection.points_mm, level, aligned.reference, aligned.affine)
    if registration.moved_mm < _POINTS_MM and registration.turned_deg < _POINTS_DEG:
        registration = replace(registration, matrix=np.eye(4), moved_mm=0.0, turned_deg=0.0)
    placed, placement = _placed(projection, registration, aligned, f"the bundle {trained.manifest.name}")
    return _Chosen(placed, "bundle", trained.digest, None, placement)


def _of_earlier(aligned: Aligned, earlier: Calibration, sources: _Sources) -> _Chosen:
    projection = earlier.projection
    labels = earlier.record.labels
    origin = "calibration"
    digest = earlier.digest
    if sources.mask is not None:
        # The mask belongs to the earlier session: choose its voxels there, then move them here.
        path, region = sources.mask
        earlier_brain = brain_of(earlier.reference)
        projection, labels = choose(region, path, earlier_brain, earlier.affine, mean=sources.mean)
        origin = "mask"
        digest = region.digest
    registration = register(earlier.reference, earlier.affine, aligned.reference, aligned.affine)
    placed, placement = _placed(projection, registration, aligned, f"the calibration in {earlier.path}")
    return _Chosen(placed, origin, digest, labels, placement)


def _placed(
    projection: Projection, registration: Registration, aligned: Aligned, whose: str
) -> tuple[Projection, Placement]:
    """Place a grid on this session's head.

    A head that does not look like the earlier one is refused, and so is a placement that leaves too many
    voxels outside the volumes.
    """
    # The features stay as they are; only the affine that places their grid changes.
    placed = Projection(
        projection.voxels, projection.shape, registration.matrix @ projection.affine, projection.weights
    )
    out = outside(aligned.reference.shape, aligned.affine, placed.points_mm)
    if registration.correlation < _SAME_HEAD or out.mean() > _MOST_OUTSIDE:
        raise GeometryError(
            "head-registration-failed",
            "the head of {origin} is not found in these volumes: the best placement has a "
            "correlation of {correlation:.2f} ({min_correlation} is needed) and leaves "
            "{outside_percent:.0f} % of the voxels outside (at most {max_outside_percent:.0f} %). It "
            "has {origin_shape} voxels with the affine {origin_affine}, the volumes {volume_shape} "
            "with {volume_affine}. Check the participant and the slices' position.",
            origin=whose,
            correlation=registration.correlation,
            min_correlation=_SAME_HEAD,
            outside_percent=100 * out.mean(),
            max_outside_percent=100 * _MOST_OUTSIDE,
            origin_shape=projection.shape,
            origin_affine=np.round(projection.affine, 2).tolist(),
            volume_shape=aligned.reference.shape,
            volume_affine=np.round(aligned.affine, 2).tolist(),
        )
    placement = Placement(
        registration.matrix.tolist(), registration.correlation, registration.moved_mm, registration.turned_deg
    )
    return placed, placement


def _write(out: Path, aligned: Aligned, chosen: _Chosen, warmup: Warmup) -> Calibration:
    first = aligned.volumes[0]
    projection = chosen.projection
    record = Record(
        schema=SCHEMA,
        version=__version__,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        origin=chosen.origin,
        origin_digest=chosen.digest,
        labels=chosen.labels,
        features=projection.features,
        series=first.series,
        tr_s=first.tr_s,
        volumes=len(aligned.volumes),
        dropped=aligned.dropped,
        shape=list(aligned.reference.shape),
        affine=aligned.affine.tolist(),
        projection=projection.digest,
        placement=chosen.placement,
        figures=_figures(aligned, chosen, warmup),
        files={},
    )
    parts = {
        "reference": {"volume": aligned.reference, "affine": aligned.affine},
        "projection": projection.to_arrays(),
        "warmup": {"mean": warmup.mean, "scale": warmup.scale},
    }
    picture = page.picture(record, aligned, projection, warmup)
    extra = {"quality.png": picture, "quality.html": page.page(record, picture)}
    return calibrations.write(out, record, parts, extra)


def _figures(aligned: Aligned, chosen: _Chosen, warmup: Warmup) -> QualityFigures:
    # The first volume's displacement is 0 by definition.
    moved = [m.fd_mm for m in aligned.motions or []][1:]
    in_brain = _in_brain(aligned.brain, aligned.affine, chosen.projection)
    # Two volumes leave nothing about the line that is fitted through them.
    has_residuals = len(aligned.volumes) > 2
    return QualityFigures(
        max_fd_mm=float(np.max(moved)) if moved else None,
        mean_fd_mm=float(np.mean(moved)) if moved else None,
        unaligned=aligned.unaligned,
        tsnr_region=float(np.median(warmup.tsnr)) if has_residuals else None,
        tsnr_brain=float(np.median(aligned.tsnr[aligned.brain])) if has_residuals else None,
        drift_percent=float(np.median(np.abs(warmup.drift))) if aligned.volumes[0].tr_s else None,
        region_in_brain=in_brain,
        outside=warmup.outside,
    )


def _in_brain(brain: np.ndarray, affine: Reals, projection: Projection) -> float:
    index, _ = nearest(np.linalg.inv(affine), projection.points_mm, brain.shape)
    # A voxel outside the volume is read at the nearest place inside, so it is judged there too.
    last_index = np.array(brain.shape)[:, None] - 1
    return float(brain[tuple(np.clip(index, 0, last_index))].mean())


def _say(calibration: Calibration, console: Console) -> None:
    # The verdict goes to stderr, like the progress. Stdout carries the two paths alone.
    for line in page.verdict(calibration.record):
        console.print(line, highlight=False, soft_wrap=True)
    for name in ("calibration.json", "quality.html"):
        terminal.line(calibration.path / name)
