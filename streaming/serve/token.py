"""The token of a decoder: whoever shows it may decode. It lies in a file that its owner alone reads."""

import re
import secrets
import stat
from pathlib import Path

from rtdecode.disk import private
from rtdecode.errors import UsageError

# Bytes of a token: nobody guesses 256 bits.
_TOKEN_BYTES = 32
_TOKEN = re.compile(r"[A-Za-z0-9_-]{20,200}")
_MOST_BYTES = 1024


def read(path: Path) -> str:
    """Read a token.

    Raises
    ------
    UsageError
        If there is none in the file, or others may read it.
    """
    try:
        mode = path.stat().st_mode
        with path.open("rb") as file:
            token = file.read(_MOST_BYTES).decode("latin-1").strip()
    except OSError as error:
        raise UsageError(
            "token-file-unreadable",
            "--token-file {path} cannot be read ({error}). `rtdecode serve` makes one and prints where it "
            "is.",
            path=path,
            error=error.strerror or error,
        ) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(
            "token-file-not-private",
            "--token-file {path} has the mode {mode:03o}: others may read it. Run `chmod 600 {path}`, and "
            "make a new token if others had access.",
            path=path,
            mode=stat.S_IMODE(mode),
        )
    if not _TOKEN.fullmatch(token):
        raise UsageError(
            "token-file-malformed",
            "--token-file {path} holds no token: one line of 20 to 200 letters, digits, - and _ was "
            "expected. `openssl rand -hex 32` prints one.",
            path=path,
        )
    return token


def make(folder: Path) -> Path:
    """Write a new token into a folder; return the file."""
    private.folder(folder)
    path = folder / "token"
    with private.open_file(path) as file:
        file.write(f"{secrets.token_urlsafe(_TOKEN_BYTES)}\n")
    return path
