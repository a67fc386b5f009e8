import json
from pathlib import Path

import pytest

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
