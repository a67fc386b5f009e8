"""Polls of a folder that do not rest on the machine's speed."""

import math
import time
from collections.abc import Callable
from weakref import WeakKeyDictionary

from rtdecode.types import Volume
from streaming.sources.folder.source import FolderSource

_PACE = 0.01
# File systems keep times in ticks, s: what is written after a pause of this length has another time.
_TICK = 0.02
# Nothing here takes long: this only ends a test that would hang.
_LIMIT = 120.0
# Source -> when it was polled here last, which may be ahead of the local clock, s.
_POLLED_AT: WeakKeyDictionary[FolderSource, float] = WeakKeyDictionary()


def now_of(source: FolderSource) -> float:
    """Return the local time, or that of the last poll if the polls are ahead of it, s."""
    return max(time.monotonic(), _POLLED_AT.get(source, -math.inf))


def polled(source: FolderSource, seconds: float, *, live: bool = False) -> list[Volume]:
    """Every volume of polls for some time; a machine that stood still makes the polls all the same.

    Parameters
    ----------
    source : FolderSource
    seconds : float
    live : bool
        Let the time pass. Otherwise the polls follow each other at once, each a little later by its clock.
    """
    volumes: list[Volume] = []
    until = now_of(source) + seconds
    polls_left = round(seconds / _PACE) + 1
    while polls_left > 0 or now_of(source) < until:
        volumes += _poll(source, live)
        polls_left -= 1
    time.sleep(_TICK)
    return volumes


def polled_until(
    source: FolderSource, condition: Callable[[list[Volume]], bool], *, live: bool = False
) -> list[Volume]:
    """Every volume of polls until they are what is waited for."""
    volumes: list[Volume] = []
    until = time.monotonic() + _LIMIT
    while not condition(volumes):
        assert time.monotonic() < until, f"{len(volumes)} volumes so far; {source.state}"
        volumes += _poll(source, live)
    return volumes


def _poll(source: FolderSource, live: bool) -> list[Volume]:
    if live:
        time.sleep(_PACE)
    _POLLED_AT[source] = max(time.monotonic(), _POLLED_AT.get(source, -math.inf) + _PACE)
    return source.poll(_POLLED_AT[source])
