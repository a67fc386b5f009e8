"""What one stream of windows carries on from: the state of a session on an engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle.graph import Value
from rtdecode.bundle.noise import noise
from rtdecode.bundle.runner import Noise, Pass, Program
from rtdecode.bundle.wiring import SIGNALS
from rtdecode.types import Window

# The revisions that each revision may carry on from, the best first.
_CHAINS = {"preview": ("final", "preview"), "final": ("final",)}


@dataclass(frozen=True, slots=True)
class _Last:
    run: int
    index: int
    windowed_at: float
    states: Mapping[str, Value]


# What a session holds at one moment; it never changes.
Snapshot = Mapping[str, _Last]


class Session:
    """The newest states of each revision, so that clips join.

    Window k + 1 carries on from window k of the same run, if that was decoded: a final from the final,
    a preview from the final if that was cut before it, else from the preview. In what order the two
    were decoded does not matter, so that a replay carries what the live session carried.

    Parameters
    ----------
    program : Program
        Of an engine, which other sessions use too.
    carry : bool
        False lets every window begin afresh.
    """

    def __init__(self, program: Program, *, carry: bool = True) -> None:
        self._program = program
        self._carry = carry
        self._last: dict[str, _Last] = {}

    def open(self, window: Window, steps: int, *, null: bool = False) -> Pass:
        """Begin a window's pass through the graphs.

        Parameters
        ----------
        window : Window
            What it lacks enters as zeros under a zero mask.
        steps : int
            Denoising steps; 0 in closed form.
        null : bool
            Leave out every signal and everything carried on: the same weights and noise, and nothing else.
        """
        drawn = self._noise(window)
        if null:
            return Pass(self._program, {}, drawn, steps)
        return Pass(self._program, signals(window), drawn, steps, self._before(window))

    def keep(self, window: Window, done: Pass) -> None:
        """Let the windows that follow carry on from this one, all of whose latent is clean."""
        states = done.carried() if self._carry else {}
        if states:
            last = _Last(window.run, window.index, _windowed_at(window), states)
            self._last[window.revision] = last

    def snapshot(self) -> Snapshot:
        """What the session holds now."""
        return dict(self._last)

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to what the session held."""
        self._last = dict(snapshot)

    def _before(self, window: Window) -> Mapping[str, Value] | None:
        """The states to carry on from; None after a hole."""
        wanted = (window.run, window.index - 1)
        for revision in _CHAINS[window.revision]:
            last = self._last.get(revision)
            if last and (last.run, last.index) == wanted and last.windowed_at <= _windowed_at(window):
                return last.states
        return None

    def _noise(self, window: Window) -> Noise:
        key = self._program.manifest.noise_key
        more = partial(noise, key, window.run, window.index)
        if not self._program.denoises:
            return Noise(None, more)
        return Noise(noise(key, window.run, window.index, self._program.latent), more)


def signals(window: Window) -> dict[str, NDArray[Any]]:
    """The signals of a window by source, with a leading 1; those that are absent are left out."""
    found: dict[str, NDArray[Any]] = {}
    for source in SIGNALS:
        if getattr(window, source.removesuffix("_mask")) is not None:
            found[source] = getattr(window, source)[np.newaxis]
    return found


def _windowed_at(window: Window) -> float:
    return window.stamps.get("windowed", 0.0)
