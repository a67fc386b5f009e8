"""Whole live sessions as programs, over LSL and a folder, seconds long."""

import json
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import psutil
import pytest
from rich.console import Console

from rtdecode.bundle import load
from rtdecode.errors import RtDecodeError, SourceLostError
from rtdecode.video import read_mp4
from streaming import replay
from streaming.decoder import Decoder
from streaming.meter import DURATIONS, INSTANTS
from streaming.output import Output, prepare
from streaming.progress import Progress
from streaming.session import StreamOptions, _Session, run
from streaming.truth import Truth
from tests.streaming.bundles import CHANNELS, damage, make_bundle
from tests.streaming.sessions import LIMIT, TR, WINDOW, Ended, end, interrupt, play, stream, text, until
from tests.streaming.test_truth import write_film


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("b") / "bundle", tr=TR, window=WINDOW).path


@pytest.fixture(scope="module")
def sessions(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Ended]]:
    """One session alone, as its deadlines are short; then the others, three at a time."""
    root = tmp_path_factory.mktemp("s")
    record = ("--record", str(root / "recording"))
    jobs: dict[str, Callable[[], Ended]] = {
        "both": lambda: play(root / "both", bundle, "--seconds", "4", *record, seconds=120),
        "eeg": lambda: play(root / "eeg", bundle, "--seconds", "3", fmri=False, seconds=120),
        "unmarked": lambda: play(
            root / "unmarked", bundle, "--seconds", "8", fmri=False, seconds=120, marked=False
        ),
        "holes": lambda: play(
            root / "holes",
            *(bundle, "--seconds", "4", "--existing", "read"),
            eeg=False,
            seconds=120,
            dropped=(5,),
        ),
        "interrupt": lambda: play(root / "interrupt", bundle, seconds=120, during=interrupt),
        "lost": lambda: play(root / "lost", bundle, "--lost-after", "2", seconds=4.2),
        "no-eeg": lambda: play(root / "no-eeg", bundle, "--seconds", "5", seconds=120, eeg_stops=2.2),
    }
    done = {"both": jobs.pop("both")()}
    with ThreadPoolExecutor(3) as pool:
        running = {name: pool.submit(job) for name, job in jobs.items()}
        yield done | {name: job.result() for name, job in running.items()}


def check_windows(ended: Ended, expected: int) -> None:
    """Every window is one final or one that was skipped: how many of either, the machine's speed decides."""
    windows, finals = ended.report["windows"], ended.finals()
    assert windows["expected"] == windows["final"] + windows["skipped"] == expected, ended.said
    assert windows["final"] == len(finals) >= 1
    assert windows["preview"] == len(ended.clips) - len(finals) <= expected
    assert windows["refined"] == 0
    numbers = [clip["clip"] for clip in finals]
    assert numbers == sorted(set(numbers))
    for clip in ended.clips:
        assert clip["window_s"] == [clip["clip"], clip["clip"] + 1]
    whole = [clip for clip in finals if set(clip["missing"].values()) == {0}]
    assert windows["degraded"] == len(finals) - len(whole)


def in_time(ended: Ended) -> bool:
    """Whether the player wrote every volume that it did not drop before its window was due."""
    fmri = ended.report["fmri"]
    return (fmri["missing"], fmri["late"]) == (0, 0)


def test_every_window_comes_out_as_preview_and_final(sessions: dict[str, Ended]) -> None:
    ended = sessions["both"]
    assert ended.code == 0, ended.said
    check_windows(ended, 4)
    for clip in ended.clips:
        assert read_mp4(ended.out / clip["file"]).shape == (33, 64, 96, 3)
        assert "simulated" in clip["file"]
    for clip in ended.clips:
        final = clip["revision"] == "final"
        assert clip["missing"]["eeg"] == 0
        # A volume that the busy machine wrote too late is missing, and counted.
        assert (clip["missing"]["fmri"] < 1) is ("fmri" in clip["modalities"])
        assert final or clip["modalities"] == ["eeg"]
    if in_time(ended):
        assert all(clip["missing"]["fmri"] == 0 for clip in ended.finals())


