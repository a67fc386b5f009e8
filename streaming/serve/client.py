"""A decoder elsewhere, with the interface of one that runs here (`streaming.decode.decoder.Decoder`).

The session keeps what its windows carry on from. Each window names the ones that it may carry on from, and
goes with their states to a decoder that does not hold them. So any decoder can take any window: when a
connection breaks, the next address is tried and every window without a clip is sent again, and the clips are
the same to the bit.

A thread of its own holds the connection, so that the session waits neither for the network nor for the
decoder: `ask` sends a window, also while those before it are decoded.
"""

import asyncio
import math
import secrets
import ssl
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle, wiring
from rtdecode.bundle.session import CHAINS, Carried, Carry, StatesError, from_bytes, to_bytes
from rtdecode.disk.video import from_mp4
from rtdecode.errors import RtDecodeError, UsageError
from rtdecode.types import Clip, Presence, Window
from streaming.decode.deadline import Cost
from streaming.decode.decoder import Decoded, GivenUpError, NonFiniteError, check_detail, check_steps
from streaming.message import Message
from streaming.serve.address import DecoderAddress
from streaming.serve.link import BROKEN, Link, Linker, closing
from streaming.serve.protocol import (
    FROM_DECODER,
    MOST_FILM_BYTES,
    ProtocolError,
    Shapes,
    VersionError,
    pack_window,
    read,
    write,
)

# Between attempts to connect, s; each is twice the one before.
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
# What connecting to one address, and its answer, may take, s.
_CONNECT_S = 5.0
# A reply that is due is waited for by this share of a hop longer: the decoder is told only the time to it.
_GRACE_HOPS = 0.25
# Windows that are sent before the first of them has its clip. A decoder takes four; one is left for a twin.
_AT_ONCE = 3
# Numbers of windows that are remembered for what was carried on from them.
_MOST_NUMBERS = 128
# How long the thread may take to say farewell, s.
_END_S = 3.0
# The decoder forgets a session that is silent, which is no fault of anybody's.
_IDLE = ("serve-session-silent", "serve-session-forgotten")


@dataclass(slots=True, eq=False)
class _Request:
    """A window that has no clip yet; see `RemoteDecoder.ask`."""

    number: int
    window: Window
    steps: int | None
    detail: float | None
    null: bool
    chain: Sequence[str] | None
    keep: bool
    due_at: float
    give_up_at: float
    future: "Future[Decoded]"
    # When it went over the connection that is open now.
    sent_at: float | None = None
    with_states: bool = False
    frames: list[NDArray[np.uint8]] = field(default_factory=list)
    film: bytearray = field(default_factory=bytearray)
    # Ends the wait for it.
    timer: asyncio.TimerHandle | None = None

    def clear(self) -> None:
        """Forget the parts of its clip that have come."""
        self.frames.clear()
        self.film.clear()

    @property
    def is_urgent(self) -> bool:
        """Whether a decoder that works answers in time, if only that it has none: all but finals yield."""
        return self.window.revision == "final" and not self.null


