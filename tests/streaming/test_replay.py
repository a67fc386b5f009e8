"""Replays that end early, and recordings that were made otherwise than they are read."""

import json
import signal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rtdecode.bundle import Bundle
from rtdecode.errors import RtDecodeError, UsageError
from rtdecode.recording import Recording, RecordingWriter
from rtdecode.types import Volume
from streaming import replay
from streaming.deadline import Work
from streaming.output import Output
from tests.streaming.bundles import AFFINE, SHAPE, make_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("b") / "bundle"
    return make_bundle(folder, eeg=False, tr=Fraction(1, 2), window=Fraction(1))


def recorded(folder: Path) -> Path:
    """Volumes for four windows."""
    rng = np.random.default_rng(0)
    with RecordingWriter(folder, None, {"seconds": 4}) as writer:
        for index in range(12):
            data, at = rng.normal(500, 20, SHAPE).astype(np.float32), 100.6 + 0.5 * index
            writer.write(Volume(data, AFFINE, index, 1, 0.5, 0.5 * index, 0.6, at, at, at, "v", "1"))
    return folder


@pytest.mark.parametrize("speed", ["max", "1"])
def test_ctrl_c_ends_a_replay_with_everything_written(
    speed: str, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emit = Output.emit

    def interrupted(self: Output, work: Work) -> None:
        emit(self, work)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Output, "emit", interrupted)
    out = tmp_path / "out"
    assert replay.run(recorded(tmp_path / "r"), str(bundle.path), speed, out) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["ended"] == "stopped by SIGINT"
    assert (report["windows"]["expected"], report["windows"]["final"]) == (1, 1)
    assert not (out / ".finals").exists()


def test_a_fault_in_a_replay_leaves_the_report(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_self: Output, _work: Work) -> None:
        raise RtDecodeError("no space left")

    monkeypatch.setattr(Output, "emit", fail)
    out = tmp_path / "out"
    with pytest.raises(RtDecodeError, match="no space left"):
        replay.run(recorded(tmp_path / "r"), str(bundle.path), "max", out)
    assert json.loads((out / "report.json").read_text())["ended"] == "no space left"
    assert not (out / ".finals").exists()


def test_a_whole_replay_counts_every_window(bundle: Bundle, tmp_path: Path) -> None:
    assert replay.run(recorded(tmp_path / "r"), str(bundle.path), "max", tmp_path / "out") == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["ended"] == "end of the recording"
    assert (report["windows"]["expected"], report["windows"]["final"]) == (4, 4)


def test_a_truth_that_cannot_be_read_is_said_once(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = recorded(tmp_path / "r") / "truth"
    truth.mkdir()
    (truth / "events.tsv").write_text("no\ttable\n")
    (truth / "film.mp4").write_bytes(b"no film at all" * 100)
    assert replay.run(tmp_path / "r", str(bundle.path), "max", tmp_path / "out") == 0
    assert capsys.readouterr().err.count("cannot be read and is left out") == 1


@pytest.mark.parametrize(("noted", "fits"), [(None, True), ("aaaa", True), ("bbbb", False)])
def test_another_calibration_in_the_place_of_the_sessions_is_refused(
    noted: str | None, fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = SimpleNamespace(digest="aaaa")
    monkeypatch.setattr(replay.calibrations, "load", lambda _: found)
    meta = {"calibration": "/cal"} | ({"calibration_digest": noted} if noted else {})
    with RecordingWriter(tmp_path / "r", None, meta):
        pass
    kept = Recording(tmp_path / "r")
    if fits:
        assert replay._calibration(kept) is found
        return
    with pytest.raises(UsageError, match=f"{tmp_path / 'r'} was made with the calibration bbbb in /cal"):
        replay._calibration(kept)
