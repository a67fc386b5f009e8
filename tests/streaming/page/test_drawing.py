from xml.etree import ElementTree

import numpy as np

from streaming.page import drawing

SVG = "{http://www.w3.org/2000/svg}"


def drawn(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def test_there_is_a_trace_for_every_channel_and_bad_ones_stand_out() -> None:
    values = np.random.default_rng(0).normal(size=(3, 400))
    tree = drawn(drawing.traces(values, np.ones(400, bool), ["Fz", "Cz", "Oz"], {"Cz"}))
    colours = [line.get("stroke") for line in tree.iter(f"{SVG}polyline")]
    assert colours == [drawing.LINE, drawing.BAD, drawing.LINE]


def test_no_spike_is_lost_however_short() -> None:
    values = np.zeros((1, 800))
    values[0, 333] = 3.0
    tree = drawn(drawing.traces(values, np.ones(800, bool), ["Cz"], set()))
    (line,) = tree.iter(f"{SVG}polyline")
    heights = {int(point.split(",")[1]) for point in (line.get("points") or "").split()}
    # A spike upwards is a smaller y, three quarters of a row above the middle.
    assert min(heights) < max(heights) - 8


def test_a_hole_is_a_band_and_no_line() -> None:
    held = np.ones(400, bool)
    held[100:200] = False
    tree = drawn(drawing.traces(np.ones((2, 400)), held, ["Fz", "Cz"], set()))
    (hole,) = (one for one in tree.iter(f"{SVG}rect") if one.get("class") == "hole")
    assert (hole.get("x"), hole.get("width")) == ("250", "250")
    lines = [line.get("points") or "" for line in tree.iter(f"{SVG}polyline")]
    assert len(lines) == 4, "two pieces of each of two channels"
    xs = [int(point.split(",")[0]) for line in lines for point in line.split()]
    assert not [x for x in xs if 250 < x < 500]


def test_a_bar_for_every_final_and_another_colour_beyond_the_deadline() -> None:
    tree = drawn(drawing.ledger([300.0, 4500.0], 4000.0))
    assert [bar.get("fill") for bar in tree.iter(f"{SVG}rect")] == [drawing.LINE, drawing.LATE]
    tall = [float(bar.get("height") or 0) for bar in tree.iter(f"{SVG}rect")]
    np.testing.assert_allclose(tall[1] / tall[0], 15, rtol=0.01)
    assert len(list(drawn(drawing.ledger([], 4000.0)).iter(f"{SVG}line"))) == 1


def test_the_time_line_has_windows_volumes_and_triggers_in_their_places() -> None:
    tree = drawn(drawing.time_line((0.0, 100.0), [(20.0, 24.0, "#fff")], [30.0], [50.0]))
    (window,) = tree.iter(f"{SVG}rect")
    assert float(window.get("x") or 0) == 200
    assert float(window.get("width") or 0) == 39
    assert [float(tick.get("x1") or 0) for tick in tree.iter(f"{SVG}line")] == [300, 500]


def test_words_stand_where_nothing_is_drawn_yet() -> None:
    assert "".join(drawn(drawing.nothing("no EEG yet")).itertext()) == "no EEG yet"
