"""`rtdecode serve`: one decoder that sessions on other machines share.

An event loop holds the connections and the scheduler, and one worker thread runs the graphs. A session keeps
its own states, and every reply holds those for the next window: a session may lose this decoder at any time
and go on with another. What is held here of a session is a cache of the states of its newest windows, by
their numbers.

Nothing of a participant is written to disk or printed.
"""

import asyncio
import hmac
import math
import ssl
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from time import monotonic
from typing import Any, Protocol

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response
from websockets.protocol import State

from rtdecode import __version__
from rtdecode.bundle.graph import Value
from rtdecode.bundle.session import StatesError, from_bytes, to_bytes
from rtdecode.disk.video import to_mp4
from rtdecode.errors import RtDecodeError
from rtdecode.types import Array, Window
from streaming.decode.deadline import Cost
from streaming.decode.decoder import Decoded, Decoding, NonFiniteError, SharedDecoder
from streaming.decode.scheduler import (
    MOST_UNDER_WAY,
    SILENT_HOPS,
    GivenUp,
    Request,
    Scheduler,
    Turn,
)
from streaming.message import Message
from streaming.serve.protocol import (
    FILM_BYTES,
    FROM_SESSION,
    MOST_BYTES,
    ProtocolError,
    Shapes,
    read,
    unpack_window,
    write,
)

# States of so many windows of a session are held.
_MOST_STATES = 16
# Numbers of windows that have ended without a clip, of a session.
_MOST_ENDED = 64
# Frames of a message take at most so many bytes.
_FRAME_BYTES = 4_000_000
# How often silent sessions are looked for, s.
_SWEEP_S = 1.0
# After SIGTERM, windows that wait are decoded for at most so long, s.
_LAST_S = 8.0
# Messages that a session has not read yet; then it is cut off.
_MOST_UNREAD = 32
# Messages that a connection has sent and that were not looked at yet: each may have 16 MB.
_MOST_UNHANDLED = 2
# What is read of a connection before it has shown the token, bytes.
_MOST_GREETING_BYTES = 8192
# Codes of WebSocket from 4000 on are for applications.
_CLOSED = 4000


