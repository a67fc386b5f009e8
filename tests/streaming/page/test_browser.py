"""The page in a real browser, during a session that is made to fail and to recover."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from benchmarks.browser import Browser, Tab, browser, browser_path
from rtdecode.disk.recording import Recording
from rtdecode.types import EegChunk, Volume
from streaming.session import entrance
from tests.streaming.bundles import make_bundle
from tests.streaming.player import Player
from tests.streaming.sessions import LIMIT, TR, WINDOW, address, end, gone, play, root, stream, text, until

pytestmark = [
    pytest.mark.full,
    pytest.mark.timed,
    pytest.mark.browser,
    pytest.mark.skipif(browser_path() is None, reason="there is no Chromium on this machine"),
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
LAMPS = "document.querySelectorAll('.rt-lamp').length === 6"
TRACES = "document.querySelector('.rt-traces').toDataURL()"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("b") / "bundle", tr=TR, window=WINDOW).path


def test_the_operator_sees_what_comes_what_fails_and_what_comes_back(bundle: Path, tmp_path: Path) -> None:
    volumes = tmp_path / "volumes"
    volumes.mkdir()
    player = Player(NAME, volumes, 600, tr=float(TR), eeg_away=(AWAY_S, AWAY_S + 15))
    player.start()
    options = ["--bundle", str(bundle), "--out", str(tmp_path / "out"), "--seconds", "6000"]
    options += ["--lsl", NAME, "--fmri-dir", str(volumes)]
    process = stream(*options, "--dashboard", "127.0.0.1:0")
    try:
        address(process)
        with browser() as chrome:
            _watch(chrome, way(tmp_path / "out"), process)
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
    tab.until(LAMP.format(0, "EEG: OK"))
    other = chrome.open(url)
    _blank(tab, other)
    _many(chrome, url, process)
    # The amplifier falls silent.
    tab.until(LAMP.format(0, "EEG: check"))
    assert "program has stopped sending" in tab.text()
    tab.until(LAMP.format(0, "EEG: OK"))
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
            tab.until("document.querySelectorAll('.rt-clip[data-shown^=\"twin/\"]').length === 1")
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
    assert "Withdrawn: everything that this session had written was deleted." in ended.output
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


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "[::1]"])
def test_a_page_wants_its_token(host: str, tmp_path: Path) -> None:
    with waiting(tmp_path, host) as (process, url), browser() as chrome:
        place = url.removeprefix("http://").split("/")[0].replace("0.0.0.0", "127.0.0.1")
        refused = chrome.open(f"http://{place}/?token=wrong")
        refused.until("document.body.innerText.includes('needs the token')")
        right = chrome.open(way(tmp_path / "out"))
        right.until(LAMPS)
        assert right.evaluate("location.href") == f"http://{place}{root(url)}/"
        # Typed into another tab, and loaded again.
        typed = chrome.open(f"http://{place}/{url.split('/')[3]}")
        typed.until(LAMPS)
        _reload(typed)
        _socket(place, url)
        process.send_signal(signal.SIGINT)
        ended = end(process, tmp_path / "out")
    assert ended.code == 0
    assert "The page refused " in ended.output
    assert url.startswith(f"http://{host}:")
    assert not (tmp_path / "out" / entrance.NAME).exists()


def _socket(place: str, url: str) -> None:
    """Sockets, by which buttons are pressed, are for the page itself."""
    port = place.rpartition(":")[2]
    token = url.partition("token=")[2]
    socket = f"ws://{place}{root(url)}/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    cookie = {"Cookie": f"rtdecode-{port}={token}"}
    for headers in ({}, cookie | {"Origin": "http://127.0.0.1:9"}, cookie | {"Sec-Fetch-Site": "same-site"}):
        with pytest.raises(InvalidStatus) as caught, connect(socket, additional_headers=headers):
            pass
        assert caught.value.response.status_code == 403
    with connect(socket, additional_headers=cookie) as opened:
        assert "sid" in str(opened.recv(LIMIT))


@contextmanager
def waiting(folder: Path, host: str = "127.0.0.1") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a session that waits for a scanner, and say where its page is."""
    (folder / "volumes").mkdir(parents=True)
    flags = ["--out", str(folder / "out"), "--fmri-dir", str(folder / "volumes"), "--wait", "0"]
    process = stream(*flags, "--dashboard", f"{host}:0")
    try:
        yield process, address(process)
    finally:
        gone(process)


