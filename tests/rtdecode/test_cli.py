import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import typer
from typer.main import get_group

from rtdecode import __version__, cli
from rtdecode.bundle import SHIPPED
from rtdecode.cli import app
from rtdecode.errors import RtDecodeError, UsageError, explain
from tests.refusals import check_error
from tests.shipped import BUNDLES

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
SCANNERS = {"available": re.compile("siemens-mosaic")}
COMMANDS = get_group(app).commands


@dataclass
class Done:
    """How a command ended, what it wrote, and the error that it explained."""

    code: int
    out: str
    err: str
    error: RtDecodeError | None = None


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run a command line in this process: starting another takes longer than all that is tested here."""

    errors: list[RtDecodeError] = []

    def explained(error: RtDecodeError, **options: Any) -> int:
        errors.append(error)
        return explain(error, **options)

    def call(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["rtdecode", *map(str, words)])
        monkeypatch.setattr(cli, "explain", explained)
        errors.clear()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        output = capsys.readouterr()
        # A command that returns nothing ends with None, which a shell sees as 0.
        return Done(int(ended.value.code or 0), output.out, output.err, *errors)

    return call


def program(*words: str) -> Done:
    """Run a command line as a program of its own."""
    call = [sys.executable, "-m", "rtdecode.cli", *words]
    done = subprocess.run(call, capture_output=True, text=True, check=False, timeout=180)
    return Done(done.returncode, done.stdout, done.stderr)


def test_the_program_ends_with_the_code_and_one_sentence() -> None:
    done = program("stream")
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert line.startswith("rtdecode: ")
    assert "--lsl NAME" in line
    assert "--fmri-dir DIR" in line


def test_version_and_help(run: Callable[..., Done]) -> None:
    assert run("--version").out.strip() == __version__
    text = run("--help").out
    for command in (
        "demo",
        "simulate",
        "stream",
        "replay",
        "export",
        "inspect",
        "volumes",
        "doctor",
        "preflight",
    ):
        assert command in text


@pytest.mark.parametrize(
    ("command", "zero"),
    [("simulate", "not at all"), ("stream", "for ever"), ("calibrate", "for ever"), ("play", "not at all")],
)
def test_every_wait_says_what_zero_means(command: str, zero: str) -> None:
    (wait,) = (option for option in COMMANDS[command].params if option.name == "wait")
    assert wait.help.endswith(f"; 0: {zero}.")


def floats() -> list[tuple[str, str]]:
    """Every option of every command that takes a number that need not be whole."""
    options = []
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__
        hints = get_type_hints(command.callback)
        options += [(name, option) for option, kind in hints.items() if kind in (float, float | None)]
    return options


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1"])
@pytest.mark.parametrize(("command", "name"), floats())
def test_no_length_of_time_or_rate_is_infinite_negative_or_no_number(
    command: str, name: str, value: str
) -> None:
    (option,) = (option for option in COMMANDS[command].params if option.name == name)
    with pytest.raises(UsageError) as caught:
        option.process_value(typer.Context(COMMANDS[command]), value)
    error = caught.value
    assert error.code in ("option-not-positive", "option-negative")
    assert error.values["option"] == option.opts[0]
    assert str(error.values["value"]) == str(float(value))
    assert error.exit_code == 2


def test_steps_may_be_any_whole_number_from_1_and_the_help_says_so() -> None:
    for command in ("stream", "replay"):
        (steps,) = (option for option in COMMANDS[command].params if option.name == "steps")
        assert "1 or more" in steps.help
        assert steps.process_value(typer.Context(COMMANDS[command]), "3") == 3


@pytest.mark.parametrize("name", BUNDLES)
def test_inspect_reads_the_shipped_bundles(name: str, run: Callable[..., Done]) -> None:
    done = run("inspect", name, "--json")
    assert done.code == 0, done.err
    tree = json.loads(done.out)
    assert tree["simulated"] is (name != "haxby")
    assert len(tree["digest"]) == 16
    assert run("inspect", name).out.startswith(name)


@pytest.mark.parametrize(
    ("words", "exit_code", "code", "values"),
    [
        (["stream", "--lsl", "X", "--bundle", "nowhere"], 4, "bundle-missing", {"path": "nowhere"}),
        (
            ["stream", "--fmri-dir", "/no/such/parent/dir"],
            2,
            "fmri-dir-parent-missing",
            {"folder": "/no/such/parent/dir"},
        ),
        (
            ["stream", "--lsl", "X", "--dashboard", "localhost"],
            2,
            "dashboard-address-malformed",
            {"address": "localhost"},
        ),
        (["demo", "--dashboard", "here:x"], 2, "dashboard-address-malformed", {"address": "here:x"}),
        (["stream", "--lsl", "X", "--osc", "9000"], 2, "osc-address-malformed", {"address": "9000"}),
        (["demo", "--osc", "here:x"], 2, "osc-address-malformed", {"address": "here:x"}),
        (
            ["stream", "--lsl", "X", "--bundle", "haxby"],
            2,
            "session-modality-mismatch",
            {"bundle_modalities": "fmri"},
        ),
        (["simulate", "--lsl", "X", "--scanner", "hitachi"], 2, "scanner-unsupported", SCANNERS),
        (["simulate", "--lsl", "X", "--scanner", "canon"], 2, "scanner-unsupported", SCANNERS),
        (["simulate", "--lsl", "X", "--subject", "-1"], 2, "phantom-subject-invalid", {"subject": -1}),
        (["simulate", "--lsl", "X", "--seed", "-1"], 2, "phantom-seed-negative", {"seed": -1}),
        (
            ["simulate", "--lsl", "X", "--faults", "earthquake=1"],
            2,
            "simulated-fault-unknown",
            {"fault_kind": "earthquake", "available": re.compile("volume-drop")},
        ),
        (["replay", "/no/such/recording"], 2, "recording-unreadable", {"path": "/no/such/recording"}),
        (["volumes", "/no/such/folder"], 2, "export-folder-missing", {"folder": "/no/such/folder"}),
        (
            ["export", "/no/such/run", "--out", "/tmp/x", "--target", "coreml"],
            2,
            "export-option-unsupported",
            {"option": "target", "value": "coreml", "available": ["onnx", "cuda", "tensorrt"]},
        ),
        (
            ["export", ROOT / "train" / "runs" / "haxby", "--out", HERE],
            2,
            "output-folder-foreign-files",
            {"folder": HERE, "folder_kind": "bundle"},
        ),
        (["demo", "--out", HERE], 2, "output-folder-not-empty", {"folder": HERE}),
        (
            ["demo", "--film", "/no/such.mp4"],
            2,
            "film-unknown",
            {"film": "/no/such.mp4", "available": re.compile("shapes.*known-shapes.*natural")},
        ),
        (["demo", "--recorded", "--film", "shapes"], 2, "demo-film-conflict", {"film": "shapes"}),
        (
            ["decode", "R"],
            2,
            "command-unknown",
            {"command": "decode", "available": re.compile("^bench, calibrate, demo, ")},
        ),
        (
            ["calibrate", "--fmri-dir", "/no/such/dir", "--out", "/tmp/x"],
            2,
            "calibrate-voxels-unspecified",
            {},
        ),
        (["stream", "--lsl", "X", "--seconds", "3"], 2, "session-shorter-than-window", {"duration_s": 3.0}),
        (["preflight"], 2, "preflight-source-missing", {}),
        (
            ["stream", "--lsl", "X", "--wait", "-1"],
            2,
            "option-negative",
            {"option": "--wait", "value": -1.0},
        ),
        (
            ["stream", "--lsl", "X", "--wait", "nan"],
            2,
            "option-negative",
            {"option": "--wait", "value": "nan"},
        ),
        (
            ["stream", "--lsl", "X", "--seconds", "1e300"],
            2,
            "option-too-large",
            {"option": "--seconds", "value": 1e300},
        ),
        (["simulate", "--lsl", "X", "--sfreq", "1e6"], 2, "phantom-sfreq-invalid", {"sfreq": 1e6}),
        (["simulate", "--lsl", "X", "--seconds", "1e6"], 2, "film-duration-too-long", {"duration_s": 1e6}),
        (
            ["stream", "--lsl", "X", "--report", HERE],
            2,
            "report-unwritable",
            {"path": HERE, "found": "it is a folder"},
        ),
        (["replay", ".", "--speed", "inf"], 2, "replay-speed-invalid", {"speed": "inf"}),
        (
            ["stream", "--lsl", "X", "--report", "/no/such/dir/r.json"],
            2,
            "report-parent-missing",
            {"path": "/no/such/dir/r.json"},
        ),
    ],
)
def test_what_cannot_be_is_refused_with_its_code(
    words: list[object],
    exit_code: int,
    code: str,
    values: dict[str, Any],
    tmp_path: Path,
    run: Callable[..., Done],
) -> None:
    needs_out = words[0] in ("stream", "replay", "demo") and "--out" not in words
    out_option = ["--out", str(tmp_path / "out")] if needs_out else []
    done = run(*words, *out_option)
    assert done.code == exit_code, done.err
    assert done.error is not None, done.err
    check_error(done.error, code, **values)
    assert done.err == f"rtdecode: {done.error}\n"
    assert not (tmp_path / "out").exists()


RECORDING = re.compile("^the folder of a recording$")
SESSION = re.compile("^the folder of a session$")


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """A folder with one of each thing that may be given in place of another."""
    for name, head in (("recording", "recording.json"), ("session", "clips.jsonl"), ("empty", None)):
        (tmp_path / name).mkdir()
        if head is not None:
            (tmp_path / name / head).write_text("{}")
    (tmp_path / "file").write_text("a text")
    # FFmpeg would draw its letters.
    (tmp_path / "notes.txt").write_text("a line of text\n" * 50)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "code", "values"),
    [
        (["report", "recording"], "session-missing-files", {"found": RECORDING}),
        (["report", "file"], "session-missing-files", {"found": "a file"}),
        (["report", "empty"], "session-missing-files", {"found": "a folder that is empty"}),
        (["replay", "session"], "recording-unreadable", {"found": SESSION}),
        (["replay", "file"], "recording-unreadable", {"found": "a file"}),
        (["volumes", "file", "--once"], "export-folder-missing", {"found": "a file"}),
        (["volumes", "empty", "--once", "--nifti", "file"], "nifti-folder-unwritable", {"folder": "file"}),
        (
            ["volumes", "empty", "--once", "--nifti", "file/x"],
            "nifti-folder-unwritable",
            {"folder": "file/x"},
        ),
        (["play", "empty", "--headless"], "film-missing", {"found": "a folder that is empty"}),
        (["play", "file", "--headless"], "film-unreadable", {"path": "file"}),
        (["play", "notes.txt", "--headless"], "film-without-video", {"path": "notes.txt"}),
        (["play-volumes", "session", "--fmri-dir", "x"], "bold-missing", {"found": SESSION}),
        (["inspect", "x" * 300], "bundle-unreadable", {}),
        (["volumes", "x" * 300], "path-refused", {"path": "x" * 300}),
        (["stream", "--seconds", "soon"], "command-line-invalid", {"help_command": "rtdecode stream --help"}),
        (["stream", "--sconds", "3"], "command-line-invalid", {"explanation": re.compile("--sconds")}),
        (["report"], "command-line-invalid", {"help_command": "rtdecode report --help"}),
        (
            ["play", "file", "--screen", "1.5"],
            "command-line-invalid",
            {"explanation": re.compile("--screen")},
        ),
    ],
)
def test_one_thing_given_for_another_is_told_in_one_sentence(
    words: list[str],
    code: str,
    values: dict[str, Any],
    places: Path,
    run: Callable[..., Done],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(places)
    done = run(*words)
    assert done.code == (4 if words[0] == "inspect" else 2), done.err
    assert done.error is not None, done.err
    check_error(done.error, code, **values)
    assert done.err == f"rtdecode: {done.error}\n"
    assert "Errno" not in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["calibrate", "--fmri-dir", "/no/such/dir", "--out", "/tmp/x"], ["--mask"]),
        (["preflight"], ["--lsl NAME", "--fmri-dir DIR"]),
    ],
)
def test_an_option_that_is_missing_is_named(
    words: list[str], options: list[str], run: Callable[..., Done]
) -> None:
    text = run(*words).err
    assert all(option in text for option in options), text


def test_a_folder_in_use_is_not_written_into(tmp_path: Path, run: Callable[..., Done]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    done = run("stream", "--lsl", "X", "--out", tmp_path / "out")
    assert done.code == 2
    assert done.error is not None, done.err
    check_error(done.error, "output-folder-not-empty", folder=tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_bundle_with_a_changed_byte_is_refused(tmp_path: Path, run: Callable[..., Done]) -> None:
    copy = tmp_path / "bundle"
    copy.mkdir()
    for file in (SHIPPED / "haxby").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    raw = bytearray((copy / "encode.onnx").read_bytes())
    raw[len(raw) // 2] ^= 1
    (copy / "encode.onnx").write_bytes(raw)
    done = run("stream", "--fmri-dir", tmp_path, "--bundle", copy, "--out", tmp_path / "out")
    assert done.code == 4
    assert done.error is not None, done.err
    check_error(done.error, "bundle-file-digest-mismatch", path=copy / "encode.onnx")
