"""Whole live sessions as programs, over LSL and a folder, seconds long."""

import json
import resource
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import psutil
import pytest
from rich.console import Console

from rtdecode.bundle import load
from rtdecode.disk.recording import Recording
from rtdecode.disk.video import read_mp4
from rtdecode.errors import RtDecodeError, SourceLostError, UsageError
from rtdecode.types import Volume
from streaming.decode.deadline import Job
from streaming.decode.decoder import Decoder
from streaming.session import live, replay
from streaming.session.live import _Session, run
from streaming.session.orders import StreamOptions
from streaming.session.progress import Progress
from streaming.sinks.meter import DURATIONS, INSTANTS
from streaming.sinks.output import Emitter, prepare
from streaming.sinks.truth import Truth
from streaming.status import NOTHING
from tests.streaming.bundles import AFFINE, CHANNELS, SHAPE, damage, make_bundle, make_calibration
from tests.streaming.sessions import LIMIT, TR, WINDOW, Ended, end, interrupt, play, stream, text, until
from tests.streaming.sinks.test_truth import write_film
from tests.streaming.windows import window


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("b") / "bundle", tr=TR, window=WINDOW).path


@pytest.fixture(scope="module")
def sessions(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """One session alone, as its deadlines are short; then the others together."""
    root = tmp_path_factory.mktemp("s")
    record = ("--record", str(root / "recording"))
    done = {"both": play(root / "both", bundle, "--seconds", "4", *record, seconds=120)}
    jobs: dict[str, Callable[[], Ended]] = {
        "holes": lambda: play(
            root / "holes",
            *(bundle, "--seconds", "4", "--existing", "read"),
            eeg=False,
            seconds=120,
            dropped=(5,),
        ),
        "interrupt": lambda: play(
            root / "interrupt", bundle, "--seconds", "6000", seconds=120, during=interrupt
        ),
    }
    return done | _at_once(jobs)


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


def check_windows(ended: Ended, expected: int) -> None:
    """Every window is one final or one that was skipped: how many of either, the machine's speed decides."""
    windows = ended.report["windows"]
    finals = ended.finals()
    revisions = [clip["revision"] for clip in ended.clips]
    assert windows["expected"] == windows["final"] + windows["skipped"] == expected, ended.said
    assert windows["final"] == len(finals) >= 1
    assert windows["preview"] == revisions.count("preview") <= expected
    # A busy machine may write a volume after its window's final.
    assert windows["refined"] == revisions.count("refined") <= expected
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
        assert clip["missing"]["eeg"] == 0
        # A volume that the busy machine wrote too late is missing, and counted.
        assert (clip["missing"]["fmri"] < 1) is ("fmri" in clip["modalities"])
        assert clip["revision"] != "preview" or clip["modalities"] == ["eeg"]
    if in_time(ended):
        assert all(clip["missing"]["fmri"] == 0 for clip in ended.finals())


def test_a_line_holds_what_the_contract_names(sessions: dict[str, Ended]) -> None:
    clip = sessions["both"].finals()[-1]
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
            "inconsistent",
            "steps",
            "latency_ms",
            "t_ms",
            "simulated",
            "bundle",
            "chain",
            "latent",
            "eeg_quality",
        ),
    }
    assert set(clip["latency_ms"]) == set(DURATIONS)
    assert list(clip["t_ms"]) == list(INSTANTS)
    assert clip["simulated"] is True
    assert clip["chain"] == "causal"
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
    assert report["fmri"]["volumes"] + report["fmri"]["missing"] >= 10
    assert report["fmri"]["burst"] >= 1
    # The player closes a file 0.1 s after the volume's end, or later on a busy machine.
    assert report["fmri"]["delay_s"]["max"] >= report["fmri"]["delay_s"]["p50"] > 0.05
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
    assert [revision for _, revision in replayed].count("final") == 4
    assert [revision for _, revision in replayed].count("preview") == 4
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


