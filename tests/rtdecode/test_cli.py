import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_type_hints

import pytest
import typer
from typer.main import get_group

from rtdecode import __version__, cli
from rtdecode.bundle import SHIPPED
from rtdecode.cli import app
from rtdecode.errors import UsageError

ROOT = Path(__file__).parents[2]
COMMANDS = get_group(app).commands


@dataclass
class Done:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run a command line in this process: starting another takes longer than all that is tested here."""

    def call(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["rtdecode", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        # A command that returns nothing ends with None, which a shell sees as 0.
        return Done(int(ended.value.code or 0), said.out, said.err)

    return call


def program(*words: str) -> Done:
    """Run a command line as a program of its own."""
    call = [sys.executable, "-m", "rtdecode.cli", *words]
    done = subprocess.run(call, capture_output=True, text=True, check=False, timeout=180)
    return Done(done.returncode, done.stdout, done.stderr)


def test_the_program_ends_with_the_code_and_one_sentence() -> None:
    done = program("stream")
    assert (done.code, done.out) == (2, "")
    assert done.err == "rtdecode: nothing to read: give --lsl NAME, --fmri-dir DIR, or both.\n"


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
    found = []
    for one in app.registered_commands:
        assert one.callback is not None
        name = one.name or one.callback.__name__
        hints = get_type_hints(one.callback)
        found += [(name, option) for option, kind in hints.items() if kind in (float, float | None)]
    return found


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1"])
@pytest.mark.parametrize(("command", "name"), floats())
def test_no_length_of_time_or_rate_is_infinite_negative_or_no_number(
    command: str, name: str, value: str
) -> None:
    (option,) = (option for option in COMMANDS[command].params if option.name == name)
    with pytest.raises(UsageError, match=f"^{option.opts[0]} {value}: a number .* was expected") as caught:
        option.process_value(typer.Context(COMMANDS[command]), value)
    assert caught.value.exit_code == 2


def test_steps_may_be_any_whole_number_from_1_and_the_help_says_so() -> None:
    for command in ("stream", "replay"):
        (steps,) = (option for option in COMMANDS[command].params if option.name == "steps")
        assert "1 or more" in steps.help
        assert steps.process_value(typer.Context(COMMANDS[command]), "3") == 3


@pytest.mark.parametrize("name", ["phantom", "haxby", "cinesync-tiny"])
def test_inspect_reads_the_shipped_bundles(name: str, run: Callable[..., Done]) -> None:
    done = run("inspect", name, "--json")
    assert done.code == 0, done.err
    tree = json.loads(done.out)
    assert tree["simulated"] is (name != "haxby")
    assert len(tree["digest"]) == 16
    assert run("inspect", name).out.startswith(name)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["stream", "--lsl", "X", "--bundle", "nowhere"], 4, "no bundle at 'nowhere'"),
        (["stream", "--fmri-dir", "/no/such/parent/dir"], 2, "parent folder does not exist"),
        (["stream", "--lsl", "X", "--dashboard", "localhost"], 2, "no HOST:PORT"),
        (["demo", "--dashboard", "here:x"], 2, "no HOST:PORT"),
        (["stream", "--lsl", "X", "--osc", "9000"], 2, "--osc 9000 is no HOST:PORT"),
        (["demo", "--osc", "here:x"], 2, "--osc here:x is no HOST:PORT"),
        (["stream", "--lsl", "X", "--bundle", "haxby"], 2, "decodes fmri"),
        (["simulate", "--lsl", "X", "--scanner", "hitachi"], 2, "siemens-mosaic"),
        (["simulate", "--lsl", "X", "--scanner", "canon"], 2, "siemens-mosaic"),
        (["simulate", "--lsl", "X", "--subject", "-1"], 2, "numbered from 1, found -1"),
        (["simulate", "--lsl", "X", "--seed", "-1"], 2, "0 or more, found -1"),
        (["simulate", "--lsl", "X", "--faults", "earthquake=1"], 2, "volume-drop"),
        (["replay", "/no/such/recording"], 2, "is no recording"),
        (["volumes", "/no/such/folder"], 2, "no folder"),
        (["export", "/no/such/run", "--out", "/tmp/x", "--target", "coreml"], 2, "onnx, tensorrt"),
        (["export", ROOT / "train" / "runs" / "haxby", "--out", ROOT], 2, "something other than a bundle"),
        (["demo", "--out", ROOT], 2, "is in use. Give a new or empty folder."),
        (["demo", "--film", "/no/such.mp4"], 2, "no film /no/such.mp4. Give shapes, known-shapes, natural"),
        (["demo", "--recorded", "--film", "shapes"], 2, "--film shapes: --recorded plays human runs"),
        (["serve", "R"], 2, "no command 'serve'. The commands are bench, calibrate, demo"),
        (["calibrate", "--fmri-dir", "/no/such/dir", "--out", "/tmp/x"], 2, "--mask"),
        (["stream", "--lsl", "X", "--seconds", "3"], 2, "holds no window"),
        (["preflight"], 2, "nothing to listen to: give --lsl NAME, --fmri-dir DIR"),
        (["stream", "--lsl", "X", "--wait", "-1"], 2, "--wait -1"),
        (["stream", "--lsl", "X", "--wait", "nan"], 2, "--wait nan: a number from 0 on was expected"),
        (["replay", ".", "--speed", "inf"], 2, "--speed inf: a positive number"),
        (["stream", "--lsl", "X", "--report", "/no/such/dir/r.json"], 2, "its folder does not exist"),
    ],
)
def test_what_cannot_be_is_refused_with_its_code_and_in_words(
    words: list[object], code: int, said: str, tmp_path: Path, run: Callable[..., Done]
) -> None:
    own = words[0] in ("stream", "replay", "demo") and "--out" not in words
    more = ["--out", str(tmp_path / "out")] if own else []
    done = run(*words, *more)
    assert done.code == code, done.err
    assert said in " ".join(done.err.replace("│", " ").split())
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_not_written_into(tmp_path: Path, run: Callable[..., Done]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    done = run("stream", "--lsl", "X", "--out", tmp_path / "out")
    assert done.code == 2
    assert "in use" in done.err
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
    assert "encode.onnx was changed" in " ".join(done.err.split())
