"""What the operator is told, and when."""

import io
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from rtdecode.windows.assembler import Counters
from streaming.decode.deadline import Job
from streaming.session.events import Event, EventNotifier, happened
from streaming.session.progress import Progress, standing
from streaming.status import Status
from tests.streaming.clips import emitted, tally
from tests.streaming.session.test_scanner import program
from tests.streaming.windows import window

HOP_S = 4.0
QUIET = Status(
    elapsed=1.0,
    back={"eeg": 0, "fmri": 0},
    folder={"gone": 0, "back": 0},
    counters={
        "eeg": {"gaps": 0, "lost_samples": 0, "epochs": 1, "bad_channels": []},
        "fmri": {"missing": 0, "late": 0},
        "clock": {},
        "runs": [{"run": 0}],
    },
)


def test_the_terminal_says_since_when_a_decoder_elsewhere_is_away() -> None:
    assert "DECODER" not in standing(QUIET, tally(), 0.0)[0]
    away_since = time.mktime((2026, 11, 28, 9, 5, 7, 0, 0, -1))
    assert standing(QUIET, tally(), 0.0, away_since)[0].endswith("   DECODER AWAY since 09:05:07")


def counted(count: int, stands_s: float = 0.0) -> list[Event]:
    return [Event("volume missing", count, "check the export", stands_s)]


def test_a_count_is_told_when_it_begins_and_summed_up_once_a_hop() -> None:
    news = EventNotifier(HOP_S)
    assert news.take(counted(0), 0.0) == []
    assert news.take(counted(1), 1.0) == ["volume missing: check the export"]
    assert news.take(counted(2), 2.0) == []
    assert news.take(counted(4), 4.9) == []
    assert news.take(counted(4), 5.0) == ["volume missing (3 more, 4 in all): check the export"]
    assert news.take(counted(4), 60.0) == []


def test_what_has_not_been_told_is_told_at_the_end() -> None:
    news = EventNotifier(HOP_S)
    news.take(counted(1), 0.0)
    assert news.take(counted(3), 1.0, ends=True) == ["volume missing (2 more, 3 in all): check the export"]


def test_a_count_that_falls_is_told_again_when_it_rises() -> None:
    news = EventNotifier(HOP_S)
    assert news.take(counted(2), 0.0) == ["volume missing (2 in all): check the export"]
    assert news.take(counted(1), 10.0) == []
    assert news.take(counted(2), 20.0) == ["volume missing (1 more, 2 in all): check the export"]


def test_what_has_to_stand_is_not_told_when_it_passes() -> None:
    news = EventNotifier(HOP_S)
    assert news.take(counted(1, 1.2), 0.0) == []
    assert news.take(counted(0, 1.2), 1.0) == []
    assert news.take(counted(1, 1.2), 2.0) == []
    assert news.take(counted(1, 1.2), 3.2) == ["volume missing: check the export"]


@pytest.mark.parametrize(
    ("section", "change", "begins", "advice"),
    [
        ("folder", {"gone": 1}, "fMRI folder gone: ", "check the scanner's export and the mount"),
        ("folder", {"back": 1}, "fMRI folder back: ", "read again"),
        ("back", {"fmri": 1}, "fMRI back: ", "volumes are arriving again"),
        ("back", {"eeg": 1}, "EEG back: ", "samples are arriving again"),
        ("eeg", {"gaps": 1, "lost_samples": 40}, "EEG gap: ", "40 samples lost so far. "),
        ("eeg", {"epochs": 2}, "EEG stamps jumped: ", "check the clock"),
        ("eeg", {"bad_channels": ["Oz"]}, "EEG channel bad: ", "Oz; check these electrodes"),
        ("fmri", {"missing": 1}, "fMRI volume missing: ", "check the scanner's export"),
        ("fmri", {"late": 1}, "fMRI volume late: ", "Check the load"),
        ("runs", [{"run": 0}, {"run": 1}], "new run: ", "run 1 began"),
    ],
)
def test_what_changes_in_a_status_is_told_with_what_to_do(
    section: str, change: Any, begins: str, advice: str
) -> None:
    counters = QUIET.counters
    if section in ("folder", "back"):
        status = replace(QUIET, **{section: getattr(QUIET, section) | change})
    else:
        changed = change if section == "runs" else counters[section] | change
        status = replace(QUIET, counters=cast("Counters", counters | {section: changed}))
    news = EventNotifier(HOP_S)
    assert news.take(happened(QUIET, tally(), 100.0), 100.0) == []
    (sentence,) = news.take(happened(status, tally(), 101.0), 101.0, ends=True)
    assert sentence.startswith(begins)
    assert advice in sentence
    assert news.take(happened(status, tally(), 200.0), 200.0) == []


