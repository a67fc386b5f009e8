import pytest

from rtdecode.errors import UsageError
from streaming.page.address import Address, is_loopback, listening, parse
from tests.refusals import refused


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:0", "127.0.0.1", 0), ("localhost:8080", "localhost", 8080), ("[::1]:9", "::1", 9)],
)
def test_this_machine_needs_no_token(text: str, host: str, port: int) -> None:
    assert parse(text) == Address(host, port, "")


def test_an_address_that_others_reach_gets_a_token_of_its_own() -> None:
    one = parse("0.0.0.0:8080")
    other = parse("0.0.0.0:8080")
    assert len(one.token) >= 20
    assert one.token != other.token
    assert one.url == f"http://0.0.0.0:8080/?token={one.token}"
    assert one.token not in repr(one)


@pytest.mark.parametrize(
    "text", ["", "8080", "localhost", "localhost:", ":80", "localhost:x", "localhost:65536"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with refused(UsageError, "dashboard-address-malformed", address=text):
        parse(text)


def test_only_this_machines_own_addresses_are_loopback() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.9.9.9", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "192.168.0.2", "::", "localhost.evil.example", "scanner")))


def test_a_port_in_use_and_a_foreign_address_are_refused() -> None:
    with listening(parse("127.0.0.1:0")) as taken:
        port = taken.getsockname()[1]
        with refused(UsageError, "dashboard-address-unavailable", host="127.0.0.1", port=port):
            listening(parse(f"127.0.0.1:{port}"))
    with refused(UsageError, "dashboard-address-unavailable", host="203.0.113.1", port=80):
        listening(parse("203.0.113.1:80"))
