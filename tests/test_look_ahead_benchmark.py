"""Figures of look-ahead, from the rows of a comparison."""

from pathlib import Path

from benchmarks.experiments import look_ahead
from train.compare import Row


def row(after: int, value: float, less: float | None) -> Row:
    interval = {"units": 10}
    return {
        "decoder": f"easy-10-after-{after}",
        "metric": "identification_2way_centred",
        "value": value,
        "ci95": [value - 0.1, value + 0.1],
        "interval": interval,
        "n": 300,
        "less_than": None if less is None else f"easy-10-after-{after - 1}",
        "less": less,
        "less_ci95": None if less is None else [less - 0.25, less + 0.25],
        "less_interval": None if less is None else interval,
    }


def test_rows_are_named_by_look_ahead_and_differences_by_both() -> None:
    runs = [Path(f"easy-10-after-{after}") for after in (0, 1, 2)]
    rows = [row(0, 0.7, None), row(1, 0.75, 0.05), row(2, 0.72, -0.25)]
    figures = look_ahead.figures_of(rows, runs)
    assert list(figures) == ["0", "1", "1 less 0", "2", "2 less 1"]
    assert figures["1"]["identification_2way_centred"]["value"] == 0.75
    assert figures["1"]["identification_2way_centred"]["n"] == 300
    assert figures["2 less 1"]["identification_2way_centred"]["value"] == -0.25
    assert figures["2 less 1"]["identification_2way_centred"]["ci95"] == [-0.5, 0.0]
