"""Find what prints past `rtdecode.terminal`, where text from outside could act on the terminal."""

import ast
from collections.abc import Iterable
from pathlib import Path

# The modules that print by themselves: the one that all others print through.
PRINTING = ("rtdecode/terminal.py",)
_CALLS = {
    "print": "terminal.line or terminal.say",
    "Console": "terminal.console",
    "input": "terminal.say, and sys.stdin",
    "print_exc": "terminal.say",
}
# What takes markup of a text, whatever the console says: module -> names.
_MARKUP = {
    "rich": {"print", "print_json", "inspect"},
    "rich.markup": {"render"},
    "rich.progress": {"track", "SpinnerColumn"},
    "rich.prompt": {"Prompt", "Confirm", "IntPrompt", "FloatPrompt"},
    "rich.status": {"Status"},
    "rich.spinner": {"Spinner"},
}
_STREAMS = {"stdout", "stderr"}


def faults(paths: Iterable[Path]) -> list[str]:
    """Return a line for each place that prints, or makes markup, by anything but `rtdecode.terminal`."""
    return [
        f"{path}:{node.lineno}: {fault}"
        for path in paths
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Call | ast.ImportFrom) and (fault := _fault(node)) is not None
    ]


def _fault(node: ast.Call | ast.ImportFrom) -> str | None:
    if isinstance(node, ast.ImportFrom):
        markup = _MARKUP.get(node.module or "", set()) & {alias.name for alias in node.names}
        return f"{', '.join(sorted(markup))} of {node.module} takes markup from texts" if markup else None
    function = node.func
    # Columns of a bar take markup unless they are told not to.
    if _name(function) == "TextColumn" and "markup" not in {keyword.arg for keyword in node.keywords}:
        return "TextColumn(...) without markup=False"
    if isinstance(function, ast.Name) and function.id in _CALLS:
        return f"{function.id}(...): use {_CALLS[function.id]}"
    if not isinstance(function, ast.Attribute):
        return None
    owner = function.value
    if function.attr in {"Console", "print_exc"}:
        return f"{function.attr}(...): use {_CALLS[function.attr]}"
    if function.attr in {"echo", "secho"} and isinstance(owner, ast.Name) and owner.id in {"typer", "click"}:
        return f"{owner.id}.{function.attr}: use terminal.line or terminal.say"
    if (
        function.attr in {"write", "writelines"}
        and isinstance(owner, ast.Attribute)
        and owner.attr in _STREAMS
    ):
        return f"sys.{owner.attr} is written to: use terminal.line or terminal.say"
    if function.attr == "from_markup":
        return "Text.from_markup: make Text with a style, or terminal.bold"
    return None


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""
