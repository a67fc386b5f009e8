import http.client
import json
import signal
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.streaming.bundles import make_bundle
from tests.streaming.sessions import TR, WINDOW, play, text, until


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("b") / "bundle", tr=TR, window=WINDOW).path


def address(process: subprocess.Popen[str]) -> str:
    """Read where the page is from what the session prints."""
    assert process.stdout is not None
    for line in process.stdout:
        if "page" in line and "http://" in line:
            return line.split()[-1]
    raise AssertionError("no address was printed")


def get(url: str, path: str, **headers: str) -> tuple[int, bytes]:
    """Ask for a page exactly as it is written: no library tidies the path up."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_session_is_seen_on_its_page_and_ends_with_it(bundle: Path, tmp_path: Path) -> None:
    children: list[psutil.Process] = []

    def look(process: subprocess.Popen[str], out: Path) -> None:
        url = address(process)
        assert get(url, "/")[0] == 200
        until(lambda: json.loads(get(url, "/traces")[1])["bad"])
        until(lambda: '"final"' in text(out / "clips.jsonl"))
        clip = json.loads(text(out / "clips.jsonl").splitlines()[0])
        shown = f"/clip/{clip['clip']}/{clip['revision']}"
        until(lambda: get(url, shown)[0] == 200)
        assert get(url, shown)[1].startswith(b"\xff\xd8")
        assert get(url, "/carpet/1")[1].startswith(b"\x89PNG")
        for path in (
            "/clip/99999/final",
            "/clip/0/..%2f..%2freport.json",
            "/clip/../report.json",
            "/report.json",
        ):
            assert get(url, path)[0] in (404, 422), path
        assert get(url, "/", Host="evil.example")[0] == 403
        assert get(url, "/", Origin="http://evil.example")[0] == 403
        children.extend(psutil.Process(process.pid).children(recursive=True))
        process.send_signal(signal.SIGINT)

    flags = ("--seconds", "6000", "--dashboard", "127.0.0.1:0")
    ended = play(tmp_path / "s", bundle, *flags, seconds=120, during=look)
    assert ended.code == 0
    assert "Traceback" not in ended.said
    assert ended.report["ended"] == "stopped by SIGINT"
    assert len(children) >= 2
    psutil.wait_procs(children, timeout=10)
    assert not [child for child in children if child.is_running()], "no process is left"
