"""The emitter and its parts from plain values: no thread, no file, no bundle."""

import json
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from rtdecode.errors import OutputError
from rtdecode.types import Window
from streaming.decode.deadline import Cost, Job, StepChooser
from streaming.decode.decoder import Decoded, GivenUpError
from streaming.sinks.clip_emitter import ClipEmitter
from streaming.sinks.clip_record import ClipOrigin, clip_record, durations, eeg_source
from streaming.sinks.clip_tally import ClipTally
from streaming.sinks.clip_writer import ClipWriter
from streaming.sinks.final_archiver import FinalArchiver, FinalSinks
from streaming.sinks.pending_clips import PendingClips
from streaming.sinks.text import banner
from tests.refusals import refused
from tests.streaming.clips import FRAMES, Immediately, decoded, emitted, tally
from tests.streaming.windows import window

ORIGIN = ClipOrigin("s", "digest", False, "causal", 8.0, 4.0)


def done(clip: Decoded) -> Future[Decoded]:
    future: Future[Decoded] = Future()
    future.set_result(clip)
    return future


# Clips on their way.


def test_clips_are_taken_as_they_come_and_finals_in_order() -> None:
    pending = PendingClips()
    futures: list[Future[Decoded]] = [Future() for _ in range(4)]
    for index, revision in enumerate(("final", "preview", "final", "preview")):
        pending.add(Job(window(index, revision), index), futures[index])
    assert pending.take() is None
    for index in (2, 3):
        futures[index].set_result(decoded(window(index)))
    first_ready = pending.take()
    assert first_ready is not None
    assert first_ready.job.clip == 3, "the final of window 0 is missing, and that of window 2 waits for it"
    assert pending.take() is None
    futures[0].set_exception(GivenUpError("window-given-up", "nobody answers"))
    assert [ready.job.clip for ready in iter(pending.take, None)] == [0, 2]
    assert len(pending) == 1
    pending.clear()
    assert len(pending) == 0


# The record of a clip.


@pytest.mark.parametrize(
    ("live", "backlog", "after_s", "late_s"),
    [(True, False, 4.0, 0.0), (True, False, 4.5, 4.5), (False, False, 4.5, 0.0), (True, True, 4.5, 0.0)],
)
def test_a_clip_is_late_more_than_a_hop_after_its_floor(
    live: bool, backlog: bool, after_s: float, late_s: float
) -> None:
    cut = replace(window(0), floor_at=100.0)
    origin = replace(ORIGIN, live=live)
    assert origin.late_s(Job(cut, 0, backlog=backlog), 100.0 + after_s) == late_s


def test_a_record_has_what_the_clip_rests_on_and_what_it_cost() -> None:
    cut = replace(window(3, fmri=False), run=1, session_s=40.0)
    clip = decoded(cut, 2, confidence=0.123456789, scores={"face": 0.75, "house": 0.25})
    job = Job(cut, 7, {"eeg_push": 1.5})
    latency_ms = durations(job, clip, ORIGIN, 100.2)
    record = clip_record(job, clip, ORIGIN, 100.2, latency_ms, simulated=True, source="opened")
    expected = {
        "clip": 7,
        "run": 1,
        "window_s": [12.0, 16.0],
        "session_s": [40.0, 44.0],
        "modalities": ["eeg"],
        "confidence": 0.123457,
        "steps": 2,
        "scores": {"face": 0.75, "house": 0.25},
        "simulated": True,
        "bundle": "digest",
        "late": False,
    }
    assert {name: record[name] for name in expected} == expected
    assert (latency_ms["beyond_floor"], latency_ms["eeg_push"], latency_ms["denoise"]) == (210.0, 1.5, 25.0)
    assert record["t_ms"]["emitted"] == 210.0
    by_fallback = replace(clip, bundle="other")
    record = clip_record(job, by_fallback, ORIGIN, 105.0, latency_ms, simulated=True, source=None)
    assert (record["bundle"], record["late"]) == ("other", True)


