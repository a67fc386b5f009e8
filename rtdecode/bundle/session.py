"""The state that one stream of windows carries on, on an engine that other sessions share.

`Session.open` begins a window's pass with the states of the window before it, and `Session.keep` stores the
states of a finished pass for the windows that follow. `Carry` is the part of it that needs no graph: where
windows are decoded elsewhere, it stays with the session. `to_bytes` and `from_bytes` take the states of one
window from one to the other, in this form:

| bytes | what |
|---|---|
| 4 | ``RTDS`` |
| 2 | version of the form, little-endian; 1 |
| 4 | length of the list, little-endian |
| length | JSON: ``[[name, dtype, shape], ...]``, sorted by name |
| the rest | the values of each, little-endian, row by row, without gaps |
"""

import json
import math
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode import strict_json
from rtdecode.bundle.graph import Value, host
from rtdecode.bundle.manifest import Manifest, State
from rtdecode.bundle.noise import noise
from rtdecode.bundle.runner import Noise, Pass, Program
from rtdecode.bundle.wiring import SIGNALS
from rtdecode.errors import BundleError, RtDecodeError
from rtdecode.types import Window

# The revisions from which each revision may carry on, the best first.
CHAINS = {"preview": ("final", "preview"), "final": ("final",), "refined": ("refined", "final")}
# So many windows' states are kept of each revision. A window is refined when volumes come that may be half a
# minute late, and by then later finals have been decoded.
_MAX_WINDOWS = 32
# Begins the states of a window as bytes: the mark, the version of the form, and the length of the list.
_MARK = b"RTDS"
_VERSION = 1
_BEGINNING = struct.Struct("<4sHI")


class StatesError(RtDecodeError):
    """Bytes that are not the states of a window of this bundle."""

    reason = "states were received that are not those of this bundle"


@dataclass(frozen=True, slots=True)
class Carried:
    """What one window leaves to the windows that follow it.

    Attributes
    ----------
    run, index : int
        Of the window.
    revision : str
        ``preview``, ``final`` or ``refined``.
    windowed_at : float
        When the window was cut, on the session's clock, s.
    states : dict
        Name -> values, as `rtdecode.bundle.runner.Pass.carried` gives them.
    """

    run: int
    index: int
    revision: str
    windowed_at: float
    states: Mapping[str, Value]


# What a session holds at one moment. It is never modified, so it can be kept and restored.
Snapshot = Mapping[str, tuple[Carried, ...]]


class Carry:
    """The last states of each revision, from which the next window carries on so that clips join.

    Window k + 1 carries on from window k of the same run, if that was decoded. A final carries on from the
    final. A preview carries on from the final if that was cut before the preview, and otherwise from the
    preview. A refined window carries on from the refined one, and otherwise from the final. The order in
    which they were decoded does not matter, so that a replay carries what the live session carried.
    """

    def __init__(self) -> None:
        self._last: dict[str, deque[Carried]] = {name: deque(maxlen=_MAX_WINDOWS) for name in CHAINS}

    def put(self, window: Window, states: Mapping[str, Value]) -> Carried | None:
        """Store what a window leaves to those that follow it; nothing if there are no states."""
        if not states:
            return None
        carried = Carried(window.run, window.index, window.revision, _windowed_at(window), states)
        self._last[window.revision].append(carried)
        return carried

    def before(self, window: Window, chain: Sequence[str] | None = None) -> Carried | None:
        """Return what a window carries on from; None if it starts afresh.

        Parameters
        ----------
        window : Window
            The window that is about to be decoded.
        chain : sequence of str, optional
            The revisions from which it may carry on, the best first; by default those of its own revision.
        """
        # Judged by when the windows were cut, which a replay repeats, and not by
        # when they were decoded.
        run_and_index = (window.run, window.index - 1)
        for revision in CHAINS[window.revision] if chain is None else chain:
            for last in reversed(self._last[revision]):
                if (last.run, last.index) == run_and_index and last.windowed_at <= _windowed_at(window):
                    return last
        return None

    def snapshot(self) -> Snapshot:
        """Return what the session holds at this moment."""
        return {name: tuple(carried) for name, carried in self._last.items()}

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to what the session held at a snapshot; an empty one lets it hold nothing."""
        self._last = {name: deque(snapshot.get(name, ()), maxlen=_MAX_WINDOWS) for name in CHAINS}


class Session:
    """One stream of windows on a program that other sessions may use too; see `Carry`.

    Parameters
    ----------
    program : Program
        The program of an engine.
    carry : bool
        If False, every window starts afresh.

    Attributes
    ----------
    carried_from : str or None
        Revision from which the window that was opened last carries on; None if it starts afresh.
    """

    def __init__(self, program: Program, *, carry: bool = True) -> None:
        self._program = program
        self._carries = carry
        self._carry = Carry()
        self.carried_from: str | None = None

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
        last = None if null else self._carry.before(window, chain)
        self.carried_from = None if last is None else last.revision
        states = None if last is None else last.states
        return open_pass(self._program, window, steps, states, detail=detail, null=null)

    def keep(self, window: Window, done: Pass) -> None:
        """Store the states of a finished pass, whose whole latent is clean, for the windows that follow."""
        if self._carries:
            self._carry.put(window, done.carried())

    def snapshot(self) -> Snapshot:
        """Return what the session holds at this moment."""
        return self._carry.snapshot()

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to what the session held at a snapshot; an empty one lets it hold nothing."""
        self._carry.restore(snapshot)


