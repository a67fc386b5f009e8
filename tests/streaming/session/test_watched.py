"""One session that denoises, with every output: seen on its page, recorded, sent, stopped by Ctrl-C."""

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from pythonosc.osc_message import OscMessage

from rtdecode.bundle import load
from rtdecode.disk.folders import locked
from rtdecode.disk.video import read_mp4
from rtdecode.errors import RtDecodeError, UsageError
from streaming.client import Clips, SentClip
from streaming.session import entrance, live, replay
from streaming.session.options import StreamOptions
from streaming.session.reporter import Interval
from streaming.session.withdrawal import withdraw
from streaming.sinks.operator_log import SNAPSHOTS, Moment, OperatorLog
from tests.refusals import check_error, refused
from tests.streaming.bundles import BRAIN, make_bundle
from tests.streaming.sessions import LIMIT, TR, WINDOW, Ended, address, get, play, text, until

OUTLET = f"watched-{os.getpid()}"
# Half of what window 1 reads.
LOST_VOLUME = 5
# The session is stopped once this window, or a later one, is final.
LAST_WINDOW = 3
NO_PAGE = ("/clip/99999/final", "/clip/0/..%2f..%2freport.json", "/clip/../report.json", "/report.json")


@dataclass
class Watched:
    """What a session left, and what others saw of it while it ran."""

    ended: Ended
    record: Path
    osc: str
    datagrams: list[bytes]
    clips: list[SentClip]
    process_id: int = 0
    children: list[psutil.Process] = field(default_factory=list)
    pages: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    refusals: list[RtDecodeError] = field(default_factory=list)
    token: str = ""
    entrance_mode: int = 0
    command_lines: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("b") / "bundle"
    fitted = {"fitted_on": "nothing"}
    return make_bundle(folder, tr=TR, window=WINDOW, steps=4, confidence=fitted, brain=BRAIN).path


