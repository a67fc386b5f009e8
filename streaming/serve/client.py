"""A decoder elsewhere, with the interface of one that runs here (`streaming.decode.decoder.Decoder`).

The session keeps what its windows carry on from. Each window names the one that it carries on from, and goes
with its states to a decoder that does not hold them. So any decoder can take any window: when a connection
breaks, the next address is tried and the window is sent again, and the clip is the same to the bit.
"""

import math
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import monotonic

import numpy as np
from numpy.typing import NDArray
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from rtdecode import __version__
from rtdecode.bundle import Bundle, wiring
from rtdecode.bundle.session import Carried, Carry, StatesError, from_bytes, to_bytes
from rtdecode.errors import BundleError, RtDecodeError, UsageError
from rtdecode.types import Clip, Presence, Window
from streaming.decode.deadline import Cost
from streaming.decode.decoder import Decoded, GivenUpError, NonFiniteError, check_detail, check_steps
from streaming.serve.address import DecoderAddress
from streaming.serve.protocol import (
    FROM_DECODER,
    MOST_BYTES,
    ProtocolError,
    Shapes,
    VersionError,
    pack_window,
    read,
    write,
)
from streaming.session.mailbox import Message

# Between attempts to connect, s; each is twice the one before.
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
# What connecting to one address, and its answer, may take, s.
_CONNECT_S = 5.0
# A window without a deadline is given up after so many hops without a decoder.
_PATIENT_HOPS = 10
# A reply that is due is waited for by this share of a hop longer: the decoder is told only the time to it.
_GRACE_HOPS = 0.25
# Numbers of windows that are remembered for their states.
_MOST_NUMBERS = 128
_HTTP_UNAUTHORIZED = 401


class ClosedError(RtDecodeError):
    """The decoder closed the connection, and said why."""

    reason = "the decoder elsewhere closed the connection"


@dataclass(slots=True)
class _Link:
    """An open connection, and what the decoder said of itself."""

    connection: ClientConnection
    welcome: Message
    closing: ExitStack


