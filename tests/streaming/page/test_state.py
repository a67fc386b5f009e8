import io
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle
from rtdecode.disk.video import write_mp4
from streaming.checks.finding import BAD, NOTE, OFF, OK, Finding
from streaming.message import Message
from streaming.page.state import LAMPS, PageState
from streaming.session.mailbox import pack, pack_status
from streaming.session.options import StreamOptions
from streaming.status import Status
from tests.streaming.bundles import CHANNELS, make_bundle
from tests.streaming.windows import window


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("b") / "bundle")


@pytest.fixture
def state(bundle: Bundle, tmp_path: Path) -> PageState:
    (tmp_path / "clips").mkdir()
    return PageState(tmp_path, StreamOptions(lsl="x", fmri_dir=Path("y")), bundle)


def status(sent_at: float, **changes: Any) -> Status:
    return replace(Status(sent_at=sent_at, elapsed=10.0, newest_sample_at=sent_at - 0.1), **changes)


def emit(folder: Path, clip: int, revision: str = "final", end: str = "\n", **changes: Any) -> None:
    """Leave a clip in the folder, as a session does."""
    file = f"clips/{clip}_{revision}.mp4"
    frames = np.random.default_rng(clip).integers(0, 256, (9, 16, 24, 3), np.uint8)
    write_mp4(folder / file, frames, 8)
    record = {
        "run": 0,
        "clip": clip,
        "revision": revision,
        "window_s": [4.0 * clip, 4.0 * clip + 4],
        "missing": {"eeg": 0.0, "fmri": 0.0},
        "confidence": 0.812345,
        "brain": 0.99,
        "steps": 4,
        "latency_ms": {"beyond_floor": 320.0},
        "late": False,
        "file": file,
    } | changes
    with (folder / "clips.jsonl").open("a") as lines:
        lines.write(json.dumps(record) + end)


def test_before_anything_comes_the_page_says_so(state: PageState) -> None:
    state.refresh(100.0)
    assert state.view.clip is None
    assert state.view.run_s is None
    assert tuple(lamp.subject for lamp in state.view.lamps) == LAMPS
    packed = json.loads(state.pack_traces())
    assert (packed["bad"], packed["absent"]) == ([], "no EEG yet")
    assert state.draw_carpet().startswith(b"\x89PNG")


def test_of_a_bundle_that_reads_no_eeg_none_is_awaited(bundle: Bundle, tmp_path: Path) -> None:
    manifest = replace(bundle.manifest, eeg=None)
    state = PageState(
        tmp_path, StreamOptions(lsl="x", fmri_dir=Path("y")), replace(bundle, manifest=manifest)
    )
    state.take(pack_status(status(100.0)))
    state.refresh(100.0)
    assert state.view.lamps[0] == Finding("EEG", OFF, "not read by this bundle")
    assert state.modalities == ["fmri"]


def test_the_newest_clip_is_shown_with_what_is_known_of_it(state: PageState, tmp_path: Path) -> None:
    emit(tmp_path, 0)
    emit(tmp_path, 1, "preview", late=True)
    state.refresh(100.0)
    clip = state.view.clip
    assert clip is not None
    assert clip.url == "clip/1/preview"
    assert clip.words == "preview of 4 to 8 s, LATE"
    assert clip.numbers == [("confidence", "0.812"), ("brain", "0.99"), ("steps", "4")]
    emit(tmp_path, 0, "refined")
    state.refresh(103.0)
    assert state.view.clip is not None
    assert state.view.clip.url == "clip/1/preview", "a refined clip is of a window long gone"
    assert state.view.clip.age_s == 3.0
    state.refresh(120.0)
    assert state.view.clip.stale


def test_what_a_bundle_does_not_tell_is_left_out(state: PageState, tmp_path: Path) -> None:
    emit(tmp_path, 0, confidence=None, brain=None)
    state.refresh(100.0)
    assert state.view.clip is not None
    assert state.view.clip.numbers == [("steps", "4")]


def test_what_a_bundle_tells_and_this_clip_does_not_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    state = PageState(tmp_path, StreamOptions(lsl="x", fmri_dir=Path("y")), bundles.load("phantom"))
    emit(tmp_path, 0, confidence=None, brain=None)
    state.refresh(100.0)
    assert state.view.clip is not None
    assert state.view.clip.numbers == [("confidence", "unknown"), ("brain", "unknown"), ("steps", "4")]


