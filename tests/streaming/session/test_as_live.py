"""A session under pressure, on a clock of its own, and replays that repeat what it decided."""

import json
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from rtdecode.bundle import Bundle
from rtdecode.bundle import decisions as files
from rtdecode.bundle.decisions import Decision, DecisionWriter
from rtdecode.disk.recording import Recording, RecordingWriter
from rtdecode.errors import UsageError
from rtdecode.types import EegChunk, Montage, Trigger, Volume, Window
from streaming.decode.deadline import Job
from streaming.decode.decoder import Decoder
from streaming.session import replay
from streaming.session.as_live import AsLive, Windows, choose
from streaming.session.decided import DecisionLog, colours
from streaming.session.decode_loop import DecodeLoop
from streaming.session.restarts import Restarts
from streaming.sinks.clip_emitter import open_emitter
from streaming.sinks.session_folder import prepare
from streaming.sinks.truth import Truth
from tests.refusals import refused
from tests.streaming.bundles import CHANNELS, changed, make_bundle
from tests.streaming.session.test_acquisition import Session, full_disk
from tests.streaming.session.test_restarts import SFREQ, Recorded, session
from tests.streaming.windows import window as a_window

SECONDS = 14
# The machine is slow between these run times, s.
SLOW = (5.0, 10.0)
BEGAN_AT = 1000.0
# The share of detail that the session is asked for; the bundle's own is another.
DETAIL_SHARE = 0.25
# What a window holds of the signals.
SIGNALS = ("eeg", "eeg_mask", "fmri", "fmri_mask")


class Clock:
    """Time that passes when it is asked for: much of it while the machine is slow."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        slow = SLOW[0] < self.at - BEGAN_AT < SLOW[1]
        self.at += 0.25 if slow else 0.005
        return self.at


@dataclass
class Pressed:
    bundle: Bundle
    recording: Path
    out: Path
    counts: Counter[str]

    @property
    def windows(self) -> int:
        """Windows of which a preview or a final went out, or was left out."""
        decisions = files.read(self.recording)
        assert decisions is not None
        return len({(run, window) for run, window, _ in decisions.by_key})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("b") / "bundle"
    return make_bundle(folder, tr=Fraction(1, 2), window=Fraction(1), steps=4, detail=0.5)


@pytest.fixture(scope="module")
def pressed(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Pressed:
    """A session's own process, which is given the windows of a recording when they are due."""
    root = tmp_path_factory.mktemp("pressed")
    recording = recorded(root / "recording", bundle)
    clock = Clock()
    decisions = DecisionLog(DecisionWriter(recording, "s", bundle), print)
    prepare(root / "out", overwrite=False)
    clock.at = BEGAN_AT
    output = open_emitter(
        root / "out",
        "s",
        bundle,
        Decoder(bundle, clock),
        Truth(None, bundle),
        clock,
        simulated=False,
        detail=DETAIL_SHARE,
        on_decided=decisions.decided,
    )
    loop = DecodeLoop(output, decisions, float(bundle.manifest.grid.hop), 1, clock)
    due = deque(one_after_the_other(cut(Recording(recording), bundle)))
    while due or len(loop):
        while due and due[0].window.stamps["windowed"] <= clock.at:
            loop.put(due.popleft())
        if len(loop) or output.unarchived:
            loop.step()
            # One clock of its own for both threads would make what is decided depend on their order.
            output.settle()
        else:
            clock.at = due[0].window.stamps["windowed"]
    output.close()
    decisions.end()
    return Pressed(bundle, recording, root / "out", output.tally.counts)


def recorded(folder: Path, bundle: Bundle) -> Path:
    with RecordingWriter(folder, Montage(CHANNELS, SFREQ), {"bundle": bundle.digest}) as writer:
        for item in sorted(map(late, session(0, SECONDS)), key=lambda item: item.arrived_at):
            writer.write(item)
    return folder


def late(item: EegChunk | Trigger | Volume) -> EegChunk | Trigger | Volume:
    """Four volumes come after the finals of their windows have gone out."""
    if not isinstance(item, Volume) or not 4 <= item.index < 8:
        return item
    ready = item.readable_at + 3
    return replace(item, readable_at=ready, arrived_at=ready, parsed_at=ready)


