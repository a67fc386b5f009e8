"""A run beside its bundle on one recording: what a session reads and tells, and what the judge does."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.played import record
from rtdecode import bundle as bundles
from rtdecode.disk.recording import Recording
from rtdecode.phantom.body.brain import TR
from rtdecode.phantom.session import PhantomSession
from streaming.decode.decoder import Decoder
from streaming.session import replay
from train.artifacts.run_folder import draft_of, restored
from train.config.recipe import build
from train.config.run_files import read_run
from train.data.chain import windows
from train.data.phantom import window_arrays
from train.evaluate import evaluate
from train.evaluation.result import Request


@dataclass(frozen=True)
class ReplayComparison:
    """What a session and the judge have of the same windows.

    Attributes
    ----------
    live, run_conditions : list of ndarray
        The mean token of each window's condition, by the bundle and by the run.
    reported, judged : dict
        2-way identification, by the report of a replay and by the judge.
    """

    live: list[NDArray[Any]]
    run_conditions: list[NDArray[Any]]
    reported: dict[str, Any]
    judged: dict[str, Any]

    @property
    def difference(self) -> float:
        """The largest difference of a condition."""
        return float(np.abs(np.stack(self.live) - np.stack(self.run_conditions)).max())


def compare_replay(run: Path, bundle: str, seconds: float, place: Path) -> ReplayComparison:
    """Record a session in `place`, and give it to a run and to its bundle."""
    loaded = bundles.load(bundle)
    tr_s = float(loaded.manifest.grid.tr or TR)
    recording = record(PhantomSession("easy", 1, 1000, seconds, "free", tr_s=tr_s), place / "recording")
    session_recording = Recording(recording)
    decoder = Decoder(loaded, tell_condition=True)
    played = windows(loaded, session_recording.events(), session_recording.montage, seconds=seconds)
    live = [decoder.decode(window).condition for window in played]
    draft = draft_of(run)
    inputs = window_arrays(
        draft.manifest, windows(draft, session_recording.events(), session_recording.montage, seconds=seconds)
    )
    condition = restored(run, build(read_run(run)["arguments"])["system"]).condition(inputs)
    report = place / "report.json"
    replay.run(recording, bundle, "max", out=place / "out", report=report)
    return ReplayComparison(
        live=[tokens for tokens in live if tokens is not None],
        # Programs are told the mean token.
        run_conditions=list(np.asarray(condition.tokens).mean(axis=1)),
        reported=json.loads(report.read_text())["accuracy"]["identification_2way"],
        judged=evaluate(run, Request(data=recording))["identification_2way"],
    )
