"""The page of a judged run: it holds everything, and nothing that is not shown."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from train.evaluation.examples import examples
from train.evaluation.page import floors, page
from train.evaluation.result import Evaluation, Example


def clips(count: int, seed: int = 0, frames: int = 8) -> list[np.ndarray]:
    shape = (count, frames, 24, 36, 3)
    return list(np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8))


def figure(value: float, **fields: object) -> dict:
    return {
        "value": value,
        "chance": 0.5,
        "shuffled": None,
        "constant": 0.0,
        "ci95": [0.1, 0.9],
        "n": 9,
    } | fields


class Reader(HTMLParser):
    """Collects headings, cells and the pictures of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.pictures: list[dict] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag == "img":
            self.pictures.append(dict(attrs))
        elif tag != "meta":
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.inside.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.inside[-1] if self.inside else "", []).append(data)


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    assert not reader.inside
    return reader


def test_best_median_and_worst_windows_are_chosen() -> None:
    wins = np.array([0.5, 0.9, np.nan, 0.1, 0.7, 0.3, 1.0])
    film = clips(7)
    chosen = examples("shapes, easy", wins, {"film": film, "null brain": clips(7, 1, 9)}, 8.0)
    rows = [int(re.findall(r"window (\d+)", example.words)[0]) - 1 for example in chosen]
    assert rows == [6, 1, 0, 4, 3, 5]
    words = [re.findall(r": (\w+),", example.words)[0] for example in chosen]
    assert words == ["best", "best", "median", "median", "worst", "worst"]
    assert np.array_equal(chosen[0].clips["film"], film[6])
    # Frames after the window are left out.
    assert len(chosen[0].clips["null brain"]) == 8
    of_two_windows = examples("shapes", np.array([0.2, 0.8]), {"film": clips(2)}, 8.0)
    assert [example.words.split(", ")[0] for example in of_two_windows] == ["shapes: one of few"] * 2
    assert examples("shapes", np.array([np.nan]), {"film": clips(1)}, 8.0) == []


def test_the_page_holds_figures_floors_and_moving_pictures() -> None:
    judged = Evaluation(
        {
            "score": figure(0.8),
            "score_null": figure(0.4),
            "score_other_film": figure(0.45),
            "fvd": figure(300.0, ci95=None),
            "fvd_null": figure(900.0, ci95=None),
            "fvd_film_halves": figure(120.0, ci95=None),
        },
        {"films": [{"film": "a <b> & c", "windows": 6}]},
        pictures={"sheet.png": Image.new("RGB", (30, 20))},
        examples=examples("shapes", np.linspace(0, 1, 6), {"film": clips(6), "null brain": clips(6, 1)}, 8.0),
        simulated=True,
    )
    text = page(judged)
    parsed = read(text)
    assert "SIMULATED PARTICIPANT" in text
    assert {"value", "chance", "other or shifted brain", "null brain"} <= {*parsed.texts["th"]}
    assert {"score", "0.800", "0.450", "0.400", "a <b> & c", "120.000"} <= {*parsed.texts["td"]}
    assert len(parsed.pictures) == 6 * 2 + 1
    kinds = [picture["src"].split(";")[0] for picture in parsed.pictures]
    assert kinds == ["data:image/webp"] * 13
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "SIMULATED" not in page(Evaluation({"score": figure(0.8)}))


def test_bars_lie_where_their_figures_do() -> None:
    name = "identification_2way_centred"
    figures = {
        name: figure(0.8, ci95=[0.75, 0.86], n=400),
        f"{name}_null": figure(0.5, ci95=[0.47, 0.53], n=400),
        f"{name}_rest": figure(0.62, ci95=[0.58, 0.66], n=400),
        "psnr": figure(18.0, chance=None),
        "psnr_null": figure(16.0, chance=None),
        "order": figure(0.0, ci95=None, reason="too few cuts") | {"value": None},
    }
    text = page(Evaluation(figures))
    assert '<i style="width:80.0%"></i><b style="left:75.0%;width:11.0%"></b><u style="left:50.0%">' in text
    assert '<span>null brain</span><div class="track"><i style="width:50.0%"></i>' in text
    assert "0.800, 95 % 0.100" not in text
    assert "Two windows are told apart by their clips in 0.800 of all pairs" in text
    cells = read(text).texts["td"]
    assert [cell for cell in cells if "at chance" in cell] == ["at chance", "NOT at chance"]
    assert {"too few cuts", "order"} <= {*cells}
    # Decibels are no share, and have no bar.
    assert "psnr: 18" not in text


def test_a_judge_without_a_null_brain_has_a_row_for_each_figure() -> None:
    rows = floors({"a": figure(0.8, shuffled=0.48), "b": figure(0.2)})
    assert [row["figure"] for row in rows] == ["a", "b"]
    assert rows[0]["other or shifted brain"] == 0.48
    assert rows[0]["null brain"] is None


def test_a_clip_moves_at_its_own_pace() -> None:
    html = page(Evaluation({}, examples=[Example("best", {"film": clips(1)[0]}, 8.0)]))
    (data,) = re.findall(r'src="data:image/webp;base64,([^"]+)"', html)
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert picture.is_animated  # type: ignore[attr-defined]
    assert picture.n_frames == 4  # type: ignore[attr-defined]
    assert picture.size == (192, 128)
    picture.seek(1)
    picture.load()
    assert picture.info["duration"] == 250
