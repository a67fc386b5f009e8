import base64
import html
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rtdecode.disk.video import write_mp4
from rtdecode.errors import UsageError
from streaming.tools import session_page
from tests.refusals import refused

HOP = 4
COUNT = 12
# Each window's hop of the film has a grey level of its own.
LEVELS = np.linspace(20, 240, COUNT).astype(np.uint8)


def report(**changes: Any) -> dict[str, Any]:
    figure = {"value": 0.9, "chance": 0.5, "shuffled": 0.48, "ci95": [0.8, 1.0], "n": COUNT}
    names = ("identification_2way_same_background", "identification_50way", "identification_top1")
    return {
        "session": "20261123-101010",
        "version": "0.1.0",
        "bundle": "00ff",
        "simulated": True,
        "note": None,
        "ended": "stopped by <SIGINT>",
        "windows": {"expected": COUNT, "final": COUNT - 1, "skipped": 1, "degraded": 2},
        "eeg": {"samples": 1000, "rate_hz": 500.0, "gaps": 3, "bad_channels": ["Cz"]},
        "fmri": {"volumes": 60, "missing": 1, "delay_s": {"p50": 0.5, "max": 1.0}},
        "clock": {"source": "trigger", "residual_ms": 0.02},
        "runs": [
            {"run": 0, "volumes": 60, "missing": 1, "began_s": 0.0, "ended_s": 48.0, "motion": None},
        ],
        "accuracy": dict.fromkeys((*names, "classification_top1")) | {"identification_2way": figure},
        "baselines": {"null_brain": {"identification_2way": figure | {"value": 0.51}}},
        "identified": [
            {"run": 0, "window_s": [4.0 * n, 4.0 * n + 4], "wins": n / COUNT} for n in range(COUNT) if n != 5
        ],
        "told": [{"run_s": 12.4, "text": "EEG hole: 40 samples <lost>"}],
    } | changes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "report.json").write_text(json.dumps(report()))
    with (tmp_path / "clips.jsonl").open("w") as lines:
        for n in range(COUNT):
            for revision in ("preview", "final"):
                latency_ms = {"beyond_floor": 300.0 + n, "beyond_floor_preview": None, "since_stimulus": None}
                line = {"run": 0, "clip": n, "window_s": [4.0 * n, 4.0 * n + 4], "revision": revision}
                # Window 5 was skipped.
                if n != 5:
                    lines.write(json.dumps(line | {"latency_ms": latency_ms}) + "\n")
    film = np.repeat(LEVELS, HOP)[:, None, None, None] * np.ones((1, 32, 48, 3), np.uint8)
    write_mp4(tmp_path / "film.mp4", film, 8)
    return tmp_path


