"""A test that fails leaves nothing to the next one."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
_TWO_TESTS = """
import gc
from rtdecode.disk.recording import RecordingWriter

def test_that_fails_before_it_closes_what_it_opened(tmp_path):
    writer = RecordingWriter(tmp_path / "r", None, {})
    assert writer is None

def test_that_runs_when_the_others_leftovers_are_collected():
    # As the next test that fails does.
    import sys
    sys.last_exc = sys.last_value = sys.last_traceback = None
    gc.collect()
"""


def test_an_open_file_of_a_failed_test_is_no_fault_of_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "test_two.py").write_text(_TWO_TESTS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-c",
        str(ROOT / "pyproject.toml"),
        "-p",
        "tests.conftest",
    ]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), "-p", "no:cacheprovider", str(tmp_path / "test_two.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "ResourceWarning" not in done.stdout
