"""What an acquisition hands to the one after it, and what the session makes of it."""

import gc
import multiprocessing
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtdecode.bundle import Bundle
from rtdecode.disk.recording import Recording, RecordingWriter
from rtdecode.types import EegChunk, Montage, Trigger, Volume, Window
from rtdecode.windows.assembler import Assembler, Counters
from streaming.session.options import ResumeState
from streaming.session.restarts import Restarts, cause
from streaming.session.resume import Items, Resumption
from streaming.sources.folder.source import FolderSource
from streaming.status import Status
from tests.streaming.acquired import Acquired
from tests.streaming.bundles import AFFINE, CHANNELS, make_bundle, scan
from tests.streaming.windows import window

CONTEXT = multiprocessing.get_context("spawn")
SFREQ = 500.0
TR = 0.5
# Every volume of a head that rests without noise: what it holds is nobody's business here.
STILL = scan(np.random.default_rng(0))


class Recorded(Acquired):
    """An acquisition that is fed by hand; what it tells is kept."""

    def __init__(
        self,
        bundle: Bundle,
        folder: Path,
        past: ResumeState | None = None,
        *,
        fmri: bool = True,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.items: list[dict[str, Any]] = list(past.items) if past else []
        self.told = Status()
        self._folder = folder
        self._fmri = fmri
        names = ["eeg", "fmri"] if fmri else ["eeg"]
        super().__init__(bundle, folder / "record", names, past=past, now=now)
        self.take(Montage(CHANNELS, SFREQ))

    def receive(self, items: Sequence[EegChunk | Trigger | Volume]) -> None:
        """Take items, and tell of all of them."""
        for item in items:
            # Nothing waits here, however slowly the machine feeds the items.
            self.lag.idle(time.monotonic())
            self.take(item)
        self.tell(items[-1].arrived_at)
        # Each status tells of some of the items.
        while self.builder.has_untold:
            self.tell(items[-1].arrived_at)

    def tell(self, now_at: float) -> None:
        self.told = self.status(now_at)
        self.items += self.told.items

    def killed(self) -> "Recorded":
        """The acquisition that is started when this one dies: nothing is closed in order."""
        self.recorder.record(RecordingWriter.flush)
        past = ResumeState(self.items, self.told)
        return Recorded(self.bundle, self._folder, past, fmri=self._fmri, now=self.now)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("b") / "bundle"
    return make_bundle(folder, tr=Fraction(1, 2), window=Fraction(1))


def session(start_s: float, stop_s: float, *, fmri: bool = True, begins_at: float = 1000.0) -> list:
    """What arrives in a stretch of a run that begins at a local time."""
    rng = np.random.default_rng(0)
    items: list[EegChunk | Trigger | Volume] = []
    for n in range(round(start_s * 10), round(stop_s * 10)):
        stamps = begins_at + n / 10 + np.arange(50) / SFREQ
        data = rng.normal(0, 20, (len(CHANNELS), 50)).astype(np.float32)
        items.append(EegChunk(data, stamps, float(stamps[-1]) + 0.01))
    for index in range(round(start_s / TR), round(stop_s / TR)):
        triggered_at = begins_at + index * TR
        items.append(Trigger(triggered_at, "R128", triggered_at + 0.005))
        ready = triggered_at + TR + 0.1
        if fmri and ready < begins_at + stop_s:
            items.append(Volume(STILL, AFFINE, index, 4, TR, index * TR, 0.1, *[ready] * 3, f"v{index}", "1"))
    return sorted(items, key=lambda item: item.arrived_at)


def finals(windows: Sequence[Window]) -> dict[tuple[int, int], Window]:
    return {(window_.run, window_.index): window_ for window_ in windows if window_.revision == "final"}


@pytest.mark.parametrize("fmri", [True, False])
def test_runs_go_on_where_they_were(fmri: bool, bundle: Bundle, tmp_path: Path) -> None:
    before = Recorded(bundle, tmp_path, fmri=fmri)
    before.receive(session(0, 10, fmri=fmri))
    after = before.killed()
    after.receive(session(14, 26, fmri=fmri))
    ended = finals(before.windows)
    went_on = finals(after.windows)
    assert [key for key in went_on if key not in ended] == [(0, n) for n in range(len(ended), len(went_on))]
    modalities = ["eeg", "fmri"] if fmri else ["eeg"]
    hole = [
        n
        for (_, n), window_ in went_on.items()
        if n >= len(ended) and max(window_.missing[m] for m in modalities)
    ]
    assert set(hole) >= {10, 11, 12, 13}
    assert all(window_.missing[m] == 0 for (_, n), window_ in went_on.items() if n >= 20 for m in modalities)
    for window_ in went_on.values():
        assert window_.start_s == window_.index
        assert window_.session_s == pytest.approx(window_.index, abs=0.01)
    counted = after.told.counters
    assert counted["eeg"]["samples"] == 22 * SFREQ
    assert counted["eeg"]["lost_samples"] == 4 * SFREQ
    assert counted["eeg"]["gaps"] == 1
    assert counted["eeg"]["triggers"] == 44
    assert [run["run"] for run in counted["runs"]] == [0]
    before.close()
    after.close()


@pytest.mark.parametrize("fmri", [True, False])
def test_what_nobody_could_hear_is_no_pause_between_runs(fmri: bool, bundle: Bundle, tmp_path: Path) -> None:
    """Twice no process listens for longer than the pause that ends a run; a replay sees the same run."""
    now_at = 1000.0
    first = Recorded(bundle, tmp_path, fmri=fmri, now=lambda: now_at)
    first.receive(session(0, 8, fmri=fmri))
    now_at = 1020.0
    second = first.killed()
    second.receive(session(22, 30, fmri=fmri))
    now_at = 1042.0
    third = second.killed()
    third.receive(session(44, 52, fmri=fmri))
    assert [run["run"] for run in third.told.counters["runs"]] == [0]
    assert {window_.run for window_ in third.windows} == {0}
    assert third.windows[-1].index >= 48
    assert len(third.assembler.heard_since) == 2
    for acquisition in (first, second, third):
        acquisition.close()
    recording = Recording(tmp_path / "record")
    assert len(recording.restarted_at) == 2
    sources = ["eeg", "fmri"] if fmri else ["eeg"]
    again = Assembler(bundle, recording.montage, sources, restarted_at=recording.restarted_at)
    assert {window_.run for window_ in again.play(recording.events())} == {0}
    pauses = Assembler(bundle, recording.montage, ["eeg"])
    assert {window_.run for window_ in pauses.play(recording.events())} == {0, 1, 2}


def test_a_run_that_began_with_a_sample_goes_on(bundle: Bundle, tmp_path: Path) -> None:
    before = Recorded(bundle, tmp_path, fmri=False)
    before.assembler.triggers_expected = False
    samples = [item for item in session(0, 40) if isinstance(item, EegChunk)]
    before.receive(samples[:150])
    after = before.killed()
    after.receive(samples[200:])
    assert before.windows[-1].index >= 13
    assert all(window_.start_s == window_.index for window_ in after.windows)
    assert after.windows[-1].index >= 38
    assert after.windows[-1].missing["eeg"] == 0
    before.close()
    after.close()


def test_a_second_death_hands_on_what_the_first_did(bundle: Bundle, tmp_path: Path) -> None:
    first = Recorded(bundle, tmp_path)
    first.receive(session(0, 10))
    second = first.killed()
    second.receive(session(14, 24))
    third = second.killed()
    third.receive(session(30, 40))
    counted = third.told.counters
    assert counted["eeg"]["samples"] == 30 * SFREQ
    assert counted["eeg"]["lost_samples"] == 10 * SFREQ
    assert counted["eeg"]["gaps"] == 2
    assert list(finals(third.windows)) == [(0, n) for n in range(len(finals(third.windows)))]
    assert finals(third.windows)[0, 36].missing == {"eeg": 0, "fmri": 0}
    assert len(Recording(tmp_path / "record").meta["restarts"]) == 2
    for acquisition in (first, second, third):
        acquisition.close()


def test_a_run_that_began_with_a_sample_goes_on_after_a_second_death(bundle: Bundle, tmp_path: Path) -> None:
    samples = [item for item in session(0, 60) if isinstance(item, EegChunk)]
    first = Recorded(bundle, tmp_path, fmri=False)
    first.assembler.triggers_expected = False
    first.receive(samples[:150])
    second = first.killed()
    second.receive(samples[200:300])
    third = second.killed()
    third.receive(samples[350:])
    assert [acquisition.told.first_sample_at for acquisition in (first, second, third)] == [1000.0] * 3
    assert third.windows[-1].index >= 58
    for window_ in third.windows:
        assert window_.stamps["stop"] == pytest.approx(1000.0 + window_.stop_s)
    for acquisition in (first, second, third):
        acquisition.close()


def test_an_acquisition_that_hears_nothing_hides_no_hole(bundle: Bundle, tmp_path: Path) -> None:
    samples = [item for item in session(0, 60) if isinstance(item, EegChunk)]
    first = Recorded(bundle, tmp_path, fmri=False)
    first.assembler.triggers_expected = False
    first.receive(samples[:200])
    second = first.killed()
    second.tell(1025.0)
    third = second.killed()
    third.receive(samples[300:])
    assert third.told.first_sample_at == 1000.0
    counted = third.told.counters["eeg"]
    assert counted["lost_samples"] == 10 * SFREQ
    assert counted["gaps"] == 1
    for acquisition in (first, second, third):
        acquisition.close()


@pytest.mark.parametrize(
    ("before", "since", "together"), [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 1), (3, 0, 3), (3, 2, 4)]
)
def test_a_restart_is_no_jump_of_the_stamps(before: int, since: int, together: int) -> None:
    def counters(epochs: int) -> Counters:
        eeg = {"epochs": epochs} if epochs else {}
        fmri = dict.fromkeys(("duplicate", "rejected_files", "out_of_order", "late", "saturated"), 0)
        return {"eeg": eeg, "fmri": fmri, "clock": {}, "runs": []}

    last_status = Status(counters=counters(before))
    resumed = Resumption(ResumeState([], last_status))
    assert resumed.counted(counters(since))["eeg"]["epochs"] == together