def test_whose_eeg_it_is_depends_on_what_was_confirmed() -> None:
    third = replace(window(0), eeg_source=2)
    assert eeg_source(window(0), 0) == "opened"
    assert [eeg_source(third, confirmed) for confirmed in (1, 2)] == ["changed", "confirmed"]
    assert eeg_source(window(0, eeg=False), 0) is None


# The tally.


def test_what_is_counted_of_clips_and_skips() -> None:
    counted = tally()
    counted.add(emitted(window(0)))
    counted.add(emitted(window(1, fmri=False), 5.25, steps=1))
    counted.add(emitted(window(2, "preview"), bundle="fallback"))
    counted.add(emitted(window(0, "refined"), emitted_at=200.0))
    counted.skip(Job(window(3), 3), "nothing was received for it")
    counted.skip(Job(window(3, "preview"), 3), "a preview does not count")
    assert counted.counts == {
        "final": 2,
        "preview": 1,
        "refined": 1,
        "skipped": 1,
        "late": 1,
        "degraded": 1,
    }
    assert counted.steps == {4: 3, 1: 1}
    assert counted.words == {
        "late": "final of window 1 came 5.2 s after its last input could be read",
        "degraded": "window 1   4 - 8 s   EEG   missing fMRI 100 %",
        "skipped": "final of window 3: nothing was received for it",
    }
    assert counted.newest is not None
    assert counted.newest.name == "preview of window 2", "a refined clip is of a window long gone"


def test_a_final_of_the_fallback_is_counted_as_its_own() -> None:
    counted = tally()
    counted.add(emitted(window(0), bundle="fallback"))
    assert counted.counts["fallback"] == 1


def test_a_session_of_eeg_misses_no_volumes() -> None:
    counted = tally("eeg")
    counted.add(emitted(window(0, fmri=False)))
    assert counted.counts["degraded"] == 0


def test_categories_and_notes_are_told_once() -> None:
    counted = tally()
    counted.add(emitted(window(4), scores={"face": 0.2, "house": 0.8}))
    counted.note("a twin is missing")
    assert counted.categories() == ["final of window 4: house 0.80"]
    assert counted.notes() == ["a twin is missing"]
    assert (counted.categories(), counted.notes()) == ([], [])


# The archiver.


class Shelf:
    """Film, sheet and pairs as lists."""

    def __init__(self, truth: np.ndarray | None = None, twin: np.ndarray | None = None) -> None:
        self.film: list[tuple[str, int, bool, bool]] = []
        self.labels: list[str] = []
        self.compared: list[tuple[int, bool, bool]] = []
        self.twins: list[int] = []
        self.note = ""
        self.archiver = FinalArchiver(
            FinalSinks(cast("Any", self), cast("Any", self._sheet()), cast("Any", self._pairs())),
            cast("Any", SimpleNamespace(clip=lambda _: truth, category=lambda _: None)),
            32,
            lambda *_: twin,
            self._save_twin,
        )

    def write(self, cut: Window, _frames: Any, truth: Any, _word: Any, twin: Any, **words: str) -> None:
        self.film.append(("clip", cut.index, truth is not None, twin is not None))
        assert words["category"] == ""

    def skip(self, cut: Window) -> None:
        self.film.append(("skip", cut.index, False, False))

    def _sheet(self) -> SimpleNamespace:
        return SimpleNamespace(add=lambda label, *_: self.labels.append(label), note="")

    def _pairs(self) -> SimpleNamespace:
        def add(cut: Window, _clip: Any, truth: Any, twin: Any) -> None:
            self.compared.append((cut.index, truth is not None, twin is not None))

        return SimpleNamespace(add=add)

    def _save_twin(self, job: Job, _frames: Any) -> str:
        self.twins.append(job.clip)
        return f"{job.clip}.mp4"