# What a window holds whose sources are lost or not there is tried in `tests/rtdecode/windows`; that silence
# ends a session below and, with its exit code, in `tests/test_privacy.py`.
@pytest.mark.full
def test_eeg_alone_has_finals_from_its_first_sample_on_and_no_previews(one_source: dict[str, Ended]) -> None:
    ended = one_source["eeg"]
    assert ended.code == 0, ended.said
    assert ended.report["clock"]["source"] == "first-sample"
    check_windows(ended, 8)
    assert ended.report["windows"]["preview"] == 0
    assert all(clip["modalities"] == ["eeg"] for clip in ended.clips)
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
    assert "fMRI volume missing: " in ended.said
    assert ("clip degraded: " in ended.said) is (ended.report["windows"]["degraded"] > 0)


def test_ctrl_c_writes_everything_skips_only_what_it_reached_and_ends_with_0(
    sessions: dict[str, Ended],
) -> None:
    ended = sessions["interrupt"]
    assert ended.code == 0, ended.said
    windows = ended.report["windows"]
    assert windows["expected"] == 6000
    assert windows["final"] == len(ended.finals()) >= 1
    assert windows["final"] + windows["skipped"] < 1000
    assert "SIGINT" in ended.report["ended"]
    assert len(read_mp4(ended.out / "film.mp4")) == 8 * (windows["final"] + windows["skipped"])


@pytest.mark.full
def test_silence_from_everything_ends_with_3(one_source: dict[str, Ended]) -> None:
    ended = one_source["lost"]
    assert ended.code == 3, ended.said
    assert "silent" in ended.said
    windows = ended.report["windows"]
    assert windows["final"] >= 1
    assert windows["expected"] == windows["final"] + windows["skipped"] >= 3


@pytest.mark.full
def test_a_lost_amplifier_degrades_and_does_not_end_it(one_source: dict[str, Ended]) -> None:
    ended = one_source["no-eeg"]
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
    assert "1 were there before" in said
    assert ended.report["windows"]["expected"] == 0


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        ((), 2, "nothing to read"),
        (("--lsl", "x", "--dashboard", "localhost"), 2, "no HOST:PORT"),
        (("--lsl", "x", "--dashboard", "203.0.113.1:80"), 2, "cannot be served"),
        (("--lsl", "x", "--outlet", " "), 2, "--outlet ' ' names no LSL stream"),
        (("--lsl", "x", "--osc", "localhost"), 2, "--osc localhost is no HOST:PORT"),
        (("--lsl", "x", "--decoder", "http://x"), 2, "not built yet"),
        (("--fmri-dir", "/nowhere/at/all"), 2, "parent"),
        (("--lsl", "x", "--out", "USED"), 2, "in use"),
        (("--lsl", "x", "--truth", "USED", "--out", "USED"), 2, "--truth and --out are both"),
        (("--lsl", "x", "--record", "USED"), 2, "recording folder .* is not empty"),
        (("--lsl", "x", "--out", "USED/film.mp4/below"), 2, "--out .* cannot be made"),
        (("--lsl", "x", "--record", "USED/film.mp4/below"), 2, "--record .* cannot be made"),
        (("--lsl", "x", "--record", "NEW", "--out", "NEW"), 2, "--record and --out are both"),
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
    below = "USED/film.mp4/below"
    made = {"USED": str(tmp_path / "used"), "NEW": str(tmp_path / "new")}
    made[below] = str(tmp_path / "used" / "film.mp4" / "below")
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


def test_a_session_that_never_began_to_record_leaves_no_truth_in_anothers_recording(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_film(tmp_path / "truth", 1)
    record = tmp_path / "record"

    def prepared_beside_another(out: Path, *, overwrite: bool) -> None:
        prepare(out, overwrite=overwrite)
        record.mkdir(exist_ok=True)
        (record / "recording.json").write_text("another session's")

    monkeypatch.setattr(live, "prepare", prepared_beside_another)
    options = StreamOptions(
        lsl="nobody-is-called-so",
        bundle=str(bundle),
        out=tmp_path / "out",
        truth=tmp_path / "truth",
        record=record,
    )
    with pytest.raises(RtDecodeError, match="is not empty"):
        run(options)
    assert [file.name for file in record.iterdir()] == ["recording.json"]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["ended"] == "the command line asked for something impossible"


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("missing", 2, "no calibration at"),
        ("damaged", 4, "was changed"),
        ("another's", 4, "reads 40 features .* the bundle reads 40 features"),
    ],
)
def test_a_bad_calibration_is_told_before_any_folder_is_made(
    fault: str, code: int, words: str, bundle: Path, tmp_path: Path
) -> None:
    given = tmp_path / "cal"
    if fault != "missing":
        affine = AFFINE + np.diag([1.0, 0, 0, 0]) if fault == "another's" else AFFINE
        whose = make_bundle(tmp_path / "whose", affine=affine)
        make_calibration(given, whose, np.ones(SHAPE))
    if fault == "damaged":
        (given / "quality.html").write_text("another page")
    options = StreamOptions(
        fmri_dir=tmp_path / "volumes",
        bundle=str(bundle),
        out=tmp_path / "out",
        calibration=given,
        record=tmp_path / "record",
    )
    with pytest.raises(RtDecodeError, match=words) as caught:
        run(options)
    assert caught.value.exit_code == code
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "record").exists()


