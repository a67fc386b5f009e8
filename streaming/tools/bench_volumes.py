"""Time a volume from a complete file in the scanner's folder to a normalised vector, for each form of file.

Every volume goes the way of a session: the folder is polled, the file decoded, the head aligned to the
calibration's reference, and the features interpolated once, at their present place, and normalised.
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from scipy import ndimage

from rtdecode.bundle import Bundle
from rtdecode.disk.calibration import Calibration, QualityFigures, Record
from rtdecode.phantom.body import scanner
from rtdecode.phantom.files.classic import slice_bytes
from rtdecode.phantom.files.enhanced import enhanced_bytes
from rtdecode.phantom.files.mosaic import mosaic_bytes
from rtdecode.phantom.files.nifti import nifti_bytes
from rtdecode.signal.volume.baseline import Baseline, Drift, VolumeNormalizer
from rtdecode.signal.volume.motion import rigid
from rtdecode.signal.volume.projection import Projection
from rtdecode.types import Float, Volume
from rtdecode.windows.head import Head
from streaming.sources.folder.source import FolderSource

SHAPE = (104, 104, 72)
FEATURES = 10_000
TR = 0.8
# Stage of ``rtdecode bench`` -> form of the files.
STAGES = {
    "volume_to_vector": "mosaic",
    "volume_to_vector_enhanced": "enhanced",
    "volume_to_vector_nifti": "nifti",
    "volume_to_vector_slices": "slices",
}
# Period at which a session looks into the folder, s. A file waits for it at most this long.
POLL = 0.015
# Number of poses that the head takes in turn, and size of a step from one to the next, mm and rad.
_POSES = 8
_STEP_MM = 0.1
_STEP_RAD = 0.002
# Standard deviation of the thermal noise.
_THERMAL = 6.0
# Where the trained grid lies on this head, mm and rad.
_LIES = np.array([1.3, -0.7, 0.4, 0.01, 0.0, 0.02])
_COMPONENTS = 8
_START = datetime(2026, 1, 1, 12)

Write = Callable[[int], list[bytes]]


@dataclass(frozen=True, slots=True)
class Times:
    """Time from each volume's last file to its vector, ms: by the clock, on the processor, and parsing."""

    wall: list[float]
    cpu: list[float]
    parse: list[float]


@dataclass(frozen=True)
class Case:
    """A head that moves a little from volume to volume, and what reads its features.

    Attributes
    ----------
    volumes : int16, (pose, i, j, k)
        The head in each pose.
    affine : float64, (4, 4)
        Voxel indices to scanner RAS+, mm.
    bundle : Bundle
        A bundle that reads some of the head's voxels.
    calibration : Calibration
        A calibration to a head that lies elsewhere.
    """

    volumes: np.ndarray
    affine: np.ndarray
    bundle: Bundle
    calibration: Calibration

    def files(self, form: str) -> Write:
        """Return a function that writes volume n as files of one form, in the order of their names."""
        a = self.affine
        uid = "1.2.826.0.1.3680043.8.498.1"
        of: Callable[[int], np.ndarray] = lambda n: self.volumes[n % len(self.volumes)]  # noqa: E731
        acquired_at: Callable[[int], datetime] = lambda n: _START + timedelta(seconds=n * TR)  # noqa: E731
        forms: dict[str, Write] = {
            "mosaic": lambda n: [mosaic_bytes(of(n), a, TR, n, 3, acquired_at(n), 1.6, uid)],
            "enhanced": lambda n: [enhanced_bytes(of(n), a, TR, n, 3, acquired_at(n), 1.6, uid)],
            "nifti": lambda n: [nifti_bytes(of(n), a, TR)],
            "slices": lambda n: slice_bytes("ge", of(n), a, TR, n, 3, acquired_at(n), uid),
        }
        return forms[form]


def case(bundle: Bundle, shape: tuple[int, int, int] = SHAPE, features: int = FEATURES) -> Case:
    """Make the phantom's head with noise, in a few poses, and a calibration that lies elsewhere on it."""
    head = scanner.head(1, shape)
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.standard_normal((_POSES, 6)), axis=0) * ([_STEP_MM] * 3 + [_STEP_RAD] * 3)
    volumes = np.stack([_posed(head.mean, head.affine, pose, rng) for pose in walk])
    voxels = np.sort(rng.choice(head.brain, min(features, len(head.brain)), replace=False))
    trained = Projection(voxels, shape, head.affine)
    placed = replace(trained, affine=rigid(_LIES, np.zeros(3)) @ head.affine)
    # Any level and scale will do: they change the values, not the time.
    size = len(voxels)
    calibration = Calibration(
        Path(),
        _record(placed),
        "0" * 16,
        head.mean.astype(np.float32),
        head.affine,
        placed,
        np.full(size, 1000.0, np.float32),
        np.full(size, 50.0, np.float32),
    )
    return Case(volumes, head.affine, replace(bundle, projection=trained), calibration)


