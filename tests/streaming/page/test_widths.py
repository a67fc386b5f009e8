"""The page in a real browser as narrow as a telephone, as a tablet and as a laptop."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from benchmarks.browser import Tab, browser, browser_path
from streaming.tools import session_page
from tests.streaming.bundles import make_bundle
from tests.streaming.player import Player
from tests.streaming.sessions import TR, WINDOW, address, end, gone, stream

pytestmark = [
    pytest.mark.full,
    pytest.mark.timed,
    pytest.mark.browser,
    pytest.mark.skipif(browser_path() is None, reason="there is no Chromium on this machine"),
]
NAME = f"widths-{os.getpid()}"
# Of a telephone, a tablet and a laptop, pixels.
SIZES = ((390, 844), (820, 1180), (1280, 800))
READY = (
    "parseInt(document.querySelectorAll('.rt-lamp')[3].innerText.split('\\n')[1]) >= 2"
    " && document.querySelector('.rt-slices').naturalWidth > 0"
)
MARKS = 30
# Everything that cannot be seen, as it is outside of the window to its left or right, or cut off. What lies
# in a place that can be scrolled may be anywhere in it.
OUTSIDE = """
(() => {
  const overflow = (one) => getComputedStyle(one).overflowX;
  const scrolls = (one) => one && (overflow(one) === 'auto' || scrolls(one.parentElement));
  const all = [...(document.querySelector('.nicegui-content') || document.body).querySelectorAll('*')];
  return all.filter((one) => one.checkVisibility() && !scrolls(one.parentElement)).filter((one) => {
    const place = one.getBoundingClientRect();
    const cut = overflow(one) === 'hidden' && one.scrollWidth > one.clientWidth + 1;
    return place.width && (place.left < -1 || place.right > innerWidth + 1 || cut);
  }).map((one) => `${one.tagName}.${one.className}: ${one.textContent.slice(0, 40)}`);
})()
"""
BUTTONS = """
[...document.querySelectorAll('button')].filter((one) => one.checkVisibility()).map((one) => {
  const place = one.getBoundingClientRect();
  return [one.innerText, place.left >= 0 && place.right <= innerWidth && place.bottom <= innerHeight];
})
"""
# How much higher the slices are drawn than they are, in relation to their width.
STRETCHED = """(() => {
  const one = document.querySelector('.rt-slices');
  const style = getComputedStyle(one);
  const drawn = style.objectFit === 'contain' ? one.naturalHeight / one.naturalWidth : one.height / one.width;
  return drawn / (one.naturalHeight / one.naturalWidth);
})()"""
LINES = "[...document.querySelectorAll('.rt-told > *')].map((one) => one.innerText)"
# The list is scrolled to its end: is its last line inside of it?
LAST_IN_SIGHT = """
(() => {
  const list = document.querySelector('.rt-told');
  list.scrollTop = list.scrollHeight;
  const [inner, outer] = [list.lastElementChild, list].map((one) => one.getBoundingClientRect());
  return inner.bottom <= outer.bottom + 1 && inner.top >= outer.top - 1;
})()
"""


def sized(tab: Tab, width: int, height: int) -> None:
    tab.ask(
        "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
    )
    tab.until(f"innerWidth === {width}")


def check(tab: Tab, size: tuple[int, int]) -> None:
    sized(tab, *size)
    assert tab.evaluate("document.documentElement.scrollWidth") <= size[0], size
    assert tab.evaluate(OUTSIDE) == [], size


def watch(tab: Tab) -> None:
    tab.until(READY)
    for _ in range(MARKS):
        tab.press("m")
    tab.until(f"document.querySelectorAll('.rt-told > *').length >= {MARKS}")
    for size in SIZES:
        check(tab, size)
        buttons: list[list[Any]] = tab.evaluate(BUTTONS)
        assert {"STOP", "BLANK (B)", "MARK (M)", "MORE", "SOUND ON"} <= {name for name, _ in buttons}
        assert all(visible for _, visible in buttons), (size, buttons)
        # While the next picture is loaded it has no size.
        tab.until(f"Math.abs({STRETCHED} - 1) < 0.02")
        # The newest stands at the top, and the first one can be scrolled to.
        tab.evaluate("document.querySelector('.rt-told').scrollTop = 0")
        marks = [line for line in tab.evaluate(LINES) if "the operator noted" in line]
        assert f"event {MARKS}" in marks[0]
        assert marks[-1].endswith("event 1")
        assert tab.evaluate(LAST_IN_SIGHT)


def test_page_and_report_fit_a_telephone_a_tablet_and_a_laptop(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", tr=TR, window=WINDOW).path
    volumes = tmp_path / "volumes"
    volumes.mkdir()
    out = tmp_path / "out"
    player = Player(NAME, volumes, 300, tr=float(TR))
    player.start()
    flags = ["--bundle", str(bundle), "--out", str(out), "--lsl", NAME, "--fmri-dir", str(volumes)]
    process = stream(*flags, "--dashboard", "127.0.0.1:0", "--seconds", "6000")
    try:
        with browser() as chrome:
            watch(chrome.open(address(process)))
            process.send_signal(signal.SIGINT)
            ended = end(process, out)
            assert ended.code == 0, ended.output
            assert session_page.run(out, None) == 0
            report = chrome.open((out / "report.html").as_uri())
            report.until("document.readyState === 'complete'")
            for size in SIZES:
                check(report, size)
    finally:
        gone(process)
        player.cancel.set()
        player.join()
