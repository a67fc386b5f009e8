"""Sound of a film's file, cut where windows lie: one channel at the rate that models of speech take."""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import av
import av.error
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from numpy.typing import NDArray

from rtdecode.disk.film_file import video_of
from train.data.layouts.film_clips import unreadable

# Samples a second.
SOUND_HZ = 16_000
# A file is sought to an instant so long before the one that is wanted, s: its sound may be stored some way
# behind the picture that it belongs to.
_BEFORE_S = 1.0

Film = Path | BinaryIO
"""A file, or its content."""


def has_sound(film: Film, name: object = None) -> bool:
    """Say whether a film's file has a sound track.

    Parameters
    ----------
    film : path or binary file
        Path of the film, or its file, opened to be read.
    name : optional
        What an error calls the film, where it is no path.

    Raises
    ------
    UsageError
        If it cannot be read as a film.
    """
    try:
        with _opened(film) as container:
            return bool(container.streams.audio)
    except (OSError, av.error.FFmpegError) as error:
        raise unreadable(name or film, error) from error


def film_sound(
    film: Film, starts_s: Sequence[float] | NDArray[np.float64], seconds: float, name: object = None
) -> NDArray[np.float32]:
    """Cut the sound of a film.

    Parameters
    ----------
    film : path or binary file
        Path of the film, or its file, opened to be read.
    starts_s : (clip,)
        Film times at which the clips begin, s.
    seconds : float
        Length of a clip, s.
    name : optional
        What an error calls the film, where it is no path.

    Returns
    -------
    float32, (clip, sample)
        16 kHz, the mean of all channels, full scale 1. Where the film has no sound, it is 0.

    Raises
    ------
    UsageError
        If the file cannot be read as a film.
    """
    count = round(seconds * SOUND_HZ)
    sound = np.zeros((len(starts_s), count), np.float32)
    try:
        with _opened(film) as container:
            if not container.streams.audio:
                return sound
            zero_s = _picture_begins_s(container)
            for clip, start_s in zip(sound, starts_s, strict=True):
                _fill(clip, container, container.streams.audio[0], zero_s + float(start_s))
    except (OSError, av.error.FFmpegError) as error:
        raise unreadable(name or film, error) from error
    return sound


def _picture_begins_s(container: InputContainer) -> float:
    """Return when the film's picture begins on its file's own clock, s."""
    stream = video_of(container)
    return 0.0 if stream is None else float((stream.start_time or 0) * (stream.time_base or 0))


def _fill(clip: NDArray[np.float32], container: InputContainer, stream: AudioStream, at_s: float) -> None:
    """Decode the sound from an instant of the file's own clock on, until the clip is full."""
    container.seek(int(max(0.0, at_s - _BEFORE_S) * av.time_base))
    # It keeps the channels: FFmpeg's own way to one channel is no mean, and may exceed full scale.
    resampler = av.AudioResampler(format="fltp", rate=SOUND_HZ)
    # Place in the clip of the next sample; it is negative before the clip begins.
    place: int | None = None
    for frame in container.decode(stream):
        if place is None:
            place = round(((frame.time or 0.0) - at_s) * SOUND_HZ)
        for part in resampler.resample(frame):
            place = _put(clip, part.to_ndarray().mean(axis=0), place)
        if place >= len(clip):
            return
    # What the resampler still holds at the end of the film.
    for part in resampler.resample(None) if place is not None else ():
        place = _put(clip, part.to_ndarray().mean(axis=0), place or 0)


def _put(clip: NDArray[np.float32], samples: NDArray[np.float32], place: int) -> int:
    """Put samples where they belong, as far as they lie in the clip; return the place behind them."""
    after = place + len(samples)
    first = max(place, 0)
    last = min(after, len(clip))
    if first < last:
        clip[first:last] = samples[first - place : last - place]
    return after


def _opened(film: Film) -> InputContainer:
    return av.open(str(film) if isinstance(film, Path) else film, "r")
