"""Who may look at the page: whoever has shown the token.

A page in the same browser must not reach the session either. So a request has to name the host that it was
sent to (a name that an attacker's server points at this machine is refused), and one that carries an origin,
or that the browser says comes from another site, has to come from the page itself. No other page can show
this one in a frame and have its buttons pressed there.

A browser sends a host's cookies to all of its ports, and the tab of a page that has ended goes on asking at
its old one, where any account of the machine may listen by then. So the cookie is for one path, and every
page has another.
"""

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from streaming.address import Address, is_loopback

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# Says to whoever looks after servers that this one answers, and nothing about the session.
_HEALTH = "/health"
_HTTP_PORT = 80
_UNKNOWN = "This page needs the token that the session printed with its address. Open that address."
_WRONG_HOST = "This page is reached by its own address alone. Open the one that the session printed."
_WRONG_ORIGIN = "Another page asked for this one. Open the address that the session printed."
# What a browser says of requests that the page itself makes, and of addresses that somebody typed.
_OWN_SITES = frozenset(("same-origin", "none"))
_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_PROTECTION = ((b"content-security-policy", b"frame-ancestors 'none'"), (b"x-frame-options", b"DENY"))
# The page that the token's address leads to goes on by itself. A redirect would not do: where a file or
# another site led the browser here, it sends no cookie of SameSite=Strict along with a redirect.
_WELCOME = """<!doctype html><html lang="en"><meta charset="utf-8"><title>rtdecode</title>
<meta http-equiv="refresh" content="0; url={root}/"><p><a href="{root}/">The session's page</a></p></html>
"""


class Guard:
    """Let requests through to the page, or refuse them (ASGI).

    Parameters
    ----------
    app : callable
        The page.
    address : Address
        Where it is served.
    on_refusal : callable
        Gets the network address that a refused request came from, and why it was refused.
    """

    def __init__(self, app: App, address: Address, on_refusal: Callable[[str, str], None]) -> None:
        self._app = app
        self._address = address
        self._on_refusal = on_refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        send = _protected(send)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        host = _host([value for name, value in headers if name == "host"])
        shows_token = self._shows_token(scope)
        reason = self._refusal(host, dict(headers), came_with_token=shows_token)
        if host is None or reason:
            await self._refuse(scope, send, reason)
        elif scope["type"] == "http" and scope["path"] == _HEALTH:
            await _answer(send, 200, b"ok", _TEXT)
        elif shows_token:
            await self._welcome(send, _cookie(host))
        elif self._has_cookie(host, dict(headers)) and scope["path"].startswith(f"{self._address.root}/"):
            await self._app({**scope, "root_path": self._address.root}, receive, send)
        else:
            await self._refuse(scope, send, _UNKNOWN)

    def _refusal(self, host: SplitResult | None, headers: dict[str, str], *, came_with_token: bool) -> str:
        """Say why a request is refused whoever sends it; empty if it is not."""
        if host is None:
            return _WRONG_HOST
        if is_loopback(self._address.host) and not is_loopback(host.hostname or ""):
            return _WRONG_HOST
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host.netloc:
            return _WRONG_ORIGIN
        # The token's address is opened from a file, which is a site of its own.
        if headers.get("sec-fetch-site", "none") not in _OWN_SITES and not came_with_token:
            return _WRONG_ORIGIN
        return ""

    def _shows_token(self, scope: Scope) -> bool:
        """Return whether the address that was opened carries the token."""
        token = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        return scope["type"] == "http" and self._is_right(token)

    def _has_cookie(self, host: SplitResult, headers: dict[str, str]) -> bool:
        """Return whether the browser has the token in its cookie."""
        # Cookies of other programs at this host come too, in whatever syntax.
        cookies = [part.strip().partition("=") for part in headers.get("cookie", "").split(";")]
        return any(name == _cookie(host) and self._is_right(value) for name, _, value in cookies)

    def _is_right(self, token: str) -> bool:
        return secrets.compare_digest(token.encode(), self._address.token.encode())

    async def _welcome(self, send: Send, cookie: str) -> None:
        """Put the token into a cookie, and lead to the page without it in the address."""
        root = self._address.root
        cookie_header = f"{cookie}={self._address.token}; HttpOnly; SameSite=Strict; Path={root}/"
        await _answer(
            send,
            200,
            _WELCOME.format(root=root).encode(),
            (b"content-type", b"text/html; charset=utf-8"),
            (b"set-cookie", cookie_header.encode()),
            (b"cache-control", b"no-store"),
            (b"referrer-policy", b"no-referrer"),
        )

    async def _refuse(self, scope: Scope, send: Send, reason: str) -> None:
        client = scope.get("client") or ("an unknown address",)
        self._on_refusal(client[0], reason)
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": reason})
        else:
            await _answer(send, 403, reason.encode(), _TEXT)


def _host(values: list[str]) -> SplitResult | None:
    """Read the one Host header of a request; None if it is not there once, or is no host."""
    if len(values) != 1:
        return None
    try:
        host = urlsplit(f"//{values[0]}")
        # Read here, as a port that is no number shows when it is asked for.
        right = host.port != 0 and host.netloc == values[0] and host.username is None
    except ValueError:
        return None
    return host if right and host.hostname else None


def _cookie(host: SplitResult) -> str:
    """Name the cookie after the port that the browser sees: a host's cookies are sent to all of its ports."""
    return f"rtdecode-{host.port or _HTTP_PORT}"


def _protected(send: Send) -> Send:
    """Forbid in every answer that it is shown in a frame."""

    async def protected(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *_PROTECTION]}
        await send(message)

    return protected


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})
