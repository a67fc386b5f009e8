"""Polls of a folder that do not rest on the machine's speed."""

import time
from collections.abc import Callable

from rtdecode.types import Volume
from streaming.sources.folder.source import FolderSource

_PACE = 0.01
# Nothing here takes long: this only ends a test that would hang.
_LIMIT = 120.0


def polled(source: FolderSource, seconds: float) -> list[Volume]:
    """Every volume of polls for some time; a machine that stood still makes the polls all the same."""
    found: list[Volume] = []
    until = time.monotonic() + seconds
    left = round(seconds / _PACE) + 1
    while left > 0 or time.monotonic() < until:
        found += source.poll(time.monotonic())
        left -= 1
        time.sleep(_PACE)
    return found


def polled_until(source: FolderSource, condition: Callable[[list[Volume]], bool]) -> list[Volume]:
    """Every volume of polls until they are what is waited for."""
    found: list[Volume] = []
    until = time.monotonic() + _LIMIT
    while not condition(found):
        assert time.monotonic() < until, f"{len(found)} volumes so far; {source.state}"
        found += source.poll(time.monotonic())
        time.sleep(_PACE)
    return found
