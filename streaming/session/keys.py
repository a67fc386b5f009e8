"""Lines that the operator types at the terminal while a session runs."""

import os
import select
import sys


def entered() -> list[str]:
    """Return the lines that have been typed, stripped and in small letters, without waiting for one.

    There are none where stdin is not the terminal that the program is in the foreground of.
    """
    lines: list[str] = []
    while _ready():
        line = sys.stdin.readline()
        if not line:
            break
        lines.append(line.strip().lower())
    return lines


def _ready() -> bool:
    """Return whether a line waits, and reading it would not stop a program in the background."""
    if sys.stdin is None or sys.stdin.closed or not sys.stdin.isatty() or sys.platform == "win32":
        return False
    if os.tcgetpgrp(sys.stdin.fileno()) != os.getpgrp():
        return False
    return bool(select.select([sys.stdin], [], [], 0)[0])
