"""In which order the acquisition takes what its sources have brought; on a virtual clock, or without one."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.session.work_queue import FairQueue

# What a chunk of EEG and a volume cost the main thread, s, and how often a chunk comes.
CHUNK_S = 0.002
VOLUME_S = 0.03
EVERY_S = 0.01


@dataclass
class Taker:
    """A main thread on a virtual clock, for which EEG arrives all the time and some volumes at once."""

    volumes: list[float]
    chunk_s: float = CHUNK_S
    now: float = 100.0
    took: list[tuple[str, float]] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)

    def run(self, seconds: float) -> "Taker":
        turns = FairQueue()
        stop = self.now + seconds
        chunks = [self.now + n * EVERY_S for n in range(round(seconds / EVERY_S))]
        brought = sorted(
            [(arrived_at, "eeg") for arrived_at in chunks]
            + [(arrived_at, "volume") for arrived_at in self.volumes]
        )
        while brought or len(turns):
            while brought and brought[0][0] <= self.now:
                arrived_at, kind = brought.pop(0)
                action = self._action(kind, arrived_at)
                assert turns.leave(action, arrived_at, volume=kind == "volume", timeout=0)
            action = turns.take(timeout=0)
            if action is None:
                self.now = brought[0][0]
            else:
                action()
            assert self.now < stop + 100
        return self

    def _action(self, kind: str, arrived_at: float) -> Callable[[], None]:
        def act() -> None:
            self.took.append((kind, arrived_at))
            if kind == "eeg":
                self.waited.append(self.now - arrived_at)
            self.now += self.chunk_s if kind == "eeg" else VOLUME_S

        return act

    def places(self, kind: str) -> list[int]:
        return [place for place, (source, _) in enumerate(self.took) if source == kind]


def test_a_burst_takes_turns_with_eeg_and_nothing_is_lost() -> None:
    taker = Taker([100.5] * 35).run(4.0)
    assert len(taker.places("eeg")) == 400
    assert len(taker.places("volume")) == 35
    # EEG waits for one volume, and for the chunks that waited with it.
    assert max(taker.waited) <= VOLUME_S + 5 * CHUNK_S
    # Between two volumes lies the EEG that came during the first: a chunk every 10 ms.
    gaps = [later - sooner - 1 for sooner, later in pairwise(taker.places("volume"))]
    assert min(gaps) >= 2
    assert max(gaps) <= 4


def test_in_order_of_arrival_eeg_would_wait_for_the_whole_burst() -> None:
    """What the order is for: with one line for both, the last of the EEG waits for all 35 volumes."""
    waited = 35 * VOLUME_S
    assert waited > 10 * max(Taker([100.5] * 35).run(4.0).waited)


def test_volumes_get_on_however_much_eeg_comes() -> None:
    """A machine that does not even keep up with EEG alone still takes every volume."""
    taker = Taker([100.1] * 35, chunk_s=1.2 * EVERY_S).run(2.0)
    last = taker.took.index(("eeg", max(arrived_at for kind, arrived_at in taker.took if kind == "eeg")))
    assert taker.places("volume")[3] < last
    assert len(taker.places("volume")) == 35


def test_each_line_keeps_its_order() -> None:
    taker = Taker([100.5 + n / 1000 for n in range(35)]).run(2.0)
    for kind in ("eeg", "volume"):
        came = [arrived_at for source, arrived_at in taker.took if source == kind]
        assert came == sorted(came)


def test_the_oldest_of_all_that_waits_is_known() -> None:
    turns = FairQueue()
    assert turns.oldest == math.inf
    for arrived_at, volume in ((9.0, False), (10.0, False), (8.5, True), (8.0, True), (math.inf, False)):
        turns.leave(list, arrived_at, volume=volume, timeout=0)
    oldest = []
    while turns.take(timeout=0) is not None:
        oldest.append(turns.oldest)
    # A volume, the rest, and the other volume.
    assert oldest == [8.0, 8.0, 8.0, 8.0, math.inf]


def test_without_anything_waiting_there_is_no_next_action() -> None:
    assert FairQueue().take(timeout=0) is None


@pytest.mark.parametrize(("volume", "capacity"), [(True, 64), (False, 256)])
def test_a_full_line_takes_no_more_and_the_other_does(volume: bool, capacity: int) -> None:
    turns = FairQueue()
    for _ in range(capacity):
        assert turns.leave(list, 0.0, volume=volume, timeout=0)
    assert not turns.leave(list, 0.0, volume=volume, timeout=0)
    assert turns.leave(list, 0.0, volume=not volume, timeout=0)
    assert len(turns) == capacity + 1


@given(st.lists(st.booleans(), max_size=40))
def test_whatever_is_left_is_taken_once_and_in_order(brought: list[bool]) -> None:
    turns = FairQueue()
    took: list[int] = []
    for number, volume in enumerate(brought):
        assert turns.leave(lambda n=number: took.append(n), 0.0, volume=volume, timeout=0)
    while (action := turns.take(timeout=0)) is not None:
        action()
    assert sorted(took) == list(range(len(brought)))
    for line in (True, False):
        took_here = [n for n in took if brought[n] is line]
        assert took_here == sorted(took_here)
