"""One thing has one limit and one sentence, wherever it is judged."""

import ast
from pathlib import Path
from typing import Any

import pytest

from streaming.checks import signals, table
from streaming.checks.finding import BAD, NOTE, OK, Check, counted, listed
from streaming.page import indicators
from streaming.page.indicators import Silence
from streaming.session.run_quality import FirstMinute, sentence
from streaming.status import Status

ROOT = Path(__file__).parents[3]
ROWS = {name: row for name, row in vars(table).items() if isinstance(row, Check)}
LIMITED = [
    row for row in (*ROWS.values(), *table.MOTION.values()) if row.note is not None or row.bad is not None
]


def calls() -> list[tuple[str, set[str]]]:
    """Every row that is asked for by name, with the names of the values that it is given."""
    rows = []
    for file in (ROOT / "streaming").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(ast.Attribute(ast.Name("table"), attr=row), attr="find"),
                    keywords=words,
                ):
                    rows.append((row, {word.arg for word in words}))
    return rows


def test_every_row_is_used_and_given_what_it_needs() -> None:
    text = "".join(file.read_text() for file in (ROOT / "streaming").rglob("*.py") if file.name != "table.py")
    assert [name for name in ROWS if f"table.{name}" not in text] == []
    for name, words in calls():
        # What is handed on as a mapping is seen when it is asked for.
        assert words == set(ROWS[name].needs) or None in words, name


@pytest.mark.parametrize("row", LIMITED)
def test_a_figure_is_beyond_a_limit_only_past_it(row: Check) -> None:
    values = dict.fromkeys(row.needs, 1.0) | {"channels": 3, "high": ["Cz"]}
    figure = row.needs[0]
    sign = -1 if row.at_least else 1
    for state, limit in ((NOTE, row.note), (BAD, row.bad)):
        if limit is None:
            continue
        assert row.find(**values | {figure: limit}).state != state
        beyond = row.find(**values | {figure: limit + sign * 1e-6})
        assert beyond.state == state
        assert not row.limit or beyond.found.endswith(f"{row.limit.format(limit)})")
    good = row.find(**values | {figure: -sign * 1e9})
    assert (good.state, good.advice) == (OK, "")


def test_what_is_not_known_is_not_judged() -> None:
    assert table.GRADIENT_RESIDUAL.of({"artifact_residual_db": None}) is None
    assert table.GRADIENT_RESIDUAL.of({}) is None


REPORT: dict[str, Any] = {
    "samples": 9000,
    "rate_hz": 1000.0,
    "gaps": 1,
    "epochs": 2,
    "artifact_residual_db": 21.0,
    "bad_channels": ["Cz", "Oz"],
}


@pytest.mark.parametrize("too_many", [False, True])
def test_the_page_and_the_verdict_on_a_minute_say_the_same_of_the_eeg(too_many: bool) -> None:
    report = REPORT | {"too_many_bad": too_many}
    status = Status(counters={"eeg": report, "fmri": {}, "clock": {}, "runs": []})
    lamp = indicators.eeg(status, Silence(eeg=0.1), requested=True)
    assert lamp.state == (BAD if too_many else NOTE)
    verdict = sentence(FirstMinute(0, None, report))
    assert verdict.startswith("consider stopping" if too_many else "run 0 looks usable")
    sentences = [finding.found for finding in signals.eeg(report)]
    assert "gradient residual 21.0 dB (at most 15 dB)" in sentences
    assert "1 gap" in sentences
    assert "the time stamps jumped 1 time" in sentences
    for text in sentences:
        assert text in lamp.found
        assert text in verdict


def test_a_number_has_its_noun_and_a_long_list_an_end() -> None:
    assert [counted(number, "gap") for number in (0, 1, 1200)] == ["0 gaps", "1 gap", "1,200 gaps"]
    assert listed(str(n) for n in range(10)) == "0, 1, 2, 3, 4, 5, 6, 7 and 2 more"
