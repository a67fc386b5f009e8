"""Live sessions and replays of a bundle with a denoising stage, seconds long."""

import json
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest

from rtdecode.bundle import load
from rtdecode.disk.video import read_mp4
from rtdecode.errors import UsageError
from streaming.session import replay
from streaming.session.live import run
from streaming.session.orders import StreamOptions
from tests.streaming.bundles import BRAIN, make_bundle
from tests.streaming.sessions import Ended, play

WINDOW = Fraction(1)
TR = Fraction(1, 2)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("b") / "bundle"
    fitted = {"fitted_on": "nothing"}
    return make_bundle(folder, tr=TR, window=WINDOW, steps=4, confidence=fitted, brain=BRAIN).path


@pytest.fixture(scope="module")
def live(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    root = tmp_path_factory.mktemp("s")
    record = ("--record", str(root / "recording"))
    return play(root / "both", bundle, "--seconds", "4", *record, seconds=120)


def _toil(seconds: float) -> int:
    """How many of a heavy bundle's products of matrices take so long here, by numpy."""
    x = np.ones((512, 512), np.float32)
    spent = []
    for _ in range(30):
        started = monotonic()
        x = x @ x / 512
        spent.append(monotonic() - started)
    return max(round(seconds / min(spent)), 1)


def test_each_clip_says_its_steps_and_how_sure_it_is(live: Ended) -> None:
    assert live.code == 0, live.said
    windows = live.report["windows"]
    assert windows["final"] + windows["skipped"] == windows["expected"] == 4
    assert {clip["steps"] for clip in live.finals()} <= {1, 2, 4}
    assert all(0 < clip["confidence"] < 1 for clip in live.clips)
    assert all(clip["latency_ms"]["denoise"] > 0 for clip in live.clips)
    steps = live.report["steps"]
    assert sum(steps.values()) == len(live.clips)
    assert steps["4"] == sum(clip["steps"] == 4 for clip in live.clips)
    assert live.report["runs_on"].keys() == {"encode", "denoise", "decode_first", "decode_next"}
    assert all(words.startswith("ONNX Runtime") for words in live.report["runs_on"].values())
    assert live.report["baselines"] is None
    assert live.report["confidence"] is None


# That less time gives fewer steps is tried in `tests/streaming/sinks/test_output.py`, on a clock of its own.
@pytest.mark.full
def test_a_step_too_dear_is_left_out_before_a_window_is(tmp_path: Path) -> None:
    """Eight steps of this bundle take longer than the hop of a second: finals get fewer."""
    heavy = make_bundle(tmp_path / "heavy", tr=TR, window=WINDOW, steps=4, toil=_toil(0.35)).path
    # With EEG the player waits until the session listens, however long that takes to start.
    ended = play(tmp_path / "pressed", heavy, "--seconds", "8", "--steps", "8", seconds=120)
    assert ended.code == 0, ended.said
    taken = [clip["steps"] for clip in ended.finals()]
    windows = ended.report["windows"]
    assert windows["final"] + windows["skipped"] == windows["expected"] == 8
    assert windows["final"] == len(taken) >= 1, ended.said
    # How many get fewer, and how many are skipped all the same, the machine's speed decides.
    assert set(taken[1:]) <= {8, 4, 2, 1}
    assert min(taken) < 8 or windows["skipped"] > 0
    assert set(ended.report["steps"]) <= {"8", "4", "2", "1"}


def test_a_replay_takes_the_wanted_steps_and_makes_the_same_clips(
    live: Ended, bundle: Path, tmp_path: Path
) -> None:
    recording = live.out.parents[1] / "recording"
    assert replay.run(recording, str(bundle), "max", tmp_path / "out") == 0
    lines = (tmp_path / "out" / "clips.jsonl").read_text().splitlines()
    replayed = {(c["clip"], c["revision"]): c for c in map(json.loads, lines)}
    assert {clip["steps"] for clip in replayed.values()} == {4}
    first = _ordered(live.clips)[0]
    same = 0
    # A clip of fewer steps, or none, on a busy machine changes those that carry on from it.
    for clip, twin in zip(_ordered(live.clips), _ordered(replayed.values()), strict=False):
        if any(clip[name] != twin[name] for name in ("clip", "revision", "steps")):
            break
        same += 1
        before, after = (np.load(at / c["latent"]) for at, c in ((live.out, clip), (tmp_path / "out", twin)))
        assert np.abs(before - after).max() < 1e-4
        assert twin["confidence"] == pytest.approx(clip["confidence"], abs=1e-5)
    assert same or first["clip"] > 0 or first["steps"] < 4 or len(live.clips) < 8


def test_a_replay_tells_the_same_of_the_brain(live: Ended, bundle: Path, tmp_path: Path) -> None:
    recording = live.out.parents[1] / "recording"
    assert replay.run(recording, str(bundle), "max", tmp_path / "out") == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / "clips.jsonl").read_text().splitlines()]
    told = {line["clip"]: line for line in lines if line["revision"] == "final"}
    finals = live.finals()
    assert finals
    for clip in finals:
        assert 0 < clip["brain"] + clip["inconsistent"] < 1
        for name in ("brain", "inconsistent"):
            assert told[clip["clip"]][name] == pytest.approx(clip[name], abs=1e-5)
    section = live.report["brain"]
    assert section["finals"] == len(finals)
    assert section["share"] == np.mean([clip["brain"] >= 0.5 for clip in finals])
    assert section["prior"] == {"brain": 0.5, "inconsistent": 0.25, "neither": 0.25}


def _ordered(clips: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(clips, key=lambda clip: (clip["clip"], clip["revision"]))


def test_flags_of_a_replay_change_what_they_say(live: Ended, bundle: Path, tmp_path: Path) -> None:
    recording = live.out.parents[1] / "recording"
    made = {}
    for name, flags in {
        "plain": {},
        "free": {"carry": False},
        "two": {"steps": 2},
        "twin": {"twin": True},
    }.items():
        assert replay.run(recording, str(bundle), "max", tmp_path / name, **flags) == 0
        files = sorted((tmp_path / name / "clips").glob("*_final_*.npy"))
        made[name] = [np.load(file) for file in files]
        assert len(made[name]) == 4
    assert np.array_equal(made["plain"], made["twin"])
    assert np.array_equal(made["plain"][0], made["free"][0])
    assert not np.allclose(made["plain"][1], made["free"][1])
    assert not np.allclose(made["plain"][0], made["two"][0])
    narrow, wide = (read_mp4(tmp_path / name / "film.mp4") for name in ("plain", "twin"))
    assert wide.shape[2] == narrow.shape[2] * 3 // 2 + 4
    assert len(list((tmp_path / "twin" / "clips").iterdir())) == len(
        list((tmp_path / "plain" / "clips").iterdir())
    )


def test_steps_are_refused_where_there_is_nothing_to_denoise(live: Ended, tmp_path: Path) -> None:
    closed = make_bundle(tmp_path / "closed", tr=TR, window=WINDOW).path
    recording = live.out.parents[1] / "recording"
    with pytest.raises(UsageError, match="no denoising stage") as caught:
        replay.run(recording, str(closed), "max", tmp_path / "out", steps=2)
    assert caught.value.exit_code == 2
    with pytest.raises(UsageError, match="no denoising stage"):
        run(StreamOptions(lsl="x", bundle=str(closed), out=tmp_path / "out", steps=2))
    assert not (tmp_path / "out").exists()
    assert load(closed).manifest.steps == 0
