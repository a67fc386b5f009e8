"""Find errors without a code: constructions of `CodedError` and its kin that name none, or lack a value."""

import ast
import re
import string
from collections.abc import Iterable
from pathlib import Path

CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+")
ROOT = "CodedError"
_ERROR = re.compile(rb"Error(\.wrap)?\(|Error\):|Error,.*\):")


def faults(paths: Iterable[Path]) -> list[str]:
    """Return a line for each construction that is not `Kind("a-code", "a sentence", **values)`.

    A class that is derived from one of the kin in any of the files is of the kin too.
    """
    bases: dict[str, set[str]] = {}
    calls: list[tuple[Path, ast.Call]] = []
    for path in paths:
        source = path.read_bytes()
        # Parsing is slow, and a file without these makes no error and derives none.
        if not _ERROR.search(source):
            continue
        # No tree is kept: the garbage collector would walk all of them again and again.
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = {_name(base) for base in node.bases}
            elif isinstance(node, ast.Call) and _may_make_error(node):
                calls.append((path, node))
    kin = _kin(bases)
    lines = []
    for path, call in calls:
        if (fault := _fault(call, kin)) is not None:
            lines.append(f"{path}:{call.lineno}: {fault}")
    return lines


def _may_make_error(call: ast.Call) -> bool:
    """Say whether a call may be of a class, whose name begins with a capital, or of its `wrap`."""
    name = _name(call.func).lstrip("_")
    return name[:1].isupper() or name == "wrap"


def _kin(bases: dict[str, set[str]]) -> set[str]:
    kin = {ROOT}
    while subclasses := {name for name, parents in bases.items() if parents & kin} - kin:
        kin |= subclasses
    return kin


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _fault(call: ast.Call, kin: set[str]) -> str | None:
    function = call.func
    wraps = isinstance(function, ast.Attribute) and function.attr == "wrap" and _name(function.value) in kin
    if not wraps and _name(function) not in kin:
        return None
    code, sentence = [*call.args[1 if wraps else 0 :], None, None][:2]
    if not (isinstance(code, ast.Constant) and isinstance(code.value, str) and CODE.fullmatch(code.value)):
        return "an error without a code; give a slug such as 'film-unreadable' first"
    if not (isinstance(sentence, ast.Constant) and isinstance(sentence.value, str)):
        return f"the sentence of '{code.value}' is not written out; name its values in braces"
    fields = {name for _, name, _, _ in string.Formatter().parse(sentence.value) if name is not None}
    values = {keyword.arg for keyword in call.keywords} | ({"error"} if wraps else set())
    missing = fields - values
    if missing and None not in values:
        return (
            f"the sentence of '{code.value}' names {', '.join(sorted(missing))}, and no such value is given"
        )
    return None
