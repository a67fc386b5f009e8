from streaming.page.refusals import Refusals


def test_a_refused_request_is_told_at_once_and_a_flood_of_them_seldom() -> None:
    refusals = Refusals()
    assert not refusals.sentence(0.0)
    refusals.add("192.0.2.7", "No.")
    assert refusals.sentence(0.0) == "The page refused a request from 192.0.2.7. It answered: No."
    assert not refusals.sentence(0.1)
    lines = []
    # An hour with a request every tenth of a second.
    for tenth in range(36000):
        refusals.add(f"192.0.2.{tenth % 8}", "No.")
        lines.append(refusals.sentence(tenth / 10))
    lines = [line for line in lines if line]
    assert len(lines) == 5
    assert lines[0] == "The page refused 601 requests, the newest from 192.0.2.0. It answered: No."


def test_a_request_after_a_quiet_time_is_told_at_once() -> None:
    refusals = Refusals()
    for hour in range(3):
        refusals.add("192.0.2.7", "No.")
        assert refusals.sentence(3600.0 * hour)
