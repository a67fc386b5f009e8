"""The scheduler of many sessions, on a virtual clock."""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.decode.deadline import Cost
from streaming.decode.scheduler import (
    KINDS,
    MOST_UNDER_WAY,
    RefusedError,
    Request,
    Scheduler,
    Turn,
)
from tests.refusals import refused

# 4, 2 and 1 steps take 0.5, 0.3 and 0.2 s.
COST = Cost(encode_s=0.02, step_s=0.1, decode_s=0.08)
HOP = 4.0
# Deadlines that lie so far apart differ.
TICK = 0.1


def scheduler(*names: str, hop: float = HOP, **how: object) -> Scheduler:
    windows = Scheduler(hop, COST, {4, 2, 1}, 4, how.pop("slowest_s", 0.01), **how)  # type: ignore[arg-type]
    for name in names:
        windows.open(name, 0.0)
    return windows


def request(
    session: str = "a", number: int = 0, due: float = HOP, kind: str = "final", index: int | None = None
) -> Request:
    index = number if index is None else index
    revision = "final" if kind == "twin" else kind
    return Request(session, number, 0, index, revision, due, 4, null=kind == "twin")


def put(to: Scheduler, *requests: Request, now: float = 0.0) -> None:
    for sent_window in requests:
        assert to.put(sent_window, now)


def order(of: Scheduler, now: float = 0.0) -> list[Request]:
    """Decode everything that waits without that any time passes."""
    requests = []
    while len(of):
        turn, _ = of.take(now)
        assert turn is not None
        of.done(turn.request, now, COST, turn.steps)
        requests.append(turn.request)
    return requests


def test_the_earliest_deadline_of_all_sessions_goes_first() -> None:
    windows = scheduler("a", "b", "c")
    requests = [request("a", due=3.0), request("b", due=2.0), request("c", due=2.5)]
    put(windows, *requests)
    assert [sent_window.session for sent_window in order(windows)] == ["b", "c", "a"]


