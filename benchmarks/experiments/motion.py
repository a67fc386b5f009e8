"""Motion estimates against the truth, and beside SPM's algorithm as python-rtspm has it.

python -m benchmarks.experiments.motion [FOLDER OF REAL SERIES]    # prints tables, writes results/motion.json

Both see the same volumes, alternating, on one thread.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.experiments.moving_head import MovingHead, distance, moving_head
from benchmarks.result_files import RESULTS, write
from benchmarks.spm import Spm
from rtdecode.signal.volume.motion import Aligner, rigid
from rtdecode.types import Array
from streaming.sources.folder.files import gunzip
from streaming.sources.folder.volume_assembler import VolumeAssembler
from streaming.sources.formats.dicom import read_dicom
from streaming.sources.formats.image import Image, Moments, Plane

Matrix = NDArray[np.float64]

SHAPES = {"64 x 64 x 36, 3 mm": (64, 64, 36), "104 x 104 x 72, 2 mm": (104, 104, 72)}
# Real series whose volumes show one head at one place; from which volume on.
SERIES = {
    "rt-cloud_siemens_mosaic_VE11_TR1500": 0,
    "pyneal_siemens_mosaic_VE11_TR1000": 0,
    "dcm_qa_mosaic_VD13_asc": 2,  # turned by 25 degrees during volume 1
    "dcm_qa_xa30_enhanced_TR1000": 0,
    "dcm_qa_philips_classic_slices_TR1259": 0,
}
_OUT = RESULTS / "motion.json"


def read_series(folder: Path) -> list[Image]:
    """The volumes of a folder of DICOM files, in order."""
    stacks = VolumeAssembler()
    images = []
    for index, file in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        read = read_dicom(gunzip(file.read_bytes()))
        if isinstance(read, Plane):
            time_s = float(index)
            images += [done.image for done in stacks.push(read, file.name, Moments(time_s, time_s, time_s))]
        else:
            images += read
    images += [done.image for done in stacks.drain() if not done.missing_slices]
    return sorted(images, key=lambda image: image.number or 0)


def brain_points(data: Array, affine: Matrix) -> Matrix:
    """Positions of the brighter voxels, (3, point), mm."""
    values = data.astype(np.float32)
    bright = np.argwhere(values > 0.2 * np.percentile(values, 98)).T[:, ::5]
    return affine[:3, :3] @ bright + affine[:3, 3:]


def _timed(call: Callable[[Array], Any], data: Array, name: str) -> tuple[Any, dict[str, float]]:
    """What a call returns, and its time by the wall and by the processor, ms."""
    wall = time.perf_counter()
    work = time.thread_time()
    returned = call(data)
    work = time.thread_time() - work
    wall = time.perf_counter() - wall
    return returned, {f"{name}ms": 1e3 * wall, f"{name}cpu_ms": 1e3 * work}


def _path(count: int, rng: np.random.Generator, jumps: bool) -> NDArray[np.float64]:
    """Anywhere within 3 mm and 3 degrees in every volume, or a slow walk with 0.1 mm a volume."""
    if jumps:
        return np.concatenate(
            [rng.uniform(-3, 3, (count, 3)), np.deg2rad(rng.uniform(-3, 3, (count, 3)))], axis=1
        )
    walk = np.cumsum(rng.standard_normal((count, 6)), axis=0)
    return walk * np.array([0.05, 0.05, 0.05, 0.001, 0.001, 0.001])


def synthetic(head: MovingHead, count: int, jumps: bool, spm: bool, seed: int = 1) -> dict[str, Any]:
    """Errors and times of both on a head of which the place is known."""
    rng = np.random.default_rng(seed)
    reference = head.volume(np.eye(4), rng)
    aligner = Aligner(reference, head.affine)
    spm_aligner = Spm(reference, head.affine) if spm else None
    rows = []
    for parameters in _path(count, rng, jumps):
        truth = rigid(parameters, aligner.centre)
        data = head.volume(truth, rng)
        motion, times = _timed(aligner.push, data, "")
        row = {"converged": motion.converged, "error": head.error(motion.matrix, truth), **times}
        if spm_aligner is not None:
            spm_matrix, times = _timed(spm_aligner.push, data, "spm_")
            row |= times | {
                "spm_error": head.error(spm_matrix, truth),
                "gap": head.error(spm_matrix, motion.matrix),
            }
        rows.append(row)
    return _summary(rows)


def real(folder: Path, start: int) -> dict[str, Any]:
    """Distance between the two, and times, on a recorded series."""
    images = read_series(folder)[start:]
    first = images[0]
    points = brain_points(first.data, first.affine)
    aligner = Aligner(first.data, first.affine)
    spm_aligner = Spm(first.data, first.affine)
    rows = []
    for image in images[1:]:
        motion, times = _timed(aligner.push, image.data, "")
        spm_matrix, spm_times = _timed(spm_aligner.push, image.data, "spm_")
        gap = distance(motion.matrix, spm_matrix, points)
        rows.append({"converged": motion.converged, "gap": gap, **times, **spm_times})
    return _summary(rows)


def _summary(rows: Sequence[dict[str, float]]) -> dict[str, Any]:
    out: dict[str, Any] = {"volumes": len(rows), "unaligned": sum(not row["converged"] for row in rows)}
    for key in ("error", "spm_error", "gap"):
        if key in rows[0]:
            values = [row[key] for row in rows]
            out[f"{key}_mm"] = {"mean": float(np.mean(values)), "max": max(values)}
    for key in ("ms", "cpu_ms", "spm_ms", "spm_cpu_ms"):
        if key in rows[0]:
            p50, p99 = np.percentile([row[key] for row in rows], [50, 99])
            out[key] = {"p50": float(p50), "p99": float(p99)}
    if "spm_ms" in rows[0]:
        out["times_faster"] = out["spm_cpu_ms"]["p50"] / out["cpu_ms"]["p50"]
    return out


def main(folder: str | None) -> None:
    """Run everything, print it, write it."""
    by_series: dict[str, Any] = {}
    for name, shape in SHAPES.items():
        head = moving_head(1, shape)
        shaded = moving_head(1, shape, coil=0.5)
        by_series[f"{name}, walk"] = synthetic(head, 25, jumps=False, spm=True)
        by_series[f"{name}, jumps"] = synthetic(head, 25, jumps=True, spm=True)
        by_series[f"{name}, jumps under a coil"] = synthetic(shaded, 25, jumps=True, spm=True)
        by_series[f"{name}, walk, ours alone"] = synthetic(head, 120, jumps=False, spm=False)
    for name, start in SERIES.items() if folder else ():
        by_series[name] = real(Path(str(folder)) / name, start)
    _show(by_series)
    write(_OUT, {"motion": by_series})


def _show(by_series: dict[str, Any]) -> None:
    table = Table(title="mean distance in the brain, mm; time per volume, ms", title_justify="left")
    columns = (
        "series",
        "n",
        "not aligned",
        "error",
        "SPM's",
        "apart",
        "p50",
        "p99",
        "cpu p99",
        "SPM p50",
        "faster",
    )
    for column in columns:
        table.add_column(column)
    for name, row in by_series.items():
        gaps = [row.get(f"{key}_mm", {}).get("mean") for key in ("error", "spm_error", "gap")]
        times = [row["ms"]["p50"], row["ms"]["p99"], row["cpu_ms"]["p99"], row.get("spm_ms", {}).get("p50")]
        cells = ["" if gap is None else f"{gap:.3f}" for gap in gaps]
        cells += ["" if ms is None else f"{ms:.1f}" for ms in times]
        cells.append(f"{row['times_faster']:.0f}x" if "times_faster" in row else "")
        table.add_row(name, str(row["volumes"]), str(row["unaligned"]), *cells)
    Console(width=140).print(table)


if __name__ == "__main__":
    root = os.environ.get("RTDECODE_DATA")
    main(sys.argv[1] if len(sys.argv) > 1 else str(Path(root) / "scanner") if root else None)
