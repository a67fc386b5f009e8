import asyncio
from typing import Any

import pytest

from streaming.address import Address
from streaming.page.guard import Guard

HERE = Address("127.0.0.1", 8080, "right-token")
PUBLIC_ADDRESS = Address("0.0.0.0", 8080, "right-token")
COOKIE = "rtdecode-8080=right-token"
PAGE = f"{HERE.root}/"
refusals: list[tuple[str, str]] = []


def ask(
    address: Address, kind: str = "http", path: str = PAGE, query: str = "", **headers: str | list[str]
) -> list[dict[str, Any]]:
    """What a page behind the guard answers to one request."""
    messages: list[dict[str, Any]] = []
    refusals.clear()

    async def page(scope: Any, receive: Any, send: Any) -> None:
        assert scope.get("root_path") == (None if kind == "lifespan" else address.root)
        await send({"type": "page"})
        if kind == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"x-page", b"1")]})

    async def receive() -> dict[str, Any]:
        return {}

    async def send(message: Any) -> None:
        messages.append(message)

    pairs = [
        (name.replace("_", "-").encode(), value.encode("latin-1"))
        for name, values in headers.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    scope = {"type": kind, "path": path, "query_string": query.encode(), "headers": pairs}
    scope["client"] = ("192.0.2.7", 4711)
    guard = Guard(page, address, lambda client, reason: refusals.append((client, reason)))
    asyncio.run(guard(scope, receive, send))
    return messages


def let_in(messages: list[dict[str, Any]]) -> bool:
    return messages[0] == {"type": "page"}


def is_refused(messages: list[dict[str, Any]]) -> bool:
    """Whether a request was refused, and counted once as one that was."""
    if messages[0]["type"] == "http.response.start":
        assert messages[0]["status"] == 403
    else:
        assert messages == [{"type": "websocket.close", "code": 1008, "reason": refusals[0][1]}]
    return [client for client, _ in refusals] == ["192.0.2.7"]


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080"])
def test_this_machine_needs_the_token_too(kind: str, host: str) -> None:
    assert is_refused(ask(HERE, kind, host=host))
    assert let_in(ask(HERE, kind, host=host, cookie=COOKIE))
    assert let_in(ask(HERE, kind, host=host, origin=f"http://{host}", cookie=COOKIE))
    assert not refusals


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:8080"},
        {"host": "localhost.evil.example"},
        {},
        {"host": "127.0.0.1:8080", "origin": "http://evil.example"},
        {"host": "127.0.0.1:8080", "origin": "http://127.0.0.1:9090"},
        {"host": "127.0.0.1:8080", "origin": "null"},
        {"host": "127.0.0.1:8080", "origin": "http://[::1"},
        {"host": "127.0.0.1:8080", "sec_fetch_site": "cross-site"},
        # Another port of this machine is the same site to a browser, and may be another account's.
        {"host": "127.0.0.1:8080", "sec_fetch_site": "same-site"},
    ],
)
def test_other_names_and_other_pages_are_refused(kind: str, headers: dict[str, str]) -> None:
    assert is_refused(ask(HERE, kind, cookie=COOKIE, **headers))


@pytest.mark.parametrize(
    "host",
    [
        "",
        "[::1",
        "::1]:8080",
        "127.0.0.1:port",
        "127.0.0.1:99999",
        "127.0.0.1:0",
        "127.0.0.1:8080/..",
        "evil@127.0.0.1:8080",
        "127.0.0.1:8080?x",
        "127.0.0.1\uff0f.example".encode().decode("latin-1"),
        ["127.0.0.1:8080", "127.0.0.1:8080"],
    ],
)
@pytest.mark.parametrize("address", [HERE, PUBLIC_ADDRESS])
def test_a_host_that_cannot_be_read_is_refused(address: Address, host: str | list[str]) -> None:
    assert is_refused(ask(address, host=host, cookie=COOKIE))
    assert is_refused(ask(address, "websocket", host=host, cookie=COOKIE))


def test_the_token_leads_to_the_page_and_is_kept_in_a_cookie() -> None:
    # A file that leads here is a site of its own, and says no origin.
    how = {"host": "127.0.0.1:8080", "sec_fetch_site": "cross-site"}
    (start, body) = ask(HERE, path="/", query="token=right-token", **how)
    assert start["status"] == 200
    headers = dict(start["headers"])
    # It does not stay in the address, where the next page would be told of it.
    assert f'content="0; url={PAGE}"'.encode() in body["body"]
    assert b"token" not in body["body"]
    assert headers[b"referrer-policy"] == b"no-referrer"
    assert headers[b"cache-control"] == b"no-store"
    cookie, *attributes = headers[b"set-cookie"].decode().split("; ")
    assert cookie == COOKIE
    # A browser sends it to no other path, at whatever port of this host.
    assert {"HttpOnly", "SameSite=Strict", f"Path={PAGE}"} == set(attributes)
    assert let_in(ask(HERE, host="127.0.0.1:8080", cookie=cookie))


