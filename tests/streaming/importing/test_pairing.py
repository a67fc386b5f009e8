"""Triggers are fitted to volumes by their times, or refused with numbers."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from rtdecode.errors import UsageError
from streaming.importing.eeg import Marker
from streaming.importing.pairing import place
from streaming.importing.volumes import VolumeRun

TR = 0.8
COUNT = 30


def run(count: int = COUNT, tr_s: float | None = TR, discards: tuple[int, ...] = (0, 0)) -> VolumeRun:
    """A run of volumes, of which nothing but their number matters."""
    spans = {count + discarded for discarded in discards}
    return cast(VolumeRun, SimpleNamespace(tr_s=tr_s, count=count, spans=spans))


def markers(count: int = COUNT, begin: float = 10.0, tr_s: float = TR, label: str = "R128") -> list[Marker]:
    return [Marker(begin + tr_s * n, label, "markers") for n in range(count)]


def without(*lost: int) -> list[Marker]:
    return [marker for n, marker in enumerate(markers()) if n not in lost]


def test_each_volume_begins_with_its_trigger() -> None:
    placed = place(markers(), run())
    assert placed.begins_at == pytest.approx(10.0)
    assert placed.local_tr_s == pytest.approx(TR)
    assert [trigger.label for trigger in placed.triggers] == ["R128"] * COUNT
    assert placed.notes == ["30 triggers 'R128' place 30 volumes; the farthest lies 0.00 ms from its place."]


def test_a_lost_trigger_shifts_nothing_and_is_told() -> None:
    placed = place(without(7, 8), run())
    assert placed.begins_at == pytest.approx(10.0)
    assert "2 volumes have no trigger of their own, counted from 0: 7, 8." in placed.notes


def test_a_late_trigger_is_told() -> None:
    late = [Marker(m.stamp + 0.02 * (n == 12), m.label, m.origin) for n, m in enumerate(markers())]
    placed = place(late, run())
    assert placed.begins_at == pytest.approx(10.0, abs=1e-3)
    assert "the farthest lies 20.00 ms from its place" in placed.notes[0]


def test_stray_markers_have_no_place() -> None:
    strays = [Marker(9.5, "R128", "markers"), *markers(), Marker(20.1, "R128", "markers")]
    placed = place(sorted(strays, key=lambda marker: marker.stamp), run())
    assert placed.begins_at == pytest.approx(10.0)
    assert len(placed.triggers) == COUNT


def test_slice_triggers_count_once_a_volume() -> None:
    slices = [Marker(10 + TR * n + 0.02 * k, "R128", "markers") for n in range(COUNT) for k in range(40)]
    placed = place(slices, run())
    assert len(placed.triggers) == COUNT
    assert placed.begins_at == pytest.approx(10.0)
    assert "There are 40 triggers for each volume: the first of them counts." in placed.notes


def test_markers_of_a_task_are_no_triggers() -> None:
    task = [Marker(10 + 4.0 * n, "S  1", "markers") for n in range(8)]
    assert len(place([*task, *markers()], run()).triggers) == COUNT


def test_a_copy_on_a_stim_channel_is_no_rival() -> None:
    copies = [Marker(marker.stamp + 0.001, "128", "stim channel") for marker in markers()]
    assert {trigger.label for trigger in place([*markers(), *copies], run()).triggers} == {"R128"}


def test_the_run_of_triggers_with_as_many_places_is_chosen() -> None:
    second_run = markers(50, begin=100.0)
    assert place([*markers(), *second_run], run()).begins_at == pytest.approx(10.0)
    assert place([*markers(), *second_run], run(50)).begins_at == pytest.approx(100.0)
    assert place([*markers(), *second_run], run(), trigger_run=1).begins_at == pytest.approx(10.0)


@pytest.mark.parametrize(("user", "scanner", "triggers"), [(3, 0, 33), (3, 2, 33), (3, 2, 35)])
def test_discarded_volumes_of_a_sidecar_move_the_first_volume(user: int, scanner: int, triggers: int) -> None:
    placed = place(markers(triggers), run(discards=(user, user + scanner)))
    assert placed.begins_at == pytest.approx(10.0 + TR * (triggers - COUNT))
    sentence = f"{triggers - COUNT} triggers belong to volumes that were discarded before the first one."
    assert sentence in placed.notes


@pytest.mark.parametrize(("first", "triggers"), [(0, 31), (-1, 31), (0, 29), (15, 15)])
def test_an_option_says_which_volume_the_first_trigger_started(first: int, triggers: int) -> None:
    placed = place(markers(triggers), run(), first_trigger=first)
    assert placed.begins_at == pytest.approx(10.0 - TR * first)


def test_the_tr_is_that_of_the_triggers_where_nothing_states_it() -> None:
    assert place(markers(), run(tr_s=None)).tr_s == TR


def refusal(act: Callable[[], Any]) -> UsageError:
    with pytest.raises(UsageError) as caught:
        act()
    # One sentence that says what to do, or two.
    assert "--" in str(caught.value) or "Give" in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("count", "words"), [(29, "1 too few"), (31, "1 too many"), (15, "15 too few"), (45, "15 too many")]
)
def test_more_or_fewer_triggers_than_volumes_are_refused_with_numbers(count: int, words: str) -> None:
    error = refusal(lambda: place(markers(count), run()))
    assert error.code == "import-trigger-count"
    assert words in str(error)
    assert f"{count} places" in str(error)


def test_triggers_of_another_run_are_refused() -> None:
    error = refusal(lambda: place(markers(tr_s=0.85), run()))
    assert error.code == "import-trigger-interval"
    assert error.values["interval_s"] == pytest.approx(0.85, abs=1e-3)
    error = refusal(lambda: place([*markers(20), *markers(20, begin=100.0)], run()))
    assert error.code == "import-trigger-run-unclear"


def test_eeg_without_a_trigger_is_refused_and_its_markers_are_listed() -> None:
    error = refusal(lambda: place([Marker(1.0, "hello", "markers"), Marker(9.0, "hello", "markers")], run()))
    assert error.code == "import-triggers-missing"
    assert "2 of 'hello' every 8.000 s" in str(error)
    assert refusal(lambda: place([], run())).values["available"] == ["no markers"]


def test_two_markers_that_come_once_a_tr_are_not_guessed_between() -> None:
    rivals = [*markers(), *markers(begin=10.3, label="S  2")]
    assert refusal(lambda: place(rivals, run())).code == "import-triggers-unclear"
    assert place(rivals, run(), label="S  2").begins_at == pytest.approx(10.3)


def test_a_run_of_triggers_that_is_not_there_is_refused() -> None:
    assert refusal(lambda: place(markers(), run(), trigger_run=2)).code == "import-trigger-run-unknown"


def test_the_amplifiers_clock_may_differ_from_the_scanners() -> None:
    placed = place(markers(tr_s=TR * (1 + 2e-4)), run())
    assert placed.local_tr_s == pytest.approx(TR * (1 + 2e-4), rel=1e-5)
    assert np.isclose(placed.tr_s, TR)
