"""What is decoded from EEG alone inside a running scanner, against the same session without one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rtdecode.phantom.body.in_scanner_eeg import SFREQ, Artifacts
from rtdecode.phantom.session import PhantomSession
from streaming.session import replay
from tests.recordings import record

SEED = 1003
SECONDS = 420.0
DRIFT_PPM = 20.0


def decoded(folder: Path, artifacts: Artifacts | None) -> dict[str, Any]:
    """Record the EEG of a session, decode it on the virtual clock; what the report says."""
    sfreq = 1000 if artifacts is None else SFREQ
    session = PhantomSession("easy", 1, SEED, SECONDS, sfreq=sfreq, artifacts=artifacts)
    report = folder / "report.json"
    recording = record(session, folder / "recording", volumes=False)
    replay.run(recording, "phantom", "max", out=folder / "out", report=report)
    shutil.rmtree(recording)
    return json.loads(report.read_text())


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_eeg_alone_tells_the_films_apart_inside_the_magnet_nearly_as_well_as_outside(tmp_path: Path) -> None:
    (tmp_path / "clean").mkdir()
    (tmp_path / "magnet").mkdir()
    clean = decoded(tmp_path / "clean", None)
    magnet = decoded(tmp_path / "magnet", Artifacts(drift_ppm=DRIFT_PPM))
    outside, in_scanner = (report["accuracy"]["identification_2way"] for report in (clean, magnet))
    message = f"inside {in_scanner}, outside {outside}"
    print(message)
    assert min(in_scanner["n"], outside["n"]) >= 100, message
    assert outside["ci95"][0] > outside["chance"], message
    assert in_scanner["value"] - in_scanner["chance"] >= 0.9 * (outside["value"] - outside["chance"]), message
