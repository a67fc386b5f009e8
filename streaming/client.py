"""Receive the clips of a live session in a program of your own, on this machine or another one.

::

    from streaming.client import Clips

    for clip in Clips("lab"):
        if clip.revision == "final" and clip.confidence is not None and clip.confidence > 0.8:
            print(clip.clip, clip.window_s, clip.scores)

`rtdecode stream --outlet lab` sends them on the LSL stream ``lab-clips``. Of the larger packages this module
needs pylsl alone.
"""

import json
import time
from dataclasses import MISSING, dataclass, fields
from typing import Any, Self

from rtdecode.errors import RtDecodeError, UsageError
from rtdecode.liblsl import LostError, LslTimeoutError, pylsl

# End of the name of the stream of clips.
SUFFIX = "-clips"
# Start of the source id of every stream that a session sends.
SOURCE = "rtdecode-session-"
# Interval at which a stream that is not there is looked for, s.
_LOOK_EVERY = 0.1
# Longest single wait for a sample, s; between two waits, Ctrl-C is heard and the stream is looked for.
_PULL_S = 0.2
# Time within which a stream that has been announced must answer, s.
_OPEN_S = 5.0
# A stream that has not been announced for so long has gone, s.
_GONE_AFTER = 5.0
# Names of streams that an error lists.
_MOST_SEEN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SentClip:
    """What a session sends of one clip; most values are those of its line in ``clips.jsonl``.

    Attributes
    ----------
    clip, run : int
        Number of the clip in the session, and of its run, from 0.
    revision : str
        ``preview``, ``final`` or ``refined``. Revisions of one window have one number.
    late : bool
        Whether it was emitted when the next clip was due already.
    window_s : tuple of float
        Start and stop of the stimulus time that the clip shows, on the time line of its run, s.
    session_s : tuple of float
        The same on the session's time line, s.
    missing : dict
        Modality -> share of its grid that was not received.
    eeg_quality : dict or None
        Shares of the EEG samples by what was done to them; None without EEG.
    confidence : float or None
        Probability that the clip wins its 2-way identification; None where the bundle was not calibrated.
    brain : float or None
        Probability that the window holds a brain that the bundle can read; None where it does not tell.
    steps : int
        Denoising steps.
    simulated : bool
        Whether a source says that the participant is simulated.
    beyond_floor_ms : float or None
        Time from the moment when the window's last input could first be read to the clip's emission, ms.
    scores : dict or None
        Category -> probability, where the bundle decodes named categories.
    bundle_simulated : bool or None
        Whether the bundle was made for a simulated brain; None from a session that does not tell.
    eeg_source : str or None
        ``opened``, ``changed`` or ``confirmed``: whether the EEG is of the stream that the session opened;
        None without EEG.
    brain_by : dict or None
        For ``eeg`` and ``fmri``, the same as `brain` of each alone; None where the window lacks it. None as a
        whole where the bundle does not tell.
    detail : float or None
        Share of the detail that no brain told and that the clip keeps; None where the bundle has no choice.
    recorded : dict or None
        Name -> values that the bundle wants to be said of each clip, such as rows of its memory.
    sent_at : float
        When it was sent, on the LSL clock of the session's machine, s.
    """

    clip: int
    run: int
    revision: str
    late: bool
    window_s: tuple[float, float]
    session_s: tuple[float, float]
    missing: dict[str, float]
    eeg_quality: dict[str, float] | None
    confidence: float | None
    brain: float | None
    steps: int
    simulated: bool
    beyond_floor_ms: float | None
    scores: dict[str, float] | None = None
    bundle_simulated: bool | None = None
    eeg_source: str | None = None
    brain_by: dict[str, float | None] | None = None
    detail: float | None = None
    recorded: dict[str, list[float]] | None = None
    sent_at: float = 0.0


# What a message must hold, and what it may hold.
REQUIRED = tuple(attribute.name for attribute in fields(SentClip) if attribute.default is MISSING)
OPTIONAL = ("scores", "bundle_simulated", "eeg_source", "brain_by", "detail", "recorded")


