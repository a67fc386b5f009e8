"""The doctor says whether a bundle would have read a recording, and if not, why."""

import json
from pathlib import Path

import pytest

from rtdecode import bundle as bundles
from rtdecode.disk.recording import Recording
from rtdecode.phantom.session import PhantomSession
from streaming.tools import doctor_recording
from tests.recordings import record


@pytest.mark.full
def test_the_doctor_says_whether_a_bundle_reads_a_recording(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = record(PhantomSession("easy", seconds=8.0), tmp_path / "rec")
    findings = doctor_recording.judge(Recording(recorded), bundles.load("phantom"))
    states = {finding.subject: finding.state for finding in findings}
    assert states == dict.fromkeys(("recording", "EEG", "volumes", "triggers", "windows"), "ok")
    assert doctor_recording.run(recorded, "haxby", as_json=True) == 1
    printed = json.loads(capsys.readouterr().out)
    assert [finding["subject"] for finding in printed if finding["state"] == "bad"]