def test_a_line_holds_what_the_contract_names(sessions: dict[str, Ended]) -> None:
    clip = sessions["both"].finals()[-1]
    assert set(clip) == {
        *("session", "run", "clip", "revision", "window_s", "session_s", "file", "modalities", "missing"),
        *("confidence", "steps", "latency_ms", "t_ms", "simulated", "bundle", "latent", "eeg_quality"),
    }
    assert set(clip["latency_ms"]) == set(DURATIONS)
    assert list(clip["t_ms"]) == list(INSTANTS)
    assert clip["simulated"] is True
    times = [clip["t_ms"][name] for name in INSTANTS]
    assert times == sorted(times)
    spent = clip["latency_ms"]
    assert spent["beyond_floor"] == pytest.approx(clip["t_ms"]["emitted"])
    # A lag of 1 s, and the player's 0.1 s from a volume's end to its file, or more on a busy machine.
    assert spent["since_stimulus"] >= 1080 + spent["beyond_floor"]


def test_the_report_holds_what_the_contract_names(sessions: dict[str, Ended]) -> None:
    report = sessions["both"].report
    assert set(report["eeg"]) == {
        *("samples", "lost_samples", "gaps", "rate_hz", "drift_ppm", "triggers", "artifact_residual_db"),
        *("epochs", "bad_channels", "age_ms"),
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
        ),
    }
    assert report["clock"]["source"] == "trigger"
    assert report["clock"]["residual_ms"] < 5
    assert report["eeg"]["lost_samples"] == 0
    assert report["eeg"]["rate_hz"] == pytest.approx(500, rel=0.01)
    assert report["fmri"]["volumes"] + report["fmri"]["missing"] >= 10
    assert set(report["latency_ms"]) == set(DURATIONS)
    assert set(report["latency_ms"]["beyond_floor"]) == {"p50", "p95", "p99", "max"}
    assert 50 < report["memory_mb"]["peak"] < 600
    assert set(report["accuracy"].values()) == {None}


def test_the_paths_are_printed_last(sessions: dict[str, Ended]) -> None:
    ended = sessions["both"]
    last = ended.said.strip().splitlines()[-2:]
    assert last == [str(ended.out), str(ended.out / "report.json")]
    assert "imulated participant" in ended.said


def test_the_film_has_a_hop_for_each_window(sessions: dict[str, Ended]) -> None:
    assert len(read_mp4(sessions["both"].out / "film.mp4")) == 4 * 8
    assert (sessions["both"].out / "contact_sheet.png").is_file()


def test_a_recording_replays_to_the_same_clips(
    sessions: dict[str, Ended], bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live = sessions["both"]
    recording = live.out.parents[1] / "recording"
    for name in "ab":
        assert replay.run(recording, str(bundle), "max", tmp_path / name) == 0
    lines = (tmp_path / "a" / "clips.jsonl").read_text().splitlines()
    replayed = {(c["clip"], c["revision"]): c for c in map(json.loads, lines)}
    # On a busy machine a preview gives way to its final; nothing presses a replay.
    more = replayed.keys() - {(c["clip"], c["revision"]) for c in live.clips}
    assert len(replayed) == 8
    skipped = [clip for clip, revision in more if revision == "final"]
    assert len(skipped) == live.report["windows"]["skipped"]
    for clip in live.clips:
        twin = replayed[clip["clip"], clip["revision"]]
        assert (live.out / clip["file"]).read_bytes() == (tmp_path / "a" / twin["file"]).read_bytes()
        before, after = (np.load(at / c["latent"]) for at, c in ((live.out, clip), (tmp_path / "a", twin)))
        assert np.abs(before - after).max() < 1e-5
        assert twin["missing"] == clip["missing"]
        assert twin["latency_ms"]["beyond_floor"] is None
        assert twin["latency_ms"]["encode"] > 0
    for file in (tmp_path / "a" / "clips").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / "clips" / file.name).read_bytes()
    assert str(tmp_path / "a" / "report.json") in capsys.readouterr().out