class Connection(Protocol):
    """What is needed of a WebSocket, whoever listens on it; see `websockets.asyncio.server`."""

    @property
    def close_code(self) -> int | None:
        """The code with which it was closed; 1000 where the other side has ended."""
        ...

    async def recv(self) -> bytes | str:
        """Return the next message; raise `ConnectionClosed` once it is closed."""
        ...

    async def send(self, message: bytes) -> None:
        """Send a message; raise `ConnectionClosed` if it is closed."""
        ...

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close it in order."""
        ...

    def abort(self) -> None:
        """Break it off."""
        ...


@dataclass(slots=True)
class _Pending:
    """A window that came: what is decoded, what it carries on from, and when it came."""

    window: Window
    carry_from: list[int]
    detail: float | None
    condition: bool
    came_at: float
    note: str | None = None


@dataclass(slots=True)
class _Link:
    """The connection of a session, what is still to be sent over it, and how many messages it may send."""

    connection: Connection
    unsent: "asyncio.Queue[bytes]" = field(default_factory=lambda: asyncio.Queue(_MOST_UNREAD))
    # Messages that may come at once, and when that was so; before the first one, as many as in two hops.
    allowed: float = math.inf
    allowed_at: float = field(default_factory=monotonic)

    def count(self, hop_s: float, messages_a_hop: int) -> None:
        """Count a message.

        Raises
        ------
        RtDecodeError
            If too many have come.
        """
        now = monotonic()
        refilled = self.allowed + (now - self.allowed_at) / hop_s * messages_a_hop
        # As many as in two hops may come at once: a session that lost its connection sends windows again.
        self.allowed = min(2.0 * messages_a_hop, refilled) - 1
        self.allowed_at = now
        if self.allowed < 0:
            raise RtDecodeError(
                "serve-too-many-messages",
                "the session sent more than {n_messages} messages in {hop_s:g} s.",
                n_messages=messages_a_hop,
                hop_s=hop_s,
            )


class _GuardedConnection(ServerConnection):
    """A connection of which little is read before it has shown the token."""

    _greeting_bytes = 0

    def abort(self) -> None:
        """Break it off."""
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.protocol.state is State.CONNECTING:
            self._greeting_bytes += len(data)
            if self._greeting_bytes > _MOST_GREETING_BYTES:
                self.transport.abort()
                return
        super().data_received(data)


@dataclass(slots=True)
class _Remote:
    """A session: its connection, the windows that wait, and the states of its newest windows by number."""

    link: _Link | None = None
    pending: dict[int, _Pending] = field(default_factory=dict)
    states: dict[int, Mapping[str, Value]] = field(default_factory=dict)
    # Windows that have ended and left no states.
    ended: dict[int, None] = field(default_factory=dict)

    def end(self, number: int, states: Mapping[str, Value] | None) -> None:
        """Remember what a window has left, and forget what is old."""
        if states:
            self.states[number] = states
        else:
            self.ended[number] = None
        while len(self.states) > _MOST_STATES:
            del self.states[next(iter(self.states))]
        while len(self.ended) > _MOST_ENDED:
            del self.ended[next(iter(self.ended))]

    def knows(self, number: int) -> bool:
        """Whether the states of a window are held, will be, or never will."""
        return number in self.states or number in self.pending or number in self.ended


class DecoderServer:
    """Serve a decoder to sessions that come over WebSockets.

    Parameters
    ----------
    shared : SharedDecoder
        What decodes the windows of all sessions.
    scheduler : Scheduler
        Chooses which window is decoded next.
    token : str
        What every connection has to show.
    tls : ssl.SSLContext, optional
        By default connections are not encrypted.
    hop_s : float, optional
        Time from one window of a session to the next, s; by default the bundle's.
    greeting_s : float
        A connection that has not said who it is after so long is closed, s.
    messages_a_hop : int
        A session that sends more messages in a hop is cut off. A bundle needs a final, a preview, a refined
        window and a twin, and each of them once more where its states were not held; two may come besides.
    """

    def __init__(
        self,
        shared: SharedDecoder,
        scheduler: Scheduler,
        token: str,
        tls: ssl.SSLContext | None = None,
        hop_s: float | None = None,
        *,
        greeting_s: float = 5.0,
        messages_a_hop: int = 10,
    ) -> None:
        self._shared = shared
        self._scheduler = scheduler
        self._token = token
        self._tls = tls
        self._manifest = shared.bundle.manifest
        self._shapes = Shapes.of(self._manifest)
        self._hop_s = float(self._manifest.grid.hop) if hop_s is None else hop_s
        self._greeting_s = greeting_s
        self._messages_a_hop = messages_a_hop
        self._sessions: dict[str, _Remote] = {}
        self._thread = ThreadPoolExecutor(1, "graphs")
        # Large clips are compressed here, while the next window is decoded; at most one waits for that.
        self._films = ThreadPoolExecutor(1, "films")
        self._film_room = asyncio.Semaphore(2)
        self._filming: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._ending = asyncio.Event()
        self._busy = False
        self._tasks: list[asyncio.Task[None]] = []
        # When the window that is being decoded is so late that something has to be wrong.
        self._late_at: float | None = None

    async def run(self, host: str, port: int, listening: "asyncio.Future[tuple[str, int]]") -> None:
        """Serve until `end` is called.

        Parameters
        ----------
        host : str
            Name or IP address to listen on.
        port : int
            0 takes any free one.
        listening : Future
            Gets the address once connections are taken.

        Raises
        ------
        OSError
            If the address cannot be served.
        """
        server = await serve(
            self._accepted,
            host,
            port,
            ssl=self._tls,
            process_request=self._admit,
            # Clips do not get smaller, and trying takes 150 ms for each.
            compression=None,
            max_size=MOST_BYTES,
            max_queue=_MOST_UNHANDLED,
            create_connection=_GuardedConnection,
            open_timeout=self._greeting_s,
        )
        listening.set_result(server.sockets[0].getsockname()[:2])
        worker = self.start()
        ending = asyncio.create_task(self._ending.wait())
        try:
            # A fault of the worker ends the server, which would otherwise take windows and never answer.
            await asyncio.wait([worker, ending], return_when=asyncio.FIRST_COMPLETED)
            if worker.done():
                worker.result()
            await self._finish(server, worker)
        finally:
            for task in (*self._tasks, ending):
                task.cancel()
            server.close()
            # Connections that have not said who they are may take their time.
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await server.wait_closed()
            self._thread.shutdown()
            self._films.shutdown()

    def start(self) -> "asyncio.Task[None]":
        """Begin to decode what comes over connections that are handed to `connected`; return what decodes."""
        self._loop = asyncio.get_running_loop()
        worker = asyncio.create_task(self._work())
        self._tasks = [worker, asyncio.create_task(self._sweep())]
        return worker

    def fault(self) -> str | None:
        """Say why this decoder does not answer any more; None while it is well."""
        if self._tasks and self._tasks[0].done():
            return "the worker has ended"
        if self._late_at is not None and monotonic() > self._late_at:
            return "a window has been decoded for more than a hop after its time was over"
        return None

    def end(self) -> None:
        """Take no more sessions, decode what waits and has a deadline, and stop."""
        self._ending.set()

    async def _finish(self, server: Server, worker: "asyncio.Task[None]") -> None:
        server.close(close_connections=False)
        last_at = monotonic() + _LAST_S
        while (self._scheduler.urgent or self._busy or self._filming) and not worker.done():
            if monotonic() > last_at:
                break
            await asyncio.sleep(0.02)
        for name, remote in list(self._sessions.items()):
            if remote.link is not None:
                await self._drain(remote.link)
                reason = RtDecodeError("serve-ending", "the decoder ends. Another one may take the session.")
                await self._close(remote.link.connection, reason, 1001)
            self._forget(name)

    async def _drain(self, link: _Link) -> None:
        """Let what is to be sent go out, for a second at most."""
        try:
            async with asyncio.timeout(1.0):
                await link.unsent.join()
        except TimeoutError:
            return

    def _admit(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        """Refuse a connection without the token before anything else is read of it."""
        header = request.headers.get("Authorization", "")
        expected = f"Bearer {self._token}"
        if not hmac.compare_digest(header.encode(errors="replace"), expected.encode()):
            return connection.respond(HTTPStatus.UNAUTHORIZED, "The token is missing or wrong.\n")
        if request.path == "/metrics":
            return connection.respond(HTTPStatus.OK, self.metrics())
        if self._ending.is_set():
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "The decoder ends.\n")
        return None

    def metrics(self) -> str:
        """Count what became of windows, over all sessions that are in."""
        scheduler = self._scheduler
        lines = [
            f"rtdecode_sessions {len(scheduler.sessions)}",
            f"rtdecode_sessions_capacity {scheduler.capacity}",
            f"rtdecode_windows_waiting {len(scheduler)}",
        ]
        counts = [scheduler.counts(name) for name in scheduler.sessions]
        for what in ("sent", "decoded", "skipped", "refused"):
            for kind in ("final", "preview", "refined", "twin"):
                total = sum(getattr(session_counts, what)[kind] for session_counts in counts)
                lines.append(f'rtdecode_windows_{what}{{kind="{kind}"}} {total}')
        lines.append(f"rtdecode_clips_late {sum(session_counts.late for session_counts in counts)}")
        return "\n".join(lines) + "\n"

    async def _accepted(self, connection: ServerConnection) -> None:
        assert isinstance(connection, _GuardedConnection), "it was made by `create_connection`"
        await self.connected(connection)

    async def connected(self, connection: Connection) -> None:
        """Take the messages of one connection until it is closed."""
        name: str | None = None
        link = _Link(connection)
        writer: asyncio.Task[None] | None = None
        try:
            name = await self._greet(connection, link)
            writer = asyncio.create_task(self._write(link))
            while self._receive(name, link, await connection.recv()):
                pass
            await connection.close()
        except ConnectionClosed:
            pass
        except TimeoutError:
            await connection.close(_CLOSED, f"no greeting came within {self._greeting_s:g} s")
        except RtDecodeError as error:
            await self._close(connection, error)
        finally:
            if writer is not None:
                writer.cancel()
            if name is not None:
                self._disconnected(name, link)

    async def _greet(self, connection: Connection, link: _Link) -> str:
        """Read who connects, let the session in, and answer; return the session's name."""
        async with asyncio.timeout(self._greeting_s):
            raw = await connection.recv()
        head = read(raw, {"hello": FROM_SESSION["hello"]}).head
        name: str = head["session"]
        self._scheduler.open(name, monotonic())
        remote = self._sessions.setdefault(name, _Remote())
        if remote.link is not None:
            reason = RtDecodeError(
                "serve-session-taken-over",
                "another connection of this session took over; this one is closed.",
            )
            await self._close(remote.link.connection, reason)
        remote.link = link
        cost = self._shared.cost
        welcome = {
            "kind": "welcome",
            "release": __version__,
            "bundle": self._manifest.name,
            "digest": self._shared.bundle.digest,
            "runs_on": self._shared.runs_on,
            "notes": self._shared.notes,
            "cost_s": [cost.encode_s, cost.step_s, cost.decode_s],
        }
        await connection.send(write(Message(welcome, {})))
        return name

    def _disconnected(self, name: str, link: _Link) -> None:
        remote = self._sessions.get(name)
        if remote is None or remote.link is not link:
            return
        remote.link = None
        # A session that closes its connection has ended. One that was cut off may come back.
        if link.connection.close_code == 1000:
            self._forget(name)

    def _forget(self, name: str) -> None:
        self._scheduler.close(name)
        self._sessions.pop(name, None)

    async def _close(self, connection: Connection, error: RtDecodeError, code: int = _CLOSED) -> None:
        """Say why a connection is closed, and close it."""
        reason = {
            "kind": "closed",
            "release": __version__,
            "code": error.code,
            "message": str(error),
            "exit_code": error.exit_code,
        }
        try:
            async with asyncio.timeout(1.0):
                await connection.send(write(Message(reason, {})))
                # The reason of WebSocket has room for 123 bytes.
                await connection.close(code, error.code)
        except (ConnectionClosed, TimeoutError):
            connection.abort()

    async def _write(self, link: _Link) -> None:
        """Send what the worker has for a session; cut off one that does not read for a hop."""
        while True:
            raw = await link.unsent.get()
            try:
                async with asyncio.timeout(self._hop_s):
                    await link.connection.send(raw)
            except TimeoutError:
                link.connection.abort()
                return
            except ConnectionClosed:
                return
            finally:
                link.unsent.task_done()

    def _receive(self, name: str, link: _Link, raw: bytes | str) -> bool:
        """Take one message; return whether more are to come.

        Raises
        ------
        RtDecodeError
            If the connection is to be closed for it.
        """
        remote = self._sessions.get(name)
        if remote is None or remote.link is not link:
            raise RtDecodeError(
                "serve-session-forgotten",
                "the session was silent for {n_hops} hops and was forgotten. It may connect again.",
                n_hops=SILENT_HOPS,
            )
        link.count(self._hop_s, self._messages_a_hop)
        message = read(raw, FROM_SESSION, self._shapes)
        if message.head["kind"] == "hello" or message.head["session"] != name:
            raise ProtocolError(
                "serve-message-unexpected",
                "a '{kind}' of session {session} came on the connection of session {expected}.",
                kind=message.head["kind"],
                session=message.head["session"],
                expected=name,
            )
        if message.head["kind"] == "bye":
            self._forget(name)
            return False
        if message.head["kind"] == "cancel":
            self._cancel(name, remote, message.head["number"])
            return True
        self._take(name, remote, message)
        return True

    def _cancel(self, name: str, remote: _Remote, number: int) -> None:
        """Decode a window no more; one that is begun is finished, and its clip goes to nobody."""
        if self._scheduler.drop(name, number):
            del remote.pending[number]
            remote.end(number, None)

    def _take(self, name: str, remote: _Remote, message: Message) -> None:
        """Let a window wait for the decoder, or say why it does not."""
        now = monotonic()
        head = message.head
        number: int = head["number"]
        if number in remote.pending:
            return
        if self._scheduler.under_way(name) >= MOST_UNDER_WAY:
            raise RtDecodeError(
                "serve-too-many-windows",
                "{n_windows} windows of the session are under way, and no more are taken. Wait for their "
                "replies.",
                n_windows=MOST_UNDER_WAY,
            )
        pending = _Pending(
            unpack_window(message, self._manifest),
            list(head["carry_from"]),
            head["detail"],
            head["condition"],
            now,
        )
        try:
            steps = self._shared.engine.steps(head["steps"])
            self._shared.engine.detail(head["detail"])
            self._restore(remote, pending, message)
            unknown = [source for source in pending.carry_from if not remote.knows(source)]
            if unknown:
                self._send(remote, Message({"kind": "unknown", "number": number}, {}))
                return
            left_s = head["left_s"]
            # No window is worth more time than a session may be silent.
            deadline = np.inf if left_s is None else now + min(left_s, SILENT_HOPS * self._hop_s)
            window = pending.window
            request = Request(
                name, number, window.run, window.index, window.revision, deadline, steps, head["null"]
            )
            self._scheduler.put(request, now)
        except RtDecodeError as error:
            self._send(remote, Message({"kind": "refused", "number": number, "message": str(error)}, {}))
            return
        remote.pending[number] = pending
        self._wake.set()

    def _restore(self, remote: _Remote, pending: _Pending, message: Message) -> None:
        """Hold the states that came with a window; without valid ones it starts afresh."""
        if "states" not in message.arrays or not pending.carry_from:
            return
        try:
            states = from_bytes(message.arrays["states"].tobytes(), self._manifest)
        except StatesError as error:
            pending.carry_from = []
            pending.note = str(error)
        else:
            remote.end(pending.carry_from[0], states)

    async def _work(self) -> None:
        """Decode one window after another."""
        while True:
            turn, given_up = self._scheduler.take(monotonic())
            for lost in given_up:
                self._give_up(lost)
            if turn is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            self._busy = True
            now = monotonic()
            patient_s = SILENT_HOPS * self._hop_s
            due_at = turn.request.deadline if turn.request.has_deadline else now + patient_s
            self._late_at = max(now, due_at) + self._hop_s
            try:
                await self._decode(turn)
            finally:
                self._busy = False
                self._late_at = None

    def _give_up(self, lost: GivenUp) -> None:
        remote = self._sessions[lost.request.session]
        del remote.pending[lost.request.number]
        remote.end(lost.request.number, None)
        self._send(remote, Message({"kind": "skipped", "number": lost.request.number, "why": lost.why}, {}))

    async def _decode(self, turn: Turn) -> None:
        request = turn.request
        remote = self._sessions[request.session]
        pending = remote.pending[request.number]
        source = next((number for number in pending.carry_from if number in remote.states), None)
        states = None if source is None or request.null else remote.states[source]
        decoding = self._shared.begin(
            pending.window,
            turn.steps or None,
            states,
            detail=pending.detail,
            null=request.null,
            tell_condition=pending.condition,
        )
        carried_from = None if states is None else source
        cost: Cost | None = None
        states_left: Mapping[str, Value] | None = None
        try:
            decoded, states_left = await self._loop.run_in_executor(
                self._thread, self._draw, remote, request, pending, decoding, carried_from
            )
            cost = _cost(decoded)
            if self._shapes.goes_as_film:
                await self._film_room.acquire()
                film = self._send_film(remote, request.number, pending, decoded, states_left, carried_from)
                task = asyncio.create_task(film)
                self._filming.add(task)
                task.add_done_callback(self._filming.discard)
        except NonFiniteError as error:
            failed = {"kind": "failed", "number": request.number, "message": str(error)}
            self._send(remote, Message(failed, {}))
        remote.pending.pop(request.number, None)
        if not request.null:
            remote.end(request.number, states_left)
        self._scheduler.done(request, monotonic(), cost, turn.steps)

    def _draw(
        self,
        remote: _Remote,
        request: Request,
        pending: _Pending,
        decoding: Decoding,
        carried_from: int | None,
    ) -> tuple[Decoded, Mapping[str, Value] | None]:
        """Decode a window in the worker thread, and send its parts as they are there, unless as a film."""
        number = request.number
        turns = iter(decoding)
        first = next(turns)
        if self._shapes.goes_as_film:
            decoded = decoding.finish()
            return decoded, None if request.null else decoding.carried()
        self._post(remote, Message({"kind": "first", "number": number}, {"frames": first}))
        remaining = list(turns)
        decoded = decoding.finish()
        for frames in _in_parts(remaining):
            self._post(remote, Message({"kind": "rest", "number": number}, {"frames": frames}))
        states_left = None if request.null else decoding.carried()
        self._post(remote, _done(number, pending, decoded, states_left, carried_from))
        return decoded, states_left

    async def _send_film(
        self,
        remote: _Remote,
        number: int,
        pending: _Pending,
        decoded: Decoded,
        states_left: Mapping[str, Value] | None,
        carried_from: int | None,
    ) -> None:
        """Send a clip as MP4, and what ends its window."""
        try:
            fps = self._manifest.clip.fps
            raw = await self._loop.run_in_executor(self._films, to_mp4, decoded.clip.frames, fps)
            film = np.frombuffer(raw, np.uint8)
            for start in range(0, len(film), FILM_BYTES):
                part: dict[str, Array] = {"film": film[start : start + FILM_BYTES]}
                self._send(remote, Message({"kind": "film", "number": number}, part))
            self._send(remote, _done(number, pending, decoded, states_left, carried_from))
        finally:
            self._film_room.release()

    def _post(self, remote: _Remote, message: Message) -> None:
        """Send a message from the worker thread, which also writes it."""
        self._loop.call_soon_threadsafe(self._send_raw, remote, write(message))

    def _send(self, remote: _Remote, message: Message) -> None:
        self._send_raw(remote, write(message))

    def _send_raw(self, remote: _Remote, raw: bytes) -> None:
        link = remote.link
        if link is None:
            return
        try:
            link.unsent.put_nowait(raw)
        except asyncio.QueueFull:
            link.connection.abort()

    async def _sweep(self) -> None:
        """Forget sessions that have been silent for long."""
        while True:
            await asyncio.sleep(min(self._hop_s, _SWEEP_S))
            for name in self._scheduler.silent(monotonic()):
                remote = self._sessions.get(name)
                self._forget(name)
                if remote is not None and remote.link is not None:
                    reason = RtDecodeError(
                        "serve-session-silent",
                        "the session was silent for {n_hops} hops and is forgotten.",
                        n_hops=SILENT_HOPS,
                    )
                    await self._close(remote.link.connection, reason)


