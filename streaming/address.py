"""Where the page is served, and the token that every viewer needs.

Other accounts of this machine reach a loopback address as well: it has a token too.
"""

import hashlib
import ipaddress
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from rtdecode.errors import UsageError

_MAX_PORT = 65535
# Bytes of a token: nobody guesses 128 bits.
_TOKEN_BYTES = 16
_ROOT_BYTES = 8
# What a token consists of; so much of it is read at most.
_TOKEN = re.compile(r"[A-Za-z0-9_-]{20,}")
_MOST_BYTES = 256
# What listens on every address of this machine is reached at this one, by the version of IP.
_LOCAL = {4: "127.0.0.1", 6: "::1"}


@dataclass(frozen=True, slots=True)
class Address:
    """Host and port of the page.

    Attributes
    ----------
    host : str
        Name or IP address to listen on.
    port : int
        0 takes any free port.
    token : str
        What a viewer has to show once.
    """

    host: str
    port: int
    token: str = field(repr=False)

    @property
    def place(self) -> str:
        """``HOST:PORT``, as it is written in an address."""
        return _place(self.host, self.port)

    @property
    def root(self) -> str:
        """What the path of everything on the page begins with; it tells nothing of the token."""
        return f"/{hashlib.blake2b(self.token.encode(), digest_size=_ROOT_BYTES).hexdigest()}"

    @property
    def url(self) -> str:
        """What is typed into a browser, with the token."""
        return f"http://{self.place}/?token={self.token}"

    @property
    def local_url(self) -> str:
        """The same for a browser of this machine."""
        try:
            number = ipaddress.ip_address(self.host)
        except ValueError:
            return self.url
        return replace(self, host=_LOCAL[number.version]).url if number.is_unspecified else self.url


def parse(text: str, token: str | None = None) -> Address:
    """Read ``HOST:PORT``; the address gets this token, or one of its own.

    Raises
    ------
    UsageError
        If it is no such address.
    """
    parts = split(text)
    if parts is None:
        raise UsageError(
            "dashboard-address-malformed",
            "--dashboard {address} is no HOST:PORT. Give 127.0.0.1:8080, or 127.0.0.1:0 for any free port.",
            address=text,
        )
    host, port = parts
    # By this name a browser looks at ::1 first, where another account of this machine may listen.
    host = "127.0.0.1" if host == "localhost" else host
    return Address(host, port, token or secrets.token_urlsafe(_TOKEN_BYTES))


@contextmanager
def hand_over(token: str) -> Iterator[int]:
    """Give a descriptor that a child process inherits and reads a token from.

    Other accounts of the machine see a process's command line, and some systems show them its environment.
    """
    reader, writer = os.pipe()
    try:
        os.write(writer, token.encode())
        os.close(writer)
        yield reader
    finally:
        os.close(reader)


def take_over(descriptor: int) -> str:
    """Read the token that the parent process handed over, and close the descriptor.

    Raises
    ------
    UsageError
        If there is no token to be read.
    """
    try:
        with open(descriptor, "rb", buffering=0) as pipe:
            token = pipe.read(_MOST_BYTES).decode("latin-1")
    except OSError:
        token = ""
    if not _TOKEN.fullmatch(token):
        raise UsageError(
            "dashboard-token-unreadable",
            "--dashboard-token-fd {descriptor}: a program that starts a session hands it the token of its "
            "page through this descriptor, and no token can be read there. Leave the flag out: the session "
            "then makes a token and prints it.",
            descriptor=descriptor,
        )
    return token


def split(text: str) -> tuple[str, int] | None:
    """Return host and port of ``HOST:PORT``; None if the text is no such thing."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isdecimal() and int(port) <= _MAX_PORT):
        return None
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def free(address: Address) -> Address:
    """Choose a free port where any is asked for; nobody listens there yet.

    Raises
    ------
    UsageError
        As `listening` does.
    """
    with listening(address) as listener:
        return replace(address, port=listener.getsockname()[1])


def listening(address: Address) -> socket.socket:
    """Open the socket that the page is served on.

    Raises
    ------
    UsageError
        If the address is not this machine's, or in use.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family)
    except OSError as error:
        raise UsageError(
            "dashboard-address-unavailable",
            "--dashboard {address} cannot be served ({error}). Give an address of this machine "
            "and another port, or port 0 for any free one.",
            address=address.place,
            host=address.host,
            port=address.port,
            error=error.strerror or error,
        ) from error


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