def test_finals_and_skipped_windows_are_archived_in_order() -> None:
    shelf = Shelf()
    shelf.archiver.add(Job(window(0), 0), decoded(window(0)), 0.0)
    shelf.archiver.add_skipped(Job(window(1), 1))
    shelf.archiver.add(Job(window(2), 2), decoded(window(2), bundle="fallback"), 6.25)
    assert len(shelf.archiver) == 3
    assert shelf.film == []
    shelf.archiver.archive_down_to(1)
    assert [(kind, index) for kind, index, *_ in shelf.film] == [("clip", 0), ("skip", 1)]
    shelf.archiver.archive_next()
    assert shelf.labels == ["window 0", "window 2   FALLBACK   LATE 6.2 s"]


@pytest.mark.parametrize(
    ("bundle", "steps", "twin", "compared"),
    [
        # A bundle that denoises is compared with its twins: without one, a clip is not compared.
        (None, 4, FRAMES, (0, True, True)),
        (None, 4, None, (0, False, False)),
        (None, 0, FRAMES, (0, True, False)),
        ("fallback", 4, FRAMES, (0, False, False)),
    ],
)
def test_what_is_compared_with_the_truth(
    bundle: str | None, steps: int, twin: np.ndarray | None, compared: tuple[int, bool, bool]
) -> None:
    shelf = Shelf(truth=FRAMES, twin=twin)
    shelf.archiver.add(Job(window(0), 0), decoded(window(0), steps, bundle=bundle), 0.0)
    shelf.archiver.archive_next()
    assert shelf.compared == [compared]
    assert shelf.film == [("clip", 0, True, False)]


def test_twins_are_written_while_they_are_wanted() -> None:
    shelf = Shelf(twin=FRAMES)
    for index, is_wanted in enumerate((False, True, False)):
        shelf.archiver.twins_wanted = is_wanted
        shelf.archiver.add(Job(window(index), index), decoded(window(index)), 0.0)
        shelf.archiver.archive_next()
    assert shelf.twins == [1]
    assert shelf.archiver.newest_twin == (1, "1.mp4")


# The emitter.


class Written:
    """A sink of clips that keeps their records; its disk may be full."""

    def __init__(self) -> None:
        self.simulated = False
        self.records: list[dict[str, Any]] = []
        self.full = False
        self.closed = False

    def save(self, clip: int, revision: str, *_: Any) -> str:
        if self.full:
            raise OSError(28, "No space left on device")
        return f"{clip}_{revision}{'_simulated' if self.simulated else ''}"

    def save_latent(self, clip: int, revision: str, _latent: Any) -> str:
        return f"{clip}_{revision}.npy"

    def append(self, record: dict[str, Any]) -> None:
        self.records.append(json.loads(json.dumps(record)))

    def close(self) -> None:
        self.closed = True


class Bench:
    """An emitter whose decoder answers when the test says so, and whose clips go into lists."""

    def __init__(self, *, answer: Callable[[Window, int | None], Decoded] | None = None) -> None:
        self.asked: list[int | None] = []
        self.futures: list[Future[Decoded]] = []
        self.decided: list[tuple[int, bool, str]] = []
        self.emitted: list[int] = []
        self.clips = Written()
        self.shelf = Shelf()
        self.tally: ClipTally = tally()
        self._answer = answer
        self._now = 100.2
        writer = ClipWriter(
            cast("Any", self.clips),
            ORIGIN,
            lambda: self._now,
            Immediately(),
            lambda record, _: self.emitted.append(record["clip"]),
        )
        decoder = SimpleNamespace(ask=self._ask, news=list, away_since=None)
        self.emitter = ClipEmitter(
            cast("Any", decoder),
            StepChooser(Cost(0.1, 0.1, 0.1), 4),
            writer,
            self.tally,
            self.shelf.archiver,
            cast("Any", None),
            out=Path("nowhere"),
            caption=partial(banner, "a note", "causal", bundle_simulated=False),
            on_decided=lambda job, clip, why: self.decided.append((job.clip, clip is not None, why)),
        )

    def _ask(self, cut: Window, steps: int | None, **_: Any) -> Future[Decoded]:
        self.asked.append(steps)
        future = Future[Decoded]() if self._answer is None else done(self._answer(cut, steps))
        self.futures.append(future)
        return future


