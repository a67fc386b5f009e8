"""Finals that are out go into the film, the contact sheet and the archive, when there is time for it.

That takes as long as decoding: truth and null-brain twin are drawn beside each final. In a live session it is
done when no window waits.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdecode.types import Clip, Window
from streaming.decode.deadline import Job
from streaming.decode.decoder import Decoded
from streaming.sinks.clip_tally import likeliest
from streaming.sinks.film import FilmSink
from streaming.sinks.session_folder import writing
from streaming.sinks.sheet import ContactSheet
from streaming.sinks.truth import Archive, Truth

Frames = NDArray[np.uint8]
# Decodes the null-brain twin of a window's clip; returns None where there is none.
MakeTwin = Callable[[Window, Clip], Frames | None]
# Writes the twin of a window; returns the file's path in the session's folder.
SaveTwin = Callable[[Job, Frames], str]

TWIN_TITLE = "null brain (same noise, no signal)"
# Grey level that stands for a twin which a decoder elsewhere did not draw.
_NO_TWIN = 128


@dataclass(frozen=True, slots=True)
class FinalSinks:
    """What finals are archived in.

    Attributes
    ----------
    film : FilmSink
        The session's film, to which each window adds a hop.
    sheet : ContactSheet
        A picture of clips from all over the session.
    pairs : Archive
        Finals with their truths and twins, until they are compared.
    """

    film: FilmSink
    sheet: ContactSheet
    pairs: Archive


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A window that is to be archived: its clip, None where it was skipped, and how late that was, s."""

    job: Job
    decoded: Decoded | None = None
    late_s: float = 0.0


class FinalArchiver:
    """Archive finals and skipped windows in order.

    Parameters
    ----------
    sinks : FinalSinks
        Where finals are archived.
    truth : Truth
        What was shown, for film, sheet and scores.
    hop_frames : int
        Frames shown per window.
    make_twin : callable
        Decodes the null-brain twin of a window's clip; returns None where there is none.
    save_twin : callable
        Writes the twin of a window; returns the file's path in the session's folder.
    twin_shown : bool
        Whether film and sheet show each final's null-brain twin. Where the truth is known, a bundle that
        denoises is compared with its twins in any case.

    Attributes
    ----------
    twins_wanted : bool
        Whether to write the twin of each final beside it from here on; it may be changed.
    newest_twin : tuple of (int, str), or None
        Number of the final whose twin was written last, and the twin's file in the session's folder.
    """

    def __init__(
        self,
        sinks: FinalSinks,
        truth: Truth,
        hop_frames: int,
        make_twin: MakeTwin,
        save_twin: SaveTwin,
        *,
        twin_shown: bool = False,
    ) -> None:
        self._sinks = sinks
        self._truth = truth
        self._hop = hop_frames
        self._make_twin = make_twin
        self._save_twin = save_twin
        self._twin_shown = twin_shown
        self._waiting: deque[_Waiting] = deque()
        self.twins_wanted = False
        self.newest_twin: tuple[int, str] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, job: Job, decoded: Decoded, late_s: float) -> None:
        """Let a final that is out wait for its turn."""
        self._waiting.append(_Waiting(job, decoded, late_s))

    def add_skipped(self, job: Job) -> None:
        """Let a window without a clip wait for its turn: in the film, windows stand in order."""
        self._waiting.append(_Waiting(job))

    def archive_next(self) -> None:
        """Put the oldest window that waits into the film, and a final into sheet and archive too."""
        waiting = self._waiting.popleft()
        if waiting.decoded is not None:
            self._archive(waiting.job, waiting.decoded, waiting.late_s)
            return
        with writing():
            self._sinks.film.skip(waiting.job.window)

    def archive_down_to(self, max_waiting: int) -> None:
        """Archive until at most so many windows wait."""
        while len(self._waiting) > max_waiting:
            self.archive_next()

    def clear(self) -> None:
        """Leave out what waits: nothing can be written any more."""
        self._waiting.clear()

    def annotate(self, note: str) -> None:
        """Change the sentence under all frames to come, and above the sheet."""
        self._sinks.film.note = note
        self._sinks.sheet.note = note

    def save_sheet(self, path: Path) -> None:
        """Draw the contact sheet."""
        self._sinks.sheet.save(path)

    def close_film(self) -> None:
        """Finish the film."""
        self._sinks.film.close()

    def close_pairs(self) -> None:
        """Delete the temporary file of the clips that were compared."""
        self._sinks.pairs.close()

    def _archive(self, job: Job, decoded: Decoded, late_s: float) -> None:
        # The clip is out, and waits for nothing that is done here. What reads the truth stays outside
        # `writing`, as an error of its files is no fault of the session's folder.
        window = job.window
        frames = decoded.clip.frames
        is_own = decoded.bundle is None
        truth = self._truth.clip(window)
        word = self._truth.category(window)
        is_compared = truth is not None and decoded.clip.steps > 0
        twin_needed = self._twin_shown or is_compared or self.twins_wanted
        # A fallback's clip has no twin, and counts for no figure of the session's bundle.
        twin = self._make_twin(window, decoded.clip) if twin_needed and is_own else None
        # Clips and twins are compared in pairs: without its twin, a clip is not compared.
        compared = truth if is_own and (twin is not None or not twin_needed) else None
        twin_panel = twin if self._twin_shown else None
        if self._twin_shown and twin is None:
            twin_panel = np.full_like(frames, _NO_TWIN)
        shown_hop = None if twin_panel is None else twin_panel[: self._hop]
        category = likeliest(decoded.clip.scores)
        late = f"LATE {late_s:.1f} s" if late_s else ""
        by = "" if is_own else "FALLBACK"
        label = "   ".join(part for part in (f"window {window.index}", category, by, late) if part)
        with writing():
            self._sinks.film.write(window, frames, truth, word, twin_panel, category=category, late=late)
            self._sinks.sheet.add(label, frames[: self._hop], truth, word, shown_hop)
            self._sinks.pairs.add(window, decoded.clip, compared, twin)
            if twin is not None and self.twins_wanted:
                self.newest_twin = (job.clip, self._save_twin(job, twin))
