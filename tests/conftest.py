"""Shared fixtures; with RTDECODE_DATA set, a test that needs real data must not be skipped."""

import gc
import importlib.util
import io
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

# These machines are shared: a slow example is no failure, pytest's own limit holds the rest.
settings.register_profile("rtdecode", deadline=None, max_examples=15, derandomize=True)
settings.load_profile("rtdecode")

# More threads than cores make each test several times as long; set before anything imports numpy or torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Files whose tests take minutes, the longest first. They begin first, so that none of them runs alone at the
# end while other processes have nothing left to do.
_LONG = (
    "tests/export/test_fit.py",
    "tests/train/models/cinesync/test_published.py",
    "tests/train/fitting/test_tokenizers.py",
    "tests/test_distill_benchmark.py",
    "tests/test_wheel.py",
    "tests/train/models/cinesync/test_shipped.py",
    "tests/train/models/compact/test_several.py",
    "tests/train/test_bars.py",
    "tests/test_magnet_identification.py",
    "tests/train/models/haxby/test_haxby.py",
    "tests/streaming/session/test_faults.py",
    "tests/streaming/session/test_scanner.py",
    "tests/streaming/session/test_live.py",
    "tests/streaming/test_mutated_inputs.py",
    "tests/test_same_clips.py",
    "tests/test_seam.py",
    "tests/train/models/cinesync/test_cinesync.py",
    "tests/streaming/session/test_watched.py",
    "tests/streaming/tools/test_preflight.py",
    "tests/train/models/cinesync/test_data_set.py",
    "tests/train/test_data_set.py",
    "tests/export/test_export.py",
    "tests/test_hostile.py",
    "tests/train/test_run.py",
    "tests/train/test_simulated_participants.py",
)

_SKIPPED: list[str] = []
# Names the folder of what the processes of one test run share, see `tests/train/tiny.py`.
_SHARED = "RTDECODE_TEST_SHARED"


def pytest_configure(config: pytest.Config) -> None:
    """Make the shared folder, in the process that starts the others."""
    if not hasattr(config, "workerinput"):
        os.environ[_SHARED] = tempfile.mkdtemp(prefix="rtdecode-test-")
        # Nothing of a test is kept for the runs of the one who tests.
        os.environ["RTDECODE_CACHE"] = f"{os.environ[_SHARED]}/cache"
        if not (_is_compiled("torch") or sys.dont_write_bytecode):
            _to_compile().touch()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ[_SHARED])


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[object]:
    """Collect without the garbage collector, which would walk all that was imported again and again.

    In a new environment one process collects before the others: each would compile all that they import.
    """
    gc.disable()
    with ExitStack() as alone:
        if _to_compile().exists():
            alone.enter_context(FileLock(_to_compile().with_suffix(".lock")))
            if not _to_compile().exists():
                alone.close()
        collected = yield
        _to_compile().unlink(missing_ok=True)
    gc.enable()
    # What is there by now stays: collections of the tests need not walk it either.
    gc.freeze()
    return collected


def _to_compile() -> Path:
    """Return the file that is there until what tests import is compiled."""
    return Path(os.environ[_SHARED]) / "to-compile"


def _is_compiled(package: str) -> bool:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(importlib.util.cache_from_source(spec.origin)).is_file()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        name = item.path.relative_to(config.rootpath).as_posix()
        return _LONG.index(name) if name in _LONG else len(_LONG)

    items.sort(key=place)


@pytest.fixture(autouse=True)
def lsl_session(request: pytest.FixtureRequest) -> None:
    """Let the programs of a live session that runs beside another one see no streams but each other's."""
    if request.node.get_closest_marker("paced") is None:
        return
    settings_of_lsl = request.getfixturevalue("tmp_path") / "lsl_api.cfg"
    session = f"test-{os.getpid()}-{time.monotonic_ns()}"
    settings_of_lsl.write_text(f"[lab]\nSessionID = {session}\n[log]\nlevel = -3\n")
    request.getfixturevalue("monkeypatch").setenv("LSLAPICFG", str(settings_of_lsl))


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
    files = [instance for instance in gc.get_objects() if issubclass(type(instance), io.IOBase)]
    for file in files:
        if file.closed:
            continue
        name = getattr(file, "name", None)
        if isinstance(name, str) and Path(name).is_relative_to(folder):
            file.close()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # A machine without a browser skips those tests, and says so in its summary.
    if report.skipped and not hasattr(report, "wasxfail") and "browser" not in report.keywords:
        _SKIPPED.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that had the real data and skipped a test all the same."""
    if os.environ.get("RTDECODE_DATA") and _SKIPPED and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print(f"\nRTDECODE_DATA is set, yet these were skipped: {', '.join(_SKIPPED)}")