def test_what_a_clip_took_from_memory_is_shown_beside_it(state: PageState, tmp_path: Path) -> None:
    emit(tmp_path, 0, recorded={"rows": [4319, 12], "scores": [0.31416, 0.2], "retrieved": [1.0]})
    state.refresh(100.0)
    assert state.view.clip is not None
    from_memory = state.view.clip.numbers[-3:]
    assert from_memory == [("rows", "4319 12"), ("scores", "0.314 0.2"), ("retrieved", "1")]


def test_a_line_that_is_not_whole_waits(state: PageState, tmp_path: Path) -> None:
    emit(tmp_path, 0, end="")
    state.refresh(100.0)
    assert state.view.clip is None
    with (tmp_path / "clips.jsonl").open("a") as lines:
        lines.write("\n")
    state.refresh(101.0)
    assert state.view.clip is not None


def test_only_clips_that_the_session_named_are_served(state: PageState, tmp_path: Path) -> None:
    emit(tmp_path, 0)
    state.refresh(100.0)
    picture = state.clip(0, "final")
    assert picture is not None
    with Image.open(io.BytesIO(picture)) as image:
        assert image.size == (24, 9 * 16), "nine frames, one below the other"
    assert state.clip(0, "preview") is None
    assert state.clip(7, "final") is None
    assert state.clip(0, "../../etc/passwd") is None


def test_traces_are_kept_for_eight_seconds_with_their_holes(state: PageState) -> None:
    rng = np.random.default_rng(0)
    for index in range(40):
        arrays = {
            "traces": rng.normal(size=(len(CHANNELS), 62)).astype(np.float16),
            "traced": np.full(62, index != 39),
        }
        state.take(pack_status(status(100.0 + index / 2), arrays))
    packed = json.loads(state.pack_traces())
    assert len(packed["bad"]) == len(CHANNELS)
    ((start, stop),) = packed["holes"]
    assert start < stop == 1
    # The last status is the hole.
    assert 1000 <= round(62 / (stop - start)) < 1000 + 62


def test_a_null_brain_twin_is_shown_on_request(state: PageState, tmp_path: Path) -> None:
    emit(tmp_path, 3)
    write_mp4(tmp_path / "clips" / "3_twin.mp4", np.zeros((9, 16, 24, 3), np.uint8), 8)
    state.refresh(100.0)
    assert not state.view.twin
    assert state.toggle_twin()
    assert state.twin(3) is None
    state.take(Message({"kind": "twin", "clip": 3, "file": "clips/3_twin.mp4"}, {}))
    state.refresh(101.0)
    assert state.view.twin
    assert state.view.clip is not None
    assert state.view.clip.twin_url == "twin/3"
    assert state.twin(3) is not None
    assert not state.toggle_twin()


def test_a_snapshot_keeps_the_newest_clip(state: PageState, tmp_path: Path) -> None:
    assert state.snapshot() == "there is no clip to keep"
    emit(tmp_path, 2)
    state.refresh(100.0)
    assert state.snapshot() == "kept as snapshots/clip_00002_final.png"
    with Image.open(tmp_path / "snapshots" / "clip_00002_final.png") as image:
        assert image.format == "PNG"


def test_what_was_withdrawn_stays_blank(state: PageState, tmp_path: Path) -> None:
    emit(tmp_path, 0)
    state.refresh(100.0)
    state.withdraw()
    state.toggle_blank()
    for now in (101.0, 102.0):
        state.refresh(now)
        assert state.view.blank
        assert state.view.withdrawn
        state.toggle_blank()
        assert state.view.blank
    assert state.clip(0, "final") is None
    assert state.snapshot() == "there is no clip to keep"


def test_clips_that_are_deleted_meanwhile_are_not_there(state: PageState, tmp_path: Path) -> None:
    emit(tmp_path, 0)
    state.refresh(100.0)
    (tmp_path / "clips" / "0_final.mp4").unlink()
    assert state.clip(0, "final") is None
    assert state.snapshot() == "there is no clip to keep"


def test_the_newest_volume_and_the_head_are_drawn(state: PageState) -> None:
    arrays = {"slices": np.zeros((8, 24), np.uint8), "region": np.eye(8, 24, dtype=bool)}
    latest = status(100.0)
    for volume in range(3):
        latest = status(100.0 + volume)
        motion = {"parameters": [0.1 * volume] + [0.0] * 5, "max_fd_mm": 0.1234, "tsnr": 61.7}
        latest.counters["runs"] = [{"run": 0, "motion": motion}]
        state.take(pack_status(latest, arrays))
    state.refresh(103.0)
    assert state.view.volumes == 3
    assert state.view.displaced == "largest displacement 0.1 mm, tSNR 62"
    assert state.view.motion.count("<polyline") == 6
    with Image.open(io.BytesIO(state.draw_slices())) as image:
        assert image.size == (24, 8)
    latest.counters["runs"].append({"run": 1, "motion": None})
    state.take(pack_status(latest))
    state.refresh(104.0)
    assert state.view.displaced == ""
    assert 'points=""' in state.view.motion, "a new run begins where it begins"


