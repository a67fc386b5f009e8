"""A decoder here that takes the place of one elsewhere while that does not answer in time.

The decoder elsewhere is asked for every window. A final that has no clip when half of its time is over is
decoded here, with another bundle that reads the same signals, and so is every window from then on, until the
decoder elsewhere has answered two finals within half of their time. At each change the clips start afresh, so
that none carries on from what was never shown.
"""

import math
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic
from typing import Any, Protocol

import numpy as np

from rtdecode.bundle import Bundle, condition
from rtdecode.errors import BundleError, RtDecodeError
from rtdecode.types import Window
from streaming.decode.deadline import steps_within
from streaming.decode.decoder import AnyDecoder, Decoded, GivenUpError, NonFiniteError, SharedDecoder

# Share of a final's time after which its clip is made here.
_SHARE = 0.5
# So many finals have to be answered in time before the decoder elsewhere is relied on again.
_ANSWERS = 2
# What a window consists of, and what its clip is shown as. Statistics of other names are the decoder's own.
_SAME = ("grid", "eeg", "clip", "simulated", "chain")
_STATISTICS = ("eeg_mean", "eeg_scale", "fmri_mean", "fmri_scale", "drift_read", "drift_write", "drift_prior")


class Elsewhere(AnyDecoder, Protocol):
    """What is needed of the decoder elsewhere; see `streaming.serve.client.RemoteDecoder`."""

    def ask(
        self,
        window: Window,
        steps: int | None = None,
        *,
        detail: float | None = None,
        chain: Sequence[str] | None = None,
        left_s: float = math.inf,
        keep: bool = True,
    ) -> "Future[Decoded]":
        """Ask for the clip of one window; without `keep`, no later one carries on from it."""
        ...

    def start_afresh(self) -> None:
        """Let the next window carry on from none of those so far."""
        ...


@dataclass(slots=True, eq=False)
class _Request:
    """A window that has no clip yet."""

    window: Window
    due_at: float
    half_at: float
    future: "Future[Decoded]"
    # Whether its clip is made here.
    is_here: bool = False
    timer: threading.Timer | None = None

    @property
    def is_final(self) -> bool:
        """Whether it tells if the decoder elsewhere is in time: all but finals yield to other windows."""
        return self.window.revision == "final"


