"""The pictures of a session's clips, read from its folder and made once for all viewers."""

import threading
from pathlib import Path
from typing import Any

from rtdecode.disk.video import Frames, read_mp4
from streaming.page.strip import strip

# Clips whose pictures are kept.
MAX_CACHED = 12


class Pictures:
    """Make a picture of a clip when it is first asked for.

    Parameters
    ----------
    folder : Path
        The session's ``--out``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[tuple[int, str], bytes] = {}
        # Held while a picture is made: several viewers ask for the same one at the same time.
        self._making = threading.Lock()

    def of(self, number: int, name: str, file: str | None) -> bytes | None:
        """Return the picture of a clip's file; None where the file is unknown or gone.

        Parameters
        ----------
        number : int
            Of the clip.
        name : str
            The clip's revision, or ``twin``.
        file : str or None
            Relative to the folder.
        """
        if file is None:
            return None
        with self._making:
            if (number, name) not in self._made:
                frames = self.frames(file)
                if frames is None:
                    return None
                self._made[number, name] = strip(frames)
                forget(self._made)
            return self._made[number, name]

    def frames(self, file: str) -> Frames | None:
        """Read a clip; None if it is gone."""
        try:
            return read_mp4(self._folder / file)
        except OSError:
            # The folder was emptied or moved away.
            return None

    def clear(self) -> None:
        """Forget every picture."""
        with self._making:
            self._made.clear()


def forget(cache: dict[Any, Any]) -> None:
    """Forget the oldest of what is kept, beyond `MAX_CACHED`."""
    while len(cache) > MAX_CACHED:
        del cache[next(iter(cache))]
