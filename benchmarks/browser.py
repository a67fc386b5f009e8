"""A real browser without a window, driven over its own debugging protocol."""

import http.client
import json
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome")
# Nothing here takes so long, s.
LIMIT = 60


def browser_path() -> str | None:
    """Return the path of this machine's browser, if it has one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """One open page."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Carry out a command of the protocol, and return what it answers."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv(timeout=LIMIT))
            if answer.get("id") == self._number:
                return answer["result"]

    def evaluate(self, code: str) -> Any:
        """Return the value of a JavaScript expression."""
        return self.ask("Runtime.evaluate", expression=code, returnByValue=True)["result"].get("value")

    def text(self) -> str:
        """Return what there is to read."""
        return self.evaluate("document.body ? document.body.innerText : ''") or ""

    def press(self, key: str) -> None:
        """Press a letter."""
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, text=key, code=f"Key{key.upper()}")

    def until(self, condition: str) -> None:
        """Wait until JavaScript says that something is so."""
        last = time.monotonic() + LIMIT
        while not self.evaluate(condition):
            assert time.monotonic() < last, f"{condition} did not come true; the page says:\n{self.text()}"
            time.sleep(0.2)

    def close(self) -> None:
        """Close the page."""
        self.ask("Page.close")
        self._socket.close()


class Browser:
    """A browser that is running."""

    def __init__(self, running: psutil.Process, port: int, sockets: ExitStack) -> None:
        self._running = running
        self._port = port
        self._sockets = sockets

    def stop_reading(self) -> None:
        """Stop all of its processes: its pages take nothing any more, and do not leave."""
        for process in [self._running, *self._running.children(recursive=True)]:
            process.suspend()

    def open(self, url: str) -> Tab:
        """Open a page of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=LIMIT)
        connection.request("PUT", f"/json/new?{quote(url, safe='')}")
        with connection.getresponse() as answer:
            target = json.load(answer)
        connection.close()
        return Tab(self._sockets.enter_context(connect(target["webSocketDebuggerUrl"], max_size=None)))


@contextmanager
def browser() -> Iterator[Browser]:
    """Start the machine's browser; it is gone with the block."""
    path = browser_path()
    assert path is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        flags += ["--remote-debugging-port=0", f"--user-data-dir={folder}", "--window-size=1280,800"]
        running = subprocess.Popen([path, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with ExitStack() as sockets:
                yield Browser(psutil.Process(running.pid), _port(Path(folder)), sockets)
        finally:
            # A process that is stopped does not end when it is asked to.
            for process in psutil.Process(running.pid).children(recursive=True):
                process.resume()
            running.send_signal(signal.SIGCONT)
            running.terminate()
            running.wait(LIMIT)


def _port(folder: Path) -> int:
    file = folder / "DevToolsActivePort"
    last = time.monotonic() + LIMIT
    while not (file.is_file() and file.read_text().strip()):
        assert time.monotonic() < last, "the browser did not start"
        time.sleep(0.1)
    return int(file.read_text().splitlines()[0])