class FallbackDecoder:
    """Decode elsewhere, and here where that would be too late.

    Parameters
    ----------
    elsewhere : Elsewhere
        The decoder that is asked first.
    bundle : Bundle
        The session's.
    fallback : Bundle
        What decodes here; it is loaded, and its golden window is decoded.
    carry, tell_condition : bool
        See `streaming.decode.decoder.Decoder`.

    Attributes
    ----------
    numbers_of_steps, cost, runs_on, at_once, pixels
        Those of the decoder elsewhere.
    notes : list of str
        What there is to be told of both.

    Raises
    ------
    BundleError
        If the fallback cannot be decoded here.
    """

    def __init__(
        self,
        elsewhere: Elsewhere,
        bundle: Bundle,
        fallback: Bundle,
        *,
        carry: bool = True,
        tell_condition: bool = False,
    ) -> None:
        self._elsewhere = elsewhere
        self._bundle = bundle
        self._fallback = fallback
        self._shared = SharedDecoder(fallback)
        self._carry = carry
        self._tells_condition = tell_condition
        self._here = self._shared.session(carry=carry, tell_condition=tell_condition)
        self._worker = ThreadPoolExecutor(1, "fallback")
        # Held while anything below changes: clips come from the network, from here and from timers.
        self._lock = threading.RLock()
        self._pending: list[_Request] = []
        self._is_relied_on = True
        # Finals that were answered in time, one after the other, since it is not.
        self._answers = 0
        # Whether the decoder elsewhere turned out to be the wrong one.
        self._is_wrong = False
        self._news: list[str] = []
        self.numbers_of_steps = elsewhere.numbers_of_steps
        self.cost = elsewhere.cost
        self.runs_on = elsewhere.runs_on
        self.at_once = elsewhere.at_once
        self.pixels = elsewhere.pixels
        self.notes = [
            *elsewhere.notes,
            f"Fallback: {fallback.manifest.name} ({fallback.digest}) is loaded here.",
            *self._shared.notes,
        ]

    @property
    def away_since(self) -> float | None:
        """Wall time since which no decoder elsewhere answers, s; None while one does."""
        return self._elsewhere.away_since

    def ask(
        self,
        window: Window,
        steps: int | None = None,
        *,
        detail: float | None = None,
        chain: Sequence[str] | None = None,
        left_s: float = math.inf,
    ) -> "Future[Decoded]":
        """Ask for the clip of one window, which comes from elsewhere or from here."""
        now = monotonic()
        request = _Request(window, now + left_s, now + _SHARE * left_s, Future())
        with self._lock:
            self._pending.append(request)
            is_relied_on = self._is_relied_on
            if not is_relied_on:
                self._decode_here(request)
                # It is asked for finals to see whether it is in time again.
                if self._is_wrong or not request.is_final:
                    return request.future
            elif request.is_final and math.isfinite(left_s):
                request.timer = threading.Timer(max(0.0, _SHARE * left_s), self._overdue, [request])
                request.timer.daemon = True
                request.timer.start()
        answer = self._elsewhere.ask(
            window,
            steps,
            detail=detail,
            chain=chain if is_relied_on else [],
            left_s=left_s,
            keep=is_relied_on,
        )
        answer.add_done_callback(partial(self._answered, request))
        return request.future

    def decode(
        self,
        window: Window,
        steps: int | None = None,
        *,
        detail: float | None = None,
        null: bool = False,
        chain: Sequence[str] | None = None,
        left_s: float = math.inf,
    ) -> Decoded:
        """Decode one window and wait for it; a null-brain twin is decoded elsewhere alone."""
        if null:
            return self._elsewhere.decode(window, steps, detail=detail, null=True, left_s=left_s)
        return self.ask(window, steps, detail=detail, chain=chain, left_s=left_s).result()

    def news(self) -> list[str]:
        """Return sentences on what has become of the decoder since the last call."""
        with self._lock:
            sentences = self._news
            self._news = []
        return [*self._elsewhere.news(), *sentences]

    def close(self) -> None:
        """End the session, here and elsewhere."""
        with self._lock:
            for request in self._pending:
                if request.timer is not None:
                    request.timer.cancel()
            self._pending.clear()
        self._elsewhere.close()
        self._worker.shutdown(cancel_futures=True)

    def _overdue(self, request: _Request) -> None:
        with self._lock:
            if request in self._pending and not request.is_here:
                self._rely_no_more("it has not answered within half of a window's time")

    def _answered(self, request: _Request, answer: "Future[Decoded]") -> None:
        error = answer.exception()
        with self._lock:
            if error is None:
                self._take(request, answer.result())
            elif isinstance(error, GivenUpError):
                self._answers = 0
                if request.is_here:
                    return
                if not request.is_final:
                    self._end(request, error)
                    return
                self._rely_no_more(str(error))
            elif isinstance(error, NonFiniteError):
                if not request.is_here:
                    self._end(request, error)
            else:
                if not self._is_wrong:
                    self._is_wrong = True
                    # Without the sentence, which may name a host.
                    why = error.code if isinstance(error, RtDecodeError) else type(error).__name__
                    self._news.append(f"the decoder elsewhere is not asked any more ({why})")
                self._rely_no_more("it is not the right one any more")

    def _take(self, request: _Request, decoded: Decoded) -> None:
        """Take a clip from elsewhere; where it was decoded here too, it only shows whether it was in time."""
        if not request.is_here:
            self._end(request, decoded)
            return
        self._answers = self._answers + 1 if monotonic() <= request.half_at else 0
        if self._answers >= _ANSWERS and not self._is_relied_on:
            self._is_relied_on = True
            self._elsewhere.start_afresh()
            self._news.append("the decoder elsewhere is in time again, and the fallback rests")

    def _rely_no_more(self, why: str) -> None:
        """Decode here from now on, and what waits for the decoder elsewhere too."""
        if not self._is_relied_on:
            return
        self._is_relied_on = False
        self._answers = 0
        self._here = self._shared.session(carry=self._carry, tell_condition=self._tells_condition)
        self._news.append(
            f"the fallback {self._fallback.manifest.name} decodes instead of the decoder: {why}"
        )
        for request in self._pending:
            if not request.is_here:
                self._decode_here(request)

    def _decode_here(self, request: _Request) -> None:
        request.is_here = True
        self._worker.submit(self._decode, request, self._here)

    def _decode(self, request: _Request, here: AnyDecoder) -> None:
        """Decode a window in the worker's thread, with as many steps as there is time for."""
        left_s = request.due_at - monotonic()
        if left_s <= 0:
            why = "neither the decoder elsewhere nor the fallback had time for it"
            self._end(request, GivenUpError("window-given-up", "{why}", why=why))
            return
        shared = self._shared
        steps = steps_within(left_s, shared.cost, shared.steps, shared.numbers_of_steps)
        try:
            end: Decoded | Exception = self._as_the_sessions(here.decode(request.window, steps or None))
        except RtDecodeError as error:
            end = error
        self._end(request, end)

    def _as_the_sessions(self, decoded: Decoded) -> Decoded:
        """Leave out of a clip what the session's bundle does not tell, which its outlets have no room for."""
        of_session, other = self._bundle.manifest, self._fallback.manifest
        changes: dict[str, Any] = {"detail": None, "recorded": {}}
        if of_session.labels != other.labels:
            changes["scores"] = None
        if of_session.confidence is None:
            changes["confidence"] = None
        if of_session.brain is None:
            changes |= {"presence": None, "brain_by": None}
        same = condition.labels(of_session) == condition.labels(other)
        clip = replace(decoded.clip, **changes)
        return replace(
            decoded,
            clip=clip,
            condition=decoded.condition if same else None,
            bundle=self._fallback.digest,
        )

    def _end(self, request: _Request, end: Decoded | Exception) -> None:
        with self._lock:
            if request not in self._pending:
                return
            self._pending.remove(request)
            if request.timer is not None:
                request.timer.cancel()
        if isinstance(end, Exception):
            request.future.set_exception(end)
        else:
            request.future.set_result(end)