def cut(recording: Recording, bundle: Bundle, decisions: files.Decisions | None = None) -> list[Job]:
    windows = Windows(
        partial(replay.assembler, recording, bundle, recording.calibration()),
        recording.montage,
        decisions,
    )
    return list(windows.jobs(recording.events(), recording.meta.get("ended_at", -np.inf), None))


def one_after_the_other(jobs: Sequence[Job]) -> list[Job]:
    """No two windows are cut at the same instant, as on a clock that runs."""
    again = []
    for n, job in enumerate(jobs):
        stamps = job.window.stamps | {"windowed": job.window.stamps["windowed"] + 1e-6 * n}
        again.append(replace(job, window=replace(job.window, stamps=stamps)))
    return again


def lines_of(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "clips.jsonl").read_text().splitlines()]
    return sorted(lines, key=lambda line: (line["clip"], line["revision"]))


def replayed(recording: Path, bundle: Bundle, out: Path, **how: Any) -> dict[str, Any]:
    assert replay.run(recording, str(bundle.path), "max", out, **how) == 0
    return json.loads((out / "report.json").read_text())


def copied(pressed: Pressed, folder: Path, keep: int | None = None) -> Path:
    """The recording with the first decisions alone."""
    folder.mkdir()
    for file in pressed.recording.iterdir():
        (folder / file.name).symlink_to(file)
    lines = (folder / files.NAME).read_text().splitlines(keepends=True)
    (folder / files.NAME).unlink()
    (folder / files.NAME).write_text("".join(lines[:keep]))
    return folder


