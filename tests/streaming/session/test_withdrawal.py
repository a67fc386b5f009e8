from pathlib import Path

from rtdecode.disk.folders import held
from streaming.session.withdrawal import withdraw
from streaming.sinks.operator_log import SNAPSHOTS, Moment, OperatorLog
from tests.streaming.bundles import make_bundle
from tests.streaming.sessions import TR, WINDOW, interrupt, play


def test_nothing_of_a_session_is_left_and_nothing_of_others_is_touched(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", tr=TR, window=WINDOW).path
    record = tmp_path / "record"
    flags = ("--seconds", "6000", "--record", str(record))
    ended = play(tmp_path / "s", bundle, *flags, seconds=60, during=interrupt)
    assert ended.code == 0
    out = ended.out
    assert {"clips", "clips.jsonl", "film.mp4", "report.json"} <= {one.name for one in out.iterdir()}
    assert (record / "eeg.f32").is_file()
    OperatorLog(out).mark(Moment(0, 1.0, 0.0))
    (out / SNAPSHOTS).mkdir()
    (out / SNAPSHOTS / "clip_00000_final.png").write_bytes(b"x")
    (out / "protocol.txt").write_text("somebody else's")
    report = tmp_path / "elsewhere.json"
    report.write_text("{}")
    with held(record, "--record", "a session"):
        withdraw(out, report, record)
    assert [one.name for one in out.rglob("*")] == ["protocol.txt"]
    assert not report.exists()
    assert not list(record.iterdir())