def test_eeg_alone_has_finals_and_no_previews(sessions: dict[str, Ended]) -> None:
    ended = sessions["eeg"]
    assert ended.code == 0, ended.said
    check_windows(ended, 3)
    assert ended.report["windows"]["preview"] == 0
    assert all(clip["modalities"] == ["eeg"] for clip in ended.clips)


def test_without_volumes_and_triggers_time_begins_at_the_first_sample(sessions: dict[str, Ended]) -> None:
    ended = sessions["unmarked"]
    assert ended.code == 0, ended.said
    assert ended.report["clock"]["source"] == "first-sample"
    check_windows(ended, 8)
    # The filter's first samples may lie before the reader was connected.
    assert all(clip["missing"]["eeg"] < 0.05 for clip in ended.finals())


def test_a_lost_volume_is_seen_in_its_window_alone(sessions: dict[str, Ended]) -> None:
    ended = sessions["holes"]
    assert ended.code == 0, ended.said
    check_windows(ended, 4)
    missing = {clip["clip"]: clip["missing"]["fmri"] for clip in ended.finals()}
    assert missing.get(1, 0.5) >= 0.5
    fmri = ended.report["fmri"]
    assert fmri["missing"] >= 1
    # On a busy machine the player is late with other volumes too.
    if (fmri["missing"], fmri["late"]) == (1, 0):
        assert missing.items() <= {0: 0, 1: 0.5, 2: 0, 3: 0}.items()
    assert all(clip["modalities"] == ["fmri"] for clip in ended.clips)


def test_ctrl_c_writes_everything_and_ends_with_0(sessions: dict[str, Ended]) -> None:
    ended = sessions["interrupt"]
    assert ended.code == 0, ended.said
    windows = ended.report["windows"]
    assert windows["final"] == len(ended.finals()) >= 1
    assert windows["expected"] == windows["final"] + windows["skipped"]
    assert "SIGINT" in ended.report["ended"]
    assert len(read_mp4(ended.out / "film.mp4")) == 8 * (windows["final"] + windows["skipped"])


def test_silence_from_everything_ends_with_3(sessions: dict[str, Ended]) -> None:
    ended = sessions["lost"]
    assert ended.code == 3, ended.said
    assert "silent" in ended.said
    windows = ended.report["windows"]
    assert windows["final"] >= 1
    assert windows["expected"] == windows["final"] + windows["skipped"] >= 3


def test_a_lost_amplifier_degrades_and_does_not_end_it(sessions: dict[str, Ended]) -> None:
    ended = sessions["no-eeg"]
    assert ended.code == 0, ended.said
    check_windows(ended, 5)
    missing = [0, 0, pytest.approx(0.8, abs=0.05), 1, 1]
    for clip in ended.finals():
        assert clip["missing"]["eeg"] == missing[clip["clip"]]
        assert ("eeg" in clip["modalities"]) is (clip["clip"] < 3)