@pytest.fixture(scope="module")
def watched(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    root = tmp_path_factory.mktemp("s")
    session = Watched(Ended(0, "", root), root / "record", "", [], [])

    def watch(process: subprocess.Popen[str], out: Path) -> None:
        session.process_id = process.pid
        _look(session, address(process), out)
        _take_folders(session, bundle, out)
        until(lambda: max(_finals(out), default=0) >= LAST_WINDOW)
        session.children.extend(psutil.Process(process.pid).children(recursive=True))
        session.command_lines.extend(" ".join(child.cmdline()) for child in session.children)
        process.send_signal(signal.SIGINT)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver, _listening(session):
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(LIMIT)
        session.osc = f"127.0.0.1:{receiver.getsockname()[1]}"
        flags = ["--seconds", "6000", "--record", str(session.record), "--dashboard", "127.0.0.1:0"]
        flags += ["--outlet", OUTLET, "--osc", session.osc]
        how = {"seconds": 120, "lead": 0.5, "dropped": (LOST_VOLUME,)}
        session.ended = play(root / "s", bundle, *flags, during=watch, **how)
        session.datagrams = [receiver.recv(65536) for _ in session.ended.clips]
        last = session.ended.clips[-1]
        until(lambda: [(clip.clip, clip.revision) for clip in session.clips[-1:]] == [_key(last)])
    return session


def _finals(out: Path) -> list[int]:
    """The windows that are final; the last line may be cut short."""
    lines = text(out / "clips.jsonl").splitlines(keepends=True)
    clips = [json.loads(line) for line in lines if line.endswith("\n")]
    return [clip["clip"] for clip in clips if clip["revision"] == "final"]


def _look(session: Watched, url: str, out: Path) -> None:
    """Ask the page for what it shows, and for what it must not."""
    session.token = url.partition("?token=")[2]
    assert len(session.token) > 20
    for path in ("/", *NO_PAGE):
        session.pages[path] = get(url, path)
    session.pages["another host"] = get(url, "/", Host="evil.example")
    session.pages["another origin"] = get(url, "/", Origin="http://evil.example")
    session.pages["no token"] = get(url.partition("?")[0], "/")
    session.pages["health"] = get(url.partition("?")[0], "/health")
    session.entrance_mode = stat.S_IMODE((out / entrance.NAME).stat().st_mode)
    until(lambda: json.loads(get(url, "/traces")[1])["bad"])
    until(lambda: '"final"' in text(out / "clips.jsonl"))
    clip = json.loads(text(out / "clips.jsonl").splitlines()[0])
    path = f"/clip/{clip['clip']}/{clip['revision']}"
    until(lambda: get(url, path)[0] == 200)
    session.pages["first clip"] = get(url, path)
    session.pages["carpet"] = get(url, "/carpet/1")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def _take_folders(session: Watched, bundle: Path, out: Path) -> None:
    """Try to give another session a folder of the one that runs."""
    for folder in (out, session.record):
        options = StreamOptions(lsl="x", bundle=str(bundle), out=folder, overwrite=True)
        with pytest.raises(UsageError) as caught:
            live.run(options)
        session.refusals.append(caught.value)


@contextmanager
def _listening(session: Watched) -> Iterator[None]:
    """Receive the session's clips with the client while the block runs."""
    over = threading.Event()

    def listen() -> None:
        with Clips(OUTLET, wait=LIMIT, timeout=0.2) as clips:
            while not over.is_set():
                # The stream ends with the session, on a busy machine before anybody says so here.
                with suppress(RtDecodeError, StopIteration):
                    session.clips.append(next(clips))

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield
    finally:
        over.set()
        listener.join()


def _key(clip: dict[str, Any]) -> tuple[int, str]:
    return clip["clip"], clip["revision"]


# Ctrl-C, and the folders.


def test_ctrl_c_writes_everything_skips_only_what_it_reached_and_ends_with_0(watched: Watched) -> None:
    ended = watched.ended
    assert ended.code == 0, ended.output
    assert "Traceback" not in ended.output
    assert ended.report["ended"] == "stopped by SIGINT"
    windows = ended.report["windows"]
    assert windows["expected"] == 6000
    assert windows["final"] == len(ended.finals()) >= 1
    assert windows["final"] + windows["skipped"] < 1000
    assert len(read_mp4(ended.out / "film.mp4")) == 8 * (windows["final"] + windows["skipped"])


def test_a_lost_volume_is_seen_in_its_window_alone(watched: Watched) -> None:
    ended = watched.ended
    missing = {clip["clip"]: clip["missing"]["fmri"] for clip in ended.finals()}
    assert missing.get(1, 0.5) >= 0.5
    fmri = ended.report["fmri"]
    assert fmri["missing"] >= 1
    # On a busy machine the player is late with other volumes too.
    if (fmri["missing"], fmri["late"]) == (1, 0):
        first = {clip: share for clip, share in missing.items() if clip <= LAST_WINDOW}
        assert first.items() <= {0: 0, 1: 0.5, 2: 0, 3: 0}.items()
    assert "fMRI volume missing: " in ended.output
    assert ("clip degraded: " in ended.output) is (ended.report["windows"]["degraded"] > 0)


def test_a_running_sessions_folders_cannot_be_taken(watched: Watched) -> None:
    owner = re.compile(rf"^session .*\(process {watched.process_id}\)$")
    for error, folder in zip(watched.refusals, (watched.ended.out, watched.record), strict=True):
        check_error(error, "output-folder-locked", option="--out", folder=folder, owner=owner)
        assert error.exit_code == 2


def test_a_session_whose_sources_do_not_come_ends_with_1_in_the_folder_of_one_that_has_ended(
    watched: Watched,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(live, "Interval", lambda _, began_at: Interval(0.1, began_at))
    out = tmp_path / "out"
    shutil.copytree(watched.ended.out, out)
    (tmp_path / "volumes").mkdir()
    (tmp_path / "volumes" / "old.nii").write_bytes(b"old")
    options = StreamOptions(
        lsl="nobody-is-called-so",
        fmri_dir=tmp_path / "volumes",
        bundle=str(bundle),
        out=out,
        overwrite=True,
        wait=0.6,
    )
    before = contents(out)
    assert len(before) > 5
    missing = re.compile("nobody-is-called-so")
    with refused(RtDecodeError, "session-start-timeout", wait_s=0.6, missing_sources=missing) as caught:
        live.run(options)
    assert caught.value.exit_code == 1
    printed = capsys.readouterr()
    # No table of what did not come: the error says it, in one sentence.
    assert printed.out == ""
    output = " ".join(printed.err.split())
    assert "waiting for EEG" in output
    assert "nobody-is-called-so" in output
    assert "1 were there before" in output
    # A typo in --lsl costs nothing of the session that was there, and shows no table of zeros.
    assert contents(out) == before
    assert "holds the files of the earlier session again" in output
    # With a new folder, none is left.
    parent = tmp_path / "parent"
    options = replace(options, out=parent / "out", record=parent / "record", overwrite=False)
    with refused(RtDecodeError, "session-start-timeout"):
        live.run(options)
    assert not parent.exists()
    assert capsys.readouterr().out == ""


def test_nothing_of_a_session_that_is_withdrawn_is_left_and_nothing_of_others_is_touched(
    watched: Watched, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    record = tmp_path / "record"
    shutil.copytree(watched.ended.out, out)
    shutil.copytree(watched.record, record)
    assert {"clips", "clips.jsonl", "film.mp4", "report.json"} <= {entry.name for entry in out.iterdir()}
    assert (record / "eeg.f32").is_file()
    OperatorLog(out).mark(Moment(0, 1.0, 0.0))
    (out / SNAPSHOTS).mkdir()
    (out / SNAPSHOTS / "clip_00000_final.png").write_bytes(b"x")
    (out / "protocol.txt").write_text("somebody else's")
    report = tmp_path / "elsewhere.json"
    report.write_text("{}")
    with locked(record, "--record", "a session"):
        withdraw(out, report, record)
    assert [entry.name for entry in out.rglob("*")] == ["protocol.txt"]
    assert not report.exists()
    assert not list(record.iterdir())


# The page.


def test_a_session_is_seen_on_its_page_and_ends_with_it(watched: Watched) -> None:
    status = {name: answer[0] for name, answer in watched.pages.items()}
    assert status["/"] == 200
    assert watched.pages["first clip"][1].startswith(b"\xff\xd8")
    assert watched.pages["carpet"][1].startswith(b"\x89PNG")
    for path in NO_PAGE:
        assert status[path] in (404, 422), path
    assert status["another host"] == status["another origin"] == status["no token"] == 403
    assert watched.pages["health"] == (200, b"ok")
    assert watched.entrance_mode == 0o600
    assert not (watched.ended.out / entrance.NAME).exists()
    assert re.search(
        r"The page refused (a request|\d requests, the newest) from 127\.0\.0\.1", watched.ended.output
    )
    assert not [child for child in watched.command_lines if watched.token in child]
    files = b"".join(file.read_bytes() for file in watched.ended.out.rglob("*") if file.is_file())
    assert watched.token.encode() not in files, "no file keeps the token"
    assert len(watched.children) >= 2
    psutil.wait_procs(watched.children, timeout=10)
    assert not [child for child in watched.children if child.is_running()], "no process is left"


# What is sent.


def test_a_session_sends_what_it_writes(watched: Watched) -> None:
    ended = watched.ended
    assert f"Clips go out to LSL {OUTLET}-clips, {OUTLET}-condition." in ended.output
    assert f"Clips go out to OSC {watched.osc}." in ended.output
    written = [_key(clip) for clip in ended.clips]
    # On a slow machine, the client may join after the first clips.
    assert watched.clips
    assert [(clip.clip, clip.revision) for clip in watched.clips] == written[-len(watched.clips) :]
    assert [tuple(OscMessage(datagram).params[:2]) for datagram in watched.datagrams] == written
    files = b"".join(file.read_bytes() for file in ended.out.rglob("*") if file.is_file())
    assert OUTLET.encode() not in files, "no file names a stream"


# Denoising, and replays of the recording.


def test_each_clip_says_its_steps_and_how_sure_it_is(watched: Watched) -> None:
    ended = watched.ended
    assert {clip["steps"] for clip in ended.finals()} <= {1, 2, 4}
    # A clip in which no brain is read is promised nothing.
    assert all((clip["confidence"] is None) == (clip["brain"] < 0.5) for clip in ended.clips)
    # More windows come where the machine is slow to end the session; random weights are all but sure of some.
    early_clips = [clip for clip in ended.clips if clip["clip"] <= LAST_WINDOW]
    confidences = [clip["confidence"] for clip in early_clips if clip["brain"] >= 0.5]
    assert confidences
    assert all(0 < confidence < 1 for confidence in confidences), confidences
    assert all(clip["latency_ms"]["denoise"] > 0 for clip in ended.clips)
    steps = ended.report["steps"]
    assert sum(steps.values()) == len(ended.clips)
    assert steps["4"] == sum(clip["steps"] == 4 for clip in ended.clips)
    assert ended.report["runs_on"].keys() == {"encode", "denoise", "decode_first", "decode_next"}
    assert all(words.startswith("ONNX Runtime") for words in ended.report["runs_on"].values())
    assert ended.report["baselines"] is None
    assert ended.report["confidence"] is None


@pytest.fixture(scope="module")
def replayed(watched: Watched, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The recording decoded again, with other flags each time."""
    root = tmp_path_factory.mktemp("replayed")
    flags: dict[str, dict[str, Any]] = {
        "as live": {},
        "plain": {"as_live": False},
        "free": {"carry": False},
        "two": {"steps": 2},
        "twin": {"twin": True, "as_live": False},
    }
    for name, words in flags.items():
        assert replay.run(watched.record, str(bundle), "max", root / name, **words) == 0
    return {name: root / name for name in flags}


def clips_of(out: Path) -> dict[tuple[int, str], dict[str, Any]]:
    return {_key(clip): clip for clip in map(json.loads, text(out / "clips.jsonl").splitlines())}


def test_a_replay_takes_the_wanted_steps_and_makes_the_same_clips(
    watched: Watched, replayed: dict[str, Path]
) -> None:
    out = replayed["plain"]
    again = clips_of(out)
    assert {clip["steps"] for clip in again.values()} == {4}
    as_live = clips_of(replayed["as live"])
    live_steps = {_key(clip): clip["steps"] for clip in watched.ended.clips}
    assert {key: clip["steps"] for key, clip in as_live.items() if key in live_steps} == live_steps
    report = json.loads(text(replayed["as live"] / "report.json"))
    assert report["as_live"]["repeated"] == report["as_live"]["windows"] > LAST_WINDOW
    sent = _ordered(watched.ended.clips)
    same = 0
    # A clip of fewer steps, or none, on a busy machine changes those that carry on from it.
    for clip, twin in zip(sent, _ordered(again.values()), strict=False):
        if any(clip[name] != twin[name] for name in ("clip", "revision", "steps")):
            break
        same += 1
        latents = (np.load(folder / of["latent"]) for folder, of in ((watched.ended.out, clip), (out, twin)))
        assert np.abs(np.subtract(*latents)).max() < 1e-4
        assert twin["confidence"] == pytest.approx(clip["confidence"], abs=1e-5)
    assert same or sent[0]["clip"] > 0 or sent[0]["steps"] < 4 or len(sent) < len(again)


def test_a_replay_tells_the_same_of_the_brain(watched: Watched, replayed: dict[str, Path]) -> None:
    again = clips_of(replayed["plain"])
    finals = watched.ended.finals()
    assert finals
    for clip in finals:
        assert 0 < clip["brain"] + clip["inconsistent"] < 1
        for name in ("brain", "inconsistent"):
            assert again[clip["clip"], "final"][name] == pytest.approx(clip[name], abs=1e-5)
    section = watched.ended.report["brain"]
    assert section["finals"] == len(finals)
    assert section["share"] == np.mean([clip["brain"] >= 0.5 for clip in finals])
    assert section["prior"] == {"brain": 0.5, "inconsistent": 0.25, "neither": 0.25}


def _ordered(clips: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(clips, key=_key)


def test_flags_of_a_replay_change_what_they_say(replayed: dict[str, Path]) -> None:
    latents = {}
    for name in ("plain", "free", "two", "twin"):
        out = replayed[name]
        latents[name] = [np.load(file) for file in sorted((out / "clips").glob("*_final*.npy"))]
        assert len(latents[name]) == len(latents["plain"]) > LAST_WINDOW
    assert np.array_equal(latents["plain"], latents["twin"])
    assert np.array_equal(latents["plain"][0], latents["free"][0])
    assert not np.allclose(latents["plain"][1], latents["free"][1])
    assert not np.allclose(latents["plain"][0], latents["two"][0])
    narrow, wide = (read_mp4(replayed[name] / "film.mp4") for name in ("plain", "twin"))
    assert wide.shape[2] == narrow.shape[2] * 3 // 2 + 4
    assert len(list((replayed["twin"] / "clips").iterdir())) == len(
        list((replayed["plain"] / "clips").iterdir())
    )


@pytest.mark.parametrize(
    ("option", "code"), [({"steps": 2}, "steps-unsupported"), ({"detail": 0.5}, "detail-unsupported")]
)
def test_what_only_a_denoiser_has_is_refused_where_there_is_none(
    option: dict[str, Any], code: str, watched: Watched, tmp_path: Path
) -> None:
    closed = make_bundle(tmp_path / "closed", tr=TR, window=WINDOW).path
    with refused(UsageError, code) as caught:
        replay.run(watched.record, str(closed), "max", tmp_path / "out", **option)
    assert caught.value.exit_code == 2
    with refused(UsageError, code):
        live.run(StreamOptions(lsl="x", bundle=str(closed), out=tmp_path / "out", **option))
    assert not (tmp_path / "out").exists()
    assert load(closed).manifest.steps == 0


def test_a_clip_says_that_its_bundle_has_no_share_of_detail_to_choose(watched: Watched) -> None:
    assert {clip["detail"] for clip in watched.ended.clips} == {None}
    assert watched.ended.report["detail"] is None
