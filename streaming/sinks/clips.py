"""Clips as MP4 files with their latents as arrays, and their records as JSON lines."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.disk import private
from rtdecode.disk.lines import JsonLines
from rtdecode.disk.video import write_mp4
from rtdecode.types import Float


class ClipSink:
    """A folder of clips with ``clips.jsonl`` beside it.

    What was emitted stays valid: a clip appears under its name only when it is whole, and a line that
    could not be written to its end is removed again.

    Parameters
    ----------
    out : Path
        Folder of the session.
    simulated : bool
        Whether to put the word ``simulated`` into each file name.

    Attributes
    ----------
    simulated : bool
        The same for the files to come; it may be changed.
    """

    def __init__(self, out: Path, *, simulated: bool) -> None:
        self._out = out
        self.simulated = simulated
        private.folder(out / "clips")
        self._lines = JsonLines(out / "clips.jsonl")

    @property
    def _suffix(self) -> str:
        return "_simulated" if self.simulated else ""

    def save(
        self, clip: int, revision: str, frames: NDArray[np.uint8], fps: float, film: bytes | None = None
    ) -> str:
        """Write a clip.

        Parameters
        ----------
        clip : int
            Number of the clip in the session.
        revision : str
            ``preview``, ``final`` or ``refined``.
        frames : uint8, (frame, row, column, 3)
            The clip.
        fps : float
            Frames per second.
        film : bytes, optional
            The frames as MP4, where they came so.

        Returns
        -------
        str
            The path relative to the folder.
        """
        name = f"clips/clip_{clip:05d}_{revision}{self._suffix}.mp4"
        part = self._out / f"{name}.part"
        try:
            if film is None:
                write_mp4(private.file(part), frames, fps)
            else:
                private.file(part).write_bytes(film)
            part.replace(self._out / name)
        finally:
            part.unlink(missing_ok=True)
        return name

    def save_latent(self, clip: int, revision: str, latent: Float) -> str:
        """Write the latent that the clip was drawn from; return the path relative to the folder."""
        name = f"clips/clip_{clip:05d}_{revision}{self._suffix}.npy"
        np.save(private.file(self._out / name), latent, allow_pickle=False)
        return name

    def append(self, record: dict[str, Any]) -> None:
        """Write one line; it is in the file when this returns."""
        self._lines.append(record)

    def close(self) -> None:
        """Close ``clips.jsonl``."""
        self._lines.close()