def test_sources_that_do_not_come_end_the_wait_with_1(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "volumes").mkdir()
    (tmp_path / "volumes" / "old.nii").write_bytes(b"old")
    ended = end(
        stream(
            *("--lsl", "nobody-is-called-so", "--fmri-dir", str(tmp_path / "volumes"), "--wait", "5.5"),
            *("--bundle", str(bundle), "--out", str(tmp_path / "out")),
        ),
        tmp_path / "out",
    )
    assert ended.code == 1
    said = " ".join(ended.said.split())
    assert "waiting for EEG" in said
    assert "nobody-is-called-so" in said
    assert "1 lay there before" in said
    assert ended.report["windows"]["expected"] == 0


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        ((), 2, "nothing to read"),
        (("--lsl", "x", "--dashboard", "localhost:80"), 2, "not built yet"),
        (("--lsl", "x", "--decoder", "http://x"), 2, "not built yet"),
        (("--fmri-dir", "/nowhere/at/all"), 2, "parent"),
        (("--lsl", "x", "--out", "USED"), 2, "in use"),
        (("--lsl", "x", "--truth", "USED", "--out", "USED"), 2, "--truth and --out are both"),
        (("--lsl", "x", "--record", "USED"), 2, "recording folder .* is not empty"),
        (("--lsl", "x", "--bundle", "nothing"), 4, "no bundle"),
        (("--lsl", "x", "--bundle", "DAMAGED"), 4, "changed"),
        (("--lsl", "x", "--bundle", "FMRI"), 2, "decodes fmri"),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    flags: tuple[str, ...], code: int, words: str, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "film.mp4").write_bytes(b"precious")
    made = {"USED": str(tmp_path / "used")}
    if "DAMAGED" in flags:
        made["DAMAGED"] = str(damage(load(bundle), tmp_path / "damaged"))
    if "FMRI" in flags:
        made["FMRI"] = str(make_bundle(tmp_path / "fmri", eeg=False).path)
    values = {
        flag.removeprefix("--").replace("-", "_"): made.get(value, value)
        for flag, value in zip(flags[::2], flags[1::2], strict=True)
    }
    paths = {
        name: Path(values.pop(name)) for name in ("fmri_dir", "out", "record", "truth") if name in values
    }
    options = {"bundle": str(bundle), "out": tmp_path / "out", **values, **paths}
    with pytest.raises(RtDecodeError, match=words) as caught:
        run(StreamOptions(**options))
    assert caught.value.exit_code == code
    assert (tmp_path / "used" / "film.mp4").read_bytes() == b"precious"
    if "--record" in flags:
        assert not (tmp_path / "out").exists()


def test_a_session_that_never_began_to_record_leaves_no_recording(bundle: Path, tmp_path: Path) -> None:
    write_film(tmp_path / "truth", 1)
    options = StreamOptions(
        lsl="nobody-is-called-so",
        bundle=str(bundle),
        out=tmp_path / "out",
        calibration=tmp_path / "none",
        truth=tmp_path / "truth",
        record=tmp_path / "record",
    )
    with pytest.raises(RtDecodeError, match="no calibration"):
        run(options)
    assert not (tmp_path / "record").exists()


def test_the_wait_for_sources_begins_when_they_are_looked_for(bundle: Path, tmp_path: Path) -> None:
    """The acquisition process takes long to start: only then is told what is missing."""
    options = StreamOptions(lsl="x", bundle=str(bundle), wait=30.0)
    made = _Session(options, load(str(bundle)), tmp_path, "s", Console())
    made._began_at -= 40
    assert made._judge() is None
    status = {"kind": "status", "existing": 0, "notes": [], "counters": {"runs": []}, "costs": {}}
    made._take_status(status | {"simulated": False, "waiting": ["EEG: no stream"]})
    assert made._judge() is None
    made._began_at -= 40
    fault = made._judge()
    assert fault is not None
    assert "Still missing: EEG: no stream" in str(fault)


@pytest.mark.parametrize("limit", [0.0, 30.0])
def test_silence_ends_it_unless_it_may_last(limit: float, bundle: Path, tmp_path: Path) -> None:
    options = StreamOptions(lsl="x", bundle=str(bundle), lost_after=limit)
    made = _Session(options, load(str(bundle)), tmp_path, "s", Console())
    made._status = {"elapsed": 1.0, "silent": 100.0}
    found = made._judge()
    assert (found is None) if limit == 0 else isinstance(found, SourceLostError)