def test_a_clip_is_told_as_late_degraded_or_stale_and_a_window_as_skipped() -> None:
    clips = tally()
    news = EventNotifier(HOP_S)

    def sentences(now_at: float) -> list[str]:
        return news.take(happened(QUIET, clips, now_at), now_at)

    clips.add(emitted(window(0, windowed_at=100.0)))
    assert sentences(100.5) == []
    clips.add(emitted(window(1), 10.0))
    (late,) = sentences(101.0)
    assert late.startswith("clip late: final of window 1 came 10.0 s after its last input could be read. ")
    assert "--steps" in late
    clips.add(emitted(window(2, fmri=False)))
    (degraded,) = sentences(102.0)
    assert degraded.startswith("clip degraded: window 2   8 - 12 s   EEG   missing fMRI 100 %. ")
    clips.skip(Job(window(3), 3), "this machine cannot keep up")
    (skipped,) = sentences(103.0)
    assert skipped.startswith("window skipped: final of window 3: this machine cannot keep up. ")
    clips.skip(Job(window(4, eeg=False, fmri=False), 4), "nothing was received for it")
    (skipped,) = sentences(107.5)
    assert skipped.startswith("window skipped (1 more, 2 in all): final of window 4: nothing was received")
    (stale,) = sentences(109.0)
    assert stale.startswith("no new clip: the last one is 9 s old; what is shown is not the present")
    clips.abandon(-1)
    clips.abandon(2)
    (skipped,) = sentences(111.6)
    assert skipped.startswith("window skipped (2 more, 4 in all): the session ended before it was decoded. ")


def test_the_standing_line_tells_a_clip_that_is_late_degraded_or_stale() -> None:
    clips = tally()
    assert "no clip yet" in standing(QUIET, clips, 100.0)[0]
    clips.add(emitted(window(0, windowed_at=100.0)))
    first, counts = standing(QUIET, clips, 102.1)
    assert first.startswith("run time 1 s   last clip 2.")
    assert first.endswith(" s ago: final of window 0")
    assert counts.startswith("final 1   preview 0   late 0   degraded 0   skipped 0   EEG gaps 0   ")
    assert standing(QUIET, clips, 109.0)[0].endswith("final of window 0, STALE")
    clips.add(emitted(window(1, fmri=False), 10.0))
    first, counts = standing(QUIET, clips, 101.0)
    assert first.endswith("final of window 1, LATE, DEGRADED")
    assert "late 1   degraded 1" in counts


def test_text_in_brackets_is_printed_as_it_is() -> None:
    printed = io.StringIO()
    progress = Progress(Console(file=printed), None, HOP_S)
    progress.say("not used: [red]run[0].dcm: no image")
    assert printed.getvalue() == "not used: [red]run[0].dcm: no image\n"


# What is told of each fault is tried above; that a session prints it, in `test_watched.py`.
@pytest.mark.full
@pytest.mark.timeout(200)
def test_each_fault_is_told_when_it_happens(tmp_path: Path) -> None:
    (tmp_path / "scanner").mkdir()
    faults = "volume-drop@2,eeg-drop@4:1,folder-vanish@6:3,eeg-restart@12"
    both = ["--lsl", f"news-{tmp_path.parent.name}-{id(tmp_path)}", "--fmri-dir", tmp_path / "scanner"]
    both += ["--seconds", 16, "--wait", 100]
    with (
        program("stream", *both, "--out", tmp_path / "out") as reader,
        program("simulate", *both, "--faults", faults),
    ):
        output, _ = reader.communicate(timeout=150)
    assert reader.returncode == 0, output
    lines = output.splitlines()
    expected = [
        *("fMRI volume missing", "clip degraded", "EEG gap", "fMRI folder gone", "fMRI folder back"),
        *("EEG: LSL stream", "run time"),
    ]
    for begins in expected:
        assert any(line.startswith(begins) for line in lines), (begins, output)
    positions = [next(n for n, line in enumerate(lines) if begins in line) for begins in expected[3:5]]
    assert positions == sorted(positions)
    assert any("was closed" in line and "Start it again" in line for line in lines), output
    assert any("is back" in line for line in lines), output
    assert any("last clip" in line and " s ago: " in line for line in lines), output