def _cost(decoded: Decoded) -> Cost:
    encode_s = decoded.encoded_at - decoded.started_at
    step_s = decoded.denoising_s / max(1, decoded.clip.steps)
    decode_s = decoded.last_frame_at - decoded.encoded_at - decoded.denoising_s
    return Cost(encode_s, step_s, decode_s)


def _in_parts(turns: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Join frames of turns into arrays of at most 4 MB, or of a single frame."""
    if not turns:
        return []
    frames = np.concatenate(turns)
    count = max(1, _FRAME_BYTES // frames[0].nbytes)
    return [frames[start : start + count] for start in range(0, len(frames), count)]


def _done(
    number: int,
    pending: _Pending,
    decoded: Decoded,
    states_left: Mapping[str, Value] | None,
    carried_from: int | None,
) -> Message:
    clip = decoded.clip
    presence = clip.presence
    head: dict[str, Any] = {
        "kind": "done",
        "number": number,
        "steps": clip.steps,
        "detail": clip.detail,
        "carried_from": carried_from,
        "confidence": clip.confidence,
        "presence": None if presence is None else [presence.brain, presence.inconsistent, presence.neither],
        "brain_by": clip.brain_by,
        "scores": clip.scores,
        "recorded": clip.recorded,
        "calls": decoded.calls,
        "times_s": [
            instant - pending.came_at
            for instant in (
                decoded.started_at,
                decoded.encoded_at,
                decoded.denoised_at,
                decoded.first_frame_at,
                decoded.last_frame_at,
                monotonic(),
            )
        ],
        "denoising_s": decoded.denoising_s,
        "note": pending.note,
    }
    arrays: dict[str, Any] = {"latent": clip.latent}
    if decoded.condition is not None:
        arrays["condition"] = decoded.condition
    if states_left:
        arrays["states"] = np.frombuffer(to_bytes(states_left), np.uint8)
    return Message(head, arrays)
