"""Addresses of decoders elsewhere, as ``--decoder`` and ``--bind`` name them."""

import re
from dataclasses import dataclass

from rtdecode.errors import UsageError
from streaming.address import is_loopback, split

_URL = re.compile(r"(wss?)://([^/?#@\s]+)/?")


@dataclass(frozen=True, slots=True)
class DecoderAddress:
    """Where a decoder is reached.

    Attributes
    ----------
    url : str
        ``wss://HOST:PORT``, or ``ws://HOST:PORT`` on this machine.
    is_encrypted : bool
        Whether the connection is encrypted (TLS).
    """

    url: str
    is_encrypted: bool


def parse(text: str) -> list[DecoderAddress]:
    """Read the value of ``--decoder``: one address, or several with commas between them.

    Raises
    ------
    UsageError
        If one is no ``wss://HOST:PORT``, or is not encrypted and not of this machine.
    """
    addresses: list[DecoderAddress] = []
    for url in filter(None, (word.strip() for word in text.split(","))):
        match = _URL.fullmatch(url)
        place = None if match is None else split(match[2])
        if match is None or place is None:
            raise UsageError(
                "decoder-address-malformed",
                "--decoder {address} is no address of a decoder: wss://HOST:PORT was expected, as `rtdecode "
                "serve` prints it, or several with commas between them.",
                address=url,
            )
        if match[1] == "ws" and not is_loopback(place[0]):
            raise UsageError(
                "decoder-not-encrypted",
                "--decoder {address} would send a participant's signals over the network for everybody to "
                "read. Give wss://, and serve with --tls-cert and --tls-key.",
                address=url,
            )
        addresses.append(DecoderAddress(f"{match[1]}://{match[2]}", match[1] == "wss"))
    if not addresses:
        raise UsageError("decoder-address-missing", "--decoder names no address. Give wss://HOST:PORT.")
    return addresses
