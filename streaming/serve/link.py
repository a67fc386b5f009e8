"""One connection of a session to a decoder elsewhere: it is opened, and who answers is checked."""

import asyncio
import ssl
from dataclasses import dataclass

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, WebSocketException

from rtdecode import __version__
from rtdecode.bundle import Bundle
from rtdecode.errors import BundleError, RtDecodeError, UsageError
from streaming.message import Message
from streaming.serve.address import DecoderAddress
from streaming.serve.protocol import FROM_DECODER, MOST_BYTES, Shapes, VersionError, read, write

_HTTP_UNAUTHORIZED = 401
# What a connection that is closed waits for the other side's farewell, s.
_CLOSE_S = 1.0


class ClosedError(RtDecodeError):
    """The decoder closed the connection, and said why."""

    reason = "the decoder elsewhere closed the connection"


# What a connection ends with, or never begins with, that another one may do better.
BROKEN = (ClosedError, OSError, WebSocketException)


@dataclass(frozen=True, slots=True)
class Link:
    """An open connection, and what the decoder said of itself.

    Attributes
    ----------
    connection : ClientConnection
        The WebSocket connection.
    welcome : Message
        The decoder's answer to the session's greeting.
    """

    connection: ClientConnection
    welcome: Message


class Linker:
    """Open connections of one session.

    Parameters
    ----------
    bundle : Bundle
        The session's; the decoder has to have the same.
    token : str
        What the decoder has to be shown.
    session : str
        Random name of the session.
    tls : ssl.SSLContext or None
        For encrypted addresses; None takes the certificates that this machine trusts.
    """

    def __init__(self, bundle: Bundle, token: str, session: str, tls: ssl.SSLContext | None) -> None:
        self._bundle = bundle
        self._token = token
        self._session = session
        self._tls = tls
        self._shapes = Shapes.of(bundle.manifest)

    async def open(self, address: DecoderAddress, limit_s: float) -> Link:
        """Connect to a decoder.

        Parameters
        ----------
        address : DecoderAddress
            Where the decoder is reached.
        limit_s : float
            Time that connecting, and again the decoder's answer, may take, s.

        Raises
        ------
        ClosedError, OSError, WebSocketException
            If it cannot be reached, or does not take the session.
        BundleError
            If it has another bundle.
        VersionError
            If it speaks another version of the protocol.
        UsageError
            If it does not take the token.
        """
        connection = await self._connected(address, limit_s)
        try:
            hello = {"kind": "hello", "release": __version__, "session": self._session}
            async with asyncio.timeout(limit_s):
                await connection.send(write(Message(hello, {})))
                answer = read(await connection.recv(), FROM_DECODER, self._shapes)
            if answer.head["kind"] == "closed":
                raise closing(answer)
            self._check_digest(address, answer)
        except BaseException:
            connection.transport.abort()
            raise
        return Link(connection, answer)

    async def _connected(self, address: DecoderAddress, limit_s: float) -> ClientConnection:
        try:
            return await connect(
                address.url,
                ssl=self._context() if address.is_encrypted else None,
                # By the second one a router may bring a session to the same decoder again.
                additional_headers={
                    "Authorization": f"Bearer {self._token}",
                    "X-Session-Id": self._session,
                },
                compression=None,
                proxy=None,
                open_timeout=limit_s,
                close_timeout=_CLOSE_S,
                max_size=MOST_BYTES,
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


def closing(message: Message) -> RtDecodeError:
    """Return what a decoder says that closes the connection, as an error."""
    head = message.head
    kind = VersionError if head["code"] == "serve-version-mismatch" else ClosedError
    return kind.from_json(
        {"code": head["code"], "message": head["message"], "values": {}, "exit_code": head["exit_code"]},
        kind.reason,
    )
