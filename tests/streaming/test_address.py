import os
import subprocess
import sys

import pytest

from rtdecode.errors import UsageError
from streaming.address import Address, hand_over, is_loopback, listening, parse, take_over
from tests.refusals import refused


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("[::1]:9", "::1", 9),
        ("0.0.0.0:8080", "0.0.0.0", 8080),
        # The name stands for ::1 as well, where another program may listen.
        ("localhost:8080", "127.0.0.1", 8080),
    ],
)
def test_every_address_gets_a_token_of_its_own(text: str, host: str, port: int) -> None:
    address = parse(text)
    assert (address.host, address.port) == (host, port)
    assert len(address.token) >= 20
    assert address.token != parse(text).token
    assert address.token not in repr(address)
    assert parse(text, "the-token") == Address(host, port, "the-token")


@pytest.mark.parametrize(
    ("host", "place", "local"),
    [
        ("127.0.0.1", "127.0.0.1:80", "127.0.0.1:80"),
        ("0.0.0.0", "0.0.0.0:80", "127.0.0.1:80"),
        ("::", "[::]:80", "[::1]:80"),
        ("fe80::1", "[fe80::1]:80", "[fe80::1]:80"),
        ("scanner", "scanner:80", "scanner:80"),
    ],
)
def test_addresses_are_written_as_a_browser_takes_them(host: str, place: str, local: str) -> None:
    address = Address(host, 80, "the-token")
    assert address.url == f"http://{place}/?token=the-token"
    assert address.local_url == f"http://{local}/?token=the-token"
    assert parse(address.place, "the-token") == address


def test_a_token_reaches_a_child_process_and_nobody_else() -> None:
    child = "import sys; from streaming.address import take_over; print(take_over(int(sys.argv[1])))"
    token = parse("127.0.0.1:0").token
    with hand_over(token) as descriptor:
        words = [sys.executable, "-c", child, str(descriptor)]
        done = subprocess.run(words, pass_fds=[descriptor], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == token
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize("token", ["", "short", "x" * 30 + "\n", "x" * 30 + "; Path=/", "\x00" * 30])
def test_what_is_no_token_is_refused(token: str) -> None:
    with hand_over(token) as descriptor:
        copy = os.dup(descriptor)
    with refused(UsageError, "dashboard-token-unreadable", descriptor=copy):
        take_over(copy)
    # Closed by now.
    with refused(UsageError, "dashboard-token-unreadable", descriptor=copy):
        take_over(copy)


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
    with listening(parse("127.0.0.1:0")) as listener:
        port = listener.getsockname()[1]
        with refused(UsageError, "dashboard-address-unavailable", host="127.0.0.1", port=port):
            listening(parse(f"127.0.0.1:{port}"))
    with refused(UsageError, "dashboard-address-unavailable", host="203.0.113.1", port=80):
        listening(parse("203.0.113.1:80"))
    with refused(UsageError, "dashboard-address-unavailable", address="[2001:db8::1]:80"):
        listening(parse("[2001:db8::1]:80"))