def test_a_volume_that_was_told_is_not_taken_again(bundle: Bundle, tmp_path: Path) -> None:
    before = Recorded(bundle, tmp_path)
    items = session(0, 10)
    before.receive(items)
    after = before.killed()
    after.receive([item for item in items if isinstance(item, Volume)][-4:])
    counted = after.told.counters
    assert counted["fmri"]["duplicate"] == 0
    indices = [item.index for item in Recording(tmp_path / "record").events() if isinstance(item, Volume)]
    assert len(indices) == len(set(indices)) == counted["fmri"]["volumes"]
    before.close()
    after.close()


@pytest.mark.parametrize(("age_s", "expected"), [(60.0, ["0.nii", "1.nii"]), (-60.0, [])])
def test_files_that_changed_after_the_last_status_are_read(
    age_s: float, expected: list[str], tmp_path: Path
) -> None:
    for name in ("0.nii", "1.nii"):
        (tmp_path / name).write_bytes(b"no volume")
    source = FolderSource(tmp_path, since=time.time() - age_s)
    assert source.existing == 2 - len(expected)
    source.poll(time.monotonic())
    assert sorted(name for name, _ in source.waiting + source.ignored) == expected


def test_the_items_of_a_long_session_take_little_and_come_back_as_they_were() -> None:
    def volume_record(n: int) -> dict[str, Any]:
        return {
            "index": n,
            "uid": "1.2.826.0.1",
            "tr_s": 0.8,
            "readable_at": 1000.25 + 0.8 * n,
            "name": f"{n:06}.dcm",
        }

    items = Items()
    count = 10_000
    tracemalloc.start()
    for start in range(0, count, 7):
        items.add([volume_record(n) for n in range(start, min(start + 7, count))])
    gc.collect()
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert items.all() == [volume_record(n) for n in range(count)]
    # Of the newest, fewer than 300, some 200 bytes each: they are text that waits.
    assert held_bytes < 40 * count + 300 * 200


