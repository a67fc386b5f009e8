r"""What the commands print: text from outside is shown as it is, and never acts on the terminal.

Names of streams, files and series, notes of bundles and the system's error text may hold anything. Printed
through `console`, `line` or `say`, brackets in them are no markup, and control characters, which could clear
the screen, forge a line or turn the reading direction, are written out, as in ``\x1b[2J``. One text is one
line: what has several lines is printed as several texts, ``console.print(*lines, sep="\n")``.
"""

import logging
import re
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, LiteralString, TextIO, TypeVar

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from rtdecode import installing

T = TypeVar("T")

# Control characters (C0, C1), the separators of lines and paragraphs, what turns the reading direction, and
# what no terminal can be sent (bytes of a file name that are no UTF-8).
_ACTS = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
_ACTING = re.compile(f"[{_ACTS}]")
_ACTING_OR_NEW_LINE = re.compile(f"[\n{_ACTS}]")


def plain(text: object) -> str:
    r"""Return a text as one line in which every character that acts on a terminal is written out.

    Parameters
    ----------
    text : object
        Turned into a string if it is none.

    Returns
    -------
    str
        ``\x1b``, ``\n`` or ``\u202e`` stand in place of such characters; tabs stay.
    """
    return _ACTING_OR_NEW_LINE.sub(_written, str(text))


def _written(match: re.Match[str]) -> str:
    character = match[0]
    if character == "\n":
        return "\\n"
    return f"\\x{ord(character):02x}" if ord(character) < 0x100 else f"\\u{ord(character):04x}"


class Console(RichConsole):
    """A console of rich on which no text is markup or a command to the terminal. Made by `console`."""

    def render_str(self, text: str, **how: Any) -> Text:
        """Make text of a string, see `plain`; here its width is counted after that."""
        how |= {"markup": False, "emoji": False}
        return super().render_str(plain(text), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render what is no string, such as `Text`, with the same characters written out."""
        for segment in super().render(renderable, options):
            text = segment.text
            # What rich itself tells the terminal, to move the cursor for example, stays.
            if segment.control is None and _ACTING.search(text):
                yield Segment(_ACTING.sub(_written, text), segment.style)
            else:
                yield segment

    def status(self, status: RenderableType, **how: Any) -> Status:
        """Show a text, and that something goes on."""
        return super().status(self.render_str(status) if isinstance(status, str) else status, **how)

    def print_json(self, json: str | None = None, **how: Any) -> None:
        """Print JSON, in which JSON itself writes out every character beyond ASCII."""
        how |= {"ensure_ascii": True}
        super().print_json(json, **how)


def console(
    *, stderr: bool = False, width: int | None = None, soft_wrap: bool = False, file: TextIO | None = None
) -> Console:
    """Make a console on standard output, or on standard error or a file.

    Parameters
    ----------
    stderr : bool
        Print to standard error.
    width : int, optional
        Columns; by default the terminal's.
    soft_wrap : bool
        Leave it to the terminal to break long lines.
    file : file, optional
        Print to this file instead.
    """
    return Console(
        stderr=stderr, width=width, soft_wrap=soft_wrap, file=file, markup=False, emoji=False, highlight=False
    )


def bold(text: LiteralString) -> Text:
    """Return a text of our own to print in bold: `console.print(bold("note:"), name)`."""
    return Text(text, "bold")


def line(*texts: object) -> None:
    """Write texts to standard output, one line each."""
    _write(sys.stdout, texts)


def say(*texts: object) -> None:
    """Write texts to standard error, one line each."""
    _write(sys.stderr, texts)


def _write(file: TextIO, texts: Iterable[object]) -> None:
    file.write("".join(f"{plain(text)}\n" for text in texts))
    file.flush()


def track(
    items: Iterable[T],
    label: str,
    total: float | None = None,
    *,
    console: RichConsole,
    transient: bool = False,
    disable: bool = False,
) -> Iterator[T]:
    """Yield items and show how far they are, as `rich.progress.track` does."""
    # Imported here: many commands print, and few have a bar.
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", style="progress.description", markup=False),
        BarColumn(),
        TaskProgressColumn(show_speed=True),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console, transient=transient, disable=disable) as bar:
        yield from bar.track(items, total=total, description=plain(label))


def guard() -> None:
    """Write out what libraries warn of and log, and unexpected errors, in the same way from here on.

    For the beginning of a program. An import of an optional package that is not installed ends in the
    command that installs it.
    """
    warnings.showwarning = _warn
    sys.excepthook = _unexpected
    # In place of the handler of last resort, which Python uses where nobody set up another one.
    logging.lastResort = _Log(logging.WARNING)


class _Log(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    say(f"{filename}:{lineno}: {category.__name__}: {message}")


def _unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    # A program that needs a package of another extra ends in this advice, wherever it is imported.
    module = error.name if isinstance(error, ModuleNotFoundError) else None
    extra = installing.extra_of(module) if module else None
    if extra is not None:
        say(
            f"this command needs the package {module}, which is not installed. Install it with: "
            f"{installing.command(extra)}"
        )
        return
    say(*"".join(traceback.format_exception(kind, error, trace)).splitlines())


def duration(seconds: float) -> str:
    """Say how long something takes, in seconds, minutes or hours."""
    minutes = seconds / 60
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
