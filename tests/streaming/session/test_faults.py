"""Live sessions whose processes die and whose disks fill up."""

import json
import resource
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from rtdecode.disk.recording import Recording
from rtdecode.disk.video import read_mp4
from rtdecode.types import Volume
from streaming.session import replay
from tests.streaming.bundles import make_bundle
from tests.streaming.sessions import (
    LIMIT,
    TR,
    WINDOW,
    Ended,
    play,
    printed,
    text,
    until,
)

# How long the amplifier is on before the scanner begins, s.
LEAD = 0.5


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("b") / "bundle", tr=TR, window=WINDOW).path


def in_time(ended: Ended) -> bool:
    """Whether the player wrote every volume that it did not drop before its window was due."""
    fmri = ended.report["fmri"]
    return (fmri["missing"], fmri["late"]) == (0, 0)


# One source alone is `full`: what its time line rests on is tested in `test_restarts.py`.
@pytest.mark.parametrize(
    "sources",
    [
        ("eeg", "fmri"),
        pytest.param(("eeg",), marks=pytest.mark.full),
        pytest.param(("fmri",), marks=pytest.mark.full),
    ],
)
def test_an_acquisition_that_is_killed_is_started_again_on_the_same_time_line(
    sources: tuple[str, ...], bundle: Path, tmp_path: Path
) -> None:
    messages: list[str] = []

    def kill(process: subprocess.Popen[str], out: Path) -> None:
        until(lambda: '"final"' in text(out / "clips.jsonl"))
        acquisition(process).kill()
        # Windows that were cut before may still become clips, on a busy machine some seconds later.
        messages.append(printed(process, "is receiving again, after"))
        reached = max(clip["clip"] for clip in finals(out))
        until(lambda: any(clip["clip"] > reached + 3 for clip in complete_clips(out, sources)))
        process.send_signal(signal.SIGINT)

    def complete_clips(out: Path, modalities: tuple[str, ...]) -> list[dict[str, Any]]:
        return [clip for clip in finals(out) if all(clip["missing"][name] == 0 for name in modalities)]

    record = tmp_path / "record"
    how = {"eeg": "eeg" in sources, "fmri": "fmri" in sources, "seconds": 150, "lead": LEAD}
    ended = play(tmp_path / "s", bundle, "--record", str(record), **how, during=kill)
    assert ended.code == 0, ended.output
    assert "ended unexpectedly (killed by SIGKILL) and is started again" in messages[0]
    (restart,) = ended.report["restarts"]
    assert restart["exit_code"] == -signal.SIGKILL
    assert restart["hole_s"] > 0
    windows = ended.report["windows"]
    # Without a limit, a session that is stopped had expected what it reached.
    assert windows["final"] + windows["skipped"] == windows["expected"]
    assert {clip["run"] for clip in ended.clips} == {0}
    emitted = [(clip["clip"], clip["revision"]) for clip in ended.clips]
    assert len(set(emitted)) == len(emitted)
    assert all(clip["window_s"][0] == clip["clip"] for clip in ended.clips)
    # A replay of what was recorded has one time line too, and holds the same volumes in each window.
    assert len(Recording(record).meta["restarts"]) == 1
    assert replay.run(record, str(bundle), "max", tmp_path / "again") == 0
    again = {clip["clip"]: clip for clip in finals(tmp_path / "again")}
    last = complete_clips(ended.out, sources)[-1]
    assert again[last["clip"]]["window_s"] == last["window_s"]
    assert all(again[last["clip"]]["missing"][name] == 0 for name in sources)
    # The process that took over learned anew, and so does the replay.
    as_live = json.loads(text(tmp_path / "again" / "report.json"))["as_live"]
    assert as_live["repeated"] == as_live["windows"] > 3
    if "eeg" in sources:
        assert ended.report["eeg"]["lost_samples"] > 0
        assert ended.report["eeg"]["gaps"] >= 1


def finals(out: Path) -> list[dict[str, Any]]:
    lines = text(out / "clips.jsonl").splitlines(keepends=True)
    clips = [json.loads(line) for line in lines if line.endswith("\n")]
    return [clip for clip in clips if clip["revision"] == "final"]


def test_an_acquisition_that_dies_again_and_again_ends_with_1(bundle: Path, tmp_path: Path) -> None:
    def kill(process: subprocess.Popen[str], out: Path) -> None:
        until(lambda: '"final"' in text(out / "clips.jsonl"))
        for _ in range(3):
            victim = acquisition(process)
            victim.kill()
            until(lambda gone=victim: process.poll() is not None or not gone.is_running())
            until(lambda: process.poll() is not None or bool(acquisitions(process)))

    ended = play(tmp_path / "s", bundle, "--existing", "read", eeg=False, seconds=120, lead=0, during=kill)
    assert ended.code == 1, ended.output
    assert "ended unexpectedly 3 times" in ended.output
    assert len(ended.report["restarts"]) == 3
    assert ended.report["windows"]["final"] == len(ended.finals()) >= 1
    assert len(read_mp4(ended.out / "film.mp4")) >= 8


