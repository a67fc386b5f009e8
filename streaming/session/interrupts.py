"""Ctrl-C and SIGTERM end things in order.

A shell starts a script's ``program &`` with SIGINT ignored, and Python leaves an ignored signal ignored. A
command that runs until it is stopped therefore puts a handler in place itself.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_BOTH = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def on_interrupt(stop: Callable[[str], None]) -> Iterator[None]:
    """Call `stop` with the signal's name instead of dying; a second Ctrl-C ends at once."""

    def handler(number: int, _frame: object) -> None:
        stop(signal.Signals(number).name)
        # The next Ctrl-C raises KeyboardInterrupt.
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)

    before = {number: signal.signal(number, handler) for number in _BOTH}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def ignored() -> Iterator[None]:
    """Ignore both signals in any program that is started in this block: a child process inherits that."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _BOTH}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
