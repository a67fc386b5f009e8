"""Shared fixtures; with RTDECODE_DATA set, a test that needs real data must not be skipped."""

import gc
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# These machines are shared: a slow example is no failure, pytest's own limit holds the rest.
settings.register_profile("rtdecode", deadline=None, max_examples=15, derandomize=True)
settings.load_profile("rtdecode")

_SKIPPED: list[str] = []
# Names the folder of what the processes of one test run share, see `tests/train/tiny.py`.
_SHARED = "RTDECODE_TEST_SHARED"


def pytest_configure(config: pytest.Config) -> None:
    """Make the shared folder, in the process that starts the others."""
    if not hasattr(config, "workerinput"):
        os.environ[_SHARED] = tempfile.mkdtemp(prefix="rtdecode-test-")


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ[_SHARED])


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of real data, from the environment variable RTDECODE_DATA."""
    root = os.environ.get("RTDECODE_DATA")
    if not root:
        pytest.skip("RTDECODE_DATA is not set: no real data")
    assert Path(root).is_dir(), f"RTDECODE_DATA={root} is no folder"
    return Path(root)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Close the files that a failed test left open: a later test is not to be blamed for them."""
    report = yield
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if report.failed and folder is not None:
        _close_below(folder)
    return report


def _close_below(folder: Path) -> None:
    # By their type: asking an object for its class runs code in some lazy modules.
    files = [kept for kept in gc.get_objects() if issubclass(type(kept), io.IOBase)]
    for file in files:
        if file.closed:
            continue
        name = getattr(file, "name", None)
        if isinstance(name, str) and Path(name).is_relative_to(folder):
            file.close()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _SKIPPED.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that had the real data and skipped a test all the same."""
    if os.environ.get("RTDECODE_DATA") and _SKIPPED and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print(f"\nRTDECODE_DATA is set, yet these were skipped: {', '.join(_SKIPPED)}")
