"""What a run's graphs take and lose in each precision, on a tiny run in closed form."""

import json
from pathlib import Path

import pytest

from benchmarks.experiments.precisions import main
from rtdecode.bundle.manifest import PRECISIONS
from tests.train.tiny import tiny


@pytest.mark.full
def test_every_precision_is_measured_or_says_why_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found.json"
    words = [str(tiny("ridge")), "--film", "shapes", "--seeds", "1000", "--seconds", "16", "--out", str(out)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    report = json.loads(out.read_text())
    rows = report["precisions"]
    assert list(rows) == list(PRECISIONS)
    assert all(precision in printed for precision in PRECISIONS)
    assert report["n"] == 4
    assert rows["fp32"]["times"] == {"encode": 1.0, "step": 1.0, "clip": 1.0}
    assert rows["fp32"]["identification"]["lost"] == 0
    assert rows["int8"]["parity"]["status"] == "passed"
    assert rows["int8"]["parity"]["clip_psnr_db"] < rows["fp32"]["parity"]["clip_psnr_db"]
    assert rows["int8"]["mb"] < rows["fp32"]["mb"]
    # What does not compute on a CPU has a PSNR of graphs that round in its place, and no times.
    for precision in ("bf16", "fp16"):
        assert rows[precision]["parity"]["status"] == "structural"
        assert rows[precision]["parity"]["clip_psnr_db"] is rows[precision]["ms"] is None
        assert rows[precision]["parity"]["emulated_clip_psnr_db"] >= 40
    assert "nvidia-modelopt" in rows["fp8"]["refused"]