def test_a_cookie_is_that_of_the_port_that_the_browser_sees() -> None:
    # As through a tunnel: two pages that are both served at 8080 are seen at two ports.
    (start, _) = ask(HERE, query="token=right-token", host="localhost:9090")
    assert dict(start["headers"])[b"set-cookie"].startswith(b"rtdecode-9090=right-token;")
    (start, _) = ask(PUBLIC_ADDRESS, query="token=right-token", host="scanner")
    assert dict(start["headers"])[b"set-cookie"].startswith(b"rtdecode-80=right-token;")
    assert is_refused(ask(HERE, host="localhost:9090", cookie=COOKIE))


@pytest.mark.parametrize("cookie", ['x={"a": "b;c"}; {}', "{}; =", ";;{};;", "rtdecode-8080=old; {}"])
def test_cookies_of_other_programs_are_passed_over(cookie: str) -> None:
    assert let_in(ask(HERE, host="127.0.0.1:8080", cookie=cookie.replace("{}", COOKIE)))


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {}),
        ("token=wrong", {}),
        ("token=", {}),
        ("token=right-toke\xf6", {}),
        ("", {"cookie": "rtdecode-8080=wrong"}),
        ("", {"cookie": "rtdecode-8080="}),
        ("", {"cookie": "rtdecode-9090=right-token"}),
        ("", {"cookie": "a b;;=="}),
        ("token=%00", {}),
    ],
)
@pytest.mark.parametrize("address", [HERE, PUBLIC_ADDRESS])
def test_without_the_token_nothing_is_shown(address: Address, query: str, headers: dict[str, str]) -> None:
    host = "127.0.0.1:8080" if address is HERE else "scanner:8080"
    messages = ask(address, query=query, host=host, **headers)
    assert is_refused(messages)
    assert b"needs the token" in messages[1]["body"]
    assert is_refused(ask(address, "websocket", query=query, host=host, **headers))


def test_a_websocket_cannot_show_the_token_in_its_address() -> None:
    assert is_refused(ask(PUBLIC_ADDRESS, "websocket", query="token=right-token", host="scanner:8080"))


@pytest.mark.parametrize("path", ["/", "", "/clip/0/final", HERE.root, f"{HERE.root}x/", f"/x{HERE.root}/"])
def test_what_is_not_below_the_page_s_own_path_is_refused(path: str) -> None:
    assert is_refused(ask(HERE, path=path, host="127.0.0.1:8080", cookie=COOKIE))


def test_every_token_has_a_path_of_its_own_that_does_not_tell_it() -> None:
    assert HERE.root == PUBLIC_ADDRESS.root
    assert Address("127.0.0.1", 8080, "left-token").root != HERE.root
    assert HERE.token not in HERE.root


def test_that_it_is_alive_is_told_to_everyone_and_nothing_else() -> None:
    (start, body) = ask(HERE, path="/health", host="127.0.0.1:8080")
    assert (start["status"], body["body"]) == (200, b"ok")
    assert not any(name == b"set-cookie" for name, _ in start["headers"])
    assert is_refused(ask(HERE, path="/health/x", host="127.0.0.1:8080"))
    assert is_refused(ask(HERE, path="/health", host="evil.example"))


@pytest.mark.parametrize(
    "request_",
    [
        {"host": "127.0.0.1:8080", "cookie": COOKIE},
        {"host": "127.0.0.1:8080", "query": "token=right-token"},
        {"host": "127.0.0.1:8080"},
        {"host": "evil.example"},
        {"host": "127.0.0.1:8080", "path": "/health"},
    ],
)
def test_no_answer_can_be_shown_in_a_frame(request_: dict[str, str]) -> None:
    messages = ask(HERE, **request_)
    (start,) = [message for message in messages if message["type"] == "http.response.start"]
    headers = dict(start["headers"])
    assert headers[b"content-security-policy"] == b"frame-ancestors 'none'"
    assert headers[b"x-frame-options"] == b"DENY"


def test_what_is_no_request_passes() -> None:
    assert let_in(ask(PUBLIC_ADDRESS, "lifespan"))
