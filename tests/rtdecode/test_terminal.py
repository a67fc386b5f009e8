"""What the commands print: text from outside is never markup and never acts on the terminal."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from rtdecode import terminal
from rtdecode.errors import UsageError, explain
from tests.printed import PRINTING, faults

ROOT = Path(__file__).parents[2]
PACKAGES = ("rtdecode", "streaming", "export", "train")
# Markup, the codes that clear a screen and set a title, forged lines, and a turned direction of reading.
NAMES = (
    "[/x]",
    "[bold]",
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\x9b2J",
    "a\nrtdecode: all is well",
    "a\rb",
    "\u202etxt",
    "\udcff",
)
ACTING = {*range(32), *range(0x7F, 0xA0), *map(ord, "\u202e\u2028"), 0xDCFF} - {ord("\n")}


def rendered(*things, **how):
    file = io.StringIO()
    terminal.console(file=file, width=200).print(*things, **how)
    return file.getvalue()


def harmless(text):
    return not ACTING & set(map(ord, text))


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_as_it_is_wherever_it_stands(name):
    table = Table(name, title=name)
    table.add_row(name)
    for thing in (name, f"a {name} b", table, Panel(name)):
        text = rendered(thing)
        assert harmless(text), text
        assert terminal.plain(name) in text
    assert harmless(rendered(Panel(Text(name), title=Text(name))))


@pytest.mark.parametrize("name", NAMES)
def test_one_text_is_one_line(name):
    assert rendered(f"stream {name}").count("\n") == 1
    assert rendered("one", name, sep="\n").count("\n") == 2


def test_own_words_may_be_bold():
    file = io.StringIO()
    console = terminal.Console(
        file=file, force_terminal=True, color_system="standard", width=80, highlight=False
    )
    console.print(terminal.bold("note:"), "[red]x[/]\x1b[31m")
    assert file.getvalue() == "\x1b[1mnote:\x1b[0m [red]x[/]\\x1b[31m\n"


@pytest.mark.parametrize("name", NAMES)
def test_bars_and_what_goes_on_show_names_as_they_are(name):
    file = io.StringIO()
    console = terminal.Console(file=file, force_terminal=True, color_system=None, width=200)
    assert list(terminal.track([1, 2], f"<{name}>", console=console)) == [1, 2]
    with console.status(f"<{name}>"):
        pass
    text = file.getvalue()
    assert text.count(f"<{terminal.plain(name)}>") >= 2
    assert "\x1b[2J" not in text
    assert "\x07" not in text


def test_json_writes_out_what_is_beyond_ascii_and_stays_json():
    file = io.StringIO()
    tree = {"name": list(NAMES)}
    terminal.console(file=file).print_json(json.dumps(tree))
    assert file.getvalue().isascii()
    assert json.loads(file.getvalue()) == tree


@pytest.mark.parametrize("name", NAMES)
def test_an_error_is_one_line(name, capsys):
    error = UsageError("stream-unknown", "there is no stream {name}", name=name)
    assert explain(error, program="rtdecode", as_json=True) == 2
    captured = capsys.readouterr()
    assert captured.err == f"rtdecode: there is no stream {terminal.plain(name)}\n"
    assert json.loads(captured.out)["error"]["values"] == {"name": name}


@pytest.mark.parametrize("word", ["--no-\x1b[2Jsuch", "[/x]\x1b[2J"])
@pytest.mark.parametrize("before", [["bench", "--quick"], ["stream", "--existing"], []])
def test_the_command_line_repeats_what_it_refuses_as_it_is(before, word):
    done = subprocess.run(
        [sys.executable, "-m", "rtdecode.cli", *before, word], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done
    assert "\\x1b[2J" in done.stderr
    assert "\x1b[2J" not in done.stderr
    assert "Traceback" not in done.stderr


def test_warnings_logs_and_unexpected_errors_are_printed_in_the_same_way():
    code = (
        "import logging, warnings; from rtdecode import terminal; terminal.guard();"
        "warnings.warn('w\\x1b[2J'); logging.getLogger('some').warning('l\\x1b[2J');"
        "raise RuntimeError('e\\x1b[2J')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "UserWarning: w\\x1b[2J\n" in done.stderr
    assert "l\\x1b[2J\n" in done.stderr
    assert "RuntimeError: e\\x1b[2J\n" in done.stderr
    assert harmless(done.stderr)


def test_everything_is_printed_through_it():
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    assert faults(file for file in files if str(file.relative_to(ROOT)) not in PRINTING) == []


@pytest.mark.parametrize(
    "line",
    [
        "print(name)",
        "Console(stderr=True).print(name)",
        "rich.console.Console()",
        "typer.echo(name)",
        "sys.stderr.write(name)",
        "from rich.progress import track",
        "TextColumn('{task.description}')",
        "Text.from_markup(name)",
        "traceback.print_exc()",
    ],
)
def test_what_prints_past_it_is_found(tmp_path, line):
    (tmp_path / "module.py").write_text(line)
    assert len(faults([tmp_path / "module.py"])) == 1


def test_names_of_files_do_not_act_on_the_terminal(tmp_path):
    name = "[bold]\x1b[2J\n<img src=x onerror=alert(1)>\u202e.dcm"
    (tmp_path / name).write_bytes(b"no image")
    command = [sys.executable, "-m", "rtdecode.cli", "volumes", str(tmp_path), "--once"]
    table = subprocess.run(command, capture_output=True, text=True, check=True)
    assert terminal.plain(name) in table.stdout
    assert harmless(table.stdout + table.stderr)
    lines = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout
    assert lines.isascii()
    ignored = json.loads(lines.splitlines()[-1])["ignored"]
    assert [entry["file"] for entry in ignored] == [terminal.plain(name)]
