import math
from collections import Counter
from collections.abc import Callable

import pytest

from streaming.decode.deadline import Cost, Inbox, Job, steps_within, time_left
from tests.streaming.windows import window


def job(clip: int, revision: str = "final", windowed_at: float = 100.0) -> Job:
    return Job(window(clip, revision, windowed_at=windowed_at), clip)


def test_windows_leave_in_order() -> None:
    inbox = Inbox(patience=4.0)
    for clip in range(3):
        inbox.put(job(clip, windowed_at=100.0 + clip))
    jobs = [inbox.take(now_at=102.0) for _ in range(4)]
    assert [w.clip for w, _ in jobs if w] == [0, 1, 2]
    assert not any(skipped for _, skipped in jobs)


def test_only_whole_windows_that_are_too_late_are_skipped_and_each_is_returned() -> None:
    inbox = Inbox(patience=4.0)
    for clip in range(4):
        inbox.put(job(clip, windowed_at=100.0 + 4 * clip))
    next_, skipped = inbox.take(now_at=111.0)
    assert [w.clip for w in skipped] == [0, 1]
    assert next_ is not None
    assert next_.clip == 2


def test_the_newest_window_is_never_skipped() -> None:
    inbox = Inbox(patience=4.0)
    inbox.put(job(0))
    next_, skipped = inbox.take(now_at=1e6)
    assert next_ is not None
    assert not skipped


def test_a_preview_whose_final_waits_is_dropped_and_counted() -> None:
    inbox = Inbox(patience=4.0)
    inbox.put(job(0, "preview"))
    inbox.put(job(1, "preview"))
    inbox.put(job(0))
    order = [inbox.take(now_at=101.0)[0] for _ in range(3)]
    assert [(w.clip, w.window.revision) for w in order if w] == [(0, "final"), (1, "preview")]
    assert inbox.dropped_previews == 1
    assert len(inbox) == 0


def test_what_was_asked_for_from_before_is_not_late() -> None:
    inbox = Inbox(patience=4.0)
    for clip in range(3):
        inbox.put(Job(window(clip, windowed_at=100.0), clip, backlog=True))
    order = [inbox.take(now_at=1e6) for _ in range(3)]
    assert [w.clip for w, _ in order if w] == [0, 1, 2]


COST = Cost(encode_s=0.02, step_s=0.1, decode_s=0.08)


@pytest.mark.parametrize(
    ("left_s", "steps"),
    [(math.inf, 4), (0.5, 4), (0.49, 2), (0.3, 2), (0.29, 1), (0.2, 1), (0.1, 1), (-5.0, 1)],
)
def test_what_does_not_fit_gets_fewer_steps_and_never_none(left_s: float, steps: int) -> None:
    assert steps_within(left_s, COST, 4) == steps


def test_any_number_of_steps_can_be_wanted_and_nothing_is_denoised_in_none() -> None:
    assert steps_within(0.0, COST, 0) == 0
    assert steps_within(0.45, COST, 3) == 3
    assert [steps_within(t, COST, 50) for t in (6.0, 1.0, 0.5)] == [50, 8, 4]
    assert [steps_within(t, COST, 4, {4, 1}) for t in (1.0, 0.35, 0.0)] == [4, 1, 1]


def test_time_is_shared_by_the_windows_that_wait() -> None:
    assert time_left(job(0), 101.0, patience=4.0) == 3.0
    assert time_left(job(0), 101.0, patience=4.0, waiting=3) == 1.0
    assert time_left(job(0), 105.0, patience=4.0) == -1.0
    assert time_left(job(0, "preview"), 100.5, patience=4.0) == 2.0
    assert time_left(job(0, "preview"), 103.0, patience=4.0) == 1.0
    backlog = Job(window(0, windowed_at=0.0), 0, backlog=True)
    assert time_left(backlog, 1e6, patience=4.0, waiting=9) == math.inf