def test_volumes_fill_the_carpet(state: PageState) -> None:
    state.take(pack(window(0), clip=0, costs={}, backlog=False))
    with Image.open(io.BytesIO(state.draw_carpet())) as image:
        assert image.size == (5, 120)
    state.take(pack(window(1, "preview"), clip=1, costs={}, backlog=False))
    with Image.open(io.BytesIO(state.draw_carpet())) as image:
        assert image.size[0] == 5, "a preview has no volumes of its own"


def test_triggers_without_files_raise_an_alarm_until_it_is_acknowledged(state: PageState) -> None:
    def tell(sent_at: float) -> None:
        trigger = {"stamp": sent_at, "label": "R128", "arrived_at": sent_at, "clock_at": None}
        newest = status(sent_at, items=[trigger])
        newest.counters["eeg"]["triggers"] = 20
        state.take(pack_status(newest))
        state.refresh(sent_at)

    for sent_at in np.arange(100.0, 103.0, 0.5):
        tell(sent_at)
    assert next(lamp for lamp in state.view.lamps if lamp.subject == "fMRI").state == BAD
    assert state.view.alarm
    state.acknowledge()
    tell(103.0)
    assert not state.view.alarm


def test_a_busy_session_is_not_taken_for_silent_sources(state: PageState) -> None:
    state.take(pack_status(status(100.0)))
    for now in (100.0, 102.0, 104.0):
        state.refresh(now)
        assert state.view.lamps[0].state == OK
    for now in (110.0, 112.0):
        state.refresh(now)
    assert state.view.lamps[0].state == BAD, "but nothing is known once no status comes any more"


def test_a_decoder_elsewhere_has_a_lamp_that_says_since_when_it_is_away(
    bundle: Bundle, tmp_path: Path
) -> None:
    options = StreamOptions(lsl="x", decoder="wss://host:1")
    for fallback, state_word, words in ((None, BAD, "skipped"), ("phantom", NOTE, "fallback decodes")):
        state = PageState(tmp_path, replace(options, fallback=fallback), bundle)
        assert state.n_lamps == len(LAMPS) + 1
        state.refresh(100.0)
        assert state.view.lamps[-1].found == "answers"
        since = time.mktime((2026, 11, 28, 9, 5, 7, 0, 0, -1))
        state.take(Message({"kind": "decoder", "away_since": since}, {}))
        for seen_at in (101.0, 102.5):
            state.refresh(seen_at)
        lamp = state.view.lamps[-1]
        assert (lamp.subject, lamp.state, lamp.found) == ("decoder", state_word, "away since 09:05:07")
        assert words in lamp.advice
        assert state.view.alarm == (state_word == BAD)
        state.take(Message({"kind": "decoder", "away_since": None}, {}))
        for seen_at in (103.0, 106.0):
            state.refresh(seen_at)
        assert state.view.lamps[-1].state == OK


def test_blanking_and_the_end_are_told_to_every_viewer(state: PageState) -> None:
    state.toggle_blank()
    state.take(Message({"kind": "said", "text": "EEG hole: one", "wall_s": 5.0}, {}))
    state.take(Message({"kind": "over", "ended": "stopped by SIGINT"}, {}))
    state.take(Message({"kind": "fault", "error": {}, "reason": "b"}, {}))
    state.refresh(100.0)
    assert state.view.blank
    assert state.view.log_lines == [(5.0, "EEG hole: one")]
    assert state.view.over == "stopped by SIGINT"
    state.toggle_blank()
    assert not state.view.blank


def test_the_drawings_of_a_session_follow_its_clips(state: PageState, tmp_path: Path) -> None:
    state.take(pack_status(status(100.0, elapsed=12.0)))
    emit(tmp_path, 0)
    emit(tmp_path, 1, latency_ms={"beyond_floor": None})
    state.refresh(100.0)
    assert state.view.ledger.count("<title>320 ms</title>") == 1
    assert state.view.line.count("<rect") == 2
