"""The figures of a decoder that many sessions share."""

import pytest

from benchmarks import serve


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return serve.schedule(seconds=60.0)


def test_the_scheduler_meets_its_bars_on_a_virtual_clock(rows: list[dict]) -> None:
    assert serve.misses(rows) == []
    assert [(row["load"], row["cuts"]) for row in rows] == [
        (load, cuts) for load in (0.8, 1.5, 2.2) for cuts in ("evenly", "together")
    ]
    for row in rows:
        assert row["windows"] == pytest.approx(8 * 60 / row["hop_s"], abs=8)
        assert sum(row["steps"].values()) == pytest.approx(1, abs=1e-4)


def test_a_figure_that_misses_its_bar_is_named(rows: list[dict]) -> None:
    bad = {"skipped": 0.04, "late": 0.02, "fairness": 0.5, "steps": {"4": 0.98, "2": 0.02}}
    sentences = serve.misses([row | bad for row in rows])
    assert len(sentences) == 2 * (3 + 3 + 2)
    assert sentences[0] == "load 0.8, cut evenly: skipped is 0.04, and at most 0.0% was asked for"
    assert any("late is 0.02" in sentence for sentence in sentences)
    assert any("at least 99% with four" in sentence for sentence in sentences)


def test_the_same_seed_gives_the_same_figures(rows: list[dict]) -> None:
    assert serve.row(2.2, "together", 60.0, 1) == rows[-1]
    assert serve.row(2.2, "together", 60.0, 2) != rows[-1]
