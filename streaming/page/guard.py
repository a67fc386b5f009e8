"""Who may look at the page: this machine, or whoever has shown the token.

A page in the same browser must not reach the session either. So a request has to name the host that it was
sent to (a name that an attacker's server points at this machine is refused), and one that carries an origin
has to come from the page itself.
"""

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from streaming.page.address import Address, is_loopback

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_COOKIE = "rtdecode"
_UNKNOWN = "This page needs the token that the session printed with its address. Open that address."
_WRONG_HOST = "This page is reached by its own address alone. Open the one that the session printed."
_WRONG_ORIGIN = "Another page asked for this one. Open the address that the session printed."


class Guard:
    """Let requests through to the page, or refuse them (ASGI).

    Parameters
    ----------
    app : callable
        The page.
    address : Address
        Where it is served.
    """

    def __init__(self, app: App, address: Address) -> None:
        self._app = app
        self._address = address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refused = self._refused(scope, headers)
        if refused:
            await _refuse(scope, send, refused)
        elif self._shown(scope):
            await self._welcome(send)
        else:
            await self._app(scope, receive, send)

    def _refused(self, scope: Scope, headers: dict[str, str]) -> str:
        """Say why a request is refused; empty if it is not."""
        host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        if not self._address.token and not is_loopback(host):
            return _WRONG_HOST
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            return _WRONG_ORIGIN
        if self._address.token and not (self._shown(scope) or self._kept(headers)):
            return _UNKNOWN
        return ""

    def _shown(self, scope: Scope) -> bool:
        """Return whether the address that was opened carries the token."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        return scope["type"] == "http" and self._right(given)

    def _kept(self, headers: dict[str, str]) -> bool:
        """Return whether the browser has the token in its cookie."""
        try:
            jar = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        return _COOKIE in jar and self._right(jar[_COOKIE].value)

    def _right(self, given: str) -> bool:
        token = self._address.token
        return bool(token) and secrets.compare_digest(given.encode(), token.encode())

    async def _welcome(self, send: Send) -> None:
        """Put the token into a cookie, and lead to the page without it in the address."""
        cookie = f"{_COOKIE}={self._address.token}; HttpOnly; SameSite=Strict; Path=/"
        headers = [(b"location", b"/"), (b"set-cookie", cookie.encode())]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


async def _refuse(scope: Scope, send: Send, why: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": why})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": why.encode()})
