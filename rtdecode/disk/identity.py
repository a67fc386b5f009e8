"""Pseudonyms for a recording, so that it does not tell who was recorded, or on which machine."""

import hashlib
import re
import secrets

# Codes that amplifiers send: at most three letters and a number (R128, S  1, 8).
_CODE = re.compile(r"[A-Za-z]{0,3} *\d{1,5}")
_KEY_BYTES = 32


class Pseudonyms:
    """Digests of one session's names under a key that is not kept.

    Equal names have equal digests within the session, so series and markers can still be told apart. Without
    the key, a digest leads back to no name, and guessed names cannot be tested against it.

    Parameters
    ----------
    key : bytes
        Key of this session, from `new_key`.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def series(self, uid: str) -> str:
        """Return the digest of a series' identity, 16 hexadecimal digits; empty if there is none."""
        return self._digest(uid) if uid else ""

    def marker(self, label: str) -> str:
        """Return a trigger's text if it is a code (``R128``), else its digest, as it may name anything."""
        return label if _CODE.fullmatch(label) else f"marker {self._digest(label)}"

    def _digest(self, name: str) -> str:
        return hashlib.blake2b(name.encode(), key=self._key, digest_size=8).hexdigest()


def new_key() -> bytes:
    """Make a random key."""
    return secrets.token_bytes(_KEY_BYTES)
