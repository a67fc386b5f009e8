"""The small CineSync that ships: it reads the brain as far as its bars say, live as it was judged."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from benchmarks.played import record
from rtdecode import bundle as bundles
from rtdecode.disk.recording import Recording
from rtdecode.phantom.session import PhantomSession
from streaming.decode.decoder import Decoder
from streaming.session import replay
from train.data.chain import windows
from train.data.phantom import window_arrays
from train.evaluate import evaluate
from train.judging.judged import Figures, Request
from train.recipe import build
from train.run_folder import draft_of, read_run, restored

NAME = "cinesync-tiny"
ROOT = Path(__file__).parents[4]
RUN = ROOT / "train" / "runs" / NAME
_MEBIBYTE = 2**20


def test_run_and_bundle_are_small_together() -> None:
    folders = (RUN, ROOT / "rtdecode" / "bundles" / NAME)
    held = sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
    assert held < 5 * _MEBIBYTE


@cache
def figures() -> Figures:
    request = Request(film="shapes", presets="easy", seeds="1010-1013", seconds=100.0, oracle="900-905")
    return evaluate(RUN, request)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_its_condition_tells_windows_apart_as_a_ridge_does() -> None:
    found = figures()
    ours, oracle = (found[name]["value"] for name in ("condition_2way", "condition_2way_oracle"))
    assert ours - 0.5 >= 0.8 * (oracle - 0.5)
    assert abs(found["condition_2way_other_film"]["value"] - 0.5) < 0.1
    assert found["condition_2way"]["constant"] == 0


@pytest.mark.full
@pytest.mark.timeout(900)
def test_its_clips_gain_by_the_brain() -> None:
    found = figures()
    ours, oracle = (found[f"identification_2way_matched{end}"]["value"] for end in ("", "_oracle"))
    assert ours - 0.5 >= 0.3 * (oracle - 0.5)
    above = "identification_2way_matched_above_told_colour"
    for name in (above, "condition_gain", "brain_gain", "adapter_gain"):
        assert found[name]["ci95"][0] > 0, name


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_replay_reads_and_draws_what_the_judge_does(tmp_path: Path) -> None:
    session = PhantomSession("easy", 1, 1000, 60.0, "free")
    recording = record(session, tmp_path / "recording")
    kept = Recording(recording)
    bundle = bundles.load(NAME)
    decoder = Decoder(bundle, tell_condition=True)
    played = windows(bundle, kept.events(), kept.montage, seconds=60.0)
    live = [decoder.decode(window).condition for window in played]
    draft = draft_of(RUN)
    inputs = window_arrays(draft.manifest, windows(draft, kept.events(), kept.montage, seconds=60.0))
    condition = restored(RUN, build(read_run(RUN)["arguments"])["system"]).condition(inputs)
    assert len(live) == 15
    # Programs are told the mean token.
    ours = np.asarray(condition.tokens).mean(axis=1)
    assert max(np.abs(a - b).max() for a, b in zip(live, ours, strict=True) if a is not None) < 1e-4

    report = tmp_path / "report.json"
    replay.run(recording, NAME, "max", out=tmp_path / "out", report=report)
    told = json.loads(report.read_text())["accuracy"]["identification_2way"]
    judged = evaluate(RUN, Request(data=recording))["identification_2way"]
    assert told["n"] == judged["n"] == 15
    assert told["value"] == pytest.approx(judged["value"], abs=1e-9)
