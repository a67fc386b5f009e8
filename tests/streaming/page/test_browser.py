"""The page in a real browser, during a session that is made to fail and to recover."""

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.browser import Browser, Tab, browser, found
from tests.streaming.bundles import make_bundle
from tests.streaming.player import Player
from tests.streaming.sessions import LIMIT, TR, WINDOW, address, end, gone, play, stream, text, until

pytestmark = [
    pytest.mark.full,
    pytest.mark.browser,
    pytest.mark.skipif(found() is None, reason="there is no Chromium on this machine"),
]
NAME = f"page-{os.getpid()}"
LAMP = "document.querySelectorAll('.rt-lamp')[{}].innerText.includes('{}')"
FINALS = "parseInt(document.querySelectorAll('.rt-lamp')[3].innerText.split('\\n')[1]) >= 3"
BLANK = "getComputedStyle(document.querySelector('.rt-blank')).display !== 'none'"
# When the amplifier goes away, s: after all that is looked at while it is there.
AWAY_S = 60.0
CLICK = "[...document.querySelectorAll('button')].find(b => b.innerText === '{}').click()"
MENU = (
    "[...document.querySelectorAll('button')].find(b => b.innerText === 'MORE').click(); setTimeout(() => "
    "[...document.querySelectorAll('.q-item')].find(b => b.innerText.trim() === '{}').click(), 500)"
)
TRACES = "document.querySelector('.rt-traces').toDataURL()"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("b") / "bundle", tr=TR, window=WINDOW).path


def test_the_operator_sees_what_comes_what_fails_and_what_comes_back(bundle: Path, tmp_path: Path) -> None:
    volumes = tmp_path / "volumes"
    volumes.mkdir()
    player = Player(NAME, volumes, 600, tr=float(TR), eeg_away=(AWAY_S, AWAY_S + 15))
    player.start()
    given = ["--bundle", str(bundle), "--out", str(tmp_path / "out"), "--seconds", "6000"]
    given += ["--lsl", NAME, "--fmri-dir", str(volumes)]
    process = stream(*given, "--dashboard", "127.0.0.1:0")
    try:
        url = address(process)
        with browser() as chrome:
            _watch(chrome, url, process)
            ended = end(process, tmp_path / "out")
    finally:
        gone(process)
        player.cancel.set()
        player.join()
    assert ended.code == 0
    assert ended.report["ended"] == "stopped on the page"


def _watch(chrome: Browser, url: str, process: subprocess.Popen[str]) -> None:
    tab = chrome.open(url)
    tab.until(FINALS)
    # The clip has been drawn, and the traces move.
    tab.until("document.querySelector('.rt-clip').dataset.shown")
    for _ in range(2):
        before = tab.evaluate(TRACES)
        tab.until(f"{TRACES} !== {before!r}")
    for drawing in ("line", "low"):
        tab.until(f"document.querySelectorAll('.rt-{drawing} svg rect').length > 0")
    tab.until(LAMP.format(0, "EEG: well"))
    other = chrome.open(url)
    _blank(tab, other)
    _many(chrome, url, process)
    # The amplifier falls silent.
    tab.until(LAMP.format(0, "EEG: look"))
    assert "program has stopped sending" in tab.text()
    tab.until(LAMP.format(0, "EEG: well"))
    # Stopping asks once.
    tab.evaluate(CLICK.format("STOP"))
    tab.until("document.body.innerText.includes('Stop the session?')")
    assert process.poll() is None
    tab.evaluate(CLICK.format("STOP IT"))


def test_the_operator_notes_keeps_and_withdraws(bundle: Path, tmp_path: Path) -> None:
    def look(process: subprocess.Popen[str], out: Path) -> None:
        with browser() as chrome:
            tab = chrome.open(address(process))
            tab.until(FINALS)
            for key in "msn":
                tab.press(key)
            until(lambda: "event 1" in text(out / "operator.tsv"))
            until(lambda: list((out / "snapshots").glob("clip_*.png")) != [])
            # The null brain's clip comes with the next final.
            tab.until("document.querySelectorAll('.rt-clip[data-shown^=\"/twin/\"]').length === 1")
            tab.evaluate(MENU.format("this run is aborted"))
            until(lambda: "aborted" in text(out / "operator.tsv"))
            tab.evaluate(MENU.format("withdraw ..."))
            tab.until("document.body.innerText.includes('Withdraw?')")
            assert process.poll() is None
            tab.evaluate(CLICK.format("DELETE EVERYTHING"))
            tab.until("document.body.innerText.includes('Press again within 10 seconds')")
            # A double click is one press.
            tab.evaluate(CLICK.format("DELETE EVERYTHING") + "; " + CLICK.format("DELETE EVERYTHING"))
            time.sleep(1)
            assert process.poll() is None
            assert out.is_dir()
            tab.evaluate(CLICK.format("DELETE EVERYTHING"))
            tab.until(BLANK)
            tab.until("document.querySelectorAll('canvas, img').length === 0")
            assert process.wait(LIMIT) == 0

    record = tmp_path / "record"
    flags = ("--seconds", "6000", "--record", str(record), "--dashboard", "127.0.0.1:0")
    ended = play(tmp_path / "s", bundle, *flags, seconds=300, during=look)
    assert ended.code == 0
    assert "Withdrawn: everything that this session had written was deleted." in ended.said
    assert not ended.out.exists()
    assert not record.exists()


def _blank(tab: Tab, other: Tab) -> None:
    """One key blanks every display, and shows them again."""
    assert not other.evaluate(BLANK)
    tab.press("b")
    tab.until(BLANK)
    other.until(BLANK)
    tab.press("b")
    other.until(f"!({BLANK})")
    other.close()


def _many(chrome: Browser, url: str, process: subprocess.Popen[str]) -> None:
    """Twenty viewers come and go, and the session has the same processes and open files after them."""
    pages = [child for child in psutil.Process(process.pid).children() if child.num_threads() > 3]
    tabs = [chrome.open(url) for _ in range(20)]
    for tab in tabs:
        tab.until(FINALS)
    for tab in tabs:
        tab.close()
    assert process.poll() is None
    assert all(page.is_running() for page in pages)


def test_a_page_for_other_machines_wants_its_token(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "volumes").mkdir()
    given = ["--bundle", str(bundle), "--out", str(tmp_path / "out"), "--fmri-dir", str(tmp_path / "volumes")]
    process = stream(*given, "--wait", "0", "--dashboard", "0.0.0.0:0")
    try:
        url = address(process)
        port = url.split(":")[2].split("/")[0]
        with browser() as chrome:
            wrong = chrome.open(f"http://127.0.0.1:{port}/?token=wrong")
            wrong.until("document.body.innerText.includes('needs the token')")
            right = chrome.open(url.replace("0.0.0.0", "127.0.0.1"))
            right.until("document.querySelectorAll('.rt-lamp').length === 6")
            assert "token" not in right.evaluate("location.href")
        process.send_signal(signal.SIGINT)
        assert end(process, tmp_path / "out").code == 0
    finally:
        gone(process)
