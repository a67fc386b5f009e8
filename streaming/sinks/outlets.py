"""Send every emitted clip on LSL streams: its message, its condition, and its scores.

All streams have an irregular rate. The samples of one clip have the same time stamp on all of them: the
moment of sending.
"""

import time
from typing import Any

from rtdecode.bundle import Manifest
from rtdecode.bundle import condition as conditions
from rtdecode.errors import UsageError
from rtdecode.liblsl import pylsl
from rtdecode.types import Float
from streaming.client import SOURCE, SUFFIX

# Time given to the last samples to reach their readers before the streams are closed, s.
_GRACE = 0.7


class ClipOutlets:
    """The streams ``NAME-clips``, ``NAME-condition`` and ``NAME-scores``.

    Parameters
    ----------
    name : str
        NAME, with which the names of the streams begin.
    manifest : Manifest
        A bundle without a condition or without named categories has no such stream.

    Raises
    ------
    UsageError
        If the name is empty or does not print.
    """

    def __init__(self, name: str, manifest: Manifest) -> None:
        if not name.strip() or not name.isprintable():
            raise UsageError(
                "outlet-name-invalid",
                "--outlet {outlet!r} names no LSL stream. Give a word, for example --outlet lab.",
                outlet=name,
            )
        self._clips: pylsl.StreamOutlet | None = _outlet(name, SUFFIX, "Markers", ["clip"], pylsl.cf_string)
        self._names = [f"{name}{SUFFIX}"]
        self._condition: pylsl.StreamOutlet | None = None
        self._scores: pylsl.StreamOutlet | None = None
        values = conditions.labels(manifest)
        # The types are names of their own: no session takes these streams for EEG or for triggers.
        if values:
            self._condition = _outlet(name, "-condition", "Condition", values, pylsl.cf_float32)
            self._names.append(f"{name}-condition")
        if manifest.labels:
            self._scores = _outlet(name, "-scores", "Scores", manifest.labels, pylsl.cf_float32)
            self._names.append(f"{name}-scores")

    @property
    def name(self) -> str:
        """The names of the streams."""
        return f"LSL {', '.join(self._names)}"

    def send(self, message: dict[str, Any], text: str, condition: Float | None) -> None:
        """Push a clip; the library sends it in threads of its own, and drops what nobody takes."""
        now = pylsl.local_clock()
        if self._clips is not None:
            self._clips.push_sample([text], now)
        # A fallback may have a condition of other values, which this stream has no room for.
        if self._condition is not None and condition is not None:
            self._condition.push_sample(condition.tolist(), now)
        if self._scores is not None and "scores" in message:
            self._scores.push_sample(list(message["scores"].values()), now)

    def close(self) -> None:
        """Close the streams; where somebody reads them, once the last clip has had time to arrive."""
        outlets = [outlet for outlet in (self._clips, self._condition, self._scores) if outlet is not None]
        if any(outlet.have_consumers() for outlet in outlets):
            time.sleep(_GRACE)
        # A stream ends with its object.
        self._clips = self._condition = self._scores = None


def _outlet(name: str, suffix: str, kind: str, labels: list[str], form: int) -> pylsl.StreamOutlet:
    """Open one stream with the names of its channels."""
    stream = f"{name}{suffix}"
    info = pylsl.StreamInfo(stream, kind, len(labels), pylsl.IRREGULAR_RATE, form, f"{SOURCE}{stream}")
    info.desc().append_child_value("manufacturer", "rtdecode")
    channels = info.desc().append_child("channels")
    for label in labels:
        channel = channels.append_child("channel")
        channel.append_child_value("label", label)
        channel.append_child_value("type", kind)
    return pylsl.StreamOutlet(info)
