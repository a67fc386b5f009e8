"""Tables of the pages come from result files, and what does not is named."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import charts, tables
from benchmarks.tables import differences, worded

PAGE = "# Title\n\n<!-- table: mine -->\n| a |\n|---|\n| 0.250 (0.100 to 0.500) |\n<!-- end -->\n\nText.\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of one page, one template and one result file."""
    for name in ("docs/images", "results", "templates"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(tables, "TEMPLATES", tmp_path / "templates")
    origin = {
        "command": "python -m benchmarks.bars",
        "commit": "0" * 40,
        "date": "2026-01-01",
        "machine": "x",
    }
    figures = {"a b": {"value": 0.25, "ci95": [0.1, 0.5]}, "rows": [{"value": 0.75, "ci95": None}]}
    (tmp_path / "results" / "kept.json").write_text(json.dumps(origin | figures))
    (tmp_path / "templates" / "mine.md").write_text("| a |\n|---|\n| {kept > a b} |\n")
    (tmp_path / "README.md").write_text(PAGE)
    return tmp_path


def checked(root: Path) -> list[str]:
    return list(differences(root, write=False))


def test_the_pages_of_the_repository_are_as_their_files_have_them() -> None:
    assert checked(tables.ROOT) == []


def test_a_table_that_was_edited_by_hand_is_named_with_its_line(root: Path) -> None:
    assert checked(root) == []
    (root / "README.md").write_text(PAGE.replace("0.250", "0.350"))
    (sentence,) = checked(root)
    assert sentence.startswith("README.md:6: a table was edited by hand. There stands `| 0.350 (")
    (root / "README.md").write_text(PAGE.replace("| 0.250 (0.100 to 0.500) |\n", ""))
    assert checked(root)[0].startswith("README.md:6: ")
    assert list(differences(root, write=True)) == []
    assert (root / "README.md").read_text() == PAGE


def test_a_file_without_its_command_is_named(root: Path) -> None:
    (root / "results" / "bare.json").write_text("{}")
    assert [sentence.partition(" does not say")[0] for sentence in checked(root)] == ["bare.json"]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{kept > b}", "kept > b: there is no 'b'"),
        ("{gone > b}", "gone > b: there is no "),
        ("{kept > rows > 1}", "kept > rows > 1: there is no "),
        ("{kept > rows > first}", "kept > rows > first: there is no "),
    ],
)
def test_a_figure_that_no_file_holds_is_named(root: Path, template: str, words: str) -> None:
    (root / "templates" / "mine.md").write_text(template)
    (sentence,) = checked(root)
    assert sentence.startswith(f"README.md: {words}")


def test_a_table_without_template_or_end_is_named(root: Path) -> None:
    (root / "README.md").write_text(PAGE.replace("mine", "other"))
    assert "there is no template other.md" in checked(root)[0]
    (root / "README.md").write_text(PAGE.replace("<!-- end -->\n", ""))
    assert "table mine has no line <!-- end -->" in checked(root)[0]


def test_a_page_in_a_folder_of_docs_is_checked_and_written_too(root: Path) -> None:
    page = root / "docs" / "notebook" / "2026-01-01-mine.md"
    page.parent.mkdir()
    page.write_text(PAGE.replace("0.250", "0.350"))
    (sentence,) = checked(root)
    assert sentence.startswith("docs/notebook/2026-01-01-mine.md:6: a table was edited by hand.")
    assert list(differences(root, write=True)) == []
    assert page.read_text() == PAGE


def test_a_figure_outside_of_a_table_is_named_with_its_line(root: Path) -> None:
    (root / "docs" / "more.md").write_text("First 0.5 to 0.6.\n\nIt has 0.912 (95 % 0.900\nto 0.924; n 3).\n")
    (sentence,) = checked(root)
    assert sentence.startswith("docs/more.md:3: 0.912 (95 % 0.900 to 0.924) stands in no table.")


CHART = """
title = "Bars & lines"
low = 0.0
high = 1.0
ticks = [0.0, 1.0]
[[group]]
title = "one"
bars = {"mine" = "kept > a b"}
floors = {"chance" = "kept > a b > value", "null brain, mine" = "kept > a b"}
"""


def test_a_chart_is_drawn_from_its_figures_and_the_same_again(root: Path) -> None:
    picture = charts.svg(CHART, tables.figure)
    assert picture == charts.svg(CHART, tables.figure)
    assert "0.250 (0.100 to 0.500)" in picture
    texts = [text.text for text in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]
    assert {"Bars & lines", "one", "mine", "chance", "null brain, mine"} <= set(texts)
    bars = list(ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}rect"))[1:]
    assert [float(bar.get("width", "")) for bar in bars] == [0.25 * 460]


def test_a_picture_that_its_figures_do_not_draw_is_named(root: Path) -> None:
    (root / "templates" / "bars.toml").write_text(CHART)
    assert checked(root) == [
        "docs/images/bars.svg is not what bars.toml draws. Run python -m benchmarks.tables."
    ]
    assert list(differences(root, write=True)) == []
    assert checked(root) == []
    picture = root / "docs" / "images" / "bars.svg"
    picture.write_text(picture.read_text().replace("0.250", "0.350"))
    assert len(checked(root)) == 1
    (root / "templates" / "bars.toml").write_text(CHART.replace("a b", "b"))
    (sentence,) = checked(root)
    assert sentence.startswith("bars.toml: kept > b: there is no 'b'")


def test_a_figure_is_written_with_its_interval() -> None:
    figure = {"value": 0.98765, "ci95": [-0.5, 1.0]}
    assert worded(figure) == "0.988 (-0.500 to 1.000)"
    assert worded(figure, "+.1f") == "+1.0 (-0.5 to +1.0)"
    assert worded({"accuracy": 0.5, "ci95": None}) == "0.500"
    assert worded(0.25, ".2f") == "0.25"
    assert worded(300) == "300"