def test_three_deaths_within_a_minute_are_too_many() -> None:
    restarts = Restarts()
    assert [restarts.died(died_at, -9, None) for died_at in (0.0, 50.0, 61.0, 70.0)] == [
        True,
        True,
        True,
        False,
    ]
    assert len(restarts.report) == 4


def test_a_hole_is_measured_once() -> None:
    restarts = Restarts()
    assert restarts.back(1.0) is None
    restarts.died(10.0, 1, 4.2)
    assert restarts.back(12.5) == 2.5
    assert restarts.back(13.0) is None
    assert restarts.report == [{"exit_code": 1, "run_s": 4.2, "hole_s": 2.5}]


def test_windows_come_once_and_their_clips_keep_their_numbers() -> None:
    restarts = Restarts()
    cut = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    # The run's last preview, 2, has a clip number: run 1 began at 3. The next process knows of two windows.
    assert numbers(restarts, cut, [0, 3]) == [0, 1, 2, 3, 4]
    assert numbers(restarts, cut, [0, 2]) == []
    assert numbers(restarts, [(1, 2), (2, 0), (2, 1)], [0, 2, 5]) == [5, 6, 7]


def numbers(restarts: Restarts, cut: list[tuple[int, int]], firsts: list[int]) -> list[int]:
    """Clips of the windows that are new, where an acquisition numbers each run from its first."""
    windows = [replace(window(index), run=run, index=index) for run, index in cut]
    return [
        restarts.clip(window_, firsts[window_.run] + window_.index)
        for window_ in windows
        if restarts.is_new(window_)
    ]


def test_the_cause_of_a_death_is_named() -> None:
    assert cause(-9) == "killed by SIGKILL"
    assert cause(1) == "exit code 1"