def test_the_cost_follows_the_machine() -> None:
    cost = COST
    for _ in range(20):
        cost = cost.followed_by(Cost(0.02, 0.2, 0.08))
    assert cost.step_s == pytest.approx(0.2, abs=1e-3)
    assert cost.of(4) == pytest.approx(0.9, abs=5e-3)


def run_session(slow: Callable[[float], float], *, windows: int = 60) -> tuple[Counter[int], int, float]:
    """Previews and finals on a virtual clock, for a machine `slow` times slower than `COST`.

    Returns
    -------
    steps, skipped, latest
        Finals by their steps, finals skipped, and the longest way of a final from its cut.
    """
    hop = 4.0
    now = 0.0
    next_cut = 0
    cost = COST
    cuts = sorted(
        (4.0 * k + late, k, revision) for k in range(windows) for revision, late in _REVISIONS.items()
    )
    inbox = Inbox(hop)
    steps = Counter[int]()
    skipped = 0
    latest = 0.0
    while next_cut < len(cuts) or len(inbox):
        while next_cut < len(cuts) and cuts[next_cut][0] <= now:
            inbox.put(job(cuts[next_cut][1], cuts[next_cut][2], cuts[next_cut][0]))
            next_cut += 1
        next_job, late = inbox.take(now)
        skipped += len(late)
        if next_job is None:
            now = max(now, cuts[next_cut][0])
            continue
        count = steps_within(time_left(next_job, now, hop, len(inbox) + 1), cost, 4)
        newest = Cost(*(slow(now) * part for part in (COST.encode_s, COST.step_s, COST.decode_s)))
        now += newest.of(count)
        cost = cost.followed_by(newest)
        if next_job.window.revision == "final":
            steps[count] += 1
            latest = max(latest, now - next_job.window.stamps["windowed"])
    return steps, skipped, latest


_REVISIONS = {"preview": 4.0, "final": 8.85}


def test_a_machine_that_is_fast_enough_takes_every_step() -> None:
    steps, skipped, latest = run_session(lambda now: 1.0)
    assert steps == {4: 60}
    assert skipped == 0
    assert latest == pytest.approx(0.5)


@pytest.mark.parametrize(("slow", "usual"), [(5.0, 4), (7.0, 2), (12.0, 1)])
def test_a_slow_machine_takes_fewer_steps_before_it_skips(slow: float, usual: int) -> None:
    steps, skipped, latest = run_session(lambda now: slow)
    assert skipped == 0
    assert sum(steps.values()) == 60
    assert steps[usual] >= 58
    assert latest < 5.0


def test_a_hopeless_machine_skips_whole_windows_and_counts_them() -> None:
    steps, skipped, _ = run_session(lambda now: 30.0)
    assert steps[1] >= 30
    assert skipped >= 5
    assert sum(steps.values()) + skipped == 60


def test_steps_come_back_when_the_pressure_is_over() -> None:
    steps, skipped, _ = run_session(lambda now: 9.0 if 60 < now < 120 else 1.0)
    assert skipped == 0
    assert 5 <= steps[1] + steps[2] <= 20
    assert steps[4] == 60 - steps[1] - steps[2]


def test_refined_windows_wait_for_all_others_and_are_never_dropped() -> None:
    inbox = Inbox(patience=4.0)
    for clip in range(3):
        inbox.put(job(clip, "refined"))
    inbox.put(job(9, "preview", windowed_at=150.0))
    inbox.put(job(8, windowed_at=150.0))
    assert inbox.urgent == 2
    assert len(inbox) == 5
    order = [inbox.take(now_at=151.0) for _ in range(5)]
    assert [w.clip for w, _ in order if w] == [8, 9, 0, 1, 2]
    assert not any(skipped for _, skipped in order)
    assert len(inbox) == 0
    assert time_left(job(0, "refined"), now_at=1e6, patience=4.0) == 2.0