def check_fallback(bundle: Bundle, fallback: Bundle) -> None:
    """Refuse a fallback that reads other signals than the session's bundle, or draws another kind of clip.

    Parameters
    ----------
    bundle : Bundle
        The session's, by which windows are cut and normalised.
    fallback : Bundle
        The bundle that is to decode here.

    Raises
    ------
    BundleError
    """
    of_session, other = bundle.manifest, fallback.manifest
    differing = [name for name in _SAME if getattr(of_session, name) != getattr(other, name)]
    if (of_session.fmri is None) != (other.fmri is None) or _voxels(bundle) != _voxels(fallback):
        differing.append("voxels")
    elif of_session.fmri != other.fmri:
        differing.append("fmri")
    differing += [name for name in _STATISTICS if not _are_equal(bundle, fallback, name)]
    if not differing:
        return
    raise BundleError(
        "fallback-bundle-mismatch",
        "--fallback {fallback} cannot take the windows of bundle {bundle}: {differing} differ. Give one that "
        "was trained on the same signals, with the same grid, montage, voxels and statistics.",
        fallback=other.name,
        bundle=of_session.name,
        differing=differing,
    )


def _voxels(bundle: Bundle) -> str | None:
    return None if bundle.projection is None else bundle.projection.digest


def _are_equal(bundle: Bundle, fallback: Bundle, name: str) -> bool:
    of_session, other = bundle.stats.get(name), fallback.stats.get(name)
    if of_session is None or other is None:
        return of_session is other
    return np.array_equal(of_session, other)