def _posed(image: Float, affine: np.ndarray, pose: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    back = np.linalg.inv(affine) @ np.linalg.inv(rigid(pose, np.zeros(3))) @ affine
    moved = ndimage.affine_transform(image, back, order=1, mode="nearest")
    moved = moved + _THERMAL * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(np.rint(np.abs(moved)), 0, 4095).astype(np.int16)


def _record(placed: Projection) -> Record:
    """Fill in a calibration's record, of which nothing is timed."""
    return Record(
        schema=1,
        version="",
        made_at="",
        origin="mask",
        origin_digest="",
        labels=None,
        features=placed.features,
        series=3,
        tr_s=TR,
        volumes=0,
        dropped=0,
        shape=list(placed.shape),
        affine=placed.affine.tolist(),
        projection="",
        placement=None,
        figures=QualityFigures(None, None, 0, None, None, None, 1.0, 0),
        files={},
    )


def normaliser(calibration: Calibration) -> VolumeNormalizer:
    """Make the most expensive kind of normaliser, one that follows components of drift."""
    rng = np.random.default_rng(1)
    size = len(calibration.warmup_mean)
    write = rng.standard_normal((_COMPONENTS, size))
    drift = Drift(np.asarray(np.linalg.pinv(write).T, np.float64), write, np.ones(_COMPONENTS), 1.0)
    baseline = Baseline(components=_COMPONENTS, walk=0.01, colour=0.5, memory=5.0)
    return VolumeNormalizer(calibration.warmup_mean, calibration.warmup_scale, baseline, drift)


def measure(
    case: Case, form: str, rounds: Iterable[int], other_files: int = 0
) -> Iterator[tuple[float, ...]]:
    """Time volume after volume.

    Parameters
    ----------
    case : Case
        The head and its features.
    form : str
        ``mosaic``, ``enhanced``, ``nifti`` or ``slices``.
    rounds : iterable of int
        Numbers of the volumes, from 0.
    other_files : int
        Number of useless files that lie in the folder beforehand.

    Yields
    ------
    (wall, cpu, parse)
        Time from the rename of a volume's last file, ms. The first includes the wait for the poll, which
        is drawn evenly from its period.
    """
    write = case.files(form)
    rng = np.random.default_rng(2)
    head = Head(case.bundle, case.calibration)
    norm = normaliser(case.calibration)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for n in range(other_files):
            (folder / f"other_{n:06d}.log").touch()
        source = FolderSource(folder)
        for n in rounds:
            # A volume's earlier files are read before the clock starts, as at a scanner that
            # writes slice after slice: only the last one counts.
            *before, last = _deliver(folder, write(n), n, form)
            for path in before:
                path[0].rename(path[1])
            while before and (source.poll(time.monotonic()) or len(source.waiting)):
                pass
            last[0].rename(last[1])
            yield _timed(source, head, norm, rng.uniform(0, POLL))
            for _, path in (*before, last):
                path.unlink()


def _deliver(folder: Path, files: list[bytes], n: int, form: str) -> list[tuple[Path, Path]]:
    """Write files under names that a reader ignores; return those names and the final ones."""
    ending = ".nii" if form == "nifti" else ""
    pairs = []
    for k, data in enumerate(files):
        part = folder / f".{k}"
        part.write_bytes(data)
        pairs.append((part, folder / (f"vol_{n:05d}{ending}" if len(files) == 1 else f"i{n:05d}.{k:03d}")))
    return pairs


def _timed(
    source: FolderSource, head: Head, norm: VolumeNormalizer, waits: float
) -> tuple[float, float, float]:
    # The wait for the poll counts by the clock, but is no work: processor time starts after it.
    began = time.perf_counter()
    time.sleep(waits)
    work = time.thread_time()
    volumes: list[Volume] = []
    while not volumes:
        volumes = source.poll(time.monotonic())
    vector = norm.push(head.read(volumes[0]))
    work = time.thread_time() - work
    wall = time.perf_counter() - began
    assert np.isfinite(vector).all()
    return 1e3 * wall, 1e3 * work, 1e3 * (volumes[0].parsed_at - volumes[0].arrived_at)


def timed(case: Case, track: Callable[[int, str, int], Iterable[int]], samples: int) -> dict[str, Times]:
    """Time every form of file; the keys are stages of ``rtdecode bench``."""
    times = {}
    for name, form in STAGES.items():
        # Leave out the first volume, which opens readers and grids.
        rows = list(measure(case, form, track(samples + 1, name, 2)))[1:]
        wall, cpu, parse = (list(column) for column in zip(*rows, strict=True))
        times[name] = Times(wall, cpu, parse)
    return times
