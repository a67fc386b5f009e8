"""`rtdecode serve` as a deployment of Ray Serve: the same decoder, messages and token, on many replicas.

Ray's own router sends a session to the replica that its random name leads to. Any other replica can take it
over: it answers ``unknown`` and gets the states with the window. No replica knows another one, and nothing of
a participant is handed to Ray.

    RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token serve run deploy/ray/serve.yaml
"""

import asyncio
import hmac
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Header, Response, WebSocket, WebSocketDisconnect
from ray import serve
from websockets.exceptions import ConnectionClosedError

from rtdecode import bundle as bundles
from rtdecode.bundle.session import check_carried
from streaming.decode.decoder import SharedDecoder
from streaming.decode.scheduler import Scheduler
from streaming.serve import token
from streaming.serve.command import measure
from streaming.serve.protocol import MOST_CARRIED_BYTES
from streaming.serve.server import DecoderServer

# Codes of WebSocket: the other side broke off, and nobody without the token is let in.
_BROKEN_OFF = 1006
_NOT_ADMITTED = 1008

api = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)


class _Connection:
    """A WebSocket of Ray's ingress, as `streaming.serve.server` needs it."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._task = asyncio.current_task()
        self.close_code: int | None = None

    async def recv(self) -> bytes | str:
        """Return the next message."""
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            self.close_code = message.get("code") or _BROKEN_OFF
            raise ConnectionClosedError(None, None)
        raw = message.get("bytes")
        return message["text"] if raw is None else raw

    async def send(self, message: bytes) -> None:
        """Send a message."""
        try:
            await self._socket.send_bytes(message)
        except (RuntimeError, WebSocketDisconnect) as error:
            raise ConnectionClosedError(None, None) from error

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close it in order."""
        if self.close_code is None:
            self.close_code = code
            try:
                await self._socket.close(code, reason)
            except RuntimeError as error:
                raise ConnectionClosedError(None, None) from error

    def abort(self) -> None:
        """Break it off."""
        self.close_code = self.close_code or _BROKEN_OFF
        if self._task is not None:
            self._task.cancel()


@serve.deployment
@serve.ingress(api)
class Decoder:
    """One replica: a bundle's graphs, its scheduler, and the sessions that are with it.

    Parameters
    ----------
    bundle : str
        A folder, or the name of a shipped bundle.
    token_file : str
        File with the token that every connection has to show.
    """

    async def __init__(self, bundle: str, token_file: str) -> None:
        self._token = token.read(Path(token_file))
        loaded = bundles.load(bundle)
        check_carried(loaded.manifest, MOST_CARRIED_BYTES)
        shared = SharedDecoder(loaded)
        costs = measure(shared)
        hop_s = float(loaded.manifest.grid.hop)
        slowest_s = costs[min(costs)]["p95_s"]
        scheduler = Scheduler(hop_s, shared.cost, shared.numbers_of_steps, shared.steps, slowest_s)
        self._server = DecoderServer(shared, scheduler, self._token)
        self._server.start()

    def check_health(self) -> None:
        """Raise what is wrong with this replica, so that Ray starts another one in its place."""
        if fault := self._server.fault():
            raise RuntimeError(fault)

    @api.websocket("/")
    async def decode(self, socket: WebSocket) -> None:
        """Decode for one session."""
        if not self._is_admitted(socket.headers.get("authorization")):
            await socket.close(_NOT_ADMITTED)
            return
        await socket.accept()
        await self._server.connected(_Connection(socket))

    @api.get("/metrics")
    def metrics(self, authorization: Annotated[str, Header()] = "") -> Response:
        """Count what became of the windows of this replica's sessions."""
        if not self._is_admitted(authorization):
            return Response("The token is missing or wrong.\n", 401, media_type="text/plain")
        return Response(self._server.metrics(), media_type="text/plain")

    def _is_admitted(self, header: str | None) -> bool:
        return hmac.compare_digest((header or "").encode(), f"Bearer {self._token}".encode())


def application(arguments: dict[str, str]) -> serve.Application:
    """Make the application of ``serve.yaml``, whose ``args`` are those of `Decoder`."""
    return Decoder.bind(arguments["bundle"], arguments["token_file"])
