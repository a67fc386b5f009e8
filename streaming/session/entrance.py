"""The file in a session's folder that leads a browser to the page.

A browser is started with a command line that other accounts of the machine can read. So it is told a file
that they cannot, and the token stands in there.
"""

import errno
import os
import stat
from html import escape
from pathlib import Path

from rtdecode.disk import private
from streaming.address import Address

NAME = "page.html"
_FILE = 0o600
_GROUP_AND_WORLD = stat.S_IRWXG | stat.S_IRWXO


def write(folder: Path, address: Address) -> Path:
    """Write the file anew, and return its path.

    Raises
    ------
    OSError
        If it cannot be written, or others could read it there.
    """
    path = folder / NAME
    path.unlink(missing_ok=True)
    url = escape(address.local_url)
    # Made anew, so that no link of somebody else's is followed.
    with private.open_file(path, "x", encoding="utf-8") as file:
        try:
            _close_to_others(file.fileno())
            file.write(
                '<!doctype html><html lang="en"><meta charset="utf-8"><title>rtdecode</title>\n'
                '<meta name="referrer" content="no-referrer">\n'
                f'<meta http-equiv="refresh" content="0; url={url}">\n'
                f'<p><a href="{url}">The session\'s page</a></p></html>\n'
            )
        except OSError:
            path.unlink()
            raise
    return path


def _close_to_others(descriptor: int) -> None:
    """Close an empty file also to the group: whoever has the token can delete the session.

    Raises
    ------
    OSError
        If its file system does not keep that.
    """
    os.fchmod(descriptor, _FILE)
    if os.fstat(descriptor).st_mode & _GROUP_AND_WORLD:
        raise PermissionError(errno.EPERM, "others can read what is written there")
