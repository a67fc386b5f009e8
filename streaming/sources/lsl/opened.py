"""Which EEG stream a session opened, and whether a stream on the network is that one again.

A stream is known by its name, its computer and its source id, or by its name, its computer and its channels
where it has no source id. A program that makes a new source id at every start is known by its channels and
its rate: it is read, and its windows say so. Every other stream may carry another person's signals.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rtdecode.liblsl import pylsl
from rtdecode.types import Montage

# A stream was there beside the opened one if samples of the latter came so long after it was first seen, s:
# discovery lists a stream that has gone for some seconds, and its last samples may be on their way.
_BESIDE_S = 1.0


def describe(info: pylsl.StreamInfo) -> str:
    """Name a stream, its computer and its source id, for the terminal."""
    source_id = f"source id '{info.source_id()}'" if info.source_id() else "no source id"
    return f"'{info.name()}' of {info.hostname()} ({info.type() or 'no type'}, {source_id})"


@dataclass(slots=True)
class OpenedStream:
    """The stream that a session stays with.

    Attributes
    ----------
    name, host : str
        Name of the stream, and of the computer that sends it.
    label : str
        Both and its source id, for the terminal.
    matched_by : str
        What of it was asked for: ``name``, ``type`` or ``source id``.
    channels : tuple of str
        In the order of the stream that was opened first.
    sfreq : float
        Nominal rate of the stream that was opened first, Hz.
    keys : list of str and tuple of str
        What identifies each source that it was read from, the opened one first: its source id, or else its
        channels.
    beside : set of str
        Uids and source ids of streams that were there while the opened one sent.
    first_seen : dict
        Uid of a stream of the same name and computer -> when it was first there, s on the local clock.
    """

    name: str
    host: str
    label: str
    matched_by: str
    channels: tuple[str, ...]
    sfreq: float
    keys: list[str | tuple[str, ...]]
    beside: set[str] = field(default_factory=set)
    first_seen: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_info(cls, info: pylsl.StreamInfo, montage: Montage, matched_by: str) -> "OpenedStream":
        """Make it of the stream that is opened first."""
        return cls(
            info.name(),
            info.hostname(),
            describe(info),
            matched_by,
            montage.channels,
            montage.sfreq,
            [info.source_id() or montage.channels],
        )

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "OpenedStream":
        """Make again what another process gave as `to_json`."""
        plain = {name: tree[name] for name in ("name", "host", "label", "matched_by", "sfreq")}
        keys = [key if isinstance(key, str) else tuple(key) for key in tree["keys"]]
        return cls(**plain, channels=tuple(tree["channels"]), keys=keys, beside=set(tree["beside"]))

    def to_json(self) -> dict[str, Any]:
        """Return what the next acquisition process has to know, as plain values."""
        plain = {name: getattr(self, name) for name in ("name", "host", "label", "matched_by", "sfreq")}
        keys = [key if isinstance(key, str) else list(key) for key in self.keys]
        return {**plain, "channels": list(self.channels), "keys": keys, "beside": sorted(self.beside)}

    def watch(self, streams: Iterable[pylsl.StreamInfo], uid: str, data_at: float | None, now: float) -> None:
        """Note which streams are there while the opened one sends: none of them is the opened one.

        Parameters
        ----------
        streams : iterable of pylsl.StreamInfo
            All streams on the network.
        uid : str
            Of the open stream.
        data_at : float or None
            When its newest samples came, s on the local clock.
        now : float
            s on the local clock.
        """
        for info in streams:
            if info.uid() == uid or (info.name(), info.hostname()) != (self.name, self.host):
                continue
            seen_at = self.first_seen.setdefault(info.uid(), now)
            # An id that the session has read is its own, whatever discovery still lists.
            if data_at is not None and data_at - seen_at > _BESIDE_S and not self.knows(info):
                # Made anew, as another thread may be reading it.
                self.beside = self.beside | {info.uid(), info.source_id()} - {""}

    def knows(self, info: pylsl.StreamInfo) -> bool:
        """Return whether a stream has a source id that the session has read."""
        return info.source_id() in self.keys

    def again(self, streams: Iterable[pylsl.StreamInfo]) -> list[pylsl.StreamInfo]:
        """Return the streams that may be the opened one, by all that is known before they are opened."""
        alike = [s for s in streams if (s.name(), s.hostname()) == (self.name, self.host)]
        return [s for s in alike if self.knows(s) or not {s.uid(), s.source_id()} & self.beside]

    def number(self, source_id: str, montage: Montage) -> int | None:
        """Return the number of the source that a stream of this name and computer is, 0 for the opened one.

        Parameters
        ----------
        source_id : str
            The stream's source id; empty if it has none.
        montage : Montage
            As the stream states it, in the order of the opened one.

        Returns
        -------
        int or None
            A number that has not been before is a source that nobody has confirmed. None if it is another
            amplifier: its source id is another one, and so are its channels or its rate.
        """
        complete = set(self.channels) <= set(montage.channels)
        if source_id in self.keys:
            return self.keys.index(source_id)
        nameless = [isinstance(key, tuple) for key in self.keys]
        if not source_id:
            matches = [
                i for i, key in enumerate(self.keys) if nameless[i] and set(key) <= set(montage.channels)
            ]
            if matches:
                return matches[0]
        if (source_id or not any(nameless)) and not (complete and montage.sfreq == self.sfreq):
            return None
        self.keys.append(source_id or montage.channels)
        return len(self.keys) - 1