def test_finals_go_before_previews_and_what_has_no_deadline_comes_last() -> None:
    windows = scheduler("a", "b")
    put(
        windows,
        request("a", 0, kind="twin"),
        request("a", 1, math.inf, "refined"),
        request("b", 0, math.inf),
        request("b", 1, 2.0, "preview", index=9),
        request("a", 2, 3.9),
    )
    assert [sent_window.kind for sent_window in order(windows)] == [
        "final",
        "preview",
        "final",
        "refined",
        "twin",
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("due", [HOP, math.inf])
def test_every_window_gets_its_turn(kind: str, due: float) -> None:
    windows = scheduler("a")
    put(windows, request("a", 0, due, kind))
    turn, given_up = windows.take(0.0)
    assert turn is not None
    assert turn.request.kind == kind
    assert given_up == []


def test_finals_of_a_session_keep_their_order_and_one_that_is_in_the_way_is_as_urgent() -> None:
    windows = scheduler("a", "b")
    put(windows, request("a", 7, 1.0), request("a", 6, math.inf), request("b", 0, 2.0))
    assert [(sent_window.session, sent_window.number) for sent_window in order(windows)] == [
        ("a", 6),
        ("a", 7),
        ("b", 0),
    ]


def test_of_equal_deadlines_the_session_that_was_served_longest_ago_goes_first() -> None:
    """In each hop there is time for one of three sessions, which cut their windows together."""
    windows = scheduler("a", "b", "c")
    served = []
    for k in range(6):
        now = HOP * k
        # They come over a network, so that they are not quite equal.
        put(windows, *(request(name, k, now + 0.4 + n / 500) for n, name in enumerate("abc")), now=now)
        turn, _ = windows.take(now)
        assert turn is not None
        served.append(turn.request.session)
        windows.done(turn.request, now + 0.3, COST, turn.steps)
        nothing, given_up = windows.take(now + 0.3)
        assert nothing is None
        assert len(given_up) == 2
    assert served == ["a", "b", "c"] * 2


@pytest.mark.parametrize(("waiting", "steps"), [(1, 4), (6, 4), (7, 2), (11, 2), (12, 1), (20, 1)])
def test_the_time_is_shared_by_all_that_wait(waiting: int, steps: int) -> None:
    """Of 4 s each of 6 gets 0.667 s, and 4 steps take 0.6 s with the margin."""
    names = [f"s{n}" for n in range(waiting)]
    windows = scheduler(*names)
    put(windows, *(request(name) for name in names))
    turn, _ = windows.take(0.0)
    assert turn is not None
    assert turn.steps == steps


def test_windows_without_a_deadline_take_nothing_from_the_others() -> None:
    windows = scheduler("a", "b")
    put(windows, *(request("a", n, math.inf) for n in range(4)), request("b", 0, 0.65))
    turn, _ = windows.take(0.0)
    assert turn == Turn(request("b", 0, 0.65), 4)


def test_a_twin_takes_the_steps_of_its_clip_and_a_backlog_takes_all() -> None:
    windows = scheduler("a")
    put(windows, request("a", 0, kind="twin"), request("a", 1, math.inf))
    assert [windows.take(1e6)[0] for _ in range(2)] == [
        Turn(request("a", 1, math.inf), 4),
        Turn(request("a", 0, kind="twin"), 4),
    ]


def test_what_does_not_fit_any_more_is_given_up_at_once_and_counted() -> None:
    windows = scheduler("a", "b")
    put(windows, request("a", 0, 1.0), request("a", 1, 1.0, "preview", index=1), request("b", 0, 5.0))
    turn, given_up = windows.take(0.9)
    assert turn is not None
    assert turn.request.session == "b"
    assert [(sent_window.request.kind, sent_window.why) for sent_window in given_up] == [
        ("final", "the decoder cannot keep up"),
        ("preview", "the decoder cannot keep up"),
    ]
    assert windows.counts("a").skipped == {"final": 1, "preview": 1}
    assert not windows.counts("b").skipped


def test_a_preview_whose_final_waits_is_dropped() -> None:
    windows = scheduler("a")
    put(windows, request("a", 0, kind="preview", index=5), request("a", 1, index=5))
    turn, given_up = windows.take(0.0)
    assert turn is not None
    assert turn.request.number == 1
    assert [sent_window.why for sent_window in given_up] == ["its final is there"]


def test_refined_windows_and_twins_are_never_dropped() -> None:
    windows = scheduler("a")
    put(windows, request("a", 0, 0.0, "refined"), request("a", 1, 0.0, "twin"))
    assert [sent_window.kind for sent_window in order(windows, now=1e9)] == ["refined", "twin"]


def test_a_window_is_not_taken_twice_while_it_is_under_way() -> None:
    windows = scheduler("a")
    put(windows, request())
    assert not windows.put(request(), 0.0)
    turn, _ = windows.take(0.0)
    assert turn is not None
    assert not windows.put(request(), 0.0)
    windows.done(turn.request, 0.1, COST, 4)
    assert windows.put(request(), 0.1), "what was answered may have been lost on its way"
    assert windows.counts("a").sent == {"final": 2}


def test_what_is_beyond_one_a_hop_is_refused_for_each_kind() -> None:
    windows = scheduler("a")
    n_taken: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    for n in range(400):
        now = n * HOP / 4
        for k, kind in enumerate(KINDS):
            try:
                n_taken[kind] += windows.put(
                    request("a", 4 * n + k, now + HOP, kind, index=n + 1000 * k), now
                )
            except RefusedError as error:
                codes[error.code] += 1
        order(windows, now)
    assert n_taken == dict.fromkeys(KINDS, 100 + MOST_UNDER_WAY - 1)
    refusals = windows.counts("a").refused
    assert refusals == dict.fromkeys(KINDS, 400 - 103)
    assert codes == {"serve-window-beyond-hop": refusals.total()}


def test_sessions_are_let_in_as_long_as_all_fit_in_the_fewest_steps() -> None:
    windows = Scheduler(HOP, COST, {4, 2, 1}, 4, slowest_s=0.85)
    assert windows.capacity == 4
    for name in "abcd":
        windows.open(name, 0.0)
    with refused(RefusedError, "serve-session-not-admitted", n_sessions=4, capacity=4, hop_s=4.0):
        windows.open("e", 0.0)
    # It is in already.
    windows.open("a", 1.0)
    windows.close("b")
    windows.open("e", 1.0)
    assert windows.sessions == ["a", "c", "d", "e"]
    assert Scheduler(HOP, COST, None, 4, 0.85, most_sessions=2).capacity == 2


def test_a_session_that_is_silent_for_ten_hops_is_named() -> None:
    windows = scheduler("a", "b")
    put(windows, request("b", due=500.0), now=20.0)
    assert windows.silent(40.0) == []
    assert windows.silent(40.1) == ["a"]
    windows.open("a", 40.1)
    assert windows.silent(60.1) == [], "a window of the other one waits"
    turn, _ = windows.take(60.1)
    assert turn is not None
    assert windows.silent(90.1) == ["a"]
    windows.done(turn.request, 90.1, COST, 4)
    assert windows.silent(130.0) == ["a"]
    assert windows.silent(130.2) == ["a", "b"]
    windows.close("b")
    assert len(windows) == 0


def test_a_clip_of_a_session_that_has_ended_is_no_error() -> None:
    windows = scheduler("a")
    put(windows, request())
    turn, _ = windows.take(0.0)
    assert turn is not None
    windows.close("a")
    windows.open("a", 0.1)
    windows.done(turn.request, 0.5, COST, 4)
    assert windows.counts("a").decoded == {}


def test_a_closed_form_bundle_has_no_steps_to_save() -> None:
    windows = Scheduler(HOP, COST, {0}, 0, 0.1)
    windows.open("a", 0.0)
    put(windows, Request("a", 0, 0, 0, "final", 0.11, 0))
    assert windows.take(0.0)[0] == Turn(Request("a", 0, 0, 0, "final", 0.11, 0), 0)


def test_the_cost_follows_the_clips() -> None:
    """Clips come to take ten times as long: 3 s in two steps, 5 s in four."""
    windows = scheduler("a")
    steps = []
    for n in range(200):
        now = n * HOP
        put(windows, request("a", n, now + HOP), now=now)
        turn, _ = windows.take(now)
        assert turn is not None
        steps.append(turn.steps)
        windows.done(turn.request, now + 2, Cost(0.2, 1.0, 0.8), turn.steps)
    assert steps[0] == 4
    assert steps[-1] == 2
    assert steps == sorted(steps, reverse=True)


@dataclass(frozen=True)
class Sent:
    session: str
    sent_at: int
    kind: str
    due: int


@st.composite
def traffic(draw: st.DrawFn) -> list[Sent]:
    """Windows of up to five sessions; deadlines of a kind in a session come in their order."""
    sent = draw(
        st.lists(
            st.builds(
                Sent,
                st.sampled_from("abcde"),
                st.integers(0, 200),
                st.sampled_from(KINDS),
                st.integers(0, 60),
            ),
            max_size=60,
        )
    )
    sent.sort(key=lambda sent_window: sent_window.sent_at)
    latest: dict[tuple[str, str], int] = defaultdict(int)
    ordered = []
    for sent_window in sent:
        key = (sent_window.session, sent_window.kind)
        latest[key] = max(latest[key], sent_window.sent_at + sent_window.due)
        ordered.append(Sent(sent_window.session, sent_window.sent_at, sent_window.kind, latest[key]))
    return ordered


@settings(max_examples=150, deadline=None)
@given(traffic(), st.integers(1, 20))
def test_deadlines_turns_and_counters_hold_for_any_traffic(sent: list[Sent], ticks: int) -> None:
    windows = scheduler(*"abcde", hop=2.0)
    waiting: list[Request] = []
    served: dict[str, int] = dict.fromkeys("abcde", -1)
    numbers: Counter[str] = Counter()
    now = 0
    turns = 0
    while sent or waiting:
        while sent and sent[0].sent_at <= now:
            sent_window = sent.pop(0)
            number = numbers[sent_window.session]
            numbers[sent_window.session] += 1
            made_of = request(
                sent_window.session, number, TICK * sent_window.due, sent_window.kind, index=1000 + number
            )
            try:
                assert windows.put(made_of, TICK * now)
            except RefusedError:
                continue
            waiting.append(made_of)
        turn, given_up = windows.take(TICK * now)
        for lost in given_up:
            assert lost.request.kind in ("final", "preview")
            assert lost.request.deadline < TICK * now + COST.of(1)
            waiting.remove(lost.request)
        assert len(windows) == len(waiting) - (turn is not None)
        if turn is None:
            assert not waiting
            now = max(now + 1, sent[0].sent_at) if sent else now + 1
            continue
        waiting.remove(turn.request)
        check_turn(turn, waiting, served)
        served[turn.request.session] = turns = turns + 1
        check_counters(windows, waiting, numbers, under_way=turn.request)
        now += ticks
        windows.done(turn.request, TICK * now, COST, turn.steps)
    check_counters(windows, [], numbers)


def check_turn(turn: Turn, waiting: list[Request], served: dict[str, int]) -> None:
    """No window is decoded after a later deadline, and ties take turns."""
    chosen = turn.request
    assert turn.steps in (1, 2, 4)
    for other in waiting:
        same_session = other.session == chosen.session
        if KINDS.index(other.kind) < KINDS.index(chosen.kind):
            raise AssertionError(f"{other} waited while {chosen} was decoded")
        if other.kind != chosen.kind:
            continue
        if same_session:
            assert other.number > chosen.number or other.deadline > chosen.deadline
        elif chosen.has_deadline:
            assert chosen.deadline <= other.deadline
            if chosen.deadline == other.deadline:
                assert served[chosen.session] <= served[other.session]


def check_counters(
    windows: Scheduler, waiting: list[Request], numbers: Counter[str], under_way: Request | None = None
) -> None:
    """What was sent has a clip, was given up, or is under way; what was not taken in was refused."""
    pending = [*waiting, *([under_way] if under_way is not None else [])]
    for name in "abcde":
        counts = windows.counts(name)
        under_way_by_kind = Counter(
            sent_window.kind for sent_window in pending if sent_window.session == name
        )
        assert windows.under_way(name) == under_way_by_kind.total()
        for kind in KINDS:
            assert counts.sent[kind] == counts.decoded[kind] + counts.skipped[kind] + under_way_by_kind[kind]
        assert counts.sent.total() + counts.refused.total() == numbers[name]
        assert counts.steps.total() == counts.decoded.total()
        assert counts.late <= counts.decoded.total()