def test_a_session_under_pressure_is_repeated_bit_for_bit(
    pressed: Pressed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = replayed(pressed.recording, pressed.bundle, tmp_path / "out")
    printed = capsys.readouterr().err.splitlines()
    assert printed[0].startswith("As live: each window is decoded as session s decided")
    count = pressed.windows
    assert printed[-1] == f"{count} of {count} windows as live, bit for bit."
    before, after = lines_of(pressed.out), lines_of(tmp_path / "out")
    steps = {line["steps"] for line in before}
    assert pressed.counts["skipped"] > 0
    assert pressed.counts["refined"] > 0
    assert len(steps) > 1, "some clips got fewer steps"
    for line, again in zip(before, after, strict=True):
        for name in ("clip", "revision", "steps", "detail", "missing"):
            assert line[name] == again[name]
        for name in ("latent", "file"):
            assert (pressed.out / line[name]).read_bytes() == (tmp_path / "out" / again[name]).read_bytes()
    assert {line["detail"] for line in after} == {DETAIL_SHARE}
    assert report["replayed"] == "as-live"
    assert report["as_live"] == {"windows": count, "repeated": count, "bit_for_bit": count}
    assert report["windows"]["skipped"] == pressed.counts["skipped"]
    decisions = files.read(pressed.recording)
    assert decisions is not None
    dropped = [key for key, decision in decisions.by_key.items() if decision.outcome == "dropped"]
    assert report["windows"]["dropped_previews"] == len(dropped) > 0


def test_best_decodes_every_window_at_full_steps(
    pressed: Pressed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The decisions are not read: damage in them does not matter.
    recording = copied(pressed, tmp_path / "recording")
    (recording / files.NAME).write_text("damaged\n")
    report = replayed(recording, pressed.bundle, tmp_path / "out", as_live=False)
    printed = capsys.readouterr().err
    assert printed.startswith("Not as live: every window is decoded at full steps, as --best asks for it.\n")
    assert "windows as live" not in printed
    assert (report["replayed"], report["as_live"], report["detail"]) == ("best", None, 0.5)
    windows = report["windows"]
    assert windows["final"] == pressed.counts["final"] + pressed.counts["skipped"]
    assert windows["preview"] > pressed.counts["preview"]
    assert report["steps"] == {"4": windows["final"] + windows["preview"] + windows["refined"]}
    with refused(UsageError, "decisions-line-invalid", line=1):
        replay.run(recording, str(pressed.bundle.path), "max", tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ({"keep": 0}, "the recording holds no decisions"),
        ({"named": "other"}, "the session decoded with the bundle"),
        ({"subject": "two"}, "the session decoded as another --subject"),
        ({"steps": 2}, "--steps 2 asks for other clips"),
        ({"detail": 0.75}, "--detail 0.75 asks for other clips"),
        ({"carry": False}, "--no-carry asks for other clips"),
    ],
)
def test_what_cannot_be_repeated_says_why_and_is_refused_where_asked_for(
    how: dict[str, Any], cause: str, pressed: Pressed, tmp_path: Path
) -> None:
    recording = copied(pressed, tmp_path / "recording", how.get("keep"))
    bundle = replace(pressed.bundle, subject=how.get("subject"))
    if "named" in how:
        bundle = changed(pressed.bundle, tmp_path / "other", name=how["named"])
    flags = {"steps": how.get("steps"), "detail": how.get("detail"), "carry": how.get("carry", True)}
    choice = choose(recording, bundle, None, **flags)
    assert choice.decisions is None
    assert choice.sentence.startswith("Not as live: every window is decoded at ")
    assert cause in choice.sentence
    with refused(UsageError, "replay-as-live-impossible", recording=recording) as caught:
        choose(recording, bundle, True, **flags)
    assert caught.value.exit_code == 2
    assert cause in str(caught.value)


def test_a_session_that_was_killed_is_repeated_as_far_as_it_came(
    pressed: Pressed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = copied(pressed, tmp_path / "recording", keep=8)
    decisions = files.read(recording)
    assert decisions is not None
    decided = {(run, window) for run, window, _ in decisions.by_key}
    report = replayed(recording, pressed.bundle, tmp_path / "out")
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"{len(decided)} of {len(decided)} windows as live, bit for bit. ")
    assert "which the session had not decided on when it ended, were decoded at full steps." in last
    decoded = report["windows"]["final"] + report["windows"]["skipped"]
    assert decoded == pressed.counts["final"] + pressed.counts["skipped"]


OTHER = (
    "0 of 1 windows as live. Of the other 1, {} hold other data than live, and {} did not come out of the "
    "recording."
)
ALIKE = (
    "1 of 1 windows as live: 0 bit for bit, and 1 with the same colours but other last digits, as by another "
    "processor."
)


@pytest.fixture
def one_clip() -> Decision:
    return Decision(0, 0, "final", "emitted", 0, "in", 4, None, "bits", "10" * 54)


@pytest.mark.parametrize(
    ("changes", "ending"),
    [
        ({}, "1 of 1 windows as live, bit for bit."),
        (
            {"latent": "other", "colours": "11" * 54, "inputs": "other"},
            ALIKE,
        ),
        (
            {"latent": "other", "colours": "12" * 54},
            OTHER.format(0, 0),
        ),
        (
            {"latent": "other", "colours": "12" * 54, "inputs": "other"},
            OTHER.format(1, 0),
        ),
        (
            {"steps": 2},
            OTHER.format(0, 0),
        ),
        (
            {"detail": 0.5},
            OTHER.format(0, 0),
        ),
        (
            None,
            OTHER.format(0, 1),
        ),
    ],
)
def test_clips_are_compared_by_their_bits_and_else_by_their_colours(
    changes: dict[str, Any] | None, ending: str, one_clip: Decision, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = AsLive(files.Decisions("b", None, "s", {one_clip.key: one_clip}))
    if changes is not None:
        came = replace(one_clip, **changes)
        monkeypatch.setattr("streaming.session.as_live.decision", lambda *_: came)
        job = Job(cast("Window", SimpleNamespace(run=0, index=0, revision="final")), 0)
        again.compare(job, None, "")
    assert again.sentence(to_end=True) == ending


def test_a_full_disk_ends_the_decisions_and_is_said_once(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "recording.json").write_text("{}")
    sentences: list[str] = []
    log = DecisionLog(DecisionWriter(tmp_path, "s", bundle), sentences.append)
    with full_disk():
        log.dropped([Job(a_window(0, "preview"), 0), Job(a_window(1, "preview"), 1)])
    log.dropped([Job(a_window(2, "preview"), 2)])
    assert len(sentences) == 1
    assert "A replay repeats the session up to here" in sentences[0]
    assert files.read(tmp_path) is None


def test_colours_hardly_tell_one_processors_clip_from_anothers_and_well_a_clip_from_another() -> None:
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 255, (33, 65, 97, 3)).astype(np.uint8)
    flipped = clip + (rng.random(clip.shape) < 1e-3).astype(np.uint8)
    other = np.roll(clip, 30, axis=2)
    other[:, :20] = 0
    distances = [np.abs(colours(clip).astype(int) - colours(again)).max() for again in (flipped, other)]
    assert distances[0] <= 1 < 10 < distances[1]
    assert colours(clip).shape == (3, 2, 3, 3)


def test_windows_of_an_acquisition_that_was_killed_hold_what_they_held_live(
    bundle: Bundle, tmp_path: Path
) -> None:
    """The next process learned anew, and had no pixels of volumes that the one before it had told of."""
    first = Recorded(bundle, tmp_path)
    first.receive(session(0, 6))
    second = first.killed()
    second.receive(session(8, 12))
    third = second.killed()
    third.receive(session(13, 18))
    recording = tmp_path / "record"
    log = DecisionLog(DecisionWriter(recording, "s", bundle), print)
    numbers = Restarts()
    live_windows: dict[tuple[int, int, str], Window] = {}
    processes = (first, second, third)
    for number, process in enumerate(processes):
        if number:
            before = processes[number - 1]
            log.restarted(1000.0 + (0, 7, 12.5)[number], number, len(before.items), before.told)
        # The session never had the window that this process had cut last when it was killed.
        for window in process.windows if number == 2 else process.windows[:-1]:
            if numbers.is_new(window):
                live_windows[key_of(window)] = window
                log.decided(Job(window, window.index, acquisition=number), None, "")
    log.end()
    for process in processes:
        process.close()
    decisions = files.read(recording)
    assert decisions is not None
    came = {key_of(window): window for window in _windows(cut(Recording(recording), bundle, decisions))}
    through = {key_of(window): window for window in _windows(cut(Recording(recording), bundle))}
    learned_anew = False
    for key, window in live_windows.items():
        for name in SIGNALS:
            values = getattr(window, name)
            assert np.array_equal(values, getattr(came[key], name)), (key, name)
            # One assembler that reads through the restarts, as for `--best`, cuts other windows.
            learned_anew |= key in through and not np.array_equal(values, getattr(through[key], name))
    assert learned_anew


def test_eeg_that_came_after_the_first_volumes_is_repeated(tmp_path: Path) -> None:
    """Until the stream is found, windows go out with their volumes alone, and do not wait for EEG."""
    acquired = Session(tmp_path, eeg=True, lsl="an amplifier")
    for item in session(0, 12):
        if isinstance(item, EegChunk | Trigger):
            if item.arrived_at < BEGAN_AT + 5:
                continue
            if acquired.assembler.montage is None:
                acquired.take(Montage(CHANNELS, SFREQ))
        # Nothing waits here.
        acquired.lag.idle(time.monotonic())
        acquired.take(item)
    acquired.close()
    decisions = files.Decisions(acquired.bundle.digest, None, "s")
    jobs = cut(Recording(acquired.record), acquired.bundle, decisions)
    assert acquired.windows[0].eeg is None
    assert acquired.windows[-1].eeg is not None
    order = [
        [(window.index, window.revision) for window in windows]
        for windows in (acquired.windows, _windows(jobs))
    ]
    assert order[1][: len(order[0])] == order[0]
    for before, after in zip(acquired.windows, _windows(jobs), strict=False):
        for name in SIGNALS:
            assert np.array_equal(getattr(before, name), getattr(after, name)), name


def key_of(window: Window) -> tuple[int, int, str]:
    return window.run, window.index, window.revision


def _windows(jobs: Sequence[Job]) -> list[Window]:
    return [job.window for job in jobs]