def open_pass(
    program: Program,
    window: Window,
    steps: int,
    states: Mapping[str, Value] | None = None,
    *,
    detail: float | None = None,
    null: bool = False,
) -> Pass:
    """Begin a window's pass through the graphs, from states that the caller chose.

    Parameters
    ----------
    program : Program
        The loaded graphs and their order.
    window : Window
        The window to decode.
    steps : int
        Number of denoising steps; 0 without a denoiser.
    states : dict, optional
        What it carries on from; by default it starts afresh.
    detail, null
        See `Session.open`. With `null`, nothing is carried on.
    """
    noises = _noise(program, window)
    if null:
        return Pass(program, {}, noises, steps, detail=detail)
    return Pass(program, signals(window), noises, steps, states, detail)


def to_bytes(states: Mapping[str, Value]) -> bytes:
    """Write the states that one window leaves, wherever they lie, in their own dtypes."""
    arrays = {name: np.ascontiguousarray(host(states[name])) for name in sorted(states)}
    entries = [[name, array.dtype.name, list(array.shape)] for name, array in arrays.items()]
    listed = strict_json.dumps(entries).encode()
    values = [array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes() for array in arrays.values()]
    return b"".join([_BEGINNING.pack(_MARK, _VERSION, len(listed)), listed, *values])


def from_bytes(raw: bytes | memoryview, manifest: Manifest) -> dict[str, NDArray[Any]]:
    """Read the states that one window has left.

    Parameters
    ----------
    raw : bytes
        As `to_bytes` gives them.
    manifest : Manifest
        Of the bundle that is to carry on from them.

    Raises
    ------
    StatesError
        If they are not the states of scope ``session`` that the manifest has, each once, in its shape and
        dtype and finite.
    """
    if len(raw) < _BEGINNING.size:
        raise _refusal(f"{len(raw)} bytes")
    mark, version, length = _BEGINNING.unpack_from(raw)
    if mark != _MARK:
        raise _refusal(f"bytes that begin with {mark!r}")
    if version != _VERSION:
        raise _refusal(f"version {version} of their form, and this release reads version {_VERSION}")
    declared = {name: state for name, state in manifest.states.items() if state.scope == "session"}
    expected = [[name, state.dtype, state.shape] for name, state in sorted(declared.items())]
    listed = bytes(raw[_BEGINNING.size : _BEGINNING.size + length])
    try:
        entries = json.loads(listed)
    except (ValueError, RecursionError):
        entries = None
    if entries != expected:
        raise _refusal(f"the states {listed[:200]!r}, and bundle {manifest.name} carries {expected}")
    start = _BEGINNING.size + length
    size = start + carried_bytes(manifest)
    if len(raw) != size:
        raise _refusal(f"{len(raw)} bytes, and {size} were expected")
    states: dict[str, NDArray[Any]] = {}
    for name, state in sorted(declared.items()):
        dtype = np.dtype(state.dtype).newbyteorder("<")
        values = np.frombuffer(raw, dtype, math.prod(state.shape), start).reshape(state.shape)
        start += values.nbytes
        # Bytes other than 0 and 1 are no bool; numpy would hand them on as they are.
        is_valid = values.view(np.uint8).max() <= 1 if dtype.kind == "b" else np.isfinite(values).all()
        if not is_valid:
            raise _refusal(f"values of '{name}' that are not finite")
        states[name] = values.astype(state.dtype)
    return states


def carried_bytes(manifest: Manifest) -> int:
    """Return how many bytes of values one window leaves to the windows that follow it."""
    return sum(_bytes(state) for state in manifest.states.values() if state.scope == "session")


def check_carried(manifest: Manifest, limit: int) -> None:
    """Refuse a bundle whose windows leave more than can be sent with each of them.

    Parameters
    ----------
    manifest : Manifest
        Of the bundle that is about to be served.
    limit : int
        Largest number of bytes that one window may leave.

    Raises
    ------
    BundleError
    """
    size = carried_bytes(manifest)
    if size > limit:
        raise BundleError(
            "states-too-large-to-send",
            "bundle {bundle} carries {size_mb:.1f} MB from each window to the next, and at most {limit_mb:g} "
            "MB can be sent with a window. Decode it in the session itself, or export it again so that it "
            "carries latents and computes its caches from them.",
            bundle=manifest.name,
            size_mb=size / 1e6,
            limit_mb=limit / 1e6,
        )


def most_bytes(manifest: Manifest) -> int:
    """Return how many bytes of state one session holds at most.

    The window that is being decoded has every state once. Those that the next window carries on from are
    kept besides, of the last windows of each revision.
    """
    sizes = {name: _bytes(state) for name, state in manifest.states.items()}
    return sum(sizes.values()) + len(CHAINS) * _MAX_WINDOWS * carried_bytes(manifest)


def signals(window: Window) -> dict[str, NDArray[Any]]:
    """Return the signals of a window by source, with a leading axis of 1; absent ones are left out."""
    arrays: dict[str, NDArray[Any]] = {}
    for source in SIGNALS:
        if getattr(window, source.removesuffix("_mask")) is not None:
            arrays[source] = getattr(window, source)[np.newaxis]
    return arrays


def _noise(program: Program, window: Window) -> Noise:
    key = program.manifest.noise_key
    later = partial(noise, key, window.run, window.index)
    if not program.denoises:
        return Noise(None, later)
    return Noise(noise(key, window.run, window.index, program.latent), later)


def _refusal(content: str) -> StatesError:
    return StatesError(
        "states-invalid",
        "the states that a window was to carry on from are refused: found {found}. The window can be sent "
        "without them, and starts afresh.",
        found=content,
    )


def _bytes(state: State) -> int:
    return math.prod(state.shape) * np.dtype(state.dtype).itemsize


def _windowed_at(window: Window) -> float:
    return window.stamps.get("windowed", 0.0)
