"""What an evaluation will take: clips, time and room on disk. It is told before, and corrected meanwhile."""

import math
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rtdecode import terminal
from rtdecode.disk.clip_file import IN_MEMORY
from rtdecode.disk.folders import existing
from rtdecode.errors import UsageError
from rtdecode.scores.events import Span
from rtdecode.terminal import duration
from train.config import disk_space
from train.config.run_context import Arrays
from train.evaluation.held_out_sessions import HeldOutSessions
from train.evaluation.reconstruct import Reconstruction
from train.evaluation.result import Decode
from train.evaluation.section import EvaluatedRun, HeldOutWindows

# What is left free on a disk, as a share of what is written.
_SPARE = 0.1
# So many sets of clips of one session lie on disk at once: what a decoder draws, the decoder's own clips, and
# what a metric makes of two sets.
_AT_ONCE = 4
# Windows that are decoded to tell how long a clip takes.
_TRIED = 2
# They are decoded twice, as the first time may compile and load. Where it takes longer than this, that is a
# small part of it, and once is enough, s.
_LONG_S = 20.0
# It is said anew how long an evaluation takes if it turns out to differ by more than this share.
_OFF = 0.25
# Times below this are not worth a correction, s.
_SHORT_S = 60.0


class Outlook:
    """Tells what an evaluation takes, and refuses to begin where the disk has no room for it.

    Parameters
    ----------
    run : EvaluatedRun
        The run, whose decoder is tried on a few windows.
    sessions : HeldOutSessions
        All sessions that are to be decoded, with the number of windows of each.
    first : HeldOutWindows
        Those of the first session.
    decoders : int
        In so many ways the system decodes each window.
    stand_ins : bool
        Whether clips of all sessions are needed at the end.

    Raises
    ------
    UsageError
        If there is no room.
    """

    def __init__(
        self,
        run: EvaluatedRun,
        sessions: HeldOutSessions,
        first: HeldOutWindows,
        decoders: int,
        *,
        stand_ins: bool,
    ) -> None:
        windows = sum(sessions.counts)
        self.clips = windows * decoders
        again = windows if stand_ins and run.decodes_twice else 0
        clip_s, clip_bytes, latent_bytes = _tried(run, first)
        # Clips of a session that are small lie in memory.
        of_session = max(sessions.counts) * clip_bytes
        on_disk = windows * clip_bytes if windows * clip_bytes > IN_MEMORY else 0
        stand_in_bytes = on_disk if stand_ins and not run.decodes_twice and run.show.archive is None else 0
        self.temporary_bytes = (
            on_disk + stand_in_bytes + (_AT_ONCE * of_session if of_session > IN_MEMORY else 0)
        )
        archive = run.show.archive
        self.kept_bytes = 0 if archive is None else self.clips * (clip_bytes + latent_bytes)
        self._check_room(None if archive is None else archive.folder)
        self.seconds = (self.clips + again) * clip_s
        self._sessions = len(sessions.counts)
        self._begun = time.monotonic()
        self._told_s = self.seconds
        self._tell(sessions, windows, decoders, clip_s)

    def _tell(self, sessions: HeldOutSessions, windows: int, decoders: int, clip_s: float) -> None:
        of_more = f" (drawn of {sessions.available})" if windows < sessions.available else ""
        ways = "1 way" if decoders == 1 else f"{decoders} ways"
        disk = self.kept_bytes + self.temporary_bytes
        terminal.say(
            f"{sessions.title}: {windows} held-out windows{of_more}, each decoded in {ways}: "
            f"{self.clips} clips. Decoding takes about {duration(self.seconds)} at {clip_s:.2g} s a clip, "
            f"and their metrics more; clips take {disk / 1e9:.1f} GB of disk."
        )

    def after(self, done: int) -> None:
        """Say how long it takes in all, after so many sessions, if that is not what was said."""
        elapsed_s = time.monotonic() - self._begun
        in_all_s = elapsed_s / done * self._sessions
        if done < self._sessions and in_all_s > _SHORT_S and abs(in_all_s / self._told_s - 1) > _OFF:
            terminal.say(
                f"{done} of {self._sessions} sessions took {duration(elapsed_s)}: with its metrics, the "
                f"evaluation takes about {duration(in_all_s)}, and not {duration(self._told_s)}."
            )
            self._told_s = in_all_s

    def _check_room(self, archive_folder: Path | None) -> None:
        # Two folders may lie on one disk.
        needed: dict[int, int] = defaultdict(int)
        folders: dict[int, Path] = {}
        temporary = Path(tempfile.gettempdir())
        sizes = {temporary: self.temporary_bytes}
        if archive_folder is not None:
            stored_bytes = sum(file.stat().st_size for file in archive_folder.rglob("*") if file.is_file())
            sizes[existing(archive_folder)] = max(0, self.kept_bytes - stored_bytes)
        for folder, size in sizes.items():
            disk = os.stat(folder).st_dev
            needed[disk] += size
            folders[disk] = folder
        for disk, size in needed.items():
            if lack := disk_space.lacking(folders[disk], size * (1 + _SPARE)):
                raise UsageError(
                    "evaluation-no-room",
                    "the clips of this evaluation take {needed_gb:.1f} GB in {folder}, and {free_gb:.1f} GB "
                    "are free. Make room, name another disk (keep=DIR, and TMPDIR for temporary files), draw "
                    "fewer windows (windows=N), or give train.evaluate keep=none, which keeps no clips and "
                    "decodes some of them twice.",
                    **lack,
                )


def _tried(run: EvaluatedRun, first: HeldOutWindows) -> tuple[float, int, int]:
    """Decode a few windows; return seconds and bytes of a clip, and bytes of its latents."""
    show = run.show.anew()
    inputs = {name: values[:_TRIED] for name, values in first.inputs.items()}
    spans = first.spans[:_TRIED]
    decoded, seconds = _timed(show, inputs, spans)
    if seconds < _LONG_S:
        decoded, seconds = _timed(show, inputs, spans)
    clip = decoded.clips[0]
    return seconds / len(decoded.clips), math.prod(clip.shape), np.asarray(decoded.latents[0]).nbytes


def _timed(show: Decode, inputs: Arrays, spans: Sequence[Span]) -> tuple[Reconstruction, float]:
    start_s = time.perf_counter()
    decoded = show(inputs, spans)
    return decoded, time.perf_counter() - start_s