def test_a_running_sessions_folders_cannot_be_taken(bundle: Path, tmp_path: Path) -> None:
    refused: list[RtDecodeError] = []

    def take(process: subprocess.Popen[str], out: Path) -> None:
        until(lambda: '"final"' in text(out / "clips.jsonl"))
        for folder in (out, tmp_path / "record"):
            options = StreamOptions(lsl="x", bundle=str(bundle), out=folder, overwrite=True)
            with pytest.raises(UsageError, match=f"belongs to session .* .process {process.pid}.") as caught:
                run(options)
            refused.append(caught.value)
        process.send_signal(signal.SIGINT)

    record = ("--record", str(tmp_path / "record"))
    ended = play(tmp_path / "s", bundle, *record, "--existing", "read", eeg=False, seconds=30, during=take)
    assert ended.code == 0, ended.said
    assert [error.exit_code for error in refused] == [2, 2]
    windows = ended.report["windows"]
    assert windows["final"] == len(ended.finals()) >= 1
    # Without a limit, a session that is stopped had expected what it reached.
    assert windows["expected"] == windows["final"] + windows["skipped"]
    assert run_again(bundle, ended.out) == 1


def run_again(bundle: Path, out: Path) -> int:
    """Exit code of a session that takes a folder whose session has ended, and finds no source."""
    options = StreamOptions(lsl="nobody-is-called-so", bundle=str(bundle), out=out, overwrite=True, wait=0.2)
    with pytest.raises(RtDecodeError, match=r"waited 0\.2 s") as caught:
        run(options)
    return caught.value.exit_code


def test_the_wait_for_sources_begins_when_they_are_looked_for(bundle: Path, tmp_path: Path) -> None:
    """The acquisition process takes long to start: only then is told what is missing."""
    options = StreamOptions(lsl="x", bundle=str(bundle), wait=30.0)
    made = _Session(options, load(str(bundle)), tmp_path, "s", Console())
    made._began_at -= 40
    assert made._judge() is None
    made._take_status({**NOTHING, "waiting": ["EEG: no stream"]})
    assert made._judge() is None
    made._began_at -= 40
    fault = made._judge()
    assert fault is not None
    assert "Still missing: EEG: no stream" in str(fault)


@pytest.mark.parametrize("limit", [0.0, 30.0])
def test_silence_ends_it_unless_it_may_last(limit: float, bundle: Path, tmp_path: Path) -> None:
    options = StreamOptions(lsl="x", bundle=str(bundle), lost_after=limit)
    made = _Session(options, load(str(bundle)), tmp_path, "s", Console())
    made._status = {**NOTHING, "elapsed": 1.0, "silent": 100.0}
    found = made._judge()
    assert (found is None) if limit == 0 else isinstance(found, SourceLostError)


def test_a_backlog_is_decoded_to_its_end_however_long_that_takes(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_at = 100.0
    decoded: list[int] = []

    def decode(job: Job, _left_s: float) -> None:
        nonlocal now_at
        now_at += 10.0
        decoded.append(job.clip)

    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: now_at))
    made = _Session(StreamOptions(lsl="x"), load(str(bundle)), tmp_path, "s", Console())
    made._output = cast("Emitter", SimpleNamespace(emit=decode, notes=list, unkept=0))
    for clip in range(4):
        made._inbox.put(Job(window(clip, at=0.0), clip, backlog=True))
    made._ended = True
    made._hand_over()
    assert decoded == [0, 1, 2, 3]