class Clips:
    """The clips of a session as they come: an iterator over `SentClip`.

    It starts with the first clip that is sent after it was made, and ends when the session has ended: once
    its stream has been gone for five seconds. It may be used in a ``with`` block.

    Parameters
    ----------
    name : str
        What the session was given as ``--outlet``.
    timeout : float, optional
        Longest time without a clip, s; by default there is no limit. After the error of a clip that did not
        come, the iteration may go on.
    wait : float
        Longest time to wait for the session's stream, s.

    Raises
    ------
    UsageError
        If the name is empty, or `timeout` or `wait` is no number from 0 on.
    RtDecodeError
        If there is no such stream within `wait`, it does not answer, no clip comes within `timeout`, or
        something else than a clip comes.
    """

    def __init__(self, name: str, *, timeout: float | None = None, wait: float = 30.0) -> None:
        if not name:
            raise UsageError(
                "clip-stream-unnamed",
                "Clips('') names no stream. Give what the session was given as --outlet.",
            )
        # The comparisons are false for NaN too, with which nothing would ever end.
        if not wait >= 0 or not (timeout is None or timeout >= 0):
            raise UsageError(
                "clip-stream-wait-invalid",
                "Clips has wait {wait_s} and timeout {timeout_s}: seconds from 0 on were expected. "
                "Leave out timeout to wait for ever.",
                wait_s=wait,
                timeout_s=timeout,
            )
        self.stream = f"{name}{SUFFIX}"
        self._name = name
        self._timeout = timeout
        self._resolver: pylsl.ContinuousResolver | None = pylsl.ContinuousResolver(forget_after=_GONE_AFTER)
        info = self._find(self._resolver, wait)
        self._uid = info.uid()
        # An inlet without the library's recovery would drop what has arrived when its sender goes.
        self._inlet: pylsl.StreamInlet | None = pylsl.StreamInlet(info, recover=True)
        try:
            self._inlet.open_stream(timeout=_OPEN_S)
        except (LslTimeoutError, LostError) as error:
            self.close()
            raise RtDecodeError(
                "clip-stream-unreachable",
                "the LSL stream {stream} is announced by {host} but does not answer. Open the TCP "
                "ports 16572 to 16604 of that machine, or start the session again.",
                stream=self.stream,
                host=info.hostname(),
            ) from error

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> SentClip:
        silent_from = time.monotonic()
        while self._inlet is not None and self._resolver is not None:
            try:
                sample, stamp = self._inlet.pull_sample(timeout=_PULL_S)
            except LostError:
                break
            if sample is not None and stamp is not None:
                return parse(str(sample[0]), stamp, self.stream)
            if self._uid not in {stream.uid() for stream in self._resolver.results()}:
                break
            if self._timeout is not None and time.monotonic() - silent_from >= self._timeout:
                raise RtDecodeError(
                    "clip-stream-timeout",
                    "no clip came on the LSL stream {stream} within {timeout_s:g} s. The session is "
                    "still there: look at what its terminal says of its sources, or give a longer "
                    "timeout.",
                    stream=self.stream,
                    timeout_s=self._timeout,
                )
        self.close()
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the stream; the iteration ends. Closing twice does nothing."""
        self._inlet = None
        self._resolver = None

    def _find(self, resolver: pylsl.ContinuousResolver, wait: float) -> pylsl.StreamInfo:
        """Wait for the stream; where several have its name, take the one that was opened last."""
        last = time.monotonic() + wait
        while True:
            streams = resolver.results()
            matches = [stream for stream in streams if stream.name() == self.stream]
            if matches:
                return max(matches, key=lambda stream: stream.created_at())
            if time.monotonic() >= last:
                break
            time.sleep(_LOOK_EVERY)
        available = ", ".join(sorted({stream.name() for stream in streams})[:_MOST_SEEN]) or "none"
        raise RtDecodeError(
            "clip-stream-missing",
            "there is no LSL stream {stream} after {wait_s:g} s; seen on this network: {available}. "
            "Start `rtdecode stream --outlet {outlet} ...`, give the name that it was given, or a "
            "longer wait. If it runs on another machine, see that both are on one network, or give "
            "rtdecode.liblsl.reach its host.",
            stream=self.stream,
            wait_s=wait,
            available=available,
            outlet=self._name,
        )


def parse(text: str, sent_at: float, stream: str) -> SentClip:
    """Read one message of a stream of clips.

    Parameters
    ----------
    text : str
        The JSON object. Keys that are not known are passed over: a later version may send more.
    sent_at : float
        Its LSL time stamp, s.
    stream : str
        Name of the stream, for the error.

    Raises
    ------
    RtDecodeError
        If it is no such object.
    """
    try:
        tree: Any = json.loads(text)
    except ValueError:
        tree = None
    if not isinstance(tree, dict) or not set(REQUIRED) <= tree.keys():
        raise RtDecodeError(
            "clip-stream-malformed",
            "the LSL stream {stream} sent {sample!r}, which is no clip of a session. Another program "
            "has a stream of this name: give the session another --outlet.",
            stream=stream,
            sample=text[:80],
        )
    values = {name: tree[name] for name in (*REQUIRED, *OPTIONAL) if name in tree}
    spans = {name: tuple(values[name]) for name in ("window_s", "session_s")}
    return SentClip(**{**values, **spans, "sent_at": sent_at})
