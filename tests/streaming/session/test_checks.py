"""What is asked for is looked at before a session begins."""

from pathlib import Path

from rtdecode.errors import UsageError
from streaming.session.checks import check, check_report
from streaming.session.options import StreamOptions
from tests.refusals import refused
from tests.streaming.bundles import make_bundle


def test_a_report_may_lie_in_the_folder_that_the_session_makes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    check_report(out / "report.json", out)
    check_report(tmp_path / "report.json", out)
    elsewhere = tmp_path / "another" / "report.json"
    with refused(UsageError, "report-parent-missing", path=elsewhere):
        check_report(elsewhere, out)


def test_flags_of_a_decoder_elsewhere_need_one(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    for flag, changes in (("--fallback", {"fallback": "phantom"}), ("--ca", {"ca": tmp_path})):
        with refused(UsageError, "session-flag-without-decoder", flag=flag):
            check(StreamOptions(lsl="x", **changes), bundle)
