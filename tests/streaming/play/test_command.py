"""Films over real marker streams, into a real recording, and into a window without a screen."""

import contextlib
import csv
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import count
from pathlib import Path

import av
import numpy as np
import pylsl
import pytest

from rtdecode.disk import film_marks
from rtdecode.disk.recording import Recording
from rtdecode.disk.video import write_mp4
from rtdecode.errors import RtDecodeError, UsageError
from rtdecode.types import EegChunk, Trigger
from streaming.play import command
from streaming.play.frames import FilmPictures, read_film
from streaming.play.screen import FilmWindow, Patch, read_patch
from streaming.play.start_trigger import is_trigger
from streaming.sources.lsl.markers import MarkerSource
from streaming.sources.lsl.source import LslSource
from tests.refusals import refused
from tests.streaming.bundles import make_bundle
from tests.streaming.player import SFREQ, Player, markers, outlet
from tests.streaming.sessions import LIMIT

_NUMBER = count()
GREEN = (0, 180, 0)


@pytest.fixture
def name() -> str:
    return f"play-test-{os.getpid()}-{next(_NUMBER)}"


def make_film(path: Path, frames: int, fps: float = 25) -> Path:
    write_mp4(path, np.full((frames, 48, 64, 3), GREEN, np.uint8), fps)
    return path


def until(condition: Callable[[], bool], seconds: float = LIMIT) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.005)


