"""A live session of a bundle whose denoising is too much for the machine."""

import json
from pathlib import Path
from time import monotonic

import numpy as np
import pytest

from streaming.session import replay
from tests.streaming.bundles import make_bundle
from tests.streaming.sessions import TR, WINDOW, play, text


def _toil(seconds: float) -> int:
    """How many of a heavy bundle's products of matrices take so long here, by numpy."""
    x = np.ones((512, 512), np.float32)
    durations_s = []
    for _ in range(30):
        started = monotonic()
        x = x @ x / 512
        durations_s.append(monotonic() - started)
    return max(round(seconds / min(durations_s)), 1)


# `tests/streaming/sinks/test_clip_emitter.py` tries on a clock of its own that less time gives fewer steps.
@pytest.mark.full
def test_a_step_too_dear_is_left_out_before_a_window_is(tmp_path: Path) -> None:
    """Eight steps of this bundle take longer than the hop of a second: finals get fewer."""
    heavy = make_bundle(tmp_path / "heavy", tr=TR, window=WINDOW, steps=4, toil=_toil(0.35)).path
    # With EEG the player waits until the session listens, however long that takes to start.
    record = tmp_path / "record"
    flags = ("--seconds", "8", "--steps", "8", "--record", str(record))
    ended = play(tmp_path / "pressed", heavy, *flags, seconds=120)
    assert ended.code == 0, ended.output
    steps = [clip["steps"] for clip in ended.finals()]
    windows = ended.report["windows"]
    assert windows["final"] + windows["skipped"] == windows["expected"] == 8
    assert windows["final"] == len(steps) >= 1, ended.output
    # How many get fewer, and how many are skipped all the same, the machine's speed decides.
    assert set(steps[1:]) <= {8, 4, 2, 1}
    assert min(steps) < 8 or windows["skipped"] > 0
    assert set(ended.report["steps"]) <= {"8", "4", "2", "1"}
    assert replay.run(record, str(heavy), "max", tmp_path / "again") == 0
    again = json.loads(text(tmp_path / "again" / "report.json"))
    assert again["as_live"] == {"windows": 8, "repeated": 8, "bit_for_bit": 8}
    assert again["steps"] == ended.report["steps"]