def answer(cut: Window, steps: int | None) -> Decoded:
    return decoded(cut, steps or 0)


def test_a_window_gets_the_steps_that_there_is_time_for_by_what_clips_cost() -> None:
    bench = Bench(answer=answer)
    for index, left_s in enumerate((1.0, 0.45, 0.0)):
        bench.emitter.emit(Job(window(index), index), left_s)
    assert bench.asked == [4, 2, 1]
    # Encoding and denoising took 25 ms each: four steps fit into less.
    for index in range(3, 12):
        bench.emitter.emit(Job(window(index), index), 1.0)
    bench.emitter.emit(Job(window(12), 12), 0.45)
    assert bench.asked[-1] == 4


def test_clips_elsewhere_come_when_they_come_and_what_follows_waits_for_them() -> None:
    bench = Bench()
    for index in range(3):
        bench.emitter.ask(Job(window(index), index))
    bench.emitter.skip(Job(window(3), 3))
    assert bench.emitter.pending == 4
    bench.futures[1].set_result(decoded(window(1)))
    bench.emitter.collect()
    assert bench.emitted == []
    bench.futures[0].set_result(decoded(window(0)))
    bench.futures[2].set_exception(GivenUpError("window-given-up", "{why}", why="it had no time"))
    bench.emitter.collect()
    assert bench.emitted == [0, 1]
    assert bench.decided == [
        (0, True, ""),
        (1, True, ""),
        (2, False, "it had no time"),
        (3, False, "this machine cannot keep up"),
    ]
    assert bench.tally.counts == {"final": 2, "skipped": 2}
    assert bench.emitter.unarchived == 4


def test_a_window_of_which_nothing_came_is_not_decoded() -> None:
    bench = Bench(answer=answer)
    bench.emitter.emit(Job(window(0, eeg=False, fmri=False), 0))
    assert bench.asked == []
    assert bench.decided == [(0, False, "nothing was received for it")]


def test_a_clip_that_cannot_be_written_is_told_at_the_next_window() -> None:
    bench = Bench(answer=answer)
    bench.emitter.emit(Job(window(0), 0))
    bench.clips.full = True
    bench.emitter.emit(Job(window(1), 1))
    with refused(OutputError, "output-write-failed", error="No space left on device"):
        bench.emitter.emit(Job(window(2), 2))
    assert bench.tally.counts == {"final": 1}
    bench.emitter.leave_out()
    assert (bench.emitter.pending, bench.emitter.unarchived, bench.emitter.is_written) == (0, 0, True)


def test_what_a_source_says_on_the_way_is_on_everything_that_follows() -> None:
    bench = Bench(answer=answer)
    bench.emitter.emit(Job(window(0), 0))
    bench.emitter.mark_simulated()
    bench.emitter.emit(Job(replace(window(1), eeg_source=1), 1))
    bench.emitter.settle()
    bench.emitter.confirm_source(1)
    bench.emitter.emit(Job(replace(window(2), eeg_source=1), 2))
    bench.emitter.settle()
    records = bench.clips.records
    assert [record["simulated"] for record in records] == [False, True, True]
    assert [record["file"] for record in records] == ["0_final", "1_final_simulated", "2_final_simulated"]
    assert [record["eeg_source"] for record in records] == ["opened", "changed", "confirmed"]
    assert bench.shelf.note == "SIMULATED PARTICIPANT"


def test_at_most_four_finals_wait_for_their_film() -> None:
    bench = Bench(answer=answer)
    for index in range(7):
        bench.emitter.emit(Job(window(index), index))
    # The newest is being written.
    assert bench.emitter.unarchived == 4
    assert [index for _, index, *_ in bench.shelf.film] == [0, 1]