def test_film_and_twins_wait_for_windows_with_a_deadline_and_refined_ones_for_them(
    bundle: Path, tmp_path: Path
) -> None:
    done: list[tuple[str, int]] = []
    output = SimpleNamespace(notes=list, unkept=0)

    def emit(job: Job, _left_s: float) -> None:
        done.append((job.window.revision, job.clip))
        output.unkept += job.window.revision == "final"

    def keep_one() -> None:
        done.append(("film", output.unkept))
        output.unkept -= 1

    output.emit = emit
    output.keep_one = keep_one
    made = _Session(StreamOptions(lsl="x"), load(str(bundle)), tmp_path, "s", Console())
    made._output = cast("Emitter", output)
    for clip, revision in ((0, "refined"), (1, "final"), (2, "final"), (3, "preview")):
        made._inbox.put(Job(window(clip, revision), clip, backlog=True))
    while len(made._inbox):
        made._decode_one()
    urgent = [("final", 1), ("final", 2), ("preview", 3)]
    assert done == [*urgent, ("film", 2), ("film", 1), ("refined", 0)]


@pytest.mark.parametrize(("lost_after", "patience"), [(30.0, 30.0), (5.0, 5.0), (0.0, 30.0)])
def test_the_wait_for_late_volumes_ends_when_none_comes_any_more(
    lost_after: float, patience: float, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_at = 100.0
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: now_at))
    options = StreamOptions(lsl="x", lost_after=lost_after)
    made = _Session(options, load(str(bundle)), tmp_path, "s", Console())
    said: list[str] = []
    made._progress = cast("Progress", SimpleNamespace(say=said.append))

    def waits(volumes: int, awaited: int = 2) -> bool:
        counters = {"eeg": {}, "fmri": {"volumes": volumes}, "clock": {}, "runs": []}
        made._status = {**NOTHING, "done": True, "awaited": awaited, "counters": counters, "silent": 1e3}
        # Both sources may fall silent meanwhile: the session has had its seconds.
        assert made._judge() is None
        return made._late_volumes_come()

    assert not waits(10, awaited=0)
    assert said == []
    assert waits(10)
    (sentence,) = said
    assert "2 of them without volumes that are late" in sentence
    assert f"for {patience:g} s" in sentence
    now_at = 100.0 + patience - 0.1
    assert waits(10)
    assert waits(11)
    now_at = 100.0 + 2 * patience - 0.2
    assert waits(11)
    now_at = 100.0 + 2 * patience
    assert not waits(11)
    assert not waits(12, awaited=0)
    assert len(said) == 1


def test_ctrl_c_ends_the_wait_for_late_volumes(bundle: Path, tmp_path: Path) -> None:
    made = _Session(StreamOptions(lsl="x"), load(str(bundle)), tmp_path, "s", Console())
    made._progress = cast("Progress", SimpleNamespace(say=lambda _: None))
    counters = {"eeg": {}, "fmri": {"volumes": 3}, "clock": {}, "runs": []}
    made._status = {**NOTHING, "done": True, "awaited": 2, "counters": counters}
    looked: list[float] = []

    def receive(timeout: float) -> None:
        looked.append(timeout)
        made._interrupt("SIGINT")

    made._receive = receive
    made._decode = made._periodic = lambda: None
    assert made._loop() == "stopped by SIGINT"
    assert len(looked) == 1


def test_previews_that_give_way_are_in_the_report(bundle: Path, tmp_path: Path) -> None:
    loaded = load(str(bundle))
    made = _Session(StreamOptions(lsl="x"), loaded, tmp_path, "s", Console())
    prepare(tmp_path, overwrite=False)
    truth = Truth(None, loaded)
    made._output = Emitter(tmp_path, "s", loaded, Decoder(loaded), truth, float, simulated=True)
    for revision in ("preview", "final"):
        made._inbox.put(Job(window(0, revision), 0))
    made._inbox.take(100.0)
    made._progress = cast("Progress", SimpleNamespace(told=[]))
    assert made._write_report("running", None)["windows"]["dropped_previews"] == 1
    made._output.close()


