from xml.etree import ElementTree

import numpy as np

from streaming.page import drawing

SVG = "{http://www.w3.org/2000/svg}"


def parsed_svg(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def test_a_bar_for_every_final_and_another_colour_beyond_the_deadline() -> None:
    tree = parsed_svg(drawing.ledger([300.0, 4500.0], 4000.0))
    assert [bar.get("fill") for bar in tree.iter(f"{SVG}rect")] == [drawing.LINE, drawing.LATE]
    tall = [float(bar.get("height") or 0) for bar in tree.iter(f"{SVG}rect")]
    np.testing.assert_allclose(tall[1] / tall[0], 15, rtol=0.01)
    assert len(list(parsed_svg(drawing.ledger([], 4000.0)).iter(f"{SVG}line"))) == 1


def test_the_time_line_has_windows_volumes_and_triggers_in_their_places() -> None:
    tree = parsed_svg(drawing.time_line((0.0, 100.0), [(20.0, 24.0, "#fff")], [30.0], [50.0]))
    (window,) = tree.iter(f"{SVG}rect")
    assert float(window.get("x") or 0) == 200
    assert float(window.get("width") or 0) == 39
    assert [float(tick.get("x1") or 0) for tick in tree.iter(f"{SVG}line")] == [300, 500]
