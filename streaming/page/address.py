"""Where the page is served, and the token that others than this machine need."""

import ipaddress
import secrets
import socket
from dataclasses import dataclass, field, replace

from rtdecode.errors import UsageError

_MOST = 65535
# Bytes of a token: nobody guesses 128 bits.
_TOKEN_BYTES = 16


@dataclass(frozen=True, slots=True)
class Address:
    """Host and port of the page.

    Attributes
    ----------
    host : str
    port : int
        0 takes any free port.
    token : str
        What a viewer has to show once; empty where only this machine is let in.
    """

    host: str
    port: int
    token: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """What is typed into a browser, with the token if there is one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        asked = f"?token={self.token}" if self.token else ""
        return f"http://{host}:{self.port}/{asked}"


def parse(text: str) -> Address:
    """Read ``HOST:PORT``; an address that other machines reach gets a token.

    Raises
    ------
    UsageError
        If it is no such address.
    """
    found = split(text)
    if found is None:
        raise UsageError(
            "dashboard-address-malformed",
            "--dashboard {address} is no HOST:PORT. Give 127.0.0.1:8080, or 127.0.0.1:0 for any free port.",
            address=text,
        )
    host, port = found
    token = "" if is_loopback(host) else secrets.token_urlsafe(_TOKEN_BYTES)
    return Address(host, port, token)


def split(text: str) -> tuple[str, int] | None:
    """Return host and port of ``HOST:PORT``; None if the text is no such thing."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isdecimal() and int(port) <= _MOST):
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
    with listening(address) as there:
        return replace(address, port=there.getsockname()[1])


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
            "--dashboard {host}:{port} cannot be served ({error}). Give an address of this machine "
            "and another port, or port 0 for any free one.",
            host=address.host,
            port=address.port,
            error=error.strerror or error,
        ) from error
