"""Where an emitted clip goes besides the session's folder: to LSL streams, and by OSC over UDP.

Each clip is sent once its line is in ``clips.jsonl``. No output waits for whoever receives. An output that
fails is named once, and the session goes on.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from rtdecode import strict_json
from rtdecode.bundle import Manifest
from rtdecode.types import Float
from streaming.client import OPTIONAL, REQUIRED
from streaming.decode.decoder import Decoded


class Publisher(Protocol):
    """One way out."""

    @property
    def name(self) -> str:
        """What it is, for the terminal."""
        ...

    def send(self, message: dict[str, Any], text: str, condition: Float | None) -> None:
        """Send a clip without waiting.

        Parameters
        ----------
        message : dict
            See `message_of`.
        text : str
            The same as compact JSON.
        condition : float32, (value,)
            What the encoder told the next stage; None where it was not asked for.

        Raises
        ------
        OSError, RuntimeError
            If it cannot be sent.
        """
        ...

    def close(self) -> None:
        """Close it."""
        ...


class Publishers:
    """All ways out of a session.

    Parameters
    ----------
    outputs : sequence of Publisher
        Where clips are sent; none by default.
    """

    def __init__(self, outputs: Sequence[Publisher] = ()) -> None:
        self._outputs = outputs
        self._failed: set[str] = set()
        self._notes: list[str] = []

    @property
    def names(self) -> list[str]:
        """What the outputs are, for the terminal."""
        return [output.name for output in self._outputs]

    def send(self, record: dict[str, Any], decoded: Decoded) -> None:
        """Send a clip to every output.

        Parameters
        ----------
        record : dict
            Its line in ``clips.jsonl``.
        decoded : Decoded
            The clip, with its condition if it has one.
        """
        if not self._outputs:
            return
        message = message_of(record)
        text = strict_json.dumps(message, separators=(",", ":"))
        for output in self._outputs:
            try:
                output.send(message, text, decoded.condition)
            except (OSError, RuntimeError) as error:
                self._fail(output.name, error)

    def notes(self) -> list[str]:
        """Return sentences on outputs that have failed since the last call; they may name hosts."""
        fresh = self._notes
        self._notes = []
        return fresh

    def close(self) -> None:
        """Close every output."""
        for output in self._outputs:
            output.close()

    def _fail(self, name: str, error: OSError | RuntimeError) -> None:
        if name in self._failed:
            return
        self._failed.add(name)
        self._notes.append(
            f"a clip could not be sent to {name} ({error}). Check the receiver and the network. Decoding "
            "goes on and later clips are sent too; this is not said again."
        )


def message_of(record: dict[str, Any]) -> dict[str, Any]:
    """Return what is sent of a clip.

    Parameters
    ----------
    record : dict
        Its line in ``clips.jsonl``.

    Returns
    -------
    dict
        The fields of `streaming.client.SentClip` but for ``sent_at``. ``beyond_floor_ms`` is the line's
        ``t_ms.emitted``.
    """
    fields = record | {"beyond_floor_ms": record["t_ms"]["emitted"]}
    return {name: fields[name] for name in (*REQUIRED, *OPTIONAL) if name in fields}


def open_outputs(outlet: str | None, osc: str | None, manifest: Manifest) -> Publishers:
    """Open what a session was asked for.

    Parameters
    ----------
    outlet : str or None
        Name of the LSL streams.
    osc : str or None
        ``HOST:PORT`` of an OSC receiver.
    manifest : Manifest
        Says which streams the bundle has.

    Raises
    ------
    UsageError
        If the name or the address cannot be used, or OSC is not installed.
    RtDecodeError
        If liblsl cannot be loaded.
    """
    outputs: list[Publisher] = []
    # Imported here, so that a session needs their packages only if it was asked for them.
    if osc is not None:
        from streaming.sinks.osc import OscSender

        outputs.append(OscSender(osc))
    if outlet is not None:
        from streaming.sinks.outlets import ClipOutlets

        outputs.append(ClipOutlets(outlet, manifest))
    return Publishers(outputs)
