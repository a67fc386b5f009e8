"""The state that one stream of windows carries on, on an engine that other sessions share.

`Session.open` begins a window's pass with the states of the window before it, and `Session.keep` stores the
states of a finished pass for the windows that follow.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle.graph import Value
from rtdecode.bundle.manifest import Manifest, State
from rtdecode.bundle.noise import noise
from rtdecode.bundle.runner import Noise, Pass, Program
from rtdecode.bundle.wiring import SIGNALS
from rtdecode.types import Window

# The revisions from which each revision may carry on, the best first.
_CHAINS = {"preview": ("final", "preview"), "final": ("final",), "refined": ("refined", "final")}
# So many windows' states are kept of each revision. A window is refined when volumes come that may be half a
# minute late, and by then later finals have been decoded.
_KEPT = 32


@dataclass(frozen=True, slots=True)
class _Last:
    run: int
    index: int
    windowed_at: float
    states: Mapping[str, Value]


# What a session holds at one moment. It is never modified, so it can be kept and restored.
Snapshot = Mapping[str, tuple[_Last, ...]]


class Session:
    """The last states of each revision, from which the next window carries on so that clips join.

    Window k + 1 carries on from window k of the same run, if that was decoded. A final carries on from the
    final. A preview carries on from the final if that was cut before the preview, and otherwise from the
    preview. A refined window carries on from the refined one, and otherwise from the final. The order in
    which they were decoded does not matter, so that a replay carries what the live session carried.

    Parameters
    ----------
    program : Program
        The program of an engine, which other sessions may use too.
    carry : bool
        If False, every window starts afresh.

    Attributes
    ----------
    carried_from : str or None
        Revision from which the window that was opened last carries on; None if it starts afresh.
    """

    def __init__(self, program: Program, *, carry: bool = True) -> None:
        self._program = program
        self._carry = carry
        self.carried_from: str | None = None
        self._last: dict[str, deque[_Last]] = {name: deque(maxlen=_KEPT) for name in _CHAINS}

    def open(
        self,
        window: Window,
        steps: int,
        *,
        detail: float | None = None,
        null: bool = False,
        chain: Sequence[str] | None = None,
    ) -> Pass:
        """Begin a window's pass through the graphs.

        Parameters
        ----------
        window : Window
            Signals that it lacks enter as zeros under a zero mask.
        steps : int
            Number of denoising steps; 0 in closed form.
        detail : float, optional
            Share of detail that is kept; by default the manifest's.
        null : bool
            Leave out every signal and everything that is carried on, so that only the weights and the noise
            are the same.
        chain : sequence of str, optional
            The revisions from which it may carry on, the best first; by default those of its own revision.
        """
        drawn = self._noise(window)
        self.carried_from = None
        if null:
            return Pass(self._program, {}, drawn, steps, detail=detail)
        states = None
        for revision in _CHAINS[window.revision] if chain is None else chain:
            states = self._before(window, revision)
            if states is not None:
                self.carried_from = revision
                break
        return Pass(self._program, signals(window), drawn, steps, states, detail)

    def keep(self, window: Window, done: Pass) -> None:
        """Store the states of a finished pass, whose whole latent is clean, for the windows that follow."""
        states = done.carried() if self._carry else {}
        if states:
            last = _Last(window.run, window.index, _windowed_at(window), states)
            self._last[window.revision].append(last)

    def snapshot(self) -> Snapshot:
        """Return what the session holds at this moment."""
        return {name: tuple(kept) for name, kept in self._last.items()}

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to what the session held at a snapshot; an empty one lets it hold nothing."""
        self._last = {name: deque(snapshot.get(name, ()), maxlen=_KEPT) for name in _CHAINS}

    def _before(self, window: Window, revision: str) -> Mapping[str, Value] | None:
        """Return the states of a revision of the window before; None if it was not decoded."""
        # Judged by when the windows were cut, which a replay repeats, and not by
        # when they were decoded.
        wanted = (window.run, window.index - 1)
        for last in reversed(self._last[revision]):
            if (last.run, last.index) == wanted and last.windowed_at <= _windowed_at(window):
                return last.states
        return None

    def _noise(self, window: Window) -> Noise:
        key = self._program.manifest.noise_key
        more = partial(noise, key, window.run, window.index)
        if not self._program.denoises:
            return Noise(None, more)
        return Noise(noise(key, window.run, window.index, self._program.latent), more)


def most_bytes(manifest: Manifest) -> int:
    """Return how many bytes of state one session holds at most.

    The window that is being decoded has every state once. Those that the next window carries on from are
    kept besides, of the last windows of each revision.
    """
    sizes = {name: _bytes(state) for name, state in manifest.states.items()}
    carried = sum(sizes[name] for name, state in manifest.states.items() if state.scope == "session")
    return sum(sizes.values()) + len(_CHAINS) * _KEPT * carried


def signals(window: Window) -> dict[str, NDArray[Any]]:
    """Return the signals of a window by source, with a leading axis of 1; absent ones are left out."""
    found: dict[str, NDArray[Any]] = {}
    for source in SIGNALS:
        if getattr(window, source.removesuffix("_mask")) is not None:
            found[source] = getattr(window, source)[np.newaxis]
    return found


def _bytes(state: State) -> int:
    return math.prod(state.shape) * np.dtype(state.dtype).itemsize


def _windowed_at(window: Window) -> float:
    return window.stamps.get("windowed", 0.0)
