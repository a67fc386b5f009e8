import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from rtdecode.phantom.mosaic import mosaic_bytes
from streaming import doctor


def findings(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, dict[str, dict]]:
    code = doctor.run(*args, as_json=True)  # type: ignore[arg-type]
    return code, {f["subject"]: f for f in json.loads(capsys.readouterr().out)}


def test_a_machine_that_can_run_a_session(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, found = findings(capsys, None, tmp_path, "haxby")
    assert code == 0
    assert found["bundle"]["state"] == "ok"
    assert "ONNX Runtime" in found["graphs"]["found"]
    assert "liblsl" in found["LSL"]["found"]
    assert found["folder"]["state"] == "note"
    assert "no volume yet" in found["folder"]["found"]


def test_all_volumes_of_a_folder_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(150):
        volume, acquired = np.full((6, 6, 4), n + 1, np.int16), datetime(2026, 3, 1, 12, n // 60, n % 60)
        data = mosaic_bytes(volume, np.diag([3.0, 3.0, 3.0, 1.0]), 1.0, n, 7, acquired, 1.65, "1.2.3")
        (tmp_path / f"{n}.dcm").write_bytes(data)
    assert doctor._folder(tmp_path).found == f"{tmp_path}: 150 volumes of 6 x 6 x 4 at TR 1.0 s so far"
    monkeypatch.setattr(doctor, "_READ_S", 0.0)
    assert f"{tmp_path}: at least " in doctor._folder(tmp_path).found


def test_each_thing_that_is_missing_is_named_with_what_to_do(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, found = findings(capsys, "no-such-amplifier", tmp_path / "unmounted", "no-such-bundle")
    assert code == 1
    for subject in ("LSL", "folder", "bundle"):
        assert found[subject]["state"] == "bad"
    assert "no stream 'no-such-amplifier'" in found["LSL"]["found"]
    assert "start the amplifier" in found["LSL"]["advice"]
    assert "unmounted is not there" in found["folder"]["found"]
    assert "haxby" in found["bundle"]["found"]
