from streaming.deadline import Inbox, Work
from tests.streaming.windows import window


def work(clip: int, revision: str = "final", at: float = 100.0) -> Work:
    return Work(window(clip, revision, at=at), clip)


def test_windows_leave_in_order() -> None:
    inbox = Inbox(patience=4.0)
    for clip in range(3):
        inbox.put(work(clip, at=100.0 + clip))
    taken = [inbox.take(now_at=102.0) for _ in range(4)]
    assert [w.clip for w, _ in taken if w] == [0, 1, 2]
    assert not any(skipped for _, skipped in taken)


def test_only_whole_windows_that_are_too_late_are_skipped_and_each_is_returned() -> None:
    inbox = Inbox(patience=4.0)
    for clip in range(4):
        inbox.put(work(clip, at=100.0 + 4 * clip))
    next_, skipped = inbox.take(now_at=111.0)
    assert [w.clip for w in skipped] == [0, 1]
    assert next_ is not None
    assert next_.clip == 2


def test_the_newest_window_is_never_skipped() -> None:
    inbox = Inbox(patience=4.0)
    inbox.put(work(0))
    next_, skipped = inbox.take(now_at=1e6)
    assert next_ is not None
    assert not skipped


def test_a_preview_whose_final_waits_is_dropped_and_counted() -> None:
    inbox = Inbox(patience=4.0)
    inbox.put(work(0, "preview"))
    inbox.put(work(1, "preview"))
    inbox.put(work(0))
    order = [inbox.take(now_at=101.0)[0] for _ in range(3)]
    assert [(w.clip, w.window.revision) for w in order if w] == [(0, "final"), (1, "preview")]
    assert inbox.dropped_previews == 1
    assert len(inbox) == 0


def test_what_was_asked_for_from_before_is_not_late() -> None:
    inbox = Inbox(patience=4.0)
    for clip in range(3):
        inbox.put(Work(window(clip, at=100.0), clip, backlog=True))
    order = [inbox.take(now_at=1e6) for _ in range(3)]
    assert [w.clip for w, _ in order if w] == [0, 1, 2]
