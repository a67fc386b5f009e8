"""The export of a run by the clock: what lies in the folder afterwards, and what the log says of it."""

import io
import json
import threading
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest

from rtdecode.liblsl import pylsl
from rtdecode.phantom.body.delivery_faults import FaultLog
from rtdecode.phantom.files.vendors import VENDORS
from rtdecode.phantom.live import deliver, simulate
from rtdecode.phantom.live.deliver import Delivery
from rtdecode.phantom.live.names import ExportedRun, files, names
from rtdecode.phantom.session import START_AT, PhantomSession
from rtdecode.types import Volume

RUN = ExportedRun(4, "1.2.3.4", datetime(2026, 3, 1, 12))
SPEC = (
    "volume-drop@1.6,volume-dup@2.4,volume-reorder@3.2,file-truncate@4.8,file-slow@5.6:1,volume-late@6.4,"
    "slice-drop@7.2,folder-vanish@3:2"
)


def session_of(scanner: str, spec: str = "", seed: int = 64) -> PhantomSession:
    return PhantomSession("easy", seed=seed, seconds=2, vendor=scanner, spec=spec, first_delay=0)


def delivered(session: PhantomSession, folder: Path, *, stopped: bool = False) -> list[dict]:
    """Write a run whose time is over, so that every step is due; the log's lines."""
    (folder / "d").mkdir()
    log = FaultLog(folder / "faults.jsonl")
    stop = threading.Event()
    if stopped:
        stop.set()
    Delivery(session, folder / "d", RUN, pylsl.local_clock() - 1000, log, stop).write_all()
    if not (folder / "faults.jsonl").exists():
        return []
    return [json.loads(line) for line in (folder / "faults.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("scanner", VENDORS)
def test_without_faults_every_file_is_there_and_whole(tmp_path: Path, scanner: str) -> None:
    session = session_of(scanner)
    assert delivered(session, tmp_path) == []
    for index in range(session.volumes):
        for file in files(session, scanner, RUN, index):
            assert (tmp_path / "d" / file.name).read_bytes() == file.data
    count = sum(path.is_file() for path in (tmp_path / "d").rglob("*"))
    assert count == session.volumes * len(names(session, scanner, 4, 0))


@pytest.mark.parametrize("scanner", VENDORS)
def test_every_fault_happens_as_the_log_says(tmp_path: Path, scanner: str) -> None:
    session = session_of(scanner, SPEC)
    lines = {line["kind"]: line for line in delivered(session, tmp_path)}
    assert sorted(lines) == sorted(part.split("@")[0] for part in SPEC.split(","))
    detail = {kind: line["detail"] for kind, line in lines.items()}
    expected = {name for i in range(session.volumes) for name in names(session, scanner, 4, i)}
    expected -= set(names(session, scanner, 4, detail["volume-drop"]["index"]))
    if VENDORS[scanner].by_slice:
        expected -= {detail["slice-drop"]["file"]}
    delivered_files = {
        str(path.relative_to(tmp_path / "d")) for path in (tmp_path / "d").rglob("*") if path.is_file()
    }
    doubles = delivered_files - expected
    assert expected <= delivered_files
    assert len(doubles) == (0 if scanner == "nifti" else detail["volume-dup"]["files"])
    assert scanner == "nifti" or detail["volume-dup"]["again"] in doubles
    cut = detail["file-truncate"]
    assert cut["index"] == 6
    assert (tmp_path / "d" / cut["file"]).stat().st_size == cut["kept_bytes"] < cut["bytes"]
    assert (lines["volume-drop"]["t"], detail["volume-drop"]["index"]) == (1.6, 2)
    assert (lines["folder-vanish"]["t"], detail["folder-vanish"]["duration_s"]) == (3.0, 2.0)
    assert detail["folder-vanish"]["volumes"] == [2, 3, 4] if scanner == "siemens-mosaic" else True
    assert detail["volume-late"]["whole_s"] == pytest.approx(9 * 0.8 + session.volume_delay + 2)
    assert detail["file-slow"]["slow_s"] == 1


def test_a_run_that_is_stopped_before_it_begins_writes_nothing(tmp_path: Path) -> None:
    assert delivered(session_of("ge", SPEC), tmp_path, stopped=True) == []
    assert list((tmp_path / "d").iterdir()) == []


@pytest.mark.parametrize("kind", ["volume-drop", "file-truncate", "volume-dup"])
def test_rates_are_kept(kind: str) -> None:
    counts = [
        len(PhantomSession("easy", seed=seed, seconds=120, spec=f"{kind}=6").fates) for seed in range(8)
    ]
    assert 60 < sum(counts) < 130, "12 expected in each of 8 sessions, some twice on one volume"


def test_a_recording_has_the_same_faults() -> None:
    session = session_of("philips", SPEC)
    volumes = [item for item in session.events(1.0) if isinstance(item, Volume)]
    ready = {(v.index, v.name.endswith("(1)")): v.readable_at - START_AT for v in volumes}
    assert sorted({v.index for v in volumes}) == [0, 1, 3, 4, 5, 7, 8, 10, 11]
    assert ready[3, True] == pytest.approx(5.0), "the folder is away until 5 s"
    assert ready[4, False] > ready[5, False]
    assert ready[7, False] == pytest.approx(8 * 0.8 + 1.0 + 1)
    assert all(
        v.readable_at - START_AT == pytest.approx(session.whole_s(v.index)) for v in volumes if v.index > 3
    )
    assert {v.recon_s for v in volumes} == {None}, "the header copies the acquisition time"


def test_a_late_first_volume_holds_up_those_behind_it() -> None:
    session = PhantomSession("easy", seed=64, seconds=8, vendor="ge")
    ready = [item.readable_at - START_AT for item in session.events(1.0) if isinstance(item, Volume)]
    assert ready[0] == pytest.approx(0.8 + 1.0 + 4.0)
    assert np.all(np.diff(ready) > 0.19)
    assert ready[-1] == pytest.approx(session.volumes * 0.8 + 1.0)
    enhanced = PhantomSession("easy", seed=64, seconds=2, vendor="siemens-enhanced", first_delay=5.0)
    assert enhanced.recon_of(0) - enhanced.recon_of(10) == pytest.approx(5.0)


@pytest.mark.full
@pytest.mark.timed
def test_every_scanner_by_the_clock(tmp_path: Path) -> None:
    """All at once, to save time: each file appears whole at its time, and the folder vanishes and returns."""
    began = time.monotonic()
    threads = [threading.Thread(target=_live, args=(tmp_path, scanner)) for scanner in VENDORS]
    for thread in threads:
        thread.start()
    gone: dict[str, list[float]] = {scanner: [] for scanner in VENDORS}
    while any(thread.is_alive() for thread in threads) and time.monotonic() - began < 90:
        for scanner, moments in gone.items():
            if (tmp_path / scanner / "truth").exists() and not (tmp_path / scanner / "dicom").exists():
                moments.append(time.monotonic())
        time.sleep(0.02)
    session = session_of("ge", seed=65)
    for scanner, vendor in VENDORS.items():
        per_volume = 36 if vendor.by_slice else 1
        delivered_files = [path for path in (tmp_path / scanner / "dicom").rglob("*") if path.is_file()]
        assert len(delivered_files) == (session.volumes - 1) * per_volume, scanner
        lines = (tmp_path / scanner / "truth" / "faults.jsonl").read_text().splitlines()
        kinds = sorted(json.loads(line)["kind"] for line in lines)
        assert kinds == ["folder-vanish", "volume-drop"], scanner
        away = [moment for moment in gone[scanner] if moment > gone[scanner][-1] - 2]
        assert 0.3 < away[-1] - away[0] < 1.2, scanner


def test_a_slow_file_can_be_seen_growing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_of("siemens-mosaic", "file-slow@0:1")
    path = tmp_path / "d" / names(session, "siemens-mosaic", 4, 0)[0]
    sizes: list[int] = []

    def look(_moment: float, _stop: threading.Event) -> None:
        sizes.append(path.stat().st_size if path.exists() else 0)

    monkeypatch.setattr(deliver, "sleep_until", look)
    delivered(session, tmp_path)
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 5, "nothing, then four pieces"
    data = path.read_bytes()
    assert pydicom.dcmread(io.BytesIO(data)).pixel_array.size
    assert sizes[-1] == len(data)


def _live(folder: Path, scanner: str) -> None:
    simulate.run(
        fmri_dir=folder / scanner / "dicom",
        truth=folder / scanner / "truth",
        scanner=scanner,
        preset="easy",
        seed=65,
        seconds=2,
        first_delay=0.5,
        faults="volume-drop@1.6,folder-vanish@4.1:0.7",
    )
