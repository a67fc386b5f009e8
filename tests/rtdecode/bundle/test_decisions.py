"""What a session decided, written beside its recording and read back."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from rtdecode.bundle import Bundle, decisions
from rtdecode.bundle.decisions import Decision, DecisionWriter, Restart
from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.streaming.bundles import make_bundle
from tests.streaming.session.test_acquisition import full_disk

EMITTED = Decision(0, 3, "final", "emitted", 1, "ab", 2, "final", "cd", "00ff7f", None)
SKIPPED = Decision(1, 0, "final", "skipped", inputs="ab", why="this machine cannot keep up")
DROPPED = Decision(1, 1, "preview", "dropped", inputs="ab")
RESTART = Restart(12.5, 1, 7, None, 12.25, [3.5], triggers_expected=True, rests=False)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("b") / "bundle", fmri=False)


def written(folder: Path, bundle: Bundle, *entries: Decision | Restart) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "recording.json").write_text("{}")
    writer = DecisionWriter(folder, "a session", bundle)
    for entry in entries:
        writer.append(entry)
    writer.close()
    return folder / decisions.NAME


def test_decisions_are_read_as_they_were_written(bundle: Bundle, tmp_path: Path) -> None:
    file = written(tmp_path, bundle, EMITTED, RESTART, SKIPPED, DROPPED)
    read = decisions.read(tmp_path)
    assert read is not None
    assert list(read.by_key.values()) == [EMITTED, SKIPPED, DROPPED]
    assert read.restarts == [RESTART]
    assert (read.session, read.is_of(bundle)) == ("a session", True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_nothing_is_written_before_the_recording_has_begun(bundle: Bundle, tmp_path: Path) -> None:
    """A recording begins in an empty folder."""
    writer = DecisionWriter(tmp_path, "a session", bundle)
    writer.append(RESTART)
    assert not list(tmp_path.iterdir())
    assert decisions.read(tmp_path) is None


def test_a_line_is_in_the_file_at_once_and_a_torn_one_is_left_out(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "recording.json").write_text("{}")
    writer = DecisionWriter(tmp_path, "a session", bundle)
    writer.append(EMITTED)
    writer.append(SKIPPED)
    file = tmp_path / decisions.NAME
    raw = file.read_bytes()
    for cut, count in ((len(raw), 2), (len(raw) - 1, 1), (len(raw) - 80, 1)):
        file.write_bytes(raw[:cut])
        read = decisions.read(tmp_path)
        assert read is not None
        assert len(read.by_key) == count
    file.write_bytes(raw[:10])
    assert decisions.read(tmp_path) is None, "nothing is told before the first line is whole"
    writer.close()


def test_what_a_full_disk_took_of_a_line_is_removed_again(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "recording.json").write_text("{}")
    writer = DecisionWriter(tmp_path, "a session", bundle)
    writer.append(EMITTED)
    with full_disk(), pytest.raises(OSError, match="File too large"):
        writer.append(SKIPPED)
    writer.append(DROPPED)
    writer.close()
    read = decisions.read(tmp_path)
    assert read is not None
    assert list(read.by_key.values()) == [EMITTED, DROPPED]


def changed(**values: Any) -> str:
    return json.dumps({"run": 0, "window": 0, "revision": "final", "outcome": "skipped"} | values)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[]",
        "{}",
        "no JSON",
        "\xff",
        "[" * 100_000,
        changed(run=-1),
        changed(window=1.5),
        changed(window=True),
        changed(revision="best"),
        changed(outcome=None),
        changed(outcome="emitted"),
        changed(outcome="emitted", steps=1, latent="ab", colours="no digits"),
        changed(steps="4"),
        changed(carried_from="clip 3"),
        changed(why=["markup"]),
        json.dumps({"restarted_at": "now"}),
        json.dumps({"restarted_at": 1e400, "items": 1}),
    ],
)
def test_a_damaged_line_is_named(line: str, bundle: Bundle, tmp_path: Path) -> None:
    file = written(tmp_path, bundle, EMITTED)
    file.write_bytes(file.read_bytes() + line.encode("latin-1") + b"\n" + changed(run=2).encode() + b"\n")
    with refused(UsageError, "decisions-line-invalid", line=3, path=file) as caught:
        decisions.read(tmp_path)
    assert caught.value.exit_code == 2
    assert "--best" in str(caught.value)


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / decisions.NAME).mkdir()
    with refused(UsageError, "decisions-unreadable", path=tmp_path / decisions.NAME):
        decisions.read(tmp_path)


def test_another_schema_is_refused_and_a_later_key_is_not(bundle: Bundle, tmp_path: Path) -> None:
    file = written(tmp_path, bundle, EMITTED)
    lines = file.read_text().splitlines()
    later = [json.dumps(json.loads(line) | {"of_a_later_version": 1}) for line in lines]
    file.write_text("".join(f"{line}\n" for line in later))
    read = decisions.read(tmp_path)
    assert read is not None
    assert list(read.by_key.values()) == [EMITTED]
    file.write_text(json.dumps(json.loads(lines[0]) | {"schema": 2}) + "\n")
    with refused(UsageError, "decisions-line-invalid", line=1):
        decisions.read(tmp_path)
