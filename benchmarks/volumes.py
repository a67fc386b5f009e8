"""From a file in the folder to a normalised vector, beside what others use, and over a long run.

    python -m benchmarks.volumes [--samples 1000] [--volumes 3000] [--others 10000] [--oracle 20]

Prints a table and writes results/volumes.json. The oracles see the same volumes, on one thread:
python-rtspm (realign and reslice; GPL, used here and in tests only), and dcm2niix with a nibabel load, as
pipelines of that kind call them for every volume. Times by the clock hold only on a quiet machine, so
those of the processor stand beside them.
"""

import argparse
import gc
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import folder
from benchmarks.result_files import RESULTS, write
from benchmarks.spm import Spm
from rtdecode import bundle as bundles
from streaming.tools import bench, bench_volumes
from streaming.tools.bench_pace import Pace
from streaming.tools.bench_volumes import Case

# At p99, ms; of the oracles' sum, how many times faster at the median.
BARS = {
    "volume_to_vector": 50.0,
    "volume_to_vector_enhanced": 80.0,
    "volume_to_vector_nifti": 50.0,
    "volume_to_vector_slices": 80.0,
    "parse_mosaic": 10.0,
}
FASTER = 10.0
# What counts as flat: the last tenth of a run over the first, beside other files over alone, and MB.
FLAT = 1.5
GROWN_MB = 20.0
_OUT = RESULTS / "volumes.json"


def points(values: Iterable[float]) -> dict[str, float]:
    """Percentiles of times in ms."""
    times_ms = np.array(list(values))
    return {f"p{q}": round(float(np.percentile(times_ms, q)), 3) for q in (50, 95, 99)} | {"n": len(times_ms)}


def stages(case: Case, samples: int) -> dict[str, Any]:
    """Every form of file: by the clock, of the processor, and parsing alone."""
    forms = bench_volumes.timed(case, Pace(samples).repeat, samples)
    rows = {
        name: {"wall_ms": points(timing.wall), "cpu_ms": points(timing.cpu), "parse_ms": points(timing.parse)}
        for name, timing in forms.items()
    }
    return rows | {"parse_mosaic": {"wall_ms": rows["volume_to_vector"]["parse_ms"]}}


def oracles(case: Case, count: int) -> dict[str, Any]:
    """What python-rtspm, and dcm2niix with nibabel, take for a volume."""
    spm = Spm(case.calibration.reference, case.affine)
    realign = [_timed(lambda n=n: spm.push(case.volumes[n % len(case.volumes)])) for n in range(count)]
    with tempfile.TemporaryDirectory() as name:
        convert = [_timed(lambda n=n: _converted(case, n, Path(name))) for n in range(count)]
    rows = {"rtspm": realign, "dcm2niix_nibabel": convert}
    return {
        name: {"wall_ms": points(row[0] for row in timings), "cpu_ms": points(row[1] for row in timings)}
        for name, timings in rows.items()
    }