def _reload(tab: Tab) -> None:
    """Ask for the page anew, by the cookie alone."""
    tab.evaluate("window.before = true")
    tab.ask("Page.reload")
    tab.until(f"!window.before && {LAMPS}")


def way(out: Path) -> str:
    """The file that a browser is started with; it leads to the page."""
    return (out / entrance.NAME).as_uri()


def test_two_pages_in_one_browser_keep_their_tokens(tmp_path: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    with waiting(folders[0]) as (first, _), waiting(folders[1]) as (second, _), browser() as chrome:
        tabs = [chrome.open(way(folder / "out")) for folder in folders]
        for tab in tabs * 2:
            tab.until(LAMPS)
            _reload(tab)
        assert "rtdecode" not in _cookies_at_another_port(chrome)
        # Each button reaches its own session.
        for tab, process, folder in zip(tabs, (first, second), folders, strict=True):
            tab.press("m")
            until(lambda folder=folder: "event 1" in text(folder / "out" / "operator.tsv"))
            tab.evaluate(CLICK.format("STOP"))
            tab.until("document.body.innerText.includes('Stop the session?')")
            tab.evaluate(CLICK.format("STOP IT"))
            assert end(process, folder / "out").report["ended"] == "stopped on the page"


def _cookies_at_another_port(chrome: Browser) -> str:
    """What a browser tells another server of this machine, as any account of it can start one."""
    cookies = list[str]()

    class Neighbour(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            cookies.append(self.headers.get("Cookie", ""))
            self.send_response(200)
            self.send_header("Set-Cookie", "neighbour=1; SameSite=Strict")
            self.end_headers()
            self.wfile.write(b"neighbour")

        def log_message(self, *_arguments: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Neighbour) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tab = chrome.open(f"http://127.0.0.1:{server.server_port}/")
        tab.until("document.body.innerText === 'neighbour'")
        tab.ask("Page.reload")
        until(lambda: any("neighbour=1" in cookie for cookie in cookies))
        server.shutdown()
    return " ".join(cookies)


def test_a_session_whose_page_is_killed_goes_on_to_its_end(bundle: Path, tmp_path: Path) -> None:
    seconds = 14
    finals_before = []

    def kill(process: subprocess.Popen[str], out: Path) -> None:
        address(process)
        with browser() as chrome:
            tab = chrome.open(way(out))
            tab.until("document.querySelector('.rt-clip').dataset.shown")
            tab.press("m")
            until(lambda: "event 1" in text(out / "operator.tsv"))
            finals_before.append(text(out / "clips.jsonl").count('"final"'))
            page(process).kill()
            # The viewer that is left goes on trying.
            until(lambda: text(out / "clips.jsonl").count('"final"') > finals_before[0] + 3)

    record = tmp_path / "record"
    flags = ["--seconds", str(seconds), "--record", str(record), "--dashboard", "127.0.0.1:0"]
    ended = play(tmp_path / "s", bundle, *flags, seconds=120, during=kill)
    assert ended.code == 0, ended.output
    assert ended.output.count("The page ended unexpectedly (killed by SIGKILL). Everything else goes on") == 1
    assert "Traceback" not in ended.output
    # Not of Python either, which would clean up after the page.
    assert "leaked" not in ended.output
    assert ended.report["ended"] == "the requested seconds were decoded"
    assert ended.report["windows"]["final"] == ended.report["windows"]["expected"] == seconds
    assert any("The page ended" in sentence["text"] for sentence in ended.report["told"])
    assert not (ended.out / entrance.NAME).exists()
    recording = Recording(record)
    items = list(recording.events())
    assert sum(isinstance(item, Volume) for item in items) >= ended.report["fmri"]["volumes"]
    chunks = [item for item in items if isinstance(item, EegChunk)]
    assert sum(len(chunk.stamps) for chunk in chunks) == ended.report["eeg"]["samples"]


def page(process: subprocess.Popen[str]) -> psutil.Process:
    """The process of a session that serves its page."""
    return next(
        child
        for child in psutil.Process(process.pid).children()
        if any(socket.status == psutil.CONN_LISTEN for socket in child.net_connections("tcp"))
    )