class RemoteDecoder:
    """Decode the windows of one session elsewhere, one at a time.

    Parameters
    ----------
    bundle : Bundle
        Its manifest is read, and no graph.
    addresses : sequence of DecoderAddress
        The first that answers with the right digest is used, and the next one when it is lost.
    token : str
    now : callable
        Reads the local clock.
    carry : bool
        Whether a window carries on from the one before it, if the bundle can.
    tell_condition : bool
        Whether each decoded clip has its condition.
    tls : ssl.SSLContext, optional
        For encrypted addresses; by default the certificates that this machine trusts.

    Attributes
    ----------
    steps, detail, numbers_of_steps, cost, runs_on, notes
        See `streaming.decode.decoder.SharedDecoder`.

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
        now: Callable[[], float] = monotonic,
        *,
        carry: bool = True,
        tell_condition: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        manifest = bundle.manifest
        self._bundle = bundle
        self._addresses = list(addresses)
        self._token = token
        self._now = now
        self._tells_condition = tell_condition
        self._tls = tls
        self._shapes = Shapes.of(manifest)
        self._hop_s = float(manifest.grid.hop)
        # A random name: it says nothing of the participant.
        self._name = secrets.token_hex(16)
        self._numbers = count()
        self._carry = Carry() if carry else None
        # Numbers of the windows whose states the session has.
        self._number_of: dict[tuple[int, int, str, float], int] = {}
        self._news: list[str] = []
        self._away_since: float | None = None
        self._link: _Link | None = None
        self.steps = check_steps(bundle, None)
        self.detail = check_detail(bundle, None)
        self.numbers_of_steps = wiring.numbers_of_steps(manifest)
        self._link = self._connect_first()
        head = self._link.welcome.head
        self.runs_on: dict[str, str] = head["runs_on"]
        self.notes: list[str] = head["notes"]
        self.cost = Cost(*head["cost_s"])

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
        """Decode one window; see `streaming.decode.decoder.Decoder.decode`.

        Raises
        ------
        GivenUpError
            If the decoder had no time for it, or no decoder answered in time.
        NonFiniteError
            If a graph returned values that are not finite.
        BundleError, VersionError, UsageError
            If the decoder that answers after a reconnection is not the right one.
        """
        number = next(self._numbers)
        last = None if null or self._carry is None else self._carry.before(window, chain)
        due_at = self._now() + left_s
        limit_s = left_s
        if null or window.revision == "refined":
            # Nothing waits for it, but the session waits while it is decoded.
            limit_s = self._hop_s
        elif math.isinf(left_s):
            limit_s = _PATIENT_HOPS * self._hop_s
        give_up_at = self._now() + limit_s + _GRACE_HOPS * self._hop_s
        with_states = False
        while True:
            link = self._linked(give_up_at)
            sent_at = self._now()
            remaining_s = max(0.0, due_at - sent_at) if math.isfinite(due_at) else None
            message = self._message(
                window, number, last, remaining_s, steps, detail, null, with_states=with_states
            )
            try:
                link.connection.send(write(message))
                end = self._end_of(link, number, give_up_at)
            except TimeoutError:
                self._lose("it did not answer in time")
                raise self._given_up("the decoder elsewhere did not answer in time") from None
            except VersionError:
                raise
            except (WebSocketException, OSError, ProtocolError) as error:
                self._lose("the connection broke" if isinstance(error, ConnectionClosed) else str(error))
                continue
            if end is None:
                continue
            message, frames = end
            kind = message.head["kind"]
            if kind == "unknown":
                # A decoder that took the session over, or one that was started again.
                with_states = True
                continue
            if kind in ("skipped", "refused"):
                raise self._given_up(message.head["why" if kind == "skipped" else "message"])
            if kind == "failed":
                raise NonFiniteError("window-output-not-finite", "{message}", message=message.head["message"])
            return self._decoded(window, number, last, message, frames, sent_at, null=null)

    def news(self) -> list[str]:
        """Return sentences on what has become of the decoder since the last call."""
        sentences = self._news
        self._news = []
        return sentences

    def close(self) -> None:
        """Tell the decoder that the session has ended."""
        if self._link is None:
            return
        try:
            self._link.connection.send(write(Message({"kind": "bye", "session": self._name}, {})))
        except (WebSocketException, OSError):
            # It will forget the session by itself.
            self._link = None
            return
        self._link.closing.close()
        self._link = None

    def _message(
        self,
        window: Window,
        number: int,
        last: Carried | None,
        left_s: float | None,
        steps: int | None,
        detail: float | None,
        null: bool,
        *,
        with_states: bool,
    ) -> Message:
        carried_number = None if last is None else self._number_of.get(_key(last))
        message = pack_window(
            window,
            self._name,
            number,
            left_s=left_s,
            steps=steps,
            detail=detail,
            null=null,
            condition=self._tells_condition,
            carry_from=[] if carried_number is None else [carried_number],
        )
        if last is None or not with_states:
            return message
        states = np.frombuffer(to_bytes(last.states), np.uint8)
        return Message(message.head, message.arrays | {"states": states})

    def _end_of(
        self, link: _Link, number: int, give_up_at: float
    ) -> tuple[Message, NDArray[np.uint8]] | None:
        """Wait for the message that ends a window; None if some of its frames were lost.

        Raises
        ------
        TimeoutError
            If it does not come in time.
        """
        parts: list[NDArray[np.uint8]] = []
        while True:
            raw = link.connection.recv(timeout=max(0.0, give_up_at - self._now()))
            message = read(raw, FROM_DECODER, self._shapes)
            kind = message.head["kind"]
            if kind == "closed":
                raise OSError(message.head["message"])
            # Parts of a window that was given up may still come.
            if message.head.get("number") != number:
                continue
            if kind in ("first", "rest"):
                # A clip that was begun for a connection that broke may be drawn again for this one.
                if kind == "first":
                    parts = []
                parts.append(message.arrays["frames"])  # type: ignore[arg-type]
                continue
            if kind != "done":
                return message, np.zeros(0, np.uint8)
            if sum(len(frames) for frames in parts) != self._bundle.manifest.clip.frames:
                return None
            return message, np.concatenate(parts)

    def _decoded(
        self,
        window: Window,
        number: int,
        last: Carried | None,
        message: Message,
        frames: NDArray[np.uint8],
        sent_at: float,
        *,
        null: bool,
    ) -> Decoded:
        received_at = self._now()
        head = message.head
        *times, replied = head["times_s"]
        # The decoder's times are durations from when the window came, which was so long ago.
        came_at = received_at - replied
        started_at, encoded_at, denoised_at, first_at, last_at = (came_at + elapsed for elapsed in times)
        if head["note"] is not None:
            self._news.append(
                f"window {window.index} started afresh at the decoder elsewhere: {head['note']}"
            )
        self._keep(window, number, message, null=null)
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
        carried = last is not None and head["carried_from"] is not None
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
            last.revision if carried and last is not None else None,
            max(0.0, received_at - sent_at - replied),
        )

    def _keep(self, window: Window, number: int, message: Message, *, null: bool) -> None:
        """Store what the window leaves to those that follow it."""
        if null or self._carry is None or "states" not in message.arrays:
            return
        try:
            states = from_bytes(message.arrays["states"].tobytes(), self._bundle.manifest)
        except StatesError as error:
            self._news.append(f"window {window.index} leaves nothing to the next one: {error}")
            return
        carried = self._carry.put(window, states)
        if carried is not None:
            self._number_of[_key(carried)] = number
        while len(self._number_of) > _MOST_NUMBERS:
            del self._number_of[next(iter(self._number_of))]

    def _connect_first(self) -> _Link:
        """Connect to the first address that answers; raise what the last one said if none does."""
        faults: list[str] = []
        for address in self._addresses:
            try:
                return self._connect(address, _CONNECT_S)
            except (ClosedError, OSError, WebSocketException) as error:
                faults.append(f"{address.url}: {error or type(error).__name__}")
        raise RtDecodeError(
            "decoder-unreachable",
            "no decoder takes the session: {faults}. Start `rtdecode serve`, or correct --decoder.",
            faults=faults,
        )

    def _linked(self, give_up_at: float) -> _Link:
        """Return the connection; connect again if it is lost, for as long as the window has time."""
        pause_s = _FIRST_PAUSE_S
        while self._link is None:
            # The one that was lost is asked last.
            self._addresses = [*self._addresses[1:], self._addresses[0]]
            for address in self._addresses:
                left_s = give_up_at - self._now()
                if left_s <= 0:
                    raise self._given_up("no decoder elsewhere could be reached in time")
                try:
                    self._link = self._connect(address, min(left_s, _CONNECT_S))
                except (ClosedError, OSError, WebSocketException):
                    continue
                self._addresses.remove(address)
                self._addresses.insert(0, address)
                self._is_back()
                return self._link
            time.sleep(max(0.0, min(pause_s, give_up_at - self._now())))
            pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
        return self._link

    def _connect(self, address: DecoderAddress, limit_s: float) -> _Link:
        """Connect to one decoder, and check that it is the right one."""
        with ExitStack() as closing:
            try:
                connection = closing.enter_context(
                    connect(
                        address.url,
                        ssl=self._context() if address.is_encrypted else None,
                        additional_headers={"Authorization": f"Bearer {self._token}"},
                        compression=None,
                        proxy=None,
                        open_timeout=limit_s,
                        close_timeout=1.0,
                        max_size=MOST_BYTES,
                    )
                )
            except InvalidStatus as error:
                if error.response.status_code == _HTTP_UNAUTHORIZED:
                    raise UsageError(
                        "decoder-token-wrong",
                        "the decoder at {address} does not take the token. Give the --token-file of "
                        "`rtdecode serve`.",
                        address=address.url,
                    ) from error
                raise OSError(str(error)) from error
            except InvalidHandshake as error:
                raise OSError(str(error)) from error
            hello = {"kind": "hello", "release": __version__, "session": self._name}
            connection.send(write(Message(hello, {})))
            answer = read(connection.recv(timeout=limit_s), FROM_DECODER, self._shapes)
            if answer.head["kind"] == "closed":
                self._refuse(answer)
            self._check_digest(address, answer)
            return _Link(connection, answer, closing.pop_all())

    def _refuse(self, answer: Message) -> None:
        """Raise what a decoder says that does not take the session."""
        head = answer.head
        kind = VersionError if head["code"] == "serve-version-mismatch" else ClosedError
        raise kind.from_json(
            {"code": head["code"], "message": head["message"], "values": {}, "exit_code": head["exit_code"]},
            kind.reason,
        )

    def _check_digest(self, address: DecoderAddress, answer: Message) -> None:
        head = answer.head
        if head["digest"] != self._bundle.digest:
            raise BundleError(
                "decoder-bundle-mismatch",
                "the decoder at {address} has bundle {decoder_bundle} ({decoder_digest}), and this session "
                "has {bundle} ({digest}). Give both the same --bundle.",
                address=address.url,
                decoder_bundle=head["bundle"],
                decoder_digest=head["digest"],
                bundle=self._bundle.manifest.name,
                digest=self._bundle.digest,
            )

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def _lose(self, why: str) -> None:
        """Close a connection that broke or does not answer."""
        if self._link is not None:
            # First without a closing handshake, which nobody might answer.
            with suppress(OSError):
                self._link.connection.socket.shutdown(socket.SHUT_RDWR)
            self._link.closing.close()
            self._link = None
        if self._away_since is None:
            self._away_since = self._now()
            clock = time.strftime("%H:%M:%S")
            self._news.append(f"the decoder elsewhere has been away since {clock} ({why or 'it is gone'})")

    def _is_back(self) -> None:
        if self._away_since is not None:
            away_s = self._now() - self._away_since
            self._away_since = None
            self._news.append(f"a decoder elsewhere answers again, after {away_s:.1f} s")

    def _given_up(self, why: str) -> GivenUpError:
        return GivenUpError("window-given-up", "{why}", why=why)


def _key(carried: Carried) -> tuple[int, int, str, float]:
    return carried.run, carried.index, carried.revision, carried.windowed_at


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
