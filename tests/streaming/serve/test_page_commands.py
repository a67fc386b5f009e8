"""The commands of docs/serve.md: those of openssl run, and ours have the flags that they name."""

import re
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
import typer.main

from rtdecode.cli import app
from streaming.serve import token

PAGE = (Path(__file__).parents[3] / "docs" / "serve.md").read_text()
BLOCKS = re.findall(r"^```\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
LINES = [line.partition("  #")[0].strip() for block in BLOCKS for line in block.splitlines()]


def test_the_keys_that_the_page_makes_are_taken(tmp_path: Path) -> None:
    assert shutil.which("openssl") is not None, "the tests of TLS need openssl"
    commands = [line for line in LINES if line.startswith("openssl")]
    assert len(commands) == 2
    for command in commands:
        subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True, capture_output=True)
    assert len(token.read(tmp_path / "token")) == 64
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    ssl.create_default_context(cafile=tmp_path / "cert.pem")


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("rtdecode ")])
def test_our_commands_have_the_flags_that_the_page_names(line: str) -> None:
    name, *words = line.removeprefix("rtdecode ").split()
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    flags = {flag for parameter in command.params for flag in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= flags


@pytest.mark.parametrize("flag", sorted(set(re.findall(r"benchmarks\.serve (--\w+)", PAGE))))
def test_the_figures_that_the_page_names_can_be_measured(flag: str) -> None:
    source = (Path(__file__).parents[3] / "benchmarks" / "serve.py").read_text()
    assert f'"{flag}"' in source
