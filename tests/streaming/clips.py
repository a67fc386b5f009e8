"""Clips from plain values: nothing is decoded, and nothing is written."""

from concurrent.futures import Executor, Future
from typing import Any

import numpy as np

from rtdecode.errors import RtDecodeError
from rtdecode.types import Clip, Window
from streaming.decode.deadline import Job
from streaming.decode.decoder import Decoded
from streaming.sinks.clip_tally import ClipTally
from streaming.sinks.clip_writer import EmittedClip
from streaming.sinks.presence import PresenceLog

FRAMES = np.zeros((33, 4, 6, 3), np.uint8)


def decoded(
    window: Window, steps: int = 4, *, took_s: float = 0.1, bundle: str | None = None, **clip: Any
) -> Decoded:
    """A clip whose stages took as long as each other, from when its window was cut."""
    began_at = window.stamps["windowed"]
    times = [began_at + part * took_s for part in (0.0, 0.25, 0.5, 0.75, 1.0)]
    new_clip = Clip(FRAMES, np.zeros((1, 2), np.float32), clip.pop("scores", None), steps, **clip)
    return Decoded(new_clip, *times, times[2] - times[1], None, [], None, bundle=bundle)


def emitted(
    window: Window, late_s: float = 0.0, *, emitted_at: float | None = None, **how: Any
) -> EmittedClip:
    """A clip that is out, so late after its floor."""
    clip = decoded(window, **how)
    return EmittedClip(
        Job(window, window.index), clip, clip.last_frame_at if emitted_at is None else emitted_at, late_s, {}
    )


def tally(*modalities: str, hop_s: float = 4.0, tr_s: float = 2.0) -> ClipTally:
    """A tally of a session that was asked for some modalities, by default for both."""
    return ClipTally(modalities or ("eeg", "fmri"), PresenceLog(None), hop_s, tr_s)


class Immediately(Executor):
    """Run each call where it is submitted."""

    def submit(self, fn: Any, /, *args: Any, **how: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **how))
        except (OSError, RtDecodeError) as error:
            done.set_exception(error)
        return done
