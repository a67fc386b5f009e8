"""An evaluation says what it takes, refuses where there is no room, and shares its windows."""

import errno
import json
import shutil
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.evaluation.test_conditions import Decoder, Dimmed, evaluated
from tests.train.tiny import tiny
from train import evaluate
from train.evaluation.held_runs import sessions_of
from train.evaluation.helpers import helped
from train.evaluation.kept_decodes import KeptDecodes
from train.evaluation.result import Request

Disk = namedtuple("Disk", "free")
# Of two sessions of shapes, as the tiny ridge reads them.
FILM = ("film=shapes", "seeds=1000-1001", "seconds=32", "oracle=", "sections=identification,gains")


class Keeping(Decoder):
    """A decoder that says that it keeps clips."""

    folder = Path()

    @property
    def archive(self) -> KeptDecodes | None:
        return KeptDecodes(self.folder)


class OnFullDisk(Decoder):
    """A decoder whose clips can no longer be written."""

    calls = 0
    # They tell how long a clip takes.
    tried = 2

    def __call__(self, inputs: Any, where: Any, **how: Any) -> Any:
        self.calls += 1
        if self.calls > self.tried:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().__call__(inputs, where, **how)


def test_an_evaluation_says_before_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    evaluated(Decoder(Dimmed(0.9, bare=Dimmed(0.5))))
    message = capsys.readouterr().err
    # The system itself, the null brain, without adapters, and with exchanged signals.
    assert "one session: 30 held-out windows, each decoded in 4 ways: 120 clips" in message
    assert "a clip" in message
    assert "GB of disk" in message


@pytest.mark.parametrize(("call_s", "count"), [(0.1, 2), (60.0, 1)])
def test_windows_that_take_long_are_not_decoded_twice_to_tell_it(
    call_s: float, count: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Counted(OnFullDisk):
        def __call__(self, inputs: Any, where: Any, **how: Any) -> Any:
            now_s[0] += call_s
            return super().__call__(inputs, where, **how)

    now_s = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now_s[0])
    show = Counted(Dimmed(0.9))
    show.tried = count
    with refused(UsageError, "evaluation-disk-full", error="No space left on device"):
        evaluated(show)
    # Those that are tried, and the first that is not.
    assert show.calls == count + 1
    # Two windows took it.
    assert f"at {call_s / 2:.2g} s a clip" in capsys.readouterr().err


def test_no_room_on_disk_is_told_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    show = Keeping(Dimmed(0.9))
    show.folder = tmp_path / "not there yet"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(10_000))
    with refused(UsageError, "evaluation-no-room", free_gb=1e-5) as refusal:
        evaluated(show)
    assert "keep=none" in str(refusal.value)
    # What lies in memory alone needs no room.
    evaluated(Decoder(Dimmed(0.9)))


def test_a_disk_that_fills_up_meanwhile_is_told() -> None:
    with refused(UsageError, "evaluation-disk-full", error="No space left on device"):
        evaluated(OnFullDisk(Dimmed(0.9)))


def test_a_time_that_does_not_hold_is_corrected(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from train.evaluation.outlook import Outlook

    outlook = object.__new__(Outlook)
    vars(outlook).update(_begun=0.0, _sessions=4, _told_s=100.0)
    now = iter([30.0, 300.0, 450.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    for done in (1, 2, 3):
        outlook.after(done)
    # 120 s are near what was said, 600 s are not, and then it holds.
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith("2 of 4 sessions took 5 minutes")
    assert message.endswith("takes about 10 minutes, and not 100 s.")


def test_a_run_without_held_out_windows_is_refused() -> None:
    with refused(UsageError, "evaluation-without-windows"):
        sessions_of(None, [])  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [0, -1, 1.5, "two"])
def test_a_number_of_processes_that_cannot_be_is_refused(count: int) -> None:
    with refused(UsageError, "evaluate-processes-invalid"), helped(Path(), [], Request(processes=count)):
        pass


def test_processes_without_a_folder_to_share_are_refused() -> None:
    request = Request(processes=2, keep="none")
    with refused(UsageError, "evaluate-processes-keep-nothing"), helped(Path(), [], request):
        pass


def figures(capsys: pytest.CaptureFixture[str], *changes: str) -> dict[str, Any]:
    """Evaluate the tiny ridge by the command, and return what it printed."""
    assert evaluate.main([str(tiny("ridge")), *FILM, *changes, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.full
def test_figures_are_the_same_from_two_processes_and_with_nothing_kept(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    alone = figures(capsys)
    assert figures(capsys, "keep=none") == alone
    assert figures(capsys, "processes=2") == alone
    # One that decodes ahead leaves clips and no figures, and nothing is left to be decoded.
    archive = tmp_path / "kept"
    assert evaluate.main([str(tiny("ridge")), *FILM, f"keep={archive}", "ahead=true"]) == 0
    assert capsys.readouterr().out == ""
    ahead = {path: path.stat().st_mtime_ns for path in archive.rglob("*.sha256")}
    assert ahead
    assert figures(capsys, f"keep={archive}") == alone
    assert {path: path.stat().st_mtime_ns for path in archive.rglob("*.sha256")}.items() >= ahead.items()


@pytest.mark.full
def test_drawn_windows_are_told_in_every_figure(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    of_all_windows = figures(capsys)
    sampled = figures(capsys, "windows=10")
    assert not any("drawn_of" in figure for figure in of_all_windows.values())
    assert {figure["drawn_of"] for figure in sampled.values()} == {16}
    # One that is like no other is not scored.
    assert 8 <= max(figure["n"] for figure in sampled.values()) <= 10
    # All of them, drawn, are all of them.
    assert figures(capsys, "windows=16", f"out={tmp_path / 'out'}") == of_all_windows
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "figures.json",
        "index.html",
        "shapes.webp",
    }
