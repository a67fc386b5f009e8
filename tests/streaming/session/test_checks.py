"""What is asked for is looked at before a session begins."""

from pathlib import Path

from rtdecode.errors import UsageError
from streaming.session.checks import check_report
from tests.refusals import refused


def test_a_report_may_lie_in_the_folder_that_the_session_makes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    check_report(out / "report.json", out)
    check_report(tmp_path / "report.json", out)
    elsewhere = tmp_path / "another" / "report.json"
    with refused(UsageError, "report-parent-missing", path=elsewhere):
        check_report(elsewhere, out)
