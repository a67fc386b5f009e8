"""Send every emitted clip by Open Sound Control (OSC) over UDP, which waits for nobody.

::

    /rtdecode/clip     i clip   s revision   f start   f stop   f confidence   f brain   s the whole as JSON
    /rtdecode/scores   s label  f value  s label  f value  ...       where the bundle has named categories

Start and stop are those of ``window_s``, s. Confidence and brain are -1 where the bundle does not tell them.
"""

import socket
from importlib.util import find_spec
from typing import Any

from rtdecode import installing
from rtdecode.errors import UsageError
from rtdecode.types import Float
from streaming import address

CLIP = "/rtdecode/clip"
SCORES = "/rtdecode/scores"
# OSC has no number for what is not known; probabilities are never below 0.
UNKNOWN = -1.0


class OscSender:
    """A receiver of OSC messages.

    Parameters
    ----------
    text : str
        ``HOST:PORT``.

    Raises
    ------
    UsageError
        If it is no such address, its host is not known, or python-osc is not installed.
    """

    def __init__(self, text: str) -> None:
        host, port = _address(text)
        check_installed()
        from pythonosc.udp_client import SimpleUDPClient

        self._text = text
        # Looked up once: a name server that is slow must not hold up a clip.
        self._client = SimpleUDPClient(_number(text, host, port), port)

    @property
    def name(self) -> str:
        """The receiver's address."""
        return f"OSC {self._text}"

    def send(self, message: dict[str, Any], text: str, condition: Float | None) -> None:
        """Send a clip; a datagram that cannot leave at once is dropped.

        Raises
        ------
        OSError
            If the network refuses it.
        """
        start, stop = message["window_s"]
        probabilities = [
            UNKNOWN if message[name] is None else message[name] for name in ("confidence", "brain")
        ]
        numbers = [float(value) for value in (start, stop, *probabilities)]
        self._client.send_message(CLIP, [message["clip"], message["revision"], *numbers, text])
        if "scores" in message:
            pairs = [part for label, value in message["scores"].items() for part in (label, float(value))]
            self._client.send_message(SCORES, pairs)

    def close(self) -> None:
        """Close the socket."""
        self._client.close()


def check_installed() -> None:
    """Refuse OSC where its package is not installed.

    Raises
    ------
    UsageError
    """
    if find_spec("pythonosc") is None:
        raise UsageError(
            "osc-package-missing",
            "--osc needs the package python-osc, which is not installed. Install it with: {install_command}",
            install_command=installing.command("outputs"),
        )


def _address(text: str) -> tuple[str, int]:
    host_port = address.split(text)
    if host_port is None or host_port[1] == 0:
        raise UsageError(
            "osc-address-malformed",
            "--osc {address} is no HOST:PORT. Give the address that the receiver listens on, for "
            "example 127.0.0.1:9000.",
            address=text,
        )
    return host_port


def _number(text: str, host: str, port: int) -> str:
    """Look up a host; IPv4 goes first, as most receivers listen on nothing else."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise UsageError(
            "osc-host-unknown",
            "--osc {address}: the host {host} is not known ({error}). Check its name, or give its "
            "address in numbers.",
            address=text,
            host=host,
            error=error.strerror or error,
        ) from error
    addresses.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return str(addresses[0][4][0])
