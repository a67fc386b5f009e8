"""Whole sessions on the scanner's side: every vendor, every fault, and whatever else lies in a folder."""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdecode.bundle import Bundle
from rtdecode.phantom.files.mosaic import mosaic_bytes
from rtdecode.types import Window
from rtdecode.windows.assembler import Assembler
from streaming.sources.folder.source import FolderSource
from tests.dicoms import changed
from tests.streaming.bundles import AFFINE, make_bundle, scan

TR = 0.5
START = datetime(2026, 3, 2, 12)
VENDORS = ("siemens-mosaic", "siemens-enhanced", "ge", "philips", "nifti")


def mosaic(index: int, uid: str = "1.2.3", began: datetime = START) -> bytes:
    volume = scan(np.random.default_rng(index)).astype(np.int16)
    return mosaic_bytes(volume, AFFINE, TR, index, 4, began + timedelta(seconds=TR * index), 0.6, uid)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle") / "b"
    return make_bundle(folder, eeg=False, tr=Fraction(1, 2), window=Fraction(1))


@contextlib.contextmanager
def program(*words: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "rtdecode.cli", *map(str, words)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(
    process: subprocess.Popen[str], out: Path, seconds: float = 100
) -> tuple[dict[str, Any], list[int]]:
    """Report, and the clips that became final, of a session that ended well."""
    output, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    lines = [json.loads(line) for line in (out / "clips.jsonl").read_text().splitlines()]
    finals = [line["clip"] for line in lines if line["revision"] == "final"]
    return json.loads((out / "report.json").read_text()), finals


# What is thrown into the folder: bytes, and whether it is, or calls itself, an image.
def zoo() -> list[tuple[str, bytes]]:
    intact = mosaic(3)
    noise = np.random.default_rng(0).bytes(40_000)
    return [
        ("notes.txt", b"patient is comfortable\n"),
        ("noise", noise),
        ("noise.dcm", noise),
        ("text.dcm", b"not an image at all"),
        ("empty.dcm", b""),
        ("half.dcm", intact[: len(intact) // 2]),
        ("head.dcm", intact[:900]),
        ("noisy_pixels.dcm", intact[:-2000] + noise[:500]),
        ("noisy_header.dcm", intact[:132] + noise[:5000] + intact[5132:]),
        ("rows.dcm", changed(intact, Rows=65535, Columns=65535)),
        ("frames.dcm", changed(intact, NumberOfFrames=10**9)),
        ("far.dcm", changed(intact, InstanceNumber=90_000, AcquisitionNumber=90_000)),
        ("before.dcm", changed(intact, InstanceNumber=-3, AcquisitionNumber=-3)),
        ("other.dcm", changed(intact, SeriesInstanceUID="1.9", RepetitionTime=2300)),
        ("vol.nii", intact[:352]),
        ("vol.nii.gz", b"\x1f\x8b" + noise[:600]),
        ("scan.par", b"# === DATA DESCRIPTION FILE ===\n" + noise[:900]),
    ]


def test_a_live_session_goes_on_among_files_of_no_use(tmp_path: Path, bundle: Bundle) -> None:
    folder = tmp_path / "scanner"
    out = tmp_path / "out"
    stop = threading.Event()
    folder.mkdir()
    words = ["stream", "--fmri-dir", folder, "--bundle", bundle.path, "--out", out, "--seconds", 2]
    writer = threading.Thread(target=_scan, args=(folder, zoo(), stop), daemon=True)
    with program(*words, "--existing", "read") as process:
        writer.start()
        report, finals = ended(process, out)
    stop.set()
    writer.join()
    windows = report["windows"]
    # A busy machine may skip one; every window is counted.
    assert finals == sorted(set(finals) & {0, 1})
    assert windows["final"] + windows["skipped"] == windows["expected"] == 2
    fmri = report["fmri"]
    assert (fmri["duplicate"], fmri["out_of_order"]) == (0, 0)
    assert fmri["volumes"] + fmri["missing"] >= 6
    assert fmri["rejected_files"] >= 1


def _scan(folder: Path, thrown: list[tuple[str, bytes]], stop: threading.Event) -> None:
    began = time.monotonic()
    remaining = list(thrown)
    for index in range(60):
        if stop.wait(max(0.0, began + (index + 1) * TR + 0.1 - time.monotonic())):
            return
        (folder / ".part").write_bytes(mosaic(index))
        (folder / ".part").rename(folder / f"{index:04d}.dcm")
        for name, data in [remaining.pop() for _ in range(min(3, len(remaining)))]:
            (folder / name).write_bytes(data)


bad_file = st.one_of(
    st.binary(max_size=400),
    st.binary(max_size=200).map(lambda tail: mosaic(2)[:132] + tail),
    st.tuples(st.integers(0, 3), st.floats(0, 0.999)).map(lambda cut: _cut(mosaic(cut[0]), cut[1])),
    st.tuples(st.integers(132, 3000), st.binary(min_size=1, max_size=40)).map(
        lambda hit: mosaic(1, "1.7")[: hit[0]] + hit[1] + mosaic(1, "1.7")[hit[0] + len(hit[1]) :]
    ),
)


def _cut(data: bytes, share: float) -> bytes:
    return data[: int(share * len(data))]


@settings(max_examples=6, deadline=None)
@given(thrown=st.lists(st.tuples(st.integers(0, 7), bad_file), max_size=6))
def test_no_file_stops_the_windows(
    tmp_path_factory: pytest.TempPathFactory, bundle: Bundle, thrown: list[tuple[int, bytes]]
) -> None:
    folder = tmp_path_factory.mktemp("scanner")
    windows = []
    assembler = Assembler(bundle, None, ["fmri"])
    source = FolderSource(folder, accept=lambda shape, affine, _: assembler.unread(shape, affine))
    for index in range(14):
        (folder / f"{index:04d}.dcm").write_bytes(mosaic(index))
        for k, data in [(k, data) for k, (volume_index, data) in enumerate(thrown) if volume_index == index]:
            (folder / f"bad_{k}.dcm").write_bytes(data)
        windows += _poll(source, assembler)
    windows += assembler.flush(time.monotonic())
    finals = [window for window in windows if window.revision == "final" and window.fmri is not None]
    assert [window.index for window in finals] == sorted({window.index for window in finals})
    assert len(finals) >= 2
    (first,) = {run.uid for run in source.runs if len(run.delivered) > 2}
    assert {run.uid for run in source.runs} <= {first, "1.7"}
    assert next(run for run in source.runs if run.uid == first).delivered >= set(range(14))


def _poll(source: FolderSource, assembler: Assembler) -> list[Window]:
    """Read what lies there, as the acquisition does."""
    windows: list[Window] = []
    quiet = 0
    while quiet < 2:
        volumes = source.poll(time.monotonic())
        quiet = 0 if volumes else quiet + 1
        for volume in volumes:
            windows += assembler.push(volume, volume.arrived_at)
    return windows


def simulated(tmp_path: Path, scanner: str, faults: str = "") -> tuple[dict[str, Any], list[int], list[dict]]:
    """Report, finals, and the faults that happened, of 20 s of the simulated participant."""
    (tmp_path / "scanner").mkdir()
    name = f"scanner-{scanner}-{abs(hash((faults, tmp_path)))}"
    both = ["--lsl", name, "--fmri-dir", tmp_path / "scanner", "--truth", tmp_path / "truth", "--seconds", 20]
    out = tmp_path / "out"
    with (
        program("stream", *both, "--out", out, "--wait", 100) as reader,
        program("simulate", *both, "--scanner", scanner, "--faults", faults, "--wait", 100),
    ):
        report, finals = ended(reader, out, 200)
    lines = (tmp_path / "truth" / "faults.jsonl").read_text().splitlines() if faults else []
    return report, finals, [json.loads(line) for line in lines]


@pytest.mark.full
@pytest.mark.parametrize("scanner", VENDORS)
def test_every_scanner_feeds_a_session(tmp_path: Path, scanner: str) -> None:
    report, finals, _ = simulated(tmp_path, scanner)
    assert finals == list(range(5))
    assert report["windows"]["degraded"] == report["windows"]["skipped"] == 0
    assert [report["fmri"][key] for key in ("missing", "late", "duplicate", "rejected_files")] == [0] * 4
    assert report["fmri"]["volumes"] >= 29
    assert report["clock"]["source"] == "trigger"
    assert report["clock"]["residual_ms"] < 1


@pytest.mark.full
@pytest.mark.parametrize(
    ("scanner", "faults", "counted"),
    [
        ("siemens-mosaic", "volume-dup@8:2.5", {"duplicate": 4, "missing": 0}),
        ("ge", "volume-dup@8:2.5", {"duplicate": 4, "missing": 0}),
        ("siemens-enhanced", "volume-late@8:2.4", {"late": 1, "missing": 0}),
        ("siemens-mosaic", "volume-reorder@6,volume-reorder@14", {"out_of_order": 2, "missing": 0}),
        ("ge", "slice-drop@9:1.2", {"missing": 2}),
        ("siemens-mosaic", "file-truncate@8:1.2", {"missing": 2, "rejected_files": 2}),
        ("siemens-enhanced", "file-slow@9:1", {"missing": 0}),
        ("siemens-mosaic", "folder-vanish@8:3", {"missing": 0, "duplicate": 0}),
        ("philips", "folder-vanish@8:3", {"missing": 0, "duplicate": 0}),
        ("nifti", "volume-drop@8:2.0", {"missing": 3}),
    ],
)
def test_every_fault_is_counted_and_nothing_stalls(
    tmp_path: Path, scanner: str, faults: str, counted: dict[str, int]
) -> None:
    report, finals, happened = simulated(tmp_path, scanner, faults)
    assert happened
    assert finals == list(range(5))
    assert report["windows"]["skipped"] == 0
    assert {key: report["fmri"][key] for key in counted} == counted