def test_what_a_source_says_of_the_participant_is_shown(tmp_path: Path) -> None:
    real = make_bundle(tmp_path / "bundle", simulated=False)
    made = _Session(StreamOptions(lsl="x"), real, tmp_path, "s", Console())
    said: list[str] = []
    prepare(tmp_path / "out", overwrite=False)
    output = Output(tmp_path / "out", "s", real, Decoder(real), Truth(None, real), float, simulated=False)
    made._output, made._progress = output, cast("Progress", SimpleNamespace(say=said.append))
    status = {"kind": "status", "existing": 0, "notes": [], "counters": {"runs": []}, "costs": {}}
    for simulated in (False, True, True):
        made._take_status(status | {"simulated": simulated})
    assert said == ["Simulated participant: a source says so."]
    assert output.simulated
    output.close()


def test_an_acquisition_that_dies_ends_with_1_and_everything_written(bundle: Path, tmp_path: Path) -> None:
    def kill(process: subprocess.Popen[str], out: Path) -> None:
        until(lambda: '"final"' in text(out / "clips.jsonl"))
        for child in psutil.Process(process.pid).children():
            if "spawn_main" in " ".join(child.cmdline()):
                child.kill()

    ended = play(tmp_path / "s", bundle, "--existing", "read", eeg=False, seconds=120, during=kill)
    assert ended.code == 1, ended.said
    assert "acquisition process ended by itself" in ended.said
    assert ended.report["windows"]["final"] == len(ended.finals()) >= 1
    assert len(read_mp4(ended.out / "film.mp4")) >= 8


@pytest.mark.parametrize("other", ["montage", "tr"])
def test_a_bundle_for_another_montage_or_tr_ends_with_4(other: str, tmp_path: Path) -> None:
    wrong = {"montage": {"channels": (*CHANNELS, "T99")}, "tr": {"tr": Fraction(1)}}[other]
    given = {"tr": TR, "window": WINDOW} | wrong
    made = make_bundle(tmp_path / "bundle", **given).path
    ended = play(tmp_path / "s", made, eeg=other == "montage", seconds=120, lead=0.2)
    assert ended.code == 4, ended.said
    assert ("T99" if other == "montage" else "TR 1 s") in ended.said
    assert ended.report["windows"]["final"] == 0


def test_a_full_disk_ends_with_1_and_what_was_emitted_is_whole(bundle: Path, tmp_path: Path) -> None:
    def fill(process: subprocess.Popen[str], out: Path) -> None:
        """Let no file of the program grow much longer, as a full disk would."""
        until(lambda: (out / "film.mp4").is_file() and (out / "film.mp4").stat().st_size > 2_000)
        most = (out / "film.mp4").stat().st_size + 20_000
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))

    ended = play(tmp_path / "s", bundle, "--existing", "read", eeg=False, seconds=120, during=fill)
    out = ended.out
    assert ended.code == 1, ended.said
    assert "cannot be written" in ended.said
    assert len(ended.clips) >= 1
    for clip in ended.clips:
        assert len(read_mp4(out / clip["file"])) == 33
    assert len(read_mp4(out / "film.mp4")) >= 1
    assert not list(out.glob("**/*.part"))


def test_no_process_outlives_a_session_that_is_killed(bundle: Path, tmp_path: Path) -> None:
    seen: list[psutil.Process] = []

    def kill(process: subprocess.Popen[str], out: Path) -> None:
        until(lambda: (out / "film.mp4").is_file() and (out / "film.mp4").stat().st_size > 2_000)
        seen.extend(psutil.Process(process.pid).children(recursive=True))
        process.kill()

    ended = play(tmp_path / "s", bundle, "--existing", "read", eeg=False, seconds=120, during=kill)
    assert ended.code == -signal.SIGKILL
    assert seen
    _, alive = psutil.wait_procs(seen, timeout=LIMIT)
    assert not alive
    assert len(read_mp4(ended.out / "film.mp4")) >= 1
    assert ended.finals()