def test_what_a_source_says_of_the_participant_is_shown(tmp_path: Path) -> None:
    real = make_bundle(tmp_path / "bundle", simulated=False)
    made = _Session(StreamOptions(lsl="x"), real, tmp_path, "s", Console())
    said: list[str] = []
    prepare(tmp_path / "out", overwrite=False)
    output = Emitter(tmp_path / "out", "s", real, Decoder(real), Truth(None, real), float, simulated=False)
    made._output = output
    made._progress = cast("Progress", SimpleNamespace(say=said.append))
    for simulated in (False, True, True):
        made._take_status({**NOTHING, "simulated": simulated})
    assert said == ["Simulated participant: a source says so."]
    assert output.simulated
    output.close()


# One source alone is `full`: what its time line rests on is tested in `test_restarts.py`.
@pytest.mark.parametrize(
    "sources",
    [
        ("eeg", "fmri"),
        pytest.param(("eeg",), marks=pytest.mark.full),
        pytest.param(("fmri",), marks=pytest.mark.full),
    ],
)
def test_an_acquisition_that_is_killed_is_started_again_on_the_same_time_line(
    sources: tuple[str, ...], bundle: Path, tmp_path: Path
) -> None:
    def kill(process: subprocess.Popen[str], out: Path) -> None:
        until(lambda: '"final"' in text(out / "clips.jsonl"))
        acquisition(process).kill()
        # Windows that were cut before may still become clips: the next process must have been heard.
        until(lambda: heard_again(out))
        before = len(whole(out, sources))
        until(lambda: len(whole(out, sources)) > before)
        process.send_signal(signal.SIGINT)

    def whole(out: Path, wanted: tuple[str, ...]) -> list[dict[str, Any]]:
        return [clip for clip in finals(out) if all(clip["missing"][name] == 0 for name in wanted)]

    record = tmp_path / "record"
    given = {"eeg": "eeg" in sources, "fmri": "fmri" in sources}
    ended = play(tmp_path / "s", bundle, "--record", str(record), **given, seconds=150, during=kill)
    assert ended.code == 0, ended.said
    assert "ended unexpectedly (killed by SIGKILL) and is started again" in ended.said
    assert "is receiving again, after" in ended.said
    (restart,) = ended.report["restarts"]
    assert restart["exit_code"] == -signal.SIGKILL
    assert restart["hole_s"] > 0
    windows = ended.report["windows"]
    assert windows["final"] + windows["skipped"] == windows["expected"]
    assert {clip["run"] for clip in ended.clips} == {0}
    emitted = [(clip["clip"], clip["revision"]) for clip in ended.clips]
    assert len(set(emitted)) == len(emitted)
    assert all(clip["window_s"][0] == clip["clip"] for clip in ended.clips)
    # A replay of what was recorded has one time line too, and holds the same volumes in each window.
    assert len(Recording(record).meta["restarts"]) == 1
    assert replay.run(record, str(bundle), "max", tmp_path / "again") == 0
    again = {clip["clip"]: clip for clip in finals(tmp_path / "again")}
    last = whole(ended.out, sources)[-1]
    assert again[last["clip"]]["window_s"] == last["window_s"]
    assert all(again[last["clip"]]["missing"][name] == 0 for name in sources)
    if "eeg" in sources:
        assert ended.report["eeg"]["lost_samples"] > 0
        assert ended.report["eeg"]["gaps"] >= 1


def heard_again(out: Path) -> bool:
    """Whether the report that is kept while a session runs knows how long nothing was heard."""
    report = text(out / "report.json")
    return '"hole_s"' in report and '"hole_s": null' not in report


def finals(out: Path) -> list[dict[str, Any]]:
    lines = text(out / "clips.jsonl").splitlines(keepends=True)
    clips = [json.loads(line) for line in lines if line.endswith("\n")]
    return [clip for clip in clips if clip["revision"] == "final"]


def test_an_acquisition_that_dies_again_and_again_ends_with_1(bundle: Path, tmp_path: Path) -> None:
    def kill(process: subprocess.Popen[str], out: Path) -> None:
        until(lambda: '"final"' in text(out / "clips.jsonl"))
        for _ in range(3):
            victim = acquisition(process)
            victim.kill()
            until(lambda gone=victim: process.poll() is not None or not gone.is_running())
            until(lambda: process.poll() is not None or bool(acquisitions(process)))

    ended = play(tmp_path / "s", bundle, "--existing", "read", eeg=False, seconds=120, during=kill)
    assert ended.code == 1, ended.said
    assert "ended unexpectedly 3 times" in ended.said
    assert len(ended.report["restarts"]) == 3
    assert ended.report["windows"]["final"] == len(ended.finals()) >= 1
    assert len(read_mp4(ended.out / "film.mp4")) >= 8


