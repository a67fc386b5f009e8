import json
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest
import typer
from typer.main import get_group

from rtdecode import __version__
from rtdecode.cli import app
from rtdecode.errors import UsageError

ROOT = Path(__file__).parents[2]
COMMANDS = get_group(app).commands


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rtdecode.cli", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        stdin=subprocess.DEVNULL,
    )


def test_version_and_help() -> None:
    assert run("--version").stdout.strip() == __version__
    text = run("--help").stdout
    for command in ("demo", "simulate", "stream", "replay", "export", "inspect", "volumes", "doctor"):
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


@pytest.mark.parametrize("name", ["phantom", "haxby"])
def test_inspect_reads_the_shipped_bundles(name: str) -> None:
    done = run("inspect", name, "--json")
    assert done.returncode == 0, done.stderr
    tree = json.loads(done.stdout)
    assert tree["simulated"] is (name == "phantom")
    assert len(tree["digest"]) == 16
    assert run("inspect", name).stdout.startswith(name)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["stream"], 2, "nothing to read"),
        (["stream", "--lsl", "X", "--bundle", "nowhere"], 4, "no bundle at 'nowhere'"),
        (["stream", "--fmri-dir", "/no/such/parent/dir"], 2, "parent folder does not exist"),
        (["stream", "--lsl", "X", "--dashboard", "localhost:1"], 2, "not built yet"),
        (["stream", "--lsl", "X", "--bundle", "haxby"], 2, "decodes fmri"),
        (["simulate", "--lsl", "X", "--scanner", "hitachi"], 2, "siemens-mosaic"),
        (["simulate", "--lsl", "X", "--scanner", "canon"], 2, "siemens-mosaic"),
        (["simulate", "--lsl", "X", "--subject", "-1"], 2, "numbered from 1, found -1"),
        (["simulate", "--lsl", "X", "--seed", "-1"], 2, "0 or more, found -1"),
        (["simulate", "--lsl", "X", "--faults", "earthquake=1"], 2, "volume-drop"),
        (["replay", "/no/such/recording"], 2, "is no recording"),
        (["volumes", "/no/such/folder"], 2, "no folder"),
        (["export", "/no/such/run", "--out", "/tmp/x", "--target", "tensorrt"], 2, "onnx"),
        (["export", ROOT / "train" / "runs" / "haxby", "--out", ROOT], 2, "something other than a bundle"),
        (["demo", "--out", ROOT], 2, "is in use. Give a new or empty folder."),
        (["serve", "R"], 2, "no command 'serve'. The commands are bench, calibrate, demo"),
        (["calibrate", "--fmri-dir", "/no/such/dir", "--out", "/tmp/x"], 2, "--mask"),
        (["stream", "--lsl", "X", "--seconds", "3"], 2, "holds no window"),
        (["stream", "--lsl", "X", "--wait", "-1"], 2, "--wait -1"),
        (["stream", "--lsl", "X", "--wait", "nan"], 2, "--wait nan: a number from 0 on was expected"),
        (["replay", ".", "--speed", "inf"], 2, "--speed inf: a positive number"),
        (["stream", "--lsl", "X", "--report", "/no/such/dir/r.json"], 2, "its folder does not exist"),
    ],
)
def test_what_cannot_be_is_refused_with_its_code_and_in_words(
    words: list[object], code: int, said: str, tmp_path: Path
) -> None:
    more = ["--out", str(tmp_path / "out")] if words[0] in ("stream", "replay") else []
    done = run(*words, *more)
    assert done.returncode == code, done.stderr
    assert said in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    done = run("stream", "--lsl", "X", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "in use" in done.stderr
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_bundle_with_a_changed_byte_is_refused(tmp_path: Path) -> None:
    from rtdecode.bundle import SHIPPED

    copy = tmp_path / "bundle"
    copy.mkdir()
    for file in (SHIPPED / "haxby").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    raw = bytearray((copy / "encode.onnx").read_bytes())
    raw[len(raw) // 2] ^= 1
    (copy / "encode.onnx").write_bytes(raw)
    done = run("stream", "--fmri-dir", tmp_path, "--bundle", copy, "--out", tmp_path / "out")
    assert done.returncode == 4
    assert "encode.onnx was changed" in " ".join(done.stderr.split())
