import asyncio
from typing import Any

import pytest

from streaming.page.address import Address
from streaming.page.guard import Guard

HERE = Address("127.0.0.1", 8080)
THERE = Address("0.0.0.0", 8080, "right-token")


def asked(address: Address, kind: str = "http", query: str = "", **headers: str) -> list[dict[str, Any]]:
    """What a page behind the guard answers to one request."""
    sent: list[dict[str, Any]] = []

    async def page(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "page"})

    async def receive() -> dict[str, Any]:
        return {}

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "path": "/", "query_string": query.encode(), "headers": raw}
    asyncio.run(Guard(page, address)(scope, receive, send))
    return sent


LET_IN = [{"type": "page"}]


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080"])
def test_this_machine_is_let_in(kind: str, host: str) -> None:
    assert asked(HERE, kind, host=host) == LET_IN
    assert asked(HERE, kind, host=host, origin=f"http://{host}") == LET_IN


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:8080"},
        {"host": "localhost.evil.example"},
        {},
        {"host": "127.0.0.1:8080", "origin": "http://evil.example"},
        {"host": "127.0.0.1:8080", "origin": "http://127.0.0.1:9090"},
        {"host": "127.0.0.1:8080", "origin": "null"},
    ],
)
def test_other_names_and_other_pages_are_refused(headers: dict[str, str]) -> None:
    assert asked(HERE, **headers)[0]["status"] == 403
    assert asked(HERE, "websocket", **headers)[0]["type"] == "websocket.close"


def test_the_token_is_shown_once_and_kept_in_a_cookie() -> None:
    (start, _) = asked(THERE, query="token=right-token", host="scanner:8080")
    assert start["status"] == 303
    headers = dict(start["headers"])
    # It does not stay in the address, where the next page would be told of it.
    assert headers[b"location"] == b"/"
    cookie = headers[b"set-cookie"].decode()
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    kept = cookie.partition(";")[0]
    assert asked(THERE, host="scanner:8080", cookie=kept) == LET_IN
    assert asked(THERE, "websocket", host="scanner:8080", cookie=f"other=1; {kept}") == LET_IN


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {}),
        ("token=wrong", {}),
        ("token=", {}),
        ("", {"cookie": "rtdecode=wrong"}),
        ("", {"cookie": "rtdecode="}),
        ("", {"cookie": "a b;;=="}),
        ("token=%00", {}),
    ],
)
def test_without_the_token_nothing_is_shown(query: str, headers: dict[str, str]) -> None:
    (start, body) = asked(THERE, query=query, host="scanner:8080", **headers)
    assert start["status"] == 403
    assert b"needs the token" in body["body"]
    (closed,) = asked(THERE, "websocket", query=query, host="scanner:8080", **headers)
    assert closed["type"] == "websocket.close"


def test_a_websocket_cannot_show_the_token_in_its_address() -> None:
    (closed,) = asked(THERE, "websocket", query="token=right-token", host="scanner:8080")
    assert closed["type"] == "websocket.close"


def test_what_is_no_request_passes() -> None:
    assert asked(THERE, "lifespan") == LET_IN
