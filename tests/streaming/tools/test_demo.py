"""The demo as a user starts it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from rtdecode import child
from rtdecode.disk.video import read_mp4, write_mp4
from rtdecode.errors import UsageError
from rtdecode.phantom.film.watched import watched
from streaming.tools import demo
from tests.refusals import refused

DEMO = [sys.executable, "-m", "rtdecode.cli", "demo", "--no-open", "--out"]


@pytest.mark.full
@pytest.mark.timed
def test_the_demo_decodes_a_simulated_participant(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = subprocess.run(
        [*DEMO, str(out), "--seconds", "16"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "simulated participant" in " ".join(done.stderr.split())
    assert "preset easy" in done.stderr
    report = json.loads((out / "report.json").read_text())
    windows = report["windows"]
    assert (windows["final"], windows["preview"], windows["skipped"]) == (4, 4, 0), done.stderr
    assert report["accuracy"]["identification_2way"]["n"] == 4
    assert report["clock"]["source"] == "trigger"
    assert report["simulated"] is True
    assert len(read_mp4(out / "film.mp4")) == 4 * 32
    assert (out / "contact_sheet.png").is_file()
    assert not (out / "scanner").exists()
    assert done.stdout.split()[-1] == str(out / "report.json")


@pytest.mark.full
def test_a_demo_that_is_stopped_leaves_no_process(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*DEMO, str(tmp_path / "out")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        until = time.monotonic() + 60
        children: list[psutil.Process] = []
        while len(children) < 3:
            assert time.monotonic() < until
            children = psutil.Process(process.pid).children(recursive=True)
            time.sleep(0.2)
        time.sleep(3)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=40)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


@pytest.mark.full
def test_the_demo_opens_its_page_by_a_file_and_hands_the_token_on_unseen(tmp_path: Path) -> None:
    opened_page = tmp_path / "seen"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$@" >> {opened_page}\ncat "${{1#file://}}" >> {opened_page}\n')
    browser.chmod(0o700)
    out = tmp_path / "out"
    words = [*DEMO, str(out), "--recorded", "--seconds", "8", "--dashboard", "localhost:0"]
    process = subprocess.Popen(
        words,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "DISPLAY": ":99", "BROWSER": str(browser)},
    )
    urls = list[str]()
    public = list[str]()
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "http://" in line:
                urls.append(line.split()[-1])
                # What other accounts, or some of them, can read of a process.
                for child in psutil.Process(process.pid).children(recursive=True):
                    public += [*child.cmdline(), *child.environ().values()]
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    # A browser that is open goes on from one run to the next.
    assert len(urls) == 2
    assert len(set(urls)) == 1
    token = urls[0].partition("?token=")[2]
    assert len(token) > 20
    assert "--dashboard-token-fd" in public
    assert not [word for word in public if token in word]
    command, page = opened_page.read_text().split("\n", 1)
    assert command == (out / "run009" / "page.html").as_uri()
    assert urls[0] in page


def test_the_real_film_is_a_small_silent_minute_of_many_shots() -> None:
    path = demo.FILM
    assert path.stat().st_size <= 2_000_000
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        assert {*container.metadata} <= {"major_brand", "minor_version", "compatible_brands"}
        video = container.streams.video[0]
        assert (video.height, video.frames, video.average_rate) == (240, 1440, 24)
    film = watched(str(path), 60.0, 0, "grid")
    assert film.count == 480
    assert 15 <= len(film.cut_frames) <= 25
    # Nothing of the shot before is left at its beginning.
    assert film.cut_frames[1] > 2
    credit = (path.parent / "README.md").read_text()
    for phrase in ("Caminandes 3: Llamigos", "(c) Blender Foundation", "CC-BY 4.0", "cut", "sound"):
        assert phrase in credit


def test_the_demo_tells_a_film_that_cannot_be_shown_before_anything_starts(tmp_path: Path) -> None:
    film = re.compile(r"demo\.mp4$")
    with refused(UsageError, "film-too-short", film=film, duration_s=60.0, required_s=61.0):
        demo.run(61.0, tmp_path / "out")
    with refused(UsageError, "demo-film-conflict"):
        demo.run(out=tmp_path / "out", recorded=True, film="shapes")
    with refused(UsageError, "detail-unsupported", detail=0.5):
        demo.run(out=tmp_path / "out", recorded=True, detail=0.5)
    with refused(UsageError, "demo-bundle-conflict", bundle="phantom", own="haxby"):
        demo.run(out=tmp_path / "out", recorded=True, bundle="phantom")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return the commands that demos start from now on; each ends at once, and did all that it had to."""
    called = list[list[str]]()

    def ends_at_once(*command: str) -> list[str]:
        called.append([*command])
        return [sys.executable, "-c", ""]

    monkeypatch.setattr(child, "command", ends_at_once)
    return called


def _value(command: list[str], option: str) -> str:
    return command[command.index(option) + 1]


def test_the_scanner_of_the_demo_measures_as_often_as_the_bundle_was_trained(
    tmp_path: Path, commands: list[list[str]]
) -> None:
    for name in ("phantom", "mindvideo-tiny"):
        demo.run(out=tmp_path / name, film="shapes", bundle=name)
    assert [_value(command, "--tr") for command in commands[::2]] == ["0.8", "2"]
    assert [_value(command, "--bundle") for command in commands[1::2]] == ["phantom", "mindvideo-tiny"]


def test_a_short_film_is_shown_for_as_long_as_it_is(tmp_path: Path, commands: list[list[str]]) -> None:
    film = tmp_path / "short.mp4"
    write_mp4(film, np.zeros((130, 48, 64, 3), np.uint8), 25)
    demo.run(film=str(film), out=tmp_path / "all")
    demo.run(film=str(film), out=tmp_path / "less", seconds=4.5)
    demo.run(out=tmp_path / "own")
    assert [words[0] for words in commands] == ["simulate", "stream"] * 3
    lengths = [_value(words, "--seconds") for words in commands]
    assert lengths == ["5.25", "5.25", "4.5", "4.5", "60", "60"]
    with refused(UsageError, "film-too-short", film=str(film), duration_s=5.25, required_s=6.0):
        demo.run(film=str(film), out=tmp_path / "more", seconds=6.0)


def test_ctrl_c_in_the_first_recorded_run_ends_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = list[str]()
    waits = "import time; time.sleep(600)"
    presses = f"import os, signal; os.kill(os.getppid(), signal.SIGINT); {waits}"

    def stands_in(*command: str) -> list[str]:
        started.append(command[0])
        assert len(started) <= 2
        return [sys.executable, "-c", presses if command[0] == "stream" else waits]

    monkeypatch.setattr(child, "command", stands_in)
    monkeypatch.setattr(demo.webbrowser, "open", lambda _: pytest.fail("there is no film to open"))
    assert demo.run(out=tmp_path / "out", recorded=True, open_film=True) == 0
    assert started == ["play-volumes", "stream"]