class Closed(HTMLParser):
    """Checks that what is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_html(folder: Path) -> str:
    assert session_page.run(folder, None) == 0
    return (folder / "report.html").read_text()


def test_the_page_is_whole_and_asks_for_nothing_from_elsewhere(folder: Path) -> None:
    page = page_html(folder)
    parser = Closed()
    parser.feed(page)
    assert not parser.open
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert str(folder) not in page


def test_best_median_and_worst_are_the_windows_that_won_so(folder: Path) -> None:
    page = page_html(folder)
    captions = re.findall(r"<figcaption>(\w+): clip (\d+) wins (\d+)%", page)
    assert [(word, int(number)) for word, number, _ in captions] == [
        *(("best", n) for n in (11, 10, 9)),
        *(("median", n) for n in (4, 6, 7)),
        *(("worst", n) for n in (0, 1, 2)),
    ]
    pictures = [base64.b64decode(data) for data in re.findall(r"data:image/webp;base64,([^\"]+)", page)]
    for (_, number, _), picture in zip(captions, pictures, strict=True):
        with Image.open(io.BytesIO(picture)) as image:
            level = float(np.asarray(image.convert("L")).mean())
        assert abs(level - LEVELS[int(number)]) < 6, f"clip {number}: the film's hop of another window"


@pytest.mark.parametrize("fps", [3, 8])
def test_clips_move_as_fast_as_the_film_does(folder: Path, fps: int) -> None:
    rng = np.random.default_rng(0)
    write_mp4(folder / "film.mp4", rng.integers(0, 256, (HOP * COUNT, 32, 48, 3), np.uint8), fps)
    data = re.findall(r"data:image/webp;base64,([^\"]+)", page_html(folder))
    with Image.open(io.BytesIO(base64.b64decode(data[0]))) as image:
        image.load()
        # Every second frame is shown, for twice as long.
        assert image.info["duration"] == round(2000 / fps)


def test_figures_stand_beside_chance_and_controls(folder: Path) -> None:
    page = page_html(folder)
    cells = re.findall(r"<td>([^<]*)</td>", page)
    row = cells[cells.index("identification, 2-way") :][:7]
    assert row == ["identification, 2-way", "0.900", "0.800 to 1.000", "0.500", "0.480", "0.510", str(COUNT)]


def test_the_units_of_an_interval_stand_beside_it_and_few_are_listed(folder: Path) -> None:
    figures = report()["accuracy"]
    four_units = {
        "units": 4,
        "method": "t of logits",
        "values": [0.8, 0.9, 1.0, 0.7],
        "reason": None,
        "cut": False,
    }
    figures["identification_2way"]["interval"] = four_units
    (folder / "report.json").write_text(json.dumps(report(accuracy=figures)))
    page = page_html(folder)
    assert "<td>4 0.800 0.900 1.000 0.700</td>" in page
    assert "not corrected for their number" in page
    none = {"units": 3, "method": None, "values": None, "reason": "fewer than 4 units", "cut": False}
    figures["identification_2way"] |= {"ci95": None, "interval": none}
    (folder / "report.json").write_text(json.dumps(report(accuracy=figures)))
    page = page_html(folder)
    assert "no interval: fewer than 4 units" in page
    assert "<td>-</td>" in page


def test_a_control_that_was_not_computed_is_a_dash_with_its_reason(folder: Path) -> None:
    assert "A dash stands for" not in page_html(folder)
    figures = report()["accuracy"]
    figures["identification_2way"]["shuffled"] = None
    (folder / "report.json").write_text(json.dumps(report(accuracy=figures)))
    page = page_html(folder)
    assert "<td>-</td>" in page
    assert "A dash stands for an interval or a control that the session was too short for" in page


def test_the_methods_say_what_was_done_and_how_it_ended(folder: Path) -> None:
    methods_text = session_page.methods(session_page.read(folder))
    assert (
        "11 of 12 windows have a final clip, 2 of them from incomplete data, and 1 were skipped."
        in methods_text
    )
    assert "EEG arrived at 500.0 Hz (1000 samples, 3 gaps)." in methods_text
    assert "0.900 (95 % interval 0.800 to 1.000, chance 0.5, n = 12)" in methods_text
    # What a session says is text, and never markup.
    assert "stopped by &lt;SIGINT&gt;" in page_html(folder)
    assert "40 samples &lt;lost&gt;" in page_html(folder)


def test_figures_stand_beside_colours_alone(folder: Path) -> None:
    assert "told mean colour" not in page_html(folder)
    figure = report()["accuracy"]["identification_2way"]
    baselines = {"null_brain": None, "told_colour": {"identification_2way": figure | {"value": 0.857}}}
    (folder / "report.json").write_text(json.dumps(report(baselines=baselines)))
    page = page_html(folder)
    assert "<th>told mean colour</th>" in page
    assert "<td>0.857</td>" in page
    # A session without twins has no figure of the null brain, and says so.
    assert "A dash stands for" in page


def test_without_a_truth_clips_from_all_over_are_shown(folder: Path) -> None:
    nothing = report(accuracy=dict.fromkeys(report()["accuracy"]), baselines=None, identified=None, told=None)
    (folder / "report.json").write_text(json.dumps(nothing))
    page = page_html(folder)
    assert re.findall(r"<figcaption>clip (\d+)<", page) == ["0", "2", "4", "7", "9", "11"]
    assert "The truth is not known." in page
    assert "this is a replay" in page


def test_a_histogram_has_a_bar_for_every_bin_and_counts_all() -> None:
    svg = session_page.histogram("ms", [1.0, 1.0, 2.0, 9.0])
    assert sum(int(n) for n in re.findall(r": (\d+)</title>", svg)) == 4
    tall = [float(x) for x in re.findall(r'<rect [^>]* height="([\d.]+)"', svg)]
    assert max(tall) == 100


def test_a_page_that_cannot_be_written_is_told_in_one_sentence(folder: Path) -> None:
    (folder / "file").touch()
    for out, why in ((folder, "it is a folder"), (folder / "file" / "x.html", "it is a file")):
        with refused(UsageError, "page-unwritable", path=out) as caught:
            session_page.run(folder, out)
        assert why in str(caught.value)


def test_a_folder_without_a_session_is_refused(tmp_path: Path) -> None:
    with refused(UsageError, "session-missing-files", missing_files="report.json and clips.jsonl"):
        session_page.run(tmp_path, None)


def test_no_text_of_a_report_is_markup() -> None:
    name = "<img src=x onerror=alert(1)>[/x]"

    def renamed(tree: Any) -> Any:
        if isinstance(tree, dict):
            return {key: renamed(value) for key, value in tree.items()}
        if isinstance(tree, list):
            return [renamed(value) for value in tree]
        return name if isinstance(tree, str) else tree

    page = session_page.page(session_page.Session(renamed(report(note="")), [], Path("film.mp4")))
    assert page.count(html.escape(name)) > 5
    assert name not in page