# The refusal is tried on the assembler, and exit code 4 in `tests/test_privacy_streams.py`.
@pytest.mark.full
def test_a_bundle_for_another_montage_ends_with_4(tmp_path: Path) -> None:
    channels = (*CHANNELS, "T99")
    made = make_bundle(tmp_path / "bundle", tr=TR, window=WINDOW, channels=channels).path
    ended = play(tmp_path / "s", made, seconds=120, lead=0.2)
    assert ended.code == 4, ended.said
    assert "T99" in ended.said
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


def acquisition(process: subprocess.Popen[str]) -> psutil.Process:
    """The process of a session that reads its sources."""
    (found,) = acquisitions(process)
    return found


def acquisitions(process: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children()
    return [child for child in children if "spawn_main" in commanded(child)]


def commanded(process: psutil.Process) -> str:
    """The command line of a process; empty where it has ended."""
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return " ".join(process.cmdline())
    return ""


def test_a_full_out_does_not_end_the_recording(bundle: Path, tmp_path: Path) -> None:
    record = tmp_path / "record"
    recorded: list[int] = []

    def fill(process: subprocess.Popen[str], out: Path) -> None:
        until(lambda: '"final"' in text(out / "clips.jsonl"))
        most = (out / "film.mp4").stat().st_size
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))
        recorded.append(text(record / "events.jsonl").count("\n"))
        until(lambda: text(record / "events.jsonl").count("\n") > recorded[0] + 12)
        process.send_signal(signal.SIGINT)

    flags = ("--record", str(record), "--existing", "read")
    ended = play(tmp_path / "s", bundle, *flags, eeg=False, seconds=60, during=fill)
    assert ended.code == 1, ended.said
    assert "the session's folder cannot be written any more" in ended.said
    assert f"The recording in {record} goes on" in ended.said
    assert len(ended.clips) >= 1
    kept = [item.index for item in Recording(record).events() if isinstance(item, Volume)]
    assert kept == list(range(len(kept)))
    assert len(kept) > recorded[0] + 12
    assert "ended_at" in Recording(record).meta


# What came after the disk was full is decoded in `test_acquisition.py` as well.
@pytest.mark.full
def test_a_full_recording_does_not_end_decoding(bundle: Path, tmp_path: Path) -> None:
    record = tmp_path / "record"
    seen_before: list[int] = []

    def fill(process: subprocess.Popen[str], out: Path) -> None:
        until(lambda: '"final"' in text(out / "clips.jsonl"))
        most = (record / "volumes.bin").stat().st_size
        resource.prlimit(acquisition(process).pid, resource.RLIMIT_FSIZE, (most, most))
        seen_before.append(text(out / "clips.jsonl").count("\n"))

    flags = ("--record", str(record), "--existing", "read", "--seconds", "6")
    ended = play(tmp_path / "s", bundle, *flags, eeg=False, seconds=60, during=fill)
    assert ended.code == 1, ended.said
    assert f"the recording in {record} could not be written any more: File too large" in ended.said
    windows = ended.report["windows"]
    # On a busy machine a window gives way to the next one; the last never does.
    assert windows["final"] + windows["skipped"] == windows["expected"] == 6
    assert ended.finals()[-1]["clip"] == 5
    if in_time(ended):
        assert all(clip["missing"]["fmri"] == 0 for clip in ended.finals())
    assert ended.report["recording"] == {"fault": "File too large"}
    kept = [item.index for item in Recording(record).events() if isinstance(item, Volume)]
    assert kept == list(range(len(kept)))
    assert replay.run(record, str(bundle), "max", tmp_path / "again") == 0
    lines = (tmp_path / "again" / "clips.jsonl").read_text().splitlines()
    played = {clip["clip"]: clip for clip in map(json.loads, lines)}
    assert len(ended.finals()) > seen_before[0]
    for before in ended.finals()[: seen_before[0]]:
        again = tmp_path / "again" / played[before["clip"]]["file"]
        assert (ended.out / before["file"]).read_bytes() == again.read_bytes()


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