class RemoteDecoder:
    """Decode the windows of one session elsewhere.

    Parameters
    ----------
    bundle : Bundle
        Its manifest is read, and no graph.
    addresses : sequence of DecoderAddress
        The first that answers with the right digest is used, and the next one when it is lost.
    token : str
        What the decoder has to be shown.
    carry : bool
        Whether a window carries on from the one before it, if the bundle can.
    tell_condition : bool
        Whether each decoded clip has its condition.
    tls : ssl.SSLContext, optional
        For encrypted addresses; by default the certificates that this machine trusts.
    hop_s : float, optional
        Time from one window of the session to the next, s; by default the bundle's. A twin or a refined
        window is given up after so long.
    patient_hops : float
        A window without a deadline is given up after so many hops without a clip.

    Attributes
    ----------
    steps, detail, numbers_of_steps, cost, runs_on, notes
        See `streaming.decode.decoder.SharedDecoder`.
    at_once : int
        Windows that may be asked for before the first of them has its clip.
    away_since : float or None
        Wall time since which no decoder answers, s; None while one does.
    moves, repeated : int
        How often the session went on over another connection, and how many windows were sent again for that.
    pixels : str
        ``raw`` where frames come as they were drawn, ``mp4`` where a clip comes as MP4.

    Raises
    ------
    BundleError
        If the decoder has another bundle.
    VersionError
        If the decoder speaks another version of the protocol.
    UsageError
        If the decoder does not take the token.
    RtDecodeError
        If no address answers, or no decoder takes the session.
    """

    def __init__(
        self,
        bundle: Bundle,
        addresses: Sequence[DecoderAddress],
        token: str,
        *,
        carry: bool = True,
        tell_condition: bool = False,
        tls: ssl.SSLContext | None = None,
        hop_s: float | None = None,
        patient_hops: float = 10,
    ) -> None:
        manifest = bundle.manifest
        self._bundle = bundle
        self._addresses = list(addresses)
        self._tells_condition = tell_condition
        self._shapes = Shapes.of(manifest)
        self._hop_s = float(manifest.grid.hop) if hop_s is None else hop_s
        self._patient_hops = patient_hops
        # A random name: it says nothing of the participant.
        self._name = secrets.token_hex(16)
        self._linker = Linker(bundle, token, self._name, tls)
        self._numbers = count()
        self._carry = Carry() if carry else None
        # Of the windows so far: what their clips may be carried on from by, and of which revision they are.
        self._number_of: dict[tuple[int, int, str, float], int] = {}
        self._revision_of: dict[int, str] = {}
        self._news: deque[str] = deque()
        self._away_at: float | None = None
        self.away_since: float | None = None
        self.at_once = _AT_ONCE
        # All of what follows is touched by the thread alone.
        self._requests: dict[int, _Request] = {}
        self._link: Link | None = None
        self._unsent: asyncio.Queue[bytes] = asyncio.Queue()
        self._wanted = asyncio.Event()
        # Clips that came as MP4 and are being read.
        self._unpacking: set[asyncio.Future[None]] = set()
        # Why no decoder will be asked any more.
        self._fault: Exception | None = None
        # How often the session went on over another connection, and windows that were sent again for that.
        self.moves = 0
        self.repeated = 0
        self._is_over = False
        self.steps = check_steps(bundle, None)
        self.detail = check_detail(bundle, None)
        self.numbers_of_steps = wiring.numbers_of_steps(manifest)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._spin, name="decoder elsewhere", daemon=True)
        self._thread.start()
        try:
            opening = asyncio.run_coroutine_threadsafe(self._connect_first(), self._loop)
            head = opening.result().welcome.head
        except BaseException:
            self._stop()
            raise
        asyncio.run_coroutine_threadsafe(self._run(), self._loop)
        self.runs_on: dict[str, str] = head["runs_on"]
        self.notes: list[str] = head["notes"]
        self.cost = Cost(*head["cost_s"])
        self.pixels = "mp4" if self._shapes.goes_as_film else "raw"

    def ask(
        self,
        window: Window,
        steps: int | None = None,
        *,
        detail: float | None = None,
        null: bool = False,
        chain: Sequence[str] | None = None,
        left_s: float = math.inf,
        keep: bool = True,
    ) -> "Future[Decoded]":
        """Send one window; see `streaming.decode.decoder.Decoder.decode` for what is sent.

        Parameters
        ----------
        keep : bool
            Whether later windows may carry on from it.

        Returns
        -------
        Future
            Gets the clip, or the error that `decode` raises.
        """
        now = monotonic()
        limit_s = left_s
        if null or window.revision == "refined":
            # Nothing waits for it, but it must not be waited for without an end.
            limit_s = self._hop_s
        elif math.isinf(left_s):
            limit_s = self._patient_hops * self._hop_s
        give_up_at = now + limit_s + _GRACE_HOPS * self._hop_s
        future: Future[Decoded] = Future()
        request = _Request(
            next(self._numbers),
            window,
            steps,
            detail,
            null,
            chain,
            keep and not null,
            now + left_s,
            give_up_at,
            future,
        )
        self._loop.call_soon_threadsafe(self._begin, request)
        return future

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
        """Decode one window, and wait for it; see `streaming.decode.decoder.Decoder.decode`.

        Raises
        ------
        GivenUpError
            If the decoder had no time for it, or no decoder answered in time.
        NonFiniteError
            If a graph returned values that are not finite.
        BundleError, VersionError, UsageError
            If the decoder that answers after a reconnection is not the right one.
        """
        return self.ask(window, steps, detail=detail, null=null, chain=chain, left_s=left_s).result()

    def start_afresh(self) -> None:
        """Let the next window carry on from none of those so far."""
        self._loop.call_soon_threadsafe(self._forget)

    def news(self) -> list[str]:
        """Return sentences on what has become of the decoder since the last call."""
        sentences: list[str] = []
        while self._news:
            sentences.append(self._news.popleft())
        return sentences

    def close(self) -> None:
        """Tell the decoder that the session has ended."""
        if not self._thread.is_alive():
            return
        ending = asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        # It forgets the session by itself if it does not hear of its end.
        with suppress(TimeoutError):
            ending.result(_END_S)
        self._stop()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_END_S)

    # From here on, everything runs in the thread.

    def _spin(self) -> None:
        """Run the loop until it is stopped, and leave nothing of it behind."""
        self._loop.run_forever()
        self._loop.run_until_complete(self._leave())
        self._loop.close()

    async def _leave(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for request in list(self._requests.values()):
            self._fail(request, _given_up("the session has ended"))
        # Connections that were broken off are closed in the loop's next round.
        await asyncio.sleep(0)

    async def _connect_first(self) -> Link:
        """Connect to the first address that answers; raise what the last one said if none does."""
        faults: list[str] = []
        for address in self._addresses:
            try:
                self._link = await self._linker.open(address, _CONNECT_S)
            except BROKEN as error:
                faults.append(f"{address.url}: {error or type(error).__name__}")
            else:
                return self._link
        raise RtDecodeError(
            "decoder-unreachable",
            "no decoder takes the session: {faults}. Start `rtdecode serve`, or correct --decoder.",
            faults=faults,
        )

    async def _run(self) -> None:
        """Keep a connection until the session ends, or the decoder is found to be the wrong one."""
        try:
            while not self._is_over:
                if self._link is None:
                    self._link = await self._reconnected()
                await self._follow(self._link)
        except Exception as error:  # noqa: BLE001
            # Whatever it is, whoever waits for a clip has to hear of it.
            self._fault = error
            for request in list(self._requests.values()):
                self._fail(request, error)

    async def _reconnected(self) -> Link:
        """Try one address after the other until a decoder takes the session."""
        pause_s = _FIRST_PAUSE_S
        # The one that was lost is asked last.
        self._addresses = [*self._addresses[1:], self._addresses[0]]
        while True:
            for address in list(self._addresses):
                try:
                    link = await self._linker.open(address, _CONNECT_S)
                except VersionError:
                    raise
                except (*BROKEN, ProtocolError):
                    continue
                self._addresses.remove(address)
                self._addresses.insert(0, address)
                self._is_back()
                return link
            self._lose("no decoder takes the session")
            await asyncio.sleep(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)

    async def _follow(self, link: Link) -> None:
        """Send what is asked for, and take the answers, until the connection breaks."""
        self._unsent = asyncio.Queue()
        for request in list(self._requests.values()):
            request.sent_at = None
            self._send(request)
        writer = asyncio.create_task(self._write(link))
        idle = False
        try:
            async for raw in link.connection:
                message = read(raw, FROM_DECODER, self._shapes)
                if message.head["kind"] == "closed":
                    idle = message.head["code"] in _IDLE
                    raise closing(message)
                self._take(message)
            # The decoder closed it, with a reason for the connection alone.
            self._lose("the connection was closed")
        except VersionError:
            raise
        except (*BROKEN, ProtocolError) as error:
            if not (idle and not self._requests):
                self._lose(str(error) if isinstance(error, RtDecodeError) else "the connection broke")
        finally:
            writer.cancel()
            link.connection.transport.abort()
            self._link = None
            for request in self._requests.values():
                # Whoever answers next may be another decoder.
                self.repeated += request.sent_at is not None
                request.with_states = request.with_states or request.sent_at is not None
                request.sent_at = None
                request.clear()
        if idle and not self._requests:
            self._wanted.clear()
            await self._wanted.wait()

    async def _write(self, link: Link) -> None:
        with suppress(*BROKEN):
            while True:
                await link.connection.send(await self._unsent.get())

    def _begin(self, request: _Request) -> None:
        """Take a window in, and send it if there is a decoder."""
        if self._fault is not None:
            request.future.set_exception(self._fault)
            return
        self._requests[request.number] = request
        self._revision_of[request.number] = request.window.revision
        while len(self._revision_of) > _MOST_NUMBERS:
            del self._revision_of[next(iter(self._revision_of))]
        wait_s = max(0.0, request.give_up_at - monotonic())
        request.timer = self._loop.call_later(wait_s, self._give_up, request)
        self._wanted.set()
        if self._link is None:
            return
        try:
            self._send(request)
        except ProtocolError as error:
            self._fail(request, error)

    def _send(self, request: _Request) -> None:
        """Send a window, unless its states are still to come from one that has no clip yet."""
        pending, last = self._before(request)
        if request.with_states and pending:
            return
        numbers = [earlier.number for earlier in pending]
        if last is not None:
            carried = self._number_of.get(_key(last))
            numbers += [] if carried is None else [carried]
        request.sent_at = monotonic()
        request.clear()
        message = pack_window(
            request.window,
            self._name,
            request.number,
            left_s=max(0.0, request.due_at - request.sent_at) if math.isfinite(request.due_at) else None,
            steps=request.steps,
            detail=request.detail,
            null=request.null,
            condition=self._tells_condition,
            carry_from=numbers,
        )
        if request.with_states and last is not None and numbers:
            states = np.frombuffer(to_bytes(last.states), np.uint8)
            message = Message(message.head, message.arrays | {"states": states})
        self._unsent.put_nowait(write(message))

    def _before(self, request: _Request) -> tuple[list[_Request], Carried | None]:
        """Return what a window may carry on from: those without a clip yet, and the best of the others."""
        pending: list[_Request] = []
        if request.null or self._carry is None:
            return pending, None
        window = request.window
        chain = CHAINS[window.revision] if request.chain is None else request.chain
        for revision in chain:
            pending += [
                earlier
                for earlier in reversed(self._requests.values())
                if _precedes(earlier, window, revision)
            ]
            last = self._carry.before(window, [revision])
            if last is not None:
                return pending, last
        return pending, None

    def _take(self, message: Message) -> None:
        """Take an answer; those on windows that were given up may still come."""
        head = message.head
        request = self._requests.get(head["number"])
        if request is None or request.sent_at is None:
            return
        match head["kind"]:
            case "first" | "rest":
                # A clip that was begun for a connection that broke may be drawn again for this one.
                if head["kind"] == "first":
                    request.frames.clear()
                request.frames.append(message.arrays["frames"])  # type: ignore[arg-type]
            case "film":
                request.film += message.arrays["film"].tobytes()
                if len(request.film) > MOST_FILM_BYTES:
                    self._fail(request, _given_up("its film takes more than a clip may have"))
            case "unknown":
                # A decoder that took the session over, or one that was started again.
                request.with_states = True
                request.sent_at = None
                self._send(request)
            case "done":
                self._take_clip(request, message)
            case "failed":
                error = NonFiniteError("window-output-not-finite", "{message}", message=head["message"])
                self._fail(request, error)
            case "skipped" | "refused":
                self._fail(request, _given_up(head["why" if head["kind"] == "skipped" else "message"]))

    def _take_clip(self, request: _Request, message: Message) -> None:
        received_at = monotonic()
        if self._shapes.goes_as_film:
            task = asyncio.ensure_future(self._take_film(request, message, received_at))
            self._unpacking.add(task)
            task.add_done_callback(self._unpacking.discard)
            return
        if sum(len(frames) for frames in request.frames) != self._shapes.clip[0]:
            # Some went to a connection that broke.
            self._send(request)
            return
        self._take_whole(request, message, received_at, np.concatenate(request.frames))

    async def _take_film(self, request: _Request, message: Message, received_at: float) -> None:
        """Read the frames of a clip that came as MP4, without keeping the connection waiting."""
        film = bytes(request.film)
        if not film:
            # It went to a connection that broke.
            self._send(request)
            return
        try:
            frames = await self._loop.run_in_executor(None, from_mp4, film)
        except (ValueError, OSError) as error:
            self._fail(request, _given_up(f"its film cannot be read ({error})"))
            return
        if frames.shape != self._shapes.clip:
            self._fail(
                request, _given_up(f"its film has the shape {frames.shape}, and not {self._shapes.clip}")
            )
        elif request.number in self._requests:
            self._take_whole(request, message, received_at, frames, film)

    def _take_whole(
        self,
        request: _Request,
        message: Message,
        received_at: float,
        frames: NDArray[np.uint8],
        film: bytes | None = None,
    ) -> None:
        self._keep(request, message)
        decoded = self._decoded(request, message, received_at, frames, film)
        self._end_one(request)
        # It may have been given up by whoever asked.
        with suppress(InvalidStateError):
            request.future.set_result(decoded)

    def _decoded(
        self,
        request: _Request,
        message: Message,
        received_at: float,
        frames: NDArray[np.uint8],
        film: bytes | None,
    ) -> Decoded:
        head = message.head
        *times, replied = head["times_s"]
        # The decoder's times are durations from when the window came, which was so long ago.
        came_at = received_at - replied
        started_at, encoded_at, denoised_at, first_at, last_at = (came_at + elapsed for elapsed in times)
        if head["note"] is not None:
            self._news.append(
                f"window {request.window.index} started afresh at the decoder elsewhere: {head['note']}"
            )
        presence = None if head["presence"] is None else Presence(*head["presence"])
        clip = Clip(
            frames,
            message.arrays["latent"],  # type: ignore[arg-type]
            head["scores"],
            head["steps"],
            head["confidence"],
            presence,
            head["brain_by"],
            head["detail"],
            head["recorded"],
        )
        sent_at = received_at if request.sent_at is None else request.sent_at
        return Decoded(
            clip,
            started_at,
            encoded_at,
            denoised_at,
            first_at,
            last_at,
            head["denoising_s"],
            message.arrays.get("condition"),  # type: ignore[arg-type]
            [(stage, seconds) for stage, seconds in head["calls"]],
            self._revision_of.get(head["carried_from"]),
            max(0.0, received_at - sent_at - replied),
            film=film,
        )

    def _keep(self, request: _Request, message: Message) -> None:
        """Store what the window leaves to those that follow it."""
        if not request.keep or self._carry is None or "states" not in message.arrays:
            return
        try:
            states = from_bytes(message.arrays["states"].tobytes(), self._bundle.manifest)
        except StatesError as error:
            self._news.append(f"window {request.window.index} leaves nothing to the next one: {error}")
            return
        carried = self._carry.put(request.window, states)
        if carried is not None:
            self._number_of[_key(carried)] = request.number
        while len(self._number_of) > _MOST_NUMBERS:
            del self._number_of[next(iter(self._number_of))]

    def _forget(self) -> None:
        if self._carry is not None:
            self._carry = Carry()
        for request in self._requests.values():
            request.keep = False

    def _fail(self, request: _Request, error: Exception) -> None:
        self._end_one(request)
        with suppress(InvalidStateError):
            request.future.set_exception(error)

    def _end_one(self, request: _Request) -> None:
        """Wait no longer for a window; send those that waited for its states."""
        self._requests.pop(request.number, None)
        if request.timer is not None:
            request.timer.cancel()
        if self._link is None:
            return
        for other in list(self._requests.values()):
            if other.sent_at is None:
                self._send(other)

    def _give_up(self, request: _Request) -> None:
        """Wait no longer for a window whose time is over."""
        if request.sent_at is None:
            self._fail(request, _given_up("no decoder elsewhere could be reached in time"))
            return
        self._fail(request, _given_up("the decoder elsewhere did not answer in time"))
        cancel = {"kind": "cancel", "session": self._name, "number": request.number}
        self._unsent.put_nowait(write(Message(cancel, {})))
        # One that has no time for a window says so: it stands still, and another connection may do better.
        if request.is_urgent and self._link is not None:
            self._lose("it did not answer in time")
            self._link.connection.transport.abort()

    def _lose(self, why: str) -> None:
        if self._away_at is None and not self._is_over:
            self._away_at = monotonic()
            self.away_since = time.time()
            clock = time.strftime("%H:%M:%S", time.localtime(self.away_since))
            self._news.append(f"the decoder elsewhere has been away since {clock} ({why or 'it is gone'})")

    def _is_back(self) -> None:
        if self._away_at is not None:
            away_s = monotonic() - self._away_at
            self._away_at = self.away_since = None
            self.moves += 1
            self._news.append(f"a decoder elsewhere answers again, after {away_s:.1f} s")

    async def _end(self) -> None:
        self._is_over = True
        if self._link is None:
            return
        connection = self._link.connection
        with suppress(*BROKEN):
            await connection.send(write(Message({"kind": "bye", "session": self._name}, {})))
            await connection.close()


def _given_up(why: str) -> GivenUpError:
    return GivenUpError("window-given-up", "{why}", why=why)


def _key(carried: Carried) -> tuple[int, int, str, float]:
    return carried.run, carried.index, carried.revision, carried.windowed_at


def _precedes(request: _Request, window: Window, revision: str) -> bool:
    """Whether a window that has no clip yet is one that another may carry on from; see `Carry.before`."""
    other = request.window
    windowed_at, before_at = (cut.stamps.get("windowed", 0.0) for cut in (window, other))
    same = (other.run, other.index, other.revision) == (window.run, window.index - 1, revision)
    return request.keep and same and before_at <= windowed_at


def tls_context(ca: Path | None) -> ssl.SSLContext:
    """Return what verifies decoders' certificates, by a site's own authority if one is given.

    Raises
    ------
    UsageError
        If the file holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=ca)
    except ssl.SSLError as error:
        raise UsageError(
            "decoder-ca-unreadable",
            "--ca {path} holds no certificate in PEM ({error}).",
            path=ca,
            error=error.reason or error,
        ) from error
