"""Whole live sessions as programs, over LSL and a folder, seconds long."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from rtdecode.disk.video import read_mp4
from streaming.session import replay
from streaming.sinks.meter import DURATIONS, INSTANTS
from tests.streaming.bundles import CHANNELS, make_bundle
from tests.streaming.sessions import TR, WINDOW, Ended, play

# Of a second each, decoded from EEG and fMRI.
WINDOWS = 3


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("b") / "bundle", tr=TR, window=WINDOW).path


@pytest.fixture(scope="module")
def whole_session(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    root = tmp_path_factory.mktemp("s")
    flags = ("--seconds", str(WINDOWS), "--record", str(root / "recording"))
    return play(root / "both", bundle, *flags, seconds=120, lead=0.5)


@pytest.fixture(scope="module")
def one_source(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """Sessions that have one source, or none, for a while or all along."""
    root = tmp_path_factory.mktemp("o")
    return _at_once(
        {
            "eeg": lambda: play(
                root / "eeg", bundle, "--seconds", "8", fmri=False, seconds=120, marked=False
            ),
            "lost": lambda: play(root / "lost", bundle, "--lost-after", "2", seconds=4.2),
            "no-eeg": lambda: play(root / "no-eeg", bundle, "--seconds", "5", seconds=120, eeg_stops=2.2),
        }
    )


def _at_once(jobs: dict[str, Callable[[], Ended]]) -> dict[str, Ended]:
    with ThreadPoolExecutor(3) as pool:
        running = {name: pool.submit(job) for name, job in jobs.items()}
        return {name: job.result() for name, job in running.items()}


def check_windows(ended: Ended, expected: int, modalities: tuple[str, ...] = ("eeg", "fmri")) -> None:
    """Every window is one final or one that was skipped: how many of either, the machine's speed decides.

    A modality that is not in `modalities` is missing from every clip, and degrades none.
    """
    windows = ended.report["windows"]
    finals = ended.finals()
    revisions = [clip["revision"] for clip in ended.clips]
    assert windows["expected"] == windows["final"] + windows["skipped"] == expected, ended.output
    assert windows["final"] == len(finals) >= 1
    assert windows["preview"] == revisions.count("preview") <= expected
    # A busy machine may write a volume after its window's final.
    assert windows["refined"] == revisions.count("refined") <= expected
    numbers = [clip["clip"] for clip in finals]
    assert numbers == sorted(set(numbers))
    for clip in ended.clips:
        assert clip["window_s"] == [clip["clip"], clip["clip"] + 1]
    complete = [clip for clip in finals if all(clip["missing"][name] == 0 for name in modalities)]
    assert windows["degraded"] == len(finals) - len(complete)


def in_time(ended: Ended) -> bool:
    """Whether the player wrote every volume that it did not drop before its window was due."""
    fmri = ended.report["fmri"]
    return (fmri["missing"], fmri["late"]) == (0, 0)


def test_every_window_comes_out_as_preview_and_final(whole_session: Ended) -> None:
    ended = whole_session
    assert ended.code == 0, ended.output
    check_windows(ended, WINDOWS)
    for clip in ended.clips:
        assert read_mp4(ended.out / clip["file"]).shape == (33, 64, 96, 3)
        # The bundle was made for a simulated brain, and yet the player is none.
        assert "simulated" not in clip["file"]
    for clip in ended.clips:
        assert clip["missing"]["eeg"] == 0
        # A volume that the busy machine wrote too late is missing, and counted.
        assert (clip["missing"]["fmri"] < 1) is ("fmri" in clip["modalities"])
        assert clip["revision"] != "preview" or clip["modalities"] == ["eeg"]
    if in_time(ended):
        assert all(clip["missing"]["fmri"] == 0 for clip in ended.finals())


def test_a_line_holds_what_the_contract_names(whole_session: Ended) -> None:
    clip = whole_session.finals()[-1]
    assert set(clip) == {
        *(
            "session",
            "run",
            "clip",
            "revision",
            "late",
            "window_s",
            "session_s",
            "file",
            "modalities",
            "missing",
        ),
        *(
            "confidence",
            "brain",
            "brain_by",
            "inconsistent",
            "steps",
            "detail",
            "latency_ms",
            "t_ms",
            "simulated",
            "bundle_simulated",
            "bundle",
            "chain",
            "latent",
            "eeg_quality",
            "eeg_source",
        ),
    }
    assert set(clip["latency_ms"]) == set(DURATIONS)
    assert list(clip["t_ms"]) == list(INSTANTS)
    assert (clip["simulated"], clip["bundle_simulated"]) == (False, True)
    assert clip["chain"] == "causal"
    times = [clip["t_ms"][name] for name in INSTANTS]
    assert times == sorted(times)
    latency_ms = clip["latency_ms"]
    assert latency_ms["beyond_floor"] == pytest.approx(clip["t_ms"]["emitted"])
    # A lag of 1 s, and the player's 0.1 s from a volume's end to its file, or more on a busy machine.
    assert latency_ms["since_stimulus"] >= 1080 + latency_ms["beyond_floor"]


def test_the_report_holds_what_the_contract_names(whole_session: Ended) -> None:
    report = whole_session.report
    assert set(report["eeg"]) == {
        *("samples", "lost_samples", "gaps", "rate_hz", "drift_ppm", "triggers", "artifact_residual_db"),
        *("epochs", "bad_channels", "age_ms", "nonfinite_samples"),
    }
    assert set(report["fmri"]) == {
        *(
            "volumes",
            "missing",
            "late",
            "duplicate",
            "out_of_order",
            "rejected_files",
            "max_fd_mm",
            "saturated",
            "implausible",
            "nonfinite_voxels",
            "burst",
            "delay_s",
        ),
    }
    assert report["clock"]["source"] == "trigger"
    assert report["clock"]["residual_ms"] < 5
    assert report["eeg"]["lost_samples"] == 0
    assert report["eeg"]["rate_hz"] == pytest.approx(500, rel=0.01)
    assert report["fmri"]["volumes"] + report["fmri"]["missing"] >= 2 * (WINDOWS + 1)
    assert report["fmri"]["burst"] >= 1
    # The player closes a file 0.1 s after the volume's end, or later on a busy machine.
    assert report["fmri"]["delay_s"]["max"] >= report["fmri"]["delay_s"]["p50"] > 0.05
    assert set(report["latency_ms"]) == set(DURATIONS)
    assert set(report["latency_ms"]["beyond_floor"]) == {"p50", "p95", "p99", "max"}
    assert 50 < report["memory_mb"]["peak"] < 600
    assert set(report["accuracy"].values()) == {None}


def test_the_paths_are_printed_last(whole_session: Ended) -> None:
    ended = whole_session
    last = ended.output.strip().splitlines()[-2:]
    assert last == [str(ended.out), str(ended.out / "report.json")]
    assert "a simulated brain" in ended.output


def test_the_film_has_a_hop_for_each_window(whole_session: Ended) -> None:
    assert len(read_mp4(whole_session.out / "film.mp4")) == WINDOWS * 8
    assert (whole_session.out / "contact_sheet.png").is_file()


def test_a_recording_replays_to_the_same_clips(
    whole_session: Ended, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live = whole_session
    recording = live.out.parents[1] / "recording"
    for name in "ab":
        assert replay.run(recording, str(bundle), "max", tmp_path / name) == 0
    lines = (tmp_path / "a" / "clips.jsonl").read_text().splitlines()
    replayed = {(c["clip"], c["revision"]): c for c in map(json.loads, lines)}
    # On a busy machine a preview gives way to its final, and a window is skipped: in the replay too.
    assert replayed.keys() == {(c["clip"], c["revision"]) for c in live.clips}
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    assert report["as_live"]["repeated"] == report["as_live"]["windows"] == WINDOWS
    assert report["windows"]["skipped"] == live.report["windows"]["skipped"]
    assert live.report["replayed"] is None
    for clip in live.clips:
        twin = replayed[clip["clip"], clip["revision"]]
        assert (live.out / clip["file"]).read_bytes() == (tmp_path / "a" / twin["file"]).read_bytes()
        before, after = (
            np.load(folder / c["latent"]) for folder, c in ((live.out, clip), (tmp_path / "a", twin))
        )
        assert np.abs(before - after).max() < 1e-5
        assert twin["missing"] == clip["missing"]
        assert twin["latency_ms"]["beyond_floor"] is None
        assert twin["latency_ms"]["encode"] > 0
    for file in (tmp_path / "a" / "clips").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / "clips" / file.name).read_bytes()
    printed = capsys.readouterr()
    assert str(tmp_path / "a" / "report.json") in printed.out
    assert f"{WINDOWS} of {WINDOWS} windows as live" in printed.err


# What a window holds whose sources are lost or not there is tried in `tests/rtdecode/windows`; that silence
# ends a session below and, with its exit code, in `tests/test_privacy.py`.
@pytest.mark.full
def test_eeg_alone_has_finals_from_its_first_sample_on_and_no_previews(one_source: dict[str, Ended]) -> None:
    ended = one_source["eeg"]
    assert ended.code == 0, ended.output
    assert ended.report["clock"]["source"] == "first-sample"
    check_windows(ended, 8, ("eeg",))
    assert ended.report["windows"]["preview"] == 0
    assert all(clip["modalities"] == ["eeg"] for clip in ended.clips)
    # The filter's first samples may lie before the reader was connected.
    assert all(clip["missing"]["eeg"] < 0.05 for clip in ended.finals())


@pytest.mark.full
def test_silence_from_everything_ends_with_3(one_source: dict[str, Ended]) -> None:
    ended = one_source["lost"]
    assert ended.code == 3, ended.output
    assert "silent" in ended.output
    windows = ended.report["windows"]
    assert windows["final"] >= 1
    assert windows["expected"] == windows["final"] + windows["skipped"] >= 3


@pytest.mark.full
def test_a_lost_amplifier_degrades_and_does_not_end_it(one_source: dict[str, Ended]) -> None:
    ended = one_source["no-eeg"]
    assert ended.code == 0, ended.output
    check_windows(ended, 5)
    missing = [0, 0, pytest.approx(0.8, abs=0.05), 1, 1]
    for clip in ended.finals():
        assert clip["missing"]["eeg"] == missing[clip["clip"]]
        assert ("eeg" in clip["modalities"]) is (clip["clip"] < 3)


# The refusal is tried on the assembler, and exit code 4 in `tests/test_privacy_streams.py`.
@pytest.mark.full
def test_a_bundle_for_another_montage_ends_with_4(tmp_path: Path) -> None:
    channels = (*CHANNELS, "T99")
    wide_bundle = make_bundle(tmp_path / "bundle", tr=TR, window=WINDOW, channels=channels).path
    ended = play(tmp_path / "s", wide_bundle, seconds=120, lead=0.2)
    assert ended.code == 4, ended.output
    assert "T99" in ended.output
    # A start that fails leaves no folder.
    assert not ended.out.exists()
