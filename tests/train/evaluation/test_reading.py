"""What is said of figures in two sentences: the headline beside its floors, and which it lies above."""

from typing import Any

from train.evaluation.reading import at_chance_words, main_figures, missing, reading


def figure(value: float | None, low: float = 0.0, high: float = 1.0, **fields: Any) -> dict[str, Any]:
    within = None if value is None else [low, high]
    return {
        "value": value,
        "chance": 0.5,
        "shuffled": None,
        "constant": 0.0,
        "ci95": within,
        "n": 400,
    } | fields


NAME = "identification_2way_centred"


def test_the_headline_stands_beside_its_floors() -> None:
    first, second = reading(
        {
            NAME: figure(0.88, 0.85, 0.91),
            f"{NAME}_null": figure(0.51, 0.47, 0.55),
            f"{NAME}_decoded_colour": figure(0.62),
            f"{NAME}_oracle": figure(0.86),
            f"{NAME}_above_oracle": figure(0.02, -0.01, 0.05),
        }
    )
    assert first.startswith(
        "Two windows are told apart by their clips in 0.880 of all pairs (95 %: 0.850 to 0.910)"
    )
    assert first.endswith(
        "a guess 0.500, null brain 0.510, decoded mean colour 0.620, ridge, same data 0.860."
    )
    # By the paired difference, where there is one: the lower end lies above neither it nor the ridge.
    assert second == (
        "Its interval lies above chance, null brain and decoded mean colour, and not above ridge, same data."
    )


def test_windows_that_were_drawn_are_told() -> None:
    first, _ = reading({NAME: figure(0.88, 0.85, 0.91, drawn_of=2000)})
    assert "(95 %: 0.850 to 0.910), on 400 windows drawn of 2000; beside it" in first


def test_clips_that_tell_nothing_are_called_so() -> None:
    _, second = reading({NAME: figure(0.52, 0.48, 0.56)})
    assert "tell nothing" in second
    _, without = reading({NAME: figure(0.9) | {"ci95": None, "interval": {"reason": "one session alone"}}})
    assert without == "There is no interval, so that nothing can be said of it yet: one session alone."
    first, _ = reading({NAME: figure(None, reason="no window")})
    assert first.startswith("No headline figure")


def test_the_main_figures_are_those_of_the_null_brain_too() -> None:
    figures = {NAME: figure(0.8), f"{NAME}_null": figure(0.5), "psnr_told": figure(20.0)}
    assert main_figures(figures) == [NAME]
    assert main_figures({"a": figure(1.0), "b": figure(1.0)}) == ["a", "b"]


def test_a_control_is_at_chance_by_its_whole_interval_of_enough_windows() -> None:
    assert at_chance_words(figure(0.5, 0.46, 0.54)) == "at chance"
    assert at_chance_words(figure(0.6, 0.5, 0.7)) == "NOT at chance"
    assert at_chance_words(figure(0.5, 0.46, 0.54, n=80)) == "too few windows to tell (80 of 300)"


def test_what_is_missing_has_a_reason() -> None:
    figures = {"a": figure(None, reason="too short"), "b": figure(0.5), "c": figure(None, reason="too short")}
    assert missing(figures) == [{"why": "too short", "figures": "a, c"}]