def acquisition(process: subprocess.Popen[str]) -> psutil.Process:
    """The process of a session that reads its sources."""
    (reader,) = acquisitions(process)
    return reader


def acquisitions(process: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children()
    return [child for child in children if "spawn_main" in commanded(child)]


def commanded(process: psutil.Process) -> str:
    """The command line of a process; empty where it has ended."""
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return " ".join(process.cmdline())
    return ""


def test_a_full_out_does_not_end_the_recording(bundle: Path, tmp_path: Path) -> None:
    """That a session without a recording ends then is tested in `test_loop.py`."""
    record = tmp_path / "record"
    recorded: list[int] = []
    messages: list[str] = []

    def fill(process: subprocess.Popen[str], out: Path) -> None:
        """Let no file of the program grow longer than its film, as a full disk would."""
        until(lambda: '"final"' in text(out / "clips.jsonl"))
        size_limit = (out / "film.mp4").stat().st_size
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size_limit, size_limit))
        messages.append(printed(process, f"The recording in {record} goes on"))
        recorded.append(text(record / "events.jsonl").count("\n"))
        until(lambda: text(record / "events.jsonl").count("\n") > recorded[0] + 2)
        process.send_signal(signal.SIGINT)

    flags = ("--record", str(record), "--existing", "read")
    ended = play(tmp_path / "s", bundle, *flags, eeg=False, seconds=60, lead=0, during=fill)
    assert ended.code == 1, ended.output
    assert "cannot be written any more" in messages[0]
    assert len(ended.clips) >= 1
    for clip in ended.clips:
        assert len(read_mp4(ended.out / clip["file"])) == 33
        assert clip["modalities"] == ["fmri"]
    assert not list(ended.out.glob("**/*.part"))
    indices = [item.index for item in Recording(record).events() if isinstance(item, Volume)]
    assert indices == list(range(len(indices)))
    assert len(indices) > recorded[0] + 2
    assert "ended_at" in Recording(record).meta


# What came after the disk was full is decoded in `test_acquisition.py` as well.
@pytest.mark.full
def test_a_full_recording_does_not_end_decoding(bundle: Path, tmp_path: Path) -> None:
    record = tmp_path / "record"
    seen_before: list[int] = []

    def fill(process: subprocess.Popen[str], out: Path) -> None:
        until(lambda: '"final"' in text(out / "clips.jsonl"))
        size_limit = (record / "volumes.bin").stat().st_size
        resource.prlimit(acquisition(process).pid, resource.RLIMIT_FSIZE, (size_limit, size_limit))
        seen_before.append(text(out / "clips.jsonl").count("\n"))

    flags = ("--record", str(record), "--existing", "read", "--seconds", "6")
    ended = play(tmp_path / "s", bundle, *flags, eeg=False, seconds=60, during=fill)
    assert ended.code == 1, ended.output
    assert f"the recording in {record} could not be written any more: File too large" in ended.output
    windows = ended.report["windows"]
    # On a busy machine a window gives way to the next one; the last never does.
    assert windows["final"] + windows["skipped"] == windows["expected"] == 6
    assert ended.finals()[-1]["clip"] == 5
    if in_time(ended):
        assert all(clip["missing"]["fmri"] == 0 for clip in ended.finals())
    assert ended.report["recording"] == {"fault": "File too large"}
    indices = [item.index for item in Recording(record).events() if isinstance(item, Volume)]
    assert indices == list(range(len(indices)))
    assert replay.run(record, str(bundle), "max", tmp_path / "again") == 0
    lines = (tmp_path / "again" / "clips.jsonl").read_text().splitlines()
    played = {clip["clip"]: clip for clip in map(json.loads, lines)}
    assert len(ended.finals()) > seen_before[0]
    for before in ended.finals()[: seen_before[0]]:
        again = tmp_path / "again" / played[before["clip"]]["file"]
        assert (ended.out / before["file"]).read_bytes() == again.read_bytes()


def test_no_process_outlives_a_session_that_is_killed(bundle: Path, tmp_path: Path) -> None:
    processes: list[psutil.Process] = []

    def kill(process: subprocess.Popen[str], out: Path) -> None:
        until(lambda: (out / "film.mp4").is_file() and (out / "film.mp4").stat().st_size > 2_000)
        processes.extend(psutil.Process(process.pid).children(recursive=True))
        process.kill()

    record = tmp_path / "record"
    flags = ("--existing", "read", "--record", str(record))
    ended = play(tmp_path / "s", bundle, *flags, eeg=False, seconds=120, lead=0, during=kill)
    assert ended.code == -signal.SIGKILL
    assert processes
    _, alive = psutil.wait_procs(processes, timeout=LIMIT)
    assert not alive
    assert len(read_mp4(ended.out / "film.mp4")) >= 1
    assert ended.finals()
    # What it had decided is repeated. It may have been killed between the last clip and its decision.
    assert replay.run(record, str(bundle), "max", tmp_path / "again") == 0
    as_live = json.loads(text(tmp_path / "again" / "report.json"))["as_live"]
    assert as_live["repeated"] == as_live["windows"] >= max(1, len(ended.finals()) - 1)
