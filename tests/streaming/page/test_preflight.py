from pathlib import Path

import pytest

from streaming.page.preflight import Preflight
from streaming.session.options import StreamOptions
from tests.streaming.bundles import make_bundle
from tests.streaming.sessions import LIMIT, until


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("b") / "bundle").path


def test_the_session_s_own_sources_are_checked_and_nothing_is_named(bundle: Path, tmp_path: Path) -> None:
    volumes = tmp_path / "Jane-Doe"
    volumes.mkdir()
    (volumes / "Jane-Doe.txt").write_text("no volume")
    options = StreamOptions(fmri_dir=volumes, seconds=600)
    sheet = Preflight(options, bundle, tmp_path / "out", seconds=1)
    sheet.start()
    assert sheet.running
    until(lambda: not sheet.running)
    assert not sheet.fault
    states = {finding.subject: finding.state for finding in sheet.findings}
    assert states["bundle"] == "ok"
    assert states["disk"] == "ok"
    assert states["export"] == "note"
    text = " ".join(f"{finding.found} {finding.advice}" for finding in sheet.findings)
    assert "Jane" not in text
    assert str(tmp_path) not in text
    assert "rtdecode preflight says more on a terminal" in text


def test_a_preflight_that_cannot_be_made_says_so(bundle: Path, tmp_path: Path) -> None:
    sheet = Preflight(StreamOptions(), bundle, tmp_path / "out", seconds=1)
    sheet.start()
    until(lambda: not sheet.running)
    assert not sheet.findings
    assert "exit code 2" in sheet.fault


def test_a_preflight_ends_with_the_page(bundle: Path, tmp_path: Path) -> None:
    # Without an end of its own within the time of a test.
    sheet = Preflight(StreamOptions(fmri_dir=tmp_path), bundle, tmp_path / "out", seconds=2 * LIMIT)
    sheet.start()

    def closed() -> bool:
        # The program may not have been started yet.
        sheet.close()
        return not sheet.running

    until(closed)
    assert sheet.fault
