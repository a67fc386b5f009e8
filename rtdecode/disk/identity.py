"""What a recording keeps in place of names, so that it does not say who was recorded, or on which machine."""

import hashlib
import re
import secrets

# What amplifiers send: at most three letters and a number (R128, S  1, 8).
_CODE = re.compile(r"[A-Za-z]{0,3} *\d{1,5}")
_KEY_BYTES = 32


class Pseudonyms:
    """Names of one session, as digests under a key that is not kept.

    Equal names have equal digests within the session, so that series and markers are still told apart.
    Without the key a digest leads back to no name, and nobody can try names out.

    Parameters
    ----------
    key : bytes
        Of this session (`new_key`).
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def series(self, uid: str) -> str:
        """Digest of a series' identity, 16 hexadecimal digits; empty where there is none."""
        return self._digest(uid) if uid else ""

    def marker(self, label: str) -> str:
        """A trigger's text where it is a code (``R128``); else its digest, as it may name anything."""
        return label if _CODE.fullmatch(label) else f"marker {self._digest(label)}"

    def _digest(self, name: str) -> str:
        return hashlib.blake2b(name.encode(), key=self._key, digest_size=8).hexdigest()


def new_key() -> bytes:
    """Make a key at random."""
    return secrets.token_bytes(_KEY_BYTES)