def _converted(case: Case, n: int, work: Path) -> None:
    into = work / f"{n}"
    out = work / f"{n}-out"
    into.mkdir()
    out.mkdir()
    (into / "volume.dcm").write_bytes(case.files("mosaic")(n)[0])
    program = Path(sys.executable).parent / "dcm2niix"
    words = [str(program), "-z", "n", "-b", "n", "-f", "v", "-o", str(out), str(into)]
    subprocess.run(words, check=True, capture_output=True)
    (image_path,) = out.glob("*.nii")
    assert (
        np.asanyarray(nib.Nifti1Image.from_filename(image_path).dataobj).shape[:3] == case.volumes.shape[1:]
    )


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds by the clock, and of the processor with that of programs which were called."""
    began = time.perf_counter()
    work = _work()
    call()
    return 1e3 * (time.perf_counter() - began), 1e3 * (_work() - work)


def _work() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def long_run(case: Case, volumes: int, other_files: int) -> dict[str, Any]:
    """Early and late cost of a run of whole volumes (mosaics), and the memory that it grows by."""
    rows = []
    memory = 0
    process = psutil.Process()
    for n, row in enumerate(bench_volumes.measure(case, "mosaic", range(volumes), other_files)):
        rows.append(row)
        if n == volumes // 10:
            gc.collect()
            memory = process.memory_info().rss
    gc.collect()
    grown = (process.memory_info().rss - memory) / 1e6
    tenth = max(1, volumes // 10)
    parts = {"early": rows[1:tenth], "late": rows[-tenth:]}
    figures: dict[str, Any] = {"volumes": volumes, "others": other_files, "memory_mb": round(grown, 2)}
    for name, part in parts.items():
        figures[f"{name}_wall_ms"] = points(row[0] for row in part)
        figures[f"{name}_cpu_ms"] = points(row[1] for row in part)
    return figures


def measure(
    samples: int = 1000, volumes: int = 3000, others: int = 10_000, oracle: int = 20
) -> dict[str, Any]:
    """Run everything in one process, one part after another."""
    case = bench_volumes.case(bundles.load("phantom"))
    figures: dict[str, Any] = {"machine": bench._machine(), "probe_ms": points(bench._probe(Pace(samples)))}
    figures["stages"] = stages(case, samples)
    figures["oracles"] = oracles(case, oracle)
    figures["times_faster"] = {
        kind: round(
            sum(timings[kind]["p50"] for timings in figures["oracles"].values())
            / figures["stages"]["volume_to_vector"][kind]["p50"],
            1,
        )
        for kind in ("wall_ms", "cpu_ms")
    }
    figures["long_runs"] = [long_run(case, volumes, n) for n in (0, others)]
    figures["folder"] = [folder.long_run(volumes, n) for n in (0, others)]
    return figures


def rows(figures: dict[str, Any]) -> list[tuple[str, float, float, str]]:
    """What was found beside its bar, for the table of ``make bench``: of the processor's time, at p50."""
    alone, crowded = figures["long_runs"]
    late = alone["late_cpu_ms"]["p50"]
    early = alone["early_cpu_ms"]["p50"]
    return [
        (
            "volume to vector beside the oracles",
            1 / figures["times_faster"]["cpu_ms"],
            1 / FASTER,
            "of their time",
        ),
        ("last tenth of 3,000 volumes", late / early, FLAT, "times the first"),
        ("beside 10,000 files", crowded["late_cpu_ms"]["p50"] / late, FLAT, "times alone"),
        ("memory of a long run", max(alone["memory_mb"], crowded["memory_mb"]), GROWN_MB, "MB grown"),
    ]


def show(figures: dict[str, Any]) -> None:
    """Print what `measure` gave."""
    table = Table(title="file complete -> vector, ms", title_justify="left")
    for column in ("what", "p50", "p95", "p99", "cpu p50", "cpu p99", "bar", "n"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name, row in {**figures["stages"], **figures["oracles"]}.items():
        wall = row["wall_ms"]
        cpu = row.get("cpu_ms", {})
        cells = [wall["p50"], wall["p95"], wall["p99"], cpu.get("p50", ""), cpu.get("p99", "")]
        table.add_row(name, *map(str, cells), str(BARS.get(name, "")), str(wall["n"]))
    console = Console(width=120)
    console.print(table)
    console.print(f"times faster than the oracles' sum: {figures['times_faster']} (bar {FASTER:g})")
    for run in (*figures["long_runs"], *figures["folder"]):
        console.print(json.dumps(run))


def main() -> None:
    """Measure, print, and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, usual in {"samples": 1000, "volumes": 3000, "others": 10_000, "oracle": 20}.items():
        parser.add_argument(f"--{name}", type=int, default=usual)
    figures = measure(**vars(parser.parse_args()))
    show(figures)
    write(_OUT, figures)


if __name__ == "__main__":
    main()
