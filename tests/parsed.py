"""Modules of the repository, parsed once in a process: several tests read all of them."""

import ast
from functools import cache
from pathlib import Path


@cache
def tree_of(file: Path) -> ast.Module:
    """Parse a module."""
    return ast.parse(file.read_bytes())
