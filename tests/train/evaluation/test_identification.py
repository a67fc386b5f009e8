"""Judging: fresh seeds, every route, controls, and the same windows as a session."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtdecode import bundle as bundles
from rtdecode.disk.recording import RecordingWriter
from rtdecode.disk.video import write_mp4
from rtdecode.errors import RecordingError, UsageError
from rtdecode.phantom.session import START_AT
from rtdecode.scores.accuracy import correlations, identification
from rtdecode.scores.events import Event
from tests.recordings import record
from tests.refusals import refused
from tests.streaming.bundles import make_calibration
from tests.train.tiny import tiny
from train.artifacts.run_folder import draft_of
from train.config.run_files import arrays
from train.data.chain import windows
from train.data.phantom import participant, session_arrays, window_arrays
from train.evaluate import Request, evaluate, main, read_request
from train.evaluation import identification as judge
from train.evaluation.beside import only
from train.evaluation.identification import (
    background_baseline,
    background_wins,
    classified,
    judge_clips,
    named_figures,
)
from train.evaluation.reconstruct import Reconstruction, clips_of, reconstruct
from train.models.ridge.system import PatchRidge


def test_training_seeds_cannot_judge() -> None:
    with refused(UsageError, "judging-seeds-reserved", seeds=[7]):
        evaluate(tiny("ridge"), Request(seeds="7", seconds=8))


@pytest.mark.parametrize(
    ("evaluation_request", "unread"),
    [
        (Request(oracle="900-905", seeds="1000"), ["oracle"]),
        (Request(runs="3", data=Path("nowhere")), ["runs", "data"]),
        (Request(keep="none"), ["keep=none"]),
        (Request(data=Path("rec"), seconds=24.0, film="shapes"), ["seconds", "film"]),
        (Request(film="shapes", runs="3"), ["runs"]),
    ],
)
def test_what_would_change_nothing_is_refused(
    evaluation_request: Request, unread: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rec").mkdir()
    (tmp_path / "rec/recording.json").touch()
    with refused(UsageError, "evaluate-key-unread", unread=unread):
        evaluate(tiny("ridge"), evaluation_request)


def test_a_recording_is_judged_as_its_session_is(tmp_path: Path) -> None:
    record(participant("easy", 1).session(1003, 24.0), tmp_path / "rec")
    from_disk = evaluate(tiny("ridge"), Request(data=tmp_path / "rec"))
    fresh = evaluate(tiny("ridge"), Request(seeds=1003, seconds=24.0))
    assert set(from_disk) == set(fresh)
    for name in ("identification_2way", "identification_2way_eeg", "identification_2way_fmri"):
        assert from_disk[name]["n"] == 6
        # The film on disk went through a video codec: correlations move in the third digit.
        assert from_disk[name]["value"] == pytest.approx(fresh[name]["value"], abs=0.07)


def test_a_recording_is_judged_after_its_dummies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = participant("easy", 1).session(1003, 16.0)
    for dummies in (0, 5):
        with RecordingWriter(tmp_path / str(dummies), session.montage, {"dummies": dummies}) as writer:
            for item in session.events(0.2):
                writer.write(item)
        session.truth(tmp_path / str(dummies) / "truth")
    judged_eeg: list[np.ndarray] = []
    monkeypatch.setattr(judge, "judge_clips", lambda *arguments: judged_eeg.append(arguments[2]["eeg"]) or {})
    for dummies in (0, 5):
        evaluate(tiny("ridge"), Request(data=tmp_path / str(dummies)))
    # Five volumes of 0.8 s are one window.
    np.testing.assert_array_equal(judged_eeg[1][:3], judged_eeg[0][1:])


def test_a_recording_is_judged_with_the_calibration_of_its_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = participant("easy", 1).session(1003, 8.0)
    bundle = draft_of(tiny("ridge"))
    turned = np.flip(session.scanner.volume(0), axis=0)
    calibration = make_calibration(tmp_path / "calibration", bundle, turned)
    recordings = {"plain": {}, "calibrated": {"calibration": str(calibration.path)}}
    for name, meta in recordings.items():
        with RecordingWriter(tmp_path / name, session.montage, meta) as writer:
            for item in session.events(0.2):
                writer.write(item)
        session.truth(tmp_path / name / "truth")
    volumes: list[np.ndarray] = []
    monkeypatch.setattr(judge, "judge_clips", lambda *arguments: volumes.append(arguments[2]["fmri"]) or {})
    for name in recordings:
        evaluate(tiny("ridge"), Request(data=tmp_path / name))
    plain, calibrated = volumes
    assert plain.shape == calibrated.shape
    assert not np.allclose(plain, calibrated)


def test_a_recording_without_a_window_to_judge_is_said(tmp_path: Path) -> None:
    session = participant("easy", 1).session(1003, 8.0)
    for name, until in (("short", START_AT + 3), ("other", np.inf)):
        with RecordingWriter(tmp_path / name, session.montage, {}) as writer:
            for item in session.events(0.2):
                if item.arrived_at < until:
                    writer.write(item)
        session.truth(tmp_path / name / "truth")
    with refused(UsageError, "recording-too-short", modalities="eeg and fmri"):
        evaluate(tiny("ridge"), Request(data=tmp_path / "short"))
    write_mp4(tmp_path / "other" / "truth" / "film.mp4", session.film.frames[:8], 8)
    with refused(UsageError, "recording-windows-outside-film", path=tmp_path / "other", frame_count=8):
        evaluate(tiny("ridge"), Request(data=tmp_path / "other"))


def test_the_chain_does_not_care_how_the_eeg_was_cut() -> None:
    bundle = draft_of(tiny("ridge"))
    session = participant("easy", 1).session(1004, 8.0)
    coarse = session_arrays(bundle, session)
    fine_windows = windows(bundle, session.events(chunk_s=0.02), session.montage, seconds=8.0)
    fine = window_arrays(bundle.manifest, fine_windows)
    assert len(fine_windows) == 2
    for name, value in coarse.items():
        assert np.array_equal(value, fine[name])


def test_blanking_a_modality_blanks_its_mask() -> None:
    inputs = {name: np.ones((2, 3)) for name in ("eeg", "eeg_mask", "fmri", "fmri_mask")}
    eeg_only = only(inputs, ("eeg",))
    assert eeg_only["eeg"].all()
    assert eeg_only["eeg_mask"].all()
    assert not eeg_only["fmri"].any()
    assert not eeg_only["fmri_mask"].any()


def test_without_any_signal_the_mean_clip_is_shown() -> None:
    folder = tiny("ridge")
    golden = arrays(folder, "golden")
    weights = arrays(folder, "weights")
    system = PatchRidge(weights)
    clips = clips_of(system, system.condition(only(golden, ())).start)
    assert np.array_equal(clips[0], clips[1])
    mean = arrays(folder, "stats")["mean_clip"].astype(int)
    assert np.abs(clips[0] - mean).mean() < 2


def test_a_figure_that_no_window_gives_is_null_and_says_why() -> None:
    # Two windows of different backgrounds: each has one other, none of its own background, and no 49.
    truths = list(np.random.default_rng(0).integers(0, 256, (2, 2, 8, 8, 3)).astype(np.uint8))
    spans = [(0, 0.0, 4.0), (0, 4.0, 8.0)]
    events = {0: [Event(4.0 * k, 4.0, "shot", {"background": f"{k}"}) for k in range(2)]}
    corr = correlations(truths, truths, np.zeros((2, 8, 8, 3), np.uint8))
    figures = named_figures(identification(corr, spans, events), "_eeg")
    assert figures["identification_2way_eeg"]["value"] == 1
    alike = figures["identification_2way_same_background_eeg"]
    assert (alike["value"], alike["ci95"], alike["n"], alike["chance"]) == (None, None, 0, 0.5)
    assert "same background" in alike["reason"]
    assert "49" in figures["identification_50way_eeg"]["reason"]


def test_the_background_baseline_knows_the_background_alone() -> None:
    rng = np.random.default_rng(0)
    names = rng.choice(["navy", "sky", "sand"], 60)
    patterns = {name: rng.integers(0, 200, (2, 8, 8, 3)) for name in ("navy", "sky", "sand")}
    truths = np.stack([patterns[n] + rng.integers(0, 50, (2, 8, 8, 3)) for n in names]).astype(np.uint8)
    spans = [(0, 4.0 * k, 4.0 * k + 4) for k in range(60)]
    events = {0: [Event(4.0 * k, 4.0, "shot", {"background": str(n)}) for k, n in enumerate(names)]}
    mean = truths.mean(0).astype(np.uint8)
    figure = background_baseline(background_wins(truths, spans, events, mean), spans)[
        "identification_2way_background"
    ]
    alike = np.mean([(names == n).sum() - 1 for n in names]) / 59
    assert figure["value"] == pytest.approx(1 - alike / 2, abs=0.06)
    assert np.isfinite(correlations(list(truths), list(truths), mean)).all()


@pytest.mark.full
def test_a_shuffled_brain_is_at_chance() -> None:
    folder = tiny("ridge")
    bundle = draft_of(folder)
    show = partial(reconstruct, PatchRidge(arrays(folder, "weights")), noise_key="0", hop_s=4.0)
    session = participant("easy", 1).session(1005, 240.0)
    inputs = session_arrays(bundle, session)
    truths = np.stack([session.film.clip(k)[:32] for k in range(60)])
    spans = [(0, 4.0 * k, 4.0 * k + 4) for k in range(60)]
    events = {0: [Event(s.onset, s.duration, "shot", dict(s.attributes)) for s in session.film.shots]}
    figures = judge_clips(show, bundle, inputs, truths, spans, events)
    for name in ("identification_2way", "identification_2way_eeg", "identification_2way_fmri"):
        assert 0.44 < figures[name]["shuffled"] < 0.56
        assert figures[name]["constant"] == 0
    assert figures["identification_2way"]["ci95"][0] > 0.5


def test_the_report_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tiny("ridge")), "--json", "seeds=1000", "seconds=12"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert {"value", "chance", "shuffled", "constant", "ci95", "interval", "n"} == set(
        figures["identification_2way"]
    )


@pytest.mark.parametrize(
    ("changes", "code", "values"),
    [
        (["seconds=four"], "evaluate-seconds-not-number", {"seconds": "four"}),
        (["presets=1"], "preset-unknown", {"preset": "1", "available": ["easy", "default", "hard"]}),
        (["presets=easy,defualt"], "preset-unknown", {"preset": "defualt"}),
    ],
)
def test_a_request_that_cannot_be_judged_is_refused_before_anything_is(
    changes: list[str],
    code: str,
    values: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("train.evaluation.identification.judge_phantom", lambda *_: pytest.fail("judged"))
    assert main([str(tiny("ridge")), "--json", *changes]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == code
    assert error["values"] == error["values"] | values


def test_categories_are_judged_without_an_onset_correction_if_it_is_null() -> None:
    bundle = bundles.load("haxby")
    null = replace(bundle, manifest=replace(bundle.manifest, provenance={"onset_correction_s": None}))
    labels = bundle.manifest.labels
    assert labels is not None
    scores = np.eye(len(labels))[:3]
    nothing = np.zeros((3, 1), np.float32)
    reconstruction = Reconstruction([], nothing, None, scores)
    spans = [(1, 4.0 * k, 4.0 * k + 4) for k in range(3)]
    events = {1: [Event(4.0 * k, 4.0, labels[k]) for k in range(3)]}
    figure = classified(reconstruction, spans, events, null)["classification_top1"]
    assert (figure["value"], figure["n"]) == (1, 3)


def test_unknown_keys_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with refused(UsageError, "evaluate-unknown-key", arguments=["speed=3"]):
        read_request(["speed=3", "seconds=5"])
    assert main(["nowhere", "--json"]) == 2
    output = capsys.readouterr()
    error = json.loads(output.out)["error"]
    assert error["code"] == "run-unreadable"
    assert error["values"]["folder"] == "nowhere"
    assert error["message"] in output.err


def test_json_without_a_run_shows_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json"]) == 2
    assert "train.evaluate RUN [--json]" in capsys.readouterr().err


@pytest.mark.parametrize("contents", [None, b"", b"no film" * 500])
def test_a_recording_whose_film_cannot_be_read_is_named(contents: bytes | None, tmp_path: Path) -> None:
    path = record(participant("easy", 1).session(1003, 8.0), tmp_path / "rec") / "truth" / "film.mp4"
    path.unlink()
    if contents is not None:
        path.write_bytes(contents)
    with refused(RecordingError, "recording-film-unreadable", path=path):
        evaluate(tiny("ridge"), Request(data=tmp_path / "rec"))