@contextlib.contextmanager
def program(*words: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "rtdecode.cli", *map(str, words)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def marker_stream(name: str, done: Callable[[list[tuple[str, float]]], bool]) -> list[tuple[str, float]]:
    """What a reader of the film's markers gets."""
    source = MarkerSource(name, "-film")
    got = []

    def enough() -> bool:
        got.extend((label, stamp) for label, stamp, _ in source.poll())
        return done(got)

    until(enough)
    return got


def ended(got: list[tuple[str, float]]) -> bool:
    return bool(got) and got[-1][0] == "film end"


def on_network(stream: str) -> bool:
    return any(s.name() == stream for s in pylsl.resolve_streams(wait_time=0.5))


def table(path: Path) -> list[tuple[int, float, float]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [(int(r["frame"]), float(r["shown_at"]), float(r["since_start_s"])) for r in rows]


def test_every_frame_is_marked_when_it_was_shown(tmp_path: Path, name: str) -> None:
    film = make_film(tmp_path / "a film.mp4", 25)
    log = tmp_path / "log.tsv"
    with program("play", film, "--lsl", name, "--start-on", "now", "--headless", "--log", log) as process:
        got = marker_stream(name, ended)
        _, stderr = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, stderr
    rows = table(log)
    assert got[0][0] == "film start a film.mp4 25 25"
    assert [label for label, _ in got[1:-1]] == [f"frame {n}" for n, _, _ in rows]
    assert f"{len(rows)} frames shown, {25 - len(rows)} dropped" in stderr
    stamps = np.array([stamp for _, stamp in got[1:-1]])
    # The stamps are the table's, but for what liblsl takes for the offset of the two clocks.
    assert np.abs(stamps - [shown_at for _, shown_at, _ in rows]).max() < 0.05
    late = np.array([since - n / 25 for n, _, since in rows])
    assert late.min() >= -1e-5
    assert got[-1][1] >= got[0][1] + 25 / 25 - 0.05


def test_what_is_late_is_dropped_and_the_rest_stays_in_time(tmp_path: Path, name: str) -> None:
    count = 60
    film = make_film(tmp_path / "film.mp4", count)
    log = tmp_path / "log.tsv"
    words = ("play", film, "--lsl", name, "--start-on", "now", "--wait", 0, "--headless", "--log", log)
    with program(*words) as process:
        until(lambda: log.exists() and log.read_text().count("\n") > 10)
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.6)
        process.send_signal(signal.SIGCONT)
        _, stderr = process.communicate(timeout=LIMIT)
    rows = table(log)
    numbers = [n for n, _, _ in rows]
    assert count - len(numbers) >= 12
    assert f"{count - len(numbers)} dropped" in stderr
    assert numbers == sorted(numbers)
    gap = int(np.argmax(np.diff(numbers))) + 1
    assert numbers[gap] - numbers[gap - 1] >= 12
    # Lateness does not add up: after the gap frames are shown in their own time again.
    assert min(since - n / 25 for n, _, since in rows[gap:]) < 1 / 25


def test_ctrl_c_ends_it_in_order(tmp_path: Path, name: str) -> None:
    film = make_film(tmp_path / "film.mp4", 500)
    log = tmp_path / "log.tsv"
    with program("play", film, "--lsl", name, "--start-on", "now", "--headless", "--log", log) as process:
        threading.Timer(0.0, lambda: _interrupt_after(process, log)).start()
        got = marker_stream(name, ended)
        _, stderr = process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    assert "stopped: " in stderr
    assert "Traceback" not in stderr
    assert 5 < len(got) < 400
    assert len(table(log)) == len(got) - 2


def _interrupt_after(process: subprocess.Popen[str], log: Path) -> None:
    until(lambda: log.exists() and log.read_text().count("\n") > 8)
    process.send_signal(signal.SIGINT)


def test_a_films_markers_are_never_taken_for_triggers(name: str) -> None:
    film = pylsl.StreamOutlet(pylsl.StreamInfo(f"{name}-film", "Markers", 1, 0, pylsl.cf_string, ""))
    source = LslSource(name)
    # The film's stream is there before the EEG, and the source knows of it.
    until(lambda: (source.poll(), f"{name}-film" in source.state)[1])
    eeg = outlet(name)
    until(lambda: (source.poll(), source.montage is not None)[1])
    until(lambda: bool(eeg.have_consumers()))
    items: list[EegChunk | Trigger] = []
    began_at = time.monotonic()
    # After 3 s other marker streams of the host are taken if there is no NAME-markers.
    while time.monotonic() < began_at + 4.0:
        film.push_sample(["frame 1"])
        items += source.poll()
        time.sleep(0.05)
    assert not source.has_triggers
    assert not [i for i in items if isinstance(i, Trigger)]
    marker_outlet = markers(name)
    until(lambda: (source.poll(), source.has_triggers and marker_outlet.have_consumers())[1])
    for label in ("film start x 25 3", "frame 0", "R128", "film end"):
        marker_outlet.push_sample([label])
    until(lambda: (items.extend(source.poll()), any(isinstance(i, Trigger) for i in items))[1])
    time.sleep(0.2)
    items += source.poll()
    assert [i.label for i in items if isinstance(i, Trigger)] == ["R128"]
    source.close()


@pytest.mark.full
@pytest.mark.timed
def test_a_recording_carries_the_film_that_the_first_trigger_started(tmp_path: Path, name: str) -> None:
    bundle = make_bundle(tmp_path / "bundle", fmri=False)
    film = make_film(tmp_path / "film.mp4", 50)
    log = tmp_path / "log.tsv"
    player = Player(name, None, 6.0, lead=2.5)
    words = ("--lsl", name, "--bundle", bundle.path, "--out", tmp_path / "out", "--record", tmp_path / "r")
    with (
        program("play", film, "--lsl", name, "--headless", "--log", log) as playing,
        program("stream", *words, "--wait", 30, "--lost-after", 4) as session,
    ):
        until(lambda: on_network(f"{name}-film"))
        player.start()
        _, stderr = playing.communicate(timeout=60)
        assert playing.returncode == 0, stderr
        player.join(20)
        session.send_signal(signal.SIGINT)
        _, stderr = session.communicate(timeout=30)
        assert session.returncode == 0, stderr
    recording = Recording(tmp_path / "r")
    rows = table(log)
    (presentation,) = recording.films()
    triggers = [i for i in recording.events() if isinstance(i, Trigger)]
    assert {t.label for t in triggers} == {"R128"}
    assert presentation.name == film_marks.name_digest("film.mp4")
    assert (presentation.fps, presentation.frames, presentation.ended) == (25, 50, True)
    assert presentation.frame_numbers.tolist() == [n for n, _, _ in rows]
    assert np.abs(presentation.shown_at - [shown_at for _, shown_at, _ in rows]).max() < 0.003
    first = min(t.stamp for t in triggers)
    assert presentation.onset_at == pytest.approx(first, abs=0.04)


_AMPLIFIERS = """
import sys, time, pylsl
streams = [pylsl.StreamInfo(name, "EEG", 1, 100.0, pylsl.cf_float32, name) for name in sys.argv[1:]]
outlets = [pylsl.StreamOutlet(stream) for stream in streams]
marks = pylsl.StreamOutlet(pylsl.StreamInfo("amp-markers", "Markers", 1, 0, pylsl.cf_string, "marks"))
print("on", flush=True)
while True:
    time.sleep(0.1)
    marks.push_sample(["R128"])
"""


@contextlib.contextmanager
def amplifiers(*names: str) -> Iterator[None]:
    command = [sys.executable, "-c", _AMPLIFIERS, *names]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "on\n"
            yield
        finally:
            process.kill()


def test_without_a_name_the_only_eeg_stream_is_the_sessions(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The processes that are started here see only each other.
    config = tmp_path / "lsl_api.cfg"
    config.write_text(f"[lab]\nSessionID = {name}\n[log]\nlevel = -3\n")
    monkeypatch.setenv("LSLAPICFG", str(config))
    film = make_film(tmp_path / "film.mp4", 5)
    with program("play", film, "--headless", "--start-on", "now", "--wait", 0) as process:
        _, stderr = process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    assert "there is no EEG stream on this network (seen: none)" in stderr
    assert "5 frames shown" in stderr
    with amplifiers("amp"), program("play", film, "--headless") as process:
        _, stderr = process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    assert "the EEG stream is amp, the only one on this network" in stderr
    assert "frames are marked on the LSL stream amp-film" in stderr
    assert "5 frames shown" in stderr
    with amplifiers("amp", "other"), program("play", film, "--headless") as process:
        assert process.stderr is not None
        assert "several EEG streams (amp, other): choose one by --lsl NAME" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 0


def test_a_stim_channel_starts_a_film_at_its_edge(tmp_path: Path, name: str) -> None:
    eeg = outlet(name, ("Cz", "TRIG"), types=("EEG", "stim"))
    got: list[tuple[str, float]] = []
    edges: list[float] = []

    def amplify() -> None:
        until(lambda: bool(eeg.have_consumers()))
        source = MarkerSource(name, "-film")
        until(lambda: (source.poll(), source.is_found)[1])
        began = pylsl.local_clock()
        edge_at = began + 1.0
        edges.append(edge_at)
        sent = 0
        while not ended(got) and sent < 60 * SFREQ:
            time.sleep(0.005)
            due = int((pylsl.local_clock() - began) * SFREQ)
            if due > sent:
                stamps = began + np.arange(sent, due) / SFREQ
                data = np.stack([np.zeros(due - sent), 8.0 * (stamps >= edge_at)], axis=1)
                eeg.push_chunk(data.astype(np.float32), stamps.tolist())
                sent = due
            got.extend((label, stamp) for label, stamp, _ in source.poll())

    amplifier = threading.Thread(target=amplify)
    amplifier.start()
    assert command.run(command.PlayOptions(make_film(tmp_path / "film.mp4", 5), name, headless=True)) == 0
    amplifier.join()
    assert got[0] == ("film start film.mp4 25 5", pytest.approx(edges[0], abs=0.1))


@pytest.mark.parametrize(
    ("label", "start_label", "is_one"),
    [
        ("R128", None, True),
        ("8", None, True),
        ("New Segment", None, False),
        ("frame 8", None, False),
        ("S  1", None, False),
        ("S  1", "S  1", True),
        ("R128", "S  1", False),
        ("frame 8", "frame 8", False),
    ],
)
def test_which_markers_start_a_film(label: str, start_label: str | None, is_one: bool) -> None:
    assert is_trigger(label, start_label) is is_one


def test_what_cannot_be_is_refused_in_words(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", 3)
    (tmp_path / "text.mp4").write_text("no film")
    (tmp_path / "there.tsv").touch()
    uneven(tmp_path / "uneven.mp4")
    starts = {"start_on": "soon", "available": ["trigger", "key", "now"]}
    cases: list[tuple[dict[str, object], str, dict[str, object]]] = [
        ({"film": tmp_path / "none.mp4"}, "film-missing", {"path": tmp_path / "none.mp4"}),
        ({"film": tmp_path / "text.mp4"}, "film-unreadable", {"path": tmp_path / "text.mp4"}),
        ({"film": tmp_path / "uneven.mp4"}, "film-fps-variable", {"path": tmp_path / "uneven.mp4"}),
        ({"start_on": "key"}, "play-start-key-headless", {}),
        ({"start_on": "soon"}, "play-start-unknown", starts),
        ({"screen": 0}, "play-screen-headless-conflict", {}),
        ({"log": tmp_path / "there.tsv"}, "play-log-unwritable", {"path": tmp_path / "there.tsv"}),
        ({"log": tmp_path / "no" / "a.tsv"}, "play-log-unwritable", {"path": tmp_path / "no" / "a.tsv"}),
        ({"wait": -1.0}, "play-wait-invalid", {"wait_s": -1.0}),
        ({"lsl": " "}, "play-lsl-name-empty", {}),
    ]
    for changed, code, values in cases:
        options = {"film": film, "lsl": "x", "start_on": "now", "headless": True, "wait": 0.0} | changed
        with refused(UsageError, code, **values):
            command.run(command.PlayOptions(**options))  # type: ignore[arg-type]
    for patch in ("middle", "top-left:0", "top-left:big", "top-left:-4"):
        with refused(UsageError, "play-patch-malformed", corners=re.compile("bottom-right")):
            read_patch(patch)


def test_a_film_that_was_cut_short_is_told_before_it_is_shown(tmp_path: Path, name: str) -> None:
    film = make_film(tmp_path / "film.mp4", 250)
    assert read_film(film).lost == 0
    content = film.read_bytes()
    film.write_bytes(content[: len(content) * 3 // 4])
    film_file = read_film(film)
    assert film_file.lost == 250 - film_file.frames > 0
    with program("play", film, "--lsl", name, "--headless", "--start-on", "now", "--wait", 0) as process:
        assert process.stderr is not None
        stderr = process.stderr.readline() + process.stderr.readline()
    assert f"it says that it has {film_file.lost} frames more" in stderr


def test_a_film_that_is_damaged_on_its_way_ends_there_and_says_so(tmp_path: Path, name: str) -> None:
    path = tmp_path / "film.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), dtype=np.uint8)
    write_mp4(path, noise, 25)
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + b"\xff" * 20000 + content[middle + 20000 :])
    log = tmp_path / "log.tsv"
    options = command.PlayOptions(path, name, "now", headless=True, wait=0.0, log=log)
    with refused(RtDecodeError, "film-decoding-failed", path=path):
        command.run(options)
    assert 0 < len(table(log)) < 30


@pytest.mark.parametrize("limit_bytes", [0, 60])
def test_a_full_disk_under_the_table_is_said_after_the_film(
    tmp_path: Path, name: str, limit_bytes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    film = make_film(tmp_path / "film.mp4", 9)
    path = tmp_path / "log.tsv"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        with refused(RtDecodeError, "play-log-incomplete", path=path, error="File too large"):
            command.run(command.PlayOptions(film, name, "now", headless=True, wait=0.0, log=path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    frames = re.search(r"(\d+) frames shown, (\d+) dropped", capsys.readouterr().err)
    assert frames is not None
    assert sum(map(int, frames.groups())) == 9
    table_text = path.read_text()
    assert len(table_text) == limit_bytes
    head = "frame\tshown_at\tsince_start_s\n"
    assert table_text[: len(head)] == head[:limit_bytes]
    # What there is room for: a whole row, and a part of the next one.
    if limit_bytes:
        assert re.fullmatch(r"\d\t\d+\.\d{6}\t-?\d+\.\d{6}\n[-.\d\t]*", table_text[len(head) :])


def uneven(path: Path) -> None:
    """A film in which frames wait now and then, as a phone records it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = 64
        stream.height = 48
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for n in range(30):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            frame.pts = 40 * n + (400 if n > 10 else 0)
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_a_film_is_decoded_in_its_own_size_and_rate(tmp_path: Path) -> None:
    film = read_film(make_film(tmp_path / "film.mp4", 7, 30000 / 1001))
    assert (film.fps, film.frames, film.height, film.width) == (Fraction(30000, 1001), 7, 48, 64)
    pictures = FilmPictures(film, 96, 120)
    resized = [pictures.next(5.0) for _ in range(7)]
    assert all(p is not None and p.shape == (96, 120, 3) for p in resized)
    assert np.abs(np.stack([p for p in resized if p is not None]).mean((0, 1, 2)) - GREEN).max() < 6
    with pytest.raises(EOFError):
        pictures.next(5.0)
    pictures.close()


def test_any_error_of_the_decoding_thread_reaches_who_shows_the_film(tmp_path: Path) -> None:
    # No picture can be this high, which raises an error that is none of FFmpeg's.
    pictures = FilmPictures(read_film(make_film(tmp_path / "film.mp4", 3)), 2**31, 64)
    with pytest.raises(OverflowError):
        pictures.next(LIMIT)
    pictures.close()


@pytest.fixture
def screenless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


@pytest.mark.usefixtures("screenless")
def test_a_window_shows_picture_and_patch_and_says_what_was_pressed(tmp_path: Path) -> None:
    import pygame

    film = read_film(make_film(tmp_path / "film.mp4", 1))
    window = FilmWindow(film, 0, Patch("top-left", 30))
    surface = pygame.display.get_surface()
    assert surface is not None
    width, height = surface.get_size()
    assert (window.height, window.width) == (round(48 * min(width / 64, height / 48)), width)
    picture = np.full((window.height, window.width, 3), GREEN, np.uint8)
    for white in (True, False):
        window.draw(picture, white=white)
        flipped_at = window.flip()
        assert flipped_at <= pylsl.local_clock()
        assert surface.get_at((29, 29))[:3] == ((255, 255, 255) if white else (0, 0, 0))
        assert surface.get_at((31, 31))[:3] == GREEN
        assert surface.get_at((width - 1, height - 1))[:3] == GREEN
    window.draw(None, white=False)
    assert surface.get_at((31, 31))[:3] == (0, 0, 0)
    for key in (pygame.K_5, pygame.K_a, pygame.K_ESCAPE):
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key))
    assert window.commands() == ["start", "quit"]
    window.close()
    options = command.PlayOptions(film.path, "x", "now", screen=7, wait=0.0, log=tmp_path / "log.tsv")
    with refused(UsageError, "play-screen-unknown", screen=7, available=re.compile("^0 ")):
        command.run(options)
    assert not (tmp_path / "log.tsv").exists()


def test_without_a_window_system_no_film_is_shown_to_nobody(tmp_path: Path) -> None:
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR", "SDL_VIDEODRIVER")
    words = ("play", make_film(tmp_path / "film.mp4", 3), "--lsl", "x", "--start-on", "now", "--wait", 0)
    done = subprocess.run(
        [sys.executable, "-m", "rtdecode.cli", *map(str, words)],
        env={k: v for k, v in os.environ.items() if k not in hidden},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "give --headless" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("screenless")
def test_a_key_starts_and_closing_the_window_ends(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import pygame

    log = tmp_path / "log.tsv"

    def operate() -> None:
        until(lambda: pygame.display.get_init() and pygame.display.get_surface() is not None)
        time.sleep(0.2)
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_SPACE))
        until(lambda: log.read_text().count("\n") > 6)
        pygame.event.post(pygame.event.Event(pygame.QUIT))

    hand = threading.Thread(target=operate)
    hand.start()
    film = make_film(tmp_path / "film.mp4", 250)
    options = command.PlayOptions(film, name, "key", log=log)
    assert command.run(options) == 0
    hand.join()
    assert 6 <= len(table(log)) < 200
    assert "stopped: " in capsys.readouterr().err
