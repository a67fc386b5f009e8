"""The held-out sessions of an evaluation, and which of their windows are evaluated."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from rtdecode.scores.intervals import BLOCK
from train.evaluation.section import HeldOutWindows

Rows = NDArray[np.int64]
# Seeds the draw of windows. It is the same for every run, so that runs are compared on the same windows.
_SEED = 0
# Fewer windows of a session cannot be told apart.
_LEAST = 2


@dataclass(frozen=True)
class HeldOutSessions:
    """Sessions, or runs, that taught nothing.

    Attributes
    ----------
    title : str
        What they are.
    rows : sequence of (window,) int64
        Which windows of each session are evaluated, by their place in it.
    available : int
        Number of windows of all sessions, with those that are not evaluated.
    make : callable
        Takes the number of a session, and makes its windows.
    """

    title: str
    rows: Sequence[Rows]
    available: int
    make: Callable[[int], HeldOutWindows]

    @property
    def counts(self) -> list[int]:
        """Number of evaluated windows of each session."""
        return [len(rows) for rows in self.rows]


def draw_windows(counts: Sequence[int], window_count: int | None, *, same: bool = False) -> list[Rows]:
    """Draw the windows that are evaluated, by a fixed seed.

    They are stretches of neighbouring windows (`rtdecode.scores.intervals.BLOCK`), as clips carry on from
    those before them and intervals are over blocks of film. The first clip of a stretch begins afresh. Every
    session gives as many, as far as it has them.

    Parameters
    ----------
    counts : sequence of int
        Windows of each session.
    window_count : int or None
        Number of windows in all; None for every one.
    same : bool
        Whether sessions, all of one length, give the same windows, because they show the same, or their
        clips stand in for each other's. If their number does not divide `window_count`, fewer are drawn.

    Returns
    -------
    list of (window,) int64
        Ascending places in each session.

    Raises
    ------
    UsageError
        If there are not so many windows, or they are too few to be told apart.
    """
    if window_count is None:
        return [np.arange(count) for count in counts]
    check_windows(window_count, counts)
    shares = [window_count // len(counts)] * len(counts) if same else _shares(counts, window_count)
    return [_stretches(count, share) for count, share in zip(counts, shares, strict=True)]


def check_windows(window_count: int | None, counts: Sequence[int]) -> None:
    """Refuse a number of windows that `draw_windows` cannot draw; the arguments are its own.

    Raises
    ------
    UsageError
    """
    least = _LEAST * len(counts)
    if window_count is None or (type(window_count) is int and least <= window_count <= sum(counts)):
        return
    raise UsageError(
        "evaluation-windows-unavailable",
        "windows={windows}: there are {available} held-out windows, of {sessions} sessions. Give a number "
        "from {least} to {available}, or leave it out to evaluate all.",
        windows=window_count,
        available=sum(counts),
        sessions=len(counts),
        least=least,
    )


def _shares(counts: Sequence[int], total: int) -> list[int]:
    """Divide a number among sessions. What a short one lacks, the longer ones give."""
    shares = [0] * len(counts)
    for place, number in enumerate(np.argsort(counts, kind="stable").tolist()):
        remaining = total - sum(shares)
        shares[number] = min(counts[number], remaining // (len(counts) - place))
    return shares


def _stretches(count: int, share: int) -> Rows:
    blocks = np.arange(count) // BLOCK
    order = np.random.default_rng(_SEED).permutation(blocks[-1] + 1)
    rows = np.concatenate([np.flatnonzero(blocks == block) for block in order])
    return np.sort(rows[:share])
